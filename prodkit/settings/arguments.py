"""What a notebook is given for its parameters: from params files and from the command, checked before it runs."""

from __future__ import annotations

import re
from collections.abc import Container, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from prodkit.errors import ParameterError
from prodkit.settings.annotations import checked, require_plain
from prodkit.settings.declarations import NO_DEFAULT, Parameter
from prodkit.settings.notebook import Notebook, read_notebook
from prodkit.settings.params import FLIGHTS, NOTEBOOKS, Facts, kind_of, unknown_parameter
from prodkit.settings.places import beside
from prodkit.settings.reading import read_node, read_text, written_mapping

__all__ = ["REAL_STORE", "Arguments", "check", "neutral_facts", "read_files", "typed_value", "written"]

REAL_STORE = "sqlite:///outputs/store.db"
_ADDRESSES = ("store", "artifacts", "data", "predictions", "notify")
_PASSWORD = re.compile(r"^[\w+.-]+://[^/?#\s@:]*:(?P<password>[^/?#\s@]+)@")


@dataclass(frozen=True)
class Arguments:
    """What a notebook is given, and found to be what it declares.

    Attributes:
        values: those that differ from its defaults, plain, as they are injected.
        params: all of them, of a notebook of the kit; None for a notebook of one's own.
    """

    values: dict[str, Any]
    params: Facts | None


def read_files(notebook: str, files: Sequence[Path | str]) -> dict[str, Any]:
    """The parameters for one notebook from params files, later ones winning.

    A file named after a notebook is that notebook's policy, and says nothing to the others. Any other file
    is shared: what it says to another notebook is passed over. A table that does not lie in the project is
    looked for beside the file that names it.

    Raises:
        ParameterError: a file that cannot be read, or a name that no notebook knows.
    """
    given: dict[str, Any] = {}
    kinds = _kinds(read_notebook(notebook))
    everybody = {name for kind in NOTEBOOKS.values() for name in kind.model_fields}
    for path in map(Path, files):
        shared = path.stem not in NOTEBOOKS
        if not shared and path.stem != Path(notebook).stem:
            continue
        for name, node in written(path).items():
            if name in kinds:
                value = _read(read_node, node, kinds[name], name=name, place=path.name)
                given[name] = _located(name, value, path.parent)
            elif not (shared and name in everybody):
                raise unknown_parameter(name, known=kinds, place=path.name)
    return given


def written(path: Path) -> dict[str, yaml.Node]:
    """The names of one params file, each with what is written for it; ParameterError when it cannot be read."""
    try:
        return written_mapping(path.read_text(encoding="utf-8"))
    except OSError as error:
        known = sorted(str(p.name) for p in path.parent.glob("*.yaml"))
        fix = f"There are: {', '.join(known)}." if known else ""
        raise ParameterError("-f", rule="must name a file that can be read", value=path, fix=fix) from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ParameterError("-f", rule=f"must be YAML: {error}", place=path.name) from error
    except ValueError as error:
        raise ParameterError("-f", rule=str(error), place=path.name) from error


def _kinds(notebook: Notebook) -> dict[str, Any]:
    """What each parameter may be: as its model says, or as the notebook declares it."""
    kind = kind_of(notebook.name, notebook.parameters)
    fields = kind.model_fields if kind else {}
    return {
        name: fields[name].annotation if name in fields else declared.kind
        for name, declared in notebook.parameters.items()
    }


def _read(reader: Any, written: Any, kind: Any, *, name: str, place: str) -> Any:
    try:
        value = reader(written, kind)
    except ValueError as error:
        raise ParameterError(name, rule=str(error), place=place) from error
    _require_no_password(name, value)
    return value


def _located(name: str, value: Any, folder: Path) -> Any:
    """Lead to the table from wherever its name was given; another value stays what it is."""
    return beside(value, folder) if name == "data" and isinstance(value, str) and value != FLIGHTS else value


def typed_value(notebook: str, name: str, text: str) -> Any:
    """Read the VALUE of ``-p NAME VALUE``: text stays text where text is declared, the rest is YAML.

    Raises:
        ParameterError: the notebook does not know the name, or the value can be read in two ways.
    """
    kinds = _kinds(read_notebook(notebook))
    if name not in kinds:
        raise unknown_parameter(name, known=kinds, place=f"-p, for {notebook}")
    return _located(name, _read(read_text, text, kinds[name], name=name, place="-p"), Path.cwd())


def check(notebook: Notebook, given: Mapping[str, Any]) -> Arguments:
    """What a notebook is given, with what suits the table, if each value is what its parameter may be.

    Of a notebook of the kit its model is asked, of any other what its parameters cell declares.

    Raises:
        ParameterError: a name that is not declared, one that has to be given, or a value of another kind.
    """
    defaults = notebook.defaults
    values = dict(given)
    for name, value in values.items():
        _require_no_password(name, value)  # before any error can repeat it
    if defaults.get("data") == FLIGHTS:
        values = {**neutral_facts(given, known=notebook.parameters), **values}
    if defaults.get("store") == "demo":
        values.setdefault("store", REAL_STORE)
    place = f"the parameters of {notebook.path.name}"
    for name, value in values.items():
        if name not in notebook.parameters:
            raise unknown_parameter(name, known=notebook.parameters, place=notebook.path.name)
        try:
            require_plain(value)
        except ValueError as error:
            raise ParameterError(name, rule=f"must be plain: {error}", place=place) from error
    if kind := kind_of(notebook.name, notebook.parameters):
        _require_literals(notebook)
        return Arguments(values, kind.check({**defaults, **values}))
    return Arguments(_checked(notebook, values, place=place), None)


def _require_no_password(name: str, value: Any) -> None:
    """Refuse an address with a password in it: parameters stand in the notebook, in records and in reports."""
    addresses = value if isinstance(value, list) else [value]
    for address in addresses if name in _ADDRESSES else []:
        match = _PASSWORD.search(address) if isinstance(address, str) else None
        if match and not re.fullmatch(r"(\$\{\w+\})+|\**", match["password"]):
            variable = f"{name.upper()}_PASSWORD"
            start, end = match.span("password")
            fix = f"export {variable}=..., and write {address[:start]}${{{variable}}}{address[end:]}."
            found = f"{address[:start]}***{address[end:]}"
            raise ParameterError(
                name, rule="must not hold a password, since it is recorded", value=found, fix=fix
            )


def _require_literals(notebook: Notebook) -> None:
    """The notebooks of the kit are checked whole, so that all of their defaults must be known."""
    for name, declared in notebook.parameters.items():
        if not declared.is_literal:
            raise ParameterError(name, rule="must be a literal", place=notebook.path.name)


def _checked(notebook: Notebook, values: Mapping[str, Any], *, place: str) -> dict[str, Any]:
    found = {}
    for name, declared in notebook.parameters.items():
        if name in values:
            try:
                found[name] = checked(values[name], declared.kind)
            except ValueError as error:
                rule = f"{declared.rule}: {error}"
                raise ParameterError(name, rule=rule, place=place, fix=_advice(declared)) from error
        elif declared.default is NO_DEFAULT:
            fix = f"Set it in a params file, or with -p {name} VALUE. {_advice(declared)}".strip()
            raise ParameterError(name, rule="must be given: it has no default", place=place, fix=fix)
    return found


def _advice(declared: Parameter) -> str:
    """How to give another value, or to allow this one."""
    meaning = f"It means: {declared.meaning}. " if declared.meaning else ""
    if declared.annotation:
        return meaning.strip()
    return f"{meaning}To allow others, annotate it there, such as {declared.name}: float | None."


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
