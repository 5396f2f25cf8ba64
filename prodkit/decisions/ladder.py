"""The evidence ladder of a window: all rungs, and what of them is known, estimated, or not to be known yet."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd

from prodkit.data.windows import label_coverage
from prodkit.decisions.cooldown import cooldown
from prodkit.decisions.counterfactual import Counterfactuals, labelled_window
from prodkit.decisions.economy import chance_worse
from prodkit.decisions.gains import daily_gains, earlier_gains
from prodkit.decisions.gates import alternative, at_most, enough, share_at_most
from prodkit.decisions.holds import lasting_hold
from prodkit.decisions.performance import performance_evidence
from prodkit.decisions.survey import Inspection
from prodkit.decisions.trial import Trial
from prodkit.drift.contract import Answered, label_breaks
from prodkit.evidence import Evidence, Outcome
from prodkit.models.bundle import Bundle, measured
from prodkit.models.estimate import Estimated, estimate_evidence
from prodkit.models.metrics import intervals
from prodkit.params import PRIMARY, ProjectParams, RollbackParams
from prodkit.store.registry import Store
from prodkit.store.workspace import load_version

__all__ = [
    "economy_evidence",
    "gain_table",
    "health_evidence",
    "knowledge_table",
    "ladder_evidence",
    "look_number",
]

_REQUESTS = 11  # a median of so many is not moved by a hiccup of the machine
_WARMING = 1
_LATENCY = "health.latency_p99_ms"


def ladder_evidence(
    store: Store,
    params: RollbackParams,
    trials: Counterfactuals,
    *,
    champion: tuple[int, Bundle],
    inspection: Inspection,
    shifts: Sequence[Evidence],
    outlook: Estimated | None = None,
) -> list[Evidence]:
    """All rungs, the strongest first: the contract, health, realised performance, what is estimated, drift."""
    version, bundle = champion
    health = health_evidence(store, params, trials, version=version)
    health += _speed(store, params, trials, bundle, recorded=health)
    before = min(params.window.start, labelled_window(params).start)
    earlier = earlier_gains(store, params, version=version, before=before)
    performance = performance_evidence(
        params,
        trials,
        look=look_number(params, bundle),
        since=bundle.holdout.end,
        earlier=earlier,
        autocorrelation=bundle.autocorrelation,
    )
    if params.policy != "proof":
        performance += economy_evidence(params, trials, champion=champion, earlier=earlier, known=performance)
    worth = _worth(params, trials, look=look_number(params, bundle), known=store.version(version).manifest)
    estimates = []
    if outlook is not None:
        reference = measured(store.version(version).manifest)
        settings: dict[str, Any] = {"margin": params.retrain_cost, "window": "this window"}
        estimates = [estimate_evidence(outlook, task=bundle.schema.task, reference=reference, **settings)]
    return [
        *inspection.evidence,
        *label_evidence(trials, bundle),
        *lasting_hold(store, params, trials.whole, inspection.broken),
        *health,
        *performance,
        *worth,
        *cooldown(store, params),
        *estimates,
        *shifts,
    ]


def economy_evidence(
    params: RollbackParams,
    trials: Counterfactuals,
    *,
    champion: tuple[int, Bundle],
    earlier: Mapping[str, pd.Series[float]],
    known: Sequence[Evidence] = (),
) -> list[Evidence]:
    """Does a training pay, or is it due; and is the predecessor likely to be better since the promotion?

    Args:
        params: of the run.
        trials: the champion, and who could have been in its place, on the same rows.
        champion: its number and bundle.
        earlier: daily gains of the windows before this one.
        known: the other findings of rung 3: nothing is asked for where they say that labels are too few.
    """
    version, bundle = champion
    name = "economy.training"
    if params.policy == "schedule":
        windows = (params.window.end - bundle.trained.end - params.label_delay) / (
            params.window.end - params.window.start
        )
        outcome: Outcome = "fail" if windows > params.cycle - 0.5 else "pass"
        note = f"windows since version {version} was trained, which the schedule gives it"
        found = [
            Evidence(
                name, outcome, value=windows, limit=params.cycle - 0.5, rung=3, note=note, unit="windows"
            )
        ]
    elif trials.triangle is None or trials.economics is None or not trials.economics.result.recipe:
        why = trials.missing.get("challenger", "no model could be fitted to compare it with")
        found = [Evidence(name, "inconclusive", rung=3, note=why)]
    else:
        rows = int(trials.triangle.rows[-trials.triangle.look :].sum())
        found = [trials.economics.evidence(version, rows=rows)]
    if any(item.name == "performance.labels" and item.outcome != "pass" for item in known):
        found = [replace(item, outcome="inconclusive") for item in found]
    return [*found, *_predecessor(params, trials, bundle, earlier)]


def _predecessor(
    params: RollbackParams, trials: Counterfactuals, bundle: Bundle, earlier: Mapping[str, pd.Series[float]]
) -> list[Evidence]:
    """The posterior of its being better: the prior says what younger models are worth, the days say the rest."""
    gains = daily_gains(trials, least_days=params.min_blocks).get("predecessor")
    if gains is None or trials.whole is None or trials.predecessor is None:
        return []
    days = pd.concat([earlier.get("predecessor", pd.Series(dtype=float)), gains])
    younger = 0.0
    if trials.triangle is not None and trials.economics is not None:
        age = (bundle.trained.end - trials.predecessor.trained.end) / trials.triangle.step
        younger = float(np.nan_to_num(-trials.economics.result.slope / trials.economics.unit * age))
    chance = chance_worse(days.to_numpy(), blocks=np.arange(len(days)) - len(days), expected=younger)
    limit = params.rollback_certainty
    if np.isnan(chance):
        note = "the predecessor cannot be compared: one of them did not answer"
        return [Evidence("economy.predecessor", "inconclusive", rung=3, note=note)]
    note = f"probability that the predecessor loses less, by {len(days)} days since the promotion"
    outcome: Outcome = "fail" if chance > limit else "pass"
    skill = 1 - float(np.nanmean(trials.whole.lost("predecessor")))
    if outcome == "fail" and skill <= 0:
        outcome, note = "inconclusive", f"{note}; but in this window it is {skill:.3g} over the simple rule"
    rows = len(trials.whole.rows)
    return [
        Evidence("economy.predecessor", outcome, chance, limit=limit, n=rows, rung=3, note=note, unit="share")
    ]


def label_evidence(trials: Counterfactuals, champion: Bundle) -> list[Evidence]:
    """Rung 1: what is broken in the labels that judge, beside those of before the champion served."""
    known, whole = champion.calibration, trials.whole
    if known is None or whole is None:
        return []

    def answered(trial: Trial, *names: str) -> Answered:
        said = {name: trial.predicted[name] for name in names if name in trial.predicted}
        return Answered(trial.truth, said, trial.days, trial.unknown_rows)

    reference = Answered(known.truth, {"champion": known.predicted}, known.days)
    fresh = None if trials.retrained is None else answered(trials.retrained, "challenger")
    classes = max(
        len(champion.schema.classes),
        *(side.shape[1] for side in whole.predicted.values() if side.ndim == 2),
        0,
    )
    if whole.task != known.task:  # more classes than two, where two were known
        return []
    return label_breaks(reference, answered(whole, "champion", "predecessor"), classes=classes, fresh=fresh)


def knowledge_table(
    params: RollbackParams, rows: pd.DataFrame, trials: Counterfactuals, outlook: Estimated
) -> pd.DataFrame:
    """What is known of the champion's loss on a window, what is estimated, and what nobody can know yet."""
    coverage, nothing = label_coverage(rows, params), (np.nan, np.nan, np.nan)
    known, found = nothing, nothing
    counted, told, guessed = 0, trials.missing.get("labels", ""), outlook.abstained
    if trials.whole is not None:
        trial, loss = trials.whole, PRIMARY[trials.whole.task]
        given: dict[str, Any] = {"blocks": trial.days, "weights": trial.weights}
        said = intervals(trial.truth, trial.predicted["champion"], task=trial.task, **given)[loss]
        counted, known, told = (
            said.n,
            (said.value, said.low, said.high),
            f"{loss}, of labels that have matured",
        )
    if not outlook.abstained:
        loss = next(name for name in outlook.scores if name in PRIMARY.values())
        each = outlook.scores[loss]
        found, guessed = (each.value, each.low, each.high), f"{loss}, without a look at any label"
        if trials.whole is not None and not each.low <= known[0] <= each.high:
            guessed += ": what is known lies outside, so rows like these no longer end as they did"
    left = coverage.pending + coverage.never
    never = f"{coverage.pending:,} labels are to come, {coverage.never:,} never will"
    table = {
        "known": (f"{counted:,}", *known, told),
        "estimated": (f"{outlook.rows:,}", *found, guessed),
        "not to be known yet": (f"{left:,}", *nothing, never),
    }
    return pd.DataFrame.from_dict(table, orient="index", columns=["rows", "value", "low", "high", "note"])


