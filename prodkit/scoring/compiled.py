"""The compiled path: a pipeline as tables and arithmetic, used only if it gives the same answers."""

from __future__ import annotations

import math
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

import numpy as np
import pandas as pd
import treelite
from sklearn.pipeline import Pipeline
from sklearn.preprocessing import FunctionTransformer

from prodkit.data.schema import Schema
from prodkit.errors import ModelError
from prodkit.models.estimators import MeanModel, clock_parts, predictions, threads_for
from prodkit.scoring.bits import BitTrees, linked
from prodkit.scoring.mutations import mutated, records
from prodkit.scoring.rows import Reader

__all__ = ["Compiled", "compiled"]

TOLERANCE = 1e-9  # rounding, and nothing else
_TRIALS = 600
_LEVEL_ROWS = 4  # in which each level of a category is tried
_FEW_ROWS = 2  # up to here treelite is faster than tables of bits
_MANY_ROWS = 256  # from here the estimator itself is faster than treelite
_EPOCH, _DAY = datetime(1970, 1, 1), timedelta(days=1)
_UNKNOWN = "\N{REPLACEMENT CHARACTER} a level that nobody has seen"

Head = Callable[[np.ndarray], np.ndarray]  # encoded rows (n, w) to linked answers (n, k)


class Compiled:
    """Predicts rows as :class:`Reader` reads them, without pandas and without scikit-learn's checks.

    Made by :func:`compiled`. Trees are answered by treelite (a row in some 60 microseconds) and, many rows at once,
    by :class:`prodkit.scoring.bits.BitTrees` or the estimator itself; linear models by a dot product.
    """

    def __init__(self, encoder: _Encoder, head: Head, *, schema: Schema, classes: Sequence[int]) -> None:
        self.schema = schema
        self._encoder, self._head, self._classes = encoder, head, list(classes)

    def predict_row(self, values: Sequence[Any]) -> float | np.ndarray:
        """The answer to one row: a float, or (k,) shares for ``multiclass``.

        Args:
            values: the features in the schema's order.
        """
        answer = self._answers(self._head(np.array([self._encoder.row(values)])))[0]
        return answer if self.schema.task == "multiclass" else float(answer)

    def predict(self, columns: Sequence[Any]) -> np.ndarray:
        """The answers to n rows, as :func:`prodkit.models.estimators.predictions`.

        Args:
            columns: n values of each feature, in the schema's order.
        """
        return self._answers(self._head(self._encoder.table(columns)))

    def _answers(self, linked: np.ndarray) -> np.ndarray:
        if self.schema.task != "multiclass":
            return np.asarray(linked[:, -1])
        shares = np.zeros((len(linked), len(self.schema.classes)))
        shares[:, self._classes] = linked  # a class that the model has not seen keeps 0
        return shares


class _CompiledMean(Compiled):
    """The mean of several compiled paths."""

    def __init__(self, paths: Sequence[Compiled]) -> None:
        self.schema, self._paths = paths[0].schema, list(paths)

    def predict_row(self, values: Sequence[Any]) -> float | np.ndarray:
        return sum(path.predict_row(values) for path in self._paths) / len(self._paths)

    def predict(self, columns: Sequence[Any]) -> np.ndarray:
        return np.asarray(np.mean([path.predict(columns) for path in self._paths], axis=0))


def compiled(model: Any, *, schema: Schema, golden: pd.DataFrame, seed: int = 0) -> Compiled:
    """Compile a fitted pipeline, and compare the answers with the pipeline's.

    Covered are linear models, and the trees of scikit-learn, LightGBM and XGBoost that treelite imports, behind the
    encoding of :func:`prodkit.models.estimators.build_model`. The comparison is over the golden rows and 600
    mutations of them: unknown levels, missing values, extremes.

    Args:
        model: the pipeline.
        schema: what it was fitted on.
        golden: (n, m) real rows.
        seed: of the mutations.

    Raises:
        ModelError: it cannot be compiled, or an answer differs by more than 1e-9; then the pipeline must answer.
    """
    try:
        with np.errstate(all="ignore"):  # a model that overflows is compared as it is
            path = _compile(model, schema, golden)
            _compare(path, model, golden, seed=seed)
    except ModelError:
        raise
    except Exception as error:  # a model may be anything
        raise _refusal(f"{type(error).__name__}: {error}") from error
    return path


def _refusal(why: str) -> ModelError:
    fix = "Nothing needs to be done: the pipeline answers, more slowly."
    return ModelError("model", rule=f"has no compiled row path: {why}", fix=fix)


