"""What is wrong with one column, beside what it was in each reference."""

from __future__ import annotations

import difflib
import math
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import pandas as pd
from scipy.stats import betabinom

from prodkit.drift.profiles import ColumnProfile
from prodkit.drift.units import conversion, fractions, quantiles

__all__ = ["FALSE_HOLDS", "LIMITS", "MIN_ROWS", "Bounds", "Seen", "column_breaks", "trending"]

# What counts as broken: rises of a share over the references, where `contract` gives no limit of its own
LIMITS = {
    "missing": 0.1,  # natural swings stay below
    "malformed": 0.05,  # sources rarely change the type of a few rows only
    "unseen": 0.2,  # of levels that the model could only guess at; more where it hardly leans on the column
    "range": 0.01,  # of values outside three times the range of training
}
FALSE_HOLDS = 0.002  # windows without change that a check may hold, over all columns
MIN_ROWS = 20  # a share of fewer rows says nothing
MIN_DAYS = 5  # below which a stuck value may be chance
# Missing and unseen values
RARE = 4.0  # standard errors, estimated between days, that a share of missing values must rise by
UNSEEN_MOST = 0.6  # rise of the share of unseen levels that is a break however little the model leans on them
GONE = 1e-3  # that a level stays away for so many days by chance
RENAMED = 0.02  # of all rows, at least, for a level that looks like the one it replaces
OFTEN = 0.15  # the same where only the shares are alike; below it, people come and go
ALIKE = 0.7  # similarity of two names, from 0 to 1
# Values that stand for none
VISIBLE, CROWDED = 0.02, 0.1  # of the rows: of a value that never occurred, and of one that hardly did
_EPOCHS = frozenset(
    pd.Timestamp(text).timestamp() for text in ("1900-01-01", "1970-01-01", "1899-12-30", "2099-12-31")
)
# Columns that run with time
STEPS, WITHIN = (
    0.95,
    0.25,
)  # of the steps from day to day one way, at least; of the variance within days, at most
_TREND = 20.0  # ranges of the reference by which such a column may go on

# What a check gives: the value, the limit and a note.
Seen = tuple[float | None, float | None, str]


@dataclass(frozen=True)
class Bounds:
    """What a column is held against.

    Attributes:
        alpha: that one check of this column may find something where nothing is.
        lean: how much the model leans on it, beside the column that it leans on most.
        given: limits of its own, by name.
    """

    alpha: float = FALSE_HOLDS
    lean: float = 1.0
    given: Mapping[str, float] = field(default_factory=dict)


def column_breaks(
    before: Sequence[ColumnProfile], now: ColumnProfile, bounds: Bounds = Bounds()
) -> Iterator[tuple[str, Seen]]:
    """The breaks of one column by kind; a wrong unit explains a wrong range."""
    if not before:
        return
    checks: list[
        tuple[str, Callable[..., Seen | None], bool]
    ] = [  # the last: whether it explains what follows
        ("missing", _missing, False),
        ("malformed", _malformed, False),
        ("unseen", _unseen, False),
        ("constant", _stuck, True),
        ("range", _sentinel, True),
        ("unit", _unit, True),
        ("range", _beyond, True),
    ]
    for kind, check, explains in checks:
        if (seen := check(before, now, bounds)) is not None:
            yield kind, seen
            if explains:
                return


def _rise(
    kind: str,
    bounds: Bounds,
    counts: tuple[int, int],
    before: Sequence[tuple[float, int, float]],
    *,
    least: float | None = None,
    days: int = 1,
    text: str,
) -> Seen | None:
    """A share that has risen by more than its limit, and by more than chance explains beside each reference.

    Args:
        kind: of the limit.
        bounds: of the column.
        counts: rows that have it, of how many.
        before: of each reference the share, the rows, and how alike rows of a day are (intraclass correlation).
        least: rise that is a break, if not the usual one.
        days: of the window.
        text: what is seen, with places for the share and for what it was.
    """
    count, rows = counts
    share, was = count / max(1, rows), max(each[0] for each in before)
    limit = bounds.given.get(kind, was + (LIMITS[kind] if least is None else least))
    if share <= limit or rows < MIN_ROWS:
        return None
    if kind not in bounds.given:
        for expected, n, alike in before:
            fewer = 1 + (rows / max(1, days) - 1) * alike  # rows that are worth one
            hits, all_rows, known = math.ceil(count / fewer), math.ceil(rows / fewer), n / fewer
            law = betabinom(all_rows, expected * known + 0.5, (1 - expected) * known + 0.5)
            if law.sf(hits - 1) > bounds.alpha:
                return None
    return share, limit, text.format(share=f"{share:.1%}", was=f"{was:.1%}")


