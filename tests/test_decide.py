"""The ladder: every branch once, and what no evidence whatsoever may do."""

import math
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from test_evidence import evidence

from prodkit.decisions.decide import judgement, promotion
from prodkit.evidence import Evidence
from prodkit.store.history import Champion

NAMES = [
    *(
        "contract.columns",
        "contract.temp.unit",
        "health.champion",
        "health.predecessor",
        "health.degraded_share",
    ),
    *("performance.labels", "performance.predecessor", "performance.predecessor_ranking"),
    *(
        "performance.challenger",
        "performance.challenger_since",
        "performance.challenger_ranking",
        "performance.predecessor_instead",
        "performance.challenger_over_predecessor",
        "health.champion_latency",
        "health.predecessor_latency",
        "contract.rows",
        "performance.value",
        "performance.baseline",
        "drift.temp",
        "drill",
    ),
]
CHALLENGER = {"performance.challenger", "performance.challenger_since", "performance.challenger_ranking"}
BACK = {
    *("health.champion", "health.champion_latency"),
    *("performance.predecessor", "performance.predecessor_ranking", "performance.predecessor_instead"),
}
CHAMPION = Champion(version=2, predecessor=1, generation=5)

GOOD = {
    "contract.columns": Evidence("contract.columns", "pass", rung=1, note="nothing is broken"),
    "health.champion": Evidence("health.champion", "pass", value=0.0, rung=2),
    "health.predecessor": Evidence("health.predecessor", "pass", value=0.0, rung=2),
    "performance.predecessor": Evidence("performance.predecessor", "pass", value=-0.1, rung=3),
    "performance.challenger": Evidence("performance.challenger", "pass", value=0.001, rung=3),
    "drift.columns": Evidence("drift.columns", "pass", value=0.0, rung=5),
}


def decide(champion=CHAMPION, retrain_now=False, **changed):
    """The judgement of good evidence with some lines changed; a name's dots are written as two underscores."""
    lines = dict(GOOD)
    for key, outcome in changed.items():
        name = key.replace("__", ".")
        rung = {"contract": 1, "health": 2, "performance": 3, "drift": 5}[name.split(".")[0]]
        lines[name] = Evidence(
            name, outcome, value=0.1, low=0.05, high=0.2, limit=0.01, n=100, rung=rung, note=name
        )
    return judgement(list(lines.values()), champion=champion, retrain_now=retrain_now)


def with_ladder_names(items):
    """Random evidence that carries names and rungs the ladder knows."""
    rungs = {"contract": 1, "health": 2, "performance": 3, "drift": 5}
    return [
        Evidence(
            name,
            item.outcome,
            item.value,
            item.low,
            item.high,
            item.limit,
            item.n,
            rungs.get(name.split(".")[0], 0),
        )
        for name, item in items
    ]


ladders = st.lists(st.tuples(st.sampled_from(NAMES), evidence), max_size=10).map(with_ladder_names)
champions = st.builds(
    Champion,
    version=st.just(2),
    predecessor=st.none() | st.just(1),
    generation=st.integers(0, 9),
    hold=st.sampled_from(["", "broken"]),
)


def test_nothing_wrong_keeps_the_champion():
    """All evidence passes: keep, and the outcome is a pass."""
    found = decide()
    assert (found.action, found.outcome, found.generation) == ("keep", "pass", 5)


def test_a_broken_feed_holds_whatever_the_rest_says():
    """Rung 1 overrules a better challenger and a better predecessor."""
    found = decide(
        contract__temp__unit="fail", performance__challenger="fail", performance__predecessor="fail"
    )
    assert (found.action, found.outcome, found.target_version) == ("hold", "fail", None)
    assert "contract.temp.unit" in found.reasons[0]


def test_bad_health_rolls_back_even_on_a_broken_feed():
    """A champion that cannot answer gives way to a predecessor that can, on the same requests."""
    found = decide(contract__temp__unit="fail", health__champion="fail")
    assert (found.action, found.target_version) == ("rollback", 1)


def test_bad_health_of_both_rolls_back_nobody():
    """A predecessor that is as ill is no cure."""
    assert decide(health__champion="fail", health__predecessor="fail").action == "watch"


def test_a_better_predecessor_is_restored_before_anything_is_trained():
    """A rollback is quick and reversible, so it comes before a retraining."""
    found = decide(performance__predecessor="fail", performance__challenger="fail")
    assert (found.action, found.target_version) == ("rollback", 1)


