"""One way to get predictions that never crashes: what the model must not answer, a simple rule answers."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd

from prodkit.bundle import Bundle

__all__ = ["Answers", "guarded"]


@dataclass(frozen=True)
class Answers:
    """Predictions of n rows, and where each came from.

    Attributes:
        predicted: (n,) or (n, k), as :func:`prodkit.models.predictions`.
        degraded: (n,) true where the simple rule answered.
        reason: (n,) why; empty where the model answered.
    """

    predicted: np.ndarray
    degraded: np.ndarray
    reason: np.ndarray


def guarded(bundle: Bundle, frame: pd.DataFrame, *, distrust: str = "") -> Answers:
    """Predict every row: by the model, or by the fallback where the model fails or may not be asked.

    Args:
        bundle: the version that answers.
        frame: (n, m) rows.
        distrust: why the model must not be asked at all (a broken data contract); empty if it may.
    """
    if distrust:
        return _all_simple(bundle, frame, distrust)
    try:
        predicted = bundle.predict(frame)
    except Exception as error:  # whatever a model raises, the rows still get an answer
        return _all_simple(bundle, frame, f"{type(error).__name__}: {error}")
    finite = np.isfinite(predicted) if predicted.ndim == 1 else np.isfinite(predicted).all(axis=1)
    if not finite.all():
        predicted = predicted.copy()  # what the model returned may be an array of its own
        predicted[~finite] = bundle.fallback.predict(frame[~finite], schema=bundle.schema)
    reason = np.where(finite, "", "the model gave no finite number").astype(object)
    return Answers(predicted, ~finite, reason)


def _all_simple(bundle: Bundle, frame: pd.DataFrame, reason: str) -> Answers:
    simple = bundle.fallback.predict(frame, schema=bundle.schema)
    return Answers(simple, np.full(len(frame), True), np.full(len(frame), reason, dtype=object))
