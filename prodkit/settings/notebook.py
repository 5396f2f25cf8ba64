"""A notebook as a file: where it lies, what its parameters cell declares, and the digest of its cells."""

from __future__ import annotations

import copy
import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from prodkit.errors import ParameterError
from prodkit.settings.declarations import Parameter, declarations
from prodkit.settings.places import project_folder

__all__ = ["Notebook", "notebook_path", "read_notebook"]


@dataclass(frozen=True)
class Notebook:
    """A notebook that can be run, read without running it.

    Attributes:
        path: the file.
        digest: SHA-256 (hex digits) of the kinds and sources of its cells; outputs do not count.
        parameters: what its parameters cell declares, by name.
    """

    path: Path
    digest: str
    parameters: Mapping[str, Parameter]

    @property
    def name(self) -> str:
        """What it is called: the file's name without its ending."""
        return self.path.stem

    @property
    def defaults(self) -> dict[str, Any]:
        """The parameters whose defaults are literals, in order."""
        known = {name: each.default for name, each in self.parameters.items() if each.is_literal}
        return copy.deepcopy(known)


def notebook_path(notebook: str) -> Path:
    """The file of a notebook given by name or path; raises ParameterError when there is none."""
    path = (
        Path(notebook)
        if notebook.endswith(".ipynb")
        else project_folder() / "notebooks" / f"{notebook}.ipynb"
    )
    if not path.is_file():
        known = sorted(p.stem for p in (project_folder() / "notebooks").glob("*.ipynb"))
        fix = f"There are: {', '.join(known)}." if known else "Start in a folder that holds notebooks/."
        raise ParameterError("NOTEBOOK", rule="must be a notebook", value=notebook, fix=fix)
    return path


def read_notebook(notebook: str) -> Notebook:
    """Read a notebook given by name or path; a text that was read before is not parsed again.

    Raises:
        ParameterError: no such notebook, or none with one parameters cell that can be read.
    """
    path = notebook_path(notebook)
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ParameterError("NOTEBOOK", rule=f"must be readable: {error}", place=path.name) from error
    return _parsed(text, path)


@lru_cache(maxsize=64)
def _parsed(text: str, path: Path) -> Notebook:
    try:
        cells = _cells(text)
    except (ValueError, RecursionError) as error:
        rule, fix = f"must be a notebook of format 4: {error}", "Open it in JupyterLab and save it."
        raise ParameterError("NOTEBOOK", rule=rule, place=path.name, fix=fix) from error
    sources = [(kind, source) for kind, source, _ in cells]
    digest = hashlib.sha256(json.dumps(sources).encode()).hexdigest()
    tagged = [(kind, source) for kind, source, tags in cells if "parameters" in tags]
    if [kind for kind, _ in tagged] != ["code"]:
        rule, fix = "must be one tagged code cell", "Tag one cell `parameters`."
        raise ParameterError("parameters", rule=rule, value=f"{len(tagged)}", place=path.name, fix=fix)
    return Notebook(path, digest, declarations(tagged[0][1], place=path.name))


def _cells(text: str) -> list[tuple[str, str, list[str]]]:
    """Kind, source and tags of each cell.

    Read as the JSON that it is: to import nbformat takes longer than to run many a small notebook, and it
    repairs only what is not read here.
    """
    document = json.loads(text)
    if not isinstance(document, dict) or document.get("nbformat") != 4:
        raise ValueError("it is none")
    found = []
    for number, cell in enumerate(_typed(document.get("cells"), list, "cells"), start=1):
        place = f"cell {number}"
        cell = _typed(cell, dict, place)
        source = cell.get("source")
        lines = source if isinstance(source, list) else [source]
        tags = _typed(
            _typed(cell.get("metadata"), dict, f"metadata of {place}").get("tags", []), list, "tags"
        )
        kind = _typed(cell.get("cell_type"), str, f"type of {place}")
        found.append((kind, "".join(_typed(line, str, f"source of {place}") for line in lines), tags))
    return found


def _typed(value: Any, kind: type, name: str) -> Any:
    if not isinstance(value, kind):
        raise ValueError(f"{name} must be of type {kind.__name__}")
    return value
