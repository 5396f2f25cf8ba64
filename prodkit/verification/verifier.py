"""Whether a recorded run can be believed: its record is checked, then executed again in a cold kernel and compared."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from datetime import datetime
from pathlib import Path
from typing import Any

from prodkit.data.dataset import source_digest
from prodkit.decisions.answers import MEASURED, RESULT_MIME
from prodkit.errors import DataError, ProdkitError, RunError
from prodkit.models.environment import environment
from prodkit.params import params_model
from prodkit.redaction import Redaction, references
from prodkit.runs.basis import code_digest, files_digest, working_folder
from prodkit.settings import REAL_STORE, names_read, outputs_folder, resolve
from prodkit.store.registry import Store
from prodkit.store.snapshot import require_store, take_snapshot
from prodkit.verification.dossier import Dossier, code_cells, read_dossier
from prodkit.verification.likeness import Difference
from prodkit.verification.sandbox import lend_outputs, sandbox_environment, sandbox_names
from prodkit.verification.verdict import Verdict

__all__ = ["examine", "verify_run"]

# A cell may take ten times as long as the longest one took when it was recorded, or two minutes.
_PATIENCE = 10.0
_LOST = "waiting for output"  # nbval's words
_LEAST_SECONDS = 120.0


def verify_run(run: str, *, relative: float = 1e-6, absolute: float = 1e-9) -> Verdict:
    """Check the record of a run, then execute its notebook again in a cold kernel and compare.

    The second execution has the recorded parameters, data, folder and id. The store it finds is a copy of the real one
    as it stood when the run began, and all that it writes is thrown away: it neither acts again nor sees what came
    later. What others wrote to the store while the run was under way is not in the copy, though the run may have
    seen it.

    Not compared are the outputs of cells tagged ``nbval-ignore-output`` or ``nbval-skip``, except for the result
    document, and of that what is measured on the machine (:data:`prodkit.decisions.answers.MEASURED`); live widgets;
    the text of tracebacks. A display that a later cell rewrites is seen as it was before.

    Args:
        run: id of a run in the outputs folder, or the path of its folder.
        relative: tolerance of floating point numbers, as a share of the larger one, and
        absolute: the smallest difference that counts.

    Raises:
        ParameterError: there is no such run.
    """
    verdict = Verdict(Path(run).name)

    def repeat(dossier: Dossier, store: tuple[str, str]) -> None:
        try:
            if not verdict.differences:
                _require_data(dossier)
                _execute(dossier, store, verdict, relative=relative, absolute=absolute)
        finally:
            verdict.notes += _changes(dossier)

    examine(run, verdict, repeat)
    return verdict


def examine(run: str, verdict: Verdict, further: Callable[[Dossier, tuple[str, str]], None]) -> None:
    """Hold the record of a run against itself and against the store's, then look further.

    Args:
        run: id of a run in the outputs folder, or the path of its folder.
        verdict: what is found goes into it, and why no more could be, if that is so.
        further: takes the record and the places of its store.

    Raises:
        ParameterError: there is no such run.
    """
    began = time.monotonic()
    try:
        dossier = read_dossier(run)
    except RunError as error:
        verdict.refused = str(error)
        return
    try:
        store = _store_of(dossier)
        with Store.open(*store) as kept:
            verdict.differences += dossier.contradictions(kept.run(dossier.folder.name) or {})
        further(dossier, store)
    except ProdkitError as error:
        verdict.refused = Redaction.of(names_read()).text(str(error))
    verdict.seconds = round(time.monotonic() - began, 2)


def _store_of(dossier: Dossier) -> tuple[str, str]:
    """Where the store lies that the run worked with, or at least is recorded in.

    Raises:
        StoreError: it is not there.
    """
    params = dossier.document["params"] if dossier.basis["store"] is not None else {}
    places = resolve(params.get("store", REAL_STORE)), resolve(params.get("artifacts", "outputs/artifacts"))
    require_store(places[0])
    return places


def _require_data(dossier: Dossier) -> None:
    """DataError when the data is not what the run has read."""
    kind, then = params_model(dossier.document["notebook"], dossier.values), dossier.basis["data"]
    if kind is not None:
        params = kind.check(dossier.document["params"])
        found, place = source_digest(params), params.data
    else:
        found = files_digest(dossier.values, working_folder(dossier.basis["folder"]))
        place = "what parameters name, and the modules beside the notebook"
    if found != then:
        rule = f"must have the digest {then[:12]}..., as when the run was recorded"
        fix = "The data changed since: restore it, or do the run again."
        raise DataError("data", rule=rule, value=f"{found[:12]}...", place=place, fix=fix)


def _changes(dossier: Dossier) -> Iterator[str]:
    """What is not as it was, and may explain a difference."""
    if code_digest() != dossier.basis["code"]:
        yield "prodkit's own code has changed since the run was recorded"
    if params_model(dossier.document["notebook"], dossier.values) is None:
        yield "what the notebook reads beyond what its parameters name is not known, and may have changed since"
    then, now = dossier.document.get("environment") or {}, environment()
    for name in then:
        if now.get(name, then[name]) != then[name]:
            yield f"{name} was {then[name]}, and is {now[name]} now"


def _execute(
    dossier: Dossier, store: tuple[str, str], verdict: Verdict, *, relative: float, absolute: float
) -> None:
    """Execute the notebook in a sandbox, and put what differs into the verdict.

    A kernel throws output away when a busy machine lets a thousand messages wait for their reader. The end of the cell
    is then never heard of, which says nothing of the notebook: it is executed once more.
    """
    folder = working_folder(dossier.basis["folder"])
    if not folder.is_dir():
        raise RunError("folder", rule="must still be there, as the run worked in it", value=str(folder))
    for last in (False, True):
        notes, cells = _executed(dossier, store, folder, relative=relative, absolute=absolute)
        if last or not any(_LOST in each["failure"] for each in cells):
            break
    verdict.notes += notes
    _judge(dossier, cells, verdict)


def _executed(
    dossier: Dossier, store: tuple[str, str], folder: Path, *, relative: float, absolute: float
) -> tuple[list[str], list[dict[str, Any]]]:
    """What the sandbox lacks, and what each cell came to in it."""
    with tempfile.TemporaryDirectory(prefix="prodkit-verify-") as name:
        scratch, notes = Path(name).resolve(), []
        sandbox = scratch / "sandbox"
        sandbox.mkdir()
        lend_outputs(outputs_folder(), sandbox, before=_began(dossier))
        if dossier.basis["store"] is not None:
            notes = take_snapshot(*store, at=dossier.basis["store"], folder=sandbox)
        shutil.copyfile(dossier.folder / "notebook.ipynb", scratch / "notebook.ipynb")
        (scratch / "pytest.ini").write_text("[pytest]\n")  # lest one further up be found
        request = {
            "runner": os.getpid(),
            "folder": str(folder),
            "scratch": str(scratch),
            "answer": str(scratch / "answer.json"),
            "recorded": [moment.isoformat() for moment in dossier.span],
            "result": RESULT_MIME,
            "measured": MEASURED,
            "relative": relative,
            "absolute": absolute,
            "renamed": sandbox_names(sandbox, outputs_folder()),
        }
        (scratch / "request.json").write_text(json.dumps(request))
        said = _pytest(scratch, run_id=dossier.folder.name, cell_seconds=_cell_seconds(dossier))
        answer = scratch / "answer.json"
        found: dict[str, Any] = json.loads(answer.read_text()) if answer.exists() else {}
    if not found.get("cells") and code_cells(dossier.notebook):
        rule, trouble = "must be executed again, but nothing of it was", found.get("trouble") or said[-500:]
        hidden = Redaction.of(references(dossier.given)).text(trouble.strip())
        raise RunError(dossier.folder.name, rule=rule, value=hidden)
    return notes, found["cells"]


def _pytest(scratch: Path, *, run_id: str, cell_seconds: float) -> str:
    """Run nbval in a process of its own, with a cold kernel; gives what it printed."""
    own = sandbox_environment(scratch / "sandbox", run_id=run_id)
    own["PYTEST_DISABLE_PLUGIN_AUTOLOAD"] = "1"  # others might reorder, repeat or share out cells
    plain = {name: value for name, value in os.environ.items() if not name.startswith("PYTEST_")}
    plugins = [
        f"-p{name}"
        for name in ("nbval.plugin", "prodkit.verification.rerun", "no:cacheprovider", "no:doctest")
    ]
    settings = ["-c", "pytest.ini", "--rootdir", ".", "--noconftest", "-q", "--color=no", "-Wignore"]
    asked = ["--rerun-request", "request.json", f"--nbval-cell-timeout={cell_seconds:.0f}", "notebook.ipynb"]
    done = subprocess.run(
        [sys.executable, "-m", "pytest", *plugins, *settings, *asked],
        cwd=scratch,
        env=plain | own,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,  # a difference is a failed test
    )
    return done.stdout


def _began(dossier: Dossier) -> float:
    return datetime.fromisoformat(dossier.basis.get("began") or dossier.document["started"]).timestamp()


def _cell_seconds(dossier: Dossier) -> float:
    """How long a cell may take."""
    taken = [
        cell.metadata.get("papermill", {}).get("duration") or 0.0 for cell in code_cells(dossier.notebook)
    ]
    return max(_LEAST_SECONDS, _PATIENCE * max(taken, default=0.0))


def _judge(dossier: Dossier, answers: list[dict[str, Any]], verdict: Verdict) -> None:
    """Put what was found into the verdict."""
    cells = code_cells(dossier.notebook)
    checked = [cells[each["cell"] - 1] for each in answers if not each["ignored"]]
    outputs = [output for cell in checked for output in cell.outputs]
    verdict.compared = {
        "cells": len(answers),
        "ignored": sum(each["ignored"] for each in answers),
        "outputs": len(outputs),
        "figures": sum(
            any(kind.startswith("image/") for kind in output.get("data", {})) for output in outputs
        ),
    }
    for each in answers:
        where = f"cell {each['cell']}"
        verdict.differences += [Difference(f"{where}, {what}", *rest) for what, *rest in each["differences"]]
        if each["failure"]:
            verdict.differences.append(Difference(where, "completed", each["failure"]))
            if "kernel died" in each["failure"] or "seconds exceeded" in each["failure"]:
                return  # nothing after it could run
    if len(answers) < len(cells):
        reached = f"{len(answers)} of {len(cells)} cells"
        verdict.differences.append(Difference("cells", "all executed", reached))
