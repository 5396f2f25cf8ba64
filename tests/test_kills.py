"""Processes that are killed, or that all want the same at once: the store loses nothing and keeps nothing half done."""

from __future__ import annotations

import multiprocessing
import os
import traceback
from typing import Any

from benchmarks.kills import survived
from tables import version_of
from test_store import address, is_sound

from prodkit.errors import ConflictError, VersionError
from prodkit.store.registry import Store

__all__ = ["address"]  # a fixture

PROCESSES = multiprocessing.get_context("forkserver")
PROCESSES.set_forkserver_preload(["prodkit.store.workspace", "benchmarks.kills"])


KILLS, WORKERS, MOVES = 50, 8, 3


def kill_often(address: tuple[str, str], artifact: bytes, results: Any) -> None:
    """In a process of its own, which may fork: what the kills have met, or what went wrong."""
    try:
        results.put(dict(survived(address, artifact, kills=KILLS, seed=0)))
    except Exception:
        results.put({"failed": traceback.format_exc()})


def test_fifty_kills_leave_a_store_whose_champion_predicts(address: tuple[str, str]) -> None:
    """Before any statement, commit, sync or rename, or at any time: all is sound, and what was said done is done."""
    results = PROCESSES.SimpleQueue()
    killer = PROCESSES.Process(target=kill_often, args=(address, version_of(1)[0], results))
    killer.start()
    found = results.get()
    killer.join(10)
    assert "failed" not in found, found["failed"]
    assert found.pop("acts completed") > 20
    assert sum(found.values()) == KILLS
    assert {"before a statement", "before a commit", "from outside"} <= found.keys()


def move_at_once(address: tuple[str, str], times: int, results: Any) -> None:
    """Promote and roll back, again whenever somebody else was faster; tells the generations that were its own."""
    own: list[int] = []
    with Store.open(*address, timeout_seconds=60) as store:
        number = store.register(os.urandom(8), {}, run_id=f"{os.getpid()}").number
        while len(own) < times:
            now = store.champion()
            try:
                if now.version != number:
                    own.append(
                        store.promote(number, expected_generation=now.generation, force=True).generation
                    )
                elif now.predecessor is not None:
                    own.append(store.rollback(expected_generation=now.generation).generation)
            except (ConflictError, VersionError):  # somebody else was faster, or has left nobody to return to
                continue
    results.put(own)


def test_eight_processes_move_one_champion_and_lose_no_move(address: tuple[str, str]) -> None:
    """Each promotion and each rollback of each process is one generation of its own, and one event in the chain."""
    with Store.open(*address) as store:
        store.promote(store.register(b"first", {}).number, expected_generation=0)
    results = PROCESSES.SimpleQueue()
    workers = [PROCESSES.Process(target=move_at_once, args=(address, MOVES, results)) for _ in range(WORKERS)]
    for worker in workers:
        worker.start()
    moved = [generation for _ in workers for generation in results.get()]
    for worker in workers:
        worker.join(60)
        assert worker.exitcode == 0
    with Store.open(*address) as store:
        events = [event for event in store.history() if event.kind in ("promote", "rollback")]
        assert sorted(moved) == list(range(2, 2 + WORKERS * MOVES))
        assert [event.generation for event in events] == list(range(1, 2 + WORKERS * MOVES))
        assert {event.kind for event in events} == {"promote", "rollback"}
        assert store.champion().generation == 1 + WORKERS * MOVES
        assert is_sound(store)
