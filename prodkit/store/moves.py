"""The champion's moves: what may happen to it inside an open write transaction, and what may not."""

from __future__ import annotations

from typing import Any

import sqlalchemy as sa

from prodkit.errors import ConflictError, ParameterError, StoreError, VersionError
from prodkit.store.database import VERSIONS, Write, events_of
from prodkit.store.history import Champion, Event, open_proposals, replay

__all__ = [
    "mark",
    "open_proposal",
    "promote",
    "propose",
    "quarantine",
    "require_generation",
    "require_reason",
    "roll_back",
    "version_row",
]


def promote(
    write: Write, number: int | None, *, run_id: str, actor: str, reason: str, force: bool = False
) -> None:
    """Make a version the champion; ``force`` overrules a quarantine and a freeze."""
    row, name = version_row(write.rows, number), f"version {number}"
    if row.number == write.champion.version:
        raise VersionError(name, rule="must not be the champion already", fix="There is nothing to promote.")
    if row.quarantined and not force:
        raise VersionError(
            name,
            rule="must not be in quarantine",
            value="a version that was rolled back",
            fix="Train another one, lift the quarantine, or promote it with force.",
        )
    _require_thawed(write.champion, force=force)
    detail = {"predecessor": write.champion.version} | ({"force": True} if force else {})
    write.append("promote", version=row.number, run_id=run_id, actor=actor, reason=reason, detail=detail)


def roll_back(write: Write, *, run_id: str, actor: str, reason: str) -> None:
    """Give the predecessor its place back, and put the version rolled back in quarantine."""
    _require_thawed(write.champion)
    state, bad = replay(events_of(write.rows)), write.champion.version
    if state.champion != write.champion:
        raise StoreError(
            "champion",
            rule="must be the one that the history leads to",
            value=f"version {write.champion.version} instead of {state.champion.version}",
            fix="Somebody changed the store by hand: see prodkit models check.",
        )
    restored, predecessor = state.after_rollback()
    if restored is None:
        raise VersionError(
            "predecessor",
            rule="must exist to roll back to",
            value="none",
            fix="Promote an earlier version by its number instead.",
        )
    detail = {"from": bad, "predecessor": predecessor}
    write.append("rollback", version=restored, run_id=run_id, actor=actor, reason=reason, detail=detail)
    write.append("quarantine", version=bad, run_id=run_id, actor=actor, reason=reason)
    write.rows.execute(VERSIONS.update().where(VERSIONS.c.number == bad).values(quarantined=True))


def mark(write: Write, kind: str, *, run_id: str, actor: str, reason: str) -> None:
    """Hold, release, freeze or thaw: the champion stays who it is."""
    write.append(kind, version=write.champion.version, run_id=run_id, actor=actor, reason=reason)


def quarantine(write: Write, number: int, *, lift: bool, actor: str, reason: str) -> None:
    """Bar a version from promotion, or let it in again; VersionError when there is nothing to do."""
    row, name = version_row(write.rows, number), f"version {number}"
    if row.quarantined is not lift:
        rule = f"must {'' if lift else 'not '}be in quarantine"
        raise VersionError(name, rule=rule, fix="There is nothing to do.")
    if not lift and row.number in (write.champion.version, write.champion.predecessor):
        rule = "must not be quarantined while it is the champion or its predecessor"
        raise VersionError(name, rule=rule, fix="Roll back, or promote another version first.")
    kind = "readmit" if lift else "quarantine"
    write.append(kind, version=row.number, actor=actor, reason=reason)
    write.rows.execute(VERSIONS.update().where(VERSIONS.c.number == row.number).values(quarantined=not lift))


def require_generation(champion: Champion, expected: int) -> None:
    """ConflictError when the champion is not the one that was judged."""
    if champion.generation != expected:
        raise ConflictError(
            "champion",
            rule=f"must still be that of generation {expected}, which was judged",
            value=f"generation {champion.generation}, version {champion.version}",
            fix="Judge again, against the champion of now.",
        )


def require_reason(action: str, reason: str) -> None:
    """ParameterError when nobody says why."""
    if not reason.strip():
        raise ParameterError("reason", rule=f"must be given for {action}", fix="Say why, in one sentence.")


def version_row(rows: sa.Connection, number: int | None) -> sa.Row[Any]:
    """The row of a version; VersionError, naming the known ones, when there is none."""
    # A plain int of four bytes: databases know no numpy, and no larger numbers.
    wanted = int(number) if number is not None and 0 < number < 2**31 else None
    row = rows.execute(sa.select(VERSIONS).where(VERSIONS.c.number == wanted)).first()
    if row is None:
        known = rows.scalars(sa.select(VERSIONS.c.number).order_by(VERSIONS.c.number)).all()
        raise VersionError(
            f"version {number}",
            rule="must be a registered one",
            fix=f"Known are: {', '.join(map(str, known))}."
            if known
            else "None is registered yet: train one.",
        )
    return row


def propose(
    write: Write, *, run_id: str, action: str, version: int | None, generation: int, actor: str, reason: str
) -> Event:
    """Record a proposal, unless the run has made it already; StoreError when it has made another."""
    if action == "promote" or version is not None:
        version = int(version_row(write.rows, version).number)
    said: dict[str, Any] = {"version": version, "generation": int(generation), "detail": {"action": action}}
    made = next((e for e in events_of(write.rows) if (e.kind, e.run_id) == ("propose", run_id)), None)
    if made is None:
        return write.append("propose", run_id=run_id, actor=actor, reason=reason, **said)
    if any(getattr(made, name) != value for name, value in said.items()):
        raise StoreError(
            f"run {run_id}",
            rule="must make one proposal only",
            value=f"{action} after {made.detail['action']}",
            fix="Reject the first, and run again with --force.",
        )
    return made


def open_proposal(write: Write, run_id: str) -> Event:
    """The proposal of a run; StoreError when it made none, or somebody has settled it."""
    waiting = open_proposals(events_of(write.rows))
    if run_id not in waiting:
        raise StoreError(
            f"run {run_id}",
            rule="must have a proposal that nobody has settled yet",
            fix=f"Open are: {', '.join(waiting)}." if waiting else "None is open.",
        )
    return waiting[run_id]


def _require_thawed(champion: Champion, *, force: bool = False) -> None:
    if champion.frozen and not force:
        raise StoreError("champion", rule="must not be frozen", value="a freeze", fix="Thaw it first.")
