"""What would have been decided under other limits: as the gates would have found, or not told at all."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tables import Command, opened, prodkit

from prodkit.decisions.decide import judgement, promotion
from prodkit.decisions.gates import (
    alternative,
    at_most,
    enough,
    held_against,
    improvement,
    limits_of,
    not_inferior,
    once,
    slices,
)
from prodkit.decisions.record import decision_record
from prodkit.decisions.whatif import other_decision, what_if
from prodkit.errors import ParameterError
from prodkit.evidence import Evidence
from prodkit.params import NOTEBOOKS
from prodkit.store.history import Champion

__all__ = ["prodkit"]  # a fixture

CHAMPION = Champion(version=2, predecessor=1, generation=5)
SOUND = Evidence("contract.columns", "pass", rung=1, note="nothing is broken")
LABELS = Evidence("performance.labels", "pass", value=900, limit=500, n=900, rung=3)


def gain(name, low, high, *, limit, n=900):
    """A gain of an alternative, held against a limit as the gate does."""
    outcome = "fail" if low > limit else "pass" if high <= limit else "inconclusive"
    return Evidence(name, outcome, (low + high) / 2, low, high, limit, n, 3, name)


def decided(*evidence, retrain_now=False, **params):
    """The record of a decision about the champion on this evidence."""
    checked = NOTEBOOKS["rollback"].check({"rollback_margin": 0.005, "retrain_cost": 0.005, **params})
    decision = judgement([SOUND, LABELS, *evidence], champion=CHAMPION, retrain_now=retrain_now)
    return decision_record(checked, decision) | {"run_id": f"rollback-{checked.window.start:%Y%m%d}"}


PREDECESSOR = gain("performance.predecessor", 0.010, 0.030, limit=0.005)
CHALLENGER = gain("performance.challenger", 0.010, 0.030, limit=0.005)
HEALTH = [
    at_most("health.champion", 0.03, limit=0.01, n=900, rung=2),
    at_most("health.predecessor", 0.0, limit=0.01, n=900, rung=2),
]


@pytest.mark.parametrize(
    ("evidence", "changed", "then", "now"),
    [
        ([PREDECESSOR], {"rollback_margin": 0.02}, "rollback", "keep"),
        ([PREDECESSOR], {"rollback_margin": 0.04}, "rollback", "keep"),
        ([PREDECESSOR], {"rollback_margin": 0.009}, "rollback", "rollback"),
        (
            [gain("performance.predecessor", 0.002, 0.03, limit=0.005)],
            {"rollback_margin": 0.001},
            "keep",
            "rollback",
        ),
        ([CHALLENGER], {"retrain_cost": 0.05}, "retrain", "keep"),
        ([CHALLENGER], {"approval": "required"}, "retrain", "retrain (proposed)"),
        ([], {"retrain_now": True}, "keep", "retrain"),
        (HEALTH, {"slo": {"error_share": 0.05}}, "rollback", "keep"),
        ([PREDECESSOR], {"min_rows": 1000}, "rollback", "keep"),
        ([PREDECESSOR, CHALLENGER], {"rollback_margin": 0.04}, "rollback", "retrain"),
        ([CHALLENGER], {"margin": 9.0, "backend": "threading"}, "retrain", "retrain"),
    ],
)
def test_a_decision_is_made_again_under_another_limit(evidence, changed, then, now):
    """Limits move outcomes, and outcomes the action; what another notebook declares moves nothing."""
    found = other_decision(decided(*evidence), changed)
    assert (found.then, found.now) == (then, now)
    assert found.verdict == ("same" if then == now else "different")
    assert bool(found.why) == (then != now)


@pytest.mark.parametrize(
    ("changed", "why"),
    [
        ({"label_delay": "9d"}, "label_delay changes which labels are known"),
        ({"confidence": 0.99}, "confidence makes other intervals"),
        ({"min_blocks": 3}, "min_blocks counts days"),
        ({"seed": 1}, "seed changes what is read or tried"),
        ({"slo": {"error_share": 0.01, "throughput": 5.0}}, "slo.throughput was not measured"),
        ({"label_delay": "9d", "rollback_margin": 0.5}, "label_delay changes which labels are known"),
    ],
)
def test_what_the_evidence_does_not_tell_needs_a_new_run(changed, why):
    """Other rows, other intervals, other gates: nothing is guessed, and the reason is named."""
    found = other_decision(decided(PREDECESSOR), changed)
    assert (found.now, found.verdict) == ("", "needs a new run")
    assert why in found.why


def test_a_value_that_stays_as_it_is_changes_nothing():
    """To name what was in force is no change, however it is written."""
    same = {"label_delay": "24h", "confidence": 0.95, "rollback_margin": 0.005, "as_of": ""}
    assert other_decision(decided(PREDECESSOR), same).verdict == "same"


def test_more_labels_would_have_had_more_tried():
    """A gate that was not tried for want of rows is not told; one that would not have been is left out."""
    newest = enough("performance.challenger", np.zeros(300), np.arange(300) % 20, min_rows=500, min_blocks=7)
    assert other_decision(decided(newest), {"min_rows": 200}).verdict == "needs a new run"
    assert other_decision(decided(newest), {"min_rows": 400}).verdict == "same"
    few = replace(LABELS, outcome="inconclusive", value=300, n=300)
    record = decision_record(NOTEBOOKS["rollback"].check({}), judgement([SOUND, few], champion=CHAMPION))
    assert other_decision(record, {"min_rows": 200}).verdict == "needs a new run"
    since = gain("performance.challenger_since", 0.01, 0.03, limit=0.005, n=40)
    short = gain("performance.challenger", -0.01, 0.03, limit=0.005, n=450)
    record = decided(short, since, min_rows=400)
    record["evidence"][1]["limit"] = 400.0
    assert other_decision(record, {"min_rows": 440}).now == "retrain"
    assert other_decision(record, {"min_rows": 460}).now == "keep"


def test_later_decisions_say_that_another_champion_may_have_stood():
    """Each decision is told about the champion it judged; after one that would have differed, that is said."""
    weeks = [f"2013-04-{day:02d}/2013-04-{day + 7:02d}" for day in (1, 8, 15)]
    past = [decided(window=weeks[0]), *(decided(PREDECESSOR, window=week) for week in weeks[1:])]
    found = what_if(past, {"rollback_margin": 0.04})
    assert found["verdict"].tolist() == ["same", "different", "different"]
    assert "another champion" not in found["why"].iloc[1]
    assert "another champion may have stood, had rollback-20130408 ended so" in found["why"].iloc[2]
    assert found["window"].tolist() == weeks


def test_an_unknown_name_and_a_wrong_value_are_refused():
    """Before anything is computed, with the nearest name, even where nothing is on record."""
    with pytest.raises(ParameterError, match="Did you mean retrain_cost"):
        what_if([], {"retrain_costs": 1.0})
    with pytest.raises(ParameterError, match="retrain_cost is wrong"):
        what_if([decided()], {"retrain_cost": -1.0})
    assert what_if([], {"retrain_cost": 1.0}).empty


def contest(**changed):
    """The record of a promotion; lines are changed by name, dots as two underscores."""
    lines = {
        "gain.champion": Evidence("gain.champion", "pass", -0.02, -0.03, -0.01, -0.05, 900, 3),
        "labels": Evidence("labels", "pass", value=900, limit=500, n=900, rung=3),
        "calibration": Evidence("calibration", "pass", 0.02, 0.01, 0.03, 0.05, 900),
        "slice.origin=JFK": Evidence("slice.origin=JFK", "pass", -0.03, -0.05, -0.01, -0.02, 300, 3),
        "budget.size": Evidence("budget.size", "pass", value=3.0, limit=100.0),
        "budget.latency": Evidence("budget.latency", "pass", value=9.0, limit=100.0),
    }
    for name, item in changed.items():
        lines[name] = item
    decision = promotion(list(lines.values()), challenger=3, generation=5)
    return decision_record(NOTEBOOKS["validate"].check({"slice_margin": 0.02}), decision)


@pytest.mark.parametrize(
    ("changed", "now"),
    [
        ({"margin": 0.04}, "promote"),  # which is about a first champion
        ({"tolerated_loss": 0.03}, "promote"),
        ({"tolerated_loss": 0.01}, "reject"),
        ({"slice_margin": 0.005}, "reject"),
        ({"size_limit_mb": 2.0}, "reject"),
        ({"latency_limit_ms": 5.0}, "reject"),
        ({"min_rows": 901}, "keep"),
        ({"calibration_limit": 0.02}, "promote"),
        ({"calibration_limit": 0.005}, ""),
        ({"slice_min_rows": 400}, ""),
    ],
)
def test_a_promotion_is_made_again_under_another_limit(changed, now):
    """Each limit of `validate` decides through its own gate; which slices are judged takes a new run."""
    found = other_decision(contest(), changed)
    assert (found.then, found.now) == ("promote", now)


def test_a_calibration_limit_that_was_not_the_parameters_stays():
    """Where the incumbent's own error was the limit, a stricter parameter changes nothing."""
    loose = Evidence("calibration", "pass", 0.08, 0.06, 0.1, 0.09, 900)
    assert other_decision(contest(calibration=loose), {"calibration_limit": 0.01}).verdict == "same"


