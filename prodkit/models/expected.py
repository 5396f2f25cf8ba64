"""What a score of a classification is expected to be, where rows have only chances of coming true."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from sklearn.isotonic import isotonic_regression

from prodkit.params import Task

__all__ = ["Calibration", "class_chances", "class_shares", "expected_scores", "expected_worth"]

Floats = NDArray[np.float64]

_CLIP = 1e-6  # as in the losses that are realised
_KNOTS = 20_000  # bins of equal mass that scores are calibrated in


@dataclass(frozen=True)
class Calibration:
    """The chance of a class by score: a rising step function, frozen.

    Attributes:
        knots: (b,) mean scores of bins, rising.
        chances: (b,) what share of each came true, made monotone.
    """

    knots: Floats
    chances: Floats

    def __call__(self, scores: Floats) -> Floats:
        """The chance of each of (n,) scores; between knots linear, beyond them that of the last."""
        chances: Floats = np.interp(scores, self.knots, self.chances)
        return chances

    @classmethod
    def fit(cls, scores: Floats, came_true: Floats, *, weights: Floats | None = None) -> Calibration:
        """Isotonic regression over at most 20,000 bins of equal mass (Zadrozny & Elkan 2002).

        Args:
            scores: (n,) of rows that the model had not seen.
            came_true: (n,) 0 or 1.
            weights: (n,) of the rows; equal if not given.
        """
        order = np.argsort(scores)
        sorted_scores = scores[order]
        mass = np.ones(len(scores)) if weights is None else weights[order]
        edges = sorted_scores[np.arange(_KNOTS) * len(scores) // _KNOTS]
        starts = np.unique(np.searchsorted(sorted_scores, edges))  # equal scores share a bin
        whole = np.add.reduceat(mass, starts)
        kept, unit = whole > 0, np.where(whole > 0, whole, 1.0)
        knots, shares = (
            (np.add.reduceat(mass * each, starts) / unit)[kept] for each in (sorted_scores, came_true[order])
        )
        # a calibrated chance may be 0 or 1 as any other: it is no claim of the model, and no logarithm is taken of it
        return cls(
            knots, np.asarray(isotonic_regression(shares, sample_weight=whole[kept], y_min=0, y_max=1))
        )


def expected_scores(chances: Floats, scores: Floats, *, task: Task) -> dict[str, float]:
    """What each score is expected to be if each row comes true with its chance.

    Args:
        chances: (n, k) of each class, calibrated; rows add up to one.
        scores: (n, k) what the model says.
        task: binary or multiclass.

    >>> both = np.array([[0.8, 0.2], [0.1, 0.9]])
    >>> {name: round(value, 3) for name, value in expected_scores(both, both, task="binary").items()}
    {'log_loss': 0.413, 'roc_auc': 0.854, 'accuracy': 0.85, 'brier': 0.125}
    """
    return {name: value for name, (value, _) in expected_worth(chances, scores, task=task).items()}


def class_shares(predicted: Floats) -> Floats:
    """Predictions (n,) or (n, k) as shares of all classes (n, k)."""
    return np.column_stack([1 - predicted, predicted]) if predicted.ndim == 1 else predicted


def class_chances(
    truth: NDArray[np.int64], then: Floats, others: Sequence[Floats], *, weights: Floats | None = None
) -> list[Floats]:
    """The chance of each class (n, k) for several tables of shares (n, k), learned from what came of others.

    Each class is calibrated against the rest, of two only the second; then rows are made to add up to one.

    Args:
        truth: (m,) class indices.
        then: (m, k) what was said of them.
        others: tables of shares.
        weights: (m,) of the rows.
    """
    k = then.shape[1]
    told = range(1 if k == 2 else 0, k)
    curves = [Calibration.fit(then[:, one], (truth == one).astype(float), weights=weights) for one in told]
    found = []
    for shares in others:
        chances = np.column_stack([curve(shares[:, one]) for one, curve in zip(told, curves, strict=True)])
        if k == 2:
            found.append(np.column_stack([1 - chances[:, 0], chances[:, 0]]))
            continue
        total = chances.sum(axis=1, keepdims=True)
        found.append(np.where(total > 0, chances / np.where(total > 0, total, 1.0), 1 / k))
    return found


def expected_worth(
    chances: Floats, scores: Floats, *, task: Task
) -> dict[str, tuple[float, Callable[[Floats], Floats]]]:
    """By name, the expected score, and what a row of shares (n, k) adds to it if it comes to each class (n, k).

    Of the mean scores that is the row's own; of the area under the curve, it is the row's influence. Arguments as for
    :func:`expected_scores`.
    """
    k = scores.shape[1]
    rows: dict[str, Callable[[Floats], Floats]] = {
        "log_loss": lambda given: -np.log(given.clip(_CLIP, 1 - _CLIP)),
        "accuracy": lambda given: np.eye(k)[given.argmax(axis=1)],
    }
    if task == "binary":
        rows["brier"] = lambda given: (1 - given) ** 2
    found = {
        name: (float((chances * worth(scores)).sum() / len(scores)), worth) for name, worth in rows.items()
    }
    told = range(k) if task == "multiclass" else [1]
    ranked = [_ranking(chances[:, one], scores[:, one]) for one in told]
    area = sum(each.area * each.share for each in ranked) if task == "multiclass" else ranked[0].area
    found["roc_auc"] = float(area), _Ranked(ranked, task)
    return {name: found[name] for name in ("log_loss", "roc_auc", "accuracy", "brier") if name in found}


@dataclass(frozen=True)
class _Ranking:
    """The ROC curve of one class against the rest: its area, the class's share, and both cumulative shares."""

    area: float
    share: float
    scores: Floats  # distinct, falling
    hits: Floats  # cumulative share of the class at or above each
    misses: Floats

    def above(self, given: Floats, cumulative: Floats) -> Floats:
        """Share of a side that lies above each score, ties half."""
        ends = np.concatenate([[0.0], cumulative])
        left = np.searchsorted(-self.scores, -given, side="left")
        right = np.searchsorted(-self.scores, -given, side="right")
        share: Floats = (ends[left] + ends[right]) / 2
        return share


