"""The table that the facts name: where it lies, which columns it must have, and its fingerprint."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from prodkit.errors import missing_column
from prodkit.params import FLIGHTS, ProjectParams
from prodkit.settings import outputs_folder, resolve

if TYPE_CHECKING:
    from prodkit.data.sources import Source

__all__ = ["flights_path", "open_table", "require_columns", "source_digest"]


def flights_path() -> Path:
    """The bundled table's file under the outputs folder; built when it is not there yet (about a second)."""
    path = outputs_folder() / "data" / "flights.parquet"
    if not path.exists():
        from prodkit.data.flights import (
            build_flights,  # imports pandas, which whoever finds it built does not need
        )

        build_flights(path)
    return path


def open_table(facts: ProjectParams) -> Source:
    """The table that ``facts.data`` names; raises DataError when there is none."""
    from prodkit.data.sources import open_source  # pyarrow: a run of one's own notebook never needs it

    location = str(flights_path()) if facts.data == FLIGHTS else resolve(facts.data)
    return open_source(location, shown=facts.data)  # as written: what it read from the environment is secret


def source_digest(facts: ProjectParams) -> str:
    """A cheap fingerprint (hex digits) of the whole table, taken before anything is read from it.

    Local files: their bytes. Remote ones: what the server says of size and time. A database: count, first and
    last moment.

    Raises:
        DataError: there is no such table.
        SchemaError: it lacks the time column.
    """
    source = open_table(facts)
    require_columns(facts, source.columns, [("time_column", facts.time_column)])
    return source.digest(facts.time_column)


def require_columns(facts: ProjectParams, known: Sequence[str], named: Sequence[tuple[str, str]]) -> None:
    """Raise SchemaError unless each column is known; ``named`` holds pairs of parameter and column."""
    for parameter, column in named:
        if column not in known:
            raise missing_column(column, known, place=facts.data, fix=f"Set `{parameter}`.")
