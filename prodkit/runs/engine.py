"""papermill's engine for runs that one trusts at night: what it saves is true, whatever happens.

``prodkit run`` uses it; plain papermill does with ``papermill --engine prodkit IN OUT``.
"""

from __future__ import annotations

import asyncio
import json
import logging
import math
import os
import signal
import sys
import threading
import time
from collections.abc import Awaitable, Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from queue import Empty
from typing import Any

import papermill
import zmq
import zmq.asyncio
from jupyter_core.utils import run_sync
from nbclient.exceptions import CellExecutionError
from papermill.clientwrap import PapermillNotebookClient
from papermill.engines import Engine, papermill_engines
from papermill.exceptions import PapermillExecutionError
from papermill.iorw import write_ipynb

from prodkit.errors import KernelError
from prodkit.redaction import Redaction, references
from prodkit.runs.claims import scratch_folder
from prodkit.runs.draft import FULL, Draft, Output
from prodkit.runs.kernels import Kernel
from prodkit.runs.stops import Limits, Stop, heeding_signals, hurried, leave, signal_received

__all__ = ["Client", "Order", "ProdkitEngine", "StoppedError", "execute"]

_TICK_SECONDS = 0.1
_POLL_SECONDS = 0.25
_IOPUB_SECONDS = 60  # for the outputs of a cell to arrive after the cell has ended


@dataclass(frozen=True)
class Order:
    """What ``prodkit run`` asks for beyond what papermill's own arguments say.

    Attributes:
        path: where the executed notebook is saved.
        folder: the kernel's working folder.
        environment: variables of the kernel, beside those of this process.
        limits: how long things may take.
        hide: takes secrets out of what is written.
        forked: whether the kernel may come from the fork server of this process.
        meanwhile: is called in a thread of its own while the kernel works, and this process waits.
    """

    path: Path
    folder: Path | None = None
    environment: Mapping[str, str] = field(default_factory=dict)
    limits: Limits = field(default_factory=Limits)
    hide: Callable[[str], str] = str
    forked: bool = False
    meanwhile: Callable[[], object] | None = None


class StoppedError(PapermillExecutionError):  # type: ignore[misc]  # papermill is not typed
    """A run ended before its last cell.

    Attributes:
        stop: why.
    """

    def __init__(self, stop: Stop, *, index: int, count: int | None, source: str, trace: list[str]) -> None:
        name, _, value = stop.sentence.partition(": ")
        super().__init__(index, count, source, name, value, trace if any(trace) else [stop.sentence])
        self.stop = stop


