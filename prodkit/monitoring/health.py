"""Health metrics of the last windows, from what the store remembers: one row a window, a column each."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import reduce
from types import MappingProxyType
from typing import Any

import numpy as np
import pandas as pd

from prodkit.decisions.holds import references
from prodkit.decisions.survey import DriftReport, drift_evidence, drill_evidence
from prodkit.drift.compare import comparison
from prodkit.drift.contract import Contract, breaks
from prodkit.drift.profiles import Profile
from prodkit.evidence import Estimate, Evidence, Outcome, Window, earlier_windows, overall, utc
from prodkit.models.bundle import Bundle, measured
from prodkit.monitoring.outcomes import ALARM, DAILY_LOSS, ESTIMATED, KINDS, LABELLED, REALISED, of_window
from prodkit.monitoring.served import of_requests, served_performance, served_windows
from prodkit.params import LEAD, PRIMARY, MonitorParams
from prodkit.store.registry import Store

__all__ = ["HealthMetrics", "health_metrics", "known_number"]

_SHARES = ("error_share", "degraded_share")
_COVERAGE = ("aged_share", "labelled_share")
_CHANCE = 0.5  # the AUC of a coin
_NOT_A_NUMBER = float("nan")


@dataclass(frozen=True)
class HealthMetrics:
    """What is known of the windows on the page.

    Attributes:
        windows: the oldest first.
        signs: one row a window (index: its first day). Columns ``version``, ``rows``, the health figures that scoring
            has recorded, if the service has answered those of :class:`prodkit.monitoring.served.Served`, ``breaks``
            and ``drifted`` (columns of the input), ``labelled_share``, ``aged_share``, ``state`` (``realised``,
            ``estimated``, ``immature`` or ``unknown``), and for each figure that is realised, or only estimated yet,
            ``NAME``, ``NAME_low``, ``NAME_high`` and ``NAME_n``. What is not known is NaN.
        days: mean loss of each day of the champion whose labels are all known: ``loss`` and ``n``.
        contract: rung 1 for the newest window, and
        drift: rung 5.
        reference: figures measured before the champion served, by name.
        task: of the champion.
        missing: for windows that could not be judged, why.
        served: what ``prodkit serve`` has answered, held against the same limits.
        unjudged: why its answers could not be held against labels; empty if they were, or nothing was asked.
    """

    windows: list[Window]
    signs: pd.DataFrame
    days: pd.DataFrame
    contract: list[Evidence]
    drift: list[Evidence]
    reference: dict[str, Estimate]
    task: Any
    missing: dict[str, str]
    served: list[Evidence]
    unjudged: str = ""

    @property
    def loss(self) -> str:
        """Name of the loss that decides."""
        return PRIMARY[self.task]

    @property
    def lead(self) -> str:
        """Name of the score that is looked at first."""
        return LEAD[self.task]

    def sign(self, name: str) -> pd.DataFrame:
        """One sign over the windows: value, low, high, and whether it is only estimated; NaN where not known."""
        ends = {"value": name, "low": f"{name}_low", "high": f"{name}_high"}
        table = pd.DataFrame(
            {short: self._column(long) for short, long in ends.items()}, index=self.signs.index
        )
        return table.assign(estimated=(self.signs["state"] == "estimated").to_numpy())

    def coverage(self) -> pd.DataFrame:
        """How far the labels of each window have come: rows, shares, and what that makes of its figures."""
        table = self.signs[["version", "rows", "aged_share", "labelled_share", "state"]]
        table = table.assign(rows=[f"{rows:,}" for rows in table["rows"]])
        why = [self.missing.get(str(window), "") for window in self.windows]
        return table.assign(why=why) if any(why) else table

    def loss_limit(self, margin: float) -> float:
        """What the loss is held against: the upper end of its reference, and a margin that is a share of it; or NaN."""
        reference = self.reference.get(self.loss)
        return _NOT_A_NUMBER if reference is None else reference.high + margin * reference.value

    def score_limit(self, margin: float) -> float:
        """What the AUC is held against: the lower end of its reference, less a margin; chance at the least."""
        reference = self.reference.get(self.lead)
        known = reference is not None and np.isfinite(reference.low)
        return max(_CHANCE, reference.low - margin) if reference is not None and known else _CHANCE

    def tables(self) -> dict[str, pd.DataFrame]:
        """Every sign that is a number, by name, the latency first."""
        ends = ("_low", "_high", "_n")
        names = [
            name
            for name in map(str, self.signs)
            if not name.endswith(ends) and name not in ("version", "state", "served_version")
        ]
        names.sort(key=lambda name: not name.startswith("latency_p99"))
        return {name: self.sign(name) for name in names}

    def _column(self, name: str) -> Any:
        return self.signs[name] if name in self.signs else np.full(len(self.signs), np.nan)


def health_metrics(
    store: Store,
    params: MonitorParams,
    *,
    champion: tuple[int, Bundle],
    missing: Mapping[str, str] = MappingProxyType({}),
    unjudged: Mapping[str, str] = MappingProxyType({}),
) -> HealthMetrics:
    """Put together what scoring and monitoring have recorded of the windows up to the moment of the run.

    Args:
        store: to read.
        params: of the run.
        champion: its number, and the model.
        missing: for windows that could not be judged, why.
        unjudged: by kind of drift, why the newest window could not be judged.
    """
    version, bundle = champion
    windows = earlier_windows(params.window, params.windows)
    table = store.metrics(window=Window(windows[0].start, windows[-1].end), until=params.moment)
    ends = table.loc[table["notebook"] == "score", "window_end"]
    served, early = served_windows(params, windows, bundle=bundle), 0
    while early < len(windows) - 1 and not (
        (ends <= pd.Timestamp(utc(windows[early].end))).any() or served.signs["served_rows"][early]
    ):
        early += 1  # from before anything was scored or served
    windows = windows[early:]
    rows = [_signs(store, params, window, table=table, champion=champion) for window in windows]
    if served.known:
        told = served.signs.assign(served_drifted=[_drifted(each, params, bundle) for each in served.inputs])
        records: Any = told.to_dict("records")[early:]
        rows = [{**row, **more} for row, more in zip(rows, records, strict=True)]
    realised, unjudged_requests = _of_requests(store, params, windows, version) if served.known else ({}, "")
    rows = [
        {**row, **realised.get(f"{each.start:%Y-%m-%d}", {})} for row, each in zip(rows, windows, strict=True)
    ]
    signs = pd.DataFrame(rows, index=pd.Index([f"{each.start:%Y-%m-%d}" for each in windows], name="window"))
    against = references(store, params.window.start, version=version, bundle=bundle)
    newest = served.inputs[-1]
    scored, unsound = _profile(store, params, params.window, version=version)
    asked = [] if newest is None else [of_requests(item) for item in _drift_of(newest, params, bundle)]
    return HealthMetrics(
        windows=windows,
        signs=signs,
        days=_days(store, params, version=version),
        contract=[
            *drill_evidence(params, bundle),
            *_contract(scored, against, champion, unsound=unsound, contract=params.contract),
        ],
        drift=[
            *_drift(scored, params, champion),
            *_remembered_drift(table, windows, version=version, unjudged=unjudged),
        ],
        reference=measured(store.version(version).manifest),
        task=bundle.schema.task,
        missing={str(each): missing[str(each)] for each in windows if str(each) in missing},
        served=served.evidence(params, against=against, importance=bundle.importance) + asked,
        unjudged=unjudged_requests,
    )


def _of_requests(
    store: Store, params: MonitorParams, windows: list[Window], version: int
) -> tuple[dict[str, dict[str, float]], str]:
    """By window what a version's answers to requests came to, as signs; and why that is not known."""
    table = served_performance(store, params, windows)
    if "why" in table:
        return {}, table["why"].iloc[0]
    if table.empty:
        return {}, f"no request carries {', '.join(params.id_column)}, so that no label can be joined"
    mine = table[table.index.get_level_values("version") == version].droplevel("version")
    records: dict[Any, dict[Any, float]] = mine.drop(columns="rows").to_dict("index")
    return {
        str(window): {f"served_{name}": value for name, value in row.items()}
        for window, row in records.items()
    }, ""


