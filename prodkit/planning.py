"""What the loop looks at before it does anything: the facts, the moment, the plan on record, and what is due by it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from functools import cached_property
from pathlib import Path
from typing import Any

from prodkit.data.census import EVER, Tally, census, contents, differences
from prodkit.data.flights import FLIGHTS_DRILLS, Drill
from prodkit.data.sources import open_labels, open_table
from prodkit.data.windows import labelled, read_window
from prodkit.errors import ParameterError, ProdkitError, WindowError
from prodkit.evidence import Window, utc
from prodkit.params import FLIGHTS, NOTEBOOKS, TrainParams, unknown_parameter
from prodkit.schedule import (
    Calendar,
    Done,
    Entry,
    Plan,
    agenda,
    first_training,
    passed_over,
    require_decidable,
    silent_since,
    suited,
    suited_alone,
    without_strays,
)
from prodkit.settings import REAL_STORE, neutral_facts, read_files, resolve, typed_value
from prodkit.store.registry import Store

__all__ = ["Outlook", "asked", "suited_to"]

_RESTS_ON = ("target", "time_column", "every", "timezone")  # facts without which a plan is another one
_FEW_ROWS = 10_000  # to learn from; fewer are soon learned by heart
_SIMPLE = {"max_iter": 50, "max_leaf_nodes": 8}
_LOOKED_INTO = 3  # periods that each call reads again, to see whether they were rewritten


@dataclass
class Outlook:
    """What is planned and due at a moment, for whoever asks and for the loop that does it; nothing is written.

    Attributes:
        files: params files.
        given: ``-p`` pairs of name and text; each goes to every notebook that declares the name.
        params: the facts of the table.
        span: the part of the table that is lived through; its end is the moment at which the loop stands.
        live_from: first day that a champion serves; derived if None.
        reason: for a new plan; empty keeps the one on record.
        notes: what a person should know beside the periods.
    """

    files: Sequence[Path]
    given: Sequence[tuple[str, str]]
    params: TrainParams
    span: Window
    live_from: datetime | None = None
    reason: str = ""
    notes: list[str] = field(default_factory=list)

    @property
    def moment(self) -> datetime:
        """At which the loop stands, naive UTC."""
        return self.span.end

    @property
    def drills(self) -> tuple[Drill, ...]:
        """Rehearsals belong to the bundled flights alone."""
        return FLIGHTS_DRILLS if self.params.data == FLIGHTS else ()

    # What is there

    @cached_property
    def _stamp(self) -> str:
        """The same as long as nobody has written to the table."""
        labels = open_labels(self.params).stamp() if self.params.labels else ""
        return f"{open_table(self.params).stamp()} {labels} {self.span.start} {self.params.target}"

    @cached_property
    def _remembered(self) -> dict[str, Any]:
        """What the last call has seen of the table; empty before there was one, or under another plan."""
        with self.present_store() as store:
            return (store.census(self.plan.number) if store else None) or {}

    @cached_property
    def seen(self) -> dict[Window, Tally]:
        """The same by period."""
        periods = self._remembered.get("periods", {})
        return {Window.parse(name): Tally.from_dict(each) for name, each in periods.items()}

    @property
    def log(self) -> list[dict[str, str]]:
        """What earlier calls found to have vanished or changed: ``what``, and when it was ``seen``."""
        return list(self._remembered.get("changes", []))

    @cached_property
    def tallies(self) -> dict[Window, Tally]:
        """What each period of the plan holds: as it was seen last, where the table is the same."""
        if self._remembered.get("stamp") == self._stamp:
            return self.seen
        now = census(self.params, self.plan.period, within=self._part)
        over = [period for period in now if period.end + self.params.grace <= self.moment]
        changed = [
            period for period in over if period not in self.seen or self.seen[period].rows != now[period].rows
        ]
        looked_into = sorted({*over[-_LOOKED_INTO:], *changed})
        now |= contents(self.params, {period: now[period] for period in looked_into})
        for period, before in self.seen.items():
            if period in now and not now[period].days and before.rows == now[period].rows:
                labels = before.labels if self.params.labels else now[period].labels
                now[period] = replace(before, labels=labels)
        return now

    @property
    def _part(self) -> Window:
        return Window(max(self.span.start, EVER.start), EVER.end)

    def changes(self, *, thorough: bool = False) -> dict[Window, list[str]]:
        """What vanished from periods that were over at the last call, or was rewritten, in words.

        Args:
            thorough: whether the contents of all periods are read, not only of the last few.
        """
        over = [period for period in self.seen if self.seen[period].days]
        now = dict(self.tallies)
        if thorough and not self.seen:
            fix = "Call prodkit lifecycle first."
            raise ParameterError("--data", rule="needs what an earlier call has seen", value="none", fix=fix)
        if thorough:
            now = census(self.params, self.plan.period, within=self._part)
            now |= contents(self.params, {period: now[period] for period in over if period in now})
        told = differences(self.seen, now, of=over)
        lines = {
            period: [line.format(self.plan.name(period)) for line in each] for period, each in told.items()
        }
        return {period: each for period, each in lines.items() if each}

    # The plan

    @cached_property
    def plan(self) -> Plan:
        """The plan on record; without one, or with a reason for another, the one that is made now."""
        with self.present_store() as store:
            document = store.plan() if store else None
            if document is None:
                return self._new_plan(1, store)
            plan = Plan.from_dict(document)
            if self.reason and store:
                done = [window.end for notebook, window in store.steps(plan.number) if notebook == "score"]
                if not done and store.champion().version is None:  # nobody has lived by the old one
                    return self._new_plan(plan.number + 1, store)
                first = Window(plan.first.start, max([plan.live_from, *done]))
                self._require_decidable(first)
                return self._planned(plan.number + 1, first)
        for name in _RESTS_ON:
            now, then = getattr(self.params, name), plan.facts.get(name, getattr(plan, name, None))
            if now != then:
                rule = f"must stay {then}, which the plan rests on"
                fix = "Add --replan --reason WHY for a new plan."
                raise ParameterError(name, rule=rule, value=now, place=f"plan {plan.number}", fix=fix)
        return plan

    @cached_property
    def _calendar(self) -> Calendar:
        return Calendar(self.params.every, self.params.timezone)

    @cached_property
    def _uncut(self) -> dict[Window, Tally]:
        """The table by periods of the calendar: what a new plan is made from."""
        return census(self.params, self._calendar.period, within=self._part)

    def _new_plan(self, number: int, store: Store | None) -> Plan:
        there = {period: each.rows for period, each in self._uncut.items() if each.first < self.moment}
        if not there:
            rule, value = "must be after the first row", f"{self.moment:%Y-%m-%d %H:%M}"
            first = min((each.first for each in self._uncut.values()), default=None)
            fix = f"It begins {first:%Y-%m-%d}." if first else "There is none."
            raise WindowError("--until", rule=rule, value=value, place=self.params.data, fix=fix)
        periods = without_strays(there)
        self._tell_strays(there, periods[0])
        day = Calendar("day", self.params.timezone)
        start = max(day.period(self._uncut[periods[0]].first).start, self.span.start)
        if store is not None and store.champion().version is not None:  # of a store that knew no plans
            ends = [row["window_end"] for row in store.metric_rows(notebook="score")]
            live = datetime.fromisoformat(max(ends)) if ends else self.moment
            live = max(live, start + timedelta(microseconds=1))  # a table may have lost its old rows
            return self._planned(number, Window(start, live))
        if self.live_from is not None:
            training = self._first_until(self._calendar.period(self.live_from).start, start)
        else:
            ended = [period for period in periods if period.end + self.params.grace <= self.moment]
            early = ended[max(1, len(ended) // 4) - 1].end if ended else self.moment
            rate, delay = self._rows_a_day(start, early), self.params.label_delay
            training = first_training(ended, start, label_delay=delay, rows_a_day=rate)
        self._require_decidable(training)
        return self._planned(number, training)

    def _tell_strays(self, there: Mapping[Window, int], begin: Window) -> None:
        if strays := sum(count for period, count in there.items() if period < begin):
            note = f"{strays:,} rows long before {begin.start:%Y-%m-%d} are taken for slips: the plan begins there"
            self.notes.append(note)

    def _first_until(self, live: datetime, start: datetime) -> Window:
        """The first training, if it ends where a person wants the champion to serve."""
        if not start < live:
            rule, value = "must lie in a period that begins after the first row", str(self.live_from)
            fix = f"The rows begin {start:%Y-%m-%d}; the period of that day, {live:%Y-%m-%d}."
            raise ParameterError("live_from", rule=rule, value=value, place=self.params.data, fix=fix)
        return Window(start, live)

    def _rows_a_day(self, start: datetime, end: datetime) -> float:
        """Labelled rows of the table's beginning; LabelError when there are none."""
        early = [period for period in self._uncut if period.end > start and period.start < end]
        last = max([start + timedelta(days=1), *(period.end for period in early)])
        start = max([start, *(self._uncut[period].first for period in early[:1])])
        labels = sum(self._uncut[period].labels for period in early)
        if self.params.labels or not labels:  # they lie elsewhere, or there are none, which is an error
            facts = self.params.model_copy(update={"as_of": self.moment, "drill": {}})
            labels = len(labelled(read_window(facts, Window(start, last), columns=[], unique=False), facts))
        return labels / max((last - start) / timedelta(days=1), 1.0)

    def _require_decidable(self, first: Window) -> None:
        given = self._given_alone("rollback").get("min_rows")
        require_decidable(
            self._calendar.period(first.end),
            every=self.params.every,
            label_delay=self.params.label_delay,
            rows_a_day=self._rows_a_day(first.start, first.end),
            **({"needed": given} if given else {}),
        )

    def _planned(self, number: int, first: Window) -> Plan:
        rows_a_day, period = self._rows_a_day(first.start, first.end), self._calendar.period(first.end)
        policies = suited(first, period.days, label_delay=self.params.label_delay, rows_a_day=rows_a_day)
        if self.params.model == "auto" and not self.params.model_args and rows_a_day * first.days < _FEW_ROWS:
            policies["train"]["model_args"] = _SIMPLE
        facts = {name: getattr(self.params, name) for name in _RESTS_ON}
        return Plan(number, self.params.every, self.params.timezone, first, facts, policies)

    def parameters(self, notebook: str, **values: Any) -> dict[str, Any]:
        """Parameters that suit the table, then from files, then from the command, then from the loop."""
        texts = {name: self._text(value) for name, value in values.items() if isinstance(value, Window)}
        return {**self.plan.policies.get(notebook, {}), **self._given_alone(notebook), **values, **texts}

    def _text(self, window: Window) -> str:
        """A window as a notebook takes it: with its offset, where times without one are not UTC."""
        zone = None if self.params.timezone == "UTC" else UTC
        return str(Window(window.start.replace(tzinfo=zone), window.end.replace(tzinfo=zone)))

    def _given_alone(self, notebook: str) -> dict[str, Any]:
        """What a person gives a notebook."""
        own = NOTEBOOKS[notebook].model_fields
        typed = {name: typed_value(notebook, name, text) for name, text in self.given if name in own}
        return {**read_files(notebook, self.files), **typed}

    # What is due

    def steps(self) -> dict[tuple[str, Window], dict[str, Any]]:
        """What is done of the plan, by notebook and period."""
        with self.present_store() as store:
            return store.steps(self.plan.number) if store else {}

    def agenda(self) -> list[Entry]:
        """The periods of the plan, as they stand."""
        rows = {
            period: each.rows
            for period, each in self.tallies.items()
            if each.first < self.moment and period.start >= self.plan.live_from
        }
        return agenda(
            self.plan, moment=self.moment, grace=self.params.grace, rows=rows, done=self._done(self.steps())
        )

    def _done(self, steps: Mapping[tuple[str, Window], Mapping[str, Any]]) -> dict[tuple[str, Window], Done]:
        """What is in the store; a retraining that a person has not approved asks for nothing."""
        done: dict[tuple[str, Window], Done] = {}
        with self.present_store() as store:
            for (notebook, window), document in steps.items():
                action, rows = document["action"], document["rows"]
                if notebook.startswith("late score"):
                    notebook, rows = "score", rows + done["score", window].rows
                if (
                    document["approval"]
                    and store
                    and (state := store.settled(document["run_id"])) != "approved"
                ):
                    action = f"{action} ({state})"
                done[notebook, window] = Done(action, rows)
        return done

    def told(self, entries: Sequence[Entry]) -> list[str]:
        """What a person should know of the periods: what came late or vanished, what was passed over, silence."""
        lines = [line for each in self._changed(entries).values() for line in each]
        lines += passed_over(self.plan, entries)
        moments = [each.last if each.last < self.moment else each.first for each in self.tallies.values()]
        last = max((moment for moment in moments if moment < self.moment), default=None)
        about: dict[str, Any] = {"moment": self.moment, "grace": self.params.grace}
        if last and (since := silent_since(self.plan, last=last, **about)):
            lines.append(f"feed is silent since {self.plan.local(since):%Y-%m-%d %H:%M}")
        return lines

    def _changed(self, entries: Sequence[Entry]) -> dict[Window, list[str]]:
        """What vanished or was rewritten; rows that came late are told where they are scored."""
        scored = {entry.window: entry for entry in entries if entry.state in ("done", "restated")}
        told = {
            period: [line for line in each if period not in scored or not line.startswith("rows of")
                     or "rewritten" in line]
            for period, each in self.changes().items()
        }  # fmt: skip
        for window, entry in scored.items():
            if entry.late_rows < 0:
                line = f"rows of {self.plan.name(window)} fell from {entry.rows - entry.late_rows} to {entry.rows}"
                told.setdefault(window, []).insert(0, line)
        return dict(sorted(told.items()))

    def following(self, entries: Sequence[Entry]) -> str:
        """When there will be something to do, in words."""
        waiting = next((each.window for each in entries if each.state == "open"), None)
        waiting = waiting or self.plan.period(max(self.moment, self.plan.live_from))
        if waiting.end + self.params.grace <= self.moment:  # over long ago, without rows
            return f"nothing is due; {self.plan.name(waiting)} and what follows has no rows yet"
        end = f"{self.plan.local(waiting.end):%Y-%m-%d %H:%M} ({self.plan.timezone})"
        return f"nothing is due; the next period ends {end}"

    # Places

    def store(self, *, create: bool = True) -> Store:
        """The store of the facts, opened."""
        store, artifacts = self.places
        return Store.open(resolve(store), resolve(artifacts), create=create)

    def present_store(self) -> AbstractContextManager[Store | None]:
        """The store, if there is one: to read never makes it."""
        try:
            return self.store(create=False)
        except ParameterError:
            return nullcontext()

    @property
    def places(self) -> tuple[str, str]:
        """Where versions and artifacts lie, as typed."""
        store = self.params.store if self.params.store != "demo" else REAL_STORE
        return store, self.params.artifacts


