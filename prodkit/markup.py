"""The cells of an executed notebook as HTML that can do nothing: no script, handler, style, or anything to load.

nbconvert's template walks the cells; nh3 cleans what they put out. What a terminal would have shown is shown: carriage
returns, backspaces and erased lines applied, colours, links and other control characters taken out. What is too long
to read is cut, and the page says how much of it there is.
"""

from __future__ import annotations

import base64
import re
from collections.abc import Sequence
from functools import cache
from html import escape
from pathlib import Path
from threading import Lock
from typing import TYPE_CHECKING, Any, get_args

import nh3
from jinja2 import FileSystemLoader, pass_context

from prodkit.evidence import Outcome

if TYPE_CHECKING:
    from nbconvert import HTMLExporter

__all__ = ["cells_html", "prepare"]

_MOST_ROWS, _MOST_TEXT, _MOST_HTML = 100, 50_000, 2_000_000  # of a table; characters of a text, of other HTML
_SHORT = 24  # characters of a cell that is not broken into lines
_OUTCOMES = get_args(Outcome)
_preparing = Lock()


def prepare() -> None:
    """Do ahead of time what the first page of a process needs, for a thread that has nothing else to do."""
    with _preparing:
        _exporter()


def cells_html(notebook: Any, cells: Sequence[Any]) -> str:
    """Cells of a notebook, in order.

    A cell whose metadata hold ``report: {"opens": TEXT}`` begins a part that is folded away under that text; the next
    one with ``report: {"closes": True}`` ends it.

    Args:
        notebook: of nbformat 4.
        cells: of it; what a stream wrote in pieces is joined in them.
    """
    prepare()
    for cell in cells:
        if cell.get("outputs"):
            cell.outputs = _joined(cell.outputs)
    html, _ = _exporter().from_notebook_node(type(notebook)({**notebook, "cells": list(cells)}))
    return str(html)


@cache
def _exporter() -> HTMLExporter:
    # half a second, which a run that was done before, or that ends before it has a notebook, does not spend
    from nbconvert import HTMLExporter, TemplateExporter

    class Page(HTMLExporter):  # type: ignore[misc]
        """nbconvert's, without its second pass over the page, which adds what the template has already."""

        def from_notebook_node(self, nb: Any, resources: Any = None, **settings: Any) -> Any:
            return TemplateExporter.from_notebook_node(self, nb, resources, **settings)

    page = Page(
        template_name="basic",
        extra_loaders=[FileSystemLoader(Path(__file__).parent / "templates")],
        template_file="cells.html.j2",
        anchor_link_text="",
        exclude_anchor_links=True,
    )
    for name, job in (("harmless", _harmless), ("plain", _plain), ("shown", _shown)):
        page.register_filter(name, job)
    return page


def _joined(outputs: list[Any]) -> list[Any]:
    """Outputs with what one stream wrote in one piece: a progress bar is one line, though others wrote meanwhile."""
    joined: list[Any] = []
    streams: dict[str, Any] = {}
    for output in outputs:
        if output.output_type != "stream":
            streams = {}
        elif output.name in streams:
            streams[output.name].text += _text(output.text)
            continue
        else:
            output.text = _text(output.text)
            streams[output.name] = output
        joined.append(output)
    return joined


@pass_context
def _shown(context: Any, output: Any) -> str:
    """The first of what an output offers that is not blank in a page without scripts."""
    for kind in ("text/html", *_PICTURES, "text/markdown", "text/latex", "text/plain"):
        value = _text(output.data.get(kind, ""))
        if kind == "text/html":
            value = _headed(value)
            value = _harmless(value) if len(value) <= _MOST_HTML else ""
        elif kind == "text/markdown":
            value = _harmless(_exporter().markdown2html(context, value))
        elif value.strip():
            about = output.metadata.get(kind, {})
            return (
                _picture(value, kind, about) if kind in _PICTURES else f"<pre>{escape(_plain(value))}</pre>"
            )
        if "<img" in value or re.sub(r"<[^>]*>|&nbsp;|\s", "", value):
            return value
    return ""


_PICTURES = ("image/svg+xml", "image/png", "image/jpeg", "image/gif", "image/webp")


def _text(value: Any) -> str:
    """A value of nbformat, which may be a list of lines; without halves of characters, which no page can hold."""
    text = "".join(value) if isinstance(value, list) else str(value)
    return text.encode("utf-8", "replace").decode()


def _picture(data: str, kind: str, about: Any) -> str:
    """A figure with its alternative text; one of the kit's own brings that itself."""
    about = about if isinstance(about, dict) else {}
    if kind == "image/svg+xml":
        data = base64.b64encode(data.encode()).decode()
    sizes = {name: about.get(name) for name in ("width", "height")}
    size = "".join(f' {name}="{int(value)}"' for name, value in sizes.items() if _is_size(value))
    own = ' class="chart"' if kind == "image/png" and about.get("alt") and not about.get("named") else ""
    alt, source = escape(str(about.get("alt", "figure"))), escape("".join(data.split()))
    return f'<figure tabindex="0"><img alt="{alt}"{own}{size} src="data:{kind};base64,{source}"></figure>'


