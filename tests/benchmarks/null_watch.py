"""How often does a window without any change ask to watch? At most one in twenty shall.

``python tests/benchmarks/null_watch.py [SEEDS]``: tables of independent rows, of 2 to 60 columns. The label depends on
three columns (``signals``), or on levels that come once a day each (``levels``: births by state and weekday are such).
A version learns from the first days; then four windows follow. Each line of rungs 4 and 5 may alarm.
"""

from __future__ import annotations

import sys
import warnings
from collections import Counter
from collections.abc import Iterator
from itertools import pairwise, product

import numpy as np
import pandas as pd

from prodkit.data.schema import Schema
from prodkit.decisions.concept import wider_drift
from prodkit.decisions.survey import drift_evidence, drift_report
from prodkit.evidence import Evidence, Window
from prodkit.models.bundle import Bundle, assemble, manifest, measured, window_estimate
from prodkit.models.estimate import estimate_evidence
from prodkit.models.estimators import fit_model
from prodkit.models.training import Split, importance, model_for, out_of_time
from prodkit.params import DriftParams, TrainParams

START, WINDOWS = pd.Timestamp("2020-01-01"), 4
FACTS = {"data": "-", "time_column": "t", "target": "y", "features": [], "id_column": []}
TABLES = ("signals", "levels")
SIZES = ((10, 90, 30), (60, 60, 7), (60, 60, 30), (300, 60, 7))  # rows a day, days of training, of a window


def table(kind: str, columns: int, *, days: int, a_day: int, task: str, seed: int) -> pd.DataFrame:
    """Rows of so many days, in which nothing changes."""
    random, n = np.random.default_rng(seed), days * a_day
    x, day = random.normal(size=(n, columns)), np.repeat(np.arange(days), a_day)
    drive = x[:, :3].sum(axis=1)
    cells = {f"c{at}": x[:, at] if at % 2 else np.exp(x[:, at]) for at in range(columns)}
    if kind == "levels":
        level = np.tile(np.arange(a_day), days)
        drive = random.normal(size=a_day)[level]
        cells |= {"c0": np.array([f"s{each}" for each in range(a_day)])[level], "c1": (day % 7).astype(str)}
    y = drive + random.normal(size=n)
    if task == "binary":
        y = (random.random(n) < 1 / (1 + np.exp(-drive))).astype(float)
    times = (START + pd.to_timedelta(day, unit="D")).astype("datetime64[us]")
    return pd.DataFrame({"t": times, **cells, "y": y})


def version(rows: pd.DataFrame, days: int, task: str) -> tuple[Bundle, dict]:
    """What the train notebook would make of these rows, and what was measured of it."""
    window = f"2020-01-01/{START + pd.Timedelta(days=days):%Y-%m-%d}"
    simple = {"model_args": {"max_iter": 50, "max_leaf_nodes": 8}, "task": task, "window": window}
    params = TrainParams.check({**FACTS, **simple})
    schema = Schema.infer(rows, features=[each for each in rows if each not in "ty"], target="y", task=task)
    model = model_for(params, params.model_args, schema=schema)
    tested = out_of_time(model, rows, schema=schema, params=params)
    weights = importance(tested, params=params, repeats=1)["mean"].to_dict()
    split = Split(
        rows, rows, params.window, Window(params.window.end, params.window.end + pd.Timedelta(days=1))
    )
    fitted = fit_model(model, rows, schema=schema)
    bundle = assemble(fitted, split, tested, schema=schema, params=params, importance=weights)
    return bundle, measured(manifest(bundle, rows, params=params, metrics=tested.intervals()))


def alarms(
    kind: str, columns: int, size: tuple[int, int, int], *, task: str = "binary", seed: int = 0
) -> Iterator[list[Evidence]]:
    """What fails in each window of a life in which nothing changes."""
    a_day, days, length = size
    rows = table(kind, columns, days=days + WINDOWS * length, a_day=a_day, task=task, seed=seed)
    cuts = [START + pd.Timedelta(days=days + length * each) for each in range(WINDOWS + 1)]
    bundle, reference = version(rows[rows["t"] < cuts[0]].reset_index(drop=True), days, task)
    for start, end in pairwise(cuts):
        params = DriftParams.check({**FACTS, "task": task, "window": f"{start:%Y-%m-%d}/{end:%Y-%m-%d}"})
        part = rows[rows["t"].between(start, end, "left")].reset_index(drop=True)
        outlook = window_estimate(part, params, bundle=bundle)
        settings = {"task": bundle.schema.task, "reference": reference, "margin": 0.02, "window": "it"}
        lines = [
            *drift_evidence(drift_report(params, part, bundle=bundle)),
            estimate_evidence(outlook, **settings),
        ]
        lines += wider_drift(params, part, bundle=bundle)
        yield [item for item in lines if item.outcome == "fail"]


def main(seeds: int) -> None:
    """Print the share of windows with an alarm, by table and by what alarms."""
    warnings.simplefilter("ignore")
    for kind, task in product(TABLES, ("binary", "regression")):
        windows, names = [], Counter[str]()
        for columns, size, seed in product((2, 8, 20, 60), SIZES, range(seeds)):
            for fails in alarms(kind, columns, size, task=task, seed=seed):
                windows.append(bool(fails))
                names.update({item.name for item in fails})
        print(
            f"{kind:8} {task:10} {np.mean(windows):6.1%} of {len(windows)} windows, {dict(names)}", flush=True
        )


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 1)
