"""Each figure survives what tables hold, says in words what it shows, and draws the same bytes twice."""

import base64
import io
import re
import subprocess
import sys

import numpy as np
import pandas as pd
import pytest
from matplotlib.transforms import Bbox
from PIL import Image

from prodkit.figures import drift, gains, load, models, windows
from prodkit.figures.drift import draw_distributions, draw_drift, draw_score_histogram
from prodkit.figures.gains import draw_differences
from prodkit.figures.load import draw_latency_tail, draw_rising_load, draw_volume_cost
from prodkit.figures.models import (
    draw_calibration_curve,
    draw_folds,
    draw_importance,
    draw_learning_curve,
    draw_threshold_costs,
)
from prodkit.figures.svg import svg
from prodkit.figures.windows import draw_daily, draw_panels
from prodkit.models.reliability import calibration_curve

HOSTILE = ["<script>alert(1)</script>", "x" * 80, "$x^$ \\frac{", "日本\n🙂", "", "temp"]
DAYS = pd.date_range("2013-04-01", periods=6)
RNG = np.random.default_rng(0)
VALUES = RNG.normal(0.01, 0.01, 6)
INTERVALS = {"value": VALUES, "low": VALUES - 0.01, "high": VALUES + 0.01}
SHARES = np.array([0.1, 0.2, 0.3, 0.2, 0.1, 0.1])

TABLES = {
    "calibration": calibration_curve(RNG.random(500) < 0.3, RNG.random(500), bins=6),
    "folds": pd.DataFrame({"train_end": DAYS, **INTERVALS}, index=range(1, 7)),
    "importance": pd.DataFrame({"mean": VALUES, "sd": 0.001}, index=HOSTILE),
    "learning_curve": pd.DataFrame(
        {"rows": 1000 * 2 ** np.arange(6), "train": VALUES, "validation": VALUES / 2}
    ),
    "differences": pd.DataFrame(INTERVALS, index=HOSTILE),
    "drift_ranking": pd.DataFrame(
        {
            **{"effect": SHARES, "missing_effect": 0.15, "unseen_effect": 0.0, "damage": SHARES[::-1]},
            **{"drifted": SHARES > 0.25, "missing_drifted": False, "unseen_drifted": False},
        },
        index=HOSTILE,
    ),
    "distributions": pd.DataFrame({"reference": SHARES, "current": SHARES[::-1]}),
    "rising_load": pd.DataFrame(
        {
            "rate": 100.0 * np.arange(1, 7),
            "p99": SHARES,
            "p99_low": SHARES / 2,
            "p99_high": [*SHARES[:5] * 2, np.inf],
        },
        index=HOSTILE,
    ),
    "volume_cost": pd.DataFrame({"seconds": SHARES}, index=10.0 ** np.arange(1, 7)),
    "latency_tail": pd.DataFrame(dict.fromkeys(HOSTILE[:3], SHARES)),
    "threshold_costs": pd.DataFrame(
        {name: SHARES + place for place, name in enumerate(HOSTILE[:3])}, index=np.linspace(0, 1, 6)
    ),
    "score_histogram": pd.DataFrame({"reference": SHARES, "current": SHARES[::-1]}),
    "panels": pd.DataFrame(INTERVALS, index=HOSTILE),
    "daily": pd.DataFrame({"late, observed": VALUES, "late, predicted": VALUES / 2}, index=DAYS),
}

DRAW = {
    "calibration": lambda table: draw_calibration_curve(table, title="Calibration"),
    "folds": lambda table: draw_folds(table, metric="roc_auc"),
    "importance": lambda table: draw_importance(table, unit="rise of the log loss"),
    "learning_curve": lambda table: draw_learning_curve(table, metric="log_loss"),
    "differences": lambda table: draw_differences(table, limit=0.005, unit="gain", title="Slices"),
    "drift_ranking": lambda table: draw_drift(table, floor=0.1),
    "distributions": lambda table: draw_distributions(
        table.get("reference", []), table.get("current", []), name="te$mp", labels=HOSTILE[: len(table)]
    ),
    "rising_load": lambda table: draw_rising_load(table, limit=0.25),
    "volume_cost": lambda table: draw_volume_cost(
        table, foreseen=table.get("seconds", pd.Series(dtype=float))
    ),
    "latency_tail": lambda table: draw_latency_tail(dict(table.items()), rate=100, limit=0.25),
    "threshold_costs": lambda table: draw_threshold_costs(
        table, threshold=table.index[0] if len(table) else 0.5, title="Cost"
    ),
    "score_histogram": lambda table: draw_score_histogram(
        table.get("current", []), reference=table.get("reference"), title="Scores"
    ),
    "panels": lambda table: draw_panels({"log$loss": table}, title="Signs", limits={"log$loss": 0.005}),
    "daily": lambda table: draw_daily(
        table, unit="share of flights", title="Late flights", marks={"2013-04-03": "release"}
    ),
}


