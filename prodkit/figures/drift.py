"""Figures of drift: which columns moved, and how their values or scores lie over those of the reference."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.patches import StepPatch
from numpy.typing import ArrayLike, NDArray

from prodkit.figures import style
from prodkit.figures.chart import Chart
from prodkit.figures.labels import counted, counted_of, named_numbers, number_text, plain_text
from prodkit.figures.values import finite_shares

__all__ = ["draw_distributions", "draw_drift", "draw_score_histogram"]

_Floats = NDArray[np.float64]


def draw_drift(table: pd.DataFrame, *, floor: float) -> Chart:
    """The largest shift of each column, in the order given, as :func:`prodkit.drift.comparison.comparison` ranks them.

    Index column, columns effect, damage and drifted; if they are there, those called ``missing_`` or ``unseen_`` so,
    and ``floor``, which an effect must reach besides.
    """
    title = "What changed, the most harmful first"
    if table.empty:
        return style.nothing(title, "no column could be compared")
    shown = table.head(style.TOP_COLUMNS)
    effect, drifted, kind = _strongest(shown)
    figure, axes = style.canvas(title, height=style.height_of(len(shown)), grid="x")
    damage = shown["damage"].to_numpy(float) if "damage" in shown else np.full(len(shown), np.nan)
    places = style.name_rows(axes, shown.index)
    axes.barh(places, effect, color=np.where(drifted, style.RED, style.FADED).tolist(), height=0.62)
    limits = shown["floor"].fillna(0.0).clip(lower=floor) if "floor" in shown else np.full(len(shown), floor)
    axes.vlines(limits, places - 0.36, places + 0.36, color=style.INK, linewidth=1.6)
    axes.axvline(floor, color=style.GREY, linewidth=0.9, linestyle=style.DASHED)
    style.label_top(axes, floor, f"ignored below {number_text(floor)}")
    harm = [_damage(number) if math.isfinite(number) else "" for number in damage]
    style.note_rows(axes, places, [", ".join(filter(None, pair)) for pair in zip(harm, kind, strict=True)])
    axes.set_xlim(0, 1.08 * max(effect.max(), *limits, 0.01))
    style.name_axes(axes, "shift of the column, Jensen-Shannon distance (mark: its limit; red: drifted)", "")
    names = ", ".join(named_numbers(shown.index[:3], effect[:3]))
    count = counted_of(len(shown), len(table), "column")
    return style.captioned(figure, title, f"drift: {count}, {drifted.sum()} drifted; first {names}")


def _damage(number: float) -> str:
    return f"damage {number:.2g}" if number >= 1e-4 or number == 0 else "damage < 0.0001"


def _strongest(table: pd.DataFrame) -> tuple[_Floats, NDArray[np.bool_], list[str]]:
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


def draw_distributions(
    reference: ArrayLike, current: ArrayLike, *, name: str, labels: Sequence[Any]
) -> Chart:
    """Shares of rows per bin, now and in the reference.

    Args:
        reference: (bins,) shares of the reference's rows.
        current: (bins,) shares of the window's rows.
        name: the column.
        labels: (bins + 1,) edges of a numeric column, or (bins,) levels, of which the twelve most frequent
            are drawn.
    """
    title = f"{plain_text(name)}: this window against the reference"
    then, now = finite_shares(reference), finite_shares(current)
    if not then.size or not now.size or not (then.sum() + now.sum()):
        return style.nothing(title, "no row has a value")
    figure, axes = style.canvas(title, height=3.0)
    if len(labels) == len(now) + 1:
        _draw_steps(axes, then, now, [float(edge) for edge in labels])
        style.name_axes(axes, f"{plain_text(name)} (bins of the reference, evenly drawn)", "share of rows")
    else:
        _draw_pairs(axes, then, now, labels)
        style.name_axes(axes, plain_text(name), "share of rows")
    gaps = np.abs(now - then)
    most = f"largest change {number_text(then[gaps.argmax()])} to {number_text(now[gaps.argmax()])}"
    moved = f"share that moved {number_text(gaps.sum() / 2)}"
    return style.captioned(figure, title, f"{plain_text(name)}: {counted(len(now), 'bin')}, {moved}, {most}")


def draw_score_histogram(
    current: ArrayLike,
    *,
    reference: ArrayLike | None = None,
    edges: Sequence[float] | None = None,
    title: str = "What the model says",
) -> Chart:
    """Shares (bins,) of rows per score, and those of the reference; ``edges`` are even over 0..1 if not given."""
    now = finite_shares(current)
    then = None if reference is None else finite_shares(reference)
    if not now.size or not now.sum():
        return style.nothing(title, "no row was scored")
    figure, axes = style.canvas(title, height=2.9)
    _draw_steps(
        axes, then, now, list(edges) if edges is not None else np.linspace(0, 1, len(now) + 1).tolist()
    )
    style.name_axes(axes, "score (bins of the reference, evenly drawn)", "share of rows")
    moved = "" if then is None else f", share that moved {number_text(np.abs(now - then).sum() / 2)}"
    return style.captioned(
        figure, title, f"scores: {counted(len(now), 'bin')}, largest share {number_text(now.max())}{moved}"
    )


def _draw_steps(axes: Axes, then: _Floats | None, now: _Floats, edges: Sequence[float]) -> None:
    """Two histograms over the same bins, drawn evenly wide since the bins of equal mass are not."""
    size = len(now)
    places = np.arange(size + 1, dtype=float)
    # `axes.stairs` would also look for the limits of the axes, which takes a third of the figure's time
    axes.add_artist(StepPatch(now, places, color=style.RED, fill=True, alpha=0.22))
    axes.add_artist(StepPatch(now, places, edgecolor=style.RED, fill=False, linewidth=1.8))
    if then is not None:
        axes.add_artist(StepPatch(then, places, edgecolor=style.BLUE, fill=False, linewidth=1.8))
        _key(axes)
    step = math.ceil((size + 1) / 7)
    ticks = [tick for tick in range(0, size + 1, step) if math.isfinite(edges[tick])]
    axes.set_xticks(ticks, [number_text(float(f"{edges[tick]:.3g}")) for tick in ticks])
    axes.set_xlim(0, size)
    axes.set_ylim(0, 1.12 * max(now.max(), 0 if then is None else then.max()))


def _draw_pairs(axes: Axes, then: _Floats, now: _Floats, levels: Sequence[Any]) -> None:
    """Paired bars of the most frequent levels."""
    order = np.argsort(-(then + now), kind="stable")[: style.TOP_COLUMNS]
    places = np.arange(len(order), dtype=float)
    axes.bar(places - 0.2, then[order], width=0.38, color=style.BLUE)
    axes.bar(places + 0.2, now[order], width=0.38, color=style.RED)
    width = max(6, 84 // len(order))  # characters that fit under a pair of bars
    axes.set_xticks(places, [plain_text(levels[level], width) for level in order])
    axes.set_xlim(-0.6, max(len(order), 3) - 0.4)
    axes.set_ylim(0, 1.12 * max(then.max(), now.max()))
    _key(axes)


def _key(axes: Axes) -> None:
    """What the two colours mean, in those colours, above the right corner."""
    for name, color, left in (("this window", style.RED, 0), ("reference", style.BLUE, -82)):
        axes.annotate(
            f"■ {name}", (1, 1), xycoords="axes fraction", xytext=(left, 3),
            textcoords="offset points", ha="right", va="bottom", fontsize=style.SMALL, color=color,
        )  # fmt: skip
