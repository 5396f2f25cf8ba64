"""Figures of load: latency against the rate, how long the slowest wait, and time against volume."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike

from prodkit.figures import style
from prodkit.figures.chart import Chart
from prodkit.figures.labels import counted, number_text, plain_text, range_text
from prodkit.figures.values import finite_rows, interval_ends

__all__ = ["draw_latency_tail", "draw_rising_load", "draw_volume_cost"]


def draw_rising_load(table: pd.DataFrame, *, limit: float | None = None) -> Chart:
    """99th percentile of each who was loaded against the rate: index asked, columns rate, p99, p99_low, p99_high."""
    title = "Latency against load: 99th percentile, from when a request was due"
    table = finite_rows(table, "rate", "p99")
    table = table if table.empty else table[table["p99"] > 0]
    if table.empty:
        return style.nothing(title, "nobody was loaded")
    figure, axes = style.canvas(title, height=3.1)
    axes.set_yscale("log")
    finals, said = {}, []
    everybody = list(dict.fromkeys(table.index))
    for number, who in enumerate(everybody):
        steps, color = table.loc[[who]], style.LINES[number % len(style.LINES)]
        x, y = steps["rate"].to_numpy(float), steps["p99"].to_numpy(float)
        shifted = x * (1 + 0.012 * (number - (len(everybody) - 1) / 2))  # lest the whiskers hide one another
        style.draw_whiskers(
            axes,
            shifted,
            y,
            interval_ends(steps.rename(columns={"p99_low": "low", "p99_high": "high"}), "p99"),
            color=color,
        )
        axes.plot(shifted, y, color=color, linewidth=1, alpha=0.5)
        finals[plain_text(who)] = y[-1], color
        said.append(f"{plain_text(who)} {range_text(y)} ms")
    if limit is not None:
        axes.axhline(limit, color=style.GREY, linewidth=1, linestyle=style.DASHED)
        finals[f"limit {number_text(limit)}"] = limit, style.GREY
    rates = np.unique(table["rate"].to_numpy(float))
    axes.set_xticks(rates, [number_text(rate) for rate in rates])
    style.number_log_axis(axes)
    style.label_ends(axes, finals)
    style.name_axes(axes, "requests a second", "milliseconds, 95% interval")
    return style.captioned(
        figure,
        title,
        f"load: {counted(len(rates), 'rate')}, {range_text(rates)} a second; {', '.join(said[:4])}",
    )


def draw_latency_tail(latencies: Mapping[str, ArrayLike], *, rate: float, limit: float) -> Chart:
    """How long the slowest wait at one rate: (n,) milliseconds of each who was loaded, on logarithmic axes."""
    title = f"Who waits how long at {number_text(rate)} requests a second"
    sorted_ms = {who: np.sort(np.asarray(each, dtype=float)) for who, each in latencies.items()}
    sorted_ms = {who: each[each > 0] for who, each in sorted_ms.items() if (each > 0).any()}
    if not sorted_ms:
        return style.nothing(title, "nobody was loaded")
    figure, axes = style.canvas(title, height=3.1)
    axes.set_yscale("log")
    axes.set_xscale("log")
    finals, said = {}, []
    for (who, values), color in zip(sorted_ms.items(), style.LINES, strict=False):
        slower = (len(values) - np.arange(len(values))) / len(values)
        axes.step(slower, values, color=color, linewidth=1.6, where="post")
        finals[plain_text(who)] = values[-1], color
        said.append(f"{plain_text(who)} at most {number_text(values[-1])} ms")
    axes.axhline(limit, color=style.INK, linewidth=1.2, linestyle=style.DASHED)
    finals[f"limit {number_text(limit)}"] = limit, style.INK
    least = min(1 / len(values) for values in sorted_ms.values())
    shares = [share for share in (1, 0.1, 0.01, 0.001, 0.0001) if share >= least]
    axes.set_xticks(shares, [f"{share:.4g}" for share in shares])
    axes.set_xlim(1.0, min(least, 0.5))
    style.number_log_axis(axes)
    style.label_ends(axes, finals)
    style.name_axes(axes, "share of requests that waited at least so long (log)", "milliseconds (log)")
    return style.captioned(
        figure,
        title,
        f"tail at {number_text(rate)} a second, limit {number_text(limit)} ms: {', '.join(said)}",
    )


def draw_volume_cost(table: pd.DataFrame, *, foreseen: pd.Series[float]) -> Chart:
    """Seconds against rows on logarithmic axes, and the curve fitted to all but the largest volume.

    Args:
        table: index rows; column seconds.
        foreseen: by the curve, for the same rows.
    """
    title = "Time against volume, and what the smaller volumes foresee of the largest"
    table = finite_rows(table, "seconds")
    table = table if table.empty else table[table["seconds"] > 0]
    if table.empty:
        return style.nothing(title, "nothing was asked")
    figure, axes = style.canvas(title, height=3.1)
    axes.set_xscale("log")
    axes.set_yscale("log")
    x, y = table.index.to_numpy(float), table["seconds"].to_numpy(float)
    fitted = foreseen.reindex(table.index).to_numpy(float)
    axes.plot(x, fitted, color=style.GREY, linewidth=1, linestyle=style.DASHED)
    axes.plot(x, y, "o", color=style.BLUE, markersize=5)
    axes.set_xticks(x, [number_text(rows) for rows in x])
    axes.minorticks_off()
    style.number_log_axis(axes)
    style.label_ends(axes, {"measured": (y[-1], style.BLUE)})
    style.name_axes(axes, "rows at once (log)", "seconds (log)")
    known = np.isfinite(fitted[-1])
    told = f"; the largest took {number_text(y[-1] / fitted[-1])} of what was foreseen" if known else ""
    return style.captioned(figure, title, f"volume: {range_text(x)} rows in {range_text(y)} s{told}")