def numbers(text):
    """The significant digits of each number in a text."""
    return [
        re.sub(r"\D", "", mantissa).strip("0")
        for mantissa in re.findall(r"(?<![\w.])[-+]?(\d+\.?\d*)(?:e[-+]?\d+)?", text)
    ]


@pytest.fixture(params=sorted(DRAW))
def name(request):
    """Each function that draws, by name."""
    return request.param


def test_every_function_is_drawn_here(name):
    """The functions under test are all that the modules of figures offer."""
    offered = {each for module in (drift, gains, load, models, windows) for each in module.__all__}
    assert {call for draw in DRAW.values() for call in draw.__code__.co_names} & offered == offered


def test_a_figure_says_what_it_shows(name):
    """Each picture comes with its size, an alternative text of its title and numbers, and a digest."""
    chart = DRAW[name](TABLES[name])
    data, about = chart._repr_mimebundle_()
    picture = Image.open(io.BytesIO(base64.b64decode(data["image/png"])))
    about = about["image/png"]
    assert abs(picture.width - 2 * about["width"]) <= 2
    assert abs(picture.height - 2 * about["height"]) <= 2
    assert picture.width == 1440
    assert about["alt"].endswith(chart.digest)
    assert len(about["alt"]) > len(chart.digest)
    assert data["text/plain"] == chart.digest == repr(chart)


def test_a_digest_is_short_and_rounded(name):
    """No number of a digest has more than four significant digits, so that only a real change is a change."""
    digest = DRAW[name](TABLES[name]).digest
    assert "\n" not in digest
    assert len(digest) < 250
    found = numbers(digest)
    assert found
    assert max(map(len, found)) <= 4


def test_the_same_data_draw_the_same_bytes(name):
    """Drawn twice, a figure has the same bytes, and a changed number changes its digest."""
    table = TABLES[name]
    first, second = DRAW[name](table), DRAW[name](table.copy())
    assert first.png == second.png
    assert b"Software" not in first.png
    assert b"tIME" not in first.png
    changed = table.copy()
    column = {"learning_curve": "validation", "folds": "value", "calibration": "observed"}.get(name)
    column = column or next(column for column in table if table[column].dtype == float)
    changed[column] = changed[column] * 1.5
    assert DRAW[name](changed).digest != first.digest


@pytest.mark.parametrize("empty", ["no rows", "no columns", "only NaN"])
def test_nothing_to_show_is_said(name, empty):
    """A table without rows, without columns or without numbers gives a picture that says so."""
    table = TABLES[name]
    nan = table.select_dtypes("number") * np.nan
    table = {"no rows": table.iloc[:0], "no columns": pd.DataFrame(), "only NaN": nan}[empty]
    if name == "drift_ranking" and empty == "only NaN":
        table = table.iloc[:0]  # a column that could not be compared is still a row of the ranking
    chart = DRAW[name](table)
    assert chart.digest.startswith("nothing to show: ")
    assert chart.png.startswith(b"\x89PNG")
    assert "nothing to show" in chart.alt


def test_one_row_is_enough(name):
    """A table of one row is drawn."""
    assert DRAW[name](TABLES[name].iloc[:1]).png.startswith(b"\x89PNG")


def test_missing_numbers_are_left_out(name):
    """A NaN in any column is not drawn, and the rest is; the caller's table stays as it was."""
    for column in TABLES[name]:
        table = TABLES[name].copy()
        if table[column].dtype != bool:
            table.loc[table.index[2], column] = None
        before = table.copy()
        chart = DRAW[name](table)
        assert chart.png.startswith(b"\x89PNG")
        assert "nan" not in chart.digest
        pd.testing.assert_frame_equal(table, before)


