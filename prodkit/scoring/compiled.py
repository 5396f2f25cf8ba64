"""The compiled row path: a pipeline of the kit's making, taken apart into tables, and kept only if it agrees."""

from __future__ import annotations

import math
from bisect import bisect_left
from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
from sklearn.ensemble import HistGradientBoostingClassifier, HistGradientBoostingRegressor
from sklearn.pipeline import Pipeline

from prodkit.data.schema import Schema
from prodkit.errors import ModelError
from prodkit.models.encoding import UNKNOWN, Source, clock_part, refusal, sources
from prodkit.models.estimators import clock_parts, predictions
from prodkit.scoring.forest import Forest
from prodkit.scoring.mutations import mutated, records
from prodkit.scoring.rows import Reader

__all__ = ["Compiled", "compiled"]

TOLERANCE = 1e-9  # rounding, and nothing else
_TRIALS = 600
_LINKS = {"IdentityLink": "identity", "LogitLink": "expit", "MultinomialLogit": "softmax"}


class Compiled:
    """Predicts rows as :class:`prodkit.scoring.rows.Reader` reads them, without pandas and scikit-learn.

    Made by :func:`compiled`.
    """

    def __init__(self, head: _Trees | _Linear, *, schema: Schema, classes: Sequence[int], link: str) -> None:
        self.schema = schema
        self._head, self._link, self._classes = head, link, list(classes)
        self._all = self._classes == list(range(len(schema.classes)))  # the model has seen every class

    def predict_row(self, values: Sequence[Any]) -> float | np.ndarray:
        """The answer to one row, in some 15 microseconds: a float, or (k,) shares for ``multiclass``.

        Args:
            values: the features in the schema's order.
        """
        raw = self._head.raw(values)
        if self._link == "identity":
            return float(raw[0])
        if self._link == "expit":
            return _expit(float(raw[0]))
        return np.asarray(self._answers(raw[None])[0])

    def predict_rows(self, rows: Sequence[Sequence[Any]]) -> np.ndarray:
        """The answers to n rows at once, as :func:`prodkit.models.estimators.predictions`."""
        if not rows:
            return self._answers(np.empty((0, max(len(self._classes), 1))))
        return self._answers(self._head.raw_many(list(zip(*rows, strict=True))))

    def predict(self, columns: pd.DataFrame) -> np.ndarray:
        """The answers to a table (n, m) as :meth:`prodkit.data.schema.Schema.coerce` gives it."""
        cells = [columns[name].to_numpy() for name in self.schema.names]
        return self._answers(self._head.raw_many(cells))

    def _answers(self, raw: np.ndarray) -> np.ndarray:
        if self._link == "identity":
            return np.asarray(raw[:, 0])
        if self._link == "expit":
            with np.errstate(over="ignore"):  # e**800 is infinite, and one over it 0
                return np.asarray(1.0 / (1.0 + np.exp(-raw[:, 0])))
        powers = np.exp(raw - raw.max(axis=1, keepdims=True, initial=-math.inf))
        powers /= powers.sum(axis=1, keepdims=True)
        if self._all:
            return np.asarray(powers)
        shares = np.zeros((len(raw), len(self.schema.classes)))
        shares[:, self._classes] = powers
        return shares


def _expit(raw: float) -> float:
    if raw >= 0:
        return 1.0 / (1.0 + math.exp(-raw))
    power = math.exp(raw)
    return power / (1.0 + power)


def compiled(model: Any, *, schema: Schema, golden: pd.DataFrame, seed: int = 0) -> Compiled:
    """Take a fitted pipeline apart, and compare what comes out with what the pipeline says.

    Covered are histogram trees and linear models behind the encoding of
    :func:`prodkit.models.estimators.build_model`. The
    comparison is over the golden rows and 600 mutations of them: unknown levels, missing values, extremes.

    Args:
        model: the pipeline.
        schema: what it was fitted on.
        golden: (n, m) real rows.
        seed: of the mutations.

    Raises:
        ModelError: it is made otherwise, or the answers differ; then the pipeline must be asked.
    """
    try:
        path = _taken_apart(model, schema)
        with np.errstate(all="ignore"):  # a model that overflows is compared as it is
            _compare(path, model, golden, seed=seed)
    except ModelError:
        raise
    except Exception as error:  # private attributes of scikit-learn may be anything in another release
        raise refusal(f"{type(error).__name__}: {error}") from error
    return path


