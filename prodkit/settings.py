"""Settings: where things lie, what the parameters cell of a notebook declares, and the values it is given."""

from __future__ import annotations

import glob
import hashlib
import importlib
import os
import re
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, suppress
from contextvars import ContextVar
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from prodkit.errors import ParameterError
from prodkit.notebook import NO_DEFAULT, Notebook, Parameter, parse_notebook
from prodkit.params import FLIGHTS, NOTEBOOKS, ProjectParams, params_model, unknown_parameter
from prodkit.redaction import is_common, references
from prodkit.values import as_kind, checked, read_text, read_yaml, require_plain

__all__ = [
    "REAL_STORE",
    "Arguments",
    "check",
    "default_files",
    "destination",
    "environment_set",
    "expand",
    "given_values",
    "imported",
    "modules_digest",
    "names_read",
    "neutral_facts",
    "outputs_folder",
    "outputs_in",
    "own_modules",
    "project_folder",
    "project_on_path",
    "read_files",
    "read_notebook",
    "resolve",
    "store_places",
    "typed_value",
    "using_outputs",
]

REAL_STORE = "sqlite:///outputs/store.db"


# Places


def project_folder(start: Path | None = None) -> Path:
    """The nearest folder upwards that holds ``notebooks/``, else the one to start from: the current folder.

    A run tells its kernel by ``PRODKIT_PROJECT``, wherever the notebook lies.
    """
    named = os.environ.get("PRODKIT_PROJECT")
    if named and start is None:
        return Path(named)
    here = (start or Path.cwd()).resolve()
    return next((folder for folder in (here, *here.parents) if (folder / "notebooks").is_dir()), here)


def project_on_path(folder: str = "") -> None:
    """Let this process import the project's own modules: after the standard library, before what is installed."""
    place = folder or str(project_folder())
    if place not in sys.path and Path(place, "notebooks").is_dir():
        packages = (n for n, each in enumerate(sys.path) if each.endswith("-packages"))
        sys.path.insert(next(packages, len(sys.path)), place)
        importlib.invalidate_caches()


def imported(path: str) -> Any:
    """What ``package.module.name`` or ``package.module:name`` names, of the project or what is installed."""
    project_on_path()
    module, _, name = path.partition(":") if ":" in path else path.rpartition(".")
    return getattr(importlib.import_module(module), name)


def own_modules() -> dict[str, str]:
    """SHA-256 of each loaded module that lies in the project and belongs to nobody else, by its path there."""
    folder, digests = project_folder(), {}
    if not (folder / "notebooks").is_dir():
        return {}
    for module in list(sys.modules.values()):
        file = getattr(module, "__file__", None)
        if not isinstance(file, str) or not file.endswith(".py") or not Path(file).is_relative_to(folder):
            continue
        place = Path(file).relative_to(folder)
        installed = any(part.endswith("-packages") for part in place.parts)
        if not installed and place.parts[0] not in ("prodkit", "tests"):
            digests[place.as_posix()] = hashlib.sha256(Path(file).read_bytes()).hexdigest()
    return digests


_outputs: ContextVar[str] = ContextVar("outputs", default="")


def outputs_folder() -> Path:
    """Where results go: ``PRODKIT_OUT`` (set by ``--out``), else ``outputs/`` of the project."""
    named = _outputs.get() or os.environ.get("PRODKIT_OUT")
    return Path(named) if named else project_folder() / "outputs"


def using_outputs(folder: Path) -> AbstractContextManager[None]:
    """Let all that lies under ``outputs/`` lie in this folder, here and in kernels that are started meanwhile."""
    return environment_set(PRODKIT_OUT=str(folder.resolve()))


@contextmanager
def outputs_in(folder: Path) -> Iterator[None]:
    """The same for this thread alone; kernels have to be told."""
    before = _outputs.set(str(folder.resolve()))
    try:
        yield
    finally:
        _outputs.reset(before)


@contextmanager
def environment_set(**values: str) -> Iterator[None]:
    """Set environment variables for a while; kernels that are started meanwhile inherit them."""
    before = {name: os.environ.get(name) for name in values}
    os.environ.update(values)
    try:
        yield
    finally:
        os.environ.update({name: value for name, value in before.items() if value is not None})
        for name in [name for name, value in before.items() if value is None]:
            os.environ.pop(name, None)


_READ: set[str] = set()


def names_read() -> frozenset[str]:
    """The variables whose values :func:`expand` has put in since this process began: what must not be shown."""
    return frozenset(_READ)