def _compile(model: Any, schema: Schema, golden: pd.DataFrame) -> Compiled:
    if isinstance(model, MeanModel):
        return _CompiledMean([_compile(each, schema, golden) for each in model.models])
    if not isinstance(model, Pipeline) or list(model.named_steps) != ["encode", "model"]:
        raise _refusal("it is not a pipeline of the kit's making")
    estimator = model.named_steps["model"]
    classes = [] if schema.task == "regression" else [int(each) for each in model.classes_]
    if len(classes) == 1:
        raise _refusal("it has seen one class only")
    encoder = _Encoder(model.named_steps["encode"], schema)
    if type(estimator).__module__.startswith("sklearn.linear_model") and hasattr(estimator, "coef_"):
        return Compiled(encoder, _linear(estimator, schema.task), schema=schema, classes=classes)
    head, ask = _trees(estimator, schema.task)
    if hasattr(estimator, "is_categorical_"):
        few = schema.coerce(golden.head(_LEVEL_ROWS))
        encoder.blank_unknown(few, differ=lambda rows: ~np.isclose(head(rows)[:, -1], ask(rows)[:, -1]))
    return Compiled(encoder, head, schema=schema, classes=classes)


def _compare(path: Compiled, model: Any, golden: pd.DataFrame, *, seed: int) -> None:
    """Row by row and all at once, against the pipeline."""
    reader, schema = Reader(path.schema), path.schema
    real = records(golden, schema=schema)
    rows = [*real, *mutated(golden, schema=schema, rows=_TRIALS, seed=seed)]
    singles = len(rows)
    rows += [real[0] | {column.name: level} for column in schema.features for level in column.levels or ()]
    values = [reader.read(row)[0] for row in rows]
    table = reader.frame(values)
    expected = predictions(model, table, schema=schema)
    singly = np.array([path.predict_row(row) for row in values[:singles]])
    columns = [table[name].to_numpy() for name in schema.names]
    for answers in (singly, path.predict(list(zip(*values, strict=True))), path.predict(columns)):
        right = expected[: len(answers)]
        wrong = ~np.isclose(answers, right, rtol=TOLERANCE, atol=TOLERANCE)  # infinities must be the same
        if wrong.any():
            raise _refusal(f"{wrong.sum()} of {wrong.size} answers differ from the pipeline's")


def _linear(estimator: Any, task: str) -> Head:
    weights = np.atleast_2d(np.asarray(estimator.coef_, dtype=float))
    intercept = np.zeros(len(weights)) + np.asarray(estimator.intercept_, dtype=float)
    link = "identity" if task == "regression" else "sigmoid" if len(weights) == 1 else "softmax"
    return lambda matrix: linked(matrix @ weights.T + intercept, link)


def _trees(estimator: Any, task: str) -> tuple[Head, Head]:
    """The compiled answers, and the estimator's own."""
    model = _imported(estimator)
    bits, link = BitTrees.of(model), str(model.get_header_accessor().get_field("postprocessor"))
    narrow = hasattr(estimator, "estimators_")  # scikit-learn's exact trees read numbers of 32 bits

    def ask(matrix: np.ndarray) -> np.ndarray:
        with threads_for(matrix.size):
            values = estimator.predict(matrix) if task == "regression" else estimator.predict_proba(matrix)
        return np.asarray(values, dtype=float).reshape(len(matrix), -1)

    def answer(matrix: np.ndarray) -> np.ndarray:
        if narrow:
            with np.errstate(over="ignore"):
                matrix = matrix.astype(np.float32).astype(np.float64)
            if np.isinf(matrix).any():
                raise ValueError("a number is too large for the 32 bits of its trees")
        if bits is not None and len(matrix) > _FEW_ROWS:
            return bits.predict(matrix)
        if len(matrix) < _MANY_ROWS:
            # treelite's own softmax is of 32 bits
            raw = treelite.gtil.predict(model, matrix, nthread=1, pred_margin=link == "softmax")[:, 0]
            return linked(raw.astype(float), link) if link == "softmax" else raw.astype(float)
        return ask(matrix)

    return answer, ask


def _imported(estimator: Any) -> treelite.Model:
    """Trees of scikit-learn, LightGBM or XGBoost as treelite has them."""
    if "lightgbm" in sys.modules and hasattr(estimator, "booster_"):
        return treelite.frontend.from_lightgbm(estimator.booster_)
    if "xgboost" in sys.modules and hasattr(estimator, "get_booster"):
        return treelite.frontend.from_xgboost(estimator.get_booster())
    try:
        return treelite.sklearn.import_model(estimator)
    except treelite.TreeliteError as error:
        raise _refusal(
            f"{type(estimator).__name__} is neither linear nor trees that treelite knows"
        ) from error


@dataclass
class _Number:
    """How one number becomes one encoded column: ``(value - mean) / scale``, ``fill`` in place of a missing one."""

    feature: int
    column: int
    part: int | None = None  # of clock_parts; None of a plain number
    fill: float = math.nan
    mean: float = 0.0
    scale: float = 1.0


