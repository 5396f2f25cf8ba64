"""Rows counted into profiles: those of arrays, of frames and of Arrow batches."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa

from prodkit.data.arrays import coded_floats, every, floats, is_plain, level_codes, mask_array
from prodkit.data.cells import Kind
from prodkit.data.schema import Schema
from prodkit.data.tables import Unreadable
from prodkit.drift.profiles import Bins, ColumnProfile, Fingerprints, Profile
from prodkit.drift.sketches import MAX_DISTINCT, Sketch, to_twelve_digits
from prodkit.errors import SchemaError

__all__ = [
    "Blocks",
    "batch_profile",
    "cells_profile",
    "column_profile",
    "counterpart",
    "missing_profile",
    "profile",
]

_MAX_COUNTED = 4096  # distinct numbers up to which each is counted, which is faster than comparing
_PROBE = 512  # numbers that decide which way is taken
_CACHED = 65_536  # numbers whose comparisons stay in the cache


@dataclass(frozen=True, eq=False)
class Blocks:
    """The blocks that rows belong to, their units of dependence.

    Attributes:
        labels: of the blocks (b,), ascending.
        codes: which block each row is in (n,); -1 if in none.

    >>> blocks = Blocks.of(np.array([7, 7, 9]))
    >>> blocks.labels.tolist(), blocks.codes.tolist()
    ([7, 9], [0, 0, 1])
    """

    labels: np.ndarray
    codes: np.ndarray

    @classmethod
    def of(cls, given: np.ndarray) -> Blocks:
        """From the label of each row (n,); a row of NaN is in no block."""
        codes, labels = pd.factorize(np.asarray(given), sort=True)
        return cls(labels.astype(np.int64), codes.astype(np.int32))

    @classmethod
    def stretches(cls, first: int, rows: int, *, length: int) -> Blocks:
        """Of so many rows from row ``first`` of a table on, which is cut into stretches of this length."""
        labels = np.arange(first // length, -(-(first + rows) // length))
        return cls(labels, ((first % length + np.arange(rows)) // length).astype(np.int32))

    def table(self, places: np.ndarray, size: int) -> np.ndarray:
        """How many rows of each block have each place, 0 to ``size - 1``: (b, size)."""
        index = self.codes.astype(np.intp)  # in place: new pages take longer than counting
        index *= size
        index += places
        return np.bincount(index, minlength=len(self.labels) * size).reshape(len(self.labels), size)

    def fits(self, size: int) -> bool:
        """Whether such a table is no larger than the rows themselves."""
        return size * len(self.labels) <= max(len(self.codes), _MAX_COUNTED)

    def sums(self, values: np.ndarray) -> np.ndarray:
        """Sum of the values of each block (b,)."""
        return np.bincount(self.codes, weights=values, minlength=len(self.labels))


def column_profile(
    values: np.ndarray,
    *,
    blocks: np.ndarray | Blocks,
    kind: Kind = "numeric",
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
        codes, known = pd.factorize(values.astype(object, copy=False))
        codes, names = np.where(codes < 0, len(known), codes), [*known, None]
        bins = like.bins if like else Bins.of_levels(codes, names, blocks=days.codes)
        return _levels(codes, names, blocks=days, bins=bins, known=levels, malformed=malformed)
    values = values.astype(float, copy=False)
    bins = like.bins if like else Bins.of_numbers(values, kind=kind)
    return _numbers(values, None, blocks=days, bins=bins, malformed=malformed)


def profile(
    frame: pd.DataFrame, schema: Schema, *, blocks: np.ndarray, like: Profile | None = None
) -> Profile:
    """Summarise the features of a table.

    A column that is absent, empty or garbage is a profile of missing values, never an error: the contract says
    what is wrong with it.

    Args:
        frame: rows, raw or coerced (n, any columns).
        schema: the features and their kinds.
        blocks: label of each row's block, its unit of dependence (n,), whole numbers such as days.
        like: take the bins of this profile instead of making new ones.

    Raises:
        SchemaError: ``like`` lacks a feature, or has it with another kind.
    """
    absent = {name: math.nan for name in schema.names if name not in frame.columns}
    rows = frame.assign(**absent) if absent else frame
    malformed, clean = schema.malformed(rows), schema.coerce(rows)
    days = Blocks.of(blocks)
    columns = {
        column.name: column_profile(
            _array(clean[column.name], column.kind),
            blocks=days,
            kind=column.kind,
            like=None if like is None else counterpart(like, column.name, kind=column.kind),
            levels=column.levels,
            malformed=malformed[column.name],
        )
        for column in schema.features
    }
    return Profile(len(frame), columns, fingerprints=Fingerprints.of(clean))


def _array(column: pd.Series[Any], kind: Kind) -> np.ndarray:
    """A coerced column as text, or as floats: a date becomes seconds since 1970."""
    if kind == "categorical":
        return column.to_numpy(dtype=object)
    if kind == "datetime":
        ticks = column.astype("datetime64[us]")
        return np.where(ticks.isna(), math.nan, ticks.astype("int64").to_numpy() / 1e6)
    return column.to_numpy(dtype=float)


def counterpart(like: Profile, name: str, *, kind: str | None = None) -> ColumnProfile:
    """A column of the reference profile; raises SchemaError if it has none of this name and kind."""
    column = like.columns.get(name)
    if column is None or kind not in (None, column.kind):
        raise SchemaError(
            name,
            rule=f"must be a {kind or ''} column of the reference profile".replace("  ", " "),
            value=column.kind if column else "no such column",
            fix="Make the reference profile with the schema of the same model version.",
        )
    return column


def batch_profile(batch: Any, schema: Schema, *, blocks: Blocks, like: Profile) -> Profile:
    """Summarise the features of an Arrow batch as :func:`profile` does those of a frame, without a sample of its rows.

    A feature that the batch lacks is a profile of missing values.

    Args:
        batch: rows (n, any columns).
        schema: the features and their levels.
        blocks: of the rows.
        like: whose bins count them.
    """
    columns, notes = {}, {}
    for feature in schema.features:
        bins, name = like.columns[feature.name].bins, feature.name
        cells = batch.column(name) if name in batch.schema.names else pa.nulls(batch.num_rows)
        columns[name], notes[name] = cells_profile(cells, bins, blocks, known=feature.levels)
    return Profile(batch.num_rows, columns, {name: note for name, note in notes.items() if note})


def cells_profile(
    cells: Any, bins: Bins, blocks: Blocks, *, known: Sequence[str] | None = None
) -> tuple[ColumnProfile, str]:
    """The profile of an Arrow array, and why it could not be read, if so; rows in no block are left out."""
    inside = blocks.codes >= 0
    if not inside.all():
        blocks = replace(blocks, codes=blocks.codes[inside])
        cells = cells if isinstance(cells, Unreadable) else cells.filter(mask_array(inside))
    if isinstance(cells, Unreadable):
        return missing_profile(
            bins, blocks, malformed=len(blocks.codes)
        ), f"could not be read: {cells.reason}"
    if pa.types.is_null(cells.type):
        return missing_profile(bins, blocks), ""
    if pa.types.is_nested(cells.type):
        note = f"could not be read as {bins.kind}: cells hold several values"
        return missing_profile(bins, blocks, malformed=len(cells) - cells.null_count), note
    try:
        if bins.kind == "categorical":
            codes, names = level_codes(cells)
            return _levels(codes, names.to_pylist(), blocks=blocks, bins=bins, known=known), ""
        if is_plain(cells) and _many_differ(floats(every(cells, max(1, len(cells) // _PROBE)), bins.kind)[0]):
            values, lost = floats(cells, bins.kind)
            malformed = 0 if lost is None else int(lost.sum())
            return _numbers(values, None, blocks=blocks, bins=bins, malformed=malformed), ""
        values, places, malformed = coded_floats(cells, bins.kind)
        return _numbers(values, places, blocks=blocks, bins=bins, malformed=malformed), ""
    except (pa.ArrowException, TypeError, ValueError, OverflowError) as error:  # one column, not the run
        note = f"could not be read as {bins.kind}: {type(error).__name__}"
        return missing_profile(bins, blocks, malformed=len(blocks.codes)), note


def missing_profile(bins: Bins, blocks: Blocks, *, malformed: int = 0) -> ColumnProfile:
    """Rows without a value."""
    if bins.kind == "categorical":
        return _levels(
            np.zeros(len(blocks.codes), int), [None], blocks=blocks, bins=bins, malformed=malformed
        )
    return _numbers(np.full(len(blocks.codes), math.nan), None, blocks=blocks, bins=bins, malformed=malformed)


def _levels(
    codes: np.ndarray,
    names: Sequence[str | None],
    *,
    blocks: Blocks,
    bins: Bins,
    known: Sequence[str] | None = None,
    malformed: int = 0,
) -> ColumnProfile:
    """The profile of levels: of each row (n,) the place of its name, of which None is missing."""
    own = {level: place for place, level in enumerate(bins.levels)}
    seen = {*bins.levels, *bins.known} if known is None else set(known)
    width = bins.size + 1  # with missing ones; unseen levels are counted apart, so many places higher
    places = [
        bins.size if name is None else own.get(name, bins.size - 1) + (0 if name in seen else width)
        for name in names
    ]
    if blocks.fits(len(names)):
        table = np.zeros((2 * width, len(blocks.labels)), dtype=np.int64)
        np.add.at(table, places, blocks.table(codes, len(names)).T)
        table = table.T
    else:
        table = blocks.table(np.array(places)[codes], 2 * width)
    unseen, zeros = table[:, width:], np.zeros(len(blocks.labels))
    counts = table[:, :width] + unseen
    new = _new_levels(codes, names, seen)
    return ColumnProfile(
        bins, blocks.labels, counts, zeros, zeros, unseen.sum(axis=1), malformed=malformed, unknown=new
    )


def _new_levels(codes: np.ndarray, names: Sequence[str | None], seen: set[str]) -> dict[str, int] | None:
    """How often each unseen level occurs; None if there are more than are kept."""
    counts = np.bincount(codes, minlength=len(names))
    new = {name: int(count) for name, count in zip(names, counts, strict=True) if name is not None and count}
    new = {name: count for name, count in sorted(new.items()) if name not in seen}
    return new if len(new) <= MAX_DISTINCT else None


def _numbers(
    values: np.ndarray, codes: np.ndarray | None, *, blocks: Blocks, bins: Bins, malformed: int
) -> ColumnProfile:
    """The profile of floats (n,), of which NaN is missing and an infinity malformed.

    With ``codes`` (n,) each value comes once (d,). Few values are counted, each in each block; many are compared with
    each cut.
    """
    if codes is None and not _many_differ(values):
        codes, values = pd.factorize(values, use_na_sentinel=False)
    cuts = np.array(bins.cuts)
    with np.errstate(over="ignore", invalid="ignore"):
        if codes is not None and len(values) <= _MAX_COUNTED and blocks.fits(len(values)):
            table = blocks.table(codes, len(values))
            fields, weights = _counted(values, table, cuts), table.sum(axis=0)
        elif codes is not None:
            fields, weights = (
                _compared(values[codes], blocks, cuts),
                np.bincount(codes, minlength=len(values)),
            )
        else:
            fields, weights = _compared(values, blocks, cuts), np.ones(1, dtype=np.int64)
        low = -math.inf if bins.low is None else bins.low
        high = math.inf if bins.high is None else bins.high
        finite = np.isfinite(values)
        there = values[finite & (weights > 0)]

        def rows(flags: np.ndarray) -> int:
            return int(np.count_nonzero(flags) if codes is None else weights[flags].sum())

        return ColumnProfile(
            bins,
            blocks.labels,
            **fields,  # type: ignore[arg-type]
            block_unseen=np.zeros(len(blocks.labels), dtype=np.int64),
            malformed=malformed + rows(np.isinf(values)),
            beyond=rows(finite & ((values < low) | (values > high))),
            zero=rows(values == 0),
            min=float(there.min()) if len(there) else None,
            max=float(there.max()) if len(there) else None,
            sketch=_sketch(there, None if codes is None else weights[finite & (weights > 0)]),
            fractional=rows(finite & (values != np.floor(values))) if bins.kind == "numeric" else None,
        )


def _counted(values: np.ndarray, table: np.ndarray, cuts: np.ndarray) -> dict[str, np.ndarray]:
    """Counts and moments of the blocks, from how often each value (d,) occurs in each block (b, d)."""
    finite = np.isfinite(values)
    order = np.flatnonzero(finite)[np.argsort(values[finite], kind="stable")]
    x, counts = values[order], table[:, order]
    means = (counts @ x) / np.maximum(counts.sum(axis=1), 1)
    edges = [0, *np.searchsorted(x, cuts), len(x)]
    below = np.concatenate([np.zeros((len(counts), 1), int), np.cumsum(counts, axis=1)], axis=1)[:, edges]
    missing = table[:, ~finite].sum(axis=1, keepdims=True)
    squares = np.where(counts > 0, counts * (x - means[:, None]) ** 2, 0.0)
    return {
        "block_counts": np.concatenate([np.diff(below, axis=1), missing], axis=1),
        "block_means": np.nan_to_num(means),
        "block_m2s": np.nan_to_num(squares.sum(axis=1)),
    }


def _compared(values: np.ndarray, blocks: Blocks, cuts: np.ndarray) -> dict[str, np.ndarray]:
    """The same from comparisons of each value (n,) with each cut: a quarter of the time of a binary search."""
    finite = np.isfinite(values)
    x = np.where(finite, values, 0.0)
    places = np.zeros(len(x), dtype=np.uint8)
    for start in range(0, len(x), _CACHED):
        some, reached = x[start : start + _CACHED], places[start : start + _CACHED]
        for cut in cuts:
            reached += some >= cut
    places[~finite] = len(cuts) + 1
    counts = blocks.table(places, len(cuts) + 2)
    means = blocks.sums(x) / np.maximum(counts[:, :-1].sum(axis=1), 1)
    gaps = np.where(finite, x - means[blocks.codes], 0.0)
    return {
        "block_counts": counts,
        "block_means": np.nan_to_num(means),
        "block_m2s": np.nan_to_num(blocks.sums(gaps * gaps)),
    }


def _many_differ(values: np.ndarray) -> bool:
    """Whether a few hundred of these values show that more differ than can be counted or kept."""
    some = values[:: max(1, len(values) // _PROBE)]
    return len(np.unique(some)) > 0.97 * _PROBE and len(np.unique(to_twelve_digits(some))) > MAX_DISTINCT


def _sketch(values: np.ndarray, weights: np.ndarray | None) -> Sketch:
    """Of finite values (n,), each so often, or of so many that all digits would take too long."""
    if weights is not None:
        return Sketch.of(to_twelve_digits(values), weights)
    some = values[:: max(1, len(values) // _PROBE)]
    bits = Sketch.of(
        some, np.ones(len(some))
    ).bits  # all values will be kept to no more digits than a few of them
    return Sketch.of(values, np.ones(len(values), dtype=np.int64), bits)
