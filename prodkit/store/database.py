"""The store's rows: its tables and their layout, and transactions that either happen whole or not at all."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from urllib.parse import quote

import sqlalchemy as sa

from prodkit.errors import LockedError, ParameterError, StoreError
from prodkit.store.history import Champion, Event, moved, parsed_json, sealed, strict_json

__all__ = [
    "CENSUSES",
    "CHAMPION",
    "EVENTS",
    "LAYOUT",
    "METRICS",
    "PLANS",
    "PROBES",
    "PROFILES",
    "RUNS",
    "STEPS",
    "TABLES",
    "VERSIONS",
    "Database",
    "Write",
    "champion_of",
    "complete",
    "events_of",
    "layout_number",
    "trigger_problems",
]

LAYOUT = 2
"""Of the stores that this package reads and writes. It goes up whenever a table changes."""

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
_COPIES = ("notebook", "status", "outcome", "action", "approval", "started")
RUNS = sa.Table(
    "runs",
    _TABLES,
    sa.Column("id", sa.Integer, primary_key=True),
    sa.Column("run_id", sa.Text, nullable=False, unique=True),
    *(sa.Column(name, sa.Text) for name in _COPIES),  # of the record, for whoever asks the database directly
    sa.Column("record", sa.Text, nullable=False),
)
PLANS = sa.Table(
    "plans",
    _TABLES,
    sa.Column("number", sa.Integer, primary_key=True, autoincrement=False),
    *_texts("document", "created_at"),
)
STEPS = sa.Table(  # what the loop has done: a notebook of a period of a plan is done once
    "steps",
    _TABLES,
    sa.Column("id", sa.Integer, primary_key=True),
    sa.Column("plan", sa.ForeignKey("plans.number"), nullable=False),
    *_texts("notebook", "window_start", "window_end", "run_id", "document"),
    sa.UniqueConstraint("plan", "notebook", "window_start"),
)
CENSUSES = sa.Table(  # what the table of a plan held when it was seen last
    "censuses",
    _TABLES,
    sa.Column("plan", sa.ForeignKey("plans.number"), primary_key=True, autoincrement=False),
    *_texts("document"),
)
PROBES = sa.Table(  # summed loss, on a step, of who was fitted at a moment; of a `model`, its file
    "probes",
    _TABLES,
    *(sa.Column(name, sa.Text, primary_key=True) for name in ("recipe", "fitted_at", "step_start")),
    *_texts("step_end", "digest", "signature"),
    *(sa.Column(name, sa.Double) for name in ("rows", "loss")),
)
TABLES = _TABLES.sorted_tables
"""All tables, those that others refer to first."""
_STAMP = sa.Table(  # outside of the other tables: a store of any layout must be able to say which it has
    "layout",
    sa.MetaData(),
    sa.Column("id", sa.Integer, primary_key=True, autoincrement=False),
    sa.Column("number", sa.Integer, nullable=False),
)
_CREATION_LOCK = 0x70726F64  # any number, the same for all: PostgreSQL creates tables one process at a time

# The triggers that keep the history append-only, by name: when each fires, and on which condition it refuses. A
# replacement deletes without saying so, and is refused as an insertion: that must be the next event, and follow from
# the last one.
_REFUSAL = "the history is append-only"
_TRIGGERS = {
    "events_insert": (
        "INSERT",
        "NEW.number <> 1 + (SELECT COALESCE(MAX(number), 0) FROM events)"
        " OR NEW.previous <> COALESCE((SELECT digest FROM events ORDER BY number DESC LIMIT 1), '')",
    ),
    "events_update": ("UPDATE", "TRUE"),
    "events_delete": ("DELETE", "TRUE"),
    "events_truncate": ("TRUNCATE", "TRUE"),  # PostgreSQL only
}


@dataclass
class Write:
    """An open write transaction: it holds the champion's row, and its events move the champion along.

    ``run_id``, ``actor`` and ``reason`` are those of its events.
    """

    rows: sa.Connection
    champion: Champion
    run_id: str
    actor: str
    reason: str

    def append(
        self,
        kind: str,
        *,
        version: int | None = None,
        generation: int | None = None,
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
                run_id=self.run_id,
                actor=self.actor,
                reason=self.reason,
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
    """The tables behind a URL: SQLite or PostgreSQL, the same statements on both.

    Args:
        url: SQLAlchemy URL.
        timeout_seconds: how long to wait for another writer.
        create: whether to make a store that is not there; else nothing is created.
        layout: that it must have; an older one only to be upgraded.

    Raises:
        ParameterError: the address leads nowhere, or there is no store and none is to be made.
        StoreError: it belongs to somebody else, or has another layout.
    """

    def __init__(
        self, url: str, *, timeout_seconds: float, create: bool = True, layout: int = LAYOUT
    ) -> None:
        self.timeout_seconds = timeout_seconds
        self.engine, self.place = _engine(url, timeout_seconds, create=create)
        self.is_sqlite = self.engine.dialect.name == "sqlite"
        with _translated(self.timeout_seconds, self.place):
            # Tables and champion row are created in one transaction: where one is, all are.
            with self._begin(writes=False) as rows:
                number = _layout_number(rows)
            if number is None and not create:
                raise _no_store("no store", self.place)
            if number is None:
                self._create()
            elif number != layout:
                rule, fix = f"must have layout {layout}", "It was made by a newer prodkit: use that one."
                if number < layout:
                    fix = "It was made by an older prodkit. Bring it up to date: prodkit update."
                raise StoreError("store", rule=rule, value=number, place=self.place, fix=fix)

    def _create(self) -> None:
        """Make the tables that are not there, in one transaction: where one is, all are."""
        with self._begin(writes=True) as rows:
            if not self.is_sqlite:
                rows.execute(sa.text(f"SELECT pg_advisory_xact_lock({_CREATION_LOCK})"))
                if schema := sa.make_url(self.place).query.get("schema"):  # checked when it was connected to
                    rows.exec_driver_sql(f"CREATE SCHEMA IF NOT EXISTS {schema}")
            _require_tables(rows, self.place)
            complete(rows)
            if rows.execute(sa.select(CHAMPION)).first() is None:
                rows.execute(CHAMPION.insert().values(asdict(Champion()) | {"id": 1, "head": ""}))

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
        with _translated(self.timeout_seconds, self.place), self._begin(writes=False) as rows:
            yield rows

    @contextmanager
    def write(self, *, run_id: str = "", actor: str = "prodkit", reason: str = "") -> Iterator[Write]:
        """A transaction that no other writer can come between; undone when the block raises.

        Args:
            run_id: the run that its events belong to, if any,
            actor: who acts, and
            reason: why.

        Raises:
            LockedError: somebody else has been writing for longer than the timeout.
            StoreError: the database refuses.
        """
        with _translated(self.timeout_seconds, self.place), self._begin(writes=True) as rows:
            row = rows.execute(sa.select(CHAMPION).with_for_update()).one()
            yield Write(rows, champion_of(row), run_id, actor, reason)

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
def _translated(timeout_seconds: float, place: str) -> Iterator[None]:
    try:
        yield
    except (sa.exc.SQLAlchemyError, UnicodeDecodeError) as error:  # a damaged file may be no text
        cause = getattr(error, "orig", None) or error
        busy = getattr(cause, "sqlite_errorcode", 0) & 0xFF in (5, 6)  # SQLITE_BUSY, SQLITE_LOCKED
        if busy or getattr(cause, "sqlstate", None) == "55P03":  # lock_not_available
            rule = f"must come free within {timeout_seconds:g} seconds"
            fix = "Run again when the other run has ended."
            raise LockedError("store", rule=rule, value="another writer", place=place, fix=fix) from error
        rule = "must be a working prodkit database"
        raise StoreError("store", rule=rule, value=cause, place=place) from error


def champion_of(row: sa.Row[Any]) -> Champion:
    """The champion that its row says."""
    return Champion(row.version, row.predecessor, row.generation, row.hold, row.frozen)


def events_of(rows: sa.Connection, *conditions: sa.ColumnElement[bool]) -> list[Event]:
    """The history, oldest event first; StoreError when a detail is not JSON any more."""
    query = sa.select(EVENTS).where(*conditions).order_by(EVENTS.c.number)
    return [
        Event(**row | {"detail": parsed_json(row["detail"], name=f"event {row['number']}")})
        for row in map(dict, rows.execute(query).mappings())
    ]


def layout_number(url: str) -> int | None:
    """The layout of the store behind a URL; None if there is no store."""
    engine, place = _engine(url, 10.0, create=False)
    try:
        with _translated(10.0, place), engine.connect() as rows:
            return _layout_number(rows)
    finally:
        engine.dispose()


def complete(rows: sa.Connection) -> None:
    """Add the tables and triggers that are not there, and say that the store has the present layout."""
    _TABLES.create_all(rows)
    present = _present_triggers(rows)
    for name, (statements, _) in _wanted_triggers(rows).items():
        for statement in statements if name not in present else ():
            rows.exec_driver_sql(statement)
    _STAMP.create(rows, checkfirst=True)
    rows.execute(_STAMP.delete())
    rows.execute(_STAMP.insert().values(id=1, number=LAYOUT))


def trigger_problems(rows: sa.Connection) -> list[str]:
    """Each trigger of the history that is missing, off, changed, or not the store's, in words."""
    wanted, present = _wanted_triggers(rows), _present_triggers(rows)
    return [
        f"the history can be changed: its trigger {name} is missing, off or changed"
        for name, (_, text) in wanted.items()
        if present.get(name) != text
    ] + [f"the history has a trigger that is not the store's: {name}" for name in present.keys() - wanted]


