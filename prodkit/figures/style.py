"""The look that all figures share, and the marks that they are made of.

Nothing global is touched: no pyplot, no backend, no style sheet. The colours are those of Okabe & Ito (2008), which
the colour-blind can tell apart; lines are labelled where they end, and uncertainty is drawn wherever it is known.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Literal

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from numpy.typing import NDArray

from prodkit.figures.chart import Chart
from prodkit.figures.labels import number_text, plain_text

__all__ = [
    "BLUE",
    "DASHED",
    "FADED",
    "GREY",
    "INK",
    "LINES",
    "RED",
    "SMALL",
    "TEXT",
    "TOP_COLUMNS",
    "TOP_ROWS",
    "bare_axes",
    "canvas",
    "captioned",
    "draw_whiskers",
    "height_of",
    "label_ends",
    "label_top",
    "name_axes",
    "name_rows",
    "note_rows",
    "nothing",
    "number_log_axis",
    "sheet",
]

BLUE, RED, GREEN, AMBER, PURPLE = "#0072B2", "#D55E00", "#009E73", "#B8860B", "#AA4499"
INK, GREY, PALE, FADED = "#222222", "#6B6B6B", "#DDDDDD", "#9DB7C9"
LINES = (BLUE, RED, GREEN, PURPLE, AMBER)
DASHED = (0, (4, 3))

TEXT, SMALL, TITLE = 9.5, 9.0, 11.0  # points
TOP_COLUMNS, TOP_ROWS = 12, 20
_WIDTH_INCHES = 7.5

_Floats = NDArray[np.float64]


def sheet(title: str, *, height: float) -> Figure:
    """A titled figure without axes, so many inches high."""
    figure = Figure(figsize=(_WIDTH_INCHES, height), layout="constrained")
    FigureCanvasAgg(figure)
    figure.suptitle(plain_text(title, 92), x=0.012, ha="left", fontsize=TITLE, fontweight="bold", color=INK)
    return figure


def canvas(title: str, *, height: float, grid: Literal["x", "y"] = "y") -> tuple[Figure, Axes]:
    """A figure with empty axes in the house's style."""
    figure = sheet(title, height=height)
    axes = figure.add_subplot()
    bare_axes(axes, grid=grid)
    return figure, axes


def bare_axes(axes: Axes, *, grid: Literal["x", "y"] = "y") -> None:
    """Two spines, small ticks, and pale lines behind the data."""
    axes.spines[["top", "right"]].set_visible(False)
    axes.spines[["left", "bottom"]].set_color(GREY)
    axes.tick_params(labelsize=SMALL, colors=INK, length=3)
    axes.tick_params(axis=grid, left=False, bottom=False)  # a grid line is mark enough
    axes.grid(axis=grid, color=PALE, linewidth=0.7)
    getattr(axes, f"{grid}axis").set_major_locator(_locator())
    axes.set_axisbelow(True)


def _locator() -> MaxNLocator:
    """Ticks at round numbers, at most six."""
    return MaxNLocator(5, steps=[1, 2, 2.5, 5, 10])


def captioned(figure: Figure, title: str, digest: str) -> Chart:
    """A finished figure: its alternative text is the title and the digest."""
    title = plain_text(title, 92)
    said = f"{title}{'' if title.endswith(('?', '!', '.')) else '.'} {digest}"
    return Chart(figure, alt=said.replace(r"\$", "$"), digest=digest.replace(r"\$", "$"))


def nothing(title: str, reason: str) -> Chart:
    """A figure that says why it is empty."""
    figure, axes = canvas(title, height=1.4)
    axes.set_axis_off()
    axes.text(0.5, 0.5, f"nothing to show: {reason}", ha="center", va="center", fontsize=TEXT, color=GREY)
    return captioned(figure, title, f"nothing to show: {reason}")


def name_axes(axes: Axes, x: str, y: str) -> None:
    """Say what the axes show, with its unit."""
    axes.set_xlabel(x, fontsize=TEXT, color=INK)
    axes.set_ylabel(y, fontsize=TEXT, color=INK)


def draw_whiskers(
    axes: Axes,
    x: _Floats,
    y: _Floats,
    ends: tuple[_Floats, _Floats],
    *,
    color: str,
    along: str = "y",
) -> None:
    """Dots with their intervals."""
    draw = axes.vlines if along == "y" else axes.hlines
    draw(x if along == "y" else y, *ends, color=color, linewidth=1.6)
    axes.plot(x, y, linestyle="", marker="o", markersize=5.5, color=color)


def name_rows(axes: Axes, names: Iterable[Any]) -> _Floats:
    """Name the rows of a horizontal chart, the first one on top."""
    labels = [plain_text(name) for name in names]
    places = np.arange(len(labels), dtype=float)[::-1]
    axes.set_yticks(places, labels)
    axes.tick_params(axis="y", length=0)
    axes.set_ylim(len(labels) - 0.7 - max(len(labels), 3), len(labels) - 0.3)  # few bars stay slim
    axes.xaxis.set_major_locator(_locator())
    return places


def label_top(axes: Axes, x: Any, text: str, *, lift: float = 0) -> None:
    """Text above a place of the horizontal axis, lifted by so many points."""
    axes.annotate(
        text, (x, 1), xycoords=("data", "axes fraction"), xytext=(0, 3 + lift), textcoords="offset points",
        ha="center", va="bottom", fontsize=SMALL, color=INK,
    )  # fmt: skip


def label_ends(axes: Axes, finals: Mapping[str, tuple[float, str]]) -> None:
    """Write each line's name beside its end, in its colour, moved apart where they would overlap."""
    axes.set_ylim(axes.get_ylim())
    scale = math.log if axes.get_yscale() == "log" else float
    bottom, top = (scale(end) for end in axes.get_ylim())
    place = -math.inf
    for label, (value, color) in sorted(finals.items(), key=lambda item: item[1][0]):
        if not math.isfinite(value):
            continue
        place = max((scale(value) - bottom) / (top - bottom), place + 0.1)
        axes.annotate(
            label, (1, place), xycoords="axes fraction", xytext=(6, 0), textcoords="offset points",
            va="center", fontsize=SMALL, color=color,
        )  # fmt: skip


def number_log_axis(axes: Axes) -> None:
    """Ticks of a logarithmic vertical axis, at round numbers, which are written out."""
    low, high = axes.get_ylim()
    steps = (1, 2, 5) if high < 200 * low else (1,)
    powers = range(math.floor(math.log10(low)), math.ceil(math.log10(high)))
    ticks = [step * 10.0**power for power in powers for step in steps]
    ticks = ticks if high > 5 * low else [float(tick) for tick in _locator().tick_values(low, high)]
    ticks = [tick for tick in ticks if low <= tick <= high]
    axes.set_yticks(ticks, [number_text(tick) for tick in ticks])
    axes.minorticks_off()


def note_rows(axes: Axes, places: _Floats, notes: Sequence[str]) -> None:
    """A column of small text right of a horizontal chart."""
    for place, note in zip(places, notes, strict=True):
        axes.annotate(
            note, (1, place), xycoords=("axes fraction", "data"), xytext=(6, 0), textcoords="offset points",
            va="center", fontsize=SMALL, color=INK,
        )  # fmt: skip


def height_of(rows: int) -> float:
    """Height in inches of a chart of so many rows."""
    return max(1.9, 1.15 + 0.235 * rows)
