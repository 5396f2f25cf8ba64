"""The record of a run, ``result.json``: what it rests on, and what it says as it begins and as it ends."""

from __future__ import annotations

import glob
import hashlib
import itertools
import json
import os
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, ValidationError

from prodkit.decisions.answers import ACTIONS, RESULT_MIME
from prodkit.evidence import Outcome
from prodkit.files import write_text
from prodkit.params import MonitorParams, ProjectParams, RollbackParams
from prodkit.runs.stops import Stop
from prodkit.settings import modules_digest, project_folder
from prodkit.store.registry import Store

__all__ = [
    "INJECTED",
    "UNCHECKED",
    "basis",
    "cells_digest",
    "code_digest",
    "file_digest",
    "files_digest",
    "finished_record",
    "new_record",
    "own_cells",
    "read_record",
    "shown_result",
    "table_digest",
    "unchecked_cells",
    "working_folder",
    "write_record",
]

INJECTED = "injected-parameters"
"""papermill's tag of the cell that it adds."""

UNCHECKED = {"nbval-ignore-output", "nbval-skip"}
"""nbval's tags of cells whose outputs are not compared."""

_MOST_FILES = 100_000
_MOST_MODULES = 10_000


def new_record(
    run_id: str, notebook: str, values: Mapping[str, Any], *, parent: str, basis: Mapping[str, Any]
) -> dict[str, Any]:
    """What is known of a run before its first cell.

    Args:
        run_id: names its folder.
        notebook: its name.
        values: the parameters that were given.
        parent: the run that asked for it; empty if none did.
        basis: digests of what it rests on.
    """
    return {
        "schema": 1,
        "run_id": run_id,
        "notebook": notebook,
        "status": "running",
        "outcome": "error",  # until something better is known
        "action": None,
        "approval": None,
        "target_version": None,
        "generation": None,
        "clears_hold": False,
        "judged": None,
        "reasons": [],
        "evidence": [],
        "params": dict(values),
        "inputs": [],
        "outputs": {},
        "environment": {},
        "basis": dict(basis),
        "parent": parent,
        "started": datetime.now(UTC).isoformat(timespec="seconds"),
        "seconds": None,
    }


def finished_record(
    record: Mapping[str, Any], executed: Path, stop: Stop | None, *, seconds: float | None
) -> dict[str, Any]:
    """What is known of a run after its last cell.

    Args:
        record: as it began.
        executed: the notebook as it was saved.
        stop: why it ended early, if it did.
        seconds: how long it took, if that is known.
    """
    status = stop.status if stop else "succeeded"
    shown = shown_result(executed) if status == "succeeded" else {"reasons": [stop.sentence if stop else ""]}
    ended = {"status": status, "seconds": None if seconds is None else round(seconds, 2)}
    return {**record, **shown, **ended, "basis": {**record["basis"], "executed": file_digest(executed)}}


def write_record(record: Mapping[str, Any], folder: Path) -> None:
    """Write it into the run's folder, whole.

    Raises:
        OSError: the disk is full.
    """
    write_text(folder / "result.json", json.dumps(record, indent=2, allow_nan=False))


