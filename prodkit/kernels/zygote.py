"""A process with the heavy imports done, which forks a kernel for each request.

It is started on demand (see `prodkit.kernels.door`) as ``python -c PREAMBLE FD NAME``, with a listening unix socket,
and ends after ``PRODKIT_WARM`` seconds without a kernel, at SIGTERM, or when its socket is gone. One thread, one
loop, no asyncio: whatever it did besides importing, every kernel would inherit. When a file that it has imported
changes on the disk, it refuses the next request and ends after its last kernel.

A message is one line of JSON. The client sends ``{"argv", "env", "cwd", "umask"}`` together with three descriptors,
and gets ``{"pid"}``, later ``{"status"}`` as of `subprocess.Popen.returncode`; or ``{"refused": reason}``. The
connection is the leash: once the client lets go of it, for whatever reason, the kernel's process group is killed. A
dead kernel stays a zombie until then, so that its pid means nobody else as long as the client may use it. When the
zygote itself is killed, its kernels are killed with it.

What a forked kernel shares with its siblings and a fresh one would not: the seed of `hash`, the layout of its memory,
what stands in `sys.modules` from the start, and what a ``sitecustomize`` did when the zygote started.
"""

from __future__ import annotations

import contextlib
import gc
import json
import os
import select
import signal
import socket
import struct
import sys
import time
import warnings
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from prodkit.kernels.offspring import become_kernel, die_with
from prodkit.kernels.preloads import preload, settle, state, watched

__all__ = ["PREAMBLE", "Zygote", "main", "peer_uid", "received"]

PREAMBLE = (
    "import sys; sys.path[:1] == [''] and sys.path.pop(0); from prodkit.kernels.zygote import main; main()"
)


def received(buffer: bytearray) -> list[dict[str, Any]]:
    """Take the whole messages out of a buffer; what has arrived in part stays."""
    *lines, rest = bytes(buffer).split(b"\n")
    buffer[:] = rest
    return [json.loads(line) for line in lines]


def peer_uid(link: socket.socket) -> int:
    """The user on the other side of a unix socket."""
    _, uid, _ = struct.unpack(
        "3i", link.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize("3i"))
    )
    return int(uid)


