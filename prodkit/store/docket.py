"""What was decided, and what waits for a person: decisions, proposals and their ends, in the store's history."""

from __future__ import annotations

from prodkit.errors import ParameterError
from prodkit.store.database import events_of
from prodkit.store.history import ACTIONS, Champion, Event, open_proposals
from prodkit.store.moves import (
    mark,
    open_proposal,
    promote,
    propose,
    require_generation,
    require_reason,
    roll_back,
)
from prodkit.store.records import Records

__all__ = ["Docket"]


class Docket(Records):
    """The part of the store that decisions are written to before they are carried out, or put before a person."""

    def history(self) -> list[Event]:
        """All events, oldest first."""
        with self._database.read() as rows:
            return events_of(rows)

    def decide(
        self,
        run_id: str,
        *,
        action: str,
        generation: int,
        reason: str,
        digest: str,
        as_of: str,
        actor: str = "prodkit",
    ) -> Event:
        """Put on record what a run has decided, before anything is done. To repeat it changes nothing.

        Args:
            run_id: whose decision it is.
            action: what is to be done; keep and watch among them.
            generation: the champion that was judged.
            reason: one sentence.
            digest: of the decision with all that it rests on.
            as_of: the moment at which the run stands, as ISO text.
            actor: who decides.
        """
        detail = {"action": action, "decision": digest, "as_of": as_of}
        with self._database.write() as write:
            made = [
                event for event in events_of(write.rows) if (event.kind, event.run_id) == ("decide", run_id)
            ]
            if made and made[-1].detail == detail:
                return made[-1]
            return write.append(
                "decide", generation=int(generation), run_id=run_id, actor=actor, reason=reason, detail=detail
            )

    def settled(self, run_id: str) -> str | None:
        """What became of a run's proposal: ``proposed``, ``approved``, ``rejected``; None if it made none."""
        said = {"propose": "proposed", "approve": "approved", "reject": "rejected"}
        kinds = [event.kind for event in self.history() if event.run_id == run_id and event.kind in said]
        return said[kinds[-1]] if kinds else None

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
        with self._database.write() as write:
            return propose(
                write,
                run_id=run_id,
                action=action,
                version=version,
                generation=generation,
                actor=actor,
                reason=reason,
            )

    def proposals(self) -> list[Event]:
        """The proposals that wait for a person, oldest first."""
        return list(open_proposals(self.history()).values())

    def approve(self, run_id: str, *, actor: str, reason: str = "") -> Champion:
        """Carry out what a run proposed; a retraining is only recorded, for others to carry out.

        Raises:
            StoreError: the run has no open proposal, or the champion is frozen.
            ConflictError: the champion has changed since the proposal; it stays open.
            VersionError: the action is not possible any more.
        """
        with self._database.write() as write:
            proposal = open_proposal(write, run_id)
            require_generation(write.champion, proposal.generation)
            write.append("approve", version=proposal.version, run_id=run_id, actor=actor, reason=reason)
            match proposal.detail["action"]:
                case "promote":
                    promote(write, proposal.version, run_id=run_id, actor=actor, reason=proposal.reason)
                case "rollback":
                    roll_back(write, run_id=run_id, actor=actor, reason=proposal.reason)
                case "hold" | "release" as kind:
                    mark(write, kind, run_id=run_id, actor=actor, reason=proposal.reason)
            return write.champion

    def reject(self, run_id: str, *, actor: str, reason: str = "") -> Event:
        """Settle a proposal without carrying it out.

        Raises:
            StoreError: the run has no open proposal.
        """
        with self._database.write() as write:
            proposal = open_proposal(write, run_id)
            return write.append("reject", version=proposal.version, run_id=run_id, actor=actor, reason=reason)
