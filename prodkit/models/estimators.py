"""An estimator named by parameters: built around a frozen schema, fitted, and asked for predictions."""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from contextlib import nullcontext
from dataclasses import dataclass
from functools import cache, partial
from typing import Any

import numpy as np
import pandas as pd
from sklearn.base import BaseEstimator, is_classifier, is_regressor
from sklearn.compose import ColumnTransformer
from sklearn.impute import SimpleImputer
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import FunctionTransformer, OneHotEncoder, OrdinalEncoder, StandardScaler
from sklearn.utils import get_tags
from threadpoolctl import ThreadpoolController

from prodkit.data.cells import texts
from prodkit.data.schema import Schema
from prodkit.errors import ModelError, ProdkitError

__all__ = ["Fallback", "build_model", "fit_model", "predictions", "threads_for"]

_AUTO = {
    "binary": "sklearn.ensemble.HistGradientBoostingClassifier",
    "multiclass": "sklearn.ensemble.HistGradientBoostingClassifier",
    "regression": "sklearn.ensemble.HistGradientBoostingRegressor",
}
_AUTO_ARGUMENTS = {"learning_rate": 0.05}  # half of scikit-learn's: noisy tables are soon learned by heart
_AUTO_ONLY = {"multiclass": {"early_stopping": False}}  # which needs two rows of each class, however rare
_SMALL_ROWS = 50_000
_MOST_LEVELS = 250  # histogram trees take at most 255 levels of a category; rarer ones share a bin


def build_model(
    path: str, *, schema: Schema, arguments: Mapping[str, Any] | None = None, seed: int = 0
) -> Pipeline:
    """Import, construct and wrap an estimator so that it takes the schema's columns.

    Args:
        path: ``auto`` (histogram trees that learn slowly), the import path of an estimator class, or
            ``package.module:factory``. A factory that returns a whole ``Pipeline`` is used as it is; anything else
            is wrapped with the usual encoding: ordinal codes for histogram trees, else one-hot codes and imputed
            and scaled numbers.
        schema: the frozen columns; the pipeline takes ``schema.coerce(rows)``.
        arguments: keyword arguments of the class or factory.
        seed: random state, where the estimator has one that is not set in ``arguments``.

    Raises:
        ModelError: it cannot be imported or constructed, or does not fit the task.
    """
    given = dict(arguments or {})
    if path == "auto":
        path, given = _AUTO[schema.task], _AUTO_ARGUMENTS | _AUTO_ONLY.get(schema.task, {}) | given
    estimator = _construct(path, given)
    _require_task(estimator, schema, path)
    if "random_state" in estimator.get_params(deep=False) and "random_state" not in given:
        estimator.set_params(random_state=seed)
    if isinstance(estimator, Pipeline):
        return estimator
    return Pipeline([("encode", _encoder(estimator, schema)), ("model", estimator)])


def _construct(path: str, arguments: dict[str, Any]) -> Any:
    module, _, name = path.partition(":") if ":" in path else path.rpartition(".")
    try:
        maker = getattr(importlib.import_module(module), name)
    except Exception as error:  # a module of one's own may raise anything
        fix = "Write it as sklearn.ensemble.RandomForestClassifier or my_package.my_module:factory."
        rule = f"must name something that can be imported ({type(error).__name__}: {error})"
        raise ModelError("model", rule=rule, value=path, fix=fix) from error
    try:
        made = maker(**arguments)
    except Exception as error:  # and so may a factory
        rule = f"must suit {path}: {type(error).__name__}: {error}"
        raise ModelError("model_args", rule=rule, value=arguments) from error
    if not isinstance(made, BaseEstimator):
        raise ModelError(
            "model", rule="must be, or make, a scikit-learn estimator", value=type(made).__name__
        )
    return made


def _require_task(estimator: Any, schema: Schema, path: str) -> None:
    suits = is_regressor(estimator) if schema.task == "regression" else is_classifier(estimator)
    if not suits:
        fix = "Choose another `model`, or set `task` if it was inferred wrongly."
        raise ModelError("model", rule=f"must suit the task {schema.task}", value=path, fix=fix)
    if schema.task != "regression" and not hasattr(estimator, "predict_proba"):
        fix = "Decisions rest on probabilities: wrap it in CalibratedClassifierCV."
        raise ModelError("model", rule="must give probabilities (predict_proba)", value=path, fix=fix)


