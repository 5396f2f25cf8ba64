"""Differences with their intervals, against a limit."""

from __future__ import annotations

import math

import numpy as np
import pandas as pd

from prodkit.figures import style
from prodkit.figures.chart import Chart
from prodkit.figures.labels import counted_of, named_numbers, number_text, plain_text
from prodkit.figures.values import finite_rows, interval_ends, padded_range

__all__ = ["draw_differences"]


def draw_differences(
    table: pd.DataFrame,
    *,
    unit: str,
    limit: float | None = None,
    title: str = "Difference, with its interval",
) -> Chart:
    """A forest plot against a limit: index name, columns value, low, high; the first twenty are drawn.

    Without a limit for all, the column limit has that of each. Red is what lies beyond the limit with its whole
    interval. An interval with an infinite end is called open and runs off the figure.
    """
    table = finite_rows(table, "value")
    if table.empty:
        return style.nothing(title, "no difference was measured")
    shown = table.head(style.TOP_ROWS)
    figure, axes = style.canvas(title, height=style.height_of(len(shown)), grid="x")
    value, (low, high) = shown["value"].to_numpy(float), interval_ends(shown, "value")
    limits = shown["limit"].to_numpy(float) if limit is None else np.full(len(shown), limit)
    beyond = (low > limits) & (limits >= 0) | (high < limits) & (limits <= 0)
    known = np.concatenate([value, low, high, limits, [0.0]])
    left, right = padded_range(known[np.isfinite(known)])
    places = style.name_rows(axes, shown.index)
    for color, group in ((style.BLUE, ~beyond), (style.RED, beyond)):
        ends = low[group].clip(left, right), high[group].clip(left, right)
        style.draw_whiskers(axes, value[group], places[group], ends, color=color, along="x")
    axes.axvline(0, color=style.GREY, linewidth=0.8)
    if limit is None:
        axes.vlines(limits, places - 0.36, places + 0.36, color=style.INK, linewidth=1.6)
        unit = f"{unit} (mark: its limit)"
    else:
        axes.axvline(limit, color=style.INK, linewidth=1.2, linestyle=style.DASHED)
        style.label_top(axes, limit, f"limit {number_text(limit)}")
    digits = max(0, 2 - math.floor(math.log10(right - left)))
    bounded = np.isfinite(low) & np.isfinite(high)
    notes = [
        f"{number:+.{digits}f}" + ("" if safe else " open")
        for number, safe in zip(value, bounded, strict=True)
    ]
    style.note_rows(axes, places, [note.replace("-", "\u2212") for note in notes])
    axes.set_xlim(left, right)
    style.name_axes(axes, plain_text(unit, 90), "")
    found = ", ".join(named_numbers(shown.index[:4], value[:4])) + (", ..." if len(shown) > 4 else "")
    edge = "its limit" if limit is None else number_text(limit)
    count = f"{counted_of(len(shown), len(table), 'difference')}, {beyond.sum()} beyond {edge}"
    return style.captioned(figure, title, f"{count}: {found}")
