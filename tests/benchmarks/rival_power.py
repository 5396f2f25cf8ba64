"""Scores of windows by Evidently and NannyML, in their own environment: ``python rival_power.py FOLDER REFERENCE``.

Started by ``power.py``. Each tool chooses its method by itself.
"""

from __future__ import annotations

import json
import sys
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from evidently.legacy.calculations.stattests import get_stattest
from evidently.legacy.core import ColumnType
from nannyml.drift.univariate.methods import FeatureType, MethodFactory
from nannyml.thresholds import StandardDeviationThreshold


def evidently(before: pd.Series[Any], now: pd.Series[Any]) -> float:
    """Its default test for the size and type of the column, as evidence; it drops missing values."""
    kind = ColumnType.Categorical if before.dtype == object else ColumnType.Numerical
    before, now = before.dropna(), now.dropna()
    test = get_stattest(before, now, kind, None)
    found = test(before, now, kind, None).drift_score
    return float(
        -found if "p_value" in test.display_name.lower() or "p-value" in test.display_name.lower() else found
    )


def nannyml(before: pd.Series[Any], now: pd.Series[Any]) -> float:
    """Its default, the Jensen-Shannon distance, and its count of missing values: any is certain where none was."""
    kind = FeatureType.CATEGORICAL if before.dtype == object else FeatureType.CONTINUOUS
    method = MethodFactory.create(
        "jensen_shannon", kind, threshold=StandardDeviationThreshold(), chunker=None
    )
    method._fit(before)
    return float(method.calculate(now)) + (now.isna().mean() != before.isna().mean())


def main(folder: str, reference: int) -> None:
    """Write the scores of all windows."""
    warnings.simplefilter("ignore")
    cells = np.load(Path(folder, "cells.npz"), allow_pickle=True)
    scores: dict[str, dict[str, list[float]]] = {"Evidently": {}, "NannyML": {}}
    for name in cells.files:
        for tool, score in (("Evidently", evidently), ("NannyML", nannyml)):
            scores[tool][name] = [
                score(pd.Series(values[:reference], name="c"), pd.Series(values[reference:], name="c"))
                for values in cells[name]
            ]
    Path(folder, "scores.json").write_text(json.dumps(scores))


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]))
