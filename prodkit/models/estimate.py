"""How well a model does where no label is known yet: what can be estimated, how surely, and when nothing can be.

Classes: the chance of each is the share of rows with the same score that came true (confidence-based performance
estimation, with isotonic calibration on rows that the model had not seen). Quantities: a model of the loss (direct loss
estimation). Both assume that rows with the same score, or the same columns, still behave as they did. No estimate can
see a change in that: only labels can.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from scipy import stats
from sklearn.ensemble import HistGradientBoostingClassifier

from prodkit.errors import DataError
from prodkit.evidence import Estimate, Evidence, Outcome
from prodkit.models.calibration import (
    CalibrationSet,
    calibrated,
    class_chances,
    class_shares,
    expected_worth,
    learnable,
)
from prodkit.models.estimators import threads_for
from prodkit.models.metrics import Floats, autocorrelation, intervals
from prodkit.params import PRIMARY, Task

__all__ = ["Domain", "Estimated", "domain", "estimate_evidence", "estimated"]

_FOLDS = 3
_LEAF_ROWS, _LEAF_DAYS = 40, 3  # that a leaf holds at least: trees that can name a day learn days by heart
_TREES: dict[str, Any] = {"max_iter": 40, "max_leaf_nodes": 15, "l2_regularization": 1.0,
                          "early_stopping": False}  # fmt: skip
_LEAST_ROWS, _LEAST_DAYS, _LEAST_OF_CLASS = 300, 5, 20  # of the calibration set
_LEAST_WINDOW = 50  # rows
_MOST_WEIGHT = 20.0
_STRANGE = 20.0  # times as frequent as in the reference: a row that it does not know
_MOST_STRANGE = 1 / 3  # share of such rows
_MOST_APART = 0.95  # AUC at which nearly every row of a window can be told from the reference
_SPREAD_BINS = 20


@dataclass(frozen=True)
class Domain:
    """How surely a window can be told from the reference, as a whole and row by row.

    Attributes:
        auc: of rows of either side, by trees that had not seen their days: .5 if they are alike, 1 if no row is.
        weights: (n,) how much more frequent rows like each of the reference are in the window; mean 1.
        odds: (k,) the same of the window's rows that were tried.
    """

    auc: Estimate
    weights: Floats
    odds: Floats

    def beyond(self, times: float = _STRANGE) -> float:
        """Share of the window's rows that are this many times as frequent there as in the reference."""
        return float((self.odds > times).mean())


