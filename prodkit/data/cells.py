"""What a cell means: as a number, a truth, a moment, a text or a label, wherever it was read."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterable, Sequence
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from functools import lru_cache
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from prodkit.evidence import utc

if TYPE_CHECKING:
    import pandas as pd

# The functions of one cell are the definition. Readers of whole columns, here of pandas and in `arrays` of Arrow,
# take a faster way only where a type allows it, and ask these about each distinct cell elsewhere. Reading a name,
# as `text` gives it, is reading the cell. Pandas is not imported: what compares two files does without it.

__all__ = [
    "MISSING",
    "READERS",
    "Kind",
    "Label",
    "boolean",
    "column_of",
    "distinct",
    "is_missing",
    "is_nested",
    "kind_of",
    "kind_of_cells",
    "label",
    "moment",
    "native_kind",
    "number",
    "numbers",
    "present",
    "read",
    "read_cells",
    "sentinels",
    "text",
    "texts",
]

Kind = Literal["numeric", "categorical", "boolean", "datetime"]
Label = str | int | float | bool

MISSING = frozenset({"", "NA", "N/A", "n/a", "#N/A", "<NA>", "NULL", "null", "NaN", "nan", "None"})
"""Texts that mean a missing value if a project does not list its own (``missing``); blanks around them do not count."""

_EXACT = 2**53  # whole numbers below are exact as floats
_WORDS = {"true": True, "false": False}
_NAMED = {word: str(truth) for name, truth in _WORDS.items() for word in (name, name.upper(), name.title())}
_WHOLE = re.compile(r"-?(0|[1-9]\d{0,14})\.0")  # as a whole number is written beside missing ones
_CODE = re.compile(r"\s*[+-]?0\d")  # 007 and 01E3 name something: no program writes a number so
_ISO = re.compile(r"\d{4}-\d\d-\d\d([T ]\d\d(:?\d\d(:?\d\d([.,]\d+)?)?)?(Z|[+-]\d\d(:?\d\d)?)?)?", re.ASCII)
_EPOCH, _END, _START = datetime(1970, 1, 1), datetime.max, datetime.min
_INFINITE = {"infinity": _END, "-infinity": _START}  # as PostgreSQL writes an open end


def is_missing(cell: Any, missing: frozenset[str] = MISSING) -> bool:
    """Does a cell hold nothing: null, NaN, or a text, or number, that is said to mean so?

    >>> [is_missing(cell) for cell in (None, float("nan"), " NA ", "Namibia", 0)]
    [True, True, True, False, False]
    >>> is_missing(-999.0, frozenset({"-999"}))
    True
    """
    if isinstance(cell, str):
        return cell.strip() in missing
    if cell is None:
        return True
    if isinstance(cell, bool | np.bool_):
        return False
    if isinstance(cell, int | float | np.number):
        return bool(cell != cell) or cell in sentinels(missing)
    if isinstance(cell, Decimal):
        return cell.is_nan() or cell in sentinels(missing)
    if isinstance(cell, bytes):
        return text(cell).strip() in missing
    return (not is_nested(cell) and cell != cell) or type(cell).__name__ in ("NAType", "NaTType")


@lru_cache(maxsize=64)
def sentinels(missing: frozenset[str]) -> frozenset[float]:
    """The numbers among the texts that mean a missing value, such as -999."""
    read, lost = read_cells(sorted(missing), "numeric", missing=frozenset())
    return frozenset(float(cell) for cell, bad in zip(read, lost, strict=True) if not bad)


# Each of the following takes a cell that is not missing, and raises ValueError where it cannot be read as asked.


def number(cell: Any) -> float:
    """A finite number; a length of time in seconds, text as Python reads it.

    >>> number("1e3"), number(True), number(Decimal("2.50"))
    (1000.0, 1.0, 2.5)
    """
    if not isinstance(cell, float | int):
        cell = text(cell) if isinstance(cell, bytes) else cell
        if isinstance(cell, str):
            if "_" in cell:
                raise ValueError("Python alone reads 1_0 as 10")
            if cell in _NAMED:
                return float(_NAMED[cell] == "True")
        elif isinstance(cell, timedelta):
            return cell.total_seconds()
        elif isinstance(cell, np.timedelta64):
            return float(cell / np.timedelta64(1, "us")) / 1e6
        elif not isinstance(cell, Decimal | np.number | np.bool_):
            raise ValueError("no number")
    try:
        value = float(cell)
    except (TypeError, OverflowError) as error:
        raise ValueError(str(error)) from error
    if not math.isfinite(value):
        raise ValueError("no finite number")
    return value


def boolean(cell: Any) -> float:
    """1.0 or 0.0 of a truth, of the numbers 1 and 0, and of the words true and false."""
    if isinstance(cell, str | bytes):
        truth = _WORDS.get(text(cell).strip().lower())
        if truth is not None:
            return float(truth)
    value = number(cell)
    if value not in (0.0, 1.0):
        raise ValueError("neither true nor false")
    return value


def text(cell: Any) -> str:
    """The name of a cell, the same however it is written: 1 and 1.0 have one, and so have ``true`` and True.

    >>> text(1.0), text("1.0"), text("007"), text(True), text("true"), text(date(2024, 5, 1)), text(Decimal(10**20))
    ('1', '1', '007', 'True', 'True', '2024-05-01', '100000000000000000000')
    """
    if isinstance(cell, str):
        if cell.endswith(".0") and _WHOLE.fullmatch(cell):
            return str(int(cell[:-2]))
        return _NAMED.get(cell, cell)
    if isinstance(cell, bytes):
        return text(cell.decode("utf-8", "backslashreplace"))
    if isinstance(cell, date | np.datetime64):
        return str(moment(cell)).removesuffix(" 00:00:00")
    if isinstance(cell, timedelta | np.timedelta64):
        cell = number(cell)
    if is_nested(cell):
        raise ValueError("no single value")
    plain = _plain(cell)
    return str(plain)


def moment(cell: Any, form: str = "", zone: str = "UTC") -> datetime:
    """A moment, as naive UTC, of a time, a date or an ISO text; an open end is the last that there is.

    Args:
        cell: not missing.
        form: how it is written if not so: a strptime format, ``epoch_s``, ``epoch_ms`` or ``date_int``.
        zone: in which a time without an offset is meant.

    >>> moment("2024-05-01T12:30+02:00"), moment(20240501, "date_int"), moment("1/5/2024", "%d/%m/%Y")
    (datetime.datetime(2024, 5, 1, 10, 30), datetime.datetime(2024, 5, 1, 0, 0), datetime.datetime(2024, 5, 1, 0, 0))
    """
    cell = text(cell) if isinstance(cell, bytes) else cell
    try:
        if isinstance(cell, datetime):
            read = cell.to_pydatetime(warn=False) if hasattr(cell, "to_pydatetime") else cell
        elif isinstance(cell, date):
            read = datetime(cell.year, cell.month, cell.day)
        elif isinstance(cell, np.datetime64):
            read = cell.astype("datetime64[us]").item()
        elif form in ("epoch_s", "epoch_ms"):
            return _EPOCH + timedelta(seconds=number(cell) / (1 if form == "epoch_s" else 1000))
        elif form:
            read = datetime.strptime(text(cell).strip(), "%Y%m%d" if form == "date_int" else form)
        elif not isinstance(cell, str):
            raise ValueError("no moment")
        elif (written := cell.strip()).lower() in _INFINITE:
            return _INFINITE[written.lower()]
        elif not _ISO.fullmatch(written):
            raise ValueError("no ISO time")
        else:
            read = datetime.fromisoformat(written)
        if read.tzinfo is None:
            return utc(read, zone)
    except (AttributeError, OverflowError) as error:
        raise ValueError(str(error)) from error
    try:
        return read.astimezone(UTC).replace(tzinfo=None)
    except OverflowError:  # the last hours that there are, of another zone
        return _END if read.year > 5000 else _START


def label(cell: Any) -> Label:
    """A plain value: 1, 1.0 and Decimal 1 are one label, and so are True and the word."""
    if isinstance(cell, str):
        return _NAMED[cell] == "True" if cell in _NAMED else cell
    return _plain(cell) if isinstance(cell, int | float | Decimal | np.generic) else text(cell)


READERS: dict[str, Callable[[Any], Any]] = {
    "numeric": number,
    "boolean": boolean,
    "categorical": text,
    "datetime": moment,
}


def is_nested(cell: Any) -> bool:
    """Does a cell hold several values?"""
    return isinstance(cell, list | dict | tuple | set | frozenset | np.ndarray)


def _plain(cell: Any) -> Any:
    cell = cell.item() if isinstance(cell, np.generic) and not isinstance(cell, np.datetime64) else cell
    if isinstance(cell, float):
        return int(cell) if -_EXACT < cell < _EXACT and cell % 1 == 0 else cell
    if isinstance(cell, Decimal):
        if not cell.is_finite():
            return float(cell)
        return int(cell) if cell == cell.to_integral_value() else float(cell)
    return cell


# Columns


def read_cells(
    cells: Iterable[Any], kind: str, *, missing: frozenset[str] = MISSING
) -> tuple[list[Any], np.ndarray]:
    """What each cell means, None where it is missing, and which (n,) are there but cannot be read."""
    function, values, lost = READERS[kind], list[Any](), []
    for cell in cells:
        bad, value = False, None
        if not is_missing(cell, missing):
            try:
                value = function(cell)
            except (ValueError, ArithmeticError):
                bad = True
        values.append(value)
        lost.append(bad)
    return values, np.array(lost, dtype=bool)


def kind_of_cells(cells: Sequence[Any]) -> Kind:
    """What all of these cells, none of which is missing, can be read as."""
    if not cells:
        return "numeric"  # and stays missing
    if _all(boolean, cells) and any(text(cell) in ("True", "False") for cell in cells):
        return "boolean"
    if _all(number, cells) and not any(isinstance(cell, str) and _CODE.match(cell) for cell in cells):
        return "numeric"
    return "datetime" if _all(moment, cells) else "categorical"


def _all(function: Callable[[Any], Any], cells: Sequence[Any]) -> bool:
    try:
        for cell in cells:
            function(cell)
    except (ValueError, ArithmeticError):
        return False
    return True


def native_kind(dtype: Any) -> Kind | None:
    """The kind that a dtype declares by itself; None of text and objects, whose cells must be looked at."""
    if hasattr(dtype, "categories"):
        return "categorical"
    kinds: dict[str, Kind] = {"b": "boolean", "M": "datetime", **dict.fromkeys("iufm", "numeric")}
    return kinds.get(getattr(dtype, "kind", "O"))


def kind_of(values: pd.Series, missing: frozenset[str] = MISSING) -> Kind:
    """The kind of a column: by dtype; of text and objects, by what all that is there can be read as."""
    return native_kind(values.dtype) or kind_of_cells(
        [cell for cell in distinct(values)[1] if not is_missing(cell, missing)]
    )


def present(values: pd.Series, missing: frozenset[str] = MISSING) -> np.ndarray:
    """Which cells (n,) hold something."""
    if native_kind(values.dtype) in ("boolean", "datetime") or (
        native_kind(values.dtype) == "numeric" and not sentinels(missing)
    ):
        return np.asarray(values.notna(), dtype=bool)
    codes, cells = distinct(values)
    return np.asarray(np.array([not is_missing(cell, missing) for cell in cells], dtype=bool)[codes])


def read(values: pd.Series, kind: str, missing: frozenset[str] = MISSING) -> tuple[pd.Series, np.ndarray]:
    """A column (n,) with its index, read as a kind, and which cells (n,) are there but cannot be read so.

    Numbers and truths become float64, moments naive UTC datetime64[us], texts objects; missing is NaN or NaT.
    """
    native = native_kind(values.dtype)
    if kind == "datetime" and native == "datetime":
        naive = values if values.dt.tz is None else values.dt.tz_convert("UTC").dt.tz_localize(None)
        return naive.astype("datetime64[us]"), np.zeros(len(values), dtype=bool)
    if kind in ("numeric", "boolean") and native in ("numeric", "boolean"):
        seconds = values.dt.total_seconds() if values.dtype.kind == "m" else values
        floats = np.asarray(seconds.to_numpy(dtype="float64", na_value=np.nan))
        if sentinels(missing) and native == "numeric":
            floats = np.where(np.isin(floats, list(sentinels(missing))), np.nan, floats)
        lost = np.isinf(floats) if kind == "numeric" else ~np.isin(floats, [0.0, 1.0]) & ~np.isnan(floats)
        return _series(np.where(lost, np.nan, floats) if lost.any() else floats, values), lost
    codes, cells = distinct(values)
    levels, lost = read_cells(cells, kind, missing=missing)
    return _series(column_of(levels, kind)[codes], values), lost[codes]


def column_of(values: Sequence[Any], kind: str) -> np.ndarray:
    """Values (n,) as :func:`read_cells` gives them, as the numpy array of a column of this kind."""
    if kind == "datetime":
        return np.array(values, dtype="datetime64[us]")
    if kind != "categorical":
        return np.array([math.nan if value is None else value for value in values], dtype="float64")
    names = np.empty(len(values), dtype=object)
    names[:] = [math.nan if value is None else value for value in values]
    return names


def numbers(values: pd.Series, missing: frozenset[str] = MISSING) -> pd.Series:
    """Finite numbers as float64; NaN where there is none."""
    return read(values, "numeric", missing)[0]


def texts(values: pd.Series, missing: frozenset[str] = MISSING) -> pd.Series:
    """The name of each cell as objects, NaN where it is missing."""
    return read(values, "categorical", missing)[0]


def distinct(values: pd.Series) -> tuple[np.ndarray, list[Any]]:
    """The code of each cell (n,), and the cells (d,) that codes stand for, the last of which is null."""
    if values.dtype == object:
        places: dict[Any, int] = {}
        cells: list[Any] = []
        codes = np.empty(len(values), dtype=np.int64)
        for at, cell in enumerate(values):
            key = (type(cell), id(cell) if is_nested(cell) else cell)  # 1, 1.0 and True are three
            code = places.get(key)
            if code is None:
                code = places[key] = len(cells)
                cells.append(cell)
            codes[at] = code
        return codes, [*cells, None]
    codes, levels = values.factorize()
    return np.where(codes < 0, len(levels), codes), [*levels, None]


def _series(values: np.ndarray, like: pd.Series) -> pd.Series:
    return type(like)(values, index=like.index, name=like.name, dtype=values.dtype)
