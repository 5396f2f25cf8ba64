"""One finding with its interval and outcome, an estimate, and a window of time."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, Literal
from zoneinfo import ZoneInfo

__all__ = [
    "Estimate",
    "Evidence",
    "Outcome",
    "Window",
    "earlier_windows",
    "iso",
    "overall",
    "parse_duration",
    "utc",
    "write_duration",
]

Outcome = Literal["pass", "fail", "inconclusive", "error"]

# The outcome of several: the first of these that occurs among them.
_WORST_FIRST: tuple[Outcome, ...] = ("error", "fail", "inconclusive", "pass")


# The unit of a finding that names none: that of the first of these parts which occurs in its name.
_UNIT_OF = (
    *(("latency", "ms"), ("_ms", "ms"), ("memory", "MB"), ("budget.size", "MB"), ("_share", "share")),
    *(("ranking", "AUC"), ("together", "AUC"), ("labels.", "share"), ("drift.labels", "distance")),
    *(("labels", "rows"), ("contract.rows", "rows"), ("contract.", "share"), ("calibration", "share")),
    *(
        ("loss", "loss"),
        ("performance.since", "loss"),
        ("performance.score", "score"),
        ("drift.concept", "share"),
    ),
    *(("drift.", "distance"), ("gain", "skill"), ("slice.", "skill"), ("performance.", "skill")),
    *(("health.", "share"), ("robust.", "share"), ("mix.", "share"), ("answers", "share")),
)


@dataclass(frozen=True, slots=True)
class Estimate:
    """A value with its interval, from ``n`` rows in ``blocks`` blocks."""

    value: float
    low: float
    high: float
    n: int
    blocks: int


@dataclass(frozen=True, slots=True)
class Evidence:
    """A finding that a decision rests on.

    Attributes:
        name: what was measured, dotted from the general to the particular: ``contract.temp.unit``.
        outcome: ``pass``, ``fail``, ``inconclusive`` (the evidence does not decide), ``error`` (could not be measured).
        value: the estimate, in ``unit``.
        low: lower end of its interval.
        high: upper end of its interval.
        limit: what it is compared with.
        n: how many rows it rests on.
        rung: its place on the evidence ladder: 1 data contract, 2 health, 3 realised performance,
            4 estimated performance, 5 drift; 0 where no ladder applies.
        note: one sentence for a reader.
        unit: of value, interval and limit: rows, days, ms, MB, share, skill, loss, ...; by its name if empty.

    A value that is not finite cannot pass: it turns the outcome into ``error``.

    >>> Evidence("gain", "pass", value=float("nan"), n=10).outcome
    'error'
    """

    name: str
    outcome: Outcome
    value: float | None = None
    low: float | None = None
    high: float | None = None
    limit: float | None = None
    n: int = 0
    rung: int = 0
    note: str = ""
    unit: str = ""

    def __post_init__(self) -> None:
        if self.outcome not in _WORST_FIRST:
            object.__setattr__(self, "outcome", "error")
        if not self.unit:
            object.__setattr__(self, "unit", next((u for part, u in _UNIT_OF if part in self.name), ""))
        for field in ("value", "low", "high", "limit"):
            number = getattr(self, field)
            if number is None:
                continue
            if math.isnan(number) or (math.isinf(number) and field in ("value", "limit")):
                object.__setattr__(self, "outcome", "error")
            # a plain float, since JSON knows no numpy; an open end of an interval, or no number, is None
            object.__setattr__(self, field, float(number) if math.isfinite(number) else None)
        object.__setattr__(self, "n", int(self.n))

    @classmethod
    def of(cls, name: str, outcome: Outcome, estimate: Estimate, **others: Any) -> Evidence:
        """Evidence whose value, interval and number of rows are those of an estimate.

        >>> Evidence.of("gain", "pass", Estimate(0.2, 0.1, 0.3, n=50, blocks=5), limit=0.0).low
        0.1
        """
        ends = {"value": estimate.value, "low": estimate.low, "high": estimate.high, "n": estimate.n}
        return cls(name, outcome, **{**ends, **others})

    def to_dict(self) -> dict[str, Any]:
        """The JSON form, as it stands in ``result.json``."""
        return asdict(self)

    @classmethod
    def from_dict(cls, document: dict[str, Any]) -> Evidence:
        """Read back what :meth:`to_dict` wrote."""
        return cls(**document)


def overall(evidence: Iterable[Evidence]) -> Outcome:
    """The worst outcome among the evidence; nothing at all is ``inconclusive``, never ``pass``.

    >>> overall([])
    'inconclusive'
    """
    outcomes = {item.outcome for item in evidence}
    return next((outcome for outcome in _WORST_FIRST if outcome in outcomes), "inconclusive")


_UNITS = {"w": "weeks", "d": "days", "h": "hours", "min": "minutes", "s": "seconds"}
_DURATION = re.compile(r"(\d+(?:\.\d+)?)(w|d|h|min|s)")


@dataclass(frozen=True, order=True)
class Window:
    """A half-open span of time, ``start <= t < end``.

    >>> Window.parse("2013-04-01/2013-05-01").days
    30.0
    """

    start: datetime
    end: datetime

    def __post_init__(self) -> None:
        if (self.start.tzinfo is None) != (self.end.tzinfo is None):
            raise ValueError(f"a window must have a time zone at both ends or at none, found {self}")
        if not self.start < self.end:
            raise ValueError(f"a window must start before it ends, found {self}")

    def __str__(self) -> str:
        return f"{iso(self.start)}/{iso(self.end)}"

    def __contains__(self, moment: datetime) -> bool:
        return self.start <= moment < self.end

    @property
    def days(self) -> float:
        """Length in days."""
        return (self.end - self.start) / timedelta(days=1)

    @classmethod
    def parse(cls, text: str) -> Window:
        """Read ``start/end`` in ISO dates; raises ValueError when it is anything else."""
        match text.split("/"):
            case [start, end]:
                return cls(datetime.fromisoformat(start.strip()), datetime.fromisoformat(end.strip()))
        raise ValueError(f"a window is written start/end, such as 2013-04-01/2013-05-01, found {text!r}")


def earlier_windows(window: Window, count: int) -> list[Window]:
    """The last ``count`` windows up to this one, oldest first: whole months if it is one, else each as long as it.

    >>> [str(each) for each in earlier_windows(Window.parse("2013-03-01/2013-04-01"), 2)]
    ['2013-02-01/2013-03-01', '2013-03-01/2013-04-01']
    >>> str(earlier_windows(Window.parse("2013-03-08/2013-03-15"), 2)[0])
    '2013-03-01/2013-03-08'
    """
    length, first, windows = window.end - window.start, window.start, [window]
    following = (first + timedelta(days=31)).replace(day=1)
    is_month = first == datetime(first.year, first.month, 1, tzinfo=first.tzinfo) and window.end == following
    while len(windows) < count:
        end = windows[-1].start
        start = (end - timedelta(days=1)).replace(day=1) if is_month else end - length
        windows.append(Window(start, end))
    return windows[::-1]


def utc(moment: datetime, zone: str = "UTC") -> datetime:
    """A moment as naive UTC; one without an offset is meant in a time zone.

    Of an hour that the clock repeats the first is meant; an hour that it leaves out lies after the change. The first
    and the last moments that there are stay what they are.

    >>> utc(datetime(2024, 7, 1), "Europe/Rome"), utc(datetime(2024, 10, 27, 2, 30), "Europe/Rome")
    (datetime.datetime(2024, 6, 30, 22, 0), datetime.datetime(2024, 10, 27, 0, 30))
    """
    if moment.tzinfo is None:
        if zone == "UTC" or not 2 < moment.year < 9998:
            return moment
        moment = moment.replace(tzinfo=ZoneInfo(zone), fold=0)
    return moment.astimezone(UTC).replace(tzinfo=None)


def iso(moment: datetime) -> str:
    """A moment as ISO text, as a date where it is midnight."""
    return moment.date().isoformat() if moment == datetime(*moment.timetuple()[:3]) else moment.isoformat()


def parse_duration(text: str) -> timedelta:
    """Read a length of time such as ``14d``, ``36h`` or ``90min``; raises ValueError otherwise.

    >>> parse_duration("1.5d")
    datetime.timedelta(days=1, seconds=43200)
    """
    match = _DURATION.fullmatch(text.strip())
    if match is None:
        raise ValueError(
            f"a duration is a number and one of {', '.join(_UNITS)}, such as 14d, found {text!r}"
        )
    try:
        return timedelta(**{_UNITS[match[2]]: float(match[1])})
    except OverflowError as error:
        raise ValueError(f"a duration of {text} is too long") from error


def write_duration(span: timedelta) -> str:
    """A length of time as :func:`parse_duration` reads it: in the largest unit that needs no fraction.

    >>> write_duration(timedelta(hours=36)), write_duration(timedelta(days=14))
    ('36h', '14d')
    """
    for unit, seconds in (("d", 86_400), ("h", 3_600), ("min", 60)):
        if span and not span % timedelta(seconds=seconds):
            return f"{span // timedelta(seconds=seconds)}{unit}"
    return f"{span.total_seconds():f}".rstrip("0").rstrip(".") + "s"
