"""How a challenger is made: what training may see, folds in time, search, and what the diagnostics find."""

import json
import time
from dataclasses import replace
from datetime import timedelta

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import log_loss
from tables import orders, params_for

from prodkit import (
    Schema,
    assemble,
    feature_columns,
    fit_model,
    fit_recipe,
    importance,
    learning_curve,
    manifest,
    model_for,
    out_of_time,
    read_window,
    search_arguments,
    split_window,
    window_estimate,
)
from prodkit.errors import DataError, LabelError, ModelError, WindowError

WINDOW = "2024-01-01/2024-02-10"
TREES = {"window": WINDOW, "model_args": {"max_iter": 15}, "folds": 3}


def params_of(**given):
    """Parameters of `train`; no table is read here."""
    return params_for("train", "orders", **{**TREES, **given})


def known(days=40, **columns):
    """Labelled orders of January and some of February, with more columns."""
    frame = orders(days=days)
    return frame.assign(**columns).dropna(subset="returned").reset_index(drop=True)


def frozen(frame, **given):
    """The schema of the orders."""
    features = ["city", "price", "weight", "express", *given.pop("more", [])]
    return Schema.infer(frame, features=features, target="returned", **given)


@pytest.fixture(scope="module")
def noisy():
    """Orders with a column of noise, and what models said of them out of time."""
    frame = known(noise=np.random.default_rng(5).normal(size=2400))
    params, schema = params_of(), frozen(frame, more=["noise"])
    return (
        frame,
        params,
        out_of_time(model_for(params, params.model_args, schema=schema), frame, schema=schema, params=params),
    )


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 20 * 24), st.integers(0, 30 * 24))
def test_training_never_sees_the_holdout_nor_a_label_that_came_after_it_began(holdout, delay):
    """Every row learned from had its label before the holdout's first row happened, whatever the delay."""
    params = params_of(holdout=f"{holdout}h", label_delay=f"{delay}h")
    frame = orders(days=40)
    start = params.window.end - timedelta(hours=holdout)
    if start - timedelta(hours=delay) <= params.window.start:
        with pytest.raises(WindowError, match="window must be longer than holdout and label_delay together"):
            split_window(frame, params)
        return
    try:
        split = split_window(frame, params)
    except LabelError:  # an hour of orders may hold no label
        assert frame.loc[frame["ordered_at"] < start - timedelta(hours=delay), "returned"].isna().all()
        return
    assert (split.rows["ordered_at"] + timedelta(hours=delay) < start).all()
    assert (split.holdout.start, split.holdout.end) == (start, params.window.end)
    assert split.holdout.start - split.trained.end == timedelta(hours=delay)
    assert split.trained.start == params.window.start


def test_the_feed_keeps_the_rows_without_a_label():
    """They say what the input looked like, and nobody learns from them; no older row is lost."""
    frame = orders(days=40)
    split = split_window(frame, params_of(holdout="5d", label_delay="2d"))
    older = frame[frame["ordered_at"] < pd.Timestamp("2024-02-03")]
    assert len(split.feed) == len(older)
    assert len(split.rows) == older["returned"].notna().sum() < len(older)
    assert split.rows["returned"].notna().all()


def test_out_of_time_figures_come_from_models_that_had_not_seen_the_rows(noisy):
    """Each tested row appears once, later rows are predicted better than by the simple rule, folds are told."""
    _, params, tested = noisy
    assert tested.frame["order"].is_unique
    assert tested.frame["ordered_at"].is_monotonic_increasing
    assert tested.newest.sum() == tested.folds["rows"].iloc[-1]
    assert len(tested.frame) == tested.folds["rows"].sum() == len(tested.predicted) == len(tested.truth)
    simple, model = tested.losses
    assert model.mean() < simple.mean()
    assert (tested.folds["train_end"].diff().dropna() > pd.Timedelta(0)).all()
    found = tested.intervals(seed=params.seed)
    assert found["log_loss"].value == pytest.approx(model.mean())
    assert found["roc_auc"].low < found["roc_auc"].value < found["roc_auc"].high


def test_out_of_time_figures_do_not_know_the_future():
    """With labels that are turned round in the last fold, the models of that fold are as wrong as they must be."""
    frame, params = known(), params_of(folds=2)
    schema = frozen(frame)
    model = model_for(params, params.model_args, schema=schema)
    honest = out_of_time(model, frame, schema=schema, params=params)
    start = honest.frame.loc[honest.newest, "ordered_at"].min()
    turned = frame.assign(
        returned=frame["returned"].mask(frame["ordered_at"] >= start, 1 - frame["returned"])
    )
    fooled = out_of_time(model, turned, schema=schema, params=params)
    assert np.array_equal(honest.predicted, fooled.predicted)
    assert fooled.folds["value"].iloc[-1] == pytest.approx(1 - honest.folds["value"].iloc[-1])


