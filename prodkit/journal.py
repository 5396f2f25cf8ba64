"""How far a story has come, so that one that was interrupted goes on where it stopped."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from prodkit.files import write_text
from prodkit.runs.runner import Run

__all__ = ["Journal"]


class Journal:
    """The runs of each step and the finished rows of a story, in a file beside the runs.

    A step is done once: its actions have moved the champion, so that to do it again would be to do other work.

    Args:
        path: the file; it appears with the first step.
        story: what makes the story this one: parameters and windows. A journal of another story is not followed.
        fresh: start anew.
    """

    def __init__(self, path: Path, story: Mapping[str, Any], *, fresh: bool = False) -> None:
        text = json.dumps(story, sort_keys=True, default=str)
        self._path, self._identity = path, hashlib.sha256(text.encode()).hexdigest()
        known = {} if fresh or not path.exists() else json.loads(path.read_text())
        same = known.get("story") == self._identity
        self._steps: dict[str, str] = known["steps"] if same else {}
        self._rows: dict[str, dict[str, str]] = known["rows"] if same else {}

    @property
    def steps(self) -> int:
        """How many steps are done."""
        return len(self._steps)

    def run_of(self, step: str) -> Run | None:
        """The run that did this step, if one has."""
        if step not in self._steps:
            return None
        folder = self._path.parent / "runs" / self._steps[step]
        kept = folder / "result.json"
        return Run(folder, json.loads(kept.read_text()), repeated=True) if kept.exists() else None

    def row_of(self, window: str) -> dict[str, str] | None:
        """The row of the closing table for a window that was lived through."""
        return self._rows.get(window)

    def did(self, step: str, run: Run) -> None:
        """Note that a step is done."""
        self._steps[step] = run["run_id"]
        self._write()

    def closed(self, window: str, row: dict[str, str]) -> None:
        """Note that a window is over."""
        self._rows[window] = row
        self._write()

    def _write(self) -> None:
        document = {"story": self._identity, "steps": self._steps, "rows": self._rows}
        write_text(self._path, json.dumps(document, indent=1))