def _speed(
    store: Store,
    params: RollbackParams,
    trials: Counterfactuals,
    champion: Bundle,
    *,
    recorded: Sequence[Evidence],
) -> list[Evidence]:
    """Where the champion was too slow: is it the champion, or would its predecessor be as slow on this machine?"""
    slow = any(item.name == _LATENCY and item.outcome == "fail" for item in recorded)
    predecessor = store.champion().predecessor
    if not slow or predecessor is None:
        return []
    rows = champion.golden if trials.whole is None else trials.whole.rows
    candidates = {"champion": champion, "predecessor": load_version(store, predecessor)}
    return _latency_evidence(candidates, rows, limit_ms=params.slo["latency_p99_ms"])


def _worth(
    params: RollbackParams, trials: Counterfactuals, *, look: int, known: Mapping[str, Any]
) -> list[Evidence]:
    """Is a row worth less than before the champion served? Tells, and does not act: another model may not help."""
    before = known.get("metrics", {}).get("value")
    if trials.whole is None or "champion" not in trials.whole.worth or not before or before["low"] is None:
        return []
    values = trials.whole.worth["champion"].to_numpy(dtype=float)
    there = np.isfinite(values)
    name, note = "performance.value", "fall in the mean business value since the champion was trained"
    labels = enough(
        name, values[there], trials.whole.days[there], min_rows=params.min_rows, min_blocks=params.min_blocks
    )
    if labels.outcome != "pass":
        return [labels]
    usual = np.full(int(there.sum()), before["value"])
    margin = before["value"] - before["low"]  # how well the usual value is known
    settings: dict[str, Any] = {"confidence": params.confidence, "look": look, "note": note}
    return [
        alternative(name, usual, values[there], blocks=trials.whole.days[there], limit=margin, **settings)
    ]


