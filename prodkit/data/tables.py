"""A table in files, Parquet or CSV, here or on any file system: its columns, and its rows in batches."""

from __future__ import annotations

import csv
import hashlib
import re
import threading
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from functools import cached_property, lru_cache
from itertools import chain
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import unquote

import fsspec
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv as pc_csv
import pyarrow.parquet as pq

from prodkit.data.arrays import is_text, times, without_missing
from prodkit.data.cells import MISSING, moment
from prodkit.errors import DataError, ProdkitError, SchemaError
from prodkit.evidence import utc
from prodkit.redaction import Redaction, references

# Each file, and each batch of a query, keeps the types that it has: a new file changes nothing about the old ones. CSV
# is text throughout, and its readers say what a text means.

__all__ = ["Files", "Format", "Part", "Unreadable", "plain", "reading", "within"]

_PARQUET, _CSV = (".parquet", ".pq"), (".csv", ".csv.gz", ".tsv", ".tsv.gz")
_CSV_BYTES = 2**24  # of a batch
_HOUR = timedelta(hours=1)
_CONVERTED = {
    ".xlsx": "read_excel(PATH)",
    ".xls": "read_excel(PATH)",
    ".feather": "read_feather(PATH)",
    ".jsonl": "read_json(PATH, lines=True)",
    ".json": "read_json(PATH)",
}
_INDEX = re.compile(r"__index_level_\d+__")  # a pandas index without a name


@dataclass(frozen=True)
class Format:
    """How a table is written.

    Attributes:
        csv: ``delimiter``, ``decimal``, ``thousands`` and ``encoding``, where they are not ``,`` ``.`` none and UTF-8.
        missing: texts that mean a missing value.
        time: how times are written, see :func:`prodkit.data.cells.moment`, and
        zone: in which those without an offset are meant.
    """

    csv: Mapping[str, str] = field(default_factory=dict)
    missing: frozenset[str] = MISSING
    time: str = ""
    zone: str = "UTC"

    def times(self, cells: Any, name: str) -> np.ndarray:
        """The moments of a column as naive UTC, see :func:`prodkit.data.arrays.times`."""
        return times(cells, name, self.time, self.zone)


class Part(NamedTuple):
    """What can be read apart: a row group of a Parquet file, or a CSV file.

    Attributes:
        path: of the file.
        name: of the file within the table.
        group: number of the row group; -1 of CSV.
        first: rows of the file before it.
        rows: how many it holds; 0 of CSV unless they were counted.
        offset: rows of the table before it.
        added: texts of the columns that folders named ``name=value`` add.
    """

    path: str
    name: str
    group: int
    first: int
    rows: int
    offset: int
    added: tuple[tuple[str, str | None], ...]


class Unreadable(NamedTuple):
    """Rows of a column that could not be read, and why."""

    rows: int
    reason: str

    def __len__(self) -> int:
        return self.rows


@contextmanager
def reading(shown: str) -> Iterator[None]:
    """Turn what the libraries below raise into a DataError."""
    try:
        yield
    except ProdkitError:
        raise
    except ImportError as error:
        fix = f"Install what is missing ({error.name}), such as notebook-prodkit[s3] or [postgres]."
        raise DataError("data", rule="needs another package to be read", value=shown, fix=fix) from error
    except (csv.Error, pa.ArrowException, OSError, ValueError) as error:
        reason = str(error).split("\n")[0]
        reason = Redaction.of(references(shown)).text(reason)[:200]
        fix = "Set `data` to Parquet or CSV files, or to a database URL that ends in #table."
        raise DataError("data", rule=f"must be a readable table: {reason}", value=shown, fix=fix) from error


def within(columns: dict[str, Any], time: str, start: datetime, end: datetime, written: Format) -> Any:
    """The rows of some columns with ``start <= time < end``, as a batch, with naive UTC times."""
    moments = written.times(columns[time], time)
    low, high = np.datetime64(start, "us"), np.datetime64(end, "us")
    mine = (moments >= low) & (moments < high)
    batch = pa.RecordBatch.from_pydict({**columns, time: pa.array(moments)})
    return batch if mine.all() else batch.filter(pa.array(mine))


