"""How often drift of columns together, of labels and of what scores are worth is seen, with and without any.

``python tests/benchmarks/wider_drift.py [WINDOWS]``: sixty days of 50 rows are the calibration rows, and each window
has ten days. Of three columns two make the label, and the score is calibrated. The declared rate of each line without
drift is 5%: an alarm asks to watch, and no more.
"""

from __future__ import annotations

import sys
from typing import Any

import numpy as np

from prodkit.data.schema import Column, Schema
from prodkit.decisions.concept import concept_drift, joint_drift, label_drift
from prodkit.models.calibration import CalibrationSet

WINDOWS, DAYS, LATER, A_DAY = 40, 60, 10, 50
STORIES: dict[str, dict[str, Any]] = {
    "none, independent rows": {},
    "none, columns of a day share .5": {"weather": 0.5},
    "none, which remember by .8": {"weather": 0.5, "memory": 0.8},
    "none, labels of a day share .5": {"mood": 0.5},
    "none, which remember by .8 ": {"mood": 0.5, "memory": 0.8},
    "columns correlate by .7": {"correlated": 0.7},
    "a column moves by .5 sd": {"moved": 0.5},
    "chances rise by .5 in their logit": {"level": 0.5},
    "the score is worth half": {"slope": 0.5},
}


def shocks(random: np.random.Generator, shape: tuple[int, int], size: float, memory: float) -> np.ndarray:
    """One a day and column, AR(1)."""
    found = random.normal(0, size, shape)
    for day in range(1, shape[0]):
        found[day] = memory * found[day - 1] + np.sqrt(1 - memory**2) * found[day]
    return found


def seen(story: dict[str, Any], seed: int) -> list[bool]:
    """Whether each kind of drift is found in one window."""
    random = np.random.default_rng(seed)
    memory, days = story.get("memory", 0.0), np.repeat(np.arange(DAYS + LATER), A_DAY)
    weather = shocks(random, (DAYS + LATER, 3), story.get("weather", 0.0), memory)[days]
    mood = shocks(random, (DAYS + LATER, 1), story.get("mood", 0.0), memory)[days, 0]
    x, later = random.normal(size=(len(days), 3)) + weather, days >= DAYS
    rho = story.get("correlated", 0.0)
    x[later, 1] = rho * x[later, 0] + np.sqrt(1 - rho**2) * x[later, 1]
    x[later, 2] += story.get("moved", 0.0)
    logit = x[:, 0] + x[:, 1]
    true = np.where(later, story.get("slope", 1.0) * logit + story.get("level", 0.0), logit) + mood
    truth = (random.random(len(days)) < 1 / (1 + np.exp(-true))).astype(int)
    said = 1 / (1 + np.exp(-logit))
    schema = Schema(tuple(Column(name, "numeric") for name in "abc"), "y", "binary", (0, 1))
    columns = x.astype(np.float32)
    kept = CalibrationSet(schema, tuple("abc"), columns[~later], truth[~later], said[~later], days[~later])
    found = [
        joint_drift(kept, columns[later], days=days[later]),
        label_drift(kept, truth[later], days=days[later]),
        concept_drift(kept, truth[later], said[later], days=days[later]),
    ]
    return [each.outcome == "fail" for each in found]


if __name__ == "__main__":
    windows = int(sys.argv[1]) if len(sys.argv) > 1 else WINDOWS
    print(f"{'found in % of windows':36s} together  labels  concept")
    for name, story in STORIES.items():
        shares = 100 * np.mean([seen(story, seed) for seed in range(windows)], axis=0)
        print(f"{name:36s} {shares[0]:8.0f} {shares[1]:7.0f} {shares[2]:8.0f}", flush=True)
