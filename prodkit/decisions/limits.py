"""Which parameter a finding is held against, and what its numbers come to under that limit or another one."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import timedelta
from math import inf
from typing import Any

from prodkit.evidence import Evidence, Outcome
from prodkit.params import ProjectParams

__all__ = ["Held", "held_against", "limits_of"]

# Of a finding, the limit that the parameter gave then, and the one that it gives now: what the finding comes to
# now, or None where its numbers do not tell.
Rule = Callable[[Evidence, float, float], Outcome | None]


@dataclass(frozen=True)
class Held:
    """How a finding depends on a parameter.

    Attributes:
        parameter: its name; of a mapping, with the key after a dot.
        comes_to: the rule of the gate that makes the finding, told by its numbers alone.
        scale: what the parameter is multiplied with to be the limit.
        exact: whether the recorded limit is the parameter's; else it may lie above it.
    """

    parameter: str
    comes_to: Rule
    scale: float = 1.0
    exact: bool = True

    def limit(self, params: ProjectParams) -> float | None:
        """The limit that these parameters give; None if they give none."""
        name, _, key = self.parameter.partition(".")
        value: Any = getattr(params, name)
        if key:
            value = value.get(key)
        if isinstance(value, timedelta):
            value = value / timedelta(days=1)
        return None if value is None else self.scale * float(value)


def held_against(notebook: str, name: str) -> Held | None:
    """The parameter that a finding is held against; None if there is none, or it is not known."""
    table = _HELD.get(notebook, {})
    return table.get(name) or table.get(f"{name.split('.')[0]}.*")


def limits_of(notebook: str) -> set[str]:
    """The parameters of a notebook that findings are held against; of a mapping, its name."""
    return {held.parameter.split(".")[0] for held in _HELD.get(notebook, {}).values()}


def _alternative(item: Evidence, then: float, now: float) -> Outcome | None:
    """As :func:`prodkit.decisions.gates.alternative`; what was held back though ahead stays so or is open."""
    if _low(item) > now:
        held_back = item.outcome == "inconclusive" and _low(item) > then
        return "fail" if not held_back else "inconclusive" if now >= then else None
    return "pass" if _high(item) <= now else "inconclusive"


def _once(item: Evidence, _: float, now: float) -> Outcome:
    """As :func:`prodkit.decisions.gates.once`."""
    if _low(item) > 0 and item.value is not None and item.value > now:
        return "fail"
    return "pass" if _high(item) <= now else "inconclusive"


def _improvement(item: Evidence, _: float, now: float) -> Outcome:
    """As :func:`prodkit.decisions.gates.improvement`."""
    if _low(item) > now:
        return "pass"
    return "fail" if _high(item) < now else "inconclusive"


def _not_inferior(item: Evidence, _: float, now: float) -> Outcome:
    """As :func:`prodkit.decisions.gates.not_inferior`."""
    return "pass" if item.value is not None and item.value > now else "fail"


def _at_most(item: Evidence, _: float, now: float) -> Outcome:
    """As :func:`prodkit.decisions.gates.at_most`."""
    if item.value is None:
        return "inconclusive"
    return "pass" if item.value <= now else "fail"


def _share(item: Evidence, then: float, now: float) -> Outcome | None:
    """A share of rows: as :func:`_at_most`, or with an interval that must lie above the limit, if there is one."""
    if item.value is None or item.value <= now or item.low is None:
        return _at_most(item, then, now)
    if item.low <= now:
        return "inconclusive"
    if item.outcome == "fail":
        return "fail"
    return "inconclusive" if item.low > then else None  # too few rows, or not known whether they are enough


def _enough(item: Evidence, _: float, now: float) -> Outcome | None:
    """As :func:`prodkit.decisions.gates.enough`, which counts days, too: they are not in the numbers."""
    if item.value is None or item.value < now:
        return "inconclusive"
    return "pass" if item.outcome == "pass" else None


def _slice(item: Evidence, then: float, now: float) -> Outcome | None:
    """As :func:`prodkit.decisions.gates.slices`; how wide an interval is depends on which other slices fail."""
    fails = _high(item) < now
    if fails and item.outcome == "fail" and now < then:
        return None
    if fails or _low(item) > now:
        return "fail" if fails else "pass"
    if item.outcome == "fail" or (item.outcome == "pass" and _low(item) > then):
        return None  # whether so many rows must be sure is not in the numbers
    return item.outcome


def _calibration(item: Evidence, then: float, now: float) -> Outcome | None:
    """Held against the parameter, the incumbent's error or chance, whatever is largest: that is the recorded limit."""
    largest = inf if item.limit is None else item.limit
    low = _low(item)
    if low <= now:
        return "pass"
    if now >= largest or low > largest:
        return "fail"
    return "pass" if largest > then else None  # the limit was not the parameter's, so it stays


def _low(item: Evidence) -> float:
    return -inf if item.low is None else item.low


def _high(item: Evidence) -> float:
    return inf if item.high is None else item.high


def _since(item: Evidence, _: float, now: float) -> Outcome:
    """As :func:`prodkit.decisions.cooldown.cooldown`."""
    return "pass" if item.value is not None and item.value >= now else "inconclusive"


def _certainty(item: Evidence, then: float, now: float) -> Outcome:
    """A probability, beyond which something is done; what was held back though beyond it stays so."""
    return "inconclusive" if item.outcome == "inconclusive" else _at_most(item, then, now)


_CONTEST = {
    "cooldown": Held("cool_down", _since),
    "gain.baseline": Held("margin", _improvement),
    "gain.champion": Held("tolerated_loss", _not_inferior, scale=-1.0),
    "labels": Held("min_rows", _enough),
    "slice.*": Held("slice_margin", _slice, scale=-1.0),
    "calibration": Held("calibration_limit", _calibration, exact=False),
    "budget.size": Held("size_limit_mb", _at_most),
    "budget.latency": Held("latency_limit_ms", _at_most),
    "budget.memory": Held("memory_limit_mb", _at_most),
}
_LADDER = {
    "cooldown": Held("cool_down", _since),
    "health.champion": Held("slo.error_share", _share),
    "health.predecessor": Held("slo.error_share", _share),
    "health.latency_p99_ms": Held("slo.latency_p99_ms", _at_most),
    "health.champion_latency": Held("slo.latency_p99_ms", _at_most),
    "health.predecessor_latency": Held("slo.latency_p99_ms", _at_most),
    "health.degraded_share": Held("slo.degraded_share", _at_most),
    "economy.predecessor": Held("rollback_certainty", _certainty),
    "performance.labels": Held("min_rows", _enough),
    "performance.predecessor": Held("rollback_margin", _alternative),
    "performance.predecessor_ranking": Held("ranking_margin", _alternative),
    "performance.challenger": Held("retrain_cost", _alternative),
    "performance.challenger_ranking": Held("ranking_margin", _alternative),
    "performance.challenger_since": Held("retrain_cost", _alternative),
    "performance.predecessor_instead": Held("rollback_margin", _once),
    "performance.challenger_over_predecessor": Held("retrain_cost", _once),
}
_HELD: Mapping[str, Mapping[str, Held]] = {"validate": _CONTEST, "rollback": _LADDER}
