"""What a champion has endured: tables for readers, and evidence held against the service limits."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from prodkit.decisions.gates import at_most
from prodkit.evidence import Evidence, Outcome
from prodkit.params import StressParams
from prodkit.stress.course import ServiceTrial, knee_limits
from prodkit.stress.faults import Fault
from prodkit.stress.load import Step, knee, quantile
from prodkit.stress.volumes import cost_curve, foreseen

__all__ = ["fault_table", "load_evidence", "load_table", "stress_evidence", "stress_outputs"]

_PERCENT = re.compile(r"latency_p(\d\d)_ms")


def load_table(steps: Mapping[str, Sequence[Step]]) -> pd.DataFrame:
    """Each step in a line: percentiles from the due time in milliseconds with their intervals of 95%, lag, shares."""
    lines = []
    for who, each in steps.items():
        for step in each:
            line = {
                "asked": who,
                "rate": step.rate,
                "reached": step.reached_rate,
                "valid": step.valid,
                "requests": len(step.due),
            }
            for percent in (50, 90, 99, 99.9):
                found = quantile(step.latency_ms, percent / 100)
                name = f"p{percent:g}"
                line |= {name: found.value, f"{name}_low": found.low, f"{name}_high": found.high}
            line["lag_p99"] = quantile(step.lag_ms, 0.99).value
            lines.append(line | {"failed": step.share("failed"), "degraded": step.share("degraded")})
    columns = ["asked", "rate", "reached", "valid", "requests"]
    columns += [f"{name}{end}" for name in ("p50", "p90", "p99", "p99.9") for end in ("", "_low", "_high")]
    columns += ["lag_p99", "failed", "degraded"]
    return pd.DataFrame(lines, columns=columns).set_index("asked")


def fault_table(faults: Sequence[Fault]) -> pd.DataFrame:
    """Each fault in a line: expected, happened, outcome."""
    rows = {each.name: (each.expected, each.happened, each.outcome) for each in faults}
    return pd.DataFrame.from_dict(
        rows, orient="index", columns=["expected", "happened", "outcome"]
    ).rename_axis("fault")


def stress_evidence(
    params: StressParams,
    guards: Mapping[str, Sequence[Step]],
    service: ServiceTrial,
    *,
    faults: Sequence[Fault],
    mixes: pd.DataFrame,
    volumes: pd.DataFrame,
) -> list[Evidence]:
    """Everything held against the limits: what was not measured is inconclusive, what could not be tried an error."""
    found = []
    for who in ("champion", "challenger"):
        if who in guards:
            found += load_evidence(params, who, guards[who])
    if service.problem:
        found.append(Evidence("service", service.outcome, note=service.problem))
    if service.steps or not service.problem:
        found += load_evidence(params, "service", service.steps)
    if not params.url and not service.problem:
        limit, note = params.memory_limit_mb, "most memory of the service, megabytes"
        found.append(at_most("memory.service", service.peak_mb, limit=limit, rung=2, note=note))
    found += _volume_evidence(params, volumes)
    found += _mix_evidence(params, mixes)
    for fault in [*faults, *service.faults]:
        found.append(Evidence(f"fault.{fault.name}", fault.outcome, rung=2, note=fault.happened))
    return found


def load_evidence(params: StressParams, who: str, steps: Sequence[Step]) -> list[Evidence]:
    """The limits, held against the step at the promised rate."""
    step = next((step for step in steps if step.rate == params.promised_rate), None)
    found = []
    for name, limit in params.slo.items():
        if step is None:
            found.append(
                Evidence(f"load.{who}.{name}", "inconclusive", limit=limit, note="it was not loaded")
            )
        elif share := _PERCENT.fullmatch(name):
            found.append(_latency(who, step, int(share[1]), limit=limit))
        elif name in ("error_share", "degraded_share"):
            value = step.share("failed" if name == "error_share" else "degraded")
            what = "not answered" if name == "error_share" else "answered by anybody but the model asked"
            note = f"share {what}, {_at(who, step)}"
            each = at_most(f"load.{who}.{name}", value, limit=limit, n=len(step.due), rung=2, note=note)
            found.append(each if step.valid or each.outcome == "fail" else _unreached(each, step))
        else:
            note = "this notebook does not measure it"
            found.append(Evidence(f"load.{who}.{name}", "inconclusive", limit=limit, note=note))
    return found


def _latency(who: str, step: Step, percent: int, *, limit: float) -> Evidence:
    """``pass`` if the whole interval keeps the limit, ``fail`` if none of it does."""
    estimate = quantile(step.latency_ms, percent / 100)
    outcome: Outcome = "inconclusive"
    if estimate.low > limit:
        outcome = "fail"  # though the rate may not have been reached: at the promised one it is no faster
    elif estimate.high <= limit and step.valid:
        outcome = "pass"
    note = f"milliseconds in which {percent}% were answered, {_at(who, step)}"
    name = f"load.{who}.latency_p{percent}_ms"
    found = Evidence.of(name, outcome, estimate, limit=limit, rung=2, note=note)
    return found if step.valid or outcome == "fail" else _unreached(found, step)


def _at(who: str, step: Step) -> str:
    return f"{who}, {step.rate:g} requests a second"


def _unreached(evidence: Evidence, step: Step) -> Evidence:
    note = f"the rate of {step.rate:g} a second was not reached, only {step.reached_rate:.0f}: measured is another"
    return Evidence(evidence.name, "inconclusive", limit=evidence.limit, n=evidence.n, rung=2, note=note)


def _volume_evidence(params: StressParams, volumes: pd.DataFrame) -> list[Evidence]:
    n, largest = int(volumes.index.max()), volumes.loc[volumes.index.max()]
    share = 1 - float((volumes["answered"] / volumes.index.to_numpy()).min())
    memory = None if pd.isna(largest["peak_mb"]) else float(largest["peak_mb"])
    note = "most memory of this process, which holds the rows, megabytes"
    limit = params.slo.get("degraded_share", 0.0)
    return [
        at_most("volume.degraded_share", share, limit=limit, n=n, rung=2, note="of the worst volume"),
        at_most("memory.volume", memory, limit=params.memory_limit_mb, n=n, rung=2, note=note),
    ]


def _mix_evidence(params: StressParams, mixes: pd.DataFrame) -> list[Evidence]:
    found = []
    for name, rows, answered, by_champion in mixes.itertuples():
        note = f"{answered} of {rows} rows answered, {by_champion} by the champion"
        if answered < rows:
            found.append(Evidence(f"mix.{name}", "fail", n=rows, rung=2, note=note))
            continue
        limit = params.slo.get("degraded_share", 0.0)
        found.append(at_most(f"mix.{name}", 1 - by_champion / rows, limit=limit, n=rows, rung=2, note=note))
    return found


def stress_outputs(
    params: StressParams, guards: Mapping[str, Sequence[Step]], service: ServiceTrial, volumes: pd.DataFrame
) -> dict[str, Any]:
    """What was measured, for the record: each step, the knees, the cost curve; no number where there is none."""
    steps = {**guards, "service": service.steps}
    table = load_table(steps).reset_index()
    lines = [{name: _plain(value) for name, value in line.items()} for line in table.to_dict("records")]
    return {
        "knee": {who: knee(each, **knee_limits(params)) for who, each in steps.items()},
        "steps": lines,
        "cost": {name: _plain(value) for name, value in cost_curve(volumes).items()},
        "volumes": [
            {str(name): _plain(value) for name, value in line.items()}
            for line in volumes.assign(foreseen_seconds=foreseen(volumes)).reset_index().to_dict("records")
        ],
    }


def _plain(value: Any) -> Any:
    if isinstance(value, str | bool):
        return value
    return float(value) if np.isfinite(value) else None
