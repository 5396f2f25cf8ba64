"""What the service has answered: health and input of each window, from the request log of ``prodkit serve``."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from prodkit.data.chunks import window_chunks
from prodkit.data.labels import with_labels
from prodkit.data.sources import as_frame, open_labels, open_table, require_columns
from prodkit.data.windows import blocks, request_log, window_limits
from prodkit.decisions.gates import at_most
from prodkit.drift.contract import breaks
from prodkit.drift.counts import Blocks, batch_profile
from prodkit.drift.profiles import Profile
from prodkit.errors import ProdkitError, WindowError
from prodkit.evidence import Evidence, Window
from prodkit.models.bundle import Bundle
from prodkit.models.metrics import intervals
from prodkit.params import MonitorParams, RollbackParams
from prodkit.scoring.guard import HOLD
from prodkit.settings import outputs_folder
from prodkit.store.registry import Store
from prodkit.store.workspace import load_version

__all__ = ["Served", "of_requests", "served_performance", "served_windows"]

_OWN = ("row", "model_version", "degraded", "reason", "latency_ms")
_HEALTH = {
    "error_share": "share of rows that the service's champion could not answer",
    "degraded_share": "share of rows that the service answered by a fallback",
    "latency_p50_ms": "median time that the service took for a request, milliseconds,",
    "latency_p99_ms": "time of the slowest request in a hundred, milliseconds,",
}
_ROWS = 32_768  # of a batch


@dataclass(frozen=True)
class Served:
    """What the request log says of the windows on the page.

    Attributes:
        signs: one row a window: ``served_requests``, ``served_rows``, ``served_version``, and, NaN where nothing was
            asked, ``served_error_share``, ``served_degraded_share``, ``served_latency_p50_ms`` and
            ``served_latency_p99_ms`` of requests.
        inputs: of each window, a summary of the rows that have the champion's columns; None without any.
        problem: why the log could not be read; empty if it could.
    """

    signs: pd.DataFrame
    inputs: list[Profile | None]
    problem: str

    @property
    def known(self) -> bool:
        """Whether the service has written anything for these windows."""
        return bool(self.signs["served_rows"].any())

    def evidence(
        self, params: MonitorParams, *, against: tuple[Profile, Profile], importance: Mapping[str, float]
    ) -> list[Evidence]:
        """The newest window against its limits, and its input against the last sound one. Silence is not health."""
        newest = self.signs.iloc[-1]
        if self.problem:
            return [Evidence("served.log", "error", rung=2, note=self.problem)]
        if not self.known:
            return []
        if not newest["served_rows"]:
            note = "prodkit serve has answered before, and nothing in the newest window"
            return [Evidence("served.requests", "inconclusive", value=0, n=0, rung=2, note=note)]
        n, found = int(newest["served_rows"]), []
        current = self.inputs[-1]
        if current is not None:
            recent, training = against
            lines = breaks(
                recent, current, training=training, importance=importance, contract=params.contract
            )
            found = [of_requests(item) for item in lines]
        for name, limit in params.slo.items():
            if name in _HEALTH:
                value, note = float(newest[f"served_{name}"]), f"{_HEALTH[name]} in the newest window"
                found.append(at_most(f"served.{name}", value, limit=limit, n=n, rung=2, note=note))
        return found


def of_requests(item: Evidence) -> Evidence:
    """What is found of an input, as found of what the service was asked."""
    return replace(item, name=f"served.{item.name}", note=f"requests: {item.note}")


@dataclass
class _Sums:
    """What is kept of a window while its rows pass by."""

    rows: int = 0
    degraded: int = 0
    failed: int = 0
    versions: set[int] = field(default_factory=set)
    latencies: list[np.ndarray] = field(default_factory=list)  # one a request
    profile: Profile | None = None

    def sign(self) -> dict[str, Any]:
        """A row of the table."""
        latency = np.concatenate([np.empty(0), *self.latencies])
        p50, p99 = np.quantile(latency, [0.5, 0.99]) if len(latency) else (np.nan, np.nan)
        return {
            "served_requests": len(latency),
            "served_rows": self.rows,
            "served_version": ", ".join(f"v{number}" for number in sorted(self.versions)),
            "served_error_share": self.failed / self.rows if self.rows else np.nan,
            "served_degraded_share": self.degraded / self.rows if self.rows else np.nan,
            "served_latency_p50_ms": float(p50),
            "served_latency_p99_ms": float(p99),
        }


def served_windows(params: MonitorParams, windows: Sequence[Window], *, bundle: Bundle) -> Served:
    """Read the request log of these windows, a batch at a time; a demonstration has no service.

    A row belongs to the window of its own time, or, where none was sent, of the moment of its request.

    Args:
        params: of the notebook.
        windows: of the page.
        bundle: the champion, on whose bins the input is summarised.
    """
    sums, problem = [_Sums() for _ in windows], ""
    limits = [np.array(window_limits(params, window), dtype="datetime64[us]") for window in windows]
    try:
        for batch in _batches(params, Window(windows[0].start, windows[-1].end), bundle):
            times = batch.column(params.time_column).to_numpy()
            for each, (start, end) in zip(sums, limits, strict=True):
                mine = (times >= start) & (times < end)
                if mine.any():
                    _add(each, batch.filter(pa.array(mine)), params, bundle)
    except ProdkitError as error:
        problem = f"the request log could not be read: {error}"
    signs = pd.DataFrame([each.sign() for each in sums])
    return Served(signs, [each.profile for each in sums], problem)


def _batches(params: MonitorParams, window: Window, bundle: Bundle) -> Iterator[Any]:
    facts = request_log(params, window)
    if facts is None:
        return
    names = [*bundle.schema.names, *(_named(name, params, bundle) for name in _OWN)]
    try:
        chunks = window_chunks(
            facts, features=names, batch_rows=_ROWS, chunk_rows=_ROWS, place=outputs_folder() / "requests"
        )
    except WindowError:  # nothing was asked then
        return
    for chunk in chunks:
        yield from chunk.batches()


def served_performance(
    store: Store, params: MonitorParams | RollbackParams, windows: Sequence[Window] = ()
) -> pd.DataFrame:
    """What the answers of ``prodkit serve`` came to: its request log, joined by id with the labels that are known.

    An id that was asked again counts once for each version, with its last answer; rows from the time that a version
    has learned from do not judge it. Answers of the simple rule are those of the version whose request it was.

    Args:
        store: of the versions.
        params: of the notebook; ``requests`` names the log, ``labels`` or ``data`` the labels.
        windows: to judge one by one; ``params.window`` if not given.

    Returns:
        One row a window and version (index): ``rows`` answered under an id, ``labelled`` of them, and of each score
        ``NAME``, ``NAME_low`` and ``NAME_high``; empty where nothing was asked, and one row with ``why`` where answers
        cannot be joined with labels.
    """
    windows = windows or [params.window]
    figures, index = [], []
    try:
        rows = _answered(params, Window(windows[0].start, windows[-1].end))
    except ProdkitError as error:  # whoever asks has other evidence
        return pd.DataFrame({"why": [str(error)]})
    if rows is None:
        return pd.DataFrame()
    for window in windows:
        start, end = window_limits(params, window)
        inside = rows[rows[params.time_column].between(start, end, "left")]
        for version in sorted(set(inside["model_version"].astype(int))):
            part = inside[inside["model_version"] == version]
            figures.append(_realised(part, params, load_version(store, version)))
            index.append((f"{window.start:%Y-%m-%d}", version))
    names = pd.MultiIndex.from_tuples(index, names=["window", "version"])
    return pd.DataFrame(figures, index=names if index else None)


def _answered(params: MonitorParams | RollbackParams, span: Window) -> pd.DataFrame | None:
    """The last answer to each id by each version, with its label as far as it is known; None if nothing was asked."""
    log = request_log(params, span)
    if log is None:
        return None
    open_labels(params)  # refuses a table without ids
    table, (start, end) = open_table(log), window_limits(log)
    require_columns(log.data, table.columns, [("id_column", name) for name in params.id_column])
    own = {name: name + "_" * (f"{name}_" in table.columns) for name in ("model_version", "requested_at")}
    own |= {name: name for name in table.columns if name.startswith("prediction")}
    names = [*params.id_column, *own.values()]
    batches = list(table.window(names, time=params.time_column, start=start, end=end))
    if not batches:
        return None
    rows = as_frame(batches, table, ids=params.id_column).rename(columns={v: k for k, v in own.items()})
    ids = [*params.id_column, "model_version"]
    rows = (
        rows.dropna(subset=ids).sort_values("requested_at", kind="stable").drop_duplicates(ids, keep="last")
    )
    return with_labels(rows.reset_index(drop=True), params)


def _realised(rows: pd.DataFrame, params: MonitorParams | RollbackParams, bundle: Bundle) -> dict[str, float]:
    """The figures of the rows that one version has answered."""
    times, schema = rows[params.time_column], bundle.schema
    learned = (times >= bundle.trained.start) & (times < bundle.trained.end)
    known = rows[~learned.to_numpy() & schema.knows(rows[params.target])]
    found: dict[str, float] = {"rows": len(rows), "labelled": len(known)}
    classes = [f"prediction_{name}" for name in schema.classes] if schema.task == "multiclass" else []
    said = known[classes or "prediction"].to_numpy(dtype=float) if len(known) else np.empty(0)
    if not len(known) or not np.isfinite(said).all():
        return found
    truth, days = schema.encode(known[params.target]), blocks(known[params.time_column])
    settings: dict[str, Any] = {"confidence": params.confidence, "seed": params.seed}
    for name, each in intervals(truth, said, task=schema.task, blocks=days, **settings).items():
        found |= {name: each.value, f"{name}_low": each.low, f"{name}_high": each.high}
    return found


def _named(name: str, params: MonitorParams, bundle: Bundle) -> str:
    """What a column of the log's own is called beside those of the table."""
    return f"{name}_" if name in {*bundle.schema.names, params.time_column, *params.id_column} else name


def _add(sums: _Sums, batch: Any, params: MonitorParams, bundle: Bundle) -> None:
    row, version, degraded, reason, latency = (batch.column(_named(name, params, bundle)) for name in _OWN)
    held = pc.starts_with(reason.cast(pa.string()), HOLD)
    sums.rows += len(batch)
    sums.degraded += pc.sum(degraded).as_py() or 0
    sums.failed += pc.sum(pc.and_(degraded, pc.invert(held))).as_py() or 0
    sums.versions |= set(pc.unique(version).to_pylist())
    sums.latencies.append(latency.filter(pc.equal(row, 0)).to_numpy(zero_copy_only=False))
    if set(bundle.schema.names) <= set(
        batch.schema.names
    ):  # or they were sent to a version with other columns
        days = Blocks.of(blocks(batch.column(params.time_column).to_pandas()))
        now = batch_profile(batch, bundle.schema, blocks=days, like=bundle.profile)
        sums.profile = now if sums.profile is None else sums.profile.merge(now)
