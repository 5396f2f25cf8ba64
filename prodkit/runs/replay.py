"""Whether a recorded decision follows from its recorded evidence: decided again by its rule, and compared exactly."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from prodkit.decisions.gates import held_against
from prodkit.decisions.record import DECIDED, decided_again, decision_digest, decision_record, evidence_of
from prodkit.errors import RunError
from prodkit.evidence import Evidence
from prodkit.params import NOTEBOOKS, ProjectParams
from prodkit.runs.comparison import Difference
from prodkit.runs.verify import Verdict, check_record, refusing
from prodkit.settings import REAL_STORE, outputs_folder, resolve
from prodkit.store.history import Event, chain_problems
from prodkit.store.registry import Store

__all__ = ["contradictions", "replay_run"]


def replay_run(run: str, store: str = REAL_STORE, artifacts: str = "outputs/artifacts") -> Verdict:
    """Decide a recorded run again from what is on record, and compare: no data is read, no model opened.

    Compared are ``result.json`` with the notebook and with the store's record; the digest of the decision with the
    one in the store's history, whose chain is verified; each finding with its limit and the parameter it comes from;
    and action, outcome, reasons, target and generation with what the rule makes of the evidence.

    Args:
        run: id of a run of ``rollback`` or ``validate`` in the outputs folder, or the path of its folder.
        store: SQLAlchemy URL of the store that has the record of a run whose folder was removed by ``clean``.
        artifacts: its artifacts.

    Raises:
        ParameterError: there is no such run.
    """
    verdict = Verdict(Path(run).name)
    if not (outputs_folder() / "runs" / verdict.run_id).is_dir():
        with Store.open(resolve(store), resolve(artifacts), create=False) as opened:
            if removed := opened.removed_runs().get(verdict.run_id):
                verdict.notes.append(f"its folder was removed {removed}: this is the record in the store")
                document = (opened.run(verdict.run_id) or {}).get("document") or {}
                with refusing(verdict):
                    _replay(document, opened.history(), verdict)
                return verdict
    record = check_record(run, verdict)
    if record is None:
        return verdict
    with refusing(verdict):
        _require_decision(record.document)
        if record.basis["store"] is None:
            verdict.notes.append("it worked in a store of its own, which is gone: there is no history of it")
            _replay(record.document, None, verdict)
        else:
            with Store.open(*record.places, create=False) as opened:
                _replay(record.document, opened.history(), verdict)
    return verdict


def _replay(document: Mapping[str, Any], events: Sequence[Event] | None, verdict: Verdict) -> None:
    """Put into the verdict what contradicts a decision; without events, there is no history of it."""
    _require_decision(document)
    if events is not None:
        verdict.differences += _in_history(document, events)
    verdict.differences += contradictions(document)
    verdict.decided = decided_again(document).action


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
    # what a later version has added need not be on record
    again["params"] = {name: value for name, value in again["params"].items() if name in document["params"]}
    differences = [difference for item in evidence for difference in _finding(item, params)]
    for name in DECIDED:
        then, now = _text(document.get(name)), _text(again[name])
        if then != now:
            differences.append(Difference(f"{name}, which the evidence does not lead to", then, now))
    moves = document["action"] in ("promote", "rollback", "retrain")
    if moves and params.approval == "required" and document.get("approval") is None:
        differences.append(Difference("approval, which the parameters require", "null", '"proposed"'))
    return differences


def _require_decision(document: Mapping[str, Any]) -> None:
    run_id = str(document.get("run_id"))
    if document.get("notebook") not in ("rollback", "validate") or not document.get("judged"):
        rule, value = "must be a run that decided something", str(document.get("notebook"))
        fix = "Runs of rollback and validate do; one of an older prodkit does not say on what: run it with --force."
        raise RunError(run_id, rule=rule, value=value, fix=fix)
    if missing := [name for name in DECIDED if name not in document]:
        fix = "It was changed or damaged: restore it."
        raise RunError(run_id, rule=f"must say its {missing[0]}", fix=fix)


def _finding(item: Evidence, params: ProjectParams) -> Iterator[Difference]:
    """Where a finding has another limit than the parameter's, or its numbers lead to another outcome."""
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


def _in_history(document: Mapping[str, Any], events: Sequence[Event]) -> Iterator[Difference]:
    """Where the history has another decision, or its chain is broken: nobody can change both unseen."""
    for problem in chain_problems(events):
        yield Difference("the history", "an unbroken chain", problem)
    decided = [event for event in events if (event.kind, event.run_id) == ("decide", document["run_id"])]
    if not decided:
        yield Difference("the history", "an event of this decision", "none")
        return
    event = decided[-1]
    for name, then, now in (
        ("action", document["action"], event.detail.get("action")),
        ("generation", document["generation"], event.generation),
        ("digest of the decision", decision_digest(document), event.detail.get("decision")),
    ):
        if then != now:
            yield Difference(f"{name}, the history has another", _text(then), _text(now))


def _text(value: Any) -> str:
    return json.dumps(value, sort_keys=True, ensure_ascii=False)
