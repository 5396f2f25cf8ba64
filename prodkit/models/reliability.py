"""Whether what was announced comes true: predicted against observed shares."""

from __future__ import annotations

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray
from scipy import stats

from prodkit.models.losses import Floats, checked
from prodkit.params import Task

__all__ = ["calibration_curve", "calibration_error", "claims", "mass_bins"]


def calibration_error(y_true: ArrayLike, y_pred: ArrayLike, *, bins: int = 10) -> float:
    """Mean gap between predicted and observed share over bins of equal mass; of the top class if multiclass.

    The expected calibration error of Naeini, Cooper & Hauskrecht (2015) with quantile bins; equal predictions
    share a bin. Perfect calibration still scores about sqrt(bins / n) / 3, so compare rather than test.
    """
    curve = calibration_curve(y_true, y_pred, bins=bins)
    if curve.empty:
        return float("nan")
    return float(np.average((curve["predicted"] - curve["observed"]).abs(), weights=curve["n"]))


def calibration_curve(
    y_true: ArrayLike, y_pred: ArrayLike, *, bins: int = 10, task: Task | None = None
) -> pd.DataFrame:
    """Predicted and observed share (``regression``: mean) of each bin of equal mass, with its 95% interval.

    Returns:
        Columns predicted, observed, low, high, n; one row a bin, by rising prediction. Empty when a
        prediction is not finite or no probability. The interval (Wilson's, or the normal one of a mean) takes
        rows as independent.
    """
    task = task or ("multiclass" if np.ndim(y_pred) == 2 else "binary")
    truth, guess = checked(y_true, y_pred, task)
    hit, sure = claims(truth, guess, task)
    if len(sure) == 0 or not np.isfinite(sure).all():
        return pd.DataFrame({name: [] for name in ("predicted", "observed", "low", "high", "n")}, dtype=float)
    rows = pd.DataFrame({"bin": mass_bins(sure, bins), "predicted": sure, "observed": hit})
    curve = rows.groupby("bin").agg(
        predicted=("predicted", "mean"), observed=("observed", "mean"), n=("observed", "size")
    )
    columns = ["predicted", "observed", "low", "high", "n"]
    if task == "regression":
        half = 1.96 * rows.groupby("bin")["observed"].sem().fillna(0.0)
        curve = curve.assign(low=curve["observed"] - half, high=curve["observed"] + half)
        return curve.reset_index(drop=True)[columns]
    z, share, n = stats.norm.ppf(0.975), curve["observed"].to_numpy(), curve["n"].to_numpy()
    centre = (share + z**2 / (2 * n)) / (1 + z**2 / n)
    half = z * np.sqrt(share * (1 - share) / n + z**2 / (4 * n**2)) / (1 + z**2 / n)
    ends = {"low": np.maximum(centre - half, 0.0), "high": np.minimum(centre + half, 1.0)}
    return curve.assign(**ends).reset_index(drop=True)[columns]


def claims(truth: Floats, guess: Floats, task: Task) -> tuple[Floats, Floats]:
    """What calibration is about: did it happen (0/1), and with what probability was it announced."""
    if task == "multiclass":
        return (guess.argmax(axis=1) == truth).astype(float), guess.max(axis=1)
    return truth, guess


def mass_bins(values: Floats, bins: int) -> NDArray[np.int64]:
    """The bin of each value: bins of equal mass, equal values together, none empty."""
    ordered = np.sort(values)
    inner = np.unique(ordered[np.arange(1, bins) * len(values) // bins])
    return np.unique(np.searchsorted(inner, values, side="right"), return_inverse=True)[1].astype(np.int64)
