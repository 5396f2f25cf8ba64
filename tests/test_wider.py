"""Drift that no column shows is judged once a window, kept, and told only of what the champion served."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from benchmarks.null_watch import alarms
from tables import orders, params_for, version_of, written

from prodkit.models.bundle import unpack
from prodkit.monitoring.alerts import ranked_alerts
from prodkit.monitoring.findings import monitor_evidence
from prodkit.monitoring.health import health_metrics
from prodkit.monitoring.outcomes import KINDS, judge_drift, judge_matured
from prodkit.scoring.batch import open_window, remember_scoring, score_window
from prodkit.scoring.inspection import inspect_chunks
from prodkit.store.registry import Store

WINDOWS = ["2024-02-01/2024-02-11", "2024-02-11/2024-02-21"]


@pytest.fixture
def store(tmp_path, monkeypatch):
    """A store whose champion is version 1 of the orders."""
    monkeypatch.setenv("PRODKIT_OUT", str(tmp_path / "out"))
    with Store.open(f"sqlite:///{tmp_path}/store.db", str(tmp_path / "artifacts")) as opened:
        for number in (2, 1):  # the better one is the first
            opened.register(*version_of(number))
        opened.promote(1, expected_generation=0, reason="test")
        yield opened


def scored(store, table, window, *, version=1, number=2, **given):
    """Score a window by a version, as the notebook does."""
    params = params_for("score", table, window=window, store="unused", **given)
    bundle = unpack(version_of(number)[0])
    rows = open_window(params, bundle=bundle)
    inspection = inspect_chunks(store, params, rows, version=version, bundle=bundle)
    found = score_window(params, rows, inspection, version=version, bundle=bundle)
    remember_scoring(store, params, found, inspection, version=version)


def seen(store, table, *, run="", **given):
    """The signs and the findings of drift, after windows were judged."""
    params = params_for("monitor", table, **{"window": WINDOWS[-1], "windows": 2, "store": "unused", **given})
    judge_matured(store, params)
    unjudged = judge_drift(store, params)
    health = health_metrics(store, params, champion=(1, unpack(version_of(2)[0])), unjudged=unjudged)
    names = {f"drift.{kind}" for kind in KINDS}
    return health.signs, {item.name: item for item in monitor_evidence(params, health) if item.name in names}


def changed(tmp_path, change):
    """The table of orders, other from 11 February on."""
    frame = orders()
    late = (frame["ordered_at"] >= "2024-02-11").to_numpy()
    return written(change(frame, late), tmp_path, "changed")


def as_it_is(frame, late):
    """Nothing changes."""
    return frame


def turned(frame, late):
    """What was sent back is kept, and the other way round."""
    return frame.assign(returned=np.where(late, 1 - frame["returned"], frame["returned"]))


def more(frame, late):
    """Half of what was kept is sent back."""
    sent = np.where(np.random.default_rng(0).random(len(frame)) < 0.5, 1.0, frame["returned"])
    return frame.assign(returned=np.where(late, sent, frame["returned"]))


@pytest.mark.parametrize(
    ("change", "alarms"),
    [
        (as_it_is, set()),
        (turned, {"drift.concept"}),
        (more, {"drift.concept", "drift.labels"}),
    ],
)
def test_each_kind_stands_on_the_page_and_alarms_beyond_its_limit(store, tmp_path, change, alarms):
    """All four are told for both windows; what drifts is an alert of rung 5, and the rest is not."""
    table = changed(tmp_path, change)
    for window in WINDOWS:
        scored(store, table, window)
    signs, found = seen(store, table)
    assert set(found) == {f"drift.{kind}" for kind in KINDS}
    assert signs[[f"drift_{kind}" for kind in KINDS]].notna().all().all()
    assert {name for name, item in found.items() if item.outcome == "fail"} == alarms
    assert {alert.rung for alert in ranked_alerts(found.values(), version=1)} == ({5} if alarms else set())
    for name in alarms:
        assert signs[name.replace(".", "_")].iloc[-1] > 1


def test_what_was_judged_is_remembered_and_not_read_again(store, tmp_path, monkeypatch):
    """With the table gone, a later run tells the same."""
    table = changed(tmp_path, turned)
    for window in WINDOWS:
        scored(store, table, window)
    then, _ = seen(store, table, as_of="2024-02-25")
    monkeypatch.setenv("PRODKIT_RUN", "later")
    again, found = seen(store, "/nowhere/orders.parquet", as_of="2024-02-26")
    pd.testing.assert_frame_equal(again, then)
    assert found["drift.concept"].outcome == "fail"


def test_labels_are_judged_when_their_window_is_mature(store, tmp_path):
    """While labels are late, the newest window is judged by what needs none; of labels, the one before is told."""
    table = changed(tmp_path, turned)
    for window in WINDOWS:
        scored(store, table, window)
    signs, found = seen(store, table, label_delay="5d")
    newest = signs.iloc[-1]
    assert newest[["drift_predictions", "drift_together"]].notna().all()
    assert newest[["drift_labels", "drift_concept"]].isna().all()
    for name, start in (("concept", "2024-02-01"), ("labels", "2024-02-01"), ("together", "2024-02-11")):
        assert f"window from {start}" in found[f"drift.{name}"].note


def test_what_another_version_or_the_simple_rule_answered_says_nothing_of_the_champion(store, tmp_path):
    """A window that another version served, or whose input was broken, is not judged, and the page says so."""
    table = changed(tmp_path, as_it_is)
    scored(store, table, WINDOWS[0], version=2, number=1)
    scored(store, table, WINDOWS[1], drill={"price": "empty"})
    signs, found = seen(store, table, drill={"price": "empty"})
    assert signs[[f"drift_{kind}" for kind in KINDS]].isna().all().all()
    assert {name: item.outcome for name, item in found.items()} == {
        "drift.predictions": "inconclusive",
        "drift.together": "inconclusive",
    }
    assert found["drift.together"].note.endswith("is not known for version 1: its input was broken")


def test_a_window_that_another_version_answered_says_which(store, tmp_path):
    """Judged for that version, now and in every later run: of the champion nothing is known."""
    table = changed(tmp_path, as_it_is)
    scored(store, table, WINDOWS[1], version=2, number=1)
    for _ in range(2):
        _, found = seen(store, table)
        assert found["drift.together"].note.endswith("not known for version 1: version 2 has answered it")


def test_a_window_that_cannot_be_read_or_was_not_scored_says_so(store, tmp_path):
    """The reason stands in the evidence, of predictions as of columns together."""
    table = changed(tmp_path, as_it_is)
    _, found = seen(store, table)
    assert found["drift.predictions"].note.endswith("is not known for version 1: it was not scored")
    for window in WINDOWS:
        scored(store, table, window)
    _, found = seen(store, str(tmp_path / "gone.parquet"))
    assert {"drift.predictions", "drift.together"} == {
        name for name, item in found.items() if "gone.parquet" in item.note
    }


def test_a_version_without_calibration_rows_says_why_its_columns_are_not_known_together(
    store, tmp_path, monkeypatch
):
    """Predictions are judged without them; the columns together, as what scores come to, are not."""
    table = changed(tmp_path, as_it_is)
    for window in WINDOWS:
        scored(store, table, window)
    old = replace(unpack(version_of(2)[0]), calibration=None)
    monkeypatch.setattr("prodkit.monitoring.outcomes.load_version", lambda *_: old)
    _, found = seen(store, table)
    assert found["drift.predictions"].value is not None
    assert "before calibration rows were kept" in found["drift.together"].note


def test_a_window_without_change_asks_nobody_to_watch():
    """Answers of few distinct values move with every training of a model, and that is no news in any window."""
    for seed in (0, 1):
        assert not [item.name for fails in alarms("levels", 6, (30, 60, 20), seed=seed) for item in fails]
