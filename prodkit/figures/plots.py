"""One figure a function: data in, a picture with alt text and a digest of its numbers out.

Nothing global is touched: no pyplot, no backend, no style sheet. The colours are those of Okabe & Ito (2008), which
the colour-blind can tell apart; lines are labelled where they end, and uncertainty is drawn wherever it is known.
"""

from __future__ import annotations

import base64
import io
import math
from collections.abc import Iterable, Mapping, Sequence
from functools import cache, cached_property
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.dates import AutoDateLocator, ConciseDateFormatter, date2num
from matplotlib.figure import Figure
from matplotlib.font_manager import FontProperties, findfont, get_font
from matplotlib.ticker import MaxNLocator
from numpy.typing import ArrayLike, NDArray
from PIL import Image

__all__ = [
    "Chart",
    "calibration",
    "daily",
    "differences",
    "distributions",
    "drift_ranking",
    "folds",
    "importance",
    "latency_tail",
    "learning_curve",
    "panels",
    "rising_load",
    "score_histogram",
    "threshold_costs",
    "volume_cost",
]

Floats = NDArray[np.float64]

BLUE, RED, GREEN, AMBER, PURPLE = "#0072B2", "#D55E00", "#009E73", "#B8860B", "#AA4499"
INK, GREY, PALE, FADED = "#222222", "#6B6B6B", "#DDDDDD", "#9DB7C9"
_LINES = (BLUE, RED, GREEN, PURPLE, AMBER)

WIDTH_INCHES = 7.5
DOTS_PER_INCH = 192  # shown at half size, which is 96 to the inch: sharp on any screen
TEXT, SMALL, TITLE = 9.5, 9.0, 11.0  # points
TOP_COLUMNS, TOP_ROWS = 12, 20


class Chart:
    """A figure, what it shows in words, and the numbers it shows.

    Attributes:
        figure: for whoever wants to change it.
        alt: a sentence for those who cannot see it.
        digest: the plotted data in short, numbers of at most four significant digits: what a notebook's
            committed output is compared by.
    """

    def __init__(self, figure: Figure, *, alt: str, digest: str) -> None:
        self.figure, self.alt, self.digest = figure, alt, digest

    def __repr__(self) -> str:
        return self.digest

    @cached_property
    def png(self) -> bytes:
        """The picture: the same bytes for the same data. 64 colours make it a quarter of the size."""
        drawn, written = io.BytesIO(), io.BytesIO()
        quick = {"compress_level": 0}
        self.figure.savefig(drawn, format="png", dpi=DOTS_PER_INCH, facecolor="white", pil_kwargs=quick)
        method, dither = Image.Quantize.FASTOCTREE, Image.Dither.NONE
        picture = Image.open(drawn).convert("RGB").quantize(64, method=method, dither=dither)
        picture.putpalette(
            [255 if tone > 252 else tone for tone in picture.getpalette() or []]
        )  # white is white
        picture.save(written, "png")
        return written.getvalue()

    def _repr_mimebundle_(
        self, include: Any = None, exclude: Any = None
    ) -> tuple[dict[str, str], dict[str, dict[str, Any]]]:
        width, height = (round(inches * DOTS_PER_INCH / 2) for inches in self.figure.get_size_inches())
        picture = base64.b64encode(self.png).decode("ascii")
        return (
            {"image/png": picture, "text/plain": self.digest},
            {"image/png": {"alt": self.alt, "width": width, "height": height}},
        )


def calibration(
    curve: pd.DataFrame, *, title: str = "Predicted against observed", unit: str = "share"
) -> Chart:
    """Observed against predicted share, or mean, of each bin of :func:`prodkit.models.metrics.calibration_curve`."""
    curve = _finite(curve, "predicted", "observed")
    if curve.empty:
        return _nothing(title, "no bin holds a prediction")
    figure, axes = _canvas(title, height=3.4)
    x, y = curve["predicted"].to_numpy(float), curve["observed"].to_numpy(float)
    ends = _ends(curve, "observed")
    low, top = 0.0, min(1.0, 1.06 * max(x.max(), ends[1].max(), 0.05))
    if unit != "share":
        low, top = _padded(np.concatenate([x, *ends]))
    axes.plot([low, top], [low, top], color=GREY, linewidth=1, linestyle=(0, (4, 3)))
    _whiskers(axes, x, y, ends, color=BLUE)
    axes.plot(x, y, color=BLUE, linewidth=1, alpha=0.5)
    axes.set(xlim=(low, top), ylim=(low, top))
    _label_ends(axes, {"as predicted": (top, GREY)})
    _axis_names(
        axes, f"predicted {unit}, mean of a bin ({len(x)} of equal mass)", f"observed {unit}, 95% interval"
    )
    gap = np.abs(x - y).max()
    spans = f"predicted {_span(x)}, observed {_span(y)}"
    return _chart(figure, title, f"calibration: {_count(len(x), 'bin')}, {spans}, worst gap {_number(gap)}")


