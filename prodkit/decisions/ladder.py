"""The rungs of the evidence ladder that rest on trials and on what the store remembers: health and performance."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import datetime
from typing import Any

import numpy as np
import pandas as pd

from prodkit.data.windows import label_coverage
from prodkit.decisions.cooldown import cooldown
from prodkit.decisions.counterfactual import Counterfactuals
from prodkit.decisions.estimate import Estimated, estimate_evidence
from prodkit.decisions.gates import alternative, at_most, enough, known_classes, once, share_at_most
from prodkit.decisions.result import current_run
from prodkit.decisions.speed import latency_evidence
from prodkit.decisions.survey import Inspection
from prodkit.decisions.trial import Trial
from prodkit.evidence import Evidence
from prodkit.models.bundle import Bundle, measured
from prodkit.models.metrics import daily_auc, dependence, intervals
from prodkit.settings.params import PRIMARY, Facts, RollbackParams
from prodkit.store.registry import Store
from prodkit.store.workspace import load_version

__all__ = [
    "gain_table",
    "health_evidence",
    "knowledge_table",
    "ladder_evidence",
    "look_number",
    "performance_evidence",
    "remember_trial",
]

_GAIN = "gain.challenger"  # in the store: a day's mean gain of a fresh challenger over the champion
_LATENCY = "health.latency_p99_ms"
_WINDOW_HORIZON = 14
_TRUSTED = 40  # days at most, for which what training says of their dependence counts
_HORIZON = 45  # days since promotion at which the interval over all of them is tightest


def ladder_evidence(
    store: Store,
    params: RollbackParams,
    trials: Counterfactuals,
    *,
    champion: tuple[int, Bundle],
    inspection: Inspection,
    shifts: Sequence[Evidence],
    outlook: Estimated | None = None,
) -> list[Evidence]:
    """All rungs, the strongest first: the contract, health, realised performance, what is estimated, drift."""
    version, bundle = champion
    health = health_evidence(store, params, trials, version=version)
    health += _speed(store, params, trials, bundle, recorded=health)
    before = min(params.window.start, trials.judged.start)
    names = _remembered(store).items()
    earlier = {
        who: earlier_gains(store, params, version=version, before=before, name=name) for who, name in names
    }
    performance = performance_evidence(
        params, trials, look=look_number(params, bundle), earlier=earlier, memory=bundle.memory
    )
    worth = _worth(params, trials, look=look_number(params, bundle), known=store.version(version).manifest)
    estimates = []
    if outlook is not None:
        reference = measured(store.version(version).manifest)
        settings: dict[str, Any] = {"margin": params.retrain_cost, "window": "this window"}
        estimates = [estimate_evidence(outlook, task=bundle.schema.task, reference=reference, **settings)]
    return [
        *inspection.evidence,
        *health,
        *performance,
        *worth,
        *cooldown(store, params),
        *estimates,
        *shifts,
    ]


def knowledge_table(
    params: RollbackParams, rows: pd.DataFrame, trials: Counterfactuals, outlook: Estimated
) -> pd.DataFrame:
    """What is known of the champion's loss on a window, what is estimated, and what nobody can know yet."""
    coverage, nothing = label_coverage(rows, params), (np.nan, np.nan, np.nan)
    known, found = nothing, nothing
    counted, told, guessed = 0, trials.missing.get("labels", ""), outlook.abstained
    if trials.whole is not None:
        trial, loss = trials.whole, PRIMARY[trials.whole.task]
        said = intervals(trial.truth, trial.predicted["champion"], task=trial.task, blocks=trial.days)[loss]
        counted, known, told = (
            said.n,
            (said.value, said.low, said.high),
            f"{loss}, of labels that have matured",
        )
    if not outlook.abstained:
        loss = next(name for name in outlook.scores if name in PRIMARY.values())
        each = outlook.scores[loss]
        found, guessed = (each.value, each.low, each.high), f"{loss}, without a look at any label"
        if trials.whole is not None and not each.low <= known[0] <= each.high:
            guessed += ": what is known lies outside, so rows like these no longer end as they did"
    left = coverage.pending + coverage.never
    never = f"{coverage.pending:,} labels are to come, {coverage.never:,} never will"
    table = {
        "known": (f"{counted:,}", *known, told),
        "estimated": (f"{outlook.rows:,}", *found, guessed),
        "not to be known yet": (f"{left:,}", *nothing, never),
    }
    return pd.DataFrame.from_dict(table, orient="index", columns=["rows", "value", "low", "high", "note"])


