"""Challenger and champion under load in one run: whether the service limits refuse the challenger."""

from __future__ import annotations

from dataclasses import replace

from prodkit.decisions.contest import Contest
from prodkit.evidence import Evidence
from prodkit.params import ProjectParams, StressParams, ValidateParams
from prodkit.scoring.guard import LoadedModel
from prodkit.store.registry import Store
from prodkit.store.workspace import load_version
from prodkit.stress.course import load_guards
from prodkit.stress.endurance import load_evidence

__all__ = ["load_budget"]

_CHALLENGER, _CHAMPION = "load.challenger.", "load.champion."


def load_budget(store: Store, params: ValidateParams, rivals: Contest) -> list[Evidence]:
    """The service limits at ``promised_rate``, held against the challenger; nothing if that is 0.

    Both are loaded in turn by the guard of this process, on the same schedule, with the judged rows as requests. Only
    the challenger's figures decide; the champion's stand in the notes, so that a slow machine can be told from a slow
    model. A rate that was not reached is inconclusive.

    Args:
        store: that holds the champion.
        params: of the notebook.
        rivals: who is judged.
    """
    if not params.promised_rate:
        return []
    facts = {name: value for name, value in params.plain().items() if name in ProjectParams.model_fields}
    load = {"promised_rate": params.promised_rate, "rates": [params.promised_rate]}
    stress = StressParams.check({**facts, **load, "step_seconds": params.step_seconds})
    models = {"challenger": LoadedModel(rivals.number, rivals.challenger)}
    champion = store.champion().version
    if champion is not None:
        models = {"champion": LoadedModel(champion, load_version(store, champion)), **models}
    steps = load_guards(stress, models, rivals.trial.rows)
    told = {each.name: each for each in load_evidence(stress, "champion", steps.get("champion", []))}
    found = []
    for each in load_evidence(stress, "challenger", steps["challenger"]):
        name = each.name.removeprefix(_CHALLENGER)
        before = told[_CHAMPION + name].value
        note = each.note if before is None else f"{each.note}; the champion has {before:.3g}"
        found.append(replace(each, name=f"budget.load.{name}", note=note))
    return found
