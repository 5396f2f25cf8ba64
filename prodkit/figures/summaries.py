"""Figures of what is kept of rows: a column, the scores of a model, its calibration."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from prodkit.drift.profiles import ColumnProfile
from prodkit.figures.chart import Chart
from prodkit.figures.drift import draw_distributions, draw_score_histogram
from prodkit.figures.models import draw_calibration_curve
from prodkit.models.reliability import calibration_curve
from prodkit.params import Task

__all__ = ["draw_calibration", "draw_pair", "draw_scores"]


def draw_pair(reference: ColumnProfile, current: ColumnProfile, *, name: str) -> Chart:
    """Two summaries of one column."""
    shares = [profile.counts / max(profile.counts.sum(), 1) for profile in (reference, current)]
    return draw_distributions(*shares, name=name, labels=_labels(reference))


def draw_scores(reference: ColumnProfile, current: ColumnProfile, *, title: str) -> Chart:
    """What a model said of two sets of rows."""
    then, now = (profile.counts / max(profile.counts.sum(), 1) for profile in (reference, current))
    return draw_score_histogram(now, reference=then, edges=_labels(reference), title=title)


def _labels(column: ColumnProfile) -> Sequence[Any]:
    """Names of the bins, or their edges, the outer ones being what was seen at training."""
    if column.kind in ("categorical", "boolean"):
        return column.bins.names
    cuts = column.bins.cuts
    low, high = (end if end is not None else 0.0 for end in (column.min, column.max))
    return [min(low, *cuts, high), *cuts, max(high, *cuts, low)]


def draw_calibration(y_true: np.ndarray, y_pred: np.ndarray, *, task: Task, title: str) -> Chart:
    """Predictions against what happened, in ten groups."""
    curve = calibration_curve(y_true, y_pred, task=task)
    return draw_calibration_curve(curve, title=title, unit="mean" if task == "regression" else "share")
