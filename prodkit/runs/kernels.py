"""Kernels of runs: on private sockets, with a bounded start, and an end that leaves nothing behind.

A kernel is a fresh process. Within a command that runs many of the kit's notebooks (`start_fork_server`) theirs are
forked from a process that has the imports done, and that ends with the command.

As a plugin, ``pytest -p prodkit.runs.kernels --nbval notebooks``, it has nbval's kernels forked, too.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import multiprocessing
import os
import signal
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from multiprocessing import forkserver, util
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, Self

from jupyter_client.manager import AsyncKernelManager, KernelManager
from jupyter_client.provisioning.local_provisioner import LocalProvisioner
from traitlets import Bool

from prodkit import _HOMES
from prodkit.runs.claims import scratch_folder
from prodkit.settings import environment_set

__all__ = ["Kernel", "KernelProvisioner", "pytest_configure", "start_fork_server"]

_log = logging.getLogger(__name__)
_POLL_SECONDS = 0.01
_APP = str(Path(__file__).with_name("kernelapp.py"))
_INLINE = (
    "module://matplotlib_inline.backend_inline"  # ipykernel's default; matplotlib reads it on its import
)
_OF_ONE_RUN = ("PRODKIT_", "JPY_", "PYTEST_")  # variables that no library reads on its import
# What the kit's notebooks import, and what a kernel imports while it starts. Not pyplot: it asks on its import whether
# it runs in a notebook.
# fmt: off
_PRELOADED = (
    "prodkit.runs.kernelapp", "ipykernel.ipkernel", "ipykernel.zmqshell", "ipykernel.debugger",
    "IPython.core.completerlib", "sqlite3", "IPython.core.oinspect", "IPython.core.debugger",
    "IPython.extensions.storemagic", "IPython.utils.wildcard", "tornado.platform.asyncio", "pandas",
    "pyarrow.parquet", "pyarrow.dataset", "pyarrow.compute", "pyarrow.csv", "scipy.stats", "scipy.sparse",
    "scipy.special", "scipy.optimize", "sklearn.calibration", "sklearn.compose", "sklearn.dummy",
    "sklearn.ensemble", "sklearn.impute", "sklearn.inspection", "sklearn.isotonic", "sklearn.linear_model",
    "sklearn.metrics", "sklearn.model_selection", "sklearn.pipeline", "sklearn.preprocessing", "sklearn.tree",
    "matplotlib.figure", "matplotlib.backends.backend_agg", "matplotlib.dates", "joblib", "pydantic", "sqlalchemy",
    "sqlalchemy.dialects.sqlite", "ipywidgets", "yaml",
)
# fmt: on


@dataclass(frozen=True)
class _ForkServer:
    """What a kernel takes over from the fork server of this process.

    Attributes:
        environment: the variables that its imports have read.
        path: where a fresh interpreter looks for modules.
        began: before its first import, in nanoseconds since the epoch.
    """

    environment: Mapping[str, str]
    path: Sequence[str]
    began: int


_server: _ForkServer | None = None


def start_fork_server() -> None:
    """Have kernels that ask for it forked from now on, as long as this process lives; on Linux, elsewhere do nothing.

    This returns at once; the first kernel waits until the imports are done.
    """
    global _server
    if _server is not None or sys.platform != "linux":
        return
    modules = [*_PRELOADED, *(f"prodkit.{home}" for home in _HOMES)]
    _server = _ForkServer(dict(os.environ), _fresh_path(), time.time_ns())
    multiprocessing.get_context("forkserver").set_forkserver_preload(modules)
    scratch = contextlib.ExitStack()
    folder = scratch.enter_context(scratch_folder())
    util.Finalize(None, scratch.close, exitpriority=-200)  # after multiprocessing's own folder in it
    before, tempfile.tempdir = tempfile.tempdir, str(folder)  # its socket is to go with us, however we end
    try:
        own = {"PYTHONSAFEPATH": "1", "PYDEVD_DISABLE_FILE_VALIDATION": "1"}  # else debugpy warns
        with environment_set(**own, MPLBACKEND=os.environ.get("MPLBACKEND") or _INLINE):
            forkserver.ensure_running()
    finally:
        tempfile.tempdir = before


def _fresh_path() -> list[str]:
    """Where an interpreter looks for modules: not this one, whose script, pytest or user may have added places."""
    call = [sys.executable, "-c", "import sys; print(*sys.path, sep='\\n')"]
    return [place for place in subprocess.check_output(call, text=True).splitlines() if place]


class _Forked:
    """The part of `subprocess.Popen` that a provisioner uses, for a process of the fork server."""

    stdin = stdout = stderr = None

    def __init__(self, process: Any) -> None:
        self._process, self.pid = process, process.pid

    def poll(self) -> int | None:
        """The exit status, negative for a signal, or None as long as it lives."""
        status: int | None = self._process.exitcode
        return status

    def wait(self) -> int | None:
        """Wait for its end, and give its exit status."""
        self._process.join()
        return self.poll()

    def send_signal(self, number: int) -> None:
        """Send a signal to it, if it lives."""
        if self.poll() is None:
            os.kill(self.pid, number)

    def kill(self) -> None:
        """Send SIGKILL."""
        self.send_signal(signal.SIGKILL)

    def terminate(self) -> None:
        """Send SIGTERM."""
        self.send_signal(signal.SIGTERM)


class KernelProvisioner(LocalProvisioner):
    """Starts a kernel that ends when its runner does, together with all of its process group.

    With ``forked`` set, it comes from the fork server of this process, if there is one and the result is the same.
    """

    forked = Bool(False, config=True, help="Fork it, where there is a fork server.")
    returncode: int | None = None
    _lifeline = -1

    async def launch_kernel(self, cmd: list[str], **kwargs: Any) -> Any:
        """Start the kernel."""
        self.returncode = None
        if os.name == "posix" and (command := _own_command(cmd)):
            cmd = command
            # The machine closes our end when this process ends, however that comes; the kernel ends by that.
            kwargs["stdin"], self._lifeline = os.pipe()
        try:
            if (process := await self._forked(cmd, **kwargs)) is None:
                return await super().launch_kernel(cmd, **kwargs)
        finally:
            if self._lifeline >= 0:
                os.close(kwargs["stdin"])
        self.process = process  # type: ignore[assignment]  # it is what of a Popen is used here
        self.pid = self.pgid = process.pid
        return self.connection_info

    async def _forked(self, cmd: list[str], **kwargs: Any) -> _Forked | None:
        """A forked kernel; None where there is none, or it would differ from a fresh one."""
        environment = dict(kwargs.get("env") or os.environ)
        if not self.forked or _server is None or self._lifeline < 0 or not _is_alike(cmd[0], environment):
            return None
        asked = [kwargs["stdin"], kwargs.get("stdout"), kwargs.get("stderr")]
        streams = [Connection(os.dup(_number(stream, number))) for number, stream in enumerate(asked)]
        folder = os.path.abspath(kwargs.get("cwd") or os.curdir)
        arguments = (cmd, environment, folder, _server.path, _server.began, streams)
        from prodkit.runs.kernelapp import forked_kernel  # and ipykernel, which no other run needs

        context = multiprocessing.get_context("forkserver")
        process = context.Process(target=forked_kernel, args=arguments, daemon=True)
        try:
            await asyncio.to_thread(process.start)
        except (OSError, EOFError) as error:
            _log.warning("No forked kernel, a fresh one instead: the fork server has ended (%s).", error)
            return None
        finally:
            for stream in streams:
                stream.close()
        return _Forked(process)

    async def poll(self) -> int | None:
        """The exit status, or None while it lives; the rest of its group ends with it."""
        status = await super().poll()
        if self.process is not None and self.returncode is None and status is not None:
            self.returncode = status
            if self.pgid and self.pgid != os.getpgrp():
                with contextlib.suppress(ProcessLookupError, PermissionError):
                    os.killpg(self.pgid, signal.SIGKILL)
        return status

    async def cleanup(self, restart: bool = False) -> None:
        """Let go of what is left."""
        if self._lifeline >= 0:
            os.close(self._lifeline)
            self._lifeline = -1
        await super().cleanup(restart)


def _own_command(cmd: Sequence[str]) -> list[str]:
    """The command of an IPython kernel, with our application in place of ipykernel's; empty for any other kernel."""
    if "ipykernel_launcher" not in cmd or cmd[(at := cmd.index("ipykernel_launcher")) - 1] != "-m":
        return []
    return [*cmd[: at - 1], _APP, *cmd[at + 1 :]]


