"""What the service counts, in the words of Prometheus."""

from __future__ import annotations

from bisect import bisect_left
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from typing import Any

from prometheus_client import CollectorRegistry, Histogram, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.registry import Collector

from prodkit.data.schema import Schema

__all__ = ["Telemetry"]

_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
_SHARES = tuple(step / 10 for step in range(1, 11))


class Telemetry(Collector):
    """Counts of requests and rows, kept as plain numbers by the event loop and told when they are asked for.

    Args:
        gauges: gives what is so now, by name: a number, or numbers by label.
    """

    def __init__(self, gauges: Callable[[], dict[str, float]]) -> None:
        self._gauges = gauges
        self._registry = CollectorRegistry()
        self._latency = Histogram(
            "prodkit_request_seconds",
            "Time to answer a request, seconds.",
            ["path"],
            buckets=_SECONDS,
            registry=self._registry,
        )
        self._quick, self._batched = (self._latency.labels(path) for path in ("compiled", "batched"))
        self.requests: Counter[str] = Counter()  # by status
        self.rows: Counter[tuple[str, str]] = Counter()  # by version and source
        self.missing: Counter[str] = Counter()  # by feature
        self.unseen: Counter[str] = Counter()  # by feature
        self._predicted: Counter[int] = Counter()
        self._predicted_sum = 0.0
        self._known: tuple[Schema | None, list[tuple[str, frozenset[str]] | tuple[str, None]]] = (None, [])
        self._registry.register(self)

    def took(self, seconds: float, *, batched: bool) -> None:
        """Note how long a request took."""
        (self._batched if batched else self._quick).observe(seconds)

    def row(self, version: int, source: str, predicted: Any, schema: Schema, cells: list[Any]) -> None:
        """Count one answered row, and what drift is made of: missing values, unknown levels, the prediction."""
        self.rows[str(version), source] += 1
        if schema.task != "regression":
            share = predicted if isinstance(predicted, float) else float(max(predicted))
            self._predicted[bisect_left(_SHARES, share)] += 1
            self._predicted_sum += share
        for (name, levels), cell in zip(self._levels(schema), cells, strict=False):
            if cell is None or cell != cell:
                self.missing[name] += 1
            elif levels is not None and cell not in levels:
                self.unseen[name] += 1

    def _levels(self, schema: Schema) -> list[tuple[str, frozenset[str]] | tuple[str, None]]:
        if self._known[0] is not schema:
            named: list[Any] = [
                (c.name, None if c.levels is None else frozenset(c.levels)) for c in schema.features
            ]
            self._known = (schema, named)
        return self._known[1]

    def page(self) -> bytes:
        """All of it in the text format."""
        return generate_latest(self._registry)

    def collect(self) -> Iterator[Metric]:
        """What Prometheus asks for."""
        for name, help_text, labels, counts in (
            (
                "prodkit_requests",
                "Requests by HTTP status.",
                ["status"],
                {(k,): v for k, v in self.requests.items()},
            ),
            ("prodkit_rows", "Rows by version and by who answered.", ["model_version", "source"], self.rows),
            (
                "prodkit_missing",
                "Missing values by feature.",
                ["feature"],
                {(k,): v for k, v in self.missing.items()},
            ),
            (
                "prodkit_unseen",
                "Unknown levels by feature.",
                ["feature"],
                {(k,): v for k, v in self.unseen.items()},
            ),
        ):
            family = CounterMetricFamily(name, help_text, labels=labels)
            for key, count in counts.items():
                family.add_metric(key, count)
            yield family
        yield self._predictions()
        for name, value in self._gauges().items():
            yield GaugeMetricFamily(f"prodkit_{name}", name.replace("_", " ").capitalize() + ".", value=value)

    def _predictions(self) -> HistogramMetricFamily:
        total, buckets = 0, []
        for place, bound in enumerate(_SHARES):
            total += self._predicted[place]
            buckets.append((str(bound), total))
        buckets.append(("+Inf", total + self._predicted[len(_SHARES)]))
        return HistogramMetricFamily(
            "prodkit_prediction",
            "Predicted probability, or the largest share.",
            buckets=buckets,
            sum_value=self._predicted_sum,
        )

    def describe(self) -> Iterable[Metric]:
        """Nothing: what there is depends on the model."""
        return []
