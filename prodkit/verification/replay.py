"""Whether a recorded decision follows from its recorded evidence: made again by its rule, and compared bit for bit."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from prodkit.decisions.limits import held_against
from prodkit.decisions.record import DECIDED, decided_again, decision_digest, decision_record, evidence_of
from prodkit.errors import RunError
from prodkit.evidence import Evidence
from prodkit.params import NOTEBOOKS, ProjectParams
from prodkit.store.history import Event, chain_problems
from prodkit.store.registry import Store
from prodkit.verification.dossier import Dossier
from prodkit.verification.likeness import Difference
from prodkit.verification.verdict import Verdict
from prodkit.verification.verifier import examine

__all__ = ["Replay", "contradictions", "replay_run"]


@dataclass
class Replay(Verdict):
    """What replaying a decision has come to; ``decided`` is the action that its evidence leads to."""

    decided: str = ""

    def lines(self, *, most: int = 20) -> list[str]:
        """The verdict for people; no more than so many differences."""
        if self.refused:
            return [f"{self.run_id}: cannot be replayed", f"  {self.refused}", *self._notes()]
        said = f"{self.decided}, as recorded" if self.matches else "is not as recorded"
        lines = [f"{self.run_id}: {said}"]
        for each in self.differences[:most]:
            lines += [f"  {each.what}", f"    recorded: {each.recorded}", f"    found:    {each.found}"]
        if len(self.differences) > most:
            lines.append(f"  and {len(self.differences) - most} more")
        return [*lines, *self._notes()]


def replay_run(run: str) -> Replay:
    """Make a recorded decision again from what is on record, and compare: no data is read, no model opened.

    Compared are ``result.json`` with the notebook and with the store's record; the digest of the decision with the
    one in the store's history, whose chain is verified; each finding with its limit and the parameter it comes from;
    and action, outcome, reasons, target and generation with what the rule makes of the evidence.

    Args:
        run: id of a run of ``rollback`` or ``validate`` in the outputs folder, or the path of its folder.

    Raises:
        ParameterError: there is no such run.
    """
    verdict = Replay(Path(run).name)

    def decide(dossier: Dossier, places: tuple[str, str]) -> None:
        _require_decision(dossier.document)
        verdict.differences += _witnessed(dossier, places, verdict.notes)
        verdict.differences += contradictions(dossier.document)
        verdict.decided = decided_again(dossier.document).action

    examine(run, verdict, decide)
    return verdict


def contradictions(document: Mapping[str, Any]) -> list[Difference]:
    """Where a decision's document contradicts itself: limits, findings, and what the rule makes of them.

    Raises:
        RunError: it does not hold what the rule needs, or evidence that cannot be read.
        ParameterError: its parameters cannot have run.
    """
    _require_decision(document)
    params = NOTEBOOKS[document["notebook"]].check(document["params"])
    evidence = evidence_of(document)
    again = decision_record(params, decided_again(document, evidence))
    found = [difference for item in evidence for difference in _finding(item, params)]
    for name in DECIDED:
        then, now = _text(document.get(name)), _text(again[name])
        if then != now:
            found.append(Difference(f"{name}, which the evidence does not lead to", then, now))
    moves = document["action"] in ("promote", "rollback", "retrain")
    if moves and params.approval == "required" and document.get("approval") is None:
        found.append(Difference("approval, which the parameters require", "null", '"proposed"'))
    return found


def _require_decision(document: Mapping[str, Any]) -> None:
    if document.get("notebook") not in ("rollback", "validate") or not document.get("judged"):
        rule, value = "must be a run that decided something", str(document.get("notebook"))
        fix = "Runs of rollback and validate do; one of an older prodkit does not say on what: run it with --force."
        raise RunError(str(document.get("run_id")), rule=rule, value=value, fix=fix)
    if missing := [name for name in DECIDED if name not in document]:
        fix = "It was changed or damaged: restore it."
        raise RunError(str(document.get("run_id")), rule=f"must say its {missing[0]}", fix=fix)


def _finding(item: Evidence, params: ProjectParams) -> Iterator[Difference]:
    """Where a finding is held against another limit than the parameter's, or its numbers come to something else."""
    held = held_against(params.notebook, item.name)
    limit = held.limit(params) if held else None
    if held is None or limit is None or item.limit is None or item.outcome == "error":
        return
    own = item.limit == limit if held.exact else item.limit >= limit
    if not own:
        # the other limit that a finding of this name may have: too few labels to make it
        if not (item.limit == getattr(params, "min_rows", None) and item.value == item.n):
            what = f"{item.name}, limit, which {held.parameter} does not give"
            yield Difference(what, _text(item.limit), _text(limit))
        return
    outcome = held.comes_to(item, limit, limit)
    if outcome is not None and outcome != item.outcome:
        yield Difference(f"{item.name}, outcome, which its numbers do not lead to", item.outcome, outcome)


def _witnessed(dossier: Dossier, places: tuple[str, str], notes: list[str]) -> list[Difference]:
    """What the history says of the decision: a digest that nobody can change without breaking its chain."""
    if dossier.basis["store"] is None:
        notes.append("it worked in a store of its own, which is gone: no history bears witness to it")
        return []
    with Store.open(*places) as store:
        events = store.history()
    broken = [Difference("the history", "an unbroken chain", problem) for problem in chain_problems(events)]
    return broken + _told(dossier.document, [each for each in events if each.run_id == dossier.folder.name])


def _told(document: Mapping[str, Any], events: Sequence[Event]) -> list[Difference]:
    said = [event for event in events if event.kind == "decide"]
    if not said:
        return [Difference("the history", "an event of this decision", "none")]
    detail, found = said[-1].detail, []
    for name, then, now in (
        ("action", document["action"], detail.get("action")),
        ("generation", document["generation"], said[-1].generation),
        ("digest of the decision", decision_digest(document), detail.get("decision")),
    ):
        if then != now:
            found.append(Difference(f"{name}, the history has another", _text(then), _text(now)))
    return found


def _text(value: Any) -> str:
    return json.dumps(value, sort_keys=True, ensure_ascii=False)
