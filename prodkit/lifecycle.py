"""The life of a model: train, judge, promote, then score, look, decide and act, period by period of the calendar."""

from __future__ import annotations

import signal
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from joblib import Parallel, delayed

from prodkit.data.flights import Drill
from prodkit.errors import RunError
from prodkit.evidence import Window
from prodkit.params import PRIMARY
from prodkit.planning import Outlook, asked
from prodkit.runs.stops import Limits, signal_received
from prodkit.schedule import Entry, next_due
from prodkit.settings import outputs_folder
from prodkit.store.approvals import store_options
from prodkit.store.history import Event
from prodkit.store.registry import Store

if TYPE_CHECKING:
    from prodkit.runs.runner import Run

# What runs notebooks and writes pages is imported when there is something to do: most calls find nothing due.

__all__ = ["Lifecycle", "lifecycle"]

_WAITED = "no champion yet: too little evidence"
_COLUMNS = ("window", "decision", "served by", "champion after", "drill")
_MOVES = ("promote", "rollback", "hold", "release", "propose")
_MOST_CHANGES = 100  # of a table, that are remembered


@dataclass
class Lifecycle(Outlook):
    """One call of the loop: what is due at a moment is done, in order, and nothing twice.

    Made by :func:`lifecycle`.

    Attributes:
        tell: called with the name of each step as it begins.
        limits: how long each notebook may take.
        runs: that this call made.
    """

    tell: Callable[[str], None] = print
    limits: Limits = field(default_factory=Limits)
    runs: list[Run] = field(default_factory=list)
    _steps: dict[tuple[str, Window], dict[str, Any]] | None = None

    # The loop

    def live(self) -> Path:
        """Do what is due; returns the page to open.

        Raises:
            RunError: a notebook failed, or the first champion was found wanting.
            ParameterError: a fact that the plan rests on has changed.
        """
        self._steps = None  # somebody else may have done some meanwhile
        with self.store() as store, store.loop_turn() as holder:
            if holder:
                self.notes.append(f"{holder} is at it: nothing was done here")
                return outputs_folder() / "index.html"
            recorded = store.plan()
            if recorded is None or self.reason:
                store.record_plan(self.plan.to_dict(), reason=self.reason or "the first call")
            try:
                if self._begin(store):
                    while entry := next_due(self.agenda()):
                        self._period(store, entry)
                        self._write_page()
                    for entry in self.agenda():
                        if entry.state == "restated":
                            self._score_late(store, entry)
                    self._tell_anew(store)
                    _supersede(store)
            finally:
                self._note(store)
                page = outputs_folder() / "index.html"
                if self.runs or not page.exists():
                    page = self._write_page()
            return page

    def steps(self) -> dict[tuple[str, Window], dict[str, Any]]:
        """What is done of the plan: read once, for nobody else writes to it in this turn."""
        if self._steps is None:
            self._steps = super().steps()
        return self._steps

    def _begin(self, store: Store) -> bool:
        """Train a first champion, and judge it until it can be told; false while there is none.

        While the evidence is too little, the labels of the next period judge, and so on.
        """
        first, grace = self.plan.first, self.params.grace
        if store.champion().version is not None:
            return True
        if self.moment < first.end + grace:
            return False
        trained = self._step(store, "train", first, window=first)
        judged = self._validate(store, first, trained)
        periods = [entry.window for entry in self.agenda() if entry.rows]
        for period in (each for each in periods if each.end + grace <= self.moment):
            if store.champion().version is not None or judged["outcome"] != "inconclusive":
                break
            self._write_page()
            judged = self._validate(store, period, trained, until=period.end)
        if store.champion().version is not None:
            return True
        settled = judged["approval"] and store.settled(judged["run_id"])  # a person may have rejected it
        if settled == "proposed":
            proposed = next(each.version for each in store.proposals() if each.run_id == judged["run_id"])
            self.notes.append(f"waits for a person: version {proposed} is proposed as the "
                              f"first champion; prodkit models approve {judged['run_id']} {self._signed}")  # fmt: skip
        elif judged["outcome"] == "inconclusive":
            self.notes.append(
                f"{_WAITED} ({judged['reasons'][0]}); it is judged again when the next period is over"
            )
        else:
            raise self._no_champion(trained, judged)
        return False

    @property
    def _signed(self) -> str:
        return f"--name YOU --reason WHY{store_options(outputs_folder(), *self.places)}"

    def _no_champion(self, trained: Mapping[str, Any], judged: Mapping[str, Any]) -> RunError:
        """Why the loop cannot go on, and the command that lets it."""
        fix = f"To overrule it: prodkit models promote {trained['outputs']['version']} {self._signed}; then call again."
        place = str(outputs_folder() / "runs" / judged["run_id"] / "report.html")
        value = f"{judged['outcome']}: {judged['reasons'][0]}"
        return RunError("validate", rule="promoted no first champion", value=value, place=place, fix=fix)

    def _period(self, store: Store, entry: Entry) -> None:
        """Score, look at the data and at the model, decide, and do what was decided."""
        window, drill = entry.window, self._drill(entry.window)
        if drill and drill.kind == "bad release" and "score" in entry.steps:
            self._force_bad_release(store, window, drill)
        faults: dict[str, Any] = {"drill": drill.faults} if drill and drill.kind == "broken feed" else {}
        values = {"window": window, **faults}
        self._step(store, "score", window, **values)
        self._side_by_side(store, ("drift", "monitor"), window, **values)
        judged = self._step(store, "rollback", window, **values)
        wanted = judged["action"] == "retrain" and (
            not judged["approval"] or store.settled(judged["run_id"]) == "approved"
        )
        if wanted:
            learned = Window(self.plan.first.start, self._learned_until(window))
            values = {"recipe": judged["outputs"].get("recipe", "all"), "parent": judged["run_id"]}
            trained = self._step(store, "train", window, window=learned, **values)
            self._validate(store, window, trained)

    def _learned_until(self, window: Window) -> datetime:
        """The end of the newest period that was lived through: approved weeks later, a training learns those, too."""
        judged = [period.end for notebook, period in self.steps() if notebook == "rollback"]
        return max([window.end, *judged])

    def _score_late(self, store: Store, entry: Entry) -> None:
        """Score the rows that came after a period was scored, and none twice."""
        window, steps = entry.window, self.steps()
        done = [(name, each) for (name, at), each in steps.items() if at == window]
        name = f"late score {1 + sum(name.startswith('late score') for name, _ in done)}"
        folders = [each["outputs"]["folder"] for _, each in done if "folder" in each["outputs"]]
        values: dict[str, Any] = {
            "window": window,
            "as_of": self._late_moment(window),
            "scored_before": folders,
        }
        about = f"{entry.late_rows:,} rows of {self.plan.name(window)} came after it was scored"
        try:
            scored = self._step(store, "score", window, name=name, **values)
            self.notes.append(f"{about}; v{scored['outputs']['version']} has scored them")
        except RunError as error:
            if "window must hold rows" not in str(error):
                raise
            self._note_step(store, (name, window), self._outcome(store, self.runs[-1], entry.late_rows))
            self.notes.append(f"{about}; they bear ids that were scored before")

    def _tell_anew(self, store: Store) -> None:
        """Tell the figures of periods with late rows anew, beside the old ones."""
        for (name, window), each in list(self.steps().items()):
            if name.startswith("late score") and "folder" in each["outputs"]:
                values = {"window": window, "as_of": self._late_moment(window), "windows": 1}
                name = name.replace("score", "monitor")
                self._step(store, "monitor", window, name=name, rows=each["rows"], **values)

    def _late_moment(self, window: Window) -> str:
        """When the labels of a period are known that ever will be, if that has come: the later rows are judged then."""
        as_of = min(self.moment, window.end + self.params.label_delay)
        return as_of.replace(tzinfo=UTC).isoformat()

    def _drill(self, window: Window) -> Drill | None:
        return next((drill for drill in self.drills if datetime.fromisoformat(drill.start) in window), None)

    def _validate(
        self, store: Store, period: Window, trained: Mapping[str, Any], *, until: datetime | None = None
    ) -> dict[str, Any]:
        """Judge a challenger on the rows that its training left out, and on those that came since."""
        holdout, version = Window.parse(trained["outputs"]["holdout"]), trained["outputs"]["version"]
        window = Window(holdout.start, until or holdout.end)
        return self._step(
            store, "validate", period, window=window, challenger=version, parent=trained["run_id"]
        )

    def _force_bad_release(self, store: Store, window: Window, drill: Drill) -> None:
        """Rehearse a release that nobody validated."""
        learned = Window(self.plan.first.start, window.start)
        bad = self._step(store, "train", window, name="bad release", window=learned, drill=drill.faults)
        version, reason = bad["outputs"]["version"], f"drill: {drill.kind}, {drill.faults}"
        if not any(event.kind == "promote" and event.version == version for event in store.history()):
            now = store.champion().generation
            store.promote(version, expected_generation=now, run_id=bad["run_id"], reason=reason, force=True)

    # A step

    def _step(
        self, store: Store, notebook: str, period: Window, *, name: str = "", rows: int = 0, **values: Any
    ) -> dict[str, Any]:
        """Run a notebook for a period, once, and note it; returns what was noted."""
        key, known = (name or notebook, period), self.steps()
        if key in known:
            return known[key]
        self._make_ready()
        self.tell(f"{notebook} {values['window']}")
        document = self._acted(store, notebook, values)
        if document is None:
            document = self._outcome(store, self._work(notebook, values), rows)
        return self._note_step(store, key, document)

    def _note_step(self, store: Store, key: tuple[str, Window], document: dict[str, Any]) -> dict[str, Any]:
        run_id = document.pop("run_id")
        store.record_step(self.plan.number, *key, run_id=run_id, document=document)
        self.steps()[key] = document | {"run_id": run_id}
        return self.steps()[key]

    def _make_ready(self) -> None:
        from prodkit.runs.kernels import start_fork_server

        start_fork_server()

    def _outcome(self, store: Store, run: Run, rows: int = 0) -> dict[str, Any]:
        """What the loop asks of a run later."""
        names = ("run_id", "outcome", "action", "approval", "reasons", "outputs")
        document = {name: run[name] for name in names}
        if run["notebook"] == "monitor":
            figures = store.figures(run["run_id"], Window.parse(run["params"]["window"]))
            document["outputs"] = {**run["outputs"], "figures": figures}
        rows = next((each["rows"] for each in run["inputs"] if each["name"] == "scored"), rows)
        return {**document, "rows": rows, "champion_after": store.champion().version}

    def _acted(self, store: Store, notebook: str, values: Mapping[str, Any]) -> dict[str, Any] | None:
        """What a run of this step did before it ended early: to do it again would judge another champion."""
        given = {"drill": {}} | self.parameters(notebook, **values)
        own = given.keys() if notebook == "train" else {"drill", *values}  # to train again does no harm
        asked = {name: given[name] for name in own if name != "parent"}
        ended = ("interrupted", "running", *(("failed",) if notebook != "train" else ()))
        for row in (row for status in ended for row in store.runs(notebook, status=status)):
            params = {"drill": {}} | row["document"]["params"]
            if any(params.get(name) != value for name, value in asked.items()):
                continue  # somebody's, of other rows or another challenger
            events = [event for event in store.history() if event.run_id == row["run_id"]]
            document = {
                "run_id": row["run_id"], "outcome": "pass", "action": None, "approval": None, "rows": 0,
                "reasons": ["it was interrupted after it had acted"], "outputs": {},
                "champion_after": store.champion().version,
            }  # fmt: skip
            for event in events:
                if notebook == "train" and event.kind == "register" and event.version:
                    holdout = store.version(event.version).manifest["holdout"]
                    return document | {"outputs": {"version": event.version, "holdout": holdout}}
                if event.kind in _MOVES:
                    decided = next(each for each in events if each.kind == "decide")
                    approval = "proposed" if event.kind == "propose" else None
                    outputs = {"champion": event.detail.get("from", event.version)}
                    return document | {
                        "action": decided.detail["action"], "approval": approval, "outputs": outputs,
                        "outcome": "pass" if notebook == "validate" else "fail",
                    }  # fmt: skip
        return None

    def _side_by_side(self, store: Store, notebooks: Sequence[str], period: Window, **values: Any) -> None:
        """Run notebooks that do not wait for one another at the same time."""
        wanted = [notebook for notebook in notebooks if (notebook, period) not in self.steps()]
        self._make_ready()
        for notebook in wanted:
            self.tell(f"{notebook} {period}")
        # threads will do: the work is done in the kernels, which are processes of their own
        together = Parallel(n_jobs=max(len(wanted), 1), prefer="threads")
        for run in together(delayed(self._work)(notebook, values) for notebook in wanted):
            self._note_step(store, (run["notebook"], period), self._outcome(store, run))

    def _work(self, notebook: str, values: Mapping[str, Any]) -> Run:
        from prodkit.runs.runner import run_notebook

        if signal_received():
            rule = f"was interrupted by {signal.Signals(signal_received()).name}"
            raise RunError("lifecycle", rule=rule, fix="Start it again, and it goes on where it stopped.")
        given = {name: value for name, value in values.items() if name != "parent"}
        run = run_notebook(
            notebook, self.parameters(notebook, **given), parent=values.get("parent", ""), limits=self.limits
        )
        self.runs.append(run)
        if run["status"] != "succeeded":
            step = f"{notebook} {values['window']}"
            raise RunError(step, rule=f"failed: {'; '.join(run['reasons'])}", place=str(run.folder))
        return run

    # What is told

    def _note(self, store: Store) -> None:
        """Add what a person should know beside the table, and remember what the table held."""
        entries = self.agenda()
        told = self.told(entries)
        self.notes += told
        if not self.runs:
            self.notes.append(self.following(entries))
        if self._remembered.get("stamp") != self._stamp:
            log = self.log
            seen = self.moment.isoformat(timespec="minutes")
            log += [{"seen": seen, "what": line} for each in self.changes().values() for line in each]
            periods = {str(period): each.to_dict() for period, each in self.tallies.items()}
            document = {"stamp": self._stamp, "periods": periods, "changes": log[-_MOST_CHANGES:]}
            store.record_census(self.plan.number, document)

    def table(self) -> list[dict[str, str]]:
        """The periods that were lived through, a row each, with the same columns."""
        with self.present_store() as store:
            rows = [row for entry in self.agenda() for row in self._rows(store, entry.window)]
        known = dict.fromkeys(name for row in rows for name in row)
        names = ["window", *(name for name in known if name not in _COLUMNS), *_COLUMNS[1:]]
        shown = [name for name in names if name in known and (name != "drill" or self.drills)]
        return [{name: row.get(name, "") for name in shown} for row in rows]

    def _rows(self, store: Any, window: Window) -> list[dict[str, str]]:
        """A period as it was decided about, and beneath it its figures with the rows that came later."""
        steps = self.steps()
        judged, validated = steps.get(("rollback", window)), steps.get(("validate", window))
        if judged is None:
            return [{"window": self.plan.name(window), "decision": _WAITED}] if validated else []
        approval = store.settled(judged["run_id"]) if judged["approval"] else None
        decision = judged["action"] + (f" ({approval})" if approval else "")
        if validated:
            decision += f", then {validated['action']}"
        figures, drill = judged["outputs"].get("figures", {}), self._drill(window)
        served = {"served by": f"v{judged['outputs'].get('champion')}"}
        row = {"window": self.plan.name(window), **_shown(figures), "decision": decision, **served}
        row |= {
            "champion after": f"v{(validated or judged)['champion_after']}",
            "drill": drill.kind if drill else "",
        }
        late = [
            each for (name, at), each in steps.items() if at == window and name.startswith("late monitor")
        ]
        return [row, *(self._anew(window, each, figures) | served for each in late)]

    def _anew(self, window: Window, step: Mapping[str, Any], figures: Mapping[str, float]) -> dict[str, str]:
        """The same figures with the rows that came late."""
        now = step["outputs"]["figures"]
        shown = _shown({name: now[name][0] for name in figures if name in now})
        return {"window": f"{self.plan.name(window)} anew", **shown, "decision": f"{step['rows']} late rows"}

    def _write_page(self) -> Path:
        from prodkit.pages import write_site

        return write_site(outputs_folder(), *self.places)


def _supersede(store: Store) -> None:
    """A newer proposal makes the older ones of its kind out of date, so that a person is asked once."""
    newest: dict[str, Event] = {}
    for event in store.proposals():
        if older := newest.get(event.detail["action"]):
            store.reject(older.run_id, actor="prodkit", reason=f"superseded by {event.run_id}")
        newest[event.detail["action"]] = event


def _shown(figures: Mapping[str, float]) -> dict[str, str]:
    """The headline score first, then the loss that decides."""
    return {
        name: f"{figures[name]:.4f}" for name in sorted(figures, key=lambda name: name in PRIMARY.values())
    }


def lifecycle(
    files: Sequence[Path],
    given: Sequence[tuple[str, str]],
    *,
    until: datetime | None = None,
    reason: str = "",
) -> Lifecycle:
    """One call of the loop, at the clock or at a moment; the arguments are those of :func:`prodkit.planning.asked`."""
    return Lifecycle(**asked(files, given, until=until, reason=reason))
