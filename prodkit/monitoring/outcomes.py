"""What became of the predictions: the windows that scoring has served, judged once their labels have matured.

Each is judged once and what was found is kept in the store, so that a later look costs no reading. A window that is too
young has no figures at all, nor has a day of which one label is young: nothing is compared that is not complete.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import Any

import numpy as np
import pandas as pd

from prodkit.data.windows import blocks, read_window
from prodkit.decisions.paired import difference
from prodkit.decisions.result import current_run, metric
from prodkit.decisions.trial import unseen_rows
from prodkit.errors import DataError, LabelError, ParameterError, ProdkitError
from prodkit.evidence import Estimate, Window, earlier_windows
from prodkit.models.bundle import Bundle
from prodkit.models.metrics import intervals, row_losses, row_worth
from prodkit.params import MonitorParams, ProjectParams, ScoreParams
from prodkit.scoring.batch import LATE_ROWS, open_window, remember_scoring, score_window
from prodkit.scoring.guard import guarded
from prodkit.scoring.inspection import inspect_chunks
from prodkit.settings import environment_set
from prodkit.store.registry import Store
from prodkit.store.workspace import champion_of, load_version

__all__ = [
    "DAILY_LOSS",
    "REALISED",
    "aged_share",
    "demonstrate_past",
    "distrusted",
    "judge_matured",
    "served_parts",
]

REALISED = "realised."  # in the store: begins the names of a window's figures
DAILY_LOSS = "loss.served"  # in the store: mean loss of a day, all of whose labels are known


@dataclass(frozen=True)
class _Served:
    """Labelled rows of a window with what was said of them when they were served."""

    truth: np.ndarray
    predicted: np.ndarray
    days: np.ndarray
    worth: np.ndarray | None
    task: Any


def served_parts(store: Store, params: MonitorParams, window: Window) -> list[tuple[Window, int]]:
    """The spans within a window that scoring has served by the moment of the run, each with its version.

    Of spans that overlap the one that was scored last counts, as far as it begins later or is the same.
    """
    table = store.metrics(notebook="score", name="rows", window=window, until=params.moment)
    table = table.drop_duplicates(["window_start", "window_end"], keep="last")
    found, reached = [], _naive(window.start)
    for start, end, version in zip(table["window_start"], table["window_end"], table["version"], strict=True):
        begin = max(start.to_pydatetime(), reached)
        if begin < end.to_pydatetime():
            found.append((Window(begin, end.to_pydatetime()), int(version)))
            reached = end.to_pydatetime()
    return found


def aged_share(store: Store, params: MonitorParams, window: Window) -> float:
    """Share of a window's rows that are old enough for a label, as it was recorded last; NaN if it never was."""
    name = f"{REALISED}aged_share"
    table = store.metrics(notebook="monitor", name=name, window=window, until=params.moment)
    starts, ends = (pd.Timestamp(_naive(end)) for end in (window.start, window.end))
    same = table[(table["window_start"] == starts) & (table["window_end"] == ends)]
    newest = same.sort_values("known_at", kind="stable")["value"].tail(1)
    return float(newest.iloc[0]) if len(newest) else float("nan")


def judge_matured(store: Store, params: MonitorParams) -> dict[str, str]:
    """Judge each window of the page that has matured since the last look, and keep what was found.

    Returns:
        For each window that could not be judged, why: it was not scored, or what went wrong.

    Raises:
        ParameterError: ``value`` does not fit the classes of the champion.
    """
    rows: list[dict[str, Any]] = []
    missing: dict[str, str] = {}
    for window in earlier_windows(params.window, params.windows):
        if _is_judged(store, params, window):
            continue
        try:
            rows += _judged(store, params, window)
        except ParameterError:
            raise  # it would be the same for every window
        except ProdkitError as error:  # one bad window must not hide the others
            missing[str(window)] = str(error)
    store.record_metrics(rows)
    return missing


def _is_judged(store: Store, params: MonitorParams, window: Window) -> bool:
    """Whether an earlier run has judged it when all of its labels were known that ever will be.

    What this very run has written counts for nothing: done again, it is to leave all of it again.
    """
    name = f"{REALISED}aged_share"
    table = store.metrics(notebook="monitor", name=name, window=window, until=params.moment)
    table = table[table["run_id"] != current_run(params)]
    starts, ends = (pd.Timestamp(_naive(end)) for end in (window.start, window.end))
    same = table[(table["window_start"] == starts) & (table["window_end"] == ends)]
    mature = same[same["known_at"] - params.label_delay >= same["window_end"]]
    about: dict[str, Any] = {"notebook": "score", "window": window, "until": params.moment}
    if late := store.metrics(name=LATE_ROWS, **about)["value"].sum():  # were those among the rows, too?
        scored = store.metrics(name="rows", **about).drop_duplicates(
            ["window_start", "window_end"], keep="last"
        )
        return bool((mature["n"] >= scored["value"].sum() + late).any())
    return len(mature) > 0


