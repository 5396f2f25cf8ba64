"""Faults: each is done to the guard, or to a service over a copy of the store; what was expected, and what happened."""

from __future__ import annotations

import http.client
import json
import time
from collections import Counter
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from prodkit.errors import ProdkitError
from prodkit.evidence import Outcome
from prodkit.scoring.guard import Guard, LoadedModel, Route
from prodkit.stress.load import Result, Target, apply_load, arrivals
from prodkit.stress.stage import Stage

__all__ = ["Fault", "FaultyModel", "guard_faults", "service_faults", "tame_faults"]

_ROWS = 20
_SLACK_SECONDS = 1.0  # beyond the deadline, for a busy machine
_STORE_SECONDS = 10.0  # for the service to see what happened to its store


@dataclass(frozen=True)
class Fault:
    """What was done, what should follow, and what did.

    Attributes:
        name: dotted: ``guard.stall``.
        expected: in words.
        happened: in words, and in figures that repeat.
        outcome: ``pass`` if it is as expected, ``fail`` if not, ``error`` if it could not be done.
    """

    name: str
    expected: str
    happened: str
    outcome: Outcome


def _fault(name: str, expected: str, happen: Callable[[], tuple[str, bool]]) -> Fault:
    try:
        happened, good = happen()
    except (ProdkitError, OSError, http.client.HTTPException, ValueError, KeyError, TypeError) as error:
        return Fault(name, expected, f"{type(error).__name__}: {error}"[:200], "error")
    return Fault(name, expected, happened, "pass" if good else "fail")


def _counted(sources: Counter[str]) -> str:
    return ", ".join(f"{count} by the {source}" for source, count in sorted(sources.items()))


class FaultyModel:
    """A model that stalls, raises or answers NaN, and is the other one in everything else.

    Args:
        model: whose answers are spoiled.
        fault: ``stall``, ``raise`` or ``nan``.
        seconds: of a stall.
    """

    def __init__(self, model: Any, fault: str, *, seconds: float = 0.0) -> None:
        self._model, self._fault, self._seconds = model, fault, seconds
        self.classes_ = getattr(model, "classes_", None)

    def predict(self, columns: Any) -> np.ndarray:
        """Numbers, as the fault has them."""
        return self._answer(self._model.predict, columns)

    def predict_proba(self, columns: Any) -> np.ndarray:
        """Class shares, as the fault has them."""
        return self._answer(self._model.predict_proba, columns)

    def _answer(self, function: Callable[[Any], Any], columns: Any) -> np.ndarray:
        if self._fault == "raise":
            raise ArithmeticError("raised on purpose")
        if self._fault == "stall":
            time.sleep(self._seconds)
        answer = np.asarray(function(columns), dtype=float)
        return np.full_like(answer, np.nan) if self._fault == "nan" else answer


def guard_faults(
    champion: LoadedModel,
    predecessor: LoadedModel | None,
    rows: Sequence[dict[str, Any]],
    *,
    deadline_seconds: float,
) -> list[Fault]:
    """What the guard does with a faulty champion, and with rows that nobody can read.

    Args:
        champion: is asked as it is, and with faults.
        predecessor: stands in; None if there is none, and the simple rule does.
        rows: real ones, twenty at least.
        deadline_seconds: of the guard.
    """
    rows = list(rows)[:_ROWS]

    def guard(fault: str, after: LoadedModel | None) -> Guard:
        if fault:
            model = FaultyModel(champion.bundle.model, fault, seconds=2 * deadline_seconds)
            faulty = LoadedModel(champion.version, replace(champion.bundle, model=model), quick=False)
            return Guard(Route(faulty, after), deadline_seconds=deadline_seconds)
        return Guard(Route(champion, after), deadline_seconds=deadline_seconds)

    faults = []
    words = {"stall": "the model stalls", "raise": "the model raises", "nan": "the model answers NaN"}
    for fault, happens in words.items():
        # where the predecessor has no compiled path, a stall leaves it no time
        able = predecessor is not None and (fault != "stall" or predecessor.path is not None)
        stand_in = "predecessor" if able else "rule"
        expected = f"{happens}: each row is answered in time, by the {stand_in}, with a reason"
        most = deadline_seconds + _SLACK_SECONDS
        wanted = {stand_in: len(rows)}
        faults.append(_asked(f"guard.{fault}", expected, guard(fault, predecessor), rows, wanted, most))
    expected = "the model raises and there is no predecessor: the rule answers"
    faults.append(_asked("guard.alone", expected, guard("raise", None), rows, {"rule": len(rows)}))
    first = champion.bundle.schema.names[0]
    garbage: list[Any] = [None, 7, "a row", [], [1, 2], {}, {first: {"a": []}}]
    unreadable = {
        "missing columns": [{name: cell for name, cell in row.items() if name != first} for row in rows],
        "garbage rows": [garbage[place % len(garbage)] for place in range(len(rows))],
    }
    for name, bad in unreadable.items():
        expected = f"{name}, beside as many good rows: those by the rule, these by the champion"
        mixed = [row for pair in zip(rows, bad, strict=True) for row in pair]
        wanted = {"champion": len(rows), "rule": len(bad)}
        fault = f"guard.{name.replace(' ', '_')}"
        faults.append(_asked(fault, expected, guard("", predecessor), mixed, wanted))
    return faults


