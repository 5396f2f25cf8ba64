"""A decision carried out in the store, or put before a person, exactly once."""

from __future__ import annotations

from contextlib import suppress
from typing import Any, Literal

from prodkit.decisions.decide import Decision
from prodkit.decisions.holds import broken
from prodkit.decisions.record import decision_digest, decision_record
from prodkit.decisions.result import current_run
from prodkit.errors import ModelError, StoreError
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
    if decision.action == "hold":
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
    """Put the champion on hold, or write down what is broken now if it is held for something else.

    Nobody learns from the window, whatever was found when it was scored. Of broken labels the model goes on answering.
    """
    version, before, run_id = store.champion().version, store.held(), current_run(params)
    detail: dict[str, Any] = {}
    with suppress(ModelError, StoreError):  # a champion that cannot be read is on hold all the same
        detail = broken(decision.evidence, load_version(store, version or 0)).to_dict()
    what = {name: detail.get(name) for name in ("columns", "other")}
    for document in store.profiles_of([params.window]):
        was = document.get("broken", {})
        if detail and any(was.get(name) != what[name] for name in what):
            profile = document | {"broken": {"masked": [], "distrust": ""} | was | what}
            store.save_profile(params.window, profile, run_id=run_id, version=version, clean=False)
    if before and detail and all(before.detail.get(name) == detail[name] for name in (*what, "masked")):
        return
    start = params.window.start.isoformat()
    detail |= {"window": str(params.window), "since": (before and before.detail.get("since")) or start}
    reason = decision.reasons[0]
    store.hold(expected_generation=decision.generation, reason=reason, run_id=run_id, detail=detail)
