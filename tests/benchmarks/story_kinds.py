"""What may happen to a model in production, and what is right to do about it: known, because it was put there.

A kind takes the rows of a table by day, chooses which of them come, and changes what it is about from the day
``BREAK`` on. Only the newest windows are judged, so ``BREAK`` is the start of the first of them.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pandas as pd
from story_tables import DAYS, Table

__all__ = ["BREAK", "KINDS", "LENGTH", "TRAINED", "Kind", "Story"]

LENGTH = 28  # days of a window
BREAK = DAYS - 3 * LENGTH  # three judged windows, and before them one that is as it should be
TRAINED = {1: (0, 50), 2: (0, BREAK - LENGTH)}  # days of the two versions' training windows, holdout included


@dataclass
class Story:
    """A table on its way to becoming a story.

    Attributes:
        table: where the rows are from.
        rows: all that could come, with ``day`` and a ``coin`` (0 to 1); a kind leaves about half of them.
        random: its source of chance.
        column: the one that a fault is about.
        facts: parameters that differ from the usual.
        poisoned: changes the rows that version 2 learns from.
        model: of version 2, an import path.
        value_column: whether the table has a column with the worth of each row.
    """

    table: Table
    rows: pd.DataFrame
    random: np.random.Generator
    column: str = ""
    facts: dict[str, Any] = field(default_factory=dict)
    poisoned: bool = False
    model: str = "auto"

    @property
    def after(self) -> np.ndarray:
        """Which rows (n,) lie after the break."""
        return (self.rows["day"] >= BREAK).to_numpy()

    def columns(self, kind: str) -> list[str]:
        """Features with many numbers, or with a few texts, that have a value in most rows."""
        found = []
        for name in self.table.features:
            values = self.rows[name]
            numeric = pd.api.types.is_numeric_dtype(values.dtype)
            if values.notna().mean() > 0.8 and values.nunique() >= (20 if numeric else 2):
                found += [name] if numeric == (kind == "numeric") else []
        return found

    def choose(self, kind: str) -> str:
        """One of these columns, by chance."""
        self.column = str(self.random.choice(self.columns(kind)))
        return self.column


def halved(story: Story) -> None:
    """Half of the rows come, by chance."""
    tilted(story, np.zeros(len(story.rows)))


def tilted(story: Story, tilt: np.ndarray) -> None:
    """Rows come the more likely, the larger their tilt (n,) is: half of them if it is nought."""
    kept = story.rows["coin"] < 1 / (1 + np.exp(-tilt))
    story.rows = story.rows[kept].drop(columns="coin").reset_index(drop=True)


def standing(values: pd.Series) -> np.ndarray:
    """Rank (n,) of each value, from -1 to 1; 0 where there is none."""
    codes = values if pd.api.types.is_numeric_dtype(values.dtype) else values.astype(object).factorize()[0]
    return (2 * pd.Series(codes).astype(float).rank(pct=True) - 1).fillna(0.0).to_numpy()


def outcome(story: Story) -> np.ndarray:
    """Rank (n,) of each row's label, from -1 to 1."""
    return standing(
        story.rows[story.table.target].astype(object).where(story.rows[story.table.target].notna())
    )


# Nothing is wrong


def nothing(story: Story) -> None:
    """Days as they were."""
    halved(story)


def covariates(story: Story) -> None:
    """Other rows come, and each has the label that it always had."""
    name = story.choose("numeric")
    tilted(story, np.where(story.after, 2.0 * standing(story.rows[name]), 0.0))


def spells(story: Story) -> None:
    """The outcome's share resembles that of the day before by .75."""
    moved = np.empty(DAYS)
    last = story.random.normal()
    for day in range(DAYS):
        last = moved[day] = 0.75 * last + np.sqrt(1 - 0.75**2) * story.random.normal()
    tilted(story, 0.8 * moved[story.rows["day"]] * outcome(story))


def season(story: Story) -> None:
    """A column comes and goes with a season of which training saw half."""
    name = story.choose("numeric")
    wave = np.sin(2 * np.pi * story.rows["day"] / 140 + story.random.uniform(0, 6))
    tilted(story, 1.5 * wave * standing(story.rows[name]))


