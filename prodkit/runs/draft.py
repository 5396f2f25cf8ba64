"""The notebook of a run while it runs: saved whole or not at all, and each cell marked as what it is."""

from __future__ import annotations

import copy
import errno
import json
import math
import time
from collections.abc import Callable
from datetime import UTC, datetime
from html import escape
from pathlib import Path
from typing import Any

from prodkit.files import Ballast, write_text
from prodkit.report import BANNER_TAG, headline
from prodkit.runs.stops import Stop

__all__ = ["FULL", "Draft", "NoRoomError", "close_notebook", "notebook_text"]

_SAVE_SECONDS = 2.0
FULL = (errno.ENOSPC, errno.EDQUOT)


class NoRoomError(OSError):
    """The disk is full; what was there up to now has been saved in the room that was kept for it."""


class Draft:
    """A notebook on disk that follows the one in memory.

    Args:
        notebook: as it is being executed; changed in place by whoever executes it.
        path: where it is saved.
        hide: takes secrets out of the text that is about to be written.
    """

    def __init__(self, notebook: Any, path: Path, *, hide: Callable[[str], str] = str) -> None:
        self.notebook, self.path, self._hide = notebook, path, hide
        self._ballast = Ballast(path.with_name(f".{path.stem}.ballast"))
        self._saved = -math.inf
        self.changed = True

    def save(self, *, whatever: bool = False) -> None:
        """Save what has changed, every two seconds at most.

        Args:
            whatever: save now.

        Raises:
            NoRoomError: it was saved, and it is the last time that it can be.
            OSError: it could not be saved; the file is what it was.
        """
        if not whatever and (not self.changed or time.monotonic() - self._saved < _SAVE_SECONDS):
            return
        text = self._hide(notebook_text(self.notebook))
        try:
            write_text(self.path, text)
            self._ballast.hold(2 * len(text) + 2**20)  # the notebook once more, its page, its record
        except OSError as error:
            if error.errno not in FULL or not self._ballast.held:
                raise
            self._ballast.drop()
            write_text(self.path, text)
            raise NoRoomError(error.errno, "the disk is full", str(self.path)) from error
        self._saved, self.changed = time.monotonic(), False

    def close(self, stop: Stop | None) -> None:
        """Mark what has run and what has not, say at the top why it ended early, and save it for good.

        Raises:
            OSError: it could not be saved; the file is what it was.
        """
        close_notebook(self.notebook, stop)
        self._ballast.drop()
        write_text(self.path, self._hide(notebook_text(self.notebook)))


def close_notebook(notebook: Any, stop: Stop | None) -> None:
    """Mark a notebook that runs no longer.

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
        notebook.cells.insert(0, _banner(notebook, stop))


def _elapsed(state: Any) -> dict[str, Any]:
    end = datetime.now(UTC)
    times: dict[str, Any] = {"end_time": end.isoformat()}
    if state.get("start_time"):
        times["duration"] = (end - datetime.fromisoformat(state["start_time"])).total_seconds()
    return times


def _banner(notebook: Any, stop: Stop) -> Any:
    """The first cell of a notebook that ended early: what happened, how far it came, what is missing."""
    import nbformat

    text = (
        f"<strong>{headline(notebook, stop.status)}</strong> What was put out up to then stands below.\n"
        f"<pre>{escape(stop.sentence)}</pre>"
    )
    return nbformat.v4.new_markdown_cell(text, metadata={"tags": [BANNER_TAG]})


def notebook_text(notebook: Any) -> str:
    """The notebook as strict JSON: what is no finite number becomes text, half a character a question mark."""
    import nbformat

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
