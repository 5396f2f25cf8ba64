"""Drift that no column of a window shows: judged once from its rows, remembered, and never read again."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

import numpy as np
import pandas as pd

from prodkit.data.windows import read_window
from prodkit.decisions.concept import wider_drift
from prodkit.decisions.result import current_run, metric
from prodkit.decisions.survey import prediction_drift, standing_shift
from prodkit.errors import ProdkitError
from prodkit.evidence import Evidence, Outcome, Window, earlier_windows
from prodkit.monitoring.outcomes import aged_share, distrusted, served_parts
from prodkit.params import MonitorParams
from prodkit.store.registry import Store
from prodkit.store.workspace import load_version

__all__ = ["KINDS", "judge_drift", "remembered_drift", "times_limit"]

# By the end of its name in the store and in the evidence: what has drifted if it has.
KINDS = {
    "predictions": "predictions",
    "together": "columns together",
    "labels": "labels",
    "concept": "what scores come to",
}
_LABELLED = ("labels", "concept")
_ALARM = ".alarm"


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
        wanted = _wanted(store, params, window)
        if wanted:
            found, why = _judged(store, params, window, wanted, usual)
            rows += found
        else:
            why = {}
    store.record_metrics(rows)
    return why


def _wanted(store: Store, params: MonitorParams, window: Window) -> set[str]:
    """The kinds of drift of a window that no earlier run has judged for good."""
    table = _exact(store.metrics(notebook="monitor", window=window, until=params.moment), window)
    table = table[table["run_id"] != current_run(params)]
    final = table["known_at"] - params.label_delay >= table["window_end"]
    judged = {kind for kind in KINDS if ((table["name"] == f"drift.{kind}") & final).any()}
    judged |= {kind for kind in set(KINDS) - set(_LABELLED) if (table["name"] == f"drift.{kind}").any()}
    if not aged_share(store, params, window) >= params.mature_share:
        judged |= set(_LABELLED)
    return set(KINDS) - judged


def _judged(
    store: Store, params: MonitorParams, window: Window, wanted: set[str], usual: dict[int, dict[int, float]]
) -> tuple[list[dict[str, Any]], dict[str, str]]:
    """The rows for the store about one window, and why there are none, by kind; ``usual`` is kept by version."""
    parts = served_parts(store, params, window)
    versions = sorted({version for _, version in parts})
    broken = next(filter(None, (distrusted(store, params, span) for span, _ in parts)), "")
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
            kept.append(metric(params, item.name + _ALARM, alarm, **given))
            del why[kind]
        elif kind in wanted:
            why[kind] = item.note
    return kept, why


def times_limit(table: pd.DataFrame, window: Window, *, version: int) -> dict[str, float]:
    """How many times its limit each kind of drift of a window is, by ``drift_`` and its name; NaN if not known.

    Args:
        table: metrics of the store.
        window: of the page.
        version: the champion; what another version made of a window says nothing of it.
    """
    found = {kind: _remembered(table, window, kind, version=version) for kind in KINDS}
    return {
        f"drift_{kind}": float("nan") if item is None else (item.value or 0.0) / (item.limit or 1.0)
        for kind, item in found.items()
    }


def remembered_drift(
    table: pd.DataFrame,
    windows: list[Window],
    *,
    version: int,
    unjudged: Mapping[str, str] = MappingProxyType({}),
) -> list[Evidence]:
    """Rung 5, of the newest window; where labels are needed, of the newest that has them. Nothing if none has.

    Args:
        table: metrics of the store.
        windows: of the page, the oldest first.
        version: the champion.
        unjudged: by kind, why the newest window could not be judged.
    """
    found = []
    for kind, subject in KINDS.items():
        asked = windows if kind in _LABELLED else windows[-1:]
        known = [item for each in asked if (item := _remembered(table, each, kind, version=version))]
        found += known[-1:]
        if kind not in _LABELLED and not known:
            note = f"drift of {subject} in the newest window is not known for version {version}"
            others = _judged_for(table, windows[-1], kind)
            why = unjudged.get(kind) or (f"version {', '.join(others)} has answered it" if others else "")
            note += f": {why}" if why else ""
            found.append(Evidence(f"drift.{kind}", "inconclusive", rung=5, note=note))
    return found


def _remembered(table: pd.DataFrame, window: Window, kind: str, *, version: int) -> Evidence | None:
    """What was found last of a window; None if nothing was."""
    table = _exact(table, window)
    table = table[(table["notebook"] == "monitor") & (table["version"] == version)]
    newest = (
        table.sort_values("known_at", kind="stable").drop_duplicates("name", keep="last").set_index("name")
    )
    name = f"drift.{kind}"
    if not {name, name + _ALARM} <= set(newest.index):
        return None
    row: Any = newest.loc[name]
    alarm = bool(newest["value"][name + _ALARM])
    outcome: Outcome = "fail" if alarm else "pass"
    note = f"drift of {KINDS[kind]} in the window from {window.start:%Y-%m-%d}, beside training"
    note += (
        "" if alarm or row["value"] < row["high"] else "; not sure, told before, or as far off as by chance"
    )
    value, limit = (float(np.nan_to_num(row[each])) for each in ("value", "high"))
    return Evidence(name, outcome, value=value, limit=limit, n=int(row["n"]), rung=5, note=note)


def _judged_for(table: pd.DataFrame, window: Window, kind: str) -> list[str]:
    """The versions for which a window was judged."""
    table = _exact(table, window)
    same = table[(table["notebook"] == "monitor") & (table["name"] == f"drift.{kind}")]
    return [str(each) for each in sorted(set(same["version"].astype(int)))]


def _exact(table: pd.DataFrame, window: Window) -> pd.DataFrame:
    starts, ends = (pd.Timestamp(end).tz_localize(None) for end in (window.start, window.end))
    return table[(table["window_start"] == starts) & (table["window_end"] == ends)]
