"""The store's champion, followed: the new version is loaded and tried before the old one is let go."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable
from pathlib import Path

import sqlalchemy as sa

from prodkit.errors import ProdkitError
from prodkit.scoring.breaker import Limits
from prodkit.scoring.guard import HOLD, LoadedModel, Route
from prodkit.store.history import Champion
from prodkit.store.registry import Store
from prodkit.store.workspace import load_version

__all__ = ["Follower"]

_RETRY_SECONDS = 5.0  # until a version that could not be loaded is tried again


class Follower:
    """A thread that keeps a :class:`prodkit.scoring.guard.Route` true to what the store says.

    Champion and predecessor are both kept in memory, so that a rollback is a change of pointers. A version that cannot
    be loaded leaves the one that answers in its place, as predecessor.

    Args:
        open_store: opens the store; called in the thread, which alone uses it.
        tell: is given each new route.
        url: of the database; a change of a SQLite file is seen at once, by its time.
        poll_seconds: between two looks into the database.
        watch_seconds: between two looks at the time of the file.
        limits: of the breakers.

    Attributes:
        champion: what the store said last; None before it said anything.
        store_problem: why it could not be asked last time; empty if it could.
        load_problem: why a version could not be loaded; empty if all could.
        route: who answers; None before anybody could be loaded.
    """

    def __init__(
        self,
        open_store: Callable[[], Store],
        tell: Callable[[Route], None],
        *,
        url: str = "",
        poll_seconds: float = 1.0,
        watch_seconds: float = 0.02,
        limits: Limits | None = None,
    ) -> None:
        self._open_store, self._tell, self._limits = open_store, tell, limits
        self._poll_seconds, self._watch_seconds = poll_seconds, watch_seconds
        self._file = _sqlite_file(url)
        self._models: dict[int, LoadedModel] = {}
        self._store: Store | None = None
        self._retry_at = 0.0
        self._stop, self._looked = threading.Event(), threading.Event()
        self._thread = threading.Thread(target=self._run, name="prodkit-follower", daemon=True)
        self.champion: Champion | None = None
        self.store_problem = self.load_problem = ""
        self.route: Route | None = None

    def start(self, *, wait_seconds: float = 60.0) -> None:
        """Begin to follow, and wait for the first look, with what it loads, to be over."""
        self._thread.start()
        self._looked.wait(wait_seconds)

    def stop(self) -> None:
        """End the thread."""
        self._stop.set()
        self._thread.join(5.0)

    def _run(self) -> None:
        while not self._stop.is_set():
            stamp = self._stamp()
            self._look()
            self._looked.set()
            until = time.monotonic() + self._poll_seconds
            while time.monotonic() < until and not self._stop.is_set():
                if self._stamp() != stamp:
                    break
                self._stop.wait(
                    min(self._watch_seconds if self._file else self._poll_seconds, self._poll_seconds)
                )
        if self._store is not None:
            self._store.close()

    def _stamp(self) -> tuple[int, int]:
        """The time and size of the database's file, which change with each commit; the file itself is not opened.

        To open and close it would end the locks that SQLite holds for this process.
        """
        try:
            status = os.stat(self._file) if self._file else None
        except OSError:
            return (0, 0)
        return (status.st_mtime_ns, status.st_size) if status else (0, 0)

    def _look(self) -> None:
        try:
            if self._store is None:
                self._store = self._open_store()
            champion = self._store.champion()
        except Exception as error:  # locked, or away: the model in memory goes on
            self.store_problem = _words(error)
            return
        self.store_problem = ""
        retry = bool(self.load_problem) and time.monotonic() >= self._retry_at
        if champion != self.champion or retry:
            self.champion = champion
            self._follow(champion, self._store)

    def _follow(self, champion: Champion, store: Store) -> None:
        """Change over to this champion, and bring its predecessor into memory after."""
        self.load_problem = ""
        if champion.version is None:
            self._publish(None)
            return
        model = self._load(champion.version, store)
        kept = self._models.get(champion.predecessor or 0)
        if model is None:
            self._stand_in(champion, store)
            return
        self._publish(self._route(champion, model, kept))
        if champion.predecessor is not None and kept is None:
            kept = self._load(champion.predecessor, store)
            self._publish(self._route(champion, model, kept))
        wanted = {champion.version, champion.predecessor}
        self._models = {number: each for number, each in self._models.items() if number in wanted}

    def _stand_in(self, champion: Champion, store: Store) -> None:
        """The champion cannot be loaded: who has answered so far goes on, or else its predecessor begins."""
        problem, before = self.load_problem, self.route.rungs if self.route else []
        stand_in = before[0][1] if before else None
        if stand_in is None and champion.predecessor is not None:
            stand_in = self._load(champion.predecessor, store)
            self.load_problem = problem
        if stand_in is not None:
            hold = _hold(champion)
            self._publish(Route(None, stand_in, hold, problem=problem, generation=champion.generation))

    def _route(self, champion: Champion, model: LoadedModel, predecessor: LoadedModel | None) -> Route:
        return Route(model, predecessor, _hold(champion), generation=champion.generation)

    def _publish(self, route: Route | None) -> None:
        self.route = route
        if route is not None:
            self._tell(route)

    def _load(self, number: int, store: Store) -> LoadedModel | None:
        """A version from memory, or from the store: digest compared, golden rows predicted, path compiled."""
        if number not in self._models:
            try:
                bundle = load_version(store, number)
                self._models[number] = LoadedModel(number, bundle, limits=self._limits)
            except Exception as error:  # an artifact may be anything
                self.load_problem = f"version {number} could not be loaded: {_words(error)}"
                self._retry_at = time.monotonic() + _RETRY_SECONDS
                return None
        return self._models[number]


def _hold(champion: Champion) -> str:
    return HOLD + champion.hold if champion.hold else ""


def _words(error: Exception) -> str:
    return str(error) if isinstance(error, ProdkitError) else f"{type(error).__name__}: {error}"[:300]


def _sqlite_file(url: str) -> Path | None:
    """The file of a SQLite database; None for any other."""
    if not url.startswith("sqlite"):
        return None
    path = sa.make_url(url).database
    return Path(path) if path and path != ":memory:" else None