def _wanted_triggers(rows: sa.Connection) -> dict[str, tuple[list[str], str]]:
    """Of each trigger by name, the statements that create it, and its text as the database keeps it."""
    triggers: dict[str, tuple[list[str], str]] = {}
    for name, (verb, refused) in _TRIGGERS.items():
        if rows.dialect.name == "sqlite":
            action = f"BEGIN SELECT RAISE(ABORT, '{_REFUSAL}'); END"
            trigger = f"CREATE TRIGGER {name} BEFORE {verb} ON events WHEN {refused} {action}"
            triggers |= {name: ([trigger], trigger)} if verb != "TRUNCATE" else {}
            continue
        each, result = "STATEMENT" if verb == "TRUNCATE" else "ROW", "NEW" if verb == "INSERT" else "NULL"
        body = f" BEGIN IF {refused} THEN RAISE EXCEPTION '{_REFUSAL}'; END IF; RETURN {result}; END "
        function = f"CREATE OR REPLACE FUNCTION {name}() RETURNS trigger LANGUAGE plpgsql AS $${body}$$"
        trigger = f"CREATE TRIGGER {name} BEFORE {verb} ON events FOR EACH {each} EXECUTE FUNCTION {name}()"
        triggers[name] = [function, trigger], f"{trigger} {body}"
    return triggers


