"""What a threshold makes of predictions: who is called and who is not, rightly and wrongly."""

from __future__ import annotations

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike

from prodkit.params import Task

__all__ = ["confusion", "threshold_cost"]


def confusion(
    y_true: ArrayLike, y_pred: ArrayLike, *, thresholds: ArrayLike, task: Task, positive: int = 1
) -> pd.DataFrame:
    """How many rows are called at each threshold, and whether they should have been.

    A row is called if its prediction reaches the threshold, and ought to be if it is of the ``positive`` class. Of a
    quantity, both are held against the threshold: rows of at least so much. Rows without a prediction are left out.

    Args:
        y_true: (n,) class indices, or numbers.
        y_pred: (n,) probability of class 1, (n, k) probabilities, or (n,) numbers.
        thresholds: (t,).
        task: binary, multiclass or regression.
        positive: the class that is looked for.

    Returns:
        A row for each threshold: hits, false_alarms, misses, rests (rightly not called).

    >>> confusion([0, 0, 1, 1], [0.1, 0.6, 0.3, 0.8], thresholds=[0.2, 0.5], task="binary").loc[0.5].to_dict()
    {'hits': 1, 'false_alarms': 1, 'misses': 1, 'rests': 1}
    """
    actual, said = np.asarray(y_true, dtype=float), np.asarray(y_pred, dtype=float)
    if task != "regression":
        said = said[:, positive] if said.ndim == 2 else said
        actual = np.where(actual == positive, np.inf, -np.inf)
    known = ~np.isnan(said) & ~np.isnan(actual)
    actual, said, cuts = actual[known], said[known], np.asarray(thresholds, dtype=float)
    # Both reach a threshold if the smaller of them does.
    called, due, both = (
        len(some) - np.searchsorted(np.sort(some), cuts, side="left")
        for some in (said, actual, np.minimum(said, actual))
    )
    counts = {"hits": both, "false_alarms": called - both, "misses": due - both}
    table = pd.DataFrame(counts | {"rests": len(said) - called - due + both}, index=cuts)
    return table.rename_axis("threshold")


def threshold_cost(counts: pd.DataFrame, *, miss: float) -> pd.Series[float]:
    """Cost of a hundred rows at each threshold, in false alarms, where a miss costs as much as so many of them.

    If the probabilities can be taken at their word, 1 / (1 + miss) is the cheapest threshold (Elkan 2001, The
    foundations of cost-sensitive learning). NaN without rows.

    >>> counts = confusion([0, 0, 1, 1], [0.1, 0.6, 0.3, 0.8], thresholds=[0.2, 0.5], task="binary")
    >>> threshold_cost(counts, miss=4).tolist()
    [25.0, 125.0]
    """
    spent = counts["false_alarms"] + miss * counts["misses"]
    return (100 * spent / counts.sum(axis="columns").replace(0, np.nan)).astype(float)
