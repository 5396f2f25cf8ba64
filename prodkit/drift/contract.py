"""Is the input itself broken? The first rung of the evidence ladder.

Nature changes, too, so each check asks for more than change: for something that the days of the training
rows and of the last clean window have never come near. A false hold costs more than a fault that shows
elsewhere; where the two cannot be told apart, nothing is reported.
"""

from __future__ import annotations

import difflib
import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Literal

import numpy as np

from prodkit.drift.faults import FALSE_HOLDS, LIMITS, MIN_ROWS, Bounds, Seen, column_breaks
from prodkit.drift.profiles import Profile
from prodkit.drift.units import swaps
from prodkit.errors import ParameterError
from prodkit.evidence import Evidence, Outcome

__all__ = ["Contract", "breaks", "timeless_evidence"]

FEW, MANY = 0.2, 5.0  # rows a day, as a part and as a multiple of before
COPIED = 0.2  # share of rows that come again, from an earlier table or in this one
TWINS = 0.3  # share of rows that come again by nature, above which copies are not recognised

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
