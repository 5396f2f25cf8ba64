"""Text of figures: names that can be drawn, numbers that are short, counts with their nouns."""

from __future__ import annotations

from collections.abc import Iterable
from functools import cache
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.font_manager import FontProperties, findfont, get_font
from numpy.typing import NDArray

__all__ = ["counted", "counted_of", "day_text", "named_numbers", "number_text", "plain_text", "range_text"]


@cache
def _glyphs() -> frozenset[int]:
    """The characters that the default font can draw; others would only give a warning each."""
    return frozenset(get_font(findfont(FontProperties())).get_charmap())


def plain_text(text: Any, width: int = 30) -> str:
    """Text that can be drawn: one line, no mathematics, no glyph that the font lacks, the middle left out if long."""
    known = _glyphs()
    line = "".join(
        char if ord(char) in known else "\u25a1" for char in " ".join(str(text).split()) if char.isprintable()
    )
    if len(line) > width:
        keep = width - 1
        line = f"{line[: keep - keep // 3]}…{line[len(line) - keep // 3 :]}"
    return line.replace("\\", "\u2216").replace("$", r"\$")


def number_text(value: float) -> str:
    """At most four significant digits, for a digest that does not change with the last one.

    >>> [number_text(x) for x in (0.123456, -2.0, 12345, 1.5e7, float("nan"))]
    ['0.1235', '-2', '12.35k', '15M', 'nan']
    """
    size = abs(value)
    if 1e4 <= size < 1e10:
        scale, letter = (1e6, "M") if size >= 1e6 else (1e3, "k")
        return f"{value / scale:.4g}{letter}"
    return f"{value + 0.0:.4g}" if size > 1e-12 else "nan" if size != size else "0"


def range_text(values: NDArray[np.float64]) -> str:
    """From the least finite value to the largest."""
    known = values[np.isfinite(values)]
    return f"{number_text(known.min())} to {number_text(known.max())}" if known.size else "without a value"


def counted(number: int, noun: str) -> str:
    """A number with its noun, in the plural where that is due."""
    return f"{number} {noun}" + ("" if number == 1 else "s")


def counted_of(shown: int, total: int, noun: str) -> str:
    """How many are shown, and of how many if not all are."""
    return counted(total, noun) if shown == total else f"{shown} of {counted(total, noun)}"


def named_numbers(names: Iterable[Any], values: Iterable[float]) -> list[str]:
    """Each name with its number."""
    return [f"{plain_text(name)} {number_text(value)}" for name, value in zip(names, values, strict=True)]


def day_text(moment: Any) -> str:
    """A day as an ISO date; nothing if there is none."""
    stamp = pd.Timestamp(moment)
    return "" if pd.isna(stamp) else stamp.strftime("%Y-%m-%d")
