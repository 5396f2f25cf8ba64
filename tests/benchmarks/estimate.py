"""Performance without labels beside NannyML, on the tables that come with it, and CBPE on a million rows.

``python tests/benchmarks/estimate.py --rival-python PYTHON``: PYTHON is that of an environment with nannyml (0.13 needs
``pandas<3``). Its CBPE estimates the AUC of each chunk (5,000 rows; for California housing, months, as its own pages
do), and prodkit that of the same rows; truth is the AUC once the labels are there. Errors are mean absolute ones, of
prodkit where it gives a number, of NannyML on the same chunks and on all. Then both estimate the AUC of a million
simulated rows from a calibration on as many, each timed in its own process without imports.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import pandas as pd

TABLES = {
    "car_loan": ("load_synthetic_car_loan_dataset", "repaid", "y_pred_proba", "y_pred", "timestamp"),
    "acs_employment": (
        *("load_us_census_ma_employment_data", "employed", "predicted_probability", "prediction", None),
    ),
    "california": (
        *("load_modified_california_housing_dataset", "clf_target", "y_pred_proba", "y_pred", "timestamp"),
    ),
}
CHUNKS = {
    "car_loan": {"chunk_size": 5000},
    "acs_employment": {"chunk_size": 5000},
    "california": {"chunk_period": "M"},
}
BLOCK = {"acs_employment": 500, "california": 24}  # rows that count as a day; the car loans have dates
ROWS = 1_000_000


def rival(folder: Path) -> None:
    """What NannyML makes of its tables and of the simulated rows; run by its own Python."""
    os.environ["NML_DISABLE_USAGE_LOGGING"] = "1"
    import nannyml

    for name, (load, label, score, said, moment) in TABLES.items():
        reference, analysis, truth = getattr(nannyml, load)()
        if label not in analysis:
            analysis = analysis.merge(truth[["id", label]], on="id")
        given = {
            **{"y_pred_proba": score, "y_pred": said, "y_true": label, "metrics": ["roc_auc"]},
            **{"problem_type": "classification_binary", **CHUNKS[name]},
            **({"timestamp_column_name": moment} if moment else {}),
        }
        found = nannyml.CBPE(**given).fit(reference).estimate(analysis.drop(columns=[label]))
        real = nannyml.PerformanceCalculator(**given).fit(reference).calculate(analysis)
        one, other = (each.filter(period="analysis").to_df() for each in (found, real))
        table = pd.DataFrame(
            {
                "start": one[("chunk", "start_index")],
                "end": one[("chunk", "end_index")],
                "estimated": one[("roc_auc", "value")],
                "realised": other[("roc_auc", "value")],
            }
        )
        table.to_parquet(folder / f"{name}_chunks.parquet")
        for part, rows in (("reference", reference), ("analysis", analysis)):
            texts = rows.select_dtypes(["category", "object"]).columns
            rows.astype(dict.fromkeys(texts, "str")).to_parquet(folder / f"{name}_{part}.parquet")
    reference, analysis = (pd.read_parquet(folder / f"{part}.parquet") for part in ("before", "after"))
    began = time.perf_counter()
    settings = {"y_pred_proba": "score", "y_pred": "said", "y_true": "label", "metrics": ["roc_auc"]}
    cbpe = nannyml.CBPE(**settings, problem_type="classification_binary", chunk_size=len(analysis)).fit(
        reference
    )
    found = cbpe.estimate(analysis).filter(period="analysis").to_df()
    np.savetxt(folder / "million.txt", [time.perf_counter() - began, found[("roc_auc", "value")].iloc[0]])


def simulated(rows: int, seed: int) -> pd.DataFrame:
    """Scores of a model that is too sure of itself, and what comes true."""
    random = np.random.default_rng(seed)
    logit = random.normal(-1.0, 1.2, rows)
    score = 1 / (1 + np.exp(-1.6 * logit))
    label = (random.random(rows) < 1 / (1 + np.exp(-logit))).astype(int)
    return pd.DataFrame({"score": score, "said": (score > 0.5).astype(int), "label": label})


def ours(folder: Path, name: str) -> None:
    """One line a table."""
    from prodkit.data.schema import Schema
    from prodkit.models.calibration import CalibrationSet, encoded
    from prodkit.models.estimate import estimated

    _, label, score, said, moment = TABLES[name]
    reference, analysis = (
        pd.read_parquet(folder / f"{name}_{part}.parquet") for part in ("reference", "analysis")
    )
    chunks = pd.read_parquet(folder / f"{name}_chunks.parquet")
    known = {"id", "year", "timestamp", label, score, said}
    columns = tuple(column for column in reference if column not in known)
    schema = Schema.infer(reference, features=list(columns), target=label, task="binary")
    sides = []
    for rows in (reference, analysis):
        days = np.arange(len(rows)) // BLOCK.get(name, 1)
        if name not in BLOCK:
            days = (pd.to_datetime(rows[moment]) - pd.Timestamp(0)).dt.days.to_numpy()
        sides.append((encoded(schema.coerce(rows), schema, columns), rows[score].to_numpy(float), days))
    (x, scores, days), (new, later, new_days) = sides
    kept = CalibrationSet(schema, columns, x, schema.encode(reference[label]), scores, days)
    found, began = [], time.perf_counter()
    for start, end in zip(chunks["start"], chunks["end"], strict=True):
        part = slice(int(start), int(end) + 1)
        each = estimated(kept, new[part], later[part], days=new_days[part] + 10**6).scores.get("roc_auc")
        found.append((each.value, each.low, each.high) if each else (np.nan,) * 3)
    took = (time.perf_counter() - began) / len(chunks)
    value, low, high = np.array(found).T
    true, rivals = chunks["realised"].to_numpy(), chunks["estimated"].to_numpy()
    given = np.isfinite(value)
    told = f"{name:15s} {len(chunks):3d} chunks: NannyML error {np.abs(rivals - true).mean():.4f}"
    if not given.any():
        print(f"{told}; prodkit gives no number for any ({took:.1f} s a chunk)")
        return
    held = ((low <= true) & (true <= high))[given].mean()
    same = np.abs(rivals - true)[given].mean()
    print(
        f"{told} ({same:.5f} where prodkit gives a number); prodkit {np.abs(value - true)[given].mean():.5f} "
        f"in {given.mean():.0%} of them, interval holds the truth in {held:.0%}, mean width "
        f"{(high - low)[given].mean():.3f} ({took:.1f} s a chunk)"
    )


def million(folder: Path) -> None:
    """The same calibration and AUC, timed."""
    from prodkit.models.calibration import class_chances, class_shares, expected_worth

    reference, analysis = (pd.read_parquet(folder / f"{part}.parquet") for part in ("before", "after"))
    began = time.perf_counter()
    then, now = (class_shares(rows["score"].to_numpy()) for rows in (reference, analysis))
    (chances,) = class_chances(reference["label"].to_numpy(), then, [now])
    area = expected_worth(chances, now, task="binary")["roc_auc"][0]
    took = time.perf_counter() - began
    rivals, theirs = np.loadtxt(folder / "million.txt")
    print(
        f"{ROWS:,} rows: NannyML {rivals:.2f} s, AUC {theirs:.5f}; prodkit {took:.2f} s, AUC {area:.5f} "
        f"(with log-loss, accuracy and Brier): {rivals / took:.1f} times as fast"
    )


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rival-python", required=True)
    parser.add_argument("--folder", help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.folder:
        rival(Path(asked.folder))
        sys.exit()
    with tempfile.TemporaryDirectory() as made:
        place = Path(made)
        simulated(ROWS, 0).to_parquet(place / "before.parquet")
        simulated(ROWS, 1).drop(columns="label").to_parquet(place / "after.parquet")
        command = [asked.rival_python, __file__, "--rival-python", "-", "--folder", made]
        subprocess.run(command, check=True, stderr=subprocess.DEVNULL)
        million(place)
        for name in TABLES:
            ours(place, name)
