"""The page of a run: what it found at a glance, then its notebook, bottom line first; nothing in it can run or load.

A page is one file that asks nothing of any network. All that is put into a template is escaped there, and a
Content-Security-Policy lets the browser load nothing and run nothing but the page's own script, named by its digest.
"""

from __future__ import annotations

import base64
import hashlib
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from html import unescape
from pathlib import Path
from typing import Any

from jinja2 import ChainableUndefined, Environment, FileSystemLoader

from prodkit.decisions.answers import ACTIONS, FINDINGS
from prodkit.markup import cells_html

__all__ = [
    "BANNER_TAG",
    "Changes",
    "answer",
    "changes",
    "deed",
    "headline",
    "next_steps",
    "number",
    "rendered",
    "report",
    "state",
]

BANNER_TAG = "papermill-error-cell-tag"  # papermill takes such cells out when it runs a notebook again
_TEMPLATES = Path(__file__).parent / "templates"
_PLACES = ("store", "artifacts", "predictions")  # where things lie says nothing of the result


def rendered(template: str, **content: Any) -> str:
    """The page that a template of ``templates/`` makes of its content, style and script within it."""
    return _environment().get_template(f"{template}.html.j2").render(**content)


def number(value: Any) -> str:
    """A number for readers, three significant digits; other things as they are, nothing for None.

    >>> [number(x) for x in (0.123456, 27299.0, -0.00001, 3, True, None, "v1")]
    ['0.123', '27,299', '-0.00001', '3', 'True', '', 'v1']
    """
    if value is None:
        return ""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return str(value)
    if abs(value) < 1e-9:
        return "0"
    if abs(value) >= 999.5:
        return f"{value:,.0f}"
    return f"{value:.3g}" if abs(value) >= 1e-4 else f"{value:.9f}".rstrip("0")


def _typed(value: Any, *, most: int = 120) -> str:
    """A parameter as it would be typed, the middle left out where it is long."""
    text = "none" if value is None else str(value)
    return text if len(text) <= most else f"{text[: most - 20]} … {text[-16:]}"


def _interval(item: Mapping[str, Any]) -> str:
    low, high = item.get("low"), item.get("high")
    return "" if low is None and high is None else f"{number(low) or 'open'} to {number(high) or 'open'}"


def _signed(value: float | None) -> str:
    return "" if value is None else f"{'+' if value > 0 else ''}{number(value)}"


@cache
def _environment() -> Environment:
    pages = Environment(
        loader=FileSystemLoader(_TEMPLATES), autoescape=True, undefined=ChainableUndefined, trim_blocks=True,
        lstrip_blocks=True,
    )  # fmt: skip
    pages.filters |= {"number": number, "interval": _interval, "signed": _signed, "typed": _typed}
    style, script = ((_TEMPLATES / name).read_text("utf-8") for name in ("style.css", "filter.js"))
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    pages.globals |= {"style": style, "script": script, "script_source": f"'sha256-{digest}'"}
    return pages


@dataclass(frozen=True)
class Changes:
    """What differs between two runs.

    Attributes:
        facts: outcome, action, version, data and code, each in both; only those that differ.
        params: parameters that differ.
        numbers: every finding of either, in the order of the second: name, before, after, difference,
            outcome_before, outcome_after; None where a run has no such finding or number.
    """

    facts: dict[str, tuple[str, str]]
    params: dict[str, tuple[Any, Any]]
    numbers: list[dict[str, Any]]

    def sentences(self, most: int = 6) -> list[str]:
        """The changes in words, the weightiest first; that there is none is one, too."""
        pairs = {name: pair for name, pair in self.params.items() if name != "window"}
        pairs = {**self.facts, **{f"parameter {name}": pair for name, pair in pairs.items()}}
        lines = [f"{name}: {_typed(a, most=60)} → {_typed(b, most=60)}" for name, (a, b) in pairs.items()]
        turned = [row for row in self.numbers if row["outcome_before"] != row["outcome_after"]]
        lines += [f"{row['name']}: {_turn(row)}" for row in turned[:most]]
        if len(turned) > most:
            lines.append(f"and {len(turned) - most} more with another outcome")
        return lines or ["Nothing but the numbers."]