def test_a_better_ranking_rolls_back_only_at_no_greater_loss():
    """Ranking alone decides if the predecessor's loss is smaller, too; not if it is larger."""
    assert (
        decide(performance__predecessor="inconclusive", performance__predecessor_ranking="fail").action
        == "rollback"
    )
    ranks = Evidence("performance.predecessor_ranking", "fail", value=0.2, low=0.1, limit=0.01, rung=3)
    assert judgement([*GOOD.values(), ranks], champion=CHAMPION).action == "watch"
    alone = [item for name, item in GOOD.items() if name != "performance.predecessor"]
    assert judgement([*alone, ranks], champion=CHAMPION).action == "watch"


@pytest.mark.parametrize("name", ["performance__challenger", "performance__challenger_since"])
def test_a_better_challenger_asks_for_a_retraining(name):
    """In this window, or over all days since the promotion."""
    assert decide(**{name: "fail"}).action == "retrain"


def test_a_retraining_may_be_asked_for():
    """`retrain_now` retrains without evidence, but not on a broken feed."""
    assert decide(retrain_now=True).action == "retrain"
    assert decide(retrain_now=True, contract__temp__unit="fail").action == "hold"


def test_drift_alone_at_most_watches():
    """Drift is not a decision, and leaves the outcome to the rungs above."""
    found = decide(drift__temp="fail")
    assert (found.action, found.outcome) == ("watch", "pass")


def test_worse_than_the_simple_rule_is_watched():
    """Both bad and nothing better: watch, and the outcome is a failure."""
    found = decide(performance__baseline="fail")
    assert (found.action, found.outcome) == ("watch", "fail")


def test_a_contract_that_could_not_be_checked_keeps_everything():
    """An error on rung 1 neither acts nor passes."""
    found = decide(contract__columns="error", performance__challenger="fail", performance__predecessor="fail")
    assert (found.action, found.outcome) == ("keep", "error")


def test_too_few_rows_are_told_and_nothing_is_done_about_them():
    """The number of rows vetoes a retraining and a rollback, and holds nothing back."""
    found = decide(contract__rows="fail", performance__challenger="fail", performance__predecessor="fail")
    assert (found.action, found.outcome) == ("watch", "fail")
    assert decide(contract__rows="fail", contract__temp__unit="fail").action == "hold"


def test_a_champion_that_is_slower_than_its_predecessor_gives_way():
    """On the same requests; where both are slow it is not the champion, and nothing is done."""
    slow = {"health__latency_p99_ms": "fail", "health__champion_latency": "fail"}
    assert decide(**slow, health__predecessor_latency="pass").action == "rollback"
    assert decide(**slow, health__predecessor_latency="fail").action == "watch"
    assert decide(health__latency_p99_ms="fail", health__predecessor_latency="pass").action == "watch"


def test_going_back_is_preferred_where_it_regains_most():
    """Once a challenger is better: the predecessor, unless training anew gains more than twice as much."""
    ways = {"performance__challenger": "fail", "performance__predecessor_instead": "fail"}
    assert decide(**ways).action == "rollback"
    assert decide(performance__predecessor_instead="fail").action == "watch"
    assert (
        decide(performance__challenger="fail", performance__predecessor_instead="inconclusive").action
        == "retrain"
    )
    assert decide(**ways, performance__challenger_over_predecessor="fail").action == "retrain"


def test_a_challengers_ranking_counts_where_its_loss_pays():
    """A better ranking retrains if the gain in loss exceeds the cost, though it alone could not be told."""
    unsure = {"performance__challenger": "inconclusive", "performance__challenger_ranking": "fail"}
    assert decide(**unsure).action == "retrain"
    assert decide(performance__challenger_ranking="fail").action == "watch"


def test_a_fall_in_value_is_told():
    """Another model need not help, so nothing is done about it."""
    assert decide(performance__value="fail").action == "watch"


def test_a_hold_ends_with_the_first_sound_window():
    """And only then."""
    held = Champion(version=2, predecessor=1, generation=5, hold="broken")
    assert decide(champion=held).clears_hold
    assert not decide(champion=held, contract__temp__unit="fail").clears_hold
    assert not decide().clears_hold


@given(ladders, champions, st.booleans())
def test_no_evidence_whatsoever_acts_without_grounds(items, champion, retrain_now):
    """Each action has the grounds that the rules ask for, however malformed, doubled or missing the evidence."""
    found = judgement(items, champion=champion, retrain_now=retrain_now)
    failed = {item.name for item in items if item.outcome == "fail"}
    contract = {item.outcome for item in items if item.rung == 1}
    assert found.action in ("keep", "watch", "rollback", "retrain", "hold")
    assert found.reasons
    assert found.generation == champion.generation
    if found.action == "rollback":
        assert found.target_version == champion.predecessor is not None
        assert failed & BACK
    else:
        assert found.target_version is None
    if found.action == "retrain":
        assert contract == {"pass"}
        assert retrain_now or failed & CHALLENGER
    if found.action == "hold":
        assert any(name.startswith("contract.") for name in failed)
    if found.clears_hold:
        assert champion.hold
        assert contract == {"pass"}
    if not {item.outcome for item in items if item.rung < 5} - {"inconclusive", "error"} and not retrain_now:
        assert found.action in ("keep", "watch")


