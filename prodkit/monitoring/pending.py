"""Windows whose labels are still to come: what their performance is estimated to be, or why that cannot be told."""

from __future__ import annotations

from typing import Any

from prodkit.data.windows import read_window
from prodkit.decisions.result import metric
from prodkit.errors import ProdkitError
from prodkit.evidence import Window, earlier_windows
from prodkit.models.bundle import window_estimate
from prodkit.models.estimate import Estimated
from prodkit.monitoring.outcomes import aged_share, distrusted, served_parts
from prodkit.params import MonitorParams
from prodkit.store.registry import Store
from prodkit.store.workspace import load_version

__all__ = ["ESTIMATED", "estimate_pending"]

ESTIMATED = "estimated."  # in the store: begins the names of a window's estimated figures


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
        if not aged_share(store, params, window) < params.mature_share:
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
    reasons = [why for span, _ in parts if (why := distrusted(store, params, span))]
    bundle = load_version(store, versions[0])
    settings: dict[str, Any] = {"confidence": params.confidence, "distrust": reasons[0] if reasons else ""}
    return versions[0], window_estimate(table, params, bundle=bundle, **settings)
