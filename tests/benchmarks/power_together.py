"""Is it found as often as by others that columns go together otherwise, while each of them stays as it was?

``python tests/benchmarks/power_together.py [WINDOWS] [--rival-python PYTHON]...``: three normal columns; 3,000 rows of
sixty days are the reference and 500 of ten days the window, in which two columns correlate. Each tool scores windows
with and without that, and its limit is the 95% quantile of its own scores without. NannyML (reconstruction by principal
components) and alibi-detect (a classifier, by a forest of scikit-learn, and MMD, by PyTorch) run where a PYTHON has
them; no method of Evidently looks at columns together.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import warnings
from collections.abc import Callable
from pathlib import Path

import numpy as np

DAYS, LATER, A_DAY, COLUMNS = 60, 10, 50, 3
CORRELATIONS = (0.0, 0.2, 0.3, 0.5)
Score = Callable[[np.ndarray, np.ndarray], float]


def pair(correlation: float, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Reference (3,000, 3) and window (500, 3)."""
    random = np.random.default_rng([seed, int(100 * correlation)])
    before, now = (random.normal(size=(days * A_DAY, COLUMNS)) for days in (DAYS, LATER))
    now[:, 1] = correlation * now[:, 0] + np.sqrt(1 - correlation**2) * now[:, 1]
    return before, now


def prodkit_score() -> Score:
    """The AUC of rows of either side."""
    from prodkit.models.estimate import domain

    days = np.repeat(np.arange(DAYS), A_DAY), DAYS + np.repeat(np.arange(LATER), A_DAY)
    return lambda before, now: domain(before, now, days=days, most_rows=4000).auc.value


def nannyml_score() -> Score:
    """How far the reconstruction error of a window lies from that of the reference."""
    import nannyml
    import pandas as pd

    names = list("abc")

    def score(before: np.ndarray, now: np.ndarray) -> float:
        frames = [pd.DataFrame(side, columns=names) for side in (before, now)]
        asked = nannyml.DataReconstructionDriftCalculator(column_names=names, chunk_size=len(now))
        found = asked.fit(frames[0]).calculate(frames[1]).to_df()["reconstruction_error"]
        usual = asked.calculate(frames[0]).to_df()["reconstruction_error"]["value"].mean()
        return float(abs(found["value"].iloc[0] - usual))

    return score


def classifier_score() -> Score:
    """What the classifier of alibi-detect could tell, as a distance."""
    from alibi_detect.cd import ClassifierDrift
    from sklearn.ensemble import RandomForestClassifier

    def score(before: np.ndarray, now: np.ndarray) -> float:
        forest = RandomForestClassifier(100, min_samples_leaf=10, random_state=0, n_jobs=1)
        asked = ClassifierDrift(before, forest, backend="sklearn", preds_type="probs", n_folds=3, seed=0)
        return float(asked.predict(now)["data"]["distance"])

    return score


def mmd_score() -> Score:
    """The maximum mean discrepancy by alibi-detect; its permutations would only make a p-value of it."""
    import torch
    from alibi_detect.cd import MMDDrift

    torch.set_num_threads(1)

    def score(before: np.ndarray, now: np.ndarray) -> float:
        asked = MMDDrift(before.astype("float32"), backend="pytorch", n_permutations=1)
        return float(asked.predict(now.astype("float32"))["data"]["distance"])

    return score


# By name: the module that a Python must have, and what makes the score.
TOOLS = {
    "prodkit": ("prodkit", prodkit_score),
    "NannyML": ("nannyml", nannyml_score),
    "classifier": ("alibi_detect", classifier_score),
    "MMD": ("torch, alibi_detect", mmd_score),
}


def scores(tool: str, windows: int) -> dict[str, list[float]]:
    """By correlation."""
    warnings.simplefilter("ignore")
    score = TOOLS[tool][1]()
    return {str(each): [score(*pair(each, seed)) for seed in range(windows)] for each in CORRELATIONS}


def main() -> None:
    """Print the table, or write the scores of one tool."""
    asked = argparse.ArgumentParser()
    asked.add_argument("windows", nargs="?", type=int, default=100)
    asked.add_argument("--rival-python", action="append", default=[])
    asked.add_argument("--tool", help="write the scores of this one")
    asked.add_argument("--to")
    given = asked.parse_args()
    if given.tool:
        Path(given.to).write_text(json.dumps(scores(given.tool, given.windows)))
        return
    print(f"alarms in percent of {given.windows} windows, at 5% false alarms, if two columns correlate by")
    print(f"{'':14}" + "".join(f"{each:8}" for each in CORRELATIONS[1:]))
    for tool, (modules, _) in TOOLS.items():
        pythons = [sys.executable] if tool == "prodkit" else given.rival_python
        with tempfile.TemporaryDirectory() as folder:
            for python in pythons:
                if subprocess.run([python, "-c", f"import {modules}"], capture_output=True).returncode:
                    continue
                call = [python, __file__, str(given.windows), "--tool", tool, "--to", f"{folder}/scores.json"]
                subprocess.run(call, check=True, capture_output=True)
                found = json.loads(Path(folder, "scores.json").read_text())
                limit = np.quantile(found["0.0"], 0.95)
                cells = [100 * np.mean(np.array(found[str(each)]) > limit) for each in CORRELATIONS[1:]]
                print(f"{tool:14}" + "".join(f"{each:8.0f}" for each in cells), flush=True)


if __name__ == "__main__":
    main()
