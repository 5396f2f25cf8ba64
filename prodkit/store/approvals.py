"""What was decided, and what waits for a person: decisions, proposals and their ends, and the moves they lead to."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import sqlalchemy as sa

from prodkit.errors import ConflictError, ParameterError, StoreError, VersionError
from prodkit.settings import REAL_STORE, project_folder
from prodkit.store.database import EVENTS, VERSIONS, Write, events_of
from prodkit.store.history import ACTIONS, Champion, Event, open_proposals, replay
from prodkit.store.records import Records, restored

__all__ = [
    "BY_HAND",
    "Approvals",
    "deleted_versions",
    "promote",
    "require_generation",
    "require_reason",
    "roll_back",
    "store_options",
    "version_row",
    "waiting",
]

_ARTIFACTS = "outputs/artifacts"
BY_HAND = "Somebody changed the store by hand: see prodkit models check."


class Approvals(Records):
    """The part of the store that decisions are written to before they are carried out, or put before a person."""

    def history(self) -> list[Event]:
        """All events, oldest first."""
        with self._database.read() as rows:
            return events_of(rows)

    def decide(
        self, run_id: str, *, action: str, generation: int, reason: str, digest: str, as_of: str
    ) -> Event:
        """Put on record what a run has decided, before anything is done. To repeat it changes nothing.

        Args:
            run_id: whose decision it is.
            action: what is to be done; keep and watch among them.
            generation: the champion that was judged.
            reason: one sentence.
            digest: of the decision with all that it rests on.
            as_of: the moment at which the run stands, as ISO text.
        """
        detail = {"action": action, "decision": digest, "as_of": as_of}
        with self._database.write(run_id=run_id, reason=reason) as write:
            made = events_of(write.rows, EVENTS.c.kind == "decide", EVENTS.c.run_id == run_id)
            if made and made[-1].detail == detail:
                return made[-1]
            return write.append("decide", generation=int(generation), detail=detail)

    def propose(
        self,
        run_id: str,
        *,
        action: str,
        version: int | None,
        generation: int,
        reason: str,
        actor: str = "prodkit",
    ) -> Event:
        """Put an action before a person. A run has one proposal: to repeat it changes nothing.

        A promotion supersedes the open ones of other runs, which somebody would otherwise approve by mistake.

        Args:
            run_id: whose proposal it is; :meth:`approve` and :meth:`reject` name it.
            action: promote, rollback, hold, release or retrain.
            version: what to promote; for other actions, the version that it is about.
            generation: the champion that was judged.
            reason: one sentence; it becomes the reason of the action.
            actor: who proposes.

        Raises:
            ParameterError: an unknown action, or no reason.
            VersionError: no such version.
            StoreError: the run has made another proposal.
        """
        if action not in ACTIONS:
            raise ParameterError("action", rule=f"must be one of {', '.join(ACTIONS)}", value=repr(action))
        require_reason(action, reason)
        with self._database.write(run_id=run_id, actor=actor, reason=reason) as write:
            if action == "promote" or version is not None:
                version = int(version_row(write.rows, version).number)
            proposal = (version, int(generation), {"action": action})
            made = events_of(write.rows, EVENTS.c.kind == "propose", EVENTS.c.run_id == run_id)
            if not made:
                event = write.append("propose", version=version, generation=proposal[1], detail=proposal[2])
                if action == "promote":
                    _supersede(write)
                return event
            if (made[0].version, made[0].generation, made[0].detail) != proposal:
                value = f"{action} after {made[0].detail['action']}"
                fix = "Reject the first, and run again with --force."
                raise StoreError(f"run {run_id}", rule="must make one proposal only", value=value, fix=fix)
            return made[0]

    def proposals(self) -> list[Event]:
        """The proposals that wait for a person, oldest first."""
        return list(open_proposals(self.history()).values())

    def settled(self, run_id: str) -> str | None:
        """The state of a run's proposal: ``proposed``, ``approved``, ``rejected``; None if it made none."""
        states = {"propose": "proposed", "approve": "approved", "reject": "rejected"}
        with self._database.read() as rows:
            made = events_of(rows, EVENTS.c.run_id == run_id, EVENTS.c.kind.in_(states))
        return states[made[-1].kind] if made else None

    def approve(self, run_id: str, *, actor: str, reason: str = "") -> Champion:
        """Carry out what a run proposed; a retraining is only recorded, for others to carry out.

        Raises:
            StoreError: the run has no open proposal, or the champion is frozen.
            ConflictError: the champion has changed since the proposal; it stays open.
            VersionError: the action is not possible any more.
        """
        with self._database.write(run_id=run_id, actor=actor, reason=reason) as write:
            proposal = _open_proposal(write)
            require_generation(write.champion, proposal.generation)
            write.append("approve", version=proposal.version)
            write.reason = proposal.reason
            match proposal.detail["action"]:
                case "promote":
                    promote(write, proposal.version)
                case "rollback":
                    roll_back(write)
                case "hold" | "release" as kind:
                    write.append(kind, version=write.champion.version)
            return write.champion

    def held(self) -> Event | None:
        """The event by which the champion is on hold; None while it is not."""
        with self._database.read() as rows:
            return _hold_of(events_of(rows, EVENTS.c.kind.in_(("hold", "release", "accept"))))

    def accepted(self) -> list[Event]:
        """The events by which persons said that what was held is normal, oldest first.

        In the ``detail`` of each are ``columns`` (``labels`` among them, if it was these) and ``windows``.
        """
        with self._database.read() as rows:
            return events_of(rows, EVENTS.c.kind == "accept")

    def accept(self, run_id: str, *, columns: Sequence[str] = (), actor: str, reason: str) -> Champion:
        """Say that what a run has held is normal from now on: the hold ends, and its rows are learned from.

        Windows are held against these columns as they came; rows of which nothing else was broken count as sound. What
        else the hold is about stays held.

        Args:
            run_id: that decided on the hold in force.
            columns: that are normal; all that are held, if none is named.
            actor: who says so.
            reason: why.

        Raises:
            ParameterError: no reason, or a column that is not held.
            StoreError: the run decided on no hold that is in force.
        """
        require_reason("accept", reason)
        with self._database.write(run_id=run_id, actor=actor, reason=reason) as write:
            hold = _hold_by(write, run_id)
            held, other = (list(hold.detail.get(part, ())) for part in ("columns", "other"))
            if unknown := [name for name in columns if name not in held]:
                fix = f"Held are: {', '.join(held)}." if held else "No column is held."
                raise ParameterError("--column", rule="must name what is held", value=unknown[0], fix=fix)
            if not (chosen := list(columns) or held):
                value, fix = (
                    ", ".join(other) or "nothing that is on record",
                    "Repair the feed, and score again.",
                )
                raise StoreError(f"the hold of run {run_id}", rule="must be of columns", value=value, fix=fix)
            windows = restored(write, chosen, since=str(hold.detail["since"])) or [hold.detail["window"]]
            write.append("accept", version=hold.version, detail={"columns": chosen, "windows": windows})
            if rest := [name for name in held if name not in chosen] + other:
                left = {"columns": [name for name in held if name in rest], "other": other}
                write.reason = f"still held: {', '.join(rest)}; {hold.reason}"
                write.append("hold", version=hold.version, detail={**hold.detail, **left, "masked": None})
            return write.champion

    def reject(self, run_id: str, *, actor: str, reason: str = "") -> Event:
        """Settle a proposal without carrying it out; StoreError when the run has no open one."""
        with self._database.write(run_id=run_id, actor=actor, reason=reason) as write:
            return write.append("reject", version=_open_proposal(write).version)