def _judged(store: Store, params: MonitorParams, window: Window) -> list[dict[str, Any]]:
    """The rows for the store about one window: how mature it is, its figures if it is, and those of its mature days."""
    parts = served_parts(store, params, window)
    if not parts:
        raise DataError("window", rule="was not scored", value=str(window), fix="Run score on it.")
    table = read_window(params, window)
    young = table[params.time_column] >= _naive(params.labels_until)
    lived = min(1.0, (_naive(params.moment) - _naive(window.start)) / (window.end - window.start))
    aged_share, labelled_share = lived * float((~young).mean()), float(table[params.target].notna().mean())
    version = parts[-1][1]

    def row(name: str, value: float, **more: Any) -> dict[str, Any]:
        return metric(params, name, value, window=window, version=version, **more)

    found = [
        row(f"{REALISED}labelled_share", labelled_share, n=len(table)),
        row(f"{REALISED}aged_share", aged_share, n=len(table)),
    ]
    old = table[~young]
    if not old[params.target].notna().any():
        return found
    served = _served(store, params, old, parts)
    if aged_share >= params.mature_share:
        for name, each in _figures(served, params).items():
            found.append(row(REALISED + name, each.value, low=each.low, high=each.high, n=each.n))
    return found + _daily(params, served, version=version)


def _served(
    store: Store, params: MonitorParams, table: pd.DataFrame, parts: Sequence[tuple[Window, int]]
) -> _Served:
    """Ask the versions again that answered then: they give the same answers, and the simple rule where it did."""
    pieces, schema = [], None
    for span, version in parts:
        times = table[params.time_column]
        rows = table[(times >= span.start) & (times < span.end)].reset_index(drop=True)
        bundle = load_version(store, version)
        if schema is not None and (bundle.schema.task, bundle.schema.classes) != schema:
            pieces = []  # figures over other classes cannot be put together: the newest version's stay
        schema = bundle.schema.task, bundle.schema.classes
        if piece := _piece(params, rows, bundle, distrust=distrusted(store, params, span)):
            pieces.append(piece)
    if not pieces:
        raise LabelError(params.target, rule="must hold labels of rows that were scored", value="none")
    truth, said, days, values = (list(column) for column in zip(*pieces, strict=True))
    kept = None if values[0] is None else np.concatenate(values)
    task = schema[0] if schema else "binary"
    return _Served(np.concatenate(truth), np.concatenate(said), np.concatenate(days), kept, task)


def _piece(
    params: MonitorParams, rows: pd.DataFrame, bundle: Bundle, *, distrust: str
) -> tuple[Any, ...] | None:
    """Truth, answers, days and values of the rows that one version served; None if none has a label that it knows."""
    if rows.empty or not rows[params.target].notna().any():
        return None
    rows = unseen_rows(rows, params, bundle).reset_index(drop=True)
    rows = rows[bundle.schema.knows(rows[params.target])].reset_index(drop=True)
    if rows.empty:
        return None
    truth = bundle.schema.encode(rows[params.target])
    said = guarded(bundle, rows, distrust=distrust).predicted
    worth = row_worth(params.value, rows, truth=truth, predicted=said, schema=bundle.schema)
    return truth, said, blocks(rows[params.time_column]), worth


def distrusted(store: Store, params: MonitorParams, span: Window) -> str:
    """Why the simple rule answered in this span; empty if the model did."""
    found = [row for row in store.profiles(span, until=params.moment) if not row["clean"]]
    return "its input was broken" if found else ""


def _figures(served: _Served, params: MonitorParams) -> dict[str, Estimate]:
    """All scores of the window and its mean business value, with intervals over days."""
    truth, said, days = served.truth, served.predicted, served.days
    settings: dict[str, Any] = {"blocks": days, "confidence": params.confidence, "seed": params.seed}
    found = intervals(truth, said, task=served.task, **settings)
    if served.worth is not None:
        known = np.isfinite(served.worth)
        if known.any():
            values, settings["blocks"] = served.worth[known], days[known]
            found["value"] = difference(values, np.zeros(len(values)), **settings)
            if np.ptp(values) == 0:  # always the same decision: no spread, where rounding would leave one
                found["value"] = replace(found["value"], low=float(values[0]), high=float(values[0]))
    return found


def _daily(params: MonitorParams, served: _Served, *, version: int) -> list[dict[str, Any]]:
    """The mean loss of each day that is old enough as a whole."""
    losses = row_losses(served.truth, served.predicted, task=served.task)
    days = pd.DataFrame({"day": served.days, "loss": losses}).groupby("day")["loss"].agg(["mean", "size"])
    found = []
    for day, mean, n in zip(days.index, days["mean"], days["size"], strict=True):
        start = datetime(1970, 1, 1) + timedelta(days=int(day))
        span = Window(start, start + timedelta(days=1))
        if span.end <= _naive(params.labels_until):
            found.append(metric(params, DAILY_LOSS, float(mean), window=span, version=version, n=int(n)))
    return found


def _naive(moment: datetime) -> datetime:
    return moment.astimezone(UTC).replace(tzinfo=None) if moment.tzinfo else moment


def demonstrate_past(store: Store, params: MonitorParams) -> None:
    """Score each window of the page, if the store is the demonstration's; a real one has a past of its own."""
    if params.store != "demo":
        return
    version, bundle = champion_of(store)
    shared = {name: value for name, value in params.plain().items() if name in ProjectParams.model_fields}
    for window in earlier_windows(params.window, params.windows):
        then = ScoreParams.check({**shared, "window": str(window), "as_of": ""})
        rows = open_window(then, bundle=bundle)
        inspection = inspect_chunks(store, then, rows, version=version, bundle=bundle)
        scored = score_window(then, rows, inspection, version=version, bundle=bundle)
        # each by a run of its own, or one would replace the other
        with environment_set(PRODKIT_RUN=f"score-{window}"):
            remember_scoring(store, then, scored, inspection, version=version)
