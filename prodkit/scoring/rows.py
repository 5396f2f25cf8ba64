"""One row as it comes over the wire: each cell read by the frozen schema, and what is wrong with it in words."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

import numpy as np
import pandas as pd

from prodkit.data.cells import booleans, moments, number, numbers, present, text, texts
from prodkit.data.schema import Schema

__all__ = ["ABSENT", "Reader", "moment_of"]

ABSENT = "is not in the row"  # what a fault says of a feature that was not sent
_SHOWN = 60  # characters of a wrong value
_MISSING = ("", "nan")
_NAN = math.nan
# What Python's reader and pandas' take for the same moment; anything else is left to pandas.
_PLAIN_MOMENT = re.compile(
    r"\d{4}-\d\d-\d\d([T ]\d\d:\d\d(:\d\d(\.\d{3}(\d{3})?)?)?(Z|[+-]\d\d:\d\d)?)?", re.ASCII
)
_COLUMNS = {"numeric": numbers, "boolean": booleans, "categorical": texts, "datetime": moments}
_RULES = {
    "numeric": "must be a finite number",
    "boolean": "must be true or false",
    "categorical": "must be text or a number",
    "datetime": "must be an ISO date or time",
}


class _UnreadableError(Exception):
    """A cell is there, and cannot be read as its kind."""


class Reader:
    """Reads rows by a schema, as :meth:`prodkit.data.schema.Schema.coerce` reads tables, some hundred times faster.

    >>> rows = pd.DataFrame({"height": [1.5, 2.5], "city": ["Rome", "Oslo"], "y": [1, 0]})
    >>> reader = Reader(Schema.infer(rows, features=["height", "city"], target="y"))
    >>> reader.read({"height": "2", "city": None, "id": 7})
    ([2.0, None], '')
    >>> reader.read({"height": "tall", "city": "Rome"})
    ([nan, 'Rome'], "height must be a finite number; found 'tall'")
    """

    def __init__(self, schema: Schema) -> None:
        self.schema = schema
        self._columns = [(column.name, column.kind, _READ[column.kind]) for column in schema.features]

    def read(self, row: Any) -> tuple[list[Any], str]:
        """Read one row; columns that the schema does not know are passed over.

        Args:
            row: a mapping of names to cells, as JSON has them.

        Returns:
            The features in order: a float or NaN of numbers and booleans, a text or None, a naive UTC datetime
            or None; and the first thing that is wrong, empty if nothing is. What is wrong is missing.
        """
        if not isinstance(row, Mapping):
            return [_EMPTY[kind] for _, kind, _ in self._columns], _fault("the row", "must be an object", row)
        values, fault = [], ""
        for name, kind, read in self._columns:
            try:
                values.append(read(row[name]))
            except _UnreadableError:
                values.append(_EMPTY[kind])
                fault = fault or _fault(name, _RULES[kind], row[name])
            except KeyError:
                values.append(_EMPTY[kind])
                fault = fault or f"{name} {ABSENT}"
        return values, fault

    def frame(self, rows: list[list[Any]]) -> pd.DataFrame:
        """Rows as :meth:`read` returned them, as the table (n, m) that a model takes."""
        columns = zip(*rows, strict=True) if rows else [()] * len(self._columns)
        return pd.DataFrame(
            {name: _array(kind, cells) for (name, kind, _), cells in zip(self._columns, columns, strict=True)}
        )


def _array(kind: str, cells: Sequence[Any]) -> np.ndarray | pd.Series:
    if kind == "datetime":
        return np.array(cells, dtype="datetime64[us]")
    if kind != "categorical":
        return np.array(cells, dtype="float64")
    return pd.Series([_NAN if cell is None else cell for cell in cells], dtype=object)


def _fault(name: str, rule: str, found: object) -> str:
    try:
        shown = repr(found)
    except Exception:  # a whole number of ten thousand digits has no repr
        shown = type(found).__name__
    return f"{name} {rule}; found {shown if len(shown) <= _SHOWN else shown[:_SHOWN] + '...'}"


def _number(cell: Any) -> float:
    kind = type(cell)
    if kind is float:
        read = cell
        if read != read:
            return _NAN
    elif kind is int or kind is bool:
        try:
            return float(cell)
        except OverflowError as error:
            raise _UnreadableError from error
    elif kind is str:
        if cell.strip() in _MISSING:
            return _NAN
        read = number(cell)
    elif cell is None:
        return _NAN
    else:
        return float(_slowly(cell, "numeric"))
    if not -math.inf < read < math.inf:
        raise _UnreadableError
    return float(read)


def _boolean(cell: Any) -> float:
    if cell is True or cell is False:
        return float(cell)
    return _NAN if cell is None else float(_slowly(cell, "boolean"))


def _text(cell: Any) -> str | None:
    kind = type(cell)
    if kind is str:
        return None if cell.strip() in _MISSING else cell
    if cell is None or cell != cell:
        return None
    if kind is int or kind is float or kind is bool:
        try:
            return text(cell)
        except ValueError as error:  # more digits than Python writes
            raise _UnreadableError from error
    if isinstance(cell, list | dict | tuple | set):
        raise _UnreadableError
    read = _slowly(cell, "categorical")
    return None if pd.isna(read) else str(read)


def _moment(cell: Any) -> datetime | None:
    if cell is None or cell is pd.NaT:
        return None
    try:
        if isinstance(cell, datetime):
            moment = cell.to_pydatetime(warn=False) if isinstance(cell, pd.Timestamp) else cell
        elif type(cell) is str and _PLAIN_MOMENT.fullmatch(cell):
            moment = datetime.fromisoformat(cell)
        else:
            read = _slowly(cell, "datetime")
            return None if pd.isna(read) else pd.Timestamp(read).to_pydatetime(warn=False)
        return moment.astimezone(UTC).replace(tzinfo=None) if moment.tzinfo else moment
    except (ValueError, OverflowError) as error:
        raise _UnreadableError from error


def moment_of(cell: Any) -> datetime | None:
    """One cell as a naive UTC moment; None where there is none, or none that can be read."""
    try:
        return _moment(cell)
    except _UnreadableError:
        return None


def _slowly(cell: Any, kind: str) -> Any:
    """What the reader of whole columns makes of a cell that is none of JSON's plain ones."""
    column = pd.Series([cell], dtype=object)
    try:
        read = _COLUMNS[kind](column)
        lost = read.isna().to_numpy() & present(column)
    except Exception as error:
        raise _UnreadableError from error
    if lost.any():
        raise _UnreadableError
    return read.iloc[0]


_READ: dict[str, Callable[[Any], Any]] = {
    "numeric": _number,
    "boolean": _boolean,
    "categorical": _text,
    "datetime": _moment,
}
_EMPTY = {"numeric": _NAN, "boolean": _NAN, "categorical": None, "datetime": None}
