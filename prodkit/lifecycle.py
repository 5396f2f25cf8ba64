"""The life of a model, told by its notebooks: train, judge, promote, then month by month score, look, decide, act."""

from __future__ import annotations

import signal
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from functools import cached_property
from pathlib import Path
from typing import Any

from prodkit.errors import ParameterError, RunError
from prodkit.evidence import Window
from prodkit.journal import Journal
from prodkit.pages import write_site
from prodkit.params import FLIGHTS, NOTEBOOKS, PRIMARY, TrainParams, unknown_parameter
from prodkit.runs.kernels import start_fork_server
from prodkit.runs.runner import Run, run_notebook
from prodkit.runs.stops import Limits, signal_received
from prodkit.settings import REAL_STORE, neutral_facts, outputs_folder, read_files, resolve, typed_value
from prodkit.store.registry import Store

__all__ = ["FLIGHTS_DRILLS", "Drill", "Lifecycle", "plan"]


_WAITED = "no champion yet: too little evidence"
_COLUMNS = ("window", "decision", "served by", "champion after", "drill")


@dataclass(frozen=True)
class Drill:
    """A rehearsal: a fault that is put in on purpose in the window that begins with ``month``.

    Attributes:
        month: first day of the window, as text.
        kind: ``bad release`` (a version trained with the fault is forced live before the window) or
            ``broken feed`` (the window's rows carry the fault).
        faults: column to fault, see :func:`prodkit.data.windows.read_window`.
    """

    month: str
    kind: str
    faults: dict[str, str]


FLIGHTS_DRILLS = (
    Drill("2013-09-01", "bad release", {"late": "scrambled"}),
    Drill("2013-11-01", "broken feed", {"temp": "celsius", "pressure": "empty"}),
)


