"""How well a model does where no label is known yet: what can be estimated, how surely, and when nothing can be.

Classes: the chance of each is what came of rows with the same score (confidence-based performance estimation, with
isotonic calibration on rows that the model had not seen). Quantities: a model of the loss (direct loss estimation).
Both take it that rows with the same score, or the same columns, still behave as they did. What no estimate can see is a
change in that: only labels can.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy import stats

from prodkit.data.windows import blocks
from prodkit.errors import DataError, ProdkitError
from prodkit.evidence import Estimate, Evidence, Outcome
from prodkit.models.blocks import dependence
from prodkit.models.bundle import Bundle
from prodkit.models.calibration import CalibrationSet
from prodkit.models.domain import Domain, domain
from prodkit.models.expected import class_chances, class_shares, expected_worth
from prodkit.params import PRIMARY, ProjectParams, Task

__all__ = ["Estimated", "estimate_evidence", "estimated", "window_estimate"]

Floats = NDArray[np.float64]

_LEAST_ROWS, _LEAST_DAYS, _LEAST_OF_CLASS = 300, 5, 20  # of the calibration set
_LEAST_WINDOW = 50  # rows
_MOST_WEIGHT = 20.0
_STRANGE = 20.0  # times as frequent as in the reference: a row that it does not know
_MOST_STRANGE = 1 / 3  # share of such rows
_MOST_APART = 0.95  # AUC at which nearly every row of a window can be told from the reference
_SPREAD_BINS = 20


@dataclass(frozen=True)
class Estimated:
    """What is estimated of a window.

    Attributes:
        scores: by name, each with an interval that the realised figure should fall into; empty if none can be given.
        abstained: why none can be given; empty otherwise.
        domain: how the window differs from the calibration set; None if that was not tried.
        rows: of the window.
    """

    scores: dict[str, Estimate] = field(default_factory=dict)
    abstained: str = ""
    domain: Domain | None = None
    rows: int = 0


def window_estimate(
    rows: pd.DataFrame, params: ProjectParams, *, bundle: Bundle, confidence: float = 0.95, distrust: str = ""
) -> Estimated:
    """Estimate what a version's answers to a window are worth: of the rows alone, without a look at any label.

    Args:
        rows: of the window.
        params: of the run.
        bundle: the version that answered.
        confidence: of the intervals.
        distrust: why it was not asked; then nothing is estimated.
    """
    if distrust:
        return Estimated(abstained=f"the model was not asked: {distrust}", rows=len(rows))
    if bundle.calibration is None:
        why = "the version was trained before calibration rows were kept with it: train it again"
        return Estimated(abstained=why, rows=len(rows))
    try:
        said, columns = bundle.predict(rows), bundle.calibration.encode(rows)
    except ProdkitError as error:
        return Estimated(abstained=f"the model does not answer: {error}", rows=len(rows))
    days = blocks(rows[params.time_column])
    return estimated(bundle.calibration, columns, said, days=days, confidence=confidence, seed=params.seed)


def estimate_evidence(
    found: Estimated, *, task: Task, reference: Mapping[str, Estimate], margin: float, window: str
) -> Evidence:
    """Rung 4: is the estimated loss credibly higher than it was before the version served?

    ``fail`` (which asks to watch, and no more) if its whole interval lies above the upper end of the reference and a
    margin; ``pass`` if its value does not; ``inconclusive`` between, and where nothing could be estimated.

    Args:
        found: what was estimated.
        task: of the version.
        reference: figures from before it served, by name.
        margin: rise of the loss that is nobody's business, as a share of the reference.
        window: which one, in words.
    """
    name = "estimated.loss"
    if found.abstained:
        note = f"performance on {window} is not estimated: {found.abstained}"
        return Evidence(name, "inconclusive", n=found.rows, rung=4, note=note)
    loss, known = found.scores[PRIMARY[task]], reference.get(PRIMARY[task])
    note = f"mean loss on {window} as estimated without its labels"
    ends: dict[str, Any] = {"n": found.rows, "rung": 4}
    if known is None or not np.isfinite(known.high):
        return Evidence.of(name, "inconclusive", loss, **ends, note=f"{note}; nothing to hold it against")
    limit = known.high + margin * known.value
    outcome: Outcome = "fail" if loss.low > limit else "pass" if loss.value <= limit else "inconclusive"
    return Evidence.of(name, outcome, loss, limit=limit, **ends, note=note)


def estimated(
    calibration: CalibrationSet,
    columns: np.ndarray,
    predicted: np.ndarray,
    *,
    days: np.ndarray,
    confidence: float = 0.95,
    seed: int = 0,
) -> Estimated:
    """Estimate the performance on a window without its labels, or say why that cannot be done.

    The value rests on what the model says; where the inputs have moved, the same is estimated once more from the rows
    of the calibration set that resemble the window's (importance weighting by a domain classifier), and the interval
    holds both. It is one for the realised figure: it counts the chance of labels, what rows of one day have in
    common, and the error of the calibration.

    Args:
        calibration: kept with the version.
        columns: (n, m) the window's, by ``calibration.encode``.
        predicted: (n,) or (n, k) what the model said.
        days: (n,) day of each row.
        confidence: of the intervals.
        seed: of the folds.
    """
    rows, task = len(predicted), calibration.task
    why = _unfit(calibration, np.asarray(predicted, dtype=float))
    if why:
        return Estimated(abstained=why, rows=rows)
    try:
        found = domain(calibration.columns, columns, days=(calibration.days, days),
                       categorical=calibration.categorical, seed=seed)  # fmt: skip
    except DataError as error:
        return Estimated(abstained=str(error), rows=rows)
    strange = found.beyond(_STRANGE)
    if found.auc.value > _MOST_APART or strange > _MOST_STRANGE:
        told = f"its rows can be told from them with an AUC of {found.auc.value:.2f}"
        why = f"the window lies outside what the calibration rows support: {told}, and {strange:.0%} resemble none"
        return Estimated(abstained=why, domain=found, rows=rows)
    weights = np.minimum(found.weights, _MOST_WEIGHT)
    window = _Window(np.asarray(predicted, dtype=float), np.asarray(columns, dtype=float), days)
    plain, moved = (
        (_quantities if task == "regression" else _classes)(calibration, window, each, confidence)
        for each in (np.ones(len(weights)), weights / weights.mean())
    )
    both = {
        name: Estimate(
            each.value, min(each.low, moved[name].low), max(each.high, moved[name].high), rows, each.blocks
        )
        for name, each in plain.items()
    }
    return Estimated(both, domain=found, rows=rows)


def _unfit(calibration: CalibrationSet, predicted: Floats) -> str:
    """Why nothing can be estimated at all; empty if something can."""
    if len(predicted) < _LEAST_WINDOW:
        return f"the window has {len(predicted)} rows; needed are {_LEAST_WINDOW}"
    if not np.isfinite(predicted).all():
        return "a prediction is not a number"
    rows, days = len(calibration.truth), len(np.unique(calibration.days))
    if rows < _LEAST_ROWS or days < _LEAST_DAYS:
        return f"{rows} calibration rows on {days} days; needed are {_LEAST_ROWS} on {_LEAST_DAYS}"
    if calibration.task != "regression":
        k = len(calibration.schema.classes)
        fewest = np.bincount(calibration.truth.astype(int), minlength=k)
        if fewest.min() < _LEAST_OF_CLASS:
            rare = calibration.schema.classes[int(fewest.argmin())]
            return f"{fewest.min()} calibration rows of class {rare}; needed are {_LEAST_OF_CLASS}"
    return ""


@dataclass(frozen=True)
class _Window:
    predicted: Floats
    columns: Floats
    days: np.ndarray


def _classes(
    calibration: CalibrationSet, window: _Window, weights: Floats, confidence: float
) -> dict[str, Estimate]:
    """Every score of a classification."""
    truth = calibration.truth.astype(np.int64)
    then, now = (
        class_shares(np.asarray(said, dtype=float)) for said in (calibration.predicted, window.predicted)
    )
    chances, known = class_chances(truth, then, [now, then], weights=weights)
    ratio = _score_ratio(then, now) * weights
    found = {}
    for name, (value, worth) in expected_worth(chances, now, task=calibration.task).items():
        mean = (chances * worth(now)).sum(axis=1)
        noise = (chances * worth(now) ** 2).sum(axis=1) - mean**2
        at = worth(then)
        rest = at[np.arange(len(at)), truth] - (known * at).sum(axis=1)
        spread = (known * at**2).sum(axis=1) - (known * at).sum(axis=1) ** 2
        error = _error(rest, spread, calibration.days, ratio, noise=noise, days=window.days)
        found[name] = _around(name, value, error, window, calibration, confidence)
    return found


def _quantities(
    calibration: CalibrationSet, window: _Window, weights: Floats, confidence: float
) -> dict[str, Estimate]:
    """Mean absolute and root mean squared error of a regression: the loss model's mean and what it missed then."""
    model = calibration.loss_model
    assert model is not None
    losses = np.abs(calibration.truth - calibration.predicted)
    said = model.predict(window.columns, window.predicted)
    parts = {"mae": (losses, model.expected, said),
             "rmse": (losses**2, model.square * model.expected**2, model.square * said**2)}  # fmt: skip
    found = {}
    for name, (then, expected, now) in parts.items():
        rest = then - expected
        bias = float((weights * rest).sum() / weights.sum())
        value = max(0.0, float(now.mean()) + bias)
        rest = rest - bias
        # the error of a row is as large as its expectation is
        scale = float((rest**2).sum() / max(float((expected**2).sum()), 1e-300))
        error = _error(
            rest, scale * expected**2, calibration.days, weights, noise=scale * now**2, days=window.days
        )
        if name == "rmse":
            value = float(np.sqrt(value))
            error = error / (2 * value) if value > 0 else error
        found[name] = _around(name, value, error, window, calibration, confidence)
    return found


