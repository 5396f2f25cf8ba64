"""Is the input itself broken? The first rung of the evidence ladder.

Nature changes, too, so each check asks for more than change: for something that the days of the training
rows and of the last clean window have never come near. A false hold costs more than a fault that shows
elsewhere; where the two cannot be told apart, nothing is reported.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import combinations, permutations
from typing import Any

import numpy as np

from prodkit.drift.profiles import ColumnProfile, Profile
from prodkit.evidence import Evidence, Outcome

__all__ = ["CONVERSIONS", "Conversion", "Limits", "breaks", "timeless_evidence"]

MIN_ROWS = 20  # a share of fewer rows says nothing
MIN_DAYS = 5  # below which a stuck value may be chance, and a pair of columns must be in order on all of them
# Missing and unseen values
RARE = 4.0  # standard errors, estimated between days, that a share of missing values must rise by
GONE = 1e-3  # that a level stays away for so many days by chance
MUCH_OF = 0.5  # of the share of vanished levels, that comes under a new name
RENAMED = 0.02  # of all rows, at least
BY_CHANCE = 1e-4  # that all rows have one value although nothing is wrong
TWINS = 0.3  # share of rows that come again by nature, above which copies are not recognised
# Units: columns of few values are compared by these, others by their days, or by level and spread as a whole
WHOLE, FRACTIONS = (
    0.001,
    0.5,
)  # share of fractions up to which a column holds whole numbers, and above which none
MIN_VALUES = 10  # distinct values that are compared; a few may match by chance
KNOWN, UNKNOWN = 0.6, 0.3  # share that must match after undoing, and that may match before
DAY_ROWS = 8  # fewer have a spread of their own that is hardly that of the column
FAR = 4.0  # day-to-day deviations from the last window, which no month or week of weather reaches
FAR_SLIGHT = 8.0  # from every reference, for factors below 3: a season or a holiday may amount to one
NEAR, MUCH_NEARER = 2.0, 3.0  # deviations that undoing may leave over; how many times nearer it must come
FROM_ZERO = 2.0  # standard deviations; nearer to zero nature, too, changes level and spread by one factor
CLEAR = 0.45  # logarithm of a factor, beyond which the spread tells it from none
AS_BEFORE = (
    0.25  # what undoing leaves of the level, in standard deviations, and of the logarithm of the spread
)
# Columns that have changed places
REVERSED = 0.9  # of the days, on which the larger column has become the smaller one
APART, ALIKE = 0.25, 0.6  # standard deviations from a column's own past at least, from the other's at most
LEVELS_APART, LEVELS_ALIKE = 0.3, 0.15  # the same of levels, in total variation of their shares
NEARER = 0.5  # of the distance from its own past, at most, from the other's


@dataclass(frozen=True, slots=True)
class Limits:
    """What counts as broken. Shares are absolute rises over the references, between 0 and 1.

    Attributes:
        missing_share: more missing values than that are a break; natural swings stay below.
        unseen_share: more levels unknown to the model than that, which it could only guess at.
        malformed_share: more values of another type than that; sources rarely change a few rows only.
        range_share: more values than that outside three times the range of training.
        rows_low: fewer rows a day than this part of before.
        rows_high: more rows a day than this multiple of before.
        copied_share: more rows than that which come again, from an earlier table or in this one.
    """

    missing_share: float = 0.1
    unseen_share: float = 0.2
    malformed_share: float = 0.05
    range_share: float = 0.01
    rows_low: float = 0.2
    rows_high: float = 5.0
    copied_share: float = 0.2


# What a check gives: the value, the limit and a note.
_Seen = tuple[float | None, float | None, str]


@np.errstate(over="ignore", invalid="ignore", divide="ignore")  # of values near the largest floats
def breaks(
    reference: Profile, current: Profile, *, training: Profile | None = None, limits: Limits | None = None
) -> list[Evidence]:
    """Everything that is broken in a window; one ``pass`` if nothing is, one ``error`` if it has no rows.

    Each is named ``contract.<column>.<kind>`` with a note that says what was seen. Kinds: ``missing``,
    ``malformed``, ``unseen``, ``unit``, ``range``, ``constant``, ``swapped``; and of the rows, ``contract.rows.copied``
    (an old batch again), ``contract.rows.repeated``, and ``contract.rows`` for their number. Rows that were left out
    since they have no time are counted by ``contract.rows.timeless``, which passes.

    Args:
        reference: profile of the last clean window before this one.
        current: profile of the window, with the same columns.
        training: profile of the training rows; only what is new against both is a break.
        limits: what counts as broken.
    """
    limits, rows = limits or Limits(), current.rows
    lines = timeless_evidence(current.timeless, current.timeless + rows)
    if not rows:
        return [*lines, _line("rows", (0, None, "the window has no rows"), n=0, outcome="error")]
    references = [part for part in (reference, training) if part is not None and part.rows]
    if not references:
        note = "there are no rows to compare the window with"
        return [*lines, _line("columns", (None, None, note), n=rows, outcome="inconclusive")]
    broken = [_line("rows", seen, n=rows) for seen in _row_count(references[0], current, limits)]
    pairs = _swaps(references, current)
    for name, other in [ordered for pair in pairs for ordered in (pair, pair[::-1])]:
        note = f"{name} looks like {other} did, and {other} like {name}: they have changed places"
        broken.append(_line(f"{name}.swapped", (None, None, note), n=rows))
    explained = {name for pair in pairs for name in pair}  # whatever else is odd about them
    for name, column in current.columns.items():
        before = [part.columns[name] for part in references if name in part.columns]
        if before and name not in explained:
            for kind, (value, limit, text) in _column_breaks(before, column, limits):
                broken.append(_line(f"{name}.{kind}", (value, limit, f"{name} {text}"), n=column.rows))
    if not broken:  # without some of their columns, rows would resemble each other
        broken = [_line(f"rows.{kind}", seen, n=rows) for kind, seen in _copies(references, current, limits)]
    if not broken:
        count = len(current.columns)
        note = f"nothing is broken in {count} columns of {rows} rows"
        broken = [_line("columns", (0, 0, note), n=count, outcome="pass")]
    return [*lines, *broken]


def timeless_evidence(timeless: int, rows: int) -> list[Evidence]:
    """A line that passes, and says how many of so many rows no window holds since they have no time; none if all do."""
    note = f"{timeless} of {rows} rows have no time, so that no window holds them"
    return [_line("rows.timeless", (timeless / rows, None, note), n=rows, outcome="pass")] if timeless else []


def _line(name: str, seen: _Seen, *, n: int, outcome: Outcome = "fail") -> Evidence:
    value, limit, note = seen
    return Evidence(f"contract.{name}", outcome, value=value, limit=limit, n=n, rung=1, note=note)


def _row_count(before: Profile, current: Profile, limits: Limits) -> Iterator[_Seen]:
    """Rows a day, against the usual day and against the most unusual one."""
    usual, now = before.block_rows.mean(), current.block_rows.mean()
    few = now < limits.rows_low * usual and now < before.block_rows.min() / 2
    many = now > limits.rows_high * usual and now > before.block_rows.max() * 2
    if few or many:
        limit = (limits.rows_low if few else limits.rows_high) * usual
        yield now, limit, f"the window has {now:.4g} rows a day, recently {usual:.4g}"


def _copies(references: Sequence[Profile], current: Profile, limits: Limits) -> Iterator[tuple[str, _Seen]]:
    """Rows that have come before: in an earlier table, or twice in this one."""
    now = current.fingerprints
    earlier = [(part, part.fingerprints) for part in references if part.fingerprints is not None]
    if now is None or current.rows < MIN_ROWS or not earlier:
        return
    usual = max(sample.twins for _, sample in earlier)
    if usual > TWINS:
        return
    again = [
        now.copied(sample, least=MIN_ROWS)
        for part, sample in earlier
        if not np.intersect1d(part.blocks, current.blocks).size
    ]
    # A larger table has more of them, so that the share is scaled up.
    in_one = usual * max(1.0, now.rows / max(part.rows for part, _ in earlier))
    for kind, share, was, text in (
        ("copied", max(again, default=math.nan), usual, "were in an earlier table, too"),
        ("repeated", now.twins, in_one, "occur more than once"),
    ):
        if share > (limit := was + limits.copied_share):
            yield kind, (share, limit, f"{share:.1%} of the rows {text}; by nature {was:.1%}")


def _column_breaks(
    before: Sequence[ColumnProfile], now: ColumnProfile, limits: Limits
) -> Iterator[tuple[str, _Seen]]:
    """The breaks of one column; a wrong unit explains a wrong range."""
    unit = _unit(before, now) if now.kind == "numeric" else None
    checks = {
        "missing": _missing(before, now, limits.missing_share),
        "malformed": _malformed(before, now, limits.malformed_share),
        "unseen": _unseen(before, now, limits.unseen_share),
        "unit": unit,
        "range": None if unit else _beyond(before, now, limits.range_share),
        "constant": _stuck(before, now),
    }
    yield from ((kind, seen) for kind, seen in checks.items() if seen is not None)


def _missing(before: Sequence[ColumnProfile], now: ColumnProfile, rise: float) -> _Seen | None:
    """Empty for longer than ever, or emptier than the days of the references can explain."""
    if now.rows < MIN_ROWS:
        return None
    # Malformed values are another break.
    share, *shares = (part.share(part.missing - part.malformed) for part in (now, *before))
    was = max(shares)
    text = f"is missing in {share:.1%} of rows, before in {was:.1%}"
    if share == 1.0 and was < 1.0:
        longest = max(_longest_run(part.block_counts[:, -1] == part.block_rows) for part in before)
        return (share, was, f"is empty; {text}") if len(now.blocks) > 2 * longest else None
    swing = max(_standard_error(part, len(now.blocks)) for part in before)
    chance = math.sqrt(was * (1 - was) / now.rows)  # of few rows, whatever their days are like
    limit = was + max(rise, RARE * max(swing, chance))
    return (share, limit, text) if share > limit else None


def _standard_error(before: ColumnProfile, days: int) -> float:
    """Of the difference in missing share between the reference and a window of so many days."""
    shares = before.block_counts[:, -1] / np.maximum(before.block_rows, 1)
    share = before.share(before.missing)
    # Too few days show no swing: then each may be all or nothing.
    swing = shares.std(ddof=1) if len(shares) >= MIN_DAYS else math.sqrt(share * (1 - share))
    return float(swing * math.sqrt(1 / len(shares) + 1 / days))


def _malformed(before: Sequence[ColumnProfile], now: ColumnProfile, rise: float) -> _Seen | None:
    share, was = now.share(now.malformed), max(part.share(part.malformed) for part in before)
    text = f"has {share:.1%} values of another type, before {was:.1%}"
    return (share, was + rise, text) if share > was + rise and now.rows >= MIN_ROWS else None


def _unseen(before: Sequence[ColumnProfile], now: ColumnProfile, rise: float) -> _Seen | None:
    """Levels unknown to the model; fewer will do where known ones have vanished, whose new names they are."""
    share, was = now.share(now.unseen), max(part.unseen_share for part in before)
    text = f"has levels that the model does not know in {share:.1%} of rows, before in {was:.1%}"
    gone = _vanished(before, now)
    if gone and share - was >= MUCH_OF * sum(gone.values()):
        rise = min(rise, RENAMED)
        text += f"; {', '.join(sorted(gone)[:3])} no longer occur" + ("s" if len(gone) == 1 else "")
    return (share, was + rise, text) if share > was + rise and now.rows >= MIN_ROWS else None


def _vanished(before: Sequence[ColumnProfile], now: ColumnProfile) -> dict[str, float]:
    """Levels that every reference had so often that chance cannot hide them, with their share."""
    if now.kind != "categorical" or any(part.bins != now.bins for part in before):
        return {}
    gone = {}
    for place in np.flatnonzero(now.counts[:-1] == 0):
        days = min(float((part.block_counts[:, place] > 0).mean()) for part in before)
        share = min(part.counts[place] / max(part.n, 1) for part in before)
        if (1 - days) ** len(now.blocks) < GONE and (1 - share) ** now.n < BY_CHANCE:
            gone[now.bins.levels[place]] = float(share)
    return gone


def _beyond(before: Sequence[ColumnProfile], now: ColumnProfile, rise: float) -> _Seen | None:
    """Outside three times the range of training, and of the references: a counter may grow on."""
    if now.kind != "numeric" or now.n < MIN_ROWS or now.min is None or now.max is None:
        return None
    share, was = now.beyond / now.n, max(part.beyond / max(part.n, 1) for part in before)
    low = min((part.min for part in before if part.min is not None), default=-math.inf)
    high = max((part.max for part in before if part.max is not None), default=math.inf)
    # In a day or two a single stormy hour is a fair share of the rows.
    limit = was + rise * max(1.0, MIN_DAYS / len(now.blocks))
    if share <= limit or (now.min >= 2 * low - high and now.max <= 2 * high - low):
        return None
    text = f"is out of range in {share:.1%} of rows: {now.min:.4g} to {now.max:.4g}, before {low:.4g} to {high:.4g}"
    return share, limit, text


def _stuck(before: Sequence[ColumnProfile], now: ColumnProfile) -> _Seen | None:
    """One value for twice as many days as ever before."""
    days, value = int((now.block_n > 0).sum()), _only_value(now)
    if days < MIN_DAYS or value is None or any(_only_value(part) is not None for part in before):
        return None
    longest = max(_longest_run(_single_valued(part)) for part in before)
    if days <= 2 * longest or max(_share_of_value(part, now) for part in before) ** now.n > BY_CHANCE:
        return None
    return days, 2 * longest, f"is {value} in all rows of {days} days, before for {longest} days at most"


def _only_value(column: ColumnProfile) -> str | None:
    """The only value of a column, None if there are several or none."""
    if column.kind == "categorical":
        used = np.flatnonzero(column.counts)
        return column.bins.levels[used[0]] if len(used) == 1 and used[0] < len(column.bins.levels) else None
    return f"{column.min:.6g}" if column.n and column.min == column.max else None


def _share_of_value(before: ColumnProfile, now: ColumnProfile) -> float:
    """How common the only value of ``now`` was: exactly if few values differ, else as its bin."""
    if now.kind == "numeric" and before.values is not None and now.min is not None:
        return before.values.get(float(f"{now.min:.12g}"), 0) / max(before.n, 1)
    return float(before.counts[np.argmax(now.counts)] / max(before.n, 1)) if before.bins == now.bins else 0.0


def _single_valued(column: ColumnProfile) -> np.ndarray:
    """Which blocks (b,) hold one single value, or none."""
    if column.kind == "categorical":
        return np.asarray((column.block_counts[:, :-1] > 0).sum(axis=1) <= 1)
    # Rounding leaves a trace in the deviations of equal numbers.
    return np.asarray(column.block_m2s <= 1e-12 * column.block_n * (1e-300 + column.block_means**2))


def _longest_run(flags: np.ndarray) -> int:
    """The longest run of true ones.

    >>> _longest_run(np.array([True, False, True, True]))
    2
    """
    ends = np.flatnonzero(np.diff(np.concatenate([[0], flags.astype(int), [0]])))
    return int((ends[1::2] - ends[::2]).max(initial=0))


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


def _unit(before: Sequence[ColumnProfile], now: ColumnProfile) -> _Seen | None:
    """A conversion of units that explains far better than nature why the values differ, or new fractions."""
    if min(part.n for part in (now, *before)) < MIN_ROWS:
        return None
    seen = np.unique([value for part in before for value in part.values or ()])
    values = np.array(list(now.values or ()))
    # Zero stays zero in most units and tells nothing.
    seen, values = seen[seen != 0], values[values != 0]
    if min(len(seen), len(values)) < MIN_VALUES or any(part.values is None for part in before):
        known = _by_days(before, now)
    else:
        known = _by_values(before, now, seen, values)
    if known is None:
        return _fractions(before, now)
    text = f"looks converted from {known.name}: median {now.median:.4g}, before {before[0].median:.4g}"
    return now.median, before[0].median, text


def _fractions(before: Sequence[ColumnProfile], now: ColumnProfile) -> _Seen | None:
    """Whole numbers that are none any more: whatever was done to them, it was not done before."""
    shares = [part.fractional / max(part.n, 1) for part in (now, *before) if part.fractional is not None]
    if len(shares) <= len(before):
        return None
    share, was = shares[0], max(shares[1:])
    text = f"looks converted: {share:.1%} of the values are no whole numbers, before {was:.1%}"
    return (share, FRACTIONS, text) if was <= WHOLE and share >= FRACTIONS else None


def _by_values(
    before: Sequence[ColumnProfile], now: ColumnProfile, seen: np.ndarray, values: np.ndarray
) -> Conversion | None:
    """Instruments and sources write few different numbers: these match earlier ones once a conversion is undone."""
    counts = np.array([(now.values or {})[value] for value in values])
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


def _by_days(before: Sequence[ColumnProfile], now: ColumnProfile) -> Conversion | None:
    """Of columns of many values the days tell: far from those of the first reference, and near them after undoing."""
    if any(part.zero > part.n / 2 for part in before):  # the median day says nothing of the unit
        return None
    days = np.array([_usual_day(part) for part in (now, *before)])
    # A quiet week is no measure of how days differ, nor is a column without any difference at all.
    swing = np.array([max([*days[1:, 2], *(0.02 * part.sd for part in before)]), max([*days[1:, 3], 0.1])])

    def distance(day: np.ndarray, reference: np.ndarray) -> float:
        return math.hypot(*((day[:2] - reference[:2]) / swing))

    undone = {
        known: distance(np.array([known.undo(days[0, 0]), days[0, 1] - math.log(known.slope)]), days[1])
        for known in CONVERSIONS
    }
    best = min(undone, key=lambda known: undone[known])
    raw, far = distance(days[0], days[1]), FAR
    if best.offset == 0 and 1 / 3 < best.slope < 3:
        raw, far = min(distance(days[0], reference) for reference in days[1:]), FAR_SLIGHT
    if raw >= far and undone[best] <= min(NEAR, raw / MUCH_NEARER):
        return best
    return _by_moments(before, now)


def _usual_day(column: ColumnProfile) -> tuple[float, float, float, float]:
    """Level and log spread of the usual day, and the standard deviations of both between days; NaN if all are small."""
    some = column.block_n >= DAY_ROWS
    means, spreads = column.block_means[some], np.sqrt(column.block_m2s[some] / column.block_n[some])
    logs = np.log(spreads[spreads > 0])
    if not len(logs):
        return math.nan, math.nan, math.nan, math.nan
    return float(np.median(means)), float(np.median(logs)), float(means.std()), float(logs.std())


def _by_moments(before: Sequence[ColumnProfile], now: ColumnProfile) -> Conversion | None:
    """Level and spread that have moved by one and the same factor, which nature leaves alone far from zero."""
    if any(not part.sd > 0 or abs(part.mean) < FROM_ZERO * part.sd for part in before) or not now.sd > 0:
        return None
    if min(abs(now.mean - part.mean) / part.sd for part in before) < 1:
        return None
    whole = max(before, key=lambda part: part.n)

    def distance(known: Conversion) -> float:
        level = abs(known.undo(now.mean) - whole.mean) / whole.sd
        return math.hypot(level, math.log(now.sd / known.slope / whole.sd))

    best = min((known for known in CONVERSIONS if abs(math.log(known.slope)) > CLEAR), key=distance)
    return best if distance(best) <= AS_BEFORE else None


def _swaps(references: Sequence[Profile], current: Profile) -> list[tuple[str, str]]:
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

    Means and spreads are compared, and not quantiles, which are as coarse as the bins of the column that was.
    """
    if not names:
        return
    now, *past = (
        np.array([(side.columns[name].mean, max(side.columns[name].sd, 1e-300)) for name in names])
        for side in (current, *references)
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
