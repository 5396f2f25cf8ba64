"""A version in memory, ready to be asked: its bundle, its quick path if it has one, and its breaker."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd

from prodkit.errors import ModelError
from prodkit.models.bundle import Bundle
from prodkit.models.estimators import predictions
from prodkit.scoring.breaker import Breaker, Limits
from prodkit.scoring.compiled import Compiled, compiled
from prodkit.scoring.rows import Reader

__all__ = ["Resident"]


class Resident:
    """One version that can answer.

    Args:
        version: its number.
        bundle: what the store gave back.
        limits: of its breaker.
        quick: whether to look for a compiled row path.

    Attributes:
        path: the compiled row path, or None.
        refused: why there is none; empty if there is, or if nobody looked.
    """

    def __init__(
        self, version: int, bundle: Bundle, *, limits: Limits | None = None, quick: bool = True
    ) -> None:
        self.version, self.bundle = version, bundle
        self.reader, self.breaker = Reader(bundle.schema), Breaker(limits)
        self.path: Compiled | None = None
        self.refused = ""
        if quick:
            try:
                self.path = compiled(bundle.model, schema=bundle.schema, golden=bundle.golden)
            except ModelError as error:
                self.refused = str(error)
        names = bundle.schema.names
        self._segment = names.index(bundle.fallback.column) if bundle.fallback.column in names else None
        self._column = {"regression": 0, "binary": 1}.get(bundle.schema.task)

    def predict(self, columns: pd.DataFrame) -> np.ndarray:
        """What the model says of rows that have its schema's types: :func:`prodkit.models.estimators.predictions`."""
        if self.path is not None:
            return self.path.predict(columns)
        return predictions(self.bundle.model, columns, schema=self.bundle.schema, coerced=True)

    def predict_rows(self, rows: list[list[Any]]) -> np.ndarray:
        """The same of rows as :class:`prodkit.scoring.rows.Reader` reads them."""
        if self.path is not None:
            return self.path.predict_rows(rows)
        return self.predict(self.reader.frame(rows))

    def simple(self, values: list[Any]) -> Any:
        """What the simple rule says of one row: a float, or (k,) class shares."""
        fallback = self.bundle.fallback
        level = None if self._segment is None else values[self._segment]
        usual = fallback.overall if level is None else fallback.by_level.get(level, fallback.overall)
        return usual if self._column is None else float(usual[self._column])
