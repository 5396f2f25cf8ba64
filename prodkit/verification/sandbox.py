"""A folder that stands in for the outputs, in which a run is executed again without touching anything real."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

__all__ = ["lend_outputs", "sandbox_environment", "sandbox_names"]

_DATABASES = {".db", ".sqlite", ".sqlite3"}


def lend_outputs(outputs: Path, sandbox: Path, *, before: float) -> None:
    """Show the run what lay in the outputs before it began: tables, predictions of others, its own earlier batches.

    Files are linked; databases, which are written in place, are copied. The store comes by itself, and runs do
    not read one another's folders.
    """
    for root, folders, files in os.walk(outputs):
        here = Path(root)
        if here == outputs:
            folders[:] = [name for name in folders if name not in ("runs", "artifacts")]
            files = [name for name in files if not name.startswith("store.db")]
        there = sandbox / here.relative_to(outputs)
        for name in files:
            path = here / name
            if path.is_file() and path.stat().st_mtime < before:
                there.mkdir(parents=True, exist_ok=True)
                if path.suffix in _DATABASES:
                    shutil.copy2(path, there / name)
                else:
                    (there / name).symlink_to(path.resolve())


def sandbox_environment(sandbox: Path, *, run_id: str) -> dict[str, str]:
    """The variables that lead a cold kernel into the sandbox, as the recorded run."""
    return {
        "PRODKIT_RUN": run_id,
        "PRODKIT_OUT": str(sandbox),
        "PRODKIT_SANDBOX": str(sandbox),
        "PRODKIT_WARM": "0",
        "JUPYTER_DEFAULT_PROVISIONER_NAME": "local-provisioner",
    }


def sandbox_names(sandbox: Path, outputs: Path) -> dict[str, str]:
    """How places in the sandbox were called in the recorded run; see :func:`prodkit.settings.destination`."""
    return {
        f"outputs/elsewhere{outputs}": "outputs",
        "outputs/elsewhere": "",
        f"{sandbox}/elsewhere": "",
        str(sandbox): str(outputs),
    }
