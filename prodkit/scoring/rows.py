"""One row as it comes over the wire: each cell read by the frozen schema, and what is wrong with it in words."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from math import nan
from typing import Any

import pandas as pd

from prodkit.data.cells import READERS, column_of, is_missing, moment
from prodkit.data.schema import Schema

__all__ = ["ABSENT", "Reader", "moment_of"]

ABSENT = "is not in the row"  # what a fault says of a feature that was not sent
_SHOWN = 60  # characters of a wrong value
_RULES = {
    "numeric": "must be a finite number",
    "boolean": "must be true or false",
    "categorical": "must be text or a number",
    "datetime": "must be an ISO date or time",
}
_EMPTY = {"numeric": nan, "boolean": nan, "categorical": None, "datetime": None}


class Reader:
    """Reads rows by a schema, as :meth:`prodkit.data.schema.Schema.coerce` reads tables, some hundred times faster.

    >>> rows = pd.DataFrame({"height": [1.5, 2.5], "city": ["Rome", "Oslo"], "y": [1, 0]})
    >>> reader = Reader(Schema.infer(rows, features=["height", "city"], target="y"))
    >>> reader.read({"height": "2", "city": None, "id": 7})
    ([2.0, None], '')
    >>> reader.read({"height": "tall", "city": "Rome"})
    ([nan, 'Rome'], "height must be a finite number; found 'tall'")

    Args:
        schema: frozen columns.
        masked: features that are not to be believed: nothing that they hold is a fault.
    """

    def __init__(self, schema: Schema, *, masked: Sequence[str] = ()) -> None:
        self.schema, self._missing = schema, frozenset(schema.missing)
        self._masked = frozenset(masked)
        self._columns = [
            (column.name, column.kind, READERS[column.kind], _EMPTY[column.kind])
            for column in schema.features
        ]

    def read(self, row: Any) -> tuple[list[Any], str]:
        """Read one row; columns that the schema does not know are passed over.

        Args:
            row: a mapping of names to cells, as JSON has them.

        Returns:
            The features in order: a float or NaN of numbers and booleans, a text or None, a naive UTC datetime
            or None; and the first thing that is wrong, empty if nothing is. What is wrong is missing.
        """
        if not isinstance(row, Mapping):
            return [empty for *_, empty in self._columns], _fault("the row", "must be an object", row)
        values, fault, missing = [], "", self._missing
        for name, kind, reader, empty in self._columns:
            try:
                cell = row[name]
                values.append(empty if is_missing(cell, missing) else reader(cell))
            except KeyError:
                values.append(empty)
                fault = fault or ("" if name in self._masked else f"{name} {ABSENT}")
            except (ValueError, ArithmeticError):
                values.append(empty)
                fault = fault or ("" if name in self._masked else _fault(name, _RULES[kind], cell))
        return values, fault

    def asked(self, values: list[Any]) -> list[Any]:
        """What a model is asked of a row that was read: the same, without what is masked."""
        if not self._masked:
            return values
        names = ((name, empty) for name, *_, empty in self._columns)
        return [
            empty if name in self._masked else value
            for value, (name, empty) in zip(values, names, strict=True)
        ]

    def frame(self, rows: list[list[Any]]) -> pd.DataFrame:
        """Rows as :meth:`read` returned them, as the table (n, m) that a model takes."""
        columns = zip(*rows, strict=True) if rows else [()] * len(self._columns)
        arrays = {
            name: column_of(cells, kind)
            for (name, kind, *_), cells in zip(self._columns, columns, strict=True)
        }
        return pd.DataFrame({name: pd.Series(cells, dtype=cells.dtype) for name, cells in arrays.items()})


def _fault(name: str, rule: str, cell: object) -> str:
    try:
        shown = repr(cell)
    except Exception:  # a whole number of ten thousand digits has no repr
        shown = type(cell).__name__
    return f"{name} {rule}; found {shown if len(shown) <= _SHOWN else shown[:_SHOWN] + '...'}"


def moment_of(cell: Any, form: str = "", zone: str = "UTC") -> datetime | None:
    """One cell as a naive UTC moment; None where there is none, or none that can be read.

    Args:
        cell: as it was sent.
        form: how a project writes its times, see :func:`prodkit.data.cells.moment`, and
        zone: in which those without an offset are meant.
    """
    try:
        return None if is_missing(cell) else moment(cell, form, zone)
    except (ValueError, ArithmeticError):
        return None
