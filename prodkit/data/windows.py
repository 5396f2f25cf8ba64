"""A window of a table, as it could be known at a moment."""

from __future__ import annotations

import hashlib
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd

from prodkit.data.cells import kind_of, native_kind, present, texts
from prodkit.data.database import Database
from prodkit.data.flights import broken
from prodkit.data.labels import known_since, orphaned_labels, with_labels
from prodkit.data.sources import as_frame, open_table, require_columns
from prodkit.data.tables import Files
from prodkit.errors import DataError, IdentityError, LabelError, ParameterError, WindowError
from prodkit.evidence import Window, earlier_windows, utc
from prodkit.params import MonitorParams, ProjectParams, RollbackParams
from prodkit.settings import resolve

__all__ = [
    "ROW",
    "Coverage",
    "Read",
    "blocks",
    "digest",
    "feature_columns",
    "identity_error",
    "label_coverage",
    "labelled",
    "no_rows",
    "read_window",
    "request_log",
    "requests_digest",
    "require_unique_rows",
    "row_column",
    "shared_names",
    "table_columns",
    "timeless_rows",
    "window_limits",
]

ROW = "_row"  # names a row by its file and position, where no column does
_FEW_NAMES = 100  # rows that may differ by chance


def timeless_rows(facts: ProjectParams) -> tuple[int, int]:
    """How many rows of the table have no time, so that no window holds them, and how many rows there are."""
    return open_table(facts).timeless(facts.time_column)


