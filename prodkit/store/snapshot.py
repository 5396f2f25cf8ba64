"""Copies of the store: as it stood when a run began, for that run to be done again, and as it stands, to be kept."""

from __future__ import annotations

import sqlite3
from collections.abc import Mapping
from contextlib import closing
from dataclasses import asdict
from pathlib import Path
from typing import Any
from urllib.parse import quote

import sqlalchemy as sa

from prodkit.errors import ArtifactError, ParameterError, StoreError
from prodkit.files import publish
from prodkit.store.approvals import deleted_versions
from prodkit.store.artifacts import Artifacts
from prodkit.store.database import (
    CHAMPION,
    EVENTS,
    METRICS,
    PROBES,
    PROFILES,
    TABLES,
    VERSIONS,
    Database,
    events_of,
)
from prodkit.store.history import Event, Replay, chain_problems, replay
from prodkit.store.plans import PROBE_MODEL, Plans

__all__ = ["back_up", "copy_sqlite", "take_snapshot"]

_TIMEOUT_SECONDS = 10.0
_ROWS = 1_000  # copied at a time
_UNFINISHED = ".store.db.unfinished"


def take_snapshot(url: str, artifacts: str, *, at: Mapping[str, int], folder: Path) -> list[str]:
    """Make ``folder/store.db`` and ``folder/artifacts``: the store as it was when ``at`` was taken.

    The champion, and which versions are in quarantine, are what a replay of the events until then gives. The
    records of runs are not copied: no notebook reads them. Local artifacts are linked, not copied.

    Args:
        url: SQLAlchemy URL of the store, SQLite or PostgreSQL; it is read in one transaction, and not changed.
        artifacts: folder or fsspec URL of its artifacts.
        at: as :meth:`prodkit.store.records.Records.watermark` gave it.
        folder: must hold no store yet.

    Returns:
        What the copy lacks because it was deleted or replaced since, in words; usually nothing.

    Raises:
        ParameterError: there is no such store.
        StoreError: its history does not lead to what ``at`` says, or the champion of that time was deleted.
    """
    source = Database(url, timeout_seconds=_TIMEOUT_SECONDS, create=False)
    try:
        with source.read() as connection:
            history = events_of(connection)
            events = _history(history, at)
            state, left = replay(events), replay(history).versions
            clauses = {
                VERSIONS: VERSIONS.c.number.in_(list(state.versions)),
                EVENTS: EVENTS.c.number <= at["events"],
                METRICS: METRICS.c.id <= at["metrics"],
                PROFILES: PROFILES.c.id <= at["profiles"],
                PROBES: PROBES.c.recipe != PROBE_MODEL,  # which can be fitted again
            }
            tables = {table: _rows(connection, table, clause) for table, clause in clauses.items()}
    finally:
        source.close()
    lost = _lost(state, left, {table.name: rows for table, rows in tables.items()}, at)
    files = Artifacts(artifacts, create=False)
    for row in tables[VERSIONS]:
        row["quarantined"] = row["number"] in state.quarantined
        files.lend(row["digest"], folder / "artifacts")
    target = Database(f"sqlite:///{folder}/store.db", timeout_seconds=_TIMEOUT_SECONDS)
    try:
        with target.write() as write:
            for table, rows in tables.items():
                if rows:
                    write.rows.execute(table.insert(), rows)
            head = events[-1].digest if events else ""
            write.rows.execute(CHAMPION.update().values(asdict(state.champion) | {"head": head}))
    finally:
        target.close()
    return lost


def back_up(url: str, artifacts: str, *, folder: Path) -> list[str]:
    """Make ``folder/store.db`` and ``folder/artifacts``: the store as it stands, whoever works with it meanwhile.

    The database is read first, in one transaction, then each artifact that it names; nothing can be cleaned
    meanwhile. ``store.db`` gets its name when all is there and synced, so that a copy with it is whole.

    Args:
        url: SQLAlchemy URL of the store, SQLite or PostgreSQL; the copy is SQLite.
        artifacts: folder or fsspec URL of its artifacts.
        folder: new, empty, or with what a backup left that was killed.

    Returns:
        Which artifacts are missing or damaged, in words: the rest is copied all the same.

    Raises:
        ParameterError: there is no such store, or the folder holds something else.
        LockedError: another process cleans or backs up this store.
    """
    names = {path.name for path in folder.iterdir()} if folder.is_dir() else set()
    if names and (_UNFINISHED not in names or "store.db" in names):
        rule, fix = "must be a new or empty folder", "Name another one."
        raise ParameterError("DIR", rule=rule, value=", ".join(sorted(names)[:3]), place=str(folder), fix=fix)
    source = Database(url, timeout_seconds=_TIMEOUT_SECONDS, create=False)
    try:
        with Plans(source).upkeep_turn():
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            draft, target = folder / _UNFINISHED, Artifacts(str(folder / "artifacts"))
            for left in (draft, draft.with_name(f"{draft.name}-journal")):
                left.unlink(missing_ok=True)
            draft.touch(mode=0o600)
            if source.is_sqlite:
                copy_sqlite(url, draft)
            else:
                _copy_rows(source, draft)
            problems = _copy_artifacts(Artifacts(artifacts, create=False), target, draft)
            publish(draft, folder / "store.db")
    finally:
        source.close()
    return problems