def _likeness(counts: np.ndarray, rows: np.ndarray) -> float:
    """How alike rows of a day are in a property that so many (b,) of its rows (b,) have: intraclass correlation."""
    share = counts.sum() / max(1, rows.sum())
    if len(rows) < MIN_DAYS or share in (0.0, 1.0) or rows.mean() <= 1:
        return 0.0
    inflation = ((counts - rows * share) ** 2 / (rows * share * (1 - share)))[rows > 0].sum() / (
        len(rows) - 1
    )
    return float(np.clip((inflation - 1) / (rows.mean() - 1), 0, 1))


def _missing(before: Sequence[ColumnProfile], now: ColumnProfile, bounds: Bounds) -> Seen | None:
    """Empty for longer than ever, or emptier than the days of the references can explain."""
    if now.rows < MIN_ROWS:
        return None
    # Malformed values are another break.
    lost, *earlier = (part.missing - part.malformed for part in (now, *before))
    was = max(part.share(each) for part, each in zip(before, earlier, strict=True))
    text = "is missing in {share} of rows, before in {was}"
    if lost == now.rows and was < 1.0 and "missing" not in bounds.given:
        longest = max(_longest_run(part.block_counts[:, -1] == part.block_rows) for part in before)
        text = "is empty; " + text.format(share="100.0%", was=f"{was:.1%}")
        return (1.0, was, text) if len(now.blocks) > 2 * longest else None
    swing = RARE * max(_standard_error(part, len(now.blocks)) for part in before)
    rows = [
        (part.share(each), part.rows, _likeness(part.block_counts[:, -1], part.block_rows))
        for part, each in zip(before, earlier, strict=True)
    ]
    least = max(LIMITS["missing"], swing)
    return _rise("missing", bounds, (lost, now.rows), rows, least=least, days=len(now.blocks), text=text)


def _standard_error(before: ColumnProfile, days: int) -> float:
    """Of the difference in missing share between the reference and a window of so many days."""
    shares = before.block_counts[:, -1] / np.maximum(before.block_rows, 1)
    share = before.share(before.missing)
    # Too few days show no swing: then each may be all or nothing.
    swing = shares.std(ddof=1) if len(shares) >= MIN_DAYS else math.sqrt(share * (1 - share))
    return float(swing * math.sqrt(1 / len(shares) + 1 / days))


def _malformed(before: Sequence[ColumnProfile], now: ColumnProfile, bounds: Bounds) -> Seen | None:
    rows = [(part.share(part.malformed), part.rows, 0.0) for part in before]
    text = "has {share} values of another type, before {was}"
    return _rise("malformed", bounds, (now.malformed, now.rows), rows, text=text)


def _unseen(before: Sequence[ColumnProfile], now: ColumnProfile, bounds: Bounds) -> Seen | None:
    """Levels unknown to the model: more than it can bear, or than come and go; or known ones under new names."""
    if now.kind != "categorical" or not now.unseen:
        return None
    turnover = max(getattr(part.bins, "turnover", 0.0) for part in before)
    least = max(LIMITS["unseen"] / max(bounds.lean, LIMITS["unseen"] / UNSEEN_MOST), 2 * turnover)
    text = "has levels that the model does not know in {share} of rows, before in {was}"
    common = sorted((now.unknown or {}).items(), key=lambda each: (-each[1], each[0]))[:3]
    text += f", such as {', '.join(_escaped(name) for name, _ in common)}" if common else ""
    if new := _renamed(before, now, turnover):
        least = min(least, RENAMED)
        text += f"; {_escaped(new[0])} no longer occurs, and {_escaped(new[1])} as often as it did"
    rows = [(part.unseen_share, part.rows, _likeness(part.block_unseen, part.block_rows)) for part in before]
    return _rise("unseen", bounds, (now.unseen, now.rows), rows, least=least, days=len(now.blocks), text=text)


def _escaped(name: str) -> str:
    return name.replace("{", "{{").replace("}", "}}")


def _renamed(before: Sequence[ColumnProfile], now: ColumnProfile, turnover: float) -> tuple[str, str] | None:
    """A level that has vanished, and a new one that has taken its share of the rows under another name.

    People come and go, too: names that differ in digits only are two people's, and those that have nothing in common
    are one level's only if it was frequent, and if none has left before.
    """
    for old, share in _vanished(before, now).items():
        for new, count in (now.unknown or {}).items():
            error = math.sqrt(share * (1 - share) * (1 / now.rows + 1 / min(part.rows for part in before)))
            if share < RENAMED or abs(count / now.rows - share) > max(3 * error, 0.15 * share):
                continue
            if _similar(old, new) or share >= max(OFTEN, 2 * turnover):
                return old, new
    return None


