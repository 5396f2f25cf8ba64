"""The same labelled rows put to several candidates, none of which has seen them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd

from prodkit.bundle import Bundle
from prodkit.data import blocks, labelled
from prodkit.errors import WindowError
from prodkit.metrics import row_losses, scores
from prodkit.params import Facts, Task
from prodkit.schema import Schema

__all__ = ["Trial", "run_trial", "unseen_rows"]


@dataclass(frozen=True)
class Trial:
    """Several candidates' answers to the same labelled rows.

    Attributes:
        task: binary, multiclass or regression.
        rows: (n, ...) labelled rows that none of them was trained on.
        truth: (n,) class index or value.
        predicted: for each candidate, (n,) or (n, k).
        errors: for each candidate, the share of rows that it could not answer.
        losses: (n, candidates) loss of each row.
        days: (n,) day of each row.
    """

    task: Task
    rows: pd.DataFrame
    truth: np.ndarray
    predicted: dict[str, np.ndarray]
    errors: dict[str, float]
    losses: pd.DataFrame
    days: np.ndarray

    @property
    def dates(self) -> pd.Series:
        """(n,) midnight of each row's day."""
        return pd.Series(pd.to_datetime(self.days, unit="D"), name="day")

    def scores(self) -> pd.DataFrame:
        """A row for each candidate, a column for each metric."""
        table = {
            name: scores(self.truth, predicted, task=self.task) for name, predicted in self.predicted.items()
        }
        return pd.DataFrame.from_dict(table, orient="index").rename_axis("candidate")


def unseen_rows(rows: pd.DataFrame, params: Facts, *bundles: Bundle) -> pd.DataFrame:
    """Labelled rows, without those that any of the models was trained on: nobody is judged by what he has seen.

    Raises:
        WindowError: nothing is left.
        LabelError: no row has a label yet.
    """
    times = rows[params.time_column]
    seen = np.zeros(len(rows), dtype=bool)
    for bundle in bundles:
        seen |= ((times >= bundle.trained.start) & (times < bundle.trained.end)).to_numpy()
    if seen.all() and len(rows):
        fix = "Choose a window after " + str(max(bundle.trained.end for bundle in bundles).date()) + "."
        raise WindowError(
            "window", rule="must hold rows that no judged model has seen", value=str(params.window), fix=fix
        )
    return labelled(rows[~seen].reset_index(drop=True), params)


def run_trial(
    candidates: dict[str, Bundle | np.ndarray], rows: pd.DataFrame, params: Facts, *, schema: Schema
) -> Trial:
    """Ask every candidate about the same rows; one that cannot answer gets NaN, never a crash.

    Args:
        candidates: bundles, or predictions that are there already.
        rows: labelled and unseen rows.
        params: of the run.
        schema: how the labels are read.
    """
    truth = schema.encode(rows[params.target])
    predicted, errors, losses = {}, {}, {}
    shape = (len(rows),) if schema.task != "multiclass" else (len(rows), len(schema.classes))
    for name, candidate in candidates.items():
        try:
            said = candidate if isinstance(candidate, np.ndarray) else candidate.predict(rows)
        except Exception:  # a candidate that fails is evidence, not an accident
            said = np.full(shape, np.nan)
        predicted[name] = said
        losses[name] = row_losses(truth, said, task=schema.task)
        errors[name] = float(np.mean(~np.isfinite(losses[name])))
    days = blocks(rows[params.time_column])
    return Trial(schema.task, rows, truth, predicted, errors, pd.DataFrame(losses), days)
