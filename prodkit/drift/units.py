"""Columns that are not what they were: converted into another unit, or in each other's place."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import combinations, permutations
from typing import Any

import numpy as np

from prodkit.drift.profiles import ColumnProfile, Profile

__all__ = ["CONVERSIONS", "Conversion", "conversion", "fractions", "quantiles", "swaps"]

MIN_ROWS = 20  # below which nothing is compared
# Columns of few values are compared by these
WHOLE = 0.001  # share of fractions up to which a column holds whole numbers
FRACTIONS = 0.5  # and from which on it holds none
MIN_VALUES = 10  # distinct values that are compared; a few may match by chance
KNOWN, UNKNOWN = 0.6, 0.3  # share that must match after undoing, and that may match before
# Others by their whole distribution, in shares of rows (Kolmogorov-Smirnov)
SLIGHT, LARGE = 1.3, 3.0  # factors below the first are nature's, and below the second sometimes
MOVED, NEARLY_ALL = 0.3, 0.95  # must have moved, and suffices whatever nature does
MOVED_OFF = 0.12  # the same where an offset came, too, as nature does not bring one
NATURE = 2.0  # multiples of nature's swing that it must be in between
AGREE, SAMPLING = 0.02, 1.63  # that undoing may leave over, and what chance adds at 1%
# And, where the level moves with the seasons, by the swing of stretches of days
STRETCH_ROWS = 8  # fewer have a spread of their own that is hardly that of the column
FAR = 4.0  # swings from the last window
FAR_SLIGHT = 8.0  # swings from every reference, for factors that are not large
FROM_ZERO = 2.0  # spreads; nearer to zero a level has no ratio
NEAR, MUCH_NEARER = 2.0, 3.0  # swings that undoing may leave over; how many times nearer it must come
FITS, FITS_OFF = 0.22, 0.3  # logarithm by which the ratio may miss the factor; where an offset came, too
SHAPE = 0.5  # quartile ranges by which an outer quantile may differ from what it was
# Columns that have changed places
REVERSED = 0.9  # of the days, on which the larger column has become the smaller one
MIN_DAYS = 5  # of so many
APART, ALIKE = 0.25, 0.6  # spreads from a column's own past at least, from the other's at most
LEVELS_APART, LEVELS_ALIKE = 0.3, 0.15  # the same of levels, in total variation of their shares
NEARER = 0.5  # of the distance from its own past, at most, from the other's
_GRID = np.arange(1, 20) / 20


@dataclass(frozen=True, slots=True)
class Conversion:
    """What turned the true values into those that are shown: ``shown = slope * true + offset``.

    >>> round(Conversion("Fahrenheit to Celsius", 5 / 9, -160 / 9).undo(100.0), 6)
    212.0
    """

    name: str
    slope: float
    offset: float = 0.0

    def undo(self, shown: Any) -> Any:
        """The values before they were converted: a number, or an array of any shape."""
        return (shown - self.offset) / self.slope


def _conversions() -> Iterator[Conversion]:
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
    for factor, old, new in (
        (60, "minutes", "seconds"),
        (3600, "hours", "seconds"),
        (100, "shares", "percent"),
    ):
        yield Conversion(f"x to {factor} x, such as {old} to {new}", factor)
        yield Conversion(f"x to x / {factor}, such as {new} to {old}", 1 / factor)
    for factor in (10, 10**3, 10**4, 10**5, 10**6):
        yield Conversion(f"x to {factor} x", factor)
        yield Conversion(f"x to x / {factor}", 1 / factor)


CONVERSIONS = tuple(_conversions())


def quantiles(column: ColumnProfile, q: np.ndarray) -> np.ndarray:
    """Quantiles of a column as exactly as they are known: from its values, or else from its bins."""
    return column.quantile(q) if column.sketch is None else column.sketch.quantile(q)


def conversion(before: Sequence[ColumnProfile], now: ColumnProfile) -> Conversion | None:
    """The known conversion that explains far better than nature why the values differ; None if there is none."""
    if min(part.n for part in (now, *before)) < MIN_ROWS:
        return None
    seen = np.unique([value for part in before for value in part.exact or ()])
    values = np.array(list(now.exact or ()))
    # Zero stays zero in most units and tells nothing.
    seen, values = seen[seen != 0], values[values != 0]
    if min(len(seen), len(values)) >= MIN_VALUES and all(part.exact is not None for part in before):
        return _by_values(before, now, seen, values)
    if any(part.zero > part.n / 2 for part in before):  # the middle of the column says nothing of its unit
        return None
    return _by_distribution(before, now) or _by_stretches(before, now)


def fractions(before: Sequence[ColumnProfile], now: ColumnProfile) -> tuple[float, float] | None:
    """Share of fractions, now and before, in a column of whole numbers that are none any more; None otherwise."""
    shares = [part.fractional / max(part.n, 1) for part in (now, *before) if part.fractional is not None]
    if len(shares) <= len(before) or min(part.n for part in (now, *before)) < MIN_ROWS:
        return None
    return (shares[0], max(shares[1:])) if max(shares[1:]) <= WHOLE and shares[0] >= FRACTIONS else None


def _by_values(
    before: Sequence[ColumnProfile], now: ColumnProfile, seen: np.ndarray, values: np.ndarray
) -> Conversion | None:
    """Instruments and sources write few different numbers: these match earlier ones once a conversion is undone."""
    counts = np.array([(now.exact or {})[value] for value in values])
    if _matching(values, counts, seen) > UNKNOWN:
        return None
    matches = {known: _matching(known.undo(values), counts, seen) for known in CONVERSIONS}
    likely = [known for known in CONVERSIONS if matches[known] >= max(KNOWN, max(matches.values()) - 0.1)]
    # Multiples of 0.1 match whatever multiples of 0.01 match: then the level tells.
    return min(likely, key=lambda known: abs(known.undo(now.mean) - before[0].mean), default=None)


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
    # 5% of the usual gap: a conversion rounded to a decimal still hits, chance hits once in ten.
    hit = np.abs(values - grid[place]) <= 0.05 * float(np.median(np.diff(grid)))
    return float(min(counts[hit].sum() / counts.sum(), len(np.unique(place[hit])) / len(values)))


def _by_distribution(before: Sequence[ColumnProfile], now: ColumnProfile) -> Conversion | None:
    """The distribution is another one, and once a conversion is undone it is the old one throughout."""
    points = quantiles(now, _GRID)
    shares = _below(now, points)

    def gap(reference: ColumnProfile, x: np.ndarray) -> float:
        return float(np.abs(_below(reference, x) - shares).max())

    raw = min(gap(part, points) for part in before)
    chance = SAMPLING * math.sqrt(1 / now.n + 1 / max(part.n for part in before))
    nature = min(NEARLY_ALL, NATURE * max(_swing(part, now.n) for part in before))
    left = {known: min(gap(part, known.undo(points)) for part in before) for known in CONVERSIONS}
    for known in sorted(left, key=lambda known: left[known]):
        moved = MOVED_OFF if known.offset else MOVED
        clear = abs(math.log(known.slope)) >= math.log(SLIGHT)
        clear = clear and (known.offset != 0 or _ratio_fits(before, now, known))
        if clear and raw >= max(moved, nature) and left[known] <= min(AGREE + chance, raw / MUCH_NEARER):
            return known
    return None


def _ratio_fits(before: Sequence[ColumnProfile], now: ColumnProfile, known: Conversion) -> bool:
    """Whether the middle of the column, with its uncertainty and a twentieth, is what it was once undone."""
    for part in before:
        apart = SAMPLING * math.sqrt(1 / now.n + 1 / part.n) * 0.8  # 2.6 standard errors of a share of a half
        ends = known.undo(quantiles(now, np.array([max(0.0, 0.5 - apart), min(1.0, 0.5 + apart)])))
        middle, slack = float(quantiles(part, np.array([0.5]))[0]), 0.05 * float(np.abs(ends).max())
        if ends[0] - slack <= middle <= ends[1] + slack:
            return True
    return False


def _below(column: ColumnProfile, x: np.ndarray) -> np.ndarray:
    """Share of a column's values below each x, of those equal to it the half."""
    if column.sketch is not None:
        return column.sketch.below(x)
    return np.asarray(np.interp(x, *_ends(column, column.counts)))


