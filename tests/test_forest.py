"""Trees as tables of bits: the sums of scikit-learn's own, whatever the trees look like."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.ensemble import HistGradientBoostingClassifier, HistGradientBoostingRegressor

from prodkit.scoring.forest import Forest

ROWS = 3000


def columns(rows=ROWS, seed=0):
    """Numbers with missing values, few and many distinct ones, and the codes of a category (n, 4)."""
    draw = np.random.default_rng(seed)
    X = np.column_stack(
        [
            draw.normal(size=rows),
            draw.integers(0, 5, rows),
            draw.exponential(size=rows),
            draw.integers(0, 40, rows),
        ]
    ).astype(float)
    X[draw.random(X.shape) < 0.1] = np.nan
    return X


def rows_of(forest, X):
    """The rows of the table that belong to encoded values."""
    found = []
    for column in [column for column, first in enumerate(forest.first) if first >= 0]:
        values, first, missing = X[:, column], forest.first[column], forest.missing[column]
        if forest.categories[column]:
            known = np.isin(values, np.arange(forest.categories[column]))
            found.append(np.where(known, first + np.nan_to_num(values), missing))
        else:
            rank = np.searchsorted(forest.thresholds[column], values)
            found.append(np.where(np.isnan(values), missing, first + rank))
    return np.stack(found, axis=1).astype(int)


@pytest.mark.parametrize("task", ["binary", "multiclass", "regression"])
@pytest.mark.parametrize("categorical", [None, [1]])
@pytest.mark.parametrize("leaves", [2, 31, 200])
def test_the_sums_are_those_of_the_trees(task, categorical, leaves):
    """One row and many, seen and unseen: the raw predictions of scikit-learn, but for rounding."""
    X = columns()
    drive = np.nan_to_num(X[:, 0]) + (X[:, 1] == 3) * 2 + np.nan_to_num(X[:, 2]) * np.nan_to_num(X[:, 3]) / 20
    y = drive if task == "regression" else np.digitize(drive, [1.0] if task == "binary" else [0.5, 2.0])
    kind = HistGradientBoostingRegressor if task == "regression" else HistGradientBoostingClassifier
    settings = {"categorical_features": categorical, "max_leaf_nodes": leaves, "max_iter": 12}
    model = kind(**settings, min_samples_leaf=3, random_state=0).fit(X, y)
    forest = Forest(model)
    later = columns(500, seed=1)
    later[::7, :] *= 1e12
    later[::11, 1] = 77.0
    inner = model._preprocess_X(later, reset=False)
    expected = model._raw_predict(later)
    found = rows_of(forest, inner)
    assert np.allclose(forest.raw_many(found), expected, rtol=1e-12, atol=1e-12)
    assert np.allclose([forest.raw(row) for row in found], expected, rtol=1e-12, atol=1e-12)


def test_a_value_on_the_threshold_goes_left():
    """The bound of a split belongs to its lower side, to the last bit."""
    X = columns()[:, [0]]
    model = HistGradientBoostingRegressor(max_iter=5).fit(X, np.nan_to_num(X[:, 0]) ** 2)
    forest = Forest(model)
    edges = np.array(forest.thresholds[0])
    near = np.concatenate([edges, np.nextafter(edges, np.inf), np.nextafter(edges, -np.inf)])[:, None]
    assert np.allclose(forest.raw_many(rows_of(forest, near)), model._raw_predict(near), rtol=1e-12)


def test_a_column_that_no_tree_looks_at_has_no_rows():
    """What does not matter is not looked up."""
    X = np.column_stack([columns()[:, 0], np.zeros(ROWS)])
    forest = Forest(HistGradientBoostingRegressor(max_iter=3).fit(X, np.nan_to_num(X[:, 0])))
    assert forest.first[1] == forest.missing[1] == -1


def test_tables_beyond_all_measure_are_refused(monkeypatch):
    """Too many trees of too many leaves are not worth their memory."""
    monkeypatch.setattr("prodkit.scoring.forest._MOST_BYTES", 2**20)
    X = columns()
    model = HistGradientBoostingRegressor(max_iter=100, max_leaf_nodes=500, min_samples_leaf=1)
    with pytest.raises(ValueError, match=r"100 trees of \d+ leaves need more than 1 MiB"):
        Forest(model.fit(X, np.nan_to_num(X[:, 0])))