def look_number(params: ProjectParams, bundle: Bundle) -> int:
    """How many windows of this length the version has served by now, this one included: 1, 2, ...

    Each look spends its own part of the allowed error, so that all looks together keep it.
    """
    length = params.window.end - params.window.start
    return 1 + max(0, int((params.window.start - bundle.holdout.end) / length))


def health_evidence(
    store: Store, params: RollbackParams, trials: Counterfactuals, *, version: int
) -> list[Evidence]:
    """Rung 2: could the champion answer, as fast as promised, and could its predecessor on the same requests?"""
    found, limits = [], params.slo
    if trials.whole is not None and "error_share" in limits:
        n, limit = len(trials.whole.rows), limits["error_share"]
        for name in ("champion", "predecessor"):
            if name in trials.whole.errors:
                failed = round(trials.whole.errors[name] * n)
                note = f"share of rows that the {name} could not answer"
                least = params.min_rows
                found.append(
                    share_at_most(
                        f"health.{name}", failed, n=n, limit=limit, min_rows=least, rung=2, note=note
                    )
                )
    table = store.metrics(notebook="score", version=version, window=params.window)
    kept = table.drop_duplicates("name", keep="last").set_index("name")
    for name in kept.index.intersection([name for name in limits if name != "error_share"]):
        value, n = float(kept.loc[name, "value"]), int(kept.loc[name, "n"])
        note = f"{name} as recorded when this window was scored"
        found.append(at_most(f"health.{name}", value, limit=limits[name], n=n, rung=2, note=note))
    return found


def gain_table(evidence: Sequence[Evidence]) -> pd.DataFrame:
    """What each alternative would have gained, and had to: value, low, high, limit."""
    names = ("predecessor", "challenger", "baseline")
    known = {f"performance.{name}": name for name in names}
    rows = {
        known[item.name]: (item.value, item.low, item.high, item.limit)
        for item in evidence
        if item.name in known
    }
    return pd.DataFrame.from_dict(
        rows, orient="index", columns=["value", "low", "high", "limit"], dtype=float
    )


def _latency_evidence(
    candidates: Mapping[str, Bundle], rows: pd.DataFrame, *, limit_ms: float
) -> list[Evidence]:
    """The median time of each candidate over the same single rows, asked in turn, so that both see the same machine.

    Named ``health.<candidate>_latency``; ``inconclusive`` for one that does not answer.

    Args:
        candidates: by name.
        rows: requests to choose from; those that are asked are spread over them.
        limit_ms: milliseconds.
    """
    asked = rows.iloc[np.linspace(0, len(rows) - 1, min(len(rows), _REQUESTS + _WARMING)).astype(int)]
    took: dict[str, list[float]] = {name: [] for name in candidates}
    for place in range(len(asked)):
        for name, bundle in candidates.items():
            took[name].append(_milliseconds(bundle, asked.iloc[[place]]))
    found = []
    for name, each in took.items():
        median = float(np.median(each[_WARMING:] or each))
        note = f"median milliseconds of the {name} for single rows, each put to all in turn"
        value = median if np.isfinite(median) else None
        found.append(
            at_most(f"health.{name}_latency", value, limit=limit_ms, n=len(asked), rung=2, note=note)
        )
    return found


def _milliseconds(bundle: Bundle, row: pd.DataFrame) -> float:
    """Time to answer; infinite if it does not."""
    began = time.perf_counter()
    try:
        bundle.predict(row)
    except Exception:  # no answer is not a quick one
        return float("inf")
    return (time.perf_counter() - began) * 1000