def suited_to(notebook: str, given: Mapping[str, Any]) -> dict[str, Any]:
    """What suits the table of a person's own, of what a run of one notebook is not given.

    A table that cannot be read suits everything: the run says what is wrong with it.

    Args:
        notebook: that is run.
        given: its parameters.
    """
    kind = NOTEBOOKS[notebook]
    try:
        facts = {name: value for name, value in given.items() if name in kind.model_fields}
        params = kind.check({**neutral_facts(facts, known=kind.model_fields), **facts})
        held = census(params, lambda _: params.window, within=params.window).get(params.window)
        labels = held.labels if held and not params.labels else 0
    except ProdkitError:
        return {}
    if not labels:
        return {}
    about: dict[str, Any] = {"label_delay": params.label_delay, "rows_a_day": labels / params.window.days}
    policies = suited_alone(notebook, params.window, **about)
    return {name: value for name, value in policies.items() if name not in given}


def _date(name: str, text: str, zone: str) -> datetime:
    try:
        return utc(datetime.fromisoformat(text), zone)
    except (ValueError, OverflowError) as error:
        rule = "must be a date such as 2013-04-01"
        raise ParameterError(name, rule=rule, value=text, place="-p, for lifecycle") from error


def asked(
    files: Sequence[Path],
    given: Sequence[tuple[str, str]],
    *,
    until: datetime | None = None,
    reason: str = "",
) -> dict[str, Any]:
    """What an :class:`Outlook` is made of, checked.

    Args:
        files: params files.
        given: ``-p`` pairs. ``window`` says which part of the table is lived through, ``live_from`` from which day on a
            champion serves.
        until: the moment at which it stands; now if None, or if it has not come yet.
        reason: for a new plan.

    Raises:
        ParameterError: a wrong parameter, or a name in ``given`` that no notebook declares.
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
    _require_lasting(facts.get("store", REAL_STORE))
    facts |= neutral_facts(facts, known=TrainParams.model_fields)
    params = TrainParams.check({**facts, **({"window": part} if part else {})})
    now = datetime.now(UTC).replace(tzinfo=None)
    limit = params.window.end if part else datetime.max
    until = utc(until, params.timezone) if until else now
    moment = min(until, now, limit)
    start = params.window.start if part else EVER.start
    if moment <= start:
        rule, value = "must be after the first row", f"{moment:%Y-%m-%d %H:%M}"
        fix = f"It begins {start:%Y-%m-%d}."
        raise WindowError("--until", rule=rule, value=value, place=params.data, fix=fix)
    notes = [f"{until:%Y-%m-%d %H:%M} has not come yet: the loop stands at now"] if until > now else []
    dates = [_date(name, text, params.timezone) for name, text in given if name == "live_from"]
    rest = [(name, text) for name, text in given if name not in ("window", "live_from")]
    return {
        "files": files, "given": rest, "params": params, "span": Window(start, moment),
        "live_from": dates[-1] if dates else None, "reason": reason, "notes": notes,
    }  # fmt: skip


def _require_lasting(store: str) -> None:
    """Refuse a store that is gone when the command ends: each call would begin anew."""
    if store == "demo" or store in ("sqlite://", "sqlite:///:memory:"):
        fix = "Leave it out for sqlite:///outputs/store.db, or name a file or a PostgreSQL database."
        raise ParameterError("store", rule="must outlast the call", value=store, place="lifecycle", fix=fix)
