"""A champion put to the test: rising load, volumes, unusual requests and faults, as tables and as evidence."""

from __future__ import annotations

import http.client
import json
import re
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import pandas as pd

from prodkit.decisions.gates import at_most
from prodkit.decisions.refit import Successor
from prodkit.errors import ParameterError, ProdkitError
from prodkit.evidence import Evidence, Outcome
from prodkit.params import ProjectParams, StressParams, ValidateParams
from prodkit.scoring.guard import Guard, LoadedModel, Route
from prodkit.scoring.mutations import mutated, records
from prodkit.settings import expand
from prodkit.store.registry import Store
from prodkit.store.workspace import champion_of, load_version
from prodkit.stress.faults import Fault, guard_faults, service_faults, tame_faults
from prodkit.stress.load import Result, Step, Target, apply_load, arrivals, knee, quantile
from prodkit.stress.stage import Stage, peak_mb

__all__ = [
    "ServiceTrial",
    "contenders",
    "cost_curve",
    "fault_table",
    "foreseen",
    "knee_limits",
    "load_budget",
    "load_guards",
    "load_table",
    "mix_table",
    "stress_evidence",
    "stress_guard",
    "stress_outputs",
    "stress_service",
    "volume_table",
]

_REQUESTS = 1000  # different ones, asked in turn
_TRIES = 2  # of a step that did not reach its rate, and so has measured nothing
_WARM_UPS = 20
_REPEATS, _ENOUGH_SECONDS = 5, 0.5  # of a volume, until it has taken so long

_Ask = Callable[[int], Result]


@dataclass
class ServiceTrial:
    """What happened to a service: at each rate, and with each fault.

    Attributes:
        steps: at rising rates.
        faults: that were done to it.
        peak_mb: its memory at most; None if it is not known, as of a service elsewhere.
        problem: why it could not be tried; empty if it could.
        outcome: of that problem.
    """

    steps: list[Step] = field(default_factory=list)
    faults: list[Fault] = field(default_factory=list)
    peak_mb: float | None = None
    problem: str = ""
    outcome: Outcome = "error"


def contenders(store: Store, params: StressParams) -> dict[str, LoadedModel]:
    """Who is loaded side by side: the champion, its predecessor and a challenger, as far as they exist.

    Raises:
        VersionError: there is no champion, or no such challenger.
    """
    number, bundle = champion_of(store)
    models = {"champion": LoadedModel(number, bundle)}
    predecessor, newest = store.champion().predecessor, store.versions()[-1].number
    if predecessor is not None:
        models["predecessor"] = LoadedModel(predecessor, load_version(store, predecessor))
    challenger = params.challenger or newest
    if challenger not in (number, predecessor) and (params.challenger or challenger > number):
        models["challenger"] = LoadedModel(challenger, load_version(store, challenger))
    return models


def load_guards(
    params: StressParams, models: Mapping[str, LoadedModel], rows: pd.DataFrame
) -> dict[str, list[Step]]:
    """One row a request to the guard in this process, at rising rates: all contenders in turn at each rate."""
    return _rising(params, {name: _asking(params, each, rows) for name, each in models.items()})


def _asking(params: StressParams, loaded: LoadedModel, rows: pd.DataFrame) -> _Ask:
    guard = Guard(Route(loaded), deadline_seconds=params.deadline_ms / 1000)
    requests = _requests(params, loaded, rows)

    def ask(number: int) -> Result:
        answer = guard.answer_row(requests[number % len(requests)])
        if not np.isfinite(answer.predicted).all():
            return "failed"
        return "degraded" if answer.degraded else "answered"

    return ask


def _requests(params: StressParams, loaded: LoadedModel, rows: pd.DataFrame) -> list[dict[str, Any]]:
    """Rows as they are sent, drawn from the window."""
    drawn = rows.sample(min(len(rows), _REQUESTS), random_state=params.seed)
    return records(drawn, schema=loaded.bundle.schema)


