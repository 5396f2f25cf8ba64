"""How a model lives, and what of it is done: plans, and the steps of their periods."""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

import sqlalchemy as sa

from prodkit.errors import ConflictError
from prodkit.evidence import Window, iso
from prodkit.store.database import PLANS, STEPS, Database
from prodkit.store.history import parsed_json, strict_json

__all__ = ["Plans"]


class Plans:
    """The part of the store that the loop writes to and reads from."""

    def __init__(self, database: Database) -> None:
        self._database = database

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
