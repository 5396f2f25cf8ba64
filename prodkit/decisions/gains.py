"""What alternatives to the champion gain day by day, and what the store remembers of it."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any

import numpy as np
import pandas as pd

from prodkit.decisions.counterfactual import Counterfactuals
from prodkit.decisions.result import metric
from prodkit.decisions.trial import Trial
from prodkit.evidence import Window
from prodkit.models.metrics import daily_auc
from prodkit.params import RollbackParams
from prodkit.store.registry import Store

__all__ = ["daily_gains", "earlier_gains", "ranking_gain", "remember_trial"]

_GAIN = "skill.{who}"  # in the store: a day's gain of an alternative over the champion


def daily_gains(trials: Counterfactuals, *, least_days: int = 1) -> dict[str, pd.Series[float]]:
    """Mean gain of each alternative over the champion on each day that judged it: in skill, and in ranking."""
    found = {}
    if trials.whole is not None and "predecessor" in trials.whole.losses:
        found["predecessor"] = _gain(trials.whole, "predecessor")
        found["predecessor_ranking"] = ranking_gain(trials.whole, "predecessor")
    if trials.retrained is not None:
        found["challenger"] = _gain(trials.retrained, "challenger")
        found["challenger_ranking"] = ranking_gain(trials.retrained, "challenger")
    return {who: gains for who, gains in found.items() if len(gains) >= least_days}


def _gain(trial: Trial, who: str) -> pd.Series[float]:
    days = pd.Series(trial.lost("champion") - trial.lost(who)).groupby(trial.dates)
    return days.mean().where(days.count() == days.size())  # a row without an answer leaves no mean of its day


def ranking_gain(trial: Trial, who: str, *, over: str = "champion") -> pd.Series[float]:
    """By how much another one ranks the rows of each day better; nothing where that cannot be told.

    The loss of a model swings with the share of positives on a day, whatever the model is worth; how well it
    tells the rows of one day apart does not, so that it is quick to see.
    """
    pair = trial.predicted.get(who, np.nan), trial.predicted.get(over, np.nan)
    if not all(np.ndim(said) == 1 and np.isfinite(said).all() for said in pair) or set(trial.truth) != {0, 1}:
        return pd.Series(dtype=float)
    better, worse = (daily_auc(trial.truth, said, blocks=trial.days) for said in pair)
    gains = better - worse
    return gains.set_axis(pd.to_datetime(gains.index, unit="D"))


def _remembered(store: Store) -> dict[str, str]:
    """The names in the store of a day's gains, of each alternative: those of a predecessor are about that version."""
    predecessor = store.champion().predecessor
    names = {who: _GAIN.format(who=who) for who in ("challenger", "challenger_ranking")}
    if predecessor is not None:
        names |= {
            who: _GAIN.format(who=f"{who}.{predecessor}") for who in ("predecessor", "predecessor_ranking")
        }
    return names


def earlier_gains(
    store: Store, params: RollbackParams, *, version: int, before: datetime
) -> dict[str, pd.Series[float]]:
    """Daily gains that earlier windows have recorded for this champion, by alternative; each day as first judged."""
    found = {}
    for who, name in _remembered(store).items():
        table = store.metrics(name=name, version=version, until=params.moment)
        table = table[table["window_start"] < before].drop_duplicates("window_start", keep="first")
        found[who] = table.set_index("window_start")["value"].dropna()
    return found


def remember_trial(store: Store, params: RollbackParams, trials: Counterfactuals, *, version: int) -> None:
    """Leave the daily gains in the store, for the windows to come."""
    names, found = _remembered(store), daily_gains(trials)
    rows = [
        metric(params, names[who], float(gain), window=_day(day), version=version, n=1)
        for who, gains in found.items()
        if who in names
        for day, gain in gains.dropna().items()
    ]
    store.record_metrics(rows)


def _day(start: Any) -> Window:
    first = pd.Timestamp(start).to_pydatetime()
    return Window(first, first + timedelta(days=1))
