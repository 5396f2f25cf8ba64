"""What all pages share: their look, and the fence around what they show.

A page is one file that asks nothing of any network. All that is put into a template is escaped there, and a
Content-Security-Policy lets the browser load nothing and run nothing but the page's own script, named by its digest.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from jinja2 import Environment

__all__ = ["figure", "rendered", "wording"]

_TEMPLATES = Path(__file__).parent / "templates"


def rendered(template: str, **content: Any) -> str:
    """The page that a template of ``templates/`` makes of its content, style and script within it."""
    return _environment().get_template(f"{template}.html.j2").render(**content)


def figure(value: Any) -> str:
    """A number for readers, three significant digits; other things as they are, nothing for None.

    >>> [figure(x) for x in (0.123456, 27299.0, -0.00001, 3, True, None, "v1")]
    ['0.123', '27,299', '-1e-05', '3', 'True', '', 'v1']
    """
    if value is None:
        return ""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return str(value)
    if abs(value) < 1e-9:
        return "0"
    return f"{value:.3g}" if abs(value) < 1e3 else f"{value:,.0f}"


def wording(value: Any, *, most: int = 120) -> str:
    """A parameter as it would be typed, the middle left out where it is long."""
    text = value if isinstance(value, str) else "none" if value is None else str(value)
    return text if len(text) <= most else f"{text[: most - 20]} … {text[-16:]}"


def _interval(item: Mapping[str, Any]) -> str:
    low, high = item.get("low"), item.get("high")
    return "" if low is None and high is None else f"{figure(low) or 'open'} to {figure(high) or 'open'}"


def _signed(value: float | None) -> str:
    return "" if value is None else f"{'+' if value > 0 else ''}{figure(value)}"


@cache
def _environment() -> Environment:
    from jinja2 import ChainableUndefined, Environment, FileSystemLoader

    pages = Environment(
        loader=FileSystemLoader(_TEMPLATES), autoescape=True, undefined=ChainableUndefined, trim_blocks=True,
        lstrip_blocks=True,
    )  # fmt: skip
    pages.filters |= {"figure": figure, "interval": _interval, "signed": _signed, "wording": wording}
    script = (_TEMPLATES / "filter.js").read_text(encoding="utf-8")
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    pages.globals |= {
        "style": (_TEMPLATES / "style.css").read_text(encoding="utf-8"),
        "script": script,
        "script_source": f"'sha256-{digest}'",
    }
    return pages
