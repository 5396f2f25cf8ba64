"""The vital signs of the last windows, from what the store remembers: one row a window, each sign against its limit."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import reduce
from types import MappingProxyType
from typing import Any

import numpy as np
import pandas as pd

from prodkit.decisions.decide import Decision, sentence
from prodkit.decisions.estimate import Estimated, estimate_evidence
from prodkit.decisions.gates import at_most
from prodkit.decisions.sequential import loss_rise
from prodkit.decisions.survey import DriftReport, drift_evidence, drill_evidence
from prodkit.drift.comparison import comparison
from prodkit.drift.contract import breaks
from prodkit.drift.profiles import Profile
from prodkit.evidence import Estimate, Evidence, Outcome, overall
from prodkit.figures.chart import Chart
from prodkit.figures.windows import draw_panels
from prodkit.models.bundle import Bundle, measured
from prodkit.monitoring.outcomes import DAILY_LOSS, REALISED
from prodkit.monitoring.pending import ESTIMATED
from prodkit.monitoring.served import of_requests, served_windows
from prodkit.monitoring.wider import KINDS, remembered_drift, times_limit
from prodkit.settings.params import LEAD, PRIMARY, MonitorParams
from prodkit.spans import Window, earlier_windows
from prodkit.store.history import Champion
from prodkit.store.registry import Store

__all__ = [
    "Vitals",
    "draw_answers",
    "draw_quality",
    "sign_limits",
    "standing",
    "steady",
    "vital_evidence",
    "vital_signs",
]

_SHARES = ("error_share", "degraded_share")
_COVERAGE = ("aged_share", "labelled_share")
_UNRECORDED = ("contract.input", "drift.unknown")  # names of what scoring has not recorded
_CHANCE = 0.5  # the AUC of a coin
_HEALTH = {
    "error_share": "share of rows that the champion could not answer",
    "degraded_share": "share of rows answered by a fallback",
    "latency_p50_ms": "median latency, milliseconds a row,",
    "latency_p99_ms": "latency of the slowest in a hundred, milliseconds a row,",
}
_NOT_A_NUMBER = float("nan")


@dataclass(frozen=True)
class Vitals:
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


def vital_signs(
    store: Store,
    params: MonitorParams,
    *,
    champion: tuple[int, Bundle],
    missing: Mapping[str, str] = MappingProxyType({}),
) -> Vitals:
    """Put together what scoring and monitoring have recorded of the windows up to the moment of the run."""
    version, bundle = champion
    windows = earlier_windows(params.window, params.windows)
    table = store.metrics(window=Window(windows[0].start, windows[-1].end), until=params.moment)
    scored = table.loc[table["notebook"] == "score", "window_end"]
    served, early = served_windows(params, windows, bundle=bundle), 0
    while early < len(windows) - 1 and not (
        (scored <= pd.Timestamp(_naive(windows[early].end))).any() or served.signs["served_rows"][early]
    ):
        early += 1  # from before anything was scored or served
    windows = windows[early:]
    rows = [_signs(store, params, window, table=table, champion=champion) for window in windows]
    if served.known:
        told = served.signs.assign(served_drifted=[_drifted(each, params, bundle) for each in served.inputs])
        records: Any = told.to_dict("records")[early:]
        rows = [{**row, **more} for row, more in zip(rows, records, strict=True)]
    signs = pd.DataFrame(rows, index=pd.Index([f"{each.start:%Y-%m-%d}" for each in windows], name="window"))
    contract = _contract(store, params, version=version, bundle=bundle)
    kept = store.latest_profile(params.window.start, version=version)
    recent, newest = Profile.from_dict(kept) if kept else bundle.recent, served.inputs[-1]
    asked = [] if newest is None else [of_requests(item) for item in _drift_of(newest, params, bundle)]
    return Vitals(
        windows=windows,
        signs=signs,
        days=_days(store, params, version=version),
        contract=[*drill_evidence(params, bundle), *contract],
        drift=[
            *_drift(store, params, version=version, bundle=bundle),
            *remembered_drift(table, windows, version=version),
        ],
        reference=measured(store.version(version).manifest),
        task=bundle.schema.task,
        missing={str(each): missing[str(each)] for each in windows if str(each) in missing},
        served=served.evidence(params, recent=recent, bundle=bundle) + asked,
    )


def _number(given: Any) -> float:
    return float(given) if isinstance(given, int | float | np.number) else _NOT_A_NUMBER


def _signs(
    store: Store, params: MonitorParams, window: Window, *, table: pd.DataFrame, champion: tuple[int, Bundle]
) -> dict[str, Any]:
    """One row of the table."""
    start, end = (pd.Timestamp(_naive(moment)) for moment in (window.start, window.end))
    inside = table[(table["window_start"] >= start) & (table["window_end"] <= end)]
    found = _health(inside[inside["notebook"] == "score"])
    found |= _inputs(store, params, window, champion=champion)
    found |= times_limit(table, window, version=champion[0])
    exact = inside[(inside["window_start"] == start) & (inside["window_end"] == end)]
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
        known |= dict(zip(names, (_number(number) for number in numbers), strict=True))
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


def _contract(store: Store, params: MonitorParams, *, version: int, bundle: Bundle) -> list[Evidence]:
    """Rung 1: the newest window's input, from the summary that scoring has kept."""
    current, unsound = _profile(store, params, params.window, version=version)
    if current is None:
        note = f"the input of this window was not recorded for version {version}: score has not run"
        return [Evidence("contract.input", "inconclusive", rung=1, note=note)]
    kept = store.latest_profile(params.window.start, version=version)
    recent = Profile.from_dict(kept) if kept else bundle.recent
    found = breaks(recent, current, training=bundle.profile)
    if unsound and overall(found) == "pass":
        note = f"{unsound} parts of this window were found unsound when they were scored"
        found = [
            Evidence("contract.parts", "fail", value=unsound, limit=0, n=current.rows, rung=1, note=note)
        ]
    return found