def _similar(old: str, new: str) -> bool:
    """Whether two names are likely to be two ways to write one."""
    a, b = (re.sub(r"[^\w]|_", "", name).casefold() for name in (old, new))
    if a == b:
        return True
    bare = [re.sub(r"\d", "", name) for name in (a, b)]
    if bare[0] == bare[1] or not all(bare):
        return False
    contained = min(len(bare[0]), len(bare[1])) >= 2 and (a in b or b in a)
    return contained or difflib.SequenceMatcher(None, a, b).ratio() >= ALIKE


def _vanished(before: Sequence[ColumnProfile], now: ColumnProfile) -> dict[str, float]:
    """Levels that every reference had so often that chance cannot hide them, with their share."""
    if now.kind != "categorical" or any(part.bins != now.bins for part in before):
        return {}
    gone = {}
    for place in np.flatnonzero(now.counts[:-1] == 0):
        days = min(float((part.block_counts[:, place] > 0).mean()) for part in before)
        share = min(part.counts[place] / max(part.n, 1) for part in before)
        if (1 - days) ** len(now.blocks) < GONE and (1 - share) ** now.n < FALSE_HOLDS / 20:
            gone[now.bins.levels[place]] = float(share)
    return gone


def _unit(before: Sequence[ColumnProfile], now: ColumnProfile, bounds: Bounds) -> Seen | None:
    """A conversion that explains far better than nature why the values differ, or new fractions."""
    if now.kind != "numeric":
        return None
    if known := conversion(before, now):
        value, was = (float(quantiles(part, np.array([0.5]))[0]) for part in (now, before[0]))
        shown = _shown(value, was)
        return value, was, f"looks converted from {known.name}: median {shown[0]}, before {shown[1]}"
    if shares := fractions(before, now):
        text = f"looks converted: {shares[0]:.1%} of the values are no whole numbers, before {shares[1]:.1%}"
        return shares[0], shares[1], text
    return None


def _ends(before: Sequence[ColumnProfile]) -> tuple[float, float]:
    """Smallest and largest value of all references; NaN if there is none."""
    ends = [end for part in before for end in (part.min, part.max) if end is not None]
    return (min(ends), max(ends)) if ends else (math.nan, math.nan)


def _beyond(before: Sequence[ColumnProfile], now: ColumnProfile, bounds: Bounds) -> Seen | None:
    """Outside three times the range of training, and of the references: a counter may grow on."""
    low, high = _ends(before)
    if now.kind != "numeric" or now.min is None or now.max is None or math.isnan(low):
        return None
    if now.min >= 2 * low - high and now.max <= 2 * high - low:
        return None
    trend, width = max(map(trending, before), key=abs), _TREND * (high - low)
    if "range" not in bounds.given and (
        (trend > 0 and now.min >= 2 * low - high and now.max <= high + width)
        or (trend < 0 and now.max <= 2 * high - low and now.min >= low - width)
    ):
        return None
    rows = []
    for part in before:
        alike = max(_likeness(part.block_counts[:, end], part.block_n) for end in (0, -2))
        rows.append((part.beyond / max(part.n, 1), part.n, alike))
    # In a day or two a single stormy hour is a fair share of the rows.
    least = LIMITS["range"] * max(1.0, MIN_DAYS / len(now.blocks))
    a, b, c, d = _shown(now.min, now.max, low, high)
    text = f"is out of range in {{share}} of rows: {a} to {b}, before {c} to {d}"
    return _rise("range", bounds, (now.beyond, now.n), rows, least=least, days=len(now.blocks), text=text)


def _sentinel(before: Sequence[ColumnProfile], now: ColumnProfile, bounds: Bounds) -> Seen | None:
    """One value, apart from all others, that a visible share of the rows has and none, or hardly any, had before."""
    low, high = _ends(before)
    if now.kind not in ("numeric", "datetime") or now.sketch is None or now.min is None or now.max is None:
        return None
    if now.n < MIN_ROWS or not low < high:  # what never varied tells a model nothing
        return None
    first, last, counts = now.sketch.bins()
    whole = max(before, key=lambda part: part.n)
    quarter, three = quantiles(whole, np.array([0.25, 0.75]))
    spread = three - quarter if three > quarter else high - low
    for place, end in ((0, now.min), (len(counts) - 1, now.max), (int(counts.argmax()), None)):
        value = float(first[place]) if end is None else float(end)
        was = [_share_between(part, first[place], last[place]) for part in before]
        inside = low <= value <= high
        away = max(quarter - value, value - three) if inside else max(low - value, value - high)
        apart = _apart(first, last, counts, place)
        if end is None:  # within the range: only where no value was ever frequent, and rows of a day differ
            odd = apart and whole.exact is None and _within(whole) > WITHIN and len(now.blocks) >= MIN_DAYS
        else:
            odd = apart and (_is_code(value, now.kind) or away >= spread) and not _goes_on(before, now, value)
        if odd and (not inside or max(was) <= VISIBLE):
            rows = [(share, part.n, 0.0) for share, part in zip(was, before, strict=True)]
            text = f"is {_shown(value, low, high, kind=now.kind)[0]} in {{share}} of rows, before in {{was}}"
            least = CROWDED if inside else VISIBLE
            if seen := _rise("range", bounds, (int(counts[place]), now.n), rows, least=least, text=text):
                return seen
    return None


