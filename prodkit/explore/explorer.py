"""Controls over a figure that is drawn anew whenever one of them is moved."""

from __future__ import annotations

import gc
from collections.abc import Callable, Mapping
from html import escape
from typing import Any

import ipywidgets
import pandas as pd

from prodkit.figures.chart import Chart
from prodkit.figures.svg import svg

__all__ = ["Explorer", "View", "as_table"]

View = tuple[Chart, str]
"""A figure, and what stands beneath it as HTML."""

_LABEL, _CONTROL = "110px", "520px"


class Explorer(ipywidgets.VBox):  # type: ignore[misc]  # ipywidgets has no types
    """Controls over one picture, with its numbers beneath it; both change together.

    The picture is an ``HTML`` widget and not an ``Output``: an Output sends over the very channel that a headless
    client waits on, and can hang it. Where no kernel runs (a report, papermill, nbval) the figure of the first
    values stands there as a picture with its digest.

    It is drawn as SVG, in half the time that its PNG would take. A slider leaves the frame of the figure where it
    is, which saves its layout; any other control lays it out anew.

    Args:
        controls: by name of the argument of ``view`` that each sets.
        view: gives figure and HTML for the values of all controls.
    """

    def __init__(self, controls: Mapping[str, Any], view: Callable[..., View]) -> None:
        self._named, self._view = dict(controls), view
        self._frames: dict[tuple[Any, ...], list[Any]] = {}
        self._still, facts = view(**self.values)
        self._shown = ipywidgets.HTML(svg(self._still) + facts)
        self._shown.layout.width = "100%"
        for name, control in self._named.items():
            control.description = control.description or name
            control.style.description_width = _LABEL
            control.layout.width, control.layout.max_width = _CONTROL, "100%"
            control.observe(self._redraw, names="value")
        super().__init__([*self._named.values(), self._shown])
        self.add_class("prodkit-explorer")

    @property
    def values(self) -> dict[str, Any]:
        """What the controls stand at."""
        return {name: control.value for name, control in self._named.items()}

    @property
    def html(self) -> str:
        """What is shown beneath the controls."""
        return str(self._shown.value)

    def _redraw(self, change: dict[str, Any]) -> None:
        collects = gc.isenabled()
        gc.disable()  # a look through all that the notebook holds takes .15 s; it can wait for the figure
        try:
            chart, facts = self._view(**self.values)
            frame = tuple(repr(control.value) for control in self._named.values() if not _slides(control))
            self._shown.value = svg(chart, places=self._frames.get(frame)) + facts
            self._frames.setdefault(frame, [axes.get_position() for axes in chart.figure.axes])
        except Exception as error:  # nobody sees what an event raises, so it stands where the figure would
            self._shown.value = f"<p><b>{escape(type(error).__name__)}</b>: {escape(str(error))}</p>"
        finally:
            if collects:
                gc.enable()

    def _repr_mimebundle_(self, **kwargs: Any) -> tuple[dict[str, Any], dict[str, Any]]:
        live = super()._repr_mimebundle_(**kwargs) or {}
        still, about = self._still._repr_mimebundle_()
        return {**live, **still}, about


def _slides(control: Any) -> bool:
    return "Slider" in type(control).__name__


def as_table(table: pd.DataFrame, *, caption: str = "") -> str:
    """A table as HTML, its texts escaped; its look is written into it, as a widget has none for tables."""
    look = "border-collapse: collapse; line-height: 1.5; text-align: right; white-space: nowrap"
    side = "caption-side: top; text-align: left; white-space: nowrap; padding: 4px"
    titled = f"<caption style='{side}'>{escape(caption)}</caption>" if caption else ""
    html: str = table.to_html(border=0, escape=True, index_names=False)
    body = html[html.index(">") + 1 :]
    return f"<div style='overflow-x: auto'><table cellpadding='5' style='{look}'>{titled}{body}</div>"
