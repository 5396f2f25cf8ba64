"""Columns of a table counted part by part: their bins, and summaries of the cells that a part holds."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from functools import lru_cache, reduce
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from prodkit.data.arrays import (
    coded_floats,
    every,
    floats,
    is_plain,
    kind_of,
    level_codes,
    level_counts,
    mask_array,
    text_array,
)
from prodkit.data.parts import Part, Parts, Unreadable
from prodkit.drift.bins import Bins
from prodkit.drift.columns import ColumnProfile, level_profile, number_profile
from prodkit.drift.profiles import Profile
from prodkit.drift.tally import Blocks, many_differ
from prodkit.errors import DataError, SchemaError

if TYPE_CHECKING:
    from prodkit.data.schema import Schema

__all__ = ["HELD", "Counts", "Found", "batch_profile", "missing"]

HELD = 2**22  # rows up to which a column is held in memory while its bins are chosen
_STRETCHES = 128  # blocks of a table without a time column
_SAMPLED_PARTS = 8  # read twice to choose the bins of a table that is too large to be held
_SAMPLED = 2**16  # values that bins are chosen from
_DAY = 86_400
_NO_DAY = -(2**31)

Found = dict[str, tuple[ColumnProfile, str]]  # summary of each column, and why it could not be read, if so


def missing(bins: Bins, blocks: Blocks, *, malformed: int = 0) -> ColumnProfile:
    """Rows without a value."""
    if bins.kind == "categorical":
        codes = np.zeros(blocks.rows, dtype=np.int64)
        return level_profile(codes, np.array([bins.size]), blocks=blocks, bins=bins, malformed=malformed)
    return number_profile(np.full(blocks.rows, np.nan), blocks=blocks, bins=bins, malformed=malformed)


def batch_profile(batch: Any, schema: Schema, *, blocks: Blocks, like: Profile) -> Profile:
    """Summarise the features of an Arrow batch as :func:`prodkit.drift.profiles.profile` does those of a frame.

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
        columns[name], notes[name] = _counted(cells, bins, blocks, known=feature.levels)
    return Profile(batch.num_rows, columns, {name: note for name, note in notes.items() if note})


def _counted(
    cells: Any,
    bins: Bins,
    blocks: Blocks,
    *,
    kept: np.ndarray | None = None,
    known: tuple[str, ...] | None = None,
) -> tuple[ColumnProfile, str]:
    """An array's summary, and why it could not be read, if so."""
    if pa.types.is_null(cells.type):
        return missing(bins, blocks), ""
    try:
        cells = cells if kept is None else cells.filter(mask_array(kept))
        if pa.types.is_nested(cells.type):
            note = f"could not be read as {bins.kind}: cells hold several values"
            return missing(bins, blocks, malformed=len(cells) - cells.null_count), note
        if bins.kind == "categorical":
            codes, levels = level_codes(cells)
            places = _places(levels, bins, known=known)
            return level_profile(codes, places, blocks=blocks, bins=bins), ""
        values, places_of, malformed = _numbers(cells, bins.kind)
        return number_profile(values, blocks=blocks, bins=bins, malformed=malformed, codes=places_of), ""
    except (pa.ArrowException, TypeError, ValueError, OverflowError) as error:  # one column, not the run
        note = f"could not be read as {bins.kind}: {type(error).__name__}"
        return missing(bins, blocks, malformed=blocks.rows), note


