"""Arrow arrays read as `cells` reads them, without pandas and, where their type allows it, without Python objects."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from prodkit.data.cells import Kind, column_of, kind_of_cells, moment, read_cells, sentinels
from prodkit.errors import DataError, SchemaError

# Arrays come from `tables`, where texts that mean a missing value have become nulls: null and NaN are missing here.

__all__ = [
    "WHOLE",
    "cast_cells",
    "coded_floats",
    "every",
    "floats",
    "is_plain",
    "is_text",
    "key_type",
    "kind_of",
    "level_codes",
    "level_counts",
    "mask_array",
    "text_array",
    "time_formats",
    "times",
    "typed",
    "unified",
    "without_missing",
]

_PER_SECOND = {"s": 1, "ms": 10**3, "us": 10**6, "ns": 10**9}
_NUMBER = r"^[+-]?\d+(\.\d*)?([eE][+-]?\d+)?$"  # that Arrow reads as Python does
_ISO = r"^[12]\d{3}-\d\d-\d\d([T ]\d\d:\d\d(:\d\d(\.\d{1,6})?)?)?$"
WHOLE = r"^(0|-?[1-9]\d{0,17})$"  # texts that name what the number names
_DECIMAL = r"^-?(0|[1-9]\d{0,14})(\.0|\.\d*[1-9])?$|^-?[1-9](\.\d*[1-9])?e[+-]\d\d+$"
_COMMA = r"^[+-]?(\d{1,3}(\.\d{3})+|\d+),\d+$"
_TRUTH = r"^(true|True|TRUE|false|False|FALSE)$"
_NOTHING = frozenset[str]()
_FORMATS = [  # that are proposed where times cannot be read
    *("date_int", "epoch_ms", "epoch_s"),
    *(
        f"{day}{clock}"
        for day in ("%d/%m/%Y", "%m/%d/%Y", "%d.%m.%Y", "%d-%m-%Y", "%Y/%m/%d", "%d %b %Y", "%d %B %Y")
        for clock in ("", " %H:%M", " %H:%M:%S", " %I:%M %p")
    ),
]


def kind_of(array: Any) -> Kind:
    """Numeric, categorical, boolean or datetime: by type, and of text by what all of it can be read as."""
    kind, types = _plain_type(array.type), pa.types
    if types.is_boolean(kind):
        return "boolean"
    if types.is_timestamp(kind) or types.is_date(kind):
        return "datetime"
    if types.is_null(kind) or _is_number(kind) or types.is_duration(kind):
        return "numeric"
    return kind_of_cells(list(level_counts(*level_codes(array)))) if is_text(kind) else "categorical"


def floats(array: Any, kind: str) -> tuple[np.ndarray, np.ndarray | None]:
    """The values (n,) as floats, NaN where missing, and which are there but cannot be read; None if all can.

    A date is in seconds since 1970, a length of time in seconds. NaN is missing, as null is.
    """
    given, types = array.type, pa.types
    if types.is_null(given):
        return np.full(len(array), np.nan), None
    if kind == "datetime" and (types.is_timestamp(given) or types.is_date(given)):
        return _masked(_seconds(array), array), None
    if is_text(given) and (cast := _cast_texts(array, kind)) is not None:
        return floats(cast, kind)
    if kind == "datetime" or not (types.is_boolean(given) or types.is_duration(given) or _is_number(given)):
        return _cells(array, kind)
    if types.is_duration(given):
        values = _plain(array.cast(pa.int64()), np.int64) / _PER_SECOND[given.unit]
    else:
        numbers = array.cast(pa.uint8()) if types.is_boolean(given) else array
        values = _plain(pc.cast(numbers, pa.float64(), safe=False), np.float64)
    values = _masked(values, array)
    if kind == "numeric":
        return values, None
    wrong = ~((values == 0) | (values == 1) | np.isnan(values))
    return np.where(wrong, np.nan, values), wrong


def coded_floats(array: Any, kind: str) -> tuple[np.ndarray, np.ndarray | None, int]:
    """The values, each once (d,), the code of each row (n,), and how many are there but cannot be read.

    Of cells that have no dictionary the values come as they are (n,), and codes are None.
    """
    if pa.types.is_nested(array.type) or pa.types.is_null(array.type):
        values, lost = floats(array, kind)
        return values, None, 0 if lost is None else int(lost.sum())
    if not pa.types.is_dictionary(array.type):
        array = pc.dictionary_encode(array, null_encoding="encode")
    values, lost = floats(array.dictionary, kind)
    codes = _plain(array.indices, np.dtype(str(array.indices.type)))
    if array.indices.null_count:
        values = np.append(values, np.nan)
        codes = np.where(_valid(array.indices), codes, len(values) - 1)
    counts = 0 if lost is None else np.bincount(codes, minlength=len(values))[: len(lost)][lost].sum()
    return values, codes, int(counts)


def level_codes(array: Any) -> tuple[np.ndarray, Any]:
    """The code of each row (n,), and the texts (d + 1,) that codes stand for, null where missing or of several values.

    >>> codes, levels = level_codes(pa.array(["b", None, "a", "true", "b"]))
    >>> codes.tolist(), levels.to_pylist()
    ([0, 3, 1, 2, 0], ['b', 'a', 'True', None])
    """
    if pa.types.is_null(array.type) or pa.types.is_nested(_plain_type(array.type)):
        return np.zeros(len(array), np.int64), text_array([None])
    if not pa.types.is_dictionary(array.type) and is_text(array.type):
        array = array.dictionary_encode()
    if pa.types.is_dictionary(array.type) and is_text(array.type.value_type):
        names = _renamed(array.dictionary.cast(pa.string()))
        codes = _plain(array.indices.cast(pa.int32()), np.int32)
    else:
        codes, cells = _uniques(array)
        names = text_array(read_cells(cells, "categorical", missing=_NOTHING)[0])
    if array.null_count:
        codes = np.where(_valid(array), codes, np.int32(len(names)))
    return codes, pa.concat_arrays([names, pa.nulls(1, pa.string())])


def level_counts(codes: np.ndarray, levels: Any) -> dict[str, int]:
    """How often each text occurs."""
    counts: dict[str, int] = {}
    occurring = np.bincount(codes, minlength=len(levels)).tolist()
    for name, n in zip(levels.to_pylist(), occurring, strict=True):
        if n and name is not None:
            counts[name] = counts.get(name, 0) + n
    return counts


def times(array: Any, name: str, form: str = "", zone: str = "UTC") -> np.ndarray:
    """The cells of a time column as naive UTC datetime64[us] (n,), NaT where missing.

    Args:
        array: the cells.
        name: of the column.
        form: how they are written, see :func:`prodkit.data.cells.moment`.
        zone: in which times without an offset are meant.

    Raises:
        SchemaError: a cell cannot be read; it shows three as they stand, and the format that would read them.
    """
    kind = _plain_type(array.type)
    if pa.types.is_null(kind):
        return np.full(len(array), "NaT", dtype="datetime64[us]")
    if is_text(kind) and not form and not pa.types.is_dictionary(array.type):
        cast = _cast_texts(array, "datetime")
        array = array if cast is None else cast
    if pa.types.is_timestamp(array.type) or pa.types.is_date(array.type):
        values = _seconds(array) if pa.types.is_date(array.type) else None
        ticks = (values * 1e6).astype("int64") if values is not None else _microseconds(array)
        moments = ticks.astype("datetime64[us]")
        if zone != "UTC" and getattr(array.type, "tz", None) is None:
            moments = _in_utc(moments, zone)
        return np.asarray(
            np.where(_valid(array), moments, np.datetime64("NaT")) if array.null_count else moments
        )
    codes, cells = _uniques(array)
    moments, lost = _moments(cells, form, zone)
    if lost.any():
        odd = [cell for cell, bad in zip(cells, lost, strict=True) if bad]
        reads = next((each for each in _FORMATS if _reads(each, odd)), "")
        fix = (
            f"Set `time_format: {reads!r}`."
            if reads
            else ("Set `time_format`, or `time_column` to a column of times, dates or ISO texts.")
        )
        value = f"{', '.join(map(repr, odd[:3]))} ({int(lost[codes].sum())} such values)"
        rule = f"must hold times written as {form}" if form else "must hold times"
        raise SchemaError(name, rule=rule, value=value, fix=fix)
    return np.asarray(moments[codes])


def time_formats(array: Any) -> list[str]:
    """The forms of times that read all cells of an array."""
    cells = [cell for cell in _uniques(array)[1] if cell is not None and cell == cell]
    some = cells[:: max(1, len(cells) // 1000)]
    return [form for form in _FORMATS if some and _reads(form, some) and _reads(form, cells[-1000:])]


def _microseconds(array: Any) -> np.ndarray:
    ticks = _plain(array.cast(pa.int64()), np.int64)
    per = _PER_SECOND[array.type.unit]
    return ticks * (10**6 // per) if per <= 10**6 else ticks // (per // 10**6)


def _in_utc(moments: np.ndarray, zone: str) -> np.ndarray:
    """Moments (n,) of a time zone in UTC: hour by hour, and one by one where the clock changes within an hour."""
    hours, codes = np.unique(moments.astype("datetime64[h]"), return_inverse=True)
    starts = hours.astype("datetime64[us]")
    last = starts + np.timedelta64(3_599_999_999, "us")
    shift, after = (_moments(ends.tolist(), "", zone)[0] - ends for ends in (starts, last))
    mixed = np.flatnonzero((shift != after)[codes])
    result = moments + shift[codes]
    result[mixed] = _moments(moments[mixed].tolist(), "", zone)[0]
    return np.asarray(result)


def _moments(cells: Sequence[Any], form: str, zone: str) -> tuple[np.ndarray, np.ndarray]:
    values, lost = np.full(len(cells), "NaT", dtype="datetime64[us]"), np.zeros(len(cells), dtype=bool)
    for place, cell in enumerate(cells):
        if cell is not None and cell == cell:
            try:
                values[place] = moment(cell, form, zone)
            except (ValueError, ArithmeticError):
                lost[place] = True
    return values, lost


def _reads(form: str, cells: Sequence[Any]) -> bool:
    """Would a format read these cells as moments of our time?"""
    try:
        moments = [moment(cell, form) for cell in cells[:1000]]
    except (ValueError, ArithmeticError):
        return False
    return all(1970 < each.year < 2100 for each in moments)


def without_missing(array: Any, missing: frozenset[str]) -> Any:
    """An array in which the texts that mean a missing value, and the numbers among them, are null."""
    kind = array.type
    if pa.types.is_dictionary(kind):
        levels = without_missing(array.dictionary, missing)
        if levels.null_count == array.dictionary.null_count:
            return array
        gone = pc.is_null(levels).take(array.indices)
        indices = pc.if_else(pc.fill_null(gone, True), pa.scalar(None, array.indices.type), array.indices)
        return pa.DictionaryArray.from_arrays(indices, array.dictionary)
    if is_text(kind):
        gone = pc.is_in(pc.utf8_trim_whitespace(array), value_set=_texts(tuple(sorted(missing))))
    elif _is_number(kind) and sentinels(missing):
        values, _ = floats(array, "numeric")
        gone = mask_array(np.isin(values, list(sentinels(missing))))
    else:
        return array
    return pc.if_else(gone, pa.scalar(None, kind), array) if pc.any(gone).as_py() else array


def unified(arrays: Sequence[Any], name: str, *, exact: bool, categories: bool = False) -> Any:
    """Arrays of one type: whole and broken numbers go together, and what else differs by the names of its cells."""
    if not categories:
        arrays = [each.dictionary_decode() if pa.types.is_dictionary(each.type) else each for each in arrays]
    wanted = key_type({each.type for each in arrays}, name, exact=exact)
    cast = [cast_cells(each, wanted) for each in arrays]
    return pa.chunked_array(cast, wanted)


def key_type(kinds: set[Any], name: str, *, exact: bool = True) -> Any:
    """The one Arrow type for a column of these types: text where only the names of cells are comparable.

    Args:
        kinds: of the column in several files or batches.
        name: of the column.
        exact: it names rows, so that no digit may be lost.

    Raises:
        SchemaError: whole numbers in one file and broken ones in another, which would lose digits.
    """
    types = pa.types
    kinds = {
        kind.value_type if exact and types.is_dictionary(kind) else kind
        for kind in kinds
        if not types.is_null(kind)
    }
    if len(kinds) < 2:
        return kinds.pop() if kinds else pa.null()
    if all(map(is_text, kinds)):
        return pa.large_string()
    if all(map(types.is_integer, kinds)) and pa.uint64() not in kinds:
        return pa.int64()
    if all(types.is_timestamp(kind) and kind.tz is None for kind in kinds):
        return pa.timestamp("us")
    if all(types.is_integer(kind) or types.is_decimal(kind) for kind in kinds):
        return pa.decimal128(38, max(getattr(kind, "scale", 0) for kind in kinds))
    if all(types.is_integer(kind) or types.is_decimal(kind) or types.is_floating(kind) for kind in kinds):
        if exact:
            shown = " and ".join(sorted(map(str, kinds)))
            fix = "Write it as one type in all files: whole numbers, or text."
            raise SchemaError(name, rule="must have one type to name rows", value=shown, fix=fix)
        return pa.float64()
    return pa.string()


def cast_cells(cells: Any, wanted: Any) -> Any:
    """Arrow cells as :func:`key_type` wants them."""
    if cells.type == wanted:
        return cells
    if is_text(wanted) and not is_text(cells.type):
        names, _ = read_cells(cells.to_pylist(), "categorical", missing=frozenset())
        return pa.array(names, wanted)
    return cells.cast(wanted, safe=not pa.types.is_timestamp(wanted))


def typed(cells: Any, name: str, *, place: str) -> Any:
    """Texts of a CSV file as numbers or truths, where all are."""
    if not is_text(cells.type) or cells.null_count == len(cells):
        return cells

    def all_are(pattern: str) -> bool:
        return bool(pc.all(pc.match_substring_regex(cells, pattern)).as_py())

    if all_are(WHOLE):
        return cells.cast(pa.int64())
    if all_are(_DECIMAL):
        return cells.cast(pa.float64())
    if all_are(_TRUTH):
        return pc.equal(pc.utf8_lower(cells), "true")
    if all_are(_COMMA):
        shown = ", ".join(map(repr, cells.drop_null()[:3].to_pylist()))
        fix = "Set `csv: {decimal: ','}`, and `thousands` if there are any."
        raise DataError(
            name, rule="must hold numbers written with a point", value=shown, place=place, fix=fix
        )
    return cells


@lru_cache(maxsize=128)
def _texts(levels: tuple[str, ...]) -> Any:
    return text_array(levels)


def text_array(texts: Sequence[str | None]) -> Any:
    """An Arrow array of texts; ``pa.array`` would import pandas to ask whether it is given some of it."""
    encoded = [(text or "").encode("utf-8", "replace") for text in texts]
    ends = np.cumsum([0, *map(len, encoded)], dtype=np.int32)
    mask = np.packbits(np.array([text is not None for text in texts], dtype=bool), bitorder="little")
    buffers = [pa.py_buffer(part) for part in (mask.tobytes(), ends.tobytes(), b"".join(encoded))]
    return pa.Array.from_buffers(pa.string(), len(encoded), buffers)


def mask_array(flags: np.ndarray) -> Any:
    """An Arrow array of truths (n,)."""
    bits = np.packbits(flags, bitorder="little")
    return pa.Array.from_buffers(pa.bool_(), len(flags), [None, pa.py_buffer(bits.tobytes())])


def every(array: Any, stride: int) -> Any:
    """Every ``stride``-th cell."""
    if stride == 1 or not isinstance(array, pa.Array):
        return array
    places = np.arange(0, len(array), stride)
    return array.take(pa.Array.from_buffers(pa.int64(), len(places), [None, pa.py_buffer(places)]))


def is_plain(array: Any) -> bool:
    """Are cells numbers, dates or times without a dictionary, which need no look at each?"""
    return _is_number(array.type) or bool(pa.types.is_temporal(array.type))


def is_text(kind: Any) -> bool:
    """Is an Arrow type one of texts?"""
    return bool(pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_string_view(kind))


def _is_number(kind: Any) -> bool:
    types = pa.types
    return bool(types.is_integer(kind) or types.is_floating(kind) or types.is_decimal(kind))


def _plain_type(kind: Any) -> Any:
    return kind.value_type if pa.types.is_dictionary(kind) else kind


def _plain(array: Any, dtype: Any) -> np.ndarray:
    """The buffer of an array of fixed width, whatever it holds where there is no value."""
    values = np.frombuffer(array.buffers()[1] or b"", dtype)
    return values[array.offset : array.offset + len(array)]


def _valid(array: Any) -> np.ndarray:
    """Where an array is not null (n,)."""
    buffer = array.buffers()[0]
    if buffer is None:
        return np.ones(len(array), dtype=bool)
    bits = np.unpackbits(np.frombuffer(buffer, np.uint8), bitorder="little", count=array.offset + len(array))
    return bits[array.offset :].astype(bool)


def _masked(values: np.ndarray, array: Any) -> np.ndarray:
    return np.where(_valid(array), values, np.nan) if array.null_count else values


def _seconds(array: Any) -> np.ndarray:
    if pa.types.is_date32(array.type):
        return _plain(array, np.int32) * 86_400.0
    if pa.types.is_date64(array.type):
        return _plain(array, np.int64) / 1e3
    ticks = _plain(array.cast(pa.int64()), np.int64)
    if array.type.unit == "ns":
        return np.asarray((ticks // 1000) / 1e6)
    return np.asarray(ticks / _PER_SECOND[array.type.unit])


def _cast_texts(array: Any, kind: str) -> Any:
    """Texts as Arrow reads them, where it reads all of them as `cells` does; else None."""
    pattern, wanted = (_ISO, pa.timestamp("us")) if kind == "datetime" else (_NUMBER, pa.float64())
    if len(array) < 64 or not pc.all(pc.match_substring_regex(array, pattern)).as_py():
        return None
    try:
        cast = pc.cast(array, wanted)
    except pa.ArrowException:  # such as the 30th of February
        return None
    return None if kind != "datetime" and pc.any(pc.is_inf(cast)).as_py() else cast


def _renamed(levels: Any) -> Any:
    """Texts with one name for each truth and each whole number."""
    if pc.any(pc.ends_with(levels, ".0")).as_py():
        levels = pc.replace_substring_regex(levels, r"^(-?(?:0|[1-9]\d{0,14}))\.0$", r"\1")
        levels = pc.if_else(pc.equal(levels, "-0"), "0", levels)
    words = pc.is_in(levels, value_set=_texts(("true", "TRUE", "false", "FALSE")))
    return pc.if_else(words, pc.utf8_capitalize(levels), levels) if pc.any(words).as_py() else levels


def _uniques(array: Any) -> tuple[np.ndarray, list[Any]]:
    """Codes (n,) and the Python values that they stand for; each row has its own where Arrow cannot tell."""
    if pa.types.is_dictionary(array.type):
        array = array.dictionary_decode()
    try:
        coded = pc.dictionary_encode(array, null_encoding="encode")
    except pa.ArrowNotImplementedError:
        return np.arange(len(array)), array.to_pylist()
    levels = coded.dictionary
    if pa.types.is_timestamp(levels.type):
        ticks = _plain(pc.cast(levels, pa.timestamp("us", levels.type.tz), safe=False), np.int64)
        cells = [
            time if valid else None for time, valid in zip(ticks.view("M8[us]"), _valid(levels), strict=True)
        ]
        return _plain(coded.indices, np.int32), cells
    return _plain(coded.indices, np.int32), levels.to_pylist()


def _cells(array: Any, kind: str) -> tuple[np.ndarray, np.ndarray]:
    """Values of another type than their kind, read one by one."""
    codes, cells = _uniques(array)
    read, lost = read_cells(cells, kind, missing=_NOTHING)
    values = column_of(read, kind)
    if kind == "datetime":
        values = np.where(np.isnat(values), np.nan, values.astype("int64") / 1e6)
    return values[codes], lost[codes]
