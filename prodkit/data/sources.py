"""The tables that the project facts name: opened, fingerprinted, and read as frames."""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Sequence
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from prodkit.data.arrays import typed, unified
from prodkit.data.database import Database
from prodkit.data.flights import flights_path
from prodkit.data.tables import Files, Format
from prodkit.errors import ParameterError, missing_column
from prodkit.params import FLIGHTS, ProjectParams
from prodkit.settings import resolve

__all__ = ["as_frame", "open_labels", "open_table", "require_columns", "source_digest"]


def open_table(facts: ProjectParams) -> Files | Database:
    """The table that ``facts.data`` names: a path, folder, glob or URL of files, or a SQLAlchemy URL with ``#table``.

    Raises:
        DataError: there is no such table, or it has another format.
    """
    return _opened(facts, facts.data)


def open_labels(facts: ProjectParams) -> Files | Database:
    """The table that labels come from: the one that ``facts.labels`` names, or ``facts.data``.

    Raises:
        ParameterError: no column names a row, so that labels cannot be joined.
        DataError: there is no such table. SchemaError: it lacks an id column, the target or ``label_time``.
    """
    if not facts.id_column:
        fix = "Set `id_column` to columns that both tables have and that together name one row."
        raise ParameterError(
            "id_column", rule="must name a row, or labels cannot be joined", value="[]", fix=fix
        )
    place = facts.labels or facts.data
    table = _opened(facts, place)
    named = [*(("id_column", name) for name in facts.id_column), ("target", facts.target)]
    named += [("label_time", facts.label_time)] if facts.label_time else []
    require_columns(place, table.columns, named)
    return table


def _opened(facts: ProjectParams, place: str) -> Files | Database:
    location = str(flights_path()) if place == FLIGHTS else resolve(place)
    written = Format(facts.csv, frozenset(facts.missing), facts.time_format, facts.timezone)
    url, mark, table = location.rpartition("#")
    if mark and "://" in url:  # shown as it was given: what it read from the environment is secret
        return Database(url, table, shown=place, written=written)
    return Files(location, shown=place, written=written)


def source_digest(facts: ProjectParams) -> str:
    """A fingerprint (hex digits) of the whole table and of its labels, taken before anything is read from them.

    Local files: their bytes. Remote ones: what the server says of size and time. A database: all its cells.

    Raises:
        DataError: there is no such table.
        SchemaError: it lacks the time column, or the table of labels lacks a column.
        ParameterError: labels cannot be joined, or the model would learn when they became known.
    """
    table = open_table(facts)
    require_columns(facts.data, table.columns, [("time_column", facts.time_column)])
    if facts.label_time and facts.label_time in facts.features:
        rule, fix = "must not be a feature: it is not known before the label", "Take it out of `features`."
        raise ParameterError("label_time", rule=rule, value=facts.label_time, fix=fix)
    digest = table.digest()
    if facts.labels:
        digest = hashlib.sha256(f"{digest}\0{open_labels(facts).digest()}".encode()).hexdigest()
    return digest


def require_columns(place: str, known: Sequence[str], named: Sequence[tuple[str, str]]) -> None:
    """Raise SchemaError unless each column is known; ``named`` holds pairs of parameter and column."""
    for parameter, column in named:
        if column not in known:
            raise missing_column(column, known, place=place, fix=f"Set `{parameter}`.")


def as_frame(batches: Sequence[Any], table: Files | Database, *, ids: Collection[str]) -> pd.DataFrame:
    """Batches, which may differ in their types, as one table."""
    is_csv, columns = isinstance(table, Files) and not table.is_parquet, {}
    declared = table.categories if isinstance(table, Files) else frozenset()
    for name in batches[0].schema.names:
        cells = unified(
            [batch.column(name) for batch in batches], name, exact=name in ids, categories=name in declared
        )
        if is_csv:
            cells = typed(cells, name, place=table.shown)
        columns[name] = _series(cells)
    return pd.DataFrame(columns)


def _series(cells: Any) -> Any:
    """Arrow cells as pandas has them, and whole numbers beside missing ones exact where floats are not."""
    if pa.types.is_integer(cells.type) and cells.null_count:
        ends = pc.min_max(cells).as_py()
        if max(abs(ends["min"] or 0), abs(ends["max"] or 0)) > 2**53:
            return pd.Series(cells.to_pylist(), dtype="UInt64" if cells.type == pa.uint64() else "Int64")
    return cells.to_pandas()