def _is_size(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and 0 < value < 1e5


_ESCAPES = re.compile(
    r"\x1b\][^\x07\x1b]*(?:\x07|\x1b\\|$)"  # a command to the terminal, a link for instance; its text stands outside
    r"|\x1b[PX^_].*?(?:\x1b\\|$)"
    r"|(?:\x1b\[|\x9b)[0-?]*[ -/]*[@-~]"  # colours, moves
    r"|\x1b[ -/]*[0-~]?",
    re.S,
)
_ERASED = re.compile(r"(?:\x1b\[|\x9b)[0-2]?K")
_CONTROLS = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]")


def _plain(value: Any) -> str:
    """Text of a terminal as it would stand there in the end, without colours, links and control characters."""
    text = _text(value).replace("\r\n", "\n")
    if "\r" in text or "\b" in text:
        text = "\n".join(map(_overwritten, text.split("\n")))
    text = _CONTROLS.sub("", _ESCAPES.sub("", text))
    if len(text) > _MOST_TEXT:
        gone = len(text) - _MOST_TEXT
        text = f"{text[: _MOST_TEXT // 2]}\n… {gone:,} characters are left out …\n{text[-_MOST_TEXT // 2 :]}"
    return text


def _overwritten(line: str) -> str:
    """A line after its carriage returns, backspaces and erasures."""
    shown = ""
    for part in line.split("\r")[-1000:]:  # a bar's last states: each overwrites those before it
        shown = "" if _ERASED.search(part) else shown
        part = _ESCAPES.sub("", part)
        if "\b" in part:
            cells: list[str] = []
            at = 0
            for char in part:
                if char == "\b":
                    at = max(0, at - 1)
                else:
                    cells[at : at + 1] = char
                    at += 1
            part = "".join(cells)
        shown = part + shown[len(part) :]
    return shown


_TAGS = (nh3.ALLOWED_TAGS | {"tfoot"}) - {"h1", "area", "map", "nav", "aside", "article", "header", "footer"}
_DROPPED = {
    "script",
    "style",
    "svg",
    "math",
    "iframe",
    "object",
    "noscript",
    "template",
    "title",
    "textarea",
    "select",
}
_GENERAL = {"class", "colspan", "rowspan", "scope", "title"}
_ATTRIBUTES = {"*": _GENERAL, "a": {"href"}, "img": {"src", "alt", "width", "height"}}
_SAFE = {
    "href": re.compile(r"(https?://|mailto:|#|[\w./-]+$)"),
    "src": re.compile(r"data:image/(png|jpeg|gif|webp|svg\+xml);base64,"),
}


def _allowed(tag: str, name: str, value: str) -> str | None:
    return value if name not in _SAFE or _SAFE[name].match(value) else None


@cache
def _cleaner() -> nh3.Cleaner:
    return nh3.Cleaner(
        tags=_TAGS,
        clean_content_tags=_DROPPED,
        attributes=_ATTRIBUTES,
        attribute_filter=_allowed,
        url_schemes={"http", "https", "mailto", "data"},
        link_rel=None,
    )


def _harmless(html: str) -> str:
    """HTML from a cell, without what could run, load or reach beyond its place; each table scrolls by itself."""
    html = re.sub(r"<(/?)h1\b", r"<\1h2", _text(html), flags=re.I)  # a page has one title
    clean = _cleaner().clean(html)
    clean = _HEADERS.sub(_one_header, clean)
    box = '<div class="scroll" role="group" tabindex="0" aria-label="table"><table'
    boxed = re.sub(r"<table\b", box, clean).replace("</table>", "</table></div>")
    return re.sub(r"<(td|th)>([^<]+)</\1>", _cell, boxed)


def _headed(html: str) -> str:
    """HTML with no more than the first rows of each table, and how many rows it has."""
    if html.count("<tr") <= _MOST_ROWS:
        return html
    pieces = re.split(r"(</table\s*>)", html)
    for place, piece in enumerate(pieces):
        rows = [row.start() for row in re.finditer(r"<tr\b", piece[piece.rfind("</thead") + 1 :])]
        if len(rows) > _MOST_ROWS:
            start = piece.rfind("</thead") + 1
            pieces[place] = piece[: start + rows[_MOST_ROWS]]
            if place + 1 < len(pieces):
                pieces[place + 1] += f"<p>The first {_MOST_ROWS} of {len(rows):,} rows.</p>"
    return "".join(pieces)


# how pandas heads a table whose index has a name: twice, with half of each row empty
_HEADERS = re.compile(
    r"<thead>\s*<tr>((?:\s*<th></th>)+)(.*?)</tr>\s*<tr>((?:\s*<th>[^<]+</th>)+)(?:\s*<th></th>)+\s*</tr>\s*</thead>",
    re.S,
)


def _one_header(match: re.Match[str]) -> str:
    empty, columns, names = match.groups()
    if empty.count("<th>") != names.count("<th>"):
        return match[0]
    return f"<thead><tr>{names}{columns}</tr></thead>"


def _cell(match: re.Match[str]) -> str:
    """A short cell, which is not broken, or a long one, which is not squeezed; an outcome is given its sign."""
    tag, text = match.groups()
    kind = "short" if len(text) <= _SHORT else "long"
    shown = f'<b class="badge {text}">{text}</b>' if tag == "td" and text in _OUTCOMES else text
    return f'<{tag} class="{kind}">{shown}</{tag}>'