def folds(scores: pd.DataFrame, *, metric: str) -> Chart:
    """The score of each time-ordered fold: index fold, columns train_end, value, low, high."""
    name = _plain(metric)
    title = f"{name} in time-ordered folds"
    scores = _finite(scores, "value")
    if scores.empty:
        return _nothing(title, "no fold has a score")
    figure, axes = _canvas(title, height=2.9)
    x, y = np.arange(len(scores), dtype=float), scores["value"].to_numpy(float)
    axes.axhline(y.mean(), color=GREY, linewidth=1, linestyle=(0, (4, 3)))
    _whiskers(axes, x, y, _ends(scores, "value"), color=BLUE)
    dates = [_day(moment) for moment in scores["train_end"]] if "train_end" in scores else [""] * len(x)
    step = math.ceil(len(x) / 7)
    labels = [f"fold {_plain(fold, 10)}\n{day}" for fold, day in zip(scores.index, dates, strict=True)]
    axes.set_xticks(x[::step], labels[::step])
    axes.set_xlim(-0.5, len(x) - 0.5)
    _label_ends(axes, {f"mean {_number(y.mean())}": (y.mean(), GREY)})
    _axis_names(axes, "fold, and the day its training rows end", f"{name} on the rows after it")
    span = f"{_count(len(y), 'fold')}, {_span(y)}, mean {_number(y.mean())}"
    return _chart(figure, title, f"folds: {name} of {span}")


def importance(table: pd.DataFrame, *, unit: str) -> Chart:
    """What shuffling a column costs: index column, columns mean and sd; the twelve largest are drawn."""
    title = "What the model relies on"
    table = _finite(table, "mean").sort_values("mean", ascending=False, kind="stable")
    if table.empty:
        return _nothing(title, "no column has an importance")
    shown = table.head(TOP_COLUMNS)
    figure, axes = _canvas(title, height=_tall(len(shown)), grid="x")
    value = shown["mean"].to_numpy(float)
    spread = shown["sd"].fillna(0).to_numpy(float) if "sd" in shown else np.zeros(len(shown))
    places = _rows(axes, shown.index)
    axes.barh(places, value, color=BLUE, height=0.62)
    axes.errorbar(value, places, xerr=spread, fmt="none", ecolor=INK, elinewidth=1.2)
    axes.axvline(0, color=INK, linewidth=0.8)
    _axis_names(axes, f"{_plain(unit, 60)} (line: one standard deviation)", "")
    first = ", ".join(_pairs(shown.index[:3], value[:3]))
    return _chart(figure, title, f"importance: {_some(len(shown), len(table), 'column')}; first {first}")


def learning_curve(table: pd.DataFrame, *, metric: str) -> Chart:
    """Score against rows learned from: columns rows, train, validation."""
    name = _plain(metric)
    title = f"Would more rows help? {name} against training rows"
    table = _finite(table, "rows", "validation").sort_values("rows", kind="stable")
    if table.empty:
        return _nothing(title, "no training size was tried")
    figure, axes = _canvas(title, height=2.9)
    rows = table["rows"].to_numpy(float)
    held = table["validation"].to_numpy(float)
    finals = {}
    for label, values, color in (
        ("training", table["train"].to_numpy(float), GREY),
        ("validation", held, BLUE),
    ):
        axes.plot(rows, values, color=color, marker="o", markersize=4, linewidth=1.6)
        finals[label] = values[-1], color
    if rows[-1] >= 8 * max(rows[0], 1):
        axes.set_xscale("log")
        axes.minorticks_off()
    axes.set_xticks(rows, [_number(row) for row in rows])
    _label_ends(axes, finals)
    _axis_names(axes, "training rows", name)
    sizes = f"{_number(rows[0])} to {_number(rows[-1])} rows"
    ends = f"{_number(held[0])} to {_number(held[-1])}"
    return _chart(figure, title, f"learning curve: {sizes}, validation {name} {ends}")


def rising_load(table: pd.DataFrame, *, limit: float | None = None) -> Chart:
    """99th percentile of each who was loaded against the rate: index asked, columns rate, p99, p99_low, p99_high."""
    title = "Latency against load: 99th percentile, from when a request was due"
    table = _finite(table, "rate", "p99")
    table = table if table.empty else table[table["p99"] > 0]
    if table.empty:
        return _nothing(title, "nobody was loaded")
    figure, axes = _canvas(title, height=3.1)
    axes.set_yscale("log")
    finals, said = {}, []
    everybody = list(dict.fromkeys(table.index))
    for number, who in enumerate(everybody):
        steps, color = table.loc[[who]], _LINES[number % len(_LINES)]
        x, y = steps["rate"].to_numpy(float), steps["p99"].to_numpy(float)
        shifted = x * (1 + 0.012 * (number - (len(everybody) - 1) / 2))  # lest the whiskers hide one another
        _whiskers(
            axes,
            shifted,
            y,
            _ends(steps.rename(columns={"p99_low": "low", "p99_high": "high"}), "p99"),
            color=color,
        )
        axes.plot(shifted, y, color=color, linewidth=1, alpha=0.5)
        finals[_plain(who)] = y[-1], color
        said.append(f"{_plain(who)} {_span(y)} ms")
    if limit is not None:
        axes.axhline(limit, color=GREY, linewidth=1, linestyle=(0, (4, 3)))
        finals[f"limit {_number(limit)}"] = limit, GREY
    rates = np.unique(table["rate"].to_numpy(float))
    axes.set_xticks(rates, [_number(rate) for rate in rates])
    axes.minorticks_off()
    _label_log_ends(axes, finals)
    _axis_names(axes, "requests a second", "milliseconds, 95% interval")
    return _chart(
        figure, title, f"load: {_count(len(rates), 'rate')}, {_span(rates)} a second; {', '.join(said[:4])}"
    )