def test_importance_puts_what_tells_first_and_noise_last(noisy):
    """Shuffling the price costs most; shuffling noise, or a column that the label ignores, costs next to nothing."""
    _, params, tested = noisy
    found = importance(tested, params=params)
    assert sorted(found.index) == sorted(tested.schema.names)
    assert list(found.index[:2]) == ["price", "city"]
    assert found["mean"].is_monotonic_decreasing
    assert found.loc["price", "mean"] > 10 * found.loc["noise", "mean"]
    assert abs(found.loc["noise", "mean"]) < 0.01
    assert importance(tested, params=params).equals(found)


def test_the_learning_curve_learns_from_more_and_more_and_is_tested_on_the_same(noisy):
    """Four growing shares of the past, none of which reaches the newest fold; more of it is no worse."""
    frame, params, tested = noisy
    model = model_for(params, params.model_args, schema=tested.schema)
    curve = learning_curve(model, frame, tested, params=params)
    until = tested.frame.loc[tested.newest, "ordered_at"].min() - params.label_delay
    past = int((frame["ordered_at"] < until).sum())
    assert curve["rows"].tolist() == [int(past * share) for share in (0.1, 0.25, 0.5, 1.0)]
    assert curve["validation"].iloc[-1] < curve["validation"].iloc[0]
    last = tested.losses[1][tested.newest].mean()
    assert curve["validation"].iloc[-1] == pytest.approx(last)
    few = learning_curve(model, frame, tested, params=params_of(diagnostic_rows=200))
    assert few["rows"].tolist() == [20, 50, 100, 200]


@pytest.mark.parametrize("search", ["random", "halving"])
def test_a_search_finds_the_arguments_that_lose_least(search):
    """Of steps that learn nothing and steps that learn, the latter win; what was given besides stays."""
    frame = known()
    space = {"learning_rate": [1e-6, 0.1], "max_depth": [2, 3]}
    params = params_of(folds=2, search=search, search_space=space, search_candidates=10)
    arguments, tried = search_arguments(frame, schema=frozen(frame), params=params)
    assert arguments["learning_rate"] == 0.1
    assert arguments["max_iter"] == 15
    assert arguments["max_depth"] in (2, 3)
    assert set(tried) == {*space, "loss"}
    assert tried["loss"].is_monotonic_increasing
    assert tried["learning_rate"].iloc[0] == 0.1
    if search == "random":
        assert len(tried) == 4
        assert tried["loss"].iloc[-1] > tried["loss"].iloc[0] + 0.05
        schema = frozen(frame)
        again = out_of_time(model_for(params, arguments, schema=schema), frame, schema=schema, params=params)
        each = [again.losses[1][~again.newest].mean(), again.losses[1][again.newest].mean()]
        assert tried["loss"].iloc[0] == pytest.approx(np.mean(each))
    else:
        assert len(tried) == 2  # of four, as many reach the round that learns from all rows
    assert search_arguments(frame, schema=frozen(frame), params=params)[0] == arguments


@pytest.mark.parametrize("task", ["multiclass", "regression"])
def test_other_tasks_are_searched_by_their_own_loss(task):
    """Log loss over several classes, absolute error of numbers."""
    frame = known(days=20)
    frame["returned"] = frame["city"] if task == "multiclass" else frame["price"]
    schema = Schema.infer(frame, features=["city", "price", "weight"], target="returned", task=task)
    space = {"learning_rate": [1e-6, 0.3]}
    params = params_of(folds=2, search="random", search_space=space, model_args={"max_iter": 8})
    arguments, tried = search_arguments(frame, schema=schema, params=params)
    assert arguments == {"max_iter": 8, "learning_rate": 0.3}
    spread = np.abs(frame["price"] - frame["price"].mean()).mean()
    assert tried["loss"].iloc[0] < (np.log(4) if task == "multiclass" else spread) / 2


@pytest.mark.parametrize(
    ("space", "message"),
    [
        ({}, r"search_space must name values to try\. Such as"),
        ({"max_itr": [1, 2]}, r"search_space could not be searched: Invalid parameter 'max_itr'"),
        ({"learning_rate": [-1.0]}, r"could not be searched: .*learning_rate.*must be a float in the range"),
    ],
)
@pytest.mark.parametrize("search", ["random", "halving"])
def test_a_search_for_nothing_or_for_nonsense_is_refused(search, space, message):
    """No values, an argument that the model does not know, a value that it refuses."""
    frame = known(days=20)
    params = params_of(search=search, search_space=space)
    with pytest.raises(ModelError, match=message):
        search_arguments(frame, schema=frozen(frame), params=params)


def test_without_a_search_the_arguments_are_those_given():
    """Nothing is fitted, and nothing is tabled."""
    frame = known(days=5)
    arguments, tried = search_arguments(frame, schema=frozen(frame), params=params_of())
    assert arguments == {"max_iter": 15}
    assert tried.empty


def version_of(frame, *, more=(), **given):
    """All that the notebook does with a table, up to what it registers: the manifest, and an estimate of itself."""
    params = params_of(**given)
    split = split_window(frame, params)
    schema = frozen(split.rows, more=list(more), task=given.get("task"))
    model = model_for(params, params.model_args, schema=schema)
    tested = out_of_time(model, split.rows, schema=schema, params=params)
    fitted = fit_model(model, split.rows, schema=schema)
    weights, figures = importance(tested, params=params)["mean"].to_dict(), tested.intervals()
    bundle = assemble(fitted, split, tested, schema=schema, params=params, importance=weights)
    assert len(learning_curve(model, split.rows, tested, params=params)) == 4
    estimate = window_estimate(frame, params, bundle=bundle)
    assert estimate.scores or estimate.abstained
    return json.dumps(manifest(bundle, split.rows, params=params, metrics=figures), allow_nan=False)


