"""What is due: periods cut on the calendar, and which of a plan's steps they still ask for at a moment."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, time, timedelta
from typing import Any, Literal
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from prodkit.errors import ParameterError, WindowError
from prodkit.evidence import Window, parse_duration, write_duration

__all__ = [
    "Calendar",
    "Done",
    "Entry",
    "Plan",
    "agenda",
    "first_training",
    "next_due",
    "passed_over",
    "require_decidable",
    "silent_since",
    "suited",
    "suited_alone",
    "without_strays",
]

_EPOCH = datetime(1970, 1, 5)  # a Monday: durations are counted from here, so that 7d are weeks
_SHORTEST, _LONGEST = timedelta(minutes=1), timedelta(days=3660)
_STEPS = ("score", "drift", "monitor", "rollback")
_ANEW = ("train", "validate")  # where `rollback` asked for a retraining

_HOLDOUT_DAYS = 14.0  # of labelled rows that judge a challenger, where there is room for them
_FOLDS = 4
_ROWS, _FEWEST_ROWS = 500, 50  # labelled rows that a judgement needs: where there are plenty, and at least
_BLOCKS = 7  # days that it needs, where there are so many
# A table does not begin with rows that are so few of all, and followed by so many periods without any.
_STRAY_SHARE, _STRAY_GAP = 0.01, 3
_LENGTHS = {  # in days, to propose
    **{"1h": 1 / 24, "6h": 0.25, "day": 1.0, "week": 7.0, "month": 30.4},
    **{"91d": 91.0, "182d": 182.0, "364d": 364.0},
}


@dataclass(frozen=True)
class Calendar:
    """Periods that follow one another without a gap, whatever any table holds; moments are naive UTC.

    Args:
        every: ``month``, ``week`` (from Monday), ``day``, or a duration such as ``6h``, counted from 1970-01-05.
        timezone: in whose midnights months, weeks and days begin; they may have 23 or 25 hours.

    Raises:
        ParameterError: an unknown period or time zone.

    >>> str(Calendar("month").period(datetime(2013, 4, 17)))
    '2013-04-01/2013-05-01'
    >>> Calendar("day", "Europe/Rome").period(datetime(2024, 3, 31, 12)).days * 24
    23.0
    """

    every: str
    timezone: str = "UTC"

    def __post_init__(self) -> None:
        try:
            ZoneInfo(self.timezone)
        except (ZoneInfoNotFoundError, ValueError, OSError) as error:
            rule, fix = "must be a time zone", "Name one such as Europe/Rome, or UTC."
            raise ParameterError("timezone", rule=rule, value=self.timezone, fix=fix) from error
        if self.every in ("month", "week", "day"):
            return
        try:
            length = parse_duration(self.every)
        except ValueError as error:
            rule = "must be month, week, day or a duration such as 6h"
            raise ParameterError("every", rule=rule, value=self.every) from error
        if not _SHORTEST <= length <= _LONGEST:
            raise ParameterError("every", rule="must be a minute or longer, and no decades", value=self.every)

    def period(self, moment: datetime) -> Window:
        """The period that a moment falls in."""
        if self.every not in ("month", "week", "day"):
            length = parse_duration(self.every)
            start = _EPOCH + (moment - _EPOCH) // length * length
            return Window(start, start + length)
        zone = ZoneInfo(self.timezone)
        day = moment.replace(tzinfo=UTC).astimezone(zone).date()
        if self.every == "month":
            first = day.replace(day=1)
            last = (first + timedelta(days=31)).replace(day=1)
        else:
            first = day - timedelta(days=day.weekday() if self.every == "week" else 0)
            last = first + timedelta(days=7 if self.every == "week" else 1)
        start, end = (
            datetime.combine(each, time(), zone).astimezone(UTC).replace(tzinfo=None)
            for each in (first, last)
        )
        return Window(start, end)


@dataclass(frozen=True)
class Plan:
    """How a model lives; decided once, and kept in the store.

    Attributes:
        number: of the plan, from 1.
        every, timezone: of the calendar.
        live_from: from when on a champion serves; where it lies within a period of the calendar, it cuts that in two.
        first: the window of the first training; its end is ``live_from``.
        facts: what the plan rests on, such as the target: if one of these changes, it is another plan.
        policies: for each notebook, the parameters that suit the table; what is given otherwise goes before them.
    """

    number: int
    every: str
    timezone: str
    first: Window
    facts: Mapping[str, Any] = field(default_factory=dict)
    policies: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)

    @property
    def calendar(self) -> Calendar:
        """The periods."""
        return Calendar(self.every, self.timezone)

    @property
    def live_from(self) -> datetime:
        """From when on a champion serves."""
        return self.first.end

    def period(self, moment: datetime) -> Window:
        """The period that a moment falls in; none reaches over the day on which the champion went live."""
        period, live = self.calendar.period(moment), self.live_from
        if live not in period or live == period.start:
            return period
        return Window(period.start, live) if moment < live else Window(live, period.end)

    def between(self, start: datetime, end: datetime) -> Iterator[Window]:
        """The periods from the one that holds ``start`` to the last that begins before ``end``."""
        while start < end:
            period = self.period(start)
            yield period
            start = period.end

    def local(self, moment: datetime) -> datetime:
        """A moment as the clocks of the project's time zone show it."""
        return moment.replace(tzinfo=UTC).astimezone(ZoneInfo(self.timezone)).replace(tzinfo=None)

    def name(self, window: Window) -> str:
        """A period for people: the month, or else its dates, as local clocks show them."""
        start, end = self.local(window.start), self.local(window.end)
        following = (start + timedelta(days=31)).replace(day=1)
        return f"{start:%Y-%m}" if start.day == 1 and end == following else str(Window(start, end))

    def to_dict(self) -> dict[str, Any]:
        """As plain JSON."""
        return {**vars(self), "first": str(self.first)}

    @classmethod
    def from_dict(cls, document: Mapping[str, Any]) -> Plan:
        """Read what :meth:`to_dict` wrote."""
        return cls(**{**document, "first": Window.parse(document["first"])})


