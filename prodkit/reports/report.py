"""The page of a run: what came of it at a glance, then the notebook, its bottom line first."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import unescape
from typing import Any

from prodkit.decisions.answers import ACTIONS, FINDINGS
from prodkit.reports.cells import body
from prodkit.reports.comparison import Changes, changes
from prodkit.reports.page import figure, rendered
from prodkit.reports.progress import BANNER_TAG, headline

__all__ = ["answer", "report"]

_PLACES = ("store", "artifacts", "predictions")  # where things lie says nothing of what was found


def report(
    notebook: Any,
    document: Mapping[str, Any],
    *,
    defaults: Mapping[str, Any] | None = None,
    previous: Mapping[str, Any] | None = None,
    options: str = "",
) -> str:
    """The page of a run, which opens without anything else.

    Args:
        notebook: as it was executed, of nbformat 4; it is rearranged.
        document: the run's result.
        defaults: of the notebook's parameters: those that differ are named.
        previous: the result of the run of the same notebook before this one, if there was one.
        options: what ``prodkit models`` has to be told to find the store.
    """
    notebook.cells = [cell for cell in notebook.cells if BANNER_TAG not in cell.metadata.get("tags", [])]
    ended = "" if document["status"] == "succeeded" else headline(notebook, document["status"])
    title = _take_title(notebook, default=document["notebook"])
    _name_figures(notebook)
    reasons, lead, rest = (
        ([], [], notebook.cells) if ended else _bottom_line_first(notebook.cells, answer(document))
    )
    notebook.cells = lead
    bottom = body(notebook) if lead else ""
    notebook.cells = rest
    since = changes(previous, document) if previous and not ended else None
    return rendered(
        "report",
        title=title,
        answer=ended or answer(document),
        ended=bool(ended),
        reasons=reasons or document["reasons"][:5],
        document=document,
        notices=[item.get("note") for item in document["evidence"] if item["name"] == "drill"],
        options=options,
        facts=_facts(document, defaults or {}),
        evidence=[] if lead else [item for item in document["evidence"] if item["name"] != "drill"],
        bottom=bottom,
        cells=body(notebook),
        previous=previous,
        since=since.sentences() if since else [],
        numbers=_most_telling(since) if since else [],
    )


def answer(document: Mapping[str, Any]) -> str:
    """The sentence that answers the title's question."""
    finding = FINDINGS.get(document["notebook"], {}).get(document["outcome"])
    return finding or ACTIONS.get(document["action"], f"Outcome: {document['outcome']}.")


def _take_title(notebook: Any, *, default: str) -> str:
    """The first heading, which the notebook is left without."""
    if notebook.cells:
        first = notebook.cells[0]
        line, _, rest = first.source.partition("\n")
        if first.cell_type == "markdown" and line.startswith("# "):
            first.source = rest.strip()
            return str(line.removeprefix("# ").strip())
    return str(notebook.metadata.get("title", default))


def _name_figures(notebook: Any) -> None:
    """Give a figure that says nothing of itself the heading that it stands under."""
    heading, number = "", 0
    for cell in notebook.cells:
        if cell.cell_type == "markdown" and (
            lines := [x for x in cell.source.splitlines() if x.startswith("#")]
        ):
            heading = lines[-1].lstrip("# ")
        for output in cell.get("outputs", []):
            for kind in ("image/png", "image/jpeg", "image/svg+xml"):
                if kind in output.get("data", {}):
                    number += 1
                    about = output.metadata.setdefault(kind, {})
                    if not about.get("alt"):
                        about |= {
                            "alt": f"Figure {number}" + (f": {heading}" if heading else ""),
                            "named": True,
                        }


def _bottom_line_first(cells: Sequence[Any], sentence: str) -> tuple[list[str], list[Any], list[Any]]:
    """The reasons, the cells of the bottom line, then all others: setting-up, explorer and record folded away.

    Sentence, reasons and heading stand at the top of the page, and are not said again.
    """
    parts: list[list[Any]] = [[]]
    for cell in cells:
        if _heading(cell):
            parts.append([])
        parts[-1].append(cell)
    headings = [_heading(part[0]) if part else "" for part in parts]
    if "Bottom line" not in headings:
        return [], [], list(cells)
    bottom = parts.pop(headings.index("Bottom line"))
    headings.remove("Bottom line")
    bottom[0].source = bottom[0].source.partition("\n")[2].strip()
    reasons: list[str] = []
    for output in (output for cell in bottom for output in cell.get("outputs", [])):
        _, found, rest = (
            output.get("data", {}).get("text/markdown", "").partition(f"**{sentence}** Outcome: ")
        )
        if found:
            lines = rest.splitlines()[1:]
            reasons = [unescape(line.removeprefix("- ")) for line in lines if line.startswith("- ")]
            output.data["text/markdown"] = "\n".join(line for line in lines if not line.startswith("- "))
    for heading, part in zip(headings, parts, strict=True):
        folded = heading or "What goes in, what comes out, and how it is set up"
        if part and (part is parts[0] or heading == "The record" or heading.startswith("Explore")):
            part[0].metadata["report"] = {"opens": folded}
            part[-1].metadata["report"] = {**part[-1].metadata.get("report", {}), "closes": True}
            if heading:
                part[0].source = part[0].source.partition("\n")[2].strip()
    return reasons, bottom, [cell for part in parts for cell in part]


def _heading(cell: Any) -> str:
    line = cell.source.partition("\n")[0]
    return (
        str(line.removeprefix("## ").strip())
        if cell.cell_type == "markdown" and line.startswith("## ")
        else ""
    )


def _facts(document: Mapping[str, Any], defaults: Mapping[str, Any]) -> dict[str, Any]:
    """Who, what and when: each as a text, or as a list of them."""
    params, outputs = document["params"], document["outputs"]
    version = outputs.get("champion", outputs.get("version"))
    judged = outputs.get("challenger", document["target_version"])
    generation = document["generation"]
    model = (
        [f"champion: version {version}"] if version is not None and document["notebook"] != "train" else []
    )
    model += (
        [f"registered: version {version}"] if version is not None and document["notebook"] == "train" else []
    )
    model += [f"challenger: version {judged}"] if judged is not None else []
    model += [f"generation {generation}"] if generation is not None else []
    rows = [
        f"{each['name']}: {each.get('window', '')}, {figure(each.get('rows'))} rows, "
        f"sha256 {str(each.get('digest'))[:12]}…"
        for each in document["inputs"]
    ]
    changed = {
        name: value
        for name, value in params.items()
        if name in defaults and value != defaults[name] and name not in ("window", *_PLACES)
    }
    took = "" if document["seconds"] is None else f", took {document['seconds']:.1f} s"
    facts: dict[str, Any] = {
        "data": [f"table: {params['data']}", *rows] if "data" in params else rows,
        "model": " · ".join(model),
        "run": f"{document['run_id']}, started {document['started'][:16].replace('T', ' ')}{took}",
        "parameters": changed or ("all at their defaults" if defaults else None),
        "approval": document["approval"],
    }
    return {name: fact for name, fact in facts.items() if fact not in (None, "", [])}


def _most_telling(since: Changes, most: int = 40) -> list[Any]:
    """The numbers that both runs have, those first whose outcome is another now."""
    both = [row for row in since.numbers if row.before is not None and row.after is not None]
    return sorted(both, key=lambda row: row.outcome_before == row.outcome_after)[:most]