def volume_cost(table: pd.DataFrame, *, foreseen: pd.Series[float]) -> Chart:
    """Seconds against rows on logarithmic axes, and the curve fitted to all but the largest volume.

    Args:
        table: index rows; column seconds.
        foreseen: by the curve, for the same rows.
    """
    title = "Time against volume, and what the smaller volumes foresee of the largest"
    table = _finite(table, "seconds")
    table = table if table.empty else table[table["seconds"] > 0]
    if table.empty:
        return _nothing(title, "nothing was asked")
    figure, axes = _canvas(title, height=3.1)
    axes.set_xscale("log")
    axes.set_yscale("log")
    x, y = table.index.to_numpy(float), table["seconds"].to_numpy(float)
    fitted = foreseen.reindex(table.index).to_numpy(float)
    axes.plot(x, fitted, color=GREY, linewidth=1, linestyle=(0, (4, 3)))
    axes.plot(x, y, "o", color=BLUE, markersize=5)
    axes.set_xticks(x, [_number(rows) for rows in x])
    axes.minorticks_off()
    _label_log_ends(axes, {"measured": (y[-1], BLUE)})
    _axis_names(axes, "rows at once (log)", "seconds (log)")
    known = np.isfinite(fitted[-1])
    told = f"; the largest took {_number(y[-1] / fitted[-1])} of what was foreseen" if known else ""
    return _chart(figure, title, f"volume: {_span(x)} rows in {_span(y)} s{told}")


def latency_tail(latencies: Mapping[str, ArrayLike], *, rate: float, limit: float) -> Chart:
    """How long the slowest wait at one rate: (n,) milliseconds of each who was loaded, on logarithmic axes."""
    title = f"Who waits how long at {_number(rate)} requests a second"
    sorted_ms = {who: np.sort(np.asarray(each, dtype=float)) for who, each in latencies.items()}
    sorted_ms = {who: each[each > 0] for who, each in sorted_ms.items() if (each > 0).any()}
    if not sorted_ms:
        return _nothing(title, "nobody was loaded")
    figure, axes = _canvas(title, height=3.1)
    axes.set_yscale("log")
    axes.set_xscale("log")
    finals, said = {}, []
    for (who, values), color in zip(sorted_ms.items(), _LINES, strict=False):
        slower = (len(values) - np.arange(len(values))) / len(values)
        axes.step(slower, values, color=color, linewidth=1.6, where="post")
        finals[_plain(who)] = values[-1], color
        said.append(f"{_plain(who)} at most {_number(values[-1])} ms")
    axes.axhline(limit, color=INK, linewidth=1.2, linestyle=(0, (4, 3)))
    finals[f"limit {_number(limit)}"] = limit, INK
    least = min(1 / len(values) for values in sorted_ms.values())
    shares = [share for share in (1, 0.1, 0.01, 0.001, 0.0001) if share >= least]
    axes.set_xticks(shares, [f"{share:.4g}" for share in shares])
    axes.minorticks_off()
    axes.set_xlim(1.0, min(least, 0.5))
    _label_log_ends(axes, finals)
    _axis_names(axes, "share of requests that waited at least so long (log)", "milliseconds (log)")
    return _chart(
        figure, title, f"tail at {_number(rate)} a second, limit {_number(limit)} ms: {', '.join(said)}"
    )


def threshold_costs(table: pd.DataFrame, *, threshold: float, title: str) -> Chart:
    """Cost of a hundred rows against the threshold: index threshold, a column for each candidate; one is picked."""
    table = table.dropna(axis="columns", how="all")
    if table.empty or not len(table.columns):
        return _nothing(title, "no row has a prediction")
    figure, axes = _canvas(title, height=3.0)
    finals, said = {}, []
    for column, color in zip(table.columns, _LINES, strict=False):
        cost = table[column]
        at = float(cost[threshold])
        axes.plot(cost.index, cost.to_numpy(), color=color, linewidth=1.6)
        axes.plot([threshold], [at], marker="o", markersize=6, color=color)
        finals[_plain(column)] = float(cost.iloc[-1]), color
        best = f"least {_number(cost.min())} at {_number(float(cost.index[int(cost.argmin())]))}"
        said.append(f"{_plain(column)} {_number(at)}, {best}")
    axes.axvline(threshold, color=INK, linewidth=1.2, linestyle=(0, (4, 3)))
    _top_label(axes, threshold, f"threshold {_number(threshold)}")
    if len(table) > 1:
        axes.set_xlim(float(table.index[0]), float(table.index[-1]))
    axes.set_ylim(0, 1.08 * float(np.nanmax(table.to_numpy())) or 1.0)
    _label_ends(axes, finals)
    _axis_names(axes, "called from this prediction on", "cost of 100 rows, in false alarms")
    return _chart(figure, title, f"cost at threshold {_number(threshold)}: {'; '.join(said[:4])}")


