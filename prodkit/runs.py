"""Execute a notebook with checked parameters, and leave a record of it."""

from __future__ import annotations

import ast
import hashlib
import json
import os
import time
from collections.abc import Container, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import nbformat
import papermill
import yaml
from papermill.exceptions import PapermillExecutionError

from prodkit.data import FLIGHTS, source_digest
from prodkit.errors import ParameterError, RunError
from prodkit.kernels import Kernel
from prodkit.params import NOTEBOOKS, Facts, unknown_parameter
from prodkit.places import beside, environment_set, outputs_folder, project_folder, resolve
from prodkit.report import write_report
from prodkit.result import RESULT_MIME
from prodkit.store import Store

__all__ = ["REAL_STORE", "Run", "neutral_facts", "read_files", "run_notebook", "typed_value", "write_text"]

REAL_STORE = "sqlite:///outputs/store.db"


@dataclass(frozen=True)
class Run:
    """A finished run: its folder, and the document that stands in ``result.json``."""

    folder: Path
    document: dict[str, Any]
    repeated: bool = False

    def __getitem__(self, name: str) -> Any:
        return self.document[name]


def read_files(notebook: str, files: Sequence[Path | str]) -> dict[str, Any]:
    """The parameters for one notebook from params files, later ones winning.

    A file named after a notebook is that notebook's policy, and says nothing to the others. Any other file
    is shared: what it says to another notebook is passed over. A table that does not lie in the project is
    looked for beside the file that names it.

    Raises:
        ParameterError: a file that cannot be read, or a name that no notebook knows.
    """
    given: dict[str, Any] = {}
    own = parameters_of(notebook)
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
    own = parameters_of(notebook)
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


def parameters_of(notebook: str) -> dict[str, Any]:
    """Names and defaults in the parameters cell, read without running it.

    Raises:
        ParameterError: no such notebook, no parameters cell, or a default that is no literal.
    """
    path = notebook_path(notebook)
    try:
        document = nbformat.read(path, as_version=4)
    except (ValueError, nbformat.validator.NotebookValidationError) as error:
        reason = str(error).splitlines()[0]
        raise ParameterError("NOTEBOOK", rule=f"must be a notebook: {reason}", place=path.name) from error
    cells = [cell for cell in document.cells if "parameters" in cell.metadata.get("tags", [])]
    if len(cells) != 1:
        fix = "Tag one cell `parameters`."
        raise ParameterError(
            "parameters", rule="must be one tagged cell", value=f"{len(cells)}", place=path.name, fix=fix
        )
    found = {}
    try:
        statements = ast.parse(cells[0].source).body
    except SyntaxError as error:
        rule = f"must be Python assignments: {error.msg}"
        raise ParameterError("parameters", rule=rule, place=f"{path.name}, line {error.lineno}") from error
    for statement in statements:
        target = (
            statement.targets[0] if isinstance(statement, ast.Assign) else getattr(statement, "target", None)
        )
        if isinstance(target, ast.Name) and (value := getattr(statement, "value", None)) is not None:
            try:
                found[target.id] = ast.literal_eval(value)
            except ValueError as error:
                raise ParameterError(target.id, rule="must be a literal", place=path.name) from error
    return found


def run_notebook(notebook: str, given: Mapping[str, Any], *, force: bool = False, parent: str = "") -> Run:
    """Check the parameters, run the notebook once for this work, and record what came of it.

    Work that was done before, with the same notebook, parameters, data, code and champion, is not done again.

    Args:
        notebook: a name in ``notebooks/``, or a path.
        given: parameters that differ from the notebook's defaults.
        force: do it again all the same; earlier attempts are kept.
        parent: the run that asked for this one.

    Raises:
        ParameterError: before any kernel starts.
    """
    path = notebook_path(notebook)
    kind = NOTEBOOKS.get(path.stem)
    values = {**neutral_facts(given, known=parameters_of(notebook)), **given}
    if "store" in parameters_of(notebook):
        values.setdefault("store", REAL_STORE)
    params = kind.check({**parameters_of(notebook), **values}) if kind else None
    store = _open(params)
    try:
        run_id, done = _identify(path, values, params, store, force=force)
        if done is not None:
            return Run(outputs_folder() / "runs" / run_id, done, repeated=True)
        run = _execute(path, values, run_id, parent=parent)
        if store is not None:
            store.record_run({key: run.document.get(key) for key in _RECORDED} | {"document": run.document})
        return run
    finally:
        if store is not None:
            store.close()


_RECORDED = ("run_id", "notebook", "status", "outcome", "action", "approval", "started", "seconds")


def _open(params: Facts | None) -> Store | None:
    if params is None or params.store == "demo":
        return None
    return Store.open(resolve(params.store), resolve(params.artifacts))


