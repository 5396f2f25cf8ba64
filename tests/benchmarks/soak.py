"""Ten minutes under load and faults: ``python tests/benchmarks/soak.py [MINUTES]`` (10 by default).

A real ``prodkit serve`` over the flights model, on a copy of its store. First its knee is looked for, at rising rates;
then it is loaded in an open loop at 70% of it, while something goes wrong every 5 seconds: the process stands still,
the store is locked, clients send nonsense, hang up or dawdle, the request log has no disk, a damaged version is
promoted, and, while a version without a compiled path is champion (which has a knee of its own), the model stalls,
raises or answers NaN. The champion changes three times besides: back to one in memory, on to one that must be loaded,
and a rollback.

Each answer is held against what its version says of that row, and each version against the history of the store. Lost
is what was sent and got no answer of status 200. Memory is that of the service, in fifths of the time.
"""

from __future__ import annotations

import http.client
import json
import os
import signal
import socket
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from itertools import cycle
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

sys.path.insert(0, str(Path(__file__).parent.parent))
sys.path.insert(0, str(Path(__file__).parent))
from led import Led
from served import flights_version, new_flights, stocked

from prodkit.models.bundle import Bundle, pack, unpack
from prodkit.scoring.mutations import records
from prodkit.store.registry import Store
from prodkit.stress.faults import tame_faults
from prodkit.stress.load import Result, Step, apply_load, arrivals, knee, quantile
from prodkit.stress.stage import Stage

DEADLINE_MS, LATENCY_MS, SHARE_OF_KNEE = 250.0, 250.0, 0.7
DRAIN_SECONDS = 60.0  # after the last is due, for what is late by then: each is sent, however late
REVERT_SECONDS, LOAD_SECONDS = 0.1, 10.0  # to follow to a version in memory, and to one that must be loaded
SOURCES = ("champion", "predecessor", "rule")
ANSWER = np.dtype(
    [
        *((name, "f8") for name in ("sent", "came", "prediction")),
        *((name, "i4") for name in ("row", "status", "version", "generation", "source")),
        *((name, "?") for name in ("degraded", "reason")),
    ]
)


@dataclass
class Soaked:
    """What has become of everything.

    Attributes:
        step: of the load.
        answers: one a request, as it came.
        wrong: how many answers break which rule; empty if none does.
        follow_ms: from each change of champion to the last request that still got the one before, if it came later.
        faults: how often each was done, and how often it ended as it should.
        memory_mb: of the service, once a second.
        log: rows that the request log has written and lost.
        errors: that came instead of answers.
    """

    step: Step
    answers: np.ndarray
    wrong: Counter[str]
    follow_ms: dict[str, float]
    faults: dict[str, tuple[int, int]]
    memory_mb: np.ndarray
    log: dict[str, float]
    errors: Counter[str]

    def fifths(self) -> list[float]:
        """Median memory of each fifth of the time."""
        return [float(np.median(part)) for part in np.array_split(self.memory_mb, 5)]

    def told(self) -> str:
        """All of it in lines."""
        answers, latency = self.answers, self.step.latency_ms
        tail = "  ".join(f"p{100 * q:g} {quantile(latency, q).value:.1f}" for q in (0.5, 0.9, 0.99, 0.999))
        by = Counter(SOURCES[source] for source in answers["source"][answers["status"] == 200])
        statuses = Counter(answers["status"].tolist())
        done, unsent = statuses[200], int(np.isnan(self.step.sent).sum())
        lost = len(answers) - done - unsent
        minutes = np.arange(len(self.memory_mb)) / 60
        slope = np.polyfit(minutes, self.memory_mb, 1)[0] if len(minutes) > 1 else float("nan")
        lines = {
            f"{len(answers):,} requests": f"{done:,} answered, {lost} lost, {unsent} not sent; "
            f"{dict(statuses)} {dict(self.errors) or ''}",
            "rate": f"{self.step.rate:.0f} a second, reached {self.step.reached_rate:.0f}",
            "answered by": f"{dict(by)}; wrong {dict(self.wrong) or 0}",
            "ms from when due": f"{tail}; sent late by p99 {quantile(self.step.lag_ms, 0.99).value:.1f}, "
            f"at most {self.step.lag_ms.max():.0f}",
            "faults, as expected of": ", ".join(f"{k} {v[1]}/{v[0]}" for k, v in sorted(self.faults.items())),
            "ms until the last request for the version before": ", ".join(
                f"{name} {late:.0f}" for name, late in self.follow_ms.items()
            ),
            "memory in MB by fifths": f"{' '.join(f'{mb:.1f}' for mb in self.fifths())}; {slope:+.2f} a minute",
            "request log": f"{self.log}",
        }
        return "\n".join(f"{name}: {text}" for name, text in lines.items())


