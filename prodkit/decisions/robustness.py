"""What a challenger answers to rows that it should not have been asked: values missing, new or far out."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pandas as pd

from prodkit.decisions.gates import at_most
from prodkit.evidence import Evidence
from prodkit.models.bundle import Bundle

__all__ = ["robustness_evidence"]

_ROWS = 50  # of each spoilt column
_STRANGE = "a level that nobody has seen"
_BOUND = 3.0  # spans of the usual predictions, by which one of a number may leave them


def robustness_evidence(challenger: Bundle, rows: pd.DataFrame) -> list[Evidence]:
    """Each column in turn is emptied, given an unseen level, or moved a span beyond what the rows hold.

    Every answer must be there and within bounds: probabilities are by nature; a number must stay within three spans of
    those predicted for the rows as they are. Named ``robust.missing``, ``robust.unseen`` and ``robust.extreme``; the
    value is the share of answers that are not.

    Args:
        challenger: is asked.
        rows: (n, any) real rows, of which at most 50 are used.
    """
    some = rows.iloc[np.linspace(0, len(rows) - 1, min(len(rows), _ROWS)).astype(int)]
    plain = challenger.schema.coerce(some)
    usual = _answers(challenger, plain)
    kinds: dict[str, tuple[Callable[[pd.Series], pd.Series], tuple[str, ...], str]] = {
        "missing": (_emptied, ("numeric", "boolean", "categorical", "datetime"), "missing"),
        "unseen": (
            lambda values: pd.Series(_STRANGE, index=values.index, dtype=object),
            ("categorical",),
            "unseen",
        ),
        "extreme": (_far_out, ("numeric",), "far out"),
    }
    found = []
    for name, (spoil, of, said) in kinds.items():
        columns = [column.name for column in challenger.schema.features if column.kind in of]
        if not columns:
            continue
        spoilt = pd.concat(
            [plain.assign(**{each: spoil(plain[each])}) for each in columns], ignore_index=True
        )
        share = float(np.mean(~_sound(_answers(challenger, spoilt), usual)))
        note = f"share of rows with one column {said} that get no answer, or one out of bounds"
        found.append(at_most(f"robust.{name}", share, limit=0.0, n=len(spoilt), note=note))
    return found


def _answers(challenger: Bundle, rows: pd.DataFrame) -> np.ndarray:
    """(n,) or (n, k), NaN where there are none: a model that raises has answered nothing."""
    try:
        return challenger.predict(rows)
    except Exception:  # whatever it is, it is what the gate is about
        return np.full(len(rows), np.nan)


def _sound(said: np.ndarray, usual: np.ndarray) -> np.ndarray:
    """Which answers (n,) are finite, and within bounds."""
    wide = said.reshape(len(said), -1)
    finite = np.isfinite(wide).all(axis=1)
    known = usual[np.isfinite(usual)]
    if not len(known):
        return np.zeros(len(said), dtype=bool)
    low, high = float(known.min()), float(known.max())
    room = _BOUND * max(high - low, abs(high), abs(low), 1.0)
    inside = ((wide >= low - room) & (wide <= high + room)).all(axis=1)
    return np.asarray(finite & inside)


def _emptied(values: pd.Series) -> pd.Series:
    return values.where(np.zeros(len(values), dtype=bool))


def _far_out(values: pd.Series) -> pd.Series:
    """Half of the values a span above the highest, half a span below the lowest."""
    known = values[np.isfinite(values)]
    low, high = (float(known.min()), float(known.max())) if len(known) else (0.0, 1.0)
    span = max(high - low, 1.0)
    places = np.where(np.arange(len(values)) % 2 == 0, high + span, low - span)
    return pd.Series(places, index=values.index)
