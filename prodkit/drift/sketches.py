"""What is kept of single values and of whole rows: how often each occurs, as exactly as a few hundred entries allow."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

__all__ = ["MAX_DISTINCT", "Fingerprints", "Sketch", "to_twelve_digits"]

MAX_DISTINCT = 256  # values of a column whose counts are kept
_MANTISSA = 52  # bits of a float's fraction
_FINEST = 11  # bits that are kept where not all values are
_LARGEST = np.int64(0x7FEFFFFFFFFFFFFF)  # bits of the largest float
_FINGERPRINTS = 1024


def to_twelve_digits(values: np.ndarray) -> np.ndarray:
    """The finite ones of these values (n,), rounded to twelve significant digits."""
    values = values[np.isfinite(values)]
    with np.errstate(over="ignore", invalid="ignore"):
        scale = 10.0 ** (11 - np.floor(np.log10(np.where(values == 0, 1, np.abs(values)))))
        return np.where(np.isfinite(values * scale), np.round(values * scale) / scale, values)


def _truncated(values: np.ndarray, bits: int) -> np.ndarray:
    """Values (n,), cut towards zero after so many binary digits of their fraction; digits of the exponent if < 0.

    >>> _truncated(np.array([1000.0, 1023.0, -3.9]), 3).tolist()
    [960.0, 960.0, -3.75]
    """
    size = np.abs(values).view(np.int64) + (1 << 11)  # 1.9999999999999 is 2
    size = np.minimum(size, _LARGEST) >> (_MANTISSA - bits) << (_MANTISSA - bits)
    return np.asarray(np.copysign(size.view(np.float64), values) + 0.0)


@dataclass(frozen=True)
class Sketch:
    """How often each value of a column occurs: exactly while few differ, then cut to fewer and fewer digits.

    Cutting is nested, so that the sketch of parts that are merged is the sketch of the whole, in whatever order (the
    bins of Ben-Haim & Tom-Tov 2010 on a fixed grid, as in DDSketch, Masson et al. 2019).

    Attributes:
        counts: of each value.
        bits: binary digits of the fraction that are kept; None for twelve decimal ones.

    >>> some = Sketch.of(np.arange(1000.0), np.ones(1000))
    >>> some.bits, len(some.counts), some.quantile(np.array([0.1, 0.5])).round().tolist()
    (5, 191, [100.0, 500.0])
    """

    counts: Mapping[float, int]
    bits: int | None = None

    @classmethod
    def of(cls, values: np.ndarray, weights: np.ndarray, bits: int | None = None) -> Sketch:
        """Of finite values (n,), each so often (n,), to no more binary digits than these."""
        series = pd.Series(weights).groupby(_truncated(values, bits) if bits is not None else values).sum()
        while len(series) > MAX_DISTINCT:
            bits = _FINEST if bits is None else bits - 1
            series = series.groupby(_truncated(series.index.to_numpy(float), bits)).sum()
        return cls({float(name): int(count) for name, count in series.items()}, bits)  # type: ignore[arg-type]

    def merge(self, other: Sketch) -> Sketch:
        """The sketch of both sets of values together."""
        bits = min((each.bits for each in (self, other) if each.bits is not None), default=None)
        names, counts = (np.array([*a, *b]) for a, b in zip(self._arrays, other._arrays, strict=True))
        return Sketch.of(names, counts, bits)

    @property
    def _arrays(self) -> tuple[np.ndarray, np.ndarray]:
        return np.array(list(self.counts), dtype=float), np.array(list(self.counts.values()), dtype=np.int64)

    def bins(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Smallest and largest value of each entry, ascending, and how many rows it has: three of (k,)."""
        names, counts = self._arrays
        ends = names
        if self.bits is not None:
            size = np.minimum(np.abs(names).view(np.int64) + (1 << (_MANTISSA - self.bits)), _LARGEST)
            ends = np.where(names == 0, 0.0, np.copysign(size.view(np.float64), names))
        low, high = np.minimum(names, ends), np.maximum(names, ends)
        order = np.argsort(low, kind="stable")
        return low[order], high[order], counts[order]

    def quantile(self, q: np.ndarray) -> np.ndarray:
        """Quantiles, interpolated within the entries; NaN without values."""
        low, high, counts = self.bins()
        if not len(counts):
            return np.full(np.shape(q), math.nan)
        reached = np.cumsum(counts) / counts.sum()
        place = np.searchsorted(reached[:-1], q)
        within = (q - (reached[place] - counts[place] / counts.sum())) * counts.sum() / counts[place]
        return np.asarray(low[place] + np.clip(within, 0, 1) * (high[place] - low[place]))

    def below(self, x: np.ndarray) -> np.ndarray:
        """Share of the values below each x, of those equal to it the half."""
        low, high, counts = self.bins()
        width = np.where(high > low, high - low, 1.0)
        inside = np.clip((x[..., None] - low) / width, 0, 1)
        inside = np.where(high > low, inside, 0.5 * (np.sign(x[..., None] - low) + 1))
        return np.asarray(inside @ counts / max(1, counts.sum()))


