"""Whether a recorded run can be believed: its record is checked, then executed again in a sandbox and compared."""

from __future__ import annotations

import copy
import os
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import nbformat

from prodkit.decisions.answers import RESULT_MIME
from prodkit.errors import DataError, ProdkitError, RunError
from prodkit.models.bundle import environment
from prodkit.redaction import Redaction, references
from prodkit.runs.audit import RunRecord
from prodkit.runs.claims import at_work, scratch_folder
from prodkit.runs.comparison import Comparison, Difference, Span
from prodkit.runs.engine import Order, StoppedError, execute
from prodkit.runs.record import UNCHECKED, code_digest, files_digest, table_digest, working_folder
from prodkit.runs.stops import Limits
from prodkit.settings import names_read, outputs_folder, project_folder
from prodkit.store.registry import Store
from prodkit.store.snapshot import take_snapshot

__all__ = ["Verdict", "check_record", "refusing", "verify_run"]

# A cell may take ten times as long as the longest one took when it was recorded, or two minutes.
_PATIENCE = 10.0
_LEAST_SECONDS = 120.0
_DATABASES = {".db", ".sqlite", ".sqlite3"}


@dataclass
class Verdict:
    """The result of verifying or replaying a run.

    Attributes:
        run_id: which run.
        differences: what is not as recorded: in the record itself or, if it holds together, in the second execution.
        refused: why it could not be checked, if it could not.
        notes: what explains a difference, or is worth knowing without one.
        compared: how many cells were executed, how many of them say that they cannot repeat, how many outputs
            and figures were compared with the record.
        decided: of a replay, the action that the recorded evidence leads to.
    """

    run_id: str
    differences: list[Difference] = field(default_factory=list)
    refused: str = ""
    notes: list[str] = field(default_factory=list)
    compared: dict[str, int] = field(default_factory=dict)
    seconds: float = 0.0
    decided: str = ""

    @property
    def matches(self) -> bool:
        """Whether all of it is as recorded."""
        return not self.differences and not self.refused

    def to_dict(self) -> dict[str, Any]:
        """The verdict as JSON has it."""
        listed = [each._asdict() for each in self.differences]
        return {"run_id": self.run_id, "matches": self.matches, **vars(self), "differences": listed}

    def lines(self, *, most: int = 20) -> list[str]:
        """The verdict for people; at most so many differences."""
        notes = [f"  note: {note}" for note in self.notes]
        if self.refused:
            return [f"{self.run_id}: cannot be checked", f"  {self.refused}", *notes]
        good = f"{self.decided}, as recorded" if self.decided else "matches"
        lines = [f"{self.run_id}: {good if self.matches else 'is not as recorded'}"]
        for each in self.differences[:most]:
            lines += [f"  {each.what}", f"    recorded: {each.recorded}", f"    found:    {each.found}"]
        if len(self.differences) > most:
            lines.append(f"  and {len(self.differences) - most} more")
        if self.compared:
            counts = (
                "  {cells} cells executed in a fresh kernel in {seconds:.0f} s; {outputs} outputs compared, "
                "{figures} of them figures; {ignored} cells say that their outputs cannot repeat"
            )
            lines.append(counts.format(**self.compared, seconds=self.seconds))
        elif not self.matches and not self.decided:
            lines.append("  The record contradicts itself, so it was not executed again.")
        return lines + notes


def verify_run(run: str, *, relative: float = 1e-6, absolute: float = 1e-9) -> Verdict:
    """Check the record of a run, then execute its notebook again in a fresh kernel and compare.

    The second execution has the recorded parameters, data, folder and id. The store it finds is a copy of the real one
    as it stood when the run began, and all that it writes is thrown away: it neither acts again nor sees what came
    later. What others wrote to the store while the run was under way is not in the copy, though the run may have
    seen it.

    Not compared are the outputs of cells tagged ``nbval-ignore-output`` or ``nbval-skip``, except for the result
    document; live widgets; the text of tracebacks.

    Args:
        run: id of a run in the outputs folder, or the path of its folder.
        relative: tolerance of floating point numbers, as a share of the larger one, and
        absolute: the smallest difference that counts.

    Raises:
        ParameterError: there is no such run.
    """
    verdict = Verdict(Path(run).name)
    began = time.monotonic()
    if record := check_record(run, verdict):
        with refusing(verdict):
            if not verdict.differences:
                _require_data(record)
                comparison = Comparison(relative=relative, absolute=absolute, recorded=record.span)
                _compare(record, verdict, comparison)
        verdict.notes += _changes(record)
    verdict.seconds = round(time.monotonic() - began, 2)
    return verdict


