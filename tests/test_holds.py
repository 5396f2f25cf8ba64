"""A hold: what is recorded of it, how a person ends it, and a batch that came before."""

from __future__ import annotations

import os

import numpy as np
import pytest
from tables import FACTS, FEATURES, opened, orders, places, prodkit, run_cells, written

from prodkit import MonitorParams, read_window, sound_rows

__all__ = ["places", "prodkit"]  # fixtures

FIRST, SECOND = "2024-02-01/2024-02-08", "2024-02-08/2024-02-15"
WHO = ("--name", "ann", "--reason", "new staff")


@pytest.fixture
def at(places, tmp_path):
    """How the command is told where the store is."""
    return ["--store", places["store"], "--artifacts", places["artifacts"], "--out", str(tmp_path)]


def newcomers(share=0.5):
    """Orders of whose cities so many are new from February on."""
    frame = orders()
    new = (frame["ordered_at"] >= "2024-02-01") & (np.random.default_rng(0).random(len(frame)) < share)
    return frame.assign(city=frame["city"].mask(new, "Quito"))


@pytest.fixture
def live(places, tmp_path, monkeypatch):
    """Score and judge a window; gives the decision, the champion's pointer and the id of the run."""
    monkeypatch.chdir(tmp_path)

    def call(frame, window):
        given = {
            **FACTS,
            "data": written(frame, tmp_path),
            "window": window,
            **places,
            "backend": "threading",
        }
        given |= {"min_rows": 100, "retrain_cost": 0.5}
        monkeypatch.setenv("PRODKIT_RUN", f"score-{window[5:10]}")
        scored = run_cells("score", given | {"predictions": str(tmp_path / "predictions")})["scored"]
        monkeypatch.setenv("PRODKIT_RUN", f"rollback-{window[5:10]}")
        decision = run_cells("rollback", given)["decision"]
        with opened(places) as store:
            return scored, decision, store.champion(), os.environ["PRODKIT_RUN"]

    return call


def learned(places, frame, tmp_path):
    """How many rows of both windows a training would learn from."""
    facts = {**FACTS, "data": written(frame, tmp_path), "window": "2024-01-01/2024-02-15", **places}
    params = MonitorParams.check(facts)
    with opened(places) as store:
        return len(sound_rows(store, params, read_window(params)))


def test_what_is_accepted_is_normal_from_then_on(live, places, prodkit, at, tmp_path):
    """New levels hold a window, masked; accepted, the hold ends, its rows are learned from, the next window passes."""
    frame = newcomers()
    scored, decision, pointer, run = live(frame, FIRST)
    assert decision.action == "hold"
    assert "city" in pointer.hold
    assert set(scored.table()["reason"]) == {"masked: city"}
    assert learned(places, frame, tmp_path) == 38 * 60
    with opened(places) as store:
        detail = store.held().detail
    assert (detail["columns"], detail["masked"], detail["other"]) == (["city"], ["city"], [])
    assert prodkit("models", "accept", run, "--column", "price", *WHO, *at)[0] == 2
    status, out, _ = prodkit("models", "accept", run, "--column", "city", *WHO, *at)
    assert (status, "on hold" in out) == (0, False)
    assert learned(places, frame, tmp_path) == 45 * 60
    scored, decision, pointer, _ = live(frame, SECOND)
    assert decision.action != "hold"
    assert (pointer.hold, set(scored.table()["reason"])) == ("", {""})
    with opened(places) as store:
        assert store.check() == []


def test_a_hold_that_lasts_proposes_its_acceptance(live):
    """Two windows held for one reason, and labels by which the champion beats the rule: the command stands there."""
    frame = newcomers()
    _, once, _, run = live(frame, FIRST)
    _, twice, _, _ = live(frame, "2024-02-08/2024-02-29")
    assert (once.action, twice.action) == ("hold", "hold")
    assert "prodkit models accept" not in " ".join(once.reasons)
    assert "on hold since 2024-02-01 for the same reason (city)" in twice.reasons[-1]
    assert f"prodkit models accept {run}" in twice.reasons[-1]


def test_a_call_that_accepts_nothing_is_told_in_words(live, places, prodkit, at):
    """No hold, an unknown run, a run that decided otherwise, a hold that was accepted: each has its sentence."""
    frame = newcomers()
    assert "must be on record; found no such run" in prodkit("models", "accept", "x", *WHO, *at)[2]
    _, kept, _, calm = live(orders(), FIRST)
    assert kept.action != "hold"
    assert "must have decided on hold" in prodkit("models", "accept", calm, *WHO, *at)[2]
    _, _, _, run = live(frame, SECOND)
    told = prodkit("models", "accept", run, "--column", "rows", *WHO, *at)[2]
    assert "--column must name what is held; found rows. Held are: city." in " ".join(told.split())
    assert prodkit("models", "accept", run, *WHO, *at)[0] == 0
    assert "one that ann accepted at" in prodkit("models", "accept", run, *WHO, *at)[2]


@pytest.mark.parametrize("share", [0.5, 1.0])
def test_a_batch_that_came_before_judges_nobody_and_is_not_learned(live, places, tmp_path, share):
    """January's week again in February under new ids and times, whole or half: hold, and nobody learns from it."""
    frame = orders()
    here = frame["ordered_at"].between("2024-02-01", "2024-02-08", "left")
    again = frame[frame["ordered_at"] >= "2024-01-10"].head(int(here.sum() * share))
    kept = [*FEATURES, "returned"]
    places_of = frame.index[here][: len(again)]
    frame.loc[places_of, kept] = again[kept].to_numpy()
    frame = frame.infer_objects().astype({"express": bool, "returned": float})
    _, decision, pointer, _ = live(frame, FIRST)
    assert decision.action == "hold"
    assert "before" in pointer.hold
    assert learned(places, frame, tmp_path) == 38 * 60


def test_rows_that_come_again_by_nature_are_no_stale_batch(live):
    """A table of a few levels is full of rows that came before, and is not held for it."""
    frame = orders()
    few = frame.assign(price=frame["price"].round(-1), weight=frame["weight"].round(0))
    _, decision, pointer, _ = live(few, FIRST)
    assert "came before" not in " ".join(decision.reasons)
    assert "before with the same label" not in pointer.hold
