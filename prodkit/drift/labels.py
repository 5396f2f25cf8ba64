"""Are the labels themselves broken? What no change of the world does to them: then nobody learns from them."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np

from prodkit.drift.counts import column_profile
from prodkit.drift.faults import FALSE_HOLDS, MIN_ROWS, Seen, column_breaks
from prodkit.evidence import Evidence

__all__ = ["Answered", "label_breaks"]

UNKNOWN = 0.2  # share of labels of a class that no model knows
SHARES = 0.3  # total variation by which the shares of classes must have moved
NATURE = 3.0  # multiples of what stretches of the reference differ by, and of what the model's answers have moved by
LOST = 0.5  # part of a model's relation to the labels that must not be left
SURE = 3.0  # standard errors of a correlation of nought
A_DAY = 8  # rows a day, from which on relations are those within a day
STRETCHES = 6  # that the reference is cut into


@dataclass(frozen=True)
class Answered:
    """Labels, and what was said of the same rows before they were known.

    Attributes:
        truth: (n,) class indices, or numbers.
        predicted: of each model by name, (n,) or (n, k).
        days: (n,) day of each row.
        unknown_rows: how many more have a label that no model knows.
    """

    truth: np.ndarray
    predicted: Mapping[str, np.ndarray]
    days: np.ndarray
    unknown_rows: int = 0


def label_breaks(
    reference: Answered, current: Answered, *, classes: int = 0, fresh: Answered | None = None
) -> list[Evidence]:
    """What is broken in the labels of a window: ``contract.labels.<kind>``; empty if nothing is.

    Kinds: ``unseen`` (classes that no model knows), ``constant``, ``share`` (of classes, as no stretch of the reference
    shows it, and the model's answers do not), ``range`` and ``unit`` of a quantity, and ``joined``: every model has
    lost its relation to the labels at once, which the labels of other rows look like. Where the world has changed, a
    challenger that learned from some of the new rows has a relation to the others.

    Args:
        reference: labels and answers of rows that the model had not learned, from before it served.
        current: those of the window, by models that were trained before it.
        classes: how many there are; 0 for a quantity.
        fresh: answers of challengers that learned from a part of the window.
    """
    n, rows = len(current.truth), len(current.truth) + current.unknown_rows
    if n < MIN_ROWS or len(reference.truth) < MIN_ROWS:
        return []
    checks = [
        *_unknown(current, rows),
        *(_of_classes if classes else _of_numbers)(reference, current, classes),
    ]
    checks = checks or list(_joined(reference, current, classes, fresh))
    return [
        Evidence(
            f"contract.labels.{kind}", "fail", value=value, limit=limit, n=rows, rung=1, note=f"labels {text}"
        )
        for kind, (value, limit, text) in checks
    ]


def _unknown(current: Answered, rows: int) -> Iterator[tuple[str, Seen]]:
    share = current.unknown_rows / rows
    if share > UNKNOWN:
        yield "unseen", (share, UNKNOWN, f"are of classes that no model knows in {share:.1%} of rows")


def _of_classes(reference: Answered, current: Answered, classes: int) -> Iterator[tuple[str, Seen]]:
    """One class for all rows, or shares that no stretch of the reference shows and no model's answers."""
    usual, now = (np.bincount(side.truth.astype(int), minlength=classes) for side in (reference, current))
    usual, now = usual / usual.sum(), now / now.sum()
    if now.max() == 1.0:
        if (usual[now.argmax()] + 1 / len(reference.truth)) ** len(current.truth) < FALSE_HOLDS:
            yield "constant", (1.0, None, f"are of one class in all {len(current.truth)} rows")
        return
    order = np.argsort(reference.days, kind="stable")
    parts = [
        np.bincount(part, minlength=classes)
        for part in np.array_split(reference.truth[order].astype(int), STRETCHES)
    ]
    nature = max(float(np.abs(part / max(1, part.sum()) - usual).sum() / 2) for part in parts)
    answers = [_mean_shares(side, classes) for side in (reference, current)]
    moved, said = (float(np.abs(b - a).sum() / 2) for a, b in ((usual, now), answers))
    limit = max(SHARES, NATURE * nature, NATURE * said)
    if moved > limit:
        place = int(np.abs(now - usual).argmax())
        text = (
            f"are of class {place + 1} of {classes} in {now[place]:.1%} of rows, before in {usual[place]:.1%}"
        )
        yield "share", (moved, limit, text)


def _mean_shares(side: Answered, classes: int) -> np.ndarray:
    """Shares of the classes as the first model answers."""
    answers = next(iter(side.predicted.values()))
    shares = np.column_stack([1 - answers, answers]) if answers.ndim == 1 else answers
    mean = np.nanmean(shares, axis=0)
    return np.append(mean, np.zeros(max(0, classes - len(mean))))[:classes]


def _of_numbers(reference: Answered, current: Answered, classes: int) -> Iterator[tuple[str, Seen]]:
    """What would be broken in a column."""
    before = column_profile(reference.truth.astype(float), blocks=reference.days)
    now = column_profile(current.truth.astype(float), blocks=current.days, like=before)
    if now.min == now.max and before.min != before.max and len(np.unique(current.days)) > 1:
        yield "constant", (1.0, None, f"are {now.min:.6g} in all {now.n} rows")
    else:
        yield from ((kind, seen) for kind, seen in column_breaks([before], now) if kind in ("range", "unit"))


def _joined(
    reference: Answered, current: Answered, classes: int, fresh: Answered | None
) -> Iterator[tuple[str, Seen]]:
    """All models lost what they said of the labels, and nothing that learned in the window has found anything new."""
    name = next(iter(reference.predicted))
    was = _relation(reference, name, classes)
    error = SURE / math.sqrt(len(current.truth))
    now = max(abs(_relation(current, each, classes)) for each in current.predicted)
    if math.isnan(now) or not was > 0 or now > max(error, 0.1 * was) or now + error > LOST * was:
        return
    if fresh is not None and len(fresh.truth) >= MIN_ROWS:
        learned = max(abs(_relation(fresh, each, classes)) for each in fresh.predicted)
        if learned > max(SURE / math.sqrt(len(fresh.truth)), LOST * was):
            return
    text = f"have no relation to what any model says (correlation {now:.2f}, before {was:.2f}): are they of other rows?"
    yield "joined", (now, LOST * was, text)


def _relation(side: Answered, name: str, classes: int) -> float:
    """Correlation of labels and answers, of ranks for a quantity; within days where these have many rows."""
    answers = side.predicted[name].astype(float)
    some = np.isfinite(answers if answers.ndim == 1 else answers.sum(axis=1))
    answers, truth, days = answers[some], side.truth[some], side.days[some]
    if len(truth) < MIN_ROWS:
        return math.nan
    if answers.ndim == 2:
        labels = (truth[:, None] == np.arange(answers.shape[1])).astype(float)
    elif classes:
        labels = truth.astype(float)
    else:
        labels, answers = (np.argsort(np.argsort(x)).astype(float) for x in (truth, answers))
    groups = (
        np.unique(days, return_inverse=True)[1] if len(days) >= A_DAY * len(np.unique(days)) else 0 * days
    )
    a, b = (_centred(x.reshape(len(x), -1), groups) for x in (labels, answers))
    size = math.sqrt(float((a * a).sum() * (b * b).sum()))
    return float((a * b).sum() / size) if size > 0 else 0.0


def _centred(values: np.ndarray, groups: np.ndarray) -> np.ndarray:
    """Values (n, k) less the mean of their group (n,)."""
    rows = np.bincount(groups.astype(int))
    means = np.column_stack(
        [np.bincount(groups.astype(int), column) / np.maximum(rows, 1) for column in values.T]
    )
    return np.asarray(values - means[groups.astype(int)])
