"""One line of proof: a value with its interval, held against a limit, with one of four outcomes."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from typing import Any, Literal

__all__ = ["Estimate", "Evidence", "Outcome", "overall"]

Outcome = Literal["pass", "fail", "inconclusive", "error"]

# What a set of outcomes comes to: the first of these that occurs in it.
_WORST_FIRST: tuple[Outcome, ...] = ("error", "fail", "inconclusive", "pass")


@dataclass(frozen=True, slots=True)
class Estimate:
    """A value with its interval, from ``n`` rows in ``blocks`` blocks."""

    value: float
    low: float
    high: float
    n: int
    blocks: int


@dataclass(frozen=True, slots=True)
class Evidence:
    """A finding that a decision rests on.

    Attributes:
        name: what was measured, dotted from the general to the particular: ``contract.temp.unit``.
        outcome: ``pass``, ``fail``, ``inconclusive`` (could not be told), ``error`` (could not be measured).
        value: the estimate, in the unit that ``note`` or the name says.
        low: lower end of its interval.
        high: upper end of its interval.
        limit: what it was held against.
        n: how many rows it rests on.
        rung: its place on the evidence ladder: 1 data contract, 2 health, 3 realised performance,
            4 estimated performance, 5 drift; 0 where no ladder applies.
        note: one sentence for a reader.

    A value that is not finite cannot pass: it turns the outcome into ``error``.

    >>> Evidence("gain", "pass", value=float("nan"), n=10).outcome
    'error'
    """

    name: str
    outcome: Outcome
    value: float | None = None
    low: float | None = None
    high: float | None = None
    limit: float | None = None
    n: int = 0
    rung: int = 0
    note: str = ""

    def __post_init__(self) -> None:
        if self.outcome not in _WORST_FIRST:
            object.__setattr__(self, "outcome", "error")
        for field in ("value", "low", "high", "limit"):
            number = getattr(self, field)
            if number is None:
                continue
            if math.isnan(number) or (math.isinf(number) and field in ("value", "limit")):
                object.__setattr__(self, "outcome", "error")
            # a plain float, since JSON knows no numpy; an open end of an interval, or no number, is None
            object.__setattr__(self, field, float(number) if math.isfinite(number) else None)
        object.__setattr__(self, "n", int(self.n))

    @classmethod
    def of(cls, name: str, outcome: Outcome, estimate: Estimate, **others: Any) -> Evidence:
        """Evidence whose value, interval and number of rows are those of an estimate.

        >>> Evidence.of("gain", "pass", Estimate(0.2, 0.1, 0.3, n=50, blocks=5), limit=0.0).low
        0.1
        """
        ends = {"value": estimate.value, "low": estimate.low, "high": estimate.high, "n": estimate.n}
        return cls(name, outcome, **{**ends, **others})

    def to_dict(self) -> dict[str, Any]:
        """The JSON form, as it stands in ``result.json``."""
        return asdict(self)

    @classmethod
    def from_dict(cls, document: dict[str, Any]) -> Evidence:
        """Read back what :meth:`to_dict` wrote."""
        return cls(**document)


def overall(evidence: Iterable[Evidence]) -> Outcome:
    """The worst outcome among the evidence; nothing at all is ``inconclusive``, never ``pass``.

    >>> overall([])
    'inconclusive'
    """
    found = {item.outcome for item in evidence}
    return next((outcome for outcome in _WORST_FIRST if outcome in found), "inconclusive")
