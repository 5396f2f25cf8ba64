"""A table in files: Parquet or CSV, one file or many, here or on any file system."""

from __future__ import annotations

import csv
import hashlib
import re
from collections.abc import Sequence
from datetime import datetime
from functools import cached_property, lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple
from urllib.parse import unquote

import fsspec
import numpy as np
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet

from prodkit.data.access import between, reading
from prodkit.data.codes import PADDED, code_columns
from prodkit.errors import DataError

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["ROW", "Files", "Group"]

ROW = "_row"  # names a row by its file and position, where no column does
_PARQUET, _CSV = (".parquet", ".pq"), (".csv", ".csv.gz", ".tsv", ".tsv.gz")


class Group(NamedTuple):
    """A row group of a Parquet file.

    Attributes:
        path: of the file, and
        name: of it within the table.
        number: of the group within the file.
        first: rows of the file before it.
        rows: how many it holds.
        added: values of the columns that folders named ``name=value`` add.
    """

    path: str
    name: str
    number: int
    first: int
    rows: int
    added: dict[str, Any]


def _clause(time: str, kind: Any, start: datetime, end: datetime) -> Any:
    """An Arrow filter for ``start <= time < end``, in the column's own unit so that row groups are skipped."""
    from pyarrow.dataset import field as column

    unit, field = pa.timestamp("us", getattr(kind, "tz", None)), column(time)
    low, high = pa.scalar(start, unit), pa.scalar(end, unit)
    try:
        low, high = low.cast(kind), high.cast(kind)
    except pa.ArrowInvalid:  # an edge that the column's unit cannot express
        field = field.cast(unit)
    return (field >= low) & (field < high)


def _unified(schemas: Sequence[Any]) -> Any:
    """One Arrow schema for all of these: a column that is of another type in each is text."""
    try:
        return pa.unify_schemas(schemas, promote_options="permissive")
    except pa.ArrowTypeError:
        names = dict.fromkeys(name for schema in schemas for name in schema.names)
        having = {
            name: [pa.schema([each.field(name)]) for each in schemas if name in each.names] for name in names
        }
        return pa.schema([_common(name, each) for name, each in having.items()])


def _common(name: str, having: Sequence[Any]) -> Any:
    try:
        return pa.unify_schemas(having, promote_options="permissive").field(name)
    except pa.ArrowTypeError:
        return pa.field(name, pa.string())


def _cast(table: Any, whole: Any) -> Any:
    return table.cast(pa.schema([whole.field(name) for name in table.column_names]))


def _separator(path: str) -> str:
    return "\t" if ".tsv" in path.lower() else ","


