"""What ends a run before its last cell: signals to whoever runs it, and limits of time."""

from __future__ import annotations

import math
import signal
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from types import FrameType
from typing import NoReturn

from prodkit.errors import ParameterError

__all__ = ["Limits", "Stop", "heeding_signals", "hurried", "leave", "signal_received"]

_HEEDED = [signal.SIGINT, signal.SIGTERM, *([signal.SIGHUP] if hasattr(signal, "SIGHUP") else [])]


_ECHO_SECONDS = 0.3  # wrappers pass a signal on that the whole group has had already


@dataclass(frozen=True)
class Limits:
    """How long things may take, in seconds.

    Attributes:
        cell_seconds: one cell.
        notebook_seconds: all cells of a notebook together.
        start_seconds: until a kernel answers.
        grace_seconds: what a cell is given to end after it was interrupted, before its kernel is killed.

    Raises:
        ParameterError: one of them is not a positive number, or without end.
    """

    cell_seconds: float = 3600.0
    notebook_seconds: float = 6 * 3600.0
    start_seconds: float = 60.0
    grace_seconds: float = 5.0

    def __post_init__(self) -> None:
        for name, value in vars(self).items():
            if not 0 < value < math.inf:
                raise ParameterError(name, rule="must be a positive number of seconds", value=value)


@dataclass(frozen=True)
class Stop:
    """Why a run ended before its last cell.

    Attributes:
        status: of the run: ``failed``, ``interrupted``, or ``succeeded`` where a cell ended it by ``sys.exit()``.
        cell: of the cell that ran then: ``failed``, ``interrupted`` or ``completed``.
        sentence: for people.
    """

    status: str
    cell: str
    sentence: str


@dataclass
class _Heard:
    """The signals that have come; one for the process, since signals go to processes."""

    listeners: int = 0
    number: int = 0
    times: int = 0
    latest: float = float("-inf")


_heard = _Heard()


def signal_received() -> int:
    """The signal that has asked this process to stop since :func:`heeding_signals` began; 0 if none has."""
    return _heard.number


def hurried() -> bool:
    """Whether it was asked more than once: then nothing is waited for."""
    return _heard.times > 1


def _note(number: int, frame: FrameType | None) -> None:
    _heard.number = _heard.number or number
    if time.monotonic() - _heard.latest > _ECHO_SECONDS:
        _heard.times += 1
    _heard.latest = time.monotonic()
    if _heard.times > 3:  # whoever asks four times is not being heard: something hangs
        leave(number)


@contextmanager
def heeding_signals() -> Iterator[None]:
    """Let SIGINT, SIGTERM and SIGHUP be noted, rather than end the process, until what runs has been saved.

    The outermost block counts; one in another thread than the main one relies on a block there.
    """
    if threading.current_thread() is not threading.main_thread() or _heard.listeners:
        yield
        return
    _heard.listeners, _heard.number, _heard.times, _heard.latest = 1, 0, 0, float("-inf")
    ignored = {each for each in _HEEDED if signal.getsignal(each) is signal.SIG_IGN}  # as under nohup
    before = {each: signal.signal(each, _note) for each in _HEEDED if each not in ignored}
    try:
        yield
    finally:
        for each, handler in before.items():
            signal.signal(each, handler)
        _heard.listeners = 0


def leave(number: int) -> NoReturn:
    """End this process as one that a signal has ended: exit status 128 + its number."""
    sys.exit(128 + number)
