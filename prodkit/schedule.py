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

__all__ = ["Calendar", "Done", "Entry", "Plan", "agenda", "first_training", "silent_since", "suited"]

_EPOCH = datetime(1970, 1, 5)  # a Monday: durations are counted from here, so that 7d are weeks
_SHORTEST, _LONGEST = timedelta(minutes=1), timedelta(days=3660)
_STEPS = ("score", "drift", "monitor", "rollback")
_ANEW = ("train", "validate")  # where `rollback` asked for a retraining

_HOLDOUT_DAYS = 14.0  # of labelled rows that judge a challenger, where there is room for them
_FOLDS = 4
_ROWS, _FEWEST_ROWS = 500, 50  # labelled rows that a judgement needs: where there are plenty, and at least
_BLOCKS = 7  # days that it needs, where there are so many


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

    def between(self, start: datetime, end: datetime) -> Iterator[Window]:
        """The periods from the one that holds ``start`` to the last that begins before ``end``."""
        while start < end:
            period = self.period(start)
            yield period
            start = period.end


@dataclass(frozen=True)
class Plan:
    """How a model lives; decided once, and kept in the store.

    Attributes:
        number: of the plan, from 1.
        every, timezone: of the calendar.
        live_from: start of the first period that a champion serves.
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
        """Start of the first period that a champion serves."""
        return self.first.end

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
        late_rows: that came after it was scored.
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
    last = max(
        (window.start for window, count in rows.items() if count and window.start < moment), default=None
    )
    end = moment if last is None else min(moment, plan.calendar.period(plan.calendar.period(last).end).end)
    entries = []
    for window in plan.calendar.between(plan.live_from, end):
        count = rows.get(window, 0)
        steps = _steps(window, done)
        if not steps:
            scored = done.get(("score", window))
            late = count - scored.rows if scored else 0
            entries.append(Entry(window, "restated" if late > 0 else "done", (), count, max(late, 0)))
        elif moment < window.end + grace or last is None or last < window.start:
            entries.append(Entry(window, "open", (), count))
        elif not count and ("score", window) not in done:
            entries.append(Entry(window, "empty"))
        else:
            entries.append(Entry(window, "due", steps, count))
    return entries


def _steps(window: Window, done: Mapping[tuple[str, Window], Done]) -> tuple[str, ...]:
    """The steps of a period that are not in the store, those of a retraining only once it was asked for.

    A period in which a first champion was still waited for has a validation, and nothing else.
    """
    judged = done.get(("rollback", window))
    if judged is None and ("validate", window) in done:
        return ()
    wanted = _STEPS + (_ANEW if judged is not None and judged.action == "retrain" else ())
    return tuple(name for name in wanted if (name, window) not in done)


def silent_since(
    plan: Plan, *, moment: datetime, grace: timedelta = timedelta(), last: datetime
) -> datetime | None:
    """The moment of the last row, if a whole period has passed since then without any; else None."""
    following = plan.calendar.period(plan.calendar.period(last).end)
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
    lived = period_days if 2 * delay >= period_days else period_days - delay
    share = 0.5 if lived >= 2 * _BLOCKS else 1.0
    return {
        "train": {"holdout": write_duration(timedelta(hours=round((judged + delay) * 24))), "folds": folds},
        "validate": _enough(judged, rows_a_day),
        "rollback": _enough(lived * share, rows_a_day) | {"challenger_share": share},
    }


def _enough(days: float, rows_a_day: float) -> dict[str, Any]:
    """How much a judgement needs: the usual, or most of what so many days hold."""
    rows = int(0.7 * days * rows_a_day)
    return {"min_rows": max(_FEWEST_ROWS, min(_ROWS, rows)), "min_blocks": max(2, min(_BLOCKS, int(days)))}
