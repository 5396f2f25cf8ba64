"""A call with a deadline: whoever waits for it goes on in time, whether or not it comes back."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Generic, TypeVar

__all__ = ["Calls", "LateError", "ShedError"]

T = TypeVar("T")


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
        except BaseException as error:  # whoever waits is told
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
