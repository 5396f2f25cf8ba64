"""The notebook of a run while it runs: saved whole or not at all, and each cell marked as what it is."""

from __future__ import annotations

import copy
import errno
import json
import math
import os
import sys
import time
from collections.abc import Callable
from datetime import UTC, datetime
from html import escape
from pathlib import Path
from typing import Any

from prodkit.files import Reserve, write_text
from prodkit.report import BANNER_TAG, headline
from prodkit.runs.stops import Stop

# jsonschema, below nbformat, would build 35 grammars for addresses, which no schema of a notebook names: half of the
# time that all imports of a run take. It does without where the package is missing.
_hidden = sys.modules.setdefault("rfc3987_syntax", None)  # type: ignore[arg-type]  # as `import` has it
import nbformat  # noqa: E402
from papermill.engines import NotebookExecutionManager  # noqa: E402
from papermill.iorw import LocalHandler, papermill_io  # noqa: E402

if _hidden is None:
    del sys.modules["rfc3987_syntax"]

__all__ = ["FULL", "Draft", "Output", "close_notebook", "notebook_text", "read_executed"]

FULL = (errno.ENOSPC, errno.EDQUOT)
"""Errors of a disk that is full."""

_SAVE_SECONDS = 2.0


class Draft(NotebookExecutionManager):  # type: ignore[misc]
    """papermill's states and progress bar, on a file that follows the notebook and is always whole.

    Args:
        notebook: as it is being executed; changed in place by whoever executes it.
        path: where it is saved.
        hide: takes secrets out of the text that is about to be written.
        progress_bar: papermill's.
    """

    def __init__(
        self, notebook: Any, path: Path, *, hide: Callable[[str], str] = str, progress_bar: Any = False
    ) -> None:
        super().__init__(notebook, progress_bar=progress_bar)
        self.path, self._hide = path, hide
        self._reserve = Reserve(path.with_name(f".{path.stem}.reserve"))
        self._saved, self._changed = -math.inf, True

    def save(self, **_: Any) -> None:
        """Save what a cell's beginning or end has changed, when it is time."""
        self._changed = True
        self.save_changes()

    def autosave_cell(self, **_: Any) -> None:
        """Note that a message has arrived; the client's watch saves it."""
        self._changed = True

    def save_changes(self) -> None:
        """Save what has changed, every two seconds at most.

        Raises:
            OSError: it could not be saved, and the file is what it was; or the disk is full and this was the last save,
                in the room that was held for it.
        """
        if not self._changed or time.monotonic() - self._saved < _SAVE_SECONDS:
            return
        text = self._hide(notebook_text(self.nb))
        try:
            write_text(self.path, text)
            self._reserve.hold(2 * len(text) + 2**20)  # the notebook once more, its page, its record
        except OSError as error:
            if error.errno in FULL and self._reserve.held:
                self._reserve.drop()
                write_text(self.path, text)
            raise
        self._saved, self._changed = time.monotonic(), False

    def close(self, stop: Stop | None) -> None:
        """Mark what has run and what has not, say at the top why it ended early, and save it for good.

        Raises:
            OSError: it could not be saved; the file is what it was.
        """
        close_notebook(self.nb, stop)
        self._reserve.drop()
        write_text(self.path, self._hide(notebook_text(self.nb)))


class Output(LocalHandler):  # type: ignore[misc]
    """papermill's way to files while one of ours is its output: that is written whole or not at all, once, at the end.

    Args:
        name: as papermill calls the file.
        folder: which that is relative to.
    """

    def __init__(self, name: str, folder: str) -> None:
        super().__init__()
        self.name, self.path = name, Path(folder, name).resolve()
        self.cwd(folder)

    @classmethod
    def at(cls, name: str | None) -> Output | None:
        """The file of this name; None where it is none on this machine, or a device, which papermill writes itself."""
        files = papermill_io.get_handler("local")
        if name is None or papermill_io.get_handler(name) is not files:
            return None
        folder = (
            files.cwd(None) or os.curdir
        )  # as it was when papermill was called: by now it is that of --cwd
        files.cwd(folder)
        place = Path(folder, name)
        if place.exists() and not place.is_file():
            return None
        output = cls(name, folder)
        output.path.parent.mkdir(parents=True, exist_ok=True)
        papermill_io.register(name, output)
        return output

    def write(self, text: str, path: str) -> None:
        """Write a file."""
        if path != self.name:  # papermill goes by the beginning of a path
            super().write(text, path)
        else:
            self.remove()
            write_text(self.path, text)

    def remove(self) -> None:
        """Leave papermill as it was; it has no public way to that."""
        papermill_io._handlers.remove((self.name, self))


def close_notebook(notebook: Any, stop: Stop | None) -> None:
    """Mark a notebook that no longer runs.

    The cell that was running gets the state that ``stop`` names; a cell that never ran stays ``pending``.
    """
    about = notebook.metadata.setdefault("papermill", {})
    about |= {
        "status": stop.status if stop else "succeeded",
        "exception": True if stop and stop.status != "succeeded" else None,
        "reason": stop.sentence if stop else None,
    }
    about |= _elapsed(about)
    for cell in notebook.cells:
        state = cell.metadata.get("papermill", {})
        if state.get("status") == "running":
            state |= {
                "status": stop.cell if stop else "completed",
                "exception": bool(stop),
                **_elapsed(state),
            }
    if stop:
        text = (
            f"<strong>{headline(notebook, stop.status)}</strong> What was put out up to then stands below.\n"
        )
        text += f"<pre>{escape(stop.sentence)}</pre>"
        notebook.cells.insert(0, nbformat.v4.new_markdown_cell(text, metadata={"tags": [BANNER_TAG]}))


def _elapsed(state: Any) -> dict[str, Any]:
    end = datetime.now(UTC)
    times: dict[str, Any] = {"end_time": end.isoformat()}
    if state.get("start_time"):
        times["duration"] = (end - datetime.fromisoformat(state["start_time"])).total_seconds()
    return times


def read_executed(path: Path) -> Any:
    """An executed notebook, upgraded to the format of today.

    Raises:
        ValueError: it is none.
    """
    return nbformat.read(path, as_version=4)


def notebook_text(notebook: Any) -> str:
    """The notebook as strict JSON: what is no finite number becomes text, half a character a question mark."""
    try:
        text = nbformat.v4.nbjson.writes(notebook, allow_nan=False)
    except ValueError:
        text = nbformat.v4.nbjson.writes(_finite(copy.deepcopy(notebook)), allow_nan=False)
    return str(text).encode("utf-8", "replace").decode() + "\n"


def _finite(node: Any) -> Any:
    if isinstance(node, dict):
        for key in node:
            node[key] = _finite(node[key])
    elif isinstance(node, list):
        node[:] = [_finite(each) for each in node]
    elif isinstance(node, float) and not math.isfinite(node):
        return json.dumps(node)
    return node
