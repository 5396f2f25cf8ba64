"""Counts and moments of one column's values, block by block, in one pass over numpy arrays."""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

__all__ = ["MAX_COUNTED", "MAX_DISTINCT", "Blocks", "level_tally", "many_differ", "number_tally"]

MAX_DISTINCT = 256  # values whose counts are kept
MAX_COUNTED = 4096  # distinct values up to which each is counted, which is faster than comparing
_PROBE = 512  # values that decide which way is taken
_LONG = 4096  # rows of a block from which on counting it by itself is faster
_STRETCH = 65536  # values whose comparisons stay in the cache

Fields = dict[str, Any]


@dataclass(frozen=True, eq=False)
class Blocks:
    """The blocks that rows belong to, their units of dependence.

    Attributes:
        labels: of the blocks (b,), ascending.
        edges: where each block begins, and the last one ends (b + 1,), if the rows are in their order.
        unordered: which block each row is in (n,), if they are not.

    >>> blocks = Blocks.of(np.array([7, 7, 9]))
    >>> blocks.labels.tolist(), blocks.codes.tolist()
    ([7, 9], [0, 0, 1])
    """

    labels: np.ndarray
    edges: np.ndarray | None = None
    unordered: np.ndarray | None = None

    @classmethod
    def of(cls, given: np.ndarray) -> Blocks:
        """From the label of each row (n,)."""
        given = np.asarray(given, dtype=np.int64)
        starts = np.concatenate([[0], np.flatnonzero(np.diff(given)) + 1])[: len(given)]
        labels = given[starts]
        if (np.diff(labels) > 0).all():
            return cls(labels, edges=np.append(starts, len(given)))
        low, span = int(given.min()), int(given.max()) - int(given.min())
        if span < 4 * len(given):  # days in any order: a table is faster than sorting
            there = np.zeros(span + 1, dtype=np.int64)
            there[given - low] = 1
            return cls(np.flatnonzero(there) + low, unordered=(np.cumsum(there) - 1)[given - low])
        labels, codes = np.unique(given, return_inverse=True)
        return cls(labels, unordered=codes.astype(np.int64, copy=False))

    @classmethod
    def stretches(cls, first: int, rows: int, *, length: int) -> Blocks:
        """Of so many rows from row ``first`` of a table on, which is cut into stretches of this length."""
        if not rows:
            return cls.of(np.array([]))
        labels = np.arange(first // length, (first + rows - 1) // length + 1)
        edges = np.clip(np.append(labels, labels[-1] + 1) * length - first, 0, rows)
        return cls(labels, edges=edges)

    @property
    def rows(self) -> int:
        """How many rows there are."""
        return int(self.edges[-1]) if self.edges is not None else len(self.codes)

    @property
    def codes(self) -> np.ndarray:
        """Which block each row is in (n,)."""
        return self.spread(np.arange(len(self.labels))) if self.unordered is None else self.unordered

    def spread(self, values: np.ndarray) -> np.ndarray:
        """To each row (n,) the value (b,) of its block."""
        if self.edges is not None:
            return np.repeat(values, np.diff(self.edges))
        return np.asarray(values[self.codes])

    def table(self, places: np.ndarray, size: int) -> np.ndarray:
        """How many rows of each block have each place, 0 to ``size - 1``: (b, size)."""
        count = len(self.labels)
        if self.edges is not None and len(places) >= _LONG * count:
            cells = np.empty((count, size), dtype=np.int64)
            for block, (start, end) in enumerate(pairwise(self.edges.tolist())):
                cells[block] = np.bincount(places[start:end], minlength=size)
            return cells
        return np.bincount(self.codes * size + places, minlength=count * size).reshape(count, size)

    def sums(self, values: np.ndarray) -> np.ndarray:
        """Sum of the values of each block (b,)."""
        if self.edges is not None:
            return np.add.reduceat(values, self.edges[:-1]) if len(values) else np.zeros(0)
        return np.bincount(self.codes, weights=values, minlength=len(self.labels))


def number_tally(
    values: np.ndarray,
    blocks: Blocks,
    *,
    cuts: np.ndarray,
    low: float | None = None,
    high: float | None = None,
    codes: np.ndarray | None = None,
) -> Fields:
    """The fields of a :class:`~prodkit.drift.columns.ColumnProfile` of floats (n,); NaN is missing.

    Where few values differ each is counted, and all else follows from these counts. Elsewhere values are
    compared with the cuts. Both give the same numbers.

    Args:
        values: float64 (n,); infinities count as malformed and as missing.
        blocks: of the rows.
        cuts: inner edges of the bins (k,), ascending, at most 255.
        low: smaller values are beyond the range; None for no limit.
        high: larger ones are, too.
        codes: which of the values each row has (n,), if these are (d,).
    """
    limits = -math.inf if low is None else low, math.inf if high is None else high
    if codes is None and not many_differ(values):
        values, codes = _encoded(values)
    with np.errstate(over="ignore", invalid="ignore"):
        if codes is None:
            return _compared(values, blocks, cuts, limits)
        if len(values) <= MAX_COUNTED and len(values) * len(blocks.labels) <= max(len(codes), MAX_COUNTED):
            return _counted(values, codes, blocks, cuts, limits)
        kept = _value_counts(values, np.bincount(codes, minlength=len(values)))
        return _compared(values[codes], blocks, cuts, limits) | {"values": kept}


def level_tally(codes: np.ndarray, blocks: Blocks, *, places: np.ndarray, size: int) -> Fields:
    """The fields of a profile of levels.

    Args:
        codes: the level of each row (n,).
        blocks: of the rows.
        places: of each level (levels,): its bin, the last one for others; ``size`` if it is missing; and
            ``size + 1`` more if it is unseen.
        size: how many bins there are.
    """
    width = 2 * (size + 1)
    if len(places) * len(blocks.labels) <= max(len(codes), MAX_COUNTED):
        by_level, table = blocks.table(codes, len(places)), np.zeros((width, len(blocks.labels)), np.int64)
        np.add.at(table, places, by_level.T)
        table = table.T
    else:
        table = blocks.table(places[codes], width)
    seen, unseen = table[:, : size + 1], table[:, size + 1 :]
    zeros = np.zeros(len(blocks.labels))
    return {
        "block_counts": seen + unseen,
        "block_unseen": unseen.sum(axis=1),
        "block_means": zeros,
        "block_m2s": zeros,
    }


def many_differ(values: np.ndarray) -> bool:
    """Do a few hundred of these values tell that more differ than can be counted or kept?"""
    some = values[:: max(1, len(values) // _PROBE)]
    return len(np.unique(some)) > 0.97 * _PROBE and len(np.unique(_to_twelve_digits(some))) > MAX_DISTINCT


def _encoded(values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Distinct values (d,) and which of them each row has (n,)."""
    buffers = [None, pa.py_buffer(np.ascontiguousarray(values))]
    found = pc.dictionary_encode(pa.Array.from_buffers(pa.float64(), len(values), buffers))
    distinct = np.frombuffer(found.dictionary.buffers()[1], np.float64, len(found.dictionary))
    return distinct, np.frombuffer(found.indices.buffers()[1], np.int32, len(values))


def _counted(
    distinct: np.ndarray, codes: np.ndarray, blocks: Blocks, cuts: np.ndarray, limits: tuple[float, float]
) -> Fields:
    """From how often each value occurs in each block."""
    table = blocks.table(codes, len(distinct))
    finite = np.isfinite(distinct)
    order = np.flatnonzero(finite)[np.argsort(distinct[finite], kind="stable")]
    x, counts = distinct[order], table[:, order]
    n, total = counts.sum(axis=1), counts.sum(axis=0)
    means = (counts @ x) / np.maximum(n, 1)
    edges = [0, *np.searchsorted(x, cuts), len(x)]
    below = np.concatenate([np.zeros((len(n), 1), int), np.cumsum(counts, axis=1)], axis=1)[:, edges]
    missing = table[:, ~finite].sum(axis=1, keepdims=True)
    squares = np.where(counts > 0, counts * (x - means[:, None]) ** 2, 0.0)
    return {
        "block_counts": np.concatenate([np.diff(below, axis=1), missing], axis=1),
        "block_means": np.nan_to_num(means),
        "block_m2s": np.nan_to_num(squares.sum(axis=1)),
        "malformed": int(table[:, np.isinf(distinct)].sum()),
        "beyond": int(total[(x < limits[0]) | (x > limits[1])].sum()),
        "zero": int(total[x == 0].sum()),
        "min": float(x[0]) if len(x) else None,
        "max": float(x[-1]) if len(x) else None,
        "values": _value_counts(x, total),
    }


def _compared(values: np.ndarray, blocks: Blocks, cuts: np.ndarray, limits: tuple[float, float]) -> Fields:
    """From comparisons with each cut, in stretches that stay in the cache."""
    finite = np.isfinite(values)
    sound = bool(finite.all())
    x = values if sound else np.where(finite, values, 0.0)
    places = _bins(x, cuts)
    if not sound:
        places[~finite] = len(cuts) + 1
    counts = blocks.table(places, len(cuts) + 2)
    means = blocks.sums(x) / np.maximum(counts[:, :-1].sum(axis=1), 1)
    gaps = x - blocks.spread(means)
    if not sound:
        gaps[~finite] = 0.0
        x = values[finite]
    gaps *= gaps
    low, high = (float(x.min()), float(x.max())) if len(x) else (None, None)
    inside = low is None or high is None or (limits[0] <= low and high <= limits[1])
    return {
        "block_counts": counts,
        "block_means": np.nan_to_num(means),
        "block_m2s": np.nan_to_num(blocks.sums(gaps)),
        "malformed": 0 if sound else int(np.isinf(values).sum()),
        "beyond": 0 if inside else int(np.count_nonzero((x < limits[0]) | (x > limits[1]))),
        "zero": int(np.count_nonzero(x == 0)),
        "min": low,
        "max": high,
        "values": None,
    }


def _bins(values: np.ndarray, cuts: np.ndarray) -> np.ndarray:
    """How many cuts each value (n,) reaches, as uint8: a quarter of the time of a binary search."""
    places = np.zeros(len(values), dtype=np.uint8)
    reached = np.empty(min(_STRETCH, len(values)), dtype=bool)
    for start in range(0, len(values), _STRETCH):
        some, found = values[start : start + _STRETCH], places[start : start + _STRETCH]
        flags = reached[: len(some)]
        for cut in cuts:
            np.greater_equal(some, cut, out=flags)
            np.add(found, flags.view(np.uint8), out=found)
    return places


def _to_twelve_digits(values: np.ndarray) -> np.ndarray:
    values = values[np.isfinite(values)]
    with np.errstate(over="ignore", invalid="ignore"):
        scale = 10.0 ** (11 - np.floor(np.log10(np.where(values == 0, 1, np.abs(values)))))
        return np.where(np.isfinite(values * scale), np.round(values * scale) / scale, values)


def _value_counts(values: np.ndarray, counts: np.ndarray) -> dict[float, int] | None:
    """How often each finite value occurs, rounded to twelve significant digits; None if there are too many.

    Whether there are too many depends on all values together, so that merging stays associative.
    """
    names, where = np.unique(_to_twelve_digits(values), return_inverse=True)
    if len(names) > MAX_DISTINCT:
        return None
    totals = np.bincount(where, weights=counts[np.isfinite(values)], minlength=len(names))
    return {float(name): int(total) for name, total in zip(names, totals, strict=True)}
