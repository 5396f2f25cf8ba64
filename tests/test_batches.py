"""Micro-batches: together what comes together, in order, bounded, and nobody waits on purpose."""

from __future__ import annotations

import asyncio
import threading
import time

import numpy as np
import pandas as pd
import pytest

from prodkit.errors import RequestError
from prodkit.scoring.guard import Answers, Route
from prodkit.serving.microbatches import Batches

STANDING = Route(None)


class Slow:
    """A guard that waits until it may go, and answers each row with itself."""

    def __init__(self):
        self.batches, self.standings, self.left = [], [], []
        self.go, self.pause = threading.Event(), 0.0

    def answer(self, rows, *, route, seconds):
        """Each row is its own prediction; of a table its first column."""
        rows = rows if isinstance(rows, list) else rows.iloc[:, 0].tolist()
        self.go.wait(10)
        time.sleep(self.pause)
        self.batches.append(len(rows))
        self.standings.append(route)
        self.left.append(seconds)
        if "bad" in rows:
            raise RuntimeError("a bug")
        n, nothing = len(rows), np.full(len(rows), "", dtype=object)
        cells = [[row] for row in rows]
        return Answers(
            np.array(rows, dtype=float), np.zeros(n, bool), nothing, np.ones(n, int), nothing, cells
        )


def batches_of(guard, **changes):
    """A queue before it."""
    return Batches(guard, **{"queue_rows": 100, "batch_rows": 8, "deadline_seconds": 1.0} | changes)


async def meeting(batches, guard, first, *others):
    """Let the others come while the first keeps the model busy; all answers, in their order."""
    begun = asyncio.create_task(first)
    while not batches.rows:
        await asyncio.sleep(0)
    while batches.rows:
        await asyncio.sleep(0.001)
    waiting = [asyncio.create_task(other) for other in others]
    await asyncio.sleep(0.01)
    guard.go.set()
    return await asyncio.gather(begun, *waiting)


def test_requests_that_meet_a_busy_model_are_put_to_it_together():
    """The first goes at once and alone, the others as one batch, and each gets its own answers."""
    guard = Slow()

    async def story():
        batches = batches_of(guard)
        found = await meeting(batches, guard, *(batches.answers([i, i + 100], STANDING) for i in range(5)))
        assert [answers.predicted.tolist() for answers in found] == [[i, i + 100] for i in range(5)]
        assert [answers.cells for answers in found] == [[[i], [i + 100]] for i in range(5)]
        assert batches.rows == 0
        batches.close()

    asyncio.run(story())
    assert guard.batches == [2, 8]


def test_a_batch_is_no_larger_than_allowed_but_for_a_single_request():
    """A request of many rows goes alone; small ones fill up to the limit."""
    guard = Slow()

    async def story():
        batches = batches_of(guard)
        await meeting(batches, guard, *(batches.answers([1.0] * n, STANDING) for n in (1, 5, 5, 30, 2, 2)))
        batches.close()

    asyncio.run(story())
    assert guard.batches == [1, 5, 5, 30, 4]


def test_a_table_goes_by_itself():
    """Arrow tables are not mixed with rows."""
    guard = Slow()

    async def story():
        batches = batches_of(guard)
        found = await meeting(
            batches,
            guard,
            batches.answers([1.0], STANDING),
            batches.answers(pd.DataFrame({"x": [5.0, 6.0]}), STANDING),
            batches.answers([2.0], STANDING),
        )
        assert [answers.predicted.tolist() for answers in found] == [[1.0], [5.0, 6.0], [2.0]]
        batches.close()

    asyncio.run(story())
    assert guard.batches == [1, 2, 1]


def test_a_change_of_champion_never_falls_into_a_batch():
    """Requests of before and after are put to their own route."""
    guard, after = Slow(), Route(None, generation=1)

    async def story():
        batches = batches_of(guard)
        standings = (STANDING, STANDING, after, after, STANDING)
        await meeting(batches, guard, *(batches.answers([1.0], each) for each in standings))
        batches.close()

    asyncio.run(story())
    assert [route.generation for route in guard.standings] == [0, 0, 1, 0]
    assert guard.batches == [1, 1, 2, 1]