def _drift(store: Store, params: MonitorParams, *, version: int, bundle: Bundle) -> list[Evidence]:
    """Rung 5, from the same summary; what the model says of it is for ``drift`` to look at."""
    current, _ = _profile(store, params, params.window, version=version)
    if current is None:
        note = f"the input of this window was not recorded for version {version}"
        return [Evidence("drift.unknown", "inconclusive", rung=5, note=note)]
    return _drift_of(current, params, bundle)


def _drift_of(current: Profile, params: MonitorParams, bundle: Bundle) -> list[Evidence]:
    unasked = dict.fromkeys(("p_value", "effect", "floor"), _NOT_A_NUMBER)
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


def vital_evidence(params: MonitorParams, vitals: Vitals) -> list[Evidence]:
    """The newest window against its limits, from the strongest rung down. What is not known is ``inconclusive``."""
    newest, served = vitals.signs.iloc[-1], vitals.served
    asked = {item.name.removeprefix("served.") for item in served}
    health = []
    for name, limit in params.slo.items():
        value = _number(newest.get(name))
        if value != value and name in asked:
            continue  # nothing was scored, and the service has answered
        known = value == value
        note = f"{_HEALTH.get(name, name)} in the newest window"
        note = note if known else f"{name} of the newest window was not recorded"
        health.append(
            at_most(
                f"health.{name}",
                value if known else None,
                limit=limit,
                n=int(newest["rows"]),
                rung=2,
                note=note,
            )
        )
    recorded = [
        item
        for item in (*vitals.contract, *vitals.drift)
        if item.name not in _UNRECORDED or not any(each.rung == item.rung for each in served)
    ]
    found = [*recorded, *health, *_performance(params, vitals), *_outlook(params, vitals), *served]
    return sorted(found, key=lambda item: item.name != "drill" and item.rung)


