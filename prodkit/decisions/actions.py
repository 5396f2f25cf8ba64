"""A decision carried out in the store, or put before a person, exactly once."""

from __future__ import annotations

from typing import Literal

from prodkit.decisions.decide import Decision
from prodkit.decisions.holds import broken
from prodkit.decisions.record import decision_digest, decision_record
from prodkit.decisions.result import current_run
from prodkit.params import ProjectParams
from prodkit.store.registry import Store
from prodkit.store.workspace import load_version

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
    wrong = [item for item in decision.evidence if item.rung == 1 and item.outcome == "fail"]
    # of broken labels nobody learns, but the model may go on answering
    feed = not wrong or any(not item.name.startswith("contract.labels.") for item in wrong)
    if decision.action == "hold" and feed:
        _hold(store, params, decision)
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


def _hold(store: Store, params: ProjectParams, decision: Decision) -> None:
    """Put the champion on hold, or write down what is broken now if it is held for something else."""
    version, before = store.champion().version, store.held()
    bundle = load_version(store, version) if version is not None else None
    start = params.window.start.isoformat()
    detail = broken(decision.evidence, bundle).to_dict() if bundle else {}
    told = ("columns", "other", "masked")
    if before and all(before.detail.get(name) == detail.get(name) for name in told):
        return
    detail |= {"window": str(params.window), "since": (before and before.detail.get("since")) or start}
    run_id, reason = current_run(params), decision.reasons[0]
    store.hold(expected_generation=decision.generation, reason=reason, run_id=run_id, detail=detail)
