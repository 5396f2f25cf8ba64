"""What a challenger, or an alternative to the champion, must show: one rule a gate, for new findings and old."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import timedelta
from math import inf
from typing import Any

import numpy as np
import pandas as pd
from scipy import stats

from prodkit.decisions.economy import posterior
from prodkit.decisions.paired import always_valid, difference
from prodkit.evidence import Estimate, Evidence, Outcome
from prodkit.params import ProjectParams

__all__ = [
    "Held",
    "alternative",
    "at_most",
    "enough",
    "held_against",
    "improvement",
    "judged",
    "known_classes",
    "limits_of",
    "not_inferior",
    "once",
    "share_at_most",
    "slices",
]

_FEW_UNKNOWN = 0.01
_POWER = 0.8
_SELDOM = 1e-4  # of each look at a share: a year of daily ones makes one in 27


# Of a finding, the limit that the parameter gave then, and the one that it gives now: what the finding comes to
# now, or None where its numbers do not tell.
Rule = Callable[[Evidence, float, float], Outcome | None]


@dataclass(frozen=True)
class Held:
    """How a finding depends on a parameter.

    Attributes:
        parameter: its name; of a mapping, with the key after a dot.
        comes_to: the rule of the gate that makes the finding, told by its numbers alone.
        scale: what the parameter is multiplied with to be the limit.
        exact: whether the recorded limit is the parameter's; else it may lie above it.
    """

    parameter: str
    comes_to: Rule
    scale: float = 1.0
    exact: bool = True

    def limit(self, params: ProjectParams) -> float | None:
        """The limit that these parameters give; None if they give none."""
        name, _, key = self.parameter.partition(".")
        value: Any = getattr(params, name)
        if key:
            value = value.get(key)
        if isinstance(value, timedelta):
            value = value / timedelta(days=1)
        return None if value is None else self.scale * float(value)


def held_against(notebook: str, name: str) -> Held | None:
    """The parameter that a finding is held against; None if there is none, or it is not known."""
    table = _HELD.get(notebook, {})
    return table.get(name) or table.get(f"{name.split('.')[0]}.*")


def limits_of(notebook: str) -> set[str]:
    """The parameters of a notebook that findings are held against; of a mapping, its name."""
    return {held.parameter.split(".")[0] for held in _HELD.get(notebook, {}).values()}


def _alternative(item: Evidence, then: float, now: float) -> Outcome | None:
    """What was held back though ahead stays so, or is open."""
    if _low(item) > now:
        held_back = item.outcome == "inconclusive" and _low(item) > then
        return "fail" if not held_back else "inconclusive" if now >= then else None
    return "pass" if _high(item) <= now else "inconclusive"


def _once(item: Evidence, _: float, now: float) -> Outcome:
    if _low(item) > 0 and item.value is not None and item.value > now:
        return "fail"
    return "pass" if _high(item) <= now else "inconclusive"


def _improvement(item: Evidence, _: float, now: float) -> Outcome:
    if _low(item) > now:
        return "pass"
    return "fail" if _high(item) < now else "inconclusive"


def _not_inferior(item: Evidence, _: float, now: float) -> Outcome:
    return "pass" if item.value is not None and item.value > now else "fail"


def _at_most(item: Evidence, _: float, now: float) -> Outcome:
    if item.value is None:
        return "inconclusive"
    return "pass" if item.value <= now else "fail"


def _share(item: Evidence, then: float, now: float) -> Outcome | None:
    """A share of rows: as :func:`_at_most`, or with an interval that must lie above the limit, if there is one."""
    if item.value is None or item.value <= now or item.low is None:
        return _at_most(item, then, now)
    if item.low <= now:
        return "inconclusive"
    if item.outcome == "fail":
        return "fail"
    return "inconclusive" if item.low > then else None  # too few rows, or not known whether they are enough


def _enough(item: Evidence, then: float, now: float) -> Outcome | None:
    """Where there were rows enough and it was not passed, days were lacking: they are not in the numbers."""
    if item.value is None or item.value < now:
        return "inconclusive"
    if item.outcome == "pass":
        return "pass"
    return "inconclusive" if item.value >= then else None


def _slice(item: Evidence, then: float, now: float) -> Outcome | None:
    """How wide an interval is depends on which other slices fail."""
    fails = _high(item) < now
    if fails and item.outcome == "fail" and now < then:
        return None
    if fails or _low(item) > now:
        return "fail" if fails else "pass"
    if item.outcome == "fail" or (item.outcome == "pass" and _low(item) > then):
        return None  # whether so many rows must be sure is not in the numbers
    return item.outcome


def _calibration(item: Evidence, then: float, now: float) -> Outcome | None:
    """Held against the parameter, the incumbent's error or chance, whatever is largest: that is the recorded limit."""
    largest = inf if item.limit is None else item.limit
    low = _low(item)
    if low <= now:
        return "pass"
    if now >= largest or low > largest:
        return "fail"
    return "pass" if largest > then else None  # the limit was not the parameter's, so it stays


