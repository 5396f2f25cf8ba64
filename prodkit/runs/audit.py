"""A recorded run audited: its notebook and its result, and where they contradict each other or the store."""

from __future__ import annotations

import ast
import difflib
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import nbformat

from prodkit.errors import ParameterError, RunError
from prodkit.params import NOTEBOOKS, ProjectParams
from prodkit.runs.comparison import Comparison, Difference, Span
from prodkit.runs.record import INJECTED, cells_digest, file_digest, new_record, shown_result, unchecked_cells
from prodkit.settings import REAL_STORE, outputs_folder, resolve

__all__ = ["RunRecord"]

_EXACT = Comparison(relative=0.0, absolute=0.0)
_FACTS = {"data", "time_column", "target", "window", "store"}  # what every version's notebooks have declared
_PARTS: dict[str, type | tuple[type, ...]] = {
    "basis": dict,
    "run_id": str,
    "notebook": str,
    "action": (str, type(None)),
    "params": dict,
    "evidence": list,
    "reasons": list,
    "started": str,
    "seconds": (int, float),
}


@dataclass(frozen=True)
class RunRecord:
    """What a run has left behind: ``result.json`` and the notebook as executed."""

    folder: Path
    document: dict[str, Any]
    notebook: Any

    @classmethod
    def read(cls, run: str) -> RunRecord:
        """The record of a run in the outputs folder.

        Args:
            run: its id, or the path of its folder there.

        Raises:
            ParameterError: there is no such run.
            RunError: its record cannot be read, says that the run did not succeed, or lacks what it rests on.
        """
        home = outputs_folder() / "runs"
        known = sorted(path.name for path in home.iterdir() if path.is_dir()) if home.is_dir() else []
        folder = home / (Path(run).resolve().name if Path(run).resolve().parent == home.resolve() else run)
        if folder.name not in known or folder.parent != home:
            near = difflib.get_close_matches(run, known, n=1) or known[-3:]
            fix = f"There are: {', '.join(near)}{', ...' if len(known) > len(near) else ''}." if known else ""
            fix = f"{fix} What was removed stands in: prodkit models history.".strip()
            raise ParameterError("RUN", rule="must be a recorded run", value=run, place=str(home), fix=fix)
        try:
            document = json.loads((folder / "result.json").read_text(encoding="utf-8"))
            _require_complete(document, folder.name)
            notebook = nbformat.read(folder / "notebook.ipynb", as_version=4)
            nbformat.validate(notebook)
            record = cls(folder, document, notebook)
            record.values  # noqa: B018  # raises SyntaxError where it is no Python any more
        except (OSError, ValueError, SyntaxError, nbformat.ValidationError, AttributeError) as error:
            reason = str(error).strip().split("\n")[0]
            rule, fix = (
                "must have a record that can be read",
                "It was damaged: do the run again with --force.",
            )
            raise RunError(folder.name, rule=rule, value=reason, place=str(folder), fix=fix) from error
        return record

    @property
    def basis(self) -> dict[str, Any]:
        """What the run says it rests on."""
        return dict(self.document["basis"])

    @property
    def given(self) -> dict[str, Any]:
        """The parameters that were given, as papermill has noted them."""
        return dict(self.notebook.metadata.get("papermill", {}).get("parameters", {}))

    @property
    def values(self) -> dict[str, Any]:
        """The parameters that it ran with, defaults among them."""
        return {**_assigned(self.notebook, "parameters"), **_assigned(self.notebook, INJECTED)}

    @property
    def model(self) -> type[ProjectParams] | None:
        """The model of its parameters, if it is a notebook of the kit: of this version, or of an earlier one."""
        return NOTEBOOKS.get(self.document["notebook"]) if self.values.keys() >= _FACTS else None

    @property
    def cells(self) -> list[Any]:
        """The cells that hold code, in order."""
        return [cell for cell in self.notebook.cells if cell.cell_type == "code"]

    @property
    def span(self) -> Span:
        """When it ran."""
        start = datetime.fromisoformat(self.document["started"])
        return Span(start, start + timedelta(seconds=float(self.document["seconds"])))

    @property
    def places(self) -> tuple[str, str]:
        """Where the store lies that the run worked with, or at least is recorded in."""
        params = self.document["params"] if self.basis["store"] is not None else {}
        return resolve(params.get("store", REAL_STORE)), resolve(params.get("artifacts", "outputs/artifacts"))

    def contradictions(self, stored: Mapping[str, Any]) -> Iterator[Difference]:
        """Everything in the record that cannot be true together, without executing anything.

        Args:
            stored: what the store has recorded of this run; empty if nothing.
        """
        yield from self._changed_cells()
        yield from self._executions()
        yield from self._parameters()
        yield from self._results()
        then, now = self.basis.get("executed"), file_digest(self.folder / "notebook.ipynb")
        if then and then != now:  # records of an older prodkit do not say
            yield Difference("notebook.ipynb is not as it was saved", f"digest {then}", f"digest {now}")
        if self.document.get("run_id") != self.folder.name:
            yield Difference("run_id", self.folder.name, str(self.document.get("run_id")))
        if "document" not in stored:
            yield Difference("the store", "a record of this run", "none")
            return
        for each in _EXACT.values(stored["document"], self.document):
            yield each._replace(what=f"result.json{each.what}, the store has another")

    def _changed_cells(self) -> Iterator[Difference]:
        then, now = self.basis["notebook"], cells_digest(self.notebook.cells)
        if then != now:
            what = "cells were changed, added or removed since it was recorded"
            yield Difference(what, f"digest {then[:12]}", f"digest {now[:12]}")
            return
        tagged = self.basis.get("unchecked", []), unchecked_cells(self.notebook.cells)
        if tagged[0] != tagged[1]:
            yield Difference("other cells are tagged as not to be compared", *map(str, tagged))

    def _executions(self) -> Iterator[Difference]:
        """Cells that never ran, or that ran in another order; the numbers are Jupyter's."""
        count = 0
        for number, cell in enumerate(self.cells, 1):
            if not cell.source.strip():
                continue
            count += 1
            about = cell.metadata.get("papermill", {})
            if about.get("status") != "completed" or about.get("exception"):
                yield Difference(f"cell {number}", "completed", str(about.get("status", "no status")))
            elif cell.execution_count != count:
                shown = f"[{cell.execution_count or ' '}]"
                yield Difference(f"cell {number}", f"executed as [{count}]", shown)
        if self.notebook.metadata.get("papermill", {}).get("exception"):
            yield Difference("the notebook", "no exception", "an exception")

    def _parameters(self) -> Iterator[Difference]:
        """Where injected cell, papermill's note of it and the result disagree."""
        injected, defaults = (_assigned(self.notebook, tag) for tag in (INJECTED, "parameters"))
        yield from _named("parameter", injected, self.given, "papermill's note")
        expected, document = {**defaults, **injected}, self.document["params"]
        if self.model is not None:
            try:
                checked = self.model.from_cell(expected).plain()  # without what was added to the cell
            except ParameterError as error:
                yield Difference(f"parameter {error.name}", "a value that can have run", str(error))
                return
            # what a later version has added need not be on record
            expected = {name: checked[name] for name in checked if name in document or name in expected}
        elif "params" in shown_result(self.folder / "notebook.ipynb"):
            return  # an own notebook's own words, which the comparison of the results covers
        else:
            expected = {name: expected[name] for name in expected if name in document or name in injected}
        yield from _named("parameter", expected, document, "result.json")

    def _results(self) -> Iterator[Difference]:
        """Where result.json is not what the notebook has shown at its end."""
        blank = new_record("", "", {}, parent="", basis={})
        of_runner = ("run_id", "notebook", "status", "params", "basis", "parent", "started", "seconds")
        shown = {name: value for name, value in blank.items() if name not in of_runner}
        shown |= shown_result(self.folder / "notebook.ipynb")
        document = {name: self.document.get(name, blank.get(name)) for name in shown}
        if _text(shown) != _text(document):
            for each in _EXACT.values(shown, document) or [Difference("", _text(shown), _text(document))]:
                yield each._replace(what=f"result.json{each.what}, the notebook shows another")


