"""A copy of the store as it stood when a run began, to which the run may do again what it did."""

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

_Tables = dict[sa.Table, list[dict[str, Any]]]
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
        StoreError: there is no such store, its history does not lead to what ``at`` says, or the champion of
            that time was deleted.
    """
    state, head, kept = _read(url, at)
    lost = _lost(state, kept[VERSIONS], at, metrics=len(kept[METRICS]), profiles=len(kept[PROFILES]))
    for row in kept[VERSIONS]:
        row["quarantined"] = row["number"] in state.quarantined
    _write(f"sqlite:///{folder}/store.db", kept, champion=asdict(state.champion) | {"head": head})
    files = Artifacts(artifacts, create=False)
    for row in kept[VERSIONS]:
        files.lend(row["location"], folder / "artifacts")
    return lost


def _read(url: str, at: Mapping[str, int]) -> tuple[Replay, str, _Tables]:
    """What the history amounted to then, the digest that it ended with, and the rows that are left of then."""
    source = Database(url, timeout_seconds=_TIMEOUT_SECONDS, create=False)
    try:
        with source.read() as rows:
            events = _history(events_of(rows), at)
            state = replay(events)
            clauses = {
                VERSIONS: VERSIONS.c.number.in_(list(state.versions)),
                EVENTS: EVENTS.c.number <= at["events"],
                METRICS: METRICS.c.id <= at["metrics"],
                PROFILES: PROFILES.c.id <= at["profiles"],
            }
            kept = {table: _rows(rows, table, clause) for table, clause in clauses.items()}
    finally:
        source.close()
    return state, events[-1].digest if events else "", kept


def _write(url: str, kept: _Tables, *, champion: Mapping[str, Any]) -> None:
    target = Database(url, timeout_seconds=_TIMEOUT_SECONDS)
    try:
        with target.write() as write:
            for table, rows in kept.items():
                if rows:
                    write.rows.execute(table.insert(), rows)
            write.rows.execute(CHAMPION.update().values(champion))
    finally:
        target.close()


def _rows(rows: sa.Connection, table: sa.Table, clause: Any) -> list[dict[str, Any]]:
    first = next(iter(table.primary_key))
    return [dict(row) for row in rows.execute(sa.select(table).where(clause).order_by(first)).mappings()]


def _history(events: list[Event], at: Mapping[str, int]) -> list[Event]:
    """The events until then; StoreError when they are not those that were there."""
    if problems := chain_problems(events):
        fix = "Somebody changed the store by hand: see prodkit models check."
        raise StoreError("history", rule="must be unbroken", value=problems[0], fix=fix)
    until = events[: at["events"]]
    found = {"events": len(until), "generation": replay(until).champion.generation}
    for name, number in found.items():
        if number != at[name]:
            rule = f"must lead to {name} {at[name]}, which the run has found"
            raise StoreError("history", rule=rule, value=number, fix="Is this the store that the run used?")
    return until


def _lost(
    state: Replay, versions: list[dict[str, Any]], at: Mapping[str, int], *, metrics: int, profiles: int
) -> list[str]:
    """What was there and is not any more, in words; StoreError when nothing can be run without it."""
    gone = sorted(state.versions.keys() - {row["number"] for row in versions})
    for number in gone:
        if number in (state.champion.version, state.champion.predecessor):
            rule = "must still exist: it was the champion or its predecessor when the run began"
            fix = "The run cannot be repeated any more."
            raise StoreError(f"version {number}", rule=rule, value="deleted", fix=fix)
    said = [f"version {number} was deleted since" for number in gone]
    for name, there, then in (
        ("metrics", metrics, at.get("metric_rows", metrics)),
        ("profiles", profiles, at.get("profile_rows", profiles)),
    ):
        if there != then:
            said.append(f"{then - there} of {then} {name} were replaced since")
    return said
