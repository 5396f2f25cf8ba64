"""A circuit breaker: a model that fails or dawdles is left in peace for a while, then asked once."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass

__all__ = ["Breaker", "Limits"]


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
    """Counts how calls went, and says whether the next one may be made.

    It is asked before a call and told after it, and holds its lock for neither longer than it takes to count: no call
    waits for another. A call that began before the breaker opened, and ends after, changes nothing any more.

    >>> breaker = Breaker(Limits(least_calls=2))
    >>> for _ in range(2):
    ...     breaker.told(breaker.ticket(), failed=True, seconds=0.01)
    >>> breaker.ticket() is None, breaker.why
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

    def ticket(self) -> int | None:
        """What to hand to :meth:`told` after a call that may be made now; None if none may."""
        with self._lock:
            if self._opened is None:
                return self._epoch
            if self._probing or self._clock() - self._opened < self.limits.open_seconds:
                return None
            self._probing = True
            self._epoch += 1
            return self._epoch

    def told(self, ticket: int, *, failed: bool, seconds: float) -> None:
        """Count a call.

        Args:
            ticket: that it was made with.
            failed: the model gave no answer.
            seconds: how long it took.
        """
        slow = seconds > self.limits.slow_seconds
        with self._lock:
            if ticket != self._epoch:
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
