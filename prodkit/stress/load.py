"""Load in an open loop: requests go out when they are due, whatever happened before, and are timed from then."""

from __future__ import annotations

import contextlib
import http.client
import ipaddress
import itertools
import json
import math
import socket
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal
from urllib.parse import urlsplit

import numpy as np
from numpy.typing import NDArray
from scipy.stats import binom

from prodkit.errors import ParameterError
from prodkit.evidence import Estimate

__all__ = ["Arrivals", "Result", "Step", "Target", "apply_load", "arrivals", "knee", "quantile"]

Arrivals = Literal["poisson", "even"]
Result = Literal["answered", "degraded", "failed"]
_Floats = NDArray[np.float64]

_MOST_REQUESTS = 1_000_000
_REACHED = 0.95  # of the rate, below which a step has measured something else
_LEAD_SECONDS = 0.05  # for the threads to start


@dataclass(frozen=True)
class Step:
    """What happened to n requests that were due at one rate.

    Attributes:
        rate: requests a second that were asked for.
        due: (n,) seconds from the start of the step.
        sent: (n,) when each went out; NaN if it did not.
        ended: (n,) when its answer was there, or its failure; NaN if neither came.
        results: (n,) ``answered``, ``degraded``, ``failed``; empty if it was not sent.
    """

    rate: float
    due: _Floats
    sent: _Floats
    ended: _Floats
    results: NDArray[np.str_]

    @property
    def latency_ms(self) -> _Floats:
        """Of each request that ended, from when it was *due*: a stall is felt by all whom it made wait."""
        return 1000 * (self.ended - self.due)[np.isfinite(self.ended)]

    @property
    def lag_ms(self) -> _Floats:
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
        """Whether the rate was reached; a step that did not reach it has measured another rate."""
        return self.reached_rate >= _REACHED * self.rate

    def share(self, result: Result) -> float:
        """Share of the requests with this result; one that was not sent counts as failed."""
        unsent = (self.results == "").sum() if result == "failed" else 0
        return float(((self.results == result).sum() + unsent) / max(1, len(self.results)))


def arrivals(rate: float, *, seconds: float, kind: Arrivals = "poisson", seed: int = 0) -> _Floats:
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
        value = f"{rate:g} a second for {seconds:g} seconds"
        raise ParameterError("rate and seconds", rule="must be finite and above 0", value=value)
    if rate * seconds > _MOST_REQUESTS:
        rule, fix = f"must come to at most {_MOST_REQUESTS:,} requests", "Ask for less, or for less long."
        raise ParameterError("rate times seconds", rule=rule, value=f"{rate * seconds:,.0f}", fix=fix)
    if kind == "even":
        return np.arange(math.ceil(rate * seconds)) / rate
    count = math.ceil(rate * seconds + 6 * math.sqrt(rate * seconds) + 12)
    due = np.cumsum(np.random.default_rng(seed).exponential(1 / rate, size=count))
    return due[due < seconds]


