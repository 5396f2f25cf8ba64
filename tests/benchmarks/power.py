"""Is drift found as often as by others, if nobody alarms more often than the others where nothing has changed?

``python tests/benchmarks/power.py [WINDOWS] [--rival-python PYTHON]...``

Each tool gives a score to a window of one column beside a reference of 10,000 rows. An alarm is a score beyond the 95%
quantile of that tool's scores in windows without drift, so that all raise 5% false alarms whatever their own thresholds
are. Printed is the share of windows with an alarm, in percent, and the standard error of that, of the quantile's error
too; and by how many points prodkit is ahead of the best of the others, on the same windows. A PYTHON has Evidently,
NannyML or alibi-detect; each is asked by the method that it chooses by itself for such a column.
"""

from __future__ import annotations

import argparse
import json
import math
import subprocess
import tempfile
from pathlib import Path

import numpy as np
from drift_calibration import Change, Draw, blocks, emptied, levels, normal, shifted, swapped

from prodkit.drift.compare import compare_columns
from prodkit.drift.counts import column_profile

REFERENCE, SIZES = 10_000, (200, 1000)
Scores = dict[str, dict[str, list[float]]]  # by tool and cell
_NULLS = 3  # windows without drift for each with: a limit is a quantile, and less sure than a share
_AGAIN = 200  # draws that tell a standard error
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


def windows(draw: Draw, change: Change | None, *, n: int, count: int) -> np.ndarray:
    """References and windows, one after the other: (count, REFERENCE + n)."""
    found = []
    for seed in range(count):
        rng = np.random.default_rng([seed, n, change is not None])
        values = draw(rng, REFERENCE + n)
        now = values[REFERENCE:] if change is None else change(rng, values[REFERENCE:])
        found.append(np.concatenate([values[:REFERENCE], now]))
    return np.stack(found)


def prodkit_score(values: np.ndarray) -> float:
    """The least of its three p-values, of values, missing ones and unseen levels, as evidence."""
    kind = "categorical" if values.dtype == object else "numeric"
    before, now = values[:REFERENCE], values[REFERENCE:]
    reference = column_profile(before, blocks=blocks(REFERENCE, by_day=False), kind=kind)
    current = column_profile(now, blocks=blocks(len(now), by_day=False), like=reference)
    row = compare_columns(reference, current)
    found = [p for p in (row["p_value"], row["missing_p"], row["unseen_p"]) if not math.isnan(p)]
    return -math.log(max(min(found), 1e-300))


def rival_scores(pythons: list[str], folder: str) -> Scores:
    """Scores of all windows by each rival, from its own environment."""
    path = str(Path(__file__).with_name("rival_power.py"))
    running = [
        subprocess.Popen([python, path, folder, str(REFERENCE)], stderr=subprocess.PIPE, text=True)
        for python in pythons
    ]
    for process in running:
        _, said = process.communicate()
        if process.returncode:
            raise SystemExit(said[-2000:])
    return {path.stem: json.loads(path.read_text()) for path in sorted(Path(folder).glob("*.json"))}


def power(null: np.ndarray, found: np.ndarray) -> float:
    """Share in percent of the scores beyond the 95% quantile of those without drift; ties count by half."""
    limit = np.quantile(null, 0.95)
    return 100 * float((found > limit).mean() + 0.5 * (found == limit).mean() * (limit > null.min()))


def powers(scores: Scores, name: str, *, null: str) -> np.ndarray:
    """Of each tool, as found and in windows drawn again and again: (1 + _AGAIN, tools)."""
    rng = np.random.default_rng(0)
    nulls, found = (np.array([each[key] for each in scores.values()]) for key in (null, name))
    rows = [[power(*pair) for pair in zip(nulls, found, strict=True)]]
    for _ in range(_AGAIN):
        drawn = [side[:, rng.integers(side.shape[1], size=side.shape[1])] for side in (nulls, found)]
        rows.append([power(*pair) for pair in zip(*drawn, strict=True)])
    return np.array(rows)


def main() -> None:
    """Print the table."""
    asked = argparse.ArgumentParser()
    asked.add_argument("windows", nargs="?", type=int, default=200)
    asked.add_argument("--rival-python", action="append", default=[])
    given = asked.parse_args()
    nulls = [("numbers", normal), ("levels", levels(20))]
    cells: list[tuple[str, Draw, Change | None]] = [*((name, draw, None) for name, draw in nulls), *CASES]
    ours: dict[str, list[float]] = {}
    with tempfile.TemporaryDirectory() as folder:
        for n in SIZES:
            for name, draw, change in cells:
                count = given.windows if change else _NULLS * given.windows
                values = windows(draw, change, n=n, count=count)
                ours[f"{name} {n}"] = [prodkit_score(each) for each in values]
                if given.rival_python:
                    kept = values.astype(str) if values.dtype == object else values
                    np.save(Path(folder, f"{name} {n}.npy"), kept)
        tools = {"prodkit": ours} | rival_scores(given.rival_python, folder)
    print(f"alarms in percent of {given.windows} windows, at 5% false alarms")
    print(f"{'':44}" + "".join(f"{tool:>16}" for tool in [*tools, "ahead of best"]))
    for n in SIZES:
        for name, draw, _ in CASES:
            null = f"{'numbers' if draw is normal else 'levels'} {n}"
            found = powers(tools, f"{name} {n}", null=null)
            if len(tools) > 1:
                best = 1 + int(found[0, 1:].argmax())
                found = np.column_stack([found, found[:, 0] - found[:, best]])
            cells_of = zip(found[0].tolist(), found[1:].std(axis=0).tolist(), strict=True)
            row = "".join(f"{f'{share:.1f} ± {error:.1f}':>16}" for share, error in cells_of)
            print(f"{f'{name}, {n:,} rows':44}{row}", flush=True)


if __name__ == "__main__":
    main()