def _encoder(estimator: Any, schema: Schema) -> ColumnTransformer:
    """The usual preparation of the schema's columns for this estimator; column names are kept."""
    named = {kind: [c for c in schema.features if c.kind == kind] for kind in ("categorical", "datetime")}
    categories, moments = named["categorical"], [column.name for column in named["datetime"]]
    numbers = [column.name for column in schema.features if column.kind in ("numeric", "boolean")]
    takes_categories = "categorical_features" in estimator.get_params(deep=False)
    steps: list[tuple[str, Any, Any]] = []
    if takes_categories:
        few = [column for column in categories if len(column.levels or ()) <= _MOST_LEVELS]
        many = [column.name for column in categories if len(column.levels or ()) > _MOST_LEVELS]
        # the schema knows the levels, which saves the encoder from counting them in every fold
        levels = [list(column.levels or ()) for column in few]
        steps.append(("categorical", _codes(categories=levels), [column.name for column in few]))
        steps.append(("many levels", _codes(max_categories=_MOST_LEVELS), many))
        estimator.set_params(categorical_features=list(range(len(categories))))
    else:
        onehot = OneHotEncoder(handle_unknown="infrequent_if_exist", max_categories=50, sparse_output=False)
        steps.append(("categorical", onehot, [column.name for column in categories]))
    takes_missing = takes_categories or get_tags(estimator).input_tags.allow_nan
    fill = "passthrough" if takes_missing else make_pipeline(SimpleImputer(), StandardScaler())
    clock: Any = FunctionTransformer(clock_parts, feature_names_out=_clock_names)
    if not takes_missing:
        clock = make_pipeline(clock, SimpleImputer(), StandardScaler())
    # a column without a single value teaches nothing, and histogram trees stumble over it
    steps.append(("numbers", fill, partial(_with_values, names=numbers)))
    steps.append(("datetime", clock, partial(_with_values, names=moments)))
    return ColumnTransformer([step for step in steps if step[2]], verbose_feature_names_out=False)


def _with_values(frame: pd.DataFrame, *, names: list[str]) -> list[str]:
    return [name for name in names if frame[name].notna().any()]


def _codes(**settings: Any) -> OrdinalEncoder:
    """Codes for levels; a missing or unknown one is missing, which histogram trees understand."""
    return OrdinalEncoder(
        handle_unknown="use_encoded_value", unknown_value=np.nan, encoded_missing_value=np.nan, **settings
    )


_CLOCK = ("days", "month", "weekday", "hour")


def clock_parts(frame: pd.DataFrame) -> pd.DataFrame:
    """Split moments (n, m) into days since 1970, month, weekday and hour (n, 4 m), as floats."""
    parts = {}
    for name in frame.columns:
        moment = frame[name].dt
        days = (frame[name] - pd.Timestamp(0)) / pd.Timedelta(days=1)
        for part, values in zip(_CLOCK, (days, moment.month, moment.day_of_week, moment.hour), strict=True):
            parts[f"{name}_{part}"] = values.astype("float64")
    return pd.DataFrame(parts, index=frame.index)


def _clock_names(_: Any, names: list[str]) -> list[str]:
    return [f"{name}_{part}" for name in names for part in _CLOCK]


def fit_model(model: Pipeline, frame: pd.DataFrame, *, schema: Schema) -> Pipeline:
    """Fit in place on labelled rows and return the model.

    Raises:
        LabelError: a label that the schema does not know.
        ModelError: the estimator refuses; its own words are kept.
    """
    labels = schema.encode(frame[schema.target])
    try:
        with threads_for(len(frame)):
            return model.fit(schema.coerce(frame), labels)
    except ProdkitError:
        raise
    except Exception as error:
        rule = f"could not be fitted: {type(error).__name__}: {error}"
        raise ModelError(
            "model", rule=rule, value=f"{len(frame)} rows", fix="See the cause above."
        ) from error


