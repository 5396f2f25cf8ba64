"""A table in a database."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import sqlalchemy as sa

from prodkit.data.access import between, read_times, reading
from prodkit.errors import DataError, IdentityError

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["Database"]

_DAY = timedelta(days=1)


class Database:
    """A table or view of a database, written ``table`` or ``schema.table``."""

    def __init__(self, url: str, table: str, shown: str) -> None:
        self._shown = shown
        with reading(shown):
            self._engine = sa.create_engine(url, poolclass=sa.NullPool)
            file = self._engine.url.database
            if self._engine.dialect.name == "sqlite" and not (file and Path(file).is_file()):
                # connecting would make an empty one
                rule, fix = "must be a database that exists", "Set `data` to its URL and #table."
                raise DataError("data", rule=rule, value=shown, fix=fix)
            schema, _, name = table.rpartition(".")
            try:
                self._table = sa.Table(name, sa.MetaData(), schema=schema or None, autoload_with=self._engine)
            except sa.exc.NoSuchTableError as error:
                names = ", ".join(sa.inspect(self._engine).get_table_names(schema or None)[:30])
                fix = f"There are: {names or 'no tables'}."
                raise DataError(
                    table, rule="must be a table of the database", place=shown, fix=fix
                ) from error

    @property
    def columns(self) -> list[str]:
        """In the order of the database."""
        return [str(column.name) for column in self._table.columns]

    def _is_text(self, time: str) -> bool:
        """Times that the database keeps as text, perhaps in more than one spelling of ISO 8601."""
        return self._engine.dialect.name == "sqlite" or isinstance(self._table.c[time].type, sa.String)

    def rows(
        self, columns: Sequence[str], *, time: str, start: datetime, end: datetime, numbered: bool
    ) -> pd.DataFrame:
        """Rows of a window, chosen by the database; raises IdentityError when ``numbered``."""
        from pandas import read_sql

        query = self._query(columns, time=time, start=start, end=end, numbered=numbered)
        with reading(self._shown), self._engine.connect() as connection:
            frame = read_sql(query, connection)
        return between(frame, time=time, start=start, end=end)

    def frames(
        self, columns: Sequence[str], *, time: str, start: datetime, end: datetime, numbered: bool, rows: int
    ) -> Iterator[pd.DataFrame]:
        """The same, so many rows at a time, from one query."""
        from pandas import read_sql

        query = self._query(columns, time=time, start=start, end=end, numbered=numbered)
        with reading(self._shown), self._engine.connect() as connection:
            for frame in read_sql(query, connection.execution_options(stream_results=True), chunksize=rows):
                yield between(frame, time=time, start=start, end=end)

    def _query(
        self, columns: Sequence[str], *, time: str, start: datetime, end: datetime, numbered: bool
    ) -> Any:
        if numbered:
            fix = "Set `id_column`: rows of a database have no position to be named by."
            raise IdentityError("id_column", rule="must name a column", place=self._shown, fix=fix)
        moment: Any = self._table.c[time]
        low, high = start, end
        if self._is_text(time):  # the date alone sorts alike in all spellings; the rest is up to between
            moment = sa.type_coerce(moment, sa.String)
            low, high = ((start - _DAY).date().isoformat(), (end + 2 * _DAY).date().isoformat())  # type: ignore[assignment]
        elif getattr(moment.type, "timezone", False):
            low, high = start.replace(tzinfo=UTC), end.replace(tzinfo=UTC)
        chosen = [moment.label(time) if name == time else self._table.c[name] for name in columns]
        return sa.select(*chosen).where(moment >= low, moment < high)

    def _limits(self, time: str) -> tuple[int, Any, Any]:
        moment: Any = self._table.c[time]
        moment = sa.type_coerce(moment, sa.String) if self._is_text(time) else moment
        query = sa.select(sa.func.count(), sa.func.min(moment), sa.func.max(moment)).select_from(self._table)
        with reading(self._shown), self._engine.connect() as connection:
            count, first, last = connection.execute(query).one()
        return count, first, last

    def span(self, time: str) -> tuple[datetime, datetime] | None:
        """The first and the last moment."""
        import pandas as pd

        first, last = read_times(pd.Series(self._limits(time)[1:], dtype=object), time)
        return None if pd.isna(first) else (first.to_pydatetime(), last.to_pydatetime())

    def digest(self, time: str) -> str:
        """Of the columns, the number of rows, and their first and last moment."""
        found = [self._table.fullname, *self.columns, *map(str, self._limits(time))]
        return hashlib.sha256("\0".join(found).encode()).hexdigest()
