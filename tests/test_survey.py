"""A window beside what came before it: which earlier rows it is held against, and what is said of it."""

from __future__ import annotations

import re
from dataclasses import replace

import numpy as np
import pytest
from tables import FEATURES, FEBRUARY, opened, orders, orders_file, params_for, places, written

from prodkit.data.windows import blocks, read_window
from prodkit.decisions.survey import (
    drift_evidence,
    drift_report,
    drill_evidence,
    inspect_window,
    missing_table,
    prediction_drift,
    standing_shift,
)
from prodkit.drift.counts import profile
from prodkit.errors import ParameterError
from prodkit.evidence import Window
from prodkit.store.workspace import load_version

__all__ = ["orders_file", "places"]  # fixtures

FIRST, SECOND, THIRD = (
    Window.parse(f"2024-02-{start}/2024-02-{end}")
    for start, end in (("01", "06"), ("06", "11"), ("11", "16"))
)


@pytest.fixture
def store(places):
    """Version 2 is champion."""
    with opened(places) as kept:
        yield kept


@pytest.fixture
def champion(store):
    """Its bundle."""
    return load_version(store, 2)


@pytest.fixture
def summary(champion, orders_file):
    """Profiles windows as they are kept after scoring."""

    def of(window):
        rows = read_window(params_for("score", orders_file, window=str(window)))
        return profile(rows, champion.schema, blocks=blocks(rows["ordered_at"]), like=champion.profile)

    return of


def keep(store, window, document, *, version=2, clean=True):
    """Remember a window, as the score notebook does."""
    store.save_profile(window, document.to_dict(), run_id=f"{version} {window}", version=version, clean=clean)


def compared_with(store, champion, orders_file, window=THIRD):
    """What `inspect_window` holds a window against."""
    params = params_for("score", orders_file, window=str(window))
    found = inspect_window(store, params, read_window(params), version=2, bundle=champion)
    return found.recent.to_dict()


def test_without_a_scored_window_the_end_of_training_is_the_last_sound_feed(store, champion, orders_file):
    """A version that has scored nothing yet is held against the newest rows of its training."""
    assert compared_with(store, champion, orders_file) == champion.recent.to_dict()


def test_a_window_is_held_against_the_last_one_before_it(store, champion, orders_file, summary):
    """Of two sound windows the newer counts; the window itself and later ones do not."""
    for window in (FIRST, SECOND, THIRD):
        keep(store, window, summary(window))
    assert compared_with(store, champion, orders_file) == summary(SECOND).to_dict()
    assert compared_with(store, champion, orders_file, window=SECOND) == summary(FIRST).to_dict()


def test_a_broken_window_is_no_reference(store, champion, orders_file, summary):
    """The window after a broken feed is held against the one before it."""
    keep(store, FIRST, summary(FIRST))
    keep(store, SECOND, summary(SECOND), clean=False)
    assert compared_with(store, champion, orders_file) == summary(FIRST).to_dict()


def test_windows_of_another_version_do_not_count(store, champion, orders_file, summary):
    """What another version has scored lies on other bins, and is not looked at."""
    keep(store, FIRST, summary(FIRST))
    keep(store, SECOND, summary(SECOND), version=1)
    assert compared_with(store, champion, orders_file) == summary(FIRST).to_dict()


def test_a_sound_window_is_trusted(store, champion, orders_file):
    """Nothing broken: one line that passes, and no reason for distrust."""
    params = params_for("score", orders_file, window=FEBRUARY)
    found = inspect_window(store, params, read_window(params), version=2, bundle=champion)
    assert found.sound
    assert found.broken.why == ""
    assert [(item.name, item.outcome, item.rung) for item in found.evidence] == [
        ("contract.columns", "pass", 1)
    ]
    assert found.current.rows == 14 * 60


