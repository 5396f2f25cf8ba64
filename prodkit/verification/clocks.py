"""Whether a text shows the clock of its own run: a moment within it, or how long it took."""

from __future__ import annotations

import re
from collections.abc import Iterator
from datetime import UTC, date, datetime, timedelta
from typing import NamedTuple

__all__ = ["Span", "is_own_duration", "shows_time_of"]

_SLACK = timedelta(seconds=1.5)  # a record keeps whole seconds
_UNITS = {"ns": 1e-9, "us": 1e-6, "µs": 1e-6, "μs": 1e-6, "ms": 1e-3, "min": 60.0, "minutes": 60.0}


class Span(NamedTuple):
    """When a run was made, and how long the cell took that is looked at (seconds, 0 if not known)."""

    start: datetime
    end: datetime
    cell_seconds: float = 0.0


def shows_time_of(text: str, span: Span) -> bool:
    """Whether a moment, a date, a time of day or a number of seconds since 1970 lies within the run.

    A moment without an offset may be meant in UTC or in local time.

    >>> run = Span(datetime(2024, 5, 1, 12, 0, tzinfo=UTC), datetime(2024, 5, 1, 12, 1, tzinfo=UTC))
    >>> [shows_time_of(text, run) for text in ("2024-05-01T12:00:30Z", "2024-05-01T11:00:30Z", "1714564830.5")]
    [True, False, True]
    """
    low, high = span.start - _SLACK, span.end + _SLACK
    return any(low <= moment <= high for moment in _readings(text, low, high))


def is_own_duration(text: str, span: Span) -> bool:
    """Whether a duration with its unit is the time that the cell took, or most of it."""
    parts = re.fullmatch(r"([\d.e-]+?) ?([a-zµμ]+)", text)
    if parts is None:
        return False
    seconds = float(parts[1]) * _UNITS.get(parts[2], 1.0)
    return 0.5 * span.cell_seconds <= seconds <= span.cell_seconds


def _readings(text: str, low: datetime, high: datetime) -> Iterator[datetime]:
    """All that a text may mean."""
    text = text.replace(",", ".")
    for zone in (UTC, None):  # None: local time
        first, last = (moment.astimezone(zone) for moment in (low, high))
        days: list[date] = sorted({first.date(), last.date()})
        if re.fullmatch(r"\d{4}-\d\d-\d\d", text):
            yield from (low for day in days if day.isoformat() == text)
        elif re.match(r"\d\d:", text):
            for day in days:
                yield from _read(f"{day.isoformat()}T{text}", first)
        elif re.match(r"[A-Z]", text):
            try:
                yield datetime.strptime(text, "%a %b %d %H:%M:%S %Y").replace(tzinfo=first.tzinfo)
            except ValueError:
                return
        else:
            yield from _read(text, first)


def _read(text: str, like: datetime) -> Iterator[datetime]:
    try:
        if "-" in text or "T" in text:
            moment = datetime.fromisoformat(text)
            yield moment if moment.tzinfo else moment.replace(tzinfo=like.tzinfo)
        else:
            yield datetime.fromtimestamp(float(text), UTC)
    except (ValueError, OverflowError, OSError):
        return
