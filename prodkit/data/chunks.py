"""A window of a table in chunks that can be read apart: what is larger than memory is worked on piece by piece."""

from __future__ import annotations

import shutil
import uuid
import weakref
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from time import time as now
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from prodkit.data.access import read_times, reading
from prodkit.data.arrays import without_missing
from prodkit.data.cells import MISSING
from prodkit.data.dataset import open_table
from prodkit.data.flatfiles import ROW, Files, Group
from prodkit.data.staging import row_names, staged
from prodkit.data.windows import no_rows, table_columns, window_limits
from prodkit.params import ProjectParams

__all__ = ["Chunk", "Chunks", "window_chunks"]

_FORGOTTEN_SECONDS = 86_400.0  # after which the scratch of a process that was killed is removed


@dataclass(frozen=True, eq=False)
class _Layout:
    """What the chunks of a window have in common."""

    system: Any
    time: str
    start: datetime
    end: datetime
    keys: dict[str, Any]  # Arrow types
    features: tuple[str, ...]
    numbered: bool
    batch_rows: int


@dataclass(frozen=True, eq=False)
class Chunk:
    """Some row groups of a table, one after the other. It can be sent to another process, which reads it there.

    Attributes:
        number: of the chunk, in the order of the table.
        groups: where its rows lie, and others that are not of the window.
        layout: of the table.
    """

    number: int
    groups: tuple[Group, ...]
    layout: _Layout

    @property
    def most_rows(self) -> int:
        """How many there are at most."""
        return sum(group.rows for group in self.groups)

    def batches(self, *, features: bool = True, rows: int = 0) -> Iterator[Any]:
        """Arrow record batches of the window's rows, in the order of the table: times, what names a row, features.

        Times are naive timestamps in microseconds, UTC if they had a zone. Features that a file lacks are missing
        here, too; texts are dictionaries.

        Args:
            features: or only what names a row.
            rows: of a batch at most; as the window was cut if 0.

        Raises:
            DataError: the table cannot be read. SchemaError: the time column holds no times.
        """
        for group in self.groups:
            with reading(group.name):
                chosen = self.layout.features if features else ()
                yield from self._of_group(group, chosen, rows or self.layout.batch_rows)

    def _of_group(self, group: Group, features: Sequence[str], rows: int) -> Iterator[Any]:
        layout = self.layout
        with _opened(layout.system, group.path) as handle:
            known = pq.read_schema(handle)
            texts = [name for name in features if name in known.names and _is_text(known.field(name).type)]
            handle.seek(0)
            file = pq.ParquetFile(handle, read_dictionary=texts)
            wanted = dict.fromkeys([layout.time, *layout.keys, *features])
            there = [name for name in wanted if name in known.names]
            first = group.first
            for batch in file.iter_batches(rows, [group.number], there, use_threads=False):
                columns = {
                    name: without_missing(cells, MISSING)
                    for name, cells in zip(there, batch.columns, strict=True)
                }
                columns |= {
                    name: pa.array([value] * len(batch))
                    for name, value in group.added.items()
                    if name in wanted
                }
                if layout.numbered:
                    columns[ROW] = row_names(group.name, first, len(batch))
                first += len(batch)
                columns.setdefault(layout.time, pa.nulls(len(batch)))
                kept = self._within(columns)
                if len(kept):
                    yield kept

    def _within(self, columns: dict[str, Any]) -> Any:
        """The rows of the window, with times and keys of the table's types."""
        layout = self.layout
        times = read_times(_moments(columns[layout.time]).to_pandas(), layout.time)
        mine = ((times >= layout.start) & (times < layout.end)).to_numpy()
        keys = {name: columns.pop(name, None) for name in layout.keys}
        typed = {
            name: pa.nulls(len(times), kind) if keys[name] is None else keys[name].cast(kind)
            for name, kind in layout.keys.items()
        }
        moments = pa.array(times.to_numpy(dtype="datetime64[us]"))
        batch = pa.RecordBatch.from_pydict({**columns, **typed, layout.time: moments})
        return batch if mine.all() else batch.filter(pa.array(mine))


