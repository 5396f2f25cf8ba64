"""What a reader sees when a control is moved: a new figure and its numbers, from the functions that decide."""

import re

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from ipywidgets import Dropdown, FloatSlider, Output

from prodkit.charts import draw_folds
from prodkit.decisions.decide import judgement
from prodkit.decisions.trial import Trial
from prodkit.drift.compare import compare_columns
from prodkit.drift.counts import column_profile
from prodkit.drift.profiles import Profile
from prodkit.evidence import Evidence
from prodkit.explore import (
    Explorer,
    confusion,
    explore_columns,
    explore_limits,
    explore_loads,
    explore_trial,
    threshold_cost,
)
from prodkit.models.metrics import row_values
from prodkit.params import RollbackParams, StressParams
from prodkit.store.history import Champion
from prodkit.stress.load import Step

RNG = np.random.default_rng(0)
DAYS = np.repeat(np.arange(15796, 15806), 100)
HOSTILE = "<script>alert(1)</script>"


def pair():
    """Profiles of one hostile column, then and now."""
    then = column_profile(RNG.normal(size=1000), blocks=DAYS)
    now = column_profile(RNG.normal(size=1000), blocks=DAYS, like=then)
    return tuple(Profile(1000, {HOSTILE: column}) for column in (then, now))


def trial(task="binary"):
    """Two candidates on 400 rows of two slices."""
    truth = (RNG.random(400) < 0.3).astype(float) if task == "binary" else RNG.normal(size=400)
    if task == "multiclass":
        truth = RNG.integers(0, 3, 400).astype(float)
    said = {name: RNG.random(400) for name in ("champion", "challenger")}
    if task == "multiclass":
        said = {name: RNG.dirichlet(np.ones(3), 400) for name in said}
    rows = pd.DataFrame({"origin": ["EWR", HOSTILE] * 200})
    return Trial(task, rows, truth, said, dict.fromkeys(said, 0.0), pd.DataFrame(), DAYS[:400])


EVIDENCE = [
    Evidence("gain.champion", "pass", value=0.02, low=0.01, high=0.03, limit=0.0, note="gain of all"),
    Evidence(f"slice.origin={HOSTILE}", "pass", value=0.5, low=0.4, high=0.6, note="gain of the slice"),
]


def test_moving_a_control_draws_another_figure_and_other_numbers():
    """The picture, its alternative text and the numbers beneath it are those of the new value."""
    explorer = Explorer(
        {"level": FloatSlider(value=0.25, min=0, max=1)},
        lambda level: (draw_folds(pd.DataFrame({"value": [level]}), metric="auc"), f"<p>{level}</p>"),
    )
    before = explorer.html
    explorer.controls["level"].value = 0.75
    assert explorer.html != before
    assert 'aria-label="auc in time-ordered folds. folds: auc of 1 fold, 0.75' in explorer.html
    assert explorer.html.endswith("<p>0.75</p>")


def test_without_a_kernel_there_is_a_still_figure():
    """The output of a cell holds the widget, and for whoever cannot run it a picture with digest and alt text."""
    data, about = explore_columns(*pair())._repr_mimebundle_()
    assert {"image/png", "text/plain", "application/vnd.jupyter.widget-view+json"} <= data.keys()
    assert data["text/plain"].startswith("<script>alert")
    assert about["image/png"]["alt"]


def test_what_goes_wrong_is_said_where_the_figure_would_be():
    """A figure that cannot be drawn gives its error, escaped, and the next one is drawn again."""

    def draw(name):
        if name != "fine":
            raise ValueError(HOSTILE)
        return draw_folds(pd.DataFrame({"value": [0.5]}), metric="auc"), ""

    explorer = Explorer({"name": Dropdown(options=["fine", "bad"])}, draw)
    explorer.controls["name"].value = "bad"
    assert "<b>ValueError</b>: &lt;script&gt;" in explorer.html
    explorer.controls["name"].value = "fine"
    assert "<svg" in explorer.html


def test_names_and_levels_of_the_data_cannot_become_markup():
    """No explorer lets a script tag of the data through."""
    shown = [explore_columns(*pair()).html]
    candidates = explore_trial(trial(), EVIDENCE)
    candidates.controls["rows"].value = f"origin={HOSTILE}"
    shown.append(candidates.html)
    assert all(HOSTILE not in html for html in shown)
    assert all("&lt;script" in html for html in shown)


def test_days_of_a_window_are_compared_as_if_they_were_alone():
    """The slider of days gives the effect that a profile of just these rows has."""
    reference, _ = pair()
    values = RNG.normal(size=1000) + 2.0 * (DAYS >= 15801)
    column = reference.columns[HOSTILE]
    whole = column_profile(values, blocks=DAYS, like=column)
    late = column_profile(values[DAYS >= 15801], blocks=DAYS[DAYS >= 15801], like=column)
    found = compare_columns(column, whole.within((whole.blocks >= 15801) & (whole.blocks <= 15805)))
    wanted = compare_columns(column, late)
    for figure in ("effect", "floor", "p_value", "psi", "ks", "missing_current"):
        assert found[figure] == pytest.approx(wanted[figure]), figure
    explorer = explore_columns(reference, Profile(1000, {HOSTILE: whole}))
    explorer.controls["days"].value = (15801, 15805)
    assert f"500 rows: effect {wanted['effect']:.3g}" in explorer.html


@pytest.mark.parametrize("task", ["binary", "multiclass", "regression"])
def test_a_threshold_can_be_moved_for_every_task(task):
    """The confusion matrices of both candidates hold all rows, whatever is predicted."""
    explorer = explore_trial(trial(task), EVIDENCE)
    slider = explorer.controls["threshold"]
    slider.value = (slider.min + slider.max) / 2
    assert explorer.html.count("not called") == 2
    cells = [sum(map(int, t["not called"] + t["called"])) for t in matrices(explorer.html)]
    assert cells == [400, 400]


