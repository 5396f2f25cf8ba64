"""The rungs that rest on trials: what they find, what they leave open, and how seldom they cry wolf."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime

import numpy as np
import pandas as pd
import pytest
from benchmarks.healthy import World, actions, share
from tables import version_of

from prodkit.decisions.counterfactual import Counterfactuals
from prodkit.decisions.decide import judgement
from prodkit.decisions.gains import earlier_gains, remember_trial
from prodkit.decisions.ladder import gain_table, health_evidence, look_number
from prodkit.decisions.performance import performance_evidence
from prodkit.decisions.trial import Trial
from prodkit.evidence import Evidence
from prodkit.models.bundle import unpack
from prodkit.models.metrics import row_losses
from prodkit.params import RollbackParams
from prodkit.store.history import Champion
from prodkit.store.registry import Store

WINDOW = "2024-03-01/2024-03-31"
FIRST = (datetime(2024, 3, 1) - datetime(1970, 1, 1)).days
CHAMPION = Champion(version=2, predecessor=1, generation=2)
SOUND = Evidence("contract.columns", "pass", rung=1)


def params_of(**given):
    """Parameters of `rollback`."""
    return RollbackParams.check({"window": WINDOW, "min_rows": 100, **given})


def trial_of(day, truth, **said):
    """A trial of probabilities: what each candidate said of the same rows."""
    losses = pd.DataFrame({name: row_losses(truth, guess, task="binary") for name, guess in said.items()})
    errors = {name: float(losses[name].isna().mean()) for name in said}
    rows = pd.DataFrame(index=range(len(day)))
    return Trial("binary", rows, truth, said, errors, losses, FIRST + day)


def gaining(gain, *, days=30, rows=20, noise=0.02, seed=0, first=0):
    """A trial whose second candidate loses less than the champion by `gain`, more or less, each day."""
    draw = np.random.default_rng(seed)
    day = np.repeat(np.arange(days), rows)
    champion = draw.gamma(2.0, 0.2, len(day)) + 1.0
    champion *= 0.9 / champion.mean()
    each = gain + draw.normal(0, noise, days)
    # the simple rule loses 1 in the mean, so that a gain in the loss is one in skill
    losses = pd.DataFrame(
        {"champion": champion, "challenger": champion - each[day], "baseline": champion + 0.1}
    )
    rows_of = pd.DataFrame(index=range(len(day)))
    said = dict.fromkeys(losses, champion)
    return Trial("regression", rows_of, champion, said, {}, losses, FIRST + first + day)


def found_in(
    params, whole, retrained=None, *, look=1, since=None, earlier=None, autocorrelation=None, **missing
):
    """The evidence of a trial, by name."""
    why = {"challenger": "nobody was trained", **missing}
    trials = Counterfactuals(whole, retrained, why)
    found = performance_evidence(
        params,
        trials,
        look=look,
        since=since or params.window.start,
        earlier=earlier,
        autocorrelation=autocorrelation,
    )
    return {item.name: item for item in found}


def with_others(trial, **gains):
    """The same trial with further candidates, each better than the champion by so much on each row."""
    for name, gain in gains.items():
        trial.losses[name], trial.predicted[name] = trial.losses["champion"] - gain, trial.truth
    return trial


def weather(seed, *, days, rows=300):
    """Rows of days that differ much in their share of positives, and a score that tells some rows apart."""
    draw = np.random.default_rng(seed)
    day = np.repeat(np.arange(days), rows)
    score = draw.normal(0, 0.55, len(day))
    truth = (draw.random(len(day)) < share(-1.3 + score + draw.normal(0, 0.8, days)[day])).astype(int)
    return draw, day, score, truth


@pytest.mark.parametrize("days", [14, 30])
def test_a_model_of_scrambled_labels_is_found_by_its_ranking_where_its_loss_cannot_tell(days):
    """Bad weather moves the loss of a day by more than a model is worth: the ranking within a day stands out."""
    params, outcomes = params_of(), {"performance.predecessor": [], "performance.predecessor_ranking": []}
    for seed in range(15):
        draw, day, score, truth = weather(seed, days=days)
        sound = share(-0.9 + score)  # learned in a worse season, so not calibrated either
        scrambled = share(-1.3 + draw.normal(0, 0.15, len(day)))  # knows the usual share, and nothing else
        simple = np.full(len(day), 0.22)
        trial = trial_of(day, truth, champion=scrambled, predecessor=sound, baseline=simple)
        found = found_in(
            params, trial, autocorrelation=(0.0, 60)
        )  # training has seen that days are independent
        for name, kept in outcomes.items():
            kept.append(found[name].outcome)
    assert outcomes["performance.predecessor_ranking"].count("fail") >= 14
    assert outcomes["performance.predecessor"].count("fail") <= 2
    assert "error" not in outcomes["performance.predecessor"]


def test_a_worse_ranking_is_no_reason_to_return_to_it():
    """With the two exchanged, the sound champion stays: its ranking passes."""
    draw, day, score, truth = weather(0, days=30)
    said = {"champion": share(-1.3 + score), "predecessor": share(-1.3 + draw.normal(0, 0.15, len(day)))}
    found = found_in(params_of(), trial_of(day, truth, **said, baseline=np.full(len(day), 0.22)))
    assert found["performance.predecessor_ranking"].outcome == "pass"
    assert judgement([SOUND, *found.values()], champion=CHAMPION).action == "keep"


def test_in_a_healthy_life_something_is_done_in_at_most_one_of_twenty():
    """Three equally good models, a year of windows, margins at nought: 5% at most are touched in all their life."""
    found = actions(100, World(rows=60), cautious=False)
    assert sum(found.values()) == 100
    assert 100 - found["keep"] <= 5


def test_a_credibly_better_predecessor_fails_the_champion_and_a_worse_one_does_not():
    """By more than the margin: `fail`; by less, or worse: `pass`; too noisy to tell: `inconclusive`."""
    for gain, outcome in ((0.05, "fail"), (0.009, "pass"), (-0.05, "pass")):
        found = found_in(params_of(), with_others(gaining(0.0), predecessor=gain))
        item = found["performance.predecessor"]
        assert (item.outcome, item.rung, item.limit) == (outcome, 3, 0.01)
        assert item.value == pytest.approx(gain)
    noisy = gaining(0.01, noise=0.2)
    with_others(noisy, predecessor=0.0).losses["predecessor"] = noisy.losses["challenger"]
    assert found_in(params_of(), noisy)["performance.predecessor"].outcome == "inconclusive"


def test_worse_than_the_simple_rule_is_told_without_a_margin():
    """The dumb baseline is the least that a champion has to beat."""
    found = found_in(params_of(), with_others(gaining(0.0), baseline=0.001))
    assert found["performance.baseline"].outcome == "fail"
    assert judgement([SOUND, *found.values()], champion=CHAMPION).action == "watch"


def test_a_fresh_challenger_is_held_against_the_cost_of_retraining():
    """Better by more than it costs: retrain; credibly better by less: it does not pay."""
    whole = with_others(gaining(0.0))
    for cost, action in ((0.005, "retrain"), (0.1, "keep")):
        found = found_in(
            params_of(retrain_cost=cost), whole, gaining(0.05, days=15, first=15), autocorrelation=(0.0, 60)
        )
        assert judgement([SOUND, *found.values()], champion=CHAMPION).action == action
        assert found["performance.challenger"].n == 300


def test_a_slow_decay_is_seen_over_all_days_since_the_promotion():
    """No single window can tell, all of them together can, and a gain that is none never adds up."""
    for gain, outcome in ((0.045, "fail"), (0.0, "inconclusive")):
        whole, newest = with_others(gaining(0.0)), gaining(gain, days=15, first=15, noise=0.05, seed=3)
        alone = found_in(params_of(), whole, newest)
        draw = np.random.default_rng(1)
        dates = pd.date_range("2024-01-01", periods=60, freq="D")
        before = pd.Series(gain + draw.normal(0, 0.05, 60), index=dates)
        given = {"earlier": {"challenger": before}, "since": dates[0], "autocorrelation": (0.0, 60)}
        found = found_in(params_of(), whole, newest, **given)
        assert alone["performance.challenger"].outcome == "inconclusive"
        assert found["performance.challenger"].outcome == outcome


def lived(*, good, bad, gain, seed=0):
    """Daily gains of so many days before March on which nothing was to be gained, then of others on which much was."""
    days = good + bad
    level = np.where(np.arange(days) < good, 0.0, gain)
    dates = pd.date_range(end="2024-02-29", periods=days, freq="D")
    return pd.Series(level + np.random.default_rng(seed).normal(0, 0.05, days), index=dates)


def test_a_change_is_seen_undiluted_by_the_good_days_before_it():
    """After 112 good days a gain of 28 days and this window is told since it began, not since the promotion."""
    past = lived(good=112, bad=28, gain=0.1)
    given = {"earlier": {"challenger": past}, "since": past.index[0], "autocorrelation": (0.0, 60)}
    whole, newest = with_others(gaining(0.0)), gaining(0.1, noise=0.05)
    item = found_in(params_of(), whole, newest, **given)["performance.challenger"]
    assert item.outcome == "fail"
    assert "since 2024-02-02" in item.note
    assert item.value == pytest.approx(0.1, abs=0.03)


def test_each_start_spends_its_own_part_of_the_error():
    """The same days are told less surely the later in a champion's life they are."""
    whole, newest = with_others(gaining(0.0)), gaining(0.1)
    widths = []
    for good in (28, 280):
        past = lived(good=good, bad=0, gain=0.0)
        given = {"earlier": {"challenger": past}, "since": past.index[0], "autocorrelation": (0.0, 10_000)}
        item = found_in(params_of(), whole, newest, **given)["performance.challenger"]
        assert "since 2024-03-01" in item.note
        widths.append(item.high - item.low)
    assert widths[1] > 1.1 * widths[0]


