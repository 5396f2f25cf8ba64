"""A column of a window over that of its reference, for any of the window's days."""

from __future__ import annotations

from datetime import date, timedelta
from functools import partial
from html import escape

import ipywidgets

from prodkit.drift.comparison import compare_columns
from prodkit.drift.profiles import Profile
from prodkit.explore.explorer import Explorer, View
from prodkit.figures.summaries import draw_pair

__all__ = ["explore_columns"]

_FIRST_DAY = date(1970, 1, 1)


def explore_columns(
    reference: Profile, current: Profile, *, min_effect: float = 0.1, first: str = ""
) -> Explorer:
    """Pick a column and some of the window's days; see them over the reference, and what the comparison says.

    Args:
        reference: of the rows that the model learned from.
        current: of the window, kept by day.
        min_effect: Jensen-Shannon distance that counts as drift.
        first: the column that is drawn at once, and where nothing can be picked.
    """
    names = sorted(reference.columns, key=lambda name: name != first)  # the others stay in their order
    controls = {"column": ipywidgets.Dropdown(options=names)}
    if len(current.blocks) > 1:
        days = [(f"{_day(block):%d %b}", int(block)) for block in current.blocks]
        ends = (days[0][1], days[-1][1])
        controls["days"] = ipywidgets.SelectionRangeSlider(options=days, value=ends)
    return Explorer(controls, partial(_compared, reference, current, min_effect))


def _compared(
    reference: Profile, current: Profile, min_effect: float, column: str, days: tuple[int, int] | None = None
) -> View:
    then, now = reference.columns[column], current.columns[column]
    if days is not None:
        now = now.between(*days)
    found = compare_columns(then, now)
    limit = max(min_effect, found["floor"])
    span = "the window" if days is None else f"{_day(days[0])} to {_day(days[1])}"
    facts = (
        f"<b>{escape(column)}</b>, {span}, {now.rows:,} rows: "
        f"effect {found['effect']:.3g} (drift from {limit:.3g} on), "
        f"p {found['p_value']:.2g} of this column alone, PSI {found['psi']:.3g}; "
        f"missing {found['missing_current']:.2%}, in the reference {found['missing_reference']:.2%}"
    )
    return draw_pair(then, now, name=column), f"<p>{facts}</p>"


def _day(block: int) -> date:
    return _FIRST_DAY + timedelta(days=int(block))
