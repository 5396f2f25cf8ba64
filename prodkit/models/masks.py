"""What a model is worth without some of its columns: rows that it had not learned, asked with them missing."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from prodkit.data.schema import Schema
from prodkit.models.estimators import predictions
from prodkit.models.metrics import row_losses
from prodkit.models.training import OutOfTime, subsample

__all__ = ["MaskPrice", "MaskSample", "Masked", "masked"]

_MOST_ROWS = 2000
_MOST_CELLS = 500_000  # of a wide table: some megabytes at the most
_LEAST_ROWS = 50  # fewer say nothing of a loss


def masked(frame: pd.DataFrame, columns: Sequence[str], *, schema: Schema) -> pd.DataFrame:
    """The table with these features missing in all rows, whether or not it has them; others are not touched."""
    return frame.assign(**{name: None for name in columns if name in schema.names})


class Masked:
    """A fitted model that is asked without some of the columns."""

    def __init__(self, model: Any, columns: Sequence[str]) -> None:
        self.model, self.columns = model, tuple(columns)

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__") or "model" not in self.__dict__:
            raise AttributeError(name)
        return getattr(self.model, name)

    def _rows(self, columns: pd.DataFrame) -> pd.DataFrame:
        nowhere = np.zeros(len(columns), dtype=bool)
        gone = {name: columns[name].where(nowhere) for name in self.columns if name in columns}
        return columns.assign(**gone)

    def predict(self, columns: pd.DataFrame) -> Any:
        """What the model says of the rest."""
        return self.model.predict(self._rows(columns))

    def predict_proba(self, columns: pd.DataFrame) -> Any:
        """The same, as shares of classes."""
        return self.model.predict_proba(self._rows(columns))


@dataclass(frozen=True)
class MaskPrice:
    """The mean loss that is to be expected of each way to answer rows with broken columns.

    Attributes:
        columns: that are broken.
        usual: of the model when nothing is broken.
        masked: of the model asked with the columns missing; infinity where it takes no missing values.
        rule: of the simple rule.
    """

    columns: tuple[str, ...]
    usual: float
    masked: float
    rule: float

    @property
    def pays(self) -> bool:
        """Whether the model still beats the simple rule."""
        return self.masked < self.rule

    def __str__(self) -> str:
        names, way = ", ".join(self.columns), "the champion, masked," if self.pays else "the simple rule"
        loss = (
            f"{self.masked:.4g}" if math.isfinite(self.masked) else "none, since it takes no missing values"
        )
        return (
            f"{way} answers: expected loss of the champion without {names} {loss}, "
            f"of the simple rule {self.rule:.4g}, usually {self.usual:.4g}"
        )


@dataclass(frozen=True)
class MaskSample:
    """Labelled rows, with what models and simple rules lost on them that had not learned from them.

    Attributes:
        rows: (n, features) as the schema reads them, at most 2,000.
        truth: (n,) encoded labels.
        usual: mean loss of the models of the folds on them.
        rule: mean loss of the simple rules of the same pasts.
    """

    rows: pd.DataFrame
    truth: np.ndarray
    usual: float
    rule: float

    @classmethod
    def of(cls, tested: OutOfTime) -> MaskSample:
        """Rows evenly taken from all folds."""
        losses = np.column_stack(tested.losses)
        most = min(_MOST_ROWS, _MOST_CELLS // len(tested.schema.features))
        places = subsample(
            pd.Series(np.flatnonzero(np.isfinite(losses).all(axis=1))), max(1, most)
        ).to_numpy()
        rule, usual = losses[places].mean(axis=0).tolist() if len(places) else (math.nan, math.nan)
        rows = tested.schema.coerce(tested.frame.iloc[places]).reset_index(drop=True)
        return cls(rows, tested.truth[places], usual, rule)

    def price(self, model: Any, columns: Sequence[str], *, schema: Schema) -> MaskPrice:
        """What rows without these columns are expected to cost.

        The model may have learned from these rows since. What it keeps, masked, of its lead over the simple rule on
        them is taken for what it keeps of its lead on rows that it has not learned.

        Args:
            model: fitted pipeline.
            columns: that are broken; names that are no features are passed over.
            schema: of the model.
        """
        names = tuple(name for name in schema.names if name in set(columns))
        try:
            whole, part = (
                float(row_losses(self.truth, answer, task=schema.task).mean())
                for answer in (
                    predictions(model, rows, schema=schema)
                    for rows in (self.rows, masked(self.rows, names, schema=schema))
                )
            )
        except Exception:  # a model that takes no missing values may raise anything
            whole = part = math.nan
        lead, kept = self.rule - whole, self.rule - part
        if not math.isfinite(part) or len(self.rows) < _LEAST_ROWS or lead <= 0:
            return MaskPrice(names, self.usual, math.inf, self.rule)
        share = min(kept / lead, 1.0)
        return MaskPrice(names, self.usual, self.rule - share * (self.rule - self.usual), self.rule)
