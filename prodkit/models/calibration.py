"""Rows that a model had not seen, with its predictions and labels, and what predictions are worth by them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from sklearn.ensemble import HistGradientBoostingRegressor
from sklearn.isotonic import IsotonicRegression
from sklearn.model_selection import PredefinedSplit, cross_val_predict

from prodkit.data.schema import Schema
from prodkit.models.estimators import threads_for
from prodkit.models.metrics import Floats, row_losses
from prodkit.models.training import OutOfTime
from prodkit.params import Task

__all__ = [
    "CalibrationSet",
    "LossModel",
    "calibrated",
    "class_chances",
    "class_shares",
    "encoded",
    "expected_worth",
    "learnable",
]

_MOST_ROWS = 20_000  # kept with a version
_MOST_CELLS = 2_000_000  # so that a wide table does not make a heavy model: 8 MB at the most
_MOST_COLUMNS = 100
_MOST_LEVELS = 250  # histogram trees take at most 255 levels of a category
_FOLDS = 5
_TREES: dict[str, Any] = {"max_iter": 60, "max_leaf_nodes": 15, "min_samples_leaf": 40, "l2_regularization": 1.0,
                          "early_stopping": False, "random_state": 0}  # fmt: skip
_CLIP = 1e-6  # as in the losses that are realised


@dataclass(frozen=True)
class LossModel:
    """How far a predicted quantity is off, learned from where it was off (a direct loss estimate).

    Attributes:
        trees: take the encoded columns and the prediction, and give the mean absolute error.
        expected: (n,) the errors expected by trees that had not seen a row's days.
        square: mean of the squared error, in units of the squared expectation.
    """

    trees: Any
    expected: Floats
    square: float

    def predict(self, columns: np.ndarray, predicted: Floats) -> Floats:
        """The (n,) expected absolute error of each row."""
        errors: Floats = self.trees.predict(np.column_stack([columns, predicted]))
        return np.maximum(errors, 0.0)

    @classmethod
    def fit(cls, columns: np.ndarray, predicted: Floats, losses: Floats, days: np.ndarray) -> LossModel:
        """Learn from absolute errors (n,); the expectations come from folds of whole days."""
        trees = HistGradientBoostingRegressor(**_TREES)
        days, place = np.unique(days, return_inverse=True)
        fold = place * _FOLDS // len(days)
        given = learnable(np.column_stack([columns, predicted]), fold)
        expected = np.full(len(losses), losses.mean())
        with threads_for(len(given)):
            if len(days) > 1:
                cv = PredefinedSplit(fold)
                expected = np.maximum(cross_val_predict(trees, given, losses, cv=cv), 0.0)
            trees.fit(given, losses)
        return cls(trees, expected, float((losses**2).mean() / max((expected**2).mean(), 1e-300)))


@dataclass(frozen=True)
class CalibrationSet:
    """Out-of-time rows with their predictions and labels, small enough to be kept with the version.

    The predictions are those of models that had not learned from the rows: a model's predictions of its own training
    rows are too good, and so would be all that is calibrated on them.

    Attributes:
        schema: the frozen columns.
        names: the columns kept: the important ones, without dates, of which no window has any twice.
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
        levels = [self.schema.column(name).levels for name in self.names]
        return np.array([each is not None and len(each) <= _MOST_LEVELS for each in levels], dtype=bool)

    def encode(self, frame: pd.DataFrame) -> NDArray[np.float32]:
        """The kept columns of other rows (n, m)."""
        return encoded(self.schema.coerce(frame), self.schema, self.names)

    @classmethod
    def of(cls, tested: OutOfTime, *, importance: Mapping[str, float]) -> CalibrationSet:
        """Keep at most 20,000 of the tested rows, evenly taken, and the important columns.

        Args:
            tested: predictions by models that had not seen the rows.
            importance: rise of the loss when a column is shuffled; columns without any are left out, unless all are.
        """
        schema = tested.schema
        usable = [column.name for column in schema.features if column.kind != "datetime"]
        ranked = sorted(usable, key=lambda name: -importance.get(name, 0.0))
        chosen = [name for name in ranked if importance.get(name, 0.0) > 0][:_MOST_COLUMNS]
        names = tuple(name for name in usable if name in (chosen or ranked[:_MOST_COLUMNS]))
        most = min(_MOST_ROWS, _MOST_CELLS // max(1, len(names)))
        known = np.isfinite(np.column_stack([tested.truth, tested.predicted]).astype(float)).all(axis=1)
        places = np.flatnonzero(known)
        rows = places[:: max(1, -(-len(places) // most))]
        columns = encoded(schema.coerce(tested.frame.iloc[rows]), schema, names)
        truth, predicted, days = tested.truth[rows], tested.predicted[rows], tested.days[rows]
        model = None
        if schema.task == "regression" and len(rows):
            losses = row_losses(truth, predicted, task="regression")
            model = LossModel.fit(columns, predicted, losses, days)
        return cls(schema, names, columns, truth, predicted, days, model)


def encoded(coerced: pd.DataFrame, schema: Schema, names: tuple[str, ...]) -> NDArray[np.float32]:
    """Coerced columns as numbers (n, m): levels by their place in the schema, one more for a new one, NaN if missing.

    Of a column with more than 250 levels the place is a number like any other.
    """
    table = np.empty((len(coerced), len(names)), dtype=np.float32)
    limit = float(np.finfo(np.float32).max) / 2
    for place, name in enumerate(names):
        values, levels = coerced[name], schema.column(name).levels
        if levels is None:
            table[:, place] = values.to_numpy(dtype=float).clip(-limit, limit)
            continue
        codes = pd.Index(levels, dtype=object).get_indexer(pd.Index(values.to_numpy(dtype=object)))
        table[:, place] = np.where(values.isna(), np.nan, np.where(codes < 0, len(levels), codes))
    return table


def learnable(table: np.ndarray, fold: np.ndarray) -> np.ndarray:
    """The table (n, m) with zeros in columns that are empty without one of the folds (n,), which trees refuse."""
    table = table.copy()
    for rest in (fold != each for each in (-1, *np.unique(fold))):
        if rest.any():
            table[:, np.isnan(table[rest]).all(axis=0)] = 0.0
    return table


def calibrated(scores: Floats, came_true: Floats, *, weights: Floats | None = None) -> IsotonicRegression:
    """The chance of a class by score, learned from rows that the model had not seen (Zadrozny & Elkan 2002).

    A chance may be 0 or 1: it is no claim of the model, and no logarithm is taken of it.

    Args:
        scores: (n,), at least one.
        came_true: (n,) 0 or 1.
        weights: (n,) of the rows; equal if not given.
    """
    curve = IsotonicRegression(y_min=0, y_max=1, out_of_bounds="clip")
    return curve.fit(scores, came_true, sample_weight=weights)


def class_shares(predicted: Floats) -> Floats:
    """Predictions (n,) or (n, k) as shares of all classes (n, k)."""
    return np.column_stack([1 - predicted, predicted]) if predicted.ndim == 1 else predicted


def class_chances(
    truth: NDArray[np.int64], then: Floats, others: Sequence[Floats], *, weights: Floats | None = None
) -> list[Floats]:
    """The chance of each class (n, k) for several tables of shares (n, k), learned from rows with known labels.

    Each class is calibrated against the rest, of two only the second; then rows are made to add up to one.

    Args:
        truth: (m,) class indices.
        then: (m, k) shares predicted for them.
        others: tables of shares.
        weights: (m,) of the rows.
    """
    k = then.shape[1]
    classes = range(1 if k == 2 else 0, k)
    curves = [calibrated(then[:, one], (truth == one).astype(float), weights=weights) for one in classes]
    tables = []
    for shares in others:
        chances = np.column_stack(  # by its thresholds, since a missing share has a missing chance
            [
                np.interp(shares[:, one], curve.X_thresholds_, curve.y_thresholds_)
                for one, curve in zip(classes, curves, strict=True)
            ]
        )
        if k == 2:
            tables.append(np.column_stack([1 - chances[:, 0], chances[:, 0]]))
            continue
        total = chances.sum(axis=1, keepdims=True)
        tables.append(np.where(total > 0, chances / np.where(total > 0, total, 1.0), 1 / k))
    return tables


def expected_worth(
    chances: Floats, scores: Floats, *, task: Task
) -> dict[str, tuple[float, Callable[[Floats], Floats]]]:
    """The expected scores by name, if each row comes true with its chance, and what a row adds to each.

    Args:
        chances: (n, k) of each class, calibrated; rows add up to one.
        scores: (n, k) the shares predicted.
        task: binary or multiclass.

    Returns:
        Each score, and a function of shares (n, k): what a row adds if it comes to each class (n, k). Of the mean
        scores that is the row's own; of the area under the curve, it is the row's influence.

    >>> both = np.array([[0.8, 0.2], [0.1, 0.9]])
    >>> {name: round(value, 3) for name, (value, _) in expected_worth(both, both, task="binary").items()}
    {'log_loss': 0.413, 'roc_auc': 0.854, 'accuracy': 0.85, 'brier': 0.125}
    """
    k = scores.shape[1]
    rows: dict[str, Callable[[Floats], Floats]] = {
        "log_loss": lambda given: -np.log(given.clip(_CLIP, 1 - _CLIP)),
        "accuracy": lambda given: np.eye(k)[given.argmax(axis=1)],
        "brier": lambda given: (1 - given) ** 2,
    }
    means = {
        name: (float((chances * worth(scores)).sum() / len(scores)), worth) for name, worth in rows.items()
    }
    classes = range(k) if task == "multiclass" else [1]
    curves = [_Ranking.of(chances[:, one], scores[:, one]) for one in classes]
    area = sum(each.area * each.share for each in curves) if task == "multiclass" else curves[0].area
    ranked = {"roc_auc": (float(area), partial(_area_influence, curves))}
    means = means if task == "binary" else {name: means[name] for name in ("log_loss", "accuracy")}
    return {"log_loss": means.pop("log_loss"), **ranked, **means}


@dataclass(frozen=True)
class _Ranking:
    """The ROC curve of one class against the rest: its area, the class's share, and both cumulative shares."""

    area: float
    share: float
    scores: Floats  # distinct, falling
    hits: Floats  # cumulative share of the class at or above each
    misses: Floats

    def above(self, given: Floats, cumulative: Floats) -> Floats:
        """Share of a side that lies above each score, ties half."""
        ends = np.concatenate([[0.0], cumulative])
        left, right = (np.searchsorted(-self.scores, -given, side=side) for side in ("left", "right"))
        share: Floats = (ends[left] + ends[right]) / 2
        return share

    @classmethod
    def of(cls, chances: Floats, scores: Floats) -> _Ranking:
        order = np.argsort(-scores)
        falling = scores[order]
        ends = np.append(np.flatnonzero(np.diff(falling)), len(order) - 1)
        hits = np.cumsum(chances[order])[ends]
        misses = ends + 1 - hits
        positives, negatives = hits[-1], misses[-1]
        with np.errstate(invalid="ignore", divide="ignore"):
            gained, missed = np.diff(hits, prepend=0.0), np.diff(misses, prepend=0.0)
            area = float((gained * (negatives - misses + missed / 2)).sum() / (positives * negatives))
            share = float(positives / len(scores))
            return cls(area, share, falling[ends], hits / positives, misses / negatives)


def _area_influence(curves: Sequence[_Ranking], given: Floats) -> Floats:
    """Influence of a row on the area under the curve (Hanley & Hajian-Tilaki 1997), if it comes to each class."""
    if len(curves) == 1:
        (one,) = curves
        score = given[:, 1]
        hit = (1 - one.above(score, one.misses) - one.area) / one.share
        miss = (one.above(score, one.hits) - one.area) / (1 - one.share)
        return np.column_stack([miss, hit])
    hits, misses = np.empty_like(given), np.empty_like(given)
    for k, one in enumerate(curves):
        rest = 1 - one.share
        hits[:, k] = 1 - one.above(given[:, k], one.misses) + one.share * one.area / rest
        misses[:, k] = one.share / rest * one.above(given[:, k], one.hits)
    influence: Floats = misses.sum(axis=1, keepdims=True) - misses + hits
    return influence