def predictions(model: Any, frame: pd.DataFrame, *, schema: Schema, coerced: bool = False) -> np.ndarray:
    """Predict rows that hold at least the schema's columns.

    Args:
        model: a fitted pipeline.
        frame: (n, m) rows.
        schema: what the model was fitted on.
        coerced: ``frame`` is what :meth:`prodkit.data.schema.Schema.coerce` gave.

    Returns:
        (n,) probability of the second class for ``binary``, (n, k) probabilities in the order of
        ``schema.classes`` for ``multiclass``, (n,) values for ``regression``.

    Raises:
        ModelError: it does not answer each row once.
    """
    columns, regression = frame if coerced else schema.coerce(frame), schema.task == "regression"
    with threads_for(len(frame)):
        said = np.asarray(model.predict(columns) if regression else model.predict_proba(columns), dtype=float)
    if len(said) != len(columns):
        found = f"{len(said)} answers to {len(columns)} rows"
        raise ModelError("model", rule="must answer each row once", value=found)
    if regression:
        return said
    shares, seen = np.zeros((len(columns), len(schema.classes))), np.asarray(model.classes_, dtype=int)
    # A model that saw only some of the classes gives only their columns; of one class, it knows no other.
    shares[:, seen] = said if len(seen) > 1 else 1.0
    return shares[:, 1] if schema.task == "binary" else shares


def threads_for(rows: int) -> Any:
    """One thread for small work: waiting for one another on a busy machine makes it fifty times slower."""
    return _pools().limit(limits=1) if rows < _SMALL_ROWS else nullcontext()


@cache
def _pools() -> ThreadpoolController:
    """The pools of this process; to look for them takes longer than to predict a row."""
    return ThreadpoolController()


@dataclass(frozen=True)
class Fallback:
    """The simple rule that answers when the model must not: the usual outcome, by segment.

    Attributes:
        column: the categorical column whose levels are told apart; empty for none.
        overall: class shares (k,) or the median (1,).
        by_level: the same for each level.
    """

    column: str
    overall: np.ndarray
    by_level: dict[str, np.ndarray]

    @classmethod
    def fit(cls, frame: pd.DataFrame, *, schema: Schema, least_rows: int = 100) -> Fallback:
        """Learn from labelled rows; the column is the one whose levels differ most in outcome."""
        labels = pd.Series(schema.encode(frame[schema.target]), index=frame.index)
        columns = schema.coerce(frame)
        tables = {}
        for feature in schema.features:
            if feature.kind == "categorical" and len(feature.levels or ()) <= 50:
                levels = labels.groupby(columns[feature.name])
                # variance between levels, in rows: how much telling them apart explains
                tables[feature.name] = float((levels.size() * (levels.mean() - labels.mean()) ** 2).sum())
        column = max(tables, key=lambda name: tables[name]) if tables else ""
        if not column:
            return cls("", _usual(labels, schema), {})
        levels = labels.groupby(columns[column])
        by_level = {str(level): _usual(part, schema) for level, part in levels if len(part) >= least_rows}
        return cls(column, _usual(labels, schema), by_level)

    def predict(self, frame: pd.DataFrame, *, schema: Schema) -> np.ndarray:
        """Predict as :func:`predictions` does, from the segment alone; never fails on a value."""
        codes = np.full(len(frame), -1)
        segment = frame.get(self.column)
        if isinstance(segment, pd.Series):  # a name that occurs twice names no column
            codes = pd.Index(list(self.by_level), dtype=object).get_indexer(pd.Index(texts(segment)))
        table = np.vstack([*self.by_level.values(), self.overall])[codes]  # -1 is the last row: no such level
        column = {"regression": 0, "binary": 1}.get(schema.task)
        return np.asarray(table if column is None else table[:, column])


def _usual(labels: pd.Series[Any], schema: Schema) -> np.ndarray:
    if schema.task == "regression":
        return np.array([labels.median()])
    # one row of each class is added, so that no outcome is ever called impossible
    counts: np.ndarray = np.bincount(labels.astype(int), minlength=len(schema.classes)) + 1.0
    return np.asarray(counts / counts.sum())
