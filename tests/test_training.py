"""How a challenger is made: what training may see, folds in time, search, and what the diagnostics find."""

from datetime import timedelta

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tables import orders, params_for

from prodkit.data.schema import Schema
from prodkit.errors import LabelError, ModelError, WindowError
from prodkit.models.metrics import row_losses
from prodkit.models.training import (
    folds,
    importance,
    learning_curve,
    model_for,
    out_of_time,
    search_arguments,
    split_window,
    subsample,
)

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


days_of_rows = st.lists(st.integers(0, 60), min_size=1, max_size=120)


@settings(max_examples=150, deadline=None)
@given(days_of_rows, st.integers(2, 6), st.integers(0, 5 * 24), st.randoms(use_true_random=False))
def test_folds_learn_from_the_past_and_are_tested_on_the_future(days, n, gap, chance):
    """Whatever days hold rows, in any order: labels were known in time, whole days, each day tested once."""
    delay = timedelta(hours=gap)
    hours = [24 * day + chance.randrange(24) for day in days]
    times = pd.Series(pd.Timestamp("2024-01-01") + pd.to_timedelta(hours, unit="h"))
    try:
        found = list(folds(times, n=n, gap=delay))
    except WindowError:
        assert len(set(days)) < n + np.ceil(delay / timedelta(days=1)) + 1
        return
    assert len(found) == n
    tested = [set(times.iloc[test].dt.date) for _, test in found]
    for (train, test), dates in zip(found, tested, strict=True):
        assert len(train)
        assert len(test)
        assert times.iloc[train].max() + delay < times.iloc[test].min()
        assert len(test) == times.dt.date.isin(dates).sum()
    assert sum(map(len, tested)) == len(set().union(*tested))
    assert [max(dates) for dates in tested] == sorted(max(dates) for dates in tested)
    assert max(tested[-1]) == times.max().date()


def test_too_few_days_for_the_folds_are_refused():
    """The error counts the days and says what to change."""
    times = pd.Series(pd.date_range("2024-01-01", periods=72, freq="h"))
    with pytest.raises(WindowError, match=r"enough days for 5 folds; found 3 days\. Use fewer `folds`"):
        list(folds(times, n=5, gap=timedelta(0)))


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


@pytest.mark.parametrize("search", ["random", "halving"])
@pytest.mark.parametrize("task", ["multiclass", "regression"])
def test_other_tasks_are_searched_by_their_own_loss(search, task):
    """Log loss over several classes, absolute error of numbers."""
    frame = known(days=20)
    frame["returned"] = frame["city"] if task == "multiclass" else frame["price"]
    schema = Schema.infer(frame, features=["city", "price", "weight"], target="returned", task=task)
    space = {"learning_rate": [1e-6, 0.3]}
    params = params_of(folds=2, search=search, search_space=space, model_args={"max_iter": 8})
    arguments, tried = search_arguments(frame, schema=schema, params=params)
    assert arguments == {"max_iter": 8, "learning_rate": 0.3}
    spread = np.abs(frame["price"] - frame["price"].mean()).mean()
    assert tried["loss"].iloc[0] < (np.log(4) if task == "multiclass" else spread) / 2


def test_the_last_round_of_halving_learns_from_all_rows(monkeypatch):
    """Early rounds are small, so that the last, which decides, is not."""
    frame, sizes = known(), []
    monkeypatch.setattr(
        "prodkit.models.training.mean_loss", lambda m, columns, *_: sizes.append(len(columns)) or 1.0
    )
    space = {"max_depth": [2, 3, 4, 5], "learning_rate": [0.1, 0.2]}
    params = params_of(folds=2, search="halving", search_space=space, model_args={"max_iter": 1})
    search_arguments(frame, schema=frozen(frame), params=params)
    whole = [len(test) for _, test in folds(frame["ordered_at"], n=2, gap=params.label_delay)]
    assert sizes[-1] == pytest.approx(whole[-1], rel=0.05)
    assert sizes[0] < 0.5 * whole[0]


def test_without_a_search_the_arguments_are_those_given():
    """Nothing is fitted, and nothing is tabled."""
    arguments, tried = search_arguments(known(days=5), schema=frozen(known(days=5)), params=params_of())
    assert arguments == {"max_iter": 15}
    assert tried.empty


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


def test_a_fold_without_a_positive_is_no_crash():
    """A quiet first month of a rare outcome: its fold has no AUC, the others do."""
    frame = known()
    quiet = frame["ordered_at"] < pd.Timestamp("2024-01-16")
    frame["returned"] = frame["returned"].mask(quiet, 0.0)
    params = params_of()
    schema = frozen(frame)
    model = model_for(params, params.model_args, schema=schema)
    tested = out_of_time(model, frame, schema=schema, params=params)
    assert len(tested.folds) == 3
    assert np.isfinite(tested.losses[1]).all()
    assert np.isfinite(tested.folds["value"].iloc[-1])


@given(st.integers(1, 300), st.integers(1, 100))
def test_thinning_keeps_at_most_so_many_rows_over_the_whole_span(rows, most):
    """The first row stays, gaps are even, and a short table stays whole."""
    kept = subsample(pd.DataFrame({"x": np.arange(rows)}), most)["x"].to_numpy()
    assert 1 <= len(kept) <= most
    assert kept[0] == 0
    assert len(np.unique(np.diff(kept))) <= 1
    assert len(kept) == rows or most < rows
    assert rows - 1 - kept[-1] < -(-rows // most)


def test_the_loss_of_a_row_is_the_one_that_decides(noisy):
    """The losses of the out-of-time rows are those of the task's primary loss."""
    _, _, tested = noisy
    assert np.array_equal(tested.losses[1], row_losses(tested.truth, tested.predicted, task="binary"))
    assert (tested.loss, tested.metric) == ("log_loss", "roc_auc")
