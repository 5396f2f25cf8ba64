"""How a challenger is made and examined: rows set apart, folds in time, search, importance, learning curve."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import Any, TypeVar

import numpy as np
import pandas as pd
from sklearn.base import clone
from sklearn.experimental import enable_halving_search_cv  # noqa: F401  (makes the next import work)
from sklearn.model_selection import HalvingRandomSearchCV, RandomizedSearchCV, TimeSeriesSplit
from sklearn.pipeline import Pipeline

from prodkit.data.schema import Schema
from prodkit.data.windows import blocks, labelled
from prodkit.errors import ModelError, WindowError
from prodkit.evidence import Estimate, Window
from prodkit.models.estimators import (
    Fallback,
    MeanModel,
    build_model,
    fit_model,
    predictions,
    require_sound,
    weighting,
)
from prodkit.models.metrics import (
    autocorrelation,
    intervals,
    mean_worth,
    row_losses,
    row_worth,
    sample_weights,
)
from prodkit.params import LEAD, PRIMARY, Recipe, TrainParams

__all__ = [
    "OutOfTime",
    "Split",
    "Withheld",
    "fit_recipe",
    "folds",
    "importance",
    "learning_curve",
    "mean_loss",
    "model_for",
    "out_of_time",
    "search_arguments",
    "split_window",
    "subsample",
]

_MANY_COLUMNS = 100
Rows = TypeVar("Rows", pd.DataFrame, pd.Series)


@dataclass(frozen=True)
class Split:
    """Rows to learn from, and the newest ones, which no part of training may look at.

    Attributes:
        rows: labelled rows older than the gap.
        feed: those and the ones without a label: what the input looked like.
        trained: the window that ``rows`` fill.
        holdout: the window left for the judge; between the two lies a gap of the label delay.
    """

    rows: pd.DataFrame
    feed: pd.DataFrame
    trained: Window
    holdout: Window


def split_window(frame: pd.DataFrame, params: TrainParams) -> Split:
    """Set the newest ``holdout`` of the window apart, with a gap of ``label_delay`` before it.

    Raises:
        WindowError: nothing is left to learn from.
        LabelError: no row that is left has a label.
    """
    holdout_start = params.window.end - params.holdout
    end = holdout_start - params.label_delay
    if end <= params.window.start:
        raise WindowError(
            "window",
            rule="must be longer than holdout and label_delay together",
            value=f"{params.window}, {params.holdout} and {params.label_delay}",
            fix="Lengthen `window` or shorten `holdout`.",
        )
    older = frame[frame[params.time_column] < end].reset_index(drop=True)
    holdout = Window(holdout_start, params.window.end)
    return Split(labelled(older, params), older, Window(params.window.start, end), holdout)


def folds(times: pd.Series, *, n: int, gap: timedelta) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Positions (train, test) of folds in time order: whole days, tested on days later than all those learned.

    A gap that would leave nothing to learn from makes the tested parts shorter, not the gap.

    Raises:
        WindowError: there are fewer days than folds need.
    """
    labels = blocks(times)
    days, day_of_row = np.unique(labels, return_inverse=True)
    apart = int(np.ceil(gap / timedelta(days=1)))
    tested = max(1, min(len(days) // (n + 1), (len(days) - apart - 1) // n))
    try:
        for train, test in TimeSeriesSplit(n_splits=n, gap=apart, test_size=tested).split(days):
            yield np.flatnonzero(np.isin(day_of_row, train)), np.flatnonzero(np.isin(day_of_row, test))
    except ValueError as error:
        fix = "Use fewer `folds` or a longer `window`."
        raise WindowError(
            "window", rule=f"must hold enough days for {n} folds", value=f"{len(days)} days", fix=fix
        ) from error


@dataclass(frozen=True)
class OutOfTime:
    """Predictions by models that had not seen the rows: the only figures of training that promise anything.

    Attributes:
        schema: the frozen types.
        frame: the tested rows of all folds, in time order.
        truth: (n,) their labels, encoded.
        predicted: (n,) or (n, k) by the folds' models.
        baseline: the same by the baseline, learned from the same pasts.
        days: (n,) day of each row.
        folds: a row for each fold: train_end, rows, value, low, high of the lead metric.
        last: the model of the last fold, and
        newest: (n,) true for the rows of the last fold, which that model had not seen.
        worth: (n,) business value of each row; None if the parameters name none.
        own: import paths of scores of one's own.
    """

    schema: Schema
    frame: pd.DataFrame
    truth: np.ndarray
    predicted: np.ndarray
    baseline: np.ndarray
    days: np.ndarray
    folds: pd.DataFrame
    last: Pipeline
    newest: np.ndarray
    worth: np.ndarray | None = None
    own: tuple[str, ...] = ()

    @property
    def weights(self) -> np.ndarray | None:
        """Of the rows (n,), one on average; None where all count alike."""
        given = sample_weights(self.schema.weight, self.frame)
        return None if given is None else given / given.mean()

    @property
    def metric(self) -> str:
        """The score that leads."""
        return LEAD[self.schema.task]

    @property
    def loss(self) -> str:
        """The loss that decides."""
        return PRIMARY[self.schema.task]

    @property
    def losses(self) -> tuple[np.ndarray, np.ndarray]:
        """Loss of each row (n,), times its weight, under the baseline, and under the model."""
        weights = 1.0 if self.weights is None else self.weights
        baseline, model = (
            weights * row_losses(self.truth, each, task=self.schema.task)
            for each in (self.baseline, self.predicted)
        )
        return baseline, model

    @property
    def lost(self) -> tuple[np.ndarray, np.ndarray]:
        """The same in units of the baseline's mean loss: their difference is a gain in skill (Murphy 1988)."""
        baseline, model = self.losses
        unit = baseline.mean() if baseline.sum() > 0 else np.nan
        return baseline / unit, model / unit

    @property
    def autocorrelation(self) -> tuple[float, int]:
        """How much a day's mean loss resembles that of the day before, and the number of days it was estimated from."""
        daily = pd.Series(self.losses[1]).groupby(self.days).mean().to_numpy()
        return autocorrelation(daily), len(daily)

    def followed_by(
        self,
        rows: pd.DataFrame,
        predicted: np.ndarray,
        baseline: np.ndarray,
        *,
        model: Pipeline,
        params: TrainParams,
    ) -> OutOfTime:
        """The same with later labelled rows (n, any), which a model that has not seen them has answered."""
        frame = pd.concat([self.frame, rows], ignore_index=True)
        answers, truth = (
            np.concatenate([self.predicted, predicted]),
            self.schema.encode(frame[self.schema.target]),
        )
        return replace(
            self,
            frame=frame,
            truth=truth,
            predicted=answers,
            baseline=np.concatenate([self.baseline, baseline]),
            days=blocks(frame[params.time_column]),
            last=model,
            newest=np.arange(len(frame)) >= len(self.frame),
            worth=row_worth(params.value, frame, truth=truth, predicted=answers, schema=self.schema),
        )

    def intervals(self, *, seed: int = 0) -> dict[str, Estimate]:
        """Every score of the task with its interval, and the mean business value."""
        settings: dict[str, Any] = {"blocks": self.days, "weights": self.weights}
        figures = intervals(
            self.truth, self.predicted, task=self.schema.task, seed=seed, own=self.own, **settings
        )
        return figures | ({} if self.worth is None else {"value": mean_worth(self.worth, **settings)})


def out_of_time(
    model: Pipeline, rows: pd.DataFrame, *, schema: Schema, params: TrainParams, first_rows: int = 0
) -> OutOfTime:
    """Fit the recipe on each fold's past and predict its future; ``first_rows`` are those of the first training.

    Raises:
        WindowError: there are fewer days than folds need.
        ModelError: the model cannot be fitted, or an answer is no prediction.
    """
    times, metric = rows[params.time_column], LEAD[schema.task]
    parts, predicted, baseline, table = [], [], [], []
    for train, test in folds(times, n=params.folds, gap=params.label_delay):
        past, future = rows.iloc[train], rows.iloc[test]
        last = fit_recipe(params.recipe, model, past, schema=schema, first_rows=first_rows)
        columns, truth = schema.coerce(future), schema.encode(future[schema.target])
        answer = predictions(last, columns, schema=schema, coerced=True)
        require_sound(answer, columns, truth=truth, model=last, schema=schema)
        days = blocks(future[params.time_column])
        weights = sample_weights(schema.weight, future)
        lead = intervals(truth, answer, task=schema.task, blocks=days, seed=params.seed, weights=weights)[
            metric
        ]
        table.append((times.iloc[train].max(), len(test), lead.value, lead.low, lead.high))
        parts.append(future)
        predicted.append(answer)
        baseline.append(Fallback.fit(past, schema=schema).predict(future, schema=schema))
    frame, answers = pd.concat(parts, ignore_index=True), np.concatenate(predicted)
    truth = schema.encode(frame[schema.target])
    summary = pd.DataFrame(table, columns=["train_end", "rows", "value", "low", "high"])
    return OutOfTime(
        schema=schema,
        frame=frame,
        truth=truth,
        predicted=answers,
        baseline=np.concatenate(baseline),
        days=blocks(frame[params.time_column]),
        folds=summary.set_index(pd.RangeIndex(1, len(table) + 1, name="fold")),
        last=last,
        newest=np.arange(len(frame)) >= len(frame) - len(parts[-1]),
        worth=row_worth(params.value, frame, truth=truth, predicted=answers, schema=schema),
        own=tuple(params.metrics),
    )


def search_arguments(
    rows: pd.DataFrame, *, schema: Schema, params: TrainParams
) -> tuple[dict[str, Any], pd.DataFrame]:
    """The model's keyword arguments: as given, or the best of a random or halving search on time-ordered folds.

    Returns:
        The arguments, and a table of what was tried with its loss, best first (empty without a search).

    Raises:
        ModelError: there is nothing to try, or the model knows no such argument.
    """
    if not params.search:
        return dict(params.model_args), pd.DataFrame(columns=["loss"])
    model = model_for(params, params.model_args, schema=schema)
    if not params.search_space:
        raise ModelError(
            "search_space", rule="must name values to try", fix='Such as {"max_iter": [50, 100]}.'
        )
    prefix = f"{model.steps[-1][0]}__"
    settings: dict[str, Any] = {
        "param_distributions": {prefix + name: values for name, values in params.search_space.items()},
        "scoring": lambda fitted, columns, truth: (
            -mean_loss(fitted, columns.join(rows[[schema.weight] if schema.weight else []]), truth, schema)
        ),
        "cv": list(folds(rows[params.time_column], n=params.folds, gap=params.label_delay)),
        "random_state": params.seed,
        "refit": False,
        "return_train_score": False,
        "error_score": "raise",
    }
    total = int(np.prod([len(values) for values in params.search_space.values()]))
    tries = min(params.search_candidates, total)
    finder = (
        RandomizedSearchCV(model, n_iter=tries, **settings)
        if params.search == "random"
        # so that the last round learns from all rows; by default the first would learn from a handful
        else HalvingRandomSearchCV(model, n_candidates=tries, min_resources="exhaust", **settings)
    )
    try:
        weights = weighting(model, sample_weights(schema.weight, rows))
        finder.fit(schema.coerce(rows), schema.encode(rows[schema.target]), **weights)
    except ValueError as error:
        rule = f"could not be searched: {error}"
        raise ModelError("search_space", rule=rule, value=params.search_space) from error
    # halving judges its last round on the most rows: only that round is compared
    tried = pd.DataFrame(finder.cv_results_)
    last = tried[tried["iter"] == tried["iter"].max()] if "iter" in tried else tried
    best = last.sort_values("mean_test_score", ascending=False, kind="stable")
    table = pd.DataFrame(list(best["params"])).rename(columns=lambda name: name.removeprefix(prefix))
    chosen = {name.removeprefix(prefix): value for name, value in best["params"].iloc[0].items()}
    return {**params.model_args, **chosen}, table.assign(loss=-best["mean_test_score"].to_numpy())


def model_for(params: TrainParams, arguments: dict[str, Any], *, schema: Schema) -> Pipeline:
    """The unfitted model that the parameters name."""
    return build_model(params.model, schema=schema, arguments=arguments, seed=params.seed)


def fit_recipe(recipe: Recipe, model: Any, rows: pd.DataFrame, *, schema: Schema, first_rows: int = 0) -> Any:
    """Fit a fresh copy of a model on the rows that a recipe takes.

    Args:
        recipe: ``all`` rows; the ``recent`` ones, as many as the first training had; or the ``mean`` of both models.
        model: is left as it is.
        rows: labelled, in the order of time.
        schema: the frozen columns.
        first_rows: labelled rows of the first training; 0 where this is the first. No more than these: all recipes
            are one then.

    Returns:
        A fitted model; of ``mean``, a :class:`prodkit.models.estimators.MeanModel`.

    Raises:
        LabelError: a label that the schema does not know.
        ModelError: it cannot be copied or fitted.
    """
    parts = {"all": [rows], "recent": [rows.tail(first_rows)], "mean": [rows, rows.tail(first_rows)]}[recipe]
    if not 0 < first_rows < len(rows):
        parts = [rows]
    fitted = [fit_model(_copied(model), part, schema=schema) for part in parts]
    return fitted[0] if len(fitted) == 1 else MeanModel(fitted)


def _copied(model: Any) -> Any:
    try:
        return clone(model)
    except Exception as error:  # a model from elsewhere may be anything
        rule = f"cannot be fitted again: {type(error).__name__}: {error}"
        fix = "An estimator that sklearn.base.clone can copy can be."
        raise ModelError("model", rule=rule, value=type(model).__name__, fix=fix) from error


def mean_loss(model: Pipeline, frame: pd.DataFrame, truth: np.ndarray, schema: Schema) -> float:
    """The primary loss of a model on rows with these encoded labels, by their weights."""
    losses = row_losses(truth, predictions(model, frame, schema=schema), task=schema.task)
    return float(np.average(losses, weights=sample_weights(schema.weight, frame)))


def subsample(frame: Rows, most: int) -> Rows:
    """At most ``most`` rows, evenly taken."""
    return frame.iloc[:: max(1, -(-len(frame) // most))]


def importance(tested: OutOfTime, *, params: TrainParams, repeats: int = 3) -> pd.DataFrame:
    """Rise of the loss when a column is shuffled (Breiman 2001), on the newest fold, which its model never saw.

    Of more than 100 columns, each is shuffled once.

    Returns:
        A row for each feature, the most important first: mean and sd over the repeats, in units of the loss.
    """
    withheld, generator = Withheld.of(tested, params=params), np.random.default_rng(params.seed)
    before, table = withheld.loss(withheld.predicted()), {}
    repeats = repeats if len(tested.schema.features) <= _MANY_COLUMNS else 1
    for name in tested.schema.names:
        shuffled = [withheld.predicted((name,), generator=generator) for _ in range(repeats)]
        rises = [withheld.loss(each) - before for each in shuffled]
        table[name] = (np.mean(rises), np.std(rises))
    result = pd.DataFrame.from_dict(table, orient="index", columns=["mean", "sd"]).rename_axis("column")
    return result.sort_values("mean", ascending=False, kind="stable")


@dataclass(frozen=True)
class Withheld:
    """The newest fold, predicted by its model with columns shuffled.

    Attributes:
        tested: all folds.
        columns: (n, features) rows of the newest fold, at most a quarter of ``diagnostic_rows``.
        truth: (n,) their labels, encoded.
        baseline: (n,) or (n, k) predictions of the baseline.
        seed: of the shuffling.
        weights: (n,) of the rows; None where all count alike.
    """

    tested: OutOfTime
    columns: pd.DataFrame
    truth: np.ndarray
    baseline: np.ndarray
    seed: int
    weights: np.ndarray | None = None

    @classmethod
    def of(cls, tested: OutOfTime, *, params: TrainParams) -> Withheld:
        """Rows evenly taken from the newest fold."""
        places = pd.Series(np.flatnonzero(tested.newest))
        rows = subsample(places, params.diagnostic_rows // 4).to_numpy()
        columns = tested.schema.coerce(tested.frame.iloc[rows])
        weights = None if tested.weights is None else tested.weights[rows]
        return cls(tested, columns, tested.truth[rows], tested.baseline[rows], params.seed, weights)

    def predicted(
        self, without: Sequence[str] = (), *, generator: np.random.Generator | None = None
    ) -> np.ndarray:
        """Predictions, (n,) or (n, k), when each of these columns is shuffled."""
        generator = generator or np.random.default_rng(self.seed)
        shuffled = {
            name: self.columns[name].to_numpy()[generator.permutation(len(self.columns))] for name in without
        }
        columns = self.columns.assign(**shuffled)
        return predictions(self.tested.last, columns, schema=self.tested.schema, coerced=True)

    def loss(self, predicted: np.ndarray) -> float:
        """Mean loss of such predictions, by the weights of the rows."""
        return float(
            np.average(row_losses(self.truth, predicted, task=self.tested.schema.task), weights=self.weights)
        )


def learning_curve(
    model: Pipeline, rows: pd.DataFrame, tested: OutOfTime, *, params: TrainParams
) -> pd.DataFrame:
    """Loss on the newest fold, and on the rows learned from, for models fitted on the newest share of the past.

    Returns:
        A row for each share of the past, at most ``diagnostic_rows`` of it: rows, train, validation. The losses are NaN
        where a share is too small to fit the model.
    """
    schema, time = tested.schema, params.time_column
    test = tested.frame[tested.newest]
    past = rows[rows[time] < test[time].min() - params.label_delay].tail(params.diagnostic_rows)
    test = subsample(test, params.diagnostic_rows // 4)
    table = []
    for share in (0.1, 0.25, 0.5, 1.0):
        part = past.tail(max(2, int(len(past) * share)))
        losses = [np.nan, np.nan]
        with suppress(ModelError):
            fitted = fit_model(clone(model), part, schema=schema)
            losses = [
                mean_loss(fitted, some, schema.encode(some[schema.target]), schema) for some in (part, test)
            ]
        table.append((len(part), *losses))
    return pd.DataFrame(table, columns=["rows", "train", "validation"])