def _taken_apart(model: Any, schema: Schema) -> Compiled:
    if not isinstance(model, Pipeline) or list(model.named_steps) != ["encode", "model"]:
        raise refusal("it is not a pipeline of the kit's making")
    encoder, estimator = model.named_steps["encode"], model.named_steps["model"]
    given = sources(encoder, schema=schema)
    if isinstance(estimator, HistGradientBoostingClassifier | HistGradientBoostingRegressor):
        head: _Trees | _Linear = _Trees(estimator, given)
        link = _LINKS.get(type(estimator._loss.link).__name__, "")
    elif type(estimator).__module__.startswith("sklearn.linear_model") and hasattr(estimator, "coef_"):
        head = _Linear(estimator, given)
        link = "identity" if schema.task == "regression" else "expit" if head.width == 1 else "softmax"
    else:
        raise refusal(f"{type(estimator).__name__} is neither histogram trees nor linear")
    classes = [] if schema.task == "regression" else [int(each) for each in model.classes_]
    if not link or len(classes) == 1 or (link == "softmax") != (schema.task == "multiclass"):
        raise refusal(f"its link function is not known for the task {schema.task}")
    return Compiled(head, schema=schema, classes=classes, link=link)


class _Trees:
    """Histogram trees: finds the rows of a forest's table that belong to the values of a row."""

    def __init__(self, estimator: Any, given: list[Source]) -> None:
        try:
            self._forest = Forest(estimator)
        except ValueError as error:
            raise refusal(str(error)) from error
        self._levels: list[tuple[int, dict[str | None, int], int]] = []
        self._numbers: list[tuple[int, list[float], int, int]] = []
        self._moments: list[tuple[int, int, list[float], int, int]] = []
        order = _inner_order(estimator, sum(len(source.columns) for source in given))
        for source in given:
            (encoded,) = source.columns
            self._add(source, order[encoded], estimator, width=len(order))
        if not (self._levels or self._numbers or self._moments):
            raise refusal("its trees look at no column")

    def _add(self, source: Source, inner: int, estimator: Any, *, width: int) -> None:
        forest = self._forest
        first, missing, cuts = forest.first[inner], forest.missing[inner], forest.thresholds[inner]
        if first < 0:  # no tree looks at it
            return
        if source.levels is not None:
            codes = _inner_codes(estimator, source, inner, width)
            known = range(forest.categories[inner])
            rows = {level: first + int(c) if c in known else missing for level, c in codes.items()}
            self._levels.append((source.feature, rows, rows.pop(UNKNOWN)))
        elif source.part is None:
            self._numbers.append((source.feature, cuts, first, missing))
        else:
            self._moments.append((source.feature, source.part, cuts, first, missing))

    def raw(self, values: Sequence[Any]) -> np.ndarray:
        """Sums of the leaves (k,) of one row."""
        rows = [table.get(values[feature], unknown) for feature, table, unknown in self._levels]
        for feature, cuts, first, missing in self._numbers:
            value = values[feature]
            rows.append(first + bisect_left(cuts, value) if value == value else missing)
        for feature, part, cuts, first, missing in self._moments:
            moment = values[feature]
            rows.append(missing if moment is None else first + bisect_left(cuts, clock_part(moment, part)))
        return self._forest.raw(rows)

    def raw_many(self, columns: Sequence[Any]) -> np.ndarray:
        """The same (n, k) of n rows, given as one sequence of values a feature."""
        rows = [_looked_up(columns[feature], table, unknown) for feature, table, unknown in self._levels]
        for feature, cuts, first, missing in self._numbers:
            rows.append(_ranked(np.asarray(columns[feature], dtype=float), cuts, first, missing))
        for feature, part, cuts, first, missing in self._moments:
            rows.append(_ranked(_parts(columns[feature])[:, part], cuts, first, missing))
        return self._forest.raw_many(np.stack(rows, axis=1))


