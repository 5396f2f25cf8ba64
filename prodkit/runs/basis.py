"""What a run rests on: digests of its cells, code and data, and how far the store had grown when it began."""

from __future__ import annotations

import glob
import hashlib
import itertools
import json
import os
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from prodkit.params import MonitorParams, ProjectParams
from prodkit.settings import project_folder
from prodkit.store.registry import Store

__all__ = [
    "INJECTED",
    "basis",
    "cells_digest",
    "code_digest",
    "files_digest",
    "own_cells",
    "unchecked_cells",
    "working_folder",
]

INJECTED = "injected-parameters"  # papermill's tag of the cell that it adds
_MOST_FILES = 100_000
_IGNORED = {"nbval-ignore-output", "nbval-skip"}  # nbval's tags of cells whose outputs are not compared


def basis(
    path: Path, values: Mapping[str, Any], *, params: ProjectParams | None, store: Store | None
) -> dict[str, Any]:
    """What ``result.json`` says of the ground that a run stands on, so that it can be verified later.

    Args:
        path: the notebook's source; its folder is the kernel's.
        values: the parameters, defaults among them.
        params: the same, checked; None for a notebook that is not of the kit.
        store: the real store that it works with, if it does.

    Returns:
        ``notebook``, ``code`` and ``data``, SHA-256 digests; ``unchecked``, which of its cells say that their outputs
        cannot repeat; ``folder``, relative to the project's if it lies there; ``store``, a watermark or None;
        ``began``, the moment when this was taken.

    Raises:
        DataError: the table cannot be read.
    """
    cells, home = json.loads(path.read_text(encoding="utf-8"))["cells"], project_folder()
    folder = path.resolve().parent
    return {
        "notebook": cells_digest(cells),
        "unchecked": unchecked_cells(cells),
        "code": code_digest(),
        "data": _table_digest(params) if params else files_digest(values, folder),
        "folder": os.path.relpath(folder, home) if folder.is_relative_to(home) else str(folder),
        "store": store.watermark() if store else None,
        "began": datetime.now(UTC).isoformat(),
    }


def _table_digest(params: ProjectParams) -> str:
    from prodkit.data.dataset import (
        source_digest,  # and pyarrow, which a notebook of the user's own may not need
    )

    found = source_digest(params)
    if isinstance(params, MonitorParams):
        from prodkit.data.requests import requests_digest

        asked = requests_digest(params)
        return hashlib.sha256(f"{found}{asked}".encode()).hexdigest() if asked else found
    return found


def files_digest(values: Mapping[str, Any], folder: Path) -> str:
    """SHA-256 of what a notebook of the user's own is known to read; empty if nothing is.

    That are the files, folders and patterns that its parameters name, and the modules beside it. Of a single file the
    bytes count, of the others their names, sizes and times. What else it reads cannot be known.
    """
    found = hashlib.sha256()
    named = [value for _, value in sorted(values.items()) if isinstance(value, str) and 0 < len(value) < 4096]
    places = [os.path.join(folder, value) for value in named if "\0" not in value]
    for place in [*places, *sorted(glob.glob(os.path.join(glob.escape(str(folder)), "*.py")))]:
        if os.path.isfile(place):
            with open(place, "rb") as file:
                found.update(hashlib.file_digest(file, "sha256").digest())
        for path in _beneath(place):
            about = os.stat(path)
            found.update(f"{path} {about.st_size} {about.st_mtime_ns}".encode(errors="replace"))
    return "" if found.digest() == hashlib.sha256().digest() else found.hexdigest()


def _beneath(place: str) -> list[str]:
    """The files in a folder, or those that fit a pattern."""
    if os.path.isdir(place):
        place = os.path.join(glob.escape(place), "**")
    elif not glob.has_magic(place):
        return []
    return sorted(filter(os.path.isfile, itertools.islice(glob.iglob(place, recursive=True), _MOST_FILES)))


def working_folder(said: str) -> Path:
    """The folder that ``basis`` names."""
    return project_folder() / said


def own_cells(cells: Sequence[Any]) -> list[Any]:
    """The cells of a notebook without the one that papermill has added."""
    return [cell for cell in cells if INJECTED not in _tags(cell)]


def cells_digest(cells: Sequence[Any]) -> str:
    """SHA-256 of the text of all cells; outputs and parameters that were put in do not count."""
    texts = [(cell["cell_type"], "".join(cell["source"])) for cell in own_cells(cells)]
    return hashlib.sha256(json.dumps(texts).encode()).hexdigest()


def unchecked_cells(cells: Sequence[Any]) -> list[int]:
    """Positions, among its own cells, of those that are tagged as giving other outputs each time."""
    return [n for n, cell in enumerate(own_cells(cells)) if _IGNORED & _tags(cell)]


def code_digest() -> str:
    """SHA-256 of the package's own modules."""
    digest = hashlib.sha256()
    for source in sorted(Path(__file__).parents[1].rglob("*.py")):
        digest.update(source.read_bytes())
    return digest.hexdigest()


def _tags(cell: Any) -> set[str]:
    tags = cell["metadata"].get("tags", [])
    return {tag for tag in tags if isinstance(tag, str)} if isinstance(tags, list) else set()