def test_a_full_queue_refuses_and_goes_on():
    """More rows than may wait are refused at once with 503; those that wait are answered."""
    guard = Slow()

    async def story():
        batches = batches_of(guard, queue_rows=3)
        asked = [asyncio.create_task(batches.answers([0.0], STANDING))]
        await asyncio.sleep(0.05)
        asked += [asyncio.create_task(batches.answers([float(i)], STANDING)) for i in range(1, 4)]
        await asyncio.sleep(0.05)
        assert batches.rows == 3
        with pytest.raises(RequestError, match="queue must not find 3 rows waiting") as caught:
            await batches.answers([9.0], STANDING)
        assert caught.value.status == 503
        guard.go.set()
        assert [(await each).predicted.tolist() for each in asked] == [[0.0], [1.0], [2.0], [3.0]]
        assert (await batches.answers([9.0], STANDING)).predicted.tolist() == [9.0]
        batches.close()

    asyncio.run(story())


def test_the_deadline_runs_from_the_arrival():
    """Who has waited has less time left with the guard."""
    guard = Slow()

    async def story():
        batches = batches_of(guard)
        asked = asyncio.create_task(batches.answers([1.0], STANDING))
        await asyncio.sleep(0.01)
        waits = asyncio.create_task(batches.answers([1.0], STANDING))
        await asyncio.sleep(0.2)
        guard.go.set()
        await asyncio.gather(asked, waits)
        batches.close()

    asyncio.run(story())
    assert guard.left[1] <= 0.81  # of one second, after a fifth of it


def test_a_client_that_goes_away_takes_nobody_with_it():
    """Others of its batch are answered."""
    guard = Slow()

    async def story():
        batches = batches_of(guard)
        asked = [asyncio.create_task(batches.answers([float(i)], STANDING)) for i in range(4)]
        await asyncio.sleep(0.02)
        asked[2].cancel()
        guard.go.set()
        others = await asyncio.gather(asked[0], asked[1], asked[3])
        assert [answers.predicted.tolist() for answers in others] == [[0.0], [1.0], [3.0]]
        batches.close()

    asyncio.run(story())


def test_an_error_reaches_those_who_asked_and_the_queue_goes_on():
    """Even a bug in the guard leaves nobody waiting for ever."""
    guard = Slow()
    guard.go.set()

    async def story():
        batches = batches_of(guard)
        with pytest.raises(RuntimeError, match="a bug"):
            await batches.answers(["bad"], STANDING)
        assert (await batches.answers([1.0], STANDING)).predicted.tolist() == [1.0]
        batches.close()

    asyncio.run(story())


def test_clients_that_ask_again_are_waited_for_for_a_moment():
    """After a batch of four, the next holds the same four, though one of them had been waiting alone."""
    guard = Slow()
    guard.pause = 0.1

    async def client(batches, turns):
        for _ in range(turns):
            await batches.answers([1.0], STANDING)
            await asyncio.sleep(0.003)  # for the answer to be read

    async def story():
        batches = batches_of(guard)
        guard.go.set()
        first = asyncio.create_task(client(batches, 3))
        await asyncio.sleep(0.02)
        await asyncio.gather(first, *(client(batches, 3) for _ in range(3)))
        batches.close()

    asyncio.run(story())
    assert guard.batches[0] == 1
    assert 4 in guard.batches
    assert len(guard.batches) <= 5


def test_one_client_alone_never_waits_for_others(monkeypatch):
    """With one request at a time nothing is gathered."""
    guard = Slow()
    guard.go.set()
    monkeypatch.setattr("prodkit.serving.microbatches.asyncio.sleep", None)  # whoever waited would fail

    async def story():
        batches = batches_of(guard)
        for _ in range(6):
            await batches.answers([1.0], STANDING)
        batches.close()

    asyncio.run(story())
    assert guard.batches == [1] * 6
