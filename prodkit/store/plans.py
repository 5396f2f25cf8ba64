"""How a model lives, and what of it is done: plans, the steps of their periods, and what probes lose on them."""

from __future__ import annotations

import fcntl
import json
import os
import socket
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import sqlalchemy as sa

from prodkit.errors import ConflictError, LockedError
from prodkit.evidence import Window, iso
from prodkit.files import share_as
from prodkit.store.database import CENSUSES, PLANS, PROBES, STEPS, Database
from prodkit.store.history import parsed_json, strict_json

__all__ = ["PROBE_MODEL", "Plans"]

PROBE_MODEL = "model"
"""The recipe under which a fitted probe itself is on record."""

_LOCKS = {"loop": 0x70726F6C, "upkeep": 0x70726F75}  # any numbers, the same for all


class Plans:
    """The part of the store that the loop writes to and reads from."""

    def __init__(self, database: Database) -> None:
        self._database = database

    @contextmanager
    def loop_turn(self) -> Iterator[str]:
        """Hold the lock of the loop, which ends with the process whatever happens to it.

        Yields:
            Nothing if the lock is held now; else the process that holds it.
        """
        with self._turn("loop") as holder:
            yield holder

    @contextmanager
    def upkeep_turn(self) -> Iterator[None]:
        """Hold the lock of whoever removes what is old, or copies the store: one at a time.

        Raises:
            LockedError: another process does so just now.
        """
        with self._turn("upkeep") as holder:
            if holder:
                rule, fix = "must not be cleaned or backed up meanwhile", "Call again when it has ended."
                raise LockedError("store", rule=rule, value=holder, place=self._database.place, fix=fix)
            yield

    def _turn(self, name: str) -> AbstractContextManager[str]:
        return self._file_lock(name) if self._database.is_sqlite else self._advisory_lock(_LOCKS[name])

    @contextmanager
    def _file_lock(self, name: str) -> Iterator[str]:
        file = sa.make_url(self._database.place).database
        path = Path(f"{file}.{name}") if file and file != ":memory:" else Path(os.devnull)
        handle = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
        if path.name != "null":
            share_as(Path(file or ""), handle)
        try:
            holder = ""
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
                os.ftruncate(handle, 0) if path.name != "null" else None
                os.pwrite(handle, f"process {os.getpid()} on {socket.gethostname()}".encode(), 0)
            except BlockingIOError:
                holder = os.pread(handle, 300, 0).decode("utf-8", "replace") or "another process"
            yield holder
        finally:
            os.close(handle)

    @contextmanager
    def _advisory_lock(self, lock: int) -> Iterator[str]:
        key = {"lock": lock}
        with self._database.engine.connect() as rows:
            rows.execution_options(isolation_level="AUTOCOMMIT")  # no transaction stays open all the while
            ours = rows.scalar(sa.text("SELECT pg_try_advisory_lock(:lock, hashtext(current_schema()))"), key)
            holder = rows.scalar(
                sa.text(
                    "SELECT pid FROM pg_locks WHERE locktype = 'advisory' AND classid = :lock"
                    " AND objid::bigint = hashtext(current_schema())::bigint & 4294967295 AND granted"
                    " AND database = (SELECT oid FROM pg_database WHERE datname = current_database())"
                ),
                key,
            )
            yield "" if ours else f"the process of database session {holder}"

    def plan(self) -> dict[str, Any] | None:
        """The newest plan; None before there is one."""
        with self._database.read() as rows:
            text = rows.scalar(sa.select(PLANS.c.document).order_by(PLANS.c.number.desc()).limit(1))
        return None if text is None else parsed_json(text, name="plan")

    def record_plan(self, document: Mapping[str, Any], *, reason: str, actor: str = "prodkit") -> None:
        """Record a plan, and an event that says why; it holds from now on.

        Args:
            document: with its ``number``, one more than that of the plan before.
            reason: of the plan.
            actor: who made it.

        Raises:
            ConflictError: somebody has recorded a plan of this number meanwhile.
            StoreError: it is not plain JSON.
        """
        text = strict_json(dict(document), name="plan", sort=True)
        with self._database.write(actor=actor, reason=reason) as write:
            newest = write.rows.scalar(sa.select(sa.func.max(PLANS.c.number))) or 0
            if document["number"] != newest + 1:
                rule = f"must be number {document['number'] - 1} still"
                raise ConflictError("plan", rule=rule, value=newest, fix="Call again.")
            now = datetime.now(UTC).isoformat(timespec="seconds")
            write.rows.execute(
                PLANS.insert().values(number=document["number"], document=text, created_at=now)
            )
            write.append("plan", version=write.champion.version, detail=json.loads(text))

    def record_step(
        self, plan: int, notebook: str, window: Window, *, run_id: str, document: Mapping[str, Any]
    ) -> None:
        """Note that a notebook is done for a period; it is noted once, and stays as it was noted.

        Args:
            plan: number of the plan.
            notebook: that was run.
            window: the period.
            run_id: of the run.
            document: what the loop asks of the run later.
        """
        row = {"plan": plan, "notebook": notebook, "window_start": iso(window.start)}
        with self._database.write() as write:
            known = sa.select(STEPS.c.id).where(*(STEPS.c[name] == value for name, value in row.items()))
            if write.rows.execute(known).first() is None:
                text = strict_json(dict(document), name=f"step {notebook} {window}")
                row |= {"window_end": iso(window.end), "run_id": run_id, "document": text}
                write.rows.execute(STEPS.insert().values(row))

    def census(self, plan: int) -> dict[str, Any] | None:
        """What the table held when it was seen last; None before it was."""
        with self._database.read() as rows:
            text = rows.scalar(sa.select(CENSUSES.c.document).where(CENSUSES.c.plan == plan))
        return None if text is None else parsed_json(text, name="census")

    def record_census(self, plan: int, document: Mapping[str, Any]) -> None:
        """Remember what the table holds, in place of what it held before."""
        text = strict_json(dict(document), name="census")
        with self._database.write() as write:
            write.rows.execute(CENSUSES.delete().where(CENSUSES.c.plan == plan))
            write.rows.execute(CENSUSES.insert().values(plan=plan, document=text))

    def steps(self, plan: int) -> dict[tuple[str, Window], dict[str, Any]]:
        """What is done of a plan, by notebook and period, in the order in which it was done: run and document."""
        query = sa.select(STEPS).where(STEPS.c.plan == plan).order_by(STEPS.c.id)
        with self._database.read() as rows:
            return {
                (row.notebook, Window.parse(f"{row.window_start}/{row.window_end}")): {
                    **parsed_json(row.document, name=f"step {row.notebook}"),
                    "run_id": row.run_id,
                }
                for row in rows.execute(query)
            }

    def probe_losses(self) -> list[dict[str, Any]]:
        """The summed losses of probes on record, by step and moment of the fit."""
        query = sa.select(PROBES).where(PROBES.c.recipe != PROBE_MODEL)
        with self._database.read() as rows:
            return [dict(row) for row in rows.execute(query.order_by(*PROBES.primary_key)).mappings()]

    def record_probe_losses(self, columns: Sequence[str], losses: Sequence[Mapping[str, Any]]) -> None:
        """Put these losses in the place of all that is on record of some steps.

        Args:
            columns: where these steps start, ISO text.
            losses: each with ``recipe``, ``fitted_at``, ``step_start``, ``step_end`` (ISO text), ``digest``, ``rows``,
                ``loss``.
        """
        old = PROBES.c.step_start.in_(list(columns)), PROBES.c.recipe != PROBE_MODEL
        with self._database.write() as write:
            write.rows.execute(PROBES.delete().where(*old))
            if losses:
                write.rows.execute(PROBES.insert(), [{"signature": "", **row} for row in losses])
