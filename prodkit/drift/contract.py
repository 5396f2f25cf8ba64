"""Is the input itself broken, or are the labels? The first rung of the evidence ladder.

Nature changes, too, so each check asks for more than change: for something that the days of the training
rows and of the last clean window have never come near. A false hold costs more than a fault that shows
elsewhere; where the two cannot be told apart, nothing is reported.
"""

from __future__ import annotations

import difflib
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from prodkit.drift.counts import column_profile
from prodkit.drift.faults import FALSE_HOLDS, LIMITS, MIN_ROWS, Bounds, Seen, column_breaks
from prodkit.drift.profiles import Profile
from prodkit.drift.units import swaps
from prodkit.errors import ParameterError
from prodkit.evidence import Evidence, Outcome

__all__ = ["Answered", "Contract", "breaks", "label_breaks", "timeless_evidence"]

FEW, MANY = 0.2, 5.0  # rows a day, as a part and as a multiple of before
COPIED = 0.2  # share of rows that come again, from an earlier table or in this one
TWINS = 0.3  # share of rows that come again by nature, above which copies are not recognised
# Labels
UNKNOWN = 0.2  # share of labels of a class that no model knows
SHARES = 0.3  # total variation by which the shares of classes must have moved
NATURE = 3.0  # multiples of what stretches of the reference differ by, and of what the model's answers have moved by
LOST = 0.5  # part of a model's relation to the labels that must not be left
SURE = 3.0  # standard errors of a correlation of nought
A_DAY = 8  # rows a day, from which on relations are those within a day
STRETCHES = 6  # that the reference is cut into

Contract = Mapping[str, Literal["ignore"] | Mapping[str, float]]


@np.errstate(over="ignore", invalid="ignore", divide="ignore")  # of values near the largest floats
def breaks(
    reference: Profile,
    current: Profile,
    *,
    training: Profile | None = None,
    importance: Mapping[str, float] | None = None,
    contract: Contract | None = None,
) -> list[Evidence]:
    """Everything that is broken in a window; one ``pass`` if nothing is, one ``error`` if it has no rows.

    Each is named ``contract.<column>.<kind>`` with a note that says what was seen. Kinds: ``missing``,
    ``malformed``, ``unseen``, ``unit``, ``range``, ``constant``, ``swapped``; and of the rows, ``contract.rows.copied``
    (an old batch again), ``contract.rows.repeated``, and ``contract.rows`` for their number. Rows that were left out
    since they have no time are counted by ``contract.rows.timeless``, which passes.

    Limits of shares hold with their uncertainty: at most one window of a hundred without change is held, however few
    rows or many columns there are.

    Args:
        reference: profile of the last clean window before this one.
        current: profile of the window, with the same columns.
        training: profile of the training rows; only what is new against both is a break.
        importance: of the columns to the model, in any unit; all alike if not given.
        contract: limits by column: ``ignore``, or shares of rows by the names of ``LIMITS``, in place of the derived.

    Raises:
        ParameterError: ``contract`` names a column that is none, or an unknown limit.
    """
    bounds = _bounds(current, importance or {}, contract or {})
    rows = current.rows
    lines = timeless_evidence(current.timeless, current.timeless + rows)
    if not rows:
        return [*lines, _line("rows", (0, None, "the window has no rows"), n=0, outcome="error")]
    references = [part for part in (reference, training) if part is not None and part.rows]
    if not references:
        note = "there are no rows to compare the window with"
        return [*lines, _line("columns", (None, None, note), n=rows, outcome="inconclusive")]
    broken = [_line("rows", seen, n=rows) for seen in _row_count(references[0], current)]
    pairs = [pair for pair in swaps(references, current) if set(pair) <= set(bounds)]
    for name, other in [ordered for pair in pairs for ordered in (pair, pair[::-1])]:
        note = f"{name} looks like {other} did, and {other} like {name}: they have changed places"
        broken.append(_line(f"{name}.swapped", (None, None, note), n=rows))
    explained = {name for pair in pairs for name in pair}  # whatever else is odd about them
    for name in [name for name in bounds if name not in explained]:
        before = [part.columns[name] for part in references if name in part.columns]
        for kind, (value, limit, text) in column_breaks(before, current.columns[name], bounds[name]):
            broken.append(_line(f"{name}.{kind}", (value, limit, f"{name} {text}"), n=rows))
    if not broken:  # without some of their columns, rows would resemble each other
        broken = [_line(f"rows.{kind}", seen, n=rows) for kind, seen in _copies(references, current)]
    if not broken:
        count = len(bounds)
        note = f"nothing is broken in {count} columns of {rows} rows"
        broken = [_line("columns", (0, 0, note), n=count, outcome="pass")]
    return [*lines, *broken]