@dataclass
class Lifecycle:
    """One story, from the first training to the last window. Told again, it goes on where it stopped.

    Args:
        files: params files.
        given: ``-p`` pairs of name and text; each goes to every notebook that declares the name.
        first: the window of the first training.
        windows: the windows that the model lives through, in order.
        drills: rehearsals.
        suits: for each notebook, parameters that suit the table; they hold where nothing else is said.
        tell: called with the name of each step as it begins.
        force: tell it anew.
        limits: how long each notebook may take.
    """

    files: Sequence[Path]
    given: Sequence[tuple[str, str]]
    first: Window
    windows: Sequence[Window]
    drills: Sequence[Drill] = ()
    suits: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    tell: Callable[[str], None] = print
    force: bool = False
    limits: Limits = field(default_factory=Limits)
    runs: list[Run] = field(default_factory=list)
    story: list[dict[str, str]] = field(default_factory=list)

    @property
    def steps(self) -> int:
        """How many notebooks run if nothing has to be retrained."""
        return 2 + 4 * len(self.windows) + sum(drill.kind == "bad release" for drill in self.drills)

    @cached_property
    def journal(self) -> Journal:
        """What was done before."""
        told = {
            "windows": [str(window) for window in (self.first, *self.windows)],
            "drills": [vars(drill) for drill in self.drills],
            "params": {notebook: self._given(notebook) for notebook in NOTEBOOKS},
        }
        return Journal(outputs_folder() / "lifecycle.json", told, fresh=self.force)

    def live(self) -> Path:
        """Run it all; returns the page to open.

        Raises:
            RunError: a notebook failed, or no first champion could be promoted.
        """
        self._require_own_store()
        start_fork_server()
        for window in self._begin():
            self._month(window)
            self._write_page()
        return self._write_page()

    def _begin(self) -> list[Window]:
        """Train a first champion, and judge it until it can be told; returns the windows that are left to live.

        While the evidence is too little, it waits for the labels of another window, for half of the story at most.
        """
        trained = self._run("train", window=self.first)
        judged, left = self._validate(trained), list(self.windows)
        while not (judged["action"] == "promote" and self._champion() is not None):
            waited = (self.journal.row_of(str(left[0])) or {}).get("decision") == _WAITED
            if not waited and self._champion() is not None:
                break  # a person has chosen
            self._write_page()
            if judged["outcome"] != "inconclusive" or len(left) <= len(self.windows) / 2:
                raise self._no_champion(judged)
            self._close(left[0], {"decision": _WAITED})
            judged = self._validate(trained, until=left.pop(0).end)
        return left

    def _require_own_store(self) -> None:
        """A story begins without a champion: one that has seen its windows would not be judged by them."""
        if self._champion() is not None and not self.journal.steps:
            fix = "Tell this one in a folder of its own, with --out FOLDER, or name another `store`."
            rule, value = "must hold no champion when a story begins", f"version {self._champion()}"
            raise ParameterError("store", rule=rule, value=value, place=str(outputs_folder()), fix=fix)

    def _no_champion(self, judged: Run) -> RunError:
        """Why the story cannot go on, and the command that lets it."""
        signed = f"--name YOU --reason WHY --out {outputs_folder()}"
        start = f"prodkit models promote {judged['outputs']['challenger']} {signed}"
        rule, fix = "promoted no first champion", f"To overrule it: {start}; then start again."
        if judged["approval"] == "proposed":
            rule = "proposed a first champion, which a person has to approve"
            fix = f"Approve it: prodkit models approve {judged['run_id']} {signed}; then start again."
        value, place = f"{judged['outcome']}: {judged['reasons'][0]}", str(judged.folder / "report.html")
        return RunError("validate", rule=rule, value=value, place=place, fix=fix)

    def _month(self, window: Window) -> None:
        """Score, look at the data and at the model, decide, and do what was decided."""
        drill = next((drill for drill in self.drills if drill.month == f"{window.start:%Y-%m-%d}"), None)
        if drill and drill.kind == "bad release":
            self._force_bad_release(window, drill)
        faults: dict[str, Any] = {"drill": drill.faults} if drill and drill.kind == "broken feed" else {}
        self._run("score", window=window, **faults)
        self._run_both(("drift", "monitor"), window=window, **faults)
        judged = self._run("rollback", window=window, **faults)
        approval = self._approval(judged)
        said = judged["action"] + (f" ({approval})" if approval else "")
        if judged["action"] == "retrain" and approval in (None, "approved"):
            retrained = self._run(
                "train", window=Window(self.first.start, window.end), parent=judged["run_id"]
            )
            said += f", then {self._validate(retrained)['action']}"
        figures = judged["outputs"].get("figures", {})
        row = {name: f"{figures[name]:.4f}" for name in sorted(figures, key=_losses_last)}
        row |= {"decision": said, "served by": f"v{judged['outputs']['champion']}"}
        self._close(
            window, row | {"champion after": f"v{self._champion()}", "drill": drill.kind if drill else ""}
        )

    def _approval(self, judged: Run) -> str | None:
        """What has become by now of what a run proposed; None if no person was asked."""
        if not judged["approval"]:
            return None
        with self._store() as store:
            return store.settled(judged["run_id"])

    def _close(self, window: Window, row: Mapping[str, str]) -> None:
        """Note that a window is over; of one that was lived through before, the row of then stays.

        But for its decision: a person may have settled it since.
        """
        before = self.journal.row_of(str(window))
        if before is None:
            name = f"{window.start:%Y-%m}" if _is_month(window) else str(window)
            self.journal.closed(str(window), {"window": name, **row})
        elif before["decision"] != row["decision"]:
            self.journal.closed(str(window), before | {"decision": row["decision"]})
        self.story.append(self.journal.row_of(str(window)) or {})

    def table(self) -> list[dict[str, str]]:
        """The story as the rows of one table: every row has the same columns."""
        known = dict.fromkeys(name for row in self.story for name in row)
        names = ["window", *(name for name in known if name not in _COLUMNS), *_COLUMNS[1:]]
        shown = [name for name in names if name in known and (name != "drill" or self.drills)]
        return [{name: row.get(name, "") for name in shown} for row in self.story]

    def _validate(self, trained: Run, *, until: datetime | None = None) -> Run:
        """Judge a challenger on the rows that its training left out, and on those that came since."""
        holdout = Window.parse(trained["outputs"]["holdout"])
        window = Window(holdout.start, until or holdout.end)
        version, parent = trained["outputs"]["version"], trained["run_id"]
        return self._run("validate", window=window, challenger=version, parent=parent)

    def _force_bad_release(self, window: Window, drill: Drill) -> None:
        """Rehearse a release that nobody validated."""
        bad = self._run("train", window=Window(self.first.start, window.start), drill=drill.faults)
        version, reason = bad["outputs"]["version"], f"drill: {drill.kind}, {drill.faults}"
        with self._store() as store:
            if any(event.kind == "promote" and event.version == version for event in store.history()):
                return  # in a story that is told again
            now = store.champion().generation
            store.promote(version, expected_generation=now, run_id=bad["run_id"], reason=reason, force=True)

    def _run(self, notebook: str, *, parent: str = "", **values: Any) -> Run:
        self.tell(f"{notebook} {values['window']}")
        step = self._step(notebook, values)
        run = self.journal.run_of(step) or self._work(
            notebook, self._given(notebook, **values), parent=parent
        )
        return self._keep(step, run)

    def _work(self, notebook: str, given: Mapping[str, Any], *, parent: str = "") -> Run:
        if signal_received():
            rule = f"was interrupted by {signal.Signals(signal_received()).name}"
            raise RunError("lifecycle", rule=rule, fix="Start it again, and it goes on where it stopped.")
        return run_notebook(notebook, given, parent=parent, limits=self.limits)

    def _run_both(self, notebooks: Sequence[str], **values: Any) -> None:
        """Run notebooks that do not wait for one another side by side."""
        from joblib import Parallel, delayed

        steps = {notebook: self._step(notebook, values) for notebook in notebooks}
        for notebook in notebooks:
            self.tell(f"{notebook} {values['window']}")
        known = {notebook: self.journal.run_of(step) for notebook, step in steps.items()}
        work = [(notebook, self._given(notebook, **values)) for notebook, run in known.items() if run is None]
        # threads will do: the work is done in the kernels, which are processes of their own
        side_by_side = Parallel(n_jobs=len(notebooks), prefer="threads")
        found = side_by_side(delayed(self._work)(*each) for each in work)
        done = {name: run for name, run in known.items() if run} | {run["notebook"]: run for run in found}
        for notebook, step in steps.items():
            self._keep(step, done[notebook])

    def _step(self, notebook: str, values: Mapping[str, Any]) -> str:
        return f"{notebook} {values['window']}" + (" drill" if values.get("drill") else "")

    def _given(self, notebook: str, **values: Any) -> dict[str, Any]:
        """Parameters that suit the table, then from files, then from the command, then from the story."""
        own = NOTEBOOKS[notebook].model_fields
        given = {**self.suits.get(notebook, {}), **read_files(notebook, self.files)}
        given |= {name: typed_value(notebook, name, text) for name, text in self.given if name in own}
        texts = {name: str(value) for name, value in values.items() if isinstance(value, Window)}
        return given | values | texts

    def _keep(self, step: str, run: Run) -> Run:
        """Add a run to the story; one that failed ends it."""
        self.runs.append(run)
        if run["status"] != "succeeded":
            raise RunError(step, rule=f"failed: {'; '.join(run['reasons'])}", place=str(run.folder))
        self.journal.did(step, run)
        return run

    def _champion(self) -> int | None:
        with self._store() as store:
            return store.champion().version

    def _store(self) -> Store:
        store, artifacts = self._places()
        return Store.open(resolve(store), resolve(artifacts))

    def _places(self) -> tuple[str, str]:
        """Where versions and artifacts lie, as typed."""
        given, artifacts = self._given("train"), TrainParams.model_fields["artifacts"].default
        return given.get("store", REAL_STORE), given.get("artifacts", artifacts)

    def _write_page(self) -> Path:
        return write_site(outputs_folder(), *self._places())


