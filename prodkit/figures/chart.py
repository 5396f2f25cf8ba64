"""A figure with what it says: its picture, its alternative text, and a digest of its numbers."""

from __future__ import annotations

import base64
import io
from functools import cached_property
from typing import Any

from matplotlib.figure import Figure
from PIL import Image

__all__ = ["Chart"]

_DOTS_PER_INCH = 192  # shown at half size, which is 96 to the inch: sharp on any screen


class Chart:
    """A figure, what it shows in words, and the numbers it shows.

    Attributes:
        figure: for whoever wants to change it.
        alt: a sentence for those who cannot see it.
        digest: the plotted data in short, numbers of at most four significant digits: what a notebook's
            committed output is compared by.
    """

    def __init__(self, figure: Figure, *, alt: str, digest: str) -> None:
        self.figure, self.alt, self.digest = figure, alt, digest

    def __repr__(self) -> str:
        return self.digest

    @cached_property
    def png(self) -> bytes:
        """The picture: the same bytes for the same data. 64 colours make it a quarter of the size."""
        drawn, written = io.BytesIO(), io.BytesIO()
        quick = {"compress_level": 0}
        self.figure.savefig(drawn, format="png", dpi=_DOTS_PER_INCH, facecolor="white", pil_kwargs=quick)
        method, dither = Image.Quantize.FASTOCTREE, Image.Dither.NONE
        picture = Image.open(drawn).convert("RGB").quantize(64, method=method, dither=dither)
        picture.putpalette(
            [255 if tone > 252 else tone for tone in picture.getpalette() or []]
        )  # white is white
        picture.save(written, "png")
        return written.getvalue()

    def _repr_mimebundle_(
        self, include: Any = None, exclude: Any = None
    ) -> tuple[dict[str, str], dict[str, dict[str, Any]]]:
        width, height = (round(inches * _DOTS_PER_INCH / 2) for inches in self.figure.get_size_inches())
        picture = base64.b64encode(self.png).decode("ascii")
        return (
            {"image/png": picture, "text/plain": self.digest},
            {"image/png": {"alt": self.alt, "width": width, "height": height}},
        )