def check_record(run: str, verdict: Verdict) -> RunRecord | None:
    """Compare the record of a run with itself and with the store's.

    Returns:
        The record; None, and the verdict refused, where it or its store cannot be read.

    Raises:
        ParameterError: there is no such run.
    """
    try:
        record = RunRecord.read(run)
    except RunError as error:
        verdict.refused = str(error)
        return None
    with refusing(verdict), Store.open(*record.places, create=False) as store:
        verdict.differences += record.contradictions(store.run(record.folder.name) or {})
    return None if verdict.refused else record


@contextmanager
def refusing(verdict: Verdict) -> Iterator[None]:
    """Let an error in the block refuse the verdict, without secrets."""
    try:
        yield
    except ProdkitError as error:
        verdict.refused = Redaction.of(names_read()).text(str(error))


def _require_data(record: RunRecord) -> None:
    """DataError when the data is not what the run has read."""
    then = record.basis["data"]
    if record.model is not None:
        params = record.model.check(record.document["params"])
        now, place = table_digest(params), params.data
    else:
        now = files_digest(record.values, working_folder(record.basis["folder"]))
        place = "what parameters name, and the modules beside the notebook"
    if now != then:
        rule = f"must have the digest {then[:12]}..., as when the run was recorded"
        fix = "The data changed since: restore it, or do the run again."
        raise DataError("data", rule=rule, value=f"{now[:12]}...", place=place, fix=fix)


def _changes(record: RunRecord) -> Iterator[str]:
    """What is not as it was, and may explain a difference."""
    if code_digest() != record.basis["code"]:
        yield "prodkit's own code has changed since the run was recorded"
    if record.model is None:
        yield "what the notebook reads beyond what its parameters name is not known, and may have changed since"
    then, now = record.document.get("environment") or {}, environment()
    for name in then:
        if now.get(name, then[name]) != then[name]:
            yield f"{name} was {then[name]}, and is {now[name]} now"


def _compare(record: RunRecord, verdict: Verdict, comparison: Comparison) -> None:
    """Execute the notebook in a sandbox, and put what differs into the verdict."""
    began = datetime.now(UTC)
    with at_work(outputs_folder()), scratch_folder() as sandbox:
        again, failure = _execute(record, sandbox, verdict)
        ended = datetime.now(UTC)
        outputs = outputs_folder()
        renamed = {  # see prodkit.settings.destination
            f"outputs/elsewhere{outputs}": "outputs",
            "outputs/elsewhere": "",
            f"{sandbox}/elsewhere": "",
            str(sandbox): str(outputs),
        }
    verdict.compared = dict.fromkeys(("cells", "ignored", "outputs", "figures"), 0)
    for number, (cell, now) in enumerate(zip(record.cells, again.cells, strict=True), 1):
        if cell.source.strip() and now.metadata.get("papermill", {}).get("status") != "completed":
            verdict.differences.append(Difference(f"cell {number}", "completed", failure))
            return  # nothing after it was executed
        ignored = bool(UNCHECKED & set(cell.metadata.get("tags", [])))
        pair = [_results(each.outputs) if ignored else each.outputs for each in (cell, now)]
        own = replace(
            comparison,
            recorded=record.span._replace(cell_seconds=_seconds(cell)),
            found=Span(began, ended, _seconds(now)),
            renamed=renamed,
        )
        verdict.differences += [
            each._replace(what=f"cell {number}, {each.what}") for each in own.outputs(*pair)
        ]
        kinds = [kind for output in pair[0] for kind in output.get("data", {})]
        verdict.compared["cells"] += 1
        verdict.compared["ignored"] += ignored
        verdict.compared["outputs"] += 0 if ignored else len(pair[0])
        verdict.compared["figures"] += sum(kind.startswith("image/") for kind in kinds)


