"""The rows that a model has learned from, by what they hold: a copy of one that comes later judges nobody."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import pandas as pd

from prodkit.data.cells import numbers, texts
from prodkit.data.schema import Schema

__all__ = ["Seen"]

_MOST_ROWS = 1_000_000  # the newest, eight bytes each: they travel with the model
_STRETCHES = 5  # of the training, to see how many rows come again by nature
_LEAST_ROWS = 20  # a share of fewer rows says nothing
_SURE = 4.0  # standard errors of a share
_FEW_REPEATS = 0.05  # share of rows that come again by nature, up to which each that comes again is a copy
_MANY_REPEATS = 0.8  # from which on copies cannot be told from nature
_COPIED = 0.25  # of the rows that are new by nature, which must come again for a batch to be stale


@dataclass(frozen=True, eq=False)
class Seen:
    """Digests of rows with their labels, without their moments: a batch that is sent again has new ones.

    Attributes:
        hashes: 64 bits of each row (k,), ascending, each once.
        natural: share of rows that come again by nature: the largest of a fifth of the rows in those before it, and
            what it has risen by last.
        whole: whether all rows are among them; else the newest million.

    >>> rows = pd.DataFrame({"x": [1.0, 2.0, 3.0], "y": [0, 1, 1]})
    >>> schema = Schema.infer(rows, features=["x"], target="y")
    >>> Seen.of(rows, schema).among(pd.DataFrame({"x": [3.0, 3.0, 4.0], "y": [1, 0, 1]}), schema).tolist()
    [True, False, False]
    """

    hashes: np.ndarray
    natural: float
    whole: bool

    @classmethod
    def of(cls, rows: pd.DataFrame, schema: Schema) -> Seen:
        """Those of labelled rows (n, any) in the order of time."""
        newest = _hashes(rows.tail(_MOST_ROWS), schema)
        stretch = np.arange(len(newest)) * _STRETCHES // max(1, len(newest))
        shares = [
            float(np.isin(newest[stretch == part], newest[stretch < part]).mean())
            for part in range(1, _STRETCHES)
            if (stretch == part).sum() >= _LEAST_ROWS
        ]
        rise = (
            max(shares[-1] - shares[-2], 0.0) if len(shares) > 1 else 0.0
        )  # the more rows, the more repeats
        natural = min(max(shares, default=1.0) + rise, 1.0)
        return cls(np.unique(newest), natural, len(rows) <= _MOST_ROWS)

    def among(self, rows: pd.DataFrame, schema: Schema) -> np.ndarray:
        """Which rows (n,) hold the same as one of these."""
        given = _hashes(rows, schema)
        if not len(self.hashes):
            return np.zeros(len(given), dtype=bool)
        places = np.minimum(np.searchsorted(self.hashes, given), len(self.hashes) - 1)
        return np.asarray(self.hashes[places] == given)

    def limit(self, rows: int) -> float:
        """Share of so many rows, beyond which those that come again are copies; 1 where that cannot be told."""
        if rows < _LEAST_ROWS or self.natural > _MANY_REPEATS:
            return 1.0
        chance = _SURE * math.sqrt(self.natural * (1 - self.natural) / rows)
        return self.natural + max(_COPIED * (1 - self.natural), chance)

    def learned(self, rows: pd.DataFrame, schema: Schema, *, within: np.ndarray) -> np.ndarray:
        """Which rows (n,) must not judge a model that has learned from these.

        Where rows hardly ever come again, what they hold tells, so that a label that came late still judges. Where they
        do by nature, time tells, and beside it what they hold if they are copies.

        Args:
            rows: (n, any) labelled rows.
            schema: by which the model reads them.
            within: (n,) whether they happened within its training.
        """
        if not set(schema.names) <= set(rows.columns):  # of another table
            return within
        again = self.among(rows, schema)
        if self.natural <= _FEW_REPEATS:
            return again if self.whole else again | within
        later = again[~within]
        copies = len(later) and later.mean() > self.limit(len(later))
        return within | again if copies else within


def _hashes(rows: pd.DataFrame, schema: Schema) -> np.ndarray:
    """64 bits of each row (n,)."""
    columns, nothing = schema.coerce(rows), frozenset(schema.missing)
    names = [column.name for column in schema.features if column.kind != "datetime"] or schema.names
    label = rows[schema.target]
    read = numbers(label, nothing) if schema.task == "regression" else texts(label, nothing)
    cells = {place: columns[name].to_numpy() for place, name in enumerate(names)}
    table = pd.DataFrame(cells | {len(names): read.to_numpy()})
    floats = table.select_dtypes("float").columns
    table[floats] = table[floats] + 0.0  # zero has one sign
    return np.asarray(pd.util.hash_pandas_object(table, index=False).to_numpy())
