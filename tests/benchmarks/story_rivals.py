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

__all__ = ["RIVALS"]

Windows = Sequence[tuple[int, int]]
_LIMIT = 0.1
_CHUNKS = 10


def _numeric(values: pd.Series) -> bool:
    return pd.api.types.is_numeric_dtype(values.dtype) and values.nunique() > 5


def _shares(reference: pd.Series, current: pd.Series) -> tuple[np.ndarray, np.ndarray]:
    """Shares of levels, or of bins of the reference and current together."""
    if _numeric(reference):
        both = pd.concat([reference, current]).astype(float)
        edges = np.histogram_bin_edges(both, bins="doane")
        return tuple(np.histogram(part.astype(float), edges)[0] / max(len(part), 1) for part in (reference, current))
    levels = sorted({*reference, *current}, key=str)
    return tuple(
        part.value_counts(normalize=True).reindex(levels, fill_value=0).to_numpy(dtype=float)
        for part in (reference, current)
    )


def _distance(reference: pd.Series, current: pd.Series) -> float:
    if not len(current):
        return 1.0
    return float(jensenshannon(*_shares(reference, current), base=2))


def _evidently(reference: pd.Series, current: pd.Series) -> bool:
    if _numeric(reference) and len(current):
        spread = max(float(reference.astype(float).std()), 1e-3)
        return wasserstein_distance(reference.astype(float), current.astype(float)) / spread >= _LIMIT
    return _distance(reference, current) >= _LIMIT


def _pairs(story: Story, window: tuple[int, int]) -> list[tuple[pd.Series, pd.Series]]:
    """Each feature in the training rows and in a window, without missing values."""
    rows, (_, trained) = story.rows, TRAINED[2]
    before, now = rows[rows["day"] < trained], rows[(rows["day"] >= window[0]) & (rows["day"] < window[1])]
    return [(before[name].dropna(), now[name].dropna()) for name in story.table.features]


def evidently(story: Story, windows: Windows) -> str:
    """Retrain once half of the columns have drifted."""
    for window in windows[1:]:
        found = [_evidently(reference, current) for reference, current in _pairs(story, window)]
        if np.mean(found) >= 0.5:
            return "retrain"
    return "keep"


def nannyml(story: Story, windows: Windows) -> str:
    """Retrain once any column has."""
    for window in windows[1:]:
        for reference, current in _pairs(story, window):
            if not len(reference):
                continue
            usual = [
                _distance(reference, reference.iloc[part]) for part in np.array_split(np.arange(len(reference)), _CHUNKS)
            ]
            if _distance(reference, current) > np.mean(usual) + 3 * np.std(usual):
                return "retrain"
    return "keep"


RIVALS: dict[str, Callable[[Story, Windows], str]] = {
    "Evidently's alarm": evidently,
    "NannyML's alert": nannyml,
    "always": lambda story, windows: "retrain",
    "never": lambda story, windows: "keep",
}
