"""Rung 3 of the evidence ladder: would somebody else have served better, on the same rows?"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd

from prodkit.decisions.counterfactual import Counterfactuals
from prodkit.decisions.gains import daily_gains
from prodkit.decisions.gates import alternative, enough, known_classes, once
from prodkit.decisions.trial import Trial
from prodkit.evidence import Evidence
from prodkit.models.metrics import dependence
from prodkit.settings.params import RollbackParams

__all__ = ["performance_evidence"]

_WINDOW_HORIZON = 14
_TRUSTED = 40  # days at most, for which what training says of their dependence counts
_HORIZON = 45  # days since promotion at which the interval over all of them is tightest

Gains = Mapping[str, "pd.Series[float]"]  # by day, of each alternative
Memory = (
    tuple[float, int] | None
)  # how much a day resembles the one before, and of how many days that is known


def performance_evidence(
    params: RollbackParams,
    trials: Counterfactuals,
    *,
    look: int,
    earlier: Gains | None = None,
    memory: Memory = None,
) -> list[Evidence]:
    """Rung 3: would the predecessor, a fresh challenger or the simple rule have served better?

    The predecessor is held against the champion over all days since the promotion, and acts if it is ahead in this
    window, too. A fresh challenger is held against it on this window alone, in its loss and in its ranking, which sees
    a sudden change, and on all days since the promotion, which sees a slow one; each with half of the allowed error.
    Each of those days was judged by a challenger of its time, trained on what was labelled before that day.

    Args:
        params: of the run.
        trials: the candidates on the same rows.
        look: number of the window since the champion was validated.
        earlier: daily gains of earlier windows of this champion, by day, of each alternative.
        memory: how much a day resembles the one before, and of how many days training has learned that.
    """
    whole, newest = trials.whole, trials.newest
    if whole is None:
        return [Evidence("performance.labels", "inconclusive", rung=3, note=trials.missing["labels"])]
    needed = {"min_rows": params.min_rows, "min_blocks": params.min_blocks}
    champion = whole.losses["champion"].to_numpy()
    labels = enough("performance.labels", champion, whole.days, **needed)
    strange = known_classes("performance.unknown_classes", whole.unknown_rows, rows=len(whole.rows), rung=3)
    if labels.outcome != "pass":
        return [labels, *strange]
    past, gains = earlier or {}, daily_gains(trials, least_days=params.min_blocks)
    found = [labels, *strange, *_going_back(params, gains, past=past, look=look, memory=memory)]
    note = "gain in mean loss, had the simple rule served these rows"
    other = whole.losses["baseline"].to_numpy()
    alone: dict[str, Any] = {"limit": 0.0, "look": look, "confidence": params.confidence}
    found.append(alternative("performance.baseline", champion, other, blocks=whole.days, note=note, **alone))
    if newest is None:
        missing = trials.missing["challenger"]
        return [*found, Evidence("performance.challenger", "inconclusive", rung=3, note=missing)]
    labels = enough("performance.challenger", newest.losses["champion"].to_numpy(), newest.days, **needed)
    if labels.outcome != "pass":
        return [*found, labels]
    reasons = _training_anew(params, newest, gains, past=past, look=look, memory=memory)
    return [*found, *reasons, *_ways_out(params, trials, reasons=reasons)]


def _going_back(
    params: RollbackParams, gains: Gains, *, past: Gains, look: int, memory: Memory
) -> list[Evidence]:
    """The predecessor over all days since the promotion: in its loss, and in its ranking."""
    loss = "gain in mean loss, had the predecessor served since the promotion"
    ranking = "gain in AUC within a day, had the predecessor served since then"
    return [
        _since(params, who, gains[who], past=past.get(who), look=look, memory=memory, limit=limit, note=note)
        for who, limit, note in (
            ("predecessor", params.rollback_margin, loss),
            ("predecessor_ranking", params.ranking_margin, ranking),
        )
        if who in gains
    ]


def _training_anew(
    params: RollbackParams, newest: Trial, gains: Gains, *, past: Gains, look: int, memory: Memory
) -> list[Evidence]:
    """A fresh challenger: on this window alone, on all days since the promotion, and in its ranking on this window."""
    each: dict[str, Any] = {"confidence": (1 + params.confidence) / 2}
    cost = {"limit": params.retrain_cost, **each}
    days = _joined(past.get("challenger"), gains["challenger"])
    usual = _usual(past.get("challenger"), days, memory)
    note = "gain in mean loss, had a freshly trained model served the newest rows"
    pair = (newest.losses[name].to_numpy() for name in ("champion", "challenger"))
    window = alternative(
        "performance.challenger", *pair, blocks=newest.days, look=look, note=note, memory=usual, **cost
    )
    name = "performance.challenger_since"
    note = f"gain in mean loss, had fresh models served all {len(days)} days since the champion was promoted"
    since = _daily(name, days, look=1, horizon=_HORIZON, note=note, memory=_recalled(days, memory), **cost)
    if "challenger_ranking" not in gains:
        return [window, since]
    ranks = gains["challenger_ranking"]
    usual = _usual(past.get("challenger_ranking"), ranks, memory)
    note = "gain in AUC within a day, had a freshly trained model served the newest rows"
    settings = {"limit": params.ranking_margin, "look": look, "memory": usual, **each}
    return [window, since, _daily("performance.challenger_ranking", ranks, note=note, **settings)]


def _since(
    params: RollbackParams,
    who: str,
    gains: pd.Series[float],
    *,
    past: pd.Series[float] | None,
    look: int,
    memory: Memory,
    limit: float,
    note: str,
) -> Evidence:
    """An alternative over all days since the promotion, which must also be ahead now.

    Two ways to act on either alternative share the error. Without a past this look is one of many.
    """
    known, days = past is not None and len(past) > 0, _joined(past, gains)
    item = _daily(
        f"performance.{who}",
        days,
        limit=limit,
        memory=_recalled(days, memory),
        look=1 if known else look,
        horizon=_HORIZON if known else _WINDOW_HORIZON,
        confidence=(1 + params.confidence) / 2,
        note=note,
    )
    now = float(gains.mean())
    if item.outcome == "fail" and not now > limit:
        return replace(item, outcome="inconclusive", note=f"{note}; but in this window it is {now:.3g}")
    return item


def _recalled(days: pd.Series[float], memory: Memory) -> float:
    """How much a day's gain takes after that of the day before: by these days, and by what training knows."""
    figures = days.to_numpy(dtype=float)
    if memory is None:
        return dependence(figures)
    return dependence(figures, usual=memory[0], weight=min(memory[1], _TRUSTED))


