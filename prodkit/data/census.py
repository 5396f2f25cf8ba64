"""What each period of a table holds, in numbers and digests: what came later, vanished or was rewritten shows."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from prodkit.data.cells import distinct, is_missing, native_kind, number, text
from prodkit.data.sources import open_table
from prodkit.data.windows import read_window
from prodkit.errors import ProdkitError
from prodkit.evidence import Window
from prodkit.params import ProjectParams

__all__ = ["EVER", "Tally", "census", "contents", "differences", "row_hashes"]

EVER = Window(datetime(2, 1, 1), datetime(9990, 1, 1))
"""All of a table, but for ends that are left open."""
_AT_ONCE = 500_000  # rows whose cells are read together


@dataclass(frozen=True)
class Tally:
    """What a period holds, whoever looks when.

    Attributes:
        rows: of it.
        labels: how many of them have one, young or old.
        first: the first moment of a row, and
        last: the last.
        columns: that the digests are of.
        days: for each day as ISO text, how many rows and labels it has, and a digest of each; empty if not looked at.
    """

    rows: int
    labels: int
    first: datetime
    last: datetime
    columns: tuple[str, ...] = ()
    days: Mapping[str, tuple[int, int, str, str]] = field(default_factory=dict)

    def to_dict(self) -> dict[str, Any]:
        """As plain JSON."""
        return {**vars(self), "first": self.first.isoformat(), "last": self.last.isoformat()}

    @classmethod
    def from_dict(cls, document: Mapping[str, Any]) -> Tally:
        """Read what :meth:`to_dict` wrote."""
        ends = {name: datetime.fromisoformat(document[name]) for name in ("first", "last")}
        days = {day: tuple(each) for day, each in document["days"].items()}
        return cls(**{**document, **ends, "columns": tuple(document["columns"]), "days": days})


def census(
    facts: ProjectParams, cut: Callable[[datetime], Window], *, within: Window = EVER
) -> dict[Window, Tally]:
    """Rows and labels of each period that holds any, in order, with nothing of their contents.

    Args:
        facts: what the data is.
        cut: gives the period of a moment.
        within: the part of the table that is looked at.
    """
    table, time = open_table(facts), facts.time_column
    target = [facts.target] if facts.target in table.columns and facts.target != time else []
    total: dict[Window, Tally] = {}
    for batch in table.window(target, time=time, start=within.start, end=within.end):
        moments = batch.column(time).to_numpy(zero_copy_only=False)
        known = _present(batch.column(facts.target)) if target else np.zeros(len(moments), dtype=bool)
        order = np.argsort(moments, kind="stable")
        moments, labels = moments[order], np.append(0, np.cumsum(known[order]))
        start = 0
        while start < len(moments):
            first = moments[start].astype(datetime)
            period = cut(first)
            end = int(np.searchsorted(moments, np.datetime64(period.end, "us")))
            last = moments[end - 1].astype(datetime)
            part = Tally(end - start, int(labels[end] - labels[start]), first, last)
            total[period] = _together(total.get(period), part)
            start = end
    return dict(sorted(total.items()))


def _present(cells: Any) -> np.ndarray:
    there = pc.is_valid(cells)
    if pa.types.is_floating(cells.type):
        there = pc.and_(there, pc.invert(pc.fill_null(pc.is_nan(cells), True)))
    return np.asarray(there.to_numpy(zero_copy_only=False))


def _together(one: Tally | None, other: Tally) -> Tally:
    if one is None:
        return other
    ends = min(one.first, other.first), max(one.last, other.last)
    return Tally(one.rows + other.rows, one.labels + other.labels, *ends)


def contents(facts: ProjectParams, tallies: Mapping[Window, Tally]) -> dict[Window, Tally]:
    """The same periods with digests of their days, which the order of rows does not change."""
    table, read = open_table(facts), dict(tallies)
    out = {facts.time_column, facts.target, *table.nested, *table.keys}
    names = list(facts.features) or [name for name in table.columns if name not in out]
    whole = facts.model_copy(update={"as_of": EVER.end, "drill": {}})
    columns = list(dict.fromkeys([facts.time_column, *facts.id_column, *names]))
    for group in _groups(tallies):
        span = Window(group[0].start, group[-1].end)
        with suppress(ProdkitError):  # the notebook that reads these rows will say what is wrong
            frame = read_window(whole, span, columns=names, labels=False, unique=False)
            moments = frame[facts.time_column].to_numpy()
            for period in group:
                ends = (np.datetime64(moment, "us") for moment in (period.start, period.end))
                first, last = (int(np.searchsorted(moments, end)) for end in ends)
                part = frame.iloc[first:last]
                days = _days(part[columns], part[facts.target], part[facts.time_column])
                known = int(part[facts.target].notna().sum())
                read[period] = replace(tallies[period], labels=known, columns=tuple(columns), days=days)
    return read


def _groups(tallies: Mapping[Window, Tally]) -> Iterator[list[Window]]:
    """Periods that are read together: those that follow one another, as many as fit."""
    group: list[Window] = []
    rows = 0
    for period in sorted(tallies):
        if group and (rows + tallies[period].rows > _AT_ONCE or group[-1].end < period.start):
            yield group
            group, rows = [], 0
        group.append(period)
        rows += tallies[period].rows
    if group:
        yield group


def _days(rows: pd.DataFrame, labels: pd.Series, moments: pd.Series) -> dict[str, tuple[int, int, str, str]]:
    """For each day its rows and labels, and the sums of their hashes."""
    known, hashes = labels.notna().to_numpy(), row_hashes(rows)
    with np.errstate(over="ignore"):
        labelled = np.where(known, hashes * np.uint64(3) + row_hashes(labels.to_frame()), np.uint64(0))
    table = pd.DataFrame({"rows": 1, "labels": known, "row": hashes, "label": labelled})
    sums = table.groupby(moments.dt.strftime("%Y-%m-%d").to_numpy()).sum()
    return {
        str(day): (int(each["rows"]), int(each["labels"]), f"{int(each['row']):x}", f"{int(each['label']):x}")
        for day, each in sums.to_dict("index").items()
    }


def row_hashes(frame: pd.DataFrame) -> np.ndarray:
    """A hash of each row (n,), uint64: equal cells have equal ones, whatever type their column has.

    >>> one = pd.DataFrame({"a": [1, 2], "b": ["1", "x"]})
    >>> bool((row_hashes(one) == row_hashes(one.astype({"a": "float64", "b": object}))).all())
    True
    """
    total = np.zeros(len(frame), dtype=np.uint64)
    with np.errstate(over="ignore"):
        for name in frame.columns:
            total = total * np.uint64(0x9E3779B97F4A7C15) + _cell_hashes(frame[name])
    return total


def _cell_hashes(cells: pd.Series) -> np.ndarray:
    kind = native_kind(cells.dtype)
    if kind == "datetime":
        return _hashed(cells.to_numpy(dtype="datetime64[us]").astype("int64"))
    if kind in ("numeric", "boolean") and cells.dtype.kind != "m":
        return _hashed(cells.to_numpy(dtype="float64", na_value=np.nan) + 0.0)
    codes, levels = distinct(cells)
    return np.asarray(np.array([_level_hash(level) for level in levels], dtype=np.uint64)[codes])


def _level_hash(level: Any) -> int:
    """Of a cell that is looked at by itself: as a number where it can be read as one."""
    if is_missing(level):
        return int(_hashed(np.array([np.nan]))[0])
    try:
        return int(_hashed(np.array([number(level)]))[0])
    except (ValueError, TypeError):
        try:
            return int(_hashed(np.array([text(level)], dtype=object))[0])
        except ValueError:  # several values
            return int(_hashed(np.array([repr(level)], dtype=object))[0])


def _hashed(values: np.ndarray) -> np.ndarray:
    return np.asarray(pd.util.hash_array(values, categorize=False))


def differences(
    before: Mapping[Window, Tally], now: Mapping[Window, Tally], *, of: Collection[Window]
) -> dict[Window, list[str]]:
    """What is otherwise in periods that were over when they were looked at before, in words.

    More labels are no difference: they come late.

    Args:
        before: as it was then.
        now: as it is.
        of: the periods.
    """
    told: dict[Window, list[str]] = {}
    for period in sorted(of):
        old, new = before[period], now.get(period) or replace(before[period], rows=0, labels=0, days={})
        lines = []
        if new.rows != old.rows:
            lines.append(
                f"rows of {{}} {'fell' if new.rows < old.rows else 'rose'} from {old.rows} to {new.rows}"
            )
        if new.labels < old.labels:
            lines.append(f"known labels of {{}} fell from {old.labels} to {new.labels}")
        if old.columns == new.columns and old.days and new.days:
            lines += _rewritten(old, new)
        if lines:
            told[period] = lines
    return told


def _rewritten(old: Tally, new: Tally) -> list[str]:
    """Days that have as many rows, or labels, as before, but others."""
    same = [(old.days[day], new.days[day]) for day in old.days.keys() & new.days.keys()]
    rows = sum(one[0] == other[0] and one[2] != other[2] for one, other in same)
    labels = sum(
        one[:3:2] == other[:3:2] and one[1] == other[1] and one[3] != other[3] for one, other in same
    )
    days = {1: "1 day"}
    return [
        *([f"rows of {{}} were rewritten on {days.get(rows, f'{rows} days')}"] if rows else []),
        *([f"known labels of {{}} were changed on {days.get(labels, f'{labels} days')}"] if labels else []),
    ]
