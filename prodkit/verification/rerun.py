"""A plugin of pytest: nbval executes a recorded notebook in a cold kernel, and its outputs are held against the record.

nbval does what it does well: it collects the cells, honours their tags, runs them one by one in one kernel and
gathers what they show. This plugin puts the kernel into the folder of the recorded run, notices at once when it dies,
follows outputs that a cell takes back or rewrites, and compares by :class:`prodkit.verification.likeness.Likeness`,
which sees figures and takes numbers as numbers. Loaded with ``pytest -p prodkit.verification.rerun``, by nothing else.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import time
from collections.abc import Iterable, Iterator
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from queue import Empty
from typing import Any

import pytest
import zmq
from jupyter_client.manager import KernelManager
from nbval.kernel import NbvalKernelspecManager, RunningKernel
from nbval.plugin import IPyNbCell, IPyNbFile, coalesce_streams

from prodkit.kernels.provisioner import socket_folder
from prodkit.redaction import Redaction, references
from prodkit.verification.clocks import Span
from prodkit.verification.likeness import Difference, Likeness
from prodkit.verification.messages import outputs_of

__all__ = ["ColdCell", "ColdKernel", "ColdNotebook"]

_SETTING = {"parameters", "injected-parameters"}  # cells that may refer to secrets
_POLL_SECONDS = 0.5
_OUTPUT_SECONDS = 60  # how long outputs may take to arrive after their cell has ended
_START_SECONDS = 120.0
# One expression, which leaves no name behind.
_KEEP_OUTPUT = (
    "(lambda thread, option: thread.schedule(lambda: thread.socket.setsockopt(option, 0)))("
    "get_ipython().kernel.iopub_thread, __import__('zmq').SNDHWM)"
)


def pytest_addoption(parser: Any) -> None:
    """Take the request: a JSON file that says what is recorded, and where the answer goes."""
    parser.addoption("--rerun-request", help="JSON file of prodkit.verification.verifier")


def pytest_collect_file(file_path: Path, parent: Any) -> Any:
    """Every notebook is one to compare."""
    return ColdNotebook.from_parent(parent, path=file_path) if file_path.suffix == ".ipynb" else None


def pytest_configure(config: Any) -> None:
    """Keep the request and the answer at hand."""
    config.rerun = json.loads(Path(config.option.rerun_request).read_text())
    config.rerun_answer = {"cells": [], "trouble": ""}


@pytest.hookimpl(trylast=True)  # when the kernel has ended
def pytest_sessionfinish(session: Any) -> None:
    """Write the answer: of each cell that was reached what differs, or why it failed. Nobody there: tidy up."""
    asked = session.config.rerun
    if os.getppid() == asked["runner"]:
        Path(asked["answer"]).write_text(json.dumps(session.config.rerun_answer))
    else:
        shutil.rmtree(asked["scratch"], ignore_errors=True)
        os._exit(3)  # nobody is left who would end this process if its own end were to wait for something


class ColdKernel(RunningKernel):  # type: ignore[misc]  # nbval has no types
    """A kernel that was started for this, in the folder of the recorded run; it is missed as soon as it dies.

    Args:
        name: of its kernelspec.
        folder: its working folder.
        scratch: a folder for its log.
        runner: the process that waits for the answer; without it there is nothing left to do.
    """

    def __init__(self, name: str, *, folder: str, scratch: str, runner: int) -> None:
        self._sockets = socket_folder()
        own = {"transport": "ipc", "ip": f"{self._sockets}/k"} if os.name == "posix" else {}
        self.km = KernelManager(kernel_name=name, kernel_spec_manager=NbvalKernelspecManager(), **own)
        self._runner = runner
        with Path(scratch, "kernel.log").open("wb") as log:
            self.km.start_kernel(cwd=folder, stdout=log, stderr=log)
        self.kc = self.km.client()
        self.kc.context.setsockopt(zmq.RCVHWM, 0)  # no output is thrown away because it comes too fast,
        try:
            self.kc.start_channels()
            self.kc.wait_for_ready(timeout=_START_SECONDS)
            if "ipykernel_launcher" in getattr(self.km.kernel_spec, "argv", []):  # nor by the kernel
                self.kc.execute(_KEEP_OUTPUT, silent=True, reply=True, timeout=_START_SECONDS)
            self._ensure_iopub_up()
        except BaseException:
            self.end()  # nobody else holds it yet
            raise

    def get_message(self, stream: str, timeout: float | None = None) -> Any:
        """The next message; raises RuntimeError when the kernel has died, Empty after the timeout."""
        due = time.monotonic() + (timeout or float("inf"))
        while True:
            left = due - time.monotonic()
            with suppress(Empty):
                return super().get_message(stream, timeout=max(0.01, min(_POLL_SECONDS, left)))
            if not self.is_alive():
                raise RuntimeError("the kernel died")
            if left <= 0:
                raise Empty
            if os.getppid() != self._runner:
                pytest.exit("whoever asked is gone", returncode=3)

    def execute_cell_input(self, cell_input: str, allow_stdin: bool | None = None) -> Any:
        """Run a cell as papermill does, with the history that ``_`` and ``In`` come from."""
        self.asked: str = self.kc.execute(
            cell_input, store_history=True, allow_stdin=bool(allow_stdin), stop_on_error=False
        )
        return self.asked

    def end(self) -> None:
        """Stop the kernel and what it has started, dead or alive."""
        group = getattr(self.km.provisioner, "pgid", None)
        self.kc.stop_channels()
        with suppress(Exception):
            self.km.shutdown_kernel(now=True)
        if group and group != os.getpgrp():
            with suppress(ProcessLookupError, PermissionError):
                os.killpg(group, signal.SIGKILL)
        for context in (self.kc.context, self.km.context):
            context.destroy(linger=0)  # a socket that is still open would be waited for at the end, for ever
        shutil.rmtree(self._sockets, ignore_errors=True)


class ColdNotebook(IPyNbFile):  # type: ignore[misc]
    """A recorded notebook."""

    def setup(self) -> None:
        """Start the kernel."""
        asked = self.config.rerun
        name = self.nb.metadata.get("kernelspec", {}).get("name", "python3")
        self.messages: list[Any] = []
        cells = [cell.source for cell in self.nb.cells if _SETTING & set(cell.metadata.get("tags", []))]
        self.secrets = Redaction.of(references(cells))
        self.began = datetime.now(UTC)
        try:
            self.kernel = ColdKernel(
                name, folder=asked["folder"], scratch=asked["scratch"], runner=asked["runner"]
            )
        except Exception as error:
            self.config.rerun_answer["trouble"] = f"no kernel: {error}"
            raise
        self.setup_sanitize_files()

    def teardown(self) -> None:
        """End the kernel."""
        if self.kernel is not None:
            self.kernel.end()

    def collect(self) -> Iterator[ColdCell]:
        """Nbval's cells, which compare in our way."""
        for item in super().collect():
            yield ColdCell.from_parent(
                self, name=item.name, cell_num=item.cell_num, cell=item.cell, options=item.options
            )

    def get_kernel_message(self, timeout: float | None = None, stream: str = "iopub") -> Any:
        """The next message, which is kept."""
        message = super().get_kernel_message(timeout, stream)
        if message["parent_header"].get("msg_id") == self.kernel.asked:
            self.messages.append(message)
        return message


