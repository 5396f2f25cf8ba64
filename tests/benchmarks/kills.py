"""Does a store survive SIGKILL, whenever it comes? ``python tests/benchmarks/kills.py [KILLS] [POSTGRESQL-URL]``.

Each process publishes a real model, promotes it, rolls back, proposes, approves, holds and deletes, and is killed: in
turn before its first, second, ... statement, commit, sync or rename, and every other time from outside, after a
random time. After each kill the store is opened, everything in it is checked, the champion is loaded and predicts,
and nothing is missing that a process has been told is done. Ends with 1 at the first store that is not sound.
"""

from __future__ import annotations

import os
import random
import signal
import sys
import tempfile
import time
import uuid
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import sqlalchemy as sa

from prodkit.models.bundle import Bundle, pack, unpack
from prodkit.store.registry import Store
from prodkit.store.workspace import champion_of, store_problems

Address = tuple[str, str]
_NEVER = 10**9  # a step that no life comes to


def main() -> int:
    """Print how many kills each kind of database has survived."""
    sys.path.append(str(Path(__file__).parent.parent))
    from tables import version_of

    kills = int(sys.argv[1]) if len(sys.argv) > 1 else 1000
    artifact, _ = version_of(1)
    began, found = time.perf_counter(), Counter[str]()
    for seed in range(0, kills, 100):  # a store of its own for each hundred
        with new_store(sys.argv[2] if len(sys.argv) > 2 else "") as address:
            found += survived(address, artifact, kills=min(100, kills - seed), seed=seed)
        print(f"{min(seed + 100, kills)} kills survived, {time.perf_counter() - began:.0f} s: {told(found)}")
    return 0


@contextmanager
def new_store(url: str) -> Iterator[Address]:
    """URL and artifacts of a store that is not there yet; in a schema of its own if a PostgreSQL URL is given."""
    with tempfile.TemporaryDirectory() as folder:
        if not url:
            yield f"sqlite:///{folder}/store.db", f"{folder}/artifacts"
            return
        engine, schema = sa.create_engine(url, poolclass=sa.NullPool), f"kills_{uuid.uuid4().hex}"
        with engine.begin() as rows:
            rows.execute(sa.text(f"CREATE SCHEMA {schema}"))
        scoped = sa.make_url(url).update_query_dict({"options": f"-csearch_path={schema}"})
        yield scoped.render_as_string(hide_password=False), f"{folder}/artifacts"
        with engine.begin() as rows:
            rows.execute(sa.text(f"DROP SCHEMA {schema} CASCADE"))


def told(found: Counter[str]) -> str:
    """What the kills have met, in words."""
    return ", ".join(f"{number} {name}" for name, number in sorted(found.items()))


def survived(address: Address, artifact: bytes, *, kills: int, seed: int) -> Counter[str]:
    """Kill so many processes at work on a store, and check it after each.

    Args:
        address: URL and artifacts of a store that is not there yet.
        artifact: a packed model; each process publishes it with bytes of its own.
        kills: how many.
        seed: of the moments and of what each process does.

    Returns:
        How many were killed before which kind of step, or from outside; and how many acts came to an end before.
    """
    bundle, moments, found = unpack(artifact), random.Random(seed), Counter[str]()
    with Store.open(*address) as store:
        for number in (1, 2):
            store.register(salted(bundle, number), {}, run_id=f"first-{number}")
            store.promote(number, expected_generation=number - 1)
    steps: list[int] = []
    for turn in range(10 * kills):
        if turn % 2 and not steps:
            steps = list(range(1, _steps(address, salted(bundle, f"whole {turn}"), turn) + 1))
            moments.shuffle(steps)
        at, after = (steps.pop(), 30.0) if turn % 2 else (_NEVER, moments.uniform(0.0, 0.25))
        work = partial(life, address, salted(bundle, turn), turn, at)
        name, acts = killed(work, after)
        if name != "ended":  # it was faster than its death
            found["from outside" if name == "outside" else f"before a {name}"] += 1
        found["acts completed"] += len(acts)
        require_sound(address, acts, bundle, opens_all=turn % 10 == 0)
        if found.total() - found["acts completed"] == kills:
            break
    return found


def _steps(address: Address, artifact: bytes, turn: int) -> int:
    """How many steps a life has that nobody ends."""
    name, acts = killed(partial(life, address, artifact, turn, _NEVER), 30.0)
    if name != "ended":
        raise RuntimeError(f"a life lasts too long: {acts}")
    return int(next(act for act in acts if act.startswith("steps ")).split()[1])


def salted(bundle: Bundle, salt: object) -> bytes:
    """The same model in bytes of its own."""
    return pack(replace(bundle, environment={**bundle.environment, "salt": str(salt)}))


