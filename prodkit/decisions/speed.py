"""How long champion and predecessor take to answer the same requests, one row at a time."""

from __future__ import annotations

import time
from collections.abc import Mapping

import numpy as np
import pandas as pd

from prodkit.decisions.gates import at_most
from prodkit.evidence import Evidence
from prodkit.models.bundle import Bundle

__all__ = ["latency_evidence"]

_REQUESTS = 11  # a median of so many is not moved by a hiccup of the machine
_WARMING = 1


def latency_evidence(
    candidates: Mapping[str, Bundle], rows: pd.DataFrame, *, limit_ms: float
) -> list[Evidence]:
    """The median time of each candidate over the same single rows, asked in turn, so that both see the same machine.

    Named ``health.<candidate>_latency``; ``inconclusive`` for one that does not answer.

    Args:
        candidates: by name.
        rows: requests to choose from; those that are asked are spread over them.
        limit_ms: milliseconds.
    """
    asked = rows.iloc[np.linspace(0, len(rows) - 1, min(len(rows), _REQUESTS + _WARMING)).astype(int)]
    took: dict[str, list[float]] = {name: [] for name in candidates}
    for place in range(len(asked)):
        for name, bundle in candidates.items():
            took[name].append(_milliseconds(bundle, asked.iloc[[place]]))
    found = []
    for name, each in took.items():
        median = float(np.median(each[_WARMING:] or each))
        note = f"median milliseconds of the {name} for single rows, each put to all in turn"
        value = median if np.isfinite(median) else None
        found.append(
            at_most(f"health.{name}_latency", value, limit=limit_ms, n=len(asked), rung=2, note=note)
        )
    return found


def _milliseconds(bundle: Bundle, row: pd.DataFrame) -> float:
    """Time to answer; infinite if it does not."""
    began = time.perf_counter()
    try:
        bundle.predict(row)
    except Exception:  # no answer is not a quick one
        return float("inf")
    return (time.perf_counter() - began) * 1000
