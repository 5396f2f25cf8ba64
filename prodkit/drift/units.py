"""Conversions of units that explain why the values of a column moved."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import permutations

import numpy as np

from prodkit.drift.profiles import ColumnProfile

__all__ = ["Conversion", "conversion"]

MIN_ROWS = 20
DAY_ROWS = 8  # fewer have a spread of their own that is hardly that of the column
MIN_NUMBERS = 10  # distinct values that are compared; a few may match by chance
KNOWN, UNKNOWN = 0.6, 0.3  # share that must match after undoing, and that may match before
FAR = 4.0  # day-to-day deviations from the last window, which no month or week of weather reaches
FAR_SLIGHT = 8.0  # from every reference, for factors below 3: a season or a holiday may amount to one
NEAR = 2.0  # day-to-day deviations; what undoing the conversion leaves over may be nature
MUCH_NEARER = 3.0  # times
FROM_ZERO = 2.0  # standard deviations; nearer to zero nature, too, changes level and spread by one factor
CLEAR = 0.45  # logarithm of a factor, beyond which the spread tells it from none
AS_BEFORE = (
    0.25  # what undoing leaves of the level, in standard deviations, and of the logarithm of the spread
)


@dataclass(frozen=True, slots=True)
class Conversion:
    """What turned the true values into those that are shown: ``shown = slope * true + offset``.

    >>> Conversion("Fahrenheit to Celsius", 5 / 9, -160 / 9).undo(np.array([100.0])).round(6).tolist()
    [212.0]
    """

    name: str
    slope: float
    offset: float = 0.0

    def undo(self, shown: np.ndarray) -> np.ndarray:
        """The values before they were converted (any shape)."""
        return np.asarray((shown - self.offset) / self.slope)


def _known() -> Iterator[Conversion]:
    """Conversions between units of one quantity, and powers of ten; those that are the same share a line."""
    degrees = {"Celsius": (1.0, 0.0), "Fahrenheit": (9 / 5, 32.0), "Kelvin": (1.0, 273.15)}
    for (old, (a, b)), (new, (c, d)) in permutations(degrees.items(), 2):
        yield Conversion(f"{old} to {new}", c / a, d - b * c / a)
    quantities: list[dict[str, float]] = [
        {"mph (miles)": 1.0, "km/h (km)": 1.609344, "m/s": 0.44704, "knots": 1 / 1.150779},
        {"inches": 1.0, "cm": 2.54, "mm": 25.4},
        {"inHg": 1.0, "hPa": 33.86389},
        {"lb": 1.0, "kg": 0.45359237},
    ]
    for units in quantities:
        for (old, a), (new, b) in permutations(units.items(), 2):
            yield Conversion(f"{old} to {new}", b / a)
    for factor, example in {
        60: "minutes to seconds",
        3600: "hours to seconds",
        100: "shares to percent",
    }.items():
        yield Conversion(f"x to {factor} x, such as {example}", factor)
        yield Conversion(f"x to x / {factor}, such as {' to '.join(example.split(' to ')[::-1])}", 1 / factor)
    for factor in (10, 10**3, 10**4, 10**5, 10**6):
        yield Conversion(f"x to {factor} x", factor)
        yield Conversion(f"x to x / {factor}", 1 / factor)


CONVERSIONS = tuple(_known())


def conversion(before: Sequence[ColumnProfile], now: ColumnProfile) -> Conversion | None:
    """The conversion of units that explains far better than nature why ``now`` differs from ``before``.

    Where instruments and sources write few different numbers, these are the sign: they match those seen
    before only after a conversion is undone. Of other columns it is the days: their level and spread are
    far from those of the first reference, and near them after undoing.

    Args:
        before: profiles that were in order, the most recent one first.
        now: profile of the window, numeric.
    """
    if now.n < MIN_ROWS or not all(part.n >= MIN_ROWS for part in before):
        return None
    seen = np.unique([value for part in before for value in part.values or ()])
    values = np.array(list(now.values or ()))
    # Zero stays zero in most units and tells nothing.
    seen, values = seen[seen != 0], values[values != 0]
    if min(len(seen), len(values)) < MIN_NUMBERS or any(part.values is None for part in before):
        return _by_days(before, now)
    counts = np.array([(now.values or {})[value] for value in values])
    if _matching(values, counts, seen) > UNKNOWN:
        return None
    matches = {known: _matching(known.undo(values), counts, seen) for known in CONVERSIONS}
    likely = [known for known in CONVERSIONS if matches[known] >= max(KNOWN, max(matches.values()) - 0.1)]
    # Multiples of 0.1 match whatever multiples of 0.01 match: then the level tells.
    level, was = np.array(now.mean), before[0].mean
    return min(likely, key=lambda known: abs(float(known.undo(level)) - was), default=None)


def _matching(values: np.ndarray, counts: np.ndarray, grid: np.ndarray) -> float:
    """Share of rows whose value lies on the grid, or of distinct values if that is smaller.

    Values that meet at one point of the grid count once: dividing by a million makes all of them nearly 0.
    """
    # Values beyond all seen before may be nature's; but most must lie where they can be judged.
    inside = (values >= grid[0]) & (values <= grid[-1])
    if counts[inside].sum() < counts.sum() / 2:
        return 0.0
    values, counts = values[inside], counts[inside]
    place = np.clip(np.searchsorted(grid, values), 1, len(grid) - 1)
    place = place - (values - grid[place - 1] < grid[place] - values)
    gap = np.abs(values - grid[place])
    # 5% of the usual gap: a conversion rounded to a decimal still hits, chance hits once in ten.
    hit = gap <= 0.05 * float(np.median(np.diff(grid)))
    return float(min(counts[hit].sum() / counts.sum(), len(np.unique(place[hit])) / len(values)))


@dataclass(frozen=True, slots=True)
class _Days:
    """Level and log spread of a column's usual day, and by how much days deviate from these."""

    level: float
    log_spread: float
    level_sd: float
    log_spread_sd: float

    @classmethod
    def of(cls, column: ColumnProfile) -> _Days:
        some = column.block_n >= DAY_ROWS
        means, n = column.block_means[some], column.block_n[some]
        spreads = np.sqrt(column.block_m2s[some] / n)
        logs = np.log(spreads[spreads > 0])
        if not len(logs):
            return cls(math.nan, math.nan, math.nan, math.nan)
        return cls(float(np.median(means)), float(np.median(logs)), float(means.std()), float(logs.std()))

    def undone(self, known: Conversion) -> _Days:
        level = float(known.undo(np.array(self.level)))
        return _Days(level, self.log_spread - math.log(known.slope), math.nan, math.nan)