def _bounds(current: Profile, importance: Mapping[str, float], contract: Contract) -> dict[str, Bounds]:
    """What each column is held against; those that are to be ignored have nothing."""
    most = max([0.0, *importance.values()])
    alpha = FALSE_HOLDS / max(1, len(current.columns))
    for name, limits in contract.items():
        _require_known(f"contract.{name}", name, list(current.columns), what="feature")
        for limit in limits if not isinstance(limits, str) else ():
            _require_known(f"contract.{name}.{limit}", limit, list(LIMITS), what="limit")
    bounds = {}
    for name in current.columns:
        given = contract.get(name, {})
        if not isinstance(given, str):
            lean = max(0.0, importance.get(name, 0.0)) / most if most > 0 else 1.0
            bounds[name] = Bounds(alpha, lean, given)
    return bounds


def _require_known(parameter: str, name: str, known: Sequence[str], *, what: str) -> None:
    if name not in known:
        nearest = difflib.get_close_matches(name, known, n=1, cutoff=0.0)
        fix = f"Did you mean {nearest[0]}?" if nearest else ""
        raise ParameterError(
            parameter, rule=f"must name a {what}: {', '.join(known[:12])}", value=name, fix=fix
        )


def timeless_evidence(timeless: int, rows: int) -> list[Evidence]:
    """A line that passes, and says how many of so many rows no window holds since they have no time; none if all do."""
    note = f"{timeless} of {rows} rows have no time, so that no window holds them"
    return [_line("rows.timeless", (timeless / rows, None, note), n=rows, outcome="pass")] if timeless else []


def _line(name: str, seen: Seen, *, n: int, outcome: Outcome = "fail") -> Evidence:
    value, limit, note = seen
    return Evidence(f"contract.{name}", outcome, value=value, limit=limit, n=n, rung=1, note=note)


def _row_count(before: Profile, current: Profile) -> Iterator[Seen]:
    """Rows a day, against the usual day and against the most unusual one."""
    usual, now = before.block_rows.mean(), current.block_rows.mean()
    few = now < FEW * usual and now < before.block_rows.min() / 2
    many = now > MANY * usual and now > before.block_rows.max() * 2
    if few or many:
        limit = (FEW if few else MANY) * usual
        yield now, limit, f"the window has {now:.4g} rows a day, recently {usual:.4g}"


def _copies(references: Sequence[Profile], current: Profile) -> Iterator[tuple[str, Seen]]:
    """Rows that have come before: in an earlier table, or twice in this one."""
    now = current.fingerprints
    earlier = [(part, part.fingerprints) for part in references if part.fingerprints is not None]
    if now is None or current.rows < MIN_ROWS or not earlier:
        return
    usual = max(sample.twins for _, sample in earlier)
    if usual > TWINS:
        return
    again = [
        now.copied(sample, least=MIN_ROWS)
        for part, sample in earlier
        if not np.intersect1d(part.blocks, current.blocks).size
    ]
    # A larger table has more of them, so that the share is scaled up.
    in_one = usual * max(1.0, now.rows / max(part.rows for part, _ in earlier))
    for kind, share, was, text in (
        ("copied", max(again, default=math.nan), usual, "were in an earlier table, too"),
        ("repeated", now.twins, in_one, "occur more than once"),
    ):
        if share > (limit := was + COPIED):
            yield kind, (share, limit, f"{share:.1%} of the rows {text}; by nature {was:.1%}")


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
