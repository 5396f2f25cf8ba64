"""The pages over all runs, written: the site of an outputs folder, and two of its runs side by side."""

from __future__ import annotations

import difflib
import json
import shlex
from collections.abc import Callable
from pathlib import Path
from typing import Any

from prodkit.errors import ParameterError
from prodkit.files import write_text
from prodkit.reports.comparison import comparison
from prodkit.reports.site import Site, lead_metric
from prodkit.runs.account import kept
from prodkit.settings import REAL_STORE, project_folder, resolve
from prodkit.store.history import Champion
from prodkit.store.registry import Store

__all__ = ["store_options", "write_comparison", "write_site"]

ARTIFACTS = "outputs/artifacts"


def write_site(
    folder: Path,
    store: str = REAL_STORE,
    artifacts: str = ARTIFACTS,
    *,
    tell: Callable[[str], None] = lambda _: None,
) -> Path:
    """Write ``index.html`` and ``versions/`` from what runs and store have kept.

    Args:
        folder: where ``runs/`` lies; the pages are written there.
        store: SQLAlchemy URL as typed; where there is no store yet, the runs stand alone.
        artifacts: folder or fsspec URL, as typed.
        tell: takes a sentence for each run that cannot be read, which is left out.

    Returns:
        The page to open.
    """
    documents = []
    for path in folder.glob("runs/*/result.json"):
        if found := _readable(kept(path.parent)):
            documents.append(found)
        else:
            tell(f"{path} cannot be read: the run is left out")
    documents.sort(key=lambda each: (each["started"], each["run_id"]))
    for place, text in _site(folder, documents, store, artifacts).pages().items():
        (folder / place).parent.mkdir(parents=True, exist_ok=True)
        write_text(folder / place, text)
    return folder / "index.html"


def _readable(account: dict[str, Any]) -> dict[str, Any]:
    """The account, if it has all that a page takes from it."""
    kinds: dict[str, type] = {"run_id": str, "notebook": str, "status": str, "outcome": str, "started": str}
    kinds |= {"params": dict, "outputs": dict, "reasons": list, "evidence": list, "inputs": list}
    return account if all(isinstance(account.get(name), kind) for name, kind in kinds.items()) else {}


def _site(folder: Path, documents: list[dict[str, Any]], store: str, artifacts: str) -> Site:
    options = store_options(folder, store, artifacts)
    url = resolve(store)
    if url.startswith("sqlite:///") and not Path(url.removeprefix("sqlite:///")).exists():
        return Site(documents, [], [], Champion(), options=options)
    with Store.open(url, resolve(artifacts)) as kept_store:
        versions = kept_store.versions()
        measured = kept_store.metric_rows(notebook="monitor", name=f"realised.{lead_metric(versions)}")
        return Site(documents, versions, kept_store.history(), kept_store.champion(), measured, options)


def store_options(folder: Path, store: str = REAL_STORE, artifacts: str = ARTIFACTS) -> str:
    """What ``prodkit models`` has to be told to find a store, as typed, a space first; nothing for the usual one."""
    typed = {"--out": str(folder), "--store": store, "--artifacts": artifacts}
    usual = {"--out": str(project_folder() / "outputs"), "--store": REAL_STORE, "--artifacts": ARTIFACTS}
    return "".join(f" {name} {shlex.quote(value)}" for name, value in typed.items() if value != usual[name])


def write_comparison(folder: Path, first: str, second: str) -> Path:
    """Write ``comparisons/FIRST--SECOND.html``; the runs are named by their ids.

    Raises:
        ParameterError: there is no such run, or its record cannot be read.
    """
    documents = [_named(folder, name) for name in (first, second)]
    cells = [_cells(folder / "runs" / name / "notebook.ipynb") for name in (first, second)]
    page = folder / "comparisons" / f"{first}--{second}.html"
    page.parent.mkdir(parents=True, exist_ok=True)
    write_text(page, comparison(*documents, cells=(cells[0], cells[1])))
    return page


def _cells(executed: Path) -> list[Any]:
    """The cells of an executed notebook; none if it cannot be read: its numbers can be compared all the same."""
    try:
        found = json.loads(executed.read_text(encoding="utf-8"))["cells"]
    except (OSError, ValueError, KeyError, TypeError):
        return []
    return found if isinstance(found, list) else []


def _named(folder: Path, run_id: str) -> dict[str, Any]:
    known = sorted(path.parent.name for path in folder.glob("runs/*/result.json"))
    if run_id not in known:
        near = difflib.get_close_matches(run_id, known, n=1, cutoff=0.4)
        fix = (
            f"Did you mean {near[0]}?"
            if near
            else "Look for its name in index.html."
            if known
            else "Run a notebook first."
        )
        raise ParameterError(
            "RUN", rule="must be a recorded run", value=run_id, place=str(folder / "runs"), fix=fix
        )
    if found := _readable(kept(folder / "runs" / run_id)):
        return found
    place = str(folder / "runs" / run_id / "result.json")
    raise ParameterError(
        run_id, rule="must have a record that can be read", place=place, fix="Run it again with --force."
    )
