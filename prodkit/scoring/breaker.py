"""What keeps a bad model away from requests: a circuit breaker, and calls with a deadline."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Generic, TypeVar

__all__ = ["Breaker", "Calls", "LateError", "Limits", "ShedError"]

T = TypeVar("T")


@dataclass(frozen=True)
class Limits:
    """When a breaker opens, and for how long.

    Attributes:
        error_share: of the calls in the window that failed.
        slow_share: of the calls in the window that took longer than
        slow_seconds: which a call should not take.
        least_calls: fewer calls in the window say nothing.
        window_calls: the window holds so many calls at most,
        window_seconds: and none that is older.
        open_seconds: how long no call is let through, before one is tried.
    """

    error_share: float = 0.5
    slow_share: float = 0.5
    slow_seconds: float = 0.25
    least_calls: int = 20
    window_calls: int = 100
    window_seconds: float = 30.0
    open_seconds: float = 5.0


class Breaker:
    """A circuit breaker: counts how calls went, and decides whether the next one may be made.

    A model that fails or is slow is left alone for a while; then one call is tried. The lock is held only to count, so
    no call waits for another. A call that began before the breaker opened, and ends after, changes nothing.

    >>> breaker = Breaker(Limits(least_calls=2))
    >>> for _ in range(2):
    ...     breaker.record(breaker.permit(), failed=True, seconds=0.01)
    >>> breaker.permit() is None, breaker.why
    (True, '2 of the last 2 calls failed')
    """

    def __init__(self, limits: Limits | None = None, *, clock: Callable[[], float] = time.monotonic) -> None:
        self.limits, self._clock, self._lock = limits or Limits(), clock, threading.Lock()
        self._calls: deque[tuple[float, bool, bool]] = deque()
        self._failed = self._slow = self._epoch = 0
        self._opened: float | None = None
        self._probing = False
        self.why = ""  # it opened; empty when it is closed

    @property
    def state(self) -> str:
        """``closed``, ``open``, or ``probing`` while the one call that is tried is on its way."""
        with self._lock:
            return "closed" if self._opened is None else "probing" if self._probing else "open"

    def permit(self) -> int | None:
        """A number for :meth:`record` after a call that may be made now; None if none may."""
        with self._lock:
            if self._opened is None:
                return self._epoch
            if self._probing or self._clock() - self._opened < self.limits.open_seconds:
                return None
            self._probing = True
            self._epoch += 1
            return self._epoch

    def record(self, permit: int, *, failed: bool, seconds: float) -> None:
        """Count a call.

        Args:
            permit: that it was made with.
            failed: the model gave no answer.
            seconds: how long it took.
        """
        slow = seconds > self.limits.slow_seconds
        with self._lock:
            if permit != self._epoch:
                return
            now = self._clock()
            if self._opened is not None:
                self._after_probe(good=not (failed or slow), now=now)
                return
            self._calls.append((now, failed, slow))
            self._failed += failed
            self._slow += slow
            self._forget(now)
            self._judge(now)

    def _after_probe(self, *, good: bool, now: float) -> None:
        self._probing = False
        self._opened = None if good else now
        self.why = "" if good else self.why
        self._epoch += 1

    def _forget(self, now: float) -> None:
        calls, limits = self._calls, self.limits
        while len(calls) > limits.window_calls or calls[0][0] < now - limits.window_seconds:
            _, failed, slow = calls.popleft()
            self._failed -= failed
            self._slow -= slow

    def _judge(self, now: float) -> None:
        n, limits = len(self._calls), self.limits
        if n < limits.least_calls:
            return
        if self._failed >= limits.error_share * n:
            self.why = f"{self._failed} of the last {n} calls failed"
        elif self._slow >= limits.slow_share * n:
            self.why = f"{self._slow} of the last {n} calls took more than {limits.slow_seconds:g} seconds"
        else:
            return
        self._opened, self._epoch = now, self._epoch + 1
        self._calls.clear()
        self._failed = self._slow = 0


class LateError(Exception):
    """The deadline passed first. It stays inside the package."""


class ShedError(Exception):
    """Too many calls have not come back yet. It stays inside the package."""


class _Call(threading.Thread, Generic[T]):
    """One call in a thread of its own, which nobody waits for at the end of the process."""

    def __init__(self, function: Callable[[], T], done: Callable[[], None]) -> None:
        super().__init__(name="prodkit-call", daemon=True)
        self._function, self._done = function, done
        self.value: T | None = None
        self.error: BaseException | None = None

    def run(self) -> None:
        try:
            self.value = self._function()
        except BaseException as error:  # raised again where it is waited for
            self.error = error
        finally:
            self._done()


class Calls:
    """Makes calls that may hang, so many at a time at most. A thread cannot be stopped: a hung call keeps its place.

    Args:
        most: calls on their way, beyond which another is refused at once.
    """

    def __init__(self, most: int) -> None:
        self._places = threading.BoundedSemaphore(most)

    def within(self, seconds: float | None, function: Callable[[], T]) -> T:
        """The result of a call, or what it raised.

        Args:
            seconds: how long to wait; None makes the call here, and waits for as long as it takes.
            function: to call.

        Raises:
            LateError: it has not come back in time.
            ShedError: there is no place.
        """
        if seconds is None:
            return function()
        if seconds <= 0:
            raise LateError
        if not self._places.acquire(blocking=False):
            raise ShedError
        call: _Call[T] = _Call(function, self._places.release)
        try:
            call.start()
        except RuntimeError as error:  # the system gives no more threads
            self._places.release()
            raise ShedError from error
        call.join(seconds)
        if call.is_alive():
            raise LateError
        if call.error is not None:
            raise call.error
        return call.value  # type: ignore[return-value]  # it has ended, and not with an error