class Files:
    """One Parquet or CSV file, or many, read in the order of their paths; it can be sent to another process.

    Attributes:
        is_parquet: parts, and columns of a part, can be read apart at no extra cost.
    """

    def __init__(self, location: str, *, shown: str = "", written: Format | None = None) -> None:
        shown = shown or location
        self.shown, self.written = shown, written or Format()
        with reading(shown):
            self._system, path = fsspec.core.url_to_fs(location)
            self._root, paths = self._find(path)
        self._paths = sorted(name for name in paths if name.lower().endswith(_PARQUET + _CSV))
        if not self._paths:
            rule = "must be a file that exists" if not paths else "must be Parquet or CSV"
            fix = "Set `data` to a path, folder, glob or URL; relative paths start at the project's folder."
            if paths and (call := _CONVERTED.get(Path(paths[0]).suffix.lower())):
                fix = f'Convert it once: pandas.{call}.to_parquet("table.parquet").'
            raise DataError("data", rule=rule, value=shown, fix=fix)
        parquet = [name.lower().endswith(_PARQUET) for name in self._paths]
        if any(parquet) != all(parquet):
            raise DataError("data", rule="must not mix Parquet and CSV", value=shown, fix="Use a glob.")
        self.is_parquet = parquet[0]
        self._open = threading.local()

    def __getstate__(self) -> dict[str, Any]:
        cached = ("_open", "columns", "schemas", "_metadata", "_headers")
        return {name: value for name, value in self.__dict__.items() if name not in cached}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._open = threading.local()

    def _find(self, path: str) -> tuple[str, list[str]]:
        """The folder that row names start from, and the files."""
        if any(sign in path for sign in "*?[") and not self._system.exists(path):
            return re.split(r"[*?[]", path)[0].rpartition("/")[0], self._system.glob(path)
        if not self._system.isdir(path):
            return path.rpartition("/")[0], [path] if self._system.exists(path) else []
        names = [name for name in self._system.find(path) if not Path(name).name.startswith((".", "_"))]
        return path.rstrip("/"), names

    def _stream(self, path: str) -> Any:
        return pa.OSFile(path) if self._is_local else self._system.open(path, "rb")

    @property
    def _is_local(self) -> bool:
        return "file" in np.atleast_1d(self._system.protocol)

    # Columns

    @cached_property
    def _metadata(self) -> dict[str, Any]:
        """The footers of Parquet files."""
        with reading(self.shown):
            return {path: self._footer(path) for path in self._paths}

    def _footer(self, path: str) -> Any:
        with self._stream(path) as file:
            return pq.read_metadata(file)

    @cached_property
    def schemas(self) -> dict[str, Any]:
        """The Arrow schema of each Parquet file by its path; CSV has none."""
        footers = self._metadata if self.is_parquet else {}
        return {path: footer.schema.to_arrow_schema() for path, footer in footers.items()}

    @cached_property
    def _headers(self) -> dict[str, list[str]]:
        """The columns of each file."""
        if self.is_parquet:
            return {path: list(schema.names) for path, schema in self.schemas.items()}
        with reading(self.shown):
            return {path: self._header(path) for path in self._paths}

    @cached_property
    def columns(self) -> list[str]:
        """Those of all files together, and those that folders add; an index without a name is none."""
        names: dict[str, None] = {}
        for path, header in self._headers.items():
            if twice := [name for name, n in Counter(header).items() if n > 1]:
                place = self.name_of(path)
                raise SchemaError(", ".join(twice), rule="must occur once", value="more columns", place=place)
            names |= dict.fromkeys(header)
        return [name for name in [*names, *self.keys] if not _INDEX.fullmatch(name)]

    @property
    def keys(self) -> list[str]:
        """Columns that folders named ``name=value`` add."""
        return sorted({name for path in self._paths for name, _ in self._added(path)})

    @property
    def nested(self) -> dict[str, str]:
        """Columns whose cells hold several values, and their types."""
        fields = chain.from_iterable(self.schemas.values())
        return {each.name: str(each.type) for each in fields if pa.types.is_nested(each.type)}

    @property
    def categories(self) -> frozenset[str]:
        """Columns that declare themselves to be of few levels, whatever these look like."""
        fields = chain.from_iterable(self.schemas.values())
        return frozenset(each.name for each in fields if pa.types.is_dictionary(each.type))

    def name_of(self, path: str) -> str:
        """A file's name within the table, wherever that lies."""
        return path.removeprefix(self._root).lstrip("/")

    def _added(self, path: str) -> tuple[tuple[str, str | None], ...]:
        """What the folders named ``name=value`` say of a file, as it is written there."""
        pairs = [folder.split("=", 1) for folder in self.name_of(path).split("/")[:-1] if "=" in folder]
        texts = [(unquote(name), unquote(value)) for name, value in pairs]
        nothing = "__HIVE_DEFAULT_PARTITION__"
        return tuple((name, None if value == nothing else value) for name, value in texts)

    def _header(self, path: str) -> list[str]:
        """The names in the first line of a CSV file."""
        encoding = self.written.csv.get("encoding", "utf-8-sig")
        options = {"compression": "infer", "encoding": encoding, "errors": "replace", "newline": ""}
        with self._system.open(path, "rt", **options) as file:
            header = next((row for row in csv.reader(file, delimiter=self._delimiter(path)) if row), None)
        if header is None:
            raise ValueError("it is empty")
        if "\N{REPLACEMENT CHARACTER}" in "".join(header) or "\0" in "".join(header):
            raise self._encoding_error("header", path, ", ".join(header)[:60])
        sign = next((sign for sign in ";\t|," if sign in header[0]), "") if len(header) == 1 else ""
        if sign:
            rule = f"must have columns separated by {self._delimiter(path)!r}"
            fix = f"Set `csv: {{delimiter: {sign!r}}}`."
            raise DataError("data", rule=rule, value=repr(header[0][:60]), place=self.name_of(path), fix=fix)
        return header

    def beginning(self, size: int = 2**16) -> bytes:
        """The first bytes of the first file."""
        with reading(self.shown), self._system.open(self._paths[0], "rb", compression="infer") as file:
            return bytes(file.read(size))

    def _delimiter(self, path: str) -> str:
        return self.written.csv.get("delimiter", "\t" if ".tsv" in path.lower() else ",")

    def _encoding_error(self, name: str, path: str, value: str) -> DataError:
        encoding = self.written.csv.get("encoding", "UTF-8")
        fix = "Set `csv: {encoding: cp1252}`, or the one that it was written in."
        return DataError(
            name, rule=f"must be {encoding} text", value=value, place=self.name_of(path), fix=fix
        )

    # Rows

    def parts(
        self,
        time: str = "",
        start: datetime = datetime.min,
        end: datetime = datetime.max,
        *,
        counted: bool = False,
    ) -> list[Part]:
        """What may hold rows of a window, in the order of the table.

        Args:
            time: column by whose statistics row groups are passed over; none are if empty.
            start: first moment of the window.
            end: first moment after it.
            counted: rows of CSV files, too, which takes reading them.
        """
        parts, offset = [], 0
        for path in self._paths:
            about, first = (path, self.name_of(path)), 0
            if not self.is_parquet:
                rows = sum(len(batch) for batch in self._csv(path, self._headers[path][:1])) if counted else 0
                parts.append(Part(*about, -1, 0, rows, offset, self._added(path)))
                offset += rows
                continue
            metadata = self._metadata[path]
            for number in range(metadata.num_row_groups):
                group = metadata.row_group(number)
                if group.num_rows and (
                    not time or _may_hold(group, self._headers[path], time, start, end, self.written)
                ):
                    added = self._added(path)
                    parts.append(Part(*about, number, first, group.num_rows, offset + first, added))
                first += group.num_rows
            offset += first
        return parts

    def batches(self, part: Part, names: Sequence[str], rows: int = 2**19) -> Iterator[dict[str, Any]]:
        """Some columns of a part, so many rows at a time, as Arrow arrays by name; null where a file lacks one."""
        with reading(self.shown):
            for batch in self._of_file(part, names, rows):
                columns = dict(zip(batch.schema.names, batch.columns, strict=True))
                yield {name: self._cells(columns, name, part, batch.num_rows) for name in names}

    def cells(self, names: Sequence[str]) -> Iterator[dict[str, Any]]:
        """Some columns of all rows, a batch at a time."""
        for part in self.parts():
            yield from self.batches(part, names)

    def arrays(self, part: Part, names: Sequence[str]) -> Iterator[tuple[str, int, Any]]:
        """Name, first row within the part, and cells of each column in turn; :class:`Unreadable` of a bad one."""
        for group in [[name] for name in names] if self.is_parquet else [names]:
            done = 0
            try:
                for columns in self.batches(part, group):
                    yield from ((name, done, cells) for name, cells in columns.items())
                    done += len(columns[group[0]])
            except DataError as error:
                if not self.is_parquet:
                    raise
                yield group[0], done, Unreadable(part.rows - done, error.rule)

    def _cells(self, columns: dict[str, Any], name: str, part: Part, rows: int) -> Any:
        if name in columns:
            return without_missing(plain(columns[name]), self.written.missing)
        value = dict(part.added).get(name)
        return pa.nulls(rows) if value is None else pa.array([value]).take(pa.array(np.zeros(rows, int)))

    def _of_file(self, part: Part, names: Sequence[str], rows: int) -> Iterator[Any]:
        if part.group < 0:
            yield from self._csv(part.path, names)
            return
        there = [name for name in names if name in self._reader(part.path).schema_arrow.names]
        if there:
            yield from self._reader(part.path).iter_batches(rows, [part.group], there, use_threads=False)
        else:
            yield pa.RecordBatch.from_struct_array(pa.nulls(part.rows, pa.struct([])))

    def _reader(self, path: str) -> Any:
        """One open Parquet file a thread, of which the last is kept; texts come as dictionaries."""
        if getattr(self._open, "path", None) != path:
            metadata = self.__dict__.get("_metadata", {}).get(path) or self._footer(path)
            texts = [each.name for each in metadata.schema.to_arrow_schema() if is_text(each.type)]
            self._open.reader = pq.ParquetFile(
                self._stream(path), metadata=metadata, read_dictionary=texts, coerce_int96_timestamp_unit="us"
            )
            self._open.path = path
        return self._open.reader

    def _csv(self, path: str, names: Sequence[str]) -> Iterator[Any]:
        """Batches of a CSV file as texts."""
        header, csv_format = self._header(path), self.written.csv
        there = [name for name in header if name in names] or header[:1]
        options = {
            "read_options": pc_csv.ReadOptions(
                block_size=_CSV_BYTES, use_threads=False, encoding=csv_format.get("encoding", "utf8")
            ),
            "parse_options": pc_csv.ParseOptions(delimiter=self._delimiter(path), newlines_in_values=True),
            "convert_options": pc_csv.ConvertOptions(
                column_types=dict.fromkeys(header, pa.string()),
                include_columns=there,
                strings_can_be_null=False,
            ),
        }
        file = self._stream(path)
        file = pa.CompressedInputStream(file, "gzip") if path.lower().endswith(".gz") else file
        try:
            yield from map(self._decimals, pc_csv.open_csv(file, **options))
        except (pa.ArrowInvalid, UnicodeError) as error:
            if "UTF8" not in str(error) and not isinstance(error, UnicodeError):
                raise
            column = re.search(r"column #(\d+)", str(error))
            name = header[int(column[1])] if column else header[0]
            raise self._encoding_error(name, path, "other bytes") from error

    def _decimals(self, batch: Any) -> Any:
        """Numbers in texts, where they are written in another way, as Python writes them."""
        point, group = self.written.csv.get("decimal", "."), self.written.csv.get("thousands", "")
        if point == "." and not group:
            return batch
        whole = rf"\d{{1,3}}({re.escape(group)}\d{{3}})+|\d+" if group else r"\d+"
        pattern = rf"^\s*[+-]?({whole})({re.escape(point)}\d+)?\s*$"

        def as_python(cells: Any) -> Any:
            bare = pc.replace_substring(cells, group, "") if group else cells
            return pc.if_else(
                pc.match_substring_regex(cells, pattern), pc.replace_substring(bare, point, "."), cells
            )

        return pa.RecordBatch.from_arrays([as_python(cells) for cells in batch.columns], batch.schema.names)

    def window(
        self,
        names: Sequence[str],
        *,
        time: str,
        start: datetime,
        end: datetime,
        numbered: str = "",
        rows: int = 2**19,
        parts: Sequence[Part] | None = None,
    ) -> Iterator[Any]:
        """Record batches of the rows with ``start <= time < end``, with naive UTC times.

        Args:
            names: columns; the time comes along.
            time: its column.
            start: naive UTC.
            end: naive UTC.
            numbered: a column that names each row by its file and position; none if empty.
            rows: of a batch at most.
            parts: those to read; all if not given.
        """
        wanted = list(dict.fromkeys([time, *names]))
        for part in self.parts(time, start, end) if parts is None else parts:
            first = part.first
            for columns in self.batches(part, wanted, rows):
                count = len(columns[time])
                if numbered:
                    positions = pa.array(np.arange(first, first + count)).cast(pa.string())
                    columns[numbered] = pc.binary_join_element_wise(pa.scalar(part.name), positions, "#")
                first += count
                batch = within(columns, time, start, end, self.written)
                if len(batch):
                    yield batch

    def span(self, time: str) -> tuple[datetime, datetime] | None:
        """The first and the last moment; None of an empty table."""
        found = [
            moments[~np.isnat(moments)]
            for part in self.parts()
            for columns in self.batches(part, [time])
            for moments in [self.written.times(columns[time], time)]
        ]
        ends = [end for each in found if len(each) for end in (each.min(), each.max())]
        return (min(ends).item(), max(ends).item()) if ends else None

    def timeless(self, time: str) -> tuple[int, int]:
        """How many rows have no time, which no window holds, and how many there are."""
        nulls = rows = 0
        for part in self.parts():
            for columns in self.batches(part, [time]):
                nulls, rows = nulls + columns[time].null_count, rows + len(columns[time])
        return nulls, rows

    def stamp(self) -> str:
        """The same as long as no file is written to, by sizes and times of change; nothing is read."""
        return self.digest(read=False)

    def digest(self, *, read: bool = True) -> str:
        """A fingerprint: of the bytes of local files, of what the server says of remote ones."""
        total = hashlib.sha256()
        with reading(self.shown):
            for path in self._paths:
                if self._is_local:
                    status = Path(path).stat()
                    content = _file_digest(path) if read else f"{status.st_size} {status.st_mtime_ns}"
                else:
                    facts = self._system.info(path)
                    keys = ("size", "ETag", "etag", "mtime", "LastModified", "updated", "md5Hash", "created")
                    content = repr([str(facts.get(key)) for key in keys])
                total.update(f"{path.removeprefix(self._root)}\0{content}\0".encode())
        return total.hexdigest()


