"""A champion put to the test: rising load on the guard and on a service, and faults done to both."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pandas as pd

from prodkit.errors import ParameterError, ProdkitError
from prodkit.evidence import Outcome
from prodkit.params import StressParams
from prodkit.scoring.guard import Answer, Guard, LoadedModel, Route
from prodkit.scoring.mutations import records
from prodkit.settings import expand
from prodkit.store.registry import Store
from prodkit.store.workspace import champion_of, load_version
from prodkit.stress.faults import Fault, guard_faults, service_faults, tame_faults
from prodkit.stress.load import Said, Step, apply_load, arrivals, knee
from prodkit.stress.stage import Stage, peak_mb
from prodkit.stress.target import Target

__all__ = ["ServiceTrial", "contenders", "knee_limits", "load_guards", "stress_guard", "stress_service"]

_REQUESTS = 1000  # different ones, asked in turn
_TRIES = 2  # of a step that did not reach its rate, and so has measured nothing
_WARM_UPS = 20


@dataclass
class ServiceTrial:
    """What became of a service: at each rate, and with each fault.

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
    found = {"champion": LoadedModel(number, bundle)}
    predecessor, newest = store.champion().predecessor, store.versions()[-1].number
    if predecessor is not None:
        found["predecessor"] = LoadedModel(predecessor, load_version(store, predecessor))
    challenger = params.challenger or newest
    if challenger not in (number, predecessor) and (params.challenger or challenger > number):
        found["challenger"] = LoadedModel(challenger, load_version(store, challenger))
    return found


def load_guards(
    params: StressParams, models: Mapping[str, LoadedModel], rows: pd.DataFrame
) -> dict[str, list[Step]]:
    """One row a request to the guard in this process, at rising rates: all contenders in turn at each rate."""
    found: dict[str, list[Step]] = {name: [] for name in models}
    asks = {name: _asking(params, loaded, rows) for name, loaded in models.items()}
    for ask in asks.values():
        for number in range(_WARM_UPS):
            ask(number)
    for rate in _rates(params):
        for name, ask in asks.items():
            if _goes_on(params, found[name]):
                found[name].append(_step(params, ask, rate))
    return found


def _asking(params: StressParams, loaded: LoadedModel, rows: pd.DataFrame) -> Callable[[int], Said]:
    guard = Guard(Route(loaded), deadline_seconds=params.deadline_ms / 1000)
    asked = _requests(params, loaded, rows)

    def ask(number: int) -> Said:
        answer: Answer = guard.answer_row(asked[number % len(asked)])
        if not np.isfinite(answer.predicted).all():
            return "failed"
        return "degraded" if answer.degraded else "answered"

    return ask


def _requests(params: StressParams, loaded: LoadedModel, rows: pd.DataFrame) -> list[dict[str, Any]]:
    """Rows as they are sent, drawn from the window."""
    drawn = rows.sample(min(len(rows), _REQUESTS), random_state=params.seed)
    return records(drawn, schema=loaded.bundle.schema)


def _rates(params: StressParams) -> list[float]:
    return sorted({*params.rates, params.promised_rate})


def knee_limits(params: StressParams) -> dict[str, float]:
    """What a step must keep to lie before the knee."""
    latency, error = params.slo.get("latency_p99_ms", float("inf")), params.slo.get("error_share", 0.0)
    return {"latency_ms": latency, "error_share": error}


def _goes_on(params: StressParams, steps: Sequence[Step]) -> bool:
    """Whether a higher rate is tried: up to the promised one in any case, beyond it up to the knee."""
    if not steps or steps[-1].rate < params.promised_rate:
        return True
    return knee(steps, **knee_limits(params)) == steps[-1].rate


def _step(params: StressParams, ask: Callable[[int], Said], rate: float) -> Step:
    due = arrivals(rate, seconds=params.step_seconds, kind=params.arrivals, seed=params.seed)
    if not len(due):
        fix = "Raise one of them."
        raise ParameterError(
            "rates times step_seconds", rule="must come to a request", value=f"{rate:g}", fix=fix
        )
    for _ in range(_TRIES):
        step = apply_load(ask, due, rate=rate, most_waiting=params.most_waiting)
        if step.valid:
            break
    return step


def stress_service(
    store: Store, params: StressParams, loaded: LoadedModel, rows: pd.DataFrame
) -> ServiceTrial:
    """Load a service and break it: that of ``url``, or one of its own over a copy of champion and predecessor.

    A service elsewhere is loaded, and met with clients that misbehave; it is neither killed nor is its store touched.

    Raises:
        ParameterError: ``url`` leads to another machine, without ``remote``.
    """
    bodies = [json.dumps({"records": [row]}, default=str).encode() for row in _requests(params, loaded, rows)]
    trial = ServiceTrial()
    if params.url:
        target = Target(params.url, token=expand(params.token), remote=params.remote)
        _try(trial, params, target, bodies)
        target.close()
        return trial
    if package := Stage.missing():
        trial.problem, trial.outcome = f"not tried: needs the extra [serve] ({package})", "inconclusive"
        return trial
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
    def ask(number: int) -> Said:
        return target.ask(bodies[number % len(bodies)])

    try:
        for number in range(_WARM_UPS):
            ask(number)
    except Exception as error:  # nobody there
        trial.problem = f"{type(error).__name__}: {error}"[:300]
        return
    for rate in _rates(params):
        if _goes_on(params, trial.steps):
            trial.steps.append(_step(params, ask, rate))
    trial.faults += tame_faults(target, bodies)


def stress_guard(params: StressParams, models: Mapping[str, LoadedModel], rows: pd.DataFrame) -> list[Fault]:
    """Each fault done to the guard around the champion; see :func:`prodkit.stress.faults.guard_faults`."""
    champion = models["champion"]
    asked = _requests(params, champion, rows)
    several = (asked * 20)[: max(20, len(asked))]
    return guard_faults(
        champion, models.get("predecessor"), several, deadline_seconds=params.deadline_ms / 1000
    )
