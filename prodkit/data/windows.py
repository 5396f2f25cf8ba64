"""A window of a table, as it could be known at a moment."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import NamedTuple

import numpy as np
import pandas as pd

from prodkit.data.cells import native_kind, present
from prodkit.data.dataset import open_table, require_columns
from prodkit.data.drills import broken
from prodkit.data.flatfiles import ROW
from prodkit.data.identity import identity_error, require_unique_rows, row_ids
from prodkit.data.sources import Source
from prodkit.errors import LabelError, ParameterError, WindowError
from prodkit.evidence import Window
from prodkit.params import ProjectParams

__all__ = [
    "Coverage",
    "Read",
    "blocks",
    "digest",
    "feature_columns",
    "label_coverage",
    "labelled",
    "no_rows",
    "read_window",
    "table_columns",
    "time_span",
    "window_limits",
]

_FEW_NAMES = 100  # rows that may differ by chance


def read_window(
    facts: ProjectParams,
    window: Window | None = None,
    *,
    columns: Sequence[str] | None = None,
    labels: bool = True,
    unique: bool = True,
) -> pd.DataFrame:
    """The rows of a window that exist at ``facts.moment``, sorted by time and then by id.

    No row at or after the moment is read. The label of a row at or after ``facts.labels_until`` is missing: it
    is not known yet. Times become naive datetime64[us]; those with a time zone are converted to UTC.

    Args:
        facts: what the data is, and the faults of a drill, which are put in after reading.
        window: half-open; ``facts.window`` if not given.
        columns: read instead of ``facts.features``. The time, id and value columns always come along, and so
            does the target, which may be absent from the table only when ``columns`` is given.
        labels: whether the table must have the target; if it need not and has none, all labels are missing.
        unique: whether rows that share an id are refused here; else whoever asks has to judge them.

    Returns:
        Time, ids, features, target; without ``id_column`` also ``_row``, which names file and position.

    Raises:
        DataError: no such table. SchemaError: a column is missing, or the time column holds no times.
        WindowError: no rows. IdentityError: ids repeat or are missing. ParameterError: an unknown fault.
    """
    window, source, time = window or facts.window, open_table(facts), facts.time_column
    names = table_columns(facts, source.columns, columns, labels=labels)
    start, end = window_limits(facts, window)
    frame = source.rows(names, time=time, start=start, end=end, numbered=not facts.id_column)
    if frame.empty:
        raise no_rows(facts, source, window)
    frame = _sorted(frame, facts, place=f"{facts.data}, {window}")
    if unique:
        require_unique_rows(frame, facts, place=f"{facts.data}, {window}")
    if facts.target in names:
        frame[facts.target] = _known(frame[facts.target], frame[time] < _naive(facts.labels_until))
    elif not labels:
        frame[facts.target] = np.nan
    for column, fault in facts.drill.items():
        _break(frame, column, fault, facts=facts, table=source.columns)
    return frame


def window_limits(facts: ProjectParams, window: Window | None = None) -> tuple[datetime, datetime]:
    """The first moment of a window that is read, and the first that is not, as naive UTC."""
    window = window or facts.window
    return _naive(window.start), min(_naive(window.end), _naive(facts.moment))


def no_rows(facts: ProjectParams, source: Source, window: Window | None = None) -> WindowError:
    """The error for a window that holds no row of a table."""
    window, (_, end) = window or facts.window, window_limits(facts, window)
    span = source.span(facts.time_column)
    found = f"{facts.data} holds {span[0]} to {span[1]}" if span else f"{facts.data} is empty"
    fix = "Choose another `window`" + (", or a later `as_of`." if end < _naive(window.end) else ".")
    place = f"{window} as of {facts.moment}"
    return WindowError("window", rule="must hold rows", value=found, place=place, fix=fix)


def _known(label: pd.Series, old_enough: pd.Series) -> pd.Series:
    if pd.api.types.infer_dtype(label, skipna=True) == "boolean":
        label = label.astype("boolean")  # one type, whether or not some are missing
    return label.where(old_enough & present(label))


def _naive(moment: datetime) -> datetime:
    return moment.astimezone(UTC).replace(tzinfo=None) if moment.tzinfo else moment


def table_columns(
    facts: ProjectParams, known: Sequence[str], chosen: Sequence[str] | None, *, labels: bool = True
) -> list[str]:
    """What to read, in the order of the result, after checking that all of it is there."""
    value = [facts.value] if isinstance(facts.value, str) and facts.value else []
    first, last = [facts.time_column, *facts.id_column], [*value, facts.target]
    if (chosen is not None or not labels) and facts.target not in known:
        last.remove(facts.target)
    features = facts.features if chosen is None else list(chosen)
    if chosen is None and not features:
        features = [name for name in known if name not in {*first, *last, ROW}]
    named = [
        ("time_column", facts.time_column),
        *(("id_column", name) for name in facts.id_column),
        *(("features", name) for name in features),
        *(("value", name) for name in value),
        *(("target", name) for name in last[len(value) :]),
    ]
    require_columns(facts, known, named)
    return list(dict.fromkeys([*first, *features, *last]))


def _sorted(frame: pd.DataFrame, facts: ProjectParams, *, place: str) -> pd.DataFrame:
    """By time and id, whatever the order of the files; refuses ids that are missing."""
    ids = row_ids(frame, facts)
    if (unnamed := ids.isna().any(axis=1)).any():
        raise identity_error(ids[unnamed], "must not be missing", place=place)
    keys = pd.concat(
        [frame[[facts.time_column]], ids.drop(columns=facts.time_column, errors="ignore")], axis=1
    )
    order = np.asarray(keys.reset_index(drop=True).sort_values(list(keys.columns), kind="stable").index)
    return frame.iloc[order].reset_index(drop=True)


def _break(
    frame: pd.DataFrame, column: str, fault: str, *, facts: ProjectParams, table: Sequence[str]
) -> None:
    """Put a fault into a column, in place: the rehearsal that ``facts.drill`` asks for."""
    require_columns(facts, table, [("drill", column)])
    if column in (facts.time_column, *facts.id_column):
        rule = "must not break the time or the id of a row"
        raise ParameterError(f"drill.{column}", rule=rule, value=fault)
    if column in frame:
        frame[column] = broken(frame[column], fault, seed=facts.seed)


def feature_columns(frame: pd.DataFrame, facts: ProjectParams) -> list[str]:
    """``facts.features``, or, where none are named, all columns of a window but time, ids, value and target.

    Columns that only name rows are left out then, too: whole numbers that count up in time, and texts that never
    repeat. A model cannot learn from them, and every later window would lie beyond what it has seen.
    """
    value = {facts.value} if isinstance(facts.value, str) else set()
    others = {facts.time_column, *facts.id_column, facts.target, ROW} | value
    names = [str(name) for name in frame.columns if name not in others]
    return list(facts.features) or [name for name in names if not _names_rows(frame[name])]


def _names_rows(values: pd.Series) -> bool:
    """Is it a counter or a key? Asked of rows in the order of time."""
    if len(values) < _FEW_NAMES or not present(values).all() or not values.is_unique:
        return False
    if pd.api.types.is_integer_dtype(values.dtype):
        return bool(values.is_monotonic_increasing)
    return pd.api.types.is_string_dtype(values.dtype) and native_kind(values.dtype) is None


def time_span(facts: ProjectParams) -> Window:
    """Whole days from the first row of the table to its last.

    Raises:
        WindowError: the table is empty.
    """
    span = open_table(facts).span(facts.time_column)
    if span is None:
        raise WindowError("data", rule="must hold rows", value="none", place=facts.data)
    first, last = (pd.Timestamp(moment).floor("D") for moment in span)
    return Window(first.to_pydatetime(), (last + pd.Timedelta(days=1)).to_pydatetime())


def labelled(frame: pd.DataFrame, facts: ProjectParams) -> pd.DataFrame:
    """The rows whose label is known, with their index.

    Raises:
        LabelError: there is none yet; it says when there will be.
    """
    require_columns(facts, list(frame.columns), [("target", facts.target)])
    known = frame[facts.target].notna()
    if not known.any():
        fix, moment = "Choose an earlier `window`, or another `target`.", _naive(facts.moment)
        first = frame[facts.time_column].min() + facts.label_delay
        if first >= moment:
            fix = f"The first label of these rows is known after {first}; the run stands at {moment}."
        found = f"{len(frame)} rows, none with a label"
        raise LabelError(facts.target, rule="must hold labels", value=found, place=facts.data, fix=fix)
    return frame[known]


@dataclass(frozen=True)
class Coverage:
    """How many rows have a label, and why the others have none.

    Attributes:
        rows: all of them.
        labelled: with a known label.
        pending: without one, and younger than the label delay: not yet.
        never: without one though old enough, such as cancelled flights.
    """

    rows: int
    labelled: int
    pending: int
    never: int


def label_coverage(frame: pd.DataFrame, facts: ProjectParams) -> Coverage:
    """Count what labels a window has; raises SchemaError when it has no target column."""
    require_columns(facts, list(frame.columns), [("target", facts.target)])
    known = frame[facts.target].notna()
    young = ~known & (frame[facts.time_column] >= _naive(facts.labels_until))
    return Coverage(len(frame), int(known.sum()), int(young.sum()), int((~known & ~young).sum()))


class Read(NamedTuple):
    """Which rows were read, where they are not kept.

    Attributes:
        rows: all of them.
        digest: of them (hex digits), in the parts that they were read in.
        parts: rows of each part.
    """

    rows: int
    digest: str
    parts: tuple[int, ...]


def digest(frame: pd.DataFrame) -> str:
    """SHA-256 (hex digits) of the columns' names, types and cells, in order; the index does not count.

    >>> digest(pd.DataFrame({"a": [1.0, None]}))[:8] == digest(pd.DataFrame({"a": [1.0, 2.0]}))[:8]
    False
    """
    total = hashlib.sha256(f"{len(frame)}\0".encode())
    for position, name in enumerate(frame.columns):
        values = frame.iloc[:, position]
        total.update(f"{name!r}\0{values.dtype}\0".encode())
        total.update(hashlib.sha256(_bytes(values)).digest())
    return total.hexdigest()


def _bytes(values: pd.Series) -> bytes:
    if isinstance(values.dtype, np.dtype) and values.dtype.kind in "biumMf":
        cells: np.ndarray = values.to_numpy()
        if cells.dtype.kind == "f":
            cells = np.where(np.isnan(cells), np.nan, cells + 0.0)  # one NaN, one zero
        return cells.tobytes()
    if values.dtype == object:  # 1, True and "1" differ
        cleaned = [None if null else cell for cell, null in zip(values, values.isna(), strict=True)]
        return repr(cleaned).encode("utf-8", "surrogatepass")
    codes, levels = pd.factorize(values)
    return codes.astype("int64").tobytes() + repr(list(levels)).encode("utf-8", "surrogatepass")


def blocks(times: pd.Series, *, length: timedelta = timedelta(days=1)) -> np.ndarray:
    """The number of the day (n,), or other length, that each moment falls in, counted from 1970.

    Rows of one day share their weather and their crowds, so statistics resample days and not rows.

    >>> blocks(pd.Series(pd.to_datetime(["1970-01-02 00:00", "1970-01-02 23:59", "1970-01-03 08:00"]))).tolist()
    [1, 1, 2]
    """
    since = times.to_numpy(dtype="datetime64[us]").astype("int64")
    return since // (length // timedelta(microseconds=1))