def expand(text: str) -> str:
    """Replace each ``${NAME}`` by the environment's value, at the moment of use and never before.

    Raises:
        ParameterError: the variable is not set, or is a word that cannot be kept out of what is written.
    """

    def look_up(match: re.Match[str]) -> str:
        name = match[1]
        if name not in os.environ:
            raise ParameterError(match[0], rule="must be set in the environment", fix=f"export {name}=...")
        _READ.add(name)
        _require_hideable(name)
        return os.environ[name]

    return re.sub(r"\$\{(\w+)\}", look_up, text)


def _require_hideable(name: str, *, declared: Iterable[str] = ()) -> None:
    if is_common(os.environ.get(name, ""), declared):
        rule = "must not be a word that records are written in, since its value is taken out of them"
        raise ParameterError(f"${{{name}}}", rule=rule, place="the environment", fix="Choose another value.")


def resolve(location: str) -> str:
    """Make a location absolute: ``outputs/...`` lies in :func:`outputs_folder`, the rest in the project.

    URLs pass unchanged, but for the path of a SQLite one.
    """
    location = expand(location)
    prefix, path = ("", location)
    if location.startswith("sqlite:///"):
        prefix, path = "sqlite:///", location.removeprefix("sqlite:///")
        if path in ("", ":memory:"):
            return location
    elif "://" in location:
        return location
    folder = Path(path).expanduser()
    if folder.parts[:1] == ("outputs",):
        return prefix + str(outputs_folder().joinpath(*folder.parts[1:]))
    return prefix + str(project_folder() / folder)


def destination(location: str) -> Path:
    """The folder that results are written to: as :func:`resolve` says, but never outside a sandbox.

    While a recorded run is verified, ``PRODKIT_SANDBOX`` names a folder that stands in for everything the run may
    write to, so that what it did is not done again. A folder outside of the outputs is found there under
    ``elsewhere/``.
    """
    place, sandbox = Path(resolve(location)), os.environ.get("PRODKIT_SANDBOX")
    if not sandbox or place.is_relative_to(sandbox):
        return place
    return Path(sandbox, "elsewhere", *place.parts[1:])


def store_places(url: str, artifacts: str) -> tuple[str, str]:
    """Where a store is opened: in ``PRODKIT_SANDBOX`` while a run is verified, unless it lies in memory."""
    sandbox = os.environ.get("PRODKIT_SANDBOX")
    if not sandbox or url in ("sqlite://", "sqlite:///:memory:"):
        return url, artifacts
    return f"sqlite:///{sandbox}/store.db", f"{sandbox}/artifacts"


def modules_digest(paths: Iterable[str]) -> str:
    """SHA-256 of the project's modules, if one of these import paths lies in it; else empty."""
    folder = project_folder()
    names = {path.partition(":")[0].partition(".")[0] for path in paths}
    own = {name for name in names if name and ((folder / f"{name}.py").is_file() or (folder / name).is_dir())}
    files = {*folder.glob("*.py"), *(file for name in own for file in (folder / name).rglob("*.py"))}
    texts = [f"{file.relative_to(folder)}\0".encode() + file.read_bytes() for file in sorted(files)]
    return hashlib.sha256(b"\0".join(texts)).hexdigest() if own else ""


# Values


def read_notebook(notebook: str) -> Notebook:
    """Read a notebook given by name or path.

    Raises:
        ParameterError: no such notebook, or none that can be read.
    """
    folder = project_folder() / "notebooks"
    path = Path(notebook) if notebook.endswith(".ipynb") else folder / f"{notebook}.ipynb"
    if not path.is_file():
        known = sorted(p.stem for p in folder.glob("*.ipynb"))
        make = "prodkit init DIR --data FILE --target COL --time COL"
        fix = (
            f"There are: {', '.join(known)}."
            if known
            else f"Start in a project's folder, or make one: {make}."
        )
        raise ParameterError("NOTEBOOK", rule="must be a notebook", value=notebook, fix=fix)
    try:
        return parse_notebook(path.read_text(encoding="utf-8"), path)
    except (OSError, UnicodeDecodeError) as error:
        raise ParameterError("NOTEBOOK", rule=f"must be readable: {error}", place=path.name) from error


@dataclass(frozen=True)
class Arguments:
    """What a notebook is given, checked against what it declares.

    Attributes:
        values: those that differ from its defaults, plain, as they are injected.
        params: all of the kit's, of a notebook of the kit; None for a notebook of one's own.
    """

    values: dict[str, Any]
    params: ProjectParams | None


