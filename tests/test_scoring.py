"""Scoring: one prediction a row, whatever stops it, and whatever the rows look like."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from tables import FEBRUARY, opened, orders, orders_file, params_for, places, trained, written

from prodkit.data.windows import read_window
from prodkit.decisions.survey import inspect_window
from prodkit.models.bundle import unpack
from prodkit.scoring.batch import remember_scoring, score_window, scoring_evidence
from prodkit.scoring.guard import guarded
from prodkit.store.workspace import load_version

__all__ = ["orders_file", "places"]  # fixtures

# A process of its own that scores in small batches until somebody kills it.
SCORER = """
import json, sys
from prodkit.data.windows import read_window
from prodkit.settings.params import ScoreParams
from prodkit.scoring.batch import score_window
from prodkit.store.registry import Store
from prodkit.store.workspace import load_version
given = json.loads(sys.argv[1])
params = ScoreParams.check(given)
with Store.open(params.store, params.artifacts) as store:
    score_window(params, read_window(params), version=2, bundle=load_version(store, 2))
"""


@pytest.fixture
def bundle(places):
    """The champion."""
    with opened(places) as store:
        return load_version(store, 2)


@pytest.fixture
def params(places, orders_file, tmp_path):
    """Half of February, in batches of 100 rows."""
    folder = str(tmp_path / "predictions")
    return params_for("score", orders_file, window=FEBRUARY, batch_rows=100, predictions=folder, **places)


class Breaking:
    """A model that answers as another does, until it meets a certain price."""

    def __init__(self, model, price, answer=None):
        self.model, self.price, self.answer, self.classes_ = model, price, answer, model.classes_

    def predict_proba(self, columns):
        """Shares of the classes, NaN for the price; or an error, if no answer is given."""
        shares, wrong = self.model.predict_proba(columns), (columns["price"] == self.price).to_numpy()
        if wrong.any() and self.answer is None:
            raise ArithmeticError("a price that breaks the model")
        shares[wrong] = self.answer
        return shares


def test_every_row_is_predicted_once(params, bundle):
    """A window in batches has each row once, in its order, with version, time and latency."""
    rows = read_window(params)
    scored = score_window(params, rows, version=2, bundle=bundle)
    assert scored.table["row_id"].tolist() == rows["order"].astype(str).tolist()
    assert scored.table["time"].tolist() == rows["ordered_at"].tolist()
    assert np.allclose(scored.predicted, bundle.predict(rows))
    assert (scored.table["version"] == 2).all()
    assert (scored.table["latency_ms"] > 0).all()
    assert (scored.degraded_share, scored.error_share, scored.resumed_batches) == (0.0, 0.0, 0)
    assert len(list(scored.folder.glob("part-*.parquet"))) == -(-len(rows) // 100)


def test_scoring_again_changes_nothing(params, bundle):
    """Whoever scores the same window again finds it done: the same files, the same table."""
    rows = read_window(params)
    first = score_window(params, rows, version=2, bundle=bundle)
    files = {path.name: path.stat().st_mtime_ns for path in first.folder.iterdir()}
    again = score_window(params, rows, version=2, bundle=bundle)
    assert again.resumed_batches == len(files)
    assert {path.name: path.stat().st_mtime_ns for path in again.folder.iterdir()} == files
    pd.testing.assert_frame_equal(again.table, first.table)


def test_other_rows_another_version_or_another_trust_lie_apart(params, bundle):
    """Predictions of other work never mix with those that are there."""
    rows = read_window(params)
    other = rows.assign(price=rows["price"] + 1)
    folders = {
        score_window(params, rows, version=2, bundle=bundle).folder,
        score_window(params, other, version=2, bundle=bundle).folder,
        score_window(params, rows, version=1, bundle=bundle).folder,
        score_window(params, rows, version=2, bundle=bundle, distrust="broken").folder,
        score_window(params.model_copy(update={"batch_rows": 99}), rows, version=2, bundle=bundle).folder,
    }
    assert len(folders) == 5


def test_a_killed_process_loses_and_doubles_no_row(params, bundle, tmp_path):
    """SIGKILL in the midst of scoring, then again: each row once, with the prediction it would have had."""
    small = params.model_copy(update={"batch_rows": 5})
    undisturbed = small.model_copy(update={"predictions": str(tmp_path / "undisturbed")})
    rows, done = read_window(params), 0
    batches = -(-len(rows) // 5)
    for _ in range(2):
        scorer = subprocess.Popen(
            [sys.executable, "-c", SCORER, small.model_dump_json()],
            env=os.environ | {"OMP_NUM_THREADS": "1"},
        )
        there = done
        while there < done + 10:
            assert scorer.poll() is None, "it came to its end before it was killed"
            time.sleep(0.002)
            there = len(list(tmp_path.glob("predictions/**/part-*.parquet")))
        scorer.send_signal(signal.SIGKILL)
        assert scorer.wait(10) == -signal.SIGKILL
        done = len(list(tmp_path.glob("predictions/**/part-*.parquet")))
        assert 10 <= done < batches
    resumed = score_window(small, rows, version=2, bundle=bundle)
    assert resumed.resumed_batches == done
    whole = score_window(undisturbed, rows, version=2, bundle=bundle)
    timeless = [name for name in whole.table.columns if name != "latency_ms"]
    pd.testing.assert_frame_equal(resumed.table[timeless], whole.table[timeless])
    assert resumed.table["row_id"].is_unique
    assert len(resumed.table) == len(rows)


def test_half_a_file_is_no_batch(params, bundle):
    """What a killed process was writing does not count as written."""
    rows = read_window(params)
    folder = score_window(params, rows, version=2, bundle=bundle).folder
    part = folder / "part-00003.parquet"
    part.with_suffix(".77.tmp").write_bytes(part.read_bytes()[:100])
    part.unlink()
    again = score_window(params, rows, version=2, bundle=bundle)
    assert again.resumed_batches == len(list(folder.glob("part-*.parquet"))) - 1
    assert again.table["row_id"].tolist() == rows["order"].astype(str).tolist()


def test_broken_input_is_answered_by_the_simple_rule_with_the_reason(params, bundle, places):
    """A window that breaks the data contract is scored degraded: the fallback answers, and each row says why."""
    broken = params.model_copy(update={"drill": {"price": "empty", "weight": "scaled"}})
    rows = read_window(broken)
    with opened(places) as store:
        inspection = inspect_window(store, broken, rows, version=2, bundle=bundle)
        scored = score_window(broken, rows, version=2, bundle=bundle, distrust=inspection.distrust)
        remember_scoring(store, broken, scored, inspection, version=2)
        metrics = store.metrics(notebook="score").set_index("name")["value"]
        assert store.latest_profile(broken.window.end) is None  # nothing to compare a later window with
        assert store.latest_profile(broken.window.end, clean=False) is not None
    assert not inspection.sound
    assert "price is empty" in inspection.distrust
    assert "weight" in inspection.distrust
    assert scored.table["degraded"].all()
    assert (scored.table["reason"] == inspection.distrust).all()
    assert np.allclose(scored.predicted, bundle.fallback.predict(rows, schema=bundle.schema))
    assert (metrics["degraded_share"], metrics["error_share"]) == (1.0, 0.0)
    outcomes = {item.name: item.outcome for item in scoring_evidence(broken, scored)}
    assert outcomes == {"health.error_share": "pass", "health.degraded_share": "fail"}


def test_a_row_with_strange_values_does_not_fail_its_batch(params, bundle):
    """Text among numbers, infinity: the row gets an answer of its own with the reason, its neighbours as without it.

    A city that nobody has seen is an answerable row.
    """
    rows = read_window(params).head(50)
    strange = rows.astype({"price": object, "city": object, "weight": object})
    strange.loc[7, ["price", "city", "weight"]] = ["a lot", "Atlantis", float("inf")]
    strange.loc[8, "city"] = "Atlantis"
    answers = guarded(bundle, strange)
    assert np.isfinite(answers.predicted).all()
    others = ~np.isin(np.arange(50), [7, 8])
    assert np.array_equal(answers.predicted[others], bundle.predict(rows)[others])
    assert np.flatnonzero(answers.degraded).tolist() == [7]
    assert answers.reason[7] == "price must be numeric; found 'a lot'"


def test_a_row_without_a_finite_answer_is_answered_by_the_simple_rule(params, bundle):
    """Where the model gives NaN for one row, that row alone is degraded, and says so."""
    rows = read_window(params)
    poor = replace(bundle, model=Breaking(bundle.model, rows["price"].iloc[7], answer=np.nan))
    hit = (rows["price"] == rows["price"].iloc[7]).to_numpy()
    scored = score_window(params, rows, version=2, bundle=poor)
    assert np.array_equal(scored.table["degraded"], hit)
    assert (scored.table["reason"] == np.where(hit, "the model gave no finite number", "")).all()
    assert np.allclose(scored.predicted[~hit], bundle.predict(rows)[~hit])
    assert np.allclose(scored.predicted[hit], bundle.fallback.predict(rows[hit], schema=bundle.schema))
    assert scored.error_share == pytest.approx(hit.mean())


def test_a_model_that_raises_still_leaves_an_answer_for_every_row(params, bundle):
    """A model that crashes on a row degrades that batch, with the error as the reason, and no other."""
    rows = read_window(params)
    poor = replace(bundle, model=Breaking(bundle.model, rows["price"].iloc[207]))
    scored = score_window(params, rows, version=2, bundle=poor)
    assert np.isfinite(scored.predicted).all()
    crashed = scored.table[scored.table["degraded"]]
    assert set(crashed["reason"]) == {"ArithmeticError: a price that breaks the model"}
    assert rows["order"].astype(str)[207] in set(crashed["row_id"])
    assert len(crashed) < len(rows) / 2
    answered = ~scored.table["degraded"].to_numpy()
    assert np.allclose(scored.predicted[answered], bundle.predict(rows)[answered])
    assert scored.error_share == scored.degraded_share > 0


@pytest.mark.parametrize("task", ["multiclass", "regression"])
def test_other_tasks_are_scored_as_well(tmp_path, task):
    """Several classes have a column each, whose shares add up to one; a regression has one column."""
    frame = orders(days=40, rows=30)
    frame["returned"] = (
        np.where(frame["price"] > 60, "late", frame["city"]) if task == "multiclass" else frame["price"] * 2
    )
    data = written(frame, tmp_path)
    bundle = unpack(trained(params_for("train", data, window="2024-01-01/2024-02-01"))[0])
    assert bundle.schema.task == task
    params = params_for(
        *("score", data), window="2024-02-01/2024-02-05", batch_rows=50, predictions=str(tmp_path / "p")
    )
    rows = read_window(params)
    table = score_window(params, rows, version=1, bundle=bundle).table
    names = [name for name in table.columns if name.startswith("prediction")]
    assert len(table) == len(rows)
    if task == "multiclass":
        assert names == [f"prediction_{city}" for city in bundle.schema.classes]
        assert np.allclose(table[names].sum(axis=1), 1.0)
    else:
        assert names == ["prediction"]
    broken = score_window(params, rows, version=1, bundle=bundle, distrust="broken").table
    assert np.isfinite(broken[names].to_numpy()).all()
