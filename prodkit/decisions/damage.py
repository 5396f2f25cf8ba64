"""What a drifted column does: what the model would say, and lose, had it kept its distribution, and where it moved."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from prodkit.data.windows import blocks
from prodkit.drift.profiles import ColumnProfile, Profile
from prodkit.drift.shifts import shift
from prodkit.models.bundle import Bundle, lead_score
from prodkit.models.calibration import CalibrationSet
from prodkit.models.metrics import row_losses
from prodkit.models.training import subsample
from prodkit.params import DriftParams

__all__ = ["damage_table", "put_back", "segment"]

Floats = NDArray[np.float64]

_MOST_ROWS = 20_000  # that are predicted again for each column
_LEAST_ROWS = 50  # of a segment, on either side
_MOST_LEVELS = 20  # of a column that makes segments
_TIMES = 2.0  # by which a shift in a segment exceeds that in the rest
_PARTS = 10  # bins that it is looked for in
_SURE = 0.05


def damage_table(
    params: DriftParams, rows: pd.DataFrame, columns: Sequence[str], *, bundle: Bundle, current: Profile
) -> pd.DataFrame:
    """Each column put back to its distribution at training, all else left as it is.

    Args:
        params: of the run.
        rows: of the window, with the labels that have matured.
        columns: to put back, one at a time.
        bundle: the version that answers.
        current: profile of the window.

    Returns:
        One row a column: ``prediction_change``, the mean absolute change of what the model says; ``loss_change``, by
        how much its loss would fall, on labelled rows (NaN without any): what a column that was recorded otherwise
        than before costs, and less telling of a world that changed; ``where``, the segment in which it moved, if it
        did in one above all.
    """
    part = subsample(rows, _MOST_ROWS).reset_index(drop=True)
    schema = bundle.schema
    coerced, days = schema.coerce(part), blocks(part[params.time_column])
    known = schema.knows(part[schema.target]) if schema.target in part else np.zeros(len(part), dtype=bool)
    truth = schema.encode(part.loc[known, schema.target]) if known.any() else np.array([])
    before = bundle.predict(coerced)
    table: dict[str, dict[str, Any]] = {}
    for name in columns:
        random = np.random.default_rng([params.seed, schema.names.index(name)])
        values = put_back(coerced[name], bundle.profile.columns[name], current.columns[name], random=random)
        after = bundle.predict(coerced.assign(**{name: values}))
        change = float(np.abs(lead_score(after) - lead_score(before)).mean())
        loss = np.nan
        if known.any():
            then, now = (row_losses(truth, said[known], task=schema.task) for said in (before, after))
            loss = float(then.mean() - now.mean())
        where = segment(name, coerced, bundle.calibration, days=days) if bundle.calibration else ""
        table[name] = {"prediction_change": change, "loss_change": loss, "where": where}
    found = pd.DataFrame.from_dict(
        table, orient="index", columns=["prediction_change", "loss_change", "where"]
    )
    return found.rename_axis("column").sort_values("prediction_change", ascending=False, kind="stable")


def put_back(
    values: pd.Series[Any], reference: ColumnProfile, current: ColumnProfile, *, random: np.random.Generator
) -> pd.Series[Any]:
    """A coerced column with the distribution that it had: numbers by rank, levels by as few changes as it takes.

    A number becomes the quantile of the reference that it is of the window, so that a change of unit is undone; rows
    of levels that have become more frequent are given others at random. What more is missing than was is drawn from the
    reference. A date stays as it is.

    Args:
        values: (n,) as the schema reads them.
        reference: profile of the column at training.
        current: of the window.
        random: draws.
    """
    if reference.kind == "datetime" or not reference.n:
        return values
    there = values.notna().to_numpy()
    surplus = round(float((~there).sum()) - reference.share(reference.missing) * len(values))
    drawn = random.permutation(np.flatnonzero(~there))[: max(0, surplus)]
    if reference.kind == "categorical":
        return _levels_back(values, reference, drawn, random)
    numbers = values.to_numpy(dtype=float).copy()
    if there.any():
        ordered = np.sort(numbers[there])
        ranks = (
            np.searchsorted(ordered, numbers[there], side="left")
            + np.searchsorted(ordered, numbers[there], side="right")
        ) / 2
        numbers[there] = reference.quantile(np.clip(ranks / len(ordered), 0, 1))
    numbers[drawn] = reference.quantile(random.random(len(drawn)))
    return pd.Series(numbers, index=values.index, name=values.name)


def _levels_back(
    values: pd.Series[Any], reference: ColumnProfile, drawn: np.ndarray, random: np.random.Generator
) -> pd.Series[Any]:
    """Levels with the shares that they had; those that share the last bin of the reference stay what they are."""
    levels = list(reference.bins.levels)
    shares = reference.counts[: len(levels)] / reference.n
    found = values.to_numpy(dtype=object).copy()
    codes = pd.Index(levels, dtype=object).get_indexer(pd.Index(found))
    free = [drawn]
    inside = int((codes >= 0).sum()) + len(drawn)
    wanted = np.floor(shares / max(shares.sum(), 1e-300) * inside).astype(int)
    for code, most in enumerate(wanted):
        held = np.flatnonzero(codes == code)
        if len(held) > most:
            free.append(random.permutation(held)[most:])
    spare = random.permutation(np.concatenate(free))
    lacking = np.maximum(wanted - np.bincount(codes[codes >= 0], minlength=len(levels)), 0)
    given = np.repeat(np.arange(len(levels)), lacking)[: len(spare)]
    for place, code in zip(spare[: len(given)], given, strict=True):
        found[place] = levels[code]
    return pd.Series(found, index=values.index, name=values.name, dtype=object)


def segment(name: str, coerced: pd.DataFrame, kept: CalibrationSet, *, days: np.ndarray) -> str:
    """The level of another column in which a column moved at least twice as far as in the rest; empty if in none.

    It must be sure, too, for days that depend on each other, and as many levels as were tried.

    Args:
        name: of the column that moved.
        coerced: rows of the window, as the schema reads them.
        kept: the calibration rows, which stand for the past.
        days: (n,) day of each row of the window.
    """
    if name not in kept.names:
        return ""
    place, window = kept.names.index(name), kept.encode(coerced)
    present = kept.columns[np.isfinite(kept.columns[:, place]), place]
    cuts = np.unique(np.quantile(present, np.arange(1, _PARTS) / _PARTS)) if len(present) else np.array([0.0])
    sides = [
        (np.searchsorted(cuts, columns[:, place]), labels)
        for columns, labels in ((kept.columns, kept.days), (window, days))
    ]
    tried, best, found = 0, 0.1, ("", 1.0)
    for other in kept.names:
        levels = kept.schema.column(other).levels or ()
        if other == name or not 2 <= len(levels) <= _MOST_LEVELS:
            continue
        at = kept.names.index(other)
        for code, level in enumerate(levels):
            masks = [columns[:, at] == code for columns in (kept.columns, window)]
            if min(min(mask.sum(), (~mask).sum()) for mask in masks) < _LEAST_ROWS:
                continue
            tried += 1
            inside, outside = (
                shift(
                    *(_counted(*side, part, len(cuts) + 1) for side, part in zip(sides, parts, strict=True))
                )
                for parts in (masks, [~mask for mask in masks])
            )
            if inside.effect > max(_TIMES * outside.effect, best):
                best = inside.effect
                told = f"{other} {level}: {inside.effect:.2g}, elsewhere {outside.effect:.2g}"
                found = told, inside.p_value
    told, p_value = found
    return told if p_value * tried < _SURE else ""


def _counted(bins: np.ndarray, days: np.ndarray, part: np.ndarray, size: int) -> np.ndarray:
    """Rows of a part in each bin, by day (days, bins)."""
    labels, place = np.unique(days[part], return_inverse=True)
    counts: np.ndarray = np.bincount(place * size + bins[part], minlength=len(labels) * size)
    return counts.reshape(len(labels), size)
