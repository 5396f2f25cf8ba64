"""Scores of windows by Evidently, NannyML and alibi-detect, in an environment of theirs.

``python rival_power.py FOLDER REFERENCE``, started by ``power.py``. Each tool chooses its method by itself; those that
the environment does not have are left out.
"""

from __future__ import annotations

import importlib.util
import json
import sys
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

Score = Callable[["pd.Series[Any]", "pd.Series[Any]"], float]


def evidently() -> Score:
    """Its default test for the size and type of the column, as evidence; it drops missing values."""
    from evidently.legacy.calculations.stattests import get_stattest
    from evidently.legacy.core import ColumnType

    def score(before: pd.Series[Any], now: pd.Series[Any]) -> float:
        kind = ColumnType.Categorical if before.dtype == object else ColumnType.Numerical
        before, now = before.dropna(), now.dropna()
        test = get_stattest(before, now, kind, None)
        found = test(before, now, kind, None).drift_score
        name = test.display_name.lower()
        return float(-found if "p_value" in name or "p-value" in name else found)

    return score


def nannyml() -> Score:
    """Its default, the Jensen-Shannon distance, and its count of missing values: any is certain where none was."""
    from nannyml.drift.univariate.methods import FeatureType, MethodFactory
    from nannyml.thresholds import StandardDeviationThreshold

    def score(before: pd.Series[Any], now: pd.Series[Any]) -> float:
        kind = FeatureType.CATEGORICAL if before.dtype == object else FeatureType.CONTINUOUS
        settings: dict[str, Any] = {"threshold": StandardDeviationThreshold(), "chunker": None}
        method = MethodFactory.create("jensen_shannon", kind, **settings)
        method._fit(before)
        return float(method.calculate(now)) + (now.isna().mean() != before.isna().mean())

    return score


def alibi_detect() -> Score:
    """Its test of tables, KS of numbers and chi-square of levels, as evidence; missing values it cannot take."""
    from alibi_detect.cd import TabularDrift

    def score(before: pd.Series[Any], now: pd.Series[Any]) -> float:
        levels = {0: None} if before.dtype == object else None
        sides = [side.dropna().to_numpy()[:, None] for side in (before, now)]
        found = TabularDrift(sides[0], p_val=0.05, categories_per_feature=levels).predict(sides[1])["data"]
        return -float(np.log(max(float(found["p_val"][0]), 1e-300)))

    return score


TOOLS = {"Evidently": evidently, "NannyML": nannyml, "alibi-detect": alibi_detect}


def main(folder: str, reference: int) -> None:
    """Write the scores of all windows by each tool that is there."""
    warnings.simplefilter("ignore")
    for tool, opened in TOOLS.items():
        if importlib.util.find_spec(opened.__name__) is None:
            continue
        score, found = opened(), {}
        for path in Path(folder).glob("*.npy"):
            cells = np.load(path)
            found[path.stem] = [
                score(pd.Series(values[:reference], name="c"), pd.Series(values[reference:], name="c"))
                for values in (cells.astype(object) if cells.dtype.kind == "U" else cells)
            ]
        Path(folder, f"{tool}.json").write_text(json.dumps(found))


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]))
