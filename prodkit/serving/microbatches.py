"""Micro-batches: requests that arrive while the model is busy are put to it together, next."""

from __future__ import annotations

import asyncio
import time
from collections import deque
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import accumulate, pairwise
from typing import Any

import pandas as pd

from prodkit.errors import RequestError
from prodkit.scoring.guard import Answers, Guard, Route

__all__ = ["Batches"]


@dataclass
class _Waiting:
    rows: list[Any] | pd.DataFrame
    route: Route
    arrived: float
    done: asyncio.Future[Answers]


class Batches:
    """A bounded queue before the guard, which is asked in one other thread so that the event loop goes on.

    A request that finds the model free is put to it at once, and those that come meanwhile are the next batch. After a
    batch of several requests as many are waited for, for a quarter of the time that it took at most: clients that
    ask again would otherwise come back one batch late, and batches be half as large. All of a batch have the same
    route, so a change of champion never falls into one.

    Args:
        guard: that answers.
        queue_rows: rows that may wait.
        batch_rows: rows put to it at once; a request of more is a batch of its own.
        deadline_seconds: from the arrival of a request; what is left of it is the guard's.
    """

    def __init__(self, guard: Guard, *, queue_rows: int, batch_rows: int, deadline_seconds: float) -> None:
        self._guard, self._queue_rows, self._batch_rows = guard, queue_rows, batch_rows
        self._deadline = deadline_seconds
        self._waiting: deque[_Waiting] = deque()
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="prodkit-batches")
        self._worker: asyncio.Task[None] | None = None
        self._last, self._took, self._ended = 0, 0.0, 0.0  # batch: requests, seconds, and when it was over
        self.rows = 0  # that wait

    async def answers(self, rows: list[Any] | pd.DataFrame, route: Route) -> Answers:
        """The answers to the rows of a request.

        Raises:
            RequestError: 503, the queue is full.
        """
        if self.rows and self.rows + len(rows) > self._queue_rows:
            rule, fix = f"must not find {self._queue_rows} rows waiting", "Try again in a second."
            raise RequestError.of(503, "queue", rule=rule, value=self.rows, fix=fix)
        done: asyncio.Future[Answers] = asyncio.get_running_loop().create_future()
        self._waiting.append(_Waiting(rows, route, time.monotonic(), done))
        self.rows += len(rows)
        if self._worker is None or self._worker.done():
            self._worker = asyncio.create_task(self._work())
        return await done

    async def _work(self) -> None:
        while self._waiting:
            await self._gather()
            batch, began = self._next(), time.monotonic()
            try:
                found = await asyncio.get_running_loop().run_in_executor(self._thread, self._ask, batch)
            except Exception as error:
                for each in batch:
                    if not each.done.done():
                        each.done.set_exception(error)
                continue
            finally:
                self._ended = time.monotonic()
                self._last, self._took = len(batch), self._ended - began
            for each, answers in zip(batch, found, strict=True):
                if not each.done.done():  # its client may have gone
                    each.done.set_result(answers)

    async def _gather(self) -> None:
        """Wait for those that the last batch answered, if they are likely to ask again."""
        until = self._ended + self._took / 4
        while self._last > 1 and len(self._waiting) < self._last and time.monotonic() < until:
            await asyncio.sleep(self._took / 32)

    def _next(self) -> list[_Waiting]:
        batch = [self._waiting.popleft()]
        rows = len(batch[0].rows)
        while self._waiting and isinstance(batch[0].rows, list):
            following = self._waiting[0]
            fits = isinstance(following.rows, list) and rows + len(following.rows) <= self._batch_rows
            if not fits or following.route is not batch[0].route:
                break
            batch.append(self._waiting.popleft())
            rows += len(following.rows)
        self.rows -= rows
        return batch

    def _ask(self, batch: list[_Waiting]) -> list[Answers]:
        left = batch[0].arrived + self._deadline - time.monotonic()
        rows: Any = batch[0].rows
        if isinstance(rows, list):
            rows = [row for each in batch for row in each.rows]
        answers = self._guard.answer(rows, route=batch[0].route, seconds=left)
        ends = list(accumulate(len(each.rows) for each in batch))
        return [answers[begin:end] for begin, end in pairwise([0, *ends])]

    def close(self) -> None:
        """Let the thread end."""
        self._thread.shutdown(wait=False)