def _share_between(column: ColumnProfile, first: float, last: float) -> float:
    """Share of the values from ``first`` to ``last``, as far as single values are known."""
    if column.sketch is None or column.min is None or column.max is None:
        return 0.0
    low, high, counts = column.sketch.bins()
    near = (high >= first) & (low <= last) & (column.max >= first) & (column.min <= last)
    return float(counts[near].sum() / max(1, column.n))


def _apart(first: np.ndarray, last: np.ndarray, counts: np.ndarray, place: int) -> bool:
    """Whether an entry stands alone: its neighbours are far, or hold next to nothing beside it."""
    width = last[place] - first[place]
    for other in (place - 1, place + 1):
        if 0 <= other < len(counts):
            gap = max(first[other] - last[place], first[place] - last[other])
            if gap <= 2 * width and counts[other] > counts[place] / 5:
                return False
    return True


def _is_code(value: float, kind: str) -> bool:
    """Whether people write this number where they have none: -1, 0, nines, the ends of a type, an epoch."""
    if kind == "datetime":
        return value in _EPOCHS or value >= 2.5e11  # the year 9892
    digits = f"{abs(value):.12g}"
    nines = bool(re.fullmatch(r"9+(\.9+|\.25)?|8{2,}", digits))
    return nines or value in (-1.0, 0.0, 32767.0, -32768.0, 2.0**31 - 1, -(2.0**31)) or abs(value) >= 1e10


def _goes_on(before: Sequence[ColumnProfile], now: ColumnProfile, value: float) -> bool:
    """Whether a column that runs with time, or dates, may have come to this value."""
    low, high = _ends(before)
    trend = 1 if now.kind == "datetime" else max(map(trending, before), key=abs)
    width = _TREND * (high - low)
    return bool((trend > 0 and high < value <= high + width) or (trend < 0 and low - width <= value < low))


def trending(column: ColumnProfile) -> int:
    """1 if the column rises with time, such as a day number, a counting id or a year; -1 if it falls; 0 if neither."""
    some = column.block_n > 0
    means = column.block_means[some]
    if (
        column.kind not in ("numeric", "datetime")
        or len(means) < MIN_DAYS + 1
        or {column.min, column.max} <= {0, 1}
    ):
        return 0
    steps, slack = np.diff(means), 1e-12 * np.abs(means).max()
    if np.ptp(means) <= slack or _within(column) > WITHIN:
        return 0
    return int((steps >= -slack).mean() >= STEPS) - int((steps <= slack).mean() >= STEPS)


def _within(column: ColumnProfile) -> float:
    """Share of a column's variance that is between rows of one day."""
    total = column.sd**2 * column.n
    return float(column.block_m2s.sum() / total) if total > 0 else 0.0


def _shown(*values: float, kind: str = "numeric") -> list[str]:
    """Numbers or dates with as many digits as it takes to tell those that differ apart."""
    if kind == "datetime":
        moments = [
            pd.Timestamp(min(max(value, -6e10), 2.5e11), unit="s").isoformat(sep=" ") for value in values
        ]
        return [text.removesuffix(" 00:00:00") for text in moments]
    for digits in range(4, 16):
        texts = [f"{value:.{digits}g}" for value in values]
        if len(set(texts)) == len(set(values)):
            break
    return texts


def _stuck(before: Sequence[ColumnProfile], now: ColumnProfile, bounds: Bounds) -> Seen | None:
    """One value for twice as many days as ever before."""
    days, value = int((now.block_n > 0).sum()), _only_value(now)
    if days < MIN_DAYS or value is None or any(_only_value(part) is not None for part in before):
        return None
    longest = max(_longest_run(_single_valued(part)) for part in before)
    if days <= 2 * longest or max(_share_of_value(part, now) for part in before) ** now.n > bounds.alpha / 2:
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
    if now.kind == "numeric" and before.exact is not None and now.min is not None:
        return before.exact.get(float(f"{now.min:.12g}"), 0) / max(before.n, 1)
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
