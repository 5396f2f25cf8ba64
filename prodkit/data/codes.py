"""Numbers in text files that are codes: 00123 names a customer or a place, and is not 123."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

__all__ = ["PADDED", "code_columns"]

PADDED = re.compile(rb"[,\t\n\r\"]0[0-9]")
"""A field that may begin with a nought before another digit: without one, a file holds no codes."""


def code_columns(schema: Any, read: Callable[[dict[str, Any]], Any]) -> dict[str, Any]:
    """The columns that an inferred Arrow schema takes for whole numbers though some begin with noughts, as texts.

    Args:
        schema: as it was inferred.
        read: the same rows with other types for some columns: an Arrow table or batch.
    """
    whole = {field.name: pa.string() for field in schema if pa.types.is_integer(field.type)}
    if not whole:
        return {}
    cells = read(whole)
    padded = {
        field.name
        for place, field in enumerate(schema)
        if field.name in whole and pc.any(pc.match_substring_regex(cells.column(place), "^0[0-9]")).as_py()
    }
    return {name: kind for name, kind in whole.items() if name in padded}
