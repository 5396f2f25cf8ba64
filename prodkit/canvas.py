"""The sheet that charts are drawn on: the common look, the labels, and what a finished figure says of itself.

No global state of matplotlib changes: no pyplot, no backend, no style sheet. The colours are those of Okabe & Ito
(2008), which colour-blind readers can tell apart; lines are labelled where they end, and uncertainty is drawn
wherever it is known.
"""

from __future__ import annotations

import base64
import io
import math
import re
from collections.abc import Iterable, Sequence
from functools import cache, cached_property
from html import escape
from typing import Any

import numpy as np
import pandas as pd
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure
from matplotlib.font_manager import FontProperties, findfont, get_font
from matplotlib.ticker import MaxNLocator
from numpy.typing import ArrayLike, NDArray
from PIL import Image

__all__ = [
    "BLUE",
    "DASHED",
    "GREY",
    "INK",
    "LINES",
    "RED",
    "SMALL",
    "TEXT",
    "Chart",
    "Floats",
    "Sheet",
    "counted",
    "finite_rows",
    "interval_ends",
    "named_numbers",
    "number_text",
    "plain_text",
    "range_text",
]

Floats = NDArray[np.float64]

BLUE, RED, _GREEN, _AMBER, _PURPLE = "#0072B2", "#D55E00", "#009E73", "#B8860B", "#AA4499"
INK, GREY = "#222222", "#6B6B6B"
LINES = (BLUE, RED, _GREEN, _PURPLE, _AMBER)
DASHED = (0, (4, 3))
TEXT, SMALL, _TITLE = 9.5, 9.0, 11.0  # points
_STEPS = (1, 2, 2.5, 5, 10)  # of round numbers on an axis
_DOTS_PER_INCH = 192  # shown at half size, which is 96 to the inch: sharp on any screen
# The SVG's metadata, and its style sheet, which would restyle the whole page that the figure is put into.
_NEEDLESS = re.compile(r"<metadata>.*?</metadata>|<defs>\s*<style.*?</style>\s*</defs>", re.S)


class Chart:
    """A figure, what it shows in words, and the numbers it shows.

    Attributes:
        figure: the matplotlib figure, for further changes.
        alt: a sentence for readers who cannot see it.
        digest: the plotted data in short, numbers of at most four significant digits; committed notebook outputs are
            compared by it.
    """

    def __init__(self, figure: Figure, *, alt: str, digest: str) -> None:
        self.figure, self.alt, self.digest = figure, alt, digest

    def __repr__(self) -> str:
        return self.digest

    @cached_property
    def png(self) -> bytes:
        """The picture: the same bytes for the same data. 64 colours make it a quarter of the size."""
        raw, written = io.BytesIO(), io.BytesIO()
        quick = {"compress_level": 0}
        self.figure.savefig(raw, format="png", dpi=_DOTS_PER_INCH, facecolor="white", pil_kwargs=quick)
        method, dither = Image.Quantize.FASTOCTREE, Image.Dither.NONE
        picture = Image.open(raw).convert("RGB").quantize(64, method=method, dither=dither)
        palette = picture.getpalette() or []
        picture.putpalette([255 if tone > 252 else tone for tone in palette])  # white stays white
        picture.save(written, "png")
        return written.getvalue()

    @property
    def svg(self) -> str:
        """An ``svg`` element with the alternative text, safe to put into a page; drawn in half the time of the PNG."""
        written = io.StringIO()
        self.figure.dpi = 72  # an SVG's unit is a point
        with rc_context({"svg.fonttype": "none", "svg.hashsalt": "prodkit"}):
            FigureCanvasSVG(self.figure).print_svg(written, metadata={"Date": None})  # type: ignore[no-untyped-call]
        look = "max-width: 100%; height: auto; stroke-linejoin: round; stroke-linecap: butt"
        root = f'<svg role="img" aria-label="{escape(self.alt)}" style="{look}"'
        text = _NEEDLESS.sub("", written.getvalue())
        return text[text.index("<svg") :].replace("<svg", root, 1)

    def _repr_mimebundle_(
        self, include: Any = None, exclude: Any = None
    ) -> tuple[dict[str, str], dict[str, dict[str, Any]]]:
        width, height = (round(inches * _DOTS_PER_INCH / 2) for inches in self.figure.get_size_inches())
        picture = base64.b64encode(self.png).decode("ascii")
        return (
            {"image/png": picture, "text/plain": self.digest},
            {"image/png": {"alt": self.alt, "width": width, "height": height}},
        )


@cache
def _glyphs() -> frozenset[int]:
    """The characters that the default font can draw; others would only give a warning each."""
    return frozenset(get_font(findfont(FontProperties())).get_charmap())


