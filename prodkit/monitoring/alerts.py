"""Alerts: each new one is sent once, to addresses that only the environment knows."""

from __future__ import annotations

import hashlib
import logging
import math
import os
import threading
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd

from prodkit.decisions.decide import sentence
from prodkit.decisions.result import current_run
from prodkit.errors import ParameterError
from prodkit.evidence import Evidence, utc
from prodkit.params import ProjectParams
from prodkit.settings import expand
from prodkit.store.registry import Store

__all__ = ["Alert", "Notice", "alert_table", "ranked_alerts", "send_alerts"]

_PATIENCE_SECONDS = 10.0  # for all channels together
_MOST_LINES = 20
_RECORD = ""  # the channel that is always there: the store itself
_OPEN, _CLEARED = 1.0, 0.0


@dataclass(frozen=True, slots=True)
class Alert:
    """Something that is wrong with a version. Name, version and kind say which alert it is.

    Attributes:
        name: of the evidence, such as ``health.error_share``.
        version: the champion that it is about.
        kind: ``fail`` (beyond its limit) or ``error`` (could not be measured).
        rung: its place on the evidence ladder, 1 the strongest.
        size: how many times its limit it is; infinite where that cannot be said.
        text: one sentence.
    """

    name: str
    version: int
    kind: str
    rung: int
    size: float
    text: str

    @property
    def key(self) -> str:
        """What it is called in the store."""
        return f"{self.kind}.{self.name}"


@dataclass(frozen=True, slots=True)
class Notice:
    """What became of the alerts of a run.

    Attributes:
        new: those that nobody had been told of.
        channels: for each address, as it is written in the parameters, what happened there: ``told``,
            ``nothing new``, or why it failed.
    """

    new: tuple[Alert, ...]
    channels: dict[str, str]


def ranked_alerts(evidence: Iterable[Evidence], *, version: int) -> list[Alert]:
    """What failed or could not be measured, by rung, then by size.

    >>> slow = Evidence("health.latency_p99_ms", "fail", value=500.0, limit=250.0, rung=2)
    >>> ranked_alerts([slow, Evidence("drift.temp", "pass", rung=5)], version=3)[0].size
    2.0
    """
    found = [
        Alert(item.name, version, item.outcome, item.rung, _size(item), sentence(item))
        for item in evidence
        if item.outcome in ("fail", "error") and item.name != "drill"
    ]
    return sorted(found, key=lambda alert: (alert.rung, -alert.size, alert.name))


def _size(item: Evidence) -> float:
    """How far the value lies beyond its limit, as a ratio; a limit may be an upper or a lower one."""
    if item.value is None or item.limit is None:
        return math.inf
    near, far = sorted((abs(item.value), abs(item.limit)))
    return far / near if near > 0 else math.inf


def alert_table(found: Sequence[Alert], *, new: Sequence[Alert] = ()) -> pd.DataFrame:
    """Alerts for readers: rank, rung, times the limit, what is wrong, and whether it is new."""
    rows = [
        {
            "rung": alert.rung,
            "times its limit": f"{alert.size:.3g}" if math.isfinite(alert.size) else "",
            "what": alert.text,
            "new": "new" if alert in new else "",
        }
        for alert in found
    ]
    columns = ["rung", "times its limit", "what", "new"]
    return pd.DataFrame(rows, columns=columns, index=pd.RangeIndex(1, len(rows) + 1, name="alert"))


def send_alerts(
    store: Store,
    params: ProjectParams,
    found: Sequence[Alert],
    *,
    evidence: Sequence[Evidence],
    version: int,
    patience_seconds: float = _PATIENCE_SECONDS,
) -> Notice:
    """Tell each address in ``params.notify`` of the alerts that it has not been told of, in one message.

    An alert that was told is told again only after it had cleared: its finding passed, or others of its kind could
    be judged and it was not among them. What could not be judged this time clears nothing. Who could not be reached
    is told by the next run. What was told is kept in the store, among the metrics, known from ``params.moment`` on;
    a run that looks back, behind a later one, tells nobody, nor does one that is verified.

    A channel that fails is no error: it is in the result. Neither the addresses nor what they answer appear in it.

    Args:
        store: remembers what was told.
        params: of the run.
        found: the alerts of now, the most urgent first.
        evidence: all that was judged, to know what has cleared.
        version: the champion.
        patience_seconds: how long all channels together may take.
    """
    known = _states(store, params)
    addresses = list(dict.fromkeys(params.notify))
    fresh = {
        address: [alert for alert in found if known.get((_mark(address), alert.version, alert.key)) != _OPEN]
        for address in (_RECORD, *addresses)
    }
    wanted = {address: fresh[address] for address in addresses if fresh[address]}
    answers = dict.fromkeys(addresses, "nothing new")
    if quiet := _silence(store, params):
        answers |= dict.fromkeys(wanted, quiet)
    else:
        answers |= _send(wanted, version=version, patience_seconds=patience_seconds)
    reached = [_RECORD, *(address for address in addresses if answers[address] == "told")]
    rows = [_row(params, _mark(address), alert.version, alert.key, _OPEN) for address in reached
            for alert in fresh[address]]  # fmt: skip
    now = {(alert.version, alert.key) for alert in found}
    rows += [
        _row(params, mark, about, key, _CLEARED)
        for (mark, about, key), state in known.items()
        if state == _OPEN and (about, key) not in now and (about != version or _cleared(key, evidence))
    ]
    store.record_metrics(rows)
    return Notice(tuple(fresh[_RECORD]), answers)