def _turn(row: Mapping[str, Any]) -> str:
    before, after = row["outcome_before"], row["outcome_after"]
    if before is None:
        return f"{after}, not there before"
    if after is None:
        return f"not there any more, was {before}"
    values = "" if row["difference"] is None else f" ({number(row['before'])} → {number(row['after'])})"
    return f"{before} → {after}{values}"


def changes(first: Mapping[str, Any], second: Mapping[str, Any]) -> Changes:
    """Compare two results.

    Args:
        first: a ``result.json``.
        second: another; of the same notebook, or of two that share findings.
    """
    facts = {name: (fact(first), fact(second)) for name, fact in _FACTS.items()}
    names = dict.fromkeys([*second["params"], *first["params"]])
    params = {name: tuple(run["params"].get(name, "not given") for run in (first, second)) for name in names}
    old, new = (
        {item["name"]: item for item in run["evidence"] if item["name"] != "drill"} for run in (first, second)
    )
    numbers = []
    for name in dict.fromkeys([*new, *old]):
        one, other = old.get(name, {}), new.get(name, {})
        before, after = one.get("value"), other.get("value")
        outcomes = {"outcome_before": one.get("outcome"), "outcome_after": other.get("outcome")}
        difference = None if before is None or after is None else after - before
        numbers.append({"name": name, "before": before, "after": after, "difference": difference, **outcomes})
    differing = {name: (a, b) for name, (a, b) in params.items() if a != b}
    return Changes({name: pair for name, pair in facts.items() if pair[0] != pair[1]}, differing, numbers)


_FACTS: dict[str, Callable[[Mapping[str, Any]], str]] = {
    "status": lambda run: run["status"],
    "outcome": lambda run: run["outcome"],
    "action": lambda run: run["action"] or "none",
    "approval": lambda run: run["approval"] or "none",
    "version": lambda run: _version(run["outputs"].get("champion", run["outputs"].get("version"))),
    "code of prodkit": lambda run: _short(run.get("basis", {}).get("code")),
    "notebook": lambda run: _short(run.get("basis", {}).get("notebook")),
    "data": lambda run: _short(run.get("basis", {}).get("data")),
}


def _version(value: Any) -> str:
    return "none" if value is None else f"v{value}"


