"""Is the input itself broken? The first rung of the evidence ladder.

Nature changes, too, so each check asks for more than change: for something that the days of the training
rows and of the last clean window have never come near. A false hold costs more than a fault that shows
elsewhere; where the two cannot be told apart, nothing is said.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from prodkit.drift.profiles import ColumnProfile, Profile
from prodkit.drift.swaps import swaps
from prodkit.drift.units import conversion
from prodkit.evidence import Evidence

__all__ = ["Limits", "breaks"]

MIN_ROWS = 20  # a share of fewer rows says nothing
MIN_BLOCKS = 5  # days, below which a stuck value may be chance
GONE = 1e-3  # that a level stays away for so many days by chance
MUCH_OF, RENAMED = (
    0.5,
    0.02,
)  # of the share of vanished levels, what comes under a new name; the least of all rows
WHOLE, FRACTIONS = (
    0.001,
    0.5,
)  # share of fractions, up to which a column holds whole numbers, and above which none
TWINS = 0.3  # share of rows that come again by nature, above which copies cannot be told
BY_CHANCE = 1e-4  # that all rows have one value although nothing is wrong
RARE = 4.0  # standard errors, estimated between days, that a share of missing values must rise by


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


def breaks(
    reference: Profile, current: Profile, *, training: Profile | None = None, limits: Limits | None = None
) -> list[Evidence]:
    """Everything that is broken in a window; one ``pass`` if nothing is, one ``error`` if it has no rows.

    Each is named ``contract.<column>.<kind>`` with a note that says what was seen. Kinds: ``missing``,
    ``malformed``, ``unseen``, ``unit``, ``range``, ``constant``, ``swapped``; and of the rows, ``contract.rows.copied``
    (an old batch again), ``contract.rows.repeated``, and ``contract.rows`` for their number.

    Args:
        reference: profile of the last clean window before this one.
        current: profile of the window, with the same columns.
        training: profile of the training rows; only what is new against both is a break.
        limits: what counts as broken.
    """
    if not current.rows:
        return [Evidence("contract.rows", "error", value=0, n=0, rung=1, note="the window has no rows")]
    limits = limits or Limits()
    references = [part for part in (reference, training) if part is not None and part.rows]
    found = list(_row_breaks(references[0], current, limits)) if references else []
    found += swaps(references, current)
    moved = {item.name.split(".")[1] for item in found if item.name.endswith(".swapped")}
    for name, column in current.columns.items():
        before = [part.columns[name] for part in references if name in part.columns]
        if before and name not in moved:  # the exchange explains what else is odd about both
            found += _column_breaks(name, before, column, limits)
    if not found:  # without some of their columns, rows would resemble each other
        found += _copies(references, current, limits)
    if found:
        return found
    columns = len(current.columns)
    note = f"nothing is broken in {columns} columns of {current.rows} rows"
    return [Evidence("contract.columns", "pass", value=0, limit=0, n=columns, rung=1, note=note)]


def _row_breaks(before: Profile, current: Profile, limits: Limits) -> Iterator[Evidence]:
    """Rows a day, against the usual day and against the most unusual one."""
    usual, now = before.block_rows.mean(), current.block_rows.mean()
    few = now < limits.rows_low * usual and now < before.block_rows.min() / 2
    many = now > limits.rows_high * usual and now > before.block_rows.max() * 2
    if few or many:
        limit = (limits.rows_low if few else limits.rows_high) * usual
        note = f"the window has {now:.4g} rows a day, recently {usual:.4g}"
        yield Evidence("contract.rows", "fail", value=now, limit=limit, n=current.rows, rung=1, note=note)


def _copies(references: list[Profile], current: Profile, limits: Limits) -> Iterator[Evidence]:
    """Rows that have come before: in an earlier table, or twice in this one."""
    now = current.fingerprints
    earlier = [part for part in references if part.fingerprints is not None]
    if now is None or current.rows < MIN_ROWS or not earlier:
        return
    usual = max(part.fingerprints.twins for part in earlier if part.fingerprints is not None)
    if usual > TWINS:
        return
    apart = [part for part in earlier if not np.intersect1d(part.blocks, current.blocks).size]
    again = [now.copied(part.fingerprints, least=MIN_ROWS) for part in apart if part.fingerprints is not None]
    # A larger table has more of them, so that the share is scaled up.
    in_one = usual * max(1.0, now.rows / max(part.rows for part in earlier))
    for kind, share, was, text in (
        ("copied", max(again, default=math.nan), usual, "were in an earlier table, too"),
        ("repeated", now.twins, in_one, "occur more than once"),
    ):
        if share > (limit := was + limits.copied_share):
            note = f"{share:.1%} of the rows {text}; by nature {was:.1%}"
            full = f"contract.rows.{kind}"
            yield Evidence(full, "fail", value=share, limit=limit, n=current.rows, rung=1, note=note)


def _column_breaks(
    name: str, before: list[ColumnProfile], now: ColumnProfile, limits: Limits
) -> Iterator[Evidence]:
    """The breaks of one column; a wrong unit explains a wrong range, which is then not told again."""
    wrong_unit = now.kind == "numeric" and _unit(before, now)
    found = {
        "missing": _missing(before, now, limits.missing_share),
        "malformed": _malformed(before, now, limits.malformed_share),
        "unseen": _unseen(before, now, limits.unseen_share),
        "unit": wrong_unit or None,
        "range": None if wrong_unit else _beyond(before, now, limits.range_share),
        "constant": _stuck(before, now),
    }
    for kind, finding in found.items():
        if finding is not None:
            value, limit, text = finding
            full, note = f"contract.{name}.{kind}", f"{name} {text}"
            yield Evidence(full, "fail", value=value, limit=limit, n=now.rows, rung=1, note=note)


# Each check gives the value, the limit and what to say of it, or None if nothing is wrong.
_Finding = tuple[float, float | None, str] | None


def _missing(before: list[ColumnProfile], now: ColumnProfile, allowed_rise: float) -> _Finding:
    """Empty for longer than ever, or emptier than the days of the references can explain."""
    if now.rows < MIN_ROWS:
        return None
    share, was = _null_share(now), max(_null_share(part) for part in before)
    text = f"is missing in {share:.1%} of rows, before in {was:.1%}"
    if share == 1.0 and was < 1.0:
        longest = max(_longest_run(_null_rows(part) == _rows(part)) for part in before)
        return (share, was, f"is empty; {text}") if len(now.blocks) > 2 * longest else None
    swing = max(_standard_error(part, len(now.blocks)) for part in before)
    chance = math.sqrt(was * (1 - was) / now.rows)  # of few rows, whatever their days are like
    limit = was + max(allowed_rise, RARE * max(swing, chance))
    return (share, limit, text) if share > limit else None


def _malformed(before: list[ColumnProfile], now: ColumnProfile, allowed_rise: float) -> _Finding:
    share, was = now.share(now.malformed), max(part.share(part.malformed) for part in before)
    text = f"has {share:.1%} values of another type, before {was:.1%}"
    return (share, was + allowed_rise, text) if share > was + allowed_rise and now.rows >= MIN_ROWS else None


def _unseen(before: list[ColumnProfile], now: ColumnProfile, allowed_rise: float) -> _Finding:
    """Levels unknown to the model; fewer will do where known ones have vanished, whose new names they are."""
    share, was = now.share(now.unseen), max(part.share(part.unseen) for part in before)
    text = f"has levels that the model does not know in {share:.1%} of rows, before in {was:.1%}"
    gone = _vanished(before, now)
    if gone and share - was >= MUCH_OF * sum(gone.values()):
        allowed_rise = min(allowed_rise, RENAMED)
        text += f"; {', '.join(sorted(gone)[:3])} no longer occur" + ("s" if len(gone) == 1 else "")
    return (share, was + allowed_rise, text) if share > was + allowed_rise and now.rows >= MIN_ROWS else None


def _vanished(before: list[ColumnProfile], now: ColumnProfile) -> dict[str, float]:
    """Levels that every reference had so often that chance cannot hide them, with their share."""
    if now.kind != "categorical" or any(part.bins != now.bins for part in before):
        return {}
    gone = {}
    for place in np.flatnonzero(now.counts[:-1] == 0):
        days = min(float((part.block_counts[:, place] > 0).mean()) for part in before)
        share = min(part.counts[place] / max(part.n, 1) for part in before)
        if (1 - days) ** len(now.blocks) < GONE and (1 - share) ** now.n < BY_CHANCE:
            gone[now.bins.names[place]] = float(share)
    return gone


def _unit(before: list[ColumnProfile], now: ColumnProfile) -> _Finding:
    known = conversion(before, now)
    if known is None:
        return _fractions(before, now)
    text = f"looks converted from {known.name}: median {now.median:.4g}, before {before[0].median:.4g}"
    return now.median, before[0].median, text


def _fractions(before: list[ColumnProfile], now: ColumnProfile) -> _Finding:
    """Whole numbers that are none any more: whatever was done to them, it was not done before."""
    counted = [part.fractional for part in (now, *before) if part.fractional is not None]
    if len(counted) <= len(before):
        return None
    share, *past = (count / max(part.n, 1) for count, part in zip(counted, (now, *before), strict=True))
    was = max(past)
    if now.n < MIN_ROWS or was > WHOLE or share < FRACTIONS:
        return None
    return (
        share,
        FRACTIONS,
        f"looks converted: {share:.1%} of the values are no whole numbers, before {was:.1%}",
    )


def _beyond(before: list[ColumnProfile], now: ColumnProfile, allowed_rise: float) -> _Finding:
    """Outside three times the range of training, and of the references: a counter may grow on."""
    if now.kind != "numeric" or now.n < MIN_ROWS or now.min is None or now.max is None:
        return None
    share, was = now.beyond / now.n, max(part.beyond / max(part.n, 1) for part in before)
    low = min((part.min for part in before if part.min is not None), default=-math.inf)
    high = max((part.max for part in before if part.max is not None), default=math.inf)
    # In a day or two a single stormy hour is a fair share of the rows.
    allowed_rise *= max(1.0, MIN_BLOCKS / len(now.blocks))
    if share <= was + allowed_rise or (now.min >= 2 * low - high and now.max <= 2 * high - low):
        return None
    text = f"is out of range in {share:.1%} of rows: {now.min:.4g} to {now.max:.4g}, before {low:.4g} to {high:.4g}"
    return share, was + allowed_rise, text


def _stuck(before: list[ColumnProfile], now: ColumnProfile) -> _Finding:
    """One value for twice as many days as ever before."""
    days = int((now.block_n > 0).sum())
    if days < MIN_BLOCKS or _value_of(now) is None or any(_value_of(part) is not None for part in before):
        return None
    longest = max(_longest_run(_single_valued(part)) for part in before)
    if days <= 2 * longest or max(_share_of_value(part, now) for part in before) ** now.n > BY_CHANCE:
        return None
    return (
        days,
        2 * longest,
        f"is {_value_of(now)} in all rows of {days} days, before for {longest} days at most",
    )


def _value_of(column: ColumnProfile) -> str | None:
    """The only value of a column, None if there are several or none."""
    if column.kind == "categorical":
        used = np.flatnonzero(column.counts)
        return column.bins.names[used[0]] if len(used) == 1 and used[0] < len(column.bins.levels) else None
    return f"{column.min:.6g}" if column.n and column.min == column.max else None


def _share_of_value(before: ColumnProfile, now: ColumnProfile) -> float:
    """How common the only value of ``now`` was: exactly if few values differ, else as its bin."""
    if now.kind == "numeric" and before.values is not None and now.min is not None:
        return before.values.get(float(f"{now.min:.12g}"), 0) / max(before.n, 1)
    return float(before.counts[np.argmax(now.counts)] / max(before.n, 1)) if before.bins == now.bins else 0.0


def _single_valued(column: ColumnProfile) -> np.ndarray:
    """Which blocks (b,) hold one single value, or none."""
    bins_used = (column.block_counts[:, :-1] > 0).sum(axis=1)
    if column.kind == "categorical":
        return np.asarray(bins_used <= 1)
    # Rounding leaves a trace in the deviations of equal numbers.
    return np.asarray(column.block_m2s <= 1e-12 * column.block_n * (1e-300 + column.block_means**2))


def _longest_run(flags: np.ndarray) -> int:
    """The longest run of true ones.

    >>> _longest_run(np.array([True, False, True, True]))
    2
    """
    ends = np.flatnonzero(np.diff(np.concatenate([[0], flags.astype(int), [0]])))
    return int((ends[1::2] - ends[::2]).max(initial=0))


def _rows(column: ColumnProfile) -> np.ndarray:
    return np.asarray(column.block_counts.sum(axis=1))


def _null_rows(column: ColumnProfile) -> np.ndarray:
    return np.asarray(column.block_counts[:, -1])


def _null_share(column: ColumnProfile) -> float:
    """Missing values without the malformed ones, which are told apart."""
    return column.share(column.missing - column.malformed)


def _standard_error(before: ColumnProfile, days: int) -> float:
    """Of the difference in missing share between the reference and a window of so many days."""
    shares = _null_rows(before) / np.maximum(_rows(before), 1)
    share = before.share(before.missing)
    # Too few days show no swing: then each may be all or nothing.
    swing = shares.std(ddof=1) if len(shares) >= MIN_BLOCKS else math.sqrt(share * (1 - share))
    return float(swing * math.sqrt(1 / len(shares) + 1 / days))
