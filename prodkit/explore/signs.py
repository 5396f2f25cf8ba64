"""One vital sign over the last windows, against its limit."""

from __future__ import annotations

from functools import partial

import ipywidgets
import pandas as pd

from prodkit.decisions.result import rounded
from prodkit.explore.explorer import Explorer, View, as_table
from prodkit.figures.windows import draw_panels
from prodkit.monitoring.panels import sign_limits
from prodkit.monitoring.vitals import Vitals
from prodkit.params import MonitorParams

__all__ = ["explore_signs"]


def explore_signs(params: MonitorParams, signs: Vitals) -> Explorer:
    """Pick a sign and some of the windows; see it alone against its limit, the latency first."""
    tables, limits = signs.tables(), sign_limits(params, signs)
    controls = {"sign": ipywidgets.Dropdown(options=list(tables))}
    if len(signs.windows) > 1:
        places = [(name[-5:], place) for place, name in enumerate(signs.signs.index)]  # as wide as is shown
        ends = (0, len(places) - 1)
        controls["windows"] = ipywidgets.SelectionRangeSlider(options=places, value=ends)
    states = signs.signs[["version", "rows", "state"]]
    return Explorer(controls, partial(_sign, tables, limits, states))


def _sign(
    tables: dict[str, pd.DataFrame],
    limits: dict[str, float],
    states: pd.DataFrame,
    sign: str,
    windows: tuple[int, int] | None = None,
) -> View:
    first, last = windows or (0, 0)
    part = slice(first, last + 1)
    table, limit = tables[sign].iloc[part], limits.get(sign)
    held = {} if limit is None else {sign: limit}
    chart = draw_panels({sign: table}, title=f"{sign} in the last windows", limits=held)
    told = states.iloc[part].join(rounded(table[["value", "low", "high"]]))
    return chart, as_table(told, caption="" if limit is None else f"limit {limit:.4g}")
