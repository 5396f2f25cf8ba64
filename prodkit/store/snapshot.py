"""A copy of the store as it stood when a run began, in which the run may do again what it did."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import sqlalchemy as sa

from prodkit.errors import StoreError
from prodkit.store.artifacts import Artifacts
from prodkit.store.database import CHAMPION, EVENTS, METRICS, PROFILES, VERSIONS, Database, events_of
from prodkit.store.history import Event, Replay, chain_problems, replay

__all__ = ["take_snapshot"]

_TIMEOUT_SECONDS = 10.0


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
    state: Replay, left: Mapping[int, Any], rows: Mapping[str, list[Any]], at: Mapping[str, int]
) -> list[str]:
    """What was there and is not any more, in words; StoreError when nothing can be run without it."""
    gone = sorted(state.versions.keys() - left.keys())
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