def differences(
    table: pd.DataFrame, *, limit: float, unit: str, title: str = "Difference, with its interval"
) -> Chart:
    """A forest plot against a limit: index name, columns value, low, high; the first twenty are drawn.

    Red is what lies beyond the limit with its whole interval. An interval with an infinite end is called open
    and runs off the figure.
    """
    table = _finite(table, "value")
    if table.empty:
        return _nothing(title, "no difference was measured")
    shown = table.head(TOP_ROWS)
    figure, axes = _canvas(title, height=_tall(len(shown)), grid="x")
    value, (low, high) = shown["value"].to_numpy(float), _ends(shown, "value")
    beyond = (low > limit) & (limit >= 0) | (high < limit) & (limit <= 0)
    known = np.concatenate([value, low, high, [limit, 0.0]])
    left, right = _padded(known[np.isfinite(known)])
    places = _rows(axes, shown.index)
    for color, group in ((BLUE, ~beyond), (RED, beyond)):
        ends = low[group].clip(left, right), high[group].clip(left, right)
        _whiskers(axes, value[group], places[group], ends, color=color, along="x")
    axes.axvline(0, color=GREY, linewidth=0.8)
    axes.axvline(limit, color=INK, linewidth=1.2, linestyle=(0, (4, 3)))
    _top_label(axes, limit, f"limit {_number(limit)}")
    digits = max(0, 2 - math.floor(math.log10(right - left)))
    bounded = np.isfinite(low) & np.isfinite(high)
    notes = [
        f"{number:+.{digits}f}" + ("" if safe else " open")
        for number, safe in zip(value, bounded, strict=True)
    ]
    _right_notes(axes, places, [note.replace("-", "\u2212") for note in notes])
    axes.set_xlim(left, right)
    _axis_names(axes, _plain(unit, 90), "")
    found = ", ".join(_pairs(shown.index[:4], value[:4])) + (", ..." if len(shown) > 4 else "")
    count = f"{_some(len(shown), len(table), 'difference')}, {beyond.sum()} beyond {_number(limit)}"
    return _chart(figure, title, f"{count}: {found}")


def drift_ranking(table: pd.DataFrame, *, floor: float) -> Chart:
    """The largest shift of each column, in the order given, as :func:`prodkit.drift.comparison.comparison` ranks them.

    Index column, columns effect, damage and drifted; if they are there, those called ``missing_`` or ``unseen_`` so,
    and ``floor``, which an effect must reach besides.
    """
    title = "What changed, the most harmful first"
    if table.empty:
        return _nothing(title, "no column could be compared")
    shown = table.head(TOP_COLUMNS)
    effect, drifted, kind = _strongest(shown)
    figure, axes = _canvas(title, height=_tall(len(shown)), grid="x")
    damage = shown["damage"].to_numpy(float) if "damage" in shown else np.full(len(shown), np.nan)
    places = _rows(axes, shown.index)
    axes.barh(places, effect, color=np.where(drifted, RED, FADED).tolist(), height=0.62)
    limits = shown["floor"].fillna(0.0).clip(lower=floor) if "floor" in shown else np.full(len(shown), floor)
    axes.vlines(limits, places - 0.36, places + 0.36, color=INK, linewidth=1.6)
    axes.axvline(floor, color=GREY, linewidth=0.9, linestyle=(0, (4, 3)))
    _top_label(axes, floor, f"ignored below {_number(floor)}")
    harm = [_damage(number) if math.isfinite(number) else "" for number in damage]
    _right_notes(axes, places, [", ".join(filter(None, pair)) for pair in zip(harm, kind, strict=True)])
    axes.set_xlim(0, 1.08 * max(effect.max(), *limits, 0.01))
    _axis_names(axes, "shift of the column, Jensen-Shannon distance (mark: its limit; red: drifted)", "")
    names = ", ".join(_pairs(shown.index[:3], effect[:3]))
    count = _some(len(shown), len(table), "column")
    return _chart(figure, title, f"drift: {count}, {drifted.sum()} drifted; first {names}")


def _damage(number: float) -> str:
    return f"damage {number:.2g}" if number >= 1e-4 or number == 0 else "damage < 0.0001"


