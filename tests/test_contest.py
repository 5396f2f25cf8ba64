"""Challenger against champion: who may judge, who is judged, and what must be shown."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from tables import FEBRUARY, opened, orders, orders_file, params_for, places, stocked, written

from prodkit import promotion, refit, register_successor, successor_evidence
from prodkit.data.windows import digest, labelled, read_window
from prodkit.decisions.contest import challenge, contest_evidence, slice_table
from prodkit.decisions.trial import unseen_rows
from prodkit.errors import LabelError, ModelError, VersionError, WindowError
from prodkit.evidence import Evidence, Window, overall
from prodkit.models.bundle import pack
from prodkit.models.metrics import row_losses
from prodkit.store.workspace import load_version
from prodkit.stress.trial import load_budget

__all__ = ["orders_file", "places"]  # fixtures


@pytest.fixture
def store(tmp_path):
    """Version 1 is champion, 2 the challenger."""
    with opened(stocked(tmp_path, promoted=[1])) as kept:
        yield kept


def params_of(data, **given):
    """Parameters of `validate`, content with few rows."""
    few = {"min_rows": 100, "slices": ["city"], "slice_min_rows": 50}
    return params_for("validate", data, **{"window": FEBRUARY, **few, **given})


def test_rows_that_either_has_seen_never_judge(store, orders_file):
    """Of a window that reaches back, only the days after both trainings are judged."""
    champion, challenger = load_version(store, 1), load_version(store, 2)
    rivals = challenge(store, params_of(orders_file, window="2024-01-10/2024-02-10"))
    times = rivals.trial.rows["ordered_at"]
    for bundle in (champion, challenger):
        assert not ((times >= bundle.trained.start) & (times < bundle.trained.end)).any()
    assert times.min() >= max(champion.trained.end, challenger.trained.end)
    assert times.max() >= np.datetime64("2024-02-08")


def test_rows_that_only_the_champion_has_seen_do_not_judge_either(tmp_path, orders_file):
    """An older challenger is not put to rows of the newer champion's training."""
    with opened(stocked(tmp_path, promoted=[2])) as store:
        rivals = challenge(store, params_of(orders_file, window="2024-01-10/2024-02-10", challenger=1))
        champion, challenger = load_version(store, 2), load_version(store, 1)
    assert challenger.trained.end < champion.trained.end
    assert rivals.trial.rows["ordered_at"].min() >= champion.trained.end


@pytest.mark.parametrize("window", ["2024-01-02/2024-01-20", "2024-01-20/2024-01-26"])
def test_a_window_that_one_of_them_has_seen_whole_is_refused(store, orders_file, window):
    """Rows before the champion's training end, or only the challenger's: nobody is judged by them."""
    with pytest.raises(
        WindowError, match=r"window must hold rows that no judged model has seen.*after 2024-01"
    ):
        challenge(store, params_of(orders_file, window=window))


def test_labels_that_are_not_known_yet_do_not_judge(store, orders_file):
    """Rows of the last day have no label at the end of the window, and are left out."""
    rivals = challenge(store, params_of(orders_file))
    assert rivals.trial.rows["ordered_at"].max() < np.datetime64("2024-02-14")
    assert rivals.trial.rows["returned"].notna().all()
    with pytest.raises(LabelError, match=r"returned must hold labels.*is known after 2024-02-02"):
        challenge(store, params_of(orders_file, as_of="2024-02-02"))


def test_both_answer_the_same_rows(store, orders_file):
    """Losses are paired: each candidate's own prediction of each judged row, against the same labels."""
    rivals = challenge(store, params_of(orders_file))
    trial = rivals.trial
    assert (rivals.number, rivals.incumbent, rivals.generation) == (2, "champion", 1)
    truth = trial.rows["returned"].to_numpy()
    for name, number in (("champion", 1), ("challenger", 2)):
        said = load_version(store, number).predict(trial.rows)
        assert np.allclose(trial.losses[name], row_losses(truth, said, task="binary"))
    gain = (trial.losses["champion"] - trial.losses["challenger"]) / trial.losses["baseline"].mean()
    assert rivals.daily_gain()["gain"].iloc[0] == pytest.approx(gain[trial.days == trial.days[0]].mean())


def test_a_challenger_that_is_expected_to_lose_too_much_is_refused(store, orders_file):
    """It need not be better: what counts is whether the gain to be expected lies above the tolerated loss."""
    outcomes = {}
    for tolerated in (0.0, 0.9):
        params = params_of(orders_file, tolerated_loss=tolerated, margin=0.5)
        rivals = challenge(store, params)
        rivals.trial.losses["challenger"] = rivals.trial.losses["champion"] + 0.3 * rivals.trial.unit
        item = contest_evidence(params, rivals)[0]
        assert (item.name, item.limit, item.value) == ("gain.champion", -tolerated, pytest.approx(-0.3))
        outcomes[tolerated] = item.outcome
    assert outcomes == {0.0: "fail", 0.9: "pass"}


