"""A window beside the champion's training: is its input broken, and what has drifted?"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import cached_property
from typing import Any

import numpy as np
import pandas as pd

from prodkit.data.windows import Read, blocks, read_window, shared_names, timeless_rows
from prodkit.decisions.holds import Broken, broken, references
from prodkit.decisions.soundness import repetition, stale_batch
from prodkit.drift.compare import compare_columns, comparison, wasserstein
from prodkit.drift.contract import breaks, timeless_evidence
from prodkit.drift.counts import column_profile, profile
from prodkit.drift.profiles import ColumnProfile, Profile
from prodkit.drift.shifts import MIN_BLOCKS
from prodkit.errors import ParameterError, SchemaError
from prodkit.evidence import Evidence, Outcome, Window, overall, utc
from prodkit.models.bundle import Bundle, lead_score
from prodkit.params import DriftParams, MonitorParams, ProjectParams, RollbackParams
from prodkit.store.registry import Store

__all__ = [
    "DriftReport",
    "Inspection",
    "compare_to_training",
    "drift_evidence",
    "drift_report",
    "drift_table",
    "drill_evidence",
    "inspect_window",
    "missing_table",
    "prediction_drift",
    "standing_shift",
]

_MOVED = "drift.predictions"
_FAR = 1.5  # standard deviations in units of `min_effect`: as far as a shifted normal is at that distance


@dataclass(frozen=True)
class Inspection:
    """What the input of a window looks like, before anything is predicted from it.

    Attributes:
        current: summary of the window, on the bins of the champion's training.
        recent: the last sound feed before it.
        evidence: rung 1 of the ladder.
        bundle: of the champion.
        read: which rows these are, where they were read in chunks.
    """

    current: Profile
    recent: Profile
    evidence: list[Evidence]
    bundle: Bundle
    read: Read | None = None

    @property
    def sound(self) -> bool:
        """Nothing is broken."""
        return overall(self.evidence) == "pass"

    @cached_property
    def broken(self) -> Broken:
        """What is broken, and who answers these rows therefore."""
        return broken(self.evidence, self.bundle)

    @property
    def asked(self) -> Bundle:
        """The champion as it is asked about these rows: without the columns that are masked."""
        return self.bundle.without(self.broken.masked)


def inspect_window(
    store: Store, params: ProjectParams, rows: pd.DataFrame, *, version: int, bundle: Bundle
) -> Inspection:
    """Hold the window's rows against the champion's training and against the last sound window before it."""
    current = profile(rows, bundle.schema, blocks=blocks(rows[params.time_column]), like=bundle.profile)
    repeated = repetition(params, rows[shared_names(rows, params)], rows=len(rows))
    repeated = repeated or stale_batch(params, rows, bundle)
    return compare_to_training(store, params, current, version=version, bundle=bundle, repeated=repeated)


def compare_to_training(
    store: Store,
    params: ProjectParams,
    current: Profile,
    *,
    version: int,
    bundle: Bundle,
    repeated: Sequence[Evidence] = (),
) -> Inspection:
    """The same of rows of which only a summary, on the bins of the champion's training, is there.

    What :func:`prodkit.decisions.soundness.repetition` has found comes first.
    """
    _require_target(params, bundle)
    recent, training = references(store, params.window.start, version=version, bundle=bundle)
    evidence = breaks(
        recent, current, training=training, importance=bundle.importance, contract=params.contract
    )
    if repeated:
        known = {item.name for item in repeated}
        evidence = [item for item in evidence if item.outcome != "pass" and item.name not in known]
    notes = [*drill_evidence(params, bundle), *timeless_evidence(*timeless_rows(params))]
    evidence = [*notes, *repeated, *evidence]
    ways = broken(evidence, bundle).evidence(rows=current.rows)
    return Inspection(current, recent, [*evidence, *ways], bundle)


def _require_target(params: ProjectParams, bundle: Bundle) -> None:
    """A table need not have labels, so that a name which no column has would pass for one without any."""
    if params.target != bundle.schema.target:
        rule = "must be a column of the table and what the champion was trained to predict"
        fix = f"Did you mean {bundle.schema.target}? Set `target`."
        raise SchemaError(params.target, rule=rule, place=params.data, fix=fix)


def drill_evidence(params: ProjectParams, bundle: Bundle | None = None) -> list[Evidence]:
    """A line that says so if faults were put in on purpose, into this window or into the champion's training."""
    notes = {"these rows": params.drill, "the training of this version": bundle.drill if bundle else {}}
    return [
        Evidence(
            "drill",
            "pass",
            note=f"This is a drill: faults were put into {where} on purpose ({_faults(faults)})",
        )
        for where, faults in notes.items()
        if faults
    ]


