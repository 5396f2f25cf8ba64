"""How far an executed notebook came."""

from __future__ import annotations

from typing import Any

__all__ = ["BANNER_TAG", "headline"]

BANNER_TAG = (
    "papermill-error-cell-tag"  # papermill's own: it takes such cells out when it runs a notebook again
)


def headline(notebook: Any, status: str) -> str:
    """How a run ended, and how far it had come, in one sentence."""
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    states = [cell.metadata.get("papermill", {}).get("status") for cell in code]
    done, left = states.count("completed"), states.count("pending")
    how = {"succeeded": "ended itself", "interrupted": "was interrupted"}.get(status, status)
    tail = f"; {left} did not run" if left else ""
    return f"This run {how} after {done} of {len(code)} code cells{tail}."
