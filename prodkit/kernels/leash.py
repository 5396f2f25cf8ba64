"""A kernel forked by a zygote, held like a process of one's own: letting go of it ends it."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import json
import os
import select
import signal
import socket
import subprocess
import time
import weakref
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import IO, Any

from prodkit.kernels.door import PATIENCE_SECONDS, Door, ZygoteError, door, reach
from prodkit.kernels.zygote import received

__all__ = ["Leash", "fork_kernel"]

_ATTEMPTS = 3
_FORGOTTEN_SECONDS = 1.0


async def fork_kernel(
    command: Sequence[str],
    *,
    env: Mapping[str, str],
    cwd: str,
    streams: Sequence[int],
    waits: bool = True,
    patience_seconds: float = PATIENCE_SECONDS,
) -> Leash | None:
    """Have the zygote of this habitat fork a kernel; start the zygote if need be.

    Gives None if it was started just now and is not waited for: a plain kernel is there before it has imported all.

    Args:
        command: of a plain kernel, ``[python, "-m", "ipykernel_launcher", ...]``; see `coldness` for which will do.
        env: its environment.
        cwd: its working directory.
        streams: descriptors of its standard input, output and error.
        waits: for a zygote that it has just started.
        patience_seconds: for the zygote to import and answer.

    Raises:
        ZygoteError: within that time no kernel was forked.
    """
    arguments = list(command[list(command).index("ipykernel_launcher") + 1 :])
    request = {"argv": arguments, "env": dict(env), "cwd": cwd, "umask": _umask()}
    with door(env) as there:
        try:
            async with asyncio.timeout(patience_seconds):
                return await _forked(there, env, command, request, streams, waits=waits)
        except TimeoutError as error:
            there.remove()  # so that nobody else waits for it: it ends when it wakes up and sees
            raise ZygoteError(f"it did not answer within {patience_seconds:g} s") from error


async def _forked(
    there: Door,
    env: Mapping[str, str],
    command: Sequence[str],
    request: dict[str, Any],
    streams: Sequence[int],
    *,
    waits: bool,
) -> Leash | None:
    """Ask the zygote behind a door, and a second one if the first is out of date, or was killed just now."""
    attempts = 0
    while True:
        link, fresh = await reach(there, env)
        attempts += 1
        if fresh and not waits:
            link.close()
            return None
        try:
            return Leash(link, await _ask(link, request, streams), command)
        except BaseException as error:
            link.close()
            if not isinstance(error, OSError | ValueError | ZygoteError):
                raise
            if fresh:
                there.remove()
            if fresh or attempts == _ATTEMPTS:
                reason = str(error) if isinstance(error, ZygoteError) else "it has hung up"
                raise ZygoteError(f"{reason} {there.log()}".strip()) from error


async def _ask(link: socket.socket, request: dict[str, Any], streams: Sequence[int]) -> int:
    """Send a request, and wait for the pid; raises ZygoteError or OSError if none comes."""
    loop = asyncio.get_running_loop()
    data = json.dumps(request).encode() + b"\n"
    sent = socket.send_fds(link, [data], list(streams))
    await loop.sock_sendall(link, data[sent:])
    buffer = bytearray()
    while not (answers := received(buffer)):
        if not (data := await loop.sock_recv(link, 1 << 16)):
            raise ZygoteError("it has hung up")
        buffer += data
    if "pid" not in answers[0]:
        raise ZygoteError(answers[0].get("refused", "it does not say why"))
    return int(answers[0]["pid"])


def _umask() -> int:
    """The umask, without setting another for a moment: other threads might create a file in it."""
    lines = Path("/proc/self/status").read_text(errors="replace").splitlines()
    return int(next(line for line in lines if line.startswith("Umask:")).split()[1], 8)


_held: weakref.WeakSet[Leash] = weakref.WeakSet()


class Leash:
    """The part of `subprocess.Popen` that a kernel provisioner uses, for a kernel that a zygote has forked.

    Args:
        link: the connection over which it was forked. While it is open the kernel's pid is nobody else's.
        pid: the kernel's process id, and its group's.
        args: the command that a plain kernel would have had.
    """

    stdin: IO[bytes] | None = None
    stdout: IO[bytes] | None = None
    stderr: IO[bytes] | None = None

    def __init__(self, link: socket.socket, pid: int, args: Sequence[str]) -> None:
        self.link, self.pid, self.args = link, pid, args
        self.returncode: int | None = None
        self._buffer = bytearray()
        self._zombie_since = float("inf")
        _watch_forks()
        _held.add(self)

    def poll(self) -> int | None:
        """The exit status, negative for a signal, or None as long as the kernel lives."""
        while self.returncode is None:
            try:
                data = self.link.recv(4096)
            except BlockingIOError:
                if not self._is_forgotten():
                    break
                data = b""
            except OSError:
                data = b""
            self._buffer += data
            if told := [answer for answer in received(self._buffer) if "status" in answer]:
                self._end(told[0]["status"])
            elif (
                not data
            ):  # the zygote is gone or hangs, and its kernel is dead; what that has started may not be
                self._signal(signal.SIGKILL)
                self._end(-signal.SIGKILL)
        return self.returncode

    def _is_forgotten(self) -> bool:
        """Whether the kernel has been dead for a while and its zygote does not say so: it is stopped, or hangs."""
        try:
            state = Path(f"/proc/{self.pid}/stat").read_text(errors="replace").rpartition(")")[2].split()[0]
        except OSError:
            state = "Z"
        if state not in "ZX":
            return False
        self._zombie_since = min(self._zombie_since, time.monotonic())
        return time.monotonic() - self._zombie_since > _FORGOTTEN_SECONDS

    def _end(self, status: int) -> None:
        self.returncode = status
        self.link.close()
        _held.discard(self)

    def wait(self, timeout: float | None = None) -> int:
        """Wait for the end; raises subprocess.TimeoutExpired."""
        deadline = None if timeout is None else time.monotonic() + timeout
        while (status := self.poll()) is None:
            left = None if deadline is None else deadline - time.monotonic()
            if left is not None and left <= 0:
                raise subprocess.TimeoutExpired(list(self.args), timeout or 0)
            select.select([self.link], [], [], left)
        return status

    def send_signal(self, number: int) -> None:
        """Send a signal to the kernel and all of its process group, if it lives."""
        if self.poll() is None:
            self._signal(number)

    def _signal(self, number: int) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.pid, number)

    def terminate(self) -> None:
        """Send SIGTERM to the group."""
        self.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        """Send SIGKILL to the group."""
        self.send_signal(signal.SIGKILL)


@functools.cache
def _watch_forks() -> None:
    os.register_at_fork(after_in_child=_let_go)


def _let_go() -> None:
    """In a forked child of this process: a kernel hangs on its own parent alone."""
    for leash in list(_held):
        leash.link.close()