def read_window(
    facts: ProjectParams,
    window: Window | None = None,
    *,
    columns: Sequence[str] | None = None,
    labels: bool = True,
    unique: bool = True,
) -> pd.DataFrame:
    """The rows of a window that exist at ``facts.moment``, sorted by time and then by id.

    No row at or after the moment is read. A label that is not known by then is missing: its ``label_time`` is later,
    or, where there is no such column, its row lies at or after ``facts.labels_until``. Labels of a table of their own
    are joined by id, see :func:`prodkit.data.labels.with_labels`. Times become naive datetime64[us]; those with a time
    zone are converted to UTC. Texts of a CSV file become numbers or truths where all of them are, and where nothing
    is lost: 1.10 may be a name.

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
    window, table, time = window or facts.window, open_table(facts), facts.time_column
    names = table_columns(facts, table, columns, labels=labels)
    start, end = window_limits(facts, window)
    numbered = "" if facts.id_column else row_column(table.columns)
    batches = list(table.window(names, time=time, start=start, end=end, numbered=numbered))
    if not batches:
        raise no_rows(facts, table, window)
    frame = as_frame(batches, table, ids=facts.id_column)
    frame = _sorted(frame, facts, place=f"{facts.data}, {window}")
    if unique:
        require_unique_rows(frame, facts, place=f"{facts.data}, {window}")
    if facts.labels:
        frame = with_labels(frame, facts)
    if facts.target in frame:
        frame[facts.target] = _known(frame[facts.target], _is_known(frame, facts))
    elif not labels:
        frame[facts.target] = np.nan
    if not facts.labels:
        frame = frame.drop(columns=facts.label_time, errors="ignore")
    for column, fault in facts.drill.items():
        _break(frame, column, fault, facts=facts, table=[*table.columns, *frame.columns])
    return frame


def row_column(columns: Sequence[str]) -> str:
    """The column that names rows of a table by file and position: ``_row``, or one that the table does not have."""
    name = ROW
    while name in columns:
        name += "_"
    return name


def window_limits(facts: ProjectParams, window: Window | None = None) -> tuple[datetime, datetime]:
    """The first moment of a window that is read, and the first that is not, as naive UTC."""
    window = window or facts.window
    return utc(window.start), min(utc(window.end), utc(facts.moment))


def no_rows(facts: ProjectParams, source: Files | Database, window: Window | None = None) -> WindowError:
    """The error for a window that holds no row of a table."""
    window, (_, end) = window or facts.window, window_limits(facts, window)
    span = source.span(facts.time_column)
    found = f"{facts.data} holds {span[0]} to {span[1]}" if span else f"{facts.data} is empty"
    fix = "Choose another `window`" + (", or a later `as_of`." if end < utc(window.end) else ".")
    place = f"{window} as of {facts.moment}"
    return WindowError("window", rule="must hold rows", value=found, place=place, fix=fix)


def _is_known(frame: pd.DataFrame, facts: ProjectParams) -> np.ndarray:
    """Which labels (n,) are known at the moment, by when each row happened or by its ``label_time``."""
    if facts.label_time and facts.labels:
        return np.ones(len(frame), dtype=bool)  # others were not read
    if facts.label_time:
        return np.asarray(known_since(frame, facts) < np.datetime64(utc(facts.moment)))
    return np.asarray(frame[facts.time_column] < utc(facts.labels_until))


def _known(label: pd.Series, is_known: np.ndarray) -> pd.Series:
    if pd.api.types.infer_dtype(label, skipna=True) == "boolean":
        label = label.astype("boolean")  # one type, whether or not some are missing
    return label.where(is_known & present(label))


def table_columns(
    facts: ProjectParams, table: Files | Database, chosen: Sequence[str] | None, *, labels: bool = True
) -> list[str]:
    """What to read, in the order of the result, after checking that all of it is there.

    Where no features are named they are all columns but those that folders add, and those of several values a cell,
    which a warning names.
    """
    known = table.columns
    value = [facts.value] if isinstance(facts.value, str) and facts.value else []
    first, last = [facts.time_column, *facts.id_column], [*value, facts.target]
    others = {*first, *last, facts.label_time, facts.weight}
    weight = [facts.weight] if facts.weight and (labels or facts.weight in known) else []
    if facts.labels or ((chosen is not None or not labels) and facts.target not in known):
        last.remove(facts.target)
    elif facts.label_time:
        last.append(facts.label_time)
    features = [name for name in facts.features if name != facts.weight] if chosen is None else list(chosen)
    if chosen is None and not facts.features:
        out = dict.fromkeys(table.keys, "comes from the names of folders") | table.nested
        features = [name for name in known if name not in {*others, *out}]
        if told := {name: why for name, why in out.items() if name in known and name not in others}:
            names = ", ".join(f"{name} ({why})" for name, why in told.items())
            warnings.warn(f"left out of the features: {names}. Name `features` to have them.", stacklevel=3)
    named = [
        ("time_column", facts.time_column),
        *(("id_column", name) for name in facts.id_column),
        *(("features", name) for name in features),
        *(("value", name) for name in value),
        *(("weight", name) for name in weight),
        *(("label_time" if name == facts.label_time else "target", name) for name in last[len(value) :]),
    ]
    require_columns(facts.data, known, named)
    return list(dict.fromkeys([*first, *features, *weight, *last]))


def _sorted(frame: pd.DataFrame, facts: ProjectParams, *, place: str) -> pd.DataFrame:
    """By time and id, whatever the order of the files; refuses ids that are missing."""
    ids = _row_ids(frame, facts)
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
    require_columns(facts.data, table, [("drill", column)])
    if column in (facts.time_column, *facts.id_column):
        rule = "must not break the time or the id of a row"
        raise ParameterError(f"drill.{column}", rule=rule, value=fault)
    if column in frame:
        frame[column] = broken(frame[column], fault, seed=facts.seed)


def _row_ids(frame: pd.DataFrame, facts: ProjectParams) -> pd.DataFrame:
    """What names each row (n, id columns), so that it can be compared."""
    mixed = {name: frame[name].dtype == object for name in facts.id_column}
    return pd.DataFrame(
        {name: texts(frame[name]) if odd else frame[name] for name, odd in mixed.items()}, index=frame.index
    )


def require_unique_rows(frame: pd.DataFrame, facts: ProjectParams, *, place: str) -> None:
    """Raise IdentityError unless each row has an id of its own; nothing is asked where no column names a row."""
    ids = _row_ids(frame, facts)
    if facts.id_column and (again := ids.duplicated()).any():
        raise identity_error(ids[again], "must name one row each", place=place)


def shared_names(frame: pd.DataFrame, facts: ProjectParams) -> np.ndarray:
    """Which rows (n,) bear an id that another row bears, too."""
    ids = _row_ids(frame, facts)
    return ids.duplicated(keep=False).to_numpy() if facts.id_column else np.zeros(len(frame), dtype=bool)


def identity_error(ids: pd.DataFrame, rule: str, *, place: str) -> IdentityError:
    """The error for rows whose ids (n, id columns) break a rule."""
    value = f"{len(ids)} rows such as {', '.join(map(str, ids.iloc[0]))}"
    fix = "Remove these rows, or set `id_column` to columns that together are unique."
    return IdentityError(", ".join(ids.columns), rule=rule, value=value, place=place, fix=fix)


def feature_columns(frame: pd.DataFrame, facts: ProjectParams) -> list[str]:
    """``facts.features``, or, where none are named, all columns of a window but time, ids, value, weight and target.

    Columns that only name rows are left out then, too: whole numbers that count up in time, and texts that never
    repeat. A model cannot learn from them, and every later window would lie beyond what it has seen.
    """
    value = {facts.value} if isinstance(facts.value, str) else set()
    positions = set() if facts.id_column else {_positions(frame)}
    others = {facts.time_column, *facts.id_column, facts.target, facts.weight} | value | positions
    names = [str(name) for name in frame.columns if name not in others]
    given = [name for name in facts.features if name != facts.weight]
    return given or [name for name in names if not _names_rows(frame[name])]


def _positions(frame: pd.DataFrame) -> str:
    """The column of a window that names its rows by file and position."""
    free = row_column(list(frame.columns))
    return free[:-1] if free != ROW else ROW


def _names_rows(values: pd.Series) -> bool:
    """Is it a counter or a key? Asked of rows in the order of time."""
    if len(values) < _FEW_NAMES or not present(values).all() or not values.is_unique:
        return False
    if pd.api.types.is_integer_dtype(values.dtype):
        return bool(values.is_monotonic_increasing)
    return native_kind(values.dtype) is None and kind_of(values, frozenset()) == "categorical"


def labelled(frame: pd.DataFrame, facts: ProjectParams) -> pd.DataFrame:
    """The rows whose label is known, with their index.

    Raises:
        LabelError: there is none yet; it says when there will be.
    """
    require_columns(facts.data, list(frame.columns), [("target", facts.target)])
    known = frame[facts.target].notna()
    if not known.any():
        fix, moment = "Choose an earlier `window`, or another `target`.", utc(facts.moment)
        first = frame[facts.time_column].min() + facts.label_delay
        if facts.labels:
            fix = f"Do the ids of {facts.labels} name rows of {facts.data}? Else choose an earlier `window`."
        elif first >= moment:
            fix = f"The first label of these rows is known after {first}; the run stands at {moment}."
        found = f"{len(frame)} rows, none with a label"
        raise LabelError(
            facts.target, rule="must hold labels", value=found, place=facts.labels or facts.data, fix=fix
        )
    return frame[known]


@dataclass(frozen=True, repr=False)
class Coverage:
    """How many rows have a label, and why the others have none.

    Attributes:
        rows: all of them.
        labelled: with a known label.
        pending: without one, and younger than the label delay: not yet.
        never: without one though old enough, such as cancelled flights.
        orphaned: ids in a table of labels that no row has; None where labels have no table of their own.
    """

    rows: int
    labelled: int
    pending: int
    never: int
    orphaned: int | None = None

    def __repr__(self) -> str:
        counts = ", ".join(f"{name}={count}" for name, count in vars(self).items() if count is not None)
        return f"Coverage({counts})"


def label_coverage(frame: pd.DataFrame, facts: ProjectParams) -> Coverage:
    """Count what labels a window has, and the labels without a row; raises SchemaError without a target column."""
    require_columns(facts.data, list(frame.columns), [("target", facts.target)])
    known = frame[facts.target].notna()
    young = ~known & (frame[facts.time_column] >= utc(facts.labels_until))
    orphaned = orphaned_labels(facts) if facts.labels else None
    return Coverage(len(frame), int(known.sum()), int(young.sum()), int((~known & ~young).sum()), orphaned)


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


def request_log(params: MonitorParams | RollbackParams, window: Window) -> ProjectParams | None:
    """The request log of ``prodkit serve`` as a table like any other, as far as a window goes; None if there is none.

    A demonstration has no service.
    """
    folder = Path(resolve(params.requests))
    if not params.requests or params.store == "demo" or next(folder.glob("*.parquet"), None) is None:
        return None
    named = {"data": str(folder), "time_column": params.time_column, "features": [], "id_column": []}
    limits = {"window": str(window), "as_of": params.moment.isoformat(), "missing": params.missing}
    return ProjectParams.check(named | limits)


def requests_digest(params: MonitorParams | RollbackParams) -> str:
    """Which parts of the log there are for the windows of the page; what is written later is not of them."""
    count = params.windows if isinstance(params, MonitorParams) else 1
    first = earlier_windows(params.window, count)[0]
    log = request_log(params, Window(first.start, params.window.end))
    if log is None:
        return ""
    try:
        table, (start, end) = open_table(log), window_limits(log)
        assert isinstance(table, Files)
        parts = table.parts(log.time_column, start, end)
    except DataError as error:  # the page will say so
        return str(error)
    return repr([(part.name, part.group, part.rows) for part in parts])
