"""Figures of a model: how well it ranks and is calibrated, what it relies on, what its errors cost."""

from __future__ import annotations

import math

import numpy as np
import pandas as pd

from prodkit.figures import style
from prodkit.figures.chart import Chart
from prodkit.figures.labels import (
    counted,
    counted_of,
    day_text,
    named_numbers,
    number_text,
    plain_text,
    range_text,
)
from prodkit.figures.values import finite_rows, interval_ends, padded_range

__all__ = [
    "draw_calibration_curve",
    "draw_folds",
    "draw_importance",
    "draw_learning_curve",
    "draw_threshold_costs",
]


def draw_calibration_curve(
    curve: pd.DataFrame, *, title: str = "Predicted against observed", unit: str = "share"
) -> Chart:
    """Observed against predicted share, or mean, of each bin of :func:`prodkit.models.metrics.calibration_curve`."""
    curve = finite_rows(curve, "predicted", "observed")
    if curve.empty:
        return style.nothing(title, "no bin holds a prediction")
    figure, axes = style.canvas(title, height=3.4)
    x, y = curve["predicted"].to_numpy(float), curve["observed"].to_numpy(float)
    ends = interval_ends(curve, "observed")
    low, top = 0.0, min(1.0, 1.06 * max(x.max(), ends[1].max(), 0.05))
    if unit != "share":
        low, top = padded_range(np.concatenate([x, *ends]))
    axes.plot([low, top], [low, top], color=style.GREY, linewidth=1, linestyle=style.DASHED)
    style.draw_whiskers(axes, x, y, ends, color=style.BLUE)
    axes.plot(x, y, color=style.BLUE, linewidth=1, alpha=0.5)
    axes.set(xlim=(low, top), ylim=(low, top))
    style.label_ends(axes, {"as predicted": (top, style.GREY)})
    style.name_axes(
        axes, f"predicted {unit}, mean of a bin ({len(x)} of equal mass)", f"observed {unit}, 95% interval"
    )
    gap = np.abs(x - y).max()
    spans = f"predicted {range_text(x)}, observed {range_text(y)}"
    return style.captioned(
        figure, title, f"calibration: {counted(len(x), 'bin')}, {spans}, worst gap {number_text(gap)}"
    )


def draw_folds(scores: pd.DataFrame, *, metric: str) -> Chart:
    """The score of each time-ordered fold: index fold, columns train_end, value, low, high."""
    name = plain_text(metric)
    title = f"{name} in time-ordered folds"
    scores = finite_rows(scores, "value")
    if scores.empty:
        return style.nothing(title, "no fold has a score")
    figure, axes = style.canvas(title, height=2.9)
    x, y = np.arange(len(scores), dtype=float), scores["value"].to_numpy(float)
    axes.axhline(y.mean(), color=style.GREY, linewidth=1, linestyle=style.DASHED)
    style.draw_whiskers(axes, x, y, interval_ends(scores, "value"), color=style.BLUE)
    dates = [day_text(moment) for moment in scores["train_end"]] if "train_end" in scores else [""] * len(x)
    step = math.ceil(len(x) / 7)
    labels = [f"fold {plain_text(fold, 10)}\n{day}" for fold, day in zip(scores.index, dates, strict=True)]
    axes.set_xticks(x[::step], labels[::step])
    axes.set_xlim(-0.5, len(x) - 0.5)
    style.label_ends(axes, {f"mean {number_text(y.mean())}": (y.mean(), style.GREY)})
    style.name_axes(axes, "fold, and the day its training rows end", f"{name} on the rows after it")
    span = f"{counted(len(y), 'fold')}, {range_text(y)}, mean {number_text(y.mean())}"
    return style.captioned(figure, title, f"folds: {name} of {span}")


