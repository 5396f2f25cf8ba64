"""Drift that no single column shows: how columns go together, which labels come, and what a score is worth.

Each is a line of rung 5, which asks to watch and no more. All are held against the calibration rows of the version:
rows that it had not seen, with what it said of them and what came of them.
"""

from __future__ import annotations

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy import stats

from prodkit.data.cells import Kind
from prodkit.data.windows import blocks
from prodkit.drift.compare import compare_columns
from prodkit.drift.counts import column_profile
from prodkit.drift.shifts import combined, mean_shift_p
from prodkit.errors import DataError, ProdkitError
from prodkit.evidence import Evidence, Outcome
from prodkit.models.bundle import Bundle
from prodkit.models.calibration import CalibrationSet, class_chances, class_shares
from prodkit.models.estimate import Domain, domain
from prodkit.params import DriftParams, MonitorParams, RollbackParams

__all__ = ["concept_drift", "joint_drift", "label_drift", "wider_drift"]

Floats = NDArray[np.float64]

_LEAST_AUC = 0.6  # below, hardly a row can be told: about a third of a standard deviation in one column
_STRETCHES = 6  # of the calibration rows, held against the others
_USUAL_SPREAD = 0.08  # of the AUC of ten days that remember each other
_USUAL_STRETCHES = 5  # that this counts for
_ROWS = 4000  # of either side
_LEAST_ROWS = 200  # with a label
_GROUPS = 5  # of scores
_LEAST_GAP = 0.05  # mean gap of shares between what such scores came to and what they came to before
_LEAST_BIAS = 0.2  # the same of quantities, in standard deviations of what is left of them


def wider_drift(
    params: DriftParams | MonitorParams | RollbackParams,
    rows: pd.DataFrame,
    *,
    bundle: Bundle,
    joint: bool = True,
    usual: dict[int, float] | None = None,
) -> list[Evidence]:
    """The columns together, the labels that have matured, and what scores have come to.

    Args:
        params: of the run.
        rows: of the window; labels that are not known yet are missing.
        bundle: the version that answers them.
        joint: try to tell the window's rows from earlier ones, which takes a second or two.
        usual: see :func:`joint_drift`.

    Returns:
        One line each: ``fail`` if something has drifted, ``inconclusive`` if it cannot be told.
    """
    kept = bundle.calibration
    if kept is None:
        note = "the version was trained before calibration rows were kept with it"
        return [Evidence("drift.concept", "inconclusive", n=len(rows), rung=5, note=note)]
    days = blocks(rows[params.time_column])
    found = []
    if joint:
        found.append(joint_drift(kept, kept.encode(rows), days=days, seed=params.seed, usual=usual))
    known = kept.schema.knows(rows[params.target])
    if known.sum() < _LEAST_ROWS:
        note = f"{known.sum()} labels have matured; needed are {_LEAST_ROWS}"
        return [*found, Evidence("drift.concept", "inconclusive", n=int(known.sum()), rung=5, note=note)]
    part = rows[known]
    truth = kept.schema.encode(part[params.target])
    found.append(label_drift(kept, truth, days=days[known], alpha=params.alpha, min_effect=params.min_effect))
    try:
        said = bundle.predict(part)
    except ProdkitError as error:
        note = f"the model does not answer: {error}"
        return [*found, Evidence("drift.concept", "error", n=len(part), rung=5, note=note)]
    return [*found, concept_drift(kept, truth, said, days=days[known], alpha=params.alpha)]