def _outlook(params: MonitorParams, vitals: Vitals) -> list[Evidence]:
    """Rung 4: the newest window, if its labels are to come; what is estimated of it, or why nothing is."""
    row, window = vitals.signs.iloc[-1], vitals.windows[-1]
    if row["state"] not in ("estimated", "immature"):
        return []
    scores = {}
    if row["state"] == "estimated":
        value, low, high = _interval(row, vitals.loss)
        scores[vitals.loss] = Estimate(value, low, high, n=int(row["rows"]), blocks=0)
    why = "" if scores else vitals.missing.get(str(window), "not estimated yet")
    found = Estimated(scores, abstained=why, rows=int(row["rows"]))
    margin, told = params.loss_margin, f"the newest window ({vitals.signs.index[-1]})"
    return [
        estimate_evidence(found, task=vitals.task, reference=vitals.reference, margin=margin, window=told)
    ]


def _performance(params: MonitorParams, vitals: Vitals) -> list[Evidence]:
    """Rung 3: the newest mature window, and all days since the promotion."""
    known = vitals.signs[vitals.signs["state"] == "realised"]
    if known.empty:
        why = list(vitals.missing.values())[-1:]
        note = "; ".join(["no window on this page has mature labels that could be judged", *why])
        return [Evidence("performance.labels", "inconclusive", rung=3, note=note)]
    row, window = known.iloc[-1], str(known.index[-1])
    n, found = int(row[f"{vitals.loss}_n"]), []
    if n < params.min_rows:
        note = f"{n} labelled rows in the newest mature window ({window}); needed are {params.min_rows}"
        return [
            Evidence(
                "performance.labels", "inconclusive", value=n, limit=params.min_rows, n=n, rung=3, note=note
            )
        ]
    reference = vitals.reference.get(vitals.loss)
    if reference is None or not np.isfinite([reference.value, reference.high]).all():
        note = "the champion has no measured loss from before it served, so there is nothing to hold this against"
        found.append(Evidence("performance.loss", "inconclusive", n=n, rung=3, note=note))
    else:
        limit, note = (
            vitals.loss_limit(params.loss_margin),
            f"mean loss of the newest mature window ({window})",
        )
        found.append(_held("performance.loss", row, vitals.loss, limit=limit, note=note))
        margin = params.loss_margin * reference.value
        found.append(loss_rise(vitals.days, reference=reference, margin=margin))
    if "calibration_error" in row.index:
        note = f"calibration error of the same window ({window})"
        limit = params.calibration_limit
        found.append(_held("performance.calibration", row, "calibration_error", limit=limit, note=note))
    if vitals.lead != vitals.loss:
        note, least = f"{vitals.lead} of the same window ({window})", vitals.score_limit(params.score_margin)
        found.append(_held("performance.score", row, vitals.lead, limit=least, note=note, least=True))
    if params.value:
        note = f"mean business value of a row of the same window ({window})"
        found.append(_held("performance.value", row, "value", limit=params.value_min, note=note, least=True))
    return found


def _held(
    name: str, row: pd.Series[Any], figure: str, *, limit: float | None, note: str, least: bool = False
) -> Evidence:
    """A figure against a limit: the most that it may be, or the ``least``.

    ``fail`` if the whole interval lies beyond it, ``pass`` if the value does not and the interval is bounded. Without a
    limit it is told, and judges nothing.
    """
    value, low, high = _interval(row, figure)
    if value != value:
        return Evidence(name, "inconclusive", limit=limit, rung=3, note=f"{note}: not known")
    outcome: Outcome = "inconclusive"
    if limit is not None and (high < limit if least else low > limit):
        outcome = "fail"
    elif np.isfinite([low, high]).all() and (limit is None or (value >= limit if least else value <= limit)):
        outcome = "pass"
    ends = {"low": low, "high": high}
    return Evidence(
        name, outcome, value=value, limit=limit, n=int(row[f"{figure}_n"]), rung=3, note=note, **ends
    )


