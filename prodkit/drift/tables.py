"""Tables of any size: one pass over their files to a profile, and two of them compared."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

from prodkit.data.parts import Parts, open_parts
from prodkit.drift.columns import ColumnProfile
from prodkit.drift.comparison import differences
from prodkit.drift.counts import HELD, Counts, Found, missing
from prodkit.drift.profiles import Profile
from prodkit.drift.tally import Blocks
from prodkit.errors import ParameterError, SchemaError, missing_column

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["TableComparison", "compare_tables", "profile_table"]


@dataclass(frozen=True)
class TableComparison:
    """Two profiles, and what differs between them.

    Attributes:
        reference: profile of the one table, to be kept, so that it is never read again.
        current: profile of the other, on the same bins.
        columns: one row a column, the most harmful first, as :func:`prodkit.drift.comparison.differences` gives them.
        new: columns of the current table that the reference lacks.
    """

    reference: Profile
    current: Profile
    columns: list[dict[str, Any]]
    new: tuple[str, ...] = ()

    @property
    def drifted(self) -> list[str]:
        """Columns with any alarm: of values, of missing ones or of unseen levels."""
        signals = ("drifted", "missing_drifted", "unseen_drifted")
        return [row["column"] for row in self.columns if any(row[signal] for signal in signals)]

    def frame(self) -> pd.DataFrame:
        """The columns as :func:`prodkit.drift.comparison.comparison` gives them."""
        import pandas as pd

        return pd.DataFrame(self.columns).set_index("column")


def compare_tables(
    reference: str | Profile,
    current: str,
    *,
    time_column: str | None = None,
    columns: Sequence[str] | None = None,
    alpha: float = 0.05,
    min_effect: float = 0.1,
    importance: Mapping[str, float] | None = None,
    threads: int | None = None,
) -> TableComparison:
    """Profile a table in one pass and compare all its columns with a reference.

    It holds a few batches in memory, however large the tables are, and loads neither pandas nor scikit-learn
    as long as columns have the types that their kinds ask for.

    Args:
        reference: a kept profile, or another table: path, folder, glob or fsspec URL of Parquet or CSV.
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
    if isinstance(reference, str):
        reference = profile_table(reference, time_column=time_column, columns=columns, threads=threads)
    elif columns is not None:
        reference = replace(reference, columns={name: _column(reference, name) for name in columns})
    table = open_parts(current)
    found = _profiled(table, like=reference, columns=None, time_column=time_column, threads=threads)
    rows = differences(reference, found, alpha=alpha, min_effect=min_effect, importance=importance)
    known = {*reference.columns, time_column}
    new = [name for name in table.names if columns is None and name not in known]
    return TableComparison(reference, found, rows, tuple(new))


def profile_table(
    location: str,
    *,
    like: Profile | None = None,
    columns: Sequence[str] | None = None,
    time_column: str | None = None,
    threads: int | None = None,
) -> Profile:
    """Summarise the columns of a table of any size in one pass over its row groups.

    A column that is absent, of an unknown type or unreadable is a profile of missing values with a note,
    never an error. New bins are chosen from up to 65,536 values spread over the table; a table of more than
    4 million rows is read twice in eight places for that.

    Args:
        location: path, folder, glob or fsspec URL of Parquet or CSV files.
        like: take the columns and the bins of this profile instead of making new ones.
        columns: those to summarise; of ``like``, or all but the time, if not given.
        time_column: when a row happened. Its days are the blocks, the units of dependence; rows without a time
            are left out. Without it, 128 stretches of consecutive rows are.
        threads: that read and count at the same time; by default one a processor, at most 8.

    Raises:
        DataError: there is no such table. SchemaError: no such column. ParameterError: ``threads`` below 1.
    """
    table = open_parts(location)
    return _profiled(table, like=like, columns=columns, time_column=time_column, threads=threads)


def _profiled(
    table: Parts,
    *,
    like: Profile | None,
    columns: Sequence[str] | None,
    time_column: str | None,
    threads: int | None,
) -> Profile:
    threads = min(8, os.cpu_count() or 1) if threads is None else threads
    if threads < 1:
        raise ParameterError("threads", rule="must be at least 1", value=threads)
    _require(table, [*(columns if columns and not like else ()), *([time_column] if time_column else [])])
    names = list(columns or (like.columns if like else [n for n in table.names if n != time_column]))
    counter = Counts(table, time_column)
    with _thrifty_memory(), ThreadPoolExecutor(threads) as pool:
        if like is not None:
            bins = {name: _column(like, name).bins for name in names}
        elif table.splits and table.rows <= HELD:
            return _whole(pool.map(counter.at_once, names), anchor=True)
        else:
            groups = [[name] for name in names] if table.splits else [names]
            bins = {name: each for found in pool.map(counter.bins, groups) for name, each in found.items()}
        shares = -(-4 * threads // max(1, len(table.parts))) if table.splits else 1
        size = -(-len(names) // shares) or 1
        groups = [names[start : start + size] for start in range(0, len(names), size)]
        tasks = [(part, {name: bins[name] for name in group}) for part in table.parts for group in groups]
        found = pool.map(lambda task: counter.part(*task), tasks)
        empty = {name: (missing(bins[name], Blocks.of(np.array([]))), "") for name in names}
        return _whole([empty, *found], anchor=like is None)


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


def _require(table: Parts, names: Sequence[str]) -> None:
    for name in names:
        if name not in table.names:
            raise missing_column(name, table.names)


def _column(profile: Profile, name: str) -> ColumnProfile:
    if name not in profile.columns:
        raise SchemaError(name, rule="must be a column of the reference profile")
    return profile.columns[name]


def _whole(parts: Iterable[Found], *, anchor: bool) -> Profile:
    """The profile of all parts, merged in their order so that threads make no difference to the last digit.

    Args:
        parts: of the table.
        anchor: the bins are new: their range is that of all values, not that of a sample.
    """
    columns: dict[str, ColumnProfile] = {}
    notes: dict[str, str] = {}
    for part in parts:
        for name, (column, note) in part.items():
            columns[name] = columns[name].merge(column) if name in columns else column
            notes |= {name: note} if note and name not in notes else {}
    if anchor:
        columns = {name: _anchored(column) for name, column in columns.items()}
    rows = next((column.rows for column in columns.values()), 0)
    return Profile(rows, columns, notes)


def _anchored(column: ColumnProfile) -> ColumnProfile:
    if column.min is None or column.max is None or column.kind == "boolean":
        return column
    width = min(column.max - column.min, 1e300)
    bins = replace(column.bins, low=column.min - width, high=column.max + width)
    return replace(column, bins=bins, beyond=0)
