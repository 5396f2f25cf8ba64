"""The vital signs: windows are judged once and when they are mature, and what is not known never passes."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from itertools import pairwise

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tables import orders, params_for, run_cells, version_of, written

from prodkit.data.windows import labelled, read_window
from prodkit.decisions.answers import RESULT_MIME
from prodkit.errors import ParameterError
from prodkit.evidence import Estimate, Evidence, Window, earlier_windows, overall
from prodkit.models.bundle import unpack
from prodkit.models.metrics import row_losses
from prodkit.monitoring.findings import monitor_evidence, standing, steady
from prodkit.monitoring.health import health_metrics
from prodkit.monitoring.outcomes import demonstrate_past, estimate_pending, judge_matured, served_parts
from prodkit.scoring.batch import open_window, remember_scoring, score_window
from prodkit.scoring.inspection import inspect_chunks
from prodkit.store.history import Champion
from prodkit.store.registry import Store

CUTS = ["2024-02-01", "2024-02-06", "2024-02-11", "2024-02-16", "2024-02-21"]
WINDOWS = [f"{start}/{end}" for start, end in pairwise(CUTS)]
REFERENCE = {"log_loss": {"value": 0.5, "low": 0.45, "high": 0.55}}
COSTS = {"0": {"send": 0.0, "ask": -1.0}, "1": {"send": -2.0, "ask": -1.0}}


@pytest.fixture
def table(tmp_path):
    """The orders, with what each has earned."""
    frame = orders()
    frame["earned"] = np.where(frame["returned"] == 1, -2.0, 1.0)
    return written(frame, tmp_path)


@pytest.fixture
def store(tmp_path, monkeypatch):
    """A store whose champion is version 1 of the orders, with figures from before it served."""
    monkeypatch.setenv("PRODKIT_OUT", str(tmp_path / "out"))
    artifact, document = version_of(2)
    with Store.open(f"sqlite:///{tmp_path}/store.db", str(tmp_path / "artifacts")) as opened:
        opened.register(artifact, {**document, "metrics": REFERENCE})
        opened.promote(1, expected_generation=0, reason="test")
        yield opened


@pytest.fixture
def champion():
    """Number and bundle of the champion."""
    return 1, unpack(version_of(2)[0])


def scored(store, table, window, *, champion, **given):
    """Score a window as the notebook does."""
    params = params_for("score", table, window=window, store="unused", **given)
    version, bundle = champion
    rows = open_window(params, bundle=bundle)
    inspection = inspect_chunks(store, params, rows, version=version, bundle=bundle)
    found = score_window(params, rows, inspection, version=version, bundle=bundle)
    remember_scoring(store, params, found, inspection, version=version)
    return found


def watching(table, **given):
    """Parameters of a look at the four windows."""
    defaults = {"window": WINDOWS[-1], "windows": 4, "min_rows": 50, "store": "unused"}
    return params_for("monitor", table, **{**defaults, **given})


def looked(store, params, *, champion):
    """Judge what has matured, and put the signs together."""
    return health_metrics(store, params, champion=champion, missing=judge_matured(store, params))


@pytest.fixture
def lived(store, table, champion):
    """The four windows have been scored."""
    for window in WINDOWS:
        scored(store, table, window, champion=champion)
    return store


def outcomes(evidence):
    """Outcome by name."""
    return {item.name: item.outcome for item in evidence}


def test_a_mature_window_is_what_its_labels_say(lived, table, champion):
    """The realised loss is the mean over the labelled rows of what the champion answered; health is as recorded."""
    signs = looked(lived, watching(table), champion=champion).signs
    rows = labelled(read_window(watching(table), Window.parse(WINDOWS[0])), watching(table))
    bundle = champion[1]
    losses = row_losses(bundle.schema.encode(rows["returned"]), bundle.predict(rows), task="binary")
    first = signs.iloc[0]
    assert first["log_loss"] == pytest.approx(losses.mean())
    assert first["log_loss_low"] < first["log_loss"] < first["log_loss_high"]
    assert (first["state"], first["rows"], first["version"], first["log_loss_n"]) == (
        "realised",
        300,
        "v1",
        len(rows),
    )
    assert first[["error_share", "degraded_share", "breaks"]].tolist() == [0, 0, 0]
    assert first["latency_p99_ms"] > 0


def test_a_young_window_has_no_figures(lived, table, champion):
    """With a delay of four days the newest window shows how far its labels have come; only its first day is judged."""
    health = looked(lived, watching(table, label_delay="4d"), champion=champion)
    newest = health.signs.iloc[-1]
    assert newest["state"] == "immature"
    assert newest["aged_share"] == pytest.approx(0.2, abs=0.02)
    assert health.signs.iloc[:-1]["state"].tolist() == ["realised"] * 3
    assert np.isnan(newest["log_loss"])
    assert health.days.index.max() == pd.Timestamp("2024-02-16")


def estimated(store, params, *, champion):
    """Judge what has matured, estimate what has not, and put the signs together."""
    missing = judge_matured(store, params) | estimate_pending(store, params)
    return health_metrics(store, params, champion=champion, missing=missing)


def test_a_young_window_is_estimated_until_its_labels_have_matured(lived, table, champion):
    """Estimates are drawn as such, with the interval, and give way to the realised figures once these are known."""
    young = estimated(lived, watching(table, label_delay="4d"), champion=champion)
    assert young.signs["state"].tolist() == ["realised"] * 3 + ["estimated"]
    assert young.sign("log_loss")["estimated"].tolist() == [False] * 3 + [True]
    newest = young.sign("log_loss").iloc[-1]
    assert newest["low"] < newest["value"] < newest["high"]
    (told,) = [item for item in monitor_evidence(watching(table), young) if item.rung == 4]
    assert (told.name, told.n) == ("estimated.loss", 300)
    old = estimated(lived, watching(table, label_delay="4d", as_of="2024-02-27"), champion=champion)
    assert old.signs["state"].tolist() == ["realised"] * 4
    assert not [item for item in monitor_evidence(watching(table), old) if item.rung == 4]
    assert old.sign("log_loss").iloc[-1]["value"] != newest["value"]


def test_a_window_that_cannot_be_estimated_says_why(store, table, champion):
    """A broken input was answered by the simple rule: no figure is made up for it, and the page says so."""
    drill = {"price": "empty"}
    scored(store, table, WINDOWS[-1], champion=champion, drill=drill)
    params = watching(table, label_delay="4d", windows=1, drill=drill)
    health = estimated(store, params, champion=champion)
    assert health.signs.iloc[-1]["state"] == "immature"
    assert "the model was not asked" in health.coverage().iloc[-1]["why"]
    (told,) = [item for item in monitor_evidence(params, health) if item.rung == 4]
    assert told.outcome == "inconclusive"
    assert "its input was broken" in told.note


@pytest.mark.parametrize("delay", ["1d", "4d", "9d"])
def test_later_looks_never_change_a_mature_figure(lived, table, champion, delay):
    """Looking every other day, a window's figures and a day's loss stay what they were once all labels were known."""
    kept, days = {}, {}
    for day in range(6, 29, 2):
        params = watching(table, as_of=f"2024-02-{day:02d}", label_delay=delay, mature_share=0.5)
        health = looked(lived, params, champion=champion)
        for window, span in zip(health.signs.index, health.windows, strict=True):
            row = health.signs.loc[window].drop(["aged_share", "labelled_share"])
            if window in kept:
                pd.testing.assert_series_equal(row, kept[window])
            if span.end <= params.labels_until:
                kept[window] = row
        for moment, loss in health.days["loss"].items():
            assert days.setdefault(moment, loss) == loss
            assert moment + timedelta(days=1) <= params.labels_until
    assert days


def test_what_was_judged_is_not_read_again(lived, table, champion):
    """With the table gone, the page is what it was, but for windows that have yet to be judged."""
    then = looked(lived, watching(table, as_of="2024-02-25"), champion=champion)
    gone = watching("/nowhere/orders.parquet", as_of="2024-02-26")
    assert judge_matured(lived, gone) == {}
    pd.testing.assert_frame_equal(health_metrics(lived, gone, champion=champion).signs, then.signs)
    other = watching("/nowhere/orders.parquet", window="2024-02-21/2024-02-26", windows=1)
    assert "was not scored" in judge_matured(lived, other)["2024-02-21/2024-02-26"]


def test_a_past_day_is_seen_as_it_was(lived, table, champion):
    """A look at a past moment sees nothing that became known later, though the store holds it."""
    early = watching(table, as_of="2024-02-11")
    before = looked(lived, early, champion=champion).signs
    looked(lived, watching(table), champion=champion)
    pd.testing.assert_frame_equal(looked(lived, early, champion=champion).signs, before)
    assert before["rows"].tolist() == [300, 300, 0, 0]


def test_a_broken_input_is_named_and_its_window_judged_as_it_was_served(store, table, champion):
    """Rung 1 says which column; the champion answered without it, so those answers are what is judged."""
    scored(store, table, WINDOWS[0], champion=champion)
    scored(store, table, WINDOWS[1], champion=champion, drill={"price": "empty"})
    params = watching(table, window=WINDOWS[1], windows=2, as_of="2024-02-13")
    health = looked(store, params, champion=champion)
    evidence = monitor_evidence(params, health)
    assert outcomes(evidence)["contract.price.missing"] == "fail"
    assert outcomes(evidence)["health.degraded_share"] == "pass"
    assert health.signs["breaks"].tolist() == [0, 1]
    bundle, rows = champion[1], labelled(read_window(params), params)
    masked = bundle.predict(rows.assign(price=None))
    losses = row_losses(bundle.schema.encode(rows["returned"]), masked, task="binary")
    assert health.signs.iloc[1]["log_loss"] == pytest.approx(losses.mean())
    decision = standing(evidence, champion=Champion(version=1, predecessor=None, generation=1))
    assert (decision.action, decision.outcome) == ("watch", "fail")
    assert "price" in decision.reasons[0]


def test_daily_scoring_makes_one_sign_of_a_longer_window(store, table, champion):
    """Shares are weighted by rows, the slowest latency counts, and summaries of the input are put together."""
    for day in range(1, 6):
        scored(store, table, f"2024-02-{day:02d}/2024-02-{day + 1:02d}", champion=champion)
    params = watching(table, window=WINDOWS[0], windows=1, as_of="2024-02-08")
    health = looked(store, params, champion=champion)
    slowest = store.metrics(notebook="score", name="latency_p99_ms")["value"].max()
    row = health.signs.iloc[0]
    assert (row["rows"], row["state"], row["latency_p99_ms"]) == (300, "realised", slowest)
    assert len(served_parts(store, params, Window.parse(WINDOWS[0]))) == 5
    assert health.contract[0].name == "contract.columns"
    assert health.contract[0].outcome == "pass"


@pytest.mark.parametrize(
    ("value", "value_min", "outcome"),
    [("earned", None, "pass"), ("earned", 5.0, "fail"), (COSTS, -9.0, "pass"), (COSTS, 1.0, "fail")],
)
def test_the_business_outcome_is_added_up(lived, table, champion, value, value_min, outcome):
    """A column or a cost matrix gives a mean value of a row with its interval, against the least that it may be."""
    params = watching(table, value=value, value_min=value_min)
    health = looked(lived, params, champion=champion)
    item = next(item for item in monitor_evidence(params, health) if item.name == "performance.value")
    assert item.outcome == outcome
    assert item.low <= item.value <= item.high
    if value == "earned":
        rows = labelled(read_window(params, Window.parse(WINDOWS[0])), params)
        assert health.signs.iloc[0]["value"] == pytest.approx(rows["earned"].mean())


def test_a_cost_matrix_that_does_not_fit_is_refused(lived, table):
    """A class without a row of costs is a wrong parameter, and said as one."""
    with pytest.raises(ParameterError, match=r"value.1 must give each decision a value"):
        judge_matured(lived, watching(table, value={"0": {"send": 0.0}}))


def test_a_window_that_cannot_be_judged_says_why_and_hides_no_other(lived, table, champion):
    """With the table gone there is no figure, and the reason stands in the table and in the evidence."""
    params = watching("/nowhere/orders.parquet")
    health = looked(lived, params, champion=champion)
    assert set(health.missing) == set(WINDOWS)
    assert "/nowhere/orders.parquet" in health.coverage()["why"].iloc[0]
    item = next(item for item in monitor_evidence(params, health) if item.name == "performance.labels")
    assert item.outcome == "inconclusive"
    assert "/nowhere/orders.parquet" in item.note


def test_what_scoring_has_not_written_is_said_and_does_not_pass(store, table, champion):
    """With an empty store each sign is `inconclusive`, with a reason."""
    params = watching(table)
    health = looked(store, params, champion=champion)
    evidence = monitor_evidence(params, health)
    assert {item.outcome for item in evidence} == {"inconclusive"}
    assert any("not recorded" in item.note for item in evidence if item.name == "health.latency_p99_ms")
    assert set(health.signs["state"]) == {"unknown"}
    assert overall(evidence) == "inconclusive"


def test_a_rise_of_the_loss_is_an_alert_of_the_window(lived, table, champion):
    """Against a reference that was better by far, the newest mature window fails; without one nothing can be told."""
    params = watching(table, loss_margin=0.0)
    health = looked(lived, params, champion=champion)
    better = replace(health, reference={"log_loss": Estimate(0.1, 0.05, 0.15, 100, 10)})
    assert outcomes(monitor_evidence(params, better))["performance.loss"] == "fail"
    assert outcomes(monitor_evidence(params, better))["performance.since"] == "fail"
    bare = monitor_evidence(params, replace(health, reference={}))
    assert outcomes(bare)["performance.loss"] == "inconclusive"
    assert "performance.since" not in outcomes(bare)


@pytest.mark.parametrize(("low", "limit", "outcome"), [(0.8, 0.75, "fail"), (0.4, 0.5, "inconclusive")])
def test_a_ranking_below_its_reference_is_an_alert(lived, table, champion, low, limit, outcome):
    """The AUC may lie so much below what it was before serving, and never below that of a coin."""
    params = watching(table)
    health = looked(lived, params, champion=champion)
    weak = {"roc_auc": 0.45, "roc_auc_low": 0.38, "roc_auc_high": 0.52}
    health = replace(
        health, signs=health.signs.assign(**weak), reference={"roc_auc": Estimate(0.9, low, 1.0, 1, 1)}
    )
    item = next(item for item in monitor_evidence(params, health) if item.name == "performance.score")
    assert (item.outcome, item.limit) == (outcome, pytest.approx(limit))


NUMBER = st.one_of(st.none(), st.floats(allow_nan=True, allow_infinity=True), st.just(0.0))


@given(
    figures=st.fixed_dictionaries(
        {f"{name}{end}": NUMBER for name in ("log_loss", "value") for end in ("", "_low", "_high")}
    ),
    shares=st.fixed_dictionaries({"error_share": NUMBER, "latency_p99_ms": NUMBER}),
    reference=st.sampled_from([0.55, float("nan"), float("inf")]),
)
@settings(deadline=None, max_examples=150)
def test_no_malformed_history_passes(figures, shares, reference):
    """A figure that is missing, NaN or infinite is never a `pass`, whatever stands beside it."""
    params = params_for("monitor", "unused", value="earned", value_min=0.0)
    health = replace(EMPTY, reference={"log_loss": Estimate(0.5, 0.4, reference, 1, 1)})
    row = {"state": "realised", "rows": 900, "log_loss_n": 900.0, "value_n": 900.0, **figures, **shares}
    evidence = monitor_evidence(params, replace(health, signs=pd.DataFrame([row], index=["2024-02-01"])))
    found = outcomes(evidence)

    def told(name, source):
        number = source[name]
        return number is not None and np.isfinite(number)

    for name in shares:
        assert told(name, shares) or found[f"health.{name}"] != "pass"
    assert found["health.degraded_share"] == "inconclusive"
    assert told("value", figures) or found["performance.value"] != "pass"
    assert (told("log_loss", figures) and np.isfinite(reference)) or found["performance.loss"] != "pass"
    assert found.get("performance.since") != "pass"


def test_drift_alone_fails_nobody():
    """It asks to watch, and the outcome is that of the rungs above."""
    sound = Evidence("contract.columns", "pass", rung=1)
    moved = Evidence("drift.temp", "fail", value=0.6, limit=0.1, rung=5, note="temp has moved")
    champion = Champion(version=1, predecessor=None, generation=4)
    decision = standing([sound, moved], champion=champion)
    assert (decision.action, decision.outcome, decision.generation) == ("watch", "pass", 4)
    assert standing([sound], champion=champion).action == "keep"
    assert standing([], champion=champion).outcome == "inconclusive"


def test_a_latency_within_its_limit_is_shown_without_its_number():
    """The table that is compared between runs does not change with the machine; a latency beyond its limit is told."""
    fast = Evidence("health.latency_p99_ms", "pass", value=3.1, limit=250.0, rung=2, note="latency")
    slow = replace(fast, outcome="fail", value=300.0)
    assert steady([fast, slow])[0].value is None
    assert steady([fast, slow])[1] == slow


def test_months_are_followed_back_as_months():
    """Three windows up to March are January, February and March, across a leap day."""
    found = earlier_windows(Window.parse("2024-03-01/2024-04-01"), 3)
    assert str(found[0]) == "2024-01-01/2024-02-01"
    assert [window.days for window in found] == [31, 29, 31]


def test_the_notebook_watches_an_own_table(lived, table, tmp_path):
    """Its cells run on a real store of orders, record `watch` or `keep`, and leave figures for the next look."""
    given = watching(
        table, store=f"sqlite:///{tmp_path}/store.db", artifacts=str(tmp_path / "artifacts")
    ).plain()
    names = run_cells("monitor", given, until="conclude(")
    assert names["signs"].signs["state"].tolist()[0] == "realised"
    assert names["notice"].channels == {}
    kept = lived.metrics(notebook="monitor")
    assert {"realised.log_loss", "loss.served"} <= set(kept["name"])
    assert RESULT_MIME


def test_the_demonstration_has_a_past_under_a_runner_too(store, table, champion, monkeypatch):
    """Every window of the page is scored by a run of its own, also where the runner has given this one a name."""
    monkeypatch.setenv("PRODKIT_RUN", "monitor-1")
    params = watching(table, store="demo")
    demonstrate_past(store, params)
    assert looked(store, params, champion=champion).signs["rows"].tolist() == [300] * 4


EMPTY = None


@pytest.fixture(autouse=True, scope="module")
def _empty(tmp_path_factory):
    """Signs without any history, for tests that put their own in."""
    global EMPTY
    folder = tmp_path_factory.mktemp("empty")
    with Store.open(f"sqlite:///{folder}/store.db", str(folder / "artifacts")) as opened:
        opened.register(*version_of(2))
        champion = 1, unpack(version_of(2)[0])
        EMPTY = health_metrics(opened, params_for("monitor", "unused", window=WINDOWS[0]), champion=champion)
