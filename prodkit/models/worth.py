"""What a prediction was worth: by a matrix of costs, or by a column of the table."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pandas as pd
from scipy import stats

from prodkit.data.cells import numbers
from prodkit.data.schema import Schema
from prodkit.errors import ParameterError
from prodkit.evidence import Estimate
from prodkit.models.blocks import block_codes
from prodkit.models.losses import row_values

__all__ = ["mean_worth", "row_worth"]


def row_worth(
    value: str | Mapping[str, Mapping[str, float]],
    rows: pd.DataFrame,
    *,
    truth: np.ndarray,
    predicted: np.ndarray,
    schema: Schema,
) -> np.ndarray | None:
    """The (n,) business value of each row, NaN where it is not known; None if ``value`` names none.

    Args:
        value: ``{actual class: {decision: value}}``, or a column, which is worth what it is whatever was predicted.
        rows: (n, any) rows, with that column.
        truth: (n,) encoded labels.
        predicted: (n,) or (n, k) predictions.
        schema: whose classes are meant.

    Raises:
        ParameterError: a cost matrix without classes, or one that does not fit them.
    """
    if not value:
        return None
    if isinstance(value, str):
        return numbers(rows[value]).to_numpy(dtype=float)
    if schema.task == "regression":
        rule, fix = "must be a column where a number is predicted", "A cost matrix needs classes."
        raise ParameterError("value", rule=rule, value="a cost matrix", fix=fix)
    return row_values(truth, predicted, costs=value, classes=schema.classes)


def mean_worth(worth: np.ndarray, *, blocks: np.ndarray, confidence: float = 0.95) -> Estimate:
    """Mean of the known values (n,) with an interval: Student's t over whole blocks, as a ratio of their sums.

    >>> mean_worth(np.array([1.0, 2.0, np.nan, 3.0]), blocks=np.array([1, 1, 2, 2])).value
    2.0
    """
    known = np.isfinite(worth)
    codes, count = block_codes(blocks[known], int(known.sum()))
    if count < 2:
        value = float(worth[known].mean()) if count else float("nan")
        return Estimate(value, -np.inf, np.inf, int(known.sum()), count)
    sums, rows = np.bincount(codes, worth[known], count), np.bincount(codes, None, count)
    mean = float(sums.sum() / rows.sum())
    rest = sums - mean * rows
    error = np.sqrt(count / (count - 1) * (rest @ rest)) / rows.sum()
    half = float(stats.t.ppf((1 + confidence) / 2, count - 1) * error)
    return Estimate(mean, mean - half, mean + half, int(rows.sum()), count)
