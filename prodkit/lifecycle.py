"""The life of a model: train, judge, promote, then score, look, decide and act, period by period of the calendar."""

from __future__ import annotations

import signal
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from joblib import Parallel, delayed

from prodkit.data.windows import labelled, read_window, time_span
from prodkit.errors import ParameterError, RunError, WindowError
from prodkit.evidence import Window
from prodkit.pages import write_site
from prodkit.params import FLIGHTS, NOTEBOOKS, PRIMARY, TrainParams, unknown_parameter
from prodkit.runs.kernels import start_fork_server
from prodkit.runs.runner import Run, run_notebook
from prodkit.runs.stops import Limits, signal_received
from prodkit.schedule import Calendar, Done, Entry, Plan, agenda, first_training, silent_since, suited
from prodkit.settings import REAL_STORE, neutral_facts, outputs_folder, read_files, resolve, typed_value
from prodkit.store.registry import Store

__all__ = ["FLIGHTS_DRILLS", "Drill", "Lifecycle", "lifecycle"]

_WAITED = "no champion yet: too little evidence"
_MOST_WAITED = 6  # periods whose labels a first champion is judged by, at most
_COLUMNS = ("window", "decision", "served by", "champion after", "drill")
_RESTS_ON = ("target", "time_column", "every")  # facts without which a plan is another one
_MOVES = ("promote", "rollback", "hold", "release", "propose")
_FEW_ROWS = 10_000  # to learn from; fewer are soon learned by heart
_SIMPLE = {"max_iter": 50, "max_leaf_nodes": 8}


@dataclass(frozen=True)
class Drill:
    """A rehearsal: a fault that is put in on purpose in the period that holds ``start``.

    Attributes:
        start: a day of the period, as text.
        kind: ``bad release`` (a version trained with the fault is forced live before the period) or
            ``broken feed`` (the period's rows carry the fault).
        faults: column to fault, see :func:`prodkit.data.windows.read_window`.
    """

    start: str
    kind: str
    faults: dict[str, str]


FLIGHTS_DRILLS = (
    Drill("2013-09-01", "bad release", {"late": "scrambled"}),
    Drill("2013-11-01", "broken feed", {"temp": "celsius", "pressure": "empty"}),
)


