"""Has the loss risen? A test that may be put every day, for years, and still raises a false alarm as seldom as it says.

A window's figure answers for one window; whoever looks at many of them will see a bad one. Here all days since the
champion was promoted are one sequence, and the alarm is a statement about their mean.
"""

from __future__ import annotations

import numpy as np
import pandas as pd

from prodkit.decisions.paired import running_mean
from prodkit.evidence import Estimate, Evidence, Outcome

__all__ = ["dependence", "loss_rise", "rise_path"]

MIN_DAYS = 7
_ABSURD = 1e100  # no loss is so large, and its square would not be a number
_MOST = 0.9  # dependence beyond that leaves nothing to go by
_USUAL = 0.4  # dependence of daily mean losses, as on the flights
_PRIOR_DAYS = 20  # that this counts for


def dependence(losses: np.ndarray) -> float:
    """How much a day's mean loss takes after that of the day before: the lag-one autocorrelation, 0 to .9.

    Its bias, (1 + 3 phi) / n (Marriott & Pope 1954; Kendall 1954), is taken out, and as many as twenty days' worth of
    a usual value is mixed in, since a few days say little of it. A step in the mean raises it: that delays an alarm
    and causes none.

    >>> dependence(np.tile([1.0, -1.0], 500))
    0.0
    """
    if len(losses) < 3:
        return _USUAL
    rest = losses - losses.mean()
    spread = float(rest @ rest)
    found = float(rest[1:] @ rest[:-1]) / spread + (1 + 3 * _USUAL) / len(losses) if spread > 0 else 0.0
    mixed = (len(losses) * found + _PRIOR_DAYS * _USUAL) / (len(losses) + _PRIOR_DAYS)
    return float(np.clip(mixed, 0.0, _MOST))


def loss_rise(
    days: pd.DataFrame, *, reference: Estimate, margin: float, confidence: float = 0.95, horizon: int = 45
) -> Evidence:
    """Does the champion lose more than it was known to lose, by more than a margin?

    Half of the allowed error is spent on the reference, whose 95% interval ends at ``reference.high``; the other half
    on the days: a normal-mixture confidence sequence (Wang & Ramdas 2025) of their mean, after the dependence
    of a day on the day before has been taken out of them. It may be looked at after each day.

    Args:
        days: one row a day in order, columns ``loss`` (mean) and ``n`` (rows); only days all of whose labels are known.
        reference: the mean loss that was measured before the champion served, with its interval.
        margin: a rise up to this is nobody's business; in units of the loss.
        confidence: of all looks together.
        horizon: days at which it shall be most sensitive.

    Returns:
        ``fail`` when the whole interval lies above reference and margin, ``pass`` when its mean does not lie above
        reference and margin, else ``inconclusive``; so, too, with fewer than seven days. ``error`` when a loss or the
        reference is not finite.
    """
    name, count = "performance.since", len(days)
    limit = reference.high + margin
    losses, rows = (days[column].to_numpy(dtype=float) for column in ("loss", "n"))
    finite = np.isfinite([limit, margin]).all() and np.isfinite(rows).all() and (rows > 0).all()
    if not (finite and (np.abs(losses) < _ABSURD).all()):
        note = "a daily loss, or the reference, is not a number"
        return Evidence(name, "error", n=count, rung=3, note=note)
    if count < MIN_DAYS:
        note = f"{count} days of known losses since the promotion; needed are {MIN_DAYS}"
        return Evidence(name, "inconclusive", limit=limit, n=count, rung=3, note=note)
    found = _sequence(losses, rows, confidence=confidence, horizon=horizon)
    outcome: Outcome = "fail" if found.low > limit else "pass" if found.value <= limit else "inconclusive"
    note = f"mean loss of all {count} days since the promotion, valid at every look"
    ends = {"low": found.low, "high": found.high}
    return Evidence(name, outcome, value=found.value, limit=limit, n=count, rung=3, note=note, **ends)


def _sequence(losses: np.ndarray, rows: np.ndarray, *, confidence: float, horizon: int) -> Estimate:
    """The mean of all days, with its interval, from which the dependence of neighbours has been taken out."""
    phi, sums = dependence(losses), losses * rows
    mean = float(sums.sum() / rows.sum())
    whitened = (part[1:] - phi * part[:-1] for part in (sums, rows))
    half_error = (1 + confidence) / 2
    rest = running_mean(*whitened, confidence=half_error, horizon=horizon)
    if not np.isfinite(rest.low):
        return Estimate(mean, -np.inf, np.inf, int(rows.sum()), len(rows))
    low, high = min(rest.low, mean), max(rest.high, mean)
    return Estimate(mean, low, high, int(rows.sum()), len(rows))


def rise_path(days: pd.DataFrame, *, confidence: float = 0.95, horizon: int = 45) -> pd.DataFrame:
    """The running mean loss with its interval after each day, as :func:`loss_rise` saw it then: mean, low, high.

    One row a day from the seventh on, with the index of ``days``.
    """
    losses, rows = (days[column].to_numpy(dtype=float) for column in ("loss", "n"))
    looks = range(MIN_DAYS, len(days) + 1)
    settings = {"confidence": confidence, "horizon": horizon}
    found = [_sequence(losses[:look], rows[:look], **settings) for look in looks]  # type: ignore[arg-type]
    ends = [(each.value, each.low, each.high) for each in found]
    table = pd.DataFrame(
        ends, columns=["mean loss since promotion", "low", "high"], index=days.index[MIN_DAYS - 1 :]
    )
    return table.replace([np.inf, -np.inf], np.nan)
