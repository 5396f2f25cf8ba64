"""Histogram trees as tables of bits: one row through all of them with a handful of array operations."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

__all__ = ["Forest"]

_WORD = 64  # leaves a word of bits
_MOST_BYTES = 256 * 2**20
_MISSING = -1
_ROWS_AT_ONCE = 256  # that many rows' words of 100 trees stay in the second cache


class Forest:
    """The trees of a fitted ``HistGradientBoosting`` estimator, read once and asked row by row.

    Which way a node goes depends on one column only, and on no more of it than between which two thresholds the
    value lies, or which category it is: its *case*. So for each case of each column a table holds, tree by tree, the
    leaves that can still be reached, one bit a leaf. The words of a row's cases are combined with AND, and the bit
    that is left is the leaf (QuickScorer: Lucchese et al., SIGIR 2015; here with both sides of a node ruled out).

    Args:
        estimator: fitted; its private attributes are read, so whoever uses a forest must compare its answers.

    Raises:
        ValueError: the tables would be larger than 256 MiB.

    Attributes:
        thresholds: of each numeric column, sorted; a value belongs to the case of the first that is not below it.
        categories: of each categorical column, how many codes there are.
        first: row of the table where the cases of each column begin; -1 of a column that no tree looks at.
        missing: row of the case "no value" of each column, or a code that no tree knows.
    """

    def __init__(self, estimator: Any) -> None:
        trees = [tree for step in estimator._predictors for tree in step]
        self._classes = int(estimator.n_trees_per_iteration_)
        self._baseline = np.asarray(estimator._baseline_prediction, dtype=float).ravel()
        known = _known_categories(estimator)
        self._lay_out(trees, known, columns=int(estimator._n_features))
        self._fill(trees, known)

    def _lay_out(self, trees: Sequence[Any], known: dict[int, list[int]], *, columns: int) -> None:
        cuts: list[set[float]] = [set() for _ in range(columns)]
        used = set()
        for tree in trees:
            inner = tree.nodes[tree.nodes["is_leaf"] == 0]
            used |= set(inner["feature_idx"].tolist())
            for node in inner[inner["is_categorical"] == 0]:
                cuts[int(node["feature_idx"])].add(float(node["num_threshold"]))
        self.thresholds = [sorted(values) for values in cuts]
        self.categories = [
            max(known[column], default=-1) + 1 if column in known else 0 for column in range(columns)
        ]
        self.first, self.missing, total = [-1] * columns, [-1] * columns, 0
        for column in sorted(used):
            cases = self.categories[column] if column in known else len(self.thresholds[column]) + 1
            self.first[column], self.missing[column] = total, total + cases
            total += cases + 1
        leaves = max((int(tree.nodes["is_leaf"].sum()) for tree in trees), default=1)
        self._words = -(-leaves // _WORD)
        if total * len(trees) * self._words * 8 > _MOST_BYTES:
            raise ValueError(f"{len(trees)} trees of {leaves} leaves need more than {_MOST_BYTES >> 20} MiB")
        self._table: np.ndarray = np.full((total, len(trees), self._words), ~np.uint64(0))
        self._values: np.ndarray = np.zeros((len(trees), self._words, _WORD + 1))

    def _fill(self, trees: Sequence[Any], known: dict[int, list[int]]) -> None:
        for number, tree in enumerate(trees):
            spans = _leaf_spans(tree.nodes)
            whole = np.zeros(self._words, dtype=np.uint64)
            for node, (begin, end) in zip(tree.nodes, spans, strict=True):
                if node["is_leaf"]:
                    self._values[number, begin // _WORD, begin % _WORD + 1] = node["value"]
                    whole |= _bits(begin, end, self._words)
                    continue
                column = int(node["feature_idx"])
                left = self._goes_left(node, tree, known.get(column), column)
                rows = slice(self.first[column], self.missing[column] + 1)
                middle = spans[int(node["left"])][1]
                lost = np.where(
                    left[:, None], _bits(middle, end, self._words), _bits(begin, middle, self._words)
                )
                self._table[rows, number] &= ~lost
            self._table[:, number] &= whole
        columns = self._table.shape[1] * self._words
        self._table = np.ascontiguousarray(self._table.reshape(len(self._table), columns))
        self._values = self._values.reshape(-1)
        self._slots = np.arange(columns, dtype=np.int64) * (_WORD + 1)

    def _goes_left(self, node: Any, tree: Any, known: list[int] | None, column: int) -> np.ndarray:
        """Which cases of a column (cases,) a node sends to its left; the last is "missing"."""
        cases = self.missing[column] - self.first[column] + 1
        left = np.full(cases, bool(node["missing_go_to_left"]))
        if known is None:
            # a column without a threshold here is one that only other kinds of nodes look at
            rank = self.thresholds[column].index(float(node["num_threshold"]))
            left[:-1] = np.arange(cases - 1) <= rank
        else:
            bits = tree.raw_left_cat_bitsets[int(node["bitset_idx"])]
            for code in known:
                left[code] = bool(int(bits[code // 32]) >> (code % 32) & 1)
        return left

    def raw(self, rows: Sequence[int]) -> np.ndarray:
        """Sums of the leaves (k,), one for each tree of an iteration.

        Args:
            rows: of the table, one for each column that is looked at.
        """
        words = np.bitwise_and.reduce(self._table.take(rows, axis=0), axis=0)
        return np.asarray(self._sums(words[None])[0])

    def raw_many(self, rows: np.ndarray) -> np.ndarray:
        """The same of n rows at once: (n, c) rows of the table in, (n, k) sums out."""
        found = np.empty((len(rows), self._classes))
        for start in range(0, len(rows), _ROWS_AT_ONCE):
            part = rows[start : start + _ROWS_AT_ONCE]
            words = self._table.take(part[:, 0], axis=0)
            other = np.empty_like(words)
            for column in part.T[1:]:
                np.bitwise_and(words, self._table.take(column, axis=0, out=other, mode="clip"), out=words)
            found[start : start + _ROWS_AT_ONCE] = self._sums(words)
        return found

    def _sums(self, words: np.ndarray) -> np.ndarray:
        """(n, trees x words) with one bit a tree: the exponent of that power of two, as a float, names the leaf."""
        bit = words.astype(np.float64).view(np.int64)
        bit >>= 52
        bit -= 1022  # 1 for the lowest bit
        if self._words > 1:
            np.maximum(bit, 0, out=bit)  # a word without the bit adds nothing
        bit += self._slots
        leaves = self._values.take(bit)
        found = leaves.reshape(len(words), -1, self._classes, self._words).sum(axis=(1, 3)) + self._baseline
        return np.asarray(found)


def _known_categories(estimator: Any) -> dict[int, list[int]]:
    """The codes that training saw of each categorical column."""
    if estimator._is_categorical_remapped is None:
        return {}
    known = estimator._bin_mapper.known_categories
    columns = np.flatnonzero(estimator._is_categorical_remapped)
    return {int(column): [int(code) for code in known[column]] for column in columns}


def _leaf_spans(nodes: np.ndarray) -> list[tuple[int, int]]:
    """For each node, which leaves are below it: begin and end, counted from the left."""
    spans = [(0, 0)] * len(nodes)
    waiting, count = [(0, False)], 0
    while waiting:
        place, returned = waiting.pop()
        left, right = int(nodes[place]["left"]), int(nodes[place]["right"])
        if nodes[place]["is_leaf"]:
            spans[place] = (count, count + 1)
            count += 1
        elif returned:
            spans[place] = (spans[left][0], spans[right][1])
        else:
            waiting += [(place, True), (right, False), (left, False)]
    return spans


def _bits(begin: int, end: int, words: int) -> np.ndarray:
    """The bits from begin to end (words,)."""
    whole = ((1 << end) - 1) ^ ((1 << begin) - 1)
    return np.array([whole >> (_WORD * word) & (2**_WORD - 1) for word in range(words)], dtype=np.uint64)
