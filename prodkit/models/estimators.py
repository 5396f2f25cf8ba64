"""An estimator named by parameters: built around a frozen schema, fitted, and asked for predictions."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import nullcontext
from dataclasses import dataclass
from functools import cache, partial
from typing import Any

import numpy as np
import pandas as pd
from sklearn.base import BaseEstimator, clone
from sklearn.compose import ColumnTransformer
from sklearn.impute import SimpleImputer
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import FunctionTransformer, OneHotEncoder, OrdinalEncoder, StandardScaler
from sklearn.utils import get_tags
from sklearn.utils.validation import has_fit_parameter
from threadpoolctl import ThreadpoolController

from prodkit.data.cells import texts
from prodkit.data.schema import Schema
from prodkit.errors import ModelError, ProdkitError
from prodkit.models.metrics import row_losses, sample_weights
from prodkit.settings import imported

__all__ = [
    "Fallback",
    "ForeignEstimator",
    "MeanModel",
    "build_model",
    "clock_parts",
    "fit_model",
    "predictions",
    "require_sound",
    "threads_for",
    "weighting",
]

_AUTO = "sklearn.ensemble.HistGradientBoosting"
_AUTO_ARGUMENTS = {"learning_rate": 0.05}  # half of scikit-learn's: noisy tables are soon learned by heart
# Of a wide table, a third of the time, and as good: most of it goes into histograms of each column in each node.
_WIDE_COLUMNS, _WIDE_BINS = 200, 63
_STOPPING_ROWS = 20  # of the rarest class: early stopping takes a tenth of them to judge by
_SMALL_ROWS = 50_000
_MOST_LEVELS = 250  # histogram trees take at most 255 levels of a category; rarer ones share a bin
_EXTREME = 1e100  # the square of a number beyond that is no number


def build_model(
    path: str, *, schema: Schema, arguments: Mapping[str, Any] | None = None, seed: int = 0
) -> Pipeline:
    """Import, construct and wrap an estimator so that it takes the schema's columns.

    Args:
        path: ``auto`` (histogram trees that learn slowly), the import path of an estimator class, or
            ``package.module:factory``. An estimator is whatever has ``fit``, ``predict``, ``get_params`` and
            ``set_params``, and ``predict_proba`` and ``classes_`` for classes. A factory that returns a whole
            ``Pipeline`` is used as it is; anything else is wrapped with the usual encoding: ordinal codes for
            histogram trees, else one-hot codes and imputed and scaled numbers.
        schema: the frozen columns; the pipeline takes ``schema.coerce(rows)``.
        arguments: keyword arguments of the class or factory; ``class_weight`` may name the classes as the table does.
        seed: random state, where the estimator has one that is not set in ``arguments``.

    Raises:
        ModelError: it cannot be imported or constructed, or does not fit the task.
    """
    given = dict(arguments or {})
    if path == "auto":
        path, given = _automatic(schema, given)
    if isinstance(given.get("class_weight"), Mapping):
        given["class_weight"] = _class_weight(given["class_weight"], schema)
    estimator = _construct(path, given)
    _require_task(estimator, schema, path)
    if "random_state" in estimator.get_params(deep=False) and "random_state" not in given:
        estimator.set_params(random_state=seed)
    if isinstance(estimator, Pipeline):
        name, last = estimator.steps[-1]
        estimator.steps[-1] = name, _adapted(last)
        return estimator
    estimator = _adapted(estimator)
    return Pipeline([("encode", _encoder(estimator, schema)), ("model", estimator)])


def _automatic(schema: Schema, given: dict[str, Any]) -> tuple[str, dict[str, Any]]:
    """Path and arguments of the automatic model; those that are given win."""
    arguments: dict[str, Any] = dict(_AUTO_ARGUMENTS)
    if schema.task == "multiclass":
        arguments["early_stopping"] = False  # which needs two rows of each class, however rare
    few_levels = all(len(column.levels or ()) < _WIDE_BINS for column in schema.features)
    if len(schema.features) > _WIDE_COLUMNS and few_levels:
        arguments["max_bins"] = _WIDE_BINS
    return _AUTO + ("Regressor" if schema.task == "regression" else "Classifier"), arguments | given


def _class_weight(weights: Mapping[Any, float], schema: Schema) -> dict[int, float]:
    """The weights by class number, which is what an estimator learns from."""
    codes = {str(label): code for code, label in enumerate(schema.classes)}
    unknown = [name for name in weights if str(name) not in codes]
    if unknown:
        rule, fix = "must name classes of the target", f"There are: {', '.join(codes)}."
        raise ModelError("model_args.class_weight", rule=rule, value=unknown[0], fix=fix)
    return {codes[str(name)]: float(weight) for name, weight in weights.items()}


def _construct(path: str, arguments: dict[str, Any]) -> Any:
    try:
        maker = imported(path)
    except Exception as error:  # a module of one's own may raise anything
        fix = "Write it as sklearn.ensemble.RandomForestClassifier, or my_module:factory of a module beside notebooks/."
        rule = f"must name something that can be imported ({type(error).__name__}: {error})"
        raise ModelError("model", rule=rule, value=path, fix=fix) from error
    try:
        made = maker(**arguments)
    except Exception as error:  # and so may a factory
        rule = f"must suit {path}: {type(error).__name__}: {error}"
        raise ModelError("model_args", rule=rule, value=arguments) from error
    lacking = [name for name in ("fit", "predict", "get_params", "set_params") if not hasattr(made, name)]
    if lacking or isinstance(made, type):
        value = f"the class {made.__name__}" if isinstance(made, type) else type(made).__name__
        value += f" without {', '.join(lacking)}" if lacking else ""
        raise ModelError("model", rule="must be, or make, an estimator", value=value)
    return made


def _require_task(estimator: Any, schema: Schema, path: str) -> None:
    kind = getattr(estimator, "_estimator_type", None)  # how a class says it that knows no tags
    if hasattr(estimator, "__sklearn_tags__"):
        kind = get_tags(estimator).estimator_type
    classes = hasattr(estimator, "predict_proba")
    wanted = "regressor" if schema.task == "regression" else "classifier"
    if (kind or ("classifier" if classes else "regressor")) != wanted:
        fix = "Choose another `model`, or set `task` if it was inferred wrongly."
        raise ModelError("model", rule=f"must suit the task {schema.task}", value=path, fix=fix)
    if wanted == "classifier" and not classes:
        fix = "Decisions rest on probabilities: wrap it in CalibratedClassifierCV."
        raise ModelError("model", rule="must give probabilities (predict_proba)", value=path, fix=fix)


class ForeignEstimator(BaseEstimator):  # type: ignore[misc]  # scikit-learn has no types
    """What scikit-learn's pipelines need around an estimator that knows nothing of scikit-learn's tags."""

    def __init__(self, model: Any) -> None:
        self.model = model

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__") or "model" not in self.__dict__:
            raise AttributeError(name)
        return getattr(self.model, name)

    def __sklearn_clone__(self) -> ForeignEstimator:
        return ForeignEstimator(clone(self.model))

    def __sklearn_is_fitted__(self) -> bool:
        return True

    def get_params(self, deep: bool = True) -> dict[str, Any]:
        """Those of the estimator."""
        return dict(self.model.get_params(deep=deep))

    def set_params(self, **params: Any) -> ForeignEstimator:
        """Set those of the estimator."""
        self.model.set_params(**params)
        return self

    def fit(self, X: Any, y: Any, sample_weight: Any = None) -> ForeignEstimator:
        """Fit the estimator."""
        self.model.fit(X, y, **({} if sample_weight is None else {"sample_weight": sample_weight}))
        return self


class MeanModel(BaseEstimator):  # type: ignore[misc]  # scikit-learn has no types
    """Several models whose predictions are averaged, as one.

    Attributes:
        models: pipelines of one task; those of classes may have seen different ones.
    """

    def __init__(self, models: list[Any]) -> None:
        self.models = models

    @property
    def classes_(self) -> np.ndarray:
        """The labels that any of them has seen."""
        return np.unique(np.concatenate([np.asarray(model.classes_) for model in self.models]))

    def fit(self, X: Any, y: Any, sample_weight: Any = None) -> MeanModel:
        """Fit each of them on the same rows."""
        for model in self.models:
            model.fit(X, y, **weighting(model, sample_weight))
        return self

    def predict(self, X: Any) -> np.ndarray:
        """The mean of their numbers (n,)."""
        return np.asarray(
            np.mean([np.asarray(model.predict(X)).reshape(-1) for model in self.models], axis=0)
        )

    def predict_proba(self, X: Any) -> np.ndarray:
        """The mean of their shares (n, k), none of a class that one has not seen."""
        classes = self.classes_
        shares = np.zeros((len(X), len(classes)))
        for model in self.models:
            answer, seen = np.asarray(model.predict_proba(X), dtype=float), np.asarray(model.classes_)
            shares[:, np.searchsorted(classes, seen)] += answer if len(seen) > 1 else 1.0
        return shares / len(self.models)


def _adapted(estimator: Any) -> Any:
    return estimator if hasattr(estimator, "__sklearn_tags__") else ForeignEstimator(estimator)


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
        # in microseconds: an open end such as 9999-12-31 does not fit into nanoseconds
        since = frame[name].to_numpy(dtype="datetime64[us]") - np.datetime64(0, "us")
        days = pd.Series(since / np.timedelta64(1, "D"), index=frame.index)
        for part, values in zip(_CLOCK, (days, moment.month, moment.day_of_week, moment.hour), strict=True):
            parts[f"{name}_{part}"] = values.astype("float64")
    return pd.DataFrame(parts, index=frame.index)


def _clock_names(_: Any, names: list[str]) -> list[str]:
    return [f"{name}_{part}" for name in names for part in _CLOCK]


def fit_model(model: Pipeline, frame: pd.DataFrame, *, schema: Schema) -> Pipeline:
    """Fit in place on labelled rows, with the weights that the schema names, and return the model.

    Early stopping, which sets rows of each class apart to judge by, is off where a class has too few of them.

    Raises:
        LabelError: a label that the schema does not know.
        ModelError: the estimator refuses, and its own words are kept, or it takes no weights.
        DataError: a weight is no number of 0 or more.
    """
    weights = weighting(model, sample_weights(schema.weight, frame))
    labels, columns = schema.encode(frame[schema.target]), schema.coerce(frame)
    last = model.steps[-1][1] if isinstance(model, Pipeline) else model
    rarest = (
        np.unique(labels, return_counts=True)[1].min(initial=_STOPPING_ROWS) if schema.classes else np.inf
    )
    if rarest < _STOPPING_ROWS and last.get_params(deep=False).get("early_stopping"):
        last.set_params(early_stopping=False)
    try:
        with threads_for(len(columns)):
            return model.fit(columns, labels, **weights)
    except ProdkitError:
        raise
    except Exception as error:
        rule = f"could not be fitted: {type(error).__name__}: {error}"
        fix = _extremes(columns) or "See the cause above."
        raise ModelError("model", rule=rule, value=f"{len(frame)} rows", fix=fix) from error


def weighting(model: Any, weights: np.ndarray | None) -> dict[str, Any]:
    """The arguments of `fit` by which the last step of a model gets the weights (n,) of the rows."""
    if weights is None:
        return {}
    step, last = model.steps[-1] if isinstance(model, Pipeline) else ("", model)
    if not has_fit_parameter(last.model if isinstance(last, ForeignEstimator) else last, "sample_weight"):
        fix = "Choose a `model` that takes sample_weight, or leave `weight` empty."
        rule = "must take sample_weight in fit, since `weight` names a column"
        raise ModelError(_named(model), rule=rule, value=type(last).__name__, fix=fix)
    return {f"{step}__sample_weight" if step else "sample_weight": weights}


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
        ModelError: its answer is not of the shape of the task.
    """
    columns, regression = frame if coerced else schema.coerce(frame), schema.task == "regression"
    if not len(columns):  # which scikit-learn refuses
        return np.empty((0, len(schema.classes)) if schema.task == "multiclass" else 0)
    with threads_for(len(columns)):
        answer = np.asarray(
            model.predict(columns) if regression else model.predict_proba(columns), dtype=float
        )
    if regression and answer.size == len(columns):
        return answer.reshape(-1)
    seen = np.array([], dtype=int) if regression else _seen_classes(model, schema)
    shape = (len(columns),) if regression else (len(columns), len(seen))
    # of one class only, some give two columns
    if answer.shape != shape and not (len(seen) == 1 and answer.shape[:1] == shape[:1]):
        rule = f"must answer {len(columns)} rows with an array of shape {shape}"
        fix = "" if regression else "It must have a column of probabilities for each class in classes_."
        raise ModelError(_named(model), rule=rule, value=f"shape {answer.shape}", fix=fix)
    shares = np.zeros((len(columns), len(schema.classes)))
    # A model that saw only some of the classes gives only their columns; of one class, it knows no other.
    shares[:, seen] = answer if len(seen) > 1 else 1.0
    return shares[:, 1] if schema.task == "binary" else shares


