"""A decision as it is written down, so that whoever reads it later can come to it again."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from typing import Any

from prodkit.decisions.decide import Decision, judgement, promotion
from prodkit.errors import RunError
from prodkit.evidence import Evidence
from prodkit.params import ProjectParams
from prodkit.redaction import Redaction, references
from prodkit.store.history import Champion
from prodkit.store.registry import Store

__all__ = ["DECIDED", "decided_again", "decision_digest", "decision_record", "evidence_of", "past_decisions"]

DECIDED = (
    *("action", "outcome", "reasons", "target_version", "generation", "clears_hold", "judged"),
    *("evidence", "notebook", "params"),
)
"""What of a document is the decision: what was decided, on what, by which rule."""


def decision_record(params: ProjectParams, decision: Decision) -> dict[str, Any]:
    """The decision as it stands in ``result.json``: the names in :data:`DECIDED`, as plain JSON."""
    return {
        "notebook": params.notebook,
        "action": decision.action,
        "outcome": decision.outcome,
        "reasons": list(decision.reasons),
        "target_version": decision.target_version,
        "generation": decision.generation,
        "clears_hold": decision.clears_hold,
        "judged": dict(decision.judged),
        "evidence": [item.to_dict() for item in decision.evidence],
        "params": params.plain(),
    }


def decision_digest(document: Mapping[str, Any]) -> str:
    """SHA-256 of a decision's canonical JSON; the history keeps it, so that no byte of it changes unseen.

    What the runner takes out of a record, values of environment variables, is not part of it.
    """
    said = {name: document.get(name) for name in DECIDED}
    shown = Redaction.of(references(said["params"])).document(said)
    text = json.dumps(shown, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()


_NUMBER = (int, float, type(None))
_TYPES = {"name": str, "note": str, "n": int, "rung": int} | dict.fromkeys(
    ("value", "low", "high", "limit"), _NUMBER
)


def evidence_of(document: Mapping[str, Any]) -> list[Evidence]:
    """The evidence of a recorded decision.

    Raises:
        RunError: a line of it cannot be read.
    """
    found = []
    for number, line in enumerate(document.get("evidence") or (), 1):
        name = f"evidence line {number}"
        try:
            item = Evidence.from_dict(line)
        except (TypeError, ValueError) as error:
            raise RunError(name, rule="must be readable", value=error, fix=_DAMAGED) from error
        if item.to_dict() != line or not all(isinstance(line[key], kind) for key, kind in _TYPES.items()):
            raise RunError(name, rule="must be as evidence is written", value=line, fix=_DAMAGED)
        found.append(item)
    return found


def decided_again(document: Mapping[str, Any], evidence: Sequence[Evidence] | None = None) -> Decision:
    """What the rule makes of a recorded decision's evidence, or of other evidence in its place.

    Args:
        document: with the names in :data:`DECIDED`.
        evidence: to be judged instead of the recorded one.

    Raises:
        RunError: the document does not hold what the rule needs.
    """
    lines = evidence_of(document) if evidence is None else list(evidence)
    try:
        match document.get("judged"):
            case {"rule": "promotion", "challenger": int(number), "generation": int(generation), **rest} if (
                not rest
            ):
                return promotion(lines, challenger=number, generation=generation)
            case {"rule": "judgement", "champion": dict(pointer), "retrain_now": bool(now), **rest} if (
                rest.keys() <= {"policy", "economics"}
            ):
                given: dict[str, Any] = {str(name): value for name, value in rest.items()}
                return judgement(lines, champion=Champion(**pointer), retrain_now=now, **given)
    except (TypeError, ValueError) as error:
        raise RunError("judged", rule="must name a champion", value=error, fix=_DAMAGED) from error
    rule, fix = (
        "must say by which rule, and about whom, it was decided",
        f"{_DAMAGED} Or it is of an older prodkit.",
    )
    raise RunError("judged", rule=rule, value=document.get("judged"), fix=fix)


def past_decisions(store: Store) -> list[dict[str, Any]]:
    """The documents of all decisions that the store has on record, in the order in which they were made."""
    documents = [run.get("document") for run in store.runs(status="succeeded")]
    return [each for each in documents if isinstance(each, dict) and each.get("judged")]


_DAMAGED = "The record was changed or damaged: restore it."
