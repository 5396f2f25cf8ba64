"""What the service counts, in the words of Prometheus."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

from prodkit.data.schema import Schema
from prodkit.scoring.guard import Answers

__all__ = ["Counts"]

_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
_SHARES = tuple(step / 10 for step in range(1, 11))


class Counts:
    """Requests by status; rows by who answered, missing values, unknown levels, predictions; and what is so now.

    Args:
        gauges: give what is so now, by name.
    """

    def __init__(self, gauges: Mapping[str, Callable[[], float]]) -> None:
        self._registry = CollectorRegistry()
        self.requests = self._counter("requests", "Requests by HTTP status.", "status")
        self._rows = self._counter("rows", "Rows by version and by who answered.", "model_version", "source")
        self._missing = self._counter("missing", "Missing values by feature.", "feature")
        self._unseen = self._counter("unseen", "Unknown levels by feature.", "feature")
        self._seconds = Histogram(
            "prodkit_request_seconds",
            "Time to answer a request, seconds.",
            ["path"],
            buckets=_SECONDS,
            registry=self._registry,
        )
        self._predicted = Histogram(
            "prodkit_prediction",
            "Predicted probability, or the largest share.",
            buckets=_SHARES,
            registry=self._registry,
        )
        for name, function in gauges.items():
            text = name.replace("_", " ").capitalize() + "."
            Gauge(f"prodkit_{name}", text, registry=self._registry).set_function(function)
        self._levels: tuple[Schema | None, list[frozenset[str] | None]] = (None, [])

    def _counter(self, name: str, text: str, *labels: str) -> Counter:
        return Counter(f"prodkit_{name}", text, labels, registry=self._registry)

    def answered(self, answers: Answers, schema: Schema, *, seconds: float, path: str) -> None:
        """Count the answers to one request, and what drift is made of in their rows."""
        self._seconds.labels(path).observe(seconds)
        who: dict[tuple[int, str], int] = {}
        for version, source in zip(answers.version.tolist(), answers.source.tolist(), strict=True):
            who[version, source] = who.get((version, source), 0) + 1
        for (version, source), rows in who.items():
            self._rows.labels(str(version), source).inc(rows)
        if schema.task != "regression":
            shares = answers.predicted if answers.predicted.ndim == 1 else np.max(answers.predicted, axis=1)
            for share in shares.tolist():
                self._predicted.observe(share)
        known, levels = self._levels
        if known is not schema:
            levels = [None if c.levels is None else frozenset(c.levels) for c in schema.features]
            self._levels = (schema, levels)
        for name, seen, cells in zip(schema.names, levels, zip(*answers.cells, strict=True), strict=True):
            missing = sum(cell is None or cell != cell for cell in cells)
            if missing:
                self._missing.labels(name).inc(missing)
            if seen is not None and (
                unseen := sum(cell is not None and cell == cell and cell not in seen for cell in cells)
            ):
                self._unseen.labels(name).inc(unseen)

    def page(self) -> bytes:
        """All of it in the text format."""
        return generate_latest(self._registry)