def test_without_a_champion_the_simple_rule_is_to_be_beaten(tmp_path, orders_file):
    """The first version is judged against the dumb baseline, and a good one is promoted."""
    with opened(stocked(tmp_path, promoted=[])) as store:
        rivals = challenge(store, params_of(orders_file, challenger=2, calibration_limit=0.2))
        evidence = contest_evidence(params_of(orders_file, calibration_limit=0.2), rivals)
    assert (rivals.incumbent, rivals.generation) == ("baseline", 0)
    named = {item.name: item for item in evidence}
    assert (named["gain.baseline"].outcome, named["labels"].outcome) == ("pass", "pass")
    assert promotion(evidence, challenger=2, generation=0).action == "promote"
    sliced = {name.removeprefix("slice.") for name in named if name.startswith("slice.")}
    assert sliced == set(slice_table(evidence).index)
    assert len(sliced) == 4


def test_the_newest_version_is_the_challenger_unless_another_is_named(store, orders_file):
    """0 means the newest; a number means that one."""
    assert challenge(store, params_of(orders_file)).number == 2
    store.register(b"no model", {}, run_id="later")
    assert challenge(store, params_of(orders_file, challenger=2)).number == 2


def test_nobody_contests_himself(places, orders_file):
    """A challenger that is the champion already is refused with what to do instead."""
    with (
        opened(places) as store,
        pytest.raises(
            VersionError, match=r"challenger must not be the champion already; found version 2\. Run train"
        ),
    ):
        challenge(store, params_of(orders_file))


def test_an_empty_store_has_no_challenger(tmp_path, orders_file):
    """Without any version the way out is to train one."""
    empty = {"store": f"sqlite:///{tmp_path}/s.db", "artifacts": str(tmp_path / "a")}
    with opened(empty) as store, pytest.raises(VersionError, match=r"challenger must exist.*Run train first"):
        challenge(store, params_of(orders_file))


def test_too_few_labels_are_inconclusive(store, orders_file):
    """Fewer rows than asked for decide nothing: the champion stays."""
    params = params_of(orders_file, min_rows=5000)
    evidence = contest_evidence(params, challenge(store, params))
    assert overall(evidence) == "inconclusive"
    assert promotion(evidence, challenger=2, generation=1).action == "keep"


def test_a_challenger_that_cannot_answer_never_passes(store, orders_file):
    """A model that raises loses by NaN, which is an error of the evidence and no promotion."""
    rivals = challenge(store, params_of(orders_file))
    trial = rivals.trial
    trial.errors["challenger"], trial.losses["challenger"] = 1.0, np.nan
    evidence = contest_evidence(params_of(orders_file), rivals)
    assert overall(evidence) == "error"
    assert promotion(evidence, challenger=2, generation=1).action == "keep"


def test_a_version_of_a_drill_is_rejected_whatever_it_shows(store, orders_file):
    """Faults put in on purpose never go live by way of validation."""
    drilled = replace(load_version(store, 2), drill={"returned": "scrambled"})
    number = store.register(pack(drilled), {}, run_id="drill").number
    params = params_of(orders_file)
    decision = promotion(contest_evidence(params, challenge(store, params)), challenger=number, generation=1)
    assert (decision.action, decision.outcome) == ("reject", "fail")
    assert "drill" in decision.reasons[0]


def test_a_worse_challenger_is_rejected(store, tmp_path):
    """Against labels that are turned round for it, the better model is credibly worse, and is rejected."""
    frame = orders(seed=3)
    data = written(frame.assign(returned=1 - frame["returned"]), tmp_path, "turned")
    simple = params_of(data, challenger=2, margin=0.0)
    with opened(stocked(_folder(tmp_path), promoted=[])) as empty:
        evidence = contest_evidence(simple, challenge(empty, simple))
    assert {item.name: item.outcome for item in evidence}["gain.baseline"] == "fail"
    assert promotion(evidence, challenger=2, generation=0).action == "reject"


def _folder(tmp_path):
    (tmp_path / "other").mkdir()
    return tmp_path / "other"


def passed(store, data, **given):
    """What would be served, had the challenger passed."""
    params = params_of(data, **given)
    return params, refit(store, params, challenge(store, params), [Evidence("gates", "pass")])


def test_what_passed_is_fitted_again_on_all_labelled_rows(store, orders_file):
    """The judged rows are learned, the version says whose recipe it is, and those that were judged are none."""
    params, successor = passed(store, orders_file)
    evidence = successor_evidence(params, successor)
    assert overall(evidence) == "pass"
    number = register_successor(store, params, successor, evidence)
    assert number == 3
    assert register_successor(store, params, successor, evidence) == 3  # the same run, the same version
    known, bundle = store.version(3).manifest, load_version(store, 3)
    assert (known["judged"], known["judged_on"]) == (2, FEBRUARY)
    rows = labelled(read_window(params, Window(bundle.trained.start, params.window.end)), params)
    assert (known["rows"], known["data_digest"]) == (len(rows), digest(rows))
    assert rows["ordered_at"].max() < np.datetime64(bundle.trained.end)
    assert bundle.trained.end == params.labels_until
    assert np.array_equal(bundle.predict(bundle.golden), bundle.golden_predictions)
    since = rows[rows["ordered_at"] >= load_version(store, 2).trained.end]
    assert bundle.scores.block_counts.sum() == len(
        since
    )  # its reference: what was judged, on rows not learned
    assert not np.allclose(load_version(store, 2).predict(since), bundle.predict(since))
    assert challenge(store, params).number == 2
    with pytest.raises(VersionError, match=r"challenger must be one that a training left.*It is version 2"):
        challenge(store, params_of(orders_file, challenger=3))
    store.promote(3, expected_generation=1, reason="it passed")
    with pytest.raises(VersionError, match="challenger must not be the champion already; found version 2"):
        challenge(store, params)
    with pytest.raises(WindowError, match="must hold rows that no judged model has seen"):
        unseen_rows(rows, params, bundle)