def _by_days(before: Sequence[ColumnProfile], now: ColumnProfile) -> Conversion | None:
    # Mostly zero: the median day says nothing of the unit.
    if any(part.zero > part.n / 2 for part in before):
        return None
    references, today = [_Days.of(part) for part in before], _Days.of(now)
    # A quiet week is no measure of how days differ, nor is a column without any difference at all.
    level_sd = max([part.level_sd for part in references] + [0.02 * part.sd for part in before])
    log_spread_sd = max([part.log_spread_sd for part in references] + [0.1])

    def distance(days: _Days, reference: _Days) -> float:
        level = (days.level - reference.level) / level_sd
        return math.hypot(level, (days.log_spread - reference.log_spread) / log_spread_sd)

    undone = {known: distance(today.undone(known), references[0]) for known in CONVERSIONS}
    best = min(undone, key=lambda known: undone[known])
    if best.offset == 0 and 1 / 3 < best.slope < 3:
        raw, far = min(distance(today, reference) for reference in references), FAR_SLIGHT
    else:
        raw, far = distance(today, references[0]), FAR
    if raw >= far and undone[best] <= min(NEAR, raw / MUCH_NEARER):
        return best
    return _by_moments(before, now)


def _by_moments(before: Sequence[ColumnProfile], now: ColumnProfile) -> Conversion | None:
    """Level and spread that have moved by one and the same factor, which nature leaves alone far from zero."""
    if any(not part.sd > 0 or abs(part.mean) < FROM_ZERO * part.sd for part in before) or not now.sd > 0:
        return None
    if min(abs(now.mean - part.mean) / part.sd for part in before) < 1:
        return None
    whole = max(before, key=lambda part: part.n)

    def distance(known: Conversion) -> float:
        level = abs(float(known.undo(np.array(now.mean))) - whole.mean) / whole.sd
        return math.hypot(level, math.log(now.sd / known.slope / whole.sd))

    best = min((known for known in CONVERSIONS if abs(math.log(known.slope)) > CLEAR), key=distance)
    return best if distance(best) <= AS_BEFORE else None