def _file_digest(path: str) -> str:
    status = Path(path).stat()
    return _digest_of(path, status.st_size, status.st_mtime_ns)


@lru_cache(maxsize=4096)
def _digest_of(path: str, size: int, modified_ns: int) -> str:
    """SHA-256 of a file that has not changed since it had this size and time."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _may_hold(
    group: Any, names: Sequence[str], time: str, start: datetime, end: datetime, written: Format
) -> bool:
    """May a row group hold rows of a window, by what its statistics say of a column of times?"""
    if time not in names:
        return False
    column = next(
        group.column(at) for at in range(group.num_columns) if group.column(at).path_in_schema == time
    )
    with suppress(ValueError, OverflowError, TypeError):
        about = column.statistics
        if about is not None and about.has_min_max and not isinstance(about.min, str | bytes):
            first, last = moment(about.min), moment(about.max)
            if written.zone != "UTC" and about.min.tzinfo is None:  # to the hour, since clocks change
                first, last = utc(first, written.zone) - _HOUR, utc(last, written.zone) + _HOUR
            return first < end and last >= start
    return True


def plain(cells: Any) -> Any:
    """Dates as times, whole decimals that fit as integers, and dictionaries of anything but texts without these."""
    kind = cells.type
    if pa.types.is_dictionary(kind) and not is_text(kind.value_type):
        return plain(cells.dictionary_decode())
    if pa.types.is_date(kind):
        return cells.cast(pa.timestamp("us"))
    if pa.types.is_decimal(kind) and kind.scale == 0 and kind.precision <= 18:
        return cells.cast(pa.int64())
    return cells