def _seen_classes(model: Any, schema: Schema) -> np.ndarray:
    """The class numbers that the columns of an answer are about."""
    seen = getattr(model, "classes_", None)
    known = np.arange(len(schema.classes))
    if seen is None or not np.isin(np.asarray(seen), known).all():
        rule = f"must have the labels that it learned, of 0 to {known[-1]}, as classes_"
        fix = "Set them in fit: self.classes_ = numpy.unique(y)."
        raise ModelError(_named(model), rule=rule, value=seen if seen is not None else "no classes_", fix=fix)
    return np.asarray(seen, dtype=int)


def require_sound(
    predicted: np.ndarray, columns: pd.DataFrame, *, truth: np.ndarray, model: Any, schema: Schema
) -> None:
    """Refuse a model whose answers (n,) or (n, k) to rows it was tested on are none.

    Raises:
        ModelError: an answer is not finite, too large to compute with, or no probability.
    """
    losses = row_losses(truth, predicted, task=schema.task)
    wrong = np.flatnonzero(~np.isfinite(losses) | (losses > _EXTREME))
    if len(wrong):
        rule = f"must answer with finite numbers, of less than {_EXTREME:g}"
        if schema.classes:
            rule = "must answer with probabilities, from 0 to 1 and one in all"
        value = f"{predicted[wrong[0]]} for row {wrong[0]} ({len(wrong)} of {len(predicted)} such rows)"
        fix = _extremes(columns) or "Choose another `model`, or mend its answers in a factory of your own."
        raise ModelError(_named(model), rule=rule, value=value, fix=fix)