@settings(max_examples=50, deadline=None)
@given(st.integers(0, 999), st.floats(-0.6, 0.6), st.floats(0, 0.5), st.floats(0, 0.5))
def test_the_rules_are_those_of_the_gates(seed, shift, then, now):
    """A finding held against another limit by its numbers is the one that the gate makes with that limit."""
    before, after = np.random.default_rng(seed).random((2, 20))
    losses, days = (before + shift, after), np.arange(20)
    frame = pd.DataFrame({"place": ["a"] * 20})
    common = {"blocks": days, "confidence": 0.9}
    gates = {
        ("rollback", "performance.predecessor"): lambda limit: alternative(
            "performance.predecessor", *losses, limit=limit, look=1, note="", **common
        ),
        ("rollback", "performance.predecessor_instead"): lambda limit: once(
            "performance.predecessor_instead", *losses, limit=limit, seed=0, note="", **common
        ),
        ("validate", "gain.baseline"): lambda limit: improvement(
            "gain.baseline", *losses, margin=limit, seed=0, **common
        ),
        ("validate", "gain.champion"): lambda limit: not_inferior(
            "gain.champion", *losses, limit=-limit, **common
        ),
        ("validate", "slice.place=a"): lambda limit: slices(
            frame, *losses, columns=["place"], min_rows=1, margin=limit, seed=0, **common
        )[0],
        ("validate", "budget.size"): lambda limit: at_most("budget.size", seed / 1000, limit=limit),
        ("rollback", "health.champion"): lambda limit: at_most("health.champion", seed / 1000, limit=limit),
    }
    for (notebook, name), gate in gates.items():
        first, second, held = gate(then), gate(now), held_against(notebook, name)
        assert held is not None
        limits = held.scale * then, held.scale * now
        found = held.comes_to(first, *limits)
        assert found == second.outcome or (found is None and name.startswith("slice.")), name


