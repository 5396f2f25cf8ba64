"""The store's rows: its tables, and transactions that either happen whole or not at all."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import sqlalchemy as sa

from prodkit.errors import LockedError, ParameterError, StoreError
from prodkit.store.history import Champion, Event, moved, parsed_json, sealed, strict_json
from prodkit.store.layout import LAYOUT, guard_events, layout_number, require_layout, stamp

__all__ = [
    "CHAMPION",
    "EVENTS",
    "METRICS",
    "PROFILES",
    "RUNS",
    "VERSIONS",
    "Database",
    "Write",
    "champion_of",
    "events_of",
]

_TABLES = sa.MetaData()


def _texts(*names: str) -> list[sa.Column[str]]:
    return [sa.Column(name, sa.Text, nullable=False) for name in names]


VERSIONS = sa.Table(
    "versions",
    _TABLES,
    sa.Column("number", sa.Integer, primary_key=True, autoincrement=False),
    *_texts("digest", "location", "manifest", "signature", "run_id"),
    sa.Column("size_bytes", sa.BigInteger, nullable=False),
    sa.Column("quarantined", sa.Boolean, nullable=False),
    sa.UniqueConstraint("digest", "run_id"),
)
CHAMPION = sa.Table(  # one row
    "champion",
    _TABLES,
    sa.Column("id", sa.Integer, primary_key=True, autoincrement=False),
    sa.Column("version", sa.ForeignKey("versions.number")),
    sa.Column("predecessor", sa.ForeignKey("versions.number")),
    sa.Column("generation", sa.Integer, nullable=False),
    sa.Column("frozen", sa.Boolean, nullable=False),
    *_texts("hold", "head"),  # head: digest of the last event, so that no tail can be cut off unseen
)
EVENTS = sa.Table(
    "events",
    _TABLES,
    sa.Column("number", sa.Integer, primary_key=True, autoincrement=False),
    sa.Column("version", sa.Integer),
    sa.Column("generation", sa.Integer, nullable=False),
    *_texts("kind", "run_id", "actor", "reason", "detail", "digest", "previous", "created_at"),
)
METRICS = sa.Table(
    "metrics",
    _TABLES,
    sa.Column("id", sa.Integer, primary_key=True),
    sa.Column("run_id", sa.Text, nullable=False, index=True),
    sa.Column("version", sa.Integer),
    *_texts("notebook", "window_start", "window_end", "name", "known_at"),
    *(sa.Column(name, sa.Double) for name in ("value", "low", "high")),
    sa.Column("n", sa.BigInteger),
    sqlite_autoincrement=True,  # no id is given twice, so that it says what came before what
)
PROFILES = sa.Table(
    "profiles",
    _TABLES,
    sa.Column("id", sa.Integer, primary_key=True),
    *_texts("window_start", "window_end", "run_id", "document"),
    sa.Column("version", sa.Integer),
    sa.Column("clean", sa.Boolean, nullable=False),
    sqlite_autoincrement=True,  # no id is given twice, so that it says what came before what
)
RUNS = sa.Table(
    "runs",
    _TABLES,
    sa.Column("id", sa.Integer, primary_key=True),
    sa.Column("run_id", sa.Text, nullable=False, unique=True),
    # copies of what the record says, for whoever asks the database directly
    *(
        sa.Column(name, sa.Text)
        for name in ("notebook", "status", "outcome", "action", "approval", "started")
    ),
    sa.Column("record", sa.Text, nullable=False),
)
_CREATION_LOCK = 0x70726F64  # any number, the same for all: PostgreSQL creates tables one process at a time


@dataclass
class Write:
    """An open write transaction: it holds the champion's row, and its events move the champion along."""

    rows: sa.Connection
    champion: Champion

    def append(
        self,
        kind: str,
        *,
        actor: str,
        version: int | None = None,
        generation: int | None = None,
        run_id: str = "",
        reason: str = "",
        detail: Mapping[str, Any] | None = None,
    ) -> Event:
        """Chain an event to the history, and write the champion that follows from it."""
        last = self.rows.execute(sa.select(EVENTS).order_by(EVENTS.c.number.desc()).limit(1)).first()
        if generation is None:
            generation = self.champion.generation + (kind in ("promote", "rollback"))
        event = sealed(
            Event(
                number=last.number + 1 if last else 1,
                kind=kind,
                version=version,
                generation=generation,
                run_id=run_id,
                actor=actor,
                reason=reason,
                detail=dict(detail or {}),
                digest="",
                previous=last.digest if last else "",
                created_at=datetime.now(UTC).isoformat(timespec="seconds"),
            )
        )
        text = strict_json(event.detail, name="detail", sort=True)
        self.rows.execute(EVENTS.insert().values(asdict(event) | {"detail": text}))
        self.champion = moved(self.champion, event)
        self.rows.execute(CHAMPION.update().values(asdict(self.champion) | {"head": event.digest}))
        return event


