"""The faults that a rehearsal puts into a column."""

from __future__ import annotations

import zlib

import numpy as np
import pandas as pd

from prodkit.data.cells import native_kind
from prodkit.errors import ParameterError

__all__ = ["FAULTS", "broken"]

FAULTS = ("celsius", "constant", "empty", "scaled", "scrambled")


def broken(values: pd.Series, fault: str, *, seed: int = 0) -> pd.Series:
    """The column (n,) after a fault; what is missing stays missing.

    Args:
        values: of one window.
        fault: ``empty`` (all missing), ``celsius`` (read from Fahrenheit), ``scrambled`` (permuted among the
            rows that have a value), ``scaled`` (times 1000) or ``constant`` (the first value everywhere).
        seed: of the permutation, which differs from column to column.

    Raises:
        ParameterError: an unknown fault, or one of numbers for a column that holds none.

    >>> broken(pd.Series([32.0, 212.0], name="temp"), "celsius").tolist()
    [0.0, 100.0]
    """
    name, there = f"drill.{values.name}", values.notna().to_numpy(dtype=bool)
    if fault not in FAULTS:
        raise ParameterError(name, rule=f"must be one of {', '.join(FAULTS)}", value=fault)
    if fault in ("celsius", "scaled") and native_kind(values.dtype) != "numeric":
        fix = "Choose empty, constant or scrambled."
        raise ParameterError(name, rule="needs a column of numbers for this fault", value=fault, fix=fix)
    if fault == "empty":
        return values.where(np.zeros(len(values), dtype=bool))
    if fault == "celsius":
        return (values - 32) * 5 / 9
    if fault == "scaled":
        return values * 1000
    order = np.arange(len(values))
    if fault == "constant":
        order[there] = order[there][:1]
    else:
        random = np.random.default_rng([seed, zlib.crc32(str(values.name).encode())])
        order[there] = random.permutation(order[there])
    return pd.Series(values.array[order], index=values.index, name=values.name)