def test_hostile_names_are_drawn_as_text():
    """Markup, mathematics, line breaks, absent glyphs and 80 characters become a short plain label."""
    chart = draw_importance(TABLES["importance"], unit="nats")
    labels = [label.get_text() for label in chart.figure.axes[0].get_yticklabels()]
    assert max(map(len, labels)) <= 32
    assert any("…" in label for label in labels)
    assert all("\n" not in label for label in labels)
    assert chart.png.startswith(b"\x89PNG")  # drawing is what would raise or warn


def test_no_text_is_smaller_than_nine_points(name):
    """Every text of every figure is at least 9 points high."""
    figure = DRAW[name](TABLES[name]).figure
    figure.canvas.draw()
    sizes = [text.get_fontsize() for text in figure.findobj(match=lambda item: hasattr(item, "get_fontsize"))
             if text.get_visible() and text.get_text()]  # fmt: skip
    assert min(sizes) >= 9


def test_no_text_is_cut_off(name):
    """Every text of every figure lies within its edges."""
    figure = DRAW[name](TABLES[name]).figure
    figure.canvas.draw()
    texts = [
        *figure.texts,
        *figure.axes[0].texts,
        *figure.axes[0].get_yticklabels(),
        figure.axes[0].xaxis.label,
    ]
    for text in texts:
        if text.get_text() and text.get_visible():
            box = text.get_window_extent()
            assert box.x0 >= -1, text
            assert box.x1 <= figure.bbox.x1 + 1, text


def test_an_open_interval_runs_off_the_figure():
    """An infinite end is drawn to the edge and called open; it neither raises nor sets the scale."""
    table = pd.DataFrame({"value": [0.01, 0.02], "low": [-np.inf, 0.01], "high": [np.inf, 0.03]})
    chart = draw_differences(table, limit=0.005, unit="gain", title="Open")
    left, right = chart.figure.axes[0].get_xlim()
    assert -0.1 < left < right < 0.1
    assert [text.get_text().endswith("open") for text in chart.figure.axes[0].texts[1:]] == [True, False]


def test_an_unknown_end_is_not_zero():
    """An interval whose ends are not known is a dot at its value, and does not stretch the axis."""
    table = pd.DataFrame({"value": [0.7, 0.71], "low": [None, 0.7], "high": [0.71, None]}, dtype=float)
    low, high = draw_folds(table, metric="roc_auc").figure.axes[0].get_ylim()
    assert 0.69 < low < high < 0.72


@pytest.mark.parametrize(("limit", "beyond"), [(0.005, 1), (-0.005, 1), (0.0, 2), (0.05, 0)])
def test_what_lies_beyond_the_limit_is_counted(limit, beyond):
    """Only an interval that lies wholly on the far side of the limit counts as beyond it."""
    values = pd.DataFrame(
        {"value": [0.01, -0.01, 0.0], "low": [0.007, -0.013, -0.01], "high": [0.013, -0.007, 0.01]}
    )
    assert f", {beyond} beyond" in draw_differences(values, limit=limit, unit="gain").digest


def test_an_emptied_column_leads_the_drift_ranking():
    """A column whose values cannot be compared is ranked by the shift of its missing share."""
    table = TABLES["drift_ranking"].head(1).assign(effect=np.nan, missing_effect=0.83, missing_drifted=True)
    chart = draw_drift(table, floor=0.1)
    assert "1 drifted" in chart.digest
    assert "0.83" in chart.digest
    assert any("missing values" in text.get_text() for text in chart.figure.axes[0].texts)


def test_edges_make_steps_and_levels_make_bars():
    """One label more than shares are edges, infinite ones unlabelled; as many are levels, the top twelve."""
    edges = [-np.inf, 1, 2, 3, 4, 5, np.inf]
    steps = draw_distributions(SHARES, SHARES[::-1], name="temp", labels=edges).figure.axes[0]
    assert [tick.get_text() for tick in steps.get_xticklabels()] == ["1", "2", "3", "4", "5"]
    many = np.full(20, 0.05)
    bars = draw_distributions(many, many, name="dest", labels=[f"d{i}" for i in range(20)]).figure.axes[0]
    assert len(bars.get_xticklabels()) == 12


