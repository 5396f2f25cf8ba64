"""How a table's time is shared out: what is learned from first, what is lived through, and what suits both."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from datetime import timedelta
from itertools import pairwise
from typing import Any

import pandas as pd

from prodkit.data.windows import labelled, read_window
from prodkit.errors import WindowError
from prodkit.evidence import Window, write_duration
from prodkit.params import TrainParams

__all__ = ["Outline", "chapters", "labelled_part", "outline", "read_outline"]

_PARTS = 12
_SHORTEST = 5.0  # days: an interval over fewer blocks has no end
_HOLDOUT = 14.0  # days of labelled rows that judge a challenger, where there is room for them
_FOLDS = 4
_ROWS, _FEWEST_ROWS = 500, 50  # labelled rows that a judgement needs: where there are plenty, and at least
_FEW_ROWS = 10_000  # to learn from; fewer are soon learned by heart
_SIMPLE = {"max_iter": 50, "max_leaf_nodes": 8}
_BLOCKS = 7  # days that it needs, where there are so many


@dataclass(frozen=True)
class Outline:
    """The story of a table.

    Attributes:
        first: the window of the first training.
        rest: the windows that the model lives through, in order.
        learned: part of the first window whose rows are learned from.
        policies: for each notebook, the parameters that suit the table. ``holdout``: days with labels, then the
            label delay; ``folds``: as many as there are days for; ``min_rows`` and ``min_blocks``: no more than a
            window holds; ``challenger_share``: all of a window whose newest half would be too short.
    """

    first: Window
    rest: list[Window]
    learned: timedelta
    policies: dict[str, dict[str, Any]]


def labelled_part(window: Window, label_delay: timedelta) -> Window:
    """The rows whose labels judge a window, at its end: its own, or, where labels take half of it, earlier ones.

    >>> window = Window.parse("2013-05-01/2013-05-31")
    >>> [str(labelled_part(window, timedelta(days=days))) for days in (1, 30)]
    ['2013-05-01/2013-05-30', '2013-04-01/2013-05-01']
    """
    start = window.start - label_delay if 2 * label_delay >= window.end - window.start else window.start
    return Window(start, window.end - label_delay)


def chapters(span: Window) -> list[Window]:
    """Cut a span at the first of each month, or into equal parts if it holds fewer than six whole months.

    A rest of less than ten days at either end goes with the month beside it. There are at most twelve equal
    parts, none shorter than five days (but two at least): with fewer days nothing could be told of a part.

    >>> [str(window) for window in chapters(Window.parse("2013-01-01/2013-07-01"))][:2]
    ['2013-01-01/2013-02-01', '2013-02-01/2013-03-01']
    """
    months = list(pd.date_range(span.start, span.end, freq="MS", normalize=True).to_pydatetime())
    if len(months) < 7:
        parts = max(2, min(_PARTS, int(span.days / _SHORTEST)))
        whole = "D" if span.days >= _SHORTEST * parts else "s"
        cuts = pd.date_range(span.start, span.end, periods=parts + 1).floor(whole)[1:-1].to_pydatetime()
        return [Window(a, b) for a, b in pairwise([span.start, *cuts, span.end])]
    inner = [cut for cut in months if min(cut - span.start, span.end - cut) >= timedelta(days=10)]
    return [Window(a, b) for a, b in pairwise([span.start, *inner, span.end])]


def outline(span: Window, *, label_delay: timedelta, rows_a_day: float) -> Outline:
    """Learn from the first quarter of a span, or from as much more as late labels ask for, and live through the rest.

    Args:
        span: of the table.
        label_delay: until a label is known.
        rows_a_day: labelled rows.

    Raises:
        WindowError: the span is too short to learn, to judge and to live in.
    """
    parts, delay = chapters(span), label_delay / timedelta(days=1)
    for count in range(max(1, len(parts) // 4), len(parts)):
        first = Window(parts[0].start, parts[count - 1].end)
        wanted = max(_HOLDOUT, 1.2 * _ROWS / max(rows_a_day, 0.01))
        judged = min(wanted, max(first.days / 3, min(float(_BLOCKS), first.days / 2)))
        learned = first.days - judged - 2 * delay  # labels of the holdout must be there, and those before it
        folds = min(_FOLDS, int(learned) - math.ceil(delay) - 1)
        if folds >= 2 and learned >= first.days / 4:
            lived = min(labelled_part(part, label_delay).days for part in parts[count:])
            share = 0.5 if lived >= 2 * _BLOCKS else 1.0
            policies: dict[str, dict[str, Any]] = {
                "train": {
                    "holdout": write_duration(timedelta(hours=round((judged + delay) * 24))),
                    "folds": folds,
                },
                "validate": _enough(judged, rows_a_day),
                "rollback": _enough(lived * share, rows_a_day) | {"challenger_share": share},
            }
            return Outline(first, parts[count:], timedelta(days=learned), policies)
    fix = "Use a longer table, or a shorter `label_delay` if labels come sooner; or run the notebooks one by one."
    rule = "must be long enough to learn, to wait for labels and to judge"
    raise WindowError("window", rule=rule, value=f"{span}, labels after {delay:g} days", fix=fix)


def _enough(days: float, rows_a_day: float) -> dict[str, Any]:
    """How much a judgement needs: the usual, or most of what so many days hold."""
    rows = int(0.7 * days * rows_a_day)
    return {"min_rows": max(_FEWEST_ROWS, min(_ROWS, rows)), "min_blocks": max(2, min(_BLOCKS, int(days)))}


def read_outline(params: TrainParams, span: Window) -> Outline:
    """The story of a table, with parameters that suit what its first quarter shows.

    Windows without any row are passed over. Where there is little to learn from, the ``auto`` model is a simpler one.

    Raises:
        DataError: the table cannot be read so, or has no labels to begin with.
    """
    parts = chapters(span)
    early = Window(span.start, parts[max(1, len(parts) // 4) - 1].end)
    known_by_now = {"as_of": span.end, "features": [params.time_column]}  # the time and the labels, no more
    table = read_window(params.model_copy(update=known_by_now), span, unique=False)
    times = table[params.time_column]
    rows = labelled(table[times < early.end], params)
    laid = outline(span, label_delay=params.label_delay, rows_a_day=len(rows) / early.days)
    rest = [part for part in laid.rest if times.between(part.start, part.end, "left").any()]
    policies = laid.policies
    learned_rows = len(rows) * (laid.learned / (early.end - early.start))
    if params.model == "auto" and not params.model_args and learned_rows < _FEW_ROWS:
        policies["train"]["model_args"] = _SIMPLE
    return replace(laid, rest=rest)
