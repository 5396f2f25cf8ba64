"""What a notebook says at its end: the document that becomes ``result.json``, and the bottom line that people read."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import pandas as pd
from IPython.display import Markdown

from prodkit.data.windows import Read, digest
from prodkit.decisions.answers import ACTIONS, FINDINGS, MEASURED, RESULT_MIME
from prodkit.decisions.decide import Decision, sentence
from prodkit.decisions.record import decision_record
from prodkit.evidence import Estimate, Evidence, Outcome, Window, overall
from prodkit.models.bundle import environment
from prodkit.params import ProjectParams

__all__ = [
    "Result",
    "bottom_line",
    "conclude",
    "current_run",
    "evidence_table",
    "finding",
    "metric",
    "rounded",
    "scores_table",
    "shown_in_full",
]


class Result:
    """The result of a notebook, shown as its last output: a sentence to people, a document to the runner."""

    def __init__(self, document: dict[str, Any]) -> None:
        self.document = document

    def __repr__(self) -> str:
        action = self.document["action"]
        return f"recorded: {self.document['outcome']}" + (f", {action}" if action else "")

    def _repr_mimebundle_(self, include: object = None, exclude: object = None) -> dict[str, Any]:
        return {RESULT_MIME: self.document, "text/plain": repr(self)}


def current_run(params: ProjectParams) -> str:
    """The id of this run: given by the runner, or derived from the parameters when papermill runs alone."""
    text = json.dumps([params.notebook, params.plain()], sort_keys=True)
    return (
        os.environ.get("PRODKIT_RUN") or f"{params.notebook}-{hashlib.sha256(text.encode()).hexdigest()[:12]}"
    )


def metric(
    params: ProjectParams, name: str, value: float, *, window: Window, version: int, n: int,
    low: float | None = None, high: float | None = None,
) -> dict[str, Any]:  # fmt: skip
    """A row for the store: one figure of a window as it is known at the moment of the run."""
    return {
        "run_id": current_run(params),
        "notebook": params.notebook,
        "version": version,
        "window_start": window.start.isoformat(),
        "window_end": window.end.isoformat(),
        "name": name,
        "value": value,
        "low": low,
        "high": high,
        "n": n,
        "known_at": params.moment.isoformat(),
    }


def conclude(
    params: ProjectParams,
    *,
    decision: Decision | None = None,
    approval: str | None = None,
    evidence: Sequence[Evidence] = (),
    inputs: Mapping[str, tuple[Window, pd.DataFrame | Read]] | None = None,
    outputs: Mapping[str, Any] | None = None,
) -> Result:
    """Write the result down: what was decided, on which evidence, from which rows."""
    undecided = {
        "notebook": params.notebook,
        "outcome": overall(evidence),
        "action": None,
        "target_version": None,
        "generation": None,
        "reasons": _reasons(evidence),
        "evidence": [item.to_dict() for item in evidence],
        "params": params.plain(),
    }
    document = {
        "schema": 1,
        **(decision_record(params, decision) if decision else undecided),
        "approval": approval,
        "inputs": [
            {"name": name, "window": str(window), **_rows_of(rows)}
            for name, (window, rows) in (inputs or {}).items()
        ],
        "outputs": dict(outputs or {}),
        "environment": environment(),
    }
    json.dumps(document, allow_nan=False)  # fails here, where the cause is near, rather than in the runner
    return Result(document)


def _rows_of(rows: pd.DataFrame | Read) -> dict[str, Any]:
    if isinstance(rows, Read):
        return {"rows": rows.rows, "digest": rows.digest}
    return {"rows": len(rows), "digest": digest(rows)}


def bottom_line(decision: Decision) -> Markdown:
    """The decision in one sentence, its reasons, and the evidence of the rungs that decide."""
    shown = [item for item in decision.evidence if item.rung < 5 and not item.name.startswith(_NOT_SHOWN)]
    return _answer(ACTIONS[decision.action], decision.outcome, decision.reasons, shown)


def finding(params: ProjectParams, evidence: Sequence[Evidence]) -> Markdown:
    """The answer of a notebook that decides nothing, in one sentence, and its evidence."""
    outcome = overall(evidence)
    return _answer(FINDINGS[params.notebook][outcome], outcome, _reasons(evidence), evidence)


def _reasons(evidence: Sequence[Evidence]) -> list[str]:
    """What speaks for the outcome that the evidence comes to."""
    outcome = overall(evidence)
    return [
        sentence(_repeatable(item)) for item in evidence if item.outcome == outcome and item.name != "drill"
    ]


def _repeatable(item: Evidence) -> Evidence:
    """The evidence without a number that the machine would have it give differently the next time."""
    measured = f".evidence[{item.name}]" in MEASURED
    return replace(item, value=None, low=None, high=None) if measured else item


# slices and budgets have a place of their own further down in the notebook
_NOT_SHOWN = ("slice.", "budget.")


def _answer(text: str, outcome: Outcome, reasons: Sequence[str], evidence: Sequence[Evidence]) -> Markdown:
    most = 3
    listed = "".join(f"\n- {escape(reason)}" for reason in reasons[:most])
    more = len(reasons) - most
    tail = f"\n- and {more} more, in the table" if more > 0 else ""
    drills = "".join(f"**{escape(item.note)}.**\n\n" for item in evidence if item.name == "drill")
    table = _markdown(evidence_table(item for item in evidence if item.name != "drill"))
    return Markdown(f"{drills}**{text}** Outcome: {outcome}.\n{listed}{tail}\n\n{table}")


def shown_in_full(table: pd.DataFrame) -> Markdown:
    """A table of sentences, which pandas would cut off; a word where it has no rows."""
    return Markdown("None." if table.empty else _markdown(table))


def _markdown(table: pd.DataFrame) -> str:
    flat = table.reset_index()
    lines = [list(flat.columns), ["---"] * len(flat.columns), *flat.astype(str).to_numpy().tolist()]
    plain = [cells if cells[0] == "---" else [escape(cell) for cell in cells] for cells in lines]
    return "\n".join("| " + " | ".join(cells) + " |" for cells in plain)


def scores_table(figures: Mapping[str, Estimate]) -> pd.DataFrame:
    """Scores with their intervals, for readers."""
    rows = {name: (each.value, each.low, each.high, each.n, each.blocks) for name, each in figures.items()}
    table = pd.DataFrame.from_dict(rows, orient="index", columns=["value", "low", "high", "rows", "days"])
    return rounded(table.rename_axis("score"))


def escape(text: str) -> str:
    """Text from data, harmless in Markdown: no tags, no formatting."""
    return "".join(f"&#{ord(sign)};" if sign in "&\\`*[]<>|$#~" else sign for sign in " ".join(text.split()))


def evidence_table(evidence: Iterable[Evidence]) -> pd.DataFrame:
    """Evidence as a table for readers, numbers rounded to four significant digits."""
    rows = [
        {
            "finding": item.name,
            "outcome": item.outcome,
            "value": _short(item.value),
            "interval": ""
            if item.low is None or item.high is None
            else f"{_short(item.low)} to {_short(item.high)}",
            "limit": _short(item.limit),
            "rows": f"{item.n:,}",
            "note": item.note,
        }
        for item in evidence
    ]
    columns = ["finding", "outcome", "value", "interval", "limit", "rows", "note"]
    return pd.DataFrame(rows, columns=columns).set_index("finding")


def rounded(table: pd.DataFrame, *, digits: int = 3) -> pd.DataFrame:
    """The table with its floats rounded to significant digits, as text: equal on every machine."""
    shown = table.copy()
    for name in shown.columns:
        if pd.api.types.is_float_dtype(shown[name]):
            shown[name] = [_short(value, digits=digits) for value in shown[name]]
    return shown


def _short(value: float | None, *, digits: int = 3) -> str:
    if value is None or pd.isna(value):
        return ""
    if abs(value) < 5e-6:  # what is left of a zero differs between machines
        return "0"
    return f"{value:.{digits}g}" if abs(value) < 1e4 else f"{value:,.0f}"