def default_files(*names: str, shared: bool = True) -> list[Path]:
    """Without ``-f``, the project's own: the policies of these names, and before them its facts, if they are shared.

    These stand in ``params/project.yaml``; those of the bundled table in ``params/flights.yaml``.
    """
    folder = project_folder() / "params"
    facts = next((name for name in ("project", FLIGHTS) if (folder / f"{name}.yaml").is_file()), FLIGHTS)
    return [path for name in ((facts,) * shared + names) if (path := folder / f"{name}.yaml").is_file()]


def read_files(notebook: str, files: Sequence[Path | str]) -> dict[str, Any]:
    """The parameters for one notebook from params files, later ones winning; see :func:`given_values`.

    Raises:
        ParameterError: a file that cannot be read, or a name that no notebook knows.
    """
    return given_values(Path(notebook).stem, read_notebook(notebook).kinds, files=files)


def typed_value(notebook: str, name: str, text: str) -> Any:
    """Read the VALUE of ``-p NAME VALUE``: text stays text where text is declared, the rest is YAML.

    Raises:
        ParameterError: the notebook does not know the name, or the value can be read in two ways.
    """
    return given_values(notebook, read_notebook(notebook).kinds, pairs=[(name, text)])[name]


def given_values(
    reader: str,
    kinds: Mapping[str, Any],
    *,
    files: Sequence[Path | str] = (),
    pairs: Sequence[tuple[str, str]] = (),
) -> dict[str, Any]:
    """The values for one reader from params files, later ones winning, and from ``-p``, which wins over all.

    A file named after a notebook is that notebook's policy, and says nothing to others. Any other file is shared:
    what it says to another notebook is passed over. A table that does not lie in the project is looked for beside
    the file that names it.

    Args:
        reader: name of the notebook or service.
        kinds: its parameters, and what each may be.
        files: the params files.
        pairs: names and texts, as they are typed.

    Raises:
        ParameterError: a file that cannot be read, a name that nobody knows, or a value that can be read in two ways.
    """
    given: dict[str, Any] = {}
    for path in map(Path, files):
        if path.stem in NOTEBOOKS and path.stem != reader:
            continue
        for name, value in _read_file(path).items():
            if name in kinds:
                given[name] = _read(
                    as_kind, value, kinds[name], name=name, place=path.name, folder=path.parent
                )
            elif path.stem == reader or not _belongs_to_another(name):
                raise unknown_parameter(name, known=kinds, place=path.name)
    for name, text in pairs:
        if name not in kinds:
            raise unknown_parameter(name, known=kinds, place=f"-p, for {reader}")
        given[name] = _read(read_text, text, kinds[name], name=name, place="-p", folder=Path.cwd())
    return given


def _read_file(path: Path) -> dict[str, Any]:
    try:
        document = read_yaml(path.read_text(encoding="utf-8")) or {}
        if not isinstance(document, dict):
            value = "a list" if isinstance(document, list) else repr(document)
            raise ValueError(f"must be a mapping of names to values; found {value}")
        return document
    except OSError as error:
        known = sorted(str(p.name) for p in path.parent.glob("*.yaml"))
        fix = f"There are: {', '.join(known)}." if known else ""
        raise ParameterError("-f", rule="must name a file that can be read", value=path, fix=fix) from error
    except UnicodeDecodeError as error:
        raise ParameterError("-f", rule=f"must be YAML: {error}", place=path.name) from error
    except ValueError as error:
        raise ParameterError("-f", rule=str(error), place=path.name) from error


def _belongs_to_another(name: str) -> bool:
    """Whether a notebook of the kit has this parameter, or was given it in its parameters cell."""
    if any(name in model.model_fields for model in NOTEBOOKS.values()):
        return True
    for notebook in NOTEBOOKS:
        with suppress(ParameterError):
            if name in read_notebook(notebook).parameters:
                return True
    return False


def _read(reader: Any, written: Any, kind: Any, *, name: str, place: str, folder: Path) -> Any:
    try:
        value = reader(written, kind)
    except ValueError as error:
        raise ParameterError(name, rule=str(error), place=place) from error
    _require_no_password(name, value)
    is_path = name == "data" and isinstance(value, str) and value != FLIGHTS
    return _beside(value, folder) if is_path else value