def few(story: Story) -> None:
    """Thirty rows in a window, and they are like those before."""
    halved(story)
    rows = story.rows
    window = (rows["day"] - BREAK) // LENGTH
    order = pd.Series(story.random.permutation(len(rows))).groupby(window.to_numpy()).rank()
    story.rows = rows[(rows["day"] < BREAK) | (order <= 30)].reset_index(drop=True)


def unlabelled(story: Story) -> None:
    """The concept has changed, and no label of that time is known."""
    abrupt(story)
    story.facts["label_delay"] = f"{3 * LENGTH + 10}d"


def worthless(story: Story) -> None:
    """Each row is worth half as much as before, and predicted as well."""
    halved(story)
    worth = story.random.gamma(4.0, 0.25, len(story.rows))
    story.rows["worth"] = np.where(story.after, 0.5, 1.0) * worth
    story.facts["value"] = "worth"


# The world has changed


def mirrored(story: Story, changed: np.ndarray) -> None:
    """Turns what the columns say of the outcome around in these rows (n,): high is low, and so on.

    Each column keeps its distribution.
    """
    for name in story.columns("numeric"):
        values = story.rows[name].to_numpy()
        there = changed & ~np.isnan(values.astype(float))
        mixed = story.random.permutation(int(there.sum()))  # equal values change places by chance
        ranks = np.lexsort((mixed, values[there])).argsort(kind="stable")
        flipped = np.sort(values[there])[::-1]
        story.rows.loc[there, name] = flipped[ranks]


def abrupt(story: Story) -> None:
    """From one day to the next, columns mean something else."""
    halved(story)
    mirrored(story, story.after)


def slow(story: Story) -> None:
    """In the course of a window and a half, ever more rows follow the new rule."""
    halved(story)
    share = np.clip((story.rows["day"] - BREAK) / (1.5 * LENGTH), 0, 1)
    mirrored(story, story.random.random(len(story.rows)) < share)


# The release is bad


def bad_release(story: Story) -> None:
    """The champion learned from rows whose labels had been mixed up."""
    halved(story)
    story.poisoned = True


def slow_release(story: Story) -> None:
    """The champion takes 400 ms to answer, its predecessor a few."""
    halved(story)
    story.model = "Slow"


def failing_release(story: Story) -> None:
    """The champion fails on rows that its predecessor answers."""
    halved(story)
    story.model = "Failing"


# The feed is broken


def lost(story: Story) -> None:
    """Half of a column's values are missing."""
    halved(story)
    name = story.choose(story.random.choice(["numeric", "categorical"]))
    gone = story.after & (story.random.random(len(story.rows)) < 0.5)
    story.rows[name] = story.rows[name].mask(gone)


def converted(story: Story) -> None:
    """A column comes in another unit."""
    halved(story)
    name = story.choose("numeric")
    factor, offset = story.random.permutation(
        [(1000.0, 0.0), (0.01, 0.0), (1.609344, 0.0), (60.0, 0.0), (5 / 9, -160 / 9)]
    )[0]
    values = story.rows[name].astype(float)
    story.rows[name] = values.mask(story.after, values * factor + offset)


def stuck(story: Story) -> None:
    """A column has one value in all rows."""
    halved(story)
    name = story.choose(story.random.choice(["numeric", "categorical"]))
    first = story.rows.loc[story.after & story.rows[name].notna(), name].iloc[0]
    story.rows[name] = story.rows[name].mask(story.after, first)


def renamed(story: Story) -> None:
    """The commonest level of a column is written otherwise."""
    halved(story)
    name = story.choose("categorical")
    level = story.rows[name].mode().iloc[0]
    values = story.rows[name].astype(object)
    story.rows[name] = values.mask(story.after & (values == level).to_numpy(), f"{level} Inc.")


def dropped(story: Story) -> None:
    """A column does not come any more."""
    halved(story)
    name = story.choose(story.random.choice(["numeric", "categorical"]))
    story.rows[name] = story.rows[name].mask(story.after)


def swapped(story: Story) -> None:
    """Two columns of numbers have changed places."""
    halved(story)
    first, second = story.random.choice(story.columns("numeric"), 2, replace=False)
    story.column = str(first)
    a, b = story.rows[first].astype(float), story.rows[second].astype(float)
    story.rows[first], story.rows[second] = a.mask(story.after, b), b.mask(story.after, a)


