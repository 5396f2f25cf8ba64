"""One way to get predictions that never crashes: champion, else predecessor, else a simple rule, row by row."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
import pandas as pd

from prodkit.data.cells import present
from prodkit.data.schema import Schema
from prodkit.errors import ModelError, ProdkitError, SchemaError
from prodkit.models.bundle import Bundle
from prodkit.scoring.calls import Calls, LateError, ShedError
from prodkit.scoring.resident import Resident

__all__ = ["HOLD", "Answer", "Answers", "Guard", "Standing", "guarded"]

HOLD = "on hold: "  # begins the reason of an answer for which no model was to be asked
NOT_FINITE = "the model gave no finite number"
_MOST_FAILURES = 16  # single rows that fail before any other is answered: then it is not the rows' fault
_MOST_CALLS = 2000  # to find the bad rows of one table
_REASON_LENGTH = 300


@dataclass(frozen=True, slots=True)
class Answer:
    """The prediction of one row, and where it came from.

    Attributes:
        predicted: a float, or (k,) class shares.
        version: whose model, or whose simple rule, answered.
        source: ``champion``, ``predecessor`` or ``rule``.
        reason: why it was not the champion; empty if it was.
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
        reason: (n,) why; empty where the champion answered.
        version: (n,) whose model, or whose simple rule, answered.
        source: (n,) ``champion``, ``predecessor`` or ``rule``.
        cells: the rows as the champion's schema reads them, if they came as mappings.
    """

    predicted: np.ndarray
    degraded: np.ndarray
    reason: np.ndarray
    version: np.ndarray
    source: np.ndarray
    cells: list[list[Any]] = field(default_factory=list)


@dataclass(frozen=True)
class Standing:
    """Who answers now. It is replaced as a whole, so that no answer sees half a change.

    Attributes:
        champion: asked first; None if it could not be loaded.
        predecessor: asked where the champion does not answer.
        distrust: why no model may be asked at all, such as a hold; empty if they may.
        problem: why there is no champion.
        generation: of the champion, as the store counts.
    """

    champion: Resident | None
    predecessor: Resident | None = None
    distrust: str = ""
    problem: str = "the champion is not loaded"
    generation: int = 0

    @cached_property
    def first(self) -> Resident:
        """Whose schema rows are read by, and whose simple rule answers in the end."""
        resident = self.champion or self.predecessor
        if resident is None:
            raise ModelError(
                "champion", rule="must be loaded before it can be asked", value=self.problem or "none"
            )
        return resident

    @cached_property
    def quick(self) -> bool:
        """Whether whoever may be asked has a compiled path, so that no answer takes long."""
        return self.champion is not None and all(resident.path for _, resident in self.rungs)

    @cached_property
    def rungs(self) -> list[tuple[str, Resident]]:
        """Who is asked in turn."""
        if self.champion is None and self.predecessor is None:
            return []
        task, classes = self.first.bundle.schema.task, self.first.bundle.schema.classes
        named = (("champion", self.champion), ("predecessor", self.predecessor))
        return [
            (name, resident)
            for name, resident in named  # one that knows other classes gives other answers
            if resident and (resident.bundle.schema.task, resident.bundle.schema.classes) == (task, classes)
        ]


class Guard:
    """Answers every row, within the deadline, whatever the models do and whatever the rows hold.

    Args:
        standing: who answers; it may be replaced at any time, from any thread.
        deadline_seconds: after which the next rung answers; None waits for as long as a model takes.
        most_calls: calls with a deadline that may be on their way; another is not made, its rows fall back.
    """

    def __init__(
        self, standing: Standing, *, deadline_seconds: float | None = None, most_calls: int = 8
    ) -> None:
        self.standing, self.deadline_seconds = standing, deadline_seconds
        self._calls = Calls(most_calls)

    def answer_row(self, row: Any, *, standing: Standing | None = None) -> Answer:
        """Answer one row, a mapping of names to cells; through the compiled path without any detour."""
        standing = standing or self.standing
        first = standing.champion
        if first is not None and first.path is not None and not standing.distrust:
            values, fault = first.reader.read(row)
            ticket = None if fault else first.breaker.ticket()
            if ticket is not None:
                predicted = _quickly(first, values, ticket)
                if predicted is not None:
                    return Answer(predicted, first.version, "champion", "", values)
        answers = self.answer_rows([row], standing=standing)
        one = answers.predicted[0]
        return Answer(
            one if isinstance(one, np.ndarray) else float(one),
            int(answers.version[0]),
            str(answers.source[0]),
            str(answers.reason[0]),
            answers.cells[0],
        )

    def answer_rows(
        self, rows: Sequence[Any], *, standing: Standing | None = None, seconds: float | None = None
    ) -> Answers:
        """Answer n rows, each a mapping of names to cells; anything else is a row that nobody can read.

        Args:
            rows: to answer.
            standing: who answers, if not the present one.
            seconds: what is left of the deadline.
        """
        return self._answered(_Records(rows), standing or self.standing, seconds)

    def answer(
        self, frame: pd.DataFrame, *, standing: Standing | None = None, seconds: float | None = None
    ) -> Answers:
        """Answer the n rows of a table; see :meth:`answer_rows`."""
        return self._answered(_Table(frame), standing or self.standing, seconds)

    def _answered(self, given: _Records | _Table, standing: Standing, seconds: float | None) -> Answers:
        seconds = self.deadline_seconds if seconds is None else seconds
        until = math.inf if seconds is None else time.monotonic() + seconds
        first, n = standing.first, len(given)
        read, reason = given.read(first)
        width = (len(first.bundle.schema.classes),) if first.bundle.schema.task == "multiclass" else ()
        answers = Answers(
            predicted=np.full((n, *width), np.nan),
            degraded=np.full(n, True),
            reason=reason,
            version=np.full(n, first.version),
            source=np.full(n, "rule", dtype=object),
            cells=read.cells,
        )
        left = np.flatnonzero(reason == "")
        reason[left] = standing.distrust or ("" if standing.champion else standing.problem)
        for name, resident in [] if standing.distrust else standing.rungs:
            if len(left):
                mine, fault = (read, None) if resident is first else given.read(resident)
                able = left if fault is None else left[fault[left] == ""]
                self._climb(name, resident, mine, able, answers, until)
                left = left[answers.source[left] == "rule"]
        simple = np.flatnonzero(answers.source == "rule")
        if len(simple):
            answers.predicted[simple] = read.simple(first, simple)
        return answers

    def _climb(
        self,
        name: str,
        resident: Resident,
        read: _ReadRecords | _ReadTable,
        rows: np.ndarray,
        answers: Answers,
        until: float,
    ) -> None:
        """Let one version answer these rows, as far as it does."""
        said, why = self._ask(resident, read, rows, until)
        done = why == ""
        fine = rows[done]
        if said is not None:
            answers.predicted[fine] = said[done]
        answers.version[fine], answers.source[fine] = resident.version, name
        answers.degraded[fine] = name != "champion"
        if name == "champion":
            answers.reason[rows] = why
        else:
            for row, text in zip(rows[~done], why[~done], strict=True):
                answers.reason[row] += f"; version {resident.version}: {text}"

    def _ask(
        self, resident: Resident, read: _ReadRecords | _ReadTable, rows: np.ndarray, until: float
    ) -> tuple[np.ndarray | None, np.ndarray]:
        """What a model says of these rows (m, ...), and why it says nothing (m,); None if it says nothing at all."""
        ticket = resident.breaker.ticket()
        if ticket is None:
            return None, np.full(
                len(rows), f"version {resident.version} rests: {resident.breaker.why}", dtype=object
            )
        began, search = time.monotonic(), _Search(lambda part: self._call(resident, read, part, until), rows)
        try:
            search.run()
        finally:  # the breaker is told in any case: a probe that is never told of would keep it open for ever
            took = time.monotonic() - began
            resident.breaker.told(ticket, failed=not search.answered, seconds=took)
        return search.said, search.reason

    def _call(
        self, resident: Resident, read: _ReadRecords | _ReadTable, rows: np.ndarray, until: float
    ) -> np.ndarray:
        seconds = None if until == math.inf else until - time.monotonic()
        try:
            if (
                resident.path is not None
            ):  # arithmetic that cannot hang: an answer late by a millisecond is one
                return read.ask(resident, rows)
            return self._calls.within(seconds, lambda: read.ask(resident, rows))
        except LateError as error:
            deadline = self.deadline_seconds
            within = "in time" if deadline is None else f"within {deadline:g} seconds"
            raise ModelError("model", rule=f"did not answer {within}") from error
        except ShedError as error:
            raise ModelError("model", rule="was not asked: too many calls have not come back yet") from error


def _quickly(resident: Resident, values: list[Any], ticket: int) -> Any:
    """One row through the compiled path; None where it gives no finite number."""
    began, predicted = time.monotonic(), None
    assert resident.path is not None
    try:
        said = resident.path.predict_row(values)
        finite = math.isfinite(said) if isinstance(said, float) else np.isfinite(said).all()
        predicted = said if finite else None
    except Exception:  # the ladder will find out, and say what it was
        predicted = None
    finally:
        took = time.monotonic() - began
        resident.breaker.told(ticket, failed=predicted is None, seconds=took)
    return predicted


class _Search:
    """Asks for many rows at once and, where that fails, halves them until the bad ones stand alone."""

    def __init__(self, ask: Callable[[np.ndarray], np.ndarray], rows: np.ndarray) -> None:
        self._ask, self._rows = ask, rows
        self.said: np.ndarray | None = None
        self.reason = np.full(len(rows), "", dtype=object)
        self.answered = self._failures = self._tries = 0

    def run(self) -> None:
        parts = [np.arange(len(self._rows))]
        while parts:
            part = parts.pop()
            try:
                self._tries += 1
                self._keep(part, self._ask(self._rows[part]))
            except Exception as error:  # whatever a model raises, the rows still get an answer
                if self._worth_halving(part, error):
                    middle = len(part) // 2
                    parts += [part[middle:], part[:middle]]
                else:
                    self._failures += 1
                    self.reason[part] = _words(error)
                if self._hopeless() or isinstance(error, ProdkitError):
                    for rest in parts:
                        self.reason[rest] = _words(error)
                    return

    def _worth_halving(self, part: np.ndarray, error: Exception) -> bool:
        # what the kit itself raises is about the whole: out of time, out of places, answers that do not add up
        return len(part) > 1 and not isinstance(error, ProdkitError)

    def _hopeless(self) -> bool:
        return (self._failures >= _MOST_FAILURES and not self.answered) or self._tries >= _MOST_CALLS

    def _keep(self, part: np.ndarray, said: np.ndarray) -> None:
        if self.said is None:
            self.said = np.full((len(self._rows), *said.shape[1:]), np.nan)
        self.said[part] = said
        finite = np.isfinite(said) if said.ndim == 1 else np.isfinite(said).all(axis=1)
        self.reason[part[~finite]] = NOT_FINITE
        self.answered += int(finite.sum())


def _words(error: Exception) -> str:
    text = str(error) if isinstance(error, ProdkitError) else f"{type(error).__name__}: {error}"
    return text if len(text) <= _REASON_LENGTH else text[:_REASON_LENGTH] + "..."


class _Records:
    """Rows as mappings of names to cells."""

    def __init__(self, rows: Sequence[Any]) -> None:
        self._rows = rows

    def __len__(self) -> int:
        return len(self._rows)

    def read(self, resident: Resident) -> tuple[_ReadRecords, np.ndarray]:
        """The rows as a version's schema reads them, and what is wrong with each (n,)."""
        pairs = [resident.reader.read(row) for row in self._rows]
        faults = np.empty(len(pairs), dtype=object)
        faults[:] = [fault for _, fault in pairs]
        return _ReadRecords([values for values, _ in pairs]), faults


