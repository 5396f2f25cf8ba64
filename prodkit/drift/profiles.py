"""Summaries of columns and of tables, which can be merged, against bins that are frozen at training."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields, replace
from itertools import pairwise
from typing import Any

import numpy as np
import pandas as pd

from prodkit.data.cells import Kind
from prodkit.drift.sketches import MAX_DISTINCT, Fingerprints, Sketch
from prodkit.errors import DataError

__all__ = ["Bins", "ColumnProfile", "Fingerprints", "Profile"]

_MAX_BINS = 32
_MAX_LEVELS = 100  # with a bin of their own
_MAX_KNOWN = 1000  # levels that do not count as unseen
_LEVEL_ROWS = 10  # of a level with a bin of its own, where not all have one: fewer may be chance
_FOLDS = 5  # that the reference is cut into, each of which is held back once


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
        novelty: share of rows to expect whose level is unseen, measured on parts of the reference that were held back.
        turnover: share of rows whose levels come or go from one fifth of the reference to the next.

    >>> Bins.of_numbers(np.array([1.0, 2.0, 2.0, 5.0]), kind="numeric").cuts
    (1.5, 3.5)
    """

    kind: Kind
    cuts: tuple[float, ...] = ()
    levels: tuple[str, ...] = ()
    low: float | None = None
    high: float | None = None
    known: tuple[str, ...] = ()
    novelty: float = 0.0
    turnover: float = 0.0

    @classmethod
    def of_numbers(cls, values: np.ndarray, *, kind: Kind) -> Bins:
        """Choose bins for floats (n,): one for each value if these are few, else of equal shares."""
        if kind == "boolean":
            return cls(kind, cuts=(0.5,))
        values = values[np.isfinite(values)]
        if not len(values):
            return cls(kind)
        return cls(kind, cuts=_cuts(values)).ranging(float(values.min()), float(values.max()))

    @classmethod
    def of_levels(cls, codes: np.ndarray, names: Sequence[str | None], *, blocks: np.ndarray) -> Bins:
        """Choose bins for levels by falling frequency, ties by name.

        The most frequent levels of a sample are less frequent elsewhere, and other rows have other rare ones. So
        where not all levels have a bin, one of few rows has none, and ``novelty`` is what a fifth of the blocks
        came to whose rows had no part in the choice.

        Args:
            codes: (n,) the level of each row, 0 to d - 1.
            names: (d,) of the levels, each once; None is a missing one.
            blocks: (n,) label of each row's block.
        """
        places, labels = pd.factorize(blocks, sort=True)
        fold = np.arange(len(labels)) * _FOLDS // max(1, len(labels))
        folds = np.bincount(fold[places] * len(names) + codes, minlength=_FOLDS * len(names))
        folds = folds.reshape(_FOLDS, -1) * np.array([name is not None for name in names], dtype=bool)
        counts = folds.sum(axis=0)
        used = sorted(np.flatnonzero(counts).tolist(), key=lambda code: (-counts[code], names[code]))
        own = used if len(used) <= _MAX_LEVELS else [code for code in used if counts[code] >= _LEVEL_ROWS]
        levels = tuple(str(names[code]) for code in used[:_MAX_KNOWN])
        own_bins = min(len(own), _MAX_LEVELS)
        bins = cls("categorical", levels=levels[:own_bins], known=levels[own_bins:])
        return replace(bins, novelty=_novelty(folds), turnover=_turnover(folds))

    def ranging(self, low: float, high: float) -> Bins:
        """The same bins of a reference whose smallest and largest value are these."""
        width = min(high - low, 1e300)
        return replace(self, low=low - width, high=high + width)

    @property
    def size(self) -> int:
        """How many bins there are, the one for other levels included, missing excluded."""
        return len(self.levels if self.kind == "categorical" else self.cuts) + 1

    @property
    def names(self) -> list[str]:
        """A label for each bin, for tables and figures."""
        if self.kind == "categorical":
            return [*self.levels, "(other)"]
        if self.kind == "boolean":
            return ["false", "true"]
        ends = [f"{edge:.4g}" for edge in (-math.inf, *self.cuts, math.inf)]
        return [f"{a} to {b}" for a, b in pairwise(ends)]