class ColdCell(IPyNbCell):  # type: ignore[misc]
    """A recorded cell, executed again; one whose outputs are not compared still has to repeat its result."""

    def __init__(self, **given: Any) -> None:
        super().__init__(**given)
        self.output_timeout = _OUTPUT_SECONDS
        self.ignored = not self.options["check"] or self.options["skip"]
        self.options |= {"check": True, "skip": False}  # later cells need what this one does
        self.differences: list[Difference] = []

    def runtest(self) -> None:
        """Execute, compare, and note down what came of it."""
        self.parent.messages.clear()
        self.began, failure = time.monotonic(), ""
        try:
            super().runtest()
        except BaseException as error:
            # what differs is told apart from what kept the cell from ending
            failure = "" if self.differences else self.parent.secrets.text(_reason(error))
            raise
        finally:
            answer = {"cell": self.cell_num + 1, "ignored": self.ignored, "failure": failure}
            answer["differences"] = [list(difference) for difference in self.differences]
            self.config.rerun_answer["cells"].append(answer)

    def compare_outputs(self, test: Any, ref: Any, skip_compare: Any = None) -> bool:
        """Whether the outputs are alike; nbval calls this."""
        found = coalesce_streams(outputs_of(self.parent.messages))
        test = self.parent.secrets.document(found)  # the record does not hold them either
        likeness = self._likeness()
        if not self.ignored:
            self.differences = likeness.outputs(*(self._plain(each) for each in (ref, test)))
        self.differences += self._results(likeness, ref, test)
        self.comparison_traceback = [
            f"{each.what}: {each.recorded} / {each.found}" for each in self.differences
        ]
        return not self.differences

    def _plain(self, outputs: Iterable[Any]) -> list[Any]:
        """Outputs without the result document, which is compared by rules of its own."""
        mime = self.config.rerun["result"]
        return [
            {**output, "data": {kind: value for kind, value in output["data"].items() if kind != mime}}
            if "data" in output
            else output
            for output in outputs
        ]

    def _results(self, likeness: Likeness, ref: Any, test: Any) -> list[Difference]:
        """Where the result documents of a cell differ, but for what was measured on the machine."""
        mime, measured = (self.config.rerun[name] for name in ("result", "measured"))
        then, now = (
            [output["data"][mime] for output in outputs if mime in output.get("data", {})]
            for outputs in (ref, test)
        )
        if len(then) != len(now):
            return [Difference("result", f"{len(then)} documents", f"{len(now)} documents")]
        return [
            Difference(f"result{each.what}", each.recorded, each.found)
            for pair in zip(then, now, strict=True)
            for each in likeness.values(*pair, skipped=measured)
        ]

    def _likeness(self) -> Likeness:
        asked = self.config.rerun
        start, end = map(datetime.fromisoformat, asked["recorded"])
        own = self.cell.metadata.get("papermill", {}).get("duration") or 0.0
        now = Span(self.parent.began, datetime.now(UTC), time.monotonic() - self.began)
        return Likeness(
            relative=asked["relative"],
            absolute=asked["absolute"],
            recorded=Span(start, end, float(own)),
            found=now,
            renamed=asked["renamed"],
        )


def _reason(error: BaseException) -> str:
    """Why a cell did not come to its end, in one line."""
    traceback = re.sub(r"\x1b\[[0-9;]*m", "", getattr(error, "inner_traceback", None) or "")
    lines = [line for line in traceback.splitlines() if line.strip()]
    return lines[-1] if lines else str(error) or type(error).__name__