def test_a_broken_window_says_what_is_broken(store, champion, orders_file):
    """Each broken column is a failed line of rung 1, and its note is a reason for distrust; the drill is announced."""
    params = params_for("score", orders_file, window=FEBRUARY, drill={"price": "empty", "weight": "constant"})
    found = inspect_window(store, params, read_window(params), version=2, bundle=champion)
    assert not found.sound
    failed = {item.name for item in found.evidence if item.outcome == "fail"}
    assert failed == {"contract.price.missing", "contract.weight.constant"}
    assert found.evidence[0].name == "drill"
    assert re.search("price:? empty, weight:? constant", found.evidence[0].note)
    assert all(item.note in found.broken.why for item in found.evidence if item.outcome == "fail")
    assert "drill" not in found.broken.why


def test_a_version_of_a_drill_is_announced_for_ever(champion, orders_file):
    """A version trained with faults put in says so wherever it is used; a real one says nothing."""
    params = params_for("drift", orders_file, window=FEBRUARY)
    assert drill_evidence(params, champion) == []
    (line,) = drill_evidence(params, replace(champion, drill={"returned": "scrambled"}))
    assert (line.outcome, "training of this version" in line.note) == ("pass", True)


# Drift


def test_drift_is_measured_from_training_unless_told_otherwise(champion, orders_file):
    """Without a reference the champion's own training is the reference, which is not read again."""
    params = params_for("drift", orders_file, window=FEBRUARY)
    report = drift_report(params, read_window(params), bundle=champion)
    assert report.reference is champion.profile
    assert report.scores[0] is champion.scores
    assert (report.current.rows, set(report.columns.index)) == (14 * 60, set(FEATURES))
    assert [(item.name, item.outcome) for item in drift_evidence(report)] == [("drift.columns", "pass")]


def test_an_explicit_reference_is_read_and_compared_with(champion, tmp_path):
    """Prices double in February: a shift against January, and none against the week before."""
    frame = orders()
    later = frame["ordered_at"] >= "2024-02-01"
    data = written(frame.assign(price=frame["price"] * np.where(later, 2.0, 1.0)), tmp_path)
    window = {"window": "2024-02-11/2024-02-21"}
    params = {
        name: params_for("drift", data, **window, reference=reference)
        for name, reference in (("training", ""), ("week", "2024-02-01/2024-02-11"))
    }
    rows = read_window(params["week"])
    drifted = {
        name: drift_report(each, rows, bundle=champion).columns["drifted"] for name, each in params.items()
    }
    assert drifted["training"]["price"]
    assert not drifted["week"].any()
    report = drift_report(params["week"], rows, bundle=champion)
    assert report.reference.rows == 600
    assert report.scores[0].rows == 600
    failed = {
        item.name: item for item in drift_evidence(drift_report(params["training"], rows, bundle=champion))
    }
    assert {"drift.price", "drift.predictions"} <= failed.keys()
    assert all((item.outcome, item.rung) == ("fail", 5) for item in failed.values())


def test_of_a_season_only_like_days_of_training_are_compared_with(champion, tmp_path):
    """Prices of all weekends are high: those of a new one lie far from all days, and less so from weekends."""
    frame = orders()
    high = np.where(frame["ordered_at"].dt.day_of_week >= 5, 2.0, 1.0)
    data = written(frame.assign(price=frame["price"] * high), tmp_path)
    whole = read_window(params_for("drift", data, window="2024-01-01/2024-01-28"))
    summary = profile(whole, champion.schema, blocks=blocks(whole["ordered_at"]))
    seasonal = replace(champion, profile=summary)
    found = {}
    for reference in ("", "weekday"):
        params = params_for("drift", data, window="2024-02-03/2024-02-05", reference=reference)
        found[reference] = drift_report(params, read_window(params), bundle=seasonal)
    assert found["weekday"].reference.rows == 7 * 60
    assert {int(day + 3) % 7 for day in found["weekday"].reference.blocks} == {5, 6}
    assert found["weekday"].columns["effect"]["price"] < 0.6 * found[""].columns["effect"]["price"]
    params = params_for("drift", data, window="2024-02-03/2024-02-05", reference="month")
    with pytest.raises(ParameterError, match="days of training or more that are like"):
        drift_report(params, read_window(params), bundle=seasonal)


