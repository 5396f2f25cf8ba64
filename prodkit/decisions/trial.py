"""The same labelled rows put to several candidates, none of which has seen them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import pandas as pd

from prodkit.data.schema import Schema
from prodkit.data.windows import blocks, labelled
from prodkit.errors import WindowError
from prodkit.models.bundle import Bundle
from prodkit.models.metrics import row_losses, row_worth, sample_weights, scores
from prodkit.params import ProjectParams, Task

__all__ = ["Trial", "aligned", "joined", "run_trial", "unseen_rows"]


@dataclass(frozen=True)
class Trial:
    """Several candidates' answers to the same labelled rows.

    Attributes:
        task: binary, multiclass or regression.
        rows: (n, ...) labelled rows that none of them was trained on.
        truth: (n,) class index or value.
        predicted: for each candidate, (n,) or (n, k).
        errors: for each candidate, the share of rows that it could not answer.
        losses: (n, candidates) loss of each row, times its weight, the simple rule's (``baseline``) among them.
        days: (n,) day of each row.
        unknown_rows: how many more had a label of a class that no candidate knows.
        worth: (n, candidates) business value of each row, times its weight; empty if nobody said what that is.
        weights: (n,) of the rows, one on average.
        own: import paths of scores of one's own.
    """

    task: Task
    rows: pd.DataFrame
    truth: np.ndarray
    predicted: dict[str, np.ndarray]
    errors: dict[str, float]
    losses: pd.DataFrame
    days: np.ndarray
    unknown_rows: int = 0
    worth: pd.DataFrame = field(default_factory=pd.DataFrame)
    weights: np.ndarray | None = None
    own: tuple[str, ...] = ()

    @property
    def unit(self) -> float:
        """Mean loss of the simple rule on these rows, in which gains are told; NaN where it is nought.

        A gain in these units is a gain in skill, 1 - loss / loss of the simple rule (Murphy 1988): it has no unit, and
        means the same of a log loss and of an error in minutes.
        """
        known = self.losses["baseline"].dropna()
        return float(known.mean()) if known.sum() > 0 else float("nan")

    def lost(self, who: str) -> np.ndarray:
        """Loss (n,) of each row in units of the simple rule's mean loss: what a gain in skill is the difference of."""
        return self.losses[who].to_numpy() / self.unit

    @property
    def dates(self) -> pd.Series:
        """(n,) midnight of each row's day."""
        return pd.Series(pd.to_datetime(self.days, unit="D"), name="day")

    def scores(self) -> pd.DataFrame:
        """A row for each candidate, a column for each metric."""
        table = {
            name: scores(self.truth, predicted, task=self.task, weights=self.weights, own=self.own)
            for name, predicted in self.predicted.items()
        }
        return pd.DataFrame.from_dict(table, orient="index").rename_axis("candidate")


def unseen_rows(rows: pd.DataFrame, params: ProjectParams, *bundles: Bundle) -> pd.DataFrame:
    """Labelled rows, without those that any of the models has learned: nobody is judged by what he has seen.

    Seen is a row that holds the same as a learned one (:meth:`prodkit.models.seen.Seen.learned`); of a version from
    before digests of rows were kept, one of its time.

    Raises:
        WindowError: nothing is left.
        LabelError: no row has a label yet.
    """
    known = labelled(rows, params)
    times, seen = known[params.time_column], np.zeros(len(known), dtype=bool)
    for bundle in bundles:
        within = ((times >= bundle.trained.start) & (times < bundle.trained.end)).to_numpy()
        seen |= within if bundle.seen is None else bundle.seen.learned(known, bundle.schema, within=within)
    if seen.all():
        fix = "Choose a window after " + str(max(bundle.trained.end for bundle in bundles).date()) + "."
        rule = "must hold rows that no judged model has seen, nor copies of them"
        raise WindowError("window", rule=rule, value=str(params.window), fix=fix)
    return known[~seen].reset_index(drop=True)