def test_what_was_better_once_is_no_reason_to_act_now():
    """A gain of the weeks before, and none in this window, leaves it open whom to believe."""
    past = lived(good=0, bad=84, gain=0.2)
    given = {"since": past.index[0], "autocorrelation": (0.0, 60)}
    whole, newest = with_others(gaining(0.0), predecessor=0.0), gaining(0.0)
    found = found_in(params_of(), whole, newest, earlier={"challenger": past, "predecessor": past}, **given)
    for name in ("performance.challenger", "performance.predecessor"):
        assert (found[name].outcome, found[name].low > found[name].limit) == ("inconclusive", True)
        assert "but in this window it is" in found[name].note


def test_nobody_goes_back_to_a_model_that_the_simple_rule_outdoes():
    """The predecessor is far better than the champion, and worse than no model at all: both are bad, so watch."""
    found = found_in(params_of(), with_others(gaining(0.0), predecessor=0.2, baseline=0.3))
    item = found["performance.predecessor"]
    assert (item.outcome, item.low > item.limit) == ("inconclusive", True)
    assert "over the simple rule" in item.note
    assert judgement([SOUND, *found.values()], champion=CHAMPION).action == "watch"


@pytest.mark.parametrize("unit", [0.001, 1.0, 1000.0])
def test_a_decision_does_not_depend_on_the_unit_of_the_loss(unit):
    """Minutes, hours or nats: gains are gains in skill, and all figures stay the same."""
    trials = gaining(0.05), gaining(0.08, noise=0.05)
    for trial in trials:
        trial.losses["predecessor"] = gaining(0.05).losses["challenger"]
    known = found_in(params_of(), *trials)
    for trial in trials:
        trial.losses.loc[:] = unit * trial.losses
    for name, item in found_in(params_of(), *trials).items():
        assert item.outcome == known[name].outcome
        assert item.value == pytest.approx(known[name].value)