@pytest.mark.parametrize("days", [1, 2, 3, 10])
@pytest.mark.parametrize("rows", [0, 1, 2, 5, 31])
@pytest.mark.parametrize("target", ["returned", "price", "city"])
def test_a_table_as_small_as_can_be_gives_a_version_or_an_error_with_the_next_step(rows, days, target):
    """No rows to a month of them on one to ten days: never another error than one that says what to change."""
    task = {"returned": "binary", "price": "regression", "city": "multiclass"}[target]
    frame = orders(days=days, rows=31, seed=3).assign(
        returned=lambda table: table["ordered_at"].dt.second % 2
    )
    frame = frame.iloc[np.linspace(0, len(frame) - 1, rows).astype(int)]
    frame = frame.assign(returned=frame[target])
    window = f"2024-01-01/{pd.Timestamp('2024-01-01') + pd.Timedelta(days=days + 2):%Y-%m-%d}"
    given = {"window": window, "holdout": "1d", "label_delay": "1d", "folds": 2, "task": task}
    error = None
    try:
        version_of(frame, **given)
    except DataError as raised:
        error = raised
    assert error is None or (error.rule.startswith("must") and error.fix)


def test_an_estimator_of_another_making_is_searched_and_trained():
    """A class that only has fit, predict, predict_proba, get_params and set_params goes the whole way."""
    frame, space = known(days=20), {"depth": [1, 3]}
    given = {"model": "test_models:Stranger", "window": "2024-01-01/2024-01-21", "folds": 2}
    params = params_of(**given, model_args={}, search="random", search_space=space)
    arguments, tried = search_arguments(frame, schema=frozen(frame), params=params)
    assert len(tried) == 2
    assert version_of(frame, **given, model_args=arguments)


def test_four_positives_among_many_rows_are_learned():
    """The automatic model of a very rare class, with folds that hold none of it, is fitted and has figures."""
    frame = orders(days=40, rows=400).assign(returned=0.0)
    frame.loc[[100, 4000, 9000, 13_000], "returned"] = 1.0
    assert version_of(frame, model_args={"max_iter": 3})


def test_a_wide_table_is_trained_within_a_minute():
    """More than a hundred columns of noise: folds, importance and learning curve take seconds."""
    frame = orders(days=20)
    noise = np.random.default_rng(0).normal(size=(len(frame), 110))
    names = [f"noise_{number}" for number in range(110)]
    wide = pd.concat([frame, pd.DataFrame(noise, columns=names)], axis=1)
    began = time.process_time()
    assert version_of(wide, more=names, window="2024-01-01/2024-01-21", model_args={"max_iter": 5}, folds=2)
    assert time.process_time() - began < 60


def test_weights_are_learned_with_and_are_no_feature(tmp_path):
    """Rows of weight 0 are not learned from, by model and simple rule, and the column is left out of the features."""
    frame = known(pull=0.0)
    frame["pull"] = (frame["city"] != "Rome").astype(float)
    path = tmp_path / "t.parquet"
    frame.drop(columns="weight").to_parquet(path, index=False)
    params = params_for("train", str(path), window=WINDOW, features=[], id_column=["order"], weight="pull")
    rows = read_window(params).dropna(subset="returned").reset_index(drop=True)
    assert "pull" not in feature_columns(rows, params)
    names = ["city", "price", "express"]
    weighted = Schema.infer(rows, features=names, target="returned", weight="pull")
    plain, without = replace(weighted, weight=""), rows[rows["city"] != "Rome"]
    model = model_for(params, {"max_depth": 3}, schema=weighted)
    answers = [
        fit_recipe("all", model, part, schema=schema).predict_proba(schema.coerce(without))[:, 1]
        for part, schema in ((rows, weighted), (without, plain), (rows, plain))
    ]
    assert abs(answers[0] - answers[1]).max() < abs(answers[0] - answers[2]).max()
    tested = out_of_time(model, rows, schema=weighted, params=params)
    counted = tested.weights > 0
    said = tested.predicted[counted]
    assert tested.intervals()["log_loss"].value == pytest.approx(log_loss(tested.truth[counted], said))
    assert tested.lost[0].mean() == pytest.approx(1.0)


def test_a_model_that_takes_no_weights_says_so():
    """Of neighbours there are no weights: the error names the model and what else to do."""
    frame = known(pull=1.0)
    schema = frozen(frame, weight="pull")
    model = model_for(
        params_of(model="sklearn.neighbors.KNeighborsClassifier", model_args={}), {}, schema=schema
    )
    with pytest.raises(
        ModelError, match=r"model KNeighborsClassifier must take sample_weight in fit.*leave `weight`"
    ):
        fit_model(model, frame, schema=schema)