def stale(story: Story) -> None:
    """An old window is sent again, under the dates of the new one."""
    halved(story)
    rows = story.rows
    back = int(story.random.integers(1, BREAK - LENGTH))
    again = rows[(rows["day"] >= back) & (rows["day"] < back + LENGTH)]
    copies = [again.assign(day=again["day"] - back + BREAK + step * LENGTH) for step in range(3)]
    story.rows = pd.concat([rows[~story.after], *copies], ignore_index=True)


def doubled(story: Story) -> None:
    """Each row comes twice."""
    halved(story)
    twice = story.rows[story.after]
    story.rows = pd.concat([story.rows, twice], ignore_index=True).sort_values(
        "day", kind="stable", ignore_index=True
    )


# Labels, people and time


def labels_stuck(story: Story) -> None:
    """All labels of the new rows are one value."""
    halved(story)
    target = story.table.target
    first = story.rows.loc[story.after & story.rows[target].notna(), target].iloc[0]
    story.rows[target] = story.rows[target].mask(story.after & story.rows[target].notna(), first)


def labels_mixed(story: Story) -> None:
    """The labels of the new rows are those of other rows."""
    halved(story)
    target = story.table.target
    some = np.flatnonzero(story.after & story.rows[target].notna().to_numpy())
    values = story.rows[target].array.copy()
    values[some] = values[story.random.permutation(some)]
    story.rows[target] = values


def labels_half(story: Story) -> None:
    """Half of the labels of the new rows never come, by chance."""
    halved(story)
    gone = story.after & (story.random.random(len(story.rows)) < 0.5)
    story.rows[story.table.target] = story.rows[story.table.target].mask(gone)


def staff(story: Story) -> None:
    """Each row has an agent: one of twenty leaves every other week, and another comes."""
    halved(story)
    story.rows["agent"] = [
        f"agent {number}"
        for number in story.random.integers(0, 20, len(story.rows)) + story.rows["day"] // 14
    ]
    story.facts["features"] = [*story.table.features, "agent"]


def trend(story: Story) -> None:
    """A column counts the days."""
    halved(story)
    story.rows["count"] = story.rows["day"] + 1000.0
    story.facts["features"] = [*story.table.features, "count"]


@dataclass(frozen=True)
class Kind:
    """A kind of story.

    Attributes:
        tell: makes it.
        right: what may be done about it within the judged windows, the first action of all.
        harmful: what must not.
    """

    tell: Callable[[Story], None]
    right: frozenset[str]
    harmful: frozenset[str]


_ACTS = frozenset({"rollback", "retrain", "hold", "promote"})


def _kind(tell: Callable[[Story], None], *right: str) -> Kind:
    wanted = frozenset(right)
    return Kind(tell, wanted, _ACTS - wanted)


KINDS: dict[str, Kind] = {
    "nothing happens": _kind(nothing, "keep", "watch", "retrain"),
    "covariates shift": _kind(covariates, "keep", "watch"),
    "days resemble each other": _kind(spells, "keep", "watch"),
    "season": _kind(season, "keep", "watch"),
    "thirty rows": _kind(few, "keep", "watch"),
    "labels not there yet": _kind(unlabelled, "keep", "watch"),
    "value drops": _kind(worthless, "watch"),
    "concept, abrupt": _kind(abrupt, "retrain"),
    "concept, slow": _kind(slow, "retrain"),
    "bad release": _kind(bad_release, "rollback"),
    "slow release": _kind(slow_release, "rollback"),
    "failing release": _kind(failing_release, "rollback"),
    "missing values": _kind(lost, "hold"),
    "unit": _kind(converted, "hold"),
    "constant column": _kind(stuck, "hold"),
    "renamed levels": _kind(renamed, "hold"),
    "dropped column": _kind(dropped, "hold"),
    "swapped columns": _kind(swapped, "hold"),
    "stale copy": _kind(stale, "hold"),
    "duplicated rows": _kind(doubled, "hold"),
    "labels of one value": _kind(labels_stuck, "hold"),
    "labels of other rows": _kind(labels_mixed, "hold", "watch"),
    "half of the labels": _kind(labels_half, "keep", "watch", "retrain"),
    "staff turnover": _kind(staff, "keep", "watch", "retrain"),
    "trend column": _kind(trend, "keep", "watch", "retrain"),
}
