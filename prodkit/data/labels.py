"""Labels as they were known at a moment, from the table of the rows or from one of their own."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from prodkit.data.arrays import is_text, times
from prodkit.data.cells import texts
from prodkit.data.database import Database
from prodkit.data.sources import as_frame, open_labels, open_table
from prodkit.data.tables import Files
from prodkit.evidence import utc
from prodkit.params import ProjectParams

__all__ = ["known_since", "orphaned_labels", "with_labels"]

_FIRST = datetime(1, 1, 3)  # a database may ask for a day before the start
_BETWEEN = "\x1f"  # the parts of a name


def with_labels(frame: pd.DataFrame, facts: ProjectParams) -> pd.DataFrame:
    """The rows with the target: of each id the newest label that was known before ``facts.moment``.

    A label is known from its ``label_time`` on. Without ``label_time`` all labels of a table of their own are read,
    and those of ``facts.data`` itself are known ``label_delay`` after their row. Labels of one moment that contradict
    each other are none.

    Args:
        frame: rows (n, ...) with the id columns.
        facts: what the data is.

    Returns:
        The frame with the column ``facts.target``, missing where no label is known.

    Raises:
        ParameterError: no column names a row. DataError: there is no table of labels, or it cannot be read.
        SchemaError: it lacks a column, or ``label_time`` holds no times.
    """
    table = open_labels(facts)
    names = _row_names({name: pa.Array.from_pandas(frame[name]) for name in facts.id_column}, facts)
    wanted = pc.unique(names).drop_null()
    batches, places, moments = [], [np.empty(0, np.int64)], [np.empty(0, "datetime64[us]")]
    for batch, when in _label_batches(facts, table):
        place = pc.index_in(_row_names(_columns(batch), facts), value_set=wanted)
        mine = place.is_valid()
        if pc.any(mine).as_py():
            batches.append(batch.select([facts.target]).filter(mine))
            places.append(place.drop_null().to_numpy(zero_copy_only=False))
            moments.append(when[mine.to_numpy(zero_copy_only=False)])
    labels = as_frame(batches, table, ids=())[facts.target] if batches else pd.Series(dtype="float64")
    newest = _newest(labels, np.concatenate(places), np.concatenate(moments))
    rows = pc.index_in(names, value_set=wanted).fill_null(-1).to_numpy(zero_copy_only=False)
    return frame.assign(**{facts.target: newest.reindex(rows).array})


def _newest(labels: pd.Series[Any], places: np.ndarray, moments: np.ndarray) -> pd.Series[Any]:
    """The newest label of each place, by place; none where the newest ones contradict each other."""
    known = pd.DataFrame({"place": places, "when": moments, "label": texts(labels).fillna("").to_numpy()})
    last = (known["when"] == known.groupby("place")["when"].transform("max")).to_numpy()
    known, labels = known[last], labels[last].set_axis(places[last])
    each = ~known.duplicated(["place", "label"]).to_numpy()
    clear = ~known.assign(place=np.where(each, known["place"], -1)).duplicated("place", keep=False).to_numpy()
    newest: pd.Series[Any] = labels[each & clear]
    return newest


def known_since(frame: pd.DataFrame, facts: ProjectParams) -> np.ndarray:
    """When the label of each row (n,) became known, where the rows themselves say so; NaT where nothing is said."""
    cells = pa.Array.from_pandas(frame[facts.label_time])
    return times(cells, facts.label_time, facts.time_format, facts.timezone)


def orphaned_labels(facts: ProjectParams) -> int:
    """How many ids have a known label in a table of their own, and no row in ``facts.data`` before the moment.

    Of all names only a hash is in memory.
    """
    rows, table = open_table(facts), open_labels(facts)
    span: dict[str, Any] = {"time": facts.time_column, "start": _FIRST, "end": utc(facts.moment)}
    there = _hashes((_columns(batch) for batch in rows.window(facts.id_column, **span)), facts)
    named = _hashes((_columns(batch) for batch, _ in _label_batches(facts, table)), facts)
    return int((~np.isin(named, there)).sum())


def _label_batches(facts: ProjectParams, table: Files | Database) -> Iterator[tuple[Any, np.ndarray]]:
    """Record batches of ids and labels that are known at the moment, and since when each is."""
    names, time, end = [*facts.id_column, facts.target], facts.label_time, utc(facts.moment)
    if not time and not facts.labels:
        time, end = facts.time_column, utc(facts.labels_until)
    if time:
        for batch in table.window(names, time=time, start=_FIRST, end=end):
            batch = batch if time == facts.time_column else _zoned(batch, facts)
            yield batch, batch.column(time).to_numpy(zero_copy_only=False).astype("datetime64[us]")
        return
    for columns in table.cells(names):
        batch = _zoned(pa.RecordBatch.from_pydict(columns), facts)
        yield batch, np.zeros(len(batch), "datetime64[us]")


def _zoned(batch: Any, facts: ProjectParams) -> Any:
    """A batch whose times that name rows are in UTC, as those of the rows are."""
    time = facts.time_column
    if facts.timezone == "UTC" or time not in batch.schema.names:
        return batch
    moments = times(batch.column(time), time, facts.time_format, facts.timezone)
    return pa.RecordBatch.from_pydict({**_columns(batch), time: pa.array(moments)})


def _columns(batch: Any) -> dict[str, Any]:
    return dict(zip(batch.schema.names, batch.columns, strict=True))


def _row_names(columns: dict[str, Any], facts: ProjectParams) -> Any:
    """One text (n,) for the ids of each row, whatever types two tables have them in; null where one is missing."""
    named = [_id_names(columns[name], name, facts) for name in facts.id_column]
    return pc.binary_join_element_wise(*named, _BETWEEN) if len(named) > 1 else named[0]


def _id_names(cells: Any, name: str, facts: ProjectParams) -> Any:
    """The cells of an id column as texts: 7, 7.0 and "7" are one; "007" is another."""
    if name == facts.time_column:
        moments = times(cells, name, facts.time_format)
        return pa.array(moments).cast(pa.int64()).cast(pa.string())
    if pa.types.is_dictionary(cells.type):
        cells = cells.dictionary_decode()
    if pa.types.is_integer(cells.type):
        return cells.cast(pa.string())
    if is_text(cells.type):
        return pc.replace_substring_regex(cells.cast(pa.string()), r"^(-?\d+)\.0+$", r"\1")
    return pa.array(texts(cells.to_pandas()), pa.string(), from_pandas=True)


def _hashes(parts: Iterator[dict[str, Any]], facts: ProjectParams) -> np.ndarray:
    """Distinct hashes (d,) of what names each row."""
    names = (_row_names(columns, facts).drop_null().to_pandas() for columns in parts)
    hashes = [pd.util.hash_array(each.to_numpy(dtype=object), categorize=False) for each in names]
    return np.unique(np.concatenate([np.empty(0, np.uint64), *hashes]))
