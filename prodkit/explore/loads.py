"""How long requests wait at a load that was tried, and the knee under another limit."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from functools import partial

import ipywidgets

from prodkit.decisions.result import rounded
from prodkit.explore.explorer import Explorer, View, as_table
from prodkit.figures.load import draw_latency_tail
from prodkit.params import StressParams
from prodkit.stress.course import knee_limits
from prodkit.stress.endurance import load_table
from prodkit.stress.load import Step, knee

__all__ = ["explore_loads"]

_COLUMNS = ["reached", "valid", "p50", "p90", "p99", "p99.9", "lag_p99", "failed", "degraded"]


def explore_loads(params: StressParams, steps: Mapping[str, Sequence[Step]]) -> Explorer:
    """Pick a load that was tried, and a limit; see how long the slowest waited, and each one's knee under the limit.

    Args:
        params: whose limits are there at first.
        steps: by who was loaded, at rising rates.
    """
    rates = sorted({step.rate for each in steps.values() for step in each})
    limits = knee_limits(params)
    start = min(max(limits["latency_ms"], 1.0), 10_000.0)
    controls = {
        "rate": ipywidgets.SelectionSlider(
            options=[(f"{rate:g}", rate) for rate in rates or [params.promised_rate]],
            value=params.promised_rate if params.promised_rate in rates or not rates else rates[0],
            description="requests/s",
        ),
        "limit": ipywidgets.FloatLogSlider(
            value=start, min=0, max=4, step=0.05, description="limit, ms", readout_format=".3g"
        ),
    }
    return Explorer(controls, partial(_load, {who: list(each) for who, each in steps.items()}, limits))


def _load(
    steps: Mapping[str, Sequence[Step]], limits: Mapping[str, float], rate: float, limit: float
) -> View:
    here = {who: [step for step in each if step.rate == rate] for who, each in steps.items()}
    latencies = {who: each[0].latency_ms for who, each in here.items() if each}
    chart = draw_latency_tail(latencies, rate=rate, limit=limit)
    table = rounded(load_table(here)[_COLUMNS])
    held = {**limits, "latency_ms": limit}
    knees = {who: knee(each, **held) or math.nan for who, each in steps.items()}
    table["knee"] = ["none" if math.isnan(knees[who]) else f"{knees[who]:g}" for who in table.index]
    return chart, as_table(
        table, caption=f"milliseconds at {rate:g} requests a second; knee at {limit:.3g} ms"
    )
