"""Each chart survives what tables hold, says in words what it shows, and draws the same bytes twice."""

import base64
import io
import re
import subprocess
import sys

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from prodkit import charts
from prodkit.drift.counts import column_profile

HOSTILE = ["<script>alert(1)</script>", "x" * 80, "$x^$ \\frac{", "日本\n🙂", "", "temp"]
DAYS = pd.date_range("2013-04-01", periods=6)
RNG = np.random.default_rng(0)
VALUES = RNG.normal(0.01, 0.01, 6)
INTERVALS = {"value": VALUES, "low": VALUES - 0.01, "high": VALUES + 0.01}
SHARES = np.array([0.1, 0.2, 0.3, 0.2, 0.1, 0.1])
P99 = {"p99": SHARES, "p99_low": SHARES / 2, "p99_high": [*SHARES[:5] * 2, np.inf]}
DRIFT = {
    **{"effect": SHARES, "missing_effect": 0.15, "unseen_effect": 0.0, "damage": SHARES[::-1]},
    **{"drifted": SHARES > 0.25, "missing_drifted": False, "unseen_drifted": False},
}
TABLES = {
    "calibration": pd.DataFrame({"truth": RNG.random(500) < 0.3, "answer": RNG.random(500)}),
    "daily": pd.DataFrame({"late, observed": VALUES, "late, predicted": VALUES / 2}, index=DAYS),
    "differences": pd.DataFrame(INTERVALS, index=HOSTILE),
    "distributions": pd.DataFrame({"then": RNG.normal(size=500), "now": RNG.normal(size=500)}),
    "drift": pd.DataFrame(DRIFT, index=HOSTILE),
    "folds": pd.DataFrame({"train_end": DAYS, **INTERVALS}, index=range(1, 7)),
    "importance": pd.DataFrame({"mean": VALUES, "sd": 0.001}, index=HOSTILE),
    "latency_tail": pd.DataFrame(dict.fromkeys(HOSTILE[:3], SHARES)),
    "learning_curve": pd.DataFrame({"rows": 1e3 * 2 ** np.arange(6), "train": 0.0, "validation": VALUES}),
    "panels": pd.DataFrame(INTERVALS, index=HOSTILE),
    "rising_load": pd.DataFrame({"rate": 100.0 * np.arange(1, 7), **P99}, index=HOSTILE),
    "scores": pd.DataFrame({"then": RNG.random(500), "now": RNG.random(500)}),
    "threshold_costs": pd.DataFrame(
        {name: SHARES + place for place, name in enumerate(HOSTILE[:3])}, index=np.linspace(0, 1, 6)
    ),
    "volume_cost": pd.DataFrame({"seconds": SHARES}, index=10.0 ** np.arange(1, 7)),
}


def summaries(then, now):
    """Profiles of a column in the reference and now, over the same bins."""
    kind = "categorical" if then and isinstance(then[0], str) else "numeric"
    first = column_profile(np.asarray(then), blocks=np.zeros(len(then), int), kind=kind)
    return first, column_profile(np.asarray(now), blocks=np.zeros(len(now), int), like=first)


def profiles(table):
    """Those of the two columns of a table."""
    return summaries(list(table.get("then", [])), list(table.get("now", [])))


