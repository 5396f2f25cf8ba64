"""Execute a notebook with checked parameters, and leave a record of it."""

from __future__ import annotations

import hashlib
import json
import os
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import nbformat
import papermill
from jupyter_client.manager import AsyncKernelManager
from papermill.exceptions import PapermillExecutionError
from traitlets.config import Config

from prodkit.answers import RESULT_MIME
from prodkit.arguments import neutral_facts
from prodkit.dataset import source_digest
from prodkit.errors import RunError
from prodkit.files import write_text
from prodkit.notebook import Notebook, read_notebook
from prodkit.params import NOTEBOOKS, Facts
from prodkit.places import environment_set, outputs_folder, resolve
from prodkit.report import write_report
from prodkit.store import Store

__all__ = ["REAL_STORE", "Run", "run_notebook"]

REAL_STORE = "sqlite:///outputs/store.db"


@dataclass(frozen=True)
class Run:
    """A finished run: its folder, and the document that stands in ``result.json``."""

    folder: Path
    document: dict[str, Any]
    repeated: bool = False

    def __getitem__(self, name: str) -> Any:
        return self.document[name]


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
    source = read_notebook(notebook)
    kind = NOTEBOOKS.get(source.name)
    values = {**neutral_facts(given, known=source.defaults), **given}
    if "store" in source.defaults:
        values.setdefault("store", REAL_STORE)
    params = kind.check({**source.defaults, **values}) if kind else None
    store = _open(params)
    try:
        run_id, done = _identify(source, values, params, store, force=force)
        if done is not None:
            return Run(outputs_folder() / "runs" / run_id, done, repeated=True)
        run = _execute(source.path, values, run_id, parent=parent)
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
    source: Notebook,
    values: Mapping[str, Any],
    params: Facts | None,
    store: Store | None,
    *,
    force: bool,
) -> tuple[str, dict[str, Any] | None]:
    """The id of this work, and what came of it if it succeeded before."""
    identity: dict[str, Any] = {
        "notebook": source.digest,
        "parameters": params.plain() if params else dict(values),
        "data": source_digest(params) if params else "",
        "code": _code_digest(),
        "champion": _champion_state(store) if source.name != "train" else [],  # training asks no champion
    }
    if store is not None and getattr(params, "challenger", None) == 0:
        identity["newest"] = max((version.number for version in store.versions()), default=0)
    digest = hashlib.sha256(json.dumps(identity, sort_keys=True, default=str).encode()).hexdigest()[:10]
    span = f"-{params.window.start:%Y%m%d}" if params else ""
    stem = f"{source.name}{span}-{digest}"
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
    with environment_set(PRODKIT_RUN=run_id, PRODKIT_OUT=str(outputs_folder())), _private_sockets() as config:
        try:
            papermill.execute_notebook(
                str(path),
                str(executed),
                parameters=dict(values),
                progress_bar=False,
                cwd=str(path.parent),
                config=config,
                kernel_manager_class=_Kernels,
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


class _Kernels(AsyncKernelManager):
    """Kernels whose processes write to stderr, since stdout is for the command's answer alone."""

    async def start_kernel(self, **settings: Any) -> None:  # type: ignore[override]  # its parent's is not async
        await super().start_kernel(stdout=2, **settings)


@contextmanager
def _private_sockets() -> Iterator[Config]:
    """Let a kernel talk through a folder of its own: no ports to race for, and nobody else can listen in."""
    with tempfile.TemporaryDirectory(prefix="prodkit-") as folder:
        ipc = {"transport": "ipc", "ip": f"{folder}/kernel"}
        yield Config({"ConnectionFileMixin": ipc} if os.name == "posix" else {})


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