def copy_sqlite(url: str, target: Path) -> None:
    """Copy a SQLite database into a file, as it stands at one moment, whoever reads or writes it meanwhile."""
    source = Path(sa.make_url(url).database or "").absolute()
    try:
        with (
            closing(sqlite3.connect(f"file:{quote(str(source))}?mode=ro", uri=True)) as old,
            closing(sqlite3.connect(target)) as new,
        ):
            old.backup(new)
    except sqlite3.Error as error:
        rule, fix = "must take a copy of the store", "Make room or give access there, and call again."
        raise StoreError("the copy", rule=rule, value=error, place=str(target), fix=fix) from error


def _copy_rows(source: Database, target: Path) -> None:
    """Copy all rows, read in one transaction, into a new SQLite store."""
    copy = Database(f"sqlite:///{target}", timeout_seconds=_TIMEOUT_SECONDS)
    try:
        with source.read() as rows, copy.write() as write:
            write.rows.execute(CHAMPION.delete())
            for table in TABLES:
                result = rows.execute(sa.select(table).order_by(*table.primary_key)).mappings()
                for part in result.partitions(_ROWS):
                    write.rows.execute(table.insert(), [dict(row) for row in part])
    finally:
        copy.close()


def _copy_artifacts(source: Artifacts, target: Artifacts, database: Path) -> list[str]:
    """Copy the artifacts of the versions in a copied database; returns what is wrong with them."""
    copy, problems = Database(f"sqlite:///{database}", timeout_seconds=_TIMEOUT_SECONDS, create=False), []
    try:
        with copy.read() as rows:
            deleted = deleted_versions(rows)
            versions = [row for row in rows.execute(sa.select(VERSIONS)) if row.number not in deleted]
    finally:
        copy.close()
    for row in versions:
        try:
            name = f"version {row.number}"
            target.publish(source.verified(row.digest, signed=None, vouched=b"", name=name))
        except ArtifactError as error:
            problems.append(str(error))
    return problems


def _rows(connection: sa.Connection, table: sa.Table, clause: Any) -> list[dict[str, Any]]:
    query = sa.select(table).where(clause).order_by(next(iter(table.primary_key)))
    return [dict(row) for row in connection.execute(query).mappings()]


def _history(events: list[Event], at: Mapping[str, int]) -> list[Event]:
    """The events until then; StoreError when they are not those that were there."""
    if problems := chain_problems(events):
        fix = "Somebody changed the store by hand: see prodkit models check."
        raise StoreError("history", rule="must be unbroken", value=problems[0], fix=fix)
    until = events[: at["events"]]
    reached = {"events": len(until), "generation": replay(until).champion.generation}
    for name, number in reached.items():
        if number != at[name]:
            rule = f"must lead to {name} {at[name]}, where it stood when the run began"
            raise StoreError("history", rule=rule, value=number, fix="Is this the store that the run used?")
    return until


def _lost(
    state: Replay, present: Mapping[int, Any], rows: Mapping[str, list[Any]], at: Mapping[str, int]
) -> list[str]:
    """What was there and is not any more, in words; StoreError when nothing can be run without it."""
    gone = sorted(state.versions.keys() - present.keys())
    for number in gone:
        if number in (state.champion.version, state.champion.predecessor):
            rule = "must still exist: it was the champion or its predecessor when the run began"
            fix = "The run cannot be repeated any more."
            raise StoreError(f"version {number}", rule=rule, value="deleted", fix=fix)
    lost = [f"version {number} was deleted since" for number in gone]
    for name, counted in (("metrics", "metric_rows"), ("profiles", "profile_rows")):
        then, left = at.get(counted, len(rows[name])), len(rows[name])
        if left != then:
            lost.append(f"{then - left} of {then} {name} were replaced since")
    return lost
