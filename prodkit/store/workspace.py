"""The store that a notebook works in: the real one, or a small one made for a single execution."""

from __future__ import annotations

import uuid
from dataclasses import replace
from datetime import timedelta

import pandas as pd

from prodkit.data.schema import Schema
from prodkit.data.windows import feature_columns, labelled, read_window
from prodkit.errors import ArtifactError, ModelError, VersionError, WindowError
from prodkit.models.bundle import Bundle, assemble, manifest, pack, unpack
from prodkit.models.diagnostics import importance
from prodkit.models.estimators import fit_model
from prodkit.models.training import Split, model_for, out_of_time, thinned
from prodkit.settings.params import Facts, MonitorParams, TrainParams
from prodkit.settings.places import resolve
from prodkit.spans import Window, earlier_windows
from prodkit.store.registry import Store

__all__ = ["champion_of", "load_version", "open_store", "store_problems"]

_DEMO_ROWS = 12_000  # enough for a model worth looking at, few enough to fit in a blink
_DEMO_SPAN = timedelta(days=90)


def open_store(params: Facts, *, timeout_seconds: float = 10.0) -> Store:
    """Open the store that the parameters name.

    ``demo`` makes a seeded store in memory, from rows older than the window: version 1, trained on
    the older half of them, and version 2 on all. Version 2 is champion and 1 its predecessor; for ``validate`` 1 is
    champion and 2 the challenger; for ``train`` there is none. It is gone when the process ends.

    Args:
        params: that name it.
        timeout_seconds: how long to wait for another writer.
    """
    if params.store != "demo":
        return Store.open(resolve(params.store), resolve(params.artifacts), timeout_seconds=timeout_seconds)
    store = Store.open("sqlite://", f"memory://{uuid.uuid4().hex}")  # in memory: nothing is left behind
    if params.notebook != "train":
        _furnish(store, params)
    return store


def _furnish(store: Store, params: Facts) -> None:
    """Train and promote the two versions of the demonstration."""
    start = params.window.start
    if isinstance(params, MonitorParams):  # it looks back, and nobody is judged by what he has seen
        start = earlier_windows(params.window, params.windows)[0].start
    end = start - params.label_delay
    span = Window(end - _DEMO_SPAN, start)
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


def _add_version(store: Store, params: Facts, rows: pd.DataFrame, trained: Window) -> None:
    """Register a version trained on a thinned part of the rows."""
    facts = {name: value for name, value in params.plain().items() if name in Facts.model_fields}
    settings = TrainParams.check(
        {**facts, "window": str(trained), "folds": 2, "model_args": {"max_iter": 40}}
    )
    kept = thinned(rows, _DEMO_ROWS).reset_index(drop=True)
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


def load_version(store: Store, number: int) -> Bundle:
    """Read a version back: digest verified first, golden rows predicted after."""
    bundle = unpack(store.artifact(number), name=f"version {number}")
    return replace(bundle, digest=store.version(number).digest)


def store_problems(store: Store) -> list[str]:
    """Everything that is wrong with a store, in words: as :meth:`Store.check`, and whether each version opens."""
    problems = store.check()
    for version in store.versions():
        try:
            load_version(store, version.number)
        except ModelError as error:
            problems.append(str(error))
        except (ArtifactError, VersionError):  # the check has said so, or it was deleted meanwhile
            continue
    return problems


def champion_of(store: Store) -> tuple[int, Bundle]:
    """The champion's number and bundle.

    Raises:
        VersionError: there is none yet.
    """
    number = store.champion().version
    if number is None:
        fix = "Run train and validate first: prodkit run train, then prodkit run validate."
        raise VersionError("champion", rule="must exist before it can be asked", value="none", fix=fix)
    return number, load_version(store, number)