def _short(digest: Any) -> str:
    return f"{str(digest)[:12]}…" if digest else "unknown"


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
        options: what ``prodkit models`` needs to find the store.
    """
    notebook.cells = [cell for cell in notebook.cells if BANNER_TAG not in cell.metadata.get("tags", [])]
    ended = "" if document["status"] == "succeeded" else headline(notebook, document["status"])
    title = _take_title(notebook, default=document["notebook"])
    _name_figures(notebook)
    ordered: tuple[list[str], list[Any], list[Any]] = [], [], notebook.cells
    reasons, bottom, rest = ordered if ended else _bottom_line_first(notebook.cells, answer(document))
    done = "" if ended else deed(document)
    since = changes(previous, document) if previous and not ended else None
    return rendered(
        "report",
        title=title,
        answer=ended or done or answer(document),
        ended=bool(ended),
        state=state(document),
        steps=[] if ended else next_steps(document, options),
        contents=_contents(rest),
        version=document["outputs"].get("champion", document["outputs"].get("version")),
        reasons=reasons or document["reasons"][:5],
        document=document,
        notices=[item.get("note") for item in document["evidence"] if item["name"] == "drill"],
        facts=_facts(document, defaults or {}),
        evidence=[] if bottom else [item for item in document["evidence"] if item["name"] != "drill"],
        bottom=cells_html(notebook, bottom) if bottom else "",
        cells=cells_html(notebook, rest),
        previous=previous,
        since=since.sentences() if since else [],
        numbers=_most_telling(since) if since else [],
    )


def headline(notebook: Any, status: str) -> str:
    """How a run ended, and how far it came, in one sentence."""
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    states = [cell.metadata.get("papermill", {}).get("status") for cell in code]
    done, left = states.count("completed"), states.count("pending")
    how = {"succeeded": "ended itself", "interrupted": "was interrupted"}.get(status, status)
    tail = f"; {left} did not run" if left else ""
    return f"This run {how} after {done} of {len(code)} code cells{tail}."


def state(document: Mapping[str, Any]) -> str:
    """How a run stands, in one word or two: whether what was decided is done; else its outcome.

    >>> done = {"status": "succeeded", "outcome": "fail", "action": "rollback", "approval": None}
    >>> [state(done), state({**done, "approval": "proposed"}), state({**done, "action": None})]
    ['done', 'proposed', 'fail']
    """
    action, outcome = document["action"], document["outcome"]
    if document["status"] != "succeeded":
        return str(document["status"])
    if not action or (action == "keep" and outcome != "pass"):
        return str(outcome)
    if document["approval"]:
        return "done" if document["approval"] == "approved" else str(document["approval"])
    return {"keep": "nothing to do", "watch": "watch", "reject": "rejected"}.get(action, "done")


def deed(document: Mapping[str, Any]) -> str:
    """What was done to which version, and as of when, or what is proposed; empty for a run that decides nothing."""
    action, now, target = document["action"], document["outputs"].get("champion"), document["target_version"]
    if document["approval"] == "proposed":
        return f"Proposed, waiting for a person: {ACTIONS.get(action, action)}"
    judged = document["outputs"].get("challenger", target)
    texts = {
        "rollback": f"Rolled back: version {now} to {target}",
        "promote": f"Promoted: version {target}" + (f" in place of {now}" if now is not None else ""),
        "reject": f"Not promoted: version {judged}",
        "hold": "On hold: nobody learns from these rows",
        "retrain": "Retraining requested",
        "watch": f"Watch: version {now} stays",
        "keep": f"Nothing to do: version {now} stays" if now is not None else "Nothing was changed",
    }
    end = str(document["params"].get("as_of") or str(document["params"].get("window", "")).partition("/")[2])
    by = f", {document['approval']} by a person" if document["approval"] else ""
    by = ", automatically" if not by and action in ("rollback", "promote", "hold") else by
    return f"{texts[action]}{by}{', as of ' if end else ''}{end[:10]}." if action in texts else ""


def next_steps(document: Mapping[str, Any], options: str = "") -> list[tuple[str, str]]:
    """What a person can do now: sentences, each with its command."""
    signed, run_id = f"--name YOU --reason WHY{options}", document["run_id"]
    if document["approval"] == "proposed":
        return [
            ("To approve it:", f"prodkit models approve {run_id} {signed}"),
            ("To reject it:", f"prodkit models reject {run_id} {signed}"),
        ]
    if document["action"] == "hold":
        text = "Mend the input and run again. If what is new is right, accept it:"
        return [(text, f"prodkit models accept {run_id} {signed}")]
    if document["action"] == "promote":
        return [("To take it back:", f"prodkit models rollback {signed}")]
    return []


def answer(document: Mapping[str, Any]) -> str:
    """The sentence that answers the title's question."""
    finding = FINDINGS.get(document["notebook"], {}).get(document["outcome"])
    return finding or ACTIONS.get(document["action"], f"Outcome: {document['outcome']}.")


def _take_title(notebook: Any, *, default: str) -> str:
    """The first heading, which the notebook is left without."""
    for first in notebook.cells[:1]:
        line, _, rest = first.source.partition("\n")
        if first.cell_type == "markdown" and line.startswith("# "):
            first.source = rest.strip()
            return str(line.removeprefix("# ").strip())
    return str(notebook.metadata.get("title", default))


def _name_figures(notebook: Any) -> None:
    """Give a figure without a text the heading that it stands under."""
    heading, count = "", 0
    for cell in notebook.cells:
        if cell.cell_type == "markdown":
            headings = [line for line in cell.source.splitlines() if line.startswith("#")]
            heading = headings[-1].lstrip("# ") if headings else heading
        for output in cell.get("outputs", []):
            for kind in (kind for kind in output.get("data", {}) if kind.startswith("image/")):
                count += 1
                about = output.metadata.setdefault(kind, {})
                if not about.get("alt"):
                    about["alt"] = f"Figure {count}" + (f": {heading}" if heading else "")
                    about["named"] = True