def test_a_window_does_not_differ_from_itself(champion, orders_file):
    """The reference being the window itself, every effect is zero."""
    params = params_for("drift", orders_file, window=FEBRUARY, reference=FEBRUARY)
    report = drift_report(params, read_window(params), bundle=champion)
    assert report.columns["effect"].abs().max() == pytest.approx(0.0, abs=1e-9)
    assert report.predictions["effect"] == pytest.approx(0.0, abs=1e-9)


def test_missing_values_and_unseen_levels_are_signals_of_their_own(champion, tmp_path):
    """A new city and lost weights are told apart from a shift of the values, and shown in a table of their own."""
    frame = orders(seed=1)
    later = (frame["ordered_at"] >= "2024-02-01") & (frame["order"] % 3 == 0)
    frame.loc[later, "city"] = "Atlantis"
    frame.loc[later, "weight"] = np.nan
    params = params_for("drift", written(frame, tmp_path), window=FEBRUARY)
    report = drift_report(params, read_window(params), bundle=champion)
    found = {item.name for item in drift_evidence(report)}
    assert {"drift.city.unseen", "drift.weight.missing"} <= found
    table = missing_table(report)
    assert table.loc["city", "unseen"] == pytest.approx(1 / 3, abs=0.01)
    assert table.loc["weight", "missing_current"] == pytest.approx(1 / 3, abs=0.05)
    assert "price" not in table.index


def test_columns_that_could_not_be_tested_are_told_with_the_reason(champion, tmp_path):
    """Weights that are all missing are drift; prices that training lacked are told, and no column at all is no pass."""
    params = params_for("drift", written(orders(), tmp_path), window=FEBRUARY)
    report = drift_report(params, read_window(params), bundle=champion)
    unknown = {
        "effect": np.nan,
        "p_value": np.nan,
        "p_adjusted": np.nan,
        "note": "all missing in the reference",
    }
    report.columns.loc["price", list(unknown)] = list(unknown.values())
    (item,) = drift_evidence(report)
    assert item.outcome == "pass"
    assert item.note.endswith("; not known of price: all missing in the reference")
    none = replace(report, columns=report.columns.assign(**unknown))
    (item,) = drift_evidence(none)
    assert (item.outcome, item.value) == ("inconclusive", None)
    assert item.note.startswith("drift of columns is not known; ")


def test_answers_that_have_moved_are_told_once(champion, orders_file):
    """A difference that stays is not told again, one that grows is; hardly another answer in another bin is none."""
    rows = read_window(params_for("score", orders_file, window=FEBRUARY))
    moved = rows.assign(price=rows["price"] * 2.5)
    params = params_for("monitor", orders_file, window=FEBRUARY)
    first = prediction_drift(params, moved, bundle=champion)
    assert (first.outcome, first.rung) == ("fail", 5)
    assert "look at what `drift` says" in first.note
    again = prediction_drift(params, moved, bundle=champion, standing=first.value)
    assert again.outcome == "pass"
    assert "a standing difference" in again.note
    assert prediction_drift(params, moved, bundle=champion, standing=first.value - 0.11).outcome == "fail"
    assert prediction_drift(params, rows, bundle=champion).outcome == "pass"
    # what is on record, by version and window: only what was told of earlier windows counts
    row = {"version": 2, "window_start": "2024-01-01", "window_end": "2024-02-01"}
    known = [
        row | {"name": "drift.predictions", "value": 0.3},
        row | {"name": "drift.predictions.alarm", "value": 1.0},
    ]
    window = Window.parse(FEBRUARY)
    assert standing_shift(known, window, version=2) == 0.3
    assert np.isnan(standing_shift(known, window, version=1))
    assert np.isnan(standing_shift(known, Window.parse("2024-01-20/2024-02-15"), version=2))