def _ranking(chances: Floats, scores: Floats) -> _Ranking:
    order = np.argsort(-scores)
    falling = scores[order]
    ends = np.append(np.flatnonzero(np.diff(falling)), len(order) - 1)
    hits = np.cumsum(chances[order])[ends]
    misses = ends + 1 - hits
    positives, negatives = hits[-1], misses[-1]
    with np.errstate(invalid="ignore", divide="ignore"):
        gained, missed = np.diff(hits, prepend=0.0), np.diff(misses, prepend=0.0)
        area = float((gained * (negatives - misses + missed / 2)).sum() / (positives * negatives))
        share = float(positives / len(scores))
        return _Ranking(area, share, falling[ends], hits / positives, misses / negatives)


@dataclass(frozen=True)
class _Ranked:
    """Influence of a row on the area under the curve (Hanley & Hajian-Tilaki 1997), if it comes to each class."""

    rankings: list[_Ranking]
    task: Task

    def __call__(self, given: Floats) -> Floats:
        if self.task == "binary":
            (one,) = self.rankings
            score = given[:, 1]
            yes = (1 - one.above(score, one.misses) - one.area) / one.share
            no = (one.above(score, one.hits) - one.area) / (1 - one.share)
            return np.column_stack([no, yes])
        yes, no = np.empty_like(given), np.empty_like(given)
        for k, one in enumerate(self.rankings):
            rest = 1 - one.share
            yes[:, k] = 1 - one.above(given[:, k], one.misses) + one.share * one.area / rest
            no[:, k] = one.share / rest * one.above(given[:, k], one.hits)
        worth: Floats = no.sum(axis=1, keepdims=True) - no + yes
        return worth