def joint_drift(
    kept: CalibrationSet,
    columns: np.ndarray,
    *,
    days: np.ndarray,
    seed: int = 0,
    usual: dict[int, float] | None = None,
) -> Evidence:
    """Can the rows of a window be told from the calibration rows, better than stretches of these from each other?

    An AUC of trees that had not seen a row's day. It drifts if the interval lies above .5 and the value above .6 and
    above what is usual: the mean of six stretches of the calibration rows, each as long as the window or as half
    of them and held against the others, and Student's t times their spread, with which a usual one is mixed, since
    six say little of it. As a window has no days behind it, those that follow a stretch are left out.

    Args:
        kept: of the version.
        columns: (n, m) the window's, by ``kept.encode``.
        days: (n,).
        seed: of the folds.
        usual: by the number of a window's days, what stretches of these rows come to: found once is kept there.
    """
    name, note, n = (
        "drift.together",
        "AUC at which rows can be told from those of training, all columns together",
        len(columns),
    )
    try:
        auc = _told(kept, kept.columns, columns, (kept.days, days), seed).auc
    except DataError as error:
        return Evidence(name, "inconclusive", n=n, rung=5, note=f"{note}: {error}")
    limit = _LEAST_AUC
    if auc.value > limit and auc.low > 0.5:
        length, found = len(np.unique(days)), {} if usual is None else usual
        if length not in found:
            found[length] = _usual_auc(kept, length, seed)
        limit = max(limit, found[length])
    outcome: Outcome = "fail" if auc.value > limit and auc.low > 0.5 else "pass"
    return Evidence.of(name, outcome, auc, limit=limit, n=n, rung=5, note=note)


def _told(
    kept: CalibrationSet,
    before: np.ndarray,
    after: np.ndarray,
    days: tuple[np.ndarray, np.ndarray],
    seed: int,
) -> Domain:
    return domain(before, after, days=days, categorical=kept.categorical, seed=seed, most_rows=_ROWS)