def _named(model: Any) -> str:
    last = model.steps[-1][1] if isinstance(model, Pipeline) else model
    return f"model {type(last.model if isinstance(last, ForeignEstimator) else last).__name__}"


def _extremes(columns: pd.DataFrame) -> str:
    """Advice on a column that holds numbers too large to compute with; empty if there is none."""
    largest = columns.select_dtypes("float").abs().max()
    if not len(largest) or not largest.max() > _EXTREME:
        return ""
    return f"Column {largest.idxmax()} holds {largest.max():g}: correct it, or leave it out of `features`."


def threads_for(rows: int) -> Any:
    """One thread for small work: waiting for one another on a busy machine makes it fifty times slower."""
    return _pools().limit(limits=1) if rows < _SMALL_ROWS else nullcontext()


@cache
def _pools() -> ThreadpoolController:
    """The pools of this process; to look for them takes longer than to predict a row."""
    return ThreadpoolController()


@dataclass(frozen=True)
class Fallback:
    """The baseline, which answers when the model must not: the usual outcome, by segment.

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
        weights = sample_weights(schema.weight, frame)
        weighted = pd.Series(1.0 if weights is None else weights / weights.mean(), index=frame.index)
        columns, explained = schema.coerce(frame), {"": 0.0}
        for feature in schema.features:
            if feature.kind == "categorical" and len(feature.levels or ()) <= 50:
                levels = labels.groupby(columns[feature.name])
                # variance between levels, in rows: how much telling them apart explains
                between = levels.size() * (levels.mean() - labels.mean()) ** 2
                explained[feature.name] = float(between.sum())
        column = max(explained, key=lambda name: (explained[name], bool(name)))
        parts: Any = labels.groupby(columns[column]) if column else ()
        by_level = {
            str(level): _usual(part, weighted[part.index], schema)
            for level, part in parts
            if len(part) >= least_rows
        }
        return cls(column, _usual(labels, weighted, schema), by_level)

    def predict(self, frame: pd.DataFrame, *, schema: Schema) -> np.ndarray:
        """Predict as :func:`predictions` does, from the segment alone; never fails on a value."""
        codes = np.full(len(frame), -1)
        segment = frame.get(self.column)
        if isinstance(segment, pd.Series):  # a name that occurs twice names no column
            codes = pd.Index(list(self.by_level), dtype=object).get_indexer(pd.Index(texts(segment)))
        table = np.vstack([*self.by_level.values(), self.overall])[codes]  # -1 is the last row: no such level
        column = {"regression": 0, "binary": 1}.get(schema.task)
        return np.asarray(table if column is None else table[:, column])


def _usual(labels: pd.Series[Any], weights: pd.Series[float], schema: Schema) -> np.ndarray:
    if schema.task == "regression":
        if not schema.weight:
            return np.array([labels.median()])
        ordered = labels.sort_values()
        reached = weights[ordered.index].cumsum().to_numpy()
        return np.array([ordered.iloc[int(np.searchsorted(reached, reached[-1] / 2))]])
    # one row of each class is added, so that no outcome is ever called impossible
    counts: np.ndarray = np.bincount(labels.astype(int), weights, minlength=len(schema.classes)) + 1.0
    return np.asarray(counts / counts.sum())
