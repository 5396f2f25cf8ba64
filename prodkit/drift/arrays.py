"""Arrow arrays read as the kind that a column was frozen as, without pandas where their type allows it."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

__all__ = [
    "coded_floats",
    "every",
    "floats",
    "is_plain",
    "kind_of",
    "level_codes",
    "level_counts",
    "mask_array",
    "text_array",
]

_PER_SECOND = {"s": 1, "ms": 10**3, "us": 10**6, "ns": 10**9}
_BLANK = ("", "nan")  # as prodkit.data.cells reads text
_NUMBER_OR_DATE = re.compile(r"\s*[+-]?[.\d]|\s*[+-]?(inf|nan)", re.IGNORECASE)


def kind_of(array: Any) -> str:
    """Numeric, categorical, boolean or datetime: by type, and of text by what all of it can be read as."""
    kind = array.type.value_type if pa.types.is_dictionary(array.type) else array.type
    if pa.types.is_boolean(kind):
        return "boolean"
    if pa.types.is_temporal(kind) and not (pa.types.is_duration(kind) or pa.types.is_time(kind)):
        return "datetime"
    if pa.types.is_null(kind) or _is_number(kind) or pa.types.is_duration(kind):
        return "numeric"
    if not _is_text(kind):
        return "categorical"
    used = list(level_counts(*level_codes(array)))
    if not used:
        return "numeric"  # and stays missing
    if not _NUMBER_OR_DATE.match(used[0]):
        return "categorical"
    import pandas as pd

    from prodkit.data.cells import kind_of as kind_of_cells

    return kind_of_cells(pd.Series(used, dtype=object))


def floats(array: Any, kind: str) -> tuple[np.ndarray, np.ndarray | None]:
    """The values (n,) as floats, NaN where missing, and which are there but cannot be read; None if all can.

    A date is in seconds since 1970, a length of time in seconds. NaN is missing, as null is.
    """
    given = array.type
    if pa.types.is_null(given):
        return np.full(len(array), np.nan), None
    if kind == "datetime" and (pa.types.is_timestamp(given) or pa.types.is_date(given)):
        return _masked(_seconds(array), array), None
    if kind == "datetime" or not (
        pa.types.is_boolean(given) or pa.types.is_duration(given) or _is_number(given)
    ):
        return _cells(array, kind)
    if pa.types.is_duration(given):
        values = _plain(array.cast(pa.int64()), np.int64) / _PER_SECOND[given.unit]
    else:
        numbers = array.cast(pa.uint8()) if pa.types.is_boolean(given) else array
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
    """The code of each row (n,), and the texts (d + 1,) that codes stand for, null where missing.

    >>> codes, levels = level_codes(pa.array(["b", None, "a", " ", "b"]))
    >>> codes.tolist(), levels.to_pylist()
    ([0, 3, 1, 2, 0], ['b', 'a', None, None])
    """
    if pa.types.is_null(array.type):
        return np.zeros(len(array), np.int64), text_array([None])
    if not pa.types.is_dictionary(array.type) and _is_text(array.type):
        array = array.dictionary_encode()
    if pa.types.is_dictionary(array.type) and _is_text(array.type.value_type):
        texts = array.dictionary.cast(pa.string())
        codes = _plain(array.indices.cast(pa.int32()), np.int32)
        blank = pc.is_in(pc.utf8_trim_whitespace(texts), value_set=text_array(_BLANK))
        gone = _truths(blank)
    else:
        codes, names = _named(array)
        texts, gone = text_array(names), np.zeros(len(names), dtype=bool)
    if array.null_count:
        codes = np.where(_valid(array), codes, np.int32(len(texts)))
    if gone.any():
        texts = pc.if_else(mask_array(gone), pa.scalar(None, pa.string()), texts)
    return codes, pa.concat_arrays([texts, pa.nulls(1, pa.string())])


def level_counts(codes: np.ndarray, levels: Any) -> dict[str, int]:
    """How often each text occurs."""
    counts = np.bincount(codes, minlength=len(levels)).tolist()
    return {name: n for name, n in zip(levels.to_pylist(), counts, strict=True) if n and name is not None}


def text_array(texts: Sequence[str | None]) -> Any:
    """An Arrow array of texts; ``pa.array`` would import pandas to ask whether it is given some of it."""
    encoded = [(text or "").encode("utf-8", "replace") for text in texts]
    ends = np.cumsum([0, *map(len, encoded)], dtype=np.int32)
    mask = np.packbits([text is not None for text in texts], bitorder="little")
    buffers = [pa.py_buffer(part) for part in (mask.tobytes(), ends.tobytes(), b"".join(encoded))]
    return pa.Array.from_buffers(pa.string(), len(encoded), buffers)


def mask_array(flags: np.ndarray) -> Any:
    """An Arrow array of truths (n,)."""
    bits = np.packbits(flags, bitorder="little")
    return pa.Array.from_buffers(pa.bool_(), len(flags), [None, pa.py_buffer(bits.tobytes())])


def every(array: Any, stride: int) -> Any:
    """Every so manieth cell."""
    if stride == 1 or not isinstance(array, pa.Array):
        return array
    places = np.arange(0, len(array), stride)
    return array.take(pa.Array.from_buffers(pa.int64(), len(places), [None, pa.py_buffer(places)]))


def is_plain(array: Any) -> bool:
    """Whether cells are numbers, dates or times without a dictionary, which need no look at each."""
    return _is_number(array.type) or bool(pa.types.is_temporal(array.type))


def _is_number(kind: Any) -> bool:
    types = pa.types
    return bool(types.is_integer(kind) or types.is_floating(kind) or types.is_decimal(kind))


def _is_text(kind: Any) -> bool:
    types = pa.types
    return bool(types.is_string(kind) or types.is_large_string(kind) or types.is_string_view(kind))


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


def _truths(array: Any) -> np.ndarray:
    return _plain(array.cast(pa.uint8()), np.uint8).astype(bool)


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


def _uniques(array: Any) -> tuple[np.ndarray, list[Any]]:
    """Codes (n,) and the Python values that they stand for; each row has its own where Arrow cannot tell."""
    if pa.types.is_dictionary(array.type):
        array = array.dictionary_decode()
    try:
        found = pc.dictionary_encode(array, null_encoding="encode")
    except pa.ArrowNotImplementedError:
        return np.arange(len(array)), array.to_pylist()
    return _plain(found.indices, np.int32), found.dictionary.to_pylist()


def _cells(array: Any, kind: str) -> tuple[np.ndarray, np.ndarray]:
    """Values of another type than their kind, read one by one as training reads a table."""
    import pandas as pd

    from prodkit.data.cells import booleans, moments, numbers, present

    codes, uniques = _uniques(array)
    cells = pd.Series(uniques, dtype=object)
    read = {"numeric": numbers, "boolean": booleans, "datetime": moments}[kind](cells)
    lost = (read.isna().to_numpy() & present(cells))[codes]
    if kind == "datetime":
        values = np.where(read.isna(), np.nan, read.astype("int64").to_numpy() / 1e6)
    else:
        values = read.to_numpy(dtype=float)
    return values[codes], lost


def _named(array: Any) -> tuple[np.ndarray, list[str | None]]:
    """Codes and names of values that are not text."""
    import pandas as pd

    from prodkit.data.cells import texts

    codes, uniques = _uniques(array)
    named = texts(pd.Series(uniques, dtype=object))
    return codes.copy(), [None if null else str(name) for name, null in zip(named, named.isna(), strict=True)]