@dataclass(frozen=True)
class Done:
    """A step of a plan that is in the store.

    Attributes:
        action: what the run decided, None if nothing.
        rows: how many rows of the period it covered.
    """

    action: str | None = None
    rows: int = 0


@dataclass(frozen=True)
class Entry:
    """A period of a plan, as it stands at a moment.

    Attributes:
        window: of the period.
        state: ``done``; ``due``; ``open``, when it is not over or its grace runs; ``empty``, without rows between
            others; ``restated``, when rows came after it was done.
        steps: the notebooks to run, in order.
        rows: that are there.
        late_rows: that came after it was scored; those that vanished since are negative.
    """

    window: Window
    state: Literal["done", "due", "open", "empty", "restated"]
    steps: tuple[str, ...] = ()
    rows: int = 0
    late_rows: int = 0


def agenda(
    plan: Plan,
    *,
    moment: datetime,
    grace: timedelta = timedelta(),
    rows: Mapping[Window, int],
    done: Mapping[tuple[str, Window], Done],
) -> list[Entry]:
    """The periods of a plan up to a moment, or to the one after the last row, each with the steps that it asks for.

    A period is due when its end and the grace have passed and a row of it, or of a later one that has begun, is there.

    Args:
        plan: with its calendar.
        moment: at which the run stands, naive UTC.
        grace: how long after the end of a period its rows are complete.
        rows: for each period how many rows were there before ``moment``; rows dated later are not there.
        done: what is in the store of this plan, by notebook and period.
    """
    last = max((window for window, count in rows.items() if count and window.start < moment), default=None)
    end = moment if last is None else min(moment, plan.period(last.end).end)
    asked = max((at for (name, at), each in done.items() if _asks(name, each)), default=None)
    entries = []
    for window in plan.between(plan.live_from, end):
        count = rows.get(window, 0)
        steps = _steps(window, done, superseded=asked is not None and window < asked)
        if not steps:
            scored = done.get(("score", window))
            late = count - scored.rows if scored else 0
            entries.append(Entry(window, "restated" if late > 0 else "done", (), count, late))
        elif moment < window.end + grace or last is None or last.start < window.start:
            entries.append(Entry(window, "open", (), count))
        elif not count and ("score", window) not in done:
            entries.append(Entry(window, "empty"))
        else:
            entries.append(Entry(window, "due", steps, count))
    return entries


