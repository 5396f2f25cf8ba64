"""nbclient with an eye on the clock, the kernel, the disk and whoever asks it to stop."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
import threading
import time
from collections.abc import Awaitable, Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from queue import Empty
from typing import Any

from nbclient.exceptions import CellExecutionError
from papermill.clientwrap import PapermillNotebookClient
from papermill.engines import NotebookExecutionManager
from papermill.exceptions import PapermillExecutionError

from prodkit.kernels.provisioner import Kernel
from prodkit.runs.draft import FULL, Draft
from prodkit.runs.stops import Limits, Stop, hurried, signal_received

__all__ = ["Client", "Order", "StoppedError"]

_TICK_SECONDS = 0.1
_POLL_SECONDS = 0.25
_IOPUB_SECONDS = 60  # for what a cell has put out to arrive after the cell has ended


@dataclass(frozen=True)
class Order:
    """What ``prodkit run`` asks for beyond what papermill's own arguments say.

    Attributes:
        path: where the executed notebook is saved.
        folder: the kernel's working folder.
        environment: variables of the kernel, beside those of this process.
        limits: how long things may take.
        hide: takes secrets out of what is written.
        warm: whether the kernel may come from a process that has the imports done.
        meanwhile: is called in a thread of its own while the kernel works, and this process waits.
    """

    path: Path
    folder: Path | None = None
    environment: Mapping[str, str] = field(default_factory=dict)
    limits: Limits = field(default_factory=Limits)
    hide: Callable[[str], str] = str
    warm: bool = True
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


class _Manager(NotebookExecutionManager):  # type: ignore[misc]
    """papermill's states and progress bar, on a draft that is saved as often as needed and no more."""

    def __init__(self, notebook: Any, draft: Draft, **settings: Any) -> None:
        super().__init__(notebook, **settings)
        self.draft = draft

    def save(self, **_: Any) -> None:
        """Save what a cell's beginning or end has changed, when it is time."""
        self.draft.changed = True
        self.draft.save()

    def autosave_cell(self, **_: Any) -> None:
        """Note that a message has arrived; the client's watch saves it."""
        self.draft.changed = True


class Client(PapermillNotebookClient):  # type: ignore[misc]
    """Runs the cells of one notebook in a kernel that ends with it.

    Args:
        notebook: with the injected parameters; changed in place.
        order: where it is saved, and within which limits it runs.
        kernel_name: of the kernelspec.
        progress_bar: papermill's.
        **settings: of papermill's client.
    """

    def __init__(
        self, notebook: Any, order: Order, *, kernel_name: str, progress_bar: Any = False, **settings: Any
    ) -> None:
        self.order, self.draft = order, Draft(notebook, order.path, hide=order.hide)
        manager = _Manager(notebook, self.draft, progress_bar=progress_bar)
        kernel = Kernel(kernel_name=kernel_name, warm=order.warm)
        super().__init__(manager, km=kernel, iopub_timeout=_IOPUB_SECONDS, **settings)
        self.stop: Stop | None = None
        self._hides = order.hide is not str
        self._began = time.monotonic()
        self._cell: tuple[int, Any, float] = (-1, None, self._began)

    async def run(self) -> None:
        """Start the kernel, run each cell, save, end the kernel.

        Raises:
            StoppedError: it ended early.
        """
        trace: list[str] = []
        self.reset_execution_trackers()
        try:
            with _relayed_stderr(self.order.hide) as stderr:
                try:
                    self.nb_man.notebook_start()
                    await self._unless_stopped(self._start(stderr))
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

    async def _start(self, stderr: int) -> None:
        environment = {**os.environ, **self.order.environment}
        await self.km.start_kernel(
            cwd=str(self.order.folder or Path.cwd()), env=environment, stdout=stderr, stderr=stderr
        )
        threading.Thread(target=self.order.meanwhile, daemon=True).start()
        self.kc = self.km.client()
        self.kc.start_channels()
        await self.kc.wait_for_ready(timeout=self.order.limits.start_seconds)
        self.kc.allow_stdin = False
        self.kc.shell_channel.get_msg = _rearmed(self.kc.shell_channel.get_msg)
        info = await self.async_wait_for_reply(self.kc.kernel_info())
        if info:
            self.nb.metadata["language_info"] = info["content"]["language_info"]

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
            if self.stop:  # it was asked to end, and did so without an error
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
        """Watch over a cell: save what it puts out, and end it when there is a reason."""
        asked = 0.0
        while True:
            await asyncio.sleep(_TICK_SECONDS)
            if not await self.km.is_alive():
                await asyncio.sleep(_TICK_SECONDS)  # for what it said before it died
                self.stop = self.stop or Stop("failed", "failed", f"The kernel {self.km.death()}.")
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
        if self._hides:
            content = json.dumps(message["content"], default=str)
            message = {**message, "content": json.loads(self.order.hide(content))}
        return super().process_message(message, cell, cell_index)

    def _save(self) -> Stop | None:
        try:
            self.draft.save()
        except OSError as error:
            return _failure(error)
        return None


def _failure(error: Exception) -> Stop:
    if isinstance(error, OSError) and error.errno in FULL:
        return Stop("failed", "interrupted", "No space is left on the disk. Free some, and run it again.")
    return Stop("failed", "interrupted", f"{type(error).__name__}: {error}")


def _cell_stop(error: CellExecutionError) -> Stop:
    if error.ename == "SystemExit" and error.evalue in ("", "0", "None"):
        return Stop("succeeded", "completed", "A cell ended the run by sys.exit().")
    return Stop("failed", "failed", f"{error.ename}: {error.evalue}")


def _rearmed(get_msg: Callable[..., Awaitable[Any]]) -> Callable[..., Awaitable[Any]]:
    """A channel's ``get_msg`` that polls anew every quarter of a second.

    An Output widget sends on the socket that is being polled; that swallows the edge by which zmq tells of an
    arrived reply, and a poll without an end would wait for it for ever.
    """

    async def get(timeout: float | None = None, **settings: Any) -> Any:
        until = None if timeout is None else time.monotonic() + timeout
        while True:
            left = _POLL_SECONDS if until is None else min(_POLL_SECONDS, max(0.0, until - time.monotonic()))
            try:
                return await get_msg(timeout=left, **settings)
            except Empty:
                if until is not None and time.monotonic() >= until:
                    raise

    return get


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