def read_record(folder: Path) -> dict[str, Any]:
    """The record in a run's folder; empty if there is none that can be read."""
    try:
        record = json.loads((folder / "result.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return record if isinstance(record, dict) else {}


def file_digest(executed: Path) -> str | None:
    """SHA-256 of a notebook as it was saved, so that no byte of it changes unseen; None if it never was."""
    try:
        return hashlib.sha256(executed.read_bytes()).hexdigest()
    except OSError:
        return None


# What a notebook shows as its result


class _Evidence(BaseModel):
    model_config = ConfigDict(strict=True)

    name: str
    outcome: Outcome
    value: float | None = None
    low: float | None = None
    high: float | None = None
    limit: float | None = None
    n: float | None = None


class _Input(BaseModel):
    name: str


class _Result(BaseModel):
    model_config = ConfigDict(strict=True)

    outcome: Outcome = "error"
    action: Literal[tuple(ACTIONS)] | None = None  # type: ignore[valid-type]  # known when this runs
    approval: Literal["proposed", "approved", "rejected"] | None = None
    target_version: int | None = None
    generation: int | None = None
    clears_hold: bool = False
    judged: dict[str, Any] | None = None
    reasons: list[str] = []
    evidence: list[_Evidence] = []
    inputs: list[_Input] = []
    outputs: dict[str, Any] = {}
    params: dict[str, Any] = {}
    environment: dict[str, Any] = {}


def shown_result(executed: Path) -> dict[str, Any]:
    """What the notebook's last cell has shown as its result, or why that cannot be used."""
    cells = json.loads(executed.read_text(encoding="utf-8"))["cells"]
    shown = [output.get("data", {}) for cell in cells for output in cell.get("outputs", [])]
    results = [data[RESULT_MIME] for data in shown if RESULT_MIME in data]
    if not results:
        return {"reasons": ["the notebook recorded no result"], "outcome": "inconclusive"}
    result = results[-1]
    try:
        json.dumps(result, allow_nan=False)
        _Result.model_validate(result)
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(map(str, first["loc"])) or "it"
        return {"reasons": [f"the notebook's result cannot be used: {place}: {first['msg']}"]}
    except ValueError as error:
        return {"reasons": [f"the notebook's result is not strict JSON: {error}"]}
    return {name: result[name] for name in _Result.model_fields if name in result}


# What a run rests on


def basis(
    path: Path, values: Mapping[str, Any], *, params: ProjectParams | None, store: Store | None
) -> dict[str, Any]:
    """What ``result.json`` says of what a run rests on, so that it can be verified later.

    Args:
        path: the notebook's source; its folder is the kernel's.
        values: the parameters, defaults among them.
        params: the same, checked; None for a notebook that is not of the kit.
        store: the real store that it works with, if it does.

    Returns:
        ``notebook``, ``code``, ``modules`` (the project's own) and ``data``, SHA-256 digests; ``unchecked``, which of
        its cells say that their outputs cannot repeat; ``folder``, relative to the project's if it lies there;
        ``store``, a watermark or None; ``began``, the moment when this was taken.

    Raises:
        DataError: the table cannot be read.
    """
    cells, home = json.loads(path.read_text(encoding="utf-8"))["cells"], project_folder()
    folder = path.parent.resolve()  # where a link lies, not where it leads: the kernel works there
    return {
        "notebook": cells_digest(cells),
        "unchecked": unchecked_cells(cells),
        "code": code_digest(),
        "modules": modules_digest([getattr(params, "model", ""), *params.metrics] if params else []),
        "data": table_digest(params) if params else files_digest(values, folder),
        "folder": os.path.relpath(folder, home) if folder.is_relative_to(home) else str(folder),
        "store": store.watermark() if store else None,
        "began": datetime.now(UTC).isoformat(),
    }


def table_digest(params: ProjectParams) -> str:
    """A fingerprint of all that a run of these parameters reads: rows, labels, and the log of its requests."""
    # here, for a notebook of the user's own may not need what reads tables
    from prodkit.data.sources import source_digest
    from prodkit.data.windows import requests_digest

    digest = source_digest(params)
    requests = requests_digest(params) if isinstance(params, MonitorParams | RollbackParams) else ""
    return hashlib.sha256(f"{digest}{requests}".encode()).hexdigest() if requests else digest


def files_digest(values: Mapping[str, Any], folder: Path) -> str:
    """SHA-256 of what a notebook of the user's own is known to read; empty if nothing is.

    That are the files, folders and patterns that its parameters name, also within lists and mappings, and the modules
    and packages beside it and in the project's folder. Of a single file the bytes count, of the others their names,
    sizes and times. What else it reads cannot be known.
    """
    digest = hashlib.sha256()
    named = [text for _, value in sorted(values.items()) for text in _texts(value) if 0 < len(text) < 4096]
    places = [os.path.join(folder, os.path.expanduser(text)) for text in named if "\0" not in text]
    for place in [
        *places,
        *_modules(folder),
        *(_modules(project_folder()) if project_folder() != folder else ()),
    ]:
        if os.path.isfile(place):
            with open(place, "rb") as file:
                digest.update(hashlib.file_digest(file, "sha256").digest())
        for path in _beneath(place):
            about = os.stat(path)
            digest.update(f"{path} {about.st_size} {about.st_mtime_ns}".encode(errors="replace"))
    return "" if digest.digest() == hashlib.sha256().digest() else digest.hexdigest()


def _texts(value: Any) -> Iterator[str]:
    """Every text in a value: itself, or in its members and keys, however deep."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, Mapping):
        for key in sorted(value, key=str):
            yield from _texts(key)
            yield from _texts(value[key])
    elif isinstance(value, list | tuple | set | frozenset):
        for member in sorted(value, key=str) if isinstance(value, set | frozenset) else value:
            yield from _texts(member)


def _modules(folder: Path) -> list[str]:
    """What can be imported from a folder: modules, and those of packages, with or without ``__init__.py``."""
    inside = glob.escape(str(folder))
    top = glob.glob(f"{inside}/*.py")
    packages = {os.path.dirname(path) for path in glob.iglob(f"{inside}/*/*.py")}
    below = (
        path
        for each in sorted(packages)
        for path in glob.iglob(f"{glob.escape(each)}/**/*.py", recursive=True)
    )
    return sorted({*top, *itertools.islice(below, _MOST_MODULES)})


def _beneath(place: str) -> list[str]:
    """The files in a folder, or those that fit a pattern."""
    if os.path.isdir(place):
        place = os.path.join(glob.escape(place), "**")
    elif not glob.has_magic(place):
        return []
    return sorted(filter(os.path.isfile, itertools.islice(glob.iglob(place, recursive=True), _MOST_FILES)))


def working_folder(named: str) -> Path:
    """The folder that ``basis`` names."""
    return project_folder() / named


def own_cells(cells: Sequence[Any]) -> list[Any]:
    """The cells of a notebook without the one that papermill has added."""
    return [cell for cell in cells if INJECTED not in _tags(cell)]


def cells_digest(cells: Sequence[Any]) -> str:
    """SHA-256 of the text of all cells; outputs and parameters that were put in do not count."""
    texts = [(cell["cell_type"], "".join(cell["source"])) for cell in own_cells(cells)]
    return hashlib.sha256(json.dumps(texts).encode()).hexdigest()


def unchecked_cells(cells: Sequence[Any]) -> list[int]:
    """Positions, among its own cells, of those that are tagged as giving other outputs each time."""
    return [n for n, cell in enumerate(own_cells(cells)) if UNCHECKED & _tags(cell)]


def code_digest() -> str:
    """SHA-256 of the package's own modules."""
    digest = hashlib.sha256()
    for source in sorted(Path(__file__).parents[1].rglob("*.py")):
        digest.update(source.read_bytes())
    return digest.hexdigest()


def _tags(cell: Any) -> set[str]:
    tags = cell["metadata"].get("tags", [])
    return {tag for tag in tags if isinstance(tag, str)} if isinstance(tags, list) else set()