def _losses_last(name: str) -> bool:
    return name in PRIMARY.values()


def _is_month(window: Window) -> bool:
    following = window.start + timedelta(days=31)
    return window.start.day == 1 and window.end == following.replace(day=1)


def plan(files: Sequence[Path], given: Sequence[tuple[str, str]], *, force: bool = False) -> Lifecycle:
    """Lay out the story of a table: its first quarter is learned from, the rest is lived through.

    ``window`` says which part of the table the story covers; all of it if it is not given. Drills belong to
    the bundled flights alone.

    Raises:
        ParameterError: a wrong parameter, or a name in ``given`` that no notebook declares.
    """
    # these import pandas, which a process that only runs one of the notebooks does not need
    from prodkit.data.windows import time_span
    from prodkit.outline import read_outline

    everybody = {name for kind in NOTEBOOKS.values() for name in kind.model_fields}
    for name, _ in given:
        if name not in everybody:
            raise unknown_parameter(name, known=everybody, place="-p, for lifecycle")
    facts = read_files("train", files)
    facts |= {
        name: typed_value("train", name, text) for name, text in given if name in TrainParams.model_fields
    }
    story = facts.pop("window", None)
    facts |= neutral_facts(facts, known=TrainParams.model_fields)
    params = TrainParams.check({**facts, **({"window": story} if story else {})})
    span = params.window if story else time_span(params)
    laid = read_outline(params, span)
    drills = FLIGHTS_DRILLS if params.data == FLIGHTS else ()
    rest = [(name, text) for name, text in given if name != "window"]
    return Lifecycle(files, rest, laid.first, laid.rest, drills, laid.policies, force=force)