def known_number(given: Any) -> float:
    """A float of what the store holds; NaN of nothing."""
    return float(given) if isinstance(given, int | float | np.number) else _NOT_A_NUMBER


def _signs(
    store: Store, params: MonitorParams, window: Window, *, table: pd.DataFrame, champion: tuple[int, Bundle]
) -> dict[str, Any]:
    """One row of the table."""
    start, end = (pd.Timestamp(utc(moment)) for moment in (window.start, window.end))
    inside = table[(table["window_start"] >= start) & (table["window_end"] <= end)]
    found = _health(inside[inside["notebook"] == "score"])
    found |= _inputs(store, params, window, champion=champion)
    found |= _times_limit(table, window, version=champion[0])
    exact = of_window(inside, window)
    known = _newest(exact, REALISED)
    shares = {name: known.get(name, _NOT_A_NUMBER) for name in _COVERAGE}
    figures = {name: value for name, value in known.items() if not name.startswith(_COVERAGE)}
    aged = shares["aged_share"]
    mature = aged >= params.mature_share and any(name in figures for name in PRIMARY.values())
    state = "realised" if mature else "immature" if aged == aged else "unknown"
    if state == "immature":
        figures = _newest(exact, ESTIMATED)
        state = "estimated" if figures else state
    return {**found, **shares, "state": state, **(figures if state in ("realised", "estimated") else {})}


