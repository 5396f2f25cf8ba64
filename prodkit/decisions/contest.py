"""Challenger against champion on the newest labelled rows, and the evidence that promotes or rejects."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from prodkit.data.schema import Schema
from prodkit.data.windows import read_window
from prodkit.decisions.cooldown import cooldown
from prodkit.decisions.gates import at_most, enough, improvement, judged, known_classes, not_inferior, slices
from prodkit.decisions.paired import difference
from prodkit.decisions.trial import Trial, run_trial, unseen_rows
from prodkit.errors import VersionError
from prodkit.evidence import Evidence, Outcome
from prodkit.models.bundle import Bundle
from prodkit.models.metrics import intervals, scores
from prodkit.params import ValidateParams
from prodkit.store.registry import Store
from prodkit.store.workspace import load_version

__all__ = ["Contest", "challenge", "contest_evidence", "slice_table"]


_FEW_LEVELS = 20


@dataclass(frozen=True)
class Contest:
    """A challenger and whom it would replace, on the same rows.

    Attributes:
        number: version of the challenger.
        challenger: its bundle.
        incumbent: ``champion``, or ``baseline`` when there is no champion yet.
        generation: of the champion that is judged.
        trial: predictions and losses of ``incumbent``, ``challenger`` and the challenger's simple rule, ``baseline``.
        recent: a rollback before this, see :func:`prodkit.decisions.cooldown.cooldown`.
    """

    number: int
    challenger: Bundle
    incumbent: str
    generation: int
    trial: Trial
    recent: Sequence[Evidence] = ()

    def daily_gain(self) -> pd.DataFrame:
        """Mean gain in skill of the challenger on each day."""
        gain = pd.DataFrame({"gain": self.trial.lost(self.incumbent) - self.trial.lost("challenger")})
        return gain.groupby(self.trial.dates).mean()


def slice_table(evidence: Sequence[Evidence]) -> pd.DataFrame:
    """The slices among the evidence: value, low, high of each, the worst first."""
    found = {item.name.removeprefix("slice."): item for item in evidence if item.name.startswith("slice.")}
    rows = {name: (item.value, item.low, item.high) for name, item in found.items()}
    return pd.DataFrame.from_dict(rows, orient="index", columns=["value", "low", "high"], dtype=float)


def challenge(store: Store, params: ValidateParams) -> Contest:
    """Put both to the labelled rows of the window that neither has seen.

    Raises:
        VersionError: no such challenger, or it is the champion already.
        DataError: the window cannot judge them.
    """
    pointer = store.champion()
    number = params.challenger or _newest(store)
    _require_new(store, number)
    challenger = load_version(store, number)
    champion = load_version(store, pointer.version) if pointer.version is not None else None
    rows = unseen_rows(read_window(params), params, *(b for b in (challenger, champion) if b))
    before: dict[str, Bundle | np.ndarray] = {"champion": champion} if champion is not None else {}
    before["baseline"] = challenger.fallback.predict(rows, schema=challenger.schema)
    trial = run_trial({**before, "challenger": challenger}, rows, params, schema=challenger.schema)
    return Contest(number, challenger, next(iter(before)), pointer.generation, trial, cooldown(store, params))


def _newest(store: Store) -> int:
    """The newest version that nobody has judged and taken back: one that was fitted again is none to be judged."""
    versions = store.versions()
    if not versions:
        raise VersionError("challenger", rule="must exist", value="an empty store", fix="Run train first.")
    barred = {version.manifest.get("judged") for version in versions if version.quarantined}
    able = [
        version.number
        for version in versions
        if not version.quarantined and version.number not in barred and "judged" not in version.manifest
    ]
    return max(able, default=versions[-1].number)


def _require_new(store: Store, number: int) -> None:
    """Raise VersionError if a version is the champion, what the champion was made from, or not to be judged."""
    pointer, version = store.champion(), store.version(number)
    champion = None if pointer.version is None else store.version(pointer.version)
    name, shown, fix = (
        "challenger",
        f"version {number}",
        "Run train for a new one, or name another `challenger`.",
    )
    if champion and number in (champion.number, champion.manifest.get("judged")):
        raise VersionError(name, rule="must not be the champion already", value=shown, fix=fix)
    if version.quarantined:
        fix = "Run train for a new one, or lift it: prodkit models quarantine VERSION --off."
        raise VersionError(name, rule="must not be in quarantine", value=shown, fix=fix)
    if judged := version.manifest.get("judged"):
        rule, fix = (
            "must be one that a training left",
            f"It is version {judged}, fitted again on all rows: name that.",
        )
        raise VersionError(name, rule=rule, value=shown, fix=fix)


def contest_evidence(params: ValidateParams, rivals: Contest) -> list[Evidence]:
    """Enough rows, better in the mean, no slice worse, calibrated, never without an answer."""
    trial = rivals.trial
    before, after = (trial.lost(name) for name in (rivals.incumbent, "challenger"))
    labels = enough("labels", after, trial.days, min_rows=params.min_rows, min_blocks=params.min_blocks)
    note = "share of rows that the challenger could not answer"
    answers = at_most("answers", trial.errors["challenger"], limit=0.0, n=len(trial.rows), note=note)
    if rivals.challenger.drill:
        note = f"it was trained in a drill, with faults put in on purpose: {rivals.challenger.drill}"
        return [Evidence("drill", "fail", note=note), labels, answers]
    if labels.outcome != "pass":
        return [labels, answers]
    settings: dict[str, Any] = {"blocks": trial.days, "confidence": params.confidence}
    if rivals.incumbent == "champion":
        better = not_inferior("gain.champion", before, after, limit=-params.tolerated_loss, **settings)
    else:
        better = improvement(
            "gain.baseline", before, after, margin=params.margin, seed=params.seed, **settings
        )
    strange = known_classes("labels.unknown_classes", trial.unknown_rows, rows=len(trial.rows))
    found = [better, labels, *strange, answers, *rivals.recent]
    found += _value(params, rivals)
    if trial.task != "regression":
        found.append(_calibration(params, rivals))
    return found + slices(
        trial.rows,
        before,
        after,
        columns=_sliced(params, rivals.challenger.schema),
        blocks=trial.days,
        min_rows=params.slice_min_rows,
        sure_rows=params.slice_sure_rows,
        margin=params.slice_margin,
        confidence=params.confidence,
        seed=params.seed,
    )


def _value(params: ValidateParams, rivals: Contest) -> list[Evidence]:
    """Refuses a challenger whose decisions are credibly worth less; a column is worth the same whoever predicts."""
    trial = rivals.trial
    if not isinstance(params.value, dict) or "challenger" not in trial.worth:
        return []
    after, before = (trial.worth[name].to_numpy(dtype=float) for name in ("challenger", rivals.incumbent))
    settings: dict[str, Any] = {"blocks": trial.days, "confidence": params.confidence, "seed": params.seed}
    gain = difference(after, before, **settings)
    outcome: Outcome = "error" if not np.isfinite(gain.value) else "fail" if gain.high < 0 else "pass"
    note = "gain of the challenger in mean business value"
    ends: dict[str, Any] = {"value": gain.value, "low": gain.low, "high": gain.high}
    return [Evidence("value", outcome, limit=0.0, n=gain.n, note=note, **ends)]


def _calibration(params: ValidateParams, rivals: Contest) -> Evidence:
    """Refuses a challenger only when its calibration error is credibly beyond the limit, and the incumbent's."""
    trial, name = rivals.trial, "calibration_error"
    settings: dict[str, Any] = {"blocks": trial.days, "confidence": params.confidence, "seed": params.seed}
    settings["weights"] = trial.weights
    before = scores(trial.truth, trial.predicted[rivals.incumbent], task=trial.task, weights=trial.weights)[
        name
    ]
    after = intervals(trial.truth, trial.predicted["challenger"], task=trial.task, **settings)[name]
    by_chance = math.sqrt(10 / after.n) / 3  # of ten groups, if every probability were true
    limit = max(params.calibration_limit, before, 2 * by_chance)
    note = f"mean gap between predicted and observed shares; the {rivals.incumbent} has {before:.3g}"
    interval: dict[str, Any] = {"value": after.value, "low": after.low, "high": after.high}
    return judged("validate", Evidence("calibration", "fail", limit=limit, n=after.n, note=note, **interval))


def _sliced(params: ValidateParams, schema: Schema) -> list[str]:
    """The columns whose levels are judged one by one: as told, else the categories with few levels."""
    few = [c.name for c in schema.features if c.kind == "categorical" and len(c.levels or ()) <= _FEW_LEVELS]
    return [name for name in params.slices if name in schema.names] if params.slices else few[:3]
