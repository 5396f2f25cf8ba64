"""What a run rests on: digests of its cells, code and data, and how far the store had grown when it began."""

from __future__ import annotations

import hashlib
import json
import os
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import nbformat

from prodkit.data import source_digest
from prodkit.params import Facts
from prodkit.places import project_folder
from prodkit.store import Store

__all__ = [
    "INJECTED",
    "basis",
    "cells_digest",
    "code_digest",
    "own_cells",
    "unchecked_cells",
    "working_folder",
]

INJECTED = "injected-parameters"  # papermill's tag of the cell that it adds
_IGNORED = {"nbval-ignore-output", "nbval-skip"}  # nbval's tags of cells whose outputs are not compared


def basis(path: Path, *, params: Facts | None, store: Store | None, folder: Path) -> dict[str, Any]:
    """What ``result.json`` says of the ground that a run stands on, so that it can be verified later.

    Args:
        path: the notebook's source.
        params: checked parameters; None for a notebook that is not of the kit.
        store: the real store that it works with, if it does.
        folder: the kernel's working folder.

    Returns:
        ``notebook``, ``code`` and ``data``, SHA-256 digests (``data`` is empty without ``params``);
        ``unchecked``, which of its cells say that their outputs cannot repeat; ``folder``, relative to the
        project's if it lies there; ``store``, a watermark or None; ``began``, the moment when this was taken.

    Raises:
        DataError: the table cannot be read.
    """
    notebook, home = nbformat.read(path, as_version=4), project_folder()
    inside = folder.resolve().is_relative_to(home)
    return {
        "notebook": cells_digest(notebook),
        "unchecked": unchecked_cells(notebook),
        "code": code_digest(),
        "data": source_digest(params) if params else "",
        "folder": os.path.relpath(folder.resolve(), home) if inside else str(folder.resolve()),
        "store": store.watermark() if store else None,
        "began": datetime.now(UTC).isoformat(),
    }


def working_folder(said: str) -> Path:
    """The folder that ``basis`` names."""
    return project_folder() / said


def own_cells(notebook: Any) -> list[Any]:
    """The cells of a notebook without the one that papermill has added."""
    return [cell for cell in notebook.cells if INJECTED not in _tags(cell)]


def cells_digest(notebook: Any) -> str:
    """SHA-256 of the text of all cells; outputs and parameters that were put in do not count."""
    cells = [(cell.cell_type, cell.source) for cell in own_cells(notebook)]
    return hashlib.sha256(json.dumps(cells).encode()).hexdigest()


def unchecked_cells(notebook: Any) -> list[int]:
    """Positions, among its own cells, of those that are tagged as giving other outputs each time."""
    return [n for n, cell in enumerate(own_cells(notebook)) if _IGNORED & _tags(cell)]


def code_digest() -> str:
    """SHA-256 of the package's own modules."""
    digest = hashlib.sha256()
    for source in sorted(Path(__file__).parent.glob("*.py")):
        digest.update(source.read_bytes())
    return digest.hexdigest()


def _tags(cell: Any) -> set[str]:
    tags = cell.metadata.get("tags", [])
    return {tag for tag in tags if isinstance(tag, str)} if isinstance(tags, list) else set()