@dataclass(frozen=True)
class _ReadRecords:
    cells: list[list[Any]]

    def ask(self, resident: Resident, rows: np.ndarray) -> np.ndarray:
        return resident.predict_rows([self.cells[row] for row in rows])

    def simple(self, resident: Resident, rows: np.ndarray) -> np.ndarray:
        return np.array([resident.simple(self.cells[row]) for row in rows])


class _Table:
    """Rows of a table."""

    def __init__(self, frame: pd.DataFrame) -> None:
        self._frame = frame

    def __len__(self) -> int:
        return len(self._frame)

    def read(self, resident: Resident) -> tuple[_ReadTable, np.ndarray]:
        """The rows as a version's schema reads them, and what is wrong with each (n,)."""
        schema, frame = resident.bundle.schema, self._frame
        try:
            columns = schema.coerce(frame)
            return _ReadTable(frame, columns), _faults(frame, columns, schema)
        except Exception as error:  # a column is missing, or there twice: then no row is whole
            told = str(error) if isinstance(error, SchemaError) else _words(error)
            return _ReadTable(frame, None), np.full(len(frame), told, dtype=object)


@dataclass(frozen=True)
class _ReadTable:
    frame: pd.DataFrame
    columns: pd.DataFrame | None
    cells: list[list[Any]] = field(default_factory=list)

    def ask(self, resident: Resident, rows: np.ndarray) -> np.ndarray:
        assert self.columns is not None
        whole = len(rows) == len(self.columns)
        return resident.predict(self.columns if whole else self.columns.iloc[rows])

    def simple(self, resident: Resident, rows: np.ndarray) -> np.ndarray:
        whole = len(rows) == len(self.frame)
        frame = self.frame if whole else self.frame.iloc[rows]
        return resident.bundle.fallback.predict(frame, schema=resident.bundle.schema)


def _faults(frame: pd.DataFrame, columns: pd.DataFrame, schema: Schema) -> np.ndarray:
    """The first cell of each row (n,) that is there and cannot be read as its kind, in words."""
    faults = np.full(len(frame), "", dtype=object)
    for column in reversed(schema.features):
        if column.kind == "categorical":
            continue
        lost = columns[column.name].isna().to_numpy()
        wrong = lost.any() and lost & present(frame[column.name])
        for place in np.flatnonzero(wrong):
            faults[place] = (
                f"{column.name} must be {column.kind}; found {str(frame[column.name].iloc[place])[:60]!r}"
            )
    return faults


def guarded(bundle: Bundle, frame: pd.DataFrame, *, distrust: str = "", version: int = 0) -> Answers:
    """Predict every row of a table: by the model, or by the simple rule where the model fails or may not be asked.

    Args:
        bundle: the version that answers.
        frame: (n, m) rows.
        distrust: why the model must not be asked at all (a broken data contract); empty if it may.
        version: its number.
    """
    resident = Resident(version, bundle, quick=False)
    return Guard(Standing(resident, distrust=distrust)).answer(frame)