def _hold_of(events: Sequence[Event]) -> Event | None:
    """The hold that a history of holds, releases and acceptances ends with."""
    return events[-1] if events and events[-1].kind == "hold" else None


def _hold_by(write: Write, run_id: str) -> Event:
    """The hold in force, if a run decided on it; StoreError with what it did instead."""
    events = events_of(write.rows)
    hold = _hold_of([event for event in events if event.kind in ("hold", "release", "accept")])
    mine = [event for event in events if event.run_id == run_id]
    decided = {event.number: event.detail["action"] for event in mine if event.kind == "decide"}
    if hold and (hold.run_id == run_id or any(decided[at] == "hold" for at in decided if at > hold.number)):
        return hold
    rule, value, fix = "must be on record", "no such run", "prodkit models history names the runs."
    if mine:
        rule, value = "must have decided on hold", ", ".join(decided.values()) or "no decision"
    if "hold" in decided.values():
        rule, value = "must have decided on the hold in force", "one that is over"
    if accepted := [event for event in mine if event.kind == "accept"]:
        value = f"one that {accepted[-1].actor} accepted at {accepted[-1].created_at}"
    if hold:
        fix = f"On hold since {hold.created_at}: prodkit models accept {hold.run_id}."
    elif mine:
        fix = "There is nothing to accept: the champion is not on hold."
    raise StoreError(f"run {run_id}", rule=rule, value=value, fix=fix)