def test_moved_share_is_half_the_sum_of_gaps():
    """The digest of two distributions gives their total variation distance."""
    chart = draw_distributions([0.5, 0.5], [0.75, 0.25], name="x", labels=["a", "b"])
    assert "share that moved 0.25" in chart.digest


def test_panels_share_the_figure_among_them():
    """Each of several panels is at least a fourth of the figure wide, with limits, estimates and unknown windows."""
    signs = pd.DataFrame(INTERVALS, index=DAYS.strftime("%Y-%m-%d"))
    unknown = signs.assign(value=[np.nan, *VALUES[1:]], estimated=[False] * 5 + [True])
    tables = {"roc_auc": signs, "log_loss": unknown, "count": signs.round().abs()}
    chart = draw_panels(tables, title="Signs", limits={"roc_auc": 0.005, "log_loss": 0.02})
    assert chart.png.startswith(b"\x89PNG")
    assert min(axes.get_position().width for axes in chart.figure.axes) > 0.25
    assert min(axes.get_position().height for axes in chart.figure.axes) > 0.2
    limits = [axes.get_title(loc="right") for axes in chart.figure.axes]
    assert limits == ["- - limit 0.005", "- - limit 0.02", ""]


def test_a_difference_is_held_against_its_own_limit():
    """Of two equal gains one lies beyond its own limit; each limit is drawn."""
    table = pd.DataFrame({"value": 0.03, "low": 0.015, "high": 0.05, "limit": [0.01, 0.02]}, index=["a", "b"])
    chart = draw_differences(table, unit="gain")
    assert chart.digest.startswith("2 differences, 1 beyond its limit")
    marks = [line for each in chart.figure.axes[0].collections for line in each.get_segments()]
    assert [x for x in (0.01, 0.02) if any(np.allclose(line[:, 0], x) for line in marks)] == [0.01, 0.02]


def test_a_column_is_marked_with_its_own_limit():
    """The mark of a column stands at the larger of the floor for all and its own."""
    table = TABLES["drift_ranking"].assign(floor=[0.3, np.nan, 0.05, 0.1, 0.2, 0.1])
    marks = draw_drift(table, floor=0.1).figure.axes[0].collections[0].get_segments()
    assert [round(float(mark[0][0]), 3) for mark in marks] == [0.3, 0.1, 0.1, 0.1, 0.2, 0.1]


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
    axes = draw_latency_tail({"who": SHARES}, rate=100, limit=limit).figure.axes[0]
    assert [tick.get_text() for tick in axes.get_yticklabels()] == ticks.split()


def test_a_picture_for_a_page_brings_no_style_for_it():
    """An SVG to be put into a page has a text, and neither a style sheet nor what was not asked for."""
    drawn = svg(DRAW["importance"](TABLES["importance"]))
    assert 'aria-label="What the model relies on. ' in drawn
    assert "<script>" not in drawn
    assert "<style" not in drawn
    assert "<metadata" not in drawn


def test_an_svg_keeps_the_places_that_it_is_given():
    """Axes are put where they were before, unless there are more or fewer of them now."""
    chart = DRAW["daily"](TABLES["daily"])
    svg(chart, places=[Bbox([[0.2, 0.3], [0.7, 0.8]])])
    assert chart.figure.axes[0].get_position().bounds == pytest.approx((0.2, 0.3, 0.5, 0.5))
    svg(other := DRAW["daily"](TABLES["daily"]), places=[])
    assert other.figure.axes[0].get_position().x0 < 0.2


def test_no_global_plotting_state_is_touched():
    """Importing and drawing neither import pyplot nor choose a backend nor change a setting."""
    code = (
        "import matplotlib, sys; before = matplotlib.rcParams.copy()\n"
        "from prodkit.figures.drift import draw_score_histogram; draw_score_histogram([0.5, 0.5]).png\n"
        "assert 'matplotlib.pyplot' not in sys.modules; assert matplotlib.rcParams.copy() == before"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
