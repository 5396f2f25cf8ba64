"""Blocks of rows that share their fate, such as days: what they are, and how much each takes after the one before."""

from __future__ import annotations

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray

from prodkit.errors import DataError

__all__ = ["MOST", "PRIOR_BLOCKS", "USUAL", "block_codes", "daily_auc", "dependence"]

MOST = 0.9  # dependence beyond that leaves nothing to go by
# Dependence of daily gains: on the flights it is .4, and others' days may resemble each other more.
USUAL = 0.7
PRIOR_BLOCKS = 20  # that this counts for


def block_codes(blocks: ArrayLike, n: int) -> tuple[NDArray[np.int64], int]:
    """Blocks as 0..k-1 in their own order, and k."""
    codes, levels = pd.factorize(np.asarray(blocks), sort=True)
    if len(codes) != n or (codes < 0).any():
        raise DataError(
            "blocks", rule=f"must name a block for each of {n} rows", value=f"{(codes >= 0).sum()}"
        )
    return codes.astype(np.int64), len(levels)


def daily_auc(y_true: ArrayLike, y_pred: ArrayLike, *, blocks: ArrayLike) -> pd.Series[float]:
    """ROC AUC within each block (day), by block; blocks of one class only are left out.

    >>> daily_auc([0, 1, 1, 1], [0.2, 0.7, 0.1, 0.9], blocks=[1, 1, 2, 2]).to_dict()
    {1: 1.0}
    """
    table = pd.DataFrame({"truth": np.asarray(y_true), "guess": np.asarray(y_pred, float), "block": blocks})
    table["rank"] = table.groupby("block")["guess"].rank().where(table["truth"] == 1, 0.0)
    sums = table.groupby("block").agg(rows=("truth", "size"), hits=("truth", "sum"), rank=("rank", "sum"))
    both = sums[(sums["hits"] > 0) & (sums["hits"] < sums["rows"])]
    # Mann-Whitney: U is the rank sum of the positives less the least that it can be
    least, pairs = both["hits"] * (both["hits"] + 1) / 2, both["hits"] * (both["rows"] - both["hits"])
    return ((both["rank"] - least) / pairs).astype(float)


def dependence(figures: ArrayLike, *, usual: float = USUAL, weight: int = PRIOR_BLOCKS) -> float:
    """How much a block's figure takes after that of the block before: the lag-one autocorrelation, 0 to .9.

    Its bias, (1 + 3 phi) / n (Marriott & Pope 1954; Kendall 1954), is taken out, and a usual value is mixed in, since a
    few blocks say little of it. A step in the mean raises it: that delays an alarm and causes none.

    Args:
        figures: (blocks,) one of each, in order.
        usual: what is expected before any is seen.
        weight: the number of blocks that this counts for.

    >>> dependence(np.tile([1.0, -1.0], 500))
    0.0
    """
    values = np.asarray(figures, dtype=float)
    if len(values) < 3 or not np.isfinite(values).all():
        return usual
    rest = values - values.mean()
    spread = float(rest @ rest)
    seen = float(rest[1:] @ rest[:-1]) / spread if spread > 0 else 0.0
    found = seen + (1 + 3 * max(seen, 0.0)) / len(values)
    mixed = (len(values) * found + weight * usual) / (len(values) + weight)
    return float(np.clip(mixed, 0.0, MOST))
