"""The life of a model, window by window: who served, what was decided, and how well it did; as data and drawn."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from itertools import groupby
from typing import Any

from prodkit.errors import ProdkitError
from prodkit.evidence import Window
from prodkit.reports.page import figure

__all__ = ["Chapter", "chapters", "drawing"]

_QUIET = ("keep", "watch")


@dataclass(frozen=True)
class Chapter:
    """One window of the story.

    Attributes:
        window: its span.
        run_id: the run that decided.
        decision: in words, with what followed from it.
        acts: whether the decision changed something.
        version: who served.
        drill: the fault that was put in on purpose; empty without one.
        value: of the main metric; None if it is not known.
        low: lower end of its interval.
        high: upper end.
        rows: with a label that it rests on.
    """

    window: Window
    run_id: str
    decision: str
    acts: bool
    version: int | None
    drill: str
    value: float | None
    low: float | None = None
    high: float | None = None
    rows: int | None = None

    @property
    def name(self) -> str:
        """The window in short: its month, if it is one, else its days."""
        start, end = self.window.start, self.window.end
        month = start.day == 1 and end == (start + timedelta(days=31)).replace(day=1)
        return (
            f"{start:%Y-%m}" if month else f"{start:%Y-%m-%d} to {end - timedelta(microseconds=1):%Y-%m-%d}"
        )


def chapters(
    documents: Sequence[Mapping[str, Any]], *, metric: str, measured: Sequence[Mapping[str, Any]] = ()
) -> list[Chapter]:
    """The windows that a decision was made about, in the order of their time.

    Args:
        documents: results of all runs, oldest first; of a window that was decided about twice, the last one counts.
        metric: name of the main metric.
        measured: rows of that metric, see :meth:`prodkit.store.records.Records.metric_rows`; where a window has none,
            the figure that the decision gave stands without an interval.
    """
    known = {(row["window_start"], row["window_end"], row["version"]): row for row in measured}
    parents = {run["parent"]: run for run in documents if run.get("parent") and run["status"] == "succeeded"}
    found: dict[str, Chapter] = {}
    for run in documents:
        window = _window(run)
        if run["notebook"] != "rollback" or run["status"] != "succeeded" or window is None:
            continue
        version = run["outputs"].get("champion")
        row = known.get((window.start.isoformat(), window.end.isoformat(), version), {})
        trained = parents.get(run["run_id"])
        judged = parents.get(trained["run_id"]) if trained else None
        decision = (run["action"] or run["outcome"]) + (
            " (proposed)" if run["approval"] == "proposed" else ""
        )
        found[str(window)] = Chapter(
            window, run["run_id"], decision + (f", then {judged['action']}" if judged else ""),
            acts=run["action"] not in _QUIET, version=version,
            drill=next((item.get("note", "") for item in run["evidence"] if item["name"] == "drill"), ""),
            value=row.get("value", run["outputs"].get("figures", {}).get(metric)),
            low=row.get("low"), high=row.get("high"), rows=row.get("n"),
        )  # fmt: skip
    return sorted(found.values(), key=lambda each: (each.window.start, each.window.end))


def _window(run: Mapping[str, Any]) -> Window | None:
    try:
        return Window.parse(run["params"]["window"])
    except (KeyError, TypeError, ValueError, ProdkitError):
        return None


_WIDTH, _LEFT, _RIGHT = 960.0, 84.0, 16.0
_TOP, _BOTTOM = 104.0, 258.0  # of the metric


def drawing(told: Sequence[Chapter]) -> dict[str, Any]:
    """Where each thing of the timeline lies, in a drawing of 960 by 300 units: for the template that draws it."""
    start, end = told[0].window.start, max(each.window.end for each in told)
    whole = (end - start) / timedelta(seconds=1)

    def across(moment: datetime) -> float:
        return _LEFT + (_WIDTH - _LEFT - _RIGHT) * ((moment - start) / timedelta(seconds=1)) / whole

    numbers = [x for each in told for x in (each.value, each.low, each.high) if x is not None]
    low, high = (min(numbers), max(numbers)) if numbers else (0.0, 1.0)
    ticks = _ticks(low, high)
    low, high = min(low, ticks[0]), max(high, ticks[-1])

    def down(value: float | None) -> float | None:
        return None if value is None else _BOTTOM - (_BOTTOM - _TOP) * (value - low) / (high - low)

    spans = [(version, list(each)) for version, each in groupby(told, key=lambda chapter: chapter.version)]
    spoken = [each for each in told if each.acts] if len(told) > 12 else list(told)
    level = {each.run_id: 62 + 14 * (place % 2) * (len(told) > 6) for place, each in enumerate(spoken)}
    step = math.ceil(len(told) / 10)
    return {
        "served": [
            {"version": version, "x": across(part[0].window.start), "end": across(part[-1].window.end)}
            for version, part in spans
        ],
        "points": [
            {
                "chapter": each,
                "x": across(each.window.start),
                "end": across(each.window.end),
                "middle": (across(each.window.start) + across(each.window.end)) / 2,
                "y": down(each.value), "low": down(each.low), "high": down(each.high),
                "label": level.get(each.run_id),
                "date": each.name if place % step == 0 else "",
            }
            for place, each in enumerate(told)
        ],
        "ticks": [(down(tick), figure(tick)) for tick in ticks],
    }  # fmt: skip


def _ticks(low: float, high: float) -> list[float]:
    """Three to five round numbers that enclose a range.

    >>> _ticks(0.43, 0.77)
    [0.4, 0.5, 0.6, 0.7, 0.8]
    """
    span = (high - low) or abs(high) or 1.0
    size = 10.0 ** math.floor(math.log10(span / 2))
    step = next(size * factor for factor in (1, 2, 5, 10) if span / (size * factor) <= 4)
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    return [round(number * step, 12) for number in range(first, max(last, first + 1) + 1)]