@dataclass
class _Move:
    """A change of champion: when it was committed, between two moments, and to whom."""

    name: str
    before: float
    after: float
    generation: int
    version: int
    resident: bool


class Soak:
    """A service on stage with three versions, the third of which is led by a file.

    Args:
        stage: with two versions.
        rows: (n, m) that are asked for, in turn.
        bundles: of both.
        pause: how long a fault lasts, seconds.
        patience: times that a change of champion may take of what it should; more where time is not the question.
    """

    def __init__(
        self, stage: Stage, rows: pd.DataFrame, bundles: Sequence[Bundle], *, pause: float, patience: float
    ) -> None:
        self.stage, self.mood, self.pause = stage, stage.folder / "mood", pause
        self.patience = patience
        led = replace(bundles[1], model=Led(bundles[1].model, self.mood))
        self.bundles = {1: bundles[0], 2: bundles[1], 3: bundles[1]}
        with stage.store() as store:
            store.register(pack(led), store.version(2).manifest, run_id="led")
        self.said = {number: bundle.predict(rows) for number, bundle in self.bundles.items()}
        self.rule = {
            number: bundle.fallback.predict(rows, schema=bundle.schema)
            for number, bundle in self.bundles.items()
        }
        asked = records(rows, schema=bundles[1].schema)
        self.bodies = [json.dumps({"records": [row]}).encode() for row in asked]
        self.requests = stage.folder / "requests"
        self.target = stage.start(deadline_ms=DEADLINE_MS, requests=str(self.requests), log_seconds=1.0)
        self.moves: list[_Move] = []
        self.errors = Counter[str]()  # that came instead of answers
        self.move("at first", 1)
        self.settled()  # else the first answers may be those of a champion before all moves

    # Changes of champion

    def move(self, name: str, version: int = 0) -> None:
        """Promote this version, or roll back."""
        with self.stage.store() as store:
            champion, before = store.champion(), time.perf_counter()
            how = {"expected_generation": champion.generation, "reason": name}
            moved = store.promote(version, force=True, **how) if version else store.rollback(**how)
            assert moved.version is not None
            resident = moved.version in (champion.version, champion.predecessor)
            self._note(name, before, moved.generation, moved.version, resident=resident)

    def _note(self, name: str, before: float, generation: int, version: int, *, resident: bool) -> None:
        self.moves.append(_Move(name, before, time.perf_counter(), generation, version, resident))

    def champion(self) -> int:
        """Number of the champion."""
        return self.moves[-1].version

    def settled(self) -> bool:
        """Wait until the service has the last champion."""
        deadline = time.monotonic() + self.patience * LOAD_SECONDS
        while time.monotonic() < deadline:
            ready = json.loads(self.target.get("/health/ready")[1])
            if ready["generation"] == self.moves[-1].generation:
                return True
            time.sleep(0.05)
        return False

    # What goes wrong

    def stands_still(self) -> bool:
        """The process gets no processor for a while."""
        os.kill(self.stage.pid, signal.SIGSTOP)
        time.sleep(0.3)
        os.kill(self.stage.pid, signal.SIGCONT)
        return True

    def locked_store(self) -> bool:
        """Somebody holds the database."""
        with self.stage.locked():
            time.sleep(self.pause)
        return True

    def misbehaving_clients(self) -> bool:
        """Nonsense, and connections that end in the middle."""
        garbage, hang_ups = (fault.happened for fault in tame_faults(self.target, self.bodies))
        answered = all(
            "20 of 20 answered" in text for text in (garbage, hang_ups)
        )  # by whomever: a breaker may rest
        return answered and garbage.startswith("9 of 9 refused")

    def impatient_clients(self) -> bool:
        """They ask, and are gone before the answer is there."""
        body = self.bodies[0]
        head = f"POST /predict HTTP/1.1\r\nhost: x\r\ncontent-length: {len(body)}\r\n\r\n".encode()
        for _ in range(20):
            self.target.break_off(head + body)
        return True

    def slow_clients(self) -> bool:
        """Fifty connections that send half a body and wait."""
        head = b"POST /predict HTTP/1.1\r\nhost: x\r\ncontent-length: 900\r\n\r\n{"
        clients = [socket.create_connection((self.target.host, self.target.port)) for _ in range(50)]
        for client in clients:
            client.sendall(head)
        time.sleep(self.pause)
        for client in clients:
            client.close()
        return True

    def log_without_disk(self) -> bool:
        """The folder of the request log cannot be written to."""
        aside = self.requests.with_name("aside")
        self.requests.mkdir(exist_ok=True)
        self.requests.rename(aside)
        self.requests.write_text("in the way")
        time.sleep(self.pause)
        self.requests.unlink()
        aside.rename(self.requests)
        return True

    def damaged_version(self) -> bool:
        """A version whose bytes are damaged is promoted, and rolled back."""
        before, generation = time.perf_counter(), self.moves[-1].generation + 1
        number = self.stage.promote_garbage()
        self._note("damaged", before, generation, number, resident=False)
        good = self.settled()
        time.sleep(self.pause / 4)
        self.move("rollback of the damaged")
        with self.stage.store() as store:
            store.quarantine(number, lift=True, reason="to be promoted again")
        return good and self.settled()

    def _moody(self, words: str) -> bool:
        self.mood.write_text(words)
        time.sleep(self.pause)
        self.mood.unlink()
        return True

    def model_stalls(self) -> bool:
        """The model takes longer than its deadline."""
        return self._moody("sleep 0.5")

    def model_raises(self) -> bool:
        """The model raises."""
        return self._moody("raise")

    def model_answers_nan(self) -> bool:
        """The model gives no number."""
        return self._moody("nan")

    # The load

    def ask(self, number: int, answer: Any) -> Result:
        """One request, and all that its answer says."""
        row = number % len(self.bodies)
        answer["row"], answer["sent"] = row, time.perf_counter()
        try:
            status, content = self.target.post(self.bodies[row])
        except (OSError, http.client.HTTPException) as error:
            self.errors[repr(error)] += 1
            raise
        finally:
            answer["came"] = time.perf_counter()
        answer["status"] = status
        if status != 200:
            return "failed"
        document = json.loads(content)
        (found,) = document["answers"]
        answer["generation"], answer["version"] = document["generation"], found["model_version"]
        answer["prediction"], answer["source"] = found["prediction"], SOURCES.index(found["source"])
        answer["degraded"], answer["reason"] = found["degraded"], bool(found["reason"])
        return "degraded" if found["degraded"] else "answered"

    def step(self, rate: float, seconds: float) -> tuple[Step, np.ndarray]:
        """Load it for so long."""
        return self._load(arrivals(rate, seconds=seconds, seed=round(rate)), rate)

    def _load(self, due: np.ndarray, rate: float) -> tuple[Step, np.ndarray]:
        answers = np.zeros(len(due), dtype=ANSWER)
        answers["row"] = -1

        def ask(number: int) -> Result:
            return self.ask(number, answers[number])

        return apply_load(ask, due, rate=rate, drain_seconds=DRAIN_SECONDS), answers

    def knee(self, rates: Sequence[float], seconds: float) -> float:
        """The highest of these rates that the champion bears."""
        steps: list[Step] = []
        for rate in rates:
            steps.append(self.step(rate, seconds)[0])
            print(
                f"{rate:6.0f} a second: reached {steps[-1].reached_rate:.0f}, "
                f"p99 {quantile(steps[-1].latency_ms, 0.99).value:.1f} ms",
                flush=True,
            )
            if knee(steps, latency_ms=LATENCY_MS, error_share=0.0) != rate:
                break
        found = knee(steps, latency_ms=LATENCY_MS, error_share=0.0)
        if found is None:
            raise SystemExit("not even the lowest rate was borne")
        return found

    def soak(
        self, *, rate: float, led_rate: float, seconds: float, every: float, least_faults: int = 0
    ) -> Soaked:
        """Load it, with a fault every so many seconds and three changes of champion.

        Args:
            rate: requests a second.
            led_rate: the same while the champion is the one that has no compiled path.
            seconds: how long.
            every: seconds from one fault to the next.
            least_faults: even if a slow machine has come to the end of the load before.
        """
        faults: dict[str, list[bool]] = {}
        self.errors.clear()
        stop, began = threading.Event(), time.perf_counter()
        plan = [(0.2, "back to one in memory", 2), (0.4, "on to one to be loaded", 3), (0.7, "rollback", 0)]
        spans = ((0.0, rate, 0.4), (0.4, led_rate, 0.75), (0.75, rate, 1.0))  # a fault may hold a change up
        due = [
            seconds * start + arrivals(each, seconds=seconds * (end - start), seed=place)
            for place, (start, each, end) in enumerate(spans)
        ]
        tame = self._faults()
        moody = [self.model_stalls, self.model_raises, self.model_answers_nan]
        mixed = [fault for pair in zip(cycle(moody), tame, strict=False) for fault in pair]
        usual, led = cycle(tame), cycle(mixed)

        def wreck() -> None:
            turn = 0
            while not stop.wait(max(0.0, began + turn * every - time.perf_counter())) or turn < least_faults:
                if plan and time.perf_counter() - began > seconds * plan[0][0]:
                    self.move(*plan.pop(0)[1:])
                    faults.setdefault("followed", []).append(self.settled())
                fault = next(led if self.champion() == 3 else usual)
                try:
                    good = fault()
                except (OSError, http.client.HTTPException) as error:
                    print(f"{fault.__name__}: {error!r}", file=sys.stderr)
                    good = False
                faults.setdefault(fault.__name__, []).append(good)
                turn += 1

        with sampled(self.stage.pid) as memory:
            wrecker = threading.Thread(target=wreck)
            wrecker.start()
            step, answers = self._load(np.concatenate(due), sum(map(len, due)) / seconds)
            stop.set()
            wrecker.join()
        wrong, late = self._judged(answers)
        counted = {name: (len(each), sum(each)) for name, each in faults.items()}
        return Soaked(step, answers, wrong, late, counted, np.array(memory), self._log(), self.errors)

    def _faults(self) -> list[Callable[[], bool]]:
        return [
            *(self.stands_still, self.misbehaving_clients, self.locked_store, self.slow_clients),
            *(self.damaged_version, self.impatient_clients, self.log_without_disk),
        ]

    def _log(self) -> dict[str, float]:
        page = self.target.get("/metrics")[1].decode().splitlines()
        lines = (line.split() for line in page if line.startswith("prodkit_log_rows"))
        return {name.removeprefix("prodkit_"): float(value) for name, value in lines}

    def _judged(self, answers: np.ndarray) -> tuple[Counter[str], dict[str, float]]:
        """Which answers are wrong, and how long after each change the one before was still asked."""
        found = answers[answers["status"] == 200]
        wrong = Counter[str]()
        by = found["source"]
        expected = np.full(len(found), np.nan)
        for number in self.bundles:
            for said, mine in ((self.said, by < 2), (self.rule, by == 2)):
                mine = mine & (found["version"] == number)
                expected[mine] = said[number][found["row"][mine]]
        wrong["number"] = int((~np.isclose(found["prediction"], expected, rtol=1e-9, atol=1e-12)).sum())
        wrong["degraded, or reason"] = int(
            ((found["degraded"] != (by > 0)) | (found["reason"] != (by > 0))).sum()
        )
        late = {}
        for move, following in zip(self.moves, [*self.moves[1:], None], strict=True):
            mine = found[found["generation"] == move.generation]
            wrong["version"] += int((mine["version"] != move.version)[mine["source"] == 0].sum())
            wrong["too early"] += int((mine["came"] < move.before).sum())
            if following is not None:
                after = mine["sent"] - following.after
                allowed = self.patience * (REVERT_SECONDS if following.resident else LOAD_SECONDS)
                wrong["too late"] += int((after > allowed).sum())
                name = f"{following.generation} {following.name}"
                late[name] = 1000 * float(max(0.0, after.max(initial=0.0)))
        known = np.isin(found["generation"], [move.generation for move in self.moves])
        wrong["generation"] = int((~known).sum())
        return +wrong, late