def _present_triggers(rows: sa.Connection) -> dict[str, str]:
    """The text of each trigger of the history that is switched on, by name."""
    query = "SELECT name, sql FROM sqlite_master WHERE type = 'trigger' AND tbl_name = 'events'"
    if rows.dialect.name != "sqlite":
        query = (
            "SELECT tgname, pg_get_triggerdef(t.oid, true) || ' ' || prosrc FROM pg_trigger t"
            " JOIN pg_proc p ON p.oid = tgfoid WHERE tgrelid = 'events'::regclass AND tgenabled IN ('O', 'A')"
        )
    return {str(name): str(text) for name, text in rows.exec_driver_sql(query)}


def _layout_number(rows: sa.Connection) -> int | None:
    """The layout of the store in a database; None if there is no store. The first ones did not say theirs."""
    tables = sa.inspect(rows)
    if not tables.has_table(_STAMP.name):
        return 1 if tables.has_table(CHAMPION.name) and tables.has_table(EVENTS.name) else None
    number = rows.scalar(sa.select(_STAMP.c.number))
    return -1 if number is None else int(number)


def _require_tables(rows: sa.Connection, place: str) -> None:
    """StoreError when tables of these names are there that are not a store's."""
    there = sa.inspect(rows)
    for table in TABLES:
        if there.has_table(table.name):
            names = {column["name"] for column in there.get_columns(table.name)}
            if names != set(table.columns.keys()):
                fix = "Name another database: this one belongs to somebody else, or to another prodkit."
                rule = f"must have the columns of a store in its table {table.name}"
                raise StoreError("store", rule=rule, value=", ".join(sorted(names)), place=place, fix=fix)


def _no_store(value: str, place: str) -> ParameterError:
    fix = "Name the outputs that hold it with --out, or make one: prodkit lifecycle."
    return ParameterError("store", rule="must be there to be read", value=value, place=place, fix=fix)


def _engine(url: str, timeout_seconds: float, *, create: bool) -> tuple[sa.Engine, str]:
    """An engine, and its address without the password."""
    try:
        address = sa.make_url(url)
        place, target = address.render_as_string(hide_password=True), address
        sqlite, is_file = (
            address.get_backend_name() == "sqlite",
            address.database not in (None, "", ":memory:"),
        )
        if sqlite and is_file:
            path = Path(address.database or "").absolute()
            if create:  # readable for its owner alone; SQLite gives its journal the same permissions
                path.parent.mkdir(parents=True, exist_ok=True)
                if not path.exists():
                    os.close(os.open(path, os.O_RDWR | os.O_CREAT, 0o600))
            elif not path.is_file():
                raise _no_store("no such file", place)
            # A connection never makes the file: one that is gone is an error, and not an empty store.
            target = address.set(database=f"file:{quote(str(path))}", query={"mode": "rw", "uri": "true"})
        elif not sqlite:
            target = _in_schema(address)
        # No pool for files: a connection carried into a forked process would corrupt the database.
        engine = sa.create_engine(
            target,
            poolclass=sa.NullPool if is_file else None,
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
    return engine, place


def _in_schema(address: sa.URL) -> sa.URL:
    """The address of a PostgreSQL database, in the schema that ``?schema=`` names: one for each project."""
    name = address.query.get("schema", "")
    if not name:
        return address
    if not isinstance(name, str) or not re.fullmatch(r"[a-z_][a-z0-9_]{0,62}", name):
        rule = "must name one schema, in small letters, digits and _"
        raise ParameterError("store", rule=rule, value=f"schema={name}", fix="Such as ?schema=demand.")
    options = f"{address.query.get('options', '')} -csearch_path={name}".strip()
    return address.difference_update_query(["schema"]).update_query_dict({"options": options})


def _prepare_sqlite(connection: Any, _: object) -> None:
    connection.isolation_level = None  # the driver begins no transaction of its own: _begin_sqlite does
    for pragma in ("journal_mode = DELETE", "synchronous = EXTRA", "foreign_keys = ON"):
        connection.execute(f"PRAGMA {pragma}")


def _begin_sqlite(rows: sa.Connection) -> None:
    # A write takes its lock at once: one that had read first could no longer wait its turn.
    writes = rows.get_execution_options().get("prodkit_writes", False)
    rows.exec_driver_sql("BEGIN IMMEDIATE" if writes else "BEGIN")