def _numbers(cells: Any, kind: str) -> tuple[np.ndarray, np.ndarray | None, int]:
    """As :func:`coded_floats`; where a look at some tells that many values differ, they come as they are."""
    if is_plain(cells) and many_differ(floats(every(cells, max(1, len(cells) // 512)), kind)[0]):
        values, lost = floats(cells, kind)
        return values, None, 0 if lost is None else int(lost.sum())
    return coded_floats(cells, kind)


def _places(levels: Any, bins: Bins, *, known: tuple[str, ...] | None = None) -> np.ndarray:
    """Where :func:`~prodkit.drift.columns.level_profile` counts each of these texts (d,)."""
    own = pc.index_in(levels, value_set=_texts(bins.levels)).fill_null(bins.size - 1).to_numpy()
    seen = pc.is_in(levels, value_set=_texts((*bins.levels, *bins.known) if known is None else known))
    unseen = ~seen.to_numpy(zero_copy_only=False)
    there = levels.is_valid().to_numpy(zero_copy_only=False)
    return np.where(there, own + unseen * (bins.size + 1), bins.size)


@lru_cache(maxsize=128)
def _texts(levels: tuple[str, ...]) -> Any:
    return text_array(levels)


class Counts:
    """Counts the cells of a table, part by part; safe to be used by many threads."""

    def __init__(self, table: Parts, time_column: str | None) -> None:
        self._table, self._time = table, time_column
        self._stretch = max(1, -(-table.rows // _STRETCHES))
        self._days = lru_cache(maxsize=None if table.rows <= HELD else 4)(self._days_of)

    def part(self, part: Part, bins: Mapping[str, Bins]) -> Found:
        """Some columns of a part."""
        found: Found = {}
        for name, start, cells in self._table.arrays(part, list(bins)):
            column, note = self._batch(part, start, cells, bins[name])
            if name in found:
                column, note = found[name][0].merge(column), found[name][1] or note
            found[name] = column, note
        return found

    def at_once(self, name: str) -> Found:
        """A whole column that is held in memory, with new bins."""
        cells = [
            (part, *found[1:]) for part in self._table.parts for found in self._table.arrays(part, [name])
        ]
        bins = _new_bins([array for _, _, array in cells], levels=name in self._table.categories)
        empty = missing(bins, Blocks.of(np.array([]))), ""
        done = [empty, *(self._batch(part, start, array, bins) for part, start, array in cells)]
        column = reduce(ColumnProfile.merge, [column for column, _ in done])
        return {name: (column, next((note for _, note in done if note), ""))}

    def bins(self, names: Sequence[str]) -> dict[str, Bins]:
        """New bins of columns, from values of parts that are spread over the table."""
        parts = self._table.parts
        chosen = [parts[at] for at in np.unique(np.linspace(0, len(parts) - 1, _SAMPLED_PARTS).astype(int))]
        stride = max(1, sum(part.rows for part in chosen) // _SAMPLED)
        cells: dict[str, list[Any]] = {name: [] for name in names}
        for part in chosen:
            for name, _, array in self._table.arrays(part, names):
                cells[name].append(every(array, stride))
        known = self._table.categories
        return {name: _new_bins(arrays, levels=name in known) for name, arrays in cells.items()}

    def _batch(self, part: Part, start: int, cells: Any, bins: Bins) -> tuple[ColumnProfile, str]:
        blocks, kept = self._blocks(part, start, len(cells))
        if isinstance(cells, Unreadable):
            return missing(bins, blocks, malformed=blocks.rows), f"could not be read: {cells.reason}"
        return _counted(cells, bins, blocks, kept=kept)

    def _blocks(self, part: Part, start: int, rows: int) -> tuple[Blocks, np.ndarray | None]:
        """Blocks of some rows of a part, and which of them are kept if not all are."""
        if self._time is None:
            return Blocks.stretches(part.first + start, rows, length=self._stretch), None
        days = self._days(part)[start : start + rows]
        kept = days != _NO_DAY
        return (Blocks.of(days), None) if kept.all() else (Blocks.of(days[kept]), kept)

    def _days_of(self, part: Part) -> np.ndarray:
        """The day of each row of a part, counted from 1970."""
        found = []
        for name, _, cells in self._table.arrays(part, [str(self._time)]):
            if isinstance(cells, Unreadable):
                raise DataError(name, rule=f"could not be read: {cells.reason}", place=part.path)
            seconds, lost = floats(cells, "datetime")
            if lost is not None and lost.any():
                fix = "Give a `time_column` of times, dates or ISO texts."
                raise SchemaError(
                    name, rule="must hold times", value=f"{lost.sum()} others", place=part.path, fix=fix
                )
            there = ~np.isnan(seconds)
            days = np.floor(np.where(there, seconds, 0.0) / _DAY)
            found.append(np.where(there, days, _NO_DAY).astype(np.int32))
        return np.concatenate(found) if found else np.array([], dtype=np.int32)


def _new_bins(arrays: Sequence[Any], *, levels: bool) -> Bins:
    """Bins for the values of these arrays: levels if they are said to be, or if they are of several kinds."""
    arrays = [each for each in arrays if not isinstance(each, Unreadable) and each.null_count < len(each)]
    kinds = {"categorical"} if levels else {kind_of(array) for array in arrays}
    kind = kinds.pop() if len(kinds) == 1 else "categorical" if kinds else "numeric"
    if kind == "categorical":
        total: Counter[str] = Counter()
        for array in arrays:
            total.update(level_counts(*level_codes(array)))
        return Bins.of_levels(total)
    values = np.concatenate([np.array([]), *(floats(array, kind)[0] for array in arrays)])
    return Bins.freeze(values[:: max(1, len(values) // _SAMPLED)], kind=kind)
