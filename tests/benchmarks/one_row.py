"""What does one prediction cost? ``python tests/benchmarks/one_row.py`` (20 seconds).

The bare pipeline, the guard with the compiled path and the guard without it are asked for the same rows in turn, so
that whatever else the machine does falls on all of them. The bare pipeline is handed a table of one row that is
there already; the guard is handed a mapping, as a service reads it from JSON, and reads, checks and answers it. Then
tables of many rows, each on one thread.
"""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Callable
from typing import Any

import numpy as np
from served import flights_version, new_flights
from threadpoolctl import threadpool_limits

from prodkit.models.bundle import unpack
from prodkit.scoring.guard import Guard, LoadedModel, Route
from prodkit.scoring.mutations import records

ROWS, MANY = 600, 50_000


def main() -> None:
    """Print medians, 99th percentiles and ratios."""
    bundle = unpack(flights_version()[0])
    schema, model = bundle.schema, bundle.model
    frame = new_flights(MANY)[schema.names]
    quick, slow = (Guard(Route(LoadedModel(1, bundle, quick=q))) for q in (True, False))
    rows = records(frame.head(ROWS), schema=schema)
    tables = [frame.iloc[[place]] for place in range(ROWS)]
    took: dict[str, list[float]] = defaultdict(list)
    gap = 0.0
    with threadpool_limits(1):
        for row, table in zip(rows, tables, strict=True):
            expected = timed(took["bare pipeline"], lambda table=table: model.predict_proba(table)[0, 1])
            answer = timed(took["guard, compiled path"], lambda row=row: quick.answer_row(row))
            timed(took["guard, pipeline"], lambda row=row: slow.answer_row(row))
            gap = max(gap, abs(answer.predicted - expected))
        print(f"one row, {ROWS} of them, microseconds (largest difference of the answers {gap:.1g})")
        print_table(took)
        many: dict[str, list[float]] = defaultdict(list)
        for _ in range(3):
            timed(many["bare pipeline"], lambda: model.predict_proba(frame))
            timed(many["guard, compiled path"], lambda: quick.answer(frame))
            timed(many["guard, pipeline"], lambda: slow.answer(frame))
        print(f"\n{MANY} rows at once, one thread, microseconds a row")
        print_table({name: [seconds / MANY for seconds in each] for name, each in many.items()})


def timed(into: list[float], call: Callable[[], Any]) -> Any:
    """The result of a call; its seconds are noted."""
    began = time.perf_counter()
    result = call()
    into.append(time.perf_counter() - began)
    return result


def print_table(took: dict[str, list[float]]) -> None:
    """One line a way, with its ratio to the bare pipeline."""
    bare = np.median(took["bare pipeline"])
    for name, seconds in took.items():
        p50, p99 = np.percentile(seconds, [50, 99])
        print(f"{name:24} p50 {p50 * 1e6:9.1f}  p99 {p99 * 1e6:9.1f}  ratio of medians {p50 / bare:.4f}")


if __name__ == "__main__":
    main()
