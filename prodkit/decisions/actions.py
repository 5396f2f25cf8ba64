"""A decision carried out in the store, or put before a person, exactly once."""

from __future__ import annotations

from typing import Literal

from prodkit.decisions.decide import Decision
from prodkit.decisions.record import decision_digest, decision_record
from prodkit.decisions.result import current_run
from prodkit.params import ProjectParams
from prodkit.store.registry import Store

__all__ = ["carry_out"]


def carry_out(store: Store, params: ProjectParams, decision: Decision) -> Literal["proposed"] | None:
    """Do what was decided, if the champion is still the one that was judged.

    The decision itself goes into the history first, whatever it is. A promotion or a rollback moves the pointer; a
    hold is set, or an earlier one cleared. A retraining is a request that the scheduler carries out. With
    ``approval: required``, or while the champion is frozen, everything that acts is proposed instead, except a hold
    and its end, which protect and are at once reversible.

    Returns:
        ``proposed`` when a person has to approve first, else None.

    Raises:
        ConflictError: the champion changed meanwhile; nothing was done.
    """
    run_id, reason = current_run(params), decision.reasons[0]
    said = {"expected_generation": decision.generation, "run_id": run_id, "reason": reason}
    store.decide(
        run_id,
        action=decision.action,
        generation=decision.generation,
        reason=reason,
        digest=decision_digest(decision_record(params, decision)),
        as_of=params.moment.isoformat(),
    )
    if decision.clears_hold:
        store.release(**(said | {"reason": "the input is sound again"}))  # type: ignore[arg-type]
    broken = [item for item in decision.evidence if item.rung == 1 and item.outcome == "fail"]
    feed = any(
        not item.name.startswith("contract.labels.") for item in broken
    )  # the model may go on answering
    if decision.action == "hold" and (feed or not broken) and not store.champion().hold:
        store.hold(**said)  # type: ignore[arg-type]
    if decision.action not in ("promote", "rollback", "retrain"):
        return None
    if params.approval == "required" or store.champion().frozen:
        store.propose(
            run_id,
            action=decision.action,
            version=decision.target_version,
            generation=decision.generation,
            reason=reason,
        )
        return "proposed"
    if decision.action == "promote" and decision.target_version is not None:
        store.promote(decision.target_version, **said)  # type: ignore[arg-type]
    elif decision.action == "rollback":
        store.rollback(**said)  # type: ignore[arg-type]
    return None
