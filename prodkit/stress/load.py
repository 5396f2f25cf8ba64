"""Load in an open loop: requests go out when they are due, whatever became of those before, and are timed from then."""

from __future__ import annotations

import itertools
import math
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from scipy.stats import binom

from prodkit.errors import ParameterError
from prodkit.evidence import Estimate

__all__ = ["Arrivals", "Said", "Step", "apply_load", "arrivals", "knee", "quantile"]

Arrivals = Literal["poisson", "even"]
Said = Literal["answered", "degraded", "failed"]
Floats = NDArray[np.float64]

MOST_REQUESTS = 1_000_000
_REACHED = 0.95  # of the rate, below which a step has measured something else
_LEAD_SECONDS = 0.05  # for the threads to start


@dataclass(frozen=True)
class Step:
    """What became of n requests that were due at one rate.

    Attributes:
        rate: requests a second that were asked for.
        due: (n,) seconds from the start of the step.
        sent: (n,) when each went out; NaN if it did not.
        ended: (n,) when its answer was there, or its failure; NaN if neither came.
        said: (n,) ``answered``, ``degraded``, ``failed``; empty if it was not sent.
    """

    rate: float
    due: Floats
    sent: Floats
    ended: Floats
    said: NDArray[np.str_]

    @property
    def latency_ms(self) -> Floats:
        """Of each request that ended, from when it was *due*: a stall is felt by all whom it made wait."""
        return 1000 * (self.ended - self.due)[np.isfinite(self.ended)]

    @property
    def lag_ms(self) -> Floats:
        """How late each request went out."""
        return 1000 * (self.sent - self.due)[np.isfinite(self.sent)]

    @property
    def reached_rate(self) -> float:
        """Requests a second that were sent, on the schedule's own time."""
        if not np.isfinite(self.sent).all() or len(self.due) == 0:
            return 0.0
        gap = 1 / self.rate
        return float(self.rate * (self.due[-1] + gap) / (self.sent.max() + gap))

    @property
    def valid(self) -> bool:
        """Whether the rate was reached; what a step measured that did not reach it is about another rate."""
        return self.reached_rate >= _REACHED * self.rate

    def share(self, *said: Said) -> float:
        """Share of the requests that ended so; one that was not sent counts as failed."""
        unsent = "failed" in said and (self.said == "").sum()
        return float((np.isin(self.said, said).sum() + unsent) / max(1, len(self.said)))


def arrivals(rate: float, *, seconds: float, kind: Arrivals = "poisson", seed: int = 0) -> Floats:
    """When requests are due: (n,) seconds, rising, all below ``seconds``.

    Args:
        rate: requests a second.
        seconds: how long.
        kind: ``poisson`` has independent exponential gaps, as many strangers make them; ``even`` has equal ones.
        seed: of the draws.

    Raises:
        ParameterError: no positive rate or time, or more than a million requests.

    >>> arrivals(4, seconds=1, kind="even").tolist()
    [0.0, 0.25, 0.5, 0.75]
    """
    if not (rate > 0 and seconds > 0 and math.isfinite(rate * seconds)):
        found = f"{rate:g} a second for {seconds:g} seconds"
        raise ParameterError("rate and seconds", rule="must be finite and above 0", value=found)
    if rate * seconds > MOST_REQUESTS:
        rule, found = f"must come to at most {MOST_REQUESTS:,} requests", f"{rate * seconds:,.0f}"
        raise ParameterError(
            "rate times seconds", rule=rule, value=found, fix="Ask for less, or for less long."
        )
    if kind == "even":
        return np.arange(math.ceil(rate * seconds)) / rate
    draw = np.random.default_rng(seed)
    count = math.ceil(rate * seconds + 6 * math.sqrt(rate * seconds) + 12)
    due = np.cumsum(draw.exponential(1 / rate, size=count))
    return due[due < seconds]


def apply_load(
    ask: Callable[[int], Said],
    due: Sequence[float] | Floats,
    *,
    rate: float,
    most_waiting: int = 256,
    drain_seconds: float = 10.0,
) -> Step:
    """Send requests when they are due, each from a thread that waits for its answer, and note when it came.

    Threads, since the standard library's client for HTTP, which they call, has met every server there is; and since
    each of them sleeps until its own request is due, no loop stands between the clock and the request. They take
    turns as Python has it: were they forced to within half a millisecond, the many that wait after a stall would be so
    busy asking for their turn that only half as many requests went out, and the stall would not be made up for.

    Args:
        ask: makes the request of this number, and says what came of it; what it raises is a failure. It must
            come back by itself: nothing else ends it.
        due: (n,) seconds from now, rising.
        rate: that they come to, for the record.
        most_waiting: requests on their way; another has to wait, and its lag says so.
        drain_seconds: after the last is due, beyond which nothing is sent any more.
    """
    times = np.asarray(due, dtype=float)
    n = len(times)
    sent, ended = np.full(n, np.nan), np.full(n, np.nan)
    said = np.full(n, "", dtype="U8")
    turn = itertools.count()
    start = time.perf_counter() + _LEAD_SECONDS
    last = (times[-1] if n else 0.0) + drain_seconds

    def serve_turns() -> None:
        while (number := next(turn)) < n:
            wait = times[number] - (time.perf_counter() - start)
            if wait > 0:
                time.sleep(wait)
            now = time.perf_counter() - start
            if now > last:
                return
            sent[number] = now
            try:
                came = ask(number)
            except Exception:  # a request that fails is a result, not an accident
                came = "failed"
            ended[number] = time.perf_counter() - start
            said[number] = came

    threads = [threading.Thread(target=serve_turns, daemon=True) for _ in range(min(n, most_waiting))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return Step(rate, times, sent, ended, said)


def quantile(values: Floats, share: float, *, confidence: float = 0.95) -> Estimate:
    """A quantile with the interval that its order statistics give, whatever the distribution.

    The number of values below the quantile is binomial, so two ranks enclose it with the confidence wanted, or more
    (Conover, Practical Nonparametric Statistics, 3rd ed., section 3.2). Where there are too few values for an end, it
    is open: infinite. It takes the values for independent, which those of one stall are not.

    Args:
        values: (n,).
        share: 0.99 for the 99th percentile.
        confidence: of the interval.

    >>> quantile(np.arange(1.0, 1001.0), 0.5)
    Estimate(value=500.0, low=469.0, high=532.0, n=1000, blocks=1)
    >>> quantile(np.arange(1.0, 101.0), 0.99).high
    inf
    """
    ordered, n = np.sort(values), len(values)
    if n == 0:
        return Estimate(math.nan, -math.inf, math.inf, 0, 0)
    tail = (1 - confidence) / 2
    low, high = int(binom.ppf(tail, n, share)), int(binom.ppf(1 - tail, n, share)) + 1
    middle = min(n, max(1, math.ceil(share * n)))
    return Estimate(
        value=float(ordered[middle - 1]),
        low=float(ordered[low - 1]) if low >= 1 else -math.inf,
        high=float(ordered[high - 1]) if high <= n else math.inf,
        n=n,
        blocks=1,
    )


def knee(steps: Sequence[Step], *, latency_ms: float, error_share: float) -> float | None:
    """The highest rate up to which every step was valid and kept the limits; None if the first did not.

    Args:
        steps: at rising rates.
        latency_ms: that the 99th percentile must not exceed.
        error_share: that failures must not exceed.
    """
    best = None
    for step in steps:
        kept = quantile(step.latency_ms, 0.99).value <= latency_ms and step.share("failed") <= error_share
        if not (step.valid and kept):
            break
        best = step.rate
    return best