def _low(item: Evidence) -> float:
    return -inf if item.low is None else item.low


def _high(item: Evidence) -> float:
    return inf if item.high is None else item.high


def _since(item: Evidence, _: float, now: float) -> Outcome:
    return "pass" if item.value is not None and item.value >= now else "inconclusive"


def judged(notebook: str, item: Evidence) -> Evidence:
    """A finding with the outcome that the rule of its gate makes of its numbers."""
    held = held_against(notebook, item.name)
    assert held is not None
    return _by(held.comes_to, item)


def _by(rule: Rule, item: Evidence) -> Evidence:
    if item.outcome == "error" or item.limit is None:
        return item
    return replace(item, outcome=rule(item, item.limit, item.limit) or "inconclusive")


def enough(
    name: str, losses: np.ndarray, blocks: np.ndarray, *, min_rows: int, min_blocks: int, rung: int = 3
) -> Evidence:
    """Are there labelled rows and days enough to judge by? ``inconclusive`` if not."""
    days = len(np.unique(blocks))
    outcome: Outcome = "pass" if days >= min_blocks else "inconclusive"
    note = f"{len(losses):,} labelled rows on {days} days; needed are {min_rows:,} rows and {min_blocks} days"
    item = Evidence(name, outcome, value=len(losses), limit=min_rows, n=len(losses), rung=rung, note=note)
    return _by(_enough, item)


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
    note = f"gain in skill of the challenger; {_smallest(estimate, confidence)}"
    return _by(_improvement, Evidence.of(name, "fail", estimate, limit=margin, rung=3, note=note))


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
    return _by(_not_inferior, Evidence.of(name, "fail", estimate, limit=limit, rung=3, note=note))


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

    The interval stays valid however often one looks (see :func:`prodkit.decisions.paired.always_valid`): ``fail``, when
    it lies above the limit, is a reason to act; below it the champion holds; ``error`` when a loss is not finite.
    """
    if broken := _broken(name, champion, other, limit):
        return broken
    estimate = always_valid(
        champion, other, blocks=blocks, confidence=confidence, look=look, horizon=horizon, memory=memory
    )
    return _by(_alternative, Evidence.of(name, "fail", estimate, limit=limit, rung=3, note=note))


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
    return _by(_once, Evidence.of(name, "fail", estimate, limit=limit, rung=3, note=note))


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
        untold: Outcome = "inconclusive" if 0 < sure_rows <= estimate.n else "pass"
        unsure = "it could not be told whether it gets worse; " * (estimate.low <= -margin <= estimate.high)
        note = f"gain in skill in this slice; {unsure}{_smallest(estimate, level)}"
        item = Evidence.of(f"slice.{name}", untold, estimate, limit=-margin, rung=3, note=note)
        lines.append(_by(_slice, item))
        shared = max(shared - 1, 1) if lines[-1].outcome == "fail" else shared
    return sorted(lines, key=lambda item: (item.value is not None, item.value or 0.0))


def at_most(
    name: str, value: float | None, *, limit: float, n: int = 0, rung: int = 0, note: str = ""
) -> Evidence:
    """A budget: ``pass`` up to the limit, ``fail`` above it, ``inconclusive`` when it was not measured."""
    note = note or ("not measured" if value is None else "")
    return _by(_at_most, Evidence(name, "fail", value=value, limit=limit, n=n, rung=rung, note=note))


def share_at_most(
    name: str, count: int, *, n: int, limit: float, min_rows: int, rung: int = 0, note: str = ""
) -> Evidence:
    """A share of rows against a limit: ``fail`` only if it lies credibly above, which a few rows cannot show.

    The interval is that of Clopper & Pearson (1934), at a level that a year of daily looks does not use up. With fewer
    than ``min_rows`` rows nothing fails.

    >>> share_at_most("errors", 1, n=3, limit=0.01, min_rows=500).outcome
    'inconclusive'
    """
    if n <= 0:
        return Evidence(name, "inconclusive", limit=limit, rung=rung, note=f"{note}: there are no rows")
    low = float(stats.beta.ppf(_SELDOM / 2, count, n - count + 1)) if count else 0.0
    high = float(stats.beta.ppf(1 - _SELDOM / 2, count + 1, n - count)) if count < n else 1.0
    enough_rows: Outcome = "fail" if n >= min_rows else "inconclusive"
    ends: dict[str, Any] = {"value": count / n, "low": low, "high": high}
    return _by(_share, Evidence(name, enough_rows, **ends, limit=limit, n=n, rung=rung, note=note))


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


def _certainty(item: Evidence, then: float, now: float) -> Outcome:
    """A probability, beyond which something is done; what was held back though beyond it stays so."""
    return "inconclusive" if item.outcome == "inconclusive" else _at_most(item, then, now)


_CONTEST = {
    "cooldown": Held("cool_down", _since),
    "gain.baseline": Held("margin", _improvement),
    "gain.champion": Held("tolerated_loss", _not_inferior, scale=-1.0),
    "labels": Held("min_rows", _enough),
    "slice.*": Held("slice_margin", _slice, scale=-1.0),
    "calibration": Held("calibration_limit", _calibration, exact=False),
    "budget.size": Held("size_limit_mb", _at_most),
    "budget.latency": Held("latency_limit_ms", _at_most),
    "budget.memory": Held("memory_limit_mb", _at_most),
}
_LADDER = {
    "cooldown": Held("cool_down", _since),
    "health.champion": Held("slo.error_share", _share),
    "health.predecessor": Held("slo.error_share", _share),
    "health.latency_p99_ms": Held("slo.latency_p99_ms", _at_most),
    "health.champion_latency": Held("slo.latency_p99_ms", _at_most),
    "health.predecessor_latency": Held("slo.latency_p99_ms", _at_most),
    "health.degraded_share": Held("slo.degraded_share", _at_most),
    "economy.predecessor": Held("rollback_certainty", _certainty),
    "performance.labels": Held("min_rows", _enough),
    "performance.predecessor": Held("rollback_margin", _alternative),
    "performance.predecessor_ranking": Held("ranking_margin", _alternative),
    "performance.challenger": Held("retrain_cost", _alternative),
    "performance.challenger_ranking": Held("ranking_margin", _alternative),
    "performance.challenger_since": Held("retrain_cost", _alternative),
    "performance.predecessor_instead": Held("rollback_margin", _once),
    "performance.challenger_over_predecessor": Held("retrain_cost", _once),
}
_HELD: Mapping[str, Mapping[str, Held]] = {"validate": _CONTEST, "rollback": _LADDER}