def _novelty(folds: np.ndarray) -> float:
    """Share of unseen rows in folds that are held back, in the mean or in the last, from counts (folds, d)."""
    held_back = folds[folds.any(axis=1)]
    if len(held_back) < 2:  # nothing to choose from would be left
        return float((folds.sum(axis=0) == 1).sum() / max(1, folds.sum()))
    rest = held_back.sum(axis=0) - held_back
    if rest.shape[1] > _MAX_KNOWN:
        least = -np.partition(-rest, _MAX_KNOWN, axis=1)[
            :, [_MAX_KNOWN]
        ]  # of the first level that is not known
        rest = np.where(rest > least, rest, 0)
    shares = (held_back * (rest == 0)).sum(axis=1) / held_back.sum(axis=1)
    return float(max(shares.mean(), shares[-1]))  # levels may come and go: a window follows upon the last


def _turnover(folds: np.ndarray) -> float:
    """Largest share of the rows of a fold whose levels are new to it, or gone ever after, from counts (folds, d)."""
    folds = folds[folds.any(axis=1)]
    if len(folds) < 3:
        return 0.0
    rows = folds.sum(axis=1)
    came = [(folds[i] * (folds[:i].sum(axis=0) == 0)).sum() / rows[i] for i in range(2, len(folds))]
    went = [(folds[i] * (folds[i + 1 :].sum(axis=0) == 0)).sum() / rows[i] for i in range(len(folds) - 2)]
    return float(max(came + went))


def _cuts(values: np.ndarray) -> tuple[float, ...]:
    distinct = np.unique(values)
    # Few rows fill few bins: empty ones only add noise to every distance between histograms.
    size = int(np.clip(math.sqrt(len(values)) / 2, 4, _MAX_BINS))
    if len(distinct) <= size:
        return tuple((distinct[:-1] / 2 + distinct[1:] / 2).tolist())
    inner = np.quantile(values, np.arange(1, size) / size, method="higher")
    # A value that fills a bin or more has one to itself: the next value opens the next bin.
    piled = np.append(inner[:-1][np.diff(inner) == 0], inner[inner == distinct[0]])
    following = np.searchsorted(distinct, piled, side="right")
    after = distinct[following[following < len(distinct)]]
    return tuple(np.unique(np.append(inner[inner > distinct[0]], after)).tolist())


