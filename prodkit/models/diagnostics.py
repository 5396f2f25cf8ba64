"""What a challenger has learned: which columns matter, and whether more rows would help."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from sklearn.base import clone
from sklearn.pipeline import Pipeline

from prodkit.models.estimators import fit_model, predictions
from prodkit.models.losses import row_losses
from prodkit.models.training import OutOfTime, mean_loss, thinned
from prodkit.params import TrainParams

__all__ = ["Withheld", "importance", "learning_curve"]


def importance(tested: OutOfTime, *, params: TrainParams, repeats: int = 3) -> pd.DataFrame:
    """Rise of the loss when a column is shuffled (Breiman 2001), on the newest fold, which its model never saw.

    Returns:
        A row for each feature, the most important first: mean and sd over the repeats, in units of the loss.
    """
    withheld, generator = Withheld.of(tested, params=params), np.random.default_rng(params.seed)
    before, table = withheld.loss(withheld.predicted()), {}
    for name in tested.schema.names:
        rises = []
        for _ in range(repeats):
            rises.append(withheld.loss(withheld.predicted((name,), generator=generator)) - before)
        table[name] = (np.mean(rises), np.std(rises))
    result = pd.DataFrame.from_dict(table, orient="index", columns=["mean", "sd"]).rename_axis("column")
    return result.sort_values("mean", ascending=False, kind="stable")


@dataclass(frozen=True)
class Withheld:
    """The newest fold, put to its model with columns taken away.

    Attributes:
        tested: all folds.
        columns: (n, features) rows of the newest fold, at most a quarter of ``diagnostic_rows``.
        truth: (n,) their labels, encoded.
        simple: (n,) or (n, k) what the simple rule said of them.
        seed: of the shuffling.
    """

    tested: OutOfTime
    columns: pd.DataFrame
    truth: np.ndarray
    simple: np.ndarray
    seed: int

    @classmethod
    def of(cls, tested: OutOfTime, *, params: TrainParams) -> Withheld:
        """Rows evenly taken from the newest fold."""
        places = thinned(pd.DataFrame({"row": np.flatnonzero(tested.newest)}), params.diagnostic_rows // 4)
        rows, schema = places["row"].to_numpy(), tested.schema
        columns = schema.coerce(tested.frame.iloc[rows])
        return cls(tested, columns, tested.truth[rows], tested.simple[rows], params.seed)

    def predicted(
        self, without: Sequence[str] = (), *, generator: np.random.Generator | None = None
    ) -> np.ndarray:
        """What the model says, (n,) or (n, k), when each of these columns is shuffled."""
        generator = generator or np.random.default_rng(self.seed)
        shuffled = {
            name: self.columns[name].to_numpy()[generator.permutation(len(self.columns))] for name in without
        }
        return predictions(self.tested.last, self.columns.assign(**shuffled), schema=self.tested.schema)

    def loss(self, predicted: np.ndarray) -> float:
        """Mean loss of such predictions."""
        return float(row_losses(self.truth, predicted, task=self.tested.schema.task).mean())


def learning_curve(
    model: Pipeline, rows: pd.DataFrame, tested: OutOfTime, *, params: TrainParams
) -> pd.DataFrame:
    """Loss on the newest fold, and on the rows learned from, for models fitted on the newest share of the past.

    Returns:
        A row for each share of the past, at most ``diagnostic_rows`` of it: rows, train, validation.
    """
    schema, time = tested.schema, params.time_column
    test = tested.frame[tested.newest]
    past = rows[rows[time] < test[time].min() - params.label_delay].tail(params.diagnostic_rows)
    test = thinned(test, params.diagnostic_rows // 4)
    table = []
    for share in (0.1, 0.25, 0.5, 1.0):
        part = past.tail(max(2, int(len(past) * share)))
        fitted = fit_model(clone(model), part, schema=schema)
        losses = [
            mean_loss(fitted, some, schema.encode(some[schema.target]), schema) for some in (part, test)
        ]
        table.append((len(part), *losses))
    return pd.DataFrame(table, columns=["rows", "train", "validation"])
