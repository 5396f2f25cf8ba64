"""What is due: periods cut on the calendar, and which of a plan's steps they still ask for at a moment."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, time, timedelta
from typing import Any, Literal
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from prodkit.errors import ParameterError
from prodkit.evidence import Window, parse_duration

__all__ = ["Calendar", "Done", "Entry", "Plan", "agenda", "silent_since"]

_EPOCH = datetime(1970, 1, 5)  # a Monday: durations are counted from here, so that 7d are weeks
_SHORTEST = timedelta(minutes=1)
_STEPS = ("score", "drift", "monitor", "rollback")
_ANEW = ("train", "validate")  # where `rollback` asked for a retraining


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
        except (ZoneInfoNotFoundError, ValueError) as error:
            rule, fix = "must be a time zone", "Name one such as Europe/Rome, or UTC."
            raise ParameterError("timezone", rule=rule, value=self.timezone, fix=fix) from error
        if self.every in ("month", "week", "day"):
            return
        try:
            length = parse_duration(self.every)
        except ValueError as error:
            rule = "must be month, week, day or a duration such as 6h"
            raise ParameterError("every", rule=rule, value=self.every) from error
        if length < _SHORTEST:
            raise ParameterError("every", rule="must be a minute or longer", value=self.every)

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
    """The periods of a plan up to a moment, in order, each with the steps that it still asks for.

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
    entries = []
    for window in plan.calendar.between(plan.live_from, moment):
        count = rows.get(window, 0)
        steps = _steps(window, done)
        if not steps:
            late = count - done["score", window].rows
            entries.append(Entry(window, "restated" if late > 0 else "done", (), count, max(late, 0)))
        elif moment < window.end + grace or last is None or last < window.start:
            entries.append(Entry(window, "open", (), count))
        elif not count and ("score", window) not in done:
            entries.append(Entry(window, "empty"))
        else:
            entries.append(Entry(window, "due", steps, count))
    return entries


def _steps(window: Window, done: Mapping[tuple[str, Window], Done]) -> tuple[str, ...]:
    """The steps of a period that are not in the store, those of a retraining only once it was asked for."""
    judged = done.get(("rollback", window))
    wanted = _STEPS + (_ANEW if judged is not None and judged.action == "retrain" else ())
    return tuple(name for name in wanted if (name, window) not in done)


def silent_since(
    plan: Plan, *, moment: datetime, grace: timedelta = timedelta(), last: datetime
) -> datetime | None:
    """The moment of the last row, if a whole period has passed since then without any; else None."""
    following = plan.calendar.period(plan.calendar.period(last).end)
    return last if following.end + grace <= moment else None
