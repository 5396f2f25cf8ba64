"""What became of the predictions: the windows that scoring has served, judged once their labels have matured.

Each is judged once and what was found is kept in the store, so that a later look costs no reading. A window that is too
young has no figures at all, nor has a day of which one label is young: nothing is compared that is not complete.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

import numpy as np
import pandas as pd

from prodkit.data.windows import blocks, read_window
from prodkit.decisions.concept import wider_drift
from prodkit.decisions.result import current_run, metric
from prodkit.decisions.survey import prediction_drift, standing_shift
from prodkit.decisions.trial import unseen_rows
from prodkit.errors import DataError, LabelError, ParameterError, ProdkitError
from prodkit.evidence import Estimate, Window, earlier_windows, utc
from prodkit.models.bundle import Bundle, window_estimate
from prodkit.models.estimate import Estimated
from prodkit.models.metrics import intervals, mean_worth, row_losses, row_worth, sample_weights
from prodkit.params import MonitorParams, ProjectParams, ScoreParams
from prodkit.scoring.batch import LATE_ROWS, open_window, remember_scoring, score_window
from prodkit.scoring.guard import guarded
from prodkit.scoring.inspection import inspect_chunks
from prodkit.settings import environment_set
from prodkit.store.registry import Store
from prodkit.store.workspace import champion_of, load_version

__all__ = [
    "ALARM",
    "DAILY_LOSS",
    "ESTIMATED",
    "KINDS",
    "LABELLED",
    "REALISED",
    "demonstrate_past",
    "estimate_pending",
    "judge_drift",
    "judge_matured",
    "of_window",
    "served_parts",
]

# In the store:
REALISED, ESTIMATED = "realised.", "estimated."  # begin the names of a window's figures
ALARM = ".alarm"  # ends the name of a kind of drift: whether it was told
DAILY_LOSS = "loss.served"  # mean loss of a day, all of whose labels are known
# By the end of its name in the store and in the evidence: what has drifted if it has.
KINDS = {
    "predictions": "predictions",
    "together": "columns together",
    "labels": "labels",
    "concept": "what scores come to",
}
LABELLED = ("labels", "concept")


@dataclass(frozen=True)
class _Served:
    """Labelled rows of a window with what was said of them when they were served."""

    truth: np.ndarray
    predicted: np.ndarray
    days: np.ndarray
    worth: np.ndarray | None
    weights: np.ndarray | None
    task: Any


def served_parts(store: Store, params: MonitorParams, window: Window) -> list[tuple[Window, int]]:
    """The spans within a window that scoring has served by the moment of the run, each with its version.

    Of spans that overlap the one that was scored last counts, as far as it begins later or is the same.
    """
    table = store.metrics(notebook="score", name="rows", window=window, until=params.moment)
    table = table.drop_duplicates(["window_start", "window_end"], keep="last")
    found, reached = [], utc(window.start)
    for start, end, version in zip(table["window_start"], table["window_end"], table["version"], strict=True):
        begin = max(start.to_pydatetime(), reached)
        if begin < end.to_pydatetime():
            found.append((Window(begin, end.to_pydatetime()), int(version)))
            reached = end.to_pydatetime()
    return found


def _aged_share(store: Store, params: MonitorParams, window: Window) -> float:
    """Share of a window's rows that are old enough for a label, as it was recorded last; NaN if it never was."""
    name = f"{REALISED}aged_share"
    table = store.metrics(notebook="monitor", name=name, window=window, until=params.moment)
    newest = of_window(table, window).sort_values("known_at", kind="stable")["value"].tail(1)
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

    Where labels have times of their own, or a table, one may come at any time: then all rows must have had one. What
    this very run has written counts for nothing: done again, it is to leave all of it again.
    """
    table = store.metrics(notebook="monitor", window=window, until=params.moment)
    same = of_window(table[table["run_id"] != current_run(params)], window)
    final = same[same["known_at"] - params.label_delay >= same["window_end"]]
    scored = store.metrics(notebook="score", window=window, until=params.moment)
    if late := scored.loc[scored["name"] == LATE_ROWS, "value"].sum():  # were those among the rows, too?
        first = scored[scored["name"] == "rows"].drop_duplicates(["window_start", "window_end"], keep="last")
        final = final[final["n"] >= first["value"].sum() + late]
    if params.labels or params.label_time:
        return bool((final.loc[final["name"] == f"{REALISED}labelled_share", "value"] >= 1).any())
    return bool((final["name"] == f"{REALISED}aged_share").any())


def _judged(store: Store, params: MonitorParams, window: Window) -> list[dict[str, Any]]:
    """The rows for the store about one window: how mature it is, its figures if it is, and those of its mature days."""
    parts = served_parts(store, params, window)
    if not parts:
        raise DataError("window", rule="was not scored", value=str(window), fix="Run score on it.")
    table = read_window(params, window)
    young = table[params.time_column] >= utc(params.labels_until)
    lived = min(1.0, (utc(params.moment) - utc(window.start)) / (window.end - window.start))
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
        distrust, masked = answered(store, params, span)
        if piece := _piece(params, rows, bundle, distrust=distrust, masked=masked):
            pieces.append(piece)
    if not pieces:
        raise LabelError(params.target, rule="must hold labels of rows that were scored", value="none")
    joined = [None if column[0] is None else np.concatenate(column) for column in zip(*pieces, strict=True)]
    return _Served(*joined, task=schema[0] if schema else "binary")  # type: ignore[arg-type, misc]


def _piece(
    params: MonitorParams, rows: pd.DataFrame, bundle: Bundle, *, distrust: str, masked: tuple[str, ...]
) -> tuple[Any, ...] | None:
    """Truth, answers, days and values of the rows that one version served; None if none has a label that it knows."""
    if rows.empty or not rows[params.target].notna().any():
        return None
    rows = unseen_rows(rows, params, bundle).reset_index(drop=True)
    rows = rows[bundle.schema.knows(rows[params.target])].reset_index(drop=True)
    if rows.empty:
        return None
    truth = bundle.schema.encode(rows[params.target])
    said = guarded(bundle, rows, distrust=distrust, masked=masked).predicted
    worth = row_worth(params.value, rows, truth=truth, predicted=said, schema=bundle.schema)
    return truth, said, blocks(rows[params.time_column]), worth, sample_weights(params.weight, rows)


def answered(store: Store, params: MonitorParams, span: Window) -> tuple[str, tuple[str, ...]]:
    """Why the simple rule answered in this span, if it did, and which columns the model was asked without."""
    for row in store.profiles(span, until=params.moment):
        was = row["document"].get("broken", {"distrust": "" if row["clean"] else "its input was broken"})
        if was["distrust"] or was.get("masked"):
            return was["distrust"], tuple(was.get("masked", ()))
    return "", ()


def _distrusted(store: Store, params: MonitorParams, span: Window) -> str:
    """Why nothing can be told of the model from this span; empty if something can."""
    found = [row for row in store.profiles(span, until=params.moment) if not row["clean"]]
    return "its input was broken" if found else ""


def _figures(served: _Served, params: MonitorParams) -> dict[str, Estimate]:
    """All scores of the window and its mean business value, with intervals over days."""
    truth, said, days = served.truth, served.predicted, served.days
    settings: dict[str, Any] = {"blocks": days, "confidence": params.confidence, "seed": params.seed}
    found = intervals(truth, said, task=served.task, weights=served.weights, own=params.metrics, **settings)
    if served.worth is not None and np.isfinite(served.worth).any():
        found["value"] = mean_worth(
            served.worth, blocks=days, confidence=params.confidence, weights=served.weights
        )
    return found


def _daily(params: MonitorParams, served: _Served, *, version: int) -> list[dict[str, Any]]:
    """The mean loss of each day that is old enough as a whole."""
    losses = row_losses(served.truth, served.predicted, task=served.task)
    each = np.ones(len(losses)) if served.weights is None else served.weights
    table = pd.DataFrame({"day": served.days, "loss": losses * each, "weight": each, "n": 1})
    days = table.groupby("day")[["loss", "weight", "n"]].sum()
    days = days[days["weight"] > 0]
    found = []
    for day, mean, n in zip(days.index, days["loss"] / days["weight"], days["n"], strict=True):
        start = datetime(1970, 1, 1) + timedelta(days=int(day))
        span = Window(start, start + timedelta(days=1))
        if span.end <= utc(params.labels_until):
            found.append(metric(params, DAILY_LOSS, float(mean), window=span, version=version, n=int(n)))
    return found


def of_window(table: pd.DataFrame, window: Window) -> pd.DataFrame:
    """The metrics that are about just this window."""
    starts, ends = (pd.Timestamp(utc(end)) for end in (window.start, window.end))
    return table[(table["window_start"] == starts) & (table["window_end"] == ends)]


# Windows whose labels are still to come


def estimate_pending(store: Store, params: MonitorParams) -> dict[str, str]:
    """Estimate each window of the page that is too young to be judged, and keep what was found.

    It is called after :func:`prodkit.monitoring.outcomes.judge_matured`, which says how young they are. A realised
    figure takes the place of an estimate once there is one.

    Returns:
        For each window that could not be estimated, why.
    """
    rows: list[dict[str, Any]] = []
    missing: dict[str, str] = {}
    for window in earlier_windows(params.window, params.windows):
        if not _aged_share(store, params, window) < params.mature_share:
            continue
        try:
            version, found = _estimate(store, params, window)
        except ProdkitError as error:  # one bad window must not hide the others
            missing[str(window)] = str(error)
            continue
        if found.abstained:
            missing[str(window)] = found.abstained
        rows += [
            metric(params, ESTIMATED + name, each.value, window=window, version=version, n=each.n, low=each.low,
                   high=each.high)
            for name, each in found.scores.items()
        ]  # fmt: skip
    store.record_metrics(rows)
    return missing


def _estimate(store: Store, params: MonitorParams, window: Window) -> tuple[int, Estimated]:
    """The version that served a window, and what is estimated of it."""
    parts = served_parts(store, params, window)
    versions = sorted({version for _, version in parts})
    table = read_window(params, window)
    if len(versions) != 1:
        told = " and ".join(f"v{version}" for version in versions) or "no version"
        return 0, Estimated(abstained=f"{told} served it: each is calibrated for itself", rows=len(table))
    reasons = [why for span, _ in parts if (why := _distrusted(store, params, span))]
    bundle = load_version(store, versions[0])
    settings: dict[str, Any] = {"confidence": params.confidence, "distrust": reasons[0] if reasons else ""}
    return versions[0], window_estimate(table, params, bundle=bundle, **settings)


# Drift that no column of a window shows


def judge_drift(store: Store, params: MonitorParams) -> dict[str, str]:
    """Judge each window of the page that was not yet, and keep what was found.

    Predictions and columns together need no label. Labels, and what scores come to, are judged once a window is
    mature, and again when it is final. A window that several versions served, or whose input was broken, is not judged.
    It is called after :func:`prodkit.monitoring.outcomes.judge_matured`, which says how mature windows are.

    Returns:
        Of the newest window, by kind, why it could not be judged.
    """
    rows: list[dict[str, Any]] = []
    why: dict[str, str] = {}
    usual: dict[int, dict[int, float]] = {}
    for window in earlier_windows(params.window, params.windows):
        wanted = _undecided(store, params, window)
        if wanted:
            found, why = _judged_drift(store, params, window, wanted, usual)
            rows += found
        else:
            why = {}
    store.record_metrics(rows)
    return why


def _undecided(store: Store, params: MonitorParams, window: Window) -> set[str]:
    """The kinds of drift of a window that no earlier run has judged for good."""
    table = of_window(store.metrics(notebook="monitor", window=window, until=params.moment), window)
    table = table[table["run_id"] != current_run(params)]
    final = table["known_at"] - params.label_delay >= table["window_end"]
    judged = {kind for kind in KINDS if ((table["name"] == f"drift.{kind}") & final).any()}
    judged |= {kind for kind in set(KINDS) - set(LABELLED) if (table["name"] == f"drift.{kind}").any()}
    if not _aged_share(store, params, window) >= params.mature_share:
        judged |= set(LABELLED)
    return set(KINDS) - judged


def _judged_drift(
    store: Store, params: MonitorParams, window: Window, wanted: set[str], usual: dict[int, dict[int, float]]
) -> tuple[list[dict[str, Any]], dict[str, str]]:
    """The rows for the store about one window, and why there are none, by kind; ``usual`` is kept by version."""
    parts = served_parts(store, params, window)
    versions = sorted({version for _, version in parts})
    broken = next(filter(None, (_distrusted(store, params, span) for span, _ in parts)), "")
    if len(versions) != 1 or broken:
        several = f"versions {', '.join(map(str, versions))} have answered it in part"
        return [], dict.fromkeys(wanted, (broken or several) if parts else "it was not scored")
    version = versions[0]
    try:
        bundle, rows = load_version(store, version), read_window(params, window)
        if rows.empty:
            return [], dict.fromkeys(wanted, "it holds no rows")
        known = store.metric_rows(notebook="monitor", version=version, until=params.moment)
        told = [row for row in known if row["run_id"] != current_run(params)]
        standing = standing_shift(told, window, version=version)
        found = []
        if "predictions" in wanted:
            found.append(prediction_drift(params, rows, bundle=bundle, standing=standing))
        settings: dict[str, Any] = {"joint": "together" in wanted, "usual": usual.setdefault(version, {})}
        found += wider_drift(params, rows, bundle=bundle, **settings)
    except ProdkitError as error:  # one bad window must not hide the others
        return [], dict.fromkeys(wanted, str(error))
    # What ends the search early says so of concept, which comes last.
    kept, why = [], dict.fromkeys(wanted, found[-1].note)
    for item in found:
        kind = item.name.removeprefix("drift.")
        if kind in wanted and item.value is not None and item.limit is not None:
            alarm = float(item.outcome == "fail")
            given: dict[str, Any] = {"window": window, "version": version, "n": item.n or 0}
            kept.append(metric(params, item.name, item.value, **given, high=item.limit))
            kept.append(metric(params, item.name + ALARM, alarm, **given))
            del why[kind]
        elif kind in wanted:
            why[kind] = item.note
    return kept, why


# A past for the demonstration


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
