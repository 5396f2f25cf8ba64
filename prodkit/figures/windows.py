"""Figures over time: signs by window, lines by day."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.dates import AutoDateLocator, ConciseDateFormatter, date2num
from matplotlib.ticker import MaxNLocator
from numpy.typing import NDArray

from prodkit.figures import style
from prodkit.figures.chart import Chart
from prodkit.figures.labels import counted, day_text, number_text, plain_text, range_text
from prodkit.figures.values import finite_rows, interval_ends

__all__ = ["draw_daily", "draw_panels"]


def draw_panels(
    tables: Mapping[str, pd.DataFrame], *, title: str, limits: Mapping[str, float] | None = None
) -> Chart:
    """Small figures side by side, one a sign, over the same windows.

    Args:
        tables: by name of the sign: index window; columns value, low, high, and ``estimated``, where a value was not
            measured but estimated, which is drawn hollow and dashed. A window without a value keeps its place.
        title: what they are about.
        limits: by name of the sign, the value that it is held against.
    """
    if not any(len(finite_rows(table, "value")) for table in tables.values()):
        return style.nothing(title, "no sign is known yet")
    columns = min(2, len(tables))
    rows = math.ceil(len(tables) / columns)
    figure = style.sheet(title, height=0.6 + 1.9 * rows)
    said = []
    for place, (name, table) in enumerate(tables.items(), start=1):
        axes = figure.add_subplot(rows, columns, place)
        limit = (limits or {}).get(name)
        _draw_panel(axes, table, limit=limit)
        axes.set_title(plain_text(name, 44), fontsize=style.TEXT, color=style.INK, loc="left")
        known = np.isfinite(table["value"].to_numpy(float))
        against = "" if limit is None else f", limit {number_text(limit)}"
        count = f" in {known.sum()} of {counted(len(table), 'window')}" if known.any() else ""
        said.append(f"{plain_text(name, 44)} {range_text(table['value'].to_numpy(float))}{count}{against}")
    figure.supxlabel("window, by its first day", fontsize=style.TEXT, color=style.INK)
    return style.captioned(figure, title, "; ".join(said))


def _draw_panel(axes: Axes, table: pd.DataFrame, *, limit: float | None) -> None:
    """One sign over the windows, its limit dashed."""
    style.bare_axes(axes)
    places, values = np.arange(len(table), dtype=float), table["value"].to_numpy(float)
    step = math.ceil(len(table) / 4)
    axes.set_xticks(places[::step], [plain_text(name, 12) for name in table.index[::step]])
    axes.set_xlim(-0.5, len(table) - 0.5)
    known = np.isfinite(values)
    if not known.any():
        axes.set_yticks([])
        axes.text(0.5, 0.5, "not known yet", transform=axes.transAxes, ha="center", va="center",
                  fontsize=style.TEXT, color=style.GREY)  # fmt: skip
        return
    guessed = table["estimated"].to_numpy(bool) if "estimated" in table else np.zeros(len(table), dtype=bool)
    low, high = interval_ends(table, "value")
    for shown, face, line in ((known & ~guessed, style.BLUE, "solid"), (known & guessed, "white", "dashed")):
        if not shown.any():
            continue  # unclipped dots that are not there would take all the room
        axes.vlines(places[shown], low[shown], high[shown], color=style.BLUE, linewidth=1.6, linestyle=line)
        axes.plot(places[shown], values[shown], linestyle="", marker="o", markersize=5.5, color=style.BLUE,
                  markerfacecolor=face, clip_on=False, zorder=3)  # fmt: skip
    axes.plot(places, values, color=style.BLUE, linewidth=1, alpha=0.5)
    if values[known].min() == 0 <= low[known].min():  # a share or a count: style.nothing lies below
        axes.set_ylim(0, 1.15 * max(high[known].max(), limit or 0.0) or 1.0)
    if limit is not None and math.isfinite(limit):
        axes.axhline(limit, color=style.INK, linewidth=1.2, linestyle=style.DASHED)
        axes.set_title(f"- - limit {limit:.3g}", fontsize=style.SMALL, color=style.INK, loc="right")
    bottom, top = axes.get_ylim()
    whole = limit is None and not (values[known] % 1).any()  # a count has no halves
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
        title: what the figure is about.
        marks: what happened on which day.
        limit: a level that the lines are held against.
    """
    names = [column for column in table.columns if column not in ("low", "high")][: len(style.LINES)]
    if not names or not np.isfinite(table[names].to_numpy(float)).any():
        return style.nothing(title, "no day has a value")
    table = table.set_axis(pd.to_datetime(table.index)).sort_index()
    figure, axes = style.canvas(title, height=3.0)
    dates = table.index.to_numpy()
    if {"low", "high"} <= set(table.columns):
        low, high = (table[end].to_numpy(float) for end in ("low", "high"))
        axes.fill_between(dates, low, high, color=style.BLUE, alpha=0.18, linewidth=0)
    finals = {}
    for column, color in zip(names, style.LINES, strict=False):
        values = table[column].to_numpy(float)
        dots = "o" if len(dates) <= 45 else ""
        axes.plot(dates, values, color=color, linewidth=1.6, marker=dots, markersize=3.5)
        if (last := values[np.isfinite(values)]).size:
            finals[plain_text(column)] = last[-1], color
    if limit is not None and math.isfinite(limit):
        axes.axhline(limit, color=style.INK, linewidth=1.2, linestyle=style.DASHED)
        finals[f"limit {number_text(limit)}"] = limit, style.INK
    if len(finals) > 1:
        style.label_ends(axes, finals)
    _draw_marks(axes, marks or {}, dates)
    axes.set_xlim(_place(dates[0]) - 0.5, _place(dates[-1]) + 0.5)
    locator = AutoDateLocator(minticks=3, maxticks=8)  # type: ignore[no-untyped-call]
    axes.xaxis.set_major_locator(locator)
    axes.xaxis.set_major_formatter(ConciseDateFormatter(locator, show_offset=False))  # type: ignore[no-untyped-call]
    style.name_axes(axes, f"day, {day_text(dates[0])} to {day_text(dates[-1])}", plain_text(unit))
    found = "; ".join(f"{plain_text(name)} {range_text(table[name].to_numpy(float))}" for name in names)
    return style.captioned(figure, title, f"daily: {counted(len(dates), 'day')}; {found}")


def _place(day: Any) -> float:
    """Where a day lies on matplotlib's axis."""
    return float(date2num(np.datetime64(day)))  # type: ignore[no-untyped-call]


def _draw_marks(axes: Axes, marks: Mapping[Any, str], dates: NDArray[np.datetime64]) -> None:
    """Say what happened on which day, on two levels, as neighbours would overlap on one."""
    inside = {day: text for day, text in marks.items() if dates[0] <= np.datetime64(day) <= dates[-1]}
    for number, (day, text) in enumerate(inside.items()):
        place = _place(day)
        axes.axvline(place, color=style.INK, linewidth=0.9, linestyle=(0, (2, 2)))
        style.label_top(axes, place, plain_text(text), lift=11 * (number % 2))
