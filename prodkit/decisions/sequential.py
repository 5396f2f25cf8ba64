"""Has the loss risen? A test that may be put every day, for years, and still raises a false alarm as seldom as it says.

A window's figure answers for one window; whoever looks at many of them will see a bad one. Here all days since the
champion was promoted are one sequence, and the alarm is a statement about their mean.
"""

from __future__ import annotations

import numpy as np
import pandas as pd

from prodkit.decisions.paired import running_mean
from prodkit.evidence import Estimate, Evidence, Outcome

__all__ = ["loss_rise", "rise_path"]

MIN_DAYS = 7
_USUAL = 0.4  # dependence of daily mean losses, as on the flights
_ABSURD = 1e100  # no loss is so large, and its square would not be a number


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
        margin: a rise up to this is tolerated; in units of the loss.
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
    found = running_mean(losses * rows, rows, confidence=(1 + confidence) / 2, horizon=horizon, usual=_USUAL)
    outcome: Outcome = "fail" if found.low > limit else "pass" if found.value <= limit else "inconclusive"
    note = f"mean loss of all {count} days since the promotion, valid at every look"
    estimate = Estimate(found.value, found.low, found.high, count, count)
    return Evidence.of(name, outcome, estimate, limit=limit, rung=3, note=note)


def rise_path(days: pd.DataFrame, *, confidence: float = 0.95, horizon: int = 45) -> pd.DataFrame:
    """The running mean loss with its interval after each day, as :func:`loss_rise` saw it then: mean, low, high.

    One row a day from the seventh on, with the index of ``days``.
    """
    losses, rows = (days[column].to_numpy(dtype=float) for column in ("loss", "n"))
    looks = range(MIN_DAYS, len(days) + 1)
    sums, half_error = losses * rows, (1 + confidence) / 2
    found = [
        running_mean(sums[:look], rows[:look], confidence=half_error, horizon=horizon, usual=_USUAL)
        for look in looks
    ]
    ends = [(each.value, each.low, each.high) for each in found]
    table = pd.DataFrame(
        ends, columns=["mean loss since promotion", "low", "high"], index=days.index[MIN_DAYS - 1 :]
    )
    return table.replace([np.inf, -np.inf], np.nan)
