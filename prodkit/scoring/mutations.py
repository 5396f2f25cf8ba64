"""Rows that real ones might become: cells swapped, missing, unknown or extreme."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import numpy as np
import pandas as pd

from prodkit.data.schema import Schema

__all__ = ["mutated", "records"]


def records(frame: pd.DataFrame, *, schema: Schema) -> list[dict[str, Any]]:
    """The features of n rows as plain mappings, None where missing."""
    columns = {name: frame[name].astype(object).where(frame[name].notna(), None) for name in schema.names}
    return [dict(zip(columns, cells, strict=True)) for cells in zip(*columns.values(), strict=True)]


def mutated(golden: pd.DataFrame, *, schema: Schema, rows: int, seed: int) -> list[dict[str, Any]]:
    """Rows that the golden ones might become: cells swapped, missing, unknown, extreme.

    Args:
        golden: (n, m) real rows.
        schema: what each column holds.
        rows: how many to make.
        seed: of the draws.
    """
    draw, real = np.random.default_rng(seed), records(golden, schema=schema)
    made = []
    for _ in range(rows):
        row = dict(real[draw.integers(len(real))])
        for column in schema.features:
            if draw.random() < 0.5:
                row[column.name] = _mutation(column.kind, column.levels, real, column.name, draw)
        made.append(row)
    return made


def _mutation(
    kind: str, levels: Any, real: list[dict[str, Any]], name: str, draw: np.random.Generator
) -> Any:
    other = real[draw.integers(len(real))][name]
    choice = draw.integers(4)
    if choice == 0:
        return None
    if choice == 1 or other is None:
        return other
    match kind:
        case "categorical":
            return str(levels[draw.integers(len(levels))]) if choice == 2 and levels else "no such level"
        case "numeric":
            extreme = (0.0, -1.0, 1e-300, -1e15, 1e15)[draw.integers(5)]
            return extreme if choice == 2 else float(other) * float(draw.normal(1.0, 0.5))
        case "boolean":
            return bool(draw.integers(2))
        case _:
            return other + timedelta(days=float(draw.normal(0.0, 100.0)))
