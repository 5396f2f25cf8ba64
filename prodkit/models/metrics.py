"""Scores, with their uncertainty.

Rows of one day share their weather, so days (``blocks``), not rows, are drawn again: a cluster bootstrap.
With too few blocks to exclude anything, the ends are infinite; what could not be measured is NaN.
Neighbouring days are taken as independent: where they are not, give weeks as blocks.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import stats

from prodkit.evidence import Estimate
from prodkit.models.blocks import block_codes
from prodkit.models.losses import Floats, checked, losses
from prodkit.models.reliability import claims, mass_bins
from prodkit.params import Task

__all__ = ["intervals", "scores"]

Ints = NDArray[np.int64]

_UNIT = ("roc_auc", "average_precision", "brier", "calibration_error", "accuracy")


def scores(y_true: ArrayLike, y_pred: ArrayLike, *, task: Task) -> dict[str, float]:
    """All scores of a task, by name; NaN where one is not defined (one class only, a prediction not finite).

    Args:
        y_true: (n,) class indices 0..k-1, or numbers.
        y_pred: (n,) probability of class 1; (n, k) probabilities; or (n,) numbers.
        task: binary, multiclass or regression.

    Raises:
        DataError: the two are not of one length, or of another shape than the task's.
        LabelError: labels that are no class indices.

    >>> scores([0, 0, 1, 1], [0.1, 0.4, 0.35, 0.8], task="binary")["roc_auc"]
    0.75
    """
    truth, guess = checked(y_true, y_pred, task)
    once = _resampled(truth, guess, np.zeros(len(truth), dtype=np.int64), np.ones((1, 1)), task)
    return {name: float(values[0]) for name, values in once.items()}


def intervals(
    y_true: ArrayLike,
    y_pred: ArrayLike,
    *,
    task: Task,
    blocks: ArrayLike,
    confidence: float = 0.95,
    repeats: int = 200,
    seed: int = 0,
) -> dict[str, Estimate]:
    """All scores, each with an interval: value -+ Student's t times the standard error of a block bootstrap.

    Whole blocks are resampled (Davison & Hinkley 1997, section 3.8; Cameron, Gelbach & Miller 2008); t has
    blocks - 1 degrees of freedom. Bins of the calibration error stay those of the sample. ``blocks`` is (n,):
    the day of each row.

    Raises:
        DataError, LabelError: as :func:`scores`; or a block is missing.
    """
    truth, guess = checked(y_true, y_pred, task)
    codes, count = block_codes(blocks, len(truth))
    found = scores(truth, guess, task=task)
    if count < 2:
        return {name: _around(name, value, np.inf, len(truth), count) for name, value in found.items()}
    draws = np.random.default_rng(seed).multinomial(count, np.full(count, 1 / count), size=repeats)
    again = _resampled(truth, guess, codes, draws.astype(float), task)
    widen = stats.t.ppf((1 + confidence) / 2, count - 1) * np.sqrt(count / (count - 1))
    return {
        name: _around(name, value, widen * _spread(again[name]), len(truth), count)
        for name, value in found.items()
    }


class _Draws:
    """Scores of rows under every draw at once: ``counts`` is (draws, blocks), how often a block was drawn."""

    def __init__(self, codes: Ints, counts: Floats) -> None:
        self.codes, self.counts = codes, counts
        self.size = self.total(np.ones(len(codes)))

    def total(self, rows: Floats) -> Floats:
        """The (draws,) sums of a (n,) column."""
        sums: Floats = self.counts @ np.bincount(self.codes, rows, minlength=self.counts.shape[1])
        return sums

    def mean(self, rows: Floats) -> Floats:
        """The (draws,) means of a (n,) column."""
        return self.total(rows) / self.size

    def calibration(self, hit: Floats, sure: Floats, bins: int = 10) -> Floats:
        """Expected calibration error, over the bins of the sample."""
        where, shape = mass_bins(sure, bins), (bins, self.counts.shape[1])
        cells = np.bincount(where * shape[1] + self.codes, sure - hit, minlength=shape[0] * shape[1])
        gaps: Floats = np.abs(self.counts @ cells.reshape(shape).T).sum(axis=1)
        return gaps / self.size

    def ranking(self, truth: Floats, score: Floats) -> tuple[Floats, Floats, Floats]:
        """Area under the ROC curve, average precision and share of positives, from one sort.

        Ties count half, as in Mann & Whitney's statistic.
        """
        order = np.argsort(-score, kind="stable")
        ends = np.append(np.flatnonzero(np.diff(score[order])), len(order) - 1)
        positive, codes = truth[order] == 1, self.codes[order]
        # Sums and not @ below: for vectors of this size, starting threads costs more than they do.
        area, precision, share = (np.empty(len(self.counts)) for _ in range(3))
        for draw, weights in enumerate(self.counts):
            weight = weights[codes]
            hits = np.cumsum(weight * positive)[ends]
            every = np.cumsum(weight)[ends]
            gained = np.diff(hits, prepend=0.0)
            misses = every - hits
            missed = np.diff(misses, prepend=0.0)
            pairs = (gained * (misses[-1] - misses + missed / 2)).sum()
            area[draw] = pairs / (hits[-1] * misses[-1])
            kept = (gained * hits / np.maximum(every, 1)).sum()
            precision[draw] = kept / hits[-1] if misses[-1] else np.nan
            share[draw] = hits[-1] / every[-1]
        return area, precision, share


def _resampled(truth: Floats, guess: Floats, codes: Ints, counts: Floats, task: Task) -> dict[str, Floats]:
    """Every score under every draw."""
    broken = len(truth) == 0 or not (np.isfinite(truth).all() and np.isfinite(guess).all())
    if broken:  # one score for all reasons: nothing was measured
        truth, guess = np.full(1, np.nan), np.full((1, 2) if guess.ndim == 2 else 1, np.nan)
        codes = np.zeros(1, dtype=np.int64)
    with np.errstate(invalid="ignore", divide="ignore"):
        found = _SCORES[task](truth, guess, _Draws(codes, counts))
    return {name: np.full(len(counts), np.nan) if broken else values for name, values in found.items()}


def _binary(truth: Floats, guess: Floats, draws: _Draws) -> dict[str, Floats]:
    area, precision, _ = draws.ranking(truth, guess)
    return {
        "log_loss": draws.mean(losses(truth, guess, "binary")),
        "roc_auc": area,
        "average_precision": precision,
        "brier": draws.mean((guess - truth) ** 2),
        "calibration_error": draws.calibration(truth, guess),
    }


def _multiclass(truth: Floats, guess: Floats, draws: _Draws) -> dict[str, Floats]:
    hit, sure = claims(truth, guess, "multiclass")
    ranked = [draws.ranking(truth == level, guess[:, level]) for level in range(guess.shape[1])]
    return {
        "log_loss": draws.mean(losses(truth, guess, "multiclass")),
        "roc_auc": np.sum([area * share for area, _, share in ranked], axis=0),
        "accuracy": draws.mean(hit),
        "calibration_error": draws.calibration(hit, sure),
    }


def _regression(truth: Floats, guess: Floats, draws: _Draws) -> dict[str, Floats]:
    error, centred = guess - truth, truth - truth.mean()
    square = draws.mean(error**2)
    variance = draws.mean(centred**2) - draws.mean(centred) ** 2
    return {
        "mae": draws.mean(np.abs(error)),
        "rmse": np.sqrt(square),
        "r2": 1 - square / np.where(variance > 0, variance, np.nan),
        "bias": draws.mean(error),
    }


_SCORES: dict[Task, Callable[[Floats, Floats, _Draws], dict[str, Floats]]] = {
    "binary": _binary,
    "multiclass": _multiclass,
    "regression": _regression,
}


def _spread(values: Floats) -> float:
    """Standard deviation of the draws that have a value; infinite when most have none."""
    known = values[np.isfinite(values)]
    return float(known.std()) if 2 * len(known) > len(values) else np.inf


def _around(name: str, value: float, half: float, n: int, blocks: int) -> Estimate:
    """The interval value -+ half, within what the score can be."""
    floor = 0.0 if name in (*_UNIT, "log_loss", "mae", "rmse") else -np.inf
    ceiling = 1.0 if name in (*_UNIT, "r2") else np.inf
    if not np.isfinite(value):
        return Estimate(value, value, value, n, blocks)
    return Estimate(value, float(max(value - half, floor)), float(min(value + half, ceiling)), n, blocks)
