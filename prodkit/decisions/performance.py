"""Rung 3 of the evidence ladder: would somebody else have served better, on the same rows?"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from datetime import datetime
from functools import partial
from typing import Any

import numpy as np
import pandas as pd

from prodkit.decisions.counterfactual import Counterfactuals
from prodkit.decisions.gains import daily_gains, ranking_gain
from prodkit.decisions.gates import alternative, enough, known_classes, once
from prodkit.decisions.trial import Trial
from prodkit.evidence import Evidence
from prodkit.models import metrics
from prodkit.params import RollbackParams

__all__ = ["performance_evidence"]

_EVERY = 28  # days from one start to the next of those from which on an alternative may have been better
_HORIZON = 28  # days at which an interval is tightest
_FEW = 14  # days before a start, below which they do not say how much days resemble each other
_TRUSTED = 40  # days at most, for which what training says of their dependence counts

Ask = Callable[..., tuple[Evidence, pd.Timestamp]]
Gains = Mapping[str, "pd.Series[float]"]  # by day, of each alternative
Dependence = (
    tuple[float, int] | None
)  # how much a day resembles the one before, and of how many days that is known


def performance_evidence(
    params: RollbackParams,
    trials: Counterfactuals,
    *,
    look: int,
    since: datetime,
    earlier: Gains | None = None,
    autocorrelation: Dependence = None,
) -> list[Evidence]:
    """Rung 3: would the predecessor, a fresh challenger or the simple rule have served better?

    Predecessor and fresh challengers are held against the champion day by day, in their loss and in their ranking: two
    ways to act on either, which share the allowed error. Each asks whether the other one has been better *since some
    day*: the promotion, or four weeks after it, or eight, and so on, so that a change is seen undiluted by the good
    days before it; and it must be better in this window, too. Each day was judged by a challenger of its time, trained
    on what was labelled before that day. Gains are gains in skill, see :attr:`prodkit.decisions.trial.Trial.unit`.

    Args:
        params: of the run.
        trials: the candidates on the same rows.
        look: number of the window since the champion was validated.
        since: when that was.
        earlier: daily gains of earlier windows of this champion, by day, of each alternative.
        autocorrelation: how much a day resembles the one before, and of how many days training has learned that.
    """
    whole, retrained = trials.whole, trials.retrained
    if whole is None:
        return [Evidence("performance.labels", "inconclusive", rung=3, note=trials.missing["labels"])]
    needed = {"min_rows": params.min_rows, "min_blocks": params.min_blocks}
    labels = enough("performance.labels", whole.truth, whole.days, **needed)
    strange = known_classes("performance.unknown_classes", whole.unknown_rows, rows=len(whole.rows), rung=3)
    if labels.outcome == "pass" and not np.isfinite(whole.unit):
        note = "the simple rule makes no mistake on these rows: there is nothing to gain"
        return [labels, *strange, Evidence("performance.skill", "inconclusive", rung=3, note=note)]
    if labels.outcome != "pass":
        return [labels, *strange]
    gains = daily_gains(trials, least_days=params.min_blocks)
    ask = partial(
        _since, params, since=since, autocorrelation=autocorrelation, gains=gains, past=earlier or {}
    )
    found = [labels, *strange, *_going_back(params, whole, gains, ask)]
    note = "gain in skill, had the simple rule served these rows"
    pair = whole.lost("champion"), whole.lost("baseline")
    alone: dict[str, Any] = {"limit": 0.0, "look": look, "confidence": params.confidence}
    found.append(alternative("performance.baseline", *pair, blocks=whole.days, note=note, **alone))
    if retrained is None:
        missing = trials.missing["challenger"]
        return [*found, Evidence("performance.challenger", "inconclusive", rung=3, note=missing)]
    labels = enough("performance.challenger", retrained.truth, retrained.days, **needed)
    if labels.outcome != "pass":
        return [*found, labels]
    reasons, start = _training_anew(params, retrained, gains, ask)
    found += reasons
    if any(item.outcome == "fail" for item in reasons):
        found += _ways_out(params, whole, gains, past=earlier or {}, since=start)
    return found


def _going_back(params: RollbackParams, whole: Trial, gains: Gains, ask: Ask) -> list[Evidence]:
    """The predecessor: in its loss, and in its ranking, each if it knows more than the simple rule."""
    skill = 1 - float(np.nanmean(whole.lost("predecessor"))) if "predecessor" in gains else np.nan
    ranks = float(ranking_gain(whole, "predecessor", over="baseline").mean())
    found = []
    for who, limit, note, over in (
        ("predecessor", params.rollback_margin, "gain in skill, had the predecessor served", skill),
        (
            "predecessor_ranking",
            params.ranking_margin,
            "gain in AUC within a day, had the predecessor served",
            ranks,
        ),
    ):
        if who in gains:
            found.append(_if_sensible(ask(who, limit=limit, note=note)[0], over))
    return found


def _if_sensible(item: Evidence, over: float) -> Evidence:
    """Going back to a model that the simple rule outdoes on these rows is no way out: then both are bad."""
    if item.outcome != "fail" or over > 0:
        return item
    note = f"{item.note}; but in this window it is {over:.3g} over the simple rule"
    return replace(item, outcome="inconclusive", note=note)


def _training_anew(
    params: RollbackParams, retrained: Trial, gains: Gains, ask: Ask
) -> tuple[list[Evidence], pd.Timestamp]:
    """A fresh challenger: in its loss, and in its ranking, which counts if its loss pays; and since when."""
    note = "gain in skill, had freshly trained models served"
    loss, since = ask("challenger", limit=params.retrain_cost, note=note)
    found = [replace(loss, n=len(retrained.rows))]
    if "challenger_ranking" in gains:
        note = "gain in AUC within a day, had freshly trained models served"
        ranking, start = ask("challenger_ranking", limit=params.ranking_margin, note=note)
        now = float(gains["challenger"].mean())
        if ranking.outcome == "fail" and not now > params.retrain_cost:
            note = f"{ranking.note}; but its gain in skill in this window is {now:.3g}"
            ranking = replace(ranking, outcome="inconclusive", note=note)
        since = start if ranking.outcome == "fail" != loss.outcome else since
        found.append(ranking)
    return found, since


def _since(
    params: RollbackParams,
    who: str,
    *,
    since: datetime,
    autocorrelation: Dependence,
    gains: Gains,
    past: Gains,
    limit: float,
    note: str,
) -> tuple[Evidence, pd.Timestamp]:
    """An alternative since the start from which on it is most surely better, and also now; and that start.

    Start number k spends alpha / (k (k + 1)), which adds up to alpha over all starts of a champion's life.
    """
    days, found = _joined(past.get(who), gains[who]), []
    for number, start in enumerate(_starts(days, since, least=params.min_blocks), 1):
        part, before = days[start:], days[:start]
        item = _daily(
            f"performance.{who}",
            part,
            limit=limit,
            memory=_day_dependence(before if len(before) >= _FEW else part, autocorrelation),
            look=number,
            horizon=_HORIZON,
            confidence=(1 + params.confidence) / 2,
            note=f"{note} since {part.index[0]:%Y-%m-%d}",
        )
        found.append((item, part.index[0]))
    best, start = max(found, key=lambda each: -np.inf if each[0].low is None else each[0].low)
    now = float(gains[who].mean())
    if best.outcome == "fail" and not now > limit:
        best = replace(best, outcome="inconclusive", note=f"{best.note}; but in this window it is {now:.3g}")
    return best, start


def _starts(days: pd.Series[float], since: datetime, *, least: int) -> Iterator[int]:
    """Where in these days the stretches begin that end today: at the first, then every four weeks after ``since``."""
    yield 0
    start = pd.Timestamp(since).tz_localize(None).normalize() + pd.Timedelta(days=_EVERY)
    while (place := int(days.index.searchsorted(start))) <= len(days) - least:
        yield place
        start += pd.Timedelta(days=_EVERY)


def _day_dependence(days: pd.Series[float], known: Dependence) -> float:
    """How much a day's gain takes after that of the day before: by these days, and by what training knows."""
    figures = days.to_numpy(dtype=float)
    if known is None:
        return metrics.autocorrelation(figures)
    return metrics.autocorrelation(figures, usual=known[0], weight=min(known[1], _TRUSTED))