def run_trial(
    candidates: dict[str, Bundle | np.ndarray],
    rows: pd.DataFrame,
    params: ProjectParams,
    *,
    schema: Schema,
    others: Sequence[Schema] = (),
) -> Trial:
    """Ask every candidate about the same rows; one that cannot answer gets NaN, never a crash.

    Versions may know different classes: each gives no chance to those it does not know. Rows of a class that
    none of them knows judge nobody, and are counted.

    Args:
        candidates: bundles, or predictions in the order of the schema's classes that are there already.
        rows: labelled and unseen rows.
        params: of the run.
        schema: how the labels are read.
        others: of candidates for other rows, whose classes count, too.

    Raises:
        LabelError: none of them knows any of the labels.
    """
    asked = [each.schema for each in candidates.values() if isinstance(each, Bundle)]
    pooled = _pooled(schema, [*others, *asked])
    known = pooled.knows(rows[params.target])
    if not known.any():
        pooled.encode(rows[params.target])  # says which labels it would know
    kept = rows[known].reset_index(drop=True)
    truth = pooled.encode(kept[params.target])
    given = sample_weights(params.weight, kept)
    weights = None if given is None else given / given.mean()
    each = 1.0 if weights is None else weights
    predicted, errors, losses, worth = {}, {}, {}, {}
    for name, candidate in candidates.items():
        if isinstance(candidate, np.ndarray):
            said = aligned(candidate[known], schema, pooled)
        else:
            said = _answers(candidate, kept, pooled)
        predicted[name] = said
        value = row_worth(params.value, kept, truth=truth, predicted=said, schema=pooled)
        if value is not None:
            worth[name] = each * value
        losses[name] = each * row_losses(truth, said, task=pooled.task)
        errors[name] = float(np.mean(~np.isfinite(losses[name])))
    days = blocks(kept[params.time_column])
    unknown = int((~known).sum())
    table = pd.DataFrame(losses)
    values, own = pd.DataFrame(worth), tuple(params.metrics)
    return Trial(pooled.task, kept, truth, predicted, errors, table, days, unknown, values, weights, own)


def joined(parts: Sequence[Trial]) -> Trial:
    """Trials of the same candidates on one stretch of rows after another, as one."""
    names, rows = list(parts[0].predicted), [len(part.rows) for part in parts]
    return Trial(
        parts[0].task,
        pd.concat([part.rows for part in parts], ignore_index=True),
        np.concatenate([part.truth for part in parts]),
        {name: np.concatenate([part.predicted[name] for part in parts]) for name in names},
        {name: float(np.average([part.errors[name] for part in parts], weights=rows)) for name in names},
        pd.concat([part.losses for part in parts], ignore_index=True),
        np.concatenate([part.days for part in parts]),
        sum(part.unknown_rows for part in parts),
        pd.concat([part.worth for part in parts], ignore_index=True),
        None if parts[0].weights is None else np.concatenate([part.weights for part in parts]),
        parts[0].own,
    )


def _answers(candidate: Bundle, rows: pd.DataFrame, pooled: Schema, *, most_failures: int = 64) -> np.ndarray:
    """Its answers, NaN where it has none: a row that it cannot take does not silence it about the others.

    Rows that it fails on are halved until they are found; a candidate that fails ever again is asked no more.
    """
    width = (len(rows), len(pooled.classes))[: 2 if pooled.task == "multiclass" else 1]
    said, failures = np.full(width, np.nan), 0
    waiting = [np.arange(len(rows))]
    while waiting and failures < most_failures:
        part = waiting.pop()
        try:
            said[part] = aligned(candidate.predict(rows.iloc[part]), candidate.schema, pooled)
        except Exception:  # a candidate that fails is evidence, not an accident
            failures += 1
            waiting += np.array_split(part, 2) if len(part) > 1 else []
    return said


def _pooled(schema: Schema, others: Sequence[Schema]) -> Schema:
    """The schema that reads the labels of all of them; this one, if they all know the same."""
    if "regression" in (schema.task, *(other.task for other in others)):
        return schema
    classes = {str(label): label for each in (schema, *others) for label in each.classes}
    if len(classes) == len(schema.classes):
        return schema
    return replace(schema, task="multiclass", classes=tuple(classes.values()))


def aligned(said: np.ndarray, known: Schema, pooled: Schema) -> np.ndarray:
    """Predictions (n,) or (n, k) over the classes of one schema, as shares (n, m) over those of the pooled one."""
    if pooled.classes == known.classes:
        return said
    shares = np.column_stack([1 - said, said]) if said.ndim == 1 else said
    places = {str(label): place for place, label in enumerate(pooled.classes)}
    result = np.zeros((len(said), len(pooled.classes)))
    result[:, [places[str(label)] for label in known.classes]] = shares
    return result if pooled.task == "multiclass" else result[:, 1]
