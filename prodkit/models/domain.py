"""Can the rows of a window be told from those of the reference at all? A classifier tries, on rows it has not seen."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.ensemble import HistGradientBoostingClassifier

from prodkit.errors import DataError
from prodkit.evidence import Estimate
from prodkit.models.estimators import threads_for
from prodkit.models.expected import Calibration
from prodkit.models.metrics import intervals

__all__ = ["Domain", "domain"]

Floats = NDArray[np.float64]

_FOLDS = 3
_LEAF_ROWS, _LEAF_DAYS = 40, 3  # that a leaf holds at least: trees that can name a day learn days by heart
_TREES: dict[str, Any] = {"max_iter": 40, "max_leaf_nodes": 15, "l2_regularization": 1.0,
                          "early_stopping": False}  # fmt: skip


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

    @property
    def effective_share(self) -> float:
        """Kish's effective sample size of the weighted reference, as a share of its rows."""
        return float(self.weights.sum() ** 2 / (self.weights**2).sum() / len(self.weights))

    def beyond(self, times: float = 20.0) -> float:
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
    given = np.vstack([reference[taken[0]], current[taken[1]]])
    later = np.repeat([0, 1], [len(part) for part in taken])
    halves = np.where(later == 1, len(taken[0]) / len(taken[1]), 1.0)
    fold = np.concatenate([_folds(labels[part], seed) for labels, part in zip(days, taken, strict=True)])
    said, others = np.full(len(given), 0.5), np.zeros(len(reference))
    a_day = max(len(part) / len(np.unique(labels[part])) for labels, part in zip(days, taken, strict=True))
    leaf = int(min(max(_LEAF_ROWS, _LEAF_DAYS * a_day), len(given) / 10))
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
            said[~rest] = trees.predict_proba(given[~rest])[:, 1]
            if len(reference) > len(taken[0]):
                others += trees.predict_proba(reference)[:, 1] / _FOLDS
    others[taken[0]] = said[later == 0]  # by the trees that had not seen them
    labels = np.concatenate([days[0][taken[0]], days[1][taken[1]]])
    auc = intervals(later, said, task="binary", blocks=labels * 2 + later, seed=seed)["roc_auc"]
    # held against days that were not learned from, so that trees which know nothing weigh all rows the same
    honest = Calibration.fit(said, later.astype(float), weights=halves)
    odds = _odds(honest(others))
    return Domain(auc, odds / odds.mean(), _odds(honest(said[later == 1])))


def _folds(days: np.ndarray, seed: int) -> np.ndarray:
    """The fold of each row (n,): whole days, dealt out evenly in a random order."""
    labels, place = np.unique(days, return_inverse=True)
    order = np.random.default_rng(seed).permutation(len(labels))
    return np.asarray((order % _FOLDS)[place])


def _odds(chances: Floats) -> Floats:
    kept = np.clip(chances, 1e-3, 1 - 1e-3)
    odds: Floats = kept / (1 - kept)
    return odds
