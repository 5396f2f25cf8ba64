"""An older store brought to the present layout: backed up, then changed in one transaction."""

from __future__ import annotations

import hmac
from datetime import UTC, datetime
from pathlib import Path

import sqlalchemy as sa

from prodkit.errors import ArtifactError, ParameterError, StoreError
from prodkit.store.artifacts import Artifacts, signature
from prodkit.store.database import LAYOUT, VERSIONS, Database, complete, events_of, layout_number
from prodkit.store.history import chain_problems, times_digest
from prodkit.store.registry import vouched_row
from prodkit.store.snapshot import copy_sqlite

__all__ = ["upgrade_store"]

_TIMEOUT_SECONDS = 10.0
_KEPT = ("versions", "events", "champion")  # tables that PostgreSQL keeps a copy of


def upgrade_store(url: str, artifacts: str) -> str | None:
    """Bring a store of layout 1 to the present one; its old events are sealed, with their times, by an event.

    A signature of layout 1 is of the bytes alone; each is compared, and made anew over number, manifest and digest.

    Args:
        url: SQLAlchemy URL of the store.
        artifacts: folder or fsspec URL of its artifacts.

    Returns:
        Where the backup is; None if the store is up to date already.

    Raises:
        ParameterError: there is no store, or it is signed and ``PRODKIT_SIGNING_KEY`` is not set.
        StoreError: it is of a layout that nobody knows, or its history is broken.
        ArtifactError: a signature is not by this key.
    """
    number = layout_number(url)
    if number == LAYOUT:
        return None
    if number != 1:
        rule = "must be one of layout 1"
        raise StoreError("store", rule=rule, value=number, fix="Is it a prodkit store?")
    database, files = (
        Database(url, timeout_seconds=_TIMEOUT_SECONDS, layout=1),
        Artifacts(artifacts, create=False),
    )
    try:
        place = _back_up(url) if database.is_sqlite else "tables layout1_*"
        with database.write(actor="prodkit update", reason=f"layout 1 to {LAYOUT}") as write:
            events = events_of(write.rows)
            if any(event.kind == "upgrade" for event in events):  # somebody else was faster
                return None
            if problems := chain_problems(events, layout=1):
                fix = "Somebody changed the store by hand: restore a backup."
                raise StoreError("history", rule="must be unbroken", value=problems[0], fix=fix)
            if not database.is_sqlite:
                for table in _KEPT:
                    write.rows.exec_driver_sql(f"CREATE TABLE layout1_{table} AS TABLE {table}")
            for row in write.rows.execute(sa.select(VERSIONS)).all():
                write.rows.execute(
                    VERSIONS.update()
                    .where(VERSIONS.c.number == row.number)
                    .values(signature=_signed(row, files))
                )
            complete(write.rows)
            write.append("upgrade", detail={"from": 1, "times": times_digest(events)})
    finally:
        database.close()
    return place


def _signed(row: sa.Row[tuple[object, ...]], files: Artifacts) -> str:
    """The new signature of a version; empty for one that was not signed."""
    if not row.signature:
        return ""
    name, content = f"version {row.number}", vouched_row(row)
    artifact = files.verified(row.digest, signed=None, vouched=content, name=name)
    old = signature(artifact)
    if not old:
        fix = "export PRODKIT_SIGNING_KEY=..., the key that signed it."
        raise ParameterError("PRODKIT_SIGNING_KEY", rule="must be set to upgrade a signed store", fix=fix)
    if not hmac.compare_digest(old, row.signature):
        rule, value = "must be signed with PRODKIT_SIGNING_KEY", "a signature by another key"
        raise ArtifactError(name, rule=rule, value=value, fix="Set the key that signed it.")
    return signature(content)


def _back_up(url: str) -> str:
    """Copy a SQLite database beside itself, whoever reads it meanwhile."""
    source = Path(sa.make_url(url).database or "")
    target = source.with_name(f"{source.name}.layout1-{datetime.now(UTC):%Y%m%dT%H%M%S}")
    target.touch(mode=0o600)
    copy_sqlite(url, target)
    return str(target)