def _looked_up(values: Any, table: dict[str | None, Any], unknown: Any) -> np.ndarray:
    """What a table says of texts (n,); NaN and None are missing."""
    if not isinstance(values, np.ndarray):
        return np.array([table.get(value, unknown) for value in values])
    codes, levels = pd.factorize(values)
    return np.array([*(table.get(level, unknown) for level in levels), table[None]])[codes]


def _ranked(values: np.ndarray, cuts: list[float], first: int, missing: int) -> np.ndarray:
    return np.where(np.isnan(values), missing, first + np.searchsorted(cuts, values))


def _parts(moments: Any) -> np.ndarray:
    frame = pd.DataFrame({"moment": pd.Series(list(moments), dtype="datetime64[us]")})
    return clock_parts(frame).to_numpy()


def _inner_order(estimator: Any, width: int) -> list[int]:
    """Where the estimator itself moves each encoded column: categorical ones first."""
    if estimator._preprocessor is None:
        return list(range(width))
    categorical = np.asarray(estimator.is_categorical_)
    order = np.empty(width, dtype=int)
    order[np.concatenate([np.flatnonzero(categorical), np.flatnonzero(~categorical)])] = np.arange(width)
    return [int(place) for place in order]


def _inner_codes(estimator: Any, source: Source, inner: int, width: int) -> dict[str | None, float]:
    """What the estimator itself makes of each level's code."""
    assert source.levels is not None
    table = np.full((len(source.levels), width), np.nan)
    table[:, source.columns[0]] = [code[0] for code in source.levels.values()]
    codes = np.asarray(estimator._preprocess_X(table, reset=False))[:, inner]
    return {level: float(code) for level, code in zip(source.levels, codes, strict=True)}


class _Linear:
    """A linear model: adds up what each feature contributes."""

    def __init__(self, estimator: Any, given: list[Source]) -> None:
        weights = np.atleast_2d(np.asarray(estimator.coef_, dtype=float))
        self.width = len(weights)
        self._start = np.zeros(self.width) + np.asarray(estimator.intercept_, dtype=float)
        self._levels: list[tuple[int, dict[str | None, np.ndarray], np.ndarray]] = []
        self._numbers: list[tuple[Source, np.ndarray]] = []
        for source in given:
            weight = weights[:, source.columns]
            if source.levels is None:
                self._numbers.append((source, weight[:, 0]))
            else:
                table = {level: weight @ code for level, code in source.levels.items()}
                self._levels.append((source.feature, table, table.pop(UNKNOWN)))

    def raw(self, values: Sequence[Any]) -> np.ndarray:
        """The decision (k,) of one row."""
        total = self._start
        for feature, table, unknown in self._levels:
            total = total + table.get(values[feature], unknown)
        for source, weight in self._numbers:
            value = values[source.feature]
            if source.part is not None:
                value = source.fill if value is None else clock_part(value, source.part)
            elif value != value:
                value = source.fill
            total = total + (value - source.mean) / source.scale * weight
        return np.asarray(total)

    def raw_many(self, columns: Sequence[Any]) -> np.ndarray:
        """The same (n, k) of n rows, given as one sequence of values a feature."""
        total: Any = self._start
        for feature, table, unknown in self._levels:
            total = total + _looked_up(columns[feature], table, unknown)
        for source, weight in self._numbers:
            given = columns[source.feature]
            values = np.asarray(given, dtype=float) if source.part is None else _parts(given)[:, source.part]
            values = np.where(np.isnan(values), source.fill, values)
            total = total + ((values - source.mean) / source.scale)[:, None] * weight
        return np.asarray(total)


def _compare(path: Compiled, model: Any, golden: pd.DataFrame, *, seed: int) -> None:
    """Row by row and all at once, against the pipeline."""
    reader, schema = Reader(path.schema), path.schema
    rows = [*records(golden, schema=schema), *mutated(golden, schema=schema, rows=_TRIALS, seed=seed)]
    read = [reader.read(row)[0] for row in rows]
    table = reader.frame(read)
    expected = predictions(model, table, schema=schema)
    singly = np.array([path.predict_row(row) for row in read])
    for found in (singly, path.predict_rows(read), path.predict(table)):
        wrong = ~np.isclose(found, expected, rtol=TOLERANCE, atol=TOLERANCE)  # infinities must be the same
        if wrong.any():
            raise refusal(f"{wrong.sum()} of {wrong.size} answers differ from the pipeline's")
