"""The vital signs against their limits, from the strongest rung down, and what a look at them comes to."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd

from prodkit.data.sources import naive
from prodkit.decisions.decide import Decision, sentence
from prodkit.decisions.gates import at_most
from prodkit.decisions.sequential import loss_rise
from prodkit.evidence import Estimate, Evidence, Outcome, overall
from prodkit.models.estimate import Estimated, estimate_evidence
from prodkit.monitoring.vitals import Vitals, known_number
from prodkit.params import MonitorParams
from prodkit.store.history import Champion

__all__ = ["standing", "steady", "vital_evidence"]

_UNRECORDED = ("contract.input", "drift.unknown")  # names of what scoring has not recorded
_HEALTH = {
    "error_share": "share of rows that the champion could not answer",
    "degraded_share": "share of rows answered by a fallback",
    "latency_p50_ms": "median latency, milliseconds a row,",
    "latency_p99_ms": "latency of the slowest in a hundred, milliseconds a row,",
}


def vital_evidence(params: MonitorParams, vitals: Vitals) -> list[Evidence]:
    """The newest window against its limits, from the strongest rung down. What is not known is ``inconclusive``."""
    newest, served = vitals.signs.iloc[-1], vitals.served
    asked = {item.name.removeprefix("served.") for item in served}
    health = []
    for name, limit in params.slo.items():
        value = known_number(newest.get(name))
        if value != value and name in asked:
            continue  # nothing was scored, and the service has answered
        known = value == value
        note = f"{_HEALTH.get(name, name)} in the newest window"
        note = note if known else f"{name} of the newest window was not recorded"
        health.append(
            at_most(
                f"health.{name}",
                value if known else None,
                limit=limit,
                n=int(newest["rows"]),
                rung=2,
                note=note,
            )
        )
    recorded = [
        item
        for item in (*vitals.contract, *vitals.drift)
        if item.name not in _UNRECORDED or not any(each.rung == item.rung for each in served)
    ]
    performance = [*_performance(params, vitals), *_served_performance(params, vitals)]
    found = [*recorded, *health, *performance, *_outlook(params, vitals), *served]
    return sorted(found, key=lambda item: item.name != "drill" and item.rung)


def _outlook(params: MonitorParams, vitals: Vitals) -> list[Evidence]:
    """Rung 4: the newest window, if its labels are to come; what is estimated of it, or why nothing is."""
    row, window = vitals.signs.iloc[-1], vitals.windows[-1]
    if row["state"] not in ("estimated", "immature"):
        return []
    scores = {}
    if row["state"] == "estimated":
        value, low, high = _interval(row, vitals.loss)
        scores[vitals.loss] = Estimate(value, low, high, n=int(row["rows"]), blocks=0)
    why = "" if scores else vitals.missing.get(str(window), "not estimated yet")
    found = Estimated(scores, abstained=why, rows=int(row["rows"]))
    margin, told = params.loss_margin, f"the newest window ({vitals.signs.index[-1]})"
    return [
        estimate_evidence(found, task=vitals.task, reference=vitals.reference, margin=margin, window=told)
    ]


def _performance(params: MonitorParams, vitals: Vitals) -> list[Evidence]:
    """Rung 3: the newest mature window, and all days since the promotion."""
    known = vitals.signs[vitals.signs["state"] == "realised"]
    if known.empty:
        why = list(vitals.missing.values())[-1:]
        note = "; ".join(["no window on this page has mature labels that could be judged", *why])
        return [Evidence("performance.labels", "inconclusive", rung=3, note=note)]
    row, window = known.iloc[-1], str(known.index[-1])
    n, found = int(row[f"{vitals.loss}_n"]), []
    if n < params.min_rows:
        note = f"{n} labelled rows in the newest mature window ({window}); needed are {params.min_rows}"
        return [
            Evidence(
                "performance.labels", "inconclusive", value=n, limit=params.min_rows, n=n, rung=3, note=note
            )
        ]
    reference = vitals.reference.get(vitals.loss)
    if reference is None or not np.isfinite([reference.value, reference.high]).all():
        note = "the champion has no measured loss from before it served, so there is nothing to hold this against"
        found.append(Evidence("performance.loss", "inconclusive", n=n, rung=3, note=note))
    else:
        limit, note = (
            vitals.loss_limit(params.loss_margin),
            f"mean loss of the newest mature window ({window})",
        )
        found.append(_held("performance.loss", row, vitals.loss, limit=limit, note=note))
        margin = params.loss_margin * reference.value
        found.append(loss_rise(vitals.days, reference=reference, margin=margin))
    if "calibration_error" in row.index:
        note = f"calibration error of the same window ({window})"
        limit = params.calibration_limit
        found.append(_held("performance.calibration", row, "calibration_error", limit=limit, note=note))
    if vitals.lead != vitals.loss:
        note, least = f"{vitals.lead} of the same window ({window})", vitals.score_limit(params.score_margin)
        found.append(_held("performance.score", row, vitals.lead, limit=least, note=note, least=True))
    if params.value:
        note = f"mean business value of a row of the same window ({window})"
        found.append(_held("performance.value", row, "value", limit=params.value_min, note=note, least=True))
    return found


def _served_performance(params: MonitorParams, vitals: Vitals) -> list[Evidence]:
    """Rung 3, of requests: the newest window whose labels are due and of whose answers enough have one."""
    if not vitals.served:
        return []
    names, signs = (f"served_{vitals.loss}", f"served_{vitals.lead}"), vitals.signs
    until = naive(params.labels_until)
    aged = [(until - naive(each.start)) / (each.end - each.start) for each in vitals.windows]
    due = np.array(aged) >= params.mature_share
    if names[0] in signs:
        enough = signs[due & (signs["served_labelled"] >= params.min_rows) & signs[names[0]].notna()]
        if len(enough):
            row, window = enough.iloc[-1].copy(), enough.index[-1]
            for name in names:
                row[f"{name}_n"] = row["served_labelled"]
            note, limit = f"of what the service answered ({window})", vitals.loss_limit(params.loss_margin)
            known = None if limit != limit else limit
            found = [_held("served.loss", row, names[0], limit=known, note=f"mean loss {note}")]
            if vitals.lead != vitals.loss:
                least = vitals.score_limit(params.score_margin)
                found.append(
                    _held(
                        "served.score", row, names[1], limit=least, note=f"{vitals.lead} {note}", least=True
                    )
                )
            return found
    asked = signs["served_rows"][due].sum() if "served_rows" in signs else 0
    if not asked:
        return []
    n = int(signs["served_labelled"][due].fillna(0).max()) if "served_labelled" in signs else 0
    note = vitals.unjudged or f"at most {n} labelled rows a window; needed are {params.min_rows}"
    note = f"what the service answered is not held against labels: {note}"
    return [Evidence("served.labels", "inconclusive", value=n, limit=params.min_rows, n=n, rung=3, note=note)]


def _held(
    name: str, row: pd.Series[Any], figure: str, *, limit: float | None, note: str, least: bool = False
) -> Evidence:
    """A figure against a limit: the most that it may be, or the ``least``.

    ``fail`` if the whole interval lies beyond it, ``pass`` if the value does not and the interval is bounded. Without a
    limit it is told, and judges nothing.
    """
    value, low, high = _interval(row, figure)
    if value != value:
        return Evidence(name, "inconclusive", limit=limit, rung=3, note=f"{note}: not known")
    outcome: Outcome = "inconclusive"
    if limit is not None and (high < limit if least else low > limit):
        outcome = "fail"
    elif np.isfinite([low, high]).all() and (limit is None or (value >= limit if least else value <= limit)):
        outcome = "pass"
    estimate = Estimate(value, low, high, n=int(row[f"{figure}_n"]), blocks=1)
    return Evidence.of(name, outcome, estimate, limit=limit, rung=3, note=note)


def _interval(row: pd.Series[Any], figure: str) -> tuple[float, float, float]:
    """A figure and the ends of its interval; an end that the store does not know is open."""
    value, low, high = (known_number(row.get(figure + end)) for end in ("", "_low", "_high"))
    return value, low if low == low else -np.inf, high if high == high else np.inf


def standing(evidence: Sequence[Evidence], *, champion: Champion) -> Decision:
    """What a look at the model comes to: ``watch`` if anything failed, else ``keep``.

    Estimates and drift make no outcome.
    """
    outcome = overall(item for item in evidence if item.rung < 4 and item.name != "drill")
    alarms = sorted((item for item in evidence if item.outcome == "fail"), key=lambda item: item.rung)
    unsure = [item for item in evidence if item.outcome in ("error", "inconclusive")]
    reasons = [sentence(item) for item in alarms or unsure] or ["no sign lies beyond its limit"]
    action: Any = "watch" if alarms else "keep"
    return Decision(action, outcome, tuple(reasons), tuple(evidence), None, champion.generation)


def steady(evidence: Sequence[Evidence]) -> list[Evidence]:
    """The same for a table that is compared between runs: a latency within its limit is not given as a number."""
    return [
        Evidence(
            item.name,
            item.outcome,
            limit=item.limit,
            n=item.n,
            rung=item.rung,
            note=f"{item.note}: within its limit",
        )
        if item.name.startswith("health.latency") and item.outcome == "pass"
        else item
        for item in evidence
    ]
