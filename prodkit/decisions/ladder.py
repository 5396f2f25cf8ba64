"""The rungs of the evidence ladder that rest on trials and on what the store remembers: health and performance."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any

import numpy as np
import pandas as pd

from prodkit.data.windows import label_coverage
from prodkit.decisions.cooldown import cooldown
from prodkit.decisions.counterfactual import Counterfactuals
from prodkit.decisions.estimate import Estimated, estimate_evidence
from prodkit.decisions.gates import alternative, at_most, enough, known_classes
from prodkit.decisions.result import current_run
from prodkit.decisions.survey import Inspection
from prodkit.decisions.trial import Trial
from prodkit.evidence import Evidence
from prodkit.models.bundle import Bundle, measured
from prodkit.models.metrics import daily_auc, intervals
from prodkit.settings.params import PRIMARY, Facts, RollbackParams
from prodkit.store.registry import Store

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
    earlier = earlier_gains(
        store, params, version=version, before=min(params.window.start, trials.judged.start)
    )
    performance = performance_evidence(params, trials, look=look_number(params, bundle), earlier=earlier)
    estimates = []
    if outlook is not None:
        reference = measured(store.version(version).manifest)
        settings: dict[str, Any] = {"margin": params.retrain_cost, "window": "this window"}
        estimates = [estimate_evidence(outlook, task=bundle.schema.task, reference=reference, **settings)]
    return [*inspection.evidence, *health, *performance, *cooldown(store, params), *estimates, *shifts]


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
                share, note = trials.whole.errors[name], f"share of rows that the {name} could not answer"
                found.append(at_most(f"health.{name}", share, limit=limit, n=n, rung=2, note=note))
    table = store.metrics(notebook="score", version=version, window=params.window)
    kept = table.drop_duplicates("name", keep="last").set_index("name")
    for name in kept.index.intersection([name for name in limits if name != "error_share"]):
        value, n = float(kept.loc[name, "value"]), int(kept.loc[name, "n"])
        note = f"{name} as recorded when this window was scored"
        found.append(at_most(f"health.{name}", value, limit=limits[name], n=n, rung=2, note=note))
    return found


def performance_evidence(
    params: RollbackParams, trials: Counterfactuals, *, look: int, earlier: pd.Series[float] | None = None
) -> list[Evidence]:
    """Rung 3: would the predecessor, a fresh challenger or the simple rule have served better?

    A fresh challenger is held against the champion twice, each time with half of the allowed error: on this
    window alone, which sees a sudden change, and on all days since the promotion, which sees a slow one. Each
    of those days was judged by a challenger of its time, trained on what was labelled before that day.

    Args:
        params: of the run.
        trials: the candidates on the same rows.
        look: number of the window since the champion was validated.
        earlier: daily mean gains of earlier windows of this champion, by day.
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
    each = {
        "confidence": (1 + params.confidence) / 2
    }  # two ways to act on either alternative share the error
    found = [labels, *strange]
    if "predecessor" in whole.losses:
        other = whole.losses["predecessor"].to_numpy()
        note = "gain in mean loss, had the predecessor served these rows"
        margin: dict[str, Any] = {"limit": params.rollback_margin, "look": look, **each}
        found.append(
            alternative("performance.predecessor", champion, other, blocks=whole.days, note=note, **margin)
        )
        found += _ranking(params, whole, look=look)
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
    cost: dict[str, Any] = {"limit": params.retrain_cost, **each}
    note = "gain in mean loss, had a freshly trained model served the newest rows"
    window = alternative(
        "performance.challenger", before, after, blocks=newest.days, look=look, note=note, **cost
    )
    days = daily_gains(trials) if earlier is None else pd.concat([earlier, daily_gains(trials)])
    note = f"gain in mean loss, had fresh models served all {len(days)} days since the champion was promoted"
    since = _daily("performance.challenger_since", days, look=1, horizon=_HORIZON, note=note, **cost)
    return [*found, window, since]


def _ranking(params: RollbackParams, whole: Trial, *, look: int) -> list[Evidence]:
    """Does the predecessor rank the rows of a day better? Blind to what moves a whole day, so quick to see.

    The loss of a model swings with the share of positives on a day, whatever the model is worth; how well it
    tells the rows of one day apart does not.
    """
    pair = whole.predicted["predecessor"], whole.predicted["champion"]
    if not all(np.ndim(said) == 1 and np.isfinite(said).all() for said in pair) or set(whole.truth) != {0, 1}:
        return []
    better, worse = (daily_auc(whole.truth, said, blocks=whole.days) for said in pair)
    if len(better) < params.min_blocks:
        return []
    settings = {"limit": params.ranking_margin, "look": look, "confidence": (1 + params.confidence) / 2}
    note = f"gain in AUC within a day, had the predecessor served these {len(better)} days"
    return [_daily("performance.predecessor_ranking", better - worse, note=note, **settings)]


def _daily(name: str, gains: pd.Series[float], **settings: Any) -> Evidence:
    """An alternative that is judged by one figure a day."""
    values = gains.to_numpy(dtype=float)
    return alternative(name, values, np.zeros(len(values)), blocks=np.arange(len(values)), **settings)


def daily_gains(trials: Counterfactuals) -> pd.Series[float]:
    """Mean gain of the fresh challenger over the champion on each day that judged it."""
    if trials.newest is None:
        return pd.Series(dtype=float)
    losses = trials.newest.losses
    return (losses["champion"] - losses["challenger"]).groupby(trials.newest.dates).mean()


def earlier_gains(
    store: Store, params: RollbackParams, *, version: int, before: datetime
) -> pd.Series[float]:
    """Daily gains that earlier windows have recorded for this champion; each day as it was first judged."""
    table = store.metrics(name=_GAIN, version=version, until=params.moment)
    table = table[table["window_start"] < before].drop_duplicates("window_start", keep="first")
    return table.set_index("window_start")["value"].dropna()


def remember_trial(store: Store, params: RollbackParams, trials: Counterfactuals, *, version: int) -> None:
    """Leave the daily gains in the store, for the windows to come."""
    gains = daily_gains(trials)
    rows = [
        {
            "run_id": current_run(params),
            "notebook": params.notebook,
            "version": version,
            "window_start": pd.Timestamp(day).isoformat(),
            "window_end": (pd.Timestamp(day) + pd.Timedelta(days=1)).isoformat(),
            "name": _GAIN,
            "value": float(gain),
            "low": None,
            "high": None,
            "n": 1,
            "known_at": params.moment.isoformat(),
        }
        for day, gain in zip(gains.index, gains.to_numpy(), strict=True)
    ]
    store.record_metrics(rows)


def gain_table(evidence: Sequence[Evidence]) -> pd.DataFrame:
    """What each alternative would have gained: value, low, high."""
    names = ("predecessor", "challenger", "challenger_since", "baseline")
    known = {f"performance.{name}": name for name in names}
    rows = {known[item.name]: (item.value, item.low, item.high) for item in evidence if item.name in known}
    return pd.DataFrame.from_dict(rows, orient="index", columns=["value", "low", "high"], dtype=float)