def _asked(
    name: str,
    expected: str,
    guard: Guard,
    rows: list[Any],
    wanted: dict[str, int],
    most_seconds: float = np.inf,
) -> Fault:
    """Ask the guard, and compare who answered with who should."""

    def happen() -> tuple[str, bool]:
        began = time.monotonic()
        answers = guard.answer(rows)
        late = time.monotonic() - began > most_seconds
        sources = Counter(map(str, answers.source))
        finite = int(np.isfinite(answers.predicted.reshape(len(rows), -1)).all(axis=1).sum())
        reasons = bool((answers.reason[answers.degraded] != "").all())
        text = f"{finite} of {len(rows)} rows answered: {_counted(sources)}"
        text += (", too late" if late else "") + ("" if reasons else ", without a reason")
        return text, finite == len(rows) and sources == wanted and reasons and not late

    return _fault(name, expected, happen)


def tame_faults(target: Target, bodies: Sequence[bytes]) -> list[Fault]:
    """How a service handles clients that misbehave; harmless to a service that is in use.

    Args:
        target: the service.
        bodies: good requests of one row each.
    """

    def garbage() -> tuple[str, bool]:
        bad = [b"", b"{", b"\xff\xfe\x00", b"[]", b"null", b'{"records": 7}', b"[" * 10_000]
        bad += [b'{"columns": {"a": [1], "b": []}}', b'{"records": [' + b"1," * 20_000 + b"1]}"]
        refused = sum(400 <= target.post(body)[0] < 500 for body in bad)
        text, good = _served(target, bodies, wanted="answered")
        return f"{refused} of {len(bad)} refused with 4xx; then {text}", refused == len(bad) and good

    def hang_ups() -> tuple[str, bool]:
        head = b"POST /predict HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\ncontent-length: 900\r\n\r\n"
        words = 4 * [head + b'{"records"', head, b"POST /pre", b"\x16\x03\x01\x02\x00", b""]
        for each in words:
            target.break_off(each)
        text, good = _served(target, bodies, wanted="answered")
        return f"{len(words)} hung up; then {text}", good

    refused = "bodies that are no requests: refused with 4xx, the next is answered"
    hung_up = "clients hang up in the middle: the next requests are answered"
    return [_fault("service.garbage", refused, garbage), _fault("service.hang_ups", hung_up, hang_ups)]


def service_faults(stage: Stage, target: Target, bodies: Sequence[bytes]) -> list[Fault]:
    """What a service on a stage does when its store is locked, it is killed, and its champion is damaged.

    Args:
        stage: it runs on; its copy of the store is damaged in the end.
        target: the service.
        bodies: good requests of one row each.
    """

    def lock() -> tuple[str, bool]:
        with stage.locked():
            _wait(lambda: _problem(target, "the store"))
            text, good = _served(target, bodies, wanted="answered")
            noticed = _problem(target, "the store")
        return f"{text}; readiness says so: {'yes' if noticed else 'no'}", good and noticed

    def kill() -> tuple[str, bool]:
        wrong = _killed_under_load(stage, target, bodies)
        text, good = _served(stage.start(), bodies, wanted="answered")
        return f"{wrong} answers were wrong or cut short; started again, {text}", good and not wrong

    def damage() -> tuple[str, bool]:
        number = stage.promote_garbage()
        _wait(lambda: _problem(target, "the champion"))
        return _served(target, bodies, wanted="degraded", never=number)

    killed = "the service is killed under load: no answer is wrong, a new one answers"
    return [
        _fault("service.locked_store", "the store is locked: the model in memory answers", lock),
        _fault("service.killed", killed, kill),
        _fault("service.corrupt_artifact", "a damaged champion: the one before answers, degraded", damage),
    ]


def _killed_under_load(stage: Stage, target: Target, bodies: Sequence[bytes]) -> int:
    """Kill the service while it is loaded; how many answers came that are none."""

    def ask(number: int) -> Result:  # that nobody answers is an error, not a wrong answer
        return "answered" if target.post(bodies[number % len(bodies)])[0] == 200 else "degraded"

    with ThreadPoolExecutor(1) as pool:
        due = arrivals(500, seconds=0.6, kind="even")
        step = pool.submit(apply_load, ask, due, rate=500, most_waiting=4)
        time.sleep(0.2)
        stage.kill()
        wrong = int((step.result().results == "degraded").sum())
    target.close()
    return wrong


def _served(target: Target, bodies: Sequence[bytes], *, wanted: str, never: int = 0) -> tuple[str, bool]:
    """Ask for twenty rows, one after another: who answered, and whether all did as wanted."""
    sources, results = Counter[str](), Counter[str]()
    for number in range(_ROWS):
        status, content = target.post(bodies[number % len(bodies)])
        for answer in json.loads(content)["answers"] if status == 200 else []:
            sources[answer["source"]] += 1
            wrong = answer["model_version"] == never
            results["never" if wrong else "degraded" if answer["degraded"] else "answered"] += 1
    return f"{sum(sources.values())} of {_ROWS} answered: {_counted(sources)}", results == {wanted: _ROWS}


def _problem(target: Target, name: str) -> bool:
    problems = json.loads(target.get("/health/ready")[1])["problems"]
    return any(text.startswith(f"{name}:") for text in problems)


def _wait(condition: Callable[[], bool]) -> None:
    """Wait some time for it; whether it came, the caller sees."""
    deadline = time.monotonic() + _STORE_SECONDS
    while not condition() and time.monotonic() < deadline:
        time.sleep(0.05)
