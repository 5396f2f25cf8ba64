"""The store's champion, followed: the new version is loaded and tried before the old one is let go."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable
from pathlib import Path

import sqlalchemy as sa

from prodkit.decisions.holds import Broken
from prodkit.errors import ProdkitError
from prodkit.scoring.breaker import Limits
from prodkit.scoring.guard import HOLD, LoadedModel, Route
from prodkit.store.history import Champion, Event
from prodkit.store.registry import Store
from prodkit.store.workspace import load_version

__all__ = ["Follower"]

_RETRY_SECONDS = 5.0  # until a version that could not be loaded is tried again
_WATCH_SECONDS = 0.02  # between two looks at the time of a SQLite file


class Follower:
    """A thread that keeps a :class:`prodkit.scoring.guard.Route` true to what the store says.

    Champion and predecessor are both kept in memory, so that a rollback is a change of pointers. Where a version cannot
    be loaded, or the store has vanished or lost its champion, the model in memory goes on, and the problem is told.

    Args:
        open_store: opens the store; called in the thread, which alone uses it.
        change: is given each new route.
        url: of the database; a change of a SQLite file is seen at once, by its time.
        poll_seconds: between two looks into the database.
        limits: of the breakers.

    Attributes:
        store_problem: what is wrong with the store; empty if nothing is.
        load_problem: why a version could not be loaded; empty if all could.
        route: who answers; None before anybody could be loaded.
    """

    def __init__(
        self,
        open_store: Callable[[], Store],
        change: Callable[[Route], None],
        *,
        url: str = "",
        poll_seconds: float = 1.0,
        limits: Limits | None = None,
    ) -> None:
        self._open_store, self._change, self._limits = open_store, change, limits
        self._poll_seconds, self._file = poll_seconds, _sqlite_file(url)
        self._models: dict[int, LoadedModel] = {}
        self._store: Store | None = None
        self._champion = Champion()  # that the models in memory belong to
        self._held: Event | None = None
        self._retry_at, self._doubtful = 0.0, False  # whether another store was seen meanwhile
        self._stop, self._looked = threading.Event(), threading.Event()
        self._thread = threading.Thread(target=self._run, name="prodkit-follower", daemon=True)
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
            while time.monotonic() < until and self._stamp() == stamp:
                pause = _WATCH_SECONDS if self._file else self._poll_seconds
                if self._stop.wait(min(pause, self._poll_seconds)):
                    break
        if self._store is not None:
            self._store.close()

    def _stamp(self) -> tuple[int, int]:
        """Time and size of the database's file, which change with each commit; the file itself is not opened.

        To open and close it would end the locks that SQLite holds for this process.
        """
        try:
            status = os.stat(self._file) if self._file else None
        except OSError:
            return (0, 0)
        return (status.st_mtime_ns, status.st_size) if status else (0, 0)

    def _look(self) -> None:
        try:
            if self._file and not self._file.exists() and self.route is not None:
                self._doubtful = True
                raise FileNotFoundError("its file is gone")  # to connect would make an empty one
            if self._store is None:
                self._store = self._open_store()
            champion = self._store.champion()
            held = self._store.held() if champion.hold else None
        except Exception as error:  # locked, or away: the model in memory goes on
            self.store_problem = _words(error)
            return
        if self.route is not None and champion.version is None:
            self._doubtful = True
            self.store_problem = f"the store has lost its champion: version {self._champion.version} goes on"
            return
        if champion.generation < self._champion.generation:
            self._doubtful = True
            fell = f"the generation fell from {self._champion.generation} to {champion.generation}"
            self.store_problem = f"{fell}: this is another store; version {self._champion.version} goes on"
            return
        self.store_problem = ""
        retry = bool(self.load_problem) and time.monotonic() >= self._retry_at
        if (champion, held) != (self._champion, self._held) or retry or self._doubtful:
            if self._doubtful:  # its numbers may be of other models
                self._models = {}
            self._champion, self._held, self._doubtful = champion, held, False
            self._follow(champion, held, self._store)

    def _follow(self, champion: Champion, held: Event | None, store: Store) -> None:
        """Change over to this champion, and bring its predecessor into memory after."""
        self.load_problem = ""
        if champion.version is None:
            return
        model = self._load(champion.version, store)
        before = self._models.get(champion.predecessor or 0)
        if model is not None:
            self._publish(_route(champion, held, model, before))
        if champion.predecessor is not None and before is None and (model or self.route is None):
            problem = self.load_problem
            before = self._load(champion.predecessor, store)
            self.load_problem = problem or self.load_problem
            if model is not None:
                self._publish(_route(champion, held, model, before))
        if model is None:  # who has answered so far goes on, or else the predecessor begins
            rungs = self.route.rungs if self.route else []
            if stand_in := rungs[0][1] if rungs else before:
                self._publish(_route(champion, held, None, stand_in, problem=self.load_problem))
            return
        wanted = {champion.version, champion.predecessor}
        self._models = {number: each for number, each in self._models.items() if number in wanted}

    def _publish(self, route: Route) -> None:
        self.route = route
        self._change(route)

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


def _route(
    champion: Champion,
    held: Event | None,
    model: LoadedModel | None,
    before: LoadedModel | None,
    problem: str = Route.problem,
) -> Route:
    """Who answers: under a hold, who is asked without what is broken, or only the simple rule."""
    broken, first = Broken(), model or before
    if held is not None and first is not None:
        broken = Broken.recorded(held, version=first.version, bundle=first.bundle)
    distrust = HOLD + broken.distrust if broken.distrust else ""
    return Route(model, before, distrust, problem, champion.generation, broken.masked, champion.hold)


def _words(error: Exception) -> str:
    return str(error) if isinstance(error, ProdkitError) else f"{type(error).__name__}: {error}"[:300]


def _sqlite_file(url: str) -> Path | None:
    """The file of a SQLite database; None for any other."""
    path = sa.make_url(url).database if url.startswith("sqlite") else None
    return Path(path) if path and path != ":memory:" else None
