"""Windows and lengths of time, as people write them."""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import datetime, timedelta

__all__ = ["Window", "earlier_windows", "iso", "parse_duration", "write_duration"]

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
    """So many windows up to this one, the oldest first: whole months if it is one, else each as long as it.

    >>> [str(each) for each in earlier_windows(Window.parse("2013-03-01/2013-04-01"), 2)]
    ['2013-02-01/2013-03-01', '2013-03-01/2013-04-01']
    >>> str(earlier_windows(Window.parse("2013-03-08/2013-03-15"), 2)[0])
    '2013-03-01/2013-03-08'
    """
    length, found = window.end - window.start, [window]
    first = window.start
    following = (first + timedelta(days=31)).replace(day=1)
    is_month = first == datetime(first.year, first.month, 1, tzinfo=first.tzinfo) and window.end == following
    while len(found) < count:
        end = found[-1].start
        start = (end - timedelta(days=1)).replace(day=1) if is_month else end - length
        found.append(Window(start, end))
    return found[::-1]


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
    return timedelta(**{_UNITS[match[2]]: float(match[1])})


def write_duration(span: timedelta) -> str:
    """A length of time as :func:`parse_duration` reads it: in the largest unit that needs no fraction.

    >>> write_duration(timedelta(hours=36)), write_duration(timedelta(days=14))
    ('36h', '14d')
    """
    for unit, seconds in (("d", 86_400), ("h", 3_600), ("min", 60)):
        if span and not span % timedelta(seconds=seconds):
            return f"{span // timedelta(seconds=seconds)}{unit}"
    return f"{span.total_seconds():f}".rstrip("0").rstrip(".") + "s"
