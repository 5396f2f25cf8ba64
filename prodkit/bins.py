"""Which values of a column are counted together; frozen at training."""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import pandas as pd

__all__ = ["Bins"]

MAX_BINS = 32
MAX_LEVELS = 100


@dataclass(frozen=True, slots=True)
class Bins:
    """How the values of one column are counted; made once, from the reference, and never again.

    Attributes:
        kind: numeric, categorical, boolean or datetime (which is counted in seconds since 1970).
        cuts: inner edges, ascending; bin ``i`` is ``cuts[i - 1] <= x < cuts[i]``. Empty if categorical.
        levels: the most frequent levels, one bin each; all others share one more bin.
        low: one width of the reference below its smallest value: smaller ones are out of range.
        high: the same above its largest value.

    >>> bins = Bins.freeze(np.array([1.0, 2.0, 2.0, 5.0]), kind="numeric")
    >>> bins.cuts, bins.index(np.array([0.0, 2.0, np.nan])).tolist()
    ((1.5, 3.5), [0, 1, 3])
    """

    kind: str
    cuts: tuple[float, ...] = ()
    levels: tuple[str, ...] = ()
    low: float | None = None
    high: float | None = None

    @classmethod
    def freeze(cls, values: np.ndarray, *, kind: str) -> Bins:
        """Choose bins for ``values`` (n,): one for each value if few, else of equal shares."""
        present = values[~pd.isna(values)]
        if kind == "categorical":
            return cls(kind, levels=tuple(_most_frequent(present)))
        if kind == "boolean":
            return cls(kind, cuts=(0.5,))
        if not len(present):
            return cls(kind)
        low, high = float(present.min()), float(present.max())
        width = min(high - low, 1e300)
        return cls(kind, cuts=_cuts(present.astype(float)), low=low - width, high=high + width)

    @property
    def size(self) -> int:
        """How many bins there are, the one for other levels included, missing excluded."""
        return len(self.levels if self.kind == "categorical" else self.cuts) + 1

    @property
    def edges(self) -> tuple[float, ...]:
        """The cuts between minus and plus infinity; empty if categorical."""
        return () if self.kind == "categorical" else (-math.inf, *self.cuts, math.inf)

    @property
    def names(self) -> list[str]:
        """A label for each bin, for tables and figures."""
        if self.kind == "categorical":
            return [*self.levels, "(other)"]
        if self.kind == "boolean":
            return ["false", "true"]
        ends = [f"{edge:.4g}" for edge in self.edges]
        return [f"{a} to {b}" for a, b in pairwise(ends)]

    def index(self, values: np.ndarray) -> np.ndarray:
        """The bin of each value (n,); missing values get :attr:`size`."""
        if self.kind == "categorical":
            found = pd.Index(self.levels, dtype=object).get_indexer(pd.Index(values, dtype=object))
            found = np.where(found < 0, len(self.levels), found)
        else:
            found = np.searchsorted(np.array(self.cuts), values.astype(float), side="right")
        return np.where(pd.isna(values), self.size, found)


def _most_frequent(present: np.ndarray) -> list[str]:
    """At most 100 levels, by falling frequency, ties by name: the same whatever the order of rows."""
    counts = pd.Series(present, dtype=object).value_counts()
    return sorted(counts.index, key=lambda level: (-counts[level], level))[:MAX_LEVELS]


def _cuts(present: np.ndarray) -> tuple[float, ...]:
    distinct = pd.unique(present)
    # Few rows fill few bins: empty ones only add noise to every distance between histograms.
    size = int(np.clip(math.sqrt(len(present)) / 2, 4, MAX_BINS))
    if len(distinct) <= size:
        distinct = np.sort(distinct)
        return tuple((distinct[:-1] / 2 + distinct[1:] / 2).tolist())
    inner = np.quantile(present, np.arange(1, size) / size, method="higher")
    # A value that fills a bin or more has one to itself: the next value opens the next bin.
    ordered = np.unique(distinct)
    piled = np.append(inner[:-1][np.diff(inner) == 0], inner[inner == ordered[0]])
    following = np.searchsorted(ordered, piled, side="right")
    after = ordered[following[following < len(ordered)]]
    return tuple(np.unique(np.append(inner[inner > ordered[0]], after)).tolist())