@contextmanager
def sampled(pid: int) -> Any:
    """LoadedModel memory of a process, megabytes, once a second."""
    found: list[float] = []
    stop = threading.Event()

    def sample() -> None:
        while not stop.wait(1.0):
            pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
            found.append(pages * os.sysconf("SC_PAGE_SIZE") / 2**20)

    sampler = threading.Thread(target=sample)
    sampler.start()
    try:
        yield found
    finally:
        stop.set()
        sampler.join()


@contextmanager
def staged(
    artifacts: Sequence[bytes], rows: pd.DataFrame, store: Store, *, pause: float = 2.0, patience: float = 1.0
) -> Any:
    """A soak over the predecessor and the champion of a store, whose artifacts these are."""
    # where the service finds the led model
    before = os.environ.get("PYTHONPATH", "").split(os.pathsep)
    os.environ["PYTHONPATH"] = os.pathsep.join([str(Path(__file__).parent.parent), *filter(None, before)])
    with Stage(store) as stage:
        bundles = [unpack(artifact) for artifact in artifacts]
        soak = Soak(stage, rows, bundles, pause=pause, patience=patience)
        yield soak
        soak.target.close()


def main() -> None:
    """Find the knee, warm up, soak, and print what came of it."""
    minutes = float(sys.argv[1]) if len(sys.argv) > 1 else 10.0
    versions = [flights_version(), flights_version(seed=1)]
    with tempfile.TemporaryDirectory() as name:
        places = stocked(Path(name), *versions)
        with (
            Store.open(places["store"], places["artifacts"]) as store,
            staged([artifact for artifact, _ in versions], new_flights(1000), store) as soak,
        ):
            rates, allowed = [600 * 1.3**power for power in range(9)], []
            for version in (3, 2, 1):  # and what is met for the first time takes memory once
                soak.move("warm-up", version)
                soak.settled()
                if version != 2:
                    allowed.append(SHARE_OF_KNEE * soak.knee(rates, 4.0))
            led_rate, rate = allowed
            print(soak.soak(rate=rate, led_rate=led_rate, seconds=60 * minutes, every=5.0).told())


if __name__ == "__main__":
    main()
