"""One way to get predictions that never crashes: champion, else predecessor, else the baseline, row by row."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, fields
from functools import cached_property
from typing import Any

import numpy as np
import pandas as pd

from prodkit.data.cells import present
from prodkit.data.schema import Schema
from prodkit.errors import ModelError, ProdkitError
from prodkit.models.bundle import Bundle
from prodkit.models.estimators import predictions
from prodkit.models.masks import masked
from prodkit.scoring.breaker import Breaker, Calls, LateError, Limits, ShedError
from prodkit.scoring.compiled import Compiled, compiled
from prodkit.scoring.rows import Reader

__all__ = ["HOLD", "Answer", "Answers", "Guard", "LoadedModel", "Route", "guarded"]

HOLD = "on hold: "  # begins the reason of an answer for which no model was to be asked
_MOST_FAILURES = 16  # single rows that fail before any other is answered: then it is not the rows' fault
_MOST_CALLS = 2000  # to find the bad rows of one table
_REASON_LENGTH = 300
_LARGEST = 1e100  # the square of a larger number may be infinite
_HUGE = 1e30  # a cell beyond that is named where its row cannot be answered
_ROUNDING = 1e-6  # by which a probability may lie outside 0 to 1


@dataclass(frozen=True, slots=True)
class Answer:
    """The prediction of one row, and where it came from.

    Attributes:
        predicted: a float, or (k,) class shares.
        version: whose model, or whose baseline, answered.
        source: ``champion``, ``predecessor`` or ``rule``.
        reason: why it was not the champion, or what it was not asked about; empty if neither.
        cells: the row as the champion's schema reads it.
    """

    predicted: Any
    version: int
    source: str
    reason: str
    cells: list[Any]

    @property
    def degraded(self) -> bool:
        """Whether anybody but the champion answered."""
        return self.source != "champion"


@dataclass(frozen=True)
class Answers:
    """Predictions of n rows, and where each came from.

    Attributes:
        predicted: (n,) or (n, k), as :func:`prodkit.models.estimators.predictions`.
        degraded: (n,) true where anybody but the champion answered.
        reason: (n,) why; where the champion answered, the columns that were masked, if any.
        version: (n,) whose model, or whose baseline, answered.
        source: (n,) ``champion``, ``predecessor`` or ``rule``.
        cells: the rows as the champion's schema reads them, if they came as mappings.
    """

    predicted: np.ndarray
    degraded: np.ndarray
    reason: np.ndarray
    version: np.ndarray
    source: np.ndarray
    cells: list[list[Any]] = field(default_factory=list)

    def __getitem__(self, part: slice) -> Answers:
        return Answers(*(getattr(self, each.name)[part] for each in fields(self)))

    def row(self, place: int, cells: list[Any] | None = None) -> Answer:
        """One of them; its cells may be given where the rows came as a table."""
        predicted = self.predicted[place]
        return Answer(
            predicted if self.predicted.ndim > 1 else float(predicted),
            int(self.version[place]),
            str(self.source[place]),
            str(self.reason[place]),
            self.cells[place] if cells is None else cells,
        )


class LoadedModel:
    """One version in memory, ready to answer.

    Args:
        version: its number.
        bundle: what the store gave back.
        limits: of its breaker.
        quick: whether to look for a compiled path.

    Attributes:
        path: the compiled path, or None.
        refused: why there is none; empty if there is, or if nobody looked.
    """

    def __init__(
        self, version: int, bundle: Bundle, *, limits: Limits | None = None, quick: bool = True
    ) -> None:
        self.version, self.bundle, self.breaker = version, bundle, Breaker(limits)
        self.path: Compiled | None = None
        self.refused = ""
        if quick:
            try:
                self.path = compiled(bundle.model, schema=bundle.schema, golden=bundle.golden)
            except ModelError as error:
                self.refused = str(error)


@dataclass(frozen=True)
class Route:
    """Who answers now. It is replaced as a whole, so that no answer sees half a change.

    Attributes:
        champion: asked first; None if it could not be loaded.
        predecessor: asked where the champion does not answer.
        distrust: why no model may be asked at all, such as a hold; empty if they may.
        problem: why there is no champion.
        generation: of the champion, as the store counts.
        masked: columns that models are asked without, since they are broken.
        hold: why the champion is on hold, whoever answers meanwhile; empty if it is not.
    """

    champion: LoadedModel | None
    predecessor: LoadedModel | None = None
    distrust: str = ""
    problem: str = "the champion is not loaded"
    generation: int = 0
    masked: tuple[str, ...] = ()
    hold: str = ""

    @property
    def note(self) -> str:
        """What stands beside an answer of the champion."""
        return f"masked: {', '.join(self.masked)}" if self.masked else ""

    @cached_property
    def readers(self) -> dict[int, Reader]:
        """How each of them reads a row, by version."""
        models = [model for model in (self.champion, self.predecessor) if model]
        return {model.version: Reader(model.bundle.schema, masked=self.masked) for model in models}

    @cached_property
    def first(self) -> LoadedModel:
        """Whose schema rows are read by, and whose baseline answers in the end."""
        model = self.champion or self.predecessor
        if model is None:
            raise ModelError(
                "champion", rule="must be loaded before it can be asked", value=self.problem or "none"
            )
        return model

    @cached_property
    def quick(self) -> bool:
        """Whether whoever may be asked has a compiled path, so that no answer takes long."""
        return self.champion is not None and all(model.path for _, model in self.rungs)

    @cached_property
    def rungs(self) -> list[tuple[str, LoadedModel]]:
        """Who is asked in turn."""
        if self.champion is None and self.predecessor is None:
            return []
        task, classes = self.first.bundle.schema.task, self.first.bundle.schema.classes
        named = (("champion", self.champion), ("predecessor", self.predecessor))
        return [
            (name, model)
            for name, model in named  # one that knows other classes gives other answers
            if model and (model.bundle.schema.task, model.bundle.schema.classes) == (task, classes)
        ]


class Guard:
    """Answers every row, within the deadline, whatever the models do and whatever the rows hold.

    Args:
        route: who answers; it may be replaced at any time, from any thread.
        deadline_seconds: after which the next rung answers; None waits for as long as a model takes.
        most_calls: calls with a deadline that may be on their way; another is not made, its rows fall back.
    """

    def __init__(self, route: Route, *, deadline_seconds: float | None = None, most_calls: int = 8) -> None:
        self.route, self.deadline_seconds = route, deadline_seconds
        self._calls = Calls(most_calls)

    def answer_row(self, row: Any, *, route: Route | None = None) -> Answer:
        """Answer one row, a mapping of names to cells; through the compiled path without any detour."""
        route = route or self.route
        model = route.champion
        if model is not None and model.path is not None and not route.distrust:
            reader = route.readers[model.version]
            values, fault = reader.read(row)
            permit = None if fault else model.breaker.permit()
            if permit is not None:
                predicted = _quickly(model, reader.asked(values), permit)
                if predicted is not None:
                    return Answer(predicted, model.version, "champion", route.note, values)
        return self.answer([row], route=route).row(0)

    def answer(
        self,
        rows: Sequence[Any] | pd.DataFrame,
        *,
        route: Route | None = None,
        seconds: float | None = None,
    ) -> Answers:
        """Answer n rows.

        Args:
            rows: a table, or mappings of names to cells; anything else is a row that nobody can read.
            route: who answers, if not the present one.
            seconds: what is left of the deadline.
        """
        route, seconds = route or self.route, self.deadline_seconds if seconds is None else seconds
        until = math.inf if seconds is None else time.monotonic() + seconds
        first, n = route.first, len(rows)
        read = _Rows(rows, first, route)
        width = (len(first.bundle.schema.classes),) if first.bundle.schema.task == "multiclass" else ()
        answers = Answers(
            predicted=np.full((n, *width), np.nan),
            degraded=np.full(n, True),
            reason=read.fault.copy(),
            version=np.full(n, first.version),
            source=np.full(n, "rule", dtype=object),
            cells=read.cells,
        )
        left = np.flatnonzero(read.fault == "")
        answers.reason[left] = route.distrust or ("" if route.champion else route.problem)
        for name, model in [] if route.distrust else route.rungs:
            mine = read if model is first else _Rows(rows, model, route)
            able = left[mine.fault[left] == ""]
            if len(able):
                self._climb(name, model, mine, able, answers, until)
                left = left[answers.source[left] == "rule"]
        answers.reason[answers.source == "champion"] = route.note
        unanswered = np.flatnonzero(answers.source == "rule")
        if len(unanswered):
            answers.predicted[unanswered] = read.baseline(unanswered)
        return answers

    def _climb(
        self, name: str, model: LoadedModel, read: _Rows, rows: np.ndarray, answers: Answers, until: float
    ) -> None:
        """Let one version answer these rows, as far as it does."""
        permit = model.breaker.permit()
        if permit is None:
            reason = np.full(len(rows), f"version {model.version} rests: {model.breaker.why}", dtype=object)
        else:
            began, answered = time.monotonic(), 0
            try:
                predicted, reason = _search(lambda part: self._call(read, part, until), rows, read)
                answered = int((reason == "").sum())
                if predicted is not None:
                    answers.predicted[rows[reason == ""]] = predicted[reason == ""]
            finally:  # in any case, or a probe that was not recorded would keep the breaker open for ever
                took = time.monotonic() - began
                model.breaker.record(permit, failed=not answered, seconds=took)
        fine = rows[reason == ""]
        answers.version[fine], answers.source[fine] = model.version, name
        answers.degraded[fine] = name != "champion"
        if name == "champion":
            answers.reason[rows] = reason
        else:
            for row, words in zip(rows[reason != ""], reason[reason != ""], strict=True):
                answers.reason[row] += f"; version {model.version}: {words}"

    def _call(self, read: _Rows, rows: np.ndarray, until: float) -> np.ndarray:
        seconds = None if until == math.inf else until - time.monotonic()
        if read.model.path is not None:  # arithmetic that cannot hang: it may be late by a millisecond
            return read.predict(rows)
        try:
            return self._calls.within(seconds, lambda: read.predict(rows))
        except LateError as error:
            deadline = self.deadline_seconds
            within = "in time" if deadline is None else f"within {deadline:g} seconds"
            raise ModelError("model", rule=f"did not answer {within}") from error
        except ShedError as error:
            raise ModelError("model", rule="was not asked: too many calls have not come back yet") from error


def _quickly(model: LoadedModel, values: list[Any], permit: int) -> Any:
    """One row through the compiled path; None where it gives no number that can be used."""
    began, predicted = time.monotonic(), None
    assert model.path is not None
    try:
        answer = model.path.predict_row(values)
        predicted = answer if _sound(np.asarray([answer]), model.bundle.schema).all() else None
    except Exception:  # the ladder finds out what it was, and gives the reason
        predicted = None
    finally:
        took = time.monotonic() - began
        model.breaker.record(permit, failed=predicted is None, seconds=took)
    return predicted


def _search(
    ask: Callable[[np.ndarray], np.ndarray], rows: np.ndarray, read: _Rows
) -> tuple[np.ndarray | None, np.ndarray]:
    """Ask for many rows at once and, where that fails, halve them until the bad ones stand alone.

    Returns:
        Predictions (m, ...) of these rows, None without any, and why each could not be answered (m,).
    """
    predicted, reason = None, np.full(len(rows), "", dtype=object)
    answered = failures = tries = 0
    parts = [np.arange(len(rows))]
    while parts:
        part, tries = parts.pop(), tries + 1
        try:
            values = ask(rows[part])
        except Exception as error:  # whatever a model raises, the rows still get an answer
            whole = isinstance(error, ProdkitError)  # out of time, out of places, answers of another shape
            if len(part) > 1 and not whole:
                parts += [part[len(part) // 2 :], part[: len(part) // 2]]
            else:
                failures += 1
                reason[part] = _words(error) + ("" if whole else read.huge(rows[part[0]]))
            if whole or tries >= _MOST_CALLS or (failures >= _MOST_FAILURES and not answered):
                reason[np.concatenate([np.empty(0, int), *parts])] = _words(error)
                break
            continue
        if predicted is None:
            predicted = np.full((len(rows), *values.shape[1:]), np.nan)
        predicted[part] = values
        sound = _sound(values, read.model.bundle.schema)
        answered += int(sound.sum())
        for place in part[~sound]:
            reason[place] = read.unsound(rows[place], predicted[place])
    return predicted, reason


def _sound(values: np.ndarray, schema: Schema) -> np.ndarray:
    """Which answers (n, ...) can be used: finite, and probabilities where the task asks for them."""
    low, high = (-_LARGEST, _LARGEST) if schema.task == "regression" else (-_ROUNDING, 1 + _ROUNDING)
    fine = (values >= low) & (values <= high)  # NaN is neither
    return np.asarray(fine if fine.ndim == 1 else fine.all(axis=1))


def _words(error: Exception) -> str:
    text = str(error) if isinstance(error, ProdkitError) else f"{type(error).__name__}: {error}"
    return text if len(text) <= _REASON_LENGTH else text[:_REASON_LENGTH] + "..."


class _Rows:
    """Rows as the schema of one version reads them.

    Attributes:
        model: that version.
        fault: (n,) what is wrong with each; empty if nothing is.
        cells: of rows that came as mappings.
    """

    def __init__(self, rows: Sequence[Any] | pd.DataFrame, model: LoadedModel, route: Route) -> None:
        self.model, self.cells, self._reader = model, list[list[Any]](), route.readers[model.version]
        self._given: pd.DataFrame | None = None
        self._columns: pd.DataFrame | None = None
        self.fault = np.full(len(rows), "", dtype=object)
        if isinstance(rows, pd.DataFrame):
            self._given = rows
            try:
                rows = masked(rows, route.masked, schema=model.bundle.schema)
                self._columns = model.bundle.schema.coerce(rows)
                _find_faults(self.fault, rows, self._columns, model.bundle.schema)
            except Exception as error:  # a column is missing, or there twice: then no row is whole
                self.fault[:] = _words(error)
        else:
            for place, row in enumerate(rows):
                values, self.fault[place] = self._reader.read(row)
                self.cells.append(values)

    def _table(self, rows: np.ndarray) -> pd.DataFrame:
        if self._columns is None:
            return self._reader.frame([self._reader.asked(self.cells[row]) for row in rows])
        return self._columns if len(rows) == len(self._columns) else self._columns.iloc[rows]

    def predict(self, rows: np.ndarray) -> np.ndarray:
        """What the model answers: :func:`prodkit.models.estimators.predictions`."""
        bundle, path = self.model.bundle, self.model.path
        if path is None:
            return predictions(bundle.model, self._table(rows), schema=bundle.schema, coerced=True)
        if self._columns is None:
            asked = (self._reader.asked(self.cells[row]) for row in rows)
            return path.predict(list(zip(*asked, strict=True)))
        table = self._table(rows)
        return path.predict([table[name].to_numpy() for name in table])

    def baseline(self, rows: np.ndarray) -> np.ndarray:
        """What the baseline answers, by segment."""
        fallback, schema = self.model.bundle.fallback, self.model.bundle.schema
        if self._given is not None:
            part = self._given if len(rows) == len(self._given) else self._given.iloc[rows]
            return fallback.predict(part, schema=schema)
        segment = pd.DataFrame(index=range(len(rows)))
        if fallback.column in schema.names:
            place = schema.names.index(fallback.column)
            segment[fallback.column] = pd.Series([self.cells[row][place] for row in rows], dtype=object)
        return fallback.predict(segment, schema=schema)

    def unsound(self, row: int, predicted: np.ndarray) -> str:
        """Why an answer cannot be used."""
        schema = self.model.bundle.schema
        number = float(np.atleast_1d(predicted)[~_sound(np.atleast_1d(predicted), schema)][0])
        kind = "number" if schema.task == "regression" else "probability"
        words = f"the model gave no {kind} that can be used: {number:g}"
        return (words if math.isfinite(number) else "the model gave no finite number") + self.huge(row)

    def huge(self, row: int) -> str:
        """The largest number of a row, in words, if it is too large to compute with."""
        numbers = self._table(np.array([row])).select_dtypes("float").iloc[0].abs()
        return f"; {numbers.idxmax()} is {numbers.max():g}" if numbers.max() > _HUGE else ""


def _find_faults(fault: np.ndarray, frame: pd.DataFrame, columns: pd.DataFrame, schema: Schema) -> None:
    """Put into words the first cell of each row (n,) that is there and cannot be read as its kind."""
    for column in reversed(schema.features):
        if column.kind == "categorical":
            continue
        lost = columns[column.name].isna().to_numpy()
        wrong = lost.any() and lost & present(frame[column.name], frozenset(schema.missing))
        for place in np.flatnonzero(wrong):
            cell = str(frame[column.name].iloc[place])[:60]
            fault[place] = f"{column.name} must be {column.kind}; found {cell!r}"


def guarded(
    bundle: Bundle, frame: pd.DataFrame, *, distrust: str = "", masked: tuple[str, ...] = (), version: int = 0
) -> Answers:
    """Predict every row of a table: by the model, or by the baseline where the model fails or may not be asked.

    Args:
        bundle: the version that answers.
        frame: (n, m) rows.
        distrust: why the model must not be asked at all (a broken data contract); empty if it may.
        masked: columns that it is asked without.
        version: its number.
    """
    model = LoadedModel(version, bundle, quick=False)
    return Guard(Route(model, distrust=distrust, masked=masked)).answer(frame)
