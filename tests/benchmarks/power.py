"""Is drift found as often as by others, if nobody alarms more often than the others where nothing has changed?

python tests/benchmarks/power.py [WINDOWS] [--rival-python PYTHON]

Each tool gives a score to a window of one column beside a reference of 10,000 rows. An alarm is a score beyond the 95%
quantile of that tool's scores in windows without drift, so that all raise 5% false alarms whatever their own thresholds
are. Printed is the share of windows with an alarm, in percent. PYTHON has Evidently and NannyML; each is asked by the
method that it chooses by itself for such a column. The tests of scipy are those of alibi-detect's TabularDrift.
"""

from __future__ import annotations

import argparse
import json
import math
import subprocess
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from drift_calibration import Change, Draw, blocks, emptied, levels, normal, shifted, swapped
from scipy.stats import chi2_contingency, ks_2samp

from prodkit.drift.columns import column_profile
from prodkit.drift.comparison import compare_columns

REFERENCE, SIZES = 10_000, (200, 1000)
_NULLS = 3  # windows without drift for each with: a limit is a quantile, and less sure than a share
CASES: list[tuple[str, Draw, Change]] = [
    *((f"shift of {by} sd", normal, shifted(by)) for by in (0.1, 0.2, 0.5)),
    ("spread 1.2 times as wide", normal, lambda rng, values: values * 1.2),
    ("5% missing, none before", normal, emptied(0.05)),
    ("two levels of 20 swapped", levels(20), swapped),
    ("a tenth of rows in other levels", levels(20), lambda rng, values: mixed(rng, values)),
]


def mixed(rng: np.random.Generator, values: np.ndarray) -> np.ndarray:
    """A tenth of the rows take a level at random."""
    other = np.array([f"l{i}" for i in range(20)], dtype=object)[rng.integers(20, size=len(values))]
    return np.where(rng.random(len(values)) < 0.1, other, values)


def windows(draw: Draw, change: Change | None, *, n: int, count: int) -> list[np.ndarray]:
    """References and windows, one after the other, in one array each (REFERENCE + n,)."""
    found = []
    for seed in range(count):
        rng = np.random.default_rng([seed, n, change is not None])
        values = draw(rng, REFERENCE + n)
        now = values[REFERENCE:] if change is None else change(rng, values[REFERENCE:])
        found.append(np.concatenate([values[:REFERENCE], now]))
    return found


def prodkit_score(values: np.ndarray) -> float:
    """The least of its three p-values, of values, missing ones and unseen levels, as evidence."""
    kind = "categorical" if values.dtype == object else "numeric"
    before, now = values[:REFERENCE], values[REFERENCE:]
    reference = column_profile(before, blocks=blocks(REFERENCE, by_day=False), kind=kind)
    current = column_profile(now, blocks=blocks(len(now), by_day=False), like=reference)
    row = compare_columns(reference, current)
    found = [p for p in (row["p_value"], row["missing_p"], row["unseen_p"]) if not math.isnan(p)]
    return -math.log(max(min(found), 1e-300))


def scipy_score(values: np.ndarray) -> float:
    """The p-value of a two-sample Kolmogorov-Smirnov or chi-square test, without missing values, as evidence."""
    before, now = values[:REFERENCE], values[REFERENCE:]
    if values.dtype != object:
        p_value = ks_2samp(before, now[~np.isnan(now)]).pvalue
    else:
        names = np.unique(values)
        p_value = chi2_contingency(
            [[(side == name).sum() for name in names] for side in (before, now)]
        ).pvalue
    return -math.log(max(float(p_value), 1e-300))


def rival_scores(python: str, cells: dict[str, list[np.ndarray]]) -> dict[str, dict[str, list[float]]]:
    """Scores of all windows by each rival, from its own environment."""
    with tempfile.TemporaryDirectory() as folder:
        np.savez(Path(folder, "cells.npz"), **{name: np.stack(each) for name, each in cells.items()})
        call = [python, str(Path(__file__).with_name("rival_power.py")), folder, str(REFERENCE)]
        done = subprocess.run(call, capture_output=True, text=True)
        if done.returncode:
            raise SystemExit(done.stderr[-2000:])
        return dict(json.loads(Path(folder, "scores.json").read_text()))


def powers(scores: dict[str, list[float]], name: str, *, null: str) -> float:
    """Share in percent of the windows beyond the 95% quantile of those without drift; ties count by half."""
    limit = np.quantile(scores[null], 0.95)
    found = np.array(scores[name])
    return 100 * float((found > limit).mean() + 0.5 * (found == limit).mean() * (limit > min(scores[null])))


def main() -> None:
    """Print the table."""
    asked = argparse.ArgumentParser()
    asked.add_argument("windows", nargs="?", type=int, default=200)
    asked.add_argument("--rival-python")
    given = asked.parse_args()
    cells: dict[str, list[np.ndarray]] = {}
    for n in SIZES:
        for draw, null in ((normal, "numbers"), (levels(20), "levels")):
            cells[f"{null} {n}"] = windows(draw, None, n=n, count=_NULLS * given.windows)
        for name, draw, change in CASES:
            cells[f"{name} {n}"] = windows(draw, change, n=n, count=given.windows)
    tools: dict[str, dict[str, list[float]]] = {}
    for tool, score in (("prodkit", prodkit_score), ("KS, chi-square", scipy_score)):
        tools[tool] = {name: [score(values) for values in each] for name, each in cells.items()}
    if given.rival_python:
        tools |= rival_scores(given.rival_python, cells)
    print(f"alarms in percent of {given.windows} windows, at 5% false alarms")
    print(f"{'':34}" + "".join(f"{tool:>18}" for tool in tools))
    for n in SIZES:
        for name, draw, _ in CASES:
            null = f"{'numbers' if draw is normal else 'levels'} {n}"
            row: list[Any] = [powers(scores, f"{name} {n}", null=null) for scores in tools.values()]
            print(f"{f'{name}, {n:,} rows':34}" + "".join(f"{each:18.0f}" for each in row), flush=True)


if __name__ == "__main__":
    main()