def _speed(
    store: Store,
    params: RollbackParams,
    trials: Counterfactuals,
    champion: Bundle,
    *,
    recorded: Sequence[Evidence],
) -> list[Evidence]:
    """Where the champion was too slow: is it the champion, or would its predecessor be as slow on this machine?"""
    slow = any(item.name == _LATENCY and item.outcome == "fail" for item in recorded)
    predecessor = store.champion().predecessor
    if not slow or predecessor is None:
        return []
    rows = champion.golden if trials.whole is None else trials.whole.rows
    candidates = {"champion": champion, "predecessor": load_version(store, predecessor)}
    return latency_evidence(candidates, rows, limit_ms=params.slo["latency_p99_ms"])


def _worth(
    params: RollbackParams, trials: Counterfactuals, *, look: int, known: Mapping[str, Any]
) -> list[Evidence]:
    """Is a row worth less than before the champion served? Tells, and does not act: another model may not help."""
    before = known.get("metrics", {}).get("value")
    if trials.whole is None or "champion" not in trials.whole.worth or not before or before["low"] is None:
        return []
    values = trials.whole.worth["champion"].to_numpy(dtype=float)
    there = np.isfinite(values)
    name, note = "performance.value", "fall in the mean business value since the champion was trained"
    labels = enough(
        name, values[there], trials.whole.days[there], min_rows=params.min_rows, min_blocks=params.min_blocks
    )
    if labels.outcome != "pass":
        return [labels]
    usual = np.full(int(there.sum()), before["value"])
    margin = before["value"] - before["low"]  # how well the usual value is known
    settings: dict[str, Any] = {"confidence": params.confidence, "look": look, "note": note}
    return [
        alternative(name, usual, values[there], blocks=trials.whole.days[there], limit=margin, **settings)
    ]


def look_number(params: Facts, bundle: Bundle) -> int:
    """How many windows of this length the version has served by now, this one included: 1, 2, ...

    Each look spends its own part of the allowed error, so that all looks together keep it.
    """
    length = params.window.end - params.window.start
    return 1 + max(0, int((params.window.start - bundle.holdout.end) / length))


def health_evidence(
    store: Store, params: RollbackParams, trials: Counterfactuals, *, version: int
) -> list[Evidence]:
    """Rung 2: could the champion answer, as fast as promised, and could its predecessor on the same requests?"""
    found, limits = [], params.slo
    if trials.whole is not None and "error_share" in limits:
        n, limit = len(trials.whole.rows), limits["error_share"]
        for name in ("champion", "predecessor"):
            if name in trials.whole.errors:
                failed = round(trials.whole.errors[name] * n)
                note = f"share of rows that the {name} could not answer"
                least = params.min_rows
                found.append(
                    share_at_most(
                        f"health.{name}", failed, n=n, limit=limit, min_rows=least, rung=2, note=note
                    )
                )
    table = store.metrics(notebook="score", version=version, window=params.window)
    kept = table.drop_duplicates("name", keep="last").set_index("name")
    for name in kept.index.intersection([name for name in limits if name != "error_share"]):
        value, n = float(kept.loc[name, "value"]), int(kept.loc[name, "n"])
        note = f"{name} as recorded when this window was scored"
        found.append(at_most(f"health.{name}", value, limit=limits[name], n=n, rung=2, note=note))
    return found


