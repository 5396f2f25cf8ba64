"""The store of a demonstration: two versions, trained for a single execution on rows older than its window."""

from __future__ import annotations

from datetime import timedelta

import pandas as pd

from prodkit.data.schema import Schema
from prodkit.data.windows import feature_columns, labelled, read_window
from prodkit.errors import WindowError
from prodkit.evidence import Window, earlier_windows
from prodkit.models.bundle import assemble, manifest, pack
from prodkit.models.estimators import fit_model
from prodkit.models.training import Split, importance, model_for, out_of_time, subsample
from prodkit.params import MonitorParams, ProjectParams, TrainParams
from prodkit.store.registry import Store

__all__ = ["furnish"]

_ROWS = 12_000  # enough for a model worth looking at, few enough to fit in a blink
_SPAN = timedelta(days=90)


def furnish(store: Store, params: ProjectParams) -> None:
    """Train and promote version 1, on the older half of the rows before the window, and version 2, on all of them.

    Version 2 is champion and 1 its predecessor; for ``validate`` 1 is champion and 2 the challenger.

    Raises:
        WindowError: there are no rows older than the window.
    """
    start = params.window.start
    if isinstance(params, MonitorParams):  # it looks back, and nobody is judged by what he has seen
        start = earlier_windows(params.window, params.windows)[0].start
    end = start - params.label_delay
    span = Window(end - _SPAN, start)
    before = params.model_copy(update={"as_of": start, "drill": {}})
    try:
        rows = labelled(read_window(before, span), before)
    except WindowError as error:
        fix = "Choose a later `window`, or name a real `store`."
        raise WindowError(
            "store", rule="demo needs rows older than the window", value=str(span), fix=fix
        ) from error
    middle = span.start + (end - span.start) / 2
    _add_version(store, params, rows[rows[params.time_column] < middle], Window(span.start, middle))
    _add_version(store, params, rows, Window(span.start, end))
    store.promote(1, expected_generation=0, reason="demonstration")
    if params.notebook != "validate":
        store.promote(2, expected_generation=1, reason="demonstration")


def _add_version(store: Store, params: ProjectParams, rows: pd.DataFrame, trained: Window) -> None:
    """Register a version trained on a subsample of the rows."""
    facts = {name: value for name, value in params.plain().items() if name in ProjectParams.model_fields}
    settings = TrainParams.check(
        {**facts, "window": str(trained), "folds": 2, "model_args": {"max_iter": 40}}
    )
    kept = subsample(rows, _ROWS).reset_index(drop=True)
    schema = Schema.infer(
        kept, features=feature_columns(kept, params), target=params.target, task=params.task
    )
    model = model_for(settings, settings.model_args, schema=schema)
    tested = out_of_time(model, kept, schema=schema, params=settings)
    split = Split(
        kept, rows, trained, Window(trained.end, max(trained.end + params.label_delay, params.window.start))
    )
    weights = importance(tested, params=settings, repeats=1)
    fitted = fit_model(model, kept, schema=schema)
    bundle = assemble(
        fitted,
        split,
        tested,
        schema=schema,
        params=settings,
        importance=dict(zip(weights.index, weights["mean"], strict=True)),
    )
    store.register(pack(bundle), manifest(bundle, kept, params=settings, metrics=tested.intervals()))