def _identify(
    path: Path, values: Mapping[str, Any], params: Facts | None, store: Store | None, *, force: bool
) -> tuple[str, dict[str, Any] | None]:
    """The id of this work, and what came of it if it succeeded before."""
    identity: dict[str, Any] = {
        "notebook": _notebook_digest(path),
        "parameters": params.plain() if params else dict(values),
        "data": source_digest(params) if params else "",
        "code": _code_digest(),
        "champion": _champion_state(store) if path.stem != "train" else [],  # training asks no champion
    }
    if store is not None and getattr(params, "challenger", None) == 0:
        identity["newest"] = max((version.number for version in store.versions()), default=0)
    digest = hashlib.sha256(json.dumps(identity, sort_keys=True, default=str).encode()).hexdigest()[:10]
    span = f"-{params.window.start:%Y%m%d}" if params else ""
    stem = f"{path.stem}{span}-{digest}"
    folder = outputs_folder() / "runs"
    attempts = [stem, *(f"{stem}-{n}" for n in range(2, 10_000))]
    for run_id in attempts:
        kept = folder / run_id / "result.json"
        if not (folder / run_id).exists():
            return run_id, None
        document = json.loads(kept.read_text()) if kept.exists() else {}
        if document.get("status") == "succeeded" and not force:
            return run_id, document
    raise RunError(stem, rule="has been tried too often", value=len(attempts))


def _champion_state(store: Store | None) -> list[Any]:
    if store is None:
        return []
    champion = store.champion()
    return [champion.generation, champion.version, champion.hold]


def _notebook_digest(path: Path) -> str:
    cells = [(c.cell_type, c.source) for c in nbformat.read(path, as_version=4).cells]
    return hashlib.sha256(json.dumps(cells).encode()).hexdigest()


def _code_digest() -> str:
    digest = hashlib.sha256()
    for source in sorted(Path(__file__).parent.glob("*.py")):
        digest.update(source.read_bytes())
    return digest.hexdigest()


def _execute(path: Path, values: Mapping[str, Any], run_id: str, *, parent: str) -> Run:
    folder = outputs_folder() / "runs" / run_id
    try:
        folder.mkdir(parents=True)
    except FileExistsError as error:
        fix = "Wait for it, or do it again with --force."
        raise RunError(run_id, rule="is being run by somebody else just now", fix=fix) from error
    executed = folder / "notebook.ipynb"
    started, clock = datetime.now(UTC), time.perf_counter()
    failure = ""
    with environment_set(PRODKIT_RUN=run_id, PRODKIT_OUT=str(outputs_folder())):
        try:
            papermill.execute_notebook(
                str(path),
                str(executed),
                parameters=dict(values),
                progress_bar=False,
                cwd=str(path.parent),
                kernel_manager_class=Kernel,
                shutdown_kernel="immediate",
            )
        except PapermillExecutionError as error:
            failure = f"{error.ename}: {error.evalue}"
        except (
            Exception
        ) as error:  # a kernel that died, a disk that is full: the record must still be written
            failure = f"{type(error).__name__}: {error}"
    document = {
        **_empty_result(path.stem, values),
        **(_harvest(executed) if not failure else {"reasons": [failure]}),
        "run_id": run_id,
        "parent": parent,
        "status": "failed" if failure else "succeeded",
        "started": started.isoformat(timespec="seconds"),
        "seconds": round(time.perf_counter() - clock, 2),
    }
    write_text(folder / "result.json", json.dumps(document, indent=2, allow_nan=False))
    if executed.exists():
        write_report(executed, folder / "report.html", document)
    return Run(folder, document)


def _empty_result(notebook: str, values: Mapping[str, Any]) -> dict[str, Any]:
    """What is known of a run that has not said anything."""
    return {
        "schema": 1,
        "notebook": notebook,
        "outcome": "error",
        "action": None,
        "approval": None,
        "target_version": None,
        "generation": None,
        "reasons": [],
        "evidence": [],
        "params": dict(values),
        "inputs": [],
        "outputs": {},
        "environment": {},
    }


def _harvest(executed: Path) -> dict[str, Any]:
    """The document that the notebook's last cell has shown."""
    for cell in reversed(nbformat.read(executed, as_version=4).cells):
        for output in cell.get("outputs", []):
            if RESULT_MIME in output.get("data", {}):
                found = dict(output["data"][RESULT_MIME])
                try:
                    json.dumps(found, allow_nan=False)
                except ValueError as error:
                    return {"reasons": [f"the notebook's result is not strict JSON: {error}"]}
                return found
    return {"reasons": ["the notebook recorded no result"], "outcome": "inconclusive"}


def write_text(path: Path, text: str) -> None:
    """Write a file that is either the old one or the new one, never half of it."""
    draft = path.with_name(f".{path.name}.{os.getpid()}")
    with draft.open("w", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    os.replace(draft, path)
