"""What simple policies, and the alarms of two drift monitors, would have done about a story.

The alarms are the documented default rules, computed here since the tools need an environment of their own:
Evidently's data drift preset (a column has drifted if its Wasserstein distance in standard deviations, or its
Jensen-Shannon distance, is .1 or more; the data set has if half of the columns have), and NannyML's univariate drift
(a column has drifted if its Jensen-Shannon distance lies above the mean of ten chunks of the reference by more than
three standard deviations; any one is an alert). An alarm means retrain.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import pandas as pd
from scipy.spatial.distance import jensenshannon
from scipy.stats import wasserstein_distance
from story_kinds import TRAINED, Story

__all__ = ["RIVALS", "evidently_share"]

Windows = Sequence[tuple[int, int]]
_LIMIT = 0.1
_CHUNKS = 10


def _numeric(values: pd.Series) -> bool:
    return pd.api.types.is_numeric_dtype(values.dtype) and values.nunique() > 5


def _distance(reference: pd.Series) -> Callable[[pd.Series], float]:
    """Jensen-Shannon distance of any sample from this one."""
    if _numeric(reference):
        edges = np.histogram_bin_edges(reference.astype(float), bins="doane")

        def shares(part: pd.Series) -> np.ndarray:
            inside = np.clip(part.to_numpy(dtype=float), edges[0], edges[-1])
            return np.histogram(inside, edges)[0] / len(part)
    else:
        levels = reference.value_counts().index

        def shares(part: pd.Series) -> np.ndarray:
            found = part.value_counts(normalize=True).reindex(levels, fill_value=0).to_numpy(dtype=float)
            return np.append(found, max(0.0, 1 - found.sum()))

    before = shares(reference)
    return lambda part: float(jensenshannon(before, shares(part), base=2)) if len(part) else 1.0


def _evidently(reference: pd.Series, current: pd.Series) -> bool:
    if _numeric(reference) and len(current):
        spread = max(float(reference.astype(float).std()), 1e-3)
        return wasserstein_distance(reference.astype(float), current.astype(float)) / spread >= _LIMIT
    return _distance(reference)(current) >= _LIMIT


def evidently_share(reference: pd.DataFrame, current: pd.DataFrame, names: Sequence[str]) -> float:
    """Share of these columns that have drifted by Evidently's default rule."""
    return float(np.mean([_evidently(reference[name].dropna(), current[name].dropna()) for name in names]))


def _rows(story: Story, first: int, last: int) -> pd.DataFrame:
    return story.rows[(story.rows["day"] >= first) & (story.rows["day"] < last)]


def evidently(story: Story, windows: Windows) -> str:
    """Retrain once half of the columns have drifted."""
    before = _rows(story, *TRAINED[2])
    for window in windows[1:]:
        now = _rows(story, *window)
        if evidently_share(before, now, story.table.features) >= 0.5:
            return "retrain"
    return "keep"


def nannyml(story: Story, windows: Windows) -> str:
    """Retrain once any column has."""
    before = _rows(story, *TRAINED[2])
    for name in story.table.features:
        reference = before[name].dropna()
        distance = _distance(reference)
        chunks = np.array_split(np.arange(len(reference)), _CHUNKS)
        usual = [distance(reference.iloc[part]) for part in chunks]
        limit = np.mean(usual) + 3 * np.std(usual)
        if any(distance(_rows(story, *window)[name].dropna()) > limit for window in windows[1:]):
            return "retrain"
    return "keep"


RIVALS: dict[str, Callable[[Story, Windows], str]] = {
    "Evidently's alarm": evidently,
    "NannyML's alert": nannyml,
    "always": lambda story, windows: "retrain",
    "never": lambda story, windows: "keep",
}
