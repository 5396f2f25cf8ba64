"""Whose a folder is: that of a run, or one for temporary files, has one owner, who is known to be alive or dead.

The owner holds a lock on a file in the folder; the machine lets go of it when the owner ends, however that comes.
"""

from __future__ import annotations

import os
import shutil
import socket
import tempfile
import time
import uuid
from collections.abc import Callable, Container, Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from prodkit.errors import RunError
from prodkit.runs.record import read_record
from prodkit.runs.stops import leave, signal_received

try:
    import fcntl
except ImportError:  # not POSIX: nobody can be seen to be alive, so that work may be done twice
    fcntl = None  # type: ignore[assignment]

__all__ = [
    "Claim",
    "abandoned",
    "at_work",
    "claim",
    "clear",
    "nobody_at_work",
    "scratch_folder",
    "set_aside",
]

_MARK = ".running"
_WORK = ".at-work"
_SCRATCH = "prodkit-run-"
_ATTEMPTS = 9_999
_WAIT_SECONDS = 0.2


@dataclass
class Claim:
    """A run's folder that is ours until it is released, or this process dies.

    Attributes:
        folder: where the run leaves its results; its name is the run's id.
    """

    folder: Path
    _handle: int

    def release(self) -> None:
        """Say that nobody works in the folder any more."""
        (self.folder / _MARK).unlink(missing_ok=True)
        os.close(self._handle)

    def remove(self) -> None:
        """Remove the folder, the mark last: where this process is killed, somebody else finds it and goes on."""
        for path in self.folder.iterdir():
            if path.is_dir() and not path.is_symlink():
                shutil.rmtree(path, ignore_errors=True)
            elif path.name != _MARK:
                with suppress(OSError):
                    path.unlink()
        self.release()
        with suppress(OSError):  # something in it could not be removed
            self.folder.rmdir()


def claim(
    stem: str,
    runs: Path,
    *,
    force: bool = False,
    removed: Container[str] = (),
    waits: Callable[[str], None] = print,
) -> Claim | Path | None:
    """Take the next attempt at some work, or give the folder in which it was done.

    Whoever finds the work being done by another process waits for it. If that one fails, nobody knows what it has
    changed: then there is neither folder nor claim, and the work has to be looked at anew.

    Args:
        stem: the name of the work; attempts after the first have a number.
        runs: folder of all runs.
        force: do it again though it was done.
        removed: names of attempts whose folders were removed: they are not given again.
        waits: told once, by whom it is being done.

    Raises:
        RunError: too many attempts.
    """
    runs.mkdir(parents=True, exist_ok=True)
    for number in range(1, _ATTEMPTS + 1):
        folder = runs / (stem if number == 1 else f"{stem}-{number}")
        if not folder.exists():
            if folder.name in removed:
                continue
            if mine := _take(folder):
                return mine
        waited = _wait(folder, waits)
        if read_record(folder).get("status") == "succeeded" and not force:
            return folder
        if waited:
            return None
    raise RunError(stem, rule="has been tried too often", value=_ATTEMPTS)


def _take(folder: Path, *, mode: int = 0o777) -> Claim | None:
    """Make the folder with our mark in it, in one step; None when somebody else was faster."""
    while True:
        draft = folder.with_name(f".{folder.name}.{uuid.uuid4().hex}")
        draft.mkdir(mode)
        with suppress(FileNotFoundError):  # before it was locked, somebody took it for abandoned: once more
            handle = os.open(draft / _MARK, os.O_RDWR | os.O_CREAT, 0o644)
            try:
                if not _lock(handle):
                    raise FileNotFoundError(draft)
                os.write(handle, f"process {os.getpid()} on {socket.gethostname()}".encode())
                os.rename(draft, folder)
            except OSError as error:
                os.close(handle)
                shutil.rmtree(draft, ignore_errors=True)
                if folder.exists():
                    return None
                raise error
            return Claim(folder, handle)