def _require_complete(document: Any, run_id: str) -> None:
    """RunError when there is nothing that a second execution could be compared with."""
    status = document.get("status") if isinstance(document, dict) else type(document).__name__
    if status != "succeeded":
        fix = "Its record shows how far it came; there is nothing to repeat."
        raise RunError(run_id, rule="must have succeeded to be verified", value=status, fix=fix)
    fix = "It was damaged, or recorded by an earlier version of prodkit: do the run again with --force."
    for name, kind in _PARTS.items():
        if not isinstance(document.get(name), kind):
            rule, value = f"must say its {name}", repr(document.get(name, "nothing"))
            raise RunError(run_id, rule=rule, value=value, place="result.json", fix=fix)
    if absent := {"notebook", "code", "data", "folder", "store"} - document["basis"].keys():
        rule = f"must say its basis, {min(absent)} included"
        raise RunError(run_id, rule=rule, place="result.json", fix=fix)


def _assigned(notebook: Any, tag: str) -> dict[str, Any]:
    """The values that the cells with this tag assign; what is no literal stands as its text."""
    values: dict[str, Any] = {}
    tagged = (cell for cell in notebook.cells if tag in cell.metadata.get("tags", []))
    for statement in ast.parse("\n".join(cell.source for cell in tagged)).body:
        match statement:
            case (
                ast.Assign(targets=[ast.Name(id=name)], value=ast.expr() as value)
                | ast.AnnAssign(target=ast.Name(id=name), value=ast.expr() as value)
            ):
                try:
                    values[name] = ast.literal_eval(value)
                except ValueError:
                    values[name] = ast.unparse(value)
    return values


def _named(what: str, then: Mapping[str, Any], now: Mapping[str, Any], where: str) -> Iterator[Difference]:
    for name in dict.fromkeys([*then, *now]):
        one, other = (_text(each[name]) if name in each else "nothing" for each in (then, now))
        if one != other:
            yield Difference(f"{what} {name}, {where} says otherwise", one, other)


def _text(value: Any) -> str:
    return json.dumps(value, sort_keys=True, default=repr, ensure_ascii=False)