def _beside(location: str, folder: Path) -> str:
    """A path that leads nowhere in the project but somewhere from this folder, made absolute; others unchanged."""
    if "://" in location or "${" in location:
        return location
    near = (folder.resolve() / Path(location).expanduser()).resolve()
    return location if glob.glob(resolve(location)) or not glob.glob(str(near)) else str(near)


_PASSWORD = re.compile(
    r"^[\w+.-]+://(?:[^/?#\s@:]*:(?P<before>[^/?#\s@]+)@|[^\s]*[?&;](?:[\w.-]*(?:password|passwd|pwd|secret|token|key))=(?P<query>[^&;#\s]+))",
    re.IGNORECASE,
)


def _require_no_password(name: str, value: Any) -> None:
    """Refuse an address with a password in it: parameters stand in the notebook, in records and in reports."""
    if isinstance(value, list | dict):
        for each in value.values() if isinstance(value, dict) else value:
            _require_no_password(name, each)
    match = _PASSWORD.search(value) if isinstance(value, str) else None
    group = "query" if match and match["query"] else "before"
    if match and not re.fullmatch(r"(\$\{\w+\})+|\**", match[group]):
        start, end = match.span(group)
        variable = f"{name.upper()}_PASSWORD"
        fix = f"export {variable}=..., and write {value[:start]}${{{variable}}}{value[end:]}."
        rule, shown = "must not hold a password, since it is recorded", f"{value[:start]}***{value[end:]}"
        raise ParameterError(name, rule=rule, value=shown, fix=fix)


def check(notebook: Notebook, given: Mapping[str, Any]) -> Arguments:
    """What a notebook is given, with what suits the table, if each value is what its parameter may be.

    Of a notebook of the kit its model decides, for names that are added to it and any other notebook the parameters
    cell does.

    Raises:
        ParameterError: a name that is not declared, one that has to be given, or a value of another kind.
    """
    place, declared = f"the parameters of {notebook.path.name}", notebook.parameters
    for name, value in given.items():
        _require_no_password(name, value)  # before any error can repeat it
        if name not in declared:
            raise unknown_parameter(name, known=declared, place=notebook.path.name)
        try:
            require_plain(value)
        except ValueError as error:
            raise ParameterError(name, rule=f"must be plain: {error}", place=place) from error
    values = dict(given)
    if notebook.is_of_the_kit:
        if notebook.defaults.get("data") == FLIGHTS:
            values = {**neutral_facts(given, known=declared), **values}
        if notebook.defaults.get("store") == "demo":
            values.setdefault("store", REAL_STORE)
    for name in references([values, notebook.defaults]):
        _require_hideable(name, declared=declared)
    model = params_model(notebook.name, declared)
    fields = model.model_fields if model else {}
    for name in fields:
        if not declared[name].is_literal:
            raise ParameterError(name, rule="must be a literal", place=notebook.path.name)
    own = {name: parameter for name, parameter in declared.items() if name not in fields}
    values |= _checked(own, values, place=place)
    defaults = {name: each for name, each in notebook.defaults.items() if name in fields}
    of_the_model = {name: each for name, each in values.items() if name in fields}
    return Arguments(values, model.check({**defaults, **of_the_model}) if model else None)


def _checked(parameters: Mapping[str, Parameter], given: Mapping[str, Any], *, place: str) -> dict[str, Any]:
    values = {}
    for name, parameter in parameters.items():
        if name in given:
            try:
                values[name] = checked(given[name], parameter.kind)
            except ValueError as error:
                rule = f"{parameter.rule}: {error}"
                raise ParameterError(name, rule=rule, place=place, fix=parameter.advice) from error
        elif parameter.default is NO_DEFAULT:
            fix = f"Set it in a params file, or with -p {name} VALUE. {parameter.advice}".strip()
            raise ParameterError(name, rule="must be given: it has no default", place=place, fix=fix)
    return values


def neutral_facts(given: Mapping[str, Any], *, known: Iterable[str]) -> dict[str, Any]:
    """What stands in for the facts of the bundled flights where another table is named and nothing is said.

    Raises:
        ParameterError: the table's time column or target is not named.
    """
    if given.get("data", FLIGHTS) == FLIGHTS:
        return {}
    missing = set(known) - set(given)
    for name in ("time_column", "target"):
        if name in missing:
            fix = f"Set it in a params file, or with -p {name} NAME."
            raise ParameterError(name, rule="must be given with `data`", place=str(given["data"]), fix=fix)
    return {name: [] for name in ("features", "id_column", "slices") if name in missing}
