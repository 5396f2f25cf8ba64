"""What a notebook is given for its parameters: from params files and from the command, with what suits the table."""

from __future__ import annotations

from collections.abc import Container, Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from prodkit.errors import ParameterError
from prodkit.notebook import read_notebook
from prodkit.params import FLIGHTS, NOTEBOOKS, unknown_parameter
from prodkit.places import beside

__all__ = ["neutral_facts", "read_files", "typed_value"]


def read_files(notebook: str, files: Sequence[Path | str]) -> dict[str, Any]:
    """The parameters for one notebook from params files, later ones winning.

    A file named after a notebook is that notebook's policy, and says nothing to the others. Any other file
    is shared: what it says to another notebook is passed over. A table that does not lie in the project is
    looked for beside the file that names it.

    Raises:
        ParameterError: a file that cannot be read, or a name that no notebook knows.
    """
    given: dict[str, Any] = {}
    own = read_notebook(notebook).defaults
    everybody = {name for kind in NOTEBOOKS.values() for name in kind.model_fields}
    for path in map(Path, files):
        shared = path.stem not in NOTEBOOKS
        if not shared and path.stem != Path(notebook).stem:
            continue
        for name, value in _read_yaml(path).items():
            if name in own:
                given[name] = _located(name, value, path.parent)
            elif not (shared and name in everybody):
                raise unknown_parameter(name, known=own, place=path.name)
    return given


def _read_yaml(path: Path) -> dict[str, Any]:
    try:
        document = yaml.safe_load(path.read_text(encoding="utf-8"))
    except OSError as error:
        known = sorted(str(p.name) for p in path.parent.glob("*.yaml"))
        fix = f"There are: {', '.join(known)}." if known else ""
        raise ParameterError("-f", rule="must name a file that can be read", value=path, fix=fix) from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ParameterError("-f", rule=f"must be YAML: {error}", place=path.name) from error
    if document is None:
        return {}
    if not isinstance(document, dict):
        raise ParameterError(
            "-f", rule="must be a mapping of names to values", value=type(document).__name__, place=path.name
        )
    return {str(name): _as_text(value) for name, value in document.items()}


def _as_text(value: Any) -> Any:
    """YAML makes dates of ISO dates; a parameters cell holds them as text."""
    return value.isoformat() if hasattr(value, "isoformat") else value


def _located(name: str, value: Any, folder: Path) -> Any:
    """Lead to the table from wherever its name was given; another value stays what it is."""
    return beside(value, folder) if name == "data" and isinstance(value, str) and value != FLIGHTS else value


def typed_value(notebook: str, name: str, text: str) -> Any:
    """Read the VALUE of ``-p NAME VALUE``: text stays text where text is declared, the rest is YAML.

    Raises:
        ParameterError: the notebook does not know the name.
    """
    own = read_notebook(notebook).defaults
    if name not in own:
        raise unknown_parameter(name, known=own, place=f"-p, for {notebook}")
    if isinstance(own[name], str):
        return _located(name, text, Path.cwd())
    try:
        return _as_text(yaml.safe_load(text))
    except yaml.YAMLError as error:
        raise ParameterError(name, rule="must be YAML", value=repr(text), place="-p") from error


def neutral_facts(given: Mapping[str, Any], *, known: Container[str]) -> dict[str, Any]:
    """What stands in for the facts of the bundled flights where another table is named and nothing is said.

    Raises:
        ParameterError: the table's time column or target is not named.
    """
    if given.get("data", FLIGHTS) == FLIGHTS:
        return {}
    for name in ("time_column", "target"):
        if name in known and name not in given:
            fix = f"Set it in a params file, or with -p {name} NAME."
            raise ParameterError(name, rule="must be given with `data`", place=str(given["data"]), fix=fix)
    neutral: dict[str, Any] = {"features": [], "id_column": [], "slices": []}
    return {name: value for name, value in neutral.items() if name in known and name not in given}
