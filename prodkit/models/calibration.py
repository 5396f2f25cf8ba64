"""Rows that a model had not seen, with its answers and what came of them: they judge answers that have no label yet."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from sklearn.ensemble import HistGradientBoostingRegressor

from prodkit.data.schema import Schema
from prodkit.models.estimators import threads_for
from prodkit.models.losses import row_losses

if TYPE_CHECKING:
    from prodkit.models.training import OutOfTime
    from prodkit.params import Task

__all__ = ["CalibrationSet", "LossModel", "encoded"]

Floats = NDArray[np.float64]

_MOST_ROWS = 20_000
_MOST_CELLS = 2_000_000  # so that a wide table does not make a heavy model: 8 MB at the most
_MOST_COLUMNS = 100
_MOST_LEVELS = 250  # histogram trees take at most 255 levels of a category
_FOLDS = 5
_TREES: dict[str, Any] = {"max_iter": 60, "max_leaf_nodes": 15, "min_samples_leaf": 40, "l2_regularization": 1.0,
                          "early_stopping": False, "random_state": 0}  # fmt: skip


@dataclass(frozen=True)
class LossModel:
    """How far a predicted quantity lies off, learned from where it lay off (a direct loss estimate).

    Attributes:
        trees: take the encoded columns and the prediction, and give the mean absolute error.
        expected: (n,) what trees that had not seen a row's days said of it.
        square: mean of the squared error, in units of the squared expectation.
    """

    trees: Any
    expected: Floats
    square: float

    def predict(self, columns: np.ndarray, predicted: Floats) -> Floats:
        """The (n,) expected absolute error of each row."""
        said: Floats = self.trees.predict(np.column_stack([columns, predicted]))
        return np.maximum(said, 0.0)

    @classmethod
    def fit(cls, columns: np.ndarray, predicted: Floats, losses: Floats, days: np.ndarray) -> LossModel:
        """Learn from absolute errors (n,); the expectations come from folds of whole days."""
        given = np.column_stack([columns, predicted])
        _, place = np.unique(days, return_inverse=True)
        fold = place * _FOLDS // (place.max() + 1)
        expected = np.full(len(losses), losses.mean())
        with threads_for(len(given)):
            for each in np.unique(fold):
                rest = fold != each
                if rest.any():
                    trees = HistGradientBoostingRegressor(**_TREES).fit(given[rest], losses[rest])
                    expected[~rest] = np.maximum(trees.predict(given[~rest]), 0.0)
            trees = HistGradientBoostingRegressor(**_TREES).fit(given, losses)
        return cls(trees, expected, float((losses**2).mean() / max((expected**2).mean(), 1e-300)))


@dataclass(frozen=True)
class CalibrationSet:
    """Out-of-time rows with their answers and labels, small enough to be kept with the version.

    The answers are those of models that had not learned from the rows: what a model says of its own training rows is
    too good, and so would be all that is calibrated on it.

    Attributes:
        schema: the frozen columns.
        names: the columns kept: those that the model leans on, without dates, of which no window has any twice.
        columns: (n, m) float32, as :func:`encoded` gives them.
        truth: (n,) class indices or numbers.
        predicted: (n,) or (n, k).
        days: (n,) day of each row.
        loss_model: of a regression; None for classes.
    """

    schema: Schema
    names: tuple[str, ...]
    columns: NDArray[np.float32]
    truth: np.ndarray
    predicted: np.ndarray
    days: np.ndarray
    loss_model: LossModel | None = None

    @property
    def task(self) -> Task:
        """Binary, multiclass or regression."""
        return self.schema.task

    @property
    def categorical(self) -> NDArray[np.bool_]:
        """Which of the columns are codes of levels (m,)."""
        return np.array([_is_coded(self.schema, name) for name in self.names], dtype=bool)

    def encode(self, frame: pd.DataFrame) -> NDArray[np.float32]:
        """The kept columns of other rows (n, m)."""
        return encoded(self.schema.coerce(frame), self.schema, self.names)

    @classmethod
    def of(cls, tested: OutOfTime, *, importance: dict[str, float]) -> CalibrationSet:
        """Keep at most 20,000 of the tested rows, evenly taken, and the columns that the model leans on.

        Args:
            tested: what models that had not seen the rows said of them.
            importance: rise of the loss when a column is shuffled; columns without any are left out, unless all are.
        """
        schema = tested.schema
        usable = [column.name for column in schema.features if column.kind != "datetime"]
        ranked = sorted(usable, key=lambda name: -importance.get(name, 0.0))
        chosen = [name for name in ranked if importance.get(name, 0.0) > 0][:_MOST_COLUMNS]
        names = tuple(name for name in usable if name in (chosen or ranked[:_MOST_COLUMNS]))
        most = min(_MOST_ROWS, _MOST_CELLS // max(1, len(names)))
        told = np.isfinite(np.column_stack([tested.truth, tested.predicted]).astype(float)).all(axis=1)
        places = np.flatnonzero(told)
        kept = places[:: max(1, -(-len(places) // most))]
        columns = encoded(schema.coerce(tested.frame.iloc[kept]), schema, names)
        truth, predicted, days = tested.truth[kept], tested.predicted[kept], tested.days[kept]
        model = None
        if schema.task == "regression" and len(kept):
            losses = row_losses(truth, predicted, task="regression")
            model = LossModel.fit(columns, predicted, losses, days)
        return cls(schema, names, columns, truth, predicted, days, model)


def encoded(coerced: pd.DataFrame, schema: Schema, names: tuple[str, ...]) -> NDArray[np.float32]:
    """Coerced columns as numbers (n, m): levels by their place in the schema, one more for a new one, NaN if missing.

    Of a column with more than 250 levels the place is a number like any other.
    """
    found = np.empty((len(coerced), len(names)), dtype=np.float32)
    limit = float(np.finfo(np.float32).max) / 2
    for place, name in enumerate(names):
        levels = schema.column(name).levels
        if levels is None:
            found[:, place] = coerced[name].to_numpy(dtype=float).clip(-limit, limit)
            continue
        values = coerced[name]
        codes = pd.Index(levels, dtype=object).get_indexer(pd.Index(values.to_numpy(dtype=object)))
        found[:, place] = np.where(values.isna(), np.nan, np.where(codes < 0, len(levels), codes))
    return found


def _is_coded(schema: Schema, name: str) -> bool:
    levels = schema.column(name).levels
    return levels is not None and len(levels) <= _MOST_LEVELS