class _Encoder:
    """What the fitted encoder of a pipeline does to each feature: tables for levels, formulas for numbers."""

    def __init__(self, encoder: Any, schema: Schema) -> None:
        places = {column.name: place for place, column in enumerate(schema.features)}
        self._base: list[float] = _ask_encoder(encoder, schema, {}, rows=1)[0].tolist()
        self._levels: list[tuple[int, list[int], dict[str | None, list[float]], list[float]]] = []
        self._numbers: list[_Number] = []
        for name, step, columns in encoder.transformers_:
            where = encoder.output_indices_[name]
            if name == "remainder" or where.start == where.stop:
                continue
            if name in ("categorical", "many levels"):
                for column, known in zip(columns, step.categories_, strict=True):
                    self._add_levels(encoder, schema, column, places[column], known)
            elif name in ("numbers", "datetime"):
                parts = [None] if name == "numbers" else list(range(4))
                features = [(places[str(column)], part) for column in columns for part in parts]
                numbers = [
                    _Number(feature, where.start + offset, part)
                    for offset, (feature, part) in enumerate(features)
                ]
                _scale(step, numbers)
                self._numbers += numbers
            else:
                raise _refusal(f"its encoder has a step of its own, {name}")

    def _add_levels(self, encoder: Any, schema: Schema, name: str, feature: int, known: Any) -> None:
        levels: list[Any] = [*(level for level in known if isinstance(level, str)), _UNKNOWN, None]
        codes = _ask_encoder(encoder, schema, {name: levels}, rows=len(levels))
        same = (codes == codes[-1]) | (np.isnan(codes) & np.isnan(codes[-1]))
        columns = np.flatnonzero(~same.all(axis=0))
        table = dict(zip(levels, codes[:, columns].tolist(), strict=True))
        self._levels.append((feature, columns.tolist(), table, table.pop(_UNKNOWN)))

    def blank_unknown(self, real: pd.DataFrame, *, differ: Callable[[np.ndarray], np.ndarray]) -> None:
        """Encode levels as missing for which answers would differ: the estimator has not seen them.

        Args:
            real: (n, m) rows in which every level is tried.
            differ: tells (r,) of encoded rows whether their answers differ.
        """
        rows = self.table([real[name].to_numpy() for name in real])
        for _, columns, table, _ in self._levels:
            matrix = np.tile(rows, (len(table), 1))
            matrix[:, columns] = np.repeat(np.array(list(table.values())), len(rows), axis=0)
            unknown = np.any(differ(matrix).reshape(-1, len(rows)), axis=1).tolist()
            for level, wrong in zip(table, unknown, strict=True):
                table[level] = table[None] if wrong else table[level]

    def row(self, values: Sequence[Any]) -> list[float]:
        """One encoded row (w,)."""
        encoded = self._base.copy()
        for feature, columns, table, unknown in self._levels:
            for column, code in zip(columns, table.get(values[feature], unknown), strict=True):
                encoded[column] = code
        for number in self._numbers:
            value = values[number.feature]
            if value is None or value != value:
                value = number.fill
            elif number.part is not None:
                value = _clock_part(value, number.part)
            encoded[number.column] = (value - number.mean) / number.scale
        return encoded

    def table(self, columns: Sequence[Any]) -> np.ndarray:
        """The same (n, w) of n rows, given as n values of each feature; stored column by column."""
        encoded = np.empty((len(columns[0]), len(self._base)), order="F")
        encoded[:] = self._base
        for feature, places, table, unknown in self._levels:
            codes, levels = pd.factorize(np.asarray(columns[feature], dtype=object))
            rows = [*(table.get(level, unknown) for level in levels), table[None]]  # -1, missing, is the last
            encoded[:, places] = np.array(rows).reshape(len(rows), -1)[codes]
        clocks: dict[int, np.ndarray] = {}
        for number in self._numbers:
            given = columns[number.feature]
            if number.part is None:
                values = np.asarray(given, dtype=float)
            else:
                if number.feature not in clocks:
                    moments = pd.Series(list(given), dtype="datetime64[us]")
                    clocks[number.feature] = clock_parts(moments.to_frame("moment")).to_numpy()
                values = clocks[number.feature][:, number.part]
            values = np.where(np.isnan(values), number.fill, values)
            encoded[:, number.column] = (values - number.mean) / number.scale
        return encoded


def _ask_encoder(encoder: Any, schema: Schema, cells: dict[str, list[Any]], *, rows: int) -> np.ndarray:
    """What the encoder makes (n, w) of n rows in which all but the given cells are missing."""
    frame = pd.DataFrame({name: cells.get(name, [None] * rows) for name in schema.names}, dtype=object)
    return np.asarray(encoder.transform(schema.coerce(frame)), dtype=float)


def _scale(step: Any, numbers: list[_Number]) -> None:
    """Read how numbers are imputed and scaled, if they are."""
    for each in list(step.named_steps.values()) if isinstance(step, Pipeline) else [step]:
        if isinstance(each, FunctionTransformer):
            if each.func not in (None, clock_parts):
                raise _refusal("its encoder has a function of its own")
            continue
        for position, number in enumerate(numbers):
            if hasattr(each, "statistics_"):
                number.fill = float(each.statistics_[position])
            elif hasattr(each, "mean_"):
                number.mean, number.scale = float(each.mean_[position]), float(each.scale_[position])
            elif each != "passthrough":
                raise _refusal(f"its encoder has a step of its own, {type(each).__name__}")


def _clock_part(moment: datetime, part: int) -> float:
    if part == 0:
        return (moment - _EPOCH) / _DAY
    return float((moment.month, moment.weekday(), moment.hour)[part - 1])
