"""How the cells of one column are read: as numbers, booleans, moments, texts or labels."""

from __future__ import annotations

import re
from collections.abc import Callable
from datetime import date
from decimal import Decimal
from numbers import Number
from typing import Any, Literal

import numpy as np
import pandas as pd

__all__ = [
    "Kind",
    "Label",
    "booleans",
    "kind_of",
    "labels",
    "moments",
    "native_kind",
    "number",
    "numbers",
    "present",
    "text",
    "texts",
]

Kind = Literal["numeric", "categorical", "boolean", "datetime"]
Label = str | int | float | bool

_BLANK = {"", "nan"}  # text that stands for a missing value in any column
_WORDS = {"true": 1.0, "false": 0.0}
_ISO_DATE = re.compile(r"\s*\d{4}-\d{2}-\d{2}([T ]|\s*$)")
_EXACT = 2**53  # whole numbers below are exact as floats

# Each reader takes a column (n,) and returns one with its index, with what it cannot read as missing.


def native_kind(dtype: Any) -> Kind | None:
    """The kind that a dtype declares by itself; None of text and objects, whose cells must be looked at."""
    types = pd.api.types
    if isinstance(dtype, pd.CategoricalDtype):
        return "categorical"
    if types.is_bool_dtype(dtype):
        return "boolean"
    if types.is_datetime64_any_dtype(dtype):
        return "datetime"
    number = types.is_numeric_dtype(dtype) and not types.is_complex_dtype(dtype)
    return "numeric" if number or types.is_timedelta64_dtype(dtype) else None


def kind_of(values: pd.Series) -> Kind:
    """The kind of a column: by dtype; of text and objects, by what all that is there can be read as."""
    native, seen = native_kind(values.dtype), values[present(values)]
    if native:
        return native
    if not len(seen):
        return "numeric"  # and stays missing
    if all(isinstance(cell, bool | np.bool_) for cell in seen):
        return "boolean"
    if numbers(seen).notna().all():
        return "numeric"
    dated = all(isinstance(cell, date) or _ISO_DATE.match(str(cell)) for cell in seen)
    return "datetime" if dated and moments(seen).notna().all() else "categorical"


def present(values: pd.Series) -> np.ndarray:
    """Which cells (n,) hold something: neither null nor blank text."""
    there: np.ndarray = values.notna().to_numpy(dtype=bool)
    if native_kind(values.dtype) in ("numeric", "boolean", "datetime"):
        return there
    blank = _each(values, lambda cell: isinstance(cell, str | bytes) and text(cell).strip() in _BLANK)
    return there & ~blank.eq(True).to_numpy(dtype=bool)


def numbers(values: pd.Series) -> pd.Series:
    """Finite numbers as float64; a length of time in seconds, text as Python reads it.

    >>> numbers(pd.Series(["1e3", True, "x", float("inf"), b"2"], dtype=object)).tolist()
    [1000.0, 1.0, nan, nan, 2.0]
    """
    if pd.api.types.is_timedelta64_dtype(values.dtype):
        values = values.dt.total_seconds()
    if native_kind(values.dtype) not in ("numeric", "boolean"):
        values = _each(values, number)
    read = values.to_numpy(dtype="float64", na_value=np.nan)
    return pd.Series(np.where(np.isfinite(read), read, np.nan), index=values.index, name=values.name)


def booleans(values: pd.Series) -> pd.Series:
    """1.0 and 0.0 of booleans, of the numbers 1 and 0, and of the words true and false."""
    read = numbers(values)
    read = read.where(read.isin([0.0, 1.0]))
    if native_kind(values.dtype) in ("numeric", "boolean"):
        return read
    words = _each(values, lambda cell: _WORDS.get(text(cell).strip().lower(), np.nan))
    return read.fillna(words.astype("float64"))


def moments(values: pd.Series) -> pd.Series:
    """Times, dates and ISO texts as naive datetime64[us]; those with a time zone are converted to UTC."""
    if native_kind(values.dtype) != "datetime":
        readable = [cell if isinstance(cell, date | str | np.datetime64) else None for cell in values]
        objects = pd.Series(readable, index=values.index, name=values.name, dtype=object)
        values = pd.to_datetime(objects, errors="coerce", utc=True, format="ISO8601")
    if values.dt.tz is not None:
        values = values.dt.tz_convert("UTC").dt.tz_localize(None)
    return values.astype("datetime64[us]")


def texts(values: pd.Series) -> pd.Series:
    """The name of each cell as objects, NaN where it is missing; 1 and 1.0 have one name."""
    return _each(values, text).where(present(values), np.nan)


def labels(values: pd.Series) -> pd.Series:
    """Plain Python values as objects, NaN where null; 1, 1.0 and Decimal("1") are one label."""
    return _each(values, _label)


def number(cell: Any) -> float:
    """One cell that is not null as a float, which may be infinite; NaN where it cannot be read as one."""
    cell = text(cell) if isinstance(cell, bytes) else cell
    if not isinstance(cell, str | Number) or (isinstance(cell, str) and "_" in cell):
        return np.nan  # Python would read 1_0 as 10
    try:
        return float(cell)  # type: ignore[arg-type]  # a complex is a Number too: TypeError
    except (TypeError, ValueError, OverflowError):
        return np.nan


def text(cell: Any) -> str:
    """The name of one cell that is not null."""
    if isinstance(cell, bytes):
        return cell.decode("utf-8", "replace")
    label = _label(cell) if isinstance(cell, float | Decimal | np.floating) else cell
    return str(label)


def _label(cell: Any) -> Label:
    cell = cell.item() if isinstance(cell, np.generic) else cell
    if isinstance(cell, bool | int | str):
        return cell
    if isinstance(cell, float | Decimal):
        return int(cell) if -_EXACT < cell < _EXACT and cell % 1 == 0 else float(cell)
    return text(cell)


def _each(values: pd.Series, function: Callable[[Any], Any]) -> pd.Series:
    """``function`` of each cell that is not null, as objects; where all are of one type, once per level."""
    mixed = values.dtype == object and pd.api.types.infer_dtype(values, skipna=True) != "string"
    if mixed:  # levels would take 1 and True for one
        there = values.notna()
        done = [function(cell) if known else np.nan for cell, known in zip(values, there, strict=True)]
        return pd.Series(done, index=values.index, name=values.name, dtype=object)
    codes, levels = pd.factorize(values)
    table = np.empty(len(levels) + 1, dtype=object)
    table[:-1] = [function(level) for level in levels]
    table[-1] = np.nan  # where factorize writes the code -1
    return pd.Series(table[codes], index=values.index, name=values.name, dtype=object)