def promote(write: Write, number: int | None, *, force: bool = False) -> None:
    """Make a version the champion; ``force`` overrules a quarantine and a freeze."""
    row, name = version_row(write.rows, number), f"version {number}"
    if row.number == write.champion.version:
        raise VersionError(name, rule="must not be the champion already", fix="There is nothing to promote.")
    if row.quarantined and not force:
        rule, fix = "must not be in quarantine", "Train another one, or lift the quarantine."
        raise VersionError(name, rule=rule, value="a version that was rolled back", fix=fix)
    _require_thawed(write.champion, force=force)
    detail = {"predecessor": write.champion.version} | ({"force": True} if force else {})
    write.append("promote", version=row.number, detail=detail)


def roll_back(write: Write) -> None:
    """Give the predecessor its place back, and put the version rolled back in quarantine."""
    _require_thawed(write.champion)
    state, bad = replay(events_of(write.rows)), write.champion.version
    if state.champion != write.champion:
        rule = "must be the one that the history leads to"
        value = f"version {write.champion.version} instead of {state.champion.version}"
        raise StoreError("champion", rule=rule, value=value, fix=BY_HAND)
    restored, predecessor = state.after_rollback()
    if restored is None:
        fix = "Promote an earlier version by its number instead."
        raise VersionError("predecessor", rule="must exist to roll back to", value="none", fix=fix)
    write.append("rollback", version=restored, detail={"from": bad, "predecessor": predecessor})
    write.append("quarantine", version=bad)
    write.rows.execute(VERSIONS.update().where(VERSIONS.c.number == bad).values(quarantined=True))


def _open_proposal(write: Write) -> Event:
    """The proposal of the writing run; StoreError when it made none, or somebody has settled it."""
    waiting = open_proposals(events_of(write.rows))
    if write.run_id not in waiting:
        rule = "must have a proposal that nobody has settled yet"
        fix = f"Open are: {', '.join(waiting)}." if waiting else "None is open."
        raise StoreError(f"run {write.run_id}", rule=rule, fix=fix)
    return waiting[write.run_id]


def require_generation(champion: Champion, expected: int) -> None:
    """ConflictError when the champion is not the one that was judged."""
    if champion.generation != expected:
        rule = f"must still be that of generation {expected}, which was judged"
        value = f"generation {champion.generation}, version {champion.version}"
        raise ConflictError(
            "champion", rule=rule, value=value, fix="Judge again, against the champion of now."
        )


def _supersede(write: Write) -> None:
    """Settle the promotions that other runs proposed: a newer judgement stands in their place."""
    run_id, reason = write.run_id, write.reason
    for older in list(open_proposals(events_of(write.rows)).values()):
        if older.run_id != run_id and older.detail["action"] == "promote":
            write.run_id, write.reason = older.run_id, f"superseded by run {run_id}"
            write.append("reject", version=older.version)
    write.run_id, write.reason = run_id, reason


