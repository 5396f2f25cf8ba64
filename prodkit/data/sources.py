"""Where a table lies, in files or in a database: its columns, and its rows between two moments."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Protocol

from prodkit.data.database import Database
from prodkit.data.flatfiles import Files

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["Source", "open_source"]


class Source(Protocol):
    """A table; each method raises DataError when it cannot be read."""

    @property
    def columns(self) -> list[str]:
        """Their names."""

    def rows(
        self, columns: Sequence[str], *, time: str, start: datetime, end: datetime, numbered: bool
    ) -> pd.DataFrame:
        """Rows with ``start <= time < end`` in any order; with ``numbered``, ``ROW`` names each.

        The time column becomes naive datetime64[us], UTC if it had a zone. Rows without a time are left out.
        """

    def span(self, time: str) -> tuple[datetime, datetime] | None:
        """The first and the last moment in the table; None when it is empty."""

    def digest(self, time: str) -> str:
        """A cheap fingerprint of all of it, as hex digits."""


def open_source(location: str, *, shown: str = "") -> Source:
    """The table at a path, folder, glob or fsspec URL of Parquet or CSV, or a SQLAlchemy URL with ``#table``.

    Args:
        location: absolute.
        shown: how errors name it, without secrets.

    Raises:
        DataError: there is no such table, or it has another format.
    """
    shown = shown or location
    url, mark, table = location.rpartition("#")
    return Database(url, table, shown) if mark and "://" in url else Files(location, shown)
