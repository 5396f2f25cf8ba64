"""What a model is worth without some of its columns, and which rows it has learned."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.linear_model import LinearRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer
from tables import opened, orders, orders_file, params_for, places

from prodkit.data.schema import Schema
from prodkit.decisions.trial import unseen_rows
from prodkit.errors import WindowError
from prodkit.models.estimators import Fallback, build_model, fit_model, predictions
from prodkit.models.masks import MaskSample, masked
from prodkit.models.metrics import row_losses
from prodkit.models.seen import Seen
from prodkit.models.training import out_of_time
from prodkit.params import TrainParams
from prodkit.store.workspace import load_version

__all__ = ["orders_file", "places"]  # fixtures


def noisy(seed, rows=3000, days=60):
    """A quantity that rests on two of four columns, one of them a category."""
    draw = np.random.default_rng(seed)
    effects = dict(zip("abcdef", draw.normal(0, 1, 6), strict=True))
    frame = pd.DataFrame({"agent": draw.choice(list("abcdef"), rows), "x": draw.normal(size=rows)})
    frame = frame.assign(y=draw.normal(size=rows), z=draw.normal(size=rows))
    lift = frame["agent"].map(effects) + frame["x"]
    when = pd.Timestamp("2024-01-01") + pd.to_timedelta(np.sort(draw.integers(0, days, rows)), unit="D")
    return frame.assign(time=when, cost=lift + draw.normal(0, 0.7, rows))


@pytest.mark.parametrize("model", ["auto", "sklearn.ensemble.RandomForestRegressor"])
@pytest.mark.parametrize("columns", [["agent"], ["x"], ["agent", "x"], ["z"], []])
def test_what_a_mask_costs_is_what_it_costs_on_rows_that_are_new(model, columns):
    """The expected loss without columns is near that of later rows, though the model has learned from the sample."""
    frame = noisy(3, rows=6000, days=120)
    past, later = frame.head(3000), frame.tail(3000)
    names = ["agent", "x", "y", "z"]
    schema = Schema.infer(past, features=names, target="cost")
    params = TrainParams.check({"target": "cost", "features": names, "time_column": "time", "folds": 3})
    arguments = {} if model == "auto" else {"n_estimators": 20}
    untrained = build_model(model, schema=schema, arguments=arguments)
    tested = out_of_time(untrained, past, schema=schema, params=params)
    fitted = fit_model(untrained, past, schema=schema)
    price = MaskSample.of(tested).price(fitted, columns, schema=schema)
    answer = predictions(fitted, masked(later, columns, schema=schema), schema=schema)
    simple = Fallback.fit(past, schema=schema).predict(later, schema=schema)
    truly, rule = (row_losses(later["cost"], each, task="regression").mean() for each in (answer, simple))
    assert price.masked == pytest.approx(truly, rel=0.2)
    assert price.rule == pytest.approx(rule, rel=0.1)
    if abs(truly - rule) > 0.05 * rule:
        assert price.pays == (truly < rule)


def test_a_model_that_takes_no_missing_values_is_never_masked():
    """Its masks cost infinity, so that the simple rule answers; so does a mask of a model that beats no rule."""
    frame = noisy(1)
    schema = Schema.infer(frame, features=["x", "y", "z"], target="cost")
    params = TrainParams.check({"target": "cost", "features": ["x"], "time_column": "time", "folds": 3})
    untrained = build_model("test_masks:strict", schema=schema)
    sample = MaskSample.of(out_of_time(untrained, frame, schema=schema, params=params))
    fitted = fit_model(untrained, frame, schema=schema)
    price = sample.price(fitted, ["x"], schema=schema)
    assert (price.masked, price.pays) == (np.inf, False)
    assert "takes no missing values" in str(price)
    assert sample.price(fitted, [], schema=schema).pays
    assert not replace(sample, usual=sample.rule + 0.1).price(fitted, [], schema=schema).pays


def strict():
    """A pipeline of somebody's own that fails where a number is missing."""
    return make_pipeline(FunctionTransformer(), LinearRegression())


# Rows that a model has learned


def levels_table(rows, levels, *, seed=0, columns=3):
    """A table of so many levels in each of its columns, and a label of two."""
    draw = np.random.default_rng(seed)
    table = {f"c{place}": draw.integers(0, levels, rows).astype(str) for place in range(columns)}
    return pd.DataFrame(table | {"y": draw.integers(0, 2, rows)})


@settings(max_examples=40, deadline=None)
@given(
    levels=st.integers(2, 400), columns=st.integers(1, 4), rows=st.integers(60, 800), seed=st.integers(0, 999)
)
def test_a_fresh_window_is_never_stale_and_a_copied_one_is_where_rows_hardly_come_again(
    levels, columns, rows, seed
):
    """However few levels a table has, fresh rows of it stay below the limit; half of copies lie beyond it."""
    history = levels_table(4 * rows, levels, seed=seed, columns=columns)
    fresh = levels_table(rows, levels, seed=seed + 1, columns=columns)
    schema = Schema.infer(history, features=[f"c{place}" for place in range(columns)], target="y")
    seen = Seen.of(history, schema)
    assert seen.among(fresh, schema).mean() <= seen.limit(rows)
    if seen.natural < 0.4 and rows >= 300:
        half = pd.concat([fresh.head(rows // 2), history.tail(rows - rows // 2)])
        assert seen.among(half, schema).mean() > seen.limit(rows)
    assert seen.among(history, schema).all()


def test_no_model_is_judged_by_a_copy_of_what_it_has_learned(places, orders_file):
    """April sent again as May: its rows are left out though their times are new; a label that came late judges."""
    frame = orders()
    params = params_for("validate", orders_file, window="2024-02-01/2024-03-01", **places)
    with opened(places) as store:
        bundle = load_version(store, 2)
    learned = frame[(frame["ordered_at"] < bundle.trained.end) & frame["returned"].notna()].head(300)
    copies = learned.assign(ordered_at=learned["ordered_at"] + pd.Timedelta(days=40), order=range(9000, 9300))
    later = frame[frame["ordered_at"] >= "2024-02-01"].head(200).dropna(subset=["returned"])
    late = frame[frame["returned"].isna() & (frame["ordered_at"] < bundle.trained.end)].assign(returned=1.0)
    rows = pd.concat([copies, later, late], ignore_index=True)
    left = unseen_rows(rows, params, bundle)
    assert sorted(left["order"]) == sorted([*later["order"], *late["order"]])
    with pytest.raises(WindowError, match="must hold rows that no judged model has seen, nor copies of them"):
        unseen_rows(copies, params, bundle)
    old = unseen_rows(rows, params, replace(bundle, seen=None))
    assert sorted(old["order"]) == sorted([*copies["order"], *later["order"]])