def _require_thawed(champion: Champion, *, force: bool = False) -> None:
    if champion.frozen and not force:
        raise StoreError("champion", rule="must not be frozen", value="a freeze", fix="Thaw it first.")


def require_reason(action: str, reason: str) -> None:
    """ParameterError when nobody says why."""
    if not reason.strip():
        raise ParameterError("reason", rule=f"must be given for {action}", fix="Say why, in one sentence.")


def version_row(rows: sa.Connection, number: int | None) -> sa.Row[Any]:
    """The row of a version; VersionError, naming the known ones, when there is none."""
    # A plain int of four bytes: databases know no numpy, and no larger numbers.
    wanted = int(number) if number is not None and 0 < number < 2**31 else None
    row = rows.execute(sa.select(VERSIONS).where(VERSIONS.c.number == wanted)).first()
    deleted = deleted_versions(rows)
    if row is None or row.number in deleted:
        numbers = rows.scalars(sa.select(VERSIONS.c.number).order_by(VERSIONS.c.number))
        known = ", ".join(str(each) for each in numbers if each not in deleted)
        fix = f"Known are: {known}." if known else "None is registered yet: train one."
        value = f"one whose artifact was removed {deleted[row.number]}" if row else None
        raise VersionError(f"version {number}", rule="must be a registered one", value=value, fix=fix)
    return row


def deleted_versions(rows: sa.Connection) -> dict[int, str]:
    """The versions whose artifacts were removed, and when: their rows stay."""
    deleted: dict[int, str] = {}
    for event in events_of(rows, EVENTS.c.kind.in_(("register", "delete"))):
        deleted.pop(event.version or 0, None)
        if event.kind == "delete" and event.version:
            deleted[event.version] = event.created_at
    return deleted


def store_options(folder: Path, store: str = REAL_STORE, artifacts: str = _ARTIFACTS) -> str:
    """What ``prodkit models`` needs to find a store, as typed, a space first; nothing for the usual one."""
    typed = {"--out": str(folder), "--store": store, "--artifacts": artifacts}
    usual = {"--out": str(project_folder() / "outputs"), "--store": REAL_STORE, "--artifacts": _ARTIFACTS}
    return "".join(f" {name} {shlex.quote(value)}" for name, value in typed.items() if value != usual[name])


def waiting(events: Sequence[Event], champion: Champion, *, options: str = "") -> list[dict[str, Any]]:
    """What a person has to do or to know: a sentence (``what``), perhaps ``why``, ``commands`` and the ``run``.

    Args:
        events: the history, oldest first.
        champion: who serves.
        options: what ``prodkit models`` needs to find the store, see :func:`store_options`.
    """
    signed = f"--name YOU --reason WHY{options}"
    asked = [_proposal(event, champion, signed) for event in open_proposals(events).values()]
    if champion.hold:
        holds = [event.run_id for event in events if event.kind == "hold" and event.run_id]
        commands = [f"prodkit models accept {holds[-1]} {signed}"] if holds else []
        why = f"{champion.hold}. It ends by itself when a window is sound again."
        why += " If what is new is right, accept it:" if commands else ""
        asked.append({"what": "The champion is on hold.", "why": why, "commands": commands})
    if champion.frozen:
        commands = [f"prodkit models freeze --off {signed}"]
        what = "The champion is frozen: nothing is promoted or rolled back."
        asked.append({"what": what, "commands": commands})
    return asked


def _proposal(event: Event, champion: Champion, signed: str) -> dict[str, Any]:
    """What a person has to approve or reject."""
    current = event.generation == champion.generation
    stale = "" if current else " The champion has changed since, so that it can only be rejected."
    what = str(event.detail.get("action", "action" if event.version else None))
    what += f" of version {event.version}" if event.version else ""
    commands = [
        f"prodkit models {verb} {event.run_id} {signed}"
        for verb in (("approve", "reject") if current else ("reject",))
    ]
    sentence = f"Proposed: {what}.{stale}"
    return {"what": sentence, "why": event.reason, "commands": commands, "run": event.run_id}
