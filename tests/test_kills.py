"""Processes that are killed, or that all want the same at once: the store loses nothing and keeps nothing half done."""

from __future__ import annotations

import multiprocessing
import os
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from typing import Any

from benchmarks.kills import survived
from tables import version_of
from test_store import address, is_sound

from prodkit.errors import ConflictError, VersionError
from prodkit.store.registry import Store

__all__ = ["address"]  # a fixture

PROCESSES = multiprocessing.get_context("forkserver")
PROCESSES.set_forkserver_preload(["prodkit.store.workspace", "benchmarks.kills"])


KILLS, WORKERS, MOVES = 30, 6, 2


def told_by(work: Callable[..., Any], *given: Any, processes: int = 1) -> list[Any]:
    """What each of so many processes gives back; an error when one of them raises or dies."""
    with ProcessPoolExecutor(processes, mp_context=PROCESSES) as pool:
        return [each.result() for each in [pool.submit(work, *given) for _ in range(processes)]]


def kill_often(address: tuple[str, str], artifact: bytes) -> Counter[str]:
    """In a process of its own, which may fork: what the kills have met."""
    return survived(address, artifact, kills=KILLS, seed=0)


def test_kills_leave_a_store_whose_champion_predicts(address: tuple[str, str]) -> None:
    """Before any statement, commit, sync or rename, or at any time: all is sound, and what was said done is done."""
    (found,) = told_by(kill_often, address, version_of(1)[0])
    assert found.pop("acts completed") > 5
    assert sum(found.values()) == KILLS
    assert {"before a statement", "before a commit", "from outside"} <= found.keys()


def move_at_once(address: tuple[str, str]) -> list[int]:
    """Promote and roll back, again whenever somebody else was faster; tells the generations that were its own."""
    own: list[int] = []
    with Store.open(*address, timeout_seconds=60) as store:
        number = store.register(os.urandom(8), {}, run_id=f"{os.getpid()}").number
        while len(own) < MOVES:
            now = store.champion()
            try:
                if now.version != number:
                    moved = store.promote(number, expected_generation=now.generation, force=True)
                else:
                    moved = store.rollback(expected_generation=now.generation)
            except VersionError:  # nobody is left to return to: the others are done, and in quarantine
                number = store.register(os.urandom(8), {}).number
            except ConflictError:  # somebody else was faster
                continue
            else:
                own.append(moved.generation)
    return own


def test_processes_move_one_champion_and_lose_no_move(address: tuple[str, str]) -> None:
    """Each promotion and each rollback of each process is one generation of its own, and one event in the chain."""
    with Store.open(*address) as store:
        store.promote(store.register(b"first", {}).number, expected_generation=0)
    moved = [own for each in told_by(move_at_once, address, processes=WORKERS) for own in each]
    with Store.open(*address) as store:
        events = [event for event in store.history() if event.kind in ("promote", "rollback")]
        assert sorted(moved) == list(range(2, 2 + WORKERS * MOVES))
        assert [event.generation for event in events] == list(range(1, 2 + WORKERS * MOVES))
        assert {event.kind for event in events} == {"promote", "rollback"}
        assert store.champion().generation == 1 + WORKERS * MOVES
        assert is_sound(store)
