"""Things that go wrong: each is done to the guard or to a service on stage; what was expected, and what happened."""

from __future__ import annotations

import http.client
import json
import threading
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from prodkit.errors import ProdkitError
from prodkit.evidence import Outcome
from prodkit.scoring.guard import Answers, Guard, LoadedModel, Route
from prodkit.stress.stage import Stage
from prodkit.stress.target import Target

__all__ = ["Fault", "FaultyModel", "guard_faults", "service_faults", "tame_faults"]

_ROWS = 20
_SLACK_SECONDS = 1.0  # beyond the deadline, for a busy machine
_STORE_SECONDS = 10.0  # for the service to see what happened to its store


@dataclass(frozen=True)
class Fault:
    """What was done, what should come of it, and what did.

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


class FaultyModel:
    """A model that stalls, raises or raves, and is the other one in everything else.

    Args:
        model: whose answers are spoiled.
        mood: ``stall``, ``raise`` or ``nan``.
        seconds: of a stall.
    """

    def __init__(self, model: Any, mood: str, *, seconds: float = 0.0) -> None:
        self._model, self._mood, self._seconds = model, mood, seconds
        self.classes_ = getattr(model, "classes_", None)

    def predict(self, columns: Any) -> np.ndarray:
        """Numbers, as the mood has them."""
        return self._said(self._model.predict, columns)

    def predict_proba(self, columns: Any) -> np.ndarray:
        """Class shares, as the mood has them."""
        return self._said(self._model.predict_proba, columns)

    def _said(self, function: Callable[[Any], Any], columns: Any) -> np.ndarray:
        if self._mood == "raise":
            raise ArithmeticError("spoiled on purpose")
        if self._mood == "stall":
            time.sleep(self._seconds)
        said = np.asarray(function(columns), dtype=float)
        return np.full_like(said, np.nan) if self._mood == "nan" else said


def guard_faults(
    champion: LoadedModel,
    predecessor: LoadedModel | None,
    rows: Sequence[dict[str, Any]],
    *,
    deadline_seconds: float,
) -> list[Fault]:
    """What the guard makes of a spoiled champion, and of rows that nobody can read.

    Args:
        champion: is asked as it is, and spoiled.
        predecessor: stands in; None if there is none, and the simple rule does.
        rows: real ones, twenty at least.
        deadline_seconds: of the guard.
    """
    rows = list(rows)[:_ROWS]
    spoiled = {
        mood: _spoiled(champion, mood, seconds=2 * deadline_seconds) for mood in ("stall", "raise", "nan")
    }
    # where the predecessor has no compiled path, a stall leaves it no time
    late = predecessor if predecessor is not None and predecessor.path is not None else None
    names = {"stall": "the model stalls", "raise": "the model raises", "nan": "the model answers NaN"}
    found = []
    for mood, loaded in spoiled.items():
        stand_in = _name(late if mood == "stall" else predecessor)
        expected = f"{names[mood]}: each row is answered in time, by the {stand_in}, with a reason"
        guard = Guard(Route(loaded, predecessor), deadline_seconds=deadline_seconds)
        wanted, most = {stand_in: len(rows)}, deadline_seconds + _SLACK_SECONDS
        found.append(_asked(f"guard.{mood}", expected, guard, rows, wanted=wanted, most_seconds=most))
    alone = Guard(Route(_spoiled(champion, "raise")), deadline_seconds=deadline_seconds)
    expected = "the model raises and there is no predecessor: the rule answers"
    found.append(_asked("guard.alone", expected, alone, rows, wanted={"rule": len(rows)}))
    sound = Guard(Route(champion, predecessor), deadline_seconds=deadline_seconds)
    for name, bad in _unreadable(rows, champion).items():
        expected = f"{name}, beside as many good rows: those by the rule, these by the champion"
        wanted = {"champion": len(rows), "rule": len(bad)}
        mixed = [row for pair in zip(rows, bad, strict=True) for row in pair]
        found.append(_asked(f"guard.{name.replace(' ', '_')}", expected, sound, mixed, wanted=wanted))
    return found


def _unreadable(rows: list[dict[str, Any]], champion: LoadedModel) -> dict[str, list[Any]]:
    first = champion.bundle.schema.names[0]
    garbage: list[Any] = [None, 7, "a row", [], [1, 2], {}, {first: {"a": []}}]
    return {
        "missing columns": [{name: cell for name, cell in row.items() if name != first} for row in rows],
        "garbage rows": [garbage[place % len(garbage)] for place in range(len(rows))],
    }


def _spoiled(loaded: LoadedModel, mood: str, *, seconds: float = 0.0) -> LoadedModel:
    model = FaultyModel(loaded.bundle.model, mood, seconds=seconds)
    return LoadedModel(loaded.version, replace(loaded.bundle, model=model), quick=False)


def _name(loaded: LoadedModel | None) -> str:
    return "rule" if loaded is None else "predecessor"


def _asked(
    name: str,
    expected: str,
    guard: Guard,
    rows: list[Any],
    *,
    wanted: dict[str, int],
    most_seconds: float = float("inf"),
) -> Fault:
    """Ask the guard, and compare who answered with who should."""

    def happened() -> tuple[str, bool]:
        began = time.monotonic()
        answers = guard.answer(rows)
        late = time.monotonic() - began > most_seconds
        sources = Counter(map(str, answers.source))
        text = f"{_finite(answers)} of {len(rows)} rows answered: {_counted(sources)}"
        reasons = bool((answers.reason[answers.degraded] != "").all())
        good = _finite(answers) == len(rows) and sources == wanted and reasons and not late
        return text + (", too late" if late else "") + ("" if reasons else ", without a reason"), good

    return _fault(name, expected, happened)


def _finite(answers: Answers) -> int:
    finite = np.isfinite(answers.predicted)
    return int((finite if finite.ndim == 1 else finite.all(axis=1)).sum())


def _counted(sources: Counter[str]) -> str:
    return ", ".join(f"{count} by the {source}" for source, count in sorted(sources.items()))


def _fault(name: str, expected: str, happen: Callable[[], tuple[str, bool]]) -> Fault:
    try:
        happened, good = happen()
    except (ProdkitError, OSError, http.client.HTTPException, ValueError, KeyError, TypeError) as error:
        return Fault(name, expected, f"{type(error).__name__}: {error}"[:200], "error")
    return Fault(name, expected, happened, "pass" if good else "fail")


def tame_faults(target: Target, bodies: Sequence[bytes]) -> list[Fault]:
    """What a service makes of clients that misbehave; harmless to a service that is in use.

    Args:
        target: the service.
        bodies: good requests of one row each.
    """

    def garbage() -> tuple[str, bool]:
        bad = (
            *(
                b"",
                b"{",
                b"\xff\xfe\x00",
                b"[]",
                b"null",
                b'{"records": 7}',
                b'{"columns": {"a": [1], "b": []}}',
            ),
            *(b"[" * 10_000, b'{"records": [' + b"1," * 20_000 + b"1]}"),
        )
        statuses = [target.post(body)[0] for body in bad]
        refused = sum(400 <= status < 500 for status in statuses)
        text, good = _served(target, bodies, wanted="answered")
        return f"{refused} of {len(bad)} refused with 4xx; then {text}", refused == len(bad) and good

    def hang_ups() -> tuple[str, bool]:
        head = b"POST /predict HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\ncontent-length: 900\r\n\r\n"
        words = (head + b'{"records"', head, b"POST /pre", b"\x16\x03\x01\x02\x00", b"")
        for number in range(4 * len(words)):
            target.break_off(words[number % len(words)])
        text, good = _served(target, bodies, wanted="answered")
        return f"{4 * len(words)} hung up; then {text}", good

    return [
        _fault(
            "service.garbage", "bodies that are no requests: refused with 4xx, the next is answered", garbage
        ),
        _fault("service.hang_ups", "clients hang up in the middle: the next requests are answered", hang_ups),
    ]


def service_faults(stage: Stage, target: Target, bodies: Sequence[bytes]) -> list[Fault]:
    """What happens to the service on a stage whose store is locked, that is killed, and whose champion is damaged.

    Args:
        stage: it runs on; its copy of the store is damaged in the end.
        target: the service.
        bodies: good requests of one row each.
    """

    def lock() -> tuple[str, bool]:
        with stage.locked():
            _until(lambda: _problem(target, "the store"))
            text, good = _served(target, bodies, wanted="answered")
            noticed = _problem(target, "the store")
        return f"{text}; readiness says so: {'yes' if noticed else 'no'}", good and noticed

    def kill() -> tuple[str, bool]:
        wrong = _killed_under_load(stage, target, bodies)
        again = stage.start()
        text, good = _served(again, bodies, wanted="answered")
        return f"{wrong} answers were wrong or cut short; started again, {text}", good and not wrong

    def damage() -> tuple[str, bool]:
        number = stage.promote_garbage()
        _until(lambda: _problem(target, "the champion"))
        text, good = _served(target, bodies, wanted="degraded", never=number)
        return text, good

    return [
        _fault("service.locked_store", "the store is locked: the model in memory answers", lock),
        _fault(
            "service.killed", "the service is killed under load: no answer is wrong, a new one answers", kill
        ),
        _fault("service.corrupt_artifact", "a damaged champion: the one before answers, degraded", damage),
    ]


def _killed_under_load(stage: Stage, target: Target, bodies: Sequence[bytes]) -> int:
    """Kill the service while four clients ask it; how many answers came that are none."""
    wrong, stop = Counter[str](), threading.Event()

    def ask() -> None:
        for number in range(2_000):
            try:
                status, _ = target.post(bodies[number % len(bodies)])
            except (OSError, http.client.HTTPException):  # nobody answers: that is no wrong answer
                if stop.wait(0.005):
                    return
            else:
                wrong["answers"] += status != 200

    clients = [threading.Thread(target=ask, daemon=True) for _ in range(4)]
    for client in clients:
        client.start()
    time.sleep(0.2)
    stage.kill()
    stop.set()
    for client in clients:
        client.join()
    target.close()
    return wrong["answers"]


def _served(target: Target, bodies: Sequence[bytes], *, wanted: str, never: int = 0) -> tuple[str, bool]:
    """Ask for twenty rows, one after another, and say who answered."""
    sources: Counter[str] = Counter()
    said: Counter[str] = Counter()
    for number in range(_ROWS):
        body = bodies[number % len(bodies)]
        status, content = target.post(body)
        answers = json.loads(content)["answers"] if status == 200 else []
        for answer in answers:
            sources[answer["source"]] += 1
            said[
                "never"
                if answer["model_version"] == never
                else "degraded"
                if answer["degraded"]
                else "answered"
            ] += 1
    return f"{sum(sources.values())} of {_ROWS} answered: {_counted(sources)}", said == {wanted: _ROWS}


def _problem(target: Target, name: str) -> bool:
    problems = json.loads(target.get("/health/ready")[1])["problems"]
    return any(text.startswith(f"{name}:") for text in problems)


def _until(condition: Callable[[], bool]) -> None:
    """Wait until it is so; whether it is, is for the caller to see."""
    deadline = time.monotonic() + _STORE_SECONDS
    while not condition() and time.monotonic() < deadline:
        time.sleep(0.05)