def _usual(past: pd.Series[float] | None, days: pd.Series[float], memory: Memory) -> float:
    """The same from the days before this window, if they are enough: a step in the mean would pass for memory."""
    return _recalled(past if past is not None and len(past) >= _WINDOW_HORIZON else days, memory)


def _joined(past: pd.Series[float] | None, gains: pd.Series[float]) -> pd.Series[float]:
    return gains if past is None or past.empty else pd.concat([past, gains])


def _ways_out(
    params: RollbackParams, trials: Counterfactuals, *, reasons: Sequence[Evidence]
) -> list[Evidence]:
    """Once a challenger is better: would going back do, and would training anew do better than going back?

    These are asked only after a reason to act has been found by tests that may be put daily, so each is one look (the
    fixed sequence of Maurer, Hothorn & Lehmacher 1995): a healthy champion is acted on no more often for it.
    """
    whole, newest = trials.whole, trials.newest
    acts = any(item.outcome == "fail" for item in reasons)
    if not acts or whole is None or newest is None or "predecessor" not in newest.losses:
        return []
    settings: dict[str, Any] = {"confidence": params.confidence, "seed": params.seed}
    pairs = {
        "performance.predecessor_instead": (
            whole,
            "champion",
            "predecessor",
            params.rollback_margin,
            "gain in mean loss, were the predecessor to serve instead of the champion",
        ),
        "performance.challenger_over_predecessor": (
            newest,
            "predecessor",
            "challenger",
            params.retrain_cost,
            "further gain in mean loss of a freshly trained model over the predecessor",
        ),
    }
    return [
        once(
            name,
            *(trial.losses[who].to_numpy() for who in (first, second)),
            blocks=trial.days,
            limit=limit,
            note=note,
            **settings,
        )
        for name, (trial, first, second, limit, note) in pairs.items()
    ]


def _daily(name: str, gains: pd.Series[float], **settings: Any) -> Evidence:
    """An alternative that is judged by one figure a day."""
    values = gains.to_numpy(dtype=float)
    return alternative(name, values, np.zeros(len(values)), blocks=np.arange(len(values)), **settings)
