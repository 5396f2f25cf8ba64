"""The vital signs as figures: one panel a sign, each with its limit."""

from __future__ import annotations

from prodkit.canvas import Chart
from prodkit.charts import draw_panels
from prodkit.monitoring.vitals import Vitals
from prodkit.monitoring.wider import KINDS
from prodkit.params import MonitorParams

__all__ = ["draw_answers", "draw_quality", "sign_limits"]


def sign_limits(params: MonitorParams, vitals: Vitals) -> dict[str, float]:
    """By name of the sign, what it is held against."""
    limits = {
        **params.slo,
        **{f"drift_{kind}": 1.0 for kind in KINDS},
        **{f"served_{name}": limit for name, limit in params.slo.items()},
        "calibration_error": params.calibration_limit,
        vitals.loss: vitals.loss_limit(params.loss_margin),
    }
    if vitals.lead != vitals.loss:
        limits[vitals.lead] = vitals.score_limit(params.score_margin)
    limits |= {f"served_{name}": limits[name] for name in (vitals.loss, vitals.lead) if name in limits}
    if params.value_min is not None:
        limits["value"] = params.value_min
    return limits


def draw_quality(params: MonitorParams, vitals: Vitals) -> Chart:
    """Is it right? The score that is looked at first, the loss that decides, calibration, business value."""
    names = dict.fromkeys([vitals.lead, vitals.loss, "calibration_error"])
    if params.value:
        names["value"] = None
    names |= {
        f"served_{name}": None for name in (vitals.lead, vitals.loss) if f"served_{name}" in vitals.signs
    }
    limits = sign_limits(params, vitals)
    return draw_panels({name: vitals.sign(name) for name in names}, limits=limits, title="Is it right?")


def draw_answers(params: MonitorParams, vitals: Vitals) -> Chart:
    """Does it answer, and is it asked what it knows? Errors, fallbacks, unsound input, drifted columns, requests."""
    names = {
        "rows that failed, share": "error_share",
        "answered by a fallback, share": "degraded_share",
        "unsound parts of the input": "breaks",
        "columns that have drifted": "drifted",
        "requests to the service": "served_requests",
    }
    if "served_requests" in vitals.signs:
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
    tables = {shown: vitals.sign(name).assign(estimated=False) for shown, name in names.items()}
    return draw_panels(tables, limits=limits, title="Does it answer, and is its input sound?")