@dataclass(frozen=True, eq=False)
class ColumnProfile:
    """Counts and moments of each block of one column, from which all else follows.

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
        sketch: how often each value occurs; None for categories, and where an earlier release kept too few.
        fractional: values that are no whole numbers, None if they were not counted.
        unknown: how often each level occurs that the schema does not know; None if they are too many to be kept.
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
    sketch: Sketch | None = None
    fractional: int | None = None
    unknown: Mapping[str, int] | None = None

    def __setstate__(self, state: dict[str, Any]) -> None:
        if "values" in state:  # of an earlier release
            values = state.pop("values")
            state["sketch"] = None if values is None else Sketch(values)
        self.__dict__.update(state)

    @property
    def exact(self) -> Mapping[float, int] | None:
        """How often each value occurs, to twelve digits; None if more than 256 differ."""
        return self.sketch.counts if self.sketch is not None and self.sketch.bits is None else None

    @property
    def kind(self) -> Kind:
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
    def unseen_share(self) -> float:
        """Share of unseen levels that a window of the same law has, if this is the reference."""
        return max(self.share(self.unseen), self.bins.novelty)

    @property
    def block_rows(self) -> np.ndarray:
        """Rows of each block (b,)."""
        return np.asarray(self.block_counts.sum(axis=1))

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
        with np.errstate(over="ignore", invalid="ignore"):
            between = self.block_n * (self.block_means - self.mean) ** 2
            return math.sqrt(float(self.block_m2s.sum() + between.sum()) / self.n)

    def share(self, count: int) -> float:
        """A count as a share of the rows; 0 if there are none."""
        return count / self.rows if self.rows else 0.0

    def quantile(self, q: float | np.ndarray) -> np.ndarray:
        """Quantiles, interpolated within bins if many values differ; NaN if there are none, or categories."""
        if self.min is None or self.max is None:
            return np.full(np.shape(q), math.nan)
        if self.exact is not None:
            shares = np.cumsum(list(self.exact.values())) / self.n
            return np.array(list(self.exact))[np.searchsorted(shares[:-1], q)]
        # A value of the current data may lie outside the cuts: the ends of the range are its own.
        ends = np.clip([self.min, *self.bins.cuts, self.max], self.min, self.max)
        shares = np.concatenate([[0.0], np.cumsum(self.counts) / self.n])
        return np.asarray(np.interp(q, shares, ends))

    @property
    def median(self) -> float:
        """The middle value, to the width of a bin."""
        return float(self.quantile(0.5))

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
        a, b, blocks = self, other, np.union1d(self.blocks, other.blocks)
        places = [np.searchsorted(blocks, side.blocks) for side in (a, b)]

        def total(one: np.ndarray, two: np.ndarray) -> np.ndarray:
            whole = np.zeros((len(blocks), *one.shape[1:]), one.dtype)
            for place, part in zip(places, (one, two), strict=True):
                whole[place] += part
            return whole

        with np.errstate(over="ignore", invalid="ignore"):
            means = total(a.block_n * a.block_means, b.block_n * b.block_means)
            means = np.nan_to_num(means / np.maximum(total(a.block_n, b.block_n), 1))
            gaps = [side.block_means - means[place] for side, place in zip((a, b), places, strict=True)]
            m2s = total(
                *(side.block_m2s + side.block_n * gap * gap for side, gap in zip((a, b), gaps, strict=True))
            )
        fractions = None if None in (a.fractional, b.fractional) else a.fractional + b.fractional  # type: ignore[operator]
        return ColumnProfile(
            bins=self.bins,
            blocks=blocks,
            block_counts=total(a.block_counts, b.block_counts),
            block_means=means,
            block_m2s=np.nan_to_num(m2s),
            block_unseen=total(a.block_unseen, b.block_unseen),
            malformed=a.malformed + b.malformed,
            beyond=a.beyond + b.beyond,
            zero=a.zero + b.zero,
            min=min((x for x in (a.min, b.min) if x is not None), default=None),
            max=max((x for x in (a.max, b.max) if x is not None), default=None),
            sketch=a.sketch.merge(b.sketch) if a.sketch is not None and b.sketch is not None else None,
            fractional=fractions,
            unknown=_added(a.unknown, b.unknown),
        )

    def within(self, chosen: np.ndarray) -> ColumnProfile:
        """The same of some of the blocks, ``chosen`` (b,).

        Counts and moments are those of these blocks; what is not kept by block (range, single values, values that
        were malformed, beyond the range or 0) is still that of all.
        """
        arrays: dict[str, Any] = {name: getattr(self, name)[chosen] for name in _BY_BLOCK}
        return replace(self, sketch=None, unknown=None, **arrays)

    def to_dict(self) -> dict[str, Any]:
        """A strict JSON form; the moments of categories, always 0, are left out."""
        document = {name: list(x) if isinstance(x, tuple) else x for name, x in asdict(self.bins).items()}
        document |= {name: getattr(self, name) for name in _SINGLE}
        kept = self.sketch
        document["values"] = None if kept is None else [list(pair) for pair in sorted(kept.counts.items())]
        document["bits"] = None if kept is None else kept.bits
        document["unknown"] = None if self.unknown is None else dict(self.unknown)
        moments = {"block_means", "block_m2s"} if self.kind == "categorical" else set()
        return document | {name: getattr(self, name).tolist() for name in _BY_BLOCK if name not in moments}

    @classmethod
    def from_dict(cls, document: Mapping[str, Any]) -> ColumnProfile:
        """Read back what :meth:`to_dict` wrote."""
        chosen: dict[str, Any] = {
            each.name: document[each.name] for each in fields(Bins) if each.name in document
        }
        chosen = {name: tuple(x) if isinstance(x, list) else x for name, x in chosen.items()}
        bins, zeros = Bins(**chosen), [0] * len(document["blocks"])
        given: dict[str, Any] = {
            name: np.array(document.get(name, zeros), kind) for name, kind in _BY_BLOCK.items()
        }
        given["block_counts"] = given["block_counts"].reshape(len(zeros), bins.size + 1)
        given |= {name: document.get(name) for name in (*_SINGLE, "unknown")}
        values = document["values"]
        sketch = None if values is None else Sketch(dict(values), document.get("bits"))
        return cls(bins, sketch=sketch, **given)


_BY_BLOCK: dict[str, type] = {
    "blocks": np.int64,
    "block_counts": np.int64,
    "block_means": float,
    "block_m2s": float,
    "block_unseen": np.int64,
}
_SINGLE = ("malformed", "beyond", "zero", "min", "max", "fractional")


def _added(a: Mapping[str, int] | None, b: Mapping[str, int] | None) -> dict[str, int] | None:
    """Counts of both; None if there are too many, whatever the order in which parts are merged."""
    if a is None or b is None:
        return None
    total = {name: a.get(name, 0) + b.get(name, 0) for name in sorted({*a, *b})}
    return total if len(total) <= MAX_DISTINCT else None


@dataclass(frozen=True, eq=False)
class Profile:
    """A summary of a table.

    Attributes:
        rows: how many there are.
        columns: a summary of each feature.
        notes: why a column has no values, where it could not be read.
        fingerprints: a sample of the rows, by which copies are known; None where none was taken.
        timeless: rows that were left out since nothing says when they happened.
    """

    rows: int
    columns: Mapping[str, ColumnProfile]
    notes: Mapping[str, str] = field(default_factory=dict)
    fingerprints: Fingerprints | None = None
    timeless: int = 0

    @property
    def blocks(self) -> np.ndarray:
        """Labels of the blocks (b,), ascending."""
        return next((column.blocks for column in self.columns.values()), np.array([], dtype=np.int64))

    @property
    def block_rows(self) -> np.ndarray:
        """Rows of each block (b,)."""
        return next((column.block_rows for column in self.columns.values()), np.array([], dtype=np.int64))

    def merge(self, other: Profile) -> Profile:
        """The profile of both sets of rows together; order does not matter.

        Raises:
            DataError: the columns or their bins differ.
        """
        if self.columns.keys() != other.columns.keys():
            differing = sorted(self.columns.keys() ^ other.columns.keys())
            raise DataError("columns", rule="must be the same in both profiles", value=", ".join(differing))
        merged = {name: column.merge(other.columns[name]) for name, column in self.columns.items()}
        notes = {name: max(self.notes.get(name, ""), other.notes.get(name, "")) for name in merged}
        mine, others = self.fingerprints, other.fingerprints
        return Profile(
            rows=self.rows + other.rows,
            columns=merged,
            notes={name: note for name, note in notes.items() if note},
            fingerprints=mine.merge(others) if mine is not None and others is not None else None,
            timeless=self.timeless + other.timeless,
        )

    def within(self, chosen: np.ndarray) -> Profile:
        """The same of some of the blocks, ``chosen`` (b,), as :meth:`ColumnProfile.within`."""
        columns = {name: column.within(chosen) for name, column in self.columns.items()}
        return replace(self, rows=int(self.block_rows[chosen].sum()), columns=columns)

    def to_dict(self) -> dict[str, Any]:
        """A strict JSON form."""
        return {
            "rows": self.rows,
            "columns": {name: column.to_dict() for name, column in self.columns.items()},
            "notes": dict(self.notes),
            "fingerprints": None if self.fingerprints is None else self.fingerprints.to_dict(),
            "timeless": self.timeless,
        }

    @classmethod
    def from_dict(cls, document: Mapping[str, Any]) -> Profile:
        """Read back what :meth:`to_dict` wrote."""
        columns = {name: ColumnProfile.from_dict(part) for name, part in document["columns"].items()}
        sample = document.get("fingerprints")
        prints = None if sample is None else Fingerprints.from_dict(sample)
        return cls(document["rows"], columns, document.get("notes", {}), prints, document.get("timeless", 0))