def distributions(reference: ArrayLike, current: ArrayLike, *, name: str, labels: Sequence[Any]) -> Chart:
    """Shares of rows per bin, now and in the reference.

    Args:
        reference: (bins,) shares of the reference's rows.
        current: (bins,) shares of the window's rows.
        name: the column.
        labels: (bins + 1,) edges of a numeric column, or (bins,) levels, of which the twelve most frequent
            are drawn.
    """
    title = f"{_plain(name)}: this window against the reference"
    then, now = _shares(reference), _shares(current)
    if not then.size or not now.size or not (then.sum() + now.sum()):
        return _nothing(title, "no row has a value")
    figure, axes = _canvas(title, height=3.0)
    if len(labels) == len(now) + 1:
        _draw_steps(axes, then, now, [float(edge) for edge in labels])
        _axis_names(axes, f"{_plain(name)} (bins of the reference, evenly drawn)", "share of rows")
    else:
        _draw_pairs(axes, then, now, labels)
        _axis_names(axes, _plain(name), "share of rows")
    gaps = np.abs(now - then)
    most = f"largest change {_number(then[gaps.argmax()])} to {_number(now[gaps.argmax()])}"
    moved = f"share that moved {_number(gaps.sum() / 2)}"
    return _chart(figure, title, f"{_plain(name)}: {_count(len(now), 'bin')}, {moved}, {most}")


def score_histogram(
    current: ArrayLike,
    *,
    reference: ArrayLike | None = None,
    edges: Sequence[float] | None = None,
    title: str = "What the model says",
) -> Chart:
    """Shares (bins,) of rows per score, and those of the reference; ``edges`` are even over 0..1 if not given."""
    now = _shares(current)
    then = None if reference is None else _shares(reference)
    if not now.size or not now.sum():
        return _nothing(title, "no row was scored")
    figure, axes = _canvas(title, height=2.9)
    _draw_steps(
        axes, then, now, list(edges) if edges is not None else np.linspace(0, 1, len(now) + 1).tolist()
    )
    _axis_names(axes, "score (bins of the reference, evenly drawn)", "share of rows")
    moved = "" if then is None else f", share that moved {_number(np.abs(now - then).sum() / 2)}"
    return _chart(
        figure, title, f"scores: {_count(len(now), 'bin')}, largest share {_number(now.max())}{moved}"
    )


def panels(
    tables: Mapping[str, pd.DataFrame], *, title: str, limits: Mapping[str, float] | None = None
) -> Chart:
    """Small figures side by side, one a sign, over the same windows.

    Args:
        tables: by name of the sign: index window; columns value, low, high, and ``estimated``, where a value was not
            measured but estimated, which is drawn hollow and dashed. A window without a value keeps its place.
        title: what they are about.
        limits: by name of the sign, the value that it is held against.
    """
    if not any(len(_finite(table, "value")) for table in tables.values()):
        return _nothing(title, "no sign is known yet")
    columns = min(2, len(tables))
    rows = math.ceil(len(tables) / columns)
    figure, first = _canvas(title, height=0.6 + 1.9 * rows)
    first.remove()
    said = []
    for place, (name, table) in enumerate(tables.items(), start=1):
        axes = figure.add_subplot(rows, columns, place)
        limit = (limits or {}).get(name)
        _draw_panel(axes, table, limit=limit)
        axes.set_title(_plain(name, 44), fontsize=TEXT, color=INK, loc="left")
        known = np.isfinite(table["value"].to_numpy(float))
        against = "" if limit is None else f", limit {_number(limit)}"
        count = f" in {known.sum()} of {_count(len(table), 'window')}" if known.any() else ""
        said.append(f"{_plain(name, 44)} {_span(table['value'].to_numpy(float))}{count}{against}")
    figure.supxlabel("window, by its first day", fontsize=TEXT, color=INK)
    return _chart(figure, title, "; ".join(said))


def _draw_panel(axes: Axes, table: pd.DataFrame, *, limit: float | None) -> None:
    """One sign over the windows, its limit dashed."""
    axes.spines[["top", "right"]].set_visible(False)
    axes.spines[["left", "bottom"]].set_color(GREY)
    axes.tick_params(labelsize=SMALL, colors=INK, length=3)
    axes.grid(axis="y", color=PALE, linewidth=0.7)
    axes.set_axisbelow(True)
    places, values = np.arange(len(table), dtype=float), table["value"].to_numpy(float)
    step = math.ceil(len(table) / 4)
    axes.set_xticks(places[::step], [_plain(name, 12) for name in table.index[::step]])
    axes.set_xlim(-0.5, len(table) - 0.5)
    known = np.isfinite(values)
    if not known.any():
        axes.set_yticks([])
        axes.text(0.5, 0.5, "not known yet", transform=axes.transAxes, ha="center", va="center",
                  fontsize=TEXT, color=GREY)  # fmt: skip
        return
    guessed = table["estimated"].to_numpy(bool) if "estimated" in table else np.zeros(len(table), dtype=bool)
    low, high = _ends(table, "value")
    for shown, face, style in ((known & ~guessed, BLUE, "solid"), (known & guessed, "white", "dashed")):
        if not shown.any():
            continue  # unclipped dots that are not there would take all the room
        axes.vlines(places[shown], low[shown], high[shown], color=BLUE, linewidth=1.6, linestyle=style)
        axes.plot(places[shown], values[shown], linestyle="", marker="o", markersize=5.5, color=BLUE,
                  markerfacecolor=face, clip_on=False, zorder=3)  # fmt: skip
    axes.plot(places, values, color=BLUE, linewidth=1, alpha=0.5)
    if values[known].min() == 0 <= low[known].min():  # a share or a count: nothing lies below
        axes.set_ylim(0, 1.15 * max(high[known].max(), limit or 0.0) or 1.0)
    if limit is not None and math.isfinite(limit):
        axes.axhline(limit, color=INK, linewidth=1.2, linestyle=(0, (4, 3)))
        axes.set_title(f"- - limit {limit:.3g}", fontsize=SMALL, color=INK, loc="right")
    bottom, top = axes.get_ylim()
    whole = limit is None and not (values[known] % 1).any()  # a count has no halves
    ticks = MaxNLocator(4, integer=whole).tick_values(bottom, top)
    axes.set_yticks([tick for tick in ticks if bottom <= tick <= top])