def _is_alike(interpreter: str, environment: Mapping[str, str]) -> bool:
    """Whether the fork server is this interpreter, with these variables."""
    if os.path.abspath(interpreter) != sys.executable or _server is None:
        return False
    if any(not os.path.isabs(place) for place in environment.get("PYTHONPATH", "/").split(os.pathsep)):
        return False  # it depends on the working folder
    mine, its = (
        {name: text for name, text in each.items() if not name.startswith(_OF_ONE_RUN)}
        for each in (environment, _server.environment)
    )
    return mine == its


def _number(stream: Any, default: int) -> int:
    """The descriptor of what `subprocess.Popen` would take as a stream."""
    if stream is None:
        return default
    return int(stream if isinstance(stream, int) else stream.fileno())


class Kernel(AsyncKernelManager):
    """One kernel: started on private sockets, and ended with all its processes.

    >>> kernel = Kernel(kernel_name="python3")
    >>> kernel.death()
    ''
    """

    forked = Bool(False, config=True, help="Fork it, where there is a fork server.")
    _put_down = False

    @classmethod
    def on_sockets(cls, folder: Path, **settings: Any) -> Self:
        """One that talks through a folder that only we can enter: no ports to race for, nobody else listens."""
        if os.name == "posix":
            settings |= {"transport": "ipc", "ip": f"{folder}/k", "connection_file": f"{folder}/kernel.json"}
        return cls(**settings)

    async def start_kernel(self, **settings: Any) -> None:  # type: ignore[override]  # its parent's is not async
        """Start it; takes ``env``, ``cwd``, ``stdin``, ``stdout``, ``stderr`` and ``extra_arguments``.

        What the kernel's process writes to its standard output goes to standard error unless ``stdout`` says otherwise:
        ours is for the command's answer alone. Its history is kept nowhere.
        """
        self._put_down = False
        arguments = list(settings.pop("extra_arguments", None) or [])
        if self.ipykernel and not any("hist_file" in argument for argument in arguments):
            arguments.append("--HistoryManager.hist_file=:memory:")
        if self.provisioner is None and "kernel_provisioner" not in getattr(self.kernel_spec, "metadata", {}):
            self.kernel_id = self.kernel_id or str(uuid.uuid4())
            self.provisioner = KernelProvisioner(
                kernel_id=self.kernel_id, kernel_spec=self.kernel_spec, parent=self, forked=self.forked
            )
        await super().start_kernel(**{"stdout": 2, "extra_arguments": arguments, **settings})

    async def end(self, *, grace_seconds: float = 1.0) -> None:
        """Ask it to shut down, interrupt it at half time, kill its whole process group; then clean up.

        It may be dead already, sit in a C call or ignore every signal: this returns within the grace and a moment.
        """
        self.shutting_down = True
        if self.has_kernel and self.provisioner is not None:
            if await self.is_alive():
                await self.request_shutdown()
                if not await self._ends_within(grace_seconds / 2):
                    await self.interrupt_kernel()
                    await self._ends_within(grace_seconds / 2)
            if await self.is_alive():
                self._put_down = True
                await self.provisioner.kill()
                await self._ends_within(5.0)
            with contextlib.suppress(asyncio.TimeoutError):
                await asyncio.wait_for(self.provisioner.wait(), 5.0)
        await self.cleanup_resources()

    async def _ends_within(self, seconds: float) -> bool:
        deadline = time.monotonic() + seconds
        while await self.is_alive():
            if time.monotonic() > deadline:
                return False
            await asyncio.sleep(_POLL_SECONDS)
        return True

    def death(self) -> str:
        """How it ended, in words that follow "the kernel"; empty while it lives, or was never started."""
        status = getattr(self.provisioner, "returncode", None)
        if status is None:
            return ""
        if status >= 0:
            return f"ended by itself with status {status}"
        name = signal.Signals(-status).name if -status in set(signal.Signals) else "unknown"
        if self._put_down:
            return f"did not end when it was asked to, and was killed by signal {-status} ({name})"
        cause = ": by hand, or for want of memory" if -status == signal.SIGKILL else ""
        return f"was killed by signal {-status} ({name}){cause}"


class _NbvalKernel(KernelManager):
    """jupyter_client's, which forks its kernel."""

    def __init__(self, **settings: Any) -> None:
        super().__init__(**settings)
        start_fork_server()
        self.kernel_id = str(uuid.uuid4())
        self.provisioner = KernelProvisioner(
            kernel_id=self.kernel_id, kernel_spec=self.kernel_spec, parent=self, forked=True
        )


def pytest_configure(config: Any) -> None:
    """Give nbval a manager that forks its kernels; it takes no other from anywhere."""
    if getattr(config.option, "nbval", False) or getattr(config.option, "nbval_lax", False):
        import nbval.kernel  # part of a test session alone

        nbval.kernel.KernelManager = _NbvalKernel