def _execute(record: RunRecord, sandbox: Path, verdict: Verdict) -> tuple[RunRecord, str]:
    """The notebook as executed again, and why it ended early, if it did."""
    folder = working_folder(record.basis["folder"])
    if not folder.is_dir():
        raise RunError("folder", rule="must still be there, as the run worked in it", value=str(folder))
    began = datetime.fromisoformat(record.basis.get("began") or record.document["started"])
    _lend_outputs(outputs_folder(), sandbox, before=began.timestamp())
    if record.basis["store"] is not None:
        verdict.notes += take_snapshot(*record.places, at=record.basis["store"], folder=sandbox)
    source, target, failure = sandbox / "source.ipynb", sandbox / "notebook.ipynb", ""
    nbformat.write(_unexecuted(record.notebook), source)
    names, out = references(record.values), str(sandbox)
    run = {"PRODKIT_RUN": record.folder.name, "PRODKIT_OUT": out, "PRODKIT_SANDBOX": out}
    run["PRODKIT_PROJECT"] = str(project_folder())
    seconds = max(_LEAST_SECONDS, _PATIENCE * max(map(_seconds, record.cells), default=0.0))
    limits, hide = Limits(cell_seconds=seconds), Redaction.of(names).text
    order = Order(target, folder=folder, environment=run, limits=limits, hide=hide if names else str)
    try:
        execute(source, {}, order)
    except StoppedError as error:
        failure = error.stop.sentence
    except Exception as error:  # before the first cell: there is no such kernel, or it does not start
        failure = hide(f"{type(error).__name__}: {error}")
    again = nbformat.read(target if target.exists() else source, as_version=4)
    if not any(cell.metadata.get("papermill", {}).get("start_time") for cell in again.cells):
        rule = "must be executed again, but nothing of it was"
        raise RunError(record.folder.name, rule=rule, value=failure)
    return replace(record, notebook=again), failure


def _unexecuted(notebook: Any) -> Any:
    """The notebook as it was before it ran, with the parameters that it was given."""
    fresh = copy.deepcopy(notebook)
    fresh.metadata.pop("papermill", None)
    for cell in fresh.cells:
        cell.metadata.pop("papermill", None)
        if cell.cell_type == "code":
            cell.update(outputs=[], execution_count=None)
    return fresh


def _lend_outputs(outputs: Path, sandbox: Path, *, before: float) -> None:
    """Show the run what lay in the outputs before it began: tables, predictions of others, its own earlier batches.

    Files are linked; databases, which are written in place, are copied. The store comes by itself, and runs do
    not read one another's folders.
    """
    for root, folders, files in os.walk(outputs):
        here = Path(root)
        if here == outputs:
            folders[:] = [name for name in folders if name not in ("runs", "artifacts")]
            files = [name for name in files if not name.startswith("store.db")]
        there = sandbox / here.relative_to(outputs)
        for path in (here / name for name in files):
            if path.is_file() and path.stat().st_mtime < before:
                there.mkdir(parents=True, exist_ok=True)
                if path.suffix in _DATABASES:
                    shutil.copy2(path, there / path.name)
                else:
                    (there / path.name).symlink_to(path.resolve())


def _results(outputs: list[Any]) -> list[Any]:
    """The result documents among outputs, and nothing else."""
    shown = [output["data"][RESULT_MIME] for output in outputs if RESULT_MIME in output.get("data", {})]
    return [{"output_type": "display_data", "data": {RESULT_MIME: each}, "metadata": {}} for each in shown]


def _seconds(cell: Any) -> float:
    return float(cell.metadata.get("papermill", {}).get("duration") or 0.0)
