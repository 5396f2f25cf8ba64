"""How often the realised figure of a window lies in the interval of its estimate: simulations with known answers.

``python tests/benchmarks/estimate_coverage.py [WINDOWS]``: forty days of 50 rows calibrate, and windows of ten days
are estimated and then judged by their labels. The declared rate is 95%. Stories: independent rows; days that share a
shock; shocks that remember those of the day before (AR(1) of .6); inputs that move by half a standard deviation where
the chances of like rows stay; the same where a column that the scores ignore decides, which only weighting sees; a
model of quantities; three classes. The last line is no story of the method: the chances of like rows change by .5 in
their logit, which no estimate can see. ``without`` is the share of windows for which no number is given.
"""

from __future__ import annotations

import sys
from typing import Any

import numpy as np

from prodkit.data.schema import Column, Schema
from prodkit.models.calibration import CalibrationSet, LossModel
from prodkit.models.estimate import estimated
from prodkit.models.metrics import scores

WINDOWS, DAYS, LATER, A_DAY = 60, 40, 10, 50
STORIES: dict[str, dict[str, Any]] = {
    "independent rows": {},
    "days share a shock of .5": {"shock": 0.5},
    "shocks that remember by .6": {"shock": 0.5, "memory": 0.6},
    "inputs move by .5 sd": {"moved": 0.5},
    "and a column ignored decides": {"moved": 0.5, "ignored": 0.8},
    "three classes, shock of .3": {"task": "multiclass", "shock": 0.3},
    "quantities, shock of .3": {"task": "regression", "shock": 0.3},
    "quantities, inputs move": {"task": "regression", "moved": 0.5},
    "chances change (cannot be seen)": {"changed": 0.5},
}
CLASSES: dict[str, tuple[Any, ...]] = {"binary": (0, 1), "multiclass": ("a", "b", "c"), "regression": ()}
SHOWN = {
    "binary": ("roc_auc", "log_loss"),
    "multiclass": ("roc_auc", "log_loss"),
    "regression": ("mae", "rmse"),
}


def shocks(random: np.random.Generator, days: int, size: float, memory: float) -> np.ndarray:
    """One a day, AR(1)."""
    found = random.normal(0, size, days)
    for day in range(1, days):
        found[day] = memory * found[day - 1] + np.sqrt(1 - memory**2) * found[day]
    return found


def rows(
    random: np.random.Generator, days: int, *, task: str, moved: float = 0.0, mood: np.ndarray, ignored: float = 0.0,
    changed: float = 0.0,
) -> tuple[np.ndarray, ...]:  # fmt: skip
    """Columns, what a model that is too sure of itself says, what comes true, and days."""
    x = random.normal(size=(days * A_DAY, 3)) + moved
    day = np.repeat(np.arange(days), A_DAY)
    if task == "regression":
        said = 3 * x[:, 0]
        return x, said, said + mood[day] + random.normal(size=len(x)) * np.exp(0.4 * x[:, 1]), day
    true = np.column_stack([np.zeros(len(x)), x[:, 0] + mood[day] + ignored * x[:, 2] + changed, x[:, 1]])
    said = 1.8 * np.column_stack([np.zeros(len(x)), x[:, 0], x[:, 1]])
    k = len(CLASSES[task])
    true, said = (
        np.exp(side[:, :k]) / np.exp(side[:, :k]).sum(axis=1, keepdims=True) for side in (true, said)
    )
    truth = (random.random((len(x), 1)) > np.cumsum(true, axis=1)).sum(axis=1).clip(0, k - 1)
    return x, said[:, 1] if task == "binary" else said, truth, day


def told(story: dict[str, Any], windows: int) -> str:
    """Coverage, width and error of two scores over windows of a story, each with a calibration of its own."""
    task, shock, memory = (story.get(name, usual) for name, usual in
                           (("task", "binary"), ("shock", 0.0), ("memory", 0.0)))  # fmt: skip
    more = {name: value for name, value in story.items() if name in ("moved", "ignored", "changed")}
    schema = Schema(tuple(Column(name, "numeric") for name in "abc"), "y", task, CLASSES[task])
    found: dict[str, list[tuple[float, ...]]] = {name: [] for name in SHOWN[task]}
    for seed in range(windows):
        random = np.random.default_rng(seed)
        mood = shocks(random, DAYS + LATER, shock, memory)
        before = {name: value for name, value in more.items() if name == "ignored"}
        x, said, truth, days = rows(random, DAYS, task=task, mood=mood[:DAYS], **before)
        model = LossModel.fit(x, said, np.abs(truth - said), days) if task == "regression" else None
        kept = CalibrationSet(schema, tuple("abc"), x.astype(np.float32), truth, said, days, model)
        x, said, truth, days = rows(random, LATER, task=task, mood=mood[DAYS:], **more)
        window = estimated(kept, x, said, days=days + DAYS)
        realised = scores(truth, said, task=task)
        for name in found if window.scores else ():
            each = window.scores[name]
            found[name].append((each.value, each.low, each.high, realised[name]))
    parts = []
    for name, listed in found.items():
        value, low, high, true = np.array(listed).T
        held, error = np.mean((low <= true) & (true <= high)), np.sqrt(np.mean((value - true) ** 2))
        parts.append(f"{name:8s} {held:4.0%} width {np.mean(high - low):.3f} error {error:.3f}")
    return "  ".join([*parts, f"without {1 - len(listed) / windows:.0%}"])


if __name__ == "__main__":
    asked = int(sys.argv[1]) if len(sys.argv) > 1 else WINDOWS
    for name, story in STORIES.items():
        print(f"{name:33s} {told(story, asked)}", flush=True)
