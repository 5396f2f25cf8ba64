"""Tables of any size: one pass over their files to a profile, and two of them compared."""

from __future__ import annotations

import os
import uuid
import weakref
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from functools import lru_cache
from itertools import chain
from pathlib import Path
from typing import Any

import fsspec
import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from prodkit.data.arrays import every, floats, kind_of, level_codes
from prodkit.data.cells import Kind
from prodkit.data.tables import Files, Part, Unreadable, reading
from prodkit.drift.compare import SIGNALS, differences
from prodkit.drift.counts import Blocks, cells_profile, counterpart, missing_profile
from prodkit.drift.profiles import Bins, ColumnProfile, Profile
from prodkit.errors import DataError, ParameterError, missing_column

__all__ = ["TableComparison", "compare_tables", "profile_table"]

_HELD = 2**22  # cells from which the bins of new columns are chosen
_HELD_ROWS = 2**14  # at least, of a table of many columns
_SAMPLED = 2**16  # numbers that bins are chosen from
_SAMPLED_PARTS = 8  # read twice of a table that is too large to be held
_STRETCHES = 128  # blocks of a table without a time column

# Of each column: its profile, and why it could not be read, if so.
_Counted = dict[str, tuple[ColumnProfile, str]]


@dataclass(frozen=True)
class TableComparison:
    """Two profiles, and what differs between them.

    Attributes:
        reference: profile of the one table, to be kept, so that it is never read again.
        current: profile of the other, on the same bins.
        columns: one row a column, the most harmful first, as :func:`prodkit.drift.compare.differences` gives them.
        new: columns of the current table that the reference lacks.
    """

    reference: Profile
    current: Profile
    columns: list[dict[str, Any]]
    new: tuple[str, ...] = ()

    @property
    def drifted(self) -> list[str]:
        """Columns with any alarm: of values, of missing ones or of unseen levels."""
        return [row["column"] for row in self.columns if any(row[f"{signal}drifted"] for signal in SIGNALS)]

    def frame(self) -> pd.DataFrame:
        """The columns as :func:`prodkit.drift.compare.comparison` gives them."""
        return pd.DataFrame(self.columns).set_index("column")


def compare_tables(
    reference: Any,
    current: Any,
    *,
    time_column: str | None = None,
    columns: Sequence[str] | None = None,
    alpha: float = 0.05,
    min_effect: float = 0.1,
    importance: Mapping[str, float] | None = None,
    threads: int | None = None,
) -> TableComparison:
    """Profile a table in one pass and compare all its columns with a reference.

    It holds a few batches in memory, however large the tables are.

    Args:
        reference: a kept profile, or another table, see :func:`profile_table`.
        current: the table to judge.
        time_column: see :func:`profile_table`.
        columns: those to compare; all of the reference if not given.
        alpha: false discovery rate over the columns.
        min_effect: Jensen-Shannon distance (0 to 1) below which a shift is ignored.
        importance: what each column is worth to the model.
        threads: see :func:`profile_table`.

    Raises:
        DataError: there is no such table. SchemaError: no such column. ParameterError: ``threads`` below 1.
    """
    if not isinstance(reference, Profile):
        reference = profile_table(reference, time_column=time_column, columns=columns, threads=threads)
    elif columns is not None:
        reference = replace(reference, columns={name: counterpart(reference, name) for name in columns})
    table = _opened(current)
    now = profile_table(table, like=reference, time_column=time_column, threads=threads)
    rows = differences(reference, now, alpha=alpha, min_effect=min_effect, importance=importance)
    known = {*reference.columns, time_column}
    new = [name for name in table.columns if columns is None and name not in known]
    return TableComparison(reference, now, rows, tuple(new))


def _opened(table: Any) -> Files:
    """A table by its location, or a frame, written as Parquet into memory for as long as it is read."""
    if isinstance(table, str | Path):
        return Files(str(table))
    if isinstance(table, Files):
        return table
    if not hasattr(table, "__arrow_c_stream__"):
        rule = "must be a path or a frame of pandas, polars or pyarrow (with __arrow_c_stream__)"
        raise ParameterError("table", rule=rule, value=type(table).__name__)
    system, path = fsspec.filesystem("memory"), f"/prodkit/{uuid.uuid4().hex}.parquet"
    with reading("a frame in memory"):
        system.makedirs("/prodkit", exist_ok=True)
        with system.open(path, "wb") as file:
            pq.write_table(pa.table(table), file)
    files = Files(f"memory:/{path}")
    weakref.finalize(files, system.rm, path)
    return files