def life(address: Address, artifact: bytes, turn: int, at: int, tell: Callable[[str], None]) -> None:
    """Publish, promote, roll back, hold, propose, approve and delete; die before the given step."""
    taken = count_down(at, tell)
    with Store.open(*address, timeout_seconds=30) as store:
        number = store.register(artifact, {"turn": turn}, run_id=f"run-{turn}-{at}").number
        tell(f"version {number}")
        if turn % 3:
            champion = store.promote(number, expected_generation=store.champion().generation)
        else:
            generation = store.champion().generation
            store.propose(
                f"run-{number}", action="promote", version=number, generation=generation, reason="why"
            )
            champion = store.approve(f"run-{number}", actor="ann", reason="yes")
        tell(f"generation {champion.generation}")
        store.hold(expected_generation=champion.generation, reason="why")
        store.release(expected_generation=champion.generation, reason="why")
        if turn % 2:
            tell(f"generation {store.rollback(expected_generation=champion.generation).generation}")
            store.quarantine(number, lift=True, reason="why")
        champion = store.champion()
        kept = {champion.version, champion.predecessor}
        for version in [each.number for each in store.versions() if each.number not in kept][:-1]:
            store.delete(version)
    tell(f"steps {taken()}")


def count_down(at: int, tell: Callable[[str], None]) -> Callable[[], int]:
    """Die before the given step: a statement, commit, sync, rename or removal; returns what counts those taken."""
    left = at

    def counted(call: Any, name: str) -> Any:
        def wrapper(*args: Any, **named: Any) -> Any:
            nonlocal left
            left -= 1
            if left == 0:
                tell(f"step {name}")
                os.kill(os.getpid(), signal.SIGKILL)
            return call(*args, **named)

        return wrapper

    os.fsync, Path.replace = counted(os.fsync, "sync"), counted(Path.replace, "rename")  # type: ignore[method-assign]
    os.remove = counted(os.remove, "removal")
    dialect = sa.engine.default.DefaultDialect
    for method, name in (("do_execute", "statement"), ("do_commit", "commit")):
        setattr(dialect, method, counted(getattr(dialect, method), name))
    return lambda: at - left


def killed(work: Callable[[Callable[[str], None]], None], after_seconds: float) -> tuple[str, list[str]]:
    """Do some work in a forked process, and kill it after a time if it has not died by then.

    Returns:
        Before which step it died, or ``outside``, or ``ended``; and what it said was done.
    """
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        status = 1
        try:
            os.close(reader)
            work(lambda text: os.write(writer, f"{text}\n".encode()) and None)
            status = 0
        finally:
            os._exit(status)
    os.close(writer)
    until = time.monotonic() + after_seconds
    while (done := os.waitpid(child, os.WNOHANG)) == (0, 0):
        if time.monotonic() > until:
            os.kill(child, signal.SIGKILL)
            done = os.waitpid(child, 0)
            break
        time.sleep(0.001)
    with os.fdopen(reader) as said:
        lines = said.read().split("\n")[:-1]
    if done[1] == 0:
        return "ended", lines
    if not os.WIFSIGNALED(done[1]):
        raise RuntimeError(f"a process failed instead of being killed, after {lines}")
    steps = [line.removeprefix("step ") for line in lines if line.startswith("step ")]
    return (steps or ["outside"])[0], [line for line in lines if not line.startswith("step ")]


def require_sound(address: Address, acts: list[str], bundle: Bundle, *, opens_all: bool) -> None:
    """Everything in the store holds together, the champion predicts, and what was said to be done is done."""
    with Store.open(*address) as store:
        if problems := store_problems(store) if opens_all else store.check():
            raise RuntimeError(f"the store is not sound: {problems}")
        number, champion = champion_of(store)
        if not np.array_equal(champion.predict(bundle.golden), bundle.golden_predictions):
            raise RuntimeError(f"version {number} predicts something else")
        events = store.history()
        generations = [event.generation for event in events if event.kind in ("promote", "rollback")]
        if generations != list(range(1, len(generations) + 1)):
            raise RuntimeError(f"generations are lost or doubled: {generations}")
        done = {f"generation {number}" for number in generations}
        acts = [act for act in acts if not act.startswith("steps ")]
        done |= {f"version {event.version}" for event in events if event.kind == "register"}
        if lost := [act for act in acts if act not in done]:
            raise RuntimeError(f"it was done, and is gone: {lost}")
        kept = {version.location.split("/")[-1] for version in store.versions()}
        there = {path.name for path in Path(address[1], "versions").iterdir()}
        if kept - there:
            raise RuntimeError(f"artifacts are gone: {kept - there}")


if __name__ == "__main__":
    sys.exit(main())