def domain(
    reference: np.ndarray,
    current: np.ndarray,
    *,
    days: tuple[np.ndarray, np.ndarray],
    categorical: np.ndarray | None = None,
    seed: int = 0,
    most_rows: int = 10_000,
) -> Domain:
    """Tell two tables apart by histogram trees, cross-fitted over whole days.

    A row is judged by trees that have seen no row of its day, for rows of one day resemble each other. Each side counts
    half.

    Args:
        reference: (n, m) numbers, NaN where missing.
        current: (k, m) the same of the window.
        days: day of each row, (n,) and (k,).
        categorical: (m,) which columns are codes below 255.
        seed: of the folds.
        most_rows: of either side that are used, evenly taken.

    Raises:
        DataError: a side has rows of fewer than two days.

    Source: Lopez-Paz & Oquab (2017), Revisiting classifier two-sample tests; the odds as density ratio: Qin (1998).
    """
    for name, labels in zip(("reference", "window"), days, strict=True):
        if len(np.unique(labels)) < 2:
            raise DataError(name, rule="must hold rows of two days or more", value=f"{len(labels)} rows")
    taken = [np.arange(0, len(side), -(-len(side) // most_rows)) for side in (reference, current)]
    parts = [labels[part] for labels, part in zip(days, taken, strict=True)]
    fold = np.concatenate([_day_folds(labels, seed) for labels in parts])
    given = learnable(np.vstack([reference[taken[0]], current[taken[1]]]), fold)
    later = np.repeat([0, 1], [len(part) for part in taken])
    halves = np.where(later == 1, len(taken[0]) / len(taken[1]), 1.0)
    chances, others = np.full(len(given), 0.5), np.zeros(len(reference))
    a_day = max(len(labels) / len(np.unique(labels)) for labels in parts)
    leaf = max(1, int(min(max(_LEAF_ROWS, _LEAF_DAYS * a_day), len(given) / 10)))
    with threads_for(len(given)):
        for each in range(_FOLDS):
            rest = fold != each
            if rest.all() or len(np.unique(later[rest])) < 2:
                others += 0.5 / _FOLDS
                continue
            # Without weights, by which trees take ten times as long to find their bins; the calibration below has them.
            trees = HistGradientBoostingClassifier(
                **_TREES, min_samples_leaf=leaf, categorical_features=categorical, random_state=seed
            ).fit(given[rest], later[rest])
            chances[~rest] = trees.predict_proba(given[~rest])[:, 1]
            if len(reference) > len(taken[0]):
                others += trees.predict_proba(reference)[:, 1] / _FOLDS
    others[taken[0]] = chances[later == 0]  # by the trees that had not seen them
    labels = np.concatenate(parts)
    auc = intervals(later, chances, task="binary", blocks=labels * 2 + later, seed=seed)["roc_auc"]
    # calibrated on days that were not learned from, so that trees which know nothing weigh all rows the same
    honest = calibrated(chances, later.astype(float), weights=halves)
    odds, tried = (_odds(honest.predict(each)) for each in (others, chances[later == 1]))
    return Domain(auc, odds / odds.mean(), tried)


def _day_folds(days: np.ndarray, seed: int) -> np.ndarray:
    """The fold of each row (n,): whole days, dealt out evenly in a random order."""
    labels, place = np.unique(days, return_inverse=True)
    order = np.random.default_rng(seed).permutation(len(labels))
    return np.asarray((order % _FOLDS)[place])


def _odds(chances: Floats) -> Floats:
    inside = np.clip(chances, 1e-3, 1 - 1e-3)
    odds: Floats = inside / (1 - inside)
    return odds


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


def estimate_evidence(
    estimate: Estimated, *, task: Task, reference: Mapping[str, Estimate], margin: float, window: str
) -> Evidence:
    """Rung 4: is the estimated loss credibly higher than it was before the version served?

    ``fail`` (which asks to watch, and no more) if its whole interval lies above the upper end of the reference and a
    margin; ``pass`` if its value does not; ``inconclusive`` between, and where nothing could be estimated.

    Args:
        estimate: of the window.
        task: of the version.
        reference: figures from before it served, by name.
        margin: rise of the loss that is tolerated, as a share of the reference.
        window: which one, in words.
    """
    name = "estimated.loss"
    if estimate.abstained:
        note = f"performance on {window} is not estimated: {estimate.abstained}"
        return Evidence(name, "inconclusive", n=estimate.rows, rung=4, note=note)
    loss, known = estimate.scores[PRIMARY[task]], reference.get(PRIMARY[task])
    note = f"mean loss on {window} as estimated without its labels"
    ends: dict[str, Any] = {"n": estimate.rows, "rung": 4}
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

    The value rests on the predictions; where the inputs have moved, the same is estimated once more from the rows
    of the calibration set that resemble the window's (importance weighting by a domain classifier), and the interval
    holds both. It is one for the realised figure: it counts the chance of labels, what rows of one day have in
    common, and the error of the calibration.

    Args:
        calibration: kept with the version.
        columns: (n, m) the window's, by ``calibration.encode``.
        predicted: (n,) or (n, k) predictions of the version.
        days: (n,) day of each row.
        confidence: of the intervals.
        seed: of the folds.
    """
    rows, task, predicted = len(predicted), calibration.task, np.asarray(predicted, dtype=float)
    why = _unfit(calibration, predicted)
    if why:
        return Estimated(abstained=why, rows=rows)
    try:
        apart = domain(calibration.columns, columns, days=(calibration.days, days),
                       categorical=calibration.categorical, seed=seed)  # fmt: skip
    except DataError as error:
        return Estimated(abstained=str(error), rows=rows)
    strange = apart.beyond()
    if apart.auc.value > _MOST_APART or strange > _MOST_STRANGE:
        how = f"its rows can be told from them with an AUC of {apart.auc.value:.2f}"
        why = f"the window lies outside what the calibration rows support: {how}, and {strange:.0%} resemble none"
        return Estimated(abstained=why, domain=apart, rows=rows)
    weights = np.minimum(apart.weights, _MOST_WEIGHT)
    half = float(stats.t.ppf((1 + confidence) / 2, len(np.unique(calibration.days)) - 1))
    figures: dict[str, Estimate] = {}
    for each in (np.ones(len(weights)), weights / weights.mean()):
        if task == "regression":
            parts = _quantities(calibration, columns, predicted, days, weights=each)
        else:
            parts = _classes(calibration, predicted, days, weights=each)
        for name, (value, deviation) in parts.items():
            top = 1.0 if name in ("roc_auc", "accuracy", "brier") else np.inf
            low, high = max(0.0, value - half * deviation), min(top, value + half * deviation)
            plain = figures.setdefault(name, Estimate(value, low, high, rows, len(np.unique(days))))
            figures[name] = replace(plain, low=min(plain.low, low), high=max(plain.high, high))
    return Estimated(figures, domain=apart, rows=rows)


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
        classes = calibration.schema.classes
        fewest = np.bincount(calibration.truth.astype(int), minlength=len(classes))
        if fewest.min() < _LEAST_OF_CLASS:
            rare = classes[int(fewest.argmin())]
            return f"{fewest.min()} calibration rows of class {rare}; needed are {_LEAST_OF_CLASS}"
    return ""


def _classes(
    calibration: CalibrationSet, predicted: Floats, days: np.ndarray, *, weights: Floats
) -> dict[str, tuple[float, float]]:
    """Every score of a classification, with its standard error."""
    truth = calibration.truth.astype(np.int64)
    then, now = class_shares(calibration.predicted.astype(float)), class_shares(predicted)
    chances, known = class_chances(truth, then, [now, then], weights=weights)
    ratio = _score_ratio(then, now) * weights
    figures = {}
    for name, (value, worth) in expected_worth(chances, now, task=calibration.task).items():
        mean = (chances * worth(now)).sum(axis=1)
        noise = (chances * worth(now) ** 2).sum(axis=1) - mean**2
        at = worth(then)
        rest = at[np.arange(len(at)), truth] - (known * at).sum(axis=1)
        spread = (known * at**2).sum(axis=1) - (known * at).sum(axis=1) ** 2
        figures[name] = value, _error(rest, spread, calibration.days, ratio, noise=noise, days=days)
    return figures


def _quantities(
    calibration: CalibrationSet, columns: np.ndarray, predicted: Floats, days: np.ndarray, *, weights: Floats
) -> dict[str, tuple[float, float]]:
    """Mean absolute and root mean squared error of a regression: the loss model's mean and what it missed then."""
    model = calibration.loss_model
    assert model is not None
    losses = np.abs(calibration.truth - calibration.predicted)
    errors = model.predict(columns.astype(float), predicted)
    parts = {"mae": (losses, model.expected, errors),
             "rmse": (losses**2, model.square * model.expected**2, model.square * errors**2)}  # fmt: skip
    figures = {}
    for name, (then, expected, now) in parts.items():
        rest = then - expected
        bias = float((weights * rest).sum() / weights.sum())
        value = max(0.0, float(now.mean()) + bias)
        rest = rest - bias
        # the error of a row is as large as its expectation is
        scale = float((rest**2).sum() / max(float((expected**2).sum()), 1e-300))
        spread, noise = scale * expected**2, scale * now**2
        error = _error(rest, spread, calibration.days, weights, noise=noise, days=days)
        if name == "rmse":
            value = float(np.sqrt(value))
            error = error / (2 * value) if value > 0 else error
        figures[name] = value, error
    return figures


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
    phi = autocorrelation(sums / sizes) if shared > 0 else 0.0
    inflation = (1 + phi) / (1 - phi)
    weighted = np.bincount(place, ratio * rest) / ratio.sum()
    calibrating = float((weighted**2).sum()) * count / (count - 1) * inflation
    _, now = np.unique(days, return_counts=True)
    common = shared * inflation * float((now**2).sum())
    return float(np.sqrt(calibrating + (float(noise.sum()) + common) / len(days) ** 2))


def _score_ratio(then: Floats, now: Floats) -> Floats:
    """How much more frequent each score (n,) of the calibration set is in the window, over bins of its lead score."""
    old, new = (side[:, 1] if side.shape[1] == 2 else side.max(axis=1) for side in (then, now))
    cuts = np.unique(np.quantile(old, np.arange(1, _SPREAD_BINS) / _SPREAD_BINS))
    before, after = (np.searchsorted(cuts, side, side="right") for side in (old, new))
    sizes = [np.bincount(side, minlength=len(cuts) + 1) / len(side) for side in (before, after)]
    ratio: Floats = (sizes[1] / np.maximum(sizes[0], 1 / len(old)))[before]
    return ratio
