"""Two columns that have changed places."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from itertools import chain, combinations

import numpy as np

from prodkit.drift.profiles import ColumnProfile, Profile
from prodkit.evidence import Evidence

__all__ = ["swaps"]

_MIN_ROWS = 20
_MANY_DAYS = 5
_REVERSED = 0.9  # of the days, on which the larger column has become the smaller one
_APART, _NEARER, _NEAR = (
    0.25,
    0.5,
    0.6,
)  # standard deviations from itself; part of that from the other; at most
_LEVELS_APART, _LEVELS_NEAR = 0.3, 0.15  # of shares of levels: total variation


def swaps(references: Sequence[Profile], current: Profile) -> Iterator[Evidence]:
    """A line for each of two columns that look like one another's past, and no longer like their own.

    Of numbers, which of the two is the larger must have turned round, too, on nearly all days: an exchange does
    that and a season does not. Named ``contract.<column>.swapped``.
    """
    kinds = {
        kind: [n for n, c in current.columns.items() if c.kind == kind] for kind in ("numeric", "categorical")
    }
    for kind, swapped in (("numeric", _numbers), ("categorical", _levels)):
        for pair in combinations(kinds[kind], 2):
            now = [current.columns[name] for name in pair]
            before = [[part.columns[name] for name in pair] for part in references]
            if min(part.n for part in chain(now, *before)) < _MIN_ROWS:
                continue
            if all(swapped(was, now) for was in before):
                for name, other in (pair, pair[::-1]):
                    note = f"{name} looks like {other} did, and {other} like {name}: they have changed places"
                    yield Evidence(f"contract.{name}.swapped", "fail", n=current.rows, rung=1, note=note)


def _numbers(was: Sequence[ColumnProfile], now: Sequence[ColumnProfile]) -> bool:
    before, after = _gaps(*was), _gaps(*now)
    if not len(before) or not len(after):
        return False
    side = np.sign(np.median(before))
    kept, turned = (before * side > 0).mean(), (after * side < 0).mean()
    enough = len(after) >= _MANY_DAYS or kept == 1.0
    return bool(enough and min(kept, turned) >= _REVERSED) and _crossed(was, now)


def _gaps(a: ColumnProfile, b: ColumnProfile) -> np.ndarray:
    """By how much the mean of one lies above that of the other, on each day that has both."""
    if not np.array_equal(a.blocks, b.blocks):
        return np.array([])
    both = (a.block_n > 0) & (b.block_n > 0)
    return np.asarray(a.block_means[both] - b.block_means[both])


def _crossed(was: Sequence[ColumnProfile], now: Sequence[ColumnProfile]) -> bool:
    """Whether each lies nearer to the other's past than to its own, by far.

    Means and spreads are compared, and not quantiles, which are as coarse as the bins of the column that was.
    """

    def distance(of: int, to: int) -> float:
        spread = max(was[to].sd, 1e-300)
        level = abs(now[of].mean - was[to].mean) / spread
        return max(level, abs(math.log(max(now[of].sd, 1e-300) / spread)))

    own, other = (distance(0, 0), distance(1, 1)), (distance(0, 1), distance(1, 0))
    return all(own[k] >= _APART and other[k] <= min(_NEAR, _NEARER * own[1 - k]) for k in (0, 1))


def _levels(was: Sequence[ColumnProfile], now: Sequence[ColumnProfile]) -> bool:
    past, present = ([_shares(part) for part in parts] for parts in (was, now))
    own = min(_variation(past[k], present[k]) for k in (0, 1))
    other = max(_variation(past[1 - k], present[k]) for k in (0, 1))
    return own >= _LEVELS_APART and other <= min(_LEVELS_NEAR, _NEARER * own)


def _shares(column: ColumnProfile) -> dict[str, float]:
    return {name: int(n) / column.n for name, n in zip(column.bins.names, column.counts, strict=True) if n}


def _variation(a: dict[str, float], b: dict[str, float]) -> float:
    """Total variation distance of two sets of shares."""
    return math.fsum(abs(a.get(name, 0.0) - b.get(name, 0.0)) for name in {*a, *b}) / 2
