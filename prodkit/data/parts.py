"""Parquet and CSV files of any size, read column by column in batches of bounded size, without pandas."""

from __future__ import annotations

import glob
import os
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple

import pyarrow as pa
import pyarrow.parquet as pq

from prodkit.data.arrays import without_missing
from prodkit.data.cells import MISSING
from prodkit.data.codes import code_columns
from prodkit.errors import DataError

__all__ = ["Part", "Parts", "Unreadable", "open_parts"]

_PARQUET, _CSV = (".parquet", ".pq"), (".csv", ".csv.gz", ".tsv", ".tsv.gz")
_ROWS = 2**19  # of a batch: a few megabytes a column
_CSV_BYTES = 2**24  # of a batch


class Part(NamedTuple):
    """A row group of a Parquet file, or a CSV file: what one thread reads at a time.

    Attributes:
        path: of the file.
        group: number of the row group; -1 for a whole CSV file.
        first: rows of the table before it.
        rows: how many it holds.
    """

    path: str
    group: int
    first: int
    rows: int


class Unreadable(NamedTuple):
    """Rows of a column that could not be read, and why."""

    rows: int
    reason: str

    def __len__(self) -> int:
        return self.rows


def open_parts(location: str, *, shown: str = "") -> Parts:
    """The table in a file, a folder, a glob or an fsspec URL of Parquet or CSV files.

    The columns that folders named ``name=value`` would add are not among its columns.

    Raises:
        DataError: there is no such table, it mixes formats, or a file of it cannot be read.
    """
    shown = shown or location
    with _reading(shown):
        system = None
        if "://" in location:
            import fsspec

            system, location = fsspec.core.url_to_fs(location)
        paths = sorted(_found(location, system))
    known = [path for path in paths if path.lower().endswith(_PARQUET + _CSV)]
    parquet = [path.lower().endswith(_PARQUET) for path in known]
    if not known:
        rule = "must be a file that exists" if not paths else "must be Parquet or CSV"
        raise DataError("data", rule=rule, value=shown, fix="Give a path, folder, glob or URL of such files.")
    if any(parquet) != all(parquet):
        raise DataError("data", rule="must not mix Parquet and CSV", value=shown, fix="Use a glob.")
    with _reading(shown):
        return _Parquet(known, system) if parquet[0] else _Csv(known, system)


@contextmanager
def _reading(shown: str) -> Iterator[None]:
    """Turn what the libraries below raise into a DataError."""
    try:
        yield
    except ImportError as error:
        fix = f"Install what is missing ({error.name}), such as notebook-prodkit[s3]."
        raise DataError("data", rule="needs another package to be read", value=shown, fix=fix) from error
    except (pa.ArrowException, OSError, ValueError) as error:
        rule, fix = f"must be a readable table: {_reason(error)}", "Give Parquet or CSV files."
        raise DataError("data", rule=rule, value=shown, fix=fix) from error


def _reason(error: BaseException) -> str:
    return str(error).split("\n")[0][:200]


def _found(location: str, system: Any) -> list[str]:
    """The paths of all files that a location names; hidden ones of a folder do not count."""
    if system is None:
        exists, isdir, matching = os.path.exists, os.path.isdir, glob.glob
    else:
        exists, isdir, matching = system.exists, system.isdir, system.glob
    if any(sign in location for sign in "*?[") and not exists(location):
        return list(matching(location))
    if not isdir(location):
        return [location] if exists(location) else []
    if system is None:
        inside = [os.path.join(folder, name) for folder, _, names in os.walk(location) for name in names]
    else:
        inside = system.find(location)
    return [path for path in inside if not os.path.basename(path).startswith((".", "_"))]


class Parts:
    """The files of a table: their columns, and their cells in batches.

    Attributes:
        names: of the columns of all files together, in the order in which they first occur.
        parts: what the table can be read in, in its order.
        splits: columns can be read apart at no extra cost.
        categories: columns that declare themselves to be of few levels, whatever these look like.
    """

    splits = True
    categories: frozenset[str] = frozenset()
    names: list[str]
    parts: list[Part]

    @property
    def rows(self) -> int:
        """Of all parts together."""
        return sum(part.rows for part in self.parts)

    def arrays(self, part: Part, names: Sequence[str]) -> Iterator[tuple[str, int, Any]]:
        """Name, first row within the part, and cells: an Arrow array, or :class:`Unreadable`.

        A column that a file lacks is an array of nulls. Each column comes in the order of its rows.
        """
        raise NotImplementedError