def matrices(html):
    """The columns of each table of a page, as text."""
    found = []
    for table in re.findall("<table.*?</table>", html, re.S):
        rows = [
            re.findall("<t[hd][^>]*>(.*?)</t[hd]>", row, re.S)
            for row in re.findall("<tr.*?</tr>", table, re.S)
        ]
        body = [row for row in rows[1:] if any(row[1:])]
        found.append({name: [row[place] for row in body] for place, name in enumerate(rows[0]) if name})
    return found


def test_a_slice_shows_its_own_rows_and_the_evidence_that_judged_it():
    """Beneath the matrices of a slice stands the sentence that decided about it, not the one about all rows."""
    explorer = explore_trial(trial(), EVIDENCE)
    assert "gain of all: 0.02 (0.01 to 0.03), limit 0" in explorer.html
    explorer.controls["rows"].value = f"origin={HOSTILE}"
    assert "gain of the slice: 0.5 (0.4 to 0.6)" in explorer.html
    assert "gain of all" not in explorer.html


chances = st.lists(st.tuples(st.booleans(), st.floats(0, 1)), min_size=1, max_size=40)


@given(rows=chances, miss=st.floats(0.1, 100))
@settings(max_examples=60, deadline=None)
def test_the_cost_of_a_threshold_is_the_business_value_with_its_sign_turned(rows, miss):
    """At 1 / (1 + miss), the cost of a hundred rows is what `value` makes of the same costs."""
    truth, said = np.array(rows, dtype=float).T
    cut = 1 / (1 + miss)
    said = np.where(np.isclose(said, cut), 0.0 if cut > 0.01 else 1.0, said)  # a tie may go either way
    counts = confusion(truth, said, thresholds=[cut], task="binary")
    costs = {"no": {"wait": 0, "call": -1}, "yes": {"wait": -miss, "call": 0}}
    value = row_values(truth, said, costs=costs, classes=["no", "yes"]).mean()
    assert threshold_cost(counts, miss=miss).iloc[0] == pytest.approx(-100 * value)


@given(
    rows=st.lists(st.tuples(st.floats(-9, 9), st.floats(-9, 9)), min_size=1, max_size=30),
    cut=st.floats(-9, 9),
)
@settings(max_examples=60, deadline=None)
def test_a_quantity_is_called_by_the_same_threshold_as_it_is_due(rows, cut):
    """The four counts are those that comparing row by row gives, and add up to all rows."""
    truth, said = np.array(rows).T
    counts = confusion(truth, said, thresholds=[cut], task="regression").iloc[0]
    assert counts["hits"] == ((truth >= cut) & (said >= cut)).sum()
    assert counts["false_alarms"] == ((truth < cut) & (said >= cut)).sum()
    assert counts["misses"] == ((truth >= cut) & (said < cut)).sum()
    assert counts.sum() == len(rows)


def test_rows_without_a_prediction_are_called_by_nobody():
    """A candidate that could not answer is counted by the rows that it answered."""
    counts = confusion([0, 1, 1], [0.9, np.nan, 0.9], thresholds=[0.5], task="binary").iloc[0]
    assert counts.to_dict() == {"hits": 1, "false_alarms": 1, "misses": 0, "rests": 0}
    none = confusion([1], [np.nan], thresholds=[0.5], task="binary")
    assert threshold_cost(none, miss=4).isna().all()


def step(rate, milliseconds):
    """A step at a rate, each request of which took so long."""
    due = np.arange(200) / rate
    return Step(rate, due, due, due + milliseconds / 1000, np.full(200, "answered"))


def test_the_knee_follows_the_limit():
    """A limit below the latency of a load moves the knee to the load before it."""
    steps = {"champion": [step(100.0, 10.0), step(200.0, 50.0)]}
    explorer = explore_loads(StressParams(promised_rate=100.0), steps)
    (table,) = matrices(explorer.html)
    assert table["knee"] == ["200"]
    explorer.controls["limit"].value = 20.0
    (table,) = matrices(explorer.html)
    assert table["knee"] == ["100"]
    explorer.controls["rate"].value = 200.0
    assert "tail at 200 a second" in explorer.html


def test_a_limit_that_is_moved_tells_what_would_have_been_decided():
    """With a higher cost of retraining than the gain, `retrain` becomes something else, by the rule that decides."""
    gain = {"value": 0.03, "low": 0.025, "high": 0.035, "limit": 0.02, "n": 900, "rung": 3}
    evidence = [
        Evidence("contract", "pass", rung=1),
        Evidence("performance.labels", "pass", value=900, limit=500, n=900, rung=3),
        Evidence("performance.challenger", "fail", note="gain of a fresh one", **gain),
    ]
    decision = judgement(evidence, champion=Champion(2, 1, 3))
    assert decision.action == "retrain"
    explorer = explore_limits(RollbackParams(), decision)
    assert "1 same" in explorer.html
    explorer.controls["retrain_cost"].value = 0.04
    (table,) = matrices(explorer.html)
    assert (table["then"], table["verdict"]) == (["retrain"], ["different"])
    assert table["now"] != ["retrain"]


def family(widget):
    """A widget and all inside it."""
    yield widget
    for child in getattr(widget, "children", ()):
        yield from family(child)


def test_no_explorer_needs_the_channel_that_can_hang_a_headless_run():
    """There is no Output widget among those that an explorer is made of."""
    explorers = explore_columns(*pair()), explore_trial(trial(), EVIDENCE)
    assert not [each for explorer in explorers for each in family(explorer) if isinstance(each, Output)]