DRAW = {
    "calibration": lambda table: charts.draw_calibration(
        table.get("truth", []), table.get("answer", []), task="binary", title="Calibration"
    ),
    "daily": lambda table: charts.draw_daily(
        table, unit="share of flights", title="Late flights", marks={"2013-04-03": "release"}
    ),
    "differences": lambda table: charts.draw_differences(table, limit=0.005, unit="gain", title="Slices"),
    "distributions": lambda table: charts.draw_distributions(*profiles(table), name="te$mp"),
    "drift": lambda table: charts.draw_drift(table, floor=0.1),
    "folds": lambda table: charts.draw_folds(table, metric="roc_auc"),
    "importance": lambda table: charts.draw_importance(table, unit="rise of the log loss"),
    "latency_tail": lambda table: charts.draw_latency_tail(dict(table.items()), rate=100, limit=0.25),
    "learning_curve": lambda table: charts.draw_learning_curve(table, metric="log_loss"),
    "panels": lambda table: charts.draw_panels(
        {"log$loss": table}, title="Signs", limits={"log$loss": 0.005}
    ),
    "rising_load": lambda table: charts.draw_rising_load(table, limit=0.25),
    "scores": lambda table: charts.draw_scores(*profiles(table), title="Scores"),
    "threshold_costs": lambda table: charts.draw_threshold_costs(
        table, threshold=table.index[0] if len(table) else 0.5, title="Cost"
    ),
    "volume_cost": lambda table: charts.draw_volume_cost(
        table, foreseen=table.get("seconds", pd.Series(dtype=float))
    ),
}


@pytest.fixture(params=sorted(DRAW))
def name(request):
    """Each function that draws, by name."""
    return request.param


def texts(figure):
    """What can be read of a figure."""
    axes = figure.axes[0]
    every = [*figure.texts, *axes.texts, *axes.get_yticklabels(), axes.xaxis.label]
    return [text for text in every if text.get_text() and text.get_visible()]


def test_every_function_is_drawn_here():
    """The functions under test are all that the module offers, but for one that takes no table."""
    assert sorted({*charts.__all__} - {"draw_staleness"}) == [f"draw_{name}" for name in sorted(DRAW)]


def test_a_figure_says_what_it_shows(name):
    """Each picture comes with its size, an alternative text of its title and numbers, and a short rounded digest."""
    chart = DRAW[name](TABLES[name])
    data, about = chart._repr_mimebundle_()
    picture, about = Image.open(io.BytesIO(base64.b64decode(data["image/png"]))), about["image/png"]
    assert (abs(picture.width - 2 * about["width"]), picture.width) <= (2, 1440)
    assert abs(picture.height - 2 * about["height"]) <= 2
    assert about["alt"].endswith(chart.digest)
    assert len(about["alt"]) > len(chart.digest)
    assert data["text/plain"] == chart.digest == repr(chart)
    assert "\n" not in chart.digest
    assert len(chart.digest) < 250
    numbers = re.findall(r"(?<![\w.])[-+]?(\d+\.?\d*)(?:e[-+]?\d+)?", chart.digest)
    assert 1 <= max(len(re.sub(r"\D", "", number).strip("0")) for number in numbers) <= 4


def test_the_same_data_draw_the_same_bytes(name):
    """Drawn twice, a figure has the same bytes, and a changed number changes its digest."""
    table = TABLES[name]
    first, second = DRAW[name](table), DRAW[name](table.copy())
    assert first.png == second.png
    assert b"Software" not in first.png
    assert b"tIME" not in first.png
    column = {"learning_curve": "validation", "calibration": "answer", "rising_load": "p99"}.get(name)
    column = column or next(column for column in table if table[column].dtype == float)
    changed = table.assign(**{column: table[column] * 0.5})
    assert DRAW[name](changed).digest != first.digest


@pytest.mark.parametrize("empty", ["no rows", "no columns", "only NaN"])
def test_nothing_to_show_is_said(name, empty):
    """A table without rows, without columns or without numbers gives a picture that says so."""
    table = TABLES[name]
    nan = table.select_dtypes("number") * np.nan
    table = {"no rows": table.iloc[:0], "no columns": pd.DataFrame(), "only NaN": nan}[empty]
    if empty == "only NaN" and name in ("drift", "calibration"):
        pytest.skip("a column that could not be compared is still ranked; predictions are never all missing")
    chart = DRAW[name](table)
    assert chart.digest.startswith("nothing to show: ")
    assert chart.png.startswith(b"\x89PNG")
    assert "nothing to show" in chart.alt


