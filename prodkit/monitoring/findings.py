"""Health metrics against their limits: evidence from the strongest rung down, figures, what a look comes to."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd

from prodkit.canvas import Chart
from prodkit.charts import draw_panels
from prodkit.decisions.decide import Decision, sentence
from prodkit.decisions.gates import at_most
from prodkit.decisions.sequential import loss_rise
from prodkit.evidence import Estimate, Evidence, Outcome, overall, utc
from prodkit.models.estimate import Estimated, estimate_evidence
from prodkit.monitoring.health import HealthMetrics, known_number
from prodkit.monitoring.outcomes import KINDS
from prodkit.params import MonitorParams
from prodkit.store.history import Champion

__all__ = ["draw_answers", "draw_quality", "monitor_evidence", "sign_limits", "standing", "steady"]

_UNRECORDED = ("contract.input", "drift.unknown")  # names of what scoring has not recorded
_HEALTH = {
    "error_share": "share of rows that the champion could not answer",
    "degraded_share": "share of rows answered by a fallback",
    "latency_p50_ms": "median latency, milliseconds a row,",
    "latency_p99_ms": "latency of the slowest in a hundred, milliseconds a row,",
}


def monitor_evidence(params: MonitorParams, health: HealthMetrics) -> list[Evidence]:
    """The newest window against its limits, from the strongest rung down. What is not known is ``inconclusive``."""
    newest, served = health.signs.iloc[-1], health.served
    asked = {item.name.removeprefix("served.") for item in served}
    rates = []
    for name, limit in params.slo.items():
        value = known_number(newest.get(name))
        if value != value and name in asked:
            continue  # nothing was scored, and the service has answered
        known = value == value
        note = f"{_HEALTH.get(name, name)} in the newest window"
        note = note if known else f"{name} of the newest window was not recorded"
        rates.append(
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
        for item in (*health.contract, *health.drift)
        if item.name not in _UNRECORDED or not any(each.rung == item.rung for each in served)
    ]
    performance = [*_performance(params, health), *_served_performance(params, health)]
    found = [*recorded, *rates, *performance, *_outlook(params, health), *served]
    return sorted(found, key=lambda item: item.name != "drill" and item.rung)


def _outlook(params: MonitorParams, health: HealthMetrics) -> list[Evidence]:
    """Rung 4: the newest window, if its labels are to come; what is estimated of it, or why nothing is."""
    row, window = health.signs.iloc[-1], health.windows[-1]
    if row["state"] not in ("estimated", "immature"):
        return []
    scores = {}
    if row["state"] == "estimated":
        value, low, high = _interval(row, health.loss)
        scores[health.loss] = Estimate(value, low, high, n=int(row["rows"]), blocks=0)
    why = "" if scores else health.missing.get(str(window), "not estimated yet")
    found = Estimated(scores, abstained=why, rows=int(row["rows"]))
    margin, told = params.loss_margin, f"the newest window ({health.signs.index[-1]})"
    return [
        estimate_evidence(found, task=health.task, reference=health.reference, margin=margin, window=told)
    ]


def _performance(params: MonitorParams, health: HealthMetrics) -> list[Evidence]:
    """Rung 3: the newest mature window, and all days since the promotion."""
    known = health.signs[health.signs["state"] == "realised"]
    if known.empty:
        why = list(health.missing.values())[-1:]
        note = "; ".join(["no window on this page has mature labels that could be judged", *why])
        return [Evidence("performance.labels", "inconclusive", rung=3, note=note)]
    row, window = known.iloc[-1], str(known.index[-1])
    n, found = int(row[f"{health.loss}_n"]), []
    if n < params.min_rows:
        note = f"{n} labelled rows in the newest mature window ({window}); needed are {params.min_rows}"
        return [
            Evidence(
                "performance.labels", "inconclusive", value=n, limit=params.min_rows, n=n, rung=3, note=note
            )
        ]
    reference = health.reference.get(health.loss)
    if reference is None or not np.isfinite([reference.value, reference.high]).all():
        note = "the champion has no measured loss from before it served, so there is nothing to hold this against"
        found.append(Evidence("performance.loss", "inconclusive", n=n, rung=3, note=note))
    else:
        limit, note = (
            health.loss_limit(params.loss_margin),
            f"mean loss of the newest mature window ({window})",
        )
        found.append(_held("performance.loss", row, health.loss, limit=limit, note=note))
        margin = params.loss_margin * reference.value
        found.append(loss_rise(health.days, reference=reference, margin=margin))
    if "calibration_error" in row.index:
        note = f"calibration error of the same window ({window})"
        limit = params.calibration_limit
        found.append(_held("performance.calibration", row, "calibration_error", limit=limit, note=note))
    if health.lead != health.loss:
        note, least = f"{health.lead} of the same window ({window})", health.score_limit(params.score_margin)
        found.append(_held("performance.score", row, health.lead, limit=least, note=note, least=True))
    if params.value:
        note = f"mean business value of a row of the same window ({window})"
        found.append(_held("performance.value", row, "value", limit=params.value_min, note=note, least=True))
    return found


def _served_performance(params: MonitorParams, health: HealthMetrics) -> list[Evidence]:
    """Rung 3, of requests: the newest window whose labels are due and of whose answers enough have one."""
    if not health.served:
        return []
    names, signs = (f"served_{health.loss}", f"served_{health.lead}"), health.signs
    until = utc(params.labels_until)
    aged = [(until - utc(each.start)) / (each.end - each.start) for each in health.windows]
    due = np.array(aged) >= params.mature_share
    if names[0] in signs:
        enough = signs[due & (signs["served_labelled"] >= params.min_rows) & signs[names[0]].notna()]
        if len(enough):
            row, window = enough.iloc[-1].copy(), enough.index[-1]
            for name in names:
                row[f"{name}_n"] = row["served_labelled"]
            note, limit = f"of what the service answered ({window})", health.loss_limit(params.loss_margin)
            known = None if limit != limit else limit
            found = [_held("served.loss", row, names[0], limit=known, note=f"mean loss {note}")]
            if health.lead != health.loss:
                least = health.score_limit(params.score_margin)
                found.append(
                    _held(
                        "served.score", row, names[1], limit=least, note=f"{health.lead} {note}", least=True
                    )
                )
            return found
    asked = signs["served_rows"][due].sum() if "served_rows" in signs else 0
    if not asked:
        return []
    n = int(signs["served_labelled"][due].fillna(0).max()) if "served_labelled" in signs else 0
    note = health.unjudged or f"at most {n} labelled rows a window; needed are {params.min_rows}"
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


# The figures of the page


def sign_limits(params: MonitorParams, health: HealthMetrics) -> dict[str, float]:
    """By name of the sign, what it is held against."""
    limits = {
        **params.slo,
        **{f"drift_{kind}": 1.0 for kind in KINDS},
        **{f"served_{name}": limit for name, limit in params.slo.items()},
        "calibration_error": params.calibration_limit,
        health.loss: health.loss_limit(params.loss_margin),
    }
    if health.lead != health.loss:
        limits[health.lead] = health.score_limit(params.score_margin)
    limits |= {f"served_{name}": limits[name] for name in (health.loss, health.lead) if name in limits}
    if params.value_min is not None:
        limits["value"] = params.value_min
    return limits


def draw_quality(params: MonitorParams, health: HealthMetrics) -> Chart:
    """Is it right? The score that is looked at first, the loss that decides, calibration, business value."""
    names = dict.fromkeys([health.lead, health.loss, "calibration_error"])
    if params.value:
        names["value"] = None
    names |= {
        f"served_{name}": None for name in (health.lead, health.loss) if f"served_{name}" in health.signs
    }
    limits = sign_limits(params, health)
    return draw_panels({name: health.sign(name) for name in names}, limits=limits, title="Is it right?")


def draw_answers(params: MonitorParams, health: HealthMetrics) -> Chart:
    """Does it answer, and is it asked what it knows? Errors, fallbacks, unsound input, drifted columns, requests."""
    names = {
        "rows that failed, share": "error_share",
        "answered by a fallback, share": "degraded_share",
        "unsound parts of the input": "breaks",
        "columns that have drifted": "drifted",
        "requests to the service": "served_requests",
    }
    if "served_requests" in health.signs:
        names |= {
            "slowest request of a hundred, ms": "served_latency_p99_ms",
            "served rows that failed, share": "served_error_share",
            "served by a fallback, share": "served_degraded_share",
            "served columns that have drifted": "served_drifted",
        }
    plain = {shown: name.removeprefix("served_") for shown, name in names.items()}
    limits = {shown: params.slo[name] for shown, name in plain.items() if name in params.slo}
    drifts = {f"drift of {subject}": f"drift_{kind}" for kind, subject in KINDS.items()}
    names, limits = names | drifts, limits | dict.fromkeys(drifts, 1.0)
    tables = {shown: health.sign(name).assign(estimated=False) for shown, name in names.items()}
    return draw_panels(tables, limits=limits, title="Does it answer, and is its input sound?")
