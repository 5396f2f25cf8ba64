"""The cells of an executed notebook as HTML, by nbconvert with a template of our own; what they hold can do nothing."""

from __future__ import annotations

import base64
import re
from collections.abc import Callable
from functools import cache
from html import escape
from pathlib import Path
from threading import Lock
from typing import TYPE_CHECKING, Any, get_args

from prodkit.evidence import Outcome

if TYPE_CHECKING:
    from nbconvert import HTMLExporter

__all__ = ["body", "prepare"]

_OUTCOMES = get_args(Outcome)
_SHORT = 24  # characters
_preparing = Lock()


def prepare() -> None:
    """Do ahead of time what the first page of a process needs; for a thread that has nothing else to do."""
    with _preparing:
        _exporter()
        _cleaner()


def body(notebook: Any) -> str:
    """The cells of a notebook, in order, as HTML without scripts, handlers, styles or anything to load.

    A cell whose metadata hold ``report: {"opens": TEXT}`` begins a part that is folded away under that text; the next
    one with ``report: {"closes": True}`` ends it.
    """
    prepare()
    html, _ = _exporter().from_notebook_node(notebook)
    return str(html)


@cache
def _exporter() -> HTMLExporter:
    # half a second, which a run that was done before, or that ends before it has a notebook, does not spend
    from jinja2 import FileSystemLoader
    from nbconvert import HTMLExporter, TemplateExporter
    from traitlets.config import Config

    class Page(HTMLExporter):  # type: ignore[misc]
        """nbconvert's, without its second pass over the page, which adds what the template has already."""

        def from_notebook_node(self, nb: Any, resources: Any = None, **settings: Any) -> Any:
            return TemplateExporter.from_notebook_node(self, nb, resources, **settings)

    settings = Config()
    settings.NbConvertBase.display_data_priority = [
        *(
            "text/html",
            "image/svg+xml",
            "image/png",
            "image/jpeg",
            "text/markdown",
            "text/latex",
            "text/plain",
        ),
    ]
    page = Page(
        config=settings,
        template_name="basic",
        extra_loaders=[FileSystemLoader(Path(__file__).parent / "templates")],
        template_file="cells.html.j2",
        anchor_link_text="",
        exclude_anchor_links=True,
        exclude_input_prompt=True,
        exclude_output_prompt=True,
    )
    for name, job in (("harmless", _harmless), ("plain", _plain), ("picture", _picture)):
        page.register_filter(name, job)
    return page


_TAGS = {
    *(
        "a",
        "abbr",
        "b",
        "blockquote",
        "br",
        "code",
        "dd",
        "del",
        "div",
        "dl",
        "dt",
        "em",
        "hr",
        "i",
        "img",
        "li",
    ),
    *("ol", "p", "pre", "s", "small", "span", "strong", "sub", "sup", "ul", "h2", "h3", "h4", "h5", "h6"),
    *("table", "caption", "colgroup", "col", "thead", "tbody", "tfoot", "tr", "th", "td"),
}


def _allowed(tag: str, name: str, value: str) -> bool:
    if name == "href":
        return tag == "a" and bool(re.match(r"(https?://|mailto:|#|[\w./-]+$)", value))
    if name == "src":
        return tag == "img" and bool(re.match(r"data:image/(png|jpeg|gif|svg\+xml);base64,", value))
    return name in ("class", "colspan", "rowspan", "scope", "alt", "width", "height", "title")


@cache
def _cleaner() -> Callable[[], Any]:
    from bleach.sanitizer import Cleaner

    protocols = ["http", "https", "mailto", "data"]
    # a cleaner keeps what it has parsed, so that each text has one of its own
    return lambda: Cleaner(tags=_TAGS, attributes=_allowed, protocols=protocols, strip=True)


def _harmless(html: str) -> str:
    """HTML from a cell, without what could run, load or reach beyond its place; each table scrolls by itself."""
    html = re.sub(r"<(style|script)\b.*?</\1\s*>", "", html, flags=re.S | re.I)
    html = re.sub(r"<(/?)h1\b", r"<\1h2", html, flags=re.I)  # a page has one title
    clean = str(_cleaner()().clean(html))
    clean = _HEADERS.sub(_one_header, clean)
    boxed = re.sub(
        r"<table\b", '<div class="scroll" role="group" tabindex="0" aria-label="table"><table', clean
    )
    return re.sub(r"<(td|th)>([^<]+)</\1>", _cell, boxed.replace("</table>", "</table></div>"))


# how pandas heads a table whose index has a name: twice, with half of each row empty
_HEADERS = re.compile(
    r"<thead>\s*<tr>((?:\s*<th></th>)+)(.*?)</tr>\s*<tr>((?:\s*<th>[^<]+</th>)+)(?:\s*<th></th>)+\s*</tr>\s*</thead>",
    re.S,
)


def _one_header(found: re.Match[str]) -> str:
    empty, columns, names = found.groups()
    if empty.count("<th>") != names.count("<th>"):
        return found[0]
    return f"<thead><tr>{names}{columns}</tr></thead>"


def _cell(found: re.Match[str]) -> str:
    """A short cell, which is not broken, or a long one, which is not squeezed; an outcome is given its sign."""
    tag, text = found.groups()
    kind = "short" if len(text) <= _SHORT else "long"
    shown = f'<b class="badge {text}">{text}</b>' if tag == "td" and text in _OUTCOMES else text
    return f'<{tag} class="{kind}">{shown}</{tag}>'


def _plain(text: str) -> str:
    """Text of a terminal without its colours."""
    return re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", text)


def _picture(output: Any, kind: str) -> str:
    """A figure with what it says to those who cannot see it; one of the kit's own has said it itself."""
    data, about = output.data[kind], output.metadata.get(kind, {})
    if kind == "image/svg+xml":
        text = "".join(data) if isinstance(data, list) else data
        data = base64.b64encode(text.encode()).decode()
    size = "".join(
        f' {name}="{int(about[name])}"' for name in ("width", "height") if _is_size(about.get(name))
    )
    own = ' class="chart"' if kind == "image/png" and about.get("alt") and not about.get("named") else ""
    alt, source = escape(str(about.get("alt", "figure"))), escape("".join(str(data).split()))
    return f'<figure tabindex="0"><img alt="{alt}"{own}{size} src="data:{kind};base64,{source}"></figure>'


def _is_size(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and 0 < value < 1e5
