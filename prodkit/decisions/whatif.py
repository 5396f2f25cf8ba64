"""Past decisions under other limits: which of them would have been different, and why."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import pandas as pd

from prodkit.decisions.decide import Decision, sentence
from prodkit.decisions.economy import Economics
from prodkit.decisions.gates import held_against, limits_of
from prodkit.decisions.record import decided_again, evidence_of
from prodkit.evidence import Evidence
from prodkit.params import NOTEBOOKS, ProjectParams, unknown_parameter

__all__ = ["Alternative", "notebook_of", "other_decision", "what_if"]

_DECIDE = ("rollback", "validate")
_MOVES = {"promote", "rollback", "retrain"}
# What takes no part in a decision (where things lie, who is told), or is no finding's limit but known all the same.
_KNOWN = {"approval", "artifacts", "backend", "min_rows", "notify", "retrain_now", "slo", "store"}
_WHY = {
    "as_of": "changes which labels are known",
    "confidence": "makes other intervals",
    "label_delay": "changes which labels are known",
    "min_blocks": "counts days, of which the evidence has no number",
    "value": "needs the value of each row",
}
_ASKED_IF_FAILED = {
    "performance.challenger": "performance.predecessor_instead",
    "performance.challenger_since": "performance.predecessor_instead",
    "health.latency_p99_ms": "health.predecessor_latency",
}
_FROM_LABELS = (
    "performance",
    "gain",
    "slice",
    "calibration",
)  # findings that are not made where labels are too few


@dataclass(frozen=True)
class Alternative:
    """A recorded decision, and what it would have been.

    Attributes:
        then: the action that was decided; with ``(proposed)`` where a person had to approve.
        now: the action under the changed parameters; empty where the evidence does not tell.
        why: what makes the difference, or why it cannot be told.
    """

    run_id: str
    notebook: str
    window: str
    then: str
    now: str
    why: str

    @property
    def verdict(self) -> str:
        """``same``, ``different``, or ``needs a new run``."""
        return "needs a new run" if not self.now else "same" if self.now == self.then else "different"


def what_if(documents: Sequence[Mapping[str, Any]], changed: Mapping[str, Any]) -> pd.DataFrame:
    """Hold recorded decisions against other limits, margins or costs, without reading a row of data.

    Only the numbers on record are used. What would take others (a label delay: other rows are known; a confidence:
    other intervals; a gate that was not tried) says ``needs a new run``. Each decision is told about the champion
    that it judged; once one that moves the champion would have been different, the later ones say that there might
    have been another.

    Args:
        documents: of decisions, oldest first, as :func:`prodkit.decisions.record.past_decisions` or
            :func:`prodkit.decisions.record.decision_record` gives them.
        changed: parameters by name, as in a params file.

    Returns:
        One row a decision, by run: ``notebook``, ``window``, ``then``, ``now``, ``verdict`` (``same``, ``different``
        or ``needs a new run``), ``why``.

    Raises:
        ParameterError: no notebook that decides has such a parameter, or the value is out of its bounds.
        RunError: a document does not hold what the rule needs.
    """
    for name in changed:
        notebook_of(name)
    rows, moved = [], ""
    for document in documents:
        each = other_decision(document, changed)
        why = [each.why] if each.why else []
        if moved:
            why.append(f"another champion may have stood, had {moved} ended so")
        elif each.verdict == "different" and {each.then.split()[0], each.now.split()[0]} & _MOVES:
            moved = each.run_id or each.window
        row = {"run": each.run_id, "notebook": each.notebook, "window": each.window, "then": each.then}
        rows.append(row | {"now": each.now, "verdict": each.verdict, "why": "; ".join(why)})
    columns = ["run", "notebook", "window", "then", "now", "verdict", "why"]
    return pd.DataFrame(rows, columns=columns).set_index("run")


def notebook_of(name: str) -> str:
    """A notebook that decides and has this parameter; ParameterError, with the nearest name, when none has."""
    for notebook in _DECIDE:
        if name in NOTEBOOKS[notebook].model_fields:
            return notebook
    known = {each for notebook in _DECIDE for each in NOTEBOOKS[notebook].model_fields}
    raise unknown_parameter(name, known=known, place="what decides: rollback and validate")


def other_decision(document: Mapping[str, Any], changed: Mapping[str, Any]) -> Alternative:
    """What one recorded decision would have been under other parameters; see :func:`what_if`."""
    kind = NOTEBOOKS[document["notebook"]]
    before = kind.check(document["params"])
    own = {name: value for name, value in changed.items() if name in kind.model_fields}
    after = kind.check({**before.plain(), **own})
    differ = [name for name in own if getattr(before, name) != getattr(after, name)]
    recorded = evidence_of(document)
    evidence, untold = _under(recorded, before, after)
    untold += [
        f"{name} {_WHY.get(name, 'changes what is read or tried')}"
        for name in differ
        if name not in _KNOWN | limits_of(kind.notebook) and (name, own[name]) != ("policy", "proof")
    ]
    judged = dict(document["judged"])
    evidence = [_priced(item, judged, before, after) for item in evidence]
    untold += _untried(recorded, evidence, document["judged"])
    then = _said(decided_again(document, recorded), before)
    told = Alternative(document.get("run_id", ""), kind.notebook, str(before.window), then, "", "")
    if untold:
        return replace(told, why="; ".join(untold))
    judged |= {name: own[name] for name in ("policy", "retrain_now") if name in differ}
    found = decided_again({**document, "judged": judged}, evidence)
    now = _said(found, after)
    turned = [
        f"{sentence(new)} ({old.outcome} before, {new.outcome} now)"
        for old, new in _turned(recorded, evidence)
    ]
    why = "; ".join(turned or found.reasons[:1]) if now != then else ""
    return replace(told, now=now, why=why)


def _priced(
    item: Evidence, judged: Mapping[str, Any], before: ProjectParams, after: ProjectParams
) -> Evidence:
    """Whether a training pays, at the price of now, by the triangle on record."""
    economics = judged.get("economics")
    if item.name != "economy.training" or item.outcome == "inconclusive" or not economics:
        return item
    if before.retrain_cost == after.retrain_cost:
        return item
    version = int(judged["champion"]["version"] or 0)
    return Economics.from_dict(economics).at(after.retrain_cost).evidence(version, rows=item.n)


def _said(decision: Decision, params: ProjectParams) -> str:
    """The action, and whether a person has to approve it."""
    proposed = params.approval == "required" and decision.action in _MOVES
    return decision.action + (" (proposed)" if proposed else "")


def _turned(before: Sequence[Evidence], after: Sequence[Evidence]) -> Iterator[tuple[Evidence, Evidence]]:
    """The findings that come to something else now."""
    now = {item.name: item for item in after}
    for item in before:
        if item.name in now and now[item.name].outcome != item.outcome:
            yield item, now[item.name]


def _under(
    evidence: Sequence[Evidence], before: ProjectParams, after: ProjectParams
) -> tuple[list[Evidence], list[str]]:
    """The findings under the limits of now, and what their numbers do not tell."""
    found, untold = [], []
    for item in evidence:
        held = held_against(before.notebook, item.name)
        then, now = (held.limit(params) if held else None for params in (before, after))
        if held is None or then == now or item.limit is None or item.outcome == "error":
            found.append(item)
            continue
        if held.exact and then is not None and item.limit != then:
            found.append(item)  # another limit decided it: there were too few labels
            continue
        outcome = None if then is None or now is None else held.comes_to(item, then, now)
        if outcome is None or now is None or then is None:
            untold.append(f"{held.parameter} turns on more than the numbers of {item.name}")
            continue
        limit = now if held.exact or item.limit <= max(then, now) else item.limit
        found.append(replace(item, outcome=outcome, limit=limit))
    for name in sorted(_limits(after) - _limits(before)):
        untold.append(f"slo.{name} was not measured")
    return _labelled(found, untold, before, after)


def _untried(
    before: Sequence[Evidence], after: Sequence[Evidence], judged: Mapping[str, Any]
) -> Iterator[str]:
    """What would have been asked of the predecessor, had these findings failed then."""
    if (judged.get("champion") or {}).get("predecessor") is None:
        return
    known = {item.name for item in before}
    for _, new in _turned(before, after):
        asked = _ASKED_IF_FAILED.get(new.name)
        if asked and new.outcome == "fail" and asked not in known:
            yield f"{new.name} would have failed, and then {asked} would have been asked"


def _limits(params: ProjectParams) -> set[str]:
    return set(params.slo) if params.notebook == "rollback" else set()


def _labelled(
    found: list[Evidence], untold: list[str], before: ProjectParams, after: ProjectParams
) -> tuple[list[Evidence], list[str]]:
    """The findings that are made at all, with as many labels as there are."""
    then, now = getattr(before, "min_rows", 0), getattr(after, "min_rows", 0)
    named = {item.name: item for item in found}
    whole = named.get("labels") or named.get("performance.labels")
    newest = named.get("performance.challenger")
    if then == now or whole is None:
        return found, untold
    if whole.n < now:
        spared = ("labels", "_classes")
        return [
            item for item in found if not item.name.startswith(_FROM_LABELS) or item.name.endswith(spared)
        ], untold
    if newest is not None and newest.n < now:
        few = replace(newest, outcome="inconclusive", limit=now, value=newest.n, low=None, high=None)
        rest = [item for item in found if not item.name.startswith("performance.challenger")]
        return [*rest, few], untold
    if newest is not None and newest.limit == then and newest.value == newest.n:
        return found, [*untold, "min_rows would have had a fresh challenger tried"]
    return found, untold