def test_what_was_rolled_back_is_not_judged_anew(store, orders_file):
    """Once the version that was fitted again is in quarantine, the one that was judged is no newest challenger."""
    params, successor = passed(store, orders_file)
    register_successor(store, params, successor, [Evidence("all", "pass")])
    store.promote(3, expected_generation=1, reason="it passed")
    store.rollback(expected_generation=2, reason="it was worse")
    with pytest.raises(VersionError, match="challenger must not be the champion already; found version 1"):
        challenge(store, params)


def test_what_did_not_pass_is_not_fitted_again(store, orders_file):
    """A refusal costs no training, and is about the challenger itself."""
    params = params_of(orders_file)
    for outcome in ("fail", "inconclusive", "error"):
        successor = refit(store, params, challenge(store, params), [Evidence("gates", outcome)])
        assert (successor.manifest, successor.evidence) == (None, ())
    params, successor = passed(store, orders_file)
    assert register_successor(store, params, successor, [Evidence("budget.size", "fail")]) == 2
    assert len(store.versions()) == 2


def test_a_recipe_that_cannot_be_fitted_again_promotes_nobody(store, orders_file, monkeypatch):
    """An error of the second fit is one of the evidence: the champion stays."""

    def refuse(*_, **__):
        raise ModelError("model", rule="could not be fitted: MemoryError")

    monkeypatch.setattr("prodkit.decisions.refit.fit_recipe", refuse)
    params, successor = passed(store, orders_file)
    evidence = successor_evidence(params, successor)
    decision = promotion(
        evidence, challenger=register_successor(store, params, successor, evidence), generation=1
    )
    assert (decision.action, decision.outcome) == ("keep", "error")
    assert "could not be fitted again on all labelled rows" in decision.reasons[0]


def test_what_would_be_served_has_a_budget(store, orders_file):
    """Its size is that of its artifact, its latency that of one row; each beyond its limit fails."""
    params, successor = passed(store, orders_file)
    size, _, latency = successor_evidence(params, successor)[-3:]
    assert size.value == pytest.approx(len(successor.artifact) / 1e6)
    assert 0 < latency.value < 1000
    tight = params_of(orders_file, size_limit_mb=0.001, memory_limit_mb=0.001, latency_limit_ms=0.001)
    assert [item.outcome for item in successor_evidence(tight, successor)[-3:]] == ["fail"] * 3


def test_a_challenger_keeps_the_service_limits_under_load(store, orders_file):
    """When asked, both are loaded in one run: the challenger's figures decide, beside those of the champion."""
    slo = {"latency_p50_ms": 250.0, "error_share": 0.01, "degraded_share": 0.05}
    load = {"promised_rate": 100.0, "step_seconds": 1.0, "slo": slo}
    _, rivals = passed(store, orders_file)
    assert load_budget(store, params_of(orders_file), rivals) == []  # nobody has asked
    found = load_budget(store, params_of(orders_file, **load), rivals)
    assert [item.name for item in found] == [f"budget.load.{name}" for name in slo]
    assert {item.outcome for item in found} == {"pass"}
    assert all("the champion has" in item.note for item in found)


def test_a_challenger_that_is_too_slow_or_was_not_loaded_is_not_promoted(store, orders_file):
    """Beyond a limit: rejected. A rate that nobody can reach: inconclusive, and the champion stays."""
    fair = contest_evidence(params_of(orders_file), challenge(store, params_of(orders_file)))
    _, rivals = passed(store, orders_file)
    tight = {"promised_rate": 50.0, "step_seconds": 1.0, "slo": {"latency_p50_ms": 1e-6}}
    refused = load_budget(store, params_of(orders_file, **tight), rivals)
    assert promotion([*fair, *refused], challenger=2, generation=1).action == "reject"
    rush = {"promised_rate": 100_000.0, "step_seconds": 0.05, "slo": {"error_share": 0.5}}
    unknown = load_budget(store, params_of(orders_file, **rush), rivals)
    assert [item.outcome for item in unknown] == ["inconclusive"]
    assert promotion([*fair, *unknown], challenger=2, generation=1).action in ("keep", "reject")
    assert promotion(unknown, challenger=2, generation=1).action == "keep"
