"""papermill's engine for runs that one trusts at night: what it saves is true, whatever happens.

``prodkit run`` uses it; plain papermill does with ``papermill --engine prodkit IN OUT``.
"""

from __future__ import annotations

import json
import logging
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import papermill
from jupyter_core.utils import run_sync
from papermill.engines import Engine, papermill_engines
from papermill.exceptions import PapermillExecutionError
from papermill.iorw import papermill_io, write_ipynb

from prodkit.files import write_text
from prodkit.redaction import Redaction, references
from prodkit.runs.client import Client, Order, StoppedError
from prodkit.runs.stops import Limits, heeding_signals, leave, signal_received

__all__ = ["ProdkitEngine", "execute"]


class ProdkitEngine(Engine):  # type: ignore[misc]
    """Executes a notebook in a kernel that ends with it, and saves what is true at every moment."""

    @classmethod
    def execute_notebook(
        cls,
        nb: Any,
        kernel_name: str,
        output_path: str | None = None,
        *,
        order: Order | None = None,
        progress_bar: bool | dict[str, Any] = True,
        log_output: bool = False,
        start_timeout: float = 60,
        execution_timeout: float | None = None,
        **settings: Any,
    ) -> Any:
        """Run all cells; called by papermill.

        Args:
            nb: the notebook, with the injected parameters.
            kernel_name: of the kernelspec.
            output_path: where plain papermill wants it; a URL receives it at the end only.
            order: what ``prodkit run`` wants instead.
            progress_bar: papermill's.
            log_output: papermill's.
            start_timeout: seconds until the kernel must answer.
            execution_timeout: seconds that a cell may take.
            **settings: for nbclient.

        Raises:
            StoppedError: it ended early; what was done and why has been saved.
            SystemExit: plain papermill was asked to stop by a signal.
        """
        with tempfile.TemporaryDirectory(prefix="prodkit-") as spare, heeding_signals():
            plain = order is None
            if order is None:
                cell = execution_timeout or Limits.cell_seconds
                limits = Limits(cell_seconds=cell, start_seconds=start_timeout)
                order = Order(_local(output_path, Path(spare)), limits=limits, hide=_hiding(nb))
            known = {name: settings.get(name) for name in ("stdout_file", "stderr_file")}
            known |= {"progress_bar": progress_bar, "log_output": log_output}
            client = Client(nb, order, kernel_name=kernel_name, **known)
            try:
                run_sync(client.run)()
            except StoppedError as error:
                if plain and "://" in (output_path or ""):
                    write_ipynb(nb, output_path)
                if plain and error.stop.status == "interrupted":
                    leave(signal_received())
                if error.stop.status != "succeeded":
                    raise
            finally:
                client.nb_man.cleanup_pbar()
        return nb


def _hiding(notebook: Any) -> Callable[[str], str]:
    """What takes the secrets out that the notebook's parameters refer to."""
    tagged = {"parameters", "injected-parameters"}
    cells = [cell.source for cell in notebook.cells if tagged & set(cell.metadata.get("tags", []))]
    redaction = Redaction.of(references(cells))
    return redaction.text if redaction else str


def _local(output_path: str | None, spare: Path) -> Path:
    """Where to save while it runs. papermill writes the file once more at its end; that must be atomic, too."""
    if output_path is None or "://" in output_path:
        return spare / "notebook.ipynb"
    path = Path(output_path).absolute()
    path.parent.mkdir(parents=True, exist_ok=True)
    papermill_io.register(output_path, _Atomic(path))
    return path


@dataclass(frozen=True)
class _Atomic:
    """papermill's way of writing one file, made whole or nothing."""

    path: Path

    def write(self, text: str, _: str) -> None:
        write_text(self.path, text)

    def pretty_path(self, path: str) -> str:
        return path


def _kernel(source: Path) -> dict[str, str]:
    """The kernel of a notebook that names none, as one that was never saved by Jupyter does not: Python's."""
    about = json.loads(source.read_text(encoding="utf-8")).get("metadata", {})
    named, language = about.get("kernelspec", {}), about.get("language_info", {}).get("name", "python")
    return (
        {} if named.get("name") or language != "python" else {"kernel_name": "python3", "language": language}
    )


def execute(source: Path, values: Mapping[str, Any], order: Order) -> None:
    """Have papermill inject the parameters and run a notebook with this engine.

    Args:
        source: the notebook.
        values: its parameters.
        order: where, and within which limits.

    Raises:
        StoppedError: it ended early; what was done and why has been saved.
    """
    papermill_engines.register("prodkit", ProdkitEngine)
    logging.getLogger("papermill").setLevel(logging.ERROR)  # the parameters have been checked by better means
    try:
        papermill.execute_notebook(
            str(source.resolve()).replace("{", "{{").replace("}", "}}"),  # papermill formats paths
            None,  # the engine saves
            parameters=dict(values),
            engine_name="prodkit",
            **_kernel(source),
            progress_bar=False,
            order=order,
        )
    except StoppedError:
        raise
    except PapermillExecutionError:
        pass  # papermill takes a cell that was allowed to fail for a failure; the engine knows better
