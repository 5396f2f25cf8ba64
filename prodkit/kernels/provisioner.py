"""Kernels that start fast, share nothing with one another, and do not outlive who asked for them.

`WarmProvisioner` forks a kernel from a process that has the heavy imports done, where that gives what a fresh start
would give (see `prodkit.kernels.habitat`), and starts it plainly everywhere else. With
``JUPYTER_DEFAULT_PROVISIONER_NAME=prodkit-warm`` in the environment, whatever starts kernels through jupyter_client
uses it: nbval, papermill, nbclient, JupyterLab. With ``PRODKIT_WARM=0`` all kernels are plain.

`Kernel` is a kernel of our own runs, on private sockets, with a bounded start and an end that leaves nothing behind.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import shutil
import signal
import subprocess
import tempfile
import time
import uuid
import weakref
from typing import Any

from jupyter_client.manager import AsyncKernelManager
from jupyter_client.provisioning.local_provisioner import LocalProvisioner
from traitlets import Bool, DottedObjectName, Float, Type

from prodkit.kernels.clients import KernelClient
from prodkit.kernels.door import PATIENCE_SECONDS, ZygoteError
from prodkit.kernels.habitat import coldness
from prodkit.kernels.leash import Leash, fork_kernel

__all__ = ["Kernel", "WarmProvisioner", "socket_folder"]

_log = logging.getLogger(__name__)
_POLL_SECONDS = 0.01


class WarmProvisioner(LocalProvisioner):
    """Forks a kernel where that makes no difference, and starts it plainly elsewhere; ends its group with it."""

    warm = Bool(True, config=True, help="Fork kernels where a forked one is like a fresh one.")
    waits = Bool(True, config=True, help="For a zygote that it has just started, instead of a plain start.")
    patience_seconds = Float(PATIENCE_SECONDS, config=True, help="For a fork, before it is started plainly.")
    returncode: int | None = None

    async def launch_kernel(self, cmd: list[str], **kwargs: Any) -> Any:
        """Fork the kernel, or start it."""
        self.returncode = None
        if self.warm and (leash := await self._forked(cmd, **kwargs)):
            self.process = leash  # type: ignore[assignment]  # it is what of a Popen is used here
            self.pid, self.pgid = leash.pid, None  # it signals the group by itself
            self.cwd = kwargs.get("cwd") or os.getcwd()
            return self.connection_info
        return await super().launch_kernel(cmd, **kwargs)

    async def _forked(
        self,
        cmd: list[str],
        *,
        env: dict[str, str] | None = None,
        cwd: str | None = None,
        stdin: Any = None,
        stdout: Any = None,
        stderr: Any = None,
        **others: Any,
    ) -> Leash | None:
        """A forked kernel; None where a plain one is called for, or the zygote fails."""
        env = dict(os.environ if env is None else env)
        cwd = os.path.abspath(cwd or os.curdir)
        streams = [stdin if stdin is not None else subprocess.DEVNULL, stdout, stderr]
        reason = coldness(cmd, env, cwd) or _oddity(cwd, streams, others)
        if reason:
            _log.debug("A plain kernel, not a warm one: %s.", reason)
            return None
        with contextlib.ExitStack() as opened:
            descriptors: list[int] = []
            for number, stream in enumerate(streams):
                if stream == subprocess.DEVNULL:
                    stream = opened.enter_context(open(os.devnull, "r+b"))
                elif stream == subprocess.STDOUT:
                    stream = descriptors[1]
                elif stream is None:
                    stream = number
                descriptors.append(stream if isinstance(stream, int) else stream.fileno())
            try:
                return await fork_kernel(
                    cmd,
                    env={**env, "JPY_PARENT_PID": str(os.getpid())},  # as jupyter_client tells any kernel
                    cwd=cwd,
                    streams=descriptors,
                    waits=self.waits,
                    patience_seconds=self.patience_seconds,
                )
            except ZygoteError as error:
                _log.warning("No warm kernel, a plain one instead: %s.", error)
                return None

    async def poll(self) -> int | None:
        """The exit status, or None while it lives; the rest of its group is ended before it is reaped."""
        if (
            isinstance(self.process, subprocess.Popen)
            and self.process.returncode is None
            and hasattr(os, "waitid")
        ):
            with contextlib.suppress(ChildProcessError, ProcessLookupError):
                if os.waitid(os.P_PID, self.process.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT):
                    os.killpg(self.process.pid, signal.SIGKILL)
        status = await super().poll()
        if self.process is not None:
            self.returncode = status
        return status


def _oddity(cwd: str, streams: list[Any], others: dict[str, Any]) -> str:
    """What the caller asks for that only a plain start can give."""
    if wanted := [
        name for name, value in others.items() if value and name not in ("extra_arguments", "kernel_id")
    ]:
        return f"the caller sets {wanted[0]}"
    if subprocess.PIPE in streams:
        return "the caller wants a pipe"
    if not os.path.isdir(cwd):
        return f"{cwd} is no folder"
    return ""


def socket_folder() -> str:
    """A new folder of our own for a kernel's sockets, whose names may have 107 bytes."""
    folder = tempfile.mkdtemp(prefix="prodkit-")
    if len(os.fsencode(folder)) > 90:
        os.rmdir(folder)
        folder = tempfile.mkdtemp(prefix="prodkit-", dir="/tmp")
    return folder


class Kernel(AsyncKernelManager):
    """One kernel: started on private sockets, and ended with all its processes.

    >>> kernel = Kernel(kernel_name="python3", warm=False)
    >>> kernel.death()
    ''
    """

    warm = Bool(True, config=True, help="Fork it where that makes no difference.")
    client_class = DottedObjectName("prodkit.kernels.clients.KernelClient", config=True)
    client_factory = Type(klass=KernelClient, config=True)
    _put_down = False

    async def start_kernel(self, **settings: Any) -> None:  # type: ignore[override]  # its parent's is not async
        """Start it; takes ``env``, ``cwd``, ``stdin``, ``stdout``, ``stderr`` and ``extra_arguments``.

        What the kernel's process writes to its standard output goes to standard error unless ``stdout`` says otherwise:
        ours is for the command's answer alone. Its history is kept nowhere.
        """
        self._put_down = False
        arguments = list(settings.pop("extra_arguments", None) or [])
        if self.ipykernel and not any("hist_file" in argument for argument in arguments):
            arguments.append("--HistoryManager.hist_file=:memory:")
        if os.name == "posix" and self.transport != "ipc":
            self._use_private_sockets()
        if self.provisioner is None and "kernel_provisioner" not in getattr(self.kernel_spec, "metadata", {}):
            self.kernel_id = self.kernel_id or str(uuid.uuid4())
            self.provisioner = WarmProvisioner(
                kernel_id=self.kernel_id, kernel_spec=self.kernel_spec, parent=self, warm=self.warm
            )
        await super().start_kernel(**{"stdout": 2, "extra_arguments": arguments, **settings})

    def _use_private_sockets(self) -> None:
        """Talk through a folder of its own: no ports to race for, and nobody else can listen in."""
        folder = socket_folder()
        self._remove_folder = weakref.finalize(self, shutil.rmtree, folder, ignore_errors=True)
        self.transport, self.ip, self.connection_file = "ipc", f"{folder}/k", f"{folder}/kernel.json"

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

    async def cleanup_resources(self, restart: bool = False) -> None:  # type: ignore[override]  # as above
        """Remove its sockets and its connection file; nbclient calls this at the end, too."""
        await super().cleanup_resources(restart=restart)
        if not restart and hasattr(self, "_remove_folder"):
            self._remove_folder()

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