class Database:
    """The tables behind a URL: SQLite or PostgreSQL, the same statements on both."""

    def __init__(self, url: str, *, timeout_seconds: float) -> None:
        self.engine, self.place = _engine(url, timeout_seconds)
        self.timeout_seconds = timeout_seconds
        self.is_sqlite = self.engine.dialect.name == "sqlite"
        with self._translated():
            # Tables and champion row are created in one transaction: where one is, all are.
            with self._begin(writes=False) as rows:
                found = layout_number(rows)
            require_layout(LAYOUT if found is None else found, place=self.place)
            if found is None:
                self._create()

    def _create(self) -> None:
        """Make the tables that are not there; those of a store that never said its layout are as they should be."""
        with self._begin(writes=True) as rows:
            if not self.is_sqlite:
                rows.execute(sa.text(f"SELECT pg_advisory_xact_lock({_CREATION_LOCK})"))
            _require_tables(rows, self.place)
            _TABLES.create_all(rows)
            guard_events(rows)
            stamp(rows)
            if rows.execute(sa.select(CHAMPION)).first() is None:
                start = Champion()
                rows.execute(CHAMPION.insert().values(asdict(start) | {"id": 1, "head": ""}))

    def close(self) -> None:
        """Let go of the database."""
        self.engine.dispose()

    @contextmanager
    def read(self) -> Iterator[sa.Connection]:
        """One consistent view of all tables.

        Raises:
            LockedError: somebody else has been writing for longer than the timeout.
            StoreError: the database cannot be read.
        """
        with self._translated(), self._begin(writes=False) as rows:
            yield rows

    @contextmanager
    def write(self) -> Iterator[Write]:
        """A transaction that no other writer can come between; undone when the block raises.

        Raises:
            LockedError: somebody else has been writing for longer than the timeout.
            StoreError: the database refuses.
        """
        with self._translated(), self._begin(writes=True) as rows:
            row = rows.execute(sa.select(CHAMPION).with_for_update()).one()
            yield Write(rows, champion_of(row))

    @contextmanager
    def _begin(self, *, writes: bool) -> Iterator[sa.Connection]:
        with self.engine.connect() as rows:
            rows.execution_options(prodkit_writes=writes)
            if not self.is_sqlite:
                rows.execution_options(isolation_level="READ COMMITTED" if writes else "REPEATABLE READ")
            with rows.begin():
                if writes and not self.is_sqlite:
                    wait = f"SET LOCAL lock_timeout = {int(self.timeout_seconds * 1000)}"
                    rows.execute(sa.text(wait))
                yield rows

    @contextmanager
    def _translated(self) -> Iterator[None]:
        try:
            yield
        except (sa.exc.SQLAlchemyError, UnicodeDecodeError) as error:  # a damaged file may be no text
            cause = getattr(error, "orig", None) or error
            if _is_locked(cause):
                raise LockedError(
                    "store",
                    rule=f"must come free within {self.timeout_seconds:g} seconds",
                    value="another writer",
                    place=self.place,
                    fix="Run again when the other run has ended.",
                ) from error
            raise StoreError(
                "store", rule="must be a working prodkit database", value=cause, place=self.place
            ) from error


def _require_tables(rows: sa.Connection, place: str) -> None:
    """StoreError when tables of these names are there that are not a store's."""
    there = sa.inspect(rows)
    for table in _TABLES.sorted_tables:
        if there.has_table(table.name):
            names = {column["name"] for column in there.get_columns(table.name)}
            if names != set(table.columns.keys()):
                fix = "Name another database: this one belongs to somebody else, or to another prodkit."
                rule = f"must have the columns of a store in its table {table.name}"
                raise StoreError("store", rule=rule, value=", ".join(sorted(names)), place=place, fix=fix)


def champion_of(row: sa.Row[Any]) -> Champion:
    """The champion that its row says."""
    return Champion(row.version, row.predecessor, row.generation, row.hold, row.frozen)


def events_of(rows: sa.Connection) -> list[Event]:
    """The whole history, oldest event first; StoreError when a detail is not JSON any more."""
    found = rows.execute(sa.select(EVENTS).order_by(EVENTS.c.number)).mappings()
    return [
        Event(**row | {"detail": parsed_json(row["detail"], name=f"event {row['number']}")})
        for row in map(dict, found)
    ]


def _is_locked(error: BaseException) -> bool:
    busy = getattr(error, "sqlite_errorcode", 0) & 0xFF in (5, 6)  # SQLITE_BUSY, SQLITE_LOCKED
    return busy or getattr(error, "sqlstate", None) == "55P03"  # lock_not_available


def _engine(url: str, timeout_seconds: float) -> tuple[sa.Engine, str]:
    """An engine, and its address without the password."""
    try:
        address = sa.make_url(url)
        sqlite = address.get_backend_name() == "sqlite"
        if sqlite and address.database:
            Path(address.database).parent.mkdir(parents=True, exist_ok=True)
        # No pool for files: a connection carried into a forked process would corrupt the database.
        engine = sa.create_engine(
            address,
            poolclass=sa.NullPool if address.database not in (None, "", ":memory:") else None,
            connect_args={"timeout": timeout_seconds} if sqlite else {},
            hide_parameters=True,
        )
    except (sa.exc.ArgumentError, ImportError, OSError) as error:
        raise ParameterError(
            "store",  # the value is not shown: it may hold a password
            rule="must be the SQLAlchemy URL of a SQLite or PostgreSQL database that can be reached",
            value=type(error).__name__,
            fix="Such as sqlite:///outputs/store.db; PostgreSQL needs the extra [postgres].",
        ) from error
    if sqlite:
        sa.event.listen(engine, "connect", _prepare_sqlite)
        sa.event.listen(engine, "begin", _begin_sqlite)
    return engine, address.render_as_string(hide_password=True)


def _prepare_sqlite(connection: Any, _: object) -> None:
    connection.isolation_level = None  # the driver begins no transaction of its own: _begin_sqlite does
    for pragma in ("journal_mode = DELETE", "synchronous = EXTRA", "foreign_keys = ON"):
        connection.execute(f"PRAGMA {pragma}")


def _begin_sqlite(rows: sa.Connection) -> None:
    # A write takes its lock at once: one that had read first could no longer wait its turn.
    writes = rows.get_execution_options().get("prodkit_writes", False)
    rows.exec_driver_sql("BEGIN IMMEDIATE" if writes else "BEGIN")