def profile_table(
    location: Any,
    *,
    like: Profile | None = None,
    columns: Sequence[str] | None = None,
    time_column: str | None = None,
    threads: int | None = None,
) -> Profile:
    """Summarise the columns of a table of any size in one pass over its row groups.

    A column that is absent, of an unknown type or unreadable is a profile of missing values with a note,
    never an error. New bins are chosen from all values, or from those of eight parts of a table of more than 4
    million rows, which takes a pass before.

    Args:
        location: path, folder, glob or fsspec URL of Parquet or CSV files, the files opened, or a frame in memory:
            of pandas, polars, pyarrow, or whatever has ``__arrow_c_stream__``.
        like: take the columns and the bins of this profile instead of making new ones.
        columns: those to summarise; of ``like``, or all but the time, if not given.
        time_column: when a row happened. Its days are the blocks, the units of dependence; rows without a time
            are counted as ``timeless`` and left out. Without it, 128 stretches of consecutive rows are.
        threads: that read and count at the same time; by default one a processor, at most 8.

    Raises:
        DataError: there is no such table. SchemaError: no such column. ParameterError: ``threads`` below 1.
    """
    table = _opened(location)
    threads = min(8, os.cpu_count() or 1) if threads is None else threads
    if threads < 1:
        raise ParameterError("threads", rule="must be at least 1", value=threads)
    for name in [*(columns if columns and not like else ()), *([time_column] if time_column else [])]:
        if name not in table.columns:
            raise missing_column(name, table.columns)
    names = list(columns or (like.columns if like else [n for n in table.columns if n != time_column]))
    scan = _Scan(table, time_column, threads)
    with _thrifty_memory(), ThreadPoolExecutor(threads) as pool:
        parts: Iterable[_Counted]
        if like is None and table.is_parquet and scan.rows <= _HELD:
            parts = pool.map(scan.whole, names)
        else:
            if like is None:
                groups = [[name] for name in names] if table.is_parquet else [names]
                bins = {name: each for chosen in pool.map(scan.bins, groups) for name, each in chosen.items()}
            else:
                bins = {name: counterpart(like, name).bins for name in names}
            shares = -(-4 * threads // max(1, len(scan.parts))) if table.is_parquet else 1
            size = -(-len(names) // shares) or 1
            groups = [names[start : start + size] for start in range(0, len(names), size)]
            tasks = [(part, {name: bins[name] for name in group}) for part in scan.parts for group in groups]
            empty: _Counted = {
                name: (missing_profile(bins[name], Blocks.of(np.array([]))), "") for name in names
            }
            parts = chain([empty], pool.map(lambda task: scan.count(*task), tasks))
        total = _added((name, *counted) for part in parts for name, counted in part.items())
    summed = {name: _ranging(column) if like is None else column for name, (column, _) in total.items()}
    rows = next((column.rows for column in summed.values()), 0)
    notes = {name: note for name, (_, note) in total.items() if note}
    return Profile(rows, summed, notes, timeless=scan.timeless)


class _Scan:
    """Counts the cells of a table, part by part; safe to be used by many threads."""

    def __init__(self, table: Files, time_column: str | None, threads: int) -> None:
        self._table, self._time = table, time_column
        self.parts = table.parts(counted=True)
        self.rows = sum(part.rows for part in self.parts)
        self._timeless: dict[Part, int] = {}
        self._blocks = lru_cache(maxsize=threads + 1)(self._blocks_of)

    @property
    def timeless(self) -> int:
        """Rows that were left out since they have no time."""
        return sum(self._timeless.values())

    def count(self, part: Part, bins: Mapping[str, Bins]) -> _Counted:
        """Some columns of a part, on these bins."""
        return _added(
            (name, *cells_profile(cells, bins[name], rows))
            for name, cells, rows in self._read(part, list(bins))
        )

    def whole(self, name: str) -> _Counted:
        """A column that is held in memory, on new bins."""
        held = [each for part in self.parts for each in self._read(part, [name])]
        bins = _new_bins([each[1:] for each in held], levels=name in self._table.categories)
        empty = name, missing_profile(bins, Blocks.of(np.array([]))), ""
        return _added([empty, *((name, *cells_profile(cells, bins, rows)) for _, cells, rows in held)])

    def bins(self, names: Sequence[str]) -> dict[str, Bins]:
        """New bins of columns, from values of all parts, or of some that are spread over the table."""
        parts, most = self.parts, max(_HELD_ROWS, _HELD // len(names))
        if self.rows > most:
            places = np.unique(np.linspace(0, len(parts) - 1, _SAMPLED_PARTS).astype(int))
            parts = [parts[place] for place in places]
        stride = max(1, sum(part.rows for part in parts) // most)
        held: dict[str, list[tuple[Any, Blocks]]] = {name: [] for name in names}
        for part in parts:
            for name, cells, rows in self._read(part, names):
                held[name].append((every(cells, stride), replace(rows, codes=rows.codes[::stride])))
        return {name: _new_bins(each, levels=name in self._table.categories) for name, each in held.items()}

    def _read(self, part: Part, names: Sequence[str]) -> Iterator[tuple[str, Any, Blocks]]:
        """Name, cells, and their blocks."""
        for name, start, cells in self._table.arrays(part, names):
            whole = self._blocks(part)
            yield name, cells, replace(whole, codes=whole.codes[start : start + len(cells)])

    def _blocks_of(self, part: Part) -> Blocks:
        """The blocks of a part: days since 1970, or stretches of consecutive rows."""
        if self._time is None:
            length = max(1, -(-self.rows // _STRETCHES))
            return Blocks.stretches(part.offset, part.rows, length=length)
        days = [np.array([])]
        for name, _, cells in self._table.arrays(part, [self._time]):
            if isinstance(cells, Unreadable):
                raise DataError(name, rule=f"could not be read: {cells.reason}", place=part.path)
            moments = self._table.written.times(cells, name)
            found = moments.astype("datetime64[D]").astype(float)
            days.append(np.where(np.isnat(moments), np.nan, found))
        blocks = Blocks.of(np.concatenate(days))
        self._timeless[part] = int((blocks.codes < 0).sum())
        return blocks


def _new_bins(held: Sequence[tuple[Any, Blocks]], *, levels: bool) -> Bins:
    """Bins for arrays, each with the blocks of its rows: levels if ``levels`` is given, or if arrays differ in kind."""
    cells = [
        each for each in held if not isinstance(each[0], Unreadable) and each[0].null_count < len(each[0])
    ]
    kinds: set[Kind] = {"categorical"} if levels and cells else {kind_of(array) for array, _ in cells}
    kind: Kind = kinds.pop() if len(kinds) == 1 else "categorical" if kinds else "numeric"
    if kind == "categorical":
        places: dict[str | None, int] = {}
        codes = []
        for array, _ in cells:
            own, names = level_codes(array)
            codes.append(np.array([places.setdefault(name, len(places)) for name in names.to_pylist()])[own])
        blocks = np.concatenate([np.append(rows.labels, -1)[rows.codes] for _, rows in cells])
        return Bins.of_levels(np.concatenate(codes), list(places), blocks=blocks)
    stride = max(1, sum(len(array) for array, _ in cells) // _SAMPLED)
    values = [floats(every(array, stride), kind)[0] for array, _ in cells]
    return Bins.of_numbers(np.concatenate([np.array([]), *values]), kind=kind)


def _added(columns: Iterable[tuple[str, ColumnProfile, str]]) -> _Counted:
    """Profiles and notes by name, merged in their order so that threads make no difference to the last digit."""
    total: _Counted = {}
    for name, column, note in columns:
        before = total.get(name)
        total[name] = (before[0].merge(column), before[1] or note) if before else (column, note)
    return total


def _ranging(column: ColumnProfile) -> ColumnProfile:
    """The profile with the range of all its values, not that of a sample."""
    if column.kind == "boolean" or column.min is None or column.max is None:
        return column
    return replace(column, bins=column.bins.ranging(column.min, column.max), beyond=0)


@contextmanager
def _thrifty_memory() -> Iterator[None]:
    """Arrow's jemalloc gives freed pages back: half the memory, and flat over a long table, where it is there."""
    usual = pa.default_memory_pool()
    with suppress(NotImplementedError):
        pa.set_memory_pool(pa.jemalloc_memory_pool())
    try:
        yield
    finally:
        pa.set_memory_pool(usual)