def _ends(column: ColumnProfile, counts: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The ends of a column's bins, and the share of these counts (bins,) below each."""
    ends = np.clip([column.min, *column.bins.cuts, column.max], column.min, column.max)
    return ends, np.concatenate([[0.0], np.cumsum(counts) / max(1, counts.sum())])


def _stretches(column: ColumnProfile, rows: float) -> np.ndarray:
    """Counts of stretches of days with so many rows each, (stretches, bins)."""
    filled = column.block_counts[column.block_n > 0, :-1]
    place = np.minimum(
        np.cumsum(filled.sum(axis=1)) / max(rows, 1), max(1, column.n // max(1, int(rows))) - 0.5
    )
    groups = place.astype(int)
    return np.array([filled[groups == group].sum(axis=0) for group in np.unique(groups)])


def _swing(column: ColumnProfile, rows: int) -> float:
    """Kolmogorov-Smirnov distance by which stretches of so many rows, or thirds, differ from the whole, at most."""
    whole, shares = column.counts / max(1, column.n), []
    for counts in _stretches(column, min(rows, column.n / 3)):
        shares.append(np.abs(np.cumsum(counts / max(1, counts.sum()) - whole)).max())
    return float(max(shares, default=0.0))


def _by_stretches(before: Sequence[ColumnProfile], now: ColumnProfile) -> Conversion | None:
    """Far from level and spread of the usual days, near them after undoing, by a ratio that fits, in the old shape."""
    usual = np.array([_usual(part) for part in before])  # level, spread, and the swings of both
    low, level, high = quantiles(now, np.array([0.25, 0.5, 0.75]))
    if not high > low or not np.isfinite(usual).all():
        return None
    chance = 1.2 / math.sqrt(now.n)
    spreads = np.exp(usual[:, 1])
    swing = np.array([max(usual[:, 2].max(), (0.02 * spreads).max()), max(usual[:, 3].max(), 0.1)])
    swing = np.hypot(swing, [chance * spreads.max(), chance])
    day = np.array([level, math.log(high - low)])

    def distance(shown: np.ndarray, reference: np.ndarray) -> float:
        return math.hypot(*((shown - reference[:2]) / swing))

    def undone(known: Conversion) -> np.ndarray:
        return np.array([known.undo(level), day[1] - math.log(known.slope)])

    clear = [known for known in CONVERSIONS if abs(math.log(known.slope)) >= math.log(SLIGHT)]
    best = min(clear, key=lambda known: distance(undone(known), usual[0]))
    large = best.offset != 0 or not 1 / LARGE < best.slope < LARGE
    raw = distance(day, usual[0]) if large else min(distance(day, each) for each in usual)
    left = distance(undone(best), usual[0])
    if raw < (FAR if large else FAR_SLIGHT) or left > min(NEAR, raw / MUCH_NEARER):
        return None
    tolerated = (FITS_OFF if best.offset else FITS) + chance
    off = [abs(undone(best)[1] - usual[0, 1])]
    if best.offset == 0 and abs(usual[0, 0]) > FROM_ZERO * spreads[0]:
        off.append(abs(math.log(max(undone(best)[0] / usual[0, 0], 1e-300))))
    return (
        best
        if max(off) <= tolerated and _shapes_agree(before[0], now, tolerated=SHAPE + 3 * chance)
        else None
    )


def _usual(column: ColumnProfile) -> tuple[float, float, float, float]:
    """Level and log spread (quartile range) of a column, and the deviation of both between stretches of its days."""
    low, level, high = quantiles(column, np.array([0.25, 0.5, 0.75]))
    levels, spreads = [], []
    for counts in _stretches(column, STRETCH_ROWS):
        if counts.sum() < STRETCH_ROWS:
            continue
        ends, shares = _ends(column, counts)
        first, middle, last = np.interp([0.25, 0.5, 0.75], shares, ends)
        levels.append(middle)
        spreads += [math.log(last - first)] if last > first else []
    if not spreads or not high > low:
        return math.nan, math.nan, math.nan, math.nan
    return float(level), math.log(high - low), float(np.std(levels)), float(np.std(spreads))


def _shapes_agree(before: ColumnProfile, now: ColumnProfile, *, tolerated: float) -> bool:
    """Whether outer quantiles lie where they did, in quartile ranges from the median: conversions leave that alone."""
    sides = []
    for column in (before, now):
        tails = quantiles(column, np.array([0.1, 0.25, 0.5, 0.75, 0.9]))
        sides.append((tails - tails[2]) / max(tails[3] - tails[1], 1e-300))
    return bool((np.abs(sides[0] - sides[1]) <= tolerated * np.maximum(1, np.abs(sides[0]))).all())


def swaps(references: Sequence[Profile], current: Profile) -> list[tuple[str, str]]:
    """Pairs of columns that look like one another's past, and no longer like their own.

    Only columns far from their own past are compared with others: of a wide table, a few.
    """
    sides = [*references, current]
    names = [
        name
        for name in current.columns
        if all(name in side.columns and side.columns[name].n >= MIN_ROWS for side in sides)
    ]
    numbers, levels = (
        [name for name in names if current.columns[name].kind == kind] for kind in ("numeric", "categorical")
    )
    return [*_swapped_numbers(references, current, numbers), *_swapped_levels(references, current, levels)]


def _swapped_numbers(
    references: Sequence[Profile], current: Profile, names: Sequence[str]
) -> Iterator[tuple[str, str]]:
    """Pairs by level and spread, of which the larger one has become the smaller one, too, as no season does.

    Levels are medians, and spreads quartile ranges, or means and deviations where more than half of the rows are equal.
    """
    if not names:
        return
    sides = (current, *references)
    by_rank = {name: all(_has_spread(side.columns[name]) for side in sides) for name in names}
    now, *past = (
        np.array([_level(side.columns[name], by_rank=by_rank[name]) for name in names]) for side in sides
    )

    def distance(to: np.ndarray, of: np.ndarray) -> np.ndarray:
        level = np.abs(of[..., 0] - to[..., 0]) / to[..., 1]
        return np.asarray(np.maximum(level, np.abs(np.log(of[..., 1] / to[..., 1]))))

    moved = np.all([distance(was, now) >= APART for was in past], axis=0)
    names, now = np.array(names, dtype=object)[moved].tolist(), now[moved]
    near = np.ones((len(names), len(names)), dtype=bool)  # each column now to each of the past
    for was in (side[moved] for side in past):
        near &= distance(was, now[:, None]) <= np.minimum(ALIKE, NEARER * distance(was, now))
    for first, second in np.argwhere(np.triu(near & near.T, 1)):
        pair = names[first], names[second]
        if all(_turned_round(reference, current, pair) for reference in references):
            yield pair


def _has_spread(column: ColumnProfile) -> bool:
    if column.sketch is None:
        return False
    low, high = quantiles(column, np.array([0.25, 0.75]))
    return bool(high > low)


def _level(column: ColumnProfile, *, by_rank: bool) -> tuple[float, float]:
    """Level and spread."""
    if not by_rank:
        return column.mean, max(column.sd, 1e-300)
    low, middle, high = quantiles(column, np.array([0.25, 0.5, 0.75]))
    return float(middle), float(high - low) / 1.349  # of a normal column its deviation


def _turned_round(reference: Profile, current: Profile, pair: tuple[str, str]) -> bool:
    """Whether the column that was larger on nearly all days is now smaller on nearly all."""
    gaps = []  # on each day that has both
    for side in (reference, current):
        one, two = (side.columns[name] for name in pair)
        both = (one.block_n > 0) & (two.block_n > 0)
        gaps.append(one.block_means[both] - two.block_means[both])
    before, after = gaps
    if not len(before) or not len(after):
        return False
    sign = np.sign(np.median(before))
    usual, turned = (before * sign > 0).mean(), (after * sign < 0).mean()
    return bool((len(after) >= MIN_DAYS or usual == 1.0) and min(usual, turned) >= REVERSED)


def _swapped_levels(
    references: Sequence[Profile], current: Profile, names: Sequence[str]
) -> Iterator[tuple[str, str]]:
    """Pairs by the shares of their levels."""
    sides = ({name: side.columns[name] for name in names} for side in (current, *references))
    now, *past = (
        {name: dict(zip(each.bins.names, each.counts / each.n, strict=True)) for name, each in side.items()}
        for side in sides
    )
    moved = [name for name in names if all(_variation(was[name], now[name]) >= LEVELS_APART for was in past)]
    for one, two in combinations(moved, 2):
        own = [min(_variation(was[one], now[one]), _variation(was[two], now[two])) for was in past]
        other = [max(_variation(was[two], now[one]), _variation(was[one], now[two])) for was in past]
        if all(far <= min(LEVELS_ALIKE, NEARER * near) for far, near in zip(other, own, strict=True)):
            yield one, two


def _variation(a: dict[str, float], b: dict[str, float]) -> float:
    """Total variation distance of two sets of shares."""
    return math.fsum(abs(a.get(name, 0.0) - b.get(name, 0.0)) for name in {*a, *b}) / 2