class Client(PapermillNotebookClient):  # type: ignore[misc]
    """nbclient with an eye on the clock, the kernel, the disk and whoever asks it to stop.

    Args:
        notebook: with the injected parameters; changed in place.
        order: where it is saved, and within which limits it runs.
        sockets: an empty folder.
        kernel_name: of the kernelspec.
        progress_bar: papermill's.
        **settings: of papermill's client.
    """

    def __init__(
        self,
        notebook: Any,
        order: Order,
        sockets: Path,
        *,
        kernel_name: str,
        progress_bar: Any = False,
        **settings: Any,
    ) -> None:
        self.order, self.draft = (
            order,
            Draft(notebook, order.path, hide=order.hide, progress_bar=progress_bar),
        )
        kernel = Kernel.on_sockets(sockets, kernel_name=kernel_name, forked=order.forked)
        super().__init__(self.draft, km=kernel, iopub_timeout=_IOPUB_SECONDS, **settings)
        self.stop: Stop | None = None
        self._exit: Stop | None = None  # what a cell asks for that has ended, or will end at once
        self._began = time.monotonic()
        self._cell: tuple[int, Any, float] = (-1, None, self._began)

    async def run(self) -> None:
        """Start the kernel, run each cell, save, end the kernel.

        Raises:
            StoppedError: it ended early.
        """
        trace: list[str] = []
        self.reset_execution_trackers()
        context = zmq.asyncio.Context()
        context.setsockopt(
            zmq.RCVHWM, 0
        )  # however much output comes while this process is busy, all is taken in
        context.setsockopt(zmq.RECONNECT_IVL, 5)  # ms; by default a kernel is asked again after 100
        try:
            with _relayed_stderr(self.order.hide) as stderr:
                try:
                    self.nb_man.notebook_start()
                    await self._unless_stopped(self._start(context, stderr))
                    await self._run_cells()
                    self.set_widgets_metadata()
                except CellExecutionError as error:
                    trace = error.traceback.splitlines()
                    self.stop = self.stop or _cell_stop(error)
                except Exception as error:  # whatever it is, what was done so far is saved and marked
                    self.stop = self.stop or _failure(error)
                self._close()
        finally:
            if self.kc is not None:
                self.kc.stop_channels()
            await self.km.end(grace_seconds=0 if hurried() else 1.0)
            context.destroy(linger=0)
        if self.stop:
            index, cell, _ = self._cell
            count, source = (cell.get("execution_count"), cell.source) if cell else (None, "")
            hide = self.order.hide
            stop = replace(self.stop, sentence=hide(self.stop.sentence))
            raise StoppedError(stop, index=index, count=count, source=source, trace=[hide("\n".join(trace))])

    def _close(self) -> None:
        """Save for good. Where even that fails, the last good save stands and the record says so."""
        try:
            self.draft.close(self.stop)
        except OSError as error:
            lost = f"The notebook could not be saved for the last time: {error}"
            before = f"{self.stop.sentence} " if self.stop else ""
            self.stop = Stop("failed", "interrupted", before + lost)

    async def _start(self, context: zmq.asyncio.Context, stderr: int) -> None:
        environment = {**os.environ, **self.order.environment}
        folder = str(self.order.folder or Path.cwd())
        await self.km.start_kernel(cwd=folder, env=environment, stdout=stderr, stderr=stderr)
        threading.Thread(target=self.order.meanwhile, daemon=True).start()
        self.kc = self.km.client(context=context)
        self.kc.allow_stdin = False
        self.kc.start_channels()
        info = await self._answer()
        self.nb.metadata["language_info"] = info["language_info"]
        self.kc.shell_channel.get_msg = self._watched(self.kc.shell_channel.get_msg)

    async def _answer(self) -> Any:
        """Wait until the kernel answers and its output is heard; jupyter_client waits for a silence, .2 s longer."""
        due, info, heard, asked = time.monotonic() + self.order.limits.start_seconds, None, False, set()
        while not (info and heard):
            if not await self.km.is_alive():
                raise KernelError("the kernel", rule=self.km.death() or "died", place="its start")
            if time.monotonic() > due:
                raise KernelError("the kernel", rule="did not answer in time", place="its start")
            asked.add(self.kc.kernel_info())
            with suppress(Empty):
                info = (await self.kc.get_shell_msg(timeout=_POLL_SECONDS))["content"]
                while not heard:
                    message = await self.kc.get_iopub_msg(timeout=0.05)
                    idle = message["content"].get("execution_state") == "idle"
                    heard = idle and message["parent_header"].get("msg_id") in asked
        return info

    async def _unless_stopped(self, work: Awaitable[None]) -> None:
        """Wait for work, but not after a signal has come."""
        task = asyncio.ensure_future(work)
        while not task.done() and self.stop is None:
            await asyncio.wait([task], timeout=_TICK_SECONDS)
            self.stop = self._reason()
        if task.done():
            await task
        else:
            task.cancel()
            await asyncio.wait([task])

    async def _run_cells(self) -> None:
        for index, cell in enumerate(self.nb.cells):
            self.stop = self.stop or self._reason()
            if self.stop:
                return
            self._cell = (index, cell, time.monotonic())
            self.nb_man.cell_start(cell, index)
            await self.async_execute_cell(cell, index)
            self.stop = self.stop or self._exit
            if self.stop:  # it was asked to end, and did so without an error, or asks for the end itself
                return
            self.nb_man.cell_complete(cell, index)

    def _reason(self) -> Stop | None:
        """Why to stop now, if there is a reason."""
        limits, now = self.order.limits, time.monotonic()
        index, cell, since = self._cell
        place = f"code cell {sum(each.cell_type == 'code' for each in self.nb.cells[: index + 1])}"
        if number := signal_received():
            return Stop("interrupted", "interrupted", f"The runner received {signal.Signals(number).name}.")
        if now - self._began > limits.notebook_seconds:
            rule = f"The notebook ran longer than {limits.notebook_seconds:g} s"
            return Stop("failed", "interrupted", f"{rule} (--timeout), and was stopped in {place}.")
        if cell is not None and now - since > limits.cell_seconds:
            rule = f"{place.capitalize()} ran longer than {limits.cell_seconds:g} s"
            return Stop("failed", "failed", f"{rule} (--cell-timeout), and was stopped.")
        return None

    async def _async_poll_kernel_alive(self) -> None:
        """Watch over a cell: save its outputs, and end it when there is a reason.

        nbclient starts this beside each cell, and has no public place for it.
        """
        asked = 0.0
        while True:
            await asyncio.sleep(_TICK_SECONDS)
            if not await self.km.is_alive():
                await asyncio.sleep(_TICK_SECONDS)  # for what it said before it died
                died = Stop("failed", "failed", f"The kernel {self.km.death()}.")
                self.stop = self.stop or self._exit or self._reason() or died
                break
            if self.stop is None:
                self.stop = self._save() or self._reason()
                if self.stop:
                    asked = time.monotonic()
                    await self.km.interrupt_kernel()
            elif hurried() or time.monotonic() - asked > self.order.limits.grace_seconds:
                break
        self.task_poll_for_reply.cancel()

    def process_message(self, message: dict[str, Any], cell: Any, cell_index: int) -> Any:
        """Take in what the kernel says, without secrets: papermill may log it before it is saved."""
        if self.order.hide is not str:
            content = json.dumps(message["content"], default=str)
            message = {**message, "content": json.loads(self.order.hide(content))}
        return super().process_message(message, cell, cell_index)

    def _save(self) -> Stop | None:
        try:
            self.draft.save_changes()
        except OSError as error:
            return _failure(error)
        return None

    def _watched(self, get_msg: Callable[..., Awaitable[Any]]) -> Callable[..., Awaitable[Any]]:
        """The ``get_msg`` of the channel of replies, which notes when a cell asks to end, and polls anew every .25 s.

        An Output widget sends on the socket that is being polled; that swallows the edge by which zmq tells of an
        arrived reply, and a poll without an end would wait for it for ever.
        """

        async def get(timeout: float | None = None, **settings: Any) -> Any:
            until = math.inf if timeout is None else time.monotonic() + timeout
            while True:
                try:
                    left = min(_POLL_SECONDS, max(0.0, until - time.monotonic()))
                    reply = await get_msg(timeout=left, **settings)
                except Empty:
                    if time.monotonic() >= until:
                        raise
                else:
                    self._exit = self._exit or _exit_stop(reply["content"])
                    return reply

        return get