def daily(
    table: pd.DataFrame,
    *,
    unit: str,
    title: str,
    marks: Mapping[Any, str] | None = None,
    limit: float | None = None,
) -> Chart:
    """One line a column over time: index date; columns low and high are the band of the first other one.

    Args:
        table: one row a day; at most five columns are drawn.
        unit: what the vertical axis counts.
        title: what the figure is about.
        marks: what happened on which day.
        limit: a level that the lines are held against.
    """
    names = [column for column in table.columns if column not in ("low", "high")][: len(_LINES)]
    if not names or not np.isfinite(table[names].to_numpy(float)).any():
        return _nothing(title, "no day has a value")
    table = table.set_axis(pd.to_datetime(table.index)).sort_index()
    figure, axes = _canvas(title, height=3.0)
    dates = table.index.to_numpy()
    if {"low", "high"} <= set(table.columns):
        low, high = (table[end].to_numpy(float) for end in ("low", "high"))
        axes.fill_between(dates, low, high, color=BLUE, alpha=0.18, linewidth=0)
    finals = {}
    for column, color in zip(names, _LINES, strict=False):
        values = table[column].to_numpy(float)
        dots = "o" if len(dates) <= 45 else ""
        axes.plot(dates, values, color=color, linewidth=1.6, marker=dots, markersize=3.5)
        if (last := values[np.isfinite(values)]).size:
            finals[_plain(column)] = last[-1], color
    if limit is not None and math.isfinite(limit):
        axes.axhline(limit, color=INK, linewidth=1.2, linestyle=(0, (4, 3)))
        finals[f"limit {_number(limit)}"] = limit, INK
    if len(finals) > 1:
        _label_ends(axes, finals)
    _draw_marks(axes, marks or {}, dates)
    axes.set_xlim(_place(dates[0]) - 0.5, _place(dates[-1]) + 0.5)
    locator = AutoDateLocator(minticks=3, maxticks=8)  # type: ignore[no-untyped-call]
    axes.xaxis.set_major_locator(locator)
    axes.xaxis.set_major_formatter(ConciseDateFormatter(locator, show_offset=False))  # type: ignore[no-untyped-call]
    _axis_names(axes, f"day, {_day(dates[0])} to {_day(dates[-1])}", _plain(unit))
    found = "; ".join(f"{_plain(name)} {_span(table[name].to_numpy(float))}" for name in names)
    return _chart(figure, title, f"daily: {_count(len(dates), 'day')}; {found}")


def _canvas(title: str, *, height: float, grid: str = "y") -> tuple[Figure, Axes]:
    """An empty figure in the house's style."""
    figure = Figure(figsize=(WIDTH_INCHES, height), layout="constrained")
    FigureCanvasAgg(figure)
    figure.suptitle(_plain(title, 92), x=0.012, ha="left", fontsize=TITLE, fontweight="bold", color=INK)
    axes = figure.add_subplot()
    axes.spines[["top", "right"]].set_visible(False)
    axes.spines[["left", "bottom"]].set_color(GREY)
    axes.tick_params(labelsize=SMALL, colors=INK, length=3)
    axes.grid(axis="x" if grid == "x" else "y", color=PALE, linewidth=0.7)
    axes.set_axisbelow(True)
    return figure, axes


def _chart(figure: Figure, title: str, digest: str) -> Chart:
    title = _plain(title, 92)
    said = f"{title}{'' if title.endswith(('?', '!', '.')) else '.'} {digest}"
    return Chart(figure, alt=said.replace(r"\$", "$"), digest=digest.replace(r"\$", "$"))


def _nothing(title: str, reason: str) -> Chart:
    figure, axes = _canvas(title, height=1.4)
    axes.set_axis_off()
    axes.text(0.5, 0.5, f"nothing to show: {reason}", ha="center", va="center", fontsize=TEXT, color=GREY)
    return _chart(figure, title, f"nothing to show: {reason}")


def _axis_names(axes: Axes, x: str, y: str) -> None:
    axes.set_xlabel(x, fontsize=TEXT, color=INK)
    axes.set_ylabel(y, fontsize=TEXT, color=INK)


