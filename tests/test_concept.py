"""Drift beyond single columns, and what a drifted column does: found where it was put, and not where it was not."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tables import orders, params_for, version_of, written

from prodkit.data.schema import Column, Schema
from prodkit.data.windows import read_window
from prodkit.decisions.concept import concept_drift, joint_drift, label_drift, wider_drift
from prodkit.decisions.damage import damage_table, put_back, segment
from prodkit.decisions.survey import drift_report
from prodkit.drift.counts import column_profile
from prodkit.models.bundle import unpack
from prodkit.models.calibration import CalibrationSet

DAYS, A_DAY = 40, 50
SCHEMA = Schema((Column("x", "numeric"), Column("z", "numeric")), "y", "binary", (0, 1))


def rows(seed, days, *, together=0.0, level=0.0, slope=1.0, mood=0.0):
    """Two columns, a calibrated score, what comes true, days."""
    random, n = np.random.default_rng(seed), days * A_DAY
    x = random.normal(size=(n, 2))
    x[:, 1] = together * x[:, 0] + np.sqrt(1 - together**2) * x[:, 1]
    said, true = 1 / (1 + np.exp(-x[:, 0])), slope * x[:, 0] + level
    true = true + np.repeat(random.normal(0, mood, days), A_DAY)
    truth = (random.random(n) < 1 / (1 + np.exp(-true))).astype(int)
    return x.astype(np.float32), said, truth, np.repeat(np.arange(days), A_DAY)


@pytest.fixture
def kept():
    """Calibration rows without drift; days share a little."""
    x, said, truth, days = rows(0, DAYS, mood=0.3)
    return CalibrationSet(SCHEMA, ("x", "z"), x, truth, said, days)


@pytest.mark.parametrize(
    ("change", "found"),
    [
        ({}, []),
        ({"mood": 0.3}, []),
        ({"together": 0.8}, ["drift.together"]),
        ({"slope": -1.0}, ["drift.concept"]),
        ({"level": 1.2}, ["drift.concept", "drift.labels"]),
    ],
)
def test_each_kind_of_drift_is_told_from_the_others(kept, change, found):
    """Columns that go together otherwise, scores that mean something else, other labels: each has its own line."""
    x, said, truth, days = rows(1, 15, **change)
    told = [
        joint_drift(kept, x, days=days + DAYS),
        label_drift(kept, truth, days=days + DAYS),
        concept_drift(kept, truth, said, days=days + DAYS),
    ]
    assert sorted(item.name for item in told if item.outcome == "fail") == found
    assert {item.rung for item in told} == {5}


def test_quantities_that_come_out_higher_are_concept_drift():
    """A bias of a third of what is usually left is found; none is not."""
    random = np.random.default_rng(0)
    schema = Schema(SCHEMA.features, "y", "regression")
    x, days = random.normal(size=(2000, 2)), np.repeat(np.arange(40), 50)
    kept = CalibrationSet(
        schema, ("x", "z"), x.astype(np.float32), x[:, 0] + random.normal(size=2000), x[:, 0], days
    )
    new = random.normal(size=750)
    for bias, outcome in ((0.0, "pass"), (0.35, "fail")):
        truth = new + bias + random.normal(size=750)
        assert concept_drift(kept, truth, new, days=40 + days[:750]).outcome == outcome


def test_what_cannot_be_told_is_inconclusive(kept):
    """One day of a window cannot be told from other days; a prediction that is none is an error, not a finding."""
    x, said, truth, days = rows(1, 1)
    assert joint_drift(kept, x, days=days).outcome == "inconclusive"
    assert concept_drift(kept, truth, np.full(len(said), np.nan), days=days).outcome == "error"


@pytest.fixture
def champion():
    """A version of the orders."""
    return unpack(version_of(2)[0])


def test_labels_that_are_to_come_say_nothing_yet(champion, tmp_path):
    """Without two hundred labels there is a line that says so, and none about labels or scores."""
    params = params_for("drift", written(orders(), tmp_path), window="2024-02-03/2024-02-17")
    table = read_window(params)
    found = {item.name: item for item in wider_drift(params, table, bundle=champion)}
    assert found.keys() == {"drift.together", "drift.labels", "drift.concept"}
    young = {
        item.name: item
        for item in wider_drift(params, table.assign(returned=np.nan), bundle=champion, joint=False)
    }
    assert young.keys() == {"drift.concept"}
    assert young["drift.concept"].outcome == "inconclusive"
    assert "0 labels have matured" in young["drift.concept"].note
    (old,) = wider_drift(params, table, bundle=replace(champion, calibration=None))
    assert old.outcome == "inconclusive"


@settings(max_examples=30, deadline=None)
@given(
    scale=st.floats(0.01, 100), offset=st.floats(-1e3, 1e3), n=st.integers(60, 400), gone=st.floats(0, 0.9),
    seed=st.integers(0, 99),
)  # fmt: skip
def test_a_number_put_back_has_the_distribution_that_it_had(scale, offset, n, gone, seed):
    """Whatever unit a column came in, its values put back are those of the reference, none missing."""
    random = np.random.default_rng(seed)
    reference = column_profile(random.normal(size=2000), blocks=np.repeat(np.arange(20), 100))
    values = random.normal(size=n) * scale + offset
    values[: int(gone * n)] = np.nan
    current = column_profile(values, blocks=np.zeros(n, dtype=int), like=reference)
    back = put_back(pd.Series(values), reference, current, random=random)
    assert back.notna().all()
    assert abs(back.median()) < 0.35
    assert 0.5 < back.std() < 1.5
    there = ~np.isnan(values)
    assert (np.diff(back.to_numpy()[there][np.argsort(values[there])]) >= 0).all()


def test_levels_put_back_have_their_shares_and_few_rows_change():
    """Only as many rows get another level as must for the shares to be those of the reference."""
    days = np.repeat(np.arange(10), 100)
    reference = column_profile(
        np.array(["a"] * 500 + ["b"] * 300 + ["c"] * 200, dtype=object), blocks=days, kind="categorical"
    )
    values = pd.Series(np.array(["a"] * 80 + ["b"] * 10 + [np.nan] * 10, dtype=object))
    current = column_profile(values.to_numpy(), blocks=days[:100], like=reference)
    back = put_back(values, reference, current, random=np.random.default_rng(0))
    assert back.value_counts().to_dict() == {"a": 50, "b": 30, "c": 20}
    assert (back == values).sum() == 60


def test_a_column_in_another_unit_costs_what_it_takes_to_undo(champion, tmp_path):
    """Prices that come a thousandfold move what the champion says, and the loss falls when they are put back."""
    drill = {"price": "scaled"}
    params = params_for("drift", written(orders(), tmp_path), window="2024-02-01/2024-02-22", drill=drill)
    table = read_window(params)
    report = drift_report(params, table, bundle=champion)
    found = damage_table(params, table, ["price", "weight"], bundle=champion, current=report.current)
    assert found.index[0] == "price"
    assert found.loc["price", "prediction_change"] > 3 * found.loc["weight", "prediction_change"]
    assert found.loc["price", "loss_change"] > 0.01
    young = damage_table(
        params, table.assign(returned=np.nan), ["price"], bundle=champion, current=report.current
    )
    assert young["loss_change"].isna().all()


def test_the_segment_in_which_a_column_moved_is_named(champion):
    """A shift that only one city has is found there; one that all have is in none above all."""
    kept, table = champion.calibration, orders(days=20, seed=5)
    days = np.repeat(np.arange(100, 120), 60)
    coerced = champion.schema.coerce(table)
    assert segment("price", coerced, kept, days=days) == ""
    assert segment("price", coerced.assign(price=coerced["price"] * 1.6), kept, days=days) == ""
    where = coerced["price"].where(coerced["city"] != "Oslo", coerced["price"] * 2.5)
    assert segment("price", coerced.assign(price=where), kept, days=days).startswith("city Oslo: ")