def performance_evidence(
    params: RollbackParams,
    trials: Counterfactuals,
    *,
    look: int,
    earlier: Mapping[str, pd.Series[float]] | None = None,
    memory: tuple[float, int] | None = None,
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
        earlier: daily gains of earlier windows of this champion, by day, of each alternative (:func:`daily_gains`).
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
    found = [labels, *strange]
    for who, limit, note in (
        (
            "predecessor",
            params.rollback_margin,
            "gain in mean loss, had the predecessor served since the promotion",
        ),
        (
            "predecessor_ranking",
            params.ranking_margin,
            "gain in AUC within a day, had the predecessor served since then",
        ),
    ):
        if who in gains:
            found.append(
                _since(
                    params,
                    who,
                    gains[who],
                    past=past.get(who),
                    look=look,
                    memory=memory,
                    limit=limit,
                    note=note,
                )
            )
    note = "gain in mean loss, had the simple rule served these rows"
    other = whole.losses["baseline"].to_numpy()
    alone: dict[str, Any] = {"limit": 0.0, "look": look, "confidence": params.confidence}
    found.append(alternative("performance.baseline", champion, other, blocks=whole.days, note=note, **alone))
    if newest is None:
        missing = trials.missing["challenger"]
        return [*found, Evidence("performance.challenger", "inconclusive", rung=3, note=missing)]
    before, after = (newest.losses[name].to_numpy() for name in ("champion", "challenger"))
    labels = enough("performance.challenger", before, newest.days, **needed)
    if labels.outcome != "pass":
        return [*found, labels]
    days = _joined(past.get("challenger"), gains["challenger"])
    recalled = _recalled(days, memory)
    usual = _usual(past.get("challenger"), days, memory)
    cost: dict[str, Any] = {"limit": params.retrain_cost, "confidence": (1 + params.confidence) / 2}
    note = "gain in mean loss, had a freshly trained model served the newest rows"
    window = alternative(
        "performance.challenger",
        before,
        after,
        blocks=newest.days,
        look=look,
        note=note,
        memory=usual,
        **cost,
    )
    note = f"gain in mean loss, had fresh models served all {len(days)} days since the champion was promoted"
    since = _daily(
        "performance.challenger_since", days, look=1, horizon=_HORIZON, note=note, memory=recalled, **cost
    )
    reasons = [window, since]
    if "challenger_ranking" in gains:
        note = "gain in AUC within a day, had a freshly trained model served the newest rows"
        each = gains["challenger_ranking"]
        settings = {"limit": params.ranking_margin, "confidence": (1 + params.confidence) / 2, "look": look}
        usual = _usual(past.get("challenger_ranking"), each, memory)
        reasons.append(_daily("performance.challenger_ranking", each, note=note, memory=usual, **settings))
    return [*found, *reasons, *_ways_out(params, trials, reasons=reasons)]


def _since(
    params: RollbackParams,
    who: str,
    gains: pd.Series[float],
    *,
    past: pd.Series[float] | None,
    look: int,
    memory: tuple[float, int] | None,
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


def _recalled(days: pd.Series[float], memory: tuple[float, int] | None) -> float:
    """How much a day's gain takes after that of the day before: by these days, and by what training knows."""
    figures = days.to_numpy(dtype=float)
    if memory is None:
        return dependence(figures)
    return dependence(figures, usual=memory[0], weight=min(memory[1], _TRUSTED))


def _usual(past: pd.Series[float] | None, days: pd.Series[float], memory: tuple[float, int] | None) -> float:
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


def _ranking(whole: Trial, who: str) -> pd.Series[float]:
    """By how much another one ranks the rows of each day better; nothing where that cannot be told.

    The loss of a model swings with the share of positives on a day, whatever the model is worth; how well it
    tells the rows of one day apart does not, so that it is quick to see.
    """
    pair = whole.predicted[who], whole.predicted["champion"]
    if not all(np.ndim(said) == 1 and np.isfinite(said).all() for said in pair) or set(whole.truth) != {0, 1}:
        return pd.Series(dtype=float)
    better, worse = (daily_auc(whole.truth, said, blocks=whole.days) for said in pair)
    gains = better - worse
    return gains.set_axis(pd.to_datetime(gains.index, unit="D"))


def _daily(name: str, gains: pd.Series[float], **settings: Any) -> Evidence:
    """An alternative that is judged by one figure a day."""
    values = gains.to_numpy(dtype=float)
    return alternative(name, values, np.zeros(len(values)), blocks=np.arange(len(values)), **settings)


def daily_gains(trials: Counterfactuals, *, least_days: int = 1) -> dict[str, pd.Series[float]]:
    """Mean gain of each alternative over the champion on each day that judged it: in loss, and in ranking.

    Those of the predecessor are of the whole window, those of the challenger of its newest part.
    """
    found = {}
    if trials.whole is not None and "predecessor" in trials.whole.losses:
        found["predecessor"] = _gain(trials.whole, "predecessor")
        found["predecessor_ranking"] = _ranking(trials.whole, "predecessor")
    if trials.newest is not None:
        found["challenger"] = _gain(trials.newest, "challenger")
        found["challenger_ranking"] = _ranking(trials.newest, "challenger")
    return {who: gains for who, gains in found.items() if len(gains) >= least_days}


def _gain(trial: Trial, who: str) -> pd.Series[float]:
    gain = trial.losses["champion"] - trial.losses[who]
    # a row without an answer leaves no mean of its day
    return gain.groupby(trial.dates).agg(lambda day: day.mean() if day.notna().all() else float("nan"))


def _remembered(store: Store) -> dict[str, str]:
    """The names in the store of a day's gains, of each alternative: those of a predecessor are about that version."""
    predecessor = store.champion().predecessor
    names = {who: f"gain.{who}.{predecessor}" for who in ("predecessor", "predecessor_ranking")}
    return {
        "challenger": _GAIN,
        "challenger_ranking": f"{_GAIN}_ranking",
        **(names if predecessor is not None else {}),
    }


def earlier_gains(
    store: Store, params: RollbackParams, *, version: int, before: datetime, name: str = _GAIN
) -> pd.Series[float]:
    """Daily gains that earlier windows have recorded for this champion; each day as it was first judged."""
    table = store.metrics(name=name, version=version, until=params.moment)
    table = table[table["window_start"] < before].drop_duplicates("window_start", keep="first")
    return table.set_index("window_start")["value"].dropna()


def remember_trial(store: Store, params: RollbackParams, trials: Counterfactuals, *, version: int) -> None:
    """Leave the daily gains in the store, for the windows to come."""
    names, found = _remembered(store), daily_gains(trials)
    rows = [
        {
            "run_id": current_run(params),
            "notebook": params.notebook,
            "version": version,
            "window_start": pd.Timestamp(day).isoformat(),
            "window_end": (pd.Timestamp(day) + pd.Timedelta(days=1)).isoformat(),
            "name": names[who],
            "value": float(gain),
            "low": None,
            "high": None,
            "n": 1,
            "known_at": params.moment.isoformat(),
        }
        for who, gains in found.items()
        if who in names
        for day, gain in zip(gains.dropna().index, gains.dropna().to_numpy(), strict=True)
    ]
    store.record_metrics(rows)


def gain_table(evidence: Sequence[Evidence]) -> pd.DataFrame:
    """What each alternative would have gained: value, low, high."""
    names = ("predecessor", "challenger", "challenger_since", "baseline")
    known = {f"performance.{name}": name for name in names}
    rows = {known[item.name]: (item.value, item.low, item.high) for item in evidence if item.name in known}
    return pd.DataFrame.from_dict(rows, orient="index", columns=["value", "low", "high"], dtype=float)
