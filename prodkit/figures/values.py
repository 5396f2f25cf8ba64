"""What of a table can be drawn: its finite rows and shares, the ends of its intervals, the range of an axis."""

from __future__ import annotations

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray

__all__ = ["finite_rows", "finite_shares", "interval_ends", "padded_range"]

_Floats = NDArray[np.float64]


def finite_rows(table: pd.DataFrame, *columns: str) -> pd.DataFrame:
    """The rows whose columns all hold numbers; none if a column is not there."""
    numbers = table.reindex(columns=list(columns)).to_numpy(float)
    known: pd.DataFrame = table.loc[np.isfinite(numbers).all(axis=1)]
    return known.reindex(columns=known.columns.union(list(columns), sort=False))


def interval_ends(table: pd.DataFrame, value: str) -> tuple[_Floats, _Floats]:
    """Both ends of each interval; the value itself where they are not known."""
    low, high = (table[end] if end in table else table[value] for end in ("low", "high"))
    return low.fillna(table[value]).to_numpy(float), high.fillna(table[value]).to_numpy(float)


def finite_shares(values: ArrayLike) -> _Floats:
    """Shares, nothing where one is not known."""
    shares = np.asarray(values, dtype=float)
    return np.where(np.isfinite(shares), shares, 0.0)


def padded_range(values: _Floats) -> tuple[float, float]:
    """Both ends of an axis that leaves some room around these values."""
    margin = 0.08 * (float(values.max() - values.min()) or 1.0)
    return float(values.min()) - margin, float(values.max()) + margin