def _whiskers(
    axes: Axes, x: Floats, y: Floats, ends: tuple[Floats, Floats], *, color: str, along: str = "y"
) -> None:
    """Dots with their intervals."""
    draw = axes.vlines if along == "y" else axes.hlines
    draw(x if along == "y" else y, *ends, color=color, linewidth=1.6)
    axes.plot(x, y, linestyle="", marker="o", markersize=5.5, color=color)


def _rows(axes: Axes, names: Iterable[Any]) -> Floats:
    """Name the rows of a horizontal chart, the first one on top."""
    labels = [_plain(name) for name in names]
    places = np.arange(len(labels), dtype=float)[::-1]
    axes.set_yticks(places, labels)
    axes.tick_params(axis="y", length=0)
    axes.set_ylim(len(labels) - 0.7 - max(len(labels), 3), len(labels) - 0.3)  # few bars stay slim
    axes.xaxis.set_major_locator(MaxNLocator(6))
    return places


def _top_label(axes: Axes, x: Any, text: str, *, lift: float = 0) -> None:
    axes.annotate(
        text, (x, 1), xycoords=("data", "axes fraction"), xytext=(0, 3 + lift), textcoords="offset points",
        ha="center", va="bottom", fontsize=SMALL, color=INK,
    )  # fmt: skip


def _label_ends(axes: Axes, finals: Mapping[str, tuple[float, str]]) -> None:
    """Write each line's name beside its end, in its colour, moved apart where they would overlap."""
    axes.set_ylim(axes.get_ylim())
    bottom, top = axes.get_ylim()
    place = -math.inf
    for label, (value, color) in sorted(finals.items(), key=lambda item: item[1][0]):
        if not math.isfinite(value):
            continue
        place = max((value - bottom) / (top - bottom), place + 0.1)
        axes.annotate(
            label, (1, place), xycoords="axes fraction", xytext=(6, 0), textcoords="offset points",
            va="center", fontsize=SMALL, color=color,
        )  # fmt: skip


def _label_log_ends(axes: Axes, finals: Mapping[str, tuple[float, str]]) -> None:
    """The same where the vertical axis is logarithmic."""
    axes.set_ylim(axes.get_ylim())
    bottom, top = (math.log(end) for end in axes.get_ylim())
    place = -math.inf
    for label, (value, color) in sorted(finals.items(), key=lambda item: item[1][0]):
        place = max((math.log(value) - bottom) / (top - bottom), place + 0.1)
        axes.annotate(
            label, (1, place), xycoords="axes fraction", xytext=(6, 0), textcoords="offset points",
            va="center", fontsize=SMALL, color=color,
        )  # fmt: skip


def _right_notes(axes: Axes, places: Floats, notes: Sequence[str]) -> None:
    """A column of small text right of a horizontal chart."""
    for place, note in zip(places, notes, strict=True):
        axes.annotate(
            note, (1, place), xycoords=("axes fraction", "data"), xytext=(6, 0), textcoords="offset points",
            va="center", fontsize=SMALL, color=INK,
        )  # fmt: skip


def _draw_steps(axes: Axes, then: Floats | None, now: Floats, edges: Sequence[float]) -> None:
    """Two histograms over the same bins, drawn evenly wide since the bins of equal mass are not."""
    size = len(now)
    places = np.arange(size + 1, dtype=float)
    axes.stairs(now, places, color=RED, fill=True, alpha=0.22)
    axes.stairs(now, places, color=RED, linewidth=1.8)
    if then is not None:
        axes.stairs(then, places, color=BLUE, linewidth=1.8)
        _key(axes)
    step = math.ceil((size + 1) / 9)
    ticks = [tick for tick in range(0, size + 1, step) if math.isfinite(edges[tick])]
    axes.set_xticks(ticks, [_number(float(f"{edges[tick]:.3g}")) for tick in ticks])
    axes.set_xlim(0, size)
    axes.set_ylim(0, 1.12 * max(now.max(), 0 if then is None else then.max()))


