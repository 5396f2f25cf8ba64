"""A window of a table in chunks that can be read apart: what is larger than memory is worked on piece by piece."""

from __future__ import annotations

import shutil
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from tempfile import TemporaryDirectory
from time import time as now
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from prodkit.data.arrays import WHOLE, cast_cells, is_text, key_type
from prodkit.data.cells import texts
from prodkit.data.census import row_hashes
from prodkit.data.database import Database
from prodkit.data.sources import open_table
from prodkit.data.tables import Files, Format, Part
from prodkit.data.windows import (
    no_rows,
    read_window,
    row_column,
    table_columns,
    window_limits,
)
from prodkit.params import ProjectParams

__all__ = ["Chunk", "Chunks", "kept_hashes", "key_hashes", "shared_keys", "window_chunks"]

_FORGOTTEN_SECONDS = 86_400.0  # after which the scratch of a process that was killed is removed
_AT_ONCE = 2**21  # hashes that are compared in memory: 16 MB


@dataclass(frozen=True, eq=False)
class _Layout:
    """What the chunks of a window have in common."""

    table: Files
    time: str
    start: datetime
    end: datetime
    keys: dict[str, Any]  # Arrow types
    features: tuple[str, ...]
    numbered: str
    batch_rows: int


@dataclass(frozen=True, eq=False)
class Chunk:
    """Some row groups of a table, one after the other. It can be sent to another process, which reads it there.

    Attributes:
        number: of the chunk, in the order of the table.
        parts: where its rows lie, and others that are not of the window.
        layout: of the table.
    """

    number: int
    parts: tuple[Part, ...]
    layout: _Layout

    @property
    def most_rows(self) -> int:
        """How many there are at most."""
        return sum(part.rows for part in self.parts)

    def batches(self, *, features: bool = True, rows: int = 0) -> Iterator[Any]:
        """Arrow record batches of the window's rows, in the order of the table: times, what names a row, features.

        Times are naive timestamps in microseconds, UTC if they had a zone. Features that a file lacks are null;
        texts are dictionaries. What names a row has one type in all of them.

        Args:
            features: or only what names a row.
            rows: of a batch at most; as the window was cut if 0.

        Raises:
            DataError: the table cannot be read. SchemaError: the time column holds no times.
        """
        layout, at_most = self.layout, rows or self.layout.batch_rows
        names = [
            *(name for name in layout.keys if name != layout.numbered),
            *(layout.features if features else ()),
        ]
        limits: dict[str, Any] = {"time": layout.time, "start": layout.start, "end": layout.end}
        for batch in layout.table.window(
            names, **limits, numbered=layout.numbered, rows=at_most, parts=self.parts
        ):
            columns = dict(zip(batch.schema.names, batch.columns, strict=True))
            columns |= {name: cast_cells(columns[name], kind) for name, kind in layout.keys.items()}
            yield pa.RecordBatch.from_pydict(columns)


class Chunks(Sequence[Chunk]):
    """The chunks of a window, and a folder for what is worked on meanwhile.

    Attributes:
        keys: columns that name a row: the time, and the id columns or ``_row``.
        scratch: the folder, which other processes see too; :meth:`close` removes it, or the end of this process.
    """

    def __init__(
        self, chunks: Sequence[Chunk], keys: Sequence[str], scratch: TemporaryDirectory[str]
    ) -> None:
        self._chunks, self.keys = list(chunks), list(keys)
        self._folder, self.scratch = scratch, Path(scratch.name)

    def __len__(self) -> int:
        return len(self._chunks)

    def __getitem__(self, place: Any) -> Any:
        return self._chunks[place]

    @property
    def most_rows(self) -> int:
        """How many rows there are at most: row groups hold some of other windows."""
        return sum(chunk.most_rows for chunk in self._chunks)

    def close(self) -> None:
        """Remove what was worked on; staged chunks cannot be read any more."""
        self._folder.cleanup()
        with suppress(OSError):  # others work there
            self.scratch.parent.rmdir()


def _scratch(place: Path) -> TemporaryDirectory[str]:
    """A folder of this process beside the results, and an end to those that killed ones have left."""
    place.joinpath(".scratch").mkdir(parents=True, exist_ok=True)
    for other in place.joinpath(".scratch").iterdir():
        if other.stat().st_mtime < now() - _FORGOTTEN_SECONDS:
            shutil.rmtree(other, ignore_errors=True)
    return TemporaryDirectory(dir=place / ".scratch", ignore_cleanup_errors=True)