@dataclass
class Lifecycle:
    """One call of the loop: what is due at a moment is done, in order, and nothing twice.

    Made by :func:`lifecycle`.

    Attributes:
        files: params files.
        given: ``-p`` pairs of name and text; each goes to every notebook that declares the name.
        params: the facts of the table.
        span: the part of the table that is lived through; its end is the moment at which the loop stands.
        live_from: first day that a champion serves; derived if None.
        reason: for a new plan; empty keeps the one on record.
        tell: called with the name of each step as it begins.
        limits: how long each notebook may take.
        runs: that this call made.
        notes: what a person should know beside the table.
    """

    files: Sequence[Path]
    given: Sequence[tuple[str, str]]
    params: TrainParams
    span: Window
    live_from: datetime | None = None
    reason: str = ""
    tell: Callable[[str], None] = print
    limits: Limits = field(default_factory=Limits)
    runs: list[Run] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    # What is there

    @property
    def moment(self) -> datetime:
        """At which the loop stands, naive UTC."""
        return self.span.end

    @property
    def drills(self) -> tuple[Drill, ...]:
        """Rehearsals belong to the bundled flights alone."""
        return FLIGHTS_DRILLS if self.params.data == FLIGHTS else ()

    @cached_property
    def _rows(self) -> pd.DataFrame:
        """Time and label of the rows that are there."""
        known = {"as_of": self.moment, "features": [self.params.time_column], "drill": {}}
        return read_window(self.params.model_copy(update=known), self.span, unique=False)

    @cached_property
    def _times(self) -> np.ndarray:
        """When they happened (n,), sorted."""
        return np.sort(self._rows[self.params.time_column].to_numpy(dtype="datetime64[us]"))

    def _counts(self, calendar: Calendar) -> dict[Window, int]:
        """How many rows each period holds."""
        first, last = (moment.astype(datetime) for moment in self._times[[0, -1]])
        periods = list(calendar.between(first, last + timedelta(microseconds=1)))
        edges = np.array([periods[0].start, *(each.end for each in periods)], dtype="datetime64[us]")
        counts = np.diff(np.searchsorted(self._times, edges))
        return {period: int(count) for period, count in zip(periods, counts, strict=True)}

    @cached_property
    def _planned_rows(self) -> dict[Window, int]:
        """The same by the periods of the plan: counted once a call, however often the agenda is asked."""
        return self._counts(self.plan.calendar)

    # The plan

    @cached_property
    def plan(self) -> Plan:
        """The plan on record; without one, or with a reason for another, the one that is made now."""
        with self._present_store() as store:
            document = store.plan() if store else None
            if document is None:
                return self._new_plan(1, store)
            plan = Plan.from_dict(document)
            if self.reason and store:
                done = [window.end for notebook, window in store.steps(plan.number) if notebook == "score"]
                if not done and store.champion().version is None:  # nobody has lived by the old one
                    return self._new_plan(plan.number + 1, store)
                calendar = Calendar(self.params.every)
                start = max([plan.live_from, *done])
                period = calendar.period(start)
                live = start if period.start == start else period.end
                return self._planned(plan.number + 1, Window(plan.first.start, live))
        for name in _RESTS_ON:
            now, then = getattr(self.params, name), plan.facts.get(name)
            if now != then:
                rule, fix = (
                    f"must stay {then}, which the plan rests on",
                    "Add --replan --reason WHY for a new plan.",
                )
                raise ParameterError(name, rule=rule, value=now, place=f"plan {plan.number}", fix=fix)
        return plan

    def _new_plan(self, number: int, store: Store | None) -> Plan:
        calendar = Calendar(self.params.every)
        begin = self._times[0].astype("datetime64[D]").astype(datetime)
        start = max(datetime(begin.year, begin.month, begin.day), self.span.start)
        if store is not None and store.champion().version is not None:  # of a store that knew no plans
            ends = [row["window_end"] for row in store.metric_rows(notebook="score")]
            live = datetime.fromisoformat(max(ends)) if ends else self.moment
            live = max(live, start + timedelta(microseconds=1))  # a table may have lost its old rows
            period = calendar.period(live)
            return self._planned(number, Window(start, live if period.start == live else period.end))
        ended = [period for period in self._counts(calendar) if period.end + self.params.grace <= self.moment]
        if self.live_from is not None:
            return self._planned(number, self._first_until(calendar.period(self.live_from).start, start))
        early = ended[max(1, len(ended) // 4) - 1].end if ended else self.moment
        first = first_training(
            ended, start, label_delay=self.params.label_delay, rows_a_day=self._rows_a_day(start, early)
        )
        return self._planned(number, first)

    def _first_until(self, live: datetime, start: datetime) -> Window:
        """The first training, if it ends where a person wants the champion to serve."""
        if not start < live:
            rule, value = "must lie in a period that begins after the first row", str(self.live_from)
            fix = f"The rows begin {start:%Y-%m-%d}; the period of that day, {live:%Y-%m-%d}."
            raise ParameterError("live_from", rule=rule, value=value, place=self.params.data, fix=fix)
        return Window(start, live)

    def _rows_a_day(self, start: datetime, end: datetime) -> float:
        """Labelled rows of the table's beginning; LabelError when there are none."""
        times = self._rows[self.params.time_column]
        known = labelled(self._rows[times < max(end, start + timedelta(days=1))], self.params)
        return len(known) / max((end - start) / timedelta(days=1), 1.0)

    def _planned(self, number: int, first: Window) -> Plan:
        rows_a_day, period = (
            self._rows_a_day(first.start, first.end),
            Calendar(self.params.every).period(first.end),
        )
        policies = suited(first, period.days, label_delay=self.params.label_delay, rows_a_day=rows_a_day)
        if self.params.model == "auto" and not self.params.model_args and rows_a_day * first.days < _FEW_ROWS:
            policies["train"]["model_args"] = _SIMPLE
        facts = {name: getattr(self.params, name) for name in _RESTS_ON}
        return Plan(number, self.params.every, "UTC", first, facts, policies)

    # What is due

    def agenda(self) -> list[Entry]:
        """The periods of the plan, as they stand."""
        with self._present_store() as store:
            done = self._done(store) if store else {}
        rows, grace = self._planned_rows, self.params.grace
        return agenda(self.plan, moment=self.moment, grace=grace, rows=rows, done=done)

    def _done(self, store: Store) -> dict[tuple[str, Window], Done]:
        """What is in the store; a retraining that a person has not approved asks for nothing."""
        done = {}
        for (notebook, window), document in store.steps(self.plan.number).items():
            action = document["action"]
            if document["approval"] and store.settled(document["run_id"]) != "approved":
                action = f"{action} ({store.settled(document['run_id'])})"
            done[notebook, window] = Done(action, document["rows"])
        return done

    # The loop

    def live(self) -> Path:
        """Do what is due; returns the page to open.

        Raises:
            RunError: a notebook failed, or no first champion could be promoted.
            ParameterError: a fact that the plan rests on has changed.
        """
        with self._store() as store, store.loop_turn() as holder:
            if holder:
                self.notes.append(f"{holder} is at it: nothing was done here")
                return outputs_folder() / "index.html"
            recorded = store.plan()
            if recorded is None or self.reason:
                store.record_plan(self.plan.to_dict(), reason=self.reason or "the first call")
            start_fork_server()
            try:
                if self._begin(store):
                    while entry := next((each for each in self.agenda() if each.state == "due"), None):
                        self._period(store, entry)
                        self._write_page()
            finally:
                self._note()
                page = self._write_page()
            return page

    def _begin(self, store: Store) -> bool:
        """Train a first champion, and judge it until it can be told; false while there is none.

        While the evidence is too little, the labels of the next period judge, and so on.
        """
        first = self.plan.first
        if store.champion().version is not None:
            return True
        if self.moment < first.end + self.params.grace:
            return False
        trained = self._step(store, "train", first, window=first)
        judged = self._validate(store, first, trained)
        over = self.moment - self.params.grace
        ended = [entry.window for entry in self.agenda() if entry.rows and entry.window.end <= over]
        for count, period in enumerate(ended):
            if store.champion().version is not None:
                return True
            self._write_page()
            if judged["outcome"] != "inconclusive" or count >= _MOST_WAITED:
                break
            judged = self._validate(store, period, trained, until=period.end)
        if store.champion().version is None:
            settled = judged["approval"] and store.settled(judged["run_id"])  # a person may have rejected it
            raise self._no_champion(trained, {**judged, "approval": settled})
        return True

    def _no_champion(self, trained: Mapping[str, Any], judged: Mapping[str, Any]) -> RunError:
        """Why the loop cannot go on, and the command that lets it."""
        signed = f"--name YOU --reason WHY --out {outputs_folder()}"
        version = trained["outputs"]["version"]
        rule = "promoted no first champion"
        fix = f"To overrule it: prodkit models promote {version} {signed}; then call again."
        if judged["approval"] == "proposed":
            rule = "proposed a first champion, which a person has to approve"
            fix = f"Approve it: prodkit models approve {judged['run_id']} {signed}; then call again."
        place = str(outputs_folder() / "runs" / judged["run_id"] / "report.html")
        value = f"{judged['outcome']}: {judged['reasons'][0]}"
        return RunError("validate", rule=rule, value=value, place=place, fix=fix)

    def _period(self, store: Store, entry: Entry) -> None:
        """Score, look at the data and at the model, decide, and do what was decided."""
        window, drill = entry.window, self._drill(entry.window)
        if drill and drill.kind == "bad release" and "score" in entry.steps:
            self._force_bad_release(store, window, drill)
        faults: dict[str, Any] = {"drill": drill.faults} if drill and drill.kind == "broken feed" else {}
        values = {"window": window, **faults}
        self._step(store, "score", window, rows=entry.rows, **values)
        self._side_by_side(store, ("drift", "monitor"), window, **values)
        judged = self._step(store, "rollback", window, **values)
        wanted = judged["action"] == "retrain" and (
            not judged["approval"] or store.settled(judged["run_id"]) == "approved"
        )
        if wanted:
            learned = Window(self.plan.first.start, window.end)
            trained = self._step(store, "train", window, window=learned, parent=judged["run_id"])
            self._validate(store, window, trained)

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
        key, known = (name or notebook, period), store.steps(self.plan.number)
        if key in known:
            return known[key]
        self.tell(f"{notebook} {values['window']}")
        document = self._acted(store, notebook, values)
        if document is None:
            document = self._outcome(store, self._work(notebook, values), rows)
        run_id = document.pop("run_id")
        store.record_step(self.plan.number, key[0], period, run_id=run_id, document=document)
        return document | {"run_id": run_id}

    def _outcome(self, store: Store, run: Run, rows: int = 0) -> dict[str, Any]:
        """What the loop asks of a run later."""
        kept = {name: run[name] for name in ("run_id", "outcome", "action", "approval", "reasons", "outputs")}
        return {**kept, "rows": rows, "champion_after": store.champion().version}

    def _acted(self, store: Store, notebook: str, values: Mapping[str, Any]) -> dict[str, Any] | None:
        """What a run of this step did before it ended early: to do it again would judge another champion."""
        given = {"drill": {}} | self._given(notebook, **values)
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
        known = store.steps(self.plan.number)
        wanted = [notebook for notebook in notebooks if (notebook, period) not in known]
        for notebook in wanted:
            self.tell(f"{notebook} {period}")
        # threads will do: the work is done in the kernels, which are processes of their own
        together = Parallel(n_jobs=max(len(wanted), 1), prefer="threads")
        for run in together(delayed(self._work)(notebook, values) for notebook in wanted):
            document = self._outcome(store, run)
            run_id = document.pop("run_id")
            store.record_step(self.plan.number, run["notebook"], period, run_id=run_id, document=document)

    def _work(self, notebook: str, values: Mapping[str, Any]) -> Run:
        if signal_received():
            rule = f"was interrupted by {signal.Signals(signal_received()).name}"
            raise RunError("lifecycle", rule=rule, fix="Start it again, and it goes on where it stopped.")
        given = {name: value for name, value in values.items() if name != "parent"}
        run = run_notebook(
            notebook, self._given(notebook, **given), parent=values.get("parent", ""), limits=self.limits
        )
        self.runs.append(run)
        if run["status"] != "succeeded":
            step = f"{notebook} {values['window']}"
            raise RunError(step, rule=f"failed: {'; '.join(run['reasons'])}", place=str(run.folder))
        return run

    def _given(self, notebook: str, **values: Any) -> dict[str, Any]:
        """Parameters that suit the table, then from files, then from the command, then from the loop."""
        own = NOTEBOOKS[notebook].model_fields
        given = {**self.plan.policies.get(notebook, {}), **read_files(notebook, self.files)}
        given |= {name: typed_value(notebook, name, text) for name, text in self.given if name in own}
        texts = {name: str(value) for name, value in values.items() if isinstance(value, Window)}
        return given | values | texts

    # What is told

    def _note(self) -> None:
        """Add what a person should know beside the table."""
        entries, plan = self.agenda(), self.plan
        for entry in entries:
            if entry.late_rows:
                self.notes.append(
                    f"{entry.late_rows:,} rows of {_name(entry.window)} came after it was scored"
                )
            if entry.state == "empty":
                self.notes.append(f"{_name(entry.window)} has no rows, and was passed over")
        last = self._times[-1].astype(datetime)
        if since := silent_since(plan, moment=self.moment, grace=self.params.grace, last=last):
            self.notes.append(f"feed is silent since {since:%Y-%m-%d %H:%M}")
        if not self.runs:
            following = next((each.window for each in entries if each.state == "open"), None)
            following = following or plan.calendar.period(max(self.moment, plan.live_from))
            self.notes.append(f"nothing is due; the next period ends {following.end:%Y-%m-%d %H:%M} (UTC)")

    def table(self) -> list[dict[str, str]]:
        """The periods that were lived through, a row each, with the same columns."""
        with self._present_store() as store:
            steps = store.steps(self.plan.number) if store else {}
            rows = [row for entry in self.agenda() if (row := self._row(store, steps, entry.window))]
        known = dict.fromkeys(name for row in rows for name in row)
        names = ["window", *(name for name in known if name not in _COLUMNS), *_COLUMNS[1:]]
        shown = [name for name in names if name in known and (name != "drill" or self.drills)]
        return [{name: row.get(name, "") for name in shown} for row in rows]

    def _row(
        self, store: Any, steps: Mapping[tuple[str, Window], Mapping[str, Any]], window: Window
    ) -> dict[str, str] | None:
        judged, validated = steps.get(("rollback", window)), steps.get(("validate", window))
        if judged is None:
            return {"window": _name(window), "decision": _WAITED} if validated else None
        approval = store.settled(judged["run_id"]) if judged["approval"] else None
        decision = judged["action"] + (f" ({approval})" if approval else "")
        if validated:
            decision += f", then {validated['action']}"
        figures, drill = judged["outputs"].get("figures", {}), self._drill(window)
        row = {name: f"{figures[name]:.4f}" for name in sorted(figures, key=_losses_last)}
        after = (validated or judged)["champion_after"]
        row |= {"decision": decision, "served by": f"v{judged['outputs'].get('champion')}"}
        return {
            "window": _name(window),
            **row,
            "champion after": f"v{after}",
            "drill": drill.kind if drill else "",
        }

    # Places

    def _store(self, *, create: bool = True) -> Store:
        store, artifacts = self._places
        return Store.open(resolve(store), resolve(artifacts), create=create)

    def _present_store(self) -> AbstractContextManager[Store | None]:
        """The store, if there is one: to read never makes it."""
        try:
            return self._store(create=False)
        except ParameterError:
            return nullcontext()

    @property
    def _places(self) -> tuple[str, str]:
        """Where versions and artifacts lie, as typed."""
        store = self.params.store if self.params.store != "demo" else REAL_STORE
        return store, self.params.artifacts

    def _write_page(self) -> Path:
        return write_site(outputs_folder(), *self._places)


def _losses_last(name: str) -> bool:
    return name in PRIMARY.values()


def _name(window: Window) -> str:
    """A period in a table: the month, or else its dates."""
    following = (window.start + timedelta(days=31)).replace(day=1)
    return f"{window.start:%Y-%m}" if window.start.day == 1 and window.end == following else str(window)


def _utc(moment: datetime) -> datetime:
    return moment.astimezone(UTC).replace(tzinfo=None) if moment.tzinfo else moment


def _date(name: str, text: str) -> datetime:
    try:
        return _utc(datetime.fromisoformat(text))
    except (ValueError, OverflowError) as error:
        rule = "must be a date such as 2013-04-01"
        raise ParameterError(name, rule=rule, value=text, place="-p, for lifecycle") from error


def lifecycle(
    files: Sequence[Path],
    given: Sequence[tuple[str, str]],
    *,
    until: datetime | None = None,
    reason: str = "",
) -> Lifecycle:
    """One call of the loop, at the clock or at a moment.

    Args:
        files: params files.
        given: ``-p`` pairs. ``window`` says which part of the table is lived through, ``live_from`` from which day on a
            champion serves.
        until: the moment at which it stands; now if None.
        reason: for a new plan.

    Raises:
        ParameterError: a wrong parameter, or a name in ``given`` that no notebook declares.
        WindowError: the table is empty at that moment.
    """
    everybody = {name for kind in NOTEBOOKS.values() for name in kind.model_fields} | {"live_from"}
    for name, _ in given:
        if name not in everybody:
            raise unknown_parameter(name, known=everybody, place="-p, for lifecycle")
    facts = read_files("train", files)
    facts |= {
        name: typed_value("train", name, text) for name, text in given if name in TrainParams.model_fields
    }
    part = facts.pop("window", None)
    facts |= neutral_facts(facts, known=TrainParams.model_fields)
    params = TrainParams.check({**facts, **({"window": part} if part else {})})
    Calendar(params.every)
    limit = _utc(params.window.end) if part else datetime.max
    moment = min(until or datetime.now(UTC).replace(tzinfo=None), limit)
    start = _utc(params.window.start) if part else time_span(params).start
    if moment <= start:
        rule, value = "must be after the first row", f"{moment:%Y-%m-%d %H:%M}"
        raise WindowError(
            "--until", rule=rule, value=value, place=params.data, fix=f"It begins {start:%Y-%m-%d}."
        )
    live = next((_date(name, text) for name, text in reversed(given) if name == "live_from"), None)
    rest = [(name, text) for name, text in given if name not in ("window", "live_from")]
    return Lifecycle(files, rest, params, Window(start, moment), live, reason)