def _faults(faults: dict[str, str]) -> str:
    return ", ".join(f"{column}: {fault}" for column, fault in faults.items())


@dataclass(frozen=True)
class DriftReport:
    """Everything that differs between the reference and a window.

    Attributes:
        columns: as :func:`prodkit.drift.compare.comparison` gives it, the most harmful first.
        predictions: the same figures for what the champion says.
        reference: summary of the reference rows, and
        current: of the window's, on the same bins.
        scores: summaries of the champion's predictions on both.
        alpha: false discovery rate that ``drifted`` rests on, and
        min_effect: the smallest shift.
        standing: see :func:`standing_shift`.
    """

    columns: pd.DataFrame
    predictions: dict[str, Any]
    reference: Profile
    current: Profile
    scores: tuple[ColumnProfile, ColumnProfile]
    alpha: float
    min_effect: float
    standing: float = math.nan


def drift_report(
    params: DriftParams | RollbackParams, rows: pd.DataFrame, *, bundle: Bundle, store: Store | None = None
) -> DriftReport:
    """Compare a window with the champion's training, with like days of it, or with the rows that ``reference`` names.

    A shift of its predictions that ``store`` knows of from earlier windows is not told again.

    Raises:
        ParameterError: training has fewer than five days like those of the window.
    """
    _require_target(params, bundle)
    repetition(params, rows[shared_names(rows, params)], rows=len(rows))  # refuses a few
    current = profile(rows, bundle.schema, blocks=blocks(rows[params.time_column]), like=bundle.profile)
    reference, scores = bundle.profile, bundle.scores
    if isinstance(params.reference, str):
        alike = _alike(reference.blocks, current.blocks, by=params.reference)
        if alike.sum() < MIN_BLOCKS:
            rule = f"must leave {MIN_BLOCKS} days of training or more that are like those of the window"
            fix = "Give the rows to compare with as start/end, or nothing for all of the training."
            told = f"{params.reference}: {alike.sum()} days"
            raise ParameterError("reference", rule=rule, value=told, fix=fix)
        reference, alike = reference.within(alike), _alike(scores.blocks, current.blocks, by=params.reference)
        if alike.sum() >= MIN_BLOCKS:  # predictions are kept of fewer days
            scores = scores.within(alike)
    elif params.reference is not None:
        earlier = read_window(params, params.reference, labels=False)
        reference = profile(
            earlier, bundle.schema, blocks=blocks(earlier[params.time_column]), like=bundle.profile
        )
        scores = _score_profile(params, earlier, bundle)
    columns = comparison(
        reference,
        current,
        alpha=params.alpha,
        min_effect=params.min_effect,
        importance=bundle.importance or None,
    )
    said, standing = _score_profile(params, rows, bundle), math.nan
    if store is not None and (version := store.champion().version):
        known = store.metric_rows(notebook="monitor", version=version, until=params.moment)
        standing = standing_shift(known, params.window, version=version)
    return DriftReport(
        columns,
        _predictions_moved(scores, said, bundle),
        reference,
        current,
        (scores, said),
        params.alpha,
        params.min_effect,
        standing,
    )