def _joined(past: pd.Series[float] | None, gains: pd.Series[float]) -> pd.Series[float]:
    return gains if past is None or past.empty else pd.concat([past, gains])


def _ways_out(
    params: RollbackParams, whole: Trial, gains: Gains, *, past: Gains, since: pd.Timestamp
) -> list[Evidence]:
    """Once a challenger is better: would going back do, and would training anew do better than going back?

    These are asked only after a reason to act has been found by tests that may be put daily, and of the same days, so
    each is one look (the fixed sequence of Maurer, Hothorn & Lehmacher 1995): a healthy champion is acted on no more
    often for it.
    """
    if "predecessor" not in gains:
        return []
    back, anew = (_joined(past.get(who), gains[who])[since:] for who in ("predecessor", "challenger"))
    back, anew = back.align(anew, join="inner")
    settings: dict[str, Any] = {"confidence": params.confidence, "seed": params.seed}
    note = "gain in skill, were the predecessor to serve instead of the champion"
    instead = _once("predecessor_instead", back, limit=params.rollback_margin, note=note, **settings)
    note = "further gain in skill of a freshly trained model over the predecessor"
    beyond = _once(
        "challenger_over_predecessor", anew - back, limit=params.retrain_cost, note=note, **settings
    )
    return [_if_sensible(instead, 1 - float(np.nanmean(whole.lost("predecessor")))), beyond]


def _once(name: str, gains: pd.Series[float], **settings: Any) -> Evidence:
    values = gains.to_numpy(dtype=float)
    nought, days = np.zeros(len(values)), np.arange(len(values))
    return once(f"performance.{name}", values, nought, blocks=days, **settings)


def _daily(name: str, gains: pd.Series[float], **settings: Any) -> Evidence:
    """An alternative that is judged by one figure a day."""
    values = gains.to_numpy(dtype=float)
    return alternative(name, values, np.zeros(len(values)), blocks=np.arange(len(values)), **settings)