def test_where_the_simple_rule_makes_no_mistake_nothing_can_be_gained():
    """Labels that are all alike leave one line that says so, and no division by nought."""
    trial = with_others(gaining(0.0), predecessor=0.05)
    trial.losses["baseline"] = 0.0
    found = found_in(params_of(), trial, gaining(0.5))
    assert found["performance.skill"].outcome == "inconclusive"
    assert judgement([SOUND, *found.values()], champion=CHAMPION).action == "keep"


def test_each_look_spends_its_own_part_of_the_error():
    """The same trial at a later look has a wider interval."""
    whole = with_others(gaining(0.0))
    first, tenth = (found_in(params_of(), whole, look=look)["performance.baseline"] for look in (1, 10))
    assert tenth.high - tenth.low > 1.2 * (first.high - first.low)


@pytest.mark.parametrize(
    ("start", "look"),
    [("01-20", 1), ("02-01", 1), ("02-07", 1), ("02-08", 2), ("02-14", 2), ("02-15", 3), ("05-09", 15)],
)
def test_looks_are_counted_in_windows_since_the_validation(start, look):
    """The first window after the holdout is look 1, and an earlier one is not look 0."""
    bundle = unpack(version_of(2)[0])  # its holdout ends with January
    begin = pd.Timestamp(f"2024-{start}")
    window = f"{begin.date()}/{(begin + pd.Timedelta(days=7)).date()}"
    assert look_number(params_of(window=window), bundle) == look


def test_too_few_rows_or_days_leave_everything_open():
    """No verdict on anybody: one inconclusive line that counts what is there and what is needed."""
    for given in ({"min_rows": 601}, {"min_blocks": 31}):
        found = found_in(params_of(**given), with_others(gaining(0.0), predecessor=1.0), gaining(1.0))
        assert [(item.name, item.outcome) for item in found.values()] == [
            ("performance.labels", "inconclusive")
        ]
        assert "600 labelled rows on 30 days" in found["performance.labels"].note