def _asks(notebook: str, step: Done) -> bool:
    """Does a step make an earlier request to train out of date?"""
    return notebook == "train" or (notebook == "rollback" and step.action == "retrain")


def next_due(entries: Sequence[Entry]) -> Entry | None:
    """The first that is due; a retraining that was approved after later periods had been scored comes last."""
    scored = [entry.window for entry in entries if _is_scored(entry)]
    due = [entry for entry in entries if entry.state == "due"]
    late = {entry.window for entry in due if entry.steps[0] in _ANEW and entry.window < max(scored)}
    return min(due, key=lambda entry: (entry.window in late, entry.window), default=None)


def _is_scored(entry: Entry) -> bool:
    return entry.state in ("done", "restated") or (entry.state == "due" and "score" not in entry.steps)


def _steps(window: Window, done: Mapping[tuple[str, Window], Done], *, superseded: bool) -> tuple[str, ...]:
    """The steps of a period that are not in the store, those of a retraining only once it was asked for.

    A period in which a first champion was still waited for has a validation, and nothing else. A request that nobody
    has begun to carry out is ``superseded`` by a later one, and by a later training.
    """
    judged = done.get(("rollback", window))
    if judged is None and ("validate", window) in done:
        return ()
    asks = judged is not None and judged.action == "retrain"
    asks = asks and not (superseded and ("train", window) not in done)
    wanted = _STEPS + (_ANEW if asks else ())
    return tuple(name for name in wanted if (name, window) not in done)


def passed_over(plan: Plan, entries: Sequence[Entry]) -> list[str]:
    """The periods without rows, those that follow one another in one line."""
    lines: list[str] = []
    run: list[Entry] = []
    for entry in [*entries, None]:
        if entry is not None and entry.state == "empty":
            run.append(entry)
            continue
        if len(run) == 1:
            lines.append(f"{plan.name(run[0].window)} has no rows, and was passed over")
        elif run:
            start, end = plan.local(run[0].window.start), plan.local(run[-1].window.end)
            span = f"{start:%Y-%m-%d} to {end:%Y-%m-%d}"
            lines.append(f"{len(run)} periods from {span} have no rows, and were passed over")
        run = []
    return lines


def silent_since(
    plan: Plan, *, moment: datetime, grace: timedelta = timedelta(), last: datetime
) -> datetime | None:
    """The moment of the last row, if a whole period has passed since then without any; else None."""
    following = plan.period(plan.period(last).end)
    return last if following.end + grace <= moment else None


