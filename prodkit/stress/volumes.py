"""Requests that are many at once, or not what they usually are: what they cost, and who answers them."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd

from prodkit.params import StressParams
from prodkit.scoring.guard import Guard, LoadedModel, Route
from prodkit.scoring.mutations import mutated, records
from prodkit.stress.stage import peak_mb

__all__ = ["cost_curve", "foreseen", "mix_table", "volume_table"]

_REPEATS, _ENOUGH_SECONDS = 5, 0.5  # of a volume, until it has taken so long
_REAL_ROWS = 1000  # that the unusual ones are made of


def volume_table(params: StressParams, loaded: LoadedModel, rows: pd.DataFrame) -> pd.DataFrame:
    """Time and memory of answering n rows at once: columns seconds, thousand_rows_ms, peak_mb, answered.

    The time is the shortest of some: what else a machine does can only add to it.
    """
    guard, found = Guard(Route(loaded)), {}
    for multiple in params.multiples:
        n, took = multiple * params.volume_rows, list[float]()
        frame = rows.sample(n, replace=True, random_state=params.seed, ignore_index=True)
        while len(took) < _REPEATS and sum(took) < _ENOUGH_SECONDS:
            began = time.perf_counter()
            answers = guard.answer(frame)
            took.append(time.perf_counter() - began)
        finite = np.isfinite(answers.predicted.reshape(n, -1)).all(axis=1)
        found[n] = (min(took), 1e6 * min(took) / n, peak_mb(), int((finite & ~answers.degraded).sum()))
    return pd.DataFrame.from_dict(
        found, orient="index", columns=["seconds", "thousand_rows_ms", "peak_mb", "answered"]
    ).rename_axis("rows")


def foreseen(volumes: pd.DataFrame) -> pd.Series[float]:
    """What the cost curve that is fitted to all but the largest volume says of each: seconds; NaN without two others.

    >>> table = pd.DataFrame({"seconds": [0.011, 0.02, 0.11]}, index=[1000, 10_000, 100_000])
    >>> foreseen(table).round(3).tolist()
    [0.011, 0.02, 0.11]
    """
    curve = cost_curve(volumes.iloc[:-1])
    n = volumes.index.to_numpy(dtype=float)
    return pd.Series(
        (curve["fixed_ms"] + curve["ms_per_thousand_rows"] * n / 1000) / 1000, index=volumes.index
    )


def cost_curve(volumes: pd.DataFrame) -> dict[str, float]:
    """What volumes cost: fixed milliseconds, milliseconds for a thousand rows more, and the exponent of growth.

    The line is fitted by least squares of the relative error, since times span decades and their noise grows with
    them; the exponent is the slope of log time on log rows: 1 is linear.

    >>> table = pd.DataFrame({"seconds": [0.011, 0.02, 0.11]}, index=[1000, 10_000, 100_000])
    >>> {name: round(value, 2) for name, value in cost_curve(table).items()}
    {'fixed_ms': 10.0, 'ms_per_thousand_rows': 1.0, 'exponent': 0.5}
    """
    n, seconds = volumes.index.to_numpy(dtype=float), volumes["seconds"].to_numpy(dtype=float)
    if len(n) < 2:
        return {"fixed_ms": float("nan"), "ms_per_thousand_rows": float("nan"), "exponent": float("nan")}
    slope, fixed = np.polyfit(n, seconds, 1, w=1 / seconds)
    exponent = np.polyfit(np.log(n), np.log(seconds), 1)[0]
    return {
        "fixed_ms": float(1000 * fixed),
        "ms_per_thousand_rows": float(1e6 * slope),
        "exponent": float(exponent),
    }


def mix_table(params: StressParams, models: Mapping[str, LoadedModel], rows: pd.DataFrame) -> pd.DataFrame:
    """Who answers when requests are not what they usually are: columns rows, answered, by_champion."""
    champion = models["champion"]
    guard = Guard(Route(champion, models.get("predecessor")))
    found = {}
    for name, asked in _mixes(params, champion, rows).items():
        answers = guard.answer(asked)
        finite = np.isfinite(answers.predicted.reshape(len(asked), -1)).all(axis=1)
        found[name] = (len(asked), int(finite.sum()), int((~answers.degraded).sum()))
    columns = ["rows", "answered", "by_champion"]
    return pd.DataFrame.from_dict(found, orient="index", columns=columns).rename_axis("mix")


def _mixes(
    params: StressParams, champion: LoadedModel, rows: pd.DataFrame
) -> dict[str, list[dict[str, Any]]]:
    """Usual requests, those of the busiest hour, of the commonest segment alone, and ones that never were."""
    schema, segment = champion.bundle.schema, champion.bundle.fallback.column
    hours = rows[params.time_column].dt.floor("h")
    parts = {"usual": rows, "busiest hour": rows[hours == hours.mode().iloc[0]]}
    if segment in rows and rows[segment].notna().any():
        level = rows[segment].mode().iloc[0]
        parts[f"only {segment} {level}"] = rows[rows[segment] == level]
    mixes = {
        name: records(part.sample(params.mix_rows, replace=True, random_state=params.seed), schema=schema)
        for name, part in parts.items()
    }
    real = rows.sample(min(len(rows), _REAL_ROWS), random_state=params.seed)
    unusual = mutated(real, schema=schema, rows=params.mix_rows, seed=params.seed)
    return mixes | {"unusual in half of its cells": unusual}