def _alike(days: np.ndarray, window: np.ndarray, *, by: str) -> np.ndarray:
    """Which days (n,) of training are of a weekday, or of a month of the year, that the window has."""
    kinds = {
        "weekday": lambda given: (given + 3) % 7,  # 1970 began with a Thursday
        "month": lambda given: given.astype("datetime64[D]").astype("datetime64[M]").astype(int) % 12,
    }
    return np.isin(kinds[by](days), kinds[by](window))


def prediction_drift(
    params: MonitorParams, rows: pd.DataFrame, *, bundle: Bundle, standing: float = math.nan
) -> Evidence:
    """Rung 5: have the champion's answers moved since its training?

    Args:
        params: of the run.
        rows: of the window.
        bundle: the champion.
        standing: see :func:`standing_shift`.
    """
    moved = _predictions_moved(bundle.scores, _score_profile(params, rows, bundle), bundle)
    settings: dict[str, Any] = {"alpha": params.alpha, "min_effect": params.min_effect, "standing": standing}
    return _of_predictions(moved, n=len(rows), look_at="what `drift` says of this window", **settings)


def standing_shift(known: Iterable[Mapping[str, Any]], window: Window, *, version: int) -> float:
    """The farthest that a version's answers were told to have moved in windows before this one; NaN if never.

    Args:
        known: rows of earlier runs as :meth:`Store.metric_rows` gives them.
        window: that is looked at.
        version: that answers it.
    """
    values: dict[str, dict[tuple[str, str], float]] = {_MOVED: {}, f"{_MOVED}.alarm": {}}
    for row in known:
        ended = utc(datetime.fromisoformat(row["window_end"])) <= utc(window.start)
        if ended and row["version"] == version and row["name"] in values:
            values[row["name"]][row["window_start"], row["window_end"]] = row["value"]
    told = values[f"{_MOVED}.alarm"]
    return max((value for key, value in values[_MOVED].items() if told.get(key)), default=math.nan)


def _of_predictions(
    moved: dict[str, Any], *, n: int, alpha: float, min_effect: float, standing: float, look_at: str
) -> Evidence:
    """The line about predictions: a shift is told once, and again when it has grown by ``min_effect``."""
    effect, limit = moved["effect"], max(min_effect, moved["floor"])
    if not np.isfinite(effect):
        note = f"what the champion answers cannot be compared: {moved['note']}"
        return Evidence(_MOVED, "pass", limit=limit, n=n, rung=5, note=note)
    sure, far = moved["p_value"] < alpha and effect >= limit, moved["wasserstein"]
    outcome: Outcome = "pass"
    note = "Jensen-Shannon distance of the champion's answers from those to rows it had not learned"
    if sure and far < max(_FAR * min_effect, moved["usual"]):
        note += f"; they are off by {far:.2g} standard deviations, as two trainings of it are"
    elif sure and effect < standing + min_effect:
        note += f"; told before, when it was {standing:.2g}: a standing difference"
    elif sure:
        outcome, note = "fail", f"the champion's predictions have moved; look at {look_at}"
    return Evidence(_MOVED, outcome, value=effect, limit=limit, n=n, rung=5, note=note)


def _predictions_moved(reference: ColumnProfile, current: ColumnProfile, bundle: Bundle) -> dict[str, Any]:
    """What differs between two summaries of predictions, and by how many deviations two trainings ``usual``-ly do.

    The reference is the last fold's. Beside it stand as many days before, of which the model of the fold before speaks.
    Predictions of few distinct values fill other bins whenever a model is fitted again, and are hardly off: so how
    far they are off (Wasserstein) must exceed what is usual, too.
    """
    moved, kept = compare_columns(reference, current) | {"usual": 0.0}, bundle.calibration
    if kept is None or not np.isfinite(moved["effect"]):
        return moved
    first, days = bundle.scores.blocks.min(), np.unique(kept.days)
    stretch = days[days < first][-int((days >= first).sum()) :]
    before = np.isin(kept.days, stretch)
    if len(stretch) >= MIN_BLOCKS:
        scores = column_profile(
            lead_score(kept.predicted[before]), blocks=kept.days[before], like=bundle.scores
        )
        moved["usual"] = float(np.nan_to_num(wasserstein(bundle.scores, scores)))
    return moved