def test_a_challenger_with_too_few_days_leaves_only_itself_open():
    """Whoever was judged on enough rows still is."""
    found = found_in(params_of(), with_others(gaining(0.0), predecessor=0.05), gaining(1.0, days=6, first=24))
    assert found["performance.challenger"].outcome == "inconclusive"
    assert found["performance.predecessor"].outcome == "fail"


def test_what_could_not_be_tried_is_inconclusive_with_the_reason():
    """No labels, no challenger: the reason is the note."""
    found = found_in(params_of(), None, labels="known after April")
    assert [(i.name, i.outcome, i.note) for i in found.values()] == [
        ("performance.labels", "inconclusive", "known after April")
    ]
    found = found_in(params_of(), with_others(gaining(0.0)), challenger="a broken feed")
    assert (found["performance.challenger"].outcome, found["performance.challenger"].note) == (
        "inconclusive",
        "a broken feed",
    )
    assert "performance.predecessor" not in found


@pytest.mark.parametrize("who", ["champion", "predecessor", "baseline"])
def test_a_candidate_without_an_answer_is_an_error_and_moves_nothing(who):
    """A single loss that is no number leaves its comparisons as errors: no rollback rests on it."""
    draw, day, score, truth = weather(0, days=20)
    said = {"champion": share(draw.normal(0, 0.1, len(day))), "predecessor": share(-1.3 + score)}
    said["baseline"] = np.full(len(day), 0.22)
    said[who] = said[who].copy()
    said[who][17] = np.nan
    found = found_in(params_of(), trial_of(day, truth, **said))
    names = (
        ["performance.predecessor", "performance.baseline"] if who == "champion" else [f"performance.{who}"]
    )
    assert [found[name].outcome for name in names] == ["error"] * len(names)
    assert ("performance.predecessor_ranking" in found) == (who == "baseline")
    if who != "baseline":
        assert judgement([SOUND, *found.values()], champion=CHAMPION).action in ("keep", "watch")


def test_a_ranking_needs_two_classes_and_days_that_have_both():
    """Several classes, one class only, or too few days with both: no line, and no crash."""
    _, day, score, truth = weather(0, days=20)
    sound = share(-1.3 + score)
    said = {"champion": sound[::-1].copy(), "predecessor": sound, "baseline": np.full(len(day), 0.22)}
    name = "performance.predecessor_ranking"
    assert name in found_in(params_of(), trial_of(day, truth, **said))
    assert name not in found_in(params_of(), trial_of(day, np.zeros(len(day), dtype=int), **said))
    assert name not in found_in(params_of(), trial_of(day, np.where(day < 6, truth, 0), **said))
    several = trial_of(day, truth, **said)
    several.predicted.update({who: np.column_stack([1 - x, x]) for who, x in said.items()})
    assert name not in found_in(params_of(), several)


def test_labels_of_a_class_that_nobody_knows_are_told():
    """They are left out of every comparison, so a line says how many there are."""
    whole = with_others(gaining(0.0))
    many = replace(whole, unknown_rows=400)
    item = found_in(params_of(), many)["performance.unknown_classes"]
    assert (item.outcome, item.value, item.rung) == ("fail", 0.4, 3)
    assert "performance.unknown_classes" not in found_in(params_of(), whole)


@pytest.fixture
def store():
    """An empty one, in memory."""
    with Store.open("sqlite://", "memory://ladder") as kept:
        yield kept


def judged(first, days, *, gain=0.02, seed=0):
    """Counterfactuals of these days of March on."""
    trial = gaining(gain, days=days, first=first, seed=seed)
    return Counterfactuals(trial, trial, {})


def march(first, last, **given):
    """Parameters of a window within March."""
    return params_of(window=f"2024-03-{first:02d}/2024-03-{last:02d}", **given)


def test_daily_gains_are_remembered_for_the_champion_that_they_are_about(store):
    """What one window records, the next one reads: day by day, for this version and no other."""
    trials = judged(0, 7)
    remember_trial(store, march(1, 8), trials, version=2)
    losses = trials.retrained.losses
    mean = (losses["champion"] - losses["challenger"]).groupby(trials.retrained.days).mean()
    kept = earlier_gains(store, march(8, 15), version=2, before=datetime(2024, 3, 8))["challenger"]
    assert kept.to_numpy() == pytest.approx(mean.to_numpy())
    assert list(kept.index) == list(pd.date_range("2024-03-01", periods=7))
    assert earlier_gains(store, march(8, 15), version=3, before=datetime(2024, 3, 8))["challenger"].empty