def _rising(params: StressParams, asks: Mapping[str, _Ask]) -> dict[str, list[Step]]:
    """Load each in turn: up to the promised rate in any case, beyond it up to the knee."""
    steps: dict[str, list[Step]] = {name: [] for name in asks}
    for ask in asks.values():
        for number in range(_WARM_UPS):
            ask(number)
    for rate in sorted({*params.rates, params.promised_rate}):
        for name, ask in asks.items():
            done = steps[name]
            below = not done or done[-1].rate < params.promised_rate
            if below or knee(done, **knee_limits(params)) == done[-1].rate:
                done.append(_step(params, ask, rate))
    return steps


def _step(params: StressParams, ask: _Ask, rate: float) -> Step:
    due = arrivals(rate, seconds=params.step_seconds, kind=params.arrivals, seed=params.seed)
    if not len(due):
        rule, fix = "must come to a request", "Raise one of them."
        raise ParameterError("rates times step_seconds", rule=rule, value=f"{rate:g}", fix=fix)
    for _ in range(_TRIES):
        step = apply_load(ask, due, rate=rate, most_waiting=params.most_waiting)
        if step.valid:
            break
    return step


def knee_limits(params: StressParams) -> dict[str, float]:
    """The limits of a step that lies before the knee."""
    latency, error = params.slo.get("latency_p99_ms", float("inf")), params.slo.get("error_share", 0.0)
    return {"latency_ms": latency, "error_share": error}


def load_table(steps: Mapping[str, Sequence[Step]]) -> pd.DataFrame:
    """Each step in a line: percentiles from the due time in milliseconds with their intervals of 95%, lag, shares."""
    lines = []
    for step in (step for each in steps.values() for step in each):
        line = {
            "rate": step.rate,
            "reached": step.reached_rate,
            "valid": step.valid,
            "requests": len(step.due),
        }
        for percent in (50, 90, 99, 99.9):
            estimate, name = quantile(step.latency_ms, percent / 100), f"p{percent:g}"
            line |= {name: estimate.value, f"{name}_low": estimate.low, f"{name}_high": estimate.high}
        line["lag_p99"] = quantile(step.lag_ms, 0.99).value
        lines.append(line | {"failed": step.share("failed"), "degraded": step.share("degraded")})
    columns = ["rate", "reached", "valid", "requests"]
    columns += [f"{name}{end}" for name in ("p50", "p90", "p99", "p99.9") for end in ("", "_low", "_high")]
    asked = pd.Index([who for who, each in steps.items() for _ in each], name="asked", dtype=object)
    return pd.DataFrame(lines, columns=[*columns, "lag_p99", "failed", "degraded"], index=asked)


def stress_service(
    store: Store, params: StressParams, loaded: LoadedModel, rows: pd.DataFrame
) -> ServiceTrial:
    """Load a service and break it: that of ``url``, or one of its own over a copy of champion and predecessor.

    A service elsewhere is loaded, and met with clients that misbehave; it is neither killed nor is its store touched.

    Raises:
        ParameterError: ``url`` leads to another machine, without ``remote``.
    """
    requests = _requests(params, loaded, rows)
    bodies = [json.dumps({"records": [row]}, default=str).encode() for row in requests]
    trial = ServiceTrial()
    if params.url:
        target = Target(params.url, token=expand(params.token), remote=params.remote)
        _try(trial, params, target, bodies)
        target.close()
    elif package := Stage.missing():
        trial.problem, trial.outcome = f"not tried: needs the extra [serve] ({package})", "inconclusive"
    else:
        try:
            with Stage(store) as stage:
                target = stage.start(deadline_ms=params.deadline_ms)
                _try(trial, params, target, bodies)
                trial.peak_mb = peak_mb(stage.pid)
                trial.faults += service_faults(stage, target, bodies)
                target.close()
        except (ProdkitError, OSError) as error:
            trial.problem = f"{type(error).__name__}: {error}"[:300]
    return trial