def _score_profile(params: ProjectParams, rows: pd.DataFrame, bundle: Bundle) -> ColumnProfile:
    scores = lead_score(bundle.predict(rows))
    return column_profile(scores, blocks=blocks(rows[params.time_column]), like=bundle.scores)


def drift_evidence(report: DriftReport) -> list[Evidence]:
    """Rung 5: one line for each column that has drifted, one for the predictions; a pass if there is none."""
    n = report.current.rows
    found: list[Evidence] = []
    signals = {
        "": "has moved",
        "missing_": "has other missing values",
        "unseen_": "has levels new to the model",
    }
    for name, row in report.columns.iterrows():
        for prefix, said in signals.items():
            if row[f"{prefix}drifted"]:
                effect, limit = row[f"{prefix}effect"], max(report.min_effect, row[f"{prefix}floor"])
                kind = f".{prefix.rstrip('_')}" if prefix else ""
                note = f"{name} {said} since training"
                found.append(
                    Evidence(f"drift.{name}{kind}", "fail", value=effect, limit=limit, n=n, rung=5, note=note)
                )
    first = ", ".join(map(str, report.columns.index[:2]))
    settings: dict[str, Any] = {"alpha": report.alpha, "min_effect": report.min_effect}
    told = _of_predictions(report.predictions, n=n, standing=report.standing, look_at=first, **settings)
    found += [told] if told.outcome == "fail" else []
    if found:
        return found
    return [_nothing_drifted(report)]


def _nothing_drifted(report: DriftReport) -> Evidence:
    """The largest shift, held against the limit of its own column: one beyond it is not sure.

    Columns that could not be tested are told, each with the reason; ``inconclusive`` if none could.
    """
    untested = report.columns[report.columns["p_value"].isna()]
    why = "; ".join(f"{name}: {note}" for name, note in untested["note"].items())
    if len(untested) == len(report.columns):
        return Evidence(
            "drift.columns",
            "inconclusive",
            n=report.current.rows,
            rung=5,
            note=f"drift of columns is not known; {why}",
        )
    effects = report.columns["effect"].fillna(0.0)
    name = str(effects.idxmax())
    row: Any = report.columns.loc[name]
    effect, limit = float(effects[name]), max(report.min_effect, float(row["floor"]))
    note = f"no column of {len(report.columns)} has drifted; {name} has moved most"
    if effect >= limit:
        note += f", which is not sure (adjusted p-value {row['p_adjusted']:.2g})"
    note += f"; not known of {why}" if why else ""
    return Evidence(
        "drift.columns", "pass", value=effect, limit=limit, n=report.current.rows, rung=5, note=note
    )


def drift_table(report: DriftReport) -> pd.DataFrame:
    """All columns, the most harmful first: what decides, then the measures that others are used to.

    ``limit`` is what the effect must reach: the larger of ``min_effect`` and of what windows of the reference differ
    among themselves. ``drifted`` says what has: values, missing values, unseen levels.
    """
    table = report.columns
    signals = {"values": "drifted", "missing values": "missing_drifted", "unseen levels": "unseen_drifted"}
    said = [
        ", ".join(kind for kind, flag in signals.items() if row[flag]) or "no" for _, row in table.iterrows()
    ]
    limits = table["floor"].fillna(0.0).clip(lower=report.min_effect)
    names = ["kind", "effect", "limit", "p_adjusted", "drifted", "damage", "psi", "ks", "wasserstein"]
    return table.assign(limit=limits, drifted=said)[names]


def missing_table(report: DriftReport) -> pd.DataFrame:
    """Shares of missing values and of unseen levels, where there are any, with what is significant."""
    names = ["missing_reference", "missing_current", "missing_drifted", "unseen", "unseen_drifted"]
    table = report.columns[names]
    return table[(table[["missing_reference", "missing_current", "unseen"]] > 0).any(axis="columns")]