def test_gains_of_several_windows_are_one_series(store):
    """Each window adds its days, in order; a day counts once, as it was first judged."""
    remember_trial(store, march(1, 8), judged(0, 7, seed=1), version=2)
    first = earlier_gains(store, march(15, 22), version=2, before=datetime(2024, 3, 15))["challenger"]
    remember_trial(store, march(4, 15), judged(3, 11, seed=2), version=2)
    both = earlier_gains(store, march(15, 22), version=2, before=datetime(2024, 3, 15))["challenger"]
    assert list(both.index) == list(pd.date_range("2024-03-01", periods=14))
    assert both.iloc[:7].equals(first)


def test_a_run_that_is_repeated_doubles_nothing(store):
    """The same run writes the same days again, in place of its own."""
    for _ in range(2):
        remember_trial(store, march(1, 8), judged(0, 7), version=2)
    assert len(store.metrics(name="skill.challenger")) == 7


def test_a_past_moment_does_not_know_what_was_judged_later(store):
    """A replay as of the 10th reads no gain that became known on the 15th, nor any day of its own window."""
    remember_trial(store, march(1, 8), judged(0, 7), version=2)
    remember_trial(store, march(8, 15), judged(7, 7), version=2)
    now = earlier_gains(store, march(15, 22), version=2, before=datetime(2024, 3, 15))["challenger"]
    then = earlier_gains(store, march(15, 22, as_of="2024-03-10"), version=2, before=datetime(2024, 3, 15))[
        "challenger"
    ]
    own = earlier_gains(store, march(8, 15), version=2, before=datetime(2024, 3, 8))["challenger"]
    assert [len(now), len(then), len(own)] == [14, 7, 7]


def test_without_a_challenger_nothing_is_remembered(store):
    """A window that could not try one leaves no line."""
    remember_trial(store, march(1, 8), Counterfactuals(None, None, {}), version=2)
    assert store.metrics().empty


def test_health_is_the_share_of_rows_without_an_answer(store):
    """Of champion and predecessor on the same requests, against the limit."""
    trial = gaining(0.0)
    trial.errors.update({"champion": 0.2, "predecessor": 0.0, "baseline": 0.0})
    trials = Counterfactuals(trial, None, {})
    found = health_evidence(store, params_of(), trials, version=2)
    assert [(item.name, item.outcome, item.rung) for item in found] == [
        ("health.champion", "fail", 2),
        ("health.predecessor", "pass", 2),
    ]
    assert judgement([SOUND, *found], champion=CHAMPION).action == "rollback"
    assert health_evidence(store, params_of(slo={}), trials, version=2) == []


def test_health_reads_what_scoring_recorded_for_this_version_and_window(store):
    """The latest latency recorded within the window counts; that of another version or window does not."""

    def record(run, value, version=2, window="2024-03-01/2024-03-31"):
        start, end = window.split("/")
        row = {
            "run_id": run,
            "notebook": "score",
            "version": version,
            "window_start": start,
            "window_end": end,
        }
        row |= {"name": "latency_p99_ms", "value": value, "low": None, "high": None, "n": 50, "known_at": end}
        store.record_metrics([row])

    nobody = Counterfactuals(None, None, {})
    record("other version", 900.0, version=1)
    record("other window", 900.0, window="2024-04-01/2024-04-30")
    assert health_evidence(store, params_of(), nobody, version=2) == []
    record("first", 900.0)
    (slow,) = health_evidence(store, params_of(), nobody, version=2)
    assert (slow.name, slow.outcome, slow.limit, slow.n) == ("health.latency_p99_ms", "fail", 250.0, 50)
    record("again", 90.0)
    (fast,) = health_evidence(store, params_of(), nobody, version=2)
    assert (fast.value, fast.outcome) == (90.0, "pass")


def test_the_table_of_gains_names_each_alternative():
    """Value, low and high of whatever could be tried; the others have no row."""
    found = found_in(
        params_of(), with_others(gaining(0.0), predecessor=0.05), gaining(0.02, days=15, first=15)
    )
    table = gain_table(list(found.values()))
    assert list(table.index) == ["predecessor", "baseline", "challenger"]
    assert (table["low"] <= table["value"]).all()
    assert table.loc["predecessor", "value"] == pytest.approx(0.05)
    assert gain_table([SOUND]).empty