@dataclass
class _Client:
    """A connection, what has arrived on it, and the kernel that hangs on it (0 as long as there is none)."""

    link: socket.socket
    buffer: bytearray = field(default_factory=bytearray)
    descriptors: list[int] = field(default_factory=list)
    pid: int = 0
    dead: bool = False
    gone: bool = False

    def say(self, **message: Any) -> None:
        """A client that cannot be told has gone, or will see the end of the connection."""
        with contextlib.suppress(OSError):
            self.link.send(json.dumps(message).encode() + b"\n")

    def drop(self) -> None:
        self.link.close()
        for descriptor in self.descriptors:
            os.close(descriptor)
        self.descriptors = []

    def kill(self) -> None:
        """End the kernel and all of its group. Its pid is still its own: nobody has reaped it."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.pid, signal.SIGKILL)  # not there yet, if the child has not come to its setsid
        with contextlib.suppress(ProcessLookupError):
            os.kill(self.pid, signal.SIGKILL)


class Zygote:
    """The loop: accept, fork, watch, kill, report.

    Args:
        listener: a bound, listening unix socket.
        name: where it is bound, to notice when it is gone and to take it away at the end.
        idle_seconds: how long to wait for the next request when there is no kernel.
        started: the time (`time.time_ns`) before the first import; what was changed since may be half new.
    """

    def __init__(self, listener: socket.socket, name: Path, *, idle_seconds: float, started: int) -> None:
        self.listener, self.name, self.idle_seconds = listener, name, idle_seconds
        self.clients: dict[int, _Client] = {}
        self.place = state(str(name))
        self.retired = self.place is None
        self.terminated = False
        self.watched = watched()
        if any(seen and seen[0] > started for seen in self.watched.values()):
            self.watched[sys.executable] = None  # as good as changed: the first request will be refused
        self.waking, self.waker = os.pipe()
        for end in (self.waking, self.waker):
            os.set_blocking(end, False)
        listener.setblocking(False)
        self.handlers = {
            number: signal.signal(number, self._note) for number in (signal.SIGCHLD, signal.SIGTERM)
        }
        signal.set_wakeup_fd(self.waker)
        self.poll = select.poll()
        for descriptor in (listener.fileno(), self.waking):
            self.poll.register(descriptor, select.POLLIN)

    def _note(self, number: int, _frame: object) -> None:
        self.terminated = self.terminated or number == signal.SIGTERM

    def serve(self) -> dict[str, Any] | None:
        """Serve until the end, and then return None; in a child, return at once what it is to become."""
        quiet_since = time.monotonic()
        while not self.terminated:
            last_look = self.retired and not self.clients
            ready = self.poll.poll(0 if last_look else 1000 * min(5, self.idle_seconds / 4))
            for descriptor, _ in ready:
                if (request := self._attend(descriptor)) is not None:
                    return request
            self._bury()
            if ready or self.clients:
                quiet_since = time.monotonic()
            elif last_look:
                break
            elif time.monotonic() - quiet_since >= self.idle_seconds or state(str(self.name)) != self.place:
                self.retire()
        self.retire()
        for client in self.clients.values():
            if client.pid:
                client.kill()
        return None

    def retire(self) -> None:
        """Be found by nobody from now on; whoever has connected is still served, and then it ends."""
        if not self.retired:
            self.retired = True
            with contextlib.suppress(OSError):
                if state(str(self.name)) == self.place:  # and not that of a successor
                    self.name.unlink()
                    self.name.with_suffix(".log").unlink()

    def _attend(self, descriptor: int) -> dict[str, Any] | None:
        if descriptor == self.waking:
            with contextlib.suppress(BlockingIOError):
                os.read(self.waking, 4096)
        elif descriptor == self.listener.fileno():
            self._accept()
        elif descriptor in self.clients:
            return self._hear(self.clients[descriptor])
        return None

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            link, _ = self.listener.accept()
            if peer_uid(link) != os.getuid():
                link.close()
                return
            link.setblocking(False)
            self.clients[link.fileno()] = _Client(link)
            self.poll.register(link, select.POLLIN)

    def _hear(self, client: _Client) -> dict[str, Any] | None:
        try:
            data, descriptors, *_ = socket.recv_fds(client.link, 1 << 16, 3)
        except BlockingIOError:
            return None
        except OSError:
            data, descriptors = b"", []
        client.descriptors += descriptors
        client.buffer += data
        requests = received(client.buffer) if data else []
        if not data:  # it has let go
            self.poll.unregister(client.link)
            client.gone = True
            if client.pid and not client.dead:
                client.kill()
        elif requests and not client.pid and len(client.descriptors) == 3:
            return self._fork(client, requests[0])
        return None

    def _fork(self, client: _Client, request: dict[str, Any]) -> dict[str, Any] | None:
        changed = next((file for file, seen in self.watched.items() if state(file) != seen), None)
        if changed:
            self.retire()
            client.say(refused=f"{changed} has changed")
            return None
        parent = os.getpid()
        try:
            with warnings.catch_warnings(
                action="ignore"
            ):  # of threads: there are none that matter, see `main`
                client.pid = os.fork()
        except OSError as error:
            client.say(refused=f"cannot fork: {error}")
            return None
        if client.pid == 0:
            die_with(parent)
            self._leave(client)
            return {**request, "descriptors": client.descriptors}
        for descriptor in client.descriptors:
            os.close(descriptor)
        client.descriptors = []
        client.say(pid=client.pid)
        return None

    def _bury(self) -> None:
        """Tell of each death, end what is left of its group, and reap it once its client has let go."""
        for number, client in list(self.clients.items()):
            if client.pid and not client.dead:
                found = os.waitid(os.P_PID, client.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT)
                if found is not None:
                    client.kill()
                    client.dead = True
                    client.say(status=found.si_status * (1 if found.si_code == os.CLD_EXITED else -1))
            if client.gone and (client.dead or not client.pid):
                if client.pid:
                    os.waitpid(client.pid, 0)
                del self.clients[number]
                client.drop()

    def _leave(self, own: _Client) -> None:
        """In a child: drop all that is the zygote's, above all the other kernels' leashes."""
        signal.set_wakeup_fd(-1)
        for number, handler in self.handlers.items():
            signal.signal(number, handler)
        for client in self.clients.values():
            if client is own:
                client.link.close()
            else:
                client.drop()
        self.listener.close()
        os.close(self.waking)
        os.close(self.waker)


def main() -> None:
    """Be the zygote; or, in each child that returns from it, a kernel."""
    started, descriptor, name = time.time_ns(), int(sys.argv[1]), Path(sys.argv[2])
    if os.fork():
        os._exit(0)  # whoever started this waits for no more than that, and is nobody's parent
    gc.disable()
    variables = preload()
    settle()
    idle_seconds = float(os.environ["PRODKIT_WARM"])
    zygote = Zygote(socket.socket(fileno=descriptor), name, idle_seconds=idle_seconds, started=started)
    request = zygote.serve()
    if request is not None:
        become_kernel({**request, "env": {**variables, **request["env"]}})