def _draw_pairs(axes: Axes, then: Floats, now: Floats, levels: Sequence[Any]) -> None:
    """Paired bars of the most frequent levels."""
    order = np.argsort(-(then + now), kind="stable")[:TOP_COLUMNS]
    places = np.arange(len(order), dtype=float)
    axes.bar(places - 0.2, then[order], width=0.38, color=BLUE)
    axes.bar(places + 0.2, now[order], width=0.38, color=RED)
    width = max(6, 84 // len(order))  # characters that fit under a pair of bars
    axes.set_xticks(places, [_plain(levels[level], width) for level in order])
    axes.set_xlim(-0.6, max(len(order), 3) - 0.4)
    axes.set_ylim(0, 1.12 * max(then.max(), now.max()))
    _key(axes)


def _place(day: Any) -> float:
    """Where a day lies on matplotlib's axis."""
    return float(date2num(np.datetime64(day)))  # type: ignore[no-untyped-call]


def _draw_marks(axes: Axes, marks: Mapping[Any, str], dates: NDArray[np.datetime64]) -> None:
    """Say what happened on which day, on two levels, as neighbours would overlap on one."""
    inside = {day: text for day, text in marks.items() if dates[0] <= np.datetime64(day) <= dates[-1]}
    for number, (day, text) in enumerate(inside.items()):
        place = _place(day)
        axes.axvline(place, color=INK, linewidth=0.9, linestyle=(0, (2, 2)))
        _top_label(axes, place, _plain(text), lift=11 * (number % 2))


def _key(axes: Axes) -> None:
    """What the two colours mean, in those colours, above the right corner."""
    for name, color, left in (("this window", RED, 0), ("reference", BLUE, -82)):
        axes.annotate(
            f"■ {name}", (1, 1), xycoords="axes fraction", xytext=(left, 3),
            textcoords="offset points", ha="right", va="bottom", fontsize=SMALL, color=color,
        )  # fmt: skip


def _strongest(table: pd.DataFrame) -> tuple[Floats, NDArray[np.bool_], list[str]]:
    """Of the shifts of values, of missing ones and of unseen levels: the largest, if any is sure, and which."""
    kinds = {"": "effect", "missing values": "missing_effect", "unseen levels": "unseen_effect"}
    kinds = {kind: column for kind, column in kinds.items() if column in table}
    effects = table[list(kinds.values())].fillna(0.0).to_numpy(float)
    flags = [name for name in ("drifted", "missing_drifted", "unseen_drifted") if name in table]
    drifted = np.asarray(table[flags] == True).any(axis=1)  # noqa: E712 -- a missing flag is no drift
    return (
        np.max(effects, axis=1),
        np.asarray(drifted),
        [list(kinds)[place] for place in effects.argmax(axis=1)],
    )


def _finite(table: pd.DataFrame, *columns: str) -> pd.DataFrame:
    """The rows whose columns all hold numbers; none if a column is not there."""
    numbers = table.reindex(columns=list(columns)).to_numpy(float)
    known: pd.DataFrame = table.loc[np.isfinite(numbers).all(axis=1)]
    return known.reindex(columns=known.columns.union(list(columns), sort=False))


def _ends(table: pd.DataFrame, value: str) -> tuple[Floats, Floats]:
    """Both ends of each interval; the value itself where they are not known."""
    low, high = (table[end] if end in table else table[value] for end in ("low", "high"))
    return low.fillna(table[value]).to_numpy(float), high.fillna(table[value]).to_numpy(float)


def _shares(values: ArrayLike) -> Floats:
    shares = np.asarray(values, dtype=float)
    return np.where(np.isfinite(shares), shares, 0.0)


def _padded(values: Floats) -> tuple[float, float]:
    margin = 0.08 * (float(values.max() - values.min()) or 1.0)
    return float(values.min()) - margin, float(values.max()) + margin


def _tall(rows: int) -> float:
    """Height in inches of a chart of so many rows."""
    return max(1.9, 1.15 + 0.235 * rows)


@cache
def _glyphs() -> frozenset[int]:
    """The characters that the default font can draw; others would only give a warning each."""
    return frozenset(get_font(findfont(FontProperties())).get_charmap())


def _plain(text: Any, width: int = 30) -> str:
    """Text that can be drawn: one line, no mathematics, no glyph that the font lacks, the middle left out if long."""
    known = _glyphs()
    line = "".join(
        char if ord(char) in known else "\u25a1" for char in " ".join(str(text).split()) if char.isprintable()
    )
    if len(line) > width:
        keep = width - 1
        line = f"{line[: keep - keep // 3]}…{line[len(line) - keep // 3 :]}"
    return line.replace("\\", "\u2216").replace("$", r"\$")


def _number(value: float) -> str:
    """At most four significant digits, for a digest that does not change with the last one.

    >>> [_number(x) for x in (0.123456, -2.0, 12345, 1.5e7, float("nan"))]
    ['0.1235', '-2', '12.35k', '15M', 'nan']
    """
    size = abs(value)
    if 1e4 <= size < 1e10:
        scale, letter = (1e6, "M") if size >= 1e6 else (1e3, "k")
        return f"{value / scale:.4g}{letter}"
    return f"{value + 0.0:.4g}" if size > 1e-12 else "nan" if size != size else "0"


def _span(values: Floats) -> str:
    known = values[np.isfinite(values)]
    return f"{_number(known.min())} to {_number(known.max())}" if known.size else "without a value"


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}" + ("" if number == 1 else "s")


def _some(shown: int, total: int, noun: str) -> str:
    return _count(total, noun) if shown == total else f"{shown} of {_count(total, noun)}"


def _pairs(names: Iterable[Any], values: Iterable[float]) -> list[str]:
    return [f"{_plain(name)} {_number(value)}" for name, value in zip(names, values, strict=True)]


def _day(moment: Any) -> str:
    stamp = pd.Timestamp(moment)
    return "" if pd.isna(stamp) else stamp.strftime("%Y-%m-%d")
