"""Who does which work: a run's folder has one runner, who is known to be alive or dead."""

from __future__ import annotations

import os
import shutil
import socket
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from prodkit.errors import RunError
from prodkit.runs.account import kept
from prodkit.runs.stops import leave, signal_received

try:
    import fcntl
except ImportError:  # not POSIX: nobody can be seen to be alive, so that work may be done twice
    fcntl = None  # type: ignore[assignment]

__all__ = ["Claim", "abandoned", "claim"]

_MARK = ".running"
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


def claim(
    stem: str, runs: Path, *, force: bool = False, waits: Callable[[str], None] = print
) -> Claim | Path | None:
    """Take the next attempt at some work, or give the folder in which it was done.

    Whoever finds the work being done by another process waits for it. If that one fails, nobody knows what it has
    changed: then there is neither folder nor claim, and the work has to be looked at anew.

    Args:
        stem: the name of the work; attempts after the first have a number.
        runs: folder of all runs.
        force: do it again though it was done.
        waits: told once, by whom it is being done.

    Raises:
        RunError: too many attempts.
    """
    runs.mkdir(parents=True, exist_ok=True)
    for number in range(1, _ATTEMPTS + 1):
        folder = runs / (stem if number == 1 else f"{stem}-{number}")
        if not folder.exists() and (mine := _take(folder)):
            return mine
        waited = _wait(folder, waits)
        if kept(folder).get("status") == "succeeded" and not force:
            return folder
        if waited:
            return None
    raise RunError(stem, rule="has been tried too often", value=_ATTEMPTS)


def _take(folder: Path) -> Claim | None:
    """Make the folder with our mark in it, in one step; None when somebody else was faster."""
    draft = folder.with_name(f".{folder.name}.{uuid.uuid4().hex}")
    draft.mkdir()
    handle = os.open(draft / _MARK, os.O_RDWR | os.O_CREAT, 0o644)
    try:
        _lock(handle)
        os.write(handle, f"process {os.getpid()} on {socket.gethostname()}".encode())
        os.rename(draft, folder)
    except OSError:
        os.close(handle)
        shutil.rmtree(draft, ignore_errors=True)
        if folder.exists():
            return None
        raise
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
    told = False
    while owner := _owner(folder):
        if signal_received():
            leave(signal_received())
        if not told:
            waits(f"{folder.name} is being run by {owner}; waiting for it")
            told = True
        time.sleep(_WAIT_SECONDS)
    return told


def abandoned(runs: Path) -> Iterator[Claim]:
    """The runs whose runner has died, each claimed so that one process alone settles it."""
    with suppress(FileNotFoundError):
        for entry in sorted(os.scandir(runs), key=lambda each: each.name):
            folder = Path(entry.path)
            if entry.name.startswith(".") or not (folder / _MARK).exists():
                continue
            with suppress(FileNotFoundError):
                handle = os.open(folder / _MARK, os.O_RDWR)
                if _lock(handle):
                    yield Claim(folder, handle)
                else:
                    os.close(handle)
