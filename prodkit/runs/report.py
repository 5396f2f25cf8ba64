"""Pages for people: one for each run, and the index of them all. Self-contained files, no network, no scripts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cache
from html import escape
from pathlib import Path
from threading import Lock
from typing import TYPE_CHECKING, Any

from prodkit.decisions.answers import ACTIONS, FINDINGS
from prodkit.runs.draft import BANNER_TAG, headline

if TYPE_CHECKING:
    from nbconvert import HTMLExporter

__all__ = ["prepare", "write_index", "write_report"]

_STYLE = """
:root { color-scheme: light dark; --line: #8884; --soft: #8881; --ink: CanvasText; }
body { font: 16px/1.55 system-ui, sans-serif; max-width: 60rem; margin: 2rem auto; padding: 0 1rem; color: var(--ink); }
h1 { font-size: 1.7rem; line-height: 1.25; } h2 { font-size: 1.25rem; margin-top: 2.2rem; }
table { border: 0; border-collapse: collapse; font-size: .88rem; display: block; overflow-x: auto; }
th, td { border: 0; border-bottom: 1px solid var(--line); padding: .3rem .7rem; text-align: left; vertical-align: top; }
td { font-variant-numeric: tabular-nums; }
td a, .dataframe th { white-space: nowrap; } thead th { border-bottom-width: 2px; white-space: nowrap; }
img { max-width: 100%; height: auto; background: #fff; border-radius: 4px; }
pre { overflow-x: auto; font-size: .82rem; background: var(--soft); padding: .6rem .8rem; border-radius: 4px; }
details { margin: .3rem 0; } summary { cursor: pointer; color: GrayText; font-size: .8rem; }
.verdict { border-left: .45rem solid; padding: .5rem 1rem; background: var(--soft); margin: 1rem 0; }
.pass { border-color: #009e73; } .fail { border-color: #d55e00; } .inconclusive { border-color: #e69f00; }
.error { border-color: #b00020; } .facts { font-size: .85rem; color: GrayText; }
@media print { details { display: none; } body { margin: 0; max-width: none; } }
"""

_PAGE = """<!DOCTYPE html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">
<title>{title}</title><style>{style}</style></head><body><main>
{body}
</main></body></html>
"""

# nbconvert's `basic` template, with the code folded away and without its scripts
_TEMPLATE = """
{%- extends 'basic/index.html.j2' -%}
{% block input_group %}
{%- set state = cell.metadata.get('papermill', {}).get('status', 'completed') -%}
<details{{ ' open' if state in ('failed', 'interrupted') }}><summary>code
{{- {'completed': '', 'pending': ': never ran'}.get(state, ': ' ~ state) | escape }}</summary>
<pre>{{ cell.source | escape }}</pre></details>
{% endblock %}
{% block data_png %}<p><img alt="{{ output.metadata.get('image/png', {}).get('alt', 'figure') | escape }}"
 width="{{ output.metadata.get('image/png', {}).get('width', '') }}"
 src="data:image/png;base64,{{ output.data['image/png'] | replace('\n', '') }}"></p>{% endblock %}
{% block output_prompt %}{% endblock %}
{% block in_prompt %}{% endblock %}
{% block header %}{% endblock %}
{% block footer %}{% endblock %}
"""


def prepare() -> None:
    """Do ahead of time what the first page of a process needs; for a thread that has nothing else to do."""
    with _preparing:
        _exporter()


_preparing = Lock()


@cache
def _exporter() -> HTMLExporter:
    # half a second, which a run that was done before, or that ends before it has a notebook, does not spend
    from jinja2 import DictLoader
    from nbconvert import HTMLExporter, TemplateExporter
    from traitlets.config import Config

    class Page(HTMLExporter):  # type: ignore[misc]
        """nbconvert's, without its second pass over the page, which adds what the template has already."""

        def from_notebook_node(self, nb: Any, resources: Any = None, **settings: Any) -> Any:
            return TemplateExporter.from_notebook_node(self, nb, resources, **settings)

    settings = Config()
    settings.NbConvertBase.display_data_priority = [
        *("text/html", "image/png", "text/markdown", "text/plain"),
    ]
    settings.TagRemovePreprocessor.enabled = True
    page = Page(
        config=settings,
        template_name="basic",
        extra_loaders=[DictLoader({"report.j2": _TEMPLATE})],
        template_file="report.j2",
        anchor_link_text="",
        exclude_anchor_links=True,
        exclude_input_prompt=True,
        exclude_output_prompt=True,
    )
    page.register_filter(
        "highlight_code", lambda source, **_: escape(source)
    )  # named by its template, not used by ours
    return page


def write_report(executed: Path, page: Path, document: Mapping[str, Any]) -> None:
    """Turn an executed notebook into a page that opens without anything else.

    Args:
        executed: the notebook as papermill left it.
        page: the file to write.
        document: the run's result; its verdict stands below the title.
    """
    import nbformat

    notebook = nbformat.read(executed, as_version=4)
    notebook.cells = [cell for cell in notebook.cells if BANNER_TAG not in cell.metadata.get("tags", [])]
    ended = "" if document["status"] == "succeeded" else headline(notebook, document["status"])
    title, notebook.cells = _split_title(notebook, default=document["notebook"])
    # figures and tables are shown; a widget needs a kernel, and its still picture stands in for it
    prepare()
    body, _ = _exporter().from_notebook_node(notebook)
    head = f"<h1>{escape(title)}</h1>\n{_verdict(document, ended)}"
    page.write_text(_PAGE.format(title=escape(title), style=_STYLE, body=head + body), encoding="utf-8")


def _split_title(notebook: Any, *, default: str) -> tuple[str, list[Any]]:
    """The first heading, and the cells without it."""
    if not notebook.cells:
        return default, []
    first = notebook.cells[0]
    line, _, rest = first.source.partition("\n")
    if first.cell_type != "markdown" or not line.startswith("# "):
        return str(notebook.metadata.get("title", default)), list(notebook.cells)
    first.source = rest.strip()
    return line.removeprefix("# ").strip(), list(notebook.cells)


def _verdict(document: Mapping[str, Any], ended: str) -> str:
    """The first screen: what came of it and why, or how it ended early; then when, on what and by whom."""
    notices = [item["note"] for item in document["evidence"] if item["name"] == "drill"]
    notice = "".join(f"<p><strong>{escape(note)}.</strong></p>" for note in notices)
    reasons = "".join(f"<li>{escape(str(reason))}</li>" for reason in document["reasons"][:5])
    facts = {
        "outcome": document["outcome"],
        "approval": document["approval"],
        "window": document["params"].get("window"),
        "champion generation": document["generation"],
        "run": document["run_id"],
        "started": document["started"],
        "seconds": document["seconds"],
    }
    line = " · ".join(
        f"{name}: {escape(str(value))}" for name, value in facts.items() if value not in (None, "")
    )
    answer = escape(ended or _answer(document))
    return (
        f'<div class="verdict {escape(document["outcome"])}">{notice}<strong>{answer}</strong>'
        f'<ul>{reasons}</ul><p class="facts">{line}</p></div>\n'
    )


def _answer(document: Mapping[str, Any]) -> str:
    """The sentence that answers the title's question."""
    finding = FINDINGS.get(document["notebook"], {}).get(document["outcome"])
    return finding or ACTIONS.get(document["action"], f"Outcome: {document['outcome']}.")


def write_index(
    folder: Path, documents: Sequence[Mapping[str, Any]], story: Sequence[Mapping[str, Any]]
) -> Path:
    """Write ``index.html``: the story as a table, then every run with a link to its page.

    Args:
        folder: where ``runs/`` lies; the page is written there.
        documents: results of the runs, oldest first.
        story: rows of the closing table, as mappings of column to text.

    Returns:
        The page.
    """
    parts = ["<h1>What happened to the model</h1>"]
    if story:
        parts.append(_table(list(story[0]), [[escape(str(row[name])) for name in row] for row in story]))
    rows = [
        [
            f'<a href="runs/{escape(d["run_id"])}/report.html">{escape(d["run_id"])}</a>',
            *(escape(str(d.get(name) or "")) for name in ("status", "outcome", "action")),
            escape(str(d["params"].get("window", ""))),
            escape("; ".join(d["reasons"][:1])),
        ]
        for d in reversed(documents)
    ]
    parts.append(f"<h2>{len(documents)} runs, the newest first</h2>")
    parts.append(_table(["run", "status", "outcome", "action", "window", "reason"], rows))
    page = folder / "index.html"
    page.write_text(_PAGE.format(title="prodkit", style=_STYLE, body="\n".join(parts)), encoding="utf-8")
    return page


def _table(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    head = "".join(f'<th scope="col">{escape(name)}</th>' for name in columns)
    body = "".join("<tr>" + "".join(f"<td>{cell}</td>" for cell in row) + "</tr>" for row in rows)
    return f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"