def _try(trial: ServiceTrial, params: StressParams, target: Target, bodies: list[bytes]) -> None:
    try:
        trial.steps = _rising(params, {"service": lambda n: target.ask(bodies[n % len(bodies)])})["service"]
    except (OSError, http.client.HTTPException) as error:  # nobody there
        trial.problem = f"{type(error).__name__}: {error}"[:300]
    else:
        trial.faults += tame_faults(target, bodies)


def stress_guard(params: StressParams, models: Mapping[str, LoadedModel], rows: pd.DataFrame) -> list[Fault]:
    """Each fault done to the guard around the champion; see :func:`prodkit.stress.faults.guard_faults`."""
    champion, predecessor = models["champion"], models.get("predecessor")
    requests = _requests(params, champion, rows) * 20  # enough, however few there are
    return guard_faults(champion, predecessor, requests, deadline_seconds=params.deadline_ms / 1000)


def fault_table(faults: Sequence[Fault]) -> pd.DataFrame:
    """Each fault in a line: expected, happened, outcome."""
    rows = {each.name: (each.expected, each.happened, each.outcome) for each in faults}
    columns = ["expected", "happened", "outcome"]
    return pd.DataFrame.from_dict(rows, orient="index", columns=columns).rename_axis("fault")


def volume_table(params: StressParams, loaded: LoadedModel, rows: pd.DataFrame) -> pd.DataFrame:
    """Time and memory of answering n rows at once: columns seconds, thousand_rows_ms, peak_mb, answered.

    The time is the shortest of some: what else a machine does can only add to it.
    """
    guard, lines = Guard(Route(loaded)), {}
    for n in (multiple * params.volume_rows for multiple in params.multiples):
        took = list[float]()
        frame = rows.sample(n, replace=True, random_state=params.seed, ignore_index=True)
        while len(took) < _REPEATS and sum(took) < _ENOUGH_SECONDS:
            began = time.perf_counter()
            answers = guard.answer(frame)
            took.append(time.perf_counter() - began)
        finite = np.isfinite(answers.predicted.reshape(n, -1)).all(axis=1)
        lines[n] = (min(took), 1e6 * min(took) / n, peak_mb(), int((finite & ~answers.degraded).sum()))
    columns = ["seconds", "thousand_rows_ms", "peak_mb", "answered"]
    return pd.DataFrame.from_dict(lines, orient="index", columns=columns).rename_axis("rows")


def foreseen(volumes: pd.DataFrame) -> pd.Series[float]:
    """Seconds of each volume by the cost curve that is fitted to all but the largest; NaN without two others.

    >>> table = pd.DataFrame({"seconds": [0.011, 0.02, 0.11]}, index=[1000, 10_000, 100_000])
    >>> foreseen(table).round(3).tolist()
    [0.011, 0.02, 0.11]
    """
    curve, n = cost_curve(volumes.iloc[:-1]), volumes.index.to_numpy(dtype=float)
    seconds = (curve["fixed_ms"] + curve["ms_per_thousand_rows"] * n / 1000) / 1000
    return pd.Series(seconds, index=volumes.index)


def cost_curve(volumes: pd.DataFrame) -> dict[str, float]:
    """What volumes cost: fixed milliseconds, milliseconds for a thousand rows more, and the exponent of growth.

    The line is fitted by least squares of the relative error, since times span decades and their noise grows with
    them; the exponent is the slope of log time on log rows: 1 is linear.

    >>> table = pd.DataFrame({"seconds": [0.011, 0.02, 0.11]}, index=[1000, 10_000, 100_000])
    >>> {name: round(value, 2) for name, value in cost_curve(table).items()}
    {'fixed_ms': 10.0, 'ms_per_thousand_rows': 1.0, 'exponent': 0.5}
    """
    n, seconds = volumes.index.to_numpy(dtype=float), volumes["seconds"].to_numpy(dtype=float)
    slope = fixed = exponent = float("nan")
    if len(n) >= 2:
        slope, fixed = np.polyfit(n, seconds, 1, w=1 / seconds)
        exponent = np.polyfit(np.log(n), np.log(seconds), 1)[0]
    costs = {"fixed_ms": 1000 * fixed, "ms_per_thousand_rows": 1e6 * slope, "exponent": exponent}
    return {name: float(value) for name, value in costs.items()}


