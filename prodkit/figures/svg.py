"""A figure as SVG that is drawn, sent and shown within the blink of an eye."""

from __future__ import annotations

import io
import re
from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache
from html import escape
from typing import Any

from matplotlib import rc_context
from matplotlib.backends.backend_svg import RendererSVG
from matplotlib.figure import Figure
from matplotlib.font_manager import FontProperties
from matplotlib.textpath import TextToPath
from matplotlib.transforms import Bbox

from prodkit.figures.chart import Chart

__all__ = ["svg"]

# What is cut out: who made it; and a style for every element of the page that the figure is put into, which would
# have the browser style the whole page anew. Drawn instead with what is inherited from the root.
_NEEDLESS = re.compile(r"<metadata>.*?</metadata>|<defs>\s*<style.*?</style>\s*</defs>", re.S)
_ROOT = "max-width: 100%; height: auto; stroke-linejoin: round; stroke-linecap: butt"


def svg(chart: Chart, *, places: list[Bbox] | None = None) -> str:
    """An ``svg`` element with the figure's alternative text, whose text the browser draws; safe to put into a page.

    Args:
        chart: is drawn, and with ``places`` it loses its layout.
        places: where the axes lie, in shares of the figure, which saves its layout; None, or another number of
            places than there are axes, has it laid out.
    """
    figure, written = chart.figure, io.StringIO()
    if places is not None and len(places) == len(figure.axes):
        figure.set_layout_engine("none")
        for axes, place in zip(figure.axes, places, strict=True):
            axes.set_position(place)
    with rc_context({"svg.fonttype": "none", "svg.hashsalt": "prodkit"}):
        figure.dpi = 72  # an SVG's unit is a point
        renderer = _Renderer(*figure.bbox.size, written, metadata={"Date": None})  # type: ignore[no-untyped-call]
        with _measured_by(figure, renderer):
            figure.draw(renderer)
        renderer.finalize()  # type: ignore[no-untyped-call]
    drawn = _NEEDLESS.sub("", written.getvalue())
    said = f'<svg role="img" aria-label="{escape(chart.alt)}" style="{_ROOT}"'
    return drawn[drawn.index("<svg") :].replace("<svg", said, 1)


@contextmanager
def _measured_by(figure: Figure, renderer: RendererSVG) -> Iterator[None]:
    """Have a figure laid out by the renderer that draws it: its own would measure each text anew."""
    canvas: Any = figure.canvas
    canvas.get_renderer = lambda: renderer
    try:
        yield
    finally:
        del canvas.get_renderer


class _Renderer(RendererSVG):
    """matplotlib's, which measures a text once and not each time that it is drawn."""

    def get_text_width_height_descent(self, s: str, prop: FontProperties, ismath: Any) -> Any:
        return _extent(s, prop, ismath)


@lru_cache(maxsize=4096)
def _extent(text: str, font: FontProperties, mathematics: Any) -> Any:
    return TextToPath().get_text_width_height_descent(text, font, mathematics)