def _cleared(key: str, evidence: Sequence[Evidence]) -> bool:
    """Whether an alert that is not there any more was looked for at all."""
    name = key.partition(".")[2]
    same = [item for item in evidence if item.name == name]
    group = [item for item in evidence if item.name.split(".")[0] == name.split(".")[0]]
    return any(item.outcome in ("pass", "fail") for item in same or group)


def _states(store: Store, params: ProjectParams) -> dict[tuple[str, int, str], float]:
    """The last state of each alert by channel, version and key, as known at the moment of the run."""
    table = store.metrics(notebook="monitor", until=params.moment)
    table = table[table["name"].str.startswith("alert.")].sort_values("known_at", kind="stable")
    states = {}
    for name, version, value in zip(table["name"], table["version"], table["value"], strict=True):
        mark, _, key = name.removeprefix("alert.").partition(".")
        states[mark, int(version), key] = value
    return states


def _silence(store: Store, params: ProjectParams) -> str:
    """Why nobody must be told by this run; empty if they may."""
    if os.environ.get("PRODKIT_SANDBOX"):
        return "not sent: the run is being verified"
    known = store.metrics(notebook="monitor")["known_at"]
    if len(known) and known.max() > pd.Timestamp(utc(params.moment)):
        return "not sent: the run looks back, a later one has been here"
    return ""


def _mark(address: str) -> str:
    """What a channel is called in the store: a digest of how it is written, which holds no secret."""
    return hashlib.sha256(address.encode()).hexdigest()[:8] if address else "record"


def _row(params: ProjectParams, mark: str, version: int, key: str, state: float) -> dict[str, Any]:
    return {
        "run_id": current_run(params),
        "notebook": params.notebook,
        "version": version,
        "window_start": params.window.start.isoformat(),
        "window_end": params.window.end.isoformat(),
        "name": f"alert.{mark}.{key}",
        "value": state,
        "low": None,
        "high": None,
        "n": None,
        "known_at": params.moment.isoformat(),
    }


def _send(wanted: dict[str, list[Alert]], *, version: int, patience_seconds: float) -> dict[str, str]:
    """Tell all channels at once; a thread that hangs is left behind, and ends with the process."""
    late = f"failed: no answer within {patience_seconds:g} seconds"
    answers = dict.fromkeys(wanted, late)

    def tell(address: str, told: list[Alert]) -> None:
        answers[address] = _tell(address, told, version=version)

    workers = [threading.Thread(target=tell, args=each, daemon=True) for each in wanted.items()]
    deadline = time.monotonic() + patience_seconds
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join(max(0.0, deadline - time.monotonic()))
    return dict(answers)  # a late answer changes nothing any more


def _tell(address: str, told: list[Alert], *, version: int) -> str:
    """Send one message; says what happened, without a word of the address or of its answer."""
    try:
        import apprise
    except ImportError:
        return "failed: apprise is missing; install notebook-prodkit[notify]"
    log = logging.getLogger("apprise")  # it names addresses
    log.propagate, log.disabled = False, True
    try:
        post = apprise.Apprise()
        if not post.add(expand(address)):
            return "failed: not an address that apprise knows"
        title = f"prodkit: {len(told)} new alert{'s' if len(told) > 1 else ''} about version {version}"
        sent = post.notify(body=_body(told), title=title, body_format=apprise.NotifyFormat.TEXT)
        return "told" if sent else "failed: the channel refused, or could not be reached"
    except ParameterError as error:
        return f"failed: {error}"
    except Exception as error:  # whatever a channel does, the run goes on
        return f"failed: {type(error).__name__}"


def _body(told: Sequence[Alert]) -> str:
    lines = [f"- {alert.text} [{alert.name}, rung {alert.rung}]" for alert in told[:_MOST_LINES]]
    more = len(told) - _MOST_LINES
    return "\n".join([*lines, *([f"- and {more} more"] if more > 0 else [])])