def apply_load(
    ask: Callable[[int], Result],
    due: Sequence[float] | _Floats,
    *,
    rate: float,
    most_waiting: int = 256,
    drain_seconds: float = 10.0,
) -> Step:
    """Send requests when they are due, each from a thread that waits for its answer, and note when it came.

    Each thread sleeps until its own request is due, so that no loop stands between the clock and the request.

    Args:
        ask: makes the request of this number, and gives its result; what it raises is a failure. It must come back by
            itself: nothing else ends it.
        due: (n,) seconds from now, rising.
        rate: that they come to, for the record.
        most_waiting: requests on their way; another has to wait, and its lag shows it.
        drain_seconds: after the last is due, beyond which nothing is sent any more.
    """
    times = np.asarray(due, dtype=float)
    n = len(times)
    sent, ended, results = np.full(n, np.nan), np.full(n, np.nan), np.full(n, "", dtype="U8")
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
                result = ask(number)
            except Exception:  # a request that fails is a result, not an accident
                result = "failed"
            ended[number] = time.perf_counter() - start
            results[number] = result

    threads = [threading.Thread(target=serve_turns, daemon=True) for _ in range(min(n, most_waiting))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return Step(rate, times, sent, ended, results)


def quantile(values: _Floats, share: float, *, confidence: float = 0.95) -> Estimate:
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
    """The highest rate up to which every step was valid and within the limits; None if the first was not.

    Args:
        steps: at rising rates.
        latency_ms: that the 99th percentile must not exceed.
        error_share: that failures must not exceed.
    """

    def passes(step: Step) -> bool:
        slow = quantile(step.latency_ms, 0.99).value > latency_ms
        return step.valid and not slow and step.share("failed") <= error_share

    good = list(itertools.takewhile(passes, steps))
    return good[-1].rate if good else None


class Target:
    """A service such as ``prodkit serve`` makes, asked by any number of threads over connections that they share.

    Args:
        url: ``http://HOST:PORT`` or ``https://...``.
        token: bearer token; none if empty.
        remote: whether it may be on another machine.
        timeout_seconds: after which a request has failed.

    Raises:
        ParameterError: no such URL, or one of another machine without ``remote``.

    >>> Target("http://192.0.2.7:8000")
    Traceback (most recent call last):
    prodkit.errors.ParameterError: url must lead to this machine; found 192.0.2.7. Set `remote` if it may be loaded.
    """

    def __init__(
        self, url: str, *, token: str = "", remote: bool = False, timeout_seconds: float = 10.0
    ) -> None:
        try:
            parts = urlsplit(url)
            host, port = parts.hostname or "", parts.port
        except ValueError as error:
            raise ParameterError("url", rule=f"must be a URL: {error}", value=url) from error
        if parts.scheme not in ("http", "https") or not host or parts.username or parts.query:
            fix = "Write http://HOST:PORT; a token is a parameter of its own."
            raise ParameterError("url", rule="must name a service", value=f"{parts.scheme}://{host}", fix=fix)
        if not remote and not _is_loopback(host):
            fix = "Set `remote` if it may be loaded."
            raise ParameterError("url", rule="must lead to this machine", value=host, fix=fix)
        self.host, self.port = host, port or (443 if parts.scheme == "https" else 80)
        self._kind = http.client.HTTPSConnection if parts.scheme == "https" else http.client.HTTPConnection
        self._prefix, self._timeout = parts.path.rstrip("/"), timeout_seconds
        self._headers = {"content-type": "application/json"}
        self._headers |= {"authorization": f"Bearer {token}"} if token else {}
        self._idle: deque[http.client.HTTPConnection] = deque()  # the one used last is the next: few are open

    def get(self, path: str) -> tuple[int, bytes]:
        """Status and body of a page; the same errors as :meth:`post`."""
        return self._request("GET", path, None)

    def post(self, body: bytes, *, path: str = "/predict") -> tuple[int, bytes]:
        """Status and body of the answer to one request.

        Raises:
            OSError: nobody answers, or not in time.
            http.client.HTTPException: what came is no answer.
        """
        return self._request("POST", path, body)

    def _request(self, method: str, path: str, body: bytes | None) -> tuple[int, bytes]:
        idle = None
        with contextlib.suppress(IndexError):
            idle = self._idle.pop()
        connection = idle or self._kind(self.host, self.port, timeout=self._timeout)
        try:
            connection.request(method, self._prefix + path, body=body, headers=self._headers)
            answer = connection.getresponse()
            content = answer.read()
        except BaseException as error:
            connection.close()
            # the service may have closed an idle one, maybe at this very moment: once more, over another
            if idle is not None and isinstance(error, ConnectionError):
                return self._request(method, path, body)
            raise
        self._idle.append(connection)
        return answer.status, content

    def ask(self, body: bytes) -> Result:
        """The result of a request for predictions: anything but whole answers with status 200 has failed."""
        status, content = self.post(body)
        try:
            answers = json.loads(content)["answers"] if status == 200 else []
            whole = [answer["degraded"] for answer in answers if answer["prediction"] is not None]
        except (ValueError, KeyError, TypeError):
            return "failed"
        if not whole or len(whole) < len(answers):
            return "failed"
        return "degraded" if any(whole) else "answered"

    def break_off(self, words: bytes) -> None:
        """Send so much and hang up, as clients do that are closed or lose their network."""
        with socket.create_connection((self.host, self.port), timeout=self._timeout) as client:
            client.sendall(words)

    def close(self) -> None:
        """Close all connections."""
        while self._idle:
            self._idle.pop().close()


def _is_loopback(host: str) -> bool:
    with contextlib.suppress(ValueError):
        return ipaddress.ip_address(host).is_loopback
    return host == "localhost"