def _interval(row: pd.Series[Any], figure: str) -> tuple[float, float, float]:
    """A figure and the ends of its interval; an end that the store does not know is open."""
    value, low, high = (_number(row.get(figure + end)) for end in ("", "_low", "_high"))
    return value, low if low == low else -np.inf, high if high == high else np.inf


def sign_limits(params: MonitorParams, vitals: Vitals) -> dict[str, float]:
    """By name of the sign, what it is held against."""
    limits = {
        **params.slo,
        **{f"drift_{kind}": 1.0 for kind in KINDS},
        **{f"served_{name}": limit for name, limit in params.slo.items()},
        "calibration_error": params.calibration_limit,
        vitals.loss: vitals.loss_limit(params.loss_margin),
    }
    if vitals.lead != vitals.loss:
        limits[vitals.lead] = vitals.score_limit(params.score_margin)
    if params.value_min is not None:
        limits["value"] = params.value_min
    return limits


def draw_quality(params: MonitorParams, vitals: Vitals) -> Chart:
    """Is it right? The score that is looked at first, the loss that decides, calibration, business value."""
    names = dict.fromkeys([vitals.lead, vitals.loss, "calibration_error"])
    if params.value:
        names["value"] = None
    limits = sign_limits(params, vitals)
    return draw_panels({name: vitals.sign(name) for name in names}, limits=limits, title="Is it right?")


def draw_answers(params: MonitorParams, vitals: Vitals) -> Chart:
    """Does it answer, and is it asked what it knows? Errors, fallbacks, unsound input, drifted columns, requests."""
    names = {
        "rows that failed, share": "error_share",
        "answered by a fallback, share": "degraded_share",
        "unsound parts of the input": "breaks",
        "columns that have drifted": "drifted",
        "requests to the service": "served_requests",
    }
    if "served_requests" in vitals.signs:
        names |= {
            "slowest request of a hundred, ms": "served_latency_p99_ms",
            "served rows that failed, share": "served_error_share",
            "served by a fallback, share": "served_degraded_share",
            "served columns that have drifted": "served_drifted",
        }
    plain = {shown: name.removeprefix("served_") for shown, name in names.items()}
    limits = {shown: params.slo[name] for shown, name in plain.items() if name in params.slo}
    drifts = {f"drift of {subject}": f"drift_{kind}" for kind, subject in KINDS.items()}
    names, limits = names | drifts, limits | dict.fromkeys(drifts, 1.0)
    tables = {shown: vitals.sign(name).assign(estimated=False) for shown, name in names.items()}
    return draw_panels(tables, limits=limits, title="Does it answer, and is its input sound?")


def standing(evidence: Sequence[Evidence], *, champion: Champion) -> Decision:
    """What a look at the model comes to: ``watch`` if anything failed, else ``keep``.

    Estimates and drift make no outcome.
    """
    outcome = overall(item for item in evidence if item.rung < 4 and item.name != "drill")
    alarms = sorted((item for item in evidence if item.outcome == "fail"), key=lambda item: item.rung)
    unsure = [item for item in evidence if item.outcome in ("error", "inconclusive")]
    reasons = [sentence(item) for item in alarms or unsure] or ["no sign lies beyond its limit"]
    action: Any = "watch" if alarms else "keep"
    return Decision(action, outcome, tuple(reasons), tuple(evidence), None, champion.generation)


def steady(evidence: Sequence[Evidence]) -> list[Evidence]:
    """The same for a table that is compared between runs: a latency within its limit is not given as a number."""
    return [
        Evidence(
            item.name,
            item.outcome,
            limit=item.limit,
            n=item.n,
            rung=item.rung,
            note=f"{item.note}: within its limit",
        )
        if item.name.startswith("health.latency") and item.outcome == "pass"
        else item
        for item in evidence
    ]


def _naive(moment: datetime) -> datetime:
    return moment.astimezone(UTC).replace(tzinfo=None) if moment.tzinfo else moment
