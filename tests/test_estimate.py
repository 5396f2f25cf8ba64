"""Performance without labels: right where the answer is known, silent where nothing is known, and never a decision."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tables import orders_file as orders_file
from tables import params_for, version_of

from prodkit.data.schema import Column, Schema
from prodkit.data.windows import read_window
from prodkit.decisions.decide import judgement
from prodkit.errors import DataError
from prodkit.evidence import Estimate, Evidence
from prodkit.models.bundle import measured, unpack, window_estimate
from prodkit.models.calibration import (
    CalibrationSet,
    LossModel,
    class_chances,
    encoded,
    expected_worth,
)
from prodkit.models.estimate import Estimated, domain, estimate_evidence, estimated
from prodkit.models.metrics import scores
from prodkit.models.training import OutOfTime
from prodkit.store.history import Champion

DAYS, A_DAY = 30, 60
CLASSES = {"binary": (0, 1), "multiclass": ("a", "b", "c"), "regression": ()}


def drawn(task, seed, *, days=DAYS, moved=0.0, shock=0.0, first=0):
    """Two columns, what a model that is too sure of itself says, and what comes true; days may share a shock."""
    random, n = np.random.default_rng(seed), days * A_DAY
    x = random.normal(size=(n, 2)) + np.array([moved, 0.0])
    mood = np.repeat(random.normal(0, shock, days), A_DAY)
    labels = first + np.repeat(np.arange(days), A_DAY)
    if task == "regression":
        return x, 3 * x[:, 0], 3 * x[:, 0] + random.normal(size=n) * np.exp(0.4 * x[:, 0]) + mood, labels
    true = np.column_stack([np.zeros(n), x[:, 0] + mood, x[:, 1]])[:, : len(CLASSES[task])]
    said = 1.8 * np.column_stack([np.zeros(n), x[:, 0], x[:, 1]])[:, : len(CLASSES[task])]
    true, said = (np.exp(side) / np.exp(side).sum(axis=1, keepdims=True) for side in (true, said))
    truth = (random.random((n, 1)) > np.cumsum(true, axis=1)).sum(axis=1).clip(0, true.shape[1] - 1)
    return x, said[:, 1] if task == "binary" else said, truth, labels


def calibration_of(task, seed=0, **given):
    """A calibration set of such rows."""
    x, said, truth, days = drawn(task, seed, **given)
    schema = Schema((Column("x", "numeric"), Column("z", "numeric")), "y", task, CLASSES[task])
    model = LossModel.fit(x, said, np.abs(truth - said), days) if task == "regression" else None
    return CalibrationSet(schema, ("x", "z"), x.astype(np.float32), truth, said, days, model)


@settings(max_examples=25, deadline=None)
@given(
    seed=st.integers(0, 2**32 - 1), task=st.sampled_from(["binary", "multiclass"]), digits=st.integers(1, 6)
)
def test_rows_that_are_sure_have_the_scores_that_are_realised(seed, task, digits):
    """If the chance of what came true is one, each expected score is the realised one, ties included."""
    _, said, truth, _ = drawn(task, seed, days=2)
    said = np.round(said, digits) if task == "binary" else said
    shares = np.column_stack([1 - said, said]) if task == "binary" else said
    found = {
        name: value
        for name, (value, _) in expected_worth(np.eye(shares.shape[1])[truth], shares, task=task).items()
    }
    realised = scores(truth, said, task=task)
    shared = found.keys() & realised.keys()
    assert {"log_loss", "roc_auc"} <= shared
    assert {name: found[name] for name in shared} == pytest.approx({name: realised[name] for name in shared})


def test_chances_are_what_came_of_like_scores():
    """Isotonic chances undo a model that is too sure of itself, and those of many classes add up to one."""
    for task in ("binary", "multiclass"):
        x, said, truth, _ = drawn(task, 1, days=400)
        shares = np.column_stack([1 - said, said]) if task == "binary" else said
        (chances,) = class_chances(truth, shares, [shares])
        assert chances.sum(axis=1) == pytest.approx(np.ones(len(x)))
        honest = np.exp(np.column_stack([np.zeros(len(x)), x])[:, : shares.shape[1]])
        honest /= honest.sum(axis=1, keepdims=True)
        assert np.abs(chances - honest).mean() < 0.25 * np.abs(shares - honest).mean()


@pytest.mark.parametrize(
    ("task", "name"), [("binary", "roc_auc"), ("multiclass", "log_loss"), ("regression", "mae")]
)
def test_the_realised_figure_lies_in_the_interval(task, name):
    """Nearly all realised figures lie in the interval, though days share shocks, and it is no wider than it must be."""
    kept, held, widths, errors = calibration_of(task, shock=0.4), 0, [], []
    for seed in range(1, 7):
        x, said, truth, days = drawn(task, seed, days=10, shock=0.4, first=100)
        found = estimated(kept, x, said, days=days).scores[name]
        realised = scores(truth, said, task=task)[name]
        held += found.low <= realised <= found.high
        widths.append(found.high - found.low)
        errors.append(found.value - realised)
    assert held >= 5
    assert np.mean(widths) < 12 * np.sqrt(np.mean(np.square(errors)))


def test_a_loss_that_grows_with_a_column_is_foreseen_when_the_column_moves():
    """Where errors are larger for large values and values grow, the estimate grows as much as the error does."""
    kept = calibration_of("regression")
    x, said, truth, days = drawn("regression", 7, moved=0.7, first=100)
    found = estimated(kept, x, said, days=days)
    before, after = np.abs(kept.truth - kept.predicted).mean(), np.abs(truth - said).mean()
    assert after > 1.2 * before
    assert found.scores["mae"].low <= after <= found.scores["mae"].high
    assert abs(found.scores["mae"].value - after) < 0.3 * (after - before)
    assert found.scores["rmse"].value > found.scores["mae"].value


@pytest.mark.parametrize("task", ["binary", "multiclass", "regression"])
def test_a_window_unlike_all_that_is_known_is_not_estimated(task):
    """Rows that resemble none of the calibration set get no number, whatever the task."""
    x, said, _, days = drawn(task, 3, moved=8.0, first=100)
    found = estimated(calibration_of(task), x, said, days=days)
    assert not found.scores
    assert "outside what the calibration rows support" in found.abstained


@pytest.mark.parametrize(
    ("spoil", "why"),
    [
        (lambda kept, window: (kept, [side[:20] for side in window]), "the window has 20 rows"),
        (lambda kept, window: (kept, [window[0], np.where(window[2] < 101, np.nan, window[1]), window[2]]),
         "a prediction is not a number"),
        (lambda kept, window: (replace(kept, truth=np.zeros_like(kept.truth)), window),
         "0 calibration rows of class 1"),
        (lambda kept, window: (replace(kept, days=kept.days * 0), window), "on 1 days; needed are 300 on 5"),
        (lambda kept, window: (kept, [*window[:2], window[2] * 0]), "must hold rows of two days or more"),
    ],
)  # fmt: skip
def test_too_little_is_said_and_not_estimated(spoil, why):
    """Too few rows, days or rows of a class, or a prediction that is none: no number, and the reason."""
    x, said, _, days = drawn("binary", 4, first=100)
    kept, window = spoil(calibration_of("binary"), [x, said, days])
    found = estimated(kept, window[0], window[1], days=window[2])
    assert not found.scores
    assert why in found.abstained


def test_days_are_not_learned_by_heart():
    """Rows whose days differ at random, and nothing else, all weigh about the same; rows that moved do not."""
    random = np.random.default_rng(0)

    def rows(days, moved=0.0):
        mood = np.repeat(random.normal(size=(days, 3)), A_DAY, axis=0)
        return mood + moved + 0.3 * random.normal(size=(days * A_DAY, 3)), np.repeat(np.arange(days), A_DAY)

    before, same, moved = rows(60), rows(10), rows(10, moved=2.0)
    alike = domain(before[0], same[0], days=(before[1], same[1] + 100))
    apart = domain(before[0], moved[0], days=(before[1], moved[1] + 100))
    assert alike.weights.std() < 0.8
    assert alike.beyond() < 0.1
    assert apart.auc.value > 0.85 > alike.auc.value
    assert apart.weights.std() > 1.2 * alike.weights.std()
    with pytest.raises(DataError, match="two days or more"):
        domain(before[0], same[0], days=(before[1], same[1] * 0))


def test_levels_are_codes_and_new_ones_stand_apart():
    """A level is its place in the schema, a new one the place behind, a missing one NaN; no date is kept."""
    schema = Schema((Column("c", "categorical", ("a", "b")), Column("n", "numeric")), "y", "binary", (0, 1))
    frame = pd.DataFrame({"c": ["b", "new", None], "n": [1e300, np.nan, -2.0]})
    found = encoded(schema.coerce(frame), schema, ("c", "n"))
    assert found[:, 0].tolist()[:2] == [1.0, 2.0]
    assert np.isnan(found[2, 0])
    assert np.isfinite(found[[0, 2], 1]).all()


@pytest.fixture
def champion():
    """A version of the orders."""
    return unpack(version_of(2)[0])


@pytest.fixture
def params(orders_file):
    """Of a look at two weeks of orders."""
    return params_for("rollback", orders_file, window="2024-02-03/2024-02-17")


@pytest.mark.parametrize("task", ["binary", "regression"])
def test_rows_without_an_answer_calibrate_nothing(task):
    """What a model could not say of a row, or nobody knows of it, is left out; with no row left nothing is learned."""
    schema = Schema((Column("x", "numeric"), Column("z", "numeric")), "y", task, CLASSES[task])
    x, said, truth, days = drawn(task, 0)
    broken = np.where(np.arange(len(said)) % 3 == 0, np.nan, said)
    frame = pd.DataFrame(x, columns=["x", "z"])
    tested = OutOfTime(schema, frame, truth, broken, said, days, pd.DataFrame(), None, days == days.max())
    kept = CalibrationSet.of(tested, importance={})
    assert len(kept.predicted) > 300
    assert np.isfinite(kept.predicted).all()
    nothing = CalibrationSet.of(replace(tested, predicted=broken * np.nan), importance={})
    assert (len(nothing.truth), nothing.loss_model) == (0, None)


def test_an_estimate_looks_at_no_label(champion, params):
    """Labels, whatever they are, change no digit of an estimate."""
    rows = read_window(params)
    first = window_estimate(rows, params, bundle=champion)
    again = window_estimate(rows.assign(returned=np.nan), params, bundle=champion)
    assert first.scores
    assert first.scores == again.scores


@pytest.mark.parametrize(
    ("change", "distrust", "why"),
    [
        ({}, "its units have changed", "the model was not asked: its units have changed"),
        ({"calibration": None}, "", "train it again"),
    ],
)
def test_a_model_that_was_not_asked_is_not_estimated(champion, params, change, distrust, why):
    """Nothing is estimated for the simple rule, nor for a version that keeps no calibration rows."""
    found = window_estimate(
        read_window(params), params, bundle=replace(champion, **change), distrust=distrust
    )
    assert not found.scores
    assert why in found.abstained


@pytest.mark.parametrize(
    ("low", "value", "outcome"), [(0.7, 0.75, "fail"), (0.5, 0.65, "inconclusive"), (0.4, 0.5, "pass")]
)
def test_an_estimate_asks_to_watch_and_no_more(low, value, outcome):
    """An estimated rise is rung 4: it asks to watch, and what was realised makes the outcome."""
    found = Estimated({"log_loss": Estimate(value, low, 0.9, 1000, 10)}, rows=1000)
    before = {"log_loss": Estimate(0.5, 0.45, 0.55, 0, 0)}
    told = estimate_evidence(found, task="binary", reference=before, margin=0.02, window="this window")
    assert (told.rung, told.outcome) == (4, outcome)
    known = [Evidence("contract.columns", "pass", rung=1), Evidence("performance.labels", "pass", rung=3)]
    decision = judgement([*known, told], champion=Champion(2, 1, "", 3))
    assert decision.action == ("watch" if outcome == "fail" else "keep")
    assert decision.outcome == "pass"


def test_without_a_reference_or_an_estimate_nothing_passes():
    """An abstention, and an estimate that nothing is known to hold against, are inconclusive, with the reason."""
    nothing = {"reference": {}, "margin": 0.0, "window": "this window"}
    silent = estimate_evidence(Estimated(abstained="too odd", rows=9), task="binary", **nothing)
    found = Estimated({"log_loss": Estimate(0.5, 0.4, 0.6, 9, 2)}, rows=9)
    unknown = measured({"metrics": {"log_loss": {"value": 0.5, "low": 0.4, "high": None}}})
    alone = estimate_evidence(found, task="binary", reference=unknown, margin=0, window="w")
    assert [silent.outcome, alone.outcome] == ["inconclusive", "inconclusive"]
    assert "too odd" in silent.note
    assert "nothing to hold it against" in alone.note