def _newest(table: pd.DataFrame, prefix: str) -> dict[str, float]:
    """Figures of a window as they were recorded last, without the beginning of their names."""
    table = table[table["name"].str.startswith(prefix)].sort_values("known_at", kind="stable")
    known: dict[str, float] = {}
    columns = ["name", "value", "low", "high", "n"]
    for name, *numbers in table.drop_duplicates("name", keep="last")[columns].itertuples(index=False):
        short = name.removeprefix(prefix)
        names = [short, f"{short}_low", f"{short}_high", f"{short}_n"]
        known |= dict(zip(names, (known_number(number) for number in numbers), strict=True))
    return known


def _health(table: pd.DataFrame) -> dict[str, Any]:
    """What scoring has recorded of a window: shares over all of its spans, the slowest of their latencies."""
    table = table.sort_values("known_at", kind="stable")
    newest = table.drop_duplicates(["notebook", "window_start", "window_end", "name"], keep="last")
    found: dict[str, Any] = {"version": "", "rows": 0, **dict.fromkeys(_SHARES, _NOT_A_NUMBER)}
    found |= {"latency_p50_ms": _NOT_A_NUMBER, "latency_p99_ms": _NOT_A_NUMBER}
    for name, part in newest.groupby("name"):
        known = part[part["value"].notna()]
        if known.empty:
            continue
        values, n = known["value"].to_numpy(dtype=float), known["n"].fillna(0).to_numpy(dtype=float)
        if name == "rows":
            found["rows"] = int(values.sum())
            found["version"] = ", ".join(f"v{each}" for each in sorted(set(known["version"].dropna())))
        elif name in _SHARES:
            found[str(name)] = float(np.average(values, weights=n)) if n.sum() else _NOT_A_NUMBER
        elif str(name).startswith("latency_"):
            found[str(name)] = float(values.max())
    return found


def _profile(
    store: Store, params: MonitorParams, window: Window, *, version: int
) -> tuple[Profile | None, int]:
    """What the input of a window looked like to a version, and how many of its parts were unsound."""
    kept = [row for row in store.profiles(window, until=params.moment) if row["version"] == version]
    if not kept:
        return None, 0
    parts = [Profile.from_dict(row["document"]) for row in kept]
    return reduce(Profile.merge, parts), sum(not row["clean"] for row in kept)


def _inputs(
    store: Store, params: MonitorParams, window: Window, *, champion: tuple[int, Bundle]
) -> dict[str, Any]:
    """How many parts of a window's input were unsound, and how many columns have drifted since training."""
    version, bundle = champion
    kept = store.profiles(window, until=params.moment)
    current, _ = _profile(store, params, window, version=version)
    drifted = _drifted(current, params, bundle)
    breaks_found = float(sum(not row["clean"] for row in kept)) if kept else _NOT_A_NUMBER
    return {"breaks": breaks_found, "drifted": drifted}


def _drifted(current: Profile | None, params: MonitorParams, bundle: Bundle) -> float:
    """How many columns have drifted since training; NaN without an input."""
    if current is None:
        return _NOT_A_NUMBER
    found = _compared(current, params, bundle)
    return float(found[["drifted", "missing_drifted", "unseen_drifted"]].any(axis="columns").sum())


def _compared(current: Profile, params: MonitorParams, bundle: Bundle) -> pd.DataFrame:
    settings = {"alpha": params.alpha, "min_effect": params.min_effect}
    return comparison(bundle.profile, current, importance=bundle.importance or None, **settings)


