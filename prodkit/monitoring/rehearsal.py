"""A past for the demonstration: its windows are scored as the score notebook would have scored them."""

from __future__ import annotations

from prodkit.evidence import earlier_windows
from prodkit.params import MonitorParams, ProjectParams, ScoreParams
from prodkit.scoring.batch import open_window, remember_scoring, score_window
from prodkit.scoring.inspection import inspect_chunks
from prodkit.settings import environment_set
from prodkit.store.registry import Store
from prodkit.store.workspace import champion_of

__all__ = ["demonstrate_past"]


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
        with environment_set(
            PRODKIT_RUN=f"score-{window}"
        ):  # each by a run of its own, or one would replace the other
            remember_scoring(store, then, scored, inspection, version=version)