def window_chunks(
    facts: ProjectParams,
    *,
    features: Sequence[str],
    batch_rows: int,
    chunk_rows: int,
    place: Path,
    scored: pd.DataFrame | None = None,
) -> Chunks:
    """Cut the rows of ``facts.window`` that exist at ``facts.moment`` into chunks.

    A Parquet table is read where it lies, row group by row group; neighbouring small ones are one chunk. Others
    are copied once into Parquet beside the results, so that what was looked at first is what is worked on later.

    Args:
        facts: what the data is.
        features: columns to read, as far as they are there.
        batch_rows: rows of a batch, at most.
        chunk_rows: rows of a chunk, at least, but for the last.
        place: folder for what is worked on meanwhile.
        scored: time and id, or position, of rows that are left out; none are if not given.

    Raises:
        DataError: no such table. SchemaError: a column is missing, or the time column holds no times.
        WindowError: no rows. IdentityError: nothing names a row. ParameterError: an unknown fault.
    """
    source, scratch, time = open_table(facts), _scratch(place), facts.time_column
    table_columns(facts, source, facts.features, labels=False)
    numbered = "" if facts.id_column else row_column(source.columns)
    ids = [name for name in facts.id_column if name != time] if facts.id_column else [numbered]
    chosen = tuple(name for name in features if name in source.columns and name not in (time, *ids))
    start, end = window_limits(facts)
    apart = isinstance(source, Files) and source.is_parquet and not facts.drill and scored is None
    table, positions = source, numbered
    if not apart:
        folder = Path(scratch.name, "table")
        table, positions = _staged(facts, source, [*ids, *chosen], folder, chunk_rows, scored), ""
    assert isinstance(table, Files)
    parts = table.parts(time, start, end)
    if not parts:
        raise no_rows(facts, source)
    schemas = table.schemas.values()
    keys = {
        name: key_type(
            {schema.field(name).type for schema in schemas if name in schema.names} or {pa.string()}, name
        )
        for name in ids
    }
    if isinstance(source, Files) and not source.is_parquet:  # whose cells are texts
        keys |= {name: pa.int64() for name in ids if _all_whole(table, parts, name)}
    layout = _Layout(table, time, start, end, keys, chosen, positions, batch_rows)
    gathered: list[list[Part]] = [[]]
    for part in parts:
        if sum(each.rows for each in gathered[-1]) >= chunk_rows:
            gathered.append([])
        gathered[-1].append(part)
    chunks = [Chunk(number, tuple(each), layout) for number, each in enumerate(gathered)]
    return Chunks(chunks, [time, *keys], scratch)


def _all_whole(table: Files, parts: Sequence[Part], name: str) -> bool:
    """Are the texts of a column all whole numbers?"""
    cells = (columns[name] for part in parts for columns in table.batches(part, [name]))
    return all(
        pc.all(pc.match_substring_regex(each.cast(pa.string()), WHOLE)).as_py()
        for each in cells
        if not pa.types.is_null(each.type)
    )


def _staged(
    facts: ProjectParams,
    source: Files | Database,
    names: Sequence[str],
    folder: Path,
    rows: int,
    scored: pd.DataFrame | None,
) -> Files:
    """The rows of a window as Parquet files in a folder, of which a few batches at a time are in memory.

    The fault of a rehearsal concerns all rows of its window together, so that one is read whole.
    """
    folder.mkdir(parents=True)
    writer: pq.ParquetWriter | None = None
    written = 0
    try:
        for batch in _batches(facts, source, names, scored):
            if writer is None or batch.schema != writer.schema:  # a file for each type that a column comes as
                if writer is not None:
                    writer.close()
                writer = pq.ParquetWriter(folder / f"{written:06d}.parquet", batch.schema)
                written += 1
            writer.write_batch(batch, row_group_size=rows)
    finally:
        if writer is not None:
            writer.close()
    if not written:
        raise no_rows(facts, source)
    return Files(str(folder), shown=facts.data, written=Format(missing=frozenset()))


def _batches(
    facts: ProjectParams, source: Files | Database, names: Sequence[str], scored: pd.DataFrame | None
) -> Iterator[Any]:
    numbered = "" if facts.id_column else row_column(source.columns)
    if facts.drill or scored is not None:
        others = [name for name in names if name not in (*facts.id_column, numbered)]
        frame = read_window(facts, columns=others, unique=scored is None)
        if scored is not None:
            frame = frame[_unscored(frame, scored, time=facts.time_column, ids=facts.id_column)]
            frame = frame.drop_duplicates(facts.id_column) if facts.id_column else frame
        if frame.empty:
            return
        yield from pa.Table.from_pandas(frame[[facts.time_column, *names]], preserve_index=False).to_batches()
        return
    start, end = window_limits(facts)
    wanted = [name for name in names if name != numbered]
    yield from source.window(wanted, time=facts.time_column, start=start, end=end, numbered=numbered)


