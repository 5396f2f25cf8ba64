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

_MOST_ROWS, _MOST_TEXT = 100, 50_000  # of a table, characters
_MOST_HTML, _MOST_DEPTH = 2_000_000, 1_000  # characters, tags within one another
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
    for name, job in (("markdown", _markdown), ("plain", _plain), ("shown", _shown)):
        page.register_filter(name, job)
    return page


def _joined(outputs: list[Any]) -> list[Any]:
    """Outputs with what one stream wrote in one piece: a progress bar is one line, though others wrote meanwhile."""
    joined: list[Any] = []
    pieces: dict[str, list[str]] = {}  # of the streams since the last output of another kind
    for output in outputs:
        if output.output_type != "stream":
            pieces = {}
        elif output.name in pieces:
            pieces[output.name].append(_text(output.text))
            continue
        else:
            output.text = pieces[output.name] = [_text(output.text)]
        joined.append(output)
    return joined


@pass_context
def _markdown(context: Any, text: str) -> str:
    text = _cut(_text(text))
    try:
        return _harmless(_exporter().markdown2html(context, text))
    except Exception:  # nested too deep for the library that reads it
        return f"<pre>{escape(text)}</pre>"


@pass_context
def _shown(context: Any, output: Any) -> str:
    """The first of what an output offers that is not blank in a page without scripts."""
    for kind in ("text/html", *_PICTURES, "text/markdown", "text/latex", "text/plain"):
        value = _text(output.data.get(kind, ""))
        if not value.strip():
            continue
        if kind in _PICTURES:
            return _picture(value, kind, output.metadata.get(kind, {}))
        if kind in ("text/latex", "text/plain"):
            return f"<pre>{escape(_plain(value))}</pre>"
        value = _harmless(value) if kind == "text/html" else _markdown(context, value)
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
    r"\x1b[PX^_\]][^\x07\x1b]*(?:\x07|\x1b\\)"  # a command to the terminal, as around a link, whose text stands outside
    r"|(?:\x1b\[|\x9b)[0-?]*[ -/]*[@-~]"  # colours, moves
    r"|\x1b[ -/]*[0-~]?"
)
_ERASED = re.compile(r"(?:\x1b\[|\x9b)[0-2]?K")
_CONTROLS = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]")


def _plain(value: Any) -> str:
    """Text of a terminal as it would stand there in the end, without colours, links and control characters."""
    text = _text(value).replace("\r\n", "\n")
    if "\r" in text or "\b" in text:
        text = "\n".join(map(_overwritten, text.split("\n")))
    return _cut(_CONTROLS.sub("", _ESCAPES.sub("", text)))


def _cut(text: str) -> str:
    half, gone = _MOST_TEXT // 2, len(text) - _MOST_TEXT
    return text if gone <= 0 else f"{text[:half]}\n… {gone:,} characters are left out …\n{text[-half:]}"


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
_UNCLOSED = {"br", "col", "dd", "dt", "hr", "img", "input", "li", "meta", "p", "td", "th", "tr", "wbr"}
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
    """HTML from a cell, without what could run, load or reach beyond its place; each table scrolls by itself.

    Nothing of what is too long to be read, or nested so deep that cleaning it would take minutes.
    """
    html = _headed(html)
    if len(html) > _MOST_HTML or _depth(html) > _MOST_DEPTH:
        return ""
    html = re.sub(r"<(/?)h1\b", r"<\1h2", html, flags=re.I)  # a page has one title
    clean = _cleaner().clean(html)
    clean = _HEADERS.sub(_one_header, clean)
    box = '<div class="scroll" role="group" tabindex="0" aria-label="table"><table'
    boxed = re.sub(r"<table\b", box, clean).replace("</table>", "</table></div>")
    return re.sub(r"<(td|th)>([^<]+)</\1>", _cell, boxed)


def _depth(html: str) -> int:
    depth = deepest = 0
    for end, tag in re.findall(r"<(/?)([a-z]\w*)", html, re.I):
        if tag.lower() not in _UNCLOSED:
            depth += -1 if end else 1
            deepest = max(deepest, depth)
    return deepest


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
    r"<thead>\s*<tr>((?:\s*<th>[^<]*</th>)*)\s*</tr>\s*<tr>((?:\s*<th>[^<]*</th>)*)\s*</tr>\s*</thead>"
)


def _one_header(match: re.Match[str]) -> str:
    columns, names = (re.findall(r"<th>([^<]*)</th>", row) for row in match.groups())
    levels = next((place for place, text in enumerate(columns) if text), 0)
    if len(columns) != len(names) or not levels or not all(names[:levels]) or any(names[levels:]):
        return match[0]
    cells = "".join(f"<th>{text}</th>" for text in [*names[:levels], *columns[levels:]])
    return f"<thead><tr>{cells}</tr></thead>"


def _cell(match: re.Match[str]) -> str:
    """A short cell, which is not broken, or a long one, which is not squeezed; an outcome is given its sign."""
    tag, text = match.groups()
    kind = "short" if len(text) <= _SHORT else "long"
    shown = f'<b class="badge {text}">{text}</b>' if tag == "td" and text in _OUTCOMES else text
    return f'<{tag} class="{kind}">{shown}</{tag}>'
