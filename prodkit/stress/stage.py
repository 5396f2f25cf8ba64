"""A copy of champion and predecessor with a service of its own, to be loaded and broken; the real one is only read."""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import sqlite3
import subprocess
import sys
import tempfile
import time
import weakref
from collections.abc import Callable, Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from prodkit.errors import RunError, VersionError
from prodkit.store.artifacts import Artifacts
from prodkit.store.database import Database
from prodkit.store.registry import Store
from prodkit.stress.load import Target

__all__ = ["Stage", "peak_mb"]

_START_SECONDS = 180.0  # a process that ends is noticed at once; on a busy machine imports take half a minute
_STOP_SECONDS = 10.0
# the service ends with the process that started it, however that ends (Linux: PR_SET_PDEATHSIG, SIGKILL)
_COMMAND = (
    "import ctypes, os, sys; sys.platform == 'linux' and ctypes.CDLL(None).prctl(1, 9); "
    "os.getppid() == {parent} or sys.exit(1); from prodkit.cli import main; main()"
)


class Stage:
    """Where a service is put to the test. Use it in a ``with`` block, at whose end all of it is gone.

    Args:
        store: whose champion, and predecessor if there is one, are copied.

    Raises:
        VersionError: there is no champion.
    """

    def __init__(self, store: Store) -> None:
        champion = store.champion()
        if champion.version is None:
            fix = "Run train and validate first: prodkit run train, then prodkit run validate."
            raise VersionError("champion", rule="must exist before it can be tried", value="none", fix=fix)
        self._folder = tempfile.TemporaryDirectory(prefix="prodkit-stage-")
        self.folder = Path(self._folder.name)
        self._process: subprocess.Popen[bytes] | None = None
        self._port = 0
        self._end: weakref.finalize[..., Any] | None = None
        with self.store() as copy:
            for number in (champion.predecessor, champion.version):
                if number is not None:
                    added = copy.register(store.artifact(number), store.version(number).manifest)
                    generation = copy.champion().generation
                    copy.promote(added.number, expected_generation=generation, reason="on stage")

    def __enter__(self) -> Stage:
        return self

    def __exit__(self, *_: object) -> None:
        self._signal(signal.SIGTERM)
        self._folder.cleanup()

    @staticmethod
    def missing() -> str:
        """The package that a service needs and that is not installed; empty if all are."""
        needed = ("fastapi", "uvicorn", "prometheus_client")
        return next((name for name in needed if find_spec(name) is None), "")

    @property
    def pid(self) -> int:
        """Of the service; 0 before it was started."""
        return self._process.pid if self._process else 0

    @property
    def places(self) -> dict[str, str]:
        """Where the copy lies, as parameters of ``prodkit serve``."""
        return {"store": f"sqlite:///{self.folder}/store.db", "artifacts": str(self.folder / "artifacts")}

    def store(self) -> Store:
        """The copy, to be changed."""
        # not `Store.open`, which is led elsewhere while a run is verified: this copy is nobody's but the stage's
        database = Database(self.places["store"], timeout_seconds=10.0)
        return Store(database, Artifacts(self.places["artifacts"]))

    def start(self, **given: Any) -> Target:
        """Start ``prodkit serve`` over the copy, on the port that it had before if it had one.

        Args:
            given: its parameters.

        Raises:
            RunError: it does not start, or is not ready within three minutes.
        """
        facts, log = self.folder / "stage.yaml", self.folder / "service.log"
        facts.write_text(json.dumps({**self.places, "requests": "", **given}), encoding="utf-8")
        words = ["serve", "--port", str(self._port), "-f", str(facts), "--out", str(self.folder / "out")]
        environment = {name: value for name, value in os.environ.items() if name != "PRODKIT_SANDBOX"}
        with log.open("wb") as written:
            self._process = subprocess.Popen(
                [sys.executable, "-c", _COMMAND.format(parent=os.getpid()), *words],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=written,
                env=environment,
            )
        if self._end is not None:
            self._end.detach()
        self._end = weakref.finalize(self, _end_process, self._process)
        match = self._until(lambda: re.search(rb"http://[\d.]+:(\d+)", log.read_bytes()), log)
        self._port = int(match[1])
        target = Target(f"http://127.0.0.1:{self._port}")

        def is_ready() -> bool:
            with contextlib.suppress(OSError):
                return target.get("/health/ready")[0] == 200
            return False

        self._until(is_ready, log)
        return target

    def _until(self, condition: Callable[[], Any], log: Path) -> Any:
        deadline = time.monotonic() + _START_SECONDS
        while not (value := condition()):
            ended = self._process is None or self._process.poll() is not None
            if ended or time.monotonic() > deadline:
                lines = log.read_text(errors="replace").strip().splitlines() or ["it said nothing"]
                raise RunError("prodkit serve", rule="must start", value=lines[-1][:300])
            time.sleep(0.02)
        return value

    def kill(self) -> None:
        """End the service as the machine does that has no memory left: at once."""
        self._signal(signal.SIGKILL)

    def _signal(self, number: int) -> None:
        if self._process is not None:
            self._process.send_signal(number)
            _end_process(self._process, ask=False)

    @contextlib.contextmanager
    def locked(self) -> Iterator[None]:
        """Somebody else holds the database of the copy, and does not come to an end."""
        other = sqlite3.connect(self.folder / "store.db", isolation_level=None)
        try:
            other.execute("BEGIN EXCLUSIVE")
            yield
        finally:
            other.rollback()
            other.close()

    def promote_garbage(self) -> int:
        """Promote a version whose artifact was damaged after it was registered; its number."""
        with self.store() as copy:
            champion = copy.champion()
            assert champion.version is not None
            manifest = copy.version(champion.version).manifest
            added = copy.register(b"no model at all", manifest, run_id="damaged")
            (self.folder / "artifacts" / added.location).write_bytes(b"damaged")
            copy.promote(added.number, expected_generation=champion.generation, reason="damaged on purpose")
            return added.number


def _end_process(process: subprocess.Popen[bytes], *, ask: bool = True) -> None:
    if ask and process.poll() is None:
        process.terminate()
    try:
        process.wait(_STOP_SECONDS)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def peak_mb(pid: int = 0) -> float | None:
    """The most memory that a process has had at once, megabytes; None where the system does not say.

    Args:
        pid: of the process; this one if 0.
    """
    try:
        status = Path(f"/proc/{pid or 'self'}/status").read_text()
    except OSError:
        return None
    match = re.search(r"^VmHWM:\s+(\d+) kB", status, re.M)
    return int(match[1]) / 1024 if match else None