def test_what_was_held_back_is_not_let_go_by_its_numbers() -> None:
    """A gain that lay beyond its limit and did not act, and a share of too few rows, stay so or need a new run."""
    held_back = replace(PREDECESSOR, outcome="inconclusive")
    assert other_decision(decided(held_back), {"rollback_margin": 0.006}).verdict == "same"
    assert other_decision(decided(held_back), {"rollback_margin": 0.004}).verdict == "needs a new run"
    share = Evidence("health.champion", "inconclusive", 0.5, 0.1, 0.9, 0.01, 4, 2, "share")
    assert other_decision(decided(share, HEALTH[1]), {"slo": {"error_share": 0.2}}).verdict == "same"
    sure = replace(share, outcome="fail")
    assert other_decision(decided(sure, HEALTH[1]), {"slo": {"error_share": 0.05}}).now == "rollback"
    assert other_decision(decided(sure, HEALTH[1]), {"slo": {"error_share": 0.2}}).now == "keep"


def test_what_would_have_been_asked_of_the_predecessor_needs_a_new_run() -> None:
    """Would going back do? The question comes with a better challenger; an answer that is on record is used."""
    short = gain("performance.challenger", 0.002, 0.03, limit=0.005)
    asked = other_decision(decided(short), {"retrain_cost": 0.001})
    assert (asked.verdict, "performance.predecessor_instead would have been asked" in asked.why) == (
        "needs a new run",
        True,
    )
    instead = gain("performance.predecessor_instead", -0.01, 0.001, limit=0.005)
    assert other_decision(decided(short, instead), {"retrain_cost": 0.001}).now == "retrain"
    assert other_decision(decided(CHALLENGER, instead), {"rollback_margin": 0.0}).now == "retrain"
    slow = at_most("health.latency_p99_ms", 90.0, limit=250.0, n=900, rung=2)
    limits = {"slo": {"error_share": 0.01, "latency_p99_ms": 50.0, "degraded_share": 0.05}}
    assert other_decision(decided(slow), limits).verdict == "needs a new run"


def test_every_limit_is_a_parameter_of_its_notebook():
    """The table names no parameter that the notebook does not have."""
    for notebook in ("validate", "rollback"):
        assert limits_of(notebook) <= NOTEBOOKS[notebook].model_fields.keys()


def test_the_command_asks_all_decisions_on_record(prodkit: Command, tmp_path: Path) -> None:
    """Those of runs that succeeded, in their order; values are read as parameters are, and wrong ones are refused."""
    places = {"store": f"sqlite:///{tmp_path}/store.db", "artifacts": str(tmp_path / "artifacts")}
    at = ("--out", tmp_path, "--store", places["store"], "--artifacts", places["artifacts"])
    status, _, told = prodkit("whatif", "-p", "retrain_cost", "1", *at)
    assert (status, "found no such file" in told, (tmp_path / "store.db").exists()) == (2, True, False)
    with opened(places) as store:
        assert prodkit("whatif", "-p", "retrain_cost", "1", *at)[1].endswith(
            "0 decisions, 0 different, 0 need a new run\n"
        )
        for number, document in enumerate([decided(PREDECESSOR), decided(CHALLENGER), {"notebook": "train"}]):
            record = {"run_id": f"run-{number}", "status": "succeeded", "document": document}
            store.record_run(record)
        store.record_run({"run_id": "run-9", "status": "failed", "document": decided()})
    status, printed, _ = prodkit("whatif", "-p", "rollback_margin", "0.04", "-p", "cool_down", "3d", *at)
    assert (status, printed.splitlines()[-1]) == (0, "2 decisions, 1 different, 0 need a new run")
    rows = json.loads(prodkit("whatif", "-p", "label_delay", "3d", "--json", *at)[1])
    assert [(row["then"], row["verdict"]) for row in rows] == [
        ("rollback", "needs a new run"),
        ("retrain", "needs a new run"),
    ]
    for name, text in (("retrain_costs", "1"), ("retrain_cost", "much"), ("retrain_cost", "-1")):
        status, _, told = prodkit("whatif", "-p", name, text, *at)
        assert (status, name in told) == (2, True)
