"""What models of each age have lost, step by step, and what trainings have saved: the figures of the economy rule."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from math import ceil
from typing import Any, Protocol
from zoneinfo import ZoneInfo

import numpy as np
import pandas as pd

from prodkit.decisions.economy import Economics, worth_retraining
from prodkit.evidence import Window, earlier_windows, utc
from prodkit.models.metrics import Floats
from prodkit.params import PRIMARY, RECIPES, ProjectParams, RollbackParams, Task
from prodkit.store.history import Event
from prodkit.store.registry import Store

__all__ = ["Triangle", "audit", "parts_of", "serving", "steps_until"]

_DAY = timedelta(days=1)


def steps_until(
    window: Window, moment: datetime, *, share: float, since: datetime, timezone: str = "UTC"
) -> list[Window]:
    """The windows up to this one, cut at midnights into parts of a share each, a day at least; oldest first.

    Args:
        window: the newest; of less than a day, its day counts.
        moment: at which the newest ends, if that is earlier.
        share: of a window.
        since: steps that end before this are left out.
        timezone: whose midnights, and months, are meant.
    """
    zone = ZoneInfo(timezone)
    window = Window(*(_local(moment, zone) for moment in (window.start, window.end)))
    if window.end - window.start < _DAY:
        start = _midnight(window.end - timedelta(microseconds=1))
        window = Window(start, start + _DAY)
    length = window.end - window.start
    count = max(1, ceil((window.end - since) / length) + 2)
    parts = [
        Window(*(utc(mark.replace(tzinfo=zone)) for mark in (step.start, step.end)))
        for each in earlier_windows(window, count)
        for step in parts_of(each, share)
    ]
    until = min(parts[-1].end, moment)
    return [
        Window(each.start, min(each.end, until)) for each in parts if since < each.end and each.start < until
    ]


def parts_of(window: Window, share: float) -> Iterator[Window]:
    """A window cut at midnights into parts of a share each."""
    length = window.end - window.start
    inner = (_midnight(window.start + part * share * length) for part in range(1, ceil(1 / share)))
    marks = sorted({window.start, window.end, *(mark for mark in inner if window.start < mark < window.end)})
    return (Window(first, last) for first, last in pairwise(marks))


def _midnight(moment: datetime) -> datetime:
    return moment.replace(hour=0, minute=0, second=0, microsecond=0)


def _local(moment: datetime, zone: ZoneInfo) -> datetime:
    return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).astimezone(zone).replace(tzinfo=None)


@dataclass(frozen=True)
class Triangle:
    """What models of each age lost on each step, as far as labels have matured. All arrays end now.

    Attributes:
        steps: in order.
        losses: for each recipe (n, n): [j, i] on step i when fitted as step j began; NaN where not measured.
        rows: (n,) labelled rows.
        simple: (n,) summed loss of the simple rule.
        served: (n,) summed loss of the champion, on steps that it has not learned from; NaN on the others.
        versions: the same of each version that was ever asked, by number.
        trained_at: the step at which the champion was fitted; negative before the first.
        look: steps of a window.
        window_days: days of a window.
        task: whose loss it is.
        sampled: the champion learned from more rows than a probe does: what a probe of its age loses stands for it.
    """

    steps: tuple[Window, ...]
    losses: dict[str, Floats]
    rows: Floats
    simple: Floats
    served: Floats
    versions: dict[int, Floats]
    trained_at: int
    look: int
    window_days: float
    task: Task
    sampled: bool = False

    @property
    def unit(self) -> float:
        """What the simple rule loses a row; NaN where nobody knows, or where it is nought."""
        there = (self.rows > 0) & np.isfinite(self.simple)
        loss, rows = float(self.simple[there].sum()), float(self.rows[there].sum())
        return loss / rows if loss > 0 else float("nan")

    @property
    def step(self) -> timedelta:
        """How long a step is, on average."""
        return (self.steps[-1].end - self.steps[0].start) / len(self.steps)

    def staleness(self, recipe: str) -> tuple[pd.Series[float], pd.Series[float]]:
        """By age in days: what each probe lost more, in skill, than the one of the step; and the champion by window."""
        table, days = self.losses[recipe] / (self.rows * self.unit), self.step / _DAY
        fitted, asked = np.triu_indices(len(self.rows), k=1)
        more = pd.Series(table[fitted, asked] - table[asked, asked], index=(asked - fitted) * days)
        own, served = {}, np.flatnonzero(np.isfinite(self.served) & np.isfinite(np.diagonal(table)))
        for window in np.split(
            served, np.flatnonzero(np.diff((len(self.rows) - 1 - served) // self.look)) + 1
        ):
            if rows := float(self.rows[window].sum()):
                gap = self.served[window].sum() - np.diagonal(self.losses[recipe])[window].sum()
                own[float((window.mean() - self.trained_at) * days)] = gap / rows / self.unit
        return more[np.isfinite(more)], pd.Series(own, dtype=float)

    @property
    def _comparable(self) -> Floats:
        """(n,) what the champion lost, as a probe would have that learned from as few rows as the others.

        Without this a champion of many rows would seem to age less than it does, by what more rows are worth.
        """
        if not self.sampled or not 0 <= self.trained_at < len(self.rows):
            return self.served
        probe = self.losses["all"][self.trained_at]
        both = np.isfinite(probe) & np.isfinite(self.served)
        if not both.any():
            return self.served
        worth = (probe - self.served)[both].sum() / self.rows[both].sum()
        return np.where(
            np.isfinite(self.served), np.where(both, probe, self.served + worth * self.rows), np.nan
        )

    def economics(self, cost: float, recipes: Sequence[str] = RECIPES) -> Economics:
        """Whether a training pays that costs so much, in skill of 28 days of rows."""
        losses = {name: self.losses[name] for name in recipes} if np.isfinite(self.unit) else {}
        given: dict[str, Any] = {"look": self.look, "window_days": self.window_days}
        result = worth_retraining(
            losses, self.rows, trained_at=self.trained_at, served=self._comparable, price=0.0, **given
        )
        return Economics(result, self.unit, loss=PRIMARY[self.task].replace("_", "-"), **given).at(cost)


class Tried(Protocol):
    """What a triangle was made for."""

    triangle: Triangle | None
    economics: Economics | None


def serving(
    store: Store, params: ProjectParams, steps: Sequence[Window], *, windows: int = 6
) -> dict[int, int]:
    """Which version answered each step of the last windows, by its place, as far as that is on record."""
    rows = store.metric_rows(notebook="score", until=utc(params.moment))
    spans = [
        (*map(datetime.fromisoformat, (row["window_start"], row["window_end"])), row["version"])
        for row in rows
    ]
    since = earlier_windows(params.window, windows)[0].start
    served = {}
    for place, step in enumerate(steps):
        versions = [version for start, end, version in spans if start <= step.start < end and version]
        if versions and step.start >= utc(since):
            served[place] = versions[-1]
    return served


def audit(store: Store, params: RollbackParams, trials: Tried) -> str:
    """What the trainings of the last six windows saved against keeping the version of then, less their price."""
    triangle, economics = trials.triangle, trials.economics
    served = serving(store, params, triangle.steps) if triangle is not None else {}
    if triangle is None or economics is None or not served:
        return ""
    then, since = next(iter(served.values())), triangle.steps[min(served)].start
    trainings = [event for event in store.history() if _asked_to_train(event, since, utc(params.moment))]
    if not trainings:
        return f"No training since {since:%Y-%m-%d}."
    nothing = np.full(len(triangle.rows), np.nan)
    gaps = [
        triangle.versions.get(then, nothing)[at] - triangle.versions.get(who, nothing)[at]
        for at, who in served.items()
    ]
    saved, price = float(np.nansum(gaps)), len(trainings) * economics.price
    return (
        f"Since {since:%Y-%m-%d} trainings ({len(trainings)}) saved {saved:,.4g} against keeping version {then}, "
        f"at a price of {price:,.4g}: {saved - price:,.4g}."
    )


def _asked_to_train(event: Event, since: datetime, until: datetime) -> bool:
    if event.kind != "decide" or event.detail.get("action") != "retrain":
        return False
    return since < utc(datetime.fromisoformat(str(event.detail["as_of"]))) < until