def test_gaps_are_left_out(name):
    """One row is drawn; a NaN in any column is not drawn, and the rest is; the caller's table stays as it was."""
    assert DRAW[name](TABLES[name].iloc[:1]).png.startswith(b"\x89PNG")
    for column in TABLES[name]:
        table = TABLES[name].copy()
        if table[column].dtype == bool or name == "calibration":
            continue
        table.loc[table.index[2], column] = None
        before = table.copy()
        chart = DRAW[name](table)
        assert chart.png.startswith(b"\x89PNG")
        assert "nan" not in chart.digest
        pd.testing.assert_frame_equal(table, before)


def test_hostile_names_are_drawn_as_text():
    """Markup, mathematics, line breaks, absent glyphs and 80 characters become a short plain label."""
    chart = DRAW["importance"](TABLES["importance"])
    labels = [label.get_text() for label in chart.figure.axes[0].get_yticklabels()]
    assert max(map(len, labels)) <= 32
    assert any("…" in label for label in labels)
    assert all("\n" not in label for label in labels)
    assert chart.png.startswith(b"\x89PNG")  # drawing is what would raise or warn


def test_every_text_can_be_read(name):
    """Every text of every figure is at least 9 points high and lies within the edges."""
    figure = DRAW[name](TABLES[name]).figure
    figure.canvas.draw()
    for text in texts(figure):
        box = text.get_window_extent()
        assert text.get_fontsize() >= 9, text
        assert -1 <= box.x0 < box.x1 <= figure.bbox.x1 + 1, text


def test_an_open_interval_runs_off_the_figure():
    """An infinite end is drawn to the edge and marked open; it neither raises nor sets the scale."""
    table = pd.DataFrame({"value": [0.01, 0.02], "low": [-np.inf, 0.01], "high": [np.inf, 0.03]})
    axes = charts.draw_differences(table, limit=0.005, unit="gain", title="Open").figure.axes[0]
    left, right = axes.get_xlim()
    assert -0.1 < left < right < 0.1
    notes = [text.get_text() for text in axes.texts if text.get_text().startswith("+")]
    assert [note.endswith("open") for note in notes] == [True, False]


def test_an_unknown_end_is_not_zero():
    """An interval whose ends are unknown is a dot at its value, and does not stretch the axis."""
    table = pd.DataFrame({"value": [0.7, 0.71], "low": [None, 0.7], "high": [0.71, None]}, dtype=float)
    low, high = charts.draw_folds(table, metric="roc_auc").figure.axes[0].get_ylim()
    assert 0.69 < low < high < 0.72


@pytest.mark.parametrize(("limit", "beyond"), [(0.005, 1), (-0.005, 1), (0.0, 2), (0.05, 0)])
def test_what_lies_beyond_the_limit_is_counted(limit, beyond):
    """Only an interval that lies wholly on the far side of the limit counts as beyond it."""
    ends = {"value": [0.01, -0.01, 0.0], "low": [0.007, -0.013, -0.01], "high": [0.013, -0.007, 0.01]}
    assert (
        f", {beyond} beyond" in charts.draw_differences(pd.DataFrame(ends), limit=limit, unit="gain").digest
    )


def test_a_difference_is_compared_with_its_own_limit():
    """Of two equal gains one lies beyond its own limit; each limit is drawn."""
    table = pd.DataFrame({"value": 0.03, "low": 0.015, "high": 0.05, "limit": [0.01, 0.02]}, index=["a", "b"])
    chart = charts.draw_differences(table, unit="gain")
    assert chart.digest.startswith("2 differences, 1 beyond its limit")
    marks = [line for each in chart.figure.axes[0].collections for line in each.get_segments()]
    assert [x for x in (0.01, 0.02) if any(np.allclose(line[:, 0], x) for line in marks)] == [0.01, 0.02]