def _usual_auc(kept: CalibrationSet, length: int, seed: int) -> float:
    """What one of twenty stretches of the calibration rows would exceed; 1 if they are too few days to say."""
    labels = np.unique(kept.days)
    length = min(length, len(labels) // 2 - 1)  # two days are left to hold a stretch against
    if length < 2:
        return 1.0
    found = []
    for start in np.linspace(0, len(labels) - length, _STRETCHES).astype(int):
        end = start + length
        inside = np.isin(kept.days, labels[start:end])
        rest = ~np.isin(kept.days, labels[start : end + length]) if start else ~inside
        pair = kept.days[rest], kept.days[inside]
        found.append(_told(kept, kept.columns[rest], kept.columns[inside], pair, seed).auc.value)
    df = _STRETCHES - 1 + _USUAL_STRETCHES
    squares = float(np.var(found) * _STRETCHES + _USUAL_STRETCHES * _USUAL_SPREAD**2)
    beyond = float(stats.t.ppf(0.95, df)) * np.sqrt((1 + 1 / _STRETCHES) * squares / df)
    return min(1.0, float(np.mean(found) + beyond))


def label_drift(
    kept: CalibrationSet, truth: np.ndarray, *, days: np.ndarray, alpha: float = 0.05, min_effect: float = 0.1
) -> Evidence:
    """Are labels that have matured other ones than before? The test, effect and floor of a column.

    Args:
        kept: of the version.
        truth: (n,) class indices or numbers.
        days: (n,).
        alpha: of the test.
        min_effect: Jensen-Shannon distance below which a shift is ignored.
    """
    kind: Kind = "numeric"
    sides = [kept.truth, truth]
    if kept.task != "regression":
        names = np.array([str(label) for label in kept.schema.classes], dtype=object)
        kind, sides = "categorical", [names[side.astype(int)] for side in sides]
    before = column_profile(sides[0], blocks=kept.days, kind=kind)
    shift = compare_columns(before, column_profile(sides[1], blocks=days, like=before))
    limit = max(min_effect, shift["floor"])
    drifted = shift["p_value"] < alpha and shift["effect"] >= limit
    note = "Jensen-Shannon distance of the labels that have matured from those of training"
    outcome: Outcome = "fail" if drifted else "pass" if np.isfinite(shift["p_value"]) else "inconclusive"
    value = shift["effect"] if np.isfinite(shift["effect"]) else None
    note += "; days differ as much by chance" if outcome == "pass" and shift["effect"] >= limit else ""
    return Evidence("drift.labels", outcome, value=value, limit=limit, n=len(truth), rung=5, note=note)


def concept_drift(
    kept: CalibrationSet, truth: np.ndarray, predicted: np.ndarray, *, days: np.ndarray, alpha: float = 0.05
) -> Evidence:
    """Do like scores still come to what they came to? A test of the calibration curve on labels that have matured.

    What came true, less its chance by the calibration rows, must have no mean and no slope over the score; days, whose
    dependence is learned from the calibration rows, are the units of both tests, which are combined. The value is
    the mean absolute gap over five groups of scores less what chance makes of it, of quantities the mean gap in
    standard deviations; it must be at least .05, or .2.

    Args:
        kept: of the version.
        truth: (n,) class indices or numbers.
        predicted: (n,) or (n, k) what the version said of these rows.
        days: (n,).
        alpha: of the test.
    """
    note = "gap between what such scores come to and what they came to in training"
    sides = _residuals(kept, truth, np.asarray(predicted, dtype=float))
    if not all(np.isfinite(side).all() for side in sides[1]):
        return Evidence(
            "drift.concept", "error", n=len(truth), rung=5, note=f"{note}: a prediction is not a number"
        )
    (before, old), (after, new) = sides
    centre, spread = float(old.mean()), float(old.std()) or 1.0
    p_values = []
    for slope in (False, True):
        profiles = [
            column_profile(rest * ((score - centre) / spread if slope else 1.0), blocks=labels)
            for rest, score, labels in ((before, old, kept.days), (after, new, days))
        ]
        p_values.append(
            mean_shift_p(*((each.block_n, each.block_means, each.block_m2s) for each in profiles))
        )
    p_value = combined([each for each in p_values if np.isfinite(each)])
    if kept.task == "regression":
        gap, limit = abs(float(after.mean() - before.mean())) / (float(before.std()) or 1.0), _LEAST_BIAS
    else:
        gap, limit = _gap(after, new, days), _LEAST_GAP
    drifted = p_value < alpha and gap >= limit
    outcome: Outcome = "fail" if drifted else "pass" if np.isfinite(p_value) else "inconclusive"
    note += "; days differ as much by chance" if outcome == "pass" and gap >= limit else ""
    return Evidence("drift.concept", outcome, value=gap, limit=limit, n=len(truth), rung=5, note=note)


def _residuals(
    kept: CalibrationSet, truth: np.ndarray, predicted: Floats
) -> tuple[tuple[Floats, Floats], tuple[Floats, Floats]]:
    """What is left of the outcome, and the score, of the calibration rows and of the window's."""
    said = np.asarray(kept.predicted, dtype=float)
    if kept.task == "regression":
        return (kept.truth - said, said), (truth - predicted, predicted)
    then, now = class_shares(said), class_shares(predicted)
    chances = class_chances(kept.truth.astype(np.int64), then, [then, now])
    found = []
    for shares, expected, came in zip((then, now), chances, (kept.truth, truth), strict=True):
        top = np.full(len(shares), 1) if shares.shape[1] == 2 else shares.argmax(axis=1)
        each = np.arange(len(shares))
        found.append(((came == top) - expected[each, top], shares[each, top]))
    return found[0], found[1]


def _gap(rest: Floats, scores: Floats, days: np.ndarray) -> float:
    """Mean absolute gap over groups of scores of equal size, less what differs between days by chance."""
    cuts = np.unique(np.quantile(scores, np.arange(1, _GROUPS) / _GROUPS))
    groups = np.searchsorted(cuts, scores, side="right")
    total = 0.0
    for group in np.unique(groups):
        inside = groups == group
        _, place = np.unique(days[inside], return_inverse=True)
        sums = np.bincount(place, rest[inside])
        chance = float((sums**2).sum()) / inside.sum() ** 2
        mean = float(rest[inside].mean())
        total += np.sqrt(max(0.0, mean**2 - chance)) * inside.mean()
    return float(total)