def mix_table(params: StressParams, models: Mapping[str, LoadedModel], rows: pd.DataFrame) -> pd.DataFrame:
    """Who answers when requests are not what they usually are: columns rows, answered, by_champion."""
    champion = models["champion"]
    guard, lines = Guard(Route(champion, models.get("predecessor"))), {}
    for name, requests in _mixes(params, champion, rows).items():
        answers = guard.answer(requests)
        finite = np.isfinite(answers.predicted.reshape(len(requests), -1)).all(axis=1)
        lines[name] = (len(requests), int(finite.sum()), int((~answers.degraded).sum()))
    columns = ["rows", "answered", "by_champion"]
    return pd.DataFrame.from_dict(lines, orient="index", columns=columns).rename_axis("mix")


def _mixes(
    params: StressParams, champion: LoadedModel, rows: pd.DataFrame
) -> dict[str, list[dict[str, Any]]]:
    """Usual requests, those of the busiest hour, of the commonest segment alone, and ones that never were."""
    schema, segment = champion.bundle.schema, champion.bundle.fallback.column
    hours = rows[params.time_column].dt.floor("h")
    parts = {"usual": rows, "busiest hour": rows[hours == hours.mode().iloc[0]]}
    if segment in rows and rows[segment].notna().any():
        level = rows[segment].mode().iloc[0]
        parts[f"only {segment} {level}"] = rows[rows[segment] == level]
    mixes = {}
    for name, part in parts.items():
        drawn = part.sample(params.mix_rows, replace=True, random_state=params.seed)
        mixes[name] = records(drawn, schema=schema)
    real = rows.sample(min(len(rows), _REQUESTS), random_state=params.seed)
    unusual = mutated(real, schema=schema, rows=params.mix_rows, seed=params.seed)
    return mixes | {"unusual in half of its cells": unusual}


def stress_evidence(
    params: StressParams,
    guards: Mapping[str, Sequence[Step]],
    service: ServiceTrial,
    *,
    faults: Sequence[Fault],
    mixes: pd.DataFrame,
    volumes: pd.DataFrame,
) -> list[Evidence]:
    """Everything against its limit: what was not measured is inconclusive, what could not be tried an error."""
    loaded = {who: guards[who] for who in ("champion", "challenger") if who in guards}
    evidence = [each for who, steps in loaded.items() for each in _load_evidence(params, who, steps)]
    if service.problem:
        evidence.append(Evidence("service", service.outcome, note=service.problem))
    if service.steps or not service.problem:
        evidence += _load_evidence(params, "service", service.steps)
    if not params.url and not service.problem:
        limit, note = params.memory_limit_mb, "most memory of the service, megabytes"
        evidence.append(at_most("memory.service", service.peak_mb, limit=limit, rung=2, note=note))
    evidence += [*_volume_evidence(params, volumes), *_mix_evidence(params, mixes)]
    for fault in [*faults, *service.faults]:
        evidence.append(Evidence(f"fault.{fault.name}", fault.outcome, rung=2, note=fault.happened))
    return evidence