def _bottom_line_first(cells: Sequence[Any], sentence: str) -> tuple[list[str], list[Any], list[Any]]:
    """The reasons, the cells of the bottom line, then all others: setting-up, explorer and record folded away.

    Sentence, reasons and heading stand at the top of the page, and are not repeated.
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
        text = output.get("data", {}).get("text/markdown", "")
        _, repeated, rest = text.partition(f"**{sentence}** Outcome: ")
        if repeated:
            lines = rest.splitlines()[1:]
            reasons = [unescape(line.removeprefix("- ")) for line in lines if line.startswith("- ")]
            output.data["text/markdown"] = "\n".join(line for line in lines if not line.startswith("- "))
    for heading, part in zip(headings, parts, strict=True):
        if part and heading:
            part[0].metadata["report"] = {"anchor": re.sub(r"[^a-z0-9]+", "-", heading.lower()).strip("-")}
        if part and (part is parts[0] or heading == "The record" or heading.startswith("Explore")):
            folded = heading or "What goes in, what comes out, and how it is set up"
            part[0].metadata["report"] = {**part[0].metadata.get("report", {}), "opens": folded}
            part[-1].metadata["report"] = {**part[-1].metadata.get("report", {}), "closes": True}
            if heading:
                part[0].source = part[0].source.partition("\n")[2].strip()
    return reasons, bottom, [cell for part in parts for cell in part]


def _contents(cells: Sequence[Any]) -> list[tuple[str, str]]:
    """Anchor and heading of each part that is not folded away."""
    places = [(cell.metadata.get("report", {}), _heading(cell)) for cell in cells]
    return [(place["anchor"], heading) for place, heading in places if heading and place.get("anchor")]


def _heading(cell: Any) -> str:
    line = cell.source.partition("\n")[0]
    return str(line[3:].strip()) if cell.cell_type == "markdown" and line.startswith("## ") else ""


def _facts(document: Mapping[str, Any], defaults: Mapping[str, Any]) -> dict[str, Any]:
    """Who, what and when: each as a text, or as a list of them."""
    params, outputs = document["params"], document["outputs"]
    version = outputs.get("champion", outputs.get("version"))
    serves = "registered" if document["notebook"] == "train" else "champion"
    judged, generation = outputs.get("challenger", document["target_version"]), document["generation"]
    model = [f"{serves}: version {version}"] if version is not None else []
    model += [f"challenger: version {judged}"] if judged is not None else []
    model += [f"generation {generation}"] if generation is not None else []
    data = [f"table: {params['data']}"] if "data" in params else []
    for each in document["inputs"]:
        rows, digest = number(each.get("rows")), str(each.get("digest"))[:12]
        data.append(f"{each['name']}: {each.get('window', '')}, {rows} rows, sha256 {digest}…")
    hidden = ("window", *_PLACES)
    changed = {
        name: value
        for name, value in params.items()
        if name in defaults and value != defaults[name] and name not in hidden
    }
    took = "" if document["seconds"] is None else f", took {document['seconds']:.1f} s"
    facts: dict[str, Any] = {
        "data": data,
        "model": " · ".join(model),
        "run": f"{document['run_id']}, started {document['started'][:16].replace('T', ' ')}{took}",
        "parameters": changed or ("all at their defaults" if defaults else None),
        "approval": document["approval"],
        "in Python": f"prodkit.open_run({document['run_id']!r})",
    }
    return {name: fact for name, fact in facts.items() if fact not in (None, "", [])}


def _most_telling(since: Changes, most: int = 40) -> list[dict[str, Any]]:
    """The numbers that both runs have, those first whose outcome is another now."""
    both = [row for row in since.numbers if row["before"] is not None and row["after"] is not None]
    return sorted(both, key=lambda row: row["outcome_before"] == row["outcome_after"])[:most]