def draw_importance(table: pd.DataFrame, *, unit: str) -> Chart:
    """What shuffling a column costs: index column, columns mean and sd; the twelve largest are drawn."""
    title = "What the model relies on"
    table = finite_rows(table, "mean").sort_values("mean", ascending=False, kind="stable")
    if table.empty:
        return style.nothing(title, "no column has an importance")
    shown = table.head(style.TOP_COLUMNS)
    figure, axes = style.canvas(title, height=style.height_of(len(shown)), grid="x")
    value = shown["mean"].to_numpy(float)
    spread = shown["sd"].fillna(0).to_numpy(float) if "sd" in shown else np.zeros(len(shown))
    places = style.name_rows(axes, shown.index)
    axes.barh(places, value, color=style.BLUE, height=0.62)
    axes.errorbar(value, places, xerr=spread, fmt="none", ecolor=style.INK, elinewidth=1.2)
    axes.axvline(0, color=style.INK, linewidth=0.8)
    style.name_axes(axes, f"{plain_text(unit, 60)} (line: one standard deviation)", "")
    first = ", ".join(named_numbers(shown.index[:3], value[:3]))
    return style.captioned(
        figure, title, f"importance: {counted_of(len(shown), len(table), 'column')}; first {first}"
    )


def draw_learning_curve(table: pd.DataFrame, *, metric: str) -> Chart:
    """Score against rows learned from: columns rows, train, validation."""
    name = plain_text(metric)
    title = f"Would more rows help? {name} against training rows"
    table = finite_rows(table, "rows", "validation").sort_values("rows", kind="stable")
    if table.empty:
        return style.nothing(title, "no training size was tried")
    figure, axes = style.canvas(title, height=2.9)
    rows = table["rows"].to_numpy(float)
    held = table["validation"].to_numpy(float)
    finals = {}
    for label, values, color in (
        ("training", table["train"].to_numpy(float), style.GREY),
        ("validation", held, style.BLUE),
    ):
        axes.plot(rows, values, color=color, marker="o", markersize=4, linewidth=1.6)
        finals[label] = values[-1], color
    if rows[-1] >= 8 * max(rows[0], 1):
        axes.set_xscale("log")
        axes.minorticks_off()
    axes.set_xticks(rows, [number_text(row) for row in rows])
    style.label_ends(axes, finals)
    style.name_axes(axes, "training rows", name)
    sizes = f"{number_text(rows[0])} to {number_text(rows[-1])} rows"
    ends = f"{number_text(held[0])} to {number_text(held[-1])}"
    return style.captioned(figure, title, f"learning curve: {sizes}, validation {name} {ends}")


def draw_threshold_costs(table: pd.DataFrame, *, threshold: float, title: str) -> Chart:
    """Cost of a hundred rows against the threshold: index threshold, a column for each candidate; one is picked."""
    table = table.dropna(axis="columns", how="all")
    if table.empty or not len(table.columns):
        return style.nothing(title, "no row has a prediction")
    figure, axes = style.canvas(title, height=3.0)
    finals, said = {}, []
    for column, color in zip(table.columns, style.LINES, strict=False):
        cost = table[column]
        at = float(cost[threshold])
        axes.plot(cost.index, cost.to_numpy(), color=color, linewidth=1.6)
        axes.plot([threshold], [at], marker="o", markersize=6, color=color)
        finals[plain_text(column)] = float(cost.iloc[-1]), color
        best = f"least {number_text(cost.min())} at {number_text(float(cost.index[int(cost.argmin())]))}"
        said.append(f"{plain_text(column)} {number_text(at)}, {best}")
    axes.axvline(threshold, color=style.INK, linewidth=1.2, linestyle=style.DASHED)
    style.label_top(axes, threshold, f"threshold {number_text(threshold)}")
    if len(table) > 1:
        axes.set_xlim(float(table.index[0]), float(table.index[-1]))
    axes.set_ylim(0, 1.08 * float(np.nanmax(table.to_numpy())) or 1.0)
    style.label_ends(axes, finals)
    style.name_axes(axes, "called from this prediction on", "cost of 100 rows, in false alarms")
    return style.captioned(
        figure, title, f"cost at threshold {number_text(threshold)}: {'; '.join(said[:4])}"
    )