def _failure(error: Exception) -> Stop:
    if isinstance(error, OSError) and error.errno in FULL:
        return Stop("failed", "interrupted", "No space is left on the disk. Free some, and run it again.")
    return Stop("failed", "interrupted", f"{type(error).__name__}: {error}")


def _cell_stop(error: CellExecutionError) -> Stop:
    if error.ename == "SystemExit" and error.evalue in ("", "0", "None"):
        return Stop("succeeded", "completed", "A cell ended the run by sys.exit().")
    return Stop("failed", "failed", f"{error.ename}: {error.evalue}")


def _exit_stop(content: Mapping[str, Any]) -> Stop | None:
    """What IPython's ``exit`` and ``quit`` ask for in a cell's reply; their argument is taken as that of `sys.exit`."""
    for each in content.get("payload") or []:
        if each.get("source") == "ask_exit":
            status = each.get("keepkernel")
            if status is None or status == 0 or isinstance(status, bool):
                return Stop("succeeded", "completed", "A cell ended the run by exit().")
            return Stop("failed", "failed", f"SystemExit: {status}")
    return None


@contextmanager
def _relayed_stderr(hide: Callable[[str], str]) -> Iterator[int]:
    """Where a kernel's process may write: stderr itself, or a pipe in which secrets are hidden on their way there."""
    if hide is str:
        yield 2
        return
    reader, writer = os.pipe()

    def relay() -> None:
        with open(reader, encoding="utf-8", errors="replace") as lines:
            for line in lines:
                sys.stderr.write(hide(line))

    thread = threading.Thread(target=relay, daemon=True)
    thread.start()
    try:
        yield writer
    finally:
        os.close(writer)
        thread.join(timeout=1.0)  # a child that has left its group may hold the pipe for ever


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
            output_path: where plain papermill wants it; what is no file on this machine receives it at the end only.
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
        with scratch_folder() as scratch, heeding_signals():
            plain, output = order is None, None
            if order is None:
                limits = Limits(execution_timeout or Limits.cell_seconds, start_seconds=start_timeout)
                output = Output.at(output_path)
                path = output.path if output else scratch / "notebook.ipynb"
                order = Order(path, limits=limits, hide=_hiding(nb))
            known = {name: settings.get(name) for name in ("stdout_file", "stderr_file")}
            known |= {"progress_bar": progress_bar, "log_output": log_output}
            client = Client(nb, order, scratch, kernel_name=kernel_name, **known)
            try:
                run_sync(client.run)()
            except StoppedError as error:
                if error.stop.status == "succeeded":
                    return nb
                if output:
                    output.remove()
                elif plain and output_path is not None:
                    write_ipynb(nb, output_path)
                if plain and error.stop.status == "interrupted":
                    leave(signal_received())
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


def _kernel(source: Path) -> dict[str, str]:
    """The kernel of a notebook that names none, as one that was never saved by Jupyter does not: Python's."""
    about = json.loads(source.read_text(encoding="utf-8")).get("metadata") or {}
    named = (about.get("kernelspec") or {}).get("name")
    language = (about.get("language_info") or {}).get("name", "python")
    return {} if named or language != "python" else {"kernel_name": "python3", "language": language}


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
