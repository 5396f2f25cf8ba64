"""What is kept of one column: counts and moments of each block of rows, which can be merged."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from prodkit.drift.bins import Bins, factorized
from prodkit.drift.tally import MAX_DISTINCT, Blocks, level_tally, number_tally
from prodkit.errors import DataError

__all__ = ["ColumnProfile", "column_profile", "level_profile", "number_profile"]


@dataclass(frozen=True, eq=False)
class ColumnProfile:
    """What is kept of one column: counts and moments of each block, from which all else follows.

    Rows of one block (a day) resemble each other; keeping the blocks apart is what makes an honest
    p-value possible later. Moments are those of present, finite values.

    Attributes:
        bins: how values were counted.
        blocks: labels of the blocks (b,), ascending.
        block_counts: rows of each block in each bin (b, bins + 1); the last column counts missing ones.
        block_means: mean of each block (b,); 0 where it has no value, and for categories.
        block_m2s: sum of squared deviations from the block's mean (b,).
        block_unseen: rows whose level the schema does not know (b,).
        malformed: values that could not be read as the column's kind, infinities included. They
            count as missing, too.
        beyond: values outside ``bins.low`` to ``bins.high``.
        zero: values that are 0.
        min: smallest value, None if there is none.
        max: largest value, None if there is none.
        values: how often each value occurs, to twelve digits; None if more than 256 differ.
        fractional: values that are no whole numbers, None if they were not counted.
    """

    bins: Bins
    blocks: np.ndarray
    block_counts: np.ndarray
    block_means: np.ndarray
    block_m2s: np.ndarray
    block_unseen: np.ndarray
    malformed: int = 0
    beyond: int = 0
    zero: int = 0
    min: float | None = None
    max: float | None = None
    values: Mapping[float, int] | None = None
    fractional: int | None = None

    @property
    def kind(self) -> str:
        """Numeric, categorical, boolean or datetime."""
        return self.bins.kind

    @property
    def rows(self) -> int:
        """All rows, missing ones included."""
        return int(self.block_counts.sum())

    @property
    def counts(self) -> np.ndarray:
        """Rows in each bin (bins,), missing ones excluded."""
        return np.asarray(self.block_counts[:, :-1].sum(axis=0))

    @property
    def n(self) -> int:
        """Rows with a value."""
        return int(self.counts.sum())

    @property
    def missing(self) -> int:
        """Rows without a value, malformed ones included."""
        return int(self.block_counts[:, -1].sum())

    @property
    def unseen(self) -> int:
        """Rows whose level the schema does not know."""
        return int(self.block_unseen.sum())

    @property
    def block_n(self) -> np.ndarray:
        """Rows with a value, of each block (b,)."""
        return np.asarray(self.block_counts[:, :-1].sum(axis=1))

    @property
    def mean(self) -> float:
        """Mean of the values; NaN if there is none, and for categories."""
        if not self.n or self.kind == "categorical":
            return math.nan
        return float(np.average(self.block_means, weights=self.block_n))

    @property
    def sd(self) -> float:
        """Standard deviation of the values, within and between blocks; NaN as for the mean."""
        if math.isnan(self.mean):
            return math.nan
        with np.errstate(over="ignore"):
            between = self.block_n * (self.block_means - self.mean) ** 2
            return math.sqrt(float(self.block_m2s.sum() + between.sum()) / self.n)

    def share(self, count: int) -> float:
        """A count as a share of the rows; 0 if there are none."""
        return count / self.rows if self.rows else 0.0

    def quantile(self, q: float | np.ndarray) -> np.ndarray:
        """Quantiles, interpolated within bins if many values differ; NaN if there are none, or categories."""
        if self.min is None or self.max is None:
            return np.full(np.shape(q), math.nan)
        if self.values is not None:
            shares = np.cumsum(list(self.values.values())) / self.n
            return np.array(list(self.values))[np.searchsorted(shares[:-1], q)]
        # A value of the current data may lie outside the cuts: the ends of the range are its own.
        ends = np.clip([self.min, *self.bins.cuts, self.max], self.min, self.max)
        shares = np.concatenate([[0.0], np.cumsum(self.counts) / self.n])
        return np.asarray(np.interp(q, shares, ends))

    @property
    def median(self) -> float:
        """The middle value, to the width of a bin."""
        return float(self.quantile(0.5))

    @property
    def iqr(self) -> float:
        """Distance between the quartiles, to the width of a bin."""
        low, high = self.quantile(np.array([0.25, 0.75]))
        return float(high - low)

    def merge(self, other: ColumnProfile) -> ColumnProfile:
        """The profile of both sets of rows together; order does not matter.

        Raises:
            DataError: the bins differ.
        """
        if self.bins != other.bins:
            raise DataError(
                "bins",
                rule="must be the same in both profiles",
                value=f"{self.bins.size} and {other.bins.size} bins",
                fix="Make both with like=, the profile of the training rows.",
            )
        blocks = np.union1d(self.blocks, other.blocks)
        a, b = self._spread_over(blocks), other._spread_over(blocks)
        means, m2s = _pooled(a, b)
        return ColumnProfile(
            bins=self.bins,
            blocks=blocks,
            block_counts=a.block_counts + b.block_counts,
            block_means=means,
            block_m2s=m2s,
            block_unseen=a.block_unseen + b.block_unseen,
            malformed=self.malformed + other.malformed,
            beyond=self.beyond + other.beyond,
            zero=self.zero + other.zero,
            min=min((x for x in (self.min, other.min) if x is not None), default=None),
            max=max((x for x in (self.max, other.max) if x is not None), default=None),
            values=_added(self.values, other.values),
            fractional=None
            if self.fractional is None or other.fractional is None
            else self.fractional + other.fractional,
        )

    def between(self, first: int, last: int) -> ColumnProfile:
        """The same of the blocks from ``first`` to ``last``, both included; see :meth:`within`."""
        return self.within((self.blocks >= first) & (self.blocks <= last))

    def within(self, chosen: np.ndarray) -> ColumnProfile:
        """The same of some of the blocks, ``chosen`` (b,).

        Counts and moments are those of these blocks; what is not kept by block (range, single values, values that
        were malformed, beyond the range or 0) is still that of all.
        """
        fields = ("blocks", "block_counts", "block_means", "block_m2s", "block_unseen")
        return ColumnProfile(
            **{**self.__dict__, "values": None, **{name: getattr(self, name)[chosen] for name in fields}}
        )

    def _spread_over(self, blocks: np.ndarray) -> ColumnProfile:
        """The same, with empty blocks where ``blocks`` (a superset) has more."""
        at = np.searchsorted(blocks, self.blocks)
        wider: dict[str, Any] = {"blocks": blocks}
        for field in ("block_counts", "block_means", "block_m2s", "block_unseen"):
            old = getattr(self, field)
            wider[field] = np.zeros((len(blocks), *old.shape[1:]), dtype=old.dtype)
            wider[field][at] = old
        return ColumnProfile(**{**self.__dict__, **wider})

    def to_dict(self) -> dict[str, Any]:
        """A strict JSON form; the moments of categories, always 0, are left out."""
        document: dict[str, Any] = {
            "kind": self.kind,
            "cuts": list(self.bins.cuts),
            "levels": list(self.bins.levels),
            "known": list(self.bins.known),
            "novelty": self.bins.novelty,
            "low": self.bins.low,
            "high": self.bins.high,
            "values": None if self.values is None else [list(pair) for pair in sorted(self.values.items())],
        }
        for field in ("malformed", "beyond", "zero", "min", "max", "fractional"):
            document[field] = getattr(self, field)
        arrays = ["blocks", "block_counts", "block_unseen"]
        if self.kind != "categorical":
            arrays += ["block_means", "block_m2s"]
        return document | {name: getattr(self, name).tolist() for name in arrays}

    @classmethod
    def from_dict(cls, document: Mapping[str, Any]) -> ColumnProfile:
        """Read back what :meth:`to_dict` wrote."""
        bins = Bins(
            kind=document["kind"],
            cuts=tuple(document["cuts"]),
            levels=tuple(document["levels"]),
            known=tuple(document.get("known", ())),
            novelty=document.get("novelty", 0.0),
            low=document["low"],
            high=document["high"],
        )
        blocks = np.array(document["blocks"], dtype=np.int64)
        zeros = [0.0] * len(blocks)
        values = document["values"]
        return cls(
            bins=bins,
            blocks=blocks,
            block_counts=np.array(document["block_counts"], dtype=np.int64).reshape(
                len(blocks), bins.size + 1
            ),
            block_means=np.array(document.get("block_means", zeros), dtype=float),
            block_m2s=np.array(document.get("block_m2s", zeros), dtype=float),
            block_unseen=np.array(document["block_unseen"], dtype=np.int64),
            values=None if values is None else dict(values),
            fractional=document.get("fractional"),
            **{field: document[field] for field in ("malformed", "beyond", "zero", "min", "max")},
        )


def column_profile(
    values: np.ndarray,
    *,
    blocks: np.ndarray | Blocks,
    kind: str = "numeric",
    like: ColumnProfile | None = None,
    levels: Sequence[str] | None = None,
    malformed: int = 0,
) -> ColumnProfile:
    """Summarise one column: a feature, or a model's scores.

    Args:
        values: floats, or text if categorical (n,); a date is in seconds since 1970.
        blocks: label of each row's block (n,), or the blocks made of them.
        kind: what the values are; that of ``like`` if it is given.
        like: take the bins of this profile instead of making new ones.
        levels: known levels of a categorical, else those of the bins; others count as unseen.
        malformed: how many of the missing values are there but could not be read.

    >>> scores = column_profile(np.array([0.1, 0.4, np.inf]), blocks=np.array([7, 7, 8]))
    >>> scores.n, scores.missing, scores.malformed, scores.blocks.tolist(), scores.mean
    (2, 1, 1, [7, 8], 0.25)
    """
    values, days = np.asarray(values), blocks if isinstance(blocks, Blocks) else Blocks.of(blocks)
    kind = like.kind if like else kind
    if kind == "categorical":
        codes, names = factorized(values)
        counts = np.bincount(codes, minlength=len(names) + 1).tolist()
        bins = like.bins if like else Bins.of_levels(dict(zip(names, counts[:-1], strict=True)))
        seen = {*bins.levels, *bins.known} if levels is None else set(levels)
        places = np.array([*bins.places(names, known=seen), bins.size])
        return level_profile(codes, places, blocks=days, bins=bins, malformed=malformed)
    values = values.astype(float, copy=False)
    bins = like.bins if like else Bins.freeze(values, kind=kind)
    return number_profile(values, blocks=days, bins=bins, malformed=malformed)


def number_profile(
    values: np.ndarray,
    *,
    blocks: Blocks,
    bins: Bins,
    malformed: int = 0,
    codes: np.ndarray | None = None,
) -> ColumnProfile:
    """Summarise floats (n,) against frozen bins; NaN is missing, an infinity malformed.

    With ``codes`` (n,) the values are (d,), and each row has the one that its code names.
    """
    fields = number_tally(values, blocks, cuts=np.array(bins.cuts), low=bins.low, high=bins.high, codes=codes)
    fields["malformed"] += malformed
    unseen = np.zeros(len(blocks.labels), dtype=np.int64)
    return ColumnProfile(bins=bins, blocks=blocks.labels, block_unseen=unseen, **fields)


def level_profile(
    codes: np.ndarray, places: np.ndarray, *, blocks: Blocks, bins: Bins, malformed: int = 0
) -> ColumnProfile:
    """Summarise codes (n,) of levels that have these places (see :meth:`Bins.places`) in frozen bins."""
    fields = level_tally(codes, blocks, places=places, size=bins.size)
    return ColumnProfile(bins=bins, blocks=blocks.labels, malformed=malformed, **fields)


def _added(a: Mapping[float, int] | None, b: Mapping[float, int] | None) -> dict[float, int] | None:
    if a is None or b is None:
        return None
    total = {value: a.get(value, 0) + b.get(value, 0) for value in sorted({*a, *b})}
    return total if len(total) <= MAX_DISTINCT else None


def _pooled(a: ColumnProfile, b: ColumnProfile) -> tuple[np.ndarray, np.ndarray]:
    """Means and squared deviations of blocks in two parts (Chan, Golub & LeVeque 1983)."""
    n = np.maximum(a.block_n + b.block_n, 1)
    with np.errstate(over="ignore", invalid="ignore"):
        delta = b.block_means - a.block_means
        # An empty half has mean 0 by convention, and then weight 0.
        means = (a.block_n * a.block_means + b.block_n * b.block_means) / n
        m2s = a.block_m2s + b.block_m2s + delta * (delta * (a.block_n * b.block_n / n))
    return np.nan_to_num(means), np.nan_to_num(m2s)
