"""A table in a database: its columns, and its rows in batches of one query."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import sqlalchemy as sa

from prodkit.data.arrays import without_missing
from prodkit.data.cells import read_cells
from prodkit.data.tables import Format, plain, reading, within
from prodkit.errors import DataError, IdentityError

__all__ = ["Database"]

ROWS = 65_536  # that are asked for at a time
_DAY = timedelta(days=1)
_LAST = "9999-12-31 23:59:59.999999"
_HEADER = 100  # bytes of a SQLite file that count its changes
_DIGESTS: dict[tuple[Any, ...], str] = {}  # of the tables of SQLite files, by their state


@contextmanager
def _reading(shown: str) -> Iterator[None]:
    with reading(shown):
        try:
            yield
        except sa.exc.SQLAlchemyError as error:
            raise OSError(str(error.orig if isinstance(error, sa.exc.DBAPIError) else error)) from error


class Database:
    """A table or view of a database, written ``table`` or ``schema.table``."""

    is_parquet = False
    keys: Sequence[str] = ()

    def __init__(self, url: str, table: str, *, shown: str, written: Format) -> None:
        self.shown, self.written = shown, written
        with _reading(shown):
            self._engine = sa.create_engine(url, poolclass=sa.NullPool)
            file = self._engine.url.database
            self._is_sqlite = self._engine.dialect.name == "sqlite"
            if self._is_sqlite and not (file and Path(file).is_file()):
                # connecting would make an empty one
                rule, fix = "must be a database that exists", "Set `data` to its URL and #table."
                raise DataError("data", rule=rule, value=shown, fix=fix)
            schema, _, name = table.rpartition(".")
            try:
                self._table = sa.Table(name, sa.MetaData(), schema=schema or None, autoload_with=self._engine)
            except sa.exc.NoSuchTableError as error:
                names = ", ".join(sa.inspect(self._engine).get_table_names(schema or None)[:30])
                raise DataError(
                    table,
                    rule="must be a table of the database",
                    place=shown,
                    fix=f"There are: {names or 'no tables'}.",
                ) from error

    @property
    def columns(self) -> list[str]:
        """In the order of the database."""
        return [str(column.name) for column in self._table.columns]

    @property
    def nested(self) -> dict[str, str]:
        """Columns whose cells hold several values, and their types."""
        types = {str(each.name): each.type for each in self._table.columns}
        return {name: str(kind) for name, kind in types.items() if isinstance(kind, sa.JSON | sa.ARRAY)}

    def _selected(self, name: str) -> Any:
        """A column as the database has it: numbers exact, endless times as the first and the last that there are."""
        column: Any = self._table.c[name]
        if self._engine.dialect.name == "postgresql" and isinstance(column.type, sa.DateTime | sa.Date):
            plain: Any = sa.Date() if isinstance(column.type, sa.Date) else sa.DateTime()
            naive = sa.func.timezone("UTC", column) if getattr(column.type, "timezone", False) else column
            first, last = (sa.cast(sa.literal(end), plain) for end in ("0001-01-01", _LAST))
            clipped = sa.type_coerce(sa.func.least(sa.func.greatest(naive, first), last), plain)
            return sa.case((column.is_(None), None), else_=clipped).label(name)
        keeps = isinstance(column.type, sa.Boolean) or not (
            self._is_sqlite or isinstance(column.type, sa.Numeric)
        )
        return (column if keeps else sa.type_coerce(column, sa.types.NullType())).label(name)

    def window(
        self,
        names: Sequence[str],
        *,
        time: str,
        start: datetime,
        end: datetime,
        numbered: str = "",
        rows: int = ROWS,
    ) -> Iterator[Any]:
        """Record batches of the rows of a window, as :meth:`Files.window` gives them, from one query."""
        if numbered:
            fix = "Set `id_column`: rows of a database have no position to be named by."
            raise IdentityError("id_column", rule="must name a column", place=self.shown, fix=fix)
        wanted = list(dict.fromkeys([time, *names]))
        query = sa.select(*map(self._selected, wanted)).where(*self._clause(time, start, end))
        for columns in self._columns(query, wanted, rows):
            batch = within(columns, time, start, end, self.written)
            if len(batch):
                yield batch

    def cells(self, names: Sequence[str]) -> Iterator[dict[str, Any]]:
        """Some columns of all rows, a batch at a time, as Arrow arrays by name."""
        yield from self._columns(sa.select(*map(self._selected, names)), names, ROWS)

    def _clause(self, time: str, start: datetime, end: datetime) -> list[Any]:
        """What the database can say of the window itself; the rest is up to the reader."""
        moment: Any = self._table.c[time]
        if self.written.time or isinstance(moment.type, sa.Integer | sa.Numeric):
            return []
        if self._is_sqlite or isinstance(moment.type, sa.String):
            # perhaps in more than one spelling of ISO 8601, whose dates sort alike
            moment = sa.type_coerce(moment, sa.String)
            return [moment >= (start - _DAY).date().isoformat(), moment < (end + 2 * _DAY).date().isoformat()]
        if self._is_aware(time):
            return [moment >= start.replace(tzinfo=UTC), moment < end.replace(tzinfo=UTC)]
        spare = _DAY if self.written.zone != "UTC" else timedelta(0)
        return [moment >= start - spare, moment < end + spare]

    def _is_aware(self, name: str) -> bool:
        """Does a column know in which zone its times are?"""
        return bool(getattr(self._table.c[name].type, "timezone", False)) and not self._is_sqlite

    def _columns(self, query: Any, names: Sequence[str], rows: int) -> Iterator[dict[str, Any]]:
        with _reading(self.shown), self._engine.connect() as connection:
            result = connection.execution_options(stream_results=True).execute(query)
            for page in result.partitions(rows):
                cells = zip(*page, strict=True)
                arrays = {
                    name: without_missing(plain(_array(column)), self.written.missing)
                    for name, column in zip(names, cells, strict=True)
                }
                if (
                    self.written.zone != "UTC"
                ):  # else what the database gave in UTC would pass for local times
                    arrays |= {name: _in_utc(arrays[name]) for name in names if self._is_aware(name)}
                yield arrays

    def span(self, time: str) -> tuple[datetime, datetime] | None:
        """The first and the last moment."""
        moment = self._selected(time).element if self._is_sqlite else self._table.c[time]
        chosen: Any = sa.type_coerce(moment, sa.String) if self._is_sqlite else moment
        query: Any
        if self.written.time:
            query = sa.select(self._selected(time))
        else:
            query = sa.union_all(
                sa.select(sa.func.min(chosen).label(time)), sa.select(sa.func.max(chosen).label(time))
            )
        found = [self.written.times(columns[time], time) for columns in self._columns(query, [time], ROWS)]
        ends: Any = np.concatenate([each[~np.isnat(each)] for each in found]) if found else []
        return (ends.min().item(), ends.max().item()) if len(ends) else None

    def timeless(self, time: str) -> tuple[int, int]:
        """How many rows have no time, which no window holds, and how many there are."""
        query = sa.select(sa.func.count(), sa.func.count(self._table.c[time])).select_from(self._table)
        with _reading(self.shown), self._engine.connect() as connection:
            rows, dated = connection.execute(query).one()
        return rows - dated, rows

    def stamp(self) -> str:
        """The same as long as nobody writes: of a SQLite file its state, else the fingerprint of all cells."""
        if not self._is_sqlite:
            return self.digest()
        return hashlib.sha256(repr(_file_state(self._engine.url.database or "")).encode()).hexdigest()

    def digest(self) -> str:
        """A fingerprint of all cells, whatever the order of the rows, so that a label that comes late is seen.

        PostgreSQL computes it; the rows of others are read, of a SQLite file that has not changed only once.
        """
        with _reading(self.shown):
            if not self._is_sqlite:
                return self._rows_digest()
            state = (*_file_state(self._engine.url.database or ""), self._table.fullname)
            if state not in _DIGESTS:
                _DIGESTS[state] = self._rows_digest()
            return _DIGESTS[state]

    def _rows_digest(self) -> str:
        total = hashlib.sha256("\0".join([self._table.fullname, *self.columns]).encode())
        query: Any
        with self._engine.connect() as connection:
            if self._engine.dialect.name == "postgresql":
                row = self._table.alias(
                    "prodkit_row"
                )  # a name that no column has: PostgreSQL would take that
                cells: Any = sa.literal_column("hashtextextended(CAST(prodkit_row AS text), 0)")
                summed = sa.func.sum(sa.cast(cells, sa.Numeric))
                sums = connection.execute(sa.select(sa.func.count(), summed).select_from(row)).one()
                total.update(repr([str(cell) for cell in sums]).encode())
                return total.hexdigest()
            query = sa.select(*(sa.type_coerce(each, sa.types.NullType()) for each in self._table.columns))
            rows = summed_hashes = 0
            for page in connection.execution_options(stream_results=True).execute(query).partitions(ROWS):
                rows += len(page)
                texts = (repr(tuple(row)).encode("utf-8", "surrogatepass") for row in page)
                summed_hashes += sum(
                    int.from_bytes(hashlib.blake2b(text, digest_size=16).digest(), "big") for text in texts
                )
        total.update(f"{rows} {summed_hashes}".encode())
        return total.hexdigest()


def _file_state(path: str) -> tuple[Any, ...]:
    """What changes whenever a SQLite file, or the log beside it, is written to: its count of changes, sizes, times."""
    with open(path, "rb") as file:
        header = file.read(_HEADER)
    states = [each.stat() for end in ("", "-wal") if (each := Path(path + end)).exists()]
    return (path, header, *((each.st_size, each.st_mtime_ns) for each in states))


def _in_utc(cells: Any) -> Any:
    """Times that say they are in UTC."""
    naive = pa.types.is_timestamp(cells.type) and cells.type.tz is None
    return pc.assume_timezone(cells, "UTC") if naive else cells


def _array(cells: Sequence[Any]) -> Any:
    """Python values as Arrow has them; those of several types at once by their names."""
    kinds = {type(cell) for cell in cells} - {type(None)}
    with suppress(pa.ArrowException, TypeError, ValueError, OverflowError):
        if not (bool in kinds and len(kinds) > 1):
            return pa.array(cells, from_pandas=True)
    return pa.array(read_cells(cells, "categorical", missing=frozenset())[0], pa.string())