class Files:
    """One Parquet or CSV file, or many of the same columns, read in the order of their paths."""

    def __init__(self, location: str, shown: str) -> None:
        self._shown = shown
        with reading(shown):
            self._system, path = fsspec.core.url_to_fs(location)
            self._root, paths = self._find(path)
        known = [name for name in paths if name.lower().endswith(_PARQUET + _CSV)]
        self._paths = sorted(known)
        if not known:
            rule = "must be a file that exists" if not paths else "must be Parquet or CSV"
            fix = "Set `data` to a path, folder, glob or URL; relative paths start at the project's folder."
            raise DataError("data", rule=rule, value=shown, fix=fix)
        parquet = [name.lower().endswith(_PARQUET) for name in known]
        if any(parquet) != all(parquet):
            raise DataError("data", rule="must not mix Parquet and CSV", value=shown, fix="Use a glob.")
        self._is_parquet = parquet[0]

    def _find(self, path: str) -> tuple[str, list[str]]:
        """The folder that row names start from, and the files."""
        if any(sign in path for sign in "*?[") and not self._system.exists(path):
            return re.split(r"[*?[]", path)[0].rpartition("/")[0], self._system.glob(path)
        if not self._system.isdir(path):
            return path.rpartition("/")[0], [path] if self._system.exists(path) else []
        names = [name for name in self._system.find(path) if not Path(name).name.startswith((".", "_"))]
        return path.rstrip("/"), names

    @cached_property
    def columns(self) -> list[str]:
        """Those of all files together, and those that folders named ``name=value`` add."""
        with reading(self._shown):
            names = [name for path in self._paths for name in self._names_in(path)]
        folders = {folder for path in self._paths for folder in path.removeprefix(self._root).split("/")[:-1]}
        added = sorted(unquote(folder.partition("=")[0]) for folder in folders if "=" in folder)
        return list(dict.fromkeys([*names, *(added if self._is_parquet else [])]))

    def _names_in(self, path: str) -> list[str]:
        """What the footer or the header of a file says, without reading its rows."""
        if self._is_parquet:
            with self._system.open(path, "rb") as file:
                return list(pa.parquet.read_schema(file).names)
        sign = _separator(path)
        with self._system.open(
            path, "rt", compression="infer", encoding="utf-8-sig", errors="replace"
        ) as file:
            header = next((row for row in csv.reader(file, delimiter=sign) if row), None)
        if header is None:
            raise ValueError("it is empty")
        return header

    @cached_property
    def _table(self) -> Any:
        """An Arrow dataset of one schema over all files."""
        from pyarrow.dataset import dataset

        with reading(self._shown):
            if not self._is_parquet:
                tables = [self._csv(path) for path in self._paths]
                self._counts = [table.num_rows for table in tables]
                whole = _unified([table.schema for table in tables])
                return dataset(
                    pa.concat_tables([_cast(table, whole) for table in tables], promote_options="default")
                )
            options = {"format": "parquet", "filesystem": self._system, "partitioning": "hive"}
            options["partition_base_dir"] = self._root  # a=b/ further up says nothing of the table
            first = dataset(self._paths, **options)
            if len(self._paths) == 1:
                return first
            found = [part.physical_schema.remove_metadata() for part in first.get_fragments()]
            return dataset(self._paths, schema=_unified([*found, first.schema.remove_metadata()]), **options)

    @property
    def is_parquet(self) -> bool:
        """Whether row groups can be read apart."""
        return self._is_parquet

    @property
    def schema(self) -> Any:
        """The Arrow schema of all files together."""
        return self._table.schema

    def name_of(self, path: str) -> str:
        """A file's name within the table, wherever that lies."""
        return path.removeprefix(self._root).lstrip("/")

    @property
    def system(self) -> Any:
        """The fsspec file system that the files lie in."""
        return self._system

    def groups(self, *, time: str, start: datetime, end: datetime) -> list[Group]:
        """The row groups of Parquet files that may hold rows of a window, in their order."""
        from pyarrow.dataset import get_partition_keys

        kind = self.schema.field(time).type
        typed = pa.types.is_timestamp(kind) or pa.types.is_date(kind)
        clause = _clause(time, kind, start, end) if typed else None
        found: list[Group] = []
        with reading(self._shown):
            for file in self._table.get_fragments():
                added = get_partition_keys(file.partition_expression)
                counts = [group.num_rows for group in file.row_groups]
                starts = np.cumsum([0, *counts]).tolist()
                for part in file.split_by_row_group(filter=clause, schema=self.schema):
                    number = part.row_groups[0].id
                    if counts[number]:
                        found.append(
                            Group(
                                file.path,
                                self.name_of(file.path),
                                number,
                                starts[number],
                                counts[number],
                                added,
                            )
                        )
        return found

    def _csv(self, path: str) -> Any:
        with self._system.open(path, "rb", compression="infer") as file:
            content = file.read()

        def read(types: dict[str, Any]) -> Any:
            return pa.csv.read_csv(
                pa.BufferReader(content),
                # one block, so that types are inferred from all rows, not from the first megabyte
                read_options=pa.csv.ReadOptions(block_size=min(len(content) + 1, 2**31 - 1)),
                parse_options=pa.csv.ParseOptions(delimiter=_separator(path), newlines_in_values=True),
                convert_options=pa.csv.ConvertOptions(strings_can_be_null=True, column_types=types),
            )

        table = read({})
        codes = code_columns(table.schema, read) if PADDED.search(content) else {}
        return read(codes) if codes else table

    def rows(
        self, columns: Sequence[str], *, time: str, start: datetime, end: datetime, numbered: bool
    ) -> pd.DataFrame:
        """Rows of a window; of Parquet with typed times, only the row groups that may hold them are read."""
        kind = self._table.schema.field(time).type
        typed = pa.types.is_timestamp(kind) or pa.types.is_date(kind)
        clause = _clause(time, kind, start, end) if typed and not numbered else None
        with reading(self._shown):
            frame = self._table.to_table(columns=list(columns), filter=clause).to_pandas()
        if not numbered:
            return between(frame, time=time, start=start, end=end)
        frame = between(frame.assign(**{ROW: np.arange(len(frame))}), time=time, start=start, end=end)
        return frame.assign(**{ROW: self._names(frame[ROW].to_numpy())})

    def _names(self, rows: np.ndarray) -> list[str]:
        """``file#position`` of rows (n,) counted over all files."""
        if self._is_parquet:
            self._counts = [part.count_rows() for part in self._table.get_fragments()]
        starts = np.cumsum([0, *self._counts])
        files = np.searchsorted(starts, rows, side="right") - 1
        names = [self.name_of(path) for path in self._paths]
        return [f"{names[file]}#{row - starts[file]}" for file, row in zip(files, rows, strict=True)]

    def span(self, time: str) -> tuple[datetime, datetime] | None:
        """The first and the last moment."""
        from prodkit.data.cells import read

        with reading(self._shown):
            times = read(self._table.to_table(columns=[time]).to_pandas()[time], "datetime")[0].dropna()
        return (times.min().to_pydatetime(), times.max().to_pydatetime()) if len(times) else None

    def digest(self, time: str) -> str:
        """Of the bytes of local files; of what the server says of remote ones."""
        total = hashlib.sha256()
        local = "file" in np.atleast_1d(self._system.protocol)
        with reading(self._shown):
            for path in self._paths:
                if local:
                    status = Path(path).stat()
                    content = _file_digest(path, status.st_size, status.st_mtime_ns)
                else:
                    facts = self._system.info(path)
                    keys = ("size", "ETag", "etag", "mtime", "LastModified", "updated", "md5Hash", "created")
                    content = repr([str(facts.get(key)) for key in keys])
                total.update(f"{path.removeprefix(self._root)}\0{content}\0".encode())
        return total.hexdigest()


@lru_cache(maxsize=4096)
def _file_digest(path: str, size: int, modified_ns: int) -> str:
    """SHA-256 of a file that has not changed since it had this size and time."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