def plain_text(text: Any, width: int = 30) -> str:
    """Text that can be drawn: one line, no mathematics, no absent glyph, the middle left out if long."""
    printable = (char for char in " ".join(str(text).split()) if char.isprintable())
    line = "".join(char if ord(char) in _glyphs() else "\u25a1" for char in printable)
    if len(line) > width:
        tail = (width - 1) // 3
        line = f"{line[: width - 1 - tail]}…{line[len(line) - tail :]}"
    return line.replace("\\", "\u2216").replace("$", r"\$")


def number_text(value: float) -> str:
    """At most four significant digits, for a digest that does not change with the last one.

    >>> [number_text(x) for x in (0.123456, -2.0, 12345, 1.5e7, float("nan"))]
    ['0.1235', '-2', '12.35k', '15M', 'nan']
    """
    size = abs(value)
    if 1e4 <= size < 1e10:
        return f"{value / 1e6:.4g}M" if size >= 1e6 else f"{value / 1e3:.4g}k"
    return f"{value + 0.0:.4g}" if size > 1e-12 else "nan" if size != size else "0"


def range_text(values: ArrayLike) -> str:
    """From the least finite value to the largest."""
    numbers = np.asarray(values, dtype=float)
    numbers = numbers[np.isfinite(numbers)]
    return (
        f"{number_text(numbers.min())} to {number_text(numbers.max())}" if numbers.size else "without a value"
    )


def counted(number: int, noun: str, *, total: int | None = None) -> str:
    """A number with its noun, and of how many if not all are shown."""
    if total is not None and total != number:
        return f"{number} of {counted(total, noun)}"
    return f"{number} {noun}" + ("" if number == 1 else "s")


def named_numbers(names: Iterable[Any], values: Iterable[float]) -> str:
    """Each name with its number."""
    pairs = zip(names, values, strict=True)
    return ", ".join(f"{plain_text(name)} {number_text(value)}" for name, value in pairs)


def finite_rows(table: pd.DataFrame, *columns: str) -> pd.DataFrame:
    """The rows whose columns all hold numbers; none if a column is absent."""
    numbers = table.reindex(columns=list(columns)).to_numpy(float)
    rows: pd.DataFrame = table.loc[np.isfinite(numbers).all(axis=1)]
    return rows.reindex(columns=rows.columns.union(list(columns), sort=False))


def interval_ends(table: pd.DataFrame, value: str, *, prefix: str = "") -> tuple[Floats, Floats]:
    """Both ends of each interval; the value itself where they are unknown."""
    ends = (table.get(f"{prefix}{end}", table[value]).fillna(table[value]) for end in ("low", "high"))
    low, high = (end.to_numpy(float) for end in ends)
    return low, high


