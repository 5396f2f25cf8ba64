"""Which values of a column are counted together; frozen at training."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

__all__ = ["MAX_KNOWN", "Bins", "factorized"]

MAX_BINS = 32
MAX_LEVELS = 100  # with a bin of their own
MAX_KNOWN = 1000  # that are told from those never seen


@dataclass(frozen=True, slots=True)
class Bins:
    """How the values of one column are counted; made once, from the reference, and never again.

    Attributes:
        kind: numeric, categorical, boolean or datetime (which is counted in seconds since 1970).
        cuts: inner edges, ascending; bin ``i`` is ``cuts[i - 1] <= x < cuts[i]``. Empty if categorical.
        levels: the most frequent levels, one bin each; all others share one more bin.
        low: one width of the reference below its smallest value: smaller ones are out of range.
        high: the same above its largest value.
        known: further levels that the reference has; any other is unseen.
        novelty: levels that the reference has once, a row of it: the share of unseen ones to expect.

    >>> bins = Bins.freeze(np.array([1.0, 2.0, 2.0, 5.0]), kind="numeric")
    >>> bins.cuts, bins.index(np.array([0.0, 2.0, np.nan])).tolist()
    ((1.5, 3.5), [0, 1, 3])
    """

    kind: str
    cuts: tuple[float, ...] = ()
    levels: tuple[str, ...] = ()
    low: float | None = None
    high: float | None = None
    known: tuple[str, ...] = ()
    novelty: float = 0.0

    @classmethod
    def freeze(cls, values: np.ndarray, *, kind: str) -> Bins:
        """Choose bins for ``values`` (n,): one for each value if few, else of equal shares."""
        if kind == "categorical":
            codes, levels = factorized(values)
            counts = np.bincount(codes, minlength=len(levels) + 1).tolist()
            return cls.of_levels(dict(zip(levels, counts[:-1], strict=True)))
        if kind == "boolean":
            return cls(kind, cuts=(0.5,))
        present = values[np.isfinite(values.astype(float))]
        if not len(present):
            return cls(kind)
        low, high = float(present.min()), float(present.max())
        width = min(high - low, 1e300)
        return cls(kind, cuts=_cuts(present.astype(float)), low=low - width, high=high + width)

    @classmethod
    def of_levels(cls, counts: Mapping[str, int]) -> Bins:
        """Choose bins for levels that occur so often: by falling frequency, ties by name."""
        ordered = sorted(counts, key=lambda level: (-counts[level], level))
        once = sum(count == 1 for count in counts.values())
        return cls(
            "categorical",
            levels=tuple(ordered[:MAX_LEVELS]),
            known=tuple(ordered[MAX_LEVELS:MAX_KNOWN]),
            novelty=once / max(1, sum(counts.values())),
        )

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
            codes, levels = factorized(values)
            return np.asarray(np.array([*self.places(levels, known=set(levels)), self.size])[codes])
        found = np.searchsorted(np.array(self.cuts), values.astype(float), side="right")
        return np.where(np.isnan(values.astype(float)), self.size, found)

    def places(self, levels: Sequence[str], *, known: Collection[str]) -> list[int]:
        """The bin of each level, and ``size + 1`` more of one that is not known."""
        bins = {level: place for place, level in enumerate(self.levels)}
        extra = self.size + 1
        return [bins.get(level, self.size - 1) + (0 if level in known else extra) for level in levels]


def factorized(values: np.ndarray) -> tuple[np.ndarray, list[str]]:
    """The code (n,) of each text, and the texts (d,) that codes stand for; d where it is missing."""
    import pandas as pd  # here, for a table that is read in parts never needs it

    codes, levels = pd.factorize(np.asarray(values, dtype=object))
    return np.where(codes < 0, len(levels), codes), list(levels)


def _cuts(present: np.ndarray) -> tuple[float, ...]:
    distinct = np.unique(present)
    # Few rows fill few bins: empty ones only add noise to every distance between histograms.
    size = int(np.clip(math.sqrt(len(present)) / 2, 4, MAX_BINS))
    if len(distinct) <= size:
        return tuple((distinct[:-1] / 2 + distinct[1:] / 2).tolist())
    inner = np.quantile(present, np.arange(1, size) / size, method="higher")
    # A value that fills a bin or more has one to itself: the next value opens the next bin.
    piled = np.append(inner[:-1][np.diff(inner) == 0], inner[inner == distinct[0]])
    following = np.searchsorted(distinct, piled, side="right")
    after = distinct[following[following < len(distinct)]]
    return tuple(np.unique(np.append(inner[inner > distinct[0]], after)).tolist())
