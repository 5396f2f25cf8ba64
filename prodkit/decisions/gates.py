"""What a challenger, or an alternative to the champion, must show: each gate gives one line of evidence."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd
from scipy import stats

from prodkit.decisions.economy import posterior
from prodkit.decisions.paired import always_valid, difference
from prodkit.evidence import Estimate, Evidence, Outcome

__all__ = [
    "alternative",
    "at_most",
    "enough",
    "improvement",
    "known_classes",
    "not_inferior",
    "once",
    "share_at_most",
    "slices",
]

_FEW_UNKNOWN = 0.01
_POWER = 0.8
_SELDOM = 1e-4  # of each look at a share: a year of daily ones makes one in 27


def enough(
    name: str, losses: np.ndarray, blocks: np.ndarray, *, min_rows: int, min_blocks: int, rung: int = 3
) -> Evidence:
    """Are there labelled rows and days enough to judge by? ``inconclusive`` if not."""
    days = len(np.unique(blocks))
    outcome: Outcome = "pass" if len(losses) >= min_rows and days >= min_blocks else "inconclusive"
    note = f"{len(losses):,} labelled rows on {days} days; needed are {min_rows:,} rows and {min_blocks} days"
    return Evidence(name, outcome, value=len(losses), limit=min_rows, n=len(losses), rung=rung, note=note)


def improvement(
    name: str,
    before: np.ndarray,
    after: np.ndarray,
    *,
    blocks: np.ndarray,
    margin: float,
    confidence: float,
    seed: int,
) -> Evidence:
    """Does a challenger lose less than what it would replace, by more than a margin?

    Args:
        name: name of the evidence.
        before: (n,) loss of each row under the incumbent.
        after: (n,) loss of the same rows under the challenger.
        blocks: (n,) day of each row: days are resampled whole.
        margin: gain that the whole interval must exceed; negative allows a small loss (non-inferiority).
        confidence: of the two-sided interval.
        seed: of the bootstrap.

    Returns:
        ``pass`` when the interval lies above the margin, ``fail`` when below, else ``inconclusive``;
        ``error`` when a loss is not finite.
    """
    if broken := _broken(name, before, after, margin):
        return broken
    estimate = difference(before, after, blocks=blocks, confidence=confidence, seed=seed)
    outcome: Outcome = "inconclusive"
    if estimate.low > margin:
        outcome = "pass"
    elif estimate.high < margin:
        outcome = "fail"
    note = f"gain in skill of the challenger; {_smallest(estimate, confidence)}"
    return Evidence.of(name, outcome, estimate, limit=margin, rung=3, note=note)


def not_inferior(
    name: str,
    before: np.ndarray,
    after: np.ndarray,
    *,
    blocks: np.ndarray,
    limit: float,
    confidence: float,
    expected: float = 0.0,
) -> Evidence:
    """Is a challenger expected to lose no more than is tolerated against what it would replace?

    Args:
        name: name of the evidence.
        before: (n,) loss of each row under the incumbent, in skill.
        after: (n,) loss of the same rows under the challenger.
        blocks: (n,) day of each row.
        limit: gain that is the least, negative.
        confidence: of the interval.
        expected: gain that the ages of the two promise.

    Returns:
        ``fail`` when a gain below the limit is as probable as not, by :func:`prodkit.decisions.economy.posterior`;
        else ``pass``; ``error`` when a loss is not finite.
    """
    if broken := _broken(name, before, after, limit):
        return broken
    mean, deviation = posterior(before - after, blocks=blocks, expected=expected)
    half = deviation * stats.norm.ppf((1 + confidence) / 2)
    estimate = Estimate(mean, mean - half, mean + half, len(before), len(np.unique(blocks)))
    measured = float((before - after).mean())
    note = f"expected gain in skill of the challenger, after {measured:.2g} was measured"
    outcome: Outcome = "pass" if mean > limit else "fail"
    return Evidence.of(name, outcome, estimate, limit=limit, rung=3, note=note)


def _smallest(estimate: Estimate, confidence: float) -> str:
    """The smallest effect that as many rows show four times in five (Cohen 1988): what "could not tell" is about."""
    half = (estimate.high - estimate.low) / 2
    if not np.isfinite(half):
        return "nothing could be seen with so few days"
    student = stats.t(max(estimate.blocks - 1, 1))
    seen = half * (1 + student.ppf(_POWER) / student.ppf((1 + confidence) / 2))
    return f"{seen:.2g} would be seen four times in five"


def alternative(
    name: str,
    champion: np.ndarray,
    other: np.ndarray,
    *,
    blocks: np.ndarray,
    limit: float,
    confidence: float,
    look: int,
    note: str,
    horizon: int = 14,
    memory: float | None = None,
) -> Evidence:
    """Would something else have served the same rows better than the champion, by more than a limit?

    The interval stays valid however often one looks (see :func:`prodkit.decisions.paired.always_valid`), since this
    question is put every day.

    Returns:
        ``fail`` when the interval of the gain lies above the limit: a reason to act. ``pass`` when it lies
        below: the champion holds. Else ``inconclusive``; ``error`` when a loss is not finite.
    """
    if broken := _broken(name, champion, other, limit):
        return broken
    estimate = always_valid(
        champion, other, blocks=blocks, confidence=confidence, look=look, horizon=horizon, memory=memory
    )
    outcome: Outcome = "inconclusive"
    if estimate.low > limit:
        outcome = "fail"
    elif estimate.high <= limit:
        outcome = "pass"
    return Evidence.of(name, outcome, estimate, limit=limit, rung=3, note=note)


def once(
    name: str,
    champion: np.ndarray,
    other: np.ndarray,
    *,
    blocks: np.ndarray,
    limit: float,
    confidence: float,
    seed: int,
    note: str,
) -> Evidence:
    """The question of :func:`alternative`, put once and for all: only where another test has asked for it.

    Returns:
        ``fail`` when the interval lies above nought and the value above the limit; ``pass`` when the interval lies
        below the limit; else ``inconclusive``, and ``error`` when a loss is not finite.
    """
    if broken := _broken(name, champion, other, limit):
        return broken
    estimate = difference(champion, other, blocks=blocks, confidence=confidence, seed=seed)
    fails = estimate.low > 0 and estimate.value > limit
    outcome: Outcome = "fail" if fails else "pass" if estimate.high <= limit else "inconclusive"
    return Evidence.of(name, outcome, estimate, limit=limit, rung=3, note=note)


def slices(
    frame: pd.DataFrame,
    before: np.ndarray,
    after: np.ndarray,
    *,
    columns: Sequence[str],
    blocks: np.ndarray,
    min_rows: int,
    margin: float,
    confidence: float,
    seed: int,
    sure_rows: int = 0,
) -> list[Evidence]:
    """Does any level of these columns credibly get worse by more than a margin?

    The confidence holds for all slices together: they are tested from the worst on, each at the level that those
    still open share, until one withstands (Holm 1979).

    Returns:
        One line for each level with at least ``min_rows`` rows, the worst first: ``fail`` when its whole
        interval lies below minus ``margin``. Where none of it does: ``pass``. Between the two it could not be told,
        which the note says: ``inconclusive`` if it has ``sure_rows`` rows (and these are not nought), else ``pass``.
    """
    masks = {
        f"{column}={level}": (frame[column] == level).to_numpy()
        for column in columns
        for level in sorted(frame[column].dropna().unique(), key=str)
    }
    masks = {name: mask for name, mask in masks.items() if mask.sum() >= min_rows}
    found = [_broken(f"slice.{name}", before[mask], after[mask], -margin) for name, mask in masks.items()]
    broken = {item.name.removeprefix("slice."): item for item in found if item is not None}

    def estimated(name: str, level: float) -> Estimate:
        mask = masks[name]
        return difference(before[mask], after[mask], blocks=blocks[mask], confidence=level, seed=seed)

    def standing(name: str) -> float:
        alone = estimated(name, confidence)
        return (alone.value + margin) / max(alone.high - alone.value, 1e-300)

    lines = list(broken.values())
    open_ones = sorted((name for name in masks if name not in broken), key=standing)
    shared = len(open_ones)
    for name in open_ones:
        level = 1 - (1 - confidence) / shared
        estimate = estimated(name, level)
        fails, told = estimate.high < -margin, estimate.low > -margin
        matters = 0 < sure_rows <= estimate.n
        outcome: Outcome = "fail" if fails else "inconclusive" if matters and not told else "pass"
        shared = max(shared - 1, 1) if fails else shared
        unsure = "" if fails or told else "it could not be told whether it gets worse; "
        note = f"gain in skill in this slice; {unsure}{_smallest(estimate, level)}"
        lines.append(Evidence.of(f"slice.{name}", outcome, estimate, limit=-margin, rung=3, note=note))
    return sorted(lines, key=lambda item: (item.value is not None, item.value or 0.0))


def at_most(
    name: str, value: float | None, *, limit: float, n: int = 0, rung: int = 0, note: str = ""
) -> Evidence:
    """A budget: ``pass`` up to the limit, ``fail`` above it, ``inconclusive`` when it was not measured."""
    if value is None:
        return Evidence(name, "inconclusive", limit=limit, n=n, rung=rung, note=note or "not measured")
    outcome: Outcome = "pass" if value <= limit else "fail"
    return Evidence(name, outcome, value=value, limit=limit, n=n, rung=rung, note=note)


def share_at_most(
    name: str, count: int, *, n: int, limit: float, min_rows: int, rung: int = 0, note: str = ""
) -> Evidence:
    """A share of rows against a limit: ``fail`` only if it lies credibly above, which a few rows cannot show.

    The interval is that of Clopper & Pearson (1934), at a level that a year of daily looks does not use up.

    Returns:
        ``pass`` up to the limit; above it ``fail`` when the whole interval is and there are ``min_rows``, else
        ``inconclusive``.

    >>> share_at_most("errors", 1, n=3, limit=0.01, min_rows=500).outcome
    'inconclusive'
    """
    if n <= 0:
        return Evidence(name, "inconclusive", limit=limit, rung=rung, note=f"{note}: there are no rows")
    low = float(stats.beta.ppf(_SELDOM / 2, count, n - count + 1)) if count else 0.0
    high = float(stats.beta.ppf(1 - _SELDOM / 2, count + 1, n - count)) if count < n else 1.0
    outcome: Outcome = (
        "pass" if count / n <= limit else "fail" if low > limit and n >= min_rows else "inconclusive"
    )
    return Evidence(
        name, outcome, value=count / n, low=low, high=high, limit=limit, n=n, rung=rung, note=note
    )


def known_classes(name: str, unknown_rows: int, *, rows: int, rung: int = 0) -> list[Evidence]:
    """Labels of a class that no model knows: nothing where there are none, ``fail`` above one in a hundred.

    Such rows judge nobody; without this line, a target that has changed its meaning would pass unseen.
    """
    if not unknown_rows:
        return []
    share, note = unknown_rows / (rows + unknown_rows), "share of labels of a class that no model knows"
    return [at_most(name, share, limit=_FEW_UNKNOWN, n=rows + unknown_rows, rung=rung, note=note)]


def _broken(name: str, before: np.ndarray, after: np.ndarray, limit: float) -> Evidence | None:
    """Losses that no statistic may be made of."""
    if len(before) == 0 or len(before) != len(after):
        note = f"{len(before)} and {len(after)} losses: nothing to compare"
        return Evidence(name, "error", limit=limit, n=len(before), rung=3, note=note)
    bad = int((~(np.isfinite(before) & np.isfinite(after))).sum())
    if bad:
        return Evidence(
            name, "error", limit=limit, n=len(before), rung=3, note=f"{bad} losses are not finite"
        )
    return None