class Sheet:
    """A figure that is being drawn: its title, its axes, and the labels that its lines will end with."""

    def __init__(self, title: str, *, height: float = 3.0, grid: str = "y") -> None:
        self.title, self._grid = plain_text(title, 92), grid
        self.figure = Figure(figsize=(7.5, height), layout="constrained")
        FigureCanvasAgg(self.figure)
        bold = {"x": 0.012, "ha": "left", "fontsize": _TITLE, "fontweight": "bold", "color": INK}
        self.figure.suptitle(self.title, **bold)
        self._ends: dict[str, tuple[float, str]] = {}

    @cached_property
    def axes(self) -> Axes:
        """The only axes, made when something is first drawn."""
        return self.panel()

    def panel(self, rows: int = 1, columns: int = 1, place: int = 1) -> Axes:
        """Axes with two spines, small ticks, and pale lines behind the data."""
        axes: Any = self.figure.add_subplot(rows, columns, place)
        axes.spines[["top", "right"]].set_visible(False)
        axes.spines[["left", "bottom"]].set_color(GREY)
        axes.tick_params(labelsize=SMALL, colors=INK, length=3)
        axes.tick_params(axis=self._grid, left=False, bottom=False)  # a grid line is mark enough
        axes.grid(axis=self._grid, color="#DDDDDD", linewidth=0.7)
        getattr(axes, f"{self._grid}axis").set_major_locator(MaxNLocator(5, steps=_STEPS))
        axes.set_axisbelow(True)
        return axes  # type: ignore[no-any-return]

    def line(self, x: Any, y: Any, color: str, *, name: str = "", **look: Any) -> None:
        """A line, whose name stands beside its last value."""
        self.axes.plot(x, y, color=color, **{"linewidth": 1.6, **look})
        values = np.asarray(y, dtype=float)
        if name and np.isfinite(values).any():
            self._ends[plain_text(name)] = float(values[np.isfinite(values)][-1]), color

    def level(self, value: float | None, name: str, *, color: str = INK) -> None:
        """A dashed horizontal line with its name and number at the end; none for None."""
        if value is not None and math.isfinite(value):
            self.axes.axhline(value, color=color, linewidth=1.2, linestyle=DASHED)
            self._ends[f"{name} {number_text(value)}"] = value, color

    def whiskers(self, x: Any, y: Any, ends: tuple[Any, Any], color: str, *, along: str = "y") -> None:
        """Dots with their intervals."""
        draw, places = (self.axes.vlines, x) if along == "y" else (self.axes.hlines, y)
        draw(places, *ends, color=color, linewidth=1.6)
        self.axes.plot(x, y, linestyle="", marker="o", markersize=5.5, color=color)

    def rows(self, names: Any, notes: Sequence[str] = ()) -> Floats:
        """Name the rows of a horizontal chart, the first one on top, with a note right of each; gives their places."""
        size = len(names)
        self.figure.set_figheight(max(1.9, 1.15 + 0.235 * size))
        places = np.arange(size, dtype=float)[::-1]
        self.axes.set_yticks(places, [plain_text(name) for name in names])
        self.axes.tick_params(axis="y", length=0)
        self.axes.set_ylim(size - 0.7 - max(size, 3), size - 0.3)  # few bars stay slim
        for place, note in zip(places, notes, strict=False):
            self._note(note, (1, place), ("axes fraction", "data"), (6, 0), va="center")
        return places

    def mark(self, x: Any, text: str, *, color: str = INK, lift: float = 0) -> None:
        """A dashed vertical line with text above it, lifted by some points."""
        self.axes.axvline(x, color=color, linewidth=1.2, linestyle=DASHED)
        self._note(text, (x, 1), ("data", "axes fraction"), (0, 3 + lift), ha="center", va="bottom")

    def _note(self, text: str, place: Any, units: Any, shift: Any, *, color: str = INK, **align: Any) -> None:
        look = {"textcoords": "offset points", "fontsize": SMALL, "color": color, **align}
        self.axes.annotate(text, place, xycoords=units, xytext=shift, **look)

    def key(self) -> None:
        """What the two colours mean, in those colours, above the right corner."""
        for name, color, left in (("this window", RED, 0), ("reference", BLUE, -82)):
            self._note(f"■ {name}", (1, 1), "axes fraction", (left, 3), color=color, ha="right", va="bottom")

    def number_x(self, values: Iterable[float], *, log: bool = False) -> None:
        """Ticks of the horizontal axis at these values, written out."""
        if log:
            self.axes.set_xscale("log")
        places = list(values)
        self.axes.set_xticks(places, [number_text(value) for value in places])
        self.axes.minorticks_off()

    def number_log_y(self) -> None:
        """A logarithmic vertical axis with ticks at round numbers, written out."""
        low, high = self.axes.get_ylim()
        powers = range(math.floor(math.log10(low)), math.ceil(math.log10(high)))
        steps = (1, 2, 5) if high < 200 * low else (1,)
        ticks: Sequence[float] = [step * 10.0**power for power in powers for step in steps]
        if high <= 5 * low:
            ticks = MaxNLocator(5, steps=_STEPS).tick_values(low, high)
        ticks = [tick for tick in ticks if low <= tick <= high]
        self.axes.set_yticks(ticks, [number_text(tick) for tick in ticks])
        self.axes.minorticks_off()

    def _label_ends(self) -> None:
        """Write each line's name beside its end, in its colour, moved apart where names would overlap."""
        self.axes.set_ylim(self.axes.get_ylim())
        scale = math.log if self.axes.get_yscale() == "log" else float
        bottom, top = (scale(end) for end in self.axes.get_ylim())
        place = -math.inf
        for label, (value, color) in sorted(self._ends.items(), key=lambda item: item[1][0]):
            place = max((scale(value) - bottom) / (top - bottom), place + 0.1)
            self._note(label, (1, place), "axes fraction", (6, 0), va="center", color=color)

    def say(self, axes: Axes, text: str) -> None:
        """Text in the middle of axes that show nothing."""
        middle, look = {"ha": "center", "va": "center"}, {"fontsize": TEXT, "color": GREY}
        axes.text(0.5, 0.5, text, transform=axes.transAxes, **middle, **look)  # type: ignore[arg-type]

    def chart(self, x: str, y: str, digest: str) -> Chart:
        """The finished figure, its axes named with their units."""
        if self._ends:
            self._label_ends()
        if x or y:
            self.axes.set_xlabel(x, fontsize=TEXT, color=INK)
            self.axes.set_ylabel(y, fontsize=TEXT, color=INK)
        stop = "" if self.title.endswith(("?", "!", ".")) else "."
        alt, digest = (text.replace(r"\$", "$") for text in (f"{self.title}{stop} {digest}", digest))
        return Chart(self.figure, alt=alt, digest=digest)

    def nothing(self, reason: str) -> Chart:
        """The figure that says why it is empty."""
        self.figure.set_figheight(1.4)
        self.axes.set_axis_off()
        self.say(self.axes, f"nothing to show: {reason}")
        return self.chart("", "", f"nothing to show: {reason}")