class _Parquet(Parts):
    def __init__(self, paths: list[str], system: Any) -> None:
        self._system, self._open = system, threading.local()
        self._metadata: dict[str, Any] = {}
        self._columns: dict[str, frozenset[str]] = {}
        self.names, self.parts, first = [], [], 0
        for path in paths:
            with self._file(path) as file:
                metadata = pq.read_metadata(file)
            schema = metadata.schema.to_arrow_schema()
            self.categories |= {field.name for field in schema if pa.types.is_dictionary(field.type)}
            self._metadata[path] = metadata
            self._columns[path] = frozenset(schema.names)
            self.names = list(dict.fromkeys([*self.names, *schema.names]))
            for group in range(metadata.num_row_groups):
                rows = metadata.row_group(group).num_rows
                self.parts.append(Part(path, group, first, rows))
                first += rows

    def _file(self, path: str) -> Any:
        return pa.OSFile(path) if self._system is None else self._system.open(path, "rb")

    def _reader(self, path: str) -> Any:
        """One open file a thread, of which the last is kept."""
        if getattr(self._open, "path", None) != path:
            metadata = self._metadata[path]
            schema = metadata.schema.to_arrow_schema()
            texts = [
                field.name
                for field in schema
                if pa.types.is_string(field.type) or pa.types.is_large_string(field.type)
            ]
            self._open.reader = pq.ParquetFile(self._file(path), metadata=metadata, read_dictionary=texts)
            self._open.path = path
        return self._open.reader

    def arrays(self, part: Part, names: Sequence[str]) -> Iterator[tuple[str, int, Any]]:
        for name in names:
            done = 0
            try:
                if name not in self._columns[part.path]:
                    yield name, 0, pa.nulls(part.rows)
                    continue
                for batch in self._reader(part.path).iter_batches(
                    batch_size=_ROWS, row_groups=[part.group], columns=[name], use_threads=False
                ):
                    yield name, done, without_missing(batch.column(0), MISSING)
                    done += batch.num_rows
            except (pa.ArrowException, OSError) as error:
                yield name, done, Unreadable(part.rows - done, _reason(error))


class _Csv(Parts):
    """Types are those of the first megabytes; a file that contradicts them later is read as text, as are codes."""

    splits = False

    def __init__(self, paths: list[str], system: Any) -> None:
        self._system = system
        self._types: dict[str, dict[str, Any]] = {}
        self.names, self.parts, first = [], [], 0
        for path in paths:
            names, rows = self._look(path)
            self.names = list(dict.fromkeys([*self.names, *names]))
            self.parts.append(Part(path, -1, first, rows))
            first += rows

    def _look(self, path: str) -> tuple[list[str], int]:
        """The columns and rows of a file, and whether its types hold to the end."""
        self._types[path] = {}
        with self._batches(path) as batches:
            inferred = batches.schema
        self._types[path] = code_columns(inferred, lambda types: self._head(path, types))
        with self._batches(path) as batches:
            names = batches.schema.names
            try:
                return names, sum(batch.num_rows for batch in batches)
            except pa.ArrowInvalid:
                self._types[path] = dict.fromkeys(names, pa.string())
        with self._batches(path) as batches:
            return names, sum(batch.num_rows for batch in batches)

    def _head(self, path: str, types: dict[str, Any]) -> Any:
        """The first megabytes with other types."""
        with self._batches(path, types) as batches:
            return next(iter(batches), pa.RecordBatch.from_pylist([], batches.schema))

    def _batches(self, path: str, types: dict[str, Any] | None = None) -> Any:
        from pyarrow import csv

        packed = "gzip" if path.lower().endswith(".gz") else None
        file = pa.PythonFile(self._system.open(path, "rb")) if self._system else pa.OSFile(path)
        return csv.open_csv(
            pa.CompressedInputStream(file, packed) if packed else file,
            read_options=csv.ReadOptions(block_size=_CSV_BYTES, use_threads=False),
            parse_options=csv.ParseOptions(
                delimiter="\t" if ".tsv" in path.lower() else ",", newlines_in_values=True
            ),
            convert_options=csv.ConvertOptions(
                strings_can_be_null=True, column_types=self._types[path] if types is None else types
            ),
        )

    def arrays(self, part: Part, names: Sequence[str]) -> Iterator[tuple[str, int, Any]]:
        done = 0
        with self._batches(part.path) as batches:
            for batch in batches:
                there = set(batch.schema.names)
                for name in names:
                    cells = batch.column(name) if name in there else pa.nulls(batch.num_rows)
                    yield name, done, without_missing(cells, MISSING)
                done += batch.num_rows