def _error(
    rest: Floats, spread: Floats, then: np.ndarray, ratio: Floats, *, noise: Floats, days: np.ndarray
) -> float:
    """Standard error of a realised mean about its estimate: calibration, chance of labels, and what days share.

    Args:
        rest: (n,) what came true in the calibration set, less what was expected.
        spread: (n,) variance of each expected by chance alone.
        then: (n,) day of each.
        ratio: (n,) weights under which the calibration set looks like the window.
        noise: (k,) variance by chance of each row of the window.
        days: (k,) its days.
    """
    _, place = np.unique(then, return_inverse=True)
    sums, chance, sizes = (np.bincount(place, each) for each in (rest, spread, np.ones(len(rest))))
    count = len(sums)
    shared = max(0.0, float(((sums**2) * count / (count - 1) - chance).sum() / (sizes**2).sum()))
    phi = dependence(sums / sizes) if shared > 0 else 0.0
    inflation = (1 + phi) / (1 - phi)
    weighted = np.bincount(place, ratio * rest) / ratio.sum()
    calibrating = float((weighted**2).sum()) * count / (count - 1)
    calibrating *= inflation if shared > 0 else 1.0
    _, now = np.unique(days, return_counts=True)
    common = shared * inflation * float((now**2).sum())
    return float(np.sqrt(calibrating + (float(noise.sum()) + common) / len(days) ** 2))


def _around(
    name: str, value: float, error: float, window: _Window, calibration: CalibrationSet, confidence: float
) -> Estimate:
    count = len(np.unique(calibration.days))
    half = float(stats.t.ppf((1 + confidence) / 2, count - 1)) * error
    top = 1.0 if name in ("roc_auc", "accuracy", "brier") else np.inf
    blocks = len(np.unique(window.days))
    return Estimate(value, max(0.0, value - half), min(top, value + half), len(window.days), blocks)


def _score_ratio(then: Floats, now: Floats) -> Floats:
    """How much more frequent each score (n,) of the calibration set is in the window, over bins of its lead score."""
    old, new = (side[:, 1] if side.shape[1] == 2 else side.max(axis=1) for side in (then, now))
    cuts = np.unique(np.quantile(old, np.arange(1, _SPREAD_BINS) / _SPREAD_BINS))
    before, after = (np.searchsorted(cuts, side, side="right") for side in (old, new))
    sizes = [np.bincount(side, minlength=len(cuts) + 1) / len(side) for side in (before, after)]
    ratio: Floats = (sizes[1] / np.maximum(sizes[0], 1 / len(old)))[before]
    return ratio