def test_an_emptied_column_leads_the_drift_ranking_and_each_has_its_own_limit():
    """A column whose values cannot be compared is ranked by its missing share; marks stand at each column's limit."""
    table = TABLES["drift"].head(1).assign(effect=np.nan, missing_effect=0.83, missing_drifted=True)
    chart = charts.draw_drift(table, floor=0.1)
    assert "1 drifted" in chart.digest
    assert "0.83" in chart.digest
    assert any("missing values" in text.get_text() for text in texts(chart.figure))
    table = TABLES["drift"].assign(floor=[0.3, np.nan, 0.05, 0.1, 0.2, 0.1])
    marks = charts.draw_drift(table, floor=0.1).figure.axes[0].collections[0].get_segments()
    assert [round(float(mark[0][0]), 3) for mark in marks] == [0.3, 0.1, 0.1, 0.1, 0.2, 0.1]


def test_numbers_make_steps_and_levels_make_bars():
    """A numeric column has ticks at edges; of levels the top twelve are drawn; the share that moved is told."""
    steps = DRAW["distributions"](TABLES["distributions"]).figure.axes[0]
    assert all(float(tick.get_text()) < 9 for tick in steps.get_xticklabels())
    levels = [f"d{i}" for i in range(20)] * 10
    bars = charts.draw_distributions(*summaries(levels, levels), name="dest")
    assert len(bars.figure.axes[0].get_xticklabels()) == 12
    moved = charts.draw_distributions(*summaries(["a", "b"] * 50, ["a"] * 75 + ["b"] * 25), name="x")
    assert "share that moved 0.25" in moved.digest


def test_panels_share_the_figure_among_them():
    """Each of several panels is at least a fourth of the figure wide, with limits, estimates and unknown windows."""
    table = pd.DataFrame(INTERVALS, index=DAYS.strftime("%Y-%m-%d"))
    unknown = table.assign(value=[np.nan, *VALUES[1:]], estimated=[False] * 5 + [True])
    tables = {"roc_auc": table, "log_loss": unknown, "count": table.round().abs(), "none": table * np.nan}
    chart = charts.draw_panels(tables, title="Signs", limits={"roc_auc": 0.005, "log_loss": 0.02})
    assert chart.png.startswith(b"\x89PNG")
    assert min(axes.get_position().width for axes in chart.figure.axes) > 0.25
    assert min(axes.get_position().height for axes in chart.figure.axes) > 0.2
    limits = [axes.get_title(loc="right") for axes in chart.figure.axes]
    assert limits == ["- - limit 0.005", "- - limit 0.02", "", ""]


@pytest.mark.parametrize(
    ("limit", "ticks"),
    [
        (0.3, "0.1 0.15 0.2 0.25 0.3"),
        (10, "0.1 0.2 0.5 1 2 5 10"),
        (30, "0.1 1 10"),
        (3e4, "0.1 1 10 100 1000 10k"),
    ],
)
def test_a_logarithmic_axis_has_plain_numbers(limit, ticks):
    """Latencies are read off round milliseconds, few enough to stand apart, however far they reach."""
    axes = charts.draw_latency_tail({"who": SHARES}, rate=100, limit=limit).figure.axes[0]
    assert [tick.get_text() for tick in axes.get_yticklabels()] == ticks.split()


def test_a_picture_for_a_page_brings_no_style_for_it():
    """An SVG to be put into a page has a text, and neither a style sheet nor what was not asked for."""
    drawn = DRAW["importance"](TABLES["importance"]).svg
    assert 'aria-label="What the model relies on. ' in drawn
    assert not [tag for tag in ("<script>", "<style", "<metadata") if tag in drawn]


def test_no_global_plotting_state_is_touched():
    """Importing and drawing neither import pyplot nor choose a backend nor change a setting."""
    code = (
        "import matplotlib, sys; before = matplotlib.rcParams.copy()\n"
        "import pandas as pd; from prodkit import draw_folds\n"
        "chart = draw_folds(pd.DataFrame({'value': [0.5, 0.6]}), metric='x'); chart.png; chart.svg\n"
        "assert 'matplotlib.pyplot' not in sys.modules; assert matplotlib.rcParams.copy() == before"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