# Any name on any rung with any numbers, some of it doubled; and names on their own rungs, so that much can act.
strange = st.lists(
    st.builds(replace, evidence, name=st.sampled_from(NAMES), limit=st.none() | st.floats(-1, 1)), max_size=8
)
anything = st.one_of(
    st.lists(evidence, max_size=6),
    strange,
    ladders,
    st.tuples(strange, ladders).map(lambda both: [*both[0], *both[1]]),
)


def shown(items, *names):
    """Whether a failure of one of these names stands on its rung, undisputed, and beyond its limit."""
    for name in names:
        told = {item for item in items if item.name == name}
        rung, near = (2, "value") if name.startswith("health") else (3, "low")
        for item in told if len(told) == 1 else ():
            numbers = (getattr(item, near), item.limit)
            if (
                item.outcome == "fail"
                and item.rung == rung
                and None not in numbers
                and numbers[0] > numbers[1]
            ):
                return True
    return False


@settings(max_examples=400)
@given(anything, champions, st.booleans())
def test_no_malformed_evidence_acts(items, champion, retrain_now):
    """Wrong rungs, doubled names that disagree, failures without numbers: at most watch, or the hold of rung 1."""
    found = judgement(items, champion=champion, retrain_now=retrain_now)
    contract = {item.outcome for item in items if item.rung == 1}
    if found.action == "rollback":
        assert found.target_version == champion.predecessor is not None
        assert shown(items, *BACK)
        assert contract == {"pass"} or shown(items, "health.champion", "health.champion_latency")
    if found.action == "retrain":
        assert contract == {"pass"}
        assert retrain_now or shown(items, *CHALLENGER)
    broken = {item.name for item in items if item.rung == 1 and item.outcome == "fail"}
    assert (found.action == "hold") <= bool(broken - {"contract.rows"})
    assert found.clears_hold == (bool(champion.hold) and contract == {"pass"})
    if not any(item.outcome == "fail" and item.rung < 5 for item in items) and not retrain_now:
        assert found.action in ("keep", "watch")


@pytest.mark.parametrize(
    "changes",
    [
        {"rung": 5},
        {"rung": 0},
        {"low": None},
        {"low": -math.inf},
        {"low": math.nan},
        {"low": 0.001},
        {"limit": None},
        {"value": math.nan},
        {"outcome": "inconclusive"},
        {"name": "performance.predecesor"},
    ],
)
@pytest.mark.parametrize("name", ["performance.predecessor", "performance.challenger"])
def test_one_flaw_and_a_reason_to_act_is_none(name, changes):
    """The flawless line acts; each flaw alone leaves the champion where it is."""
    line = Evidence(name, "fail", value=0.1, low=0.05, high=0.2, limit=0.01, n=100, rung=3)
    rest = [item for key, item in GOOD.items() if key != name]
    assert judgement([*rest, line], champion=CHAMPION).action in ("rollback", "retrain")
    assert judgement([*rest, line, line], champion=CHAMPION).action in ("rollback", "retrain")
    flawed = replace(line, **changes)
    assert judgement([*rest, flawed], champion=CHAMPION).action in ("keep", "watch")


def test_two_lines_of_one_name_that_disagree_are_none():
    """In whichever order they come."""
    bad = Evidence("performance.predecessor", "fail", value=0.1, low=0.05, limit=0.01, rung=3)
    good = Evidence("performance.predecessor", "pass", value=-0.1, low=-0.2, limit=0.01, rung=3)
    rest = [item for key, item in GOOD.items() if key != "performance.predecessor"]
    for pair in ((bad, good), (good, bad)):
        assert judgement([*rest, *pair], champion=CHAMPION).action == "watch"


@given(st.lists(evidence, max_size=8))
def test_nothing_but_a_full_set_of_passes_promotes(items):
    """Missing, malformed, failed or unclear evidence leaves the champion where it is."""
    found = promotion(items, challenger=7, generation=3)
    assert (found.action == "promote") == (bool(items) and all(item.outcome == "pass" for item in items))
    assert found.target_version == (7 if found.action == "promote" else None)
    assert found.reasons


def test_a_failure_rejects_and_doubt_keeps():
    """`reject` needs a failure; what could not be told or measured changes nothing."""
    lines = [Evidence("gain", "pass", value=1.0)]
    assert promotion([*lines, Evidence("x", "fail")], challenger=7, generation=0).action == "reject"
    assert promotion([*lines, Evidence("x", "inconclusive")], challenger=7, generation=0).action == "keep"
    assert promotion([*lines, Evidence("x", "error")], challenger=7, generation=0).action == "keep"