class Chunks(Sequence[Chunk]):
    """The chunks of a window, and a folder for what is worked on meanwhile.

    Attributes:
        keys: columns that name a row: the time, and the id columns or ``ROW``.
    """

    def __init__(self, chunks: Sequence[Chunk], keys: Sequence[str], scratch: _Scratch) -> None:
        self._chunks, self.keys, self._scratch = list(chunks), list(keys), scratch

    def __len__(self) -> int:
        return len(self._chunks)

    def __getitem__(self, place: Any) -> Any:
        return self._chunks[place]

    @property
    def most_rows(self) -> int:
        """How many rows there are at most: row groups hold some of other windows."""
        return sum(chunk.most_rows for chunk in self._chunks)

    @property
    def scratch(self) -> Path:
        """The folder, which other processes see too; :meth:`close` removes it, or the end of this process."""
        return self._scratch.folder

    def close(self) -> None:
        """Remove what was worked on; staged chunks cannot be read any more."""
        self._scratch.close()


class _Scratch:
    """A folder of this process beside the results, and an end to those that others have left."""

    def __init__(self, place: Path) -> None:
        self._place = place / ".scratch"
        self.path = self._place / uuid.uuid4().hex
        self.close = weakref.finalize(self, _removed, self.path)

    @property
    def folder(self) -> Path:
        if not self.path.exists():
            self.path.mkdir(parents=True)
            for other in self._place.iterdir():
                if other.stat().st_mtime < now() - _FORGOTTEN_SECONDS:
                    shutil.rmtree(other, ignore_errors=True)
        return self.path


def _removed(path: Path) -> None:
    shutil.rmtree(path, ignore_errors=True)
    with suppress(OSError):  # others work there, or it never was
        path.parent.rmdir()


def window_chunks(
    facts: ProjectParams, *, features: Sequence[str], batch_rows: int, chunk_rows: int, place: Path
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

    Raises:
        DataError: no such table. SchemaError: a column is missing, or the time column holds no times.
        WindowError: no rows. IdentityError: nothing names a row. ParameterError: an unknown fault.
    """
    source, scratch, time = open_table(facts), _Scratch(place), facts.time_column
    known = source.columns
    table_columns(facts, known, None, labels=False)
    ids = list(facts.id_column) or [ROW]
    wanted = [name for name in dict.fromkeys([time, *ids, *features]) if name in known]
    start, end = window_limits(facts)
    apart = isinstance(source, Files) and source.is_parquet and not facts.drill
    table = source if apart else staged(facts, source, wanted, scratch.folder / "table", rows=chunk_rows)
    if table is None:
        raise no_rows(facts, source)
    assert isinstance(table, Files)
    kinds = {name: table.schema.field(name).type for name in table.schema.names}
    keys = {name: _plain(kinds.get(name, pa.string())) for name in ids if name != time}
    layout = _Layout(
        *(table.system, time, start, end, keys),
        features=tuple(name for name in features if name in known and name not in (time, *keys)),
        numbered=apart and not facts.id_column,
        batch_rows=batch_rows,
    )
    groups = table.groups(time=time, start=start, end=end)
    if not groups:
        raise no_rows(facts, source)
    gathered: list[list[Group]] = [[]]
    for group in groups:
        if sum(each.rows for each in gathered[-1]) >= chunk_rows:
            gathered.append([])
        gathered[-1].append(group)
    chunks = [Chunk(number, tuple(each), layout) for number, each in enumerate(gathered)]
    return Chunks(chunks, [time, *keys], scratch)


def _opened(system: Any, path: str) -> Any:
    return pa.OSFile(path) if "file" in np.atleast_1d(system.protocol) else system.open(path, "rb")


def _moments(cells: Any) -> Any:
    return cells.cast(pa.timestamp("us")) if pa.types.is_date(cells.type) else cells


def _is_text(kind: Any) -> bool:
    return bool(pa.types.is_string(kind) or pa.types.is_large_string(kind))


def _plain(kind: Any) -> Any:
    return kind.value_type if pa.types.is_dictionary(kind) else kind
