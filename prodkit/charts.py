"""Charts: one function a figure, of data, models, decisions, load and time."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.dates import AutoDateLocator, ConciseDateFormatter
from matplotlib.ticker import MaxNLocator
from numpy.typing import ArrayLike

from prodkit.canvas import (
    BLUE,
    DASHED,
    GREY,
    INK,
    LINES,
    RED,
    SMALL,
    TEXT,
    Chart,
    Floats,
    Sheet,
    counted,
    finite_rows,
    interval_ends,
    named_numbers,
    number_text,
    plain_text,
    range_text,
)
from prodkit.decisions.economy import Economics
from prodkit.decisions.triangle import Triangle
from prodkit.drift.profiles import ColumnProfile
from prodkit.models.metrics import calibration_curve
from prodkit.params import Task

__all__ = [
    "draw_calibration",
    "draw_daily",
    "draw_differences",
    "draw_distributions",
    "draw_drift",
    "draw_folds",
    "draw_importance",
    "draw_latency_tail",
    "draw_learning_curve",
    "draw_panels",
    "draw_rising_load",
    "draw_scores",
    "draw_staleness",
    "draw_threshold_costs",
    "draw_volume_cost",
]

_TOP_COLUMNS, _TOP_ROWS = 12, 20


def _day(moment: Any) -> str:
    stamp = pd.Timestamp(moment)
    return "" if pd.isna(stamp) else stamp.strftime("%Y-%m-%d")


def _padded(*values: ArrayLike) -> tuple[float, float]:
    """Both ends of an axis with some room around the finite ones of these values."""
    numbers = np.hstack(values)
    low, high = (float(end(numbers[np.isfinite(numbers)])) for end in (np.min, np.max))
    margin = 0.08 * ((high - low) or 1.0)
    return low - margin, high + margin


def draw_drift(table: pd.DataFrame, *, floor: float) -> Chart:
    """The largest shift of each column, in the order given, as :func:`prodkit.drift.compare.comparison` ranks them.

    Args:
        table: index column; columns effect, damage and drifted, and where known ``missing_`` and ``unseen_`` ones of
            the same meaning, and ``floor``: what an effect must reach besides.
        floor: what every effect must reach.
    """
    sheet = Sheet("What changed, the most harmful first", grid="x")
    if table.empty:
        return sheet.nothing("no column could be compared")
    shown = table.head(_TOP_COLUMNS)
    names = {"effect": "", "missing_effect": "missing values", "unseen_effect": "unseen levels"}
    names = {name: kind for name, kind in names.items() if name in shown}
    effects = shown[list(names)].fillna(0.0).to_numpy(float)
    effect, kinds = effects.max(axis=1), [list(names.values())[place] for place in effects.argmax(axis=1)]
    flags = [name for name in ("drifted", "missing_drifted", "unseen_drifted") if name in shown]
    drifted = (shown[flags] == True).any(axis=1).to_numpy()  # noqa: E712 -- a missing flag is no drift
    damage = shown["damage"] if "damage" in shown else [math.nan] * len(shown)
    notes = [", ".join(filter(None, pair)) for pair in zip(map(_damage, damage), kinds, strict=True)]
    places = sheet.rows(shown.index, notes)
    sheet.axes.barh(places, effect, color=np.where(drifted, RED, "#9DB7C9").tolist(), height=0.62)
    limits = shown["floor"].fillna(0.0).clip(lower=floor) if "floor" in shown else [floor] * len(shown)
    sheet.axes.vlines(limits, places - 0.36, places + 0.36, color=INK, linewidth=1.6)
    sheet.mark(floor, f"ignored below {number_text(floor)}", color=GREY)
    sheet.axes.set_xlim(0, 1.08 * max(effect.max(), *limits, 0.01))
    count = f"{counted(len(shown), 'column', total=len(table))}, {drifted.sum()} drifted"
    digest = f"drift: {count}; first {named_numbers(shown.index[:3], effect[:3])}"
    return sheet.chart("Jensen-Shannon distance of the column (mark: its limit; red: drifted)", "", digest)


def _damage(number: float) -> str:
    if not math.isfinite(number):
        return ""
    return f"damage {number:.2g}" if number >= 1e-4 or number == 0 else "damage < 0.0001"


def draw_distributions(reference: ColumnProfile, current: ColumnProfile, *, name: str) -> Chart:
    """Shares of rows of a column by bin, or of its most frequent levels, in the reference and in this window."""
    sheet = Sheet(f"{plain_text(name)}: this window against the reference")
    then, now, x = _shares(reference), _shares(current), plain_text(name)
    if not (then.sum() and now.sum()):
        return sheet.nothing("no row has a value")
    if reference.kind in ("categorical", "boolean"):
        order = np.argsort(-(then + now), kind="stable")[:_TOP_COLUMNS]
        places = np.arange(len(order))
        sheet.axes.bar(places - 0.2, then[order], width=0.38, color=BLUE)
        sheet.axes.bar(places + 0.2, now[order], width=0.38, color=RED)
        sheet.axes.set_xticks(
            places, [plain_text(reference.bins.names[level], max(6, 84 // len(order))) for level in order]
        )
        sheet.axes.set_xlim(-0.6, max(len(order), 3) - 0.4)
        sheet.key()
    else:
        _draw_steps(sheet, reference, then, now)
        x += " (bins of the reference, evenly drawn)"
    gaps = np.abs(now - then)
    most = f"largest change {number_text(then[gaps.argmax()])} to {number_text(now[gaps.argmax()])}"
    moved = f"share that moved {number_text(gaps.sum() / 2)}"
    return sheet.chart(x, "share of rows", f"{plain_text(name)}: {counted(len(now), 'bin')}, {moved}, {most}")


def draw_scores(reference: ColumnProfile, current: ColumnProfile, *, title: str) -> Chart:
    """Shares of rows by score, of two sets of rows that a model answered."""
    sheet, then, now = Sheet(title, height=2.9), _shares(reference), _shares(current)
    if not now.sum():
        return sheet.nothing("no row was scored")
    _draw_steps(sheet, reference, then, now)
    moved = f"share that moved {number_text(np.abs(now - then).sum() / 2)}"
    digest = f"scores: {counted(len(now), 'bin')}, largest share {number_text(now.max())}, {moved}"
    return sheet.chart("score (bins of the reference, evenly drawn)", "share of rows", digest)


def _shares(column: ColumnProfile) -> Floats:
    return np.asarray(column.counts / max(column.counts.sum(), 1), dtype=float)


def _draw_steps(sheet: Sheet, column: ColumnProfile, then: Floats, now: Floats) -> None:
    """Two histograms over the same bins, evenly wide, since bins of equal mass are not."""
    cuts, size = column.bins.cuts, len(now)
    low, high = (end if end is not None else 0.0 for end in (column.min, column.max))
    edges = [min(low, *cuts, high), *cuts, max(high, *cuts, low)]
    sheet.axes.stairs(now, color=RED, fill=True, alpha=0.22)
    sheet.axes.stairs(now, color=RED, linewidth=1.8)
    sheet.axes.stairs(then, color=BLUE, linewidth=1.8)
    ticks = range(0, size + 1, math.ceil((size + 1) / 7))
    sheet.axes.set_xticks(ticks, [number_text(float(f"{edges[tick]:.3g}")) for tick in ticks])
    sheet.axes.set_xlim(0, size)
    sheet.axes.set_ylim(0, 1.12 * max(now.max(), then.max()))
    sheet.key()


def draw_differences(
    table: pd.DataFrame,
    *,
    unit: str,
    limit: float | None = None,
    title: str = "Difference, with its interval",
) -> Chart:
    """A forest plot against a limit: index name, columns value, low, high; the first twenty are drawn.

    Without a limit for all, the column limit has that of each. Red is what lies beyond the limit with its whole
    interval. An interval with an infinite end is marked open and runs off the figure.
    """
    sheet, table = Sheet(title, grid="x"), finite_rows(table, "value")
    if table.empty:
        return sheet.nothing("no difference was measured")
    shown = table.head(_TOP_ROWS)
    value, (low, high) = shown["value"].to_numpy(float), interval_ends(shown, "value")
    limits = shown["limit"].to_numpy(float) if limit is None else np.full(len(shown), limit)
    beyond = (low > limits) & (limits >= 0) | (high < limits) & (limits <= 0)
    left, right = _padded(value, low, high, limits, [0.0])
    digits = max(0, 2 - math.floor(math.log10(right - left)))
    ends = np.where(np.isfinite([low, high]).all(axis=0), "", " open")
    notes = [f"{number:+.{digits}f}{end}" for number, end in zip(value, ends, strict=True)]
    places = sheet.rows(shown.index, [note.replace("-", "\u2212") for note in notes])
    for color, group in ((BLUE, ~beyond), (RED, beyond)):
        reach = low[group].clip(left, right), high[group].clip(left, right)
        sheet.whiskers(value[group], places[group], reach, color, along="x")
    sheet.axes.axvline(0, color=GREY, linewidth=0.8)
    if limit is None:
        sheet.axes.vlines(limits, places - 0.36, places + 0.36, color=INK, linewidth=1.6)
        unit = f"{unit} (mark: its limit)"
    else:
        sheet.mark(limit, f"limit {number_text(limit)}")
    sheet.axes.set_xlim(left, right)
    names = named_numbers(shown.index[:4], value[:4]) + (", ..." if len(shown) > 4 else "")
    edge = "its limit" if limit is None else number_text(limit)
    count = f"{counted(len(shown), 'difference', total=len(table))}, {beyond.sum()} beyond {edge}"
    return sheet.chart(plain_text(unit, 90), "", f"{count}: {names}")


def draw_calibration(y_true: ArrayLike, y_pred: ArrayLike, *, task: Task, title: str) -> Chart:
    """Predictions against what happened: shares (means for regression) in bins of equal mass."""
    curve = calibration_curve(y_true, y_pred, task=task)
    sheet, curve = Sheet(title, height=3.4), finite_rows(curve, "predicted", "observed")
    if curve.empty:
        return sheet.nothing("no bin holds a prediction")
    unit = "mean" if task == "regression" else "share"
    x, y = curve["predicted"].to_numpy(float), curve["observed"].to_numpy(float)
    ends = interval_ends(curve, "observed")
    low, top = 0.0, min(1.0, 1.06 * max(x.max(), ends[1].max(), 0.05))
    if unit == "mean":
        low, top = _padded(x, *ends)
    sheet.line([low, top], [low, top], GREY, name="as predicted", linewidth=1, linestyle=DASHED)
    sheet.whiskers(x, y, ends, BLUE)
    sheet.line(x, y, BLUE, linewidth=1, alpha=0.5)
    sheet.axes.set(xlim=(low, top), ylim=(low, top))
    spans = f"predicted {range_text(x)}, observed {range_text(y)}"
    digest = f"calibration: {counted(len(x), 'bin')}, {spans}, worst gap {number_text(np.abs(x - y).max())}"
    axis = f"predicted {unit}, mean of a bin ({len(x)} of equal mass)"
    return sheet.chart(axis, f"observed {unit}, 95% interval", digest)


def draw_folds(scores: pd.DataFrame, *, metric: str) -> Chart:
    """The score of each time-ordered fold: index fold, columns train_end, value, low, high."""
    name = plain_text(metric)
    sheet, scores = Sheet(f"{name} in time-ordered folds", height=2.9), finite_rows(scores, "value")
    if scores.empty:
        return sheet.nothing("no fold has a score")
    x, y = np.arange(len(scores), dtype=float), scores["value"].to_numpy(float)
    sheet.level(y.mean(), "mean", color=GREY)
    sheet.whiskers(x, y, interval_ends(scores, "value"), BLUE)
    days = [_day(moment) for moment in scores.get("train_end", pd.Series(pd.NaT, scores.index))]
    labels = [f"fold {plain_text(fold, 10)}\n{day}" for fold, day in zip(scores.index, days, strict=True)]
    step = math.ceil(len(x) / 7)
    sheet.axes.set_xticks(x[::step], labels[::step])
    sheet.axes.set_xlim(-0.5, len(x) - 0.5)
    digest = f"folds: {name} of {counted(len(y), 'fold')}, {range_text(y)}, mean {number_text(y.mean())}"
    return sheet.chart("fold, and the day its training rows end", f"{name} on the rows after it", digest)


def draw_importance(table: pd.DataFrame, *, unit: str) -> Chart:
    """What shuffling a column costs: index column, columns mean and sd; the twelve largest are drawn."""
    sheet = Sheet("What the model relies on", grid="x")
    table = finite_rows(table, "mean").sort_values("mean", ascending=False, kind="stable")
    if table.empty:
        return sheet.nothing("no column has an importance")
    shown = table.head(_TOP_COLUMNS)
    value, places = shown["mean"].to_numpy(float), sheet.rows(shown.index)
    sheet.axes.barh(places, value, color=BLUE, height=0.62)
    spread = shown.get("sd", 0 * shown["mean"]).fillna(0)
    sheet.axes.errorbar(value, places, xerr=spread, fmt="none", ecolor=INK, elinewidth=1.2)
    sheet.axes.axvline(0, color=INK, linewidth=0.8)
    count = counted(len(shown), "column", total=len(table))
    digest = f"importance: {count}; first {named_numbers(shown.index[:3], value[:3])}"
    return sheet.chart(f"{plain_text(unit, 60)} (line: one standard deviation)", "", digest)


def draw_learning_curve(table: pd.DataFrame, *, metric: str) -> Chart:
    """Score against rows learned from: columns rows, train, validation."""
    name = plain_text(metric)
    sheet = Sheet(f"Would more rows help? {name} against training rows", height=2.9)
    table = finite_rows(table, "rows", "validation").sort_values("rows", kind="stable")
    if table.empty:
        return sheet.nothing("no training size was tried")
    rows, held_out = table["rows"].to_numpy(float), table["validation"].to_numpy(float)
    sheet.line(rows, table["train"].to_numpy(float), GREY, name="training", marker="o", markersize=4)
    sheet.line(rows, held_out, BLUE, name="validation", marker="o", markersize=4)
    sheet.number_x(rows, log=rows[-1] >= 8 * max(rows[0], 1))
    sizes, scores = (f"{number_text(each[0])} to {number_text(each[-1])}" for each in (rows, held_out))
    return sheet.chart("training rows", name, f"learning curve: {sizes} rows, validation {name} {scores}")


def draw_staleness(triangle: Triangle | None, economics: Economics | None, *, note: str = "") -> Chart:
    """How much more models lose as they age: each probe, their line, the champion's windows, and from where it pays.

    Args:
        triangle: what models of each age lost.
        economics: of a training, by these.
        note: a sentence that stands below.
    """
    sheet = Sheet("How fast do models age, and from when on does a training pay?", height=3.2)
    if triangle is None or economics is None or not economics.result.recipe:
        return sheet.nothing("no model could be fitted and asked about a later step")
    probes, own = triangle.staleness(economics.result.recipe)
    if probes.empty:
        return sheet.nothing("no model is old enough yet")
    a_day = economics.result.slope / economics.unit / (triangle.step.total_seconds() / 86_400)
    level = economics.result.threshold / economics.result.window_rows / economics.unit
    last = max(probes.index.max(), own.index.max() if len(own) else 0.0)
    sheet.axes.plot(probes.index, probes, linestyle="", marker="o", markersize=3.5, color=GREY, alpha=0.6)
    sheet.line([0, last], [0, a_day * last], BLUE, name="models on average")
    if len(own):
        sheet.axes.plot(own.index, own, linestyle="", marker="x", markersize=8, color=RED, mew=2)
    sheet.level(level, "pays from")
    days = f", so every {level / a_day:.0f} days" if a_day > 0 else ""
    digest = f"{counted(len(probes), 'probe')}; {number_text(100 * a_day)} of skill lost in 100 days; "
    digest += f"a training pays from {number_text(level)}{days}"
    digest += f"; the champion {range_text(own)}" if len(own) else ""
    x = "age of the model, days (crosses: the champion, window by window)"
    return sheet.chart(
        "\n".join(filter(None, (x, note))), "further loss, skill", f"{digest}{note and '; '}{note}"
    )


def draw_threshold_costs(table: pd.DataFrame, *, threshold: float, title: str) -> Chart:
    """Cost of a hundred rows against the threshold: index threshold, a column for each candidate; one is picked."""
    sheet, table = Sheet(title), table.dropna(axis="columns", how="all")
    if table.empty:
        return sheet.nothing("no row has a prediction")
    costs = []
    for column, color in zip(table.columns, LINES, strict=False):
        cost = table[column]
        sheet.line(cost.index, cost.to_numpy(), color, name=column)
        sheet.axes.plot([threshold], [cost[threshold]], marker="o", markersize=6, color=color)
        least = f"least {number_text(cost.min())} at {number_text(cost.index[int(cost.argmin())])}"
        costs.append(f"{plain_text(column)} {number_text(float(cost[threshold]))}, {least}")
    sheet.mark(threshold, f"threshold {number_text(threshold)}")
    if len(table) > 1:
        sheet.axes.set_xlim(float(table.index[0]), float(table.index[-1]))
    sheet.axes.set_ylim(0, 1.08 * float(np.nanmax(table.to_numpy())) or 1.0)
    digest = f"cost at threshold {number_text(threshold)}: {'; '.join(costs[:4])}"
    return sheet.chart("called from this prediction on", "cost of 100 rows, in false alarms", digest)


def draw_rising_load(table: pd.DataFrame, *, limit: float | None = None) -> Chart:
    """99th percentile of each who was loaded against the rate: index asked, columns rate, p99, p99_low, p99_high."""
    sheet = Sheet("Latency against load: 99th percentile, from when a request was due", height=3.1)
    table = finite_rows(table, "rate", "p99").query("p99 > 0")
    if table.empty:
        return sheet.nothing("nobody was loaded")
    sheet.axes.set_yscale("log")
    spans, everybody = [], list(dict.fromkeys(table.index))
    for number, who in enumerate(everybody):
        steps, color = table.loc[[who]], LINES[number % len(LINES)]
        shift = 1 + 0.012 * (number - (len(everybody) - 1) / 2)  # keeps whiskers apart
        x, y = steps["rate"].to_numpy(float) * shift, steps["p99"].to_numpy(float)
        sheet.whiskers(x, y, interval_ends(steps, "p99", prefix="p99_"), color)
        sheet.line(x, y, color, name=who, linewidth=1, alpha=0.5)
        spans.append(f"{plain_text(who)} {range_text(y)} ms")
    sheet.level(limit, "limit", color=GREY)
    rates = np.unique(table["rate"].to_numpy(float))
    sheet.number_x(rates)
    sheet.number_log_y()
    digest = f"load: {counted(len(rates), 'rate')}, {range_text(rates)} a second; {', '.join(spans[:4])}"
    return sheet.chart("requests a second", "milliseconds, 95% interval", digest)


def draw_latency_tail(latencies: Mapping[str, ArrayLike], *, rate: float, limit: float) -> Chart:
    """How long the slowest wait at one rate: (n,) milliseconds of each who was loaded, on logarithmic axes."""
    sheet = Sheet(f"Who waits how long at {number_text(rate)} requests a second", height=3.1)
    waits = {who: np.sort(np.asarray(each, dtype=float)) for who, each in latencies.items()}
    waits = {who: each[each > 0] for who, each in waits.items() if (each > 0).any()}
    if not waits:
        return sheet.nothing("nobody was loaded")
    sheet.axes.set_yscale("log")
    for (who, values), color in zip(waits.items(), LINES, strict=False):
        slower = (len(values) - np.arange(len(values))) / len(values)
        sheet.line(slower, values, color, name=who, drawstyle="steps-post")
    sheet.level(limit, "limit")
    least = min(1 / len(values) for values in waits.values())
    sheet.number_x([share for share in (1, 0.1, 0.01, 0.001, 0.0001) if share >= least], log=True)
    sheet.axes.set_xlim(1.0, min(least, 0.5))
    sheet.number_log_y()
    slowest = ", ".join(
        f"{plain_text(who)} at most {number_text(each[-1])} ms" for who, each in waits.items()
    )
    digest = f"tail at {number_text(rate)} a second, limit {number_text(limit)} ms: {slowest}"
    return sheet.chart("share of requests that waited at least so long (log)", "milliseconds (log)", digest)


def draw_volume_cost(table: pd.DataFrame, *, foreseen: pd.Series[float]) -> Chart:
    """Column seconds against rows (the index), logarithmic, and what a curve fitted to all but the largest foresees."""
    sheet = Sheet("Time against volume, and what the smaller volumes foresee of the largest", height=3.1)
    table = finite_rows(table, "seconds").query("seconds > 0")
    if table.empty:
        return sheet.nothing("nothing was asked")
    sheet.axes.set_yscale("log")
    x, y = table.index.to_numpy(float), table["seconds"].to_numpy(float)
    fitted = foreseen.reindex(table.index).to_numpy(float)
    sheet.line(x, fitted, GREY, linewidth=1, linestyle=DASHED)
    sheet.line(x, y, BLUE, name="measured", linestyle="", marker="o", markersize=5)
    sheet.number_x(x, log=True)
    sheet.number_log_y()
    digest = f"volume: {range_text(x)} rows in {range_text(y)} s"
    if np.isfinite(fitted[-1]):
        digest += f"; the largest took {number_text(y[-1] / fitted[-1])} of what was foreseen"
    return sheet.chart("rows at once (log)", "seconds (log)", digest)


def draw_panels(
    tables: Mapping[str, pd.DataFrame], *, title: str, limits: Mapping[str, float] | None = None
) -> Chart:
    """Small figures side by side, one a metric, over the same windows.

    Args:
        tables: by name of the metric: index window; columns value, low, high, and ``estimated``, where a value was not
            measured but estimated, which is drawn hollow and dashed. A window without a value keeps its place.
        title: of the figure.
        limits: by name of the metric, the limit that is drawn.
    """
    columns = min(2, len(tables))
    rows = math.ceil(len(tables) / max(columns, 1))
    sheet = Sheet(title, height=0.6 + 1.9 * rows)
    if not any(len(finite_rows(table, "value")) for table in tables.values()):
        return sheet.nothing("no sign is known yet")
    spans = []
    for place, (name, table) in enumerate(tables.items(), start=1):
        axes, limit = sheet.panel(rows, columns, place), (limits or {}).get(name)
        axes.set_title(plain_text(name, 44), fontsize=TEXT, color=INK, loc="left")
        values, step = table["value"].to_numpy(float), math.ceil(len(table) / 4)
        axes.set_xticks(range(0, len(table), step), [plain_text(each, 12) for each in table.index[::step]])
        axes.set_xlim(-0.5, len(table) - 0.5)
        measured, count = np.isfinite(values).sum(), ""
        if measured:
            _draw_panel(axes, table, limit=limit)
            count = f" in {measured} of {counted(len(table), 'window')}"
        else:
            axes.set_yticks([])
            sheet.say(axes, "not known yet")
        against = "" if limit is None else f", limit {number_text(limit)}"
        spans.append(f"{plain_text(name, 44)} {range_text(values)}{count}{against}")
    sheet.figure.supxlabel("window, by its first day", fontsize=TEXT, color=INK)
    return sheet.chart("", "", "; ".join(spans))


def _draw_panel(axes: Axes, table: pd.DataFrame, *, limit: float | None) -> None:
    """One metric over the windows, its limit dashed."""
    x, y, (low, high) = np.arange(len(table)), table["value"].to_numpy(float), interval_ends(table, "value")
    known = np.isfinite(y)
    estimated = table.get("estimated", pd.Series(False, table.index)).to_numpy(bool)
    dots = {"marker": "o", "markersize": 5.5, "linestyle": "", "clip_on": False, "color": BLUE}
    for shown, face, line in ((known & ~estimated, BLUE, "solid"), (known & estimated, "white", "dashed")):
        if shown.any():  # unclipped dots that are not there would take all the room
            axes.vlines(x[shown], low[shown], high[shown], color=BLUE, linewidth=1.6, linestyle=line)
            axes.plot(x[shown], y[shown], markerfacecolor=face, **dots)  # type: ignore[arg-type]
    axes.plot(x, y, color=BLUE, linewidth=1, alpha=0.5, zorder=1)
    if y[known].min() == 0 <= low[known].min():  # a share or a count: nothing lies below
        axes.set_ylim(0, 1.15 * max(high[known].max(), limit or 0.0) or 1.0)
    if limit is not None and math.isfinite(limit):
        axes.axhline(limit, color=INK, linewidth=1.2, linestyle=DASHED)
        axes.set_title(f"- - limit {limit:.3g}", fontsize=SMALL, color=INK, loc="right")
    bottom, top = axes.get_ylim()
    whole = limit is None and not (y[known] % 1).any()  # a count has no halves
    ticks = MaxNLocator(4, integer=whole).tick_values(bottom, top)
    axes.set_yticks([tick for tick in ticks if bottom <= tick <= top])


def draw_daily(
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
        title: of the figure.
        marks: by day, what happened on it.
        limit: a level that is drawn across.
    """
    sheet = Sheet(title)
    names = [column for column in table.columns if column not in ("low", "high")][: len(LINES)]
    if not names or not np.isfinite(table[names].to_numpy(float)).any():
        return sheet.nothing("no day has a value")
    table = table.set_axis(pd.to_datetime(table.index)).sort_index()
    days = table.index.to_numpy()
    if {"low", "high"} <= set(table.columns):
        low, high = (table[end].to_numpy(float) for end in ("low", "high"))
        sheet.axes.fill_between(days, low, high, color=BLUE, alpha=0.18, linewidth=0)
    several, dots = len(names) > 1 or limit is not None, "o" if len(days) <= 45 else ""
    for column, color in zip(names, LINES, strict=False):
        look: dict[str, Any] = {"name": column if several else "", "marker": dots, "markersize": 3.5}
        sheet.line(days, table[column].to_numpy(float), color, **look)
    sheet.level(limit, "limit")
    marks = {np.datetime64(day): text for day, text in (marks or {}).items()}
    for place, day in enumerate(day for day in marks if days[0] <= day <= days[-1]):
        sheet.mark(day, plain_text(marks[day]), lift=11 * (place % 2))  # on two levels, for neighbours
    half = np.timedelta64(12, "h")
    sheet.axes.set_xlim(days[0] - half, days[-1] + half)
    locator = AutoDateLocator(minticks=3, maxticks=8)  # type: ignore[no-untyped-call]
    sheet.axes.xaxis.set_major_locator(locator)
    sheet.axes.xaxis.set_major_formatter(ConciseDateFormatter(locator, show_offset=False))  # type: ignore[no-untyped-call]
    spans = "; ".join(f"{plain_text(name)} {range_text(table[name])}" for name in names)
    digest = f"daily: {counted(len(days), 'day')}; {spans}"
    return sheet.chart(f"day, {_day(days[0])} to {_day(days[-1])}", plain_text(unit), digest)