def _lock(handle: int) -> bool:
    """Lock a file for this process; False when another one has it. The lock ends with the process."""
    if fcntl is not None:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
    return True


def _owner(folder: Path) -> str:
    """Who works in the folder just now; empty if nobody does."""
    try:
        handle = os.open(folder / _MARK, os.O_RDWR)
    except FileNotFoundError:
        return ""
    try:
        return "" if _lock(handle) else os.read(handle, 200).decode(errors="replace") or "somebody"
    finally:
        os.close(handle)


def _wait(folder: Path, waits: Callable[[str], None]) -> bool:
    """Wait until nobody works in the folder; whether somebody did."""
    waited = False
    while owner := _owner(folder):
        if signal_received():
            leave(signal_received())
        if not waited:
            waits(f"{folder.name} is being run by {owner}; waiting for it")
            waited = True
        time.sleep(_WAIT_SECONDS)
    return waited


def abandoned(folders: Iterable[Path]) -> Iterator[Claim]:
    """Those folders whose owner has died, each claimed so that one process alone settles it."""
    for folder in sorted(folders):
        with suppress(OSError):  # it has none, it has just gone, or it is another user's
            handle = os.open(folder / _MARK, os.O_RDWR)
            if _lock(handle):
                yield Claim(folder, handle)
            else:
                os.close(handle)


def set_aside(folder: Path) -> Claim | None:
    """Take the folder of a run that has ended out of sight, in one step, for whoever removes it.

    Returns:
        The folder under a name that :func:`clear` looks for, lest it stays where this process is killed; None when
        it is gone, or somebody works in it.
    """
    with suppress(FileNotFoundError):
        handle = os.open(folder / _MARK, os.O_RDWR | os.O_CREAT, 0o644)
        if _lock(handle):
            try:
                return Claim(folder.rename(folder.with_name(f".{folder.name}.{uuid.uuid4().hex}")), handle)
            except OSError:
                os.close(handle)
                raise
        os.close(handle)
    return None


@contextmanager
def at_work(outputs: Path) -> Iterator[None]:
    """Let nobody remove what a notebook may be reading; any number of processes may be at work."""
    try:
        handle = os.open(outputs / _WORK, os.O_RDONLY | os.O_CREAT, 0o644)
    except OSError:  # where we may not write, we can only read
        yield
        return
    try:
        if fcntl is not None:
            fcntl.flock(handle, fcntl.LOCK_SH)
        yield
    finally:
        os.close(handle)


@contextmanager
def nobody_at_work(outputs: Path) -> Iterator[bool]:
    """Whether no notebook runs; while the block lasts, none begins."""
    handle = os.open(outputs / _WORK, os.O_RDONLY | os.O_CREAT, 0o644)
    try:
        yield _lock(handle)
    finally:
        os.close(handle)


def clear(folder: Path, pattern: str) -> None:
    """Remove the folders of this pattern whose owner was killed; one that has let go has taken its mark away."""
    for draft in folder.glob(pattern):
        with suppress(OSError):  # it is not empty
            draft.rmdir()
    for each in abandoned(folder.glob(pattern)):
        each.remove()


@contextmanager
def scratch_folder() -> Iterator[Path]:
    """A folder of this process alone, for temporary files and for sockets, whose names may have 107 bytes.

    Where this process is killed, the next one that asks for a folder removes it.
    """
    place = Path(tempfile.gettempdir())
    if len(os.fsencode(place)) > 60 and Path("/tmp").is_dir():
        place = Path("/tmp")
    clear(place, f".{_SCRATCH}*")
    clear(place, f"{_SCRATCH}*")
    taken = _take(place / f"{_SCRATCH}{uuid.uuid4().hex[:12]}", mode=0o700)
    if taken is None:
        raise FileExistsError(place)
    try:
        yield taken.folder
    finally:
        taken.remove()