def _load_evidence(params: StressParams, who: str, steps: Sequence[Step]) -> list[Evidence]:
    """The step at the promised rate against the limits."""
    step = next((step for step in steps if step.rate == params.promised_rate), None)
    evidence = []
    for limit_name, limit in params.slo.items():
        name = f"load.{who}.{limit_name}"
        percentile = re.fullmatch(r"latency_p(\d\d)_ms", limit_name)
        if step is None:
            evidence.append(Evidence(name, "inconclusive", limit=limit, note="it was not loaded"))
            continue
        at = f"{who}, {step.rate:g} requests a second"
        if percentile:
            # what fails though the rate was not reached would be no faster at the promised one
            estimate = quantile(step.latency_ms, int(percentile[1]) / 100)
            outcome: Outcome = "fail" if estimate.low > limit else "inconclusive"
            outcome = "pass" if estimate.high <= limit else outcome
            note = f"milliseconds in which {int(percentile[1])}% were answered, {at}"
            each = Evidence.of(name, outcome, estimate, limit=limit, rung=2, note=note)
        elif limit_name in ("error_share", "degraded_share"):
            failed = limit_name == "error_share"
            what = "not answered" if failed else "answered by anybody but the model asked"
            value, note = step.share("failed" if failed else "degraded"), f"share {what}, {at}"
            each = at_most(name, value, limit=limit, n=len(step.due), rung=2, note=note)
        else:
            note = "this notebook does not measure it"
            evidence.append(Evidence(name, "inconclusive", limit=limit, note=note))
            continue
        if not step.valid and each.outcome != "fail":
            reached = f"only {step.reached_rate:.0f}: measured is another"
            note = f"the rate of {step.rate:g} a second was not reached, {reached}"
            each = Evidence(name, "inconclusive", limit=each.limit, n=each.n, rung=2, note=note)
        evidence.append(each)
    return evidence


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
    evidence, limit = [], params.slo.get("degraded_share", 0.0)
    for name, rows, answered, by_champion in mixes.itertuples():
        note = f"{answered} of {rows} rows answered, {by_champion} by the champion"
        share, facts = 1 - by_champion / rows, {"n": rows, "rung": 2, "note": note}
        judged = at_most(f"mix.{name}", share, limit=limit, **facts)
        evidence.append(judged if answered == rows else Evidence(f"mix.{name}", "fail", **facts))
    return evidence


def stress_outputs(
    params: StressParams, guards: Mapping[str, Sequence[Step]], service: ServiceTrial, volumes: pd.DataFrame
) -> dict[str, Any]:
    """What was measured, for the record: each step, the knees, the cost curve; no number where there is none."""
    steps = {**guards, "service": service.steps}
    costs = volumes.assign(foreseen_seconds=foreseen(volumes))
    return {
        "knee": {who: knee(each, **knee_limits(params)) for who, each in steps.items()},
        "steps": [_plain(line) for line in load_table(steps).reset_index().to_dict("records")],
        "cost": _plain(cost_curve(volumes)),
        "volumes": [_plain(line) for line in costs.reset_index().to_dict("records")],
    }


def _plain(line: Mapping[Any, Any]) -> dict[str, Any]:
    plain = {str(name): value for name, value in line.items()}
    numbers = {name: value for name, value in plain.items() if not isinstance(value, str | bool)}
    return plain | {name: float(value) if np.isfinite(value) else None for name, value in numbers.items()}


def load_budget(store: Store, params: ValidateParams, successor: Successor) -> list[Evidence]:
    """The challenger against the service limits at ``promised_rate``; nothing if that is 0.

    Challenger and champion are loaded in turn by the guard of this process, on the same schedule, with the judged rows
    as requests. Only the challenger's figures decide; the champion's stand in the notes, so that a slow machine can be
    told from a slow model. A rate that was not reached is inconclusive.

    Args:
        store: that holds the champion.
        params: of the notebook.
        successor: what would be served.
    """
    if not params.promised_rate:
        return []
    facts = {name: value for name, value in params.plain().items() if name in ProjectParams.model_fields}
    load = {"promised_rate": params.promised_rate, "rates": [params.promised_rate]}
    stress = StressParams.check({**facts, **load, "step_seconds": params.step_seconds})
    models = {"challenger": LoadedModel(successor.judged, successor.bundle)}
    champion = store.champion().version
    if champion is not None:
        models = {"champion": LoadedModel(champion, load_version(store, champion)), **models}
    steps = load_guards(stress, models, successor.rows)
    evidence = []
    pairs = zip(
        *(_load_evidence(stress, who, steps.get(who, [])) for who in ("champion", "challenger")), strict=True
    )
    for before, each in pairs:
        note = each.note if before.value is None else f"{each.note}; the champion has {before.value:.3g}"
        name = f"budget.{each.name.replace('.challenger.', '.')}"
        evidence.append(replace(each, name=name, note=note))
    return evidence