def _contract(
    current: Profile | None,
    against: tuple[Profile, Profile],
    champion: tuple[int, Bundle],
    *,
    unsound: int,
    contract: Contract,
) -> list[Evidence]:
    """Rung 1: the newest window's input, from the summary that scoring has kept, of which some parts were unsound."""
    if current is None:
        note = f"the input of this window was not recorded for version {champion[0]}: score has not run"
        return [Evidence("contract.input", "inconclusive", rung=1, note=note)]
    (recent, training), importance = against, champion[1].importance
    found = breaks(recent, current, training=training, importance=importance, contract=contract)
    if unsound and overall(found) == "pass":
        note = f"{unsound} parts of this window were found unsound when they were scored"
        found = [
            Evidence("contract.parts", "fail", value=unsound, limit=0, n=current.rows, rung=1, note=note)
        ]
    return found


def _drift(current: Profile | None, params: MonitorParams, champion: tuple[int, Bundle]) -> list[Evidence]:
    """Rung 5, from the same summary; what the model says of it is for ``drift`` to look at."""
    if current is None:
        note = f"the input of this window was not recorded for version {champion[0]}"
        return [Evidence("drift.unknown", "inconclusive", rung=5, note=note)]
    return _drift_of(current, params, champion[1])


def _drift_of(current: Profile, params: MonitorParams, bundle: Bundle) -> list[Evidence]:
    unasked = dict.fromkeys(("p_value", "effect", "floor"), _NOT_A_NUMBER) | {"note": "not asked"}
    columns = _compared(current, params, bundle)
    pair = bundle.scores, bundle.scores
    report = DriftReport(columns, unasked, bundle.profile, current, pair, params.alpha, params.min_effect)
    return drift_evidence(report)


def _days(store: Store, params: MonitorParams, *, version: int) -> pd.DataFrame:
    """Mean loss and rows of each day of the champion whose labels are all known; each as it was first judged."""
    table = store.metrics(notebook="monitor", name=DAILY_LOSS, version=version, until=params.moment)
    table = table.sort_values(["window_start", "known_at"], kind="stable").drop_duplicates("window_start")
    days = table.set_index("window_start")[["value", "n"]].rename(columns={"value": "loss"})
    return days.astype(float).rename_axis("day")


def _times_limit(table: pd.DataFrame, window: Window, *, version: int) -> dict[str, float]:
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


def _remembered_drift(
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
        asked = windows if kind in LABELLED else windows[-1:]
        known = [item for each in asked if (item := _remembered(table, each, kind, version=version))]
        found += known[-1:]
        if kind not in LABELLED and not known:
            note = f"drift of {subject} in the newest window is not known for version {version}"
            others = _judged_for(table, windows[-1], kind)
            why = unjudged.get(kind) or (f"version {', '.join(others)} has answered it" if others else "")
            note += f": {why}" if why else ""
            found.append(Evidence(f"drift.{kind}", "inconclusive", rung=5, note=note))
    return found


def _remembered(table: pd.DataFrame, window: Window, kind: str, *, version: int) -> Evidence | None:
    """What was found last of a window; None if nothing was."""
    table = of_window(table, window)
    table = table[(table["notebook"] == "monitor") & (table["version"] == version)]
    newest = (
        table.sort_values("known_at", kind="stable").drop_duplicates("name", keep="last").set_index("name")
    )
    name = f"drift.{kind}"
    if not {name, name + ALARM} <= set(newest.index):
        return None
    row: Any = newest.loc[name]
    alarm = bool(newest["value"][name + ALARM])
    outcome: Outcome = "fail" if alarm else "pass"
    note = f"drift of {KINDS[kind]} in the window from {window.start:%Y-%m-%d}, beside training"
    note += (
        "" if alarm or row["value"] < row["high"] else "; not sure, told before, or as far off as by chance"
    )
    value, limit = (float(np.nan_to_num(row[each])) for each in ("value", "high"))
    return Evidence(name, outcome, value=value, limit=limit, n=int(row["n"]), rung=5, note=note)


def _judged_for(table: pd.DataFrame, window: Window, kind: str) -> list[str]:
    """The versions for which a window was judged."""
    table = of_window(table, window)
    same = table[(table["notebook"] == "monitor") & (table["name"] == f"drift.{kind}")]
    return [str(each) for each in sorted(set(same["version"].astype(int)))]