def first_training(
    periods: Sequence[Window], start: datetime, *, label_delay: timedelta, rows_a_day: float
) -> Window:
    """The first quarter of the periods, or as many more as labels and judging need.

    Args:
        periods: that are over, in order.
        start: of the rows: within the first period.
        label_delay: until a label is known.
        rows_a_day: labelled rows.

    Raises:
        WindowError: they are too few to learn, to wait for labels and to judge; with what to do.
    """
    for count in range(max(1, len(periods) // 4), len(periods) + 1):
        first = Window(start, periods[count - 1].end) if start < periods[count - 1].end else None
        if first and _room(first, label_delay, rows_a_day):
            return first
    span = f"{start:%Y-%m-%d} to {periods[-1].end:%Y-%m-%d}" if periods else "no period that is over"
    raise WindowError(
        "data",
        rule="must be long enough to learn, to wait for labels and to judge",
        value=f"{span}, labels after {label_delay / timedelta(days=1):g} days",
        fix="Call again when there is more, set a shorter `every` or `label_delay`, or run the notebooks one by one.",
    )


def without_strays(rows: Mapping[Window, int]) -> list[Window]:
    """The periods that hold rows, in order, from where the table really begins.

    A few rows long before all others, such as one of 1970, are a slip and no beginning.
    """
    periods = sorted(period for period, count in rows.items() if count)
    total, before, first = sum(rows.values()), 0, 0
    for place, period in enumerate(periods[1:], start=1):
        before += rows[periods[place - 1]]
        gap = period.start - periods[place - 1].end
        if before <= max(1, _STRAY_SHARE * total) and gap >= _STRAY_GAP * (period.end - period.start):
            first = place
    return periods[first:]


def _room(first: Window, label_delay: timedelta, rows_a_day: float) -> tuple[float, int] | None:
    """Days that judge a challenger, and folds, within a first training; None where it is too short."""
    delay = label_delay / timedelta(days=1)
    wanted = max(_HOLDOUT_DAYS, 1.2 * _ROWS / max(rows_a_day, 0.01))
    judged = min(wanted, max(first.days / 3, min(float(_BLOCKS), first.days / 2)))
    learned = first.days - judged - 2 * delay  # labels of the holdout must be there, and those before it
    folds = min(_FOLDS, int(learned) - math.ceil(delay) - 1)
    return (judged, folds) if folds >= 2 and learned >= first.days / 4 else None


def suited(
    first: Window, period_days: float, *, label_delay: timedelta, rows_a_day: float
) -> dict[str, dict[str, Any]]:
    """The parameters of each notebook that suit a table: no more rows and days than a period holds.

    Args:
        first: the first training.
        period_days: of a period.
        label_delay: until a label is known.
        rows_a_day: labelled rows.
    """
    delay = label_delay / timedelta(days=1)
    judged, folds = _room(first, label_delay, rows_a_day) or (first.days / 3, 2)
    lived = _lived(period_days, label_delay)
    share = 0.5 if lived >= 2 * _BLOCKS and lived * rows_a_day >= 2 * _FEWEST_ROWS else 1.0
    return {
        "train": {"holdout": write_duration(timedelta(hours=round((judged + delay) * 24))), "folds": folds},
        "validate": _enough(judged, rows_a_day),
        "rollback": _enough(lived * share, rows_a_day) | {"challenger_share": share},
    }


def suited_alone(
    notebook: str, window: Window, *, label_delay: timedelta, rows_a_day: float
) -> dict[str, Any]:
    """The parameters that suit a window which a person runs one notebook on, see :func:`suited`; none if none does."""
    if notebook == "validate":
        return _enough(_lived(window.days, label_delay), rows_a_day)
    if notebook == "train" and _room(window, label_delay, rows_a_day) is None:
        return {}
    return suited(window, window.days, label_delay=label_delay, rows_a_day=rows_a_day).get(notebook, {})


def _lived(period_days: float, label_delay: timedelta) -> float:
    """Days of a period that can be judged at its end; where labels come late, as many before them are."""
    delay = label_delay / timedelta(days=1)
    return period_days if 2 * delay >= period_days else period_days - delay


def _enough(days: float, rows_a_day: float) -> dict[str, Any]:
    """How much a judgement needs: the usual, or most of what so many days hold."""
    rows = int(0.7 * days * rows_a_day)
    return {"min_rows": max(_FEWEST_ROWS, min(_ROWS, rows)), "min_blocks": max(2, min(_BLOCKS, int(days)))}


def require_decidable(
    period: Window, *, every: str, label_delay: timedelta, rows_a_day: float, needed: int = _FEWEST_ROWS
) -> None:
    """Refuse periods that never hold enough to decide, and propose some that do.

    Args:
        period: one of them.
        every: what they were called.
        label_delay: until a label is known.
        rows_a_day: labelled rows.
        needed: labelled rows that a decision needs.

    Raises:
        ParameterError: with an ``every`` that would do.
    """
    if (held := _lived(period.days, label_delay) * rows_a_day) >= needed:
        return
    longer = (
        name
        for name, days in _LENGTHS.items()
        if days > period.days and _lived(days, label_delay) * rows_a_day >= 1.2 * needed
    )
    better = next(longer, "")
    fix = f"Set `every: {better}`." if better else "Collect more rows, or set a lower `min_rows`."
    value = f"{every}: about {held:.0f} of {needed}, at {rows_a_day:.2g} a day"
    raise ParameterError(
        "every", rule="must hold enough labelled rows to decide by", value=value, place="the plan", fix=fix
    )
