"""Where the zygote of a habitat listens, and how it is started when nobody does.

Sockets lie in ``$XDG_RUNTIME_DIR/prodkit`` if that is this user's, or in ``prodkit-UID`` of the folder for temporary
files: a folder that nobody but this user can enter. Beside each lies a log, for when a zygote cannot be started.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import stat
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from prodkit.kernels.habitat import habitat, keyed_variables, warm_seconds
from prodkit.kernels.zygote import PREAMBLE, peer_uid

__all__ = ["PATIENCE_SECONDS", "Door", "ZygoteError", "door", "reach"]

PATIENCE_SECONDS = 30.0  # importing takes 2 to 3 s on a quiet machine

# A zygote needs these to be a decent process. It gets no others but those of its habitat: it keeps nobody's secrets.
_HARMLESS = ("PATH", "USER", "LOGNAME", "SHELL")
_INLINE = "module://matplotlib_inline.backend_inline"  # what ipykernel sets if nothing else is set


class ZygoteError(Exception):
    """No zygote, or one that does not answer: the message says why. A plain kernel can always be started."""


def _directory() -> Path:
    """The folder of this user's zygotes; raises ZygoteError if it is, or may be, somebody else's."""
    runtime = os.environ.get("XDG_RUNTIME_DIR", "")
    folder = Path(runtime, "prodkit")
    if not _is_own(runtime):  # sudo, for one, leaves the name of another user's
        folder = Path(tempfile.gettempdir(), f"prodkit-{os.getuid()}")
    try:
        folder.mkdir(mode=0o700, exist_ok=True)
        found = folder.lstat()
    except OSError as error:
        raise ZygoteError(f"no folder for its socket: {error}") from error
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.getuid() or found.st_mode & 0o077:
        raise ZygoteError(f"{folder} must be a folder that only this user can enter")
    return folder


def _is_own(folder: str) -> bool:
    try:
        found = os.stat(folder)
    except OSError:
        return False
    return stat.S_ISDIR(found.st_mode) and found.st_uid == os.getuid()


@dataclass(frozen=True)
class Door:
    """Where the zygote of a habitat listens: its folder, held open, and its name."""

    folder: Path
    directory: int
    name: str

    @property
    def path(self) -> str:
        """A path that is short enough for a socket (107 bytes), however long the folder's own is."""
        return f"/proc/self/fd/{self.directory}/{self.name}.sock"

    def remove(self) -> None:
        """Let nobody find the zygote any more; it sees that, and ends when it has no kernels."""
        with contextlib.suppress(FileNotFoundError):
            os.unlink(f"{self.name}.sock", dir_fd=self.directory)

    def log(self) -> str:
        """The last line that the zygote has written, if any."""
        try:
            text = (self.folder / f"{self.name}.log").read_text(errors="replace").strip()
        except OSError:
            return ""
        return text.splitlines()[-1] if text else ""


@contextlib.contextmanager
def door(env: Mapping[str, str]) -> Iterator[Door]:
    """The door of the habitat of this process, for a kernel with this environment.

    Raises:
        ZygoteError: there cannot be one.
    """
    folder = _directory()
    try:
        name = habitat(env)
    except OSError as error:
        raise ZygoteError(f"/proc does not say where this process runs: {error}") from error
    directory = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        yield Door(folder, directory, name)
    finally:
        os.close(directory)


def _connected(door: Door) -> socket.socket | None:
    """A connection to the zygote behind this door; None if there is nobody."""
    link = socket.socket(socket.AF_UNIX)
    link.setblocking(False)
    try:
        link.connect(door.path)
        if peer_uid(link) == os.getuid():
            return link
        reason = "somebody else answers"
    except (FileNotFoundError, ConnectionRefusedError):
        link.close()
        return None
    except OSError as error:
        reason = f"it does not listen: {error}"
    link.close()
    raise ZygoteError(reason)


async def reach(door: Door, env: Mapping[str, str]) -> tuple[socket.socket, bool]:
    """Connect to the zygote of a habitat; start one if there is none, and only one however many ask at once.

    Gives the connection, and whether the zygote was started for it.

    Raises:
        ZygoteError: it cannot be started.
    """
    import fcntl  # not on Windows, where all this is not asked for

    while True:
        if link := _connected(door):
            return link, False
        try:
            fcntl.flock(door.directory, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:  # somebody else is about to start it
            await asyncio.sleep(0.01)
            continue
        try:
            if fresh := (link := _connected(door)) is None:
                await _start(door, env)
                link = _connected(door)
        finally:
            fcntl.flock(door.directory, fcntl.LOCK_UN)
        if link:
            return link, fresh


async def _start(door: Door, env: Mapping[str, str]) -> None:
    """Bind the socket, so that requests queue from now on, and start a zygote that survives this process."""
    door.remove()
    log = os.open(f"{door.name}.log", os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600, dir_fd=door.directory)
    own = {name: env[name] for name in _HARMLESS if name in env} | keyed_variables(env)
    own["PRODKIT_WARM"] = str(warm_seconds(env))
    own["MPLBACKEND"] = own.get("MPLBACKEND") or _INLINE
    try:
        with socket.socket(socket.AF_UNIX) as listener:
            listener.bind(door.path)
            listener.listen(128)
            process = subprocess.Popen(
                [
                    sys.executable,
                    "-c",
                    PREAMBLE,
                    str(listener.fileno()),
                    str(door.folder / f"{door.name}.sock"),
                ],
                env=own,
                cwd="/",
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
                pass_fds=[listener.fileno()],
            )
    except OSError as error:
        raise ZygoteError(f"it cannot be started: {error}") from error
    finally:
        os.close(log)
    try:
        while process.poll() is None:  # it forks, so that it is nobody's child, and ends
            await asyncio.sleep(0.01)
    finally:
        process.kill()
        process.wait()
    if process.returncode:
        raise ZygoteError(f"it cannot be started: {door.log()}")