def _unscored(frame: pd.DataFrame, scored: pd.DataFrame, *, time: str, ids: Sequence[str]) -> np.ndarray:
    """Which rows (n,) were not scored before: by their ids, exactly.

    Rows without ids are known again by file and position. Where these have moved, as many of the same moment count
    as scored as there were: among rows of one moment, those that come last in the table are the new ones.
    """
    keys = list(ids) or list(scored.columns)
    new: np.ndarray = ~np.isin(row_hashes(frame[keys]), row_hashes(scored[keys]))
    if ids:
        return new
    moved = scored[~np.isin(row_hashes(scored[keys]), row_hashes(frame[keys]))]
    left = Counter(moved[time].tolist())
    for place in np.flatnonzero(new):
        moment = frame[time].iloc[place]
        if left[moment] > 0:
            left[moment] -= 1
            new[place] = False
    return new


# Whether what names a row names one row each, of a window that does not fit into memory


def key_hashes(batch: Any, keys: Sequence[str]) -> np.ndarray:
    """A hash of what names each row (n,), uint64: equal names have equal ones.

    >>> batch = pa.RecordBatch.from_pydict({"a": ["x", "x", "y"], "b": [1, 2, 1]})
    >>> len(set(key_hashes(batch, ["a", "b"]).tolist()))
    3
    """
    total = np.zeros(batch.num_rows, dtype=np.uint64)
    for name in keys:
        with np.errstate(over="ignore"):
            total = total * np.uint64(0x9E3779B97F4A7C15) + _hashes(batch.column(name))
    return total


def _hashes(cells: Any) -> np.ndarray:
    if is_text(cells.type):
        cells = cells.dictionary_encode()
        levels = np.append(cells.dictionary.to_numpy(zero_copy_only=False).astype(object), "")
        codes = cells.indices.fill_null(len(levels) - 1).to_numpy(zero_copy_only=False)
        return np.asarray(pd.util.hash_array(levels, categorize=False)[codes])
    return np.asarray(pd.util.hash_pandas_object(cells.to_pandas(), index=False, categorize=False))


def kept_hashes(hashes: Sequence[np.ndarray], path: Path) -> None:
    """Write the hashes of a chunk to a file, ascending."""
    np.save(path, np.sort(np.concatenate([np.empty(0, np.uint64), *hashes])))


def shared_keys(facts: ProjectParams, chunks: Chunks, paths: Sequence[Path]) -> pd.DataFrame:
    """What names the rows of a window whose name is that of another row, too.

    Of all rows only a hash is compared, some at a time, so that memory does not grow with the window; rows of equal
    hashes are read again, for two names may share one.

    Args:
        facts: what the data is; nothing is asked where no column names a row.
        chunks: the rows.
        paths: files of :func:`kept_hashes`, one a chunk.
    """
    nothing = pd.DataFrame(columns=facts.id_column)
    if not facts.id_column:
        return nothing
    repeated = _repeated([np.load(each, mmap_mode="r") for each in paths])
    suspects = np.concatenate([np.empty(0, np.uint64), *repeated])
    if not len(suspects):
        return nothing
    named = []
    for chunk in chunks:
        for batch in chunk.batches(features=False):
            mine = np.isin(key_hashes(batch, facts.id_column), suspects)
            named.append(batch.select(facts.id_column).filter(pa.array(mine)).to_pandas())
    rows = pd.concat(named, ignore_index=True)
    shared: pd.DataFrame = rows[rows.apply(texts).duplicated(keep=False)]
    return shared


def _repeated(hashes: Sequence[np.ndarray]) -> Iterator[np.ndarray]:
    """Those that occur more than once, range by range."""
    ranges = -(-sum(map(len, hashes)) // _AT_ONCE)
    edges = [np.uint64(place * (2**64 // ranges)) for place in range(1, ranges)] if ranges else []
    cuts = [[0, *np.searchsorted(each, edges).tolist(), len(each)] for each in hashes]
    for place in range(ranges):
        here = [each[cut[place] : cut[place + 1]] for each, cut in zip(hashes, cuts, strict=True)]
        mine = np.sort(np.concatenate(here))
        yield np.unique(mine[1:][mine[1:] == mine[:-1]])