@dataclass(frozen=True, eq=False)
class Fingerprints:
    """The smallest hashes of a table's rows: a uniform sample of its distinct rows, with how often each occurs.

    Two tables keep the hashes of the same rows, so the sample shows what they share (the bottom-k sketch of Cohen &
    Kaplan 2007); it can be merged.

    Attributes:
        rows: of the table.
        hashes: the smallest ones (k,), ascending.
        counts: how many rows have each (k,).

    >>> before = Fingerprints.of(pd.DataFrame({"x": [1.0, 2.0, 3.0]}))
    >>> Fingerprints.of(pd.DataFrame({"x": [3.0, 3.0, 4.0]})).copied(before)
    0.5
    """

    rows: int
    hashes: np.ndarray
    counts: np.ndarray

    @classmethod
    def of(cls, columns: pd.DataFrame) -> Fingerprints:
        """Those of a table of coerced columns (n, any)."""
        each = pd.util.hash_pandas_object(columns, index=False).to_numpy()
        hashes, counts = np.unique(each, return_counts=True)
        return cls(len(columns), hashes[:_FINGERPRINTS], counts[:_FINGERPRINTS])

    @property
    def twins(self) -> float:
        """Share of the rows that are not the only one of their kind."""
        return float(self.counts[self.counts > 1].sum() / self.counts.sum()) if len(self.counts) else 0.0

    def copied(self, earlier: Fingerprints, *, least: int = 1) -> float:
        """Share of the distinct rows that the earlier table has, too; NaN if fewer than ``least`` can be compared."""
        mine = self.hashes[: np.searchsorted(self.hashes, self._reach(earlier), side="right")]
        return float(np.isin(mine, earlier.hashes).mean()) if len(mine) >= least else math.nan

    def merge(self, other: Fingerprints) -> Fingerprints:
        """Those of both sets of rows together; order does not matter."""
        hashes, where = np.unique(np.concatenate([self.hashes, other.hashes]), return_inverse=True)
        counts = np.bincount(where, np.concatenate([self.counts, other.counts])).astype(np.int64)
        known = min(_FINGERPRINTS, int(np.searchsorted(hashes, self._reach(other), side="right")))
        return Fingerprints(self.rows + other.rows, hashes[:known], counts[:known])

    def _reach(self, other: Fingerprints) -> np.uint64:
        """The hash up to which both samples hold all rows."""
        full = [side.hashes[-1] for side in (self, other) if len(side.hashes) >= _FINGERPRINTS]
        return min(full, default=np.uint64(2**64 - 1))

    def to_dict(self) -> dict[str, Any]:
        """A strict JSON form."""
        return {"rows": self.rows, "hashes": self.hashes.tolist(), "counts": self.counts.tolist()}

    @classmethod
    def from_dict(cls, document: Mapping[str, Any]) -> Fingerprints:
        """Read back what :meth:`to_dict` wrote."""
        hashes = np.array(document["hashes"], dtype=np.uint64)
        return cls(document["rows"], hashes, np.array(document["counts"], dtype=np.int64))
