"""The store that a notebook works in, the real one or a small one made for a single execution, and its models."""

from __future__ import annotations

import uuid
import warnings
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pandas as pd

from prodkit.data.schema import Schema
from prodkit.data.windows import feature_columns, labelled, read_window
from prodkit.errors import ArtifactError, ModelError, VersionError, WindowError
from prodkit.evidence import Window, earlier_windows
from prodkit.models.bundle import Bundle, assemble, changed_modules, manifest, pack, unpack
from prodkit.models.estimators import fit_model
from prodkit.models.training import Split, importance, model_for, out_of_time, subsample
from prodkit.params import MonitorParams, ProjectParams, TrainParams
from prodkit.settings import resolve
from prodkit.store.registry import Store

__all__ = ["champion_of", "first_rows", "load_version", "open_store", "store_problems"]

_CHANGED = "version {} came from another {} than the one that is here: train again, or bring that one back"
_ROWS = 12_000  # enough for a model worth looking at, few enough to fit in a blink
_SPAN = timedelta(days=90)


def open_store(params: ProjectParams, *, create: bool = True, timeout_seconds: float = 10.0) -> Store:
    """Open the store that the parameters name.

    ``demo`` makes a seeded store in memory, from rows older than the window: version 1, trained on
    the older half of them, and version 2 on all. Version 2 is champion and 1 its predecessor; for ``validate`` 1 is
    champion and 2 the challenger; for ``train`` there is none. It is gone when the process ends.

    Args:
        params: that name it.
        create: whether to make one that is not there.
        timeout_seconds: how long to wait for another writer.

    Raises:
        ParameterError: there is none, and none is to be made.
        WindowError: a demonstration has no rows older than the window.
    """
    if params.store != "demo":
        places = resolve(params.store), resolve(params.artifacts)
        return Store.open(*places, create=create, timeout_seconds=timeout_seconds)
    store = Store.open("sqlite://", f"memory://{uuid.uuid4().hex}")  # in memory: nothing is left behind
    if params.notebook != "train":
        _fill(store, params)
    return store


def load_version(store: Store, number: int) -> Bundle:
    """Read a version back: digest verified first, golden rows predicted after."""
    bundle = unpack(store.artifact(number), name=f"version {number}")
    if changed := changed_modules(bundle):
        warnings.warn(_CHANGED.format(number, ", ".join(changed)), stacklevel=2)
    return replace(bundle, digest=store.version(number).digest)


def first_rows(store: Store) -> int:
    """How many labelled rows the first training had, without drills; 0 when there was none."""
    trained = (
        version.manifest for version in store.versions() if not version.manifest["params"].get("drill")
    )
    return next((int(manifest["rows"]) for manifest in trained), 0)


def store_problems(store: Store) -> list[str]:
    """Everything that is wrong with a store, in words: as :meth:`Store.check`, and whether each version opens."""
    problems = store.check()
    for version in store.versions():
        try:
            with warnings.catch_warnings(record=True) as caught:
                warnings.simplefilter("always")
                load_version(store, version.number)
            problems += [str(each.message) for each in caught if "came from" in str(each.message)]
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


def _fill(store: Store, params: ProjectParams) -> None:
    """Train version 1 on the older half of the rows before the window, and 2 on all; promote 1, then 2."""
    start = params.window.start
    if isinstance(params, MonitorParams):  # it looks back, and no model is judged by rows that it has learned
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
    first = rows[params.time_column].min().to_pydatetime()
    if first > span.start + (end - span.start) / 4:  # the table is shorter than that
        span = Window(first, span.end)
    middle = span.start + (end - span.start) / 2
    for part, trained in (
        (rows[rows[params.time_column] < middle], Window(span.start, middle)),
        (rows, Window(span.start, end)),
    ):
        store.register(*_version(params, part, trained))
    for number in (1,) if params.notebook == "validate" else (1, 2):
        store.promote(number, expected_generation=number - 1, reason="demonstration")


def _version(params: ProjectParams, rows: pd.DataFrame, trained: Window) -> tuple[bytes, dict[str, Any]]:
    """Artifact and manifest of a version trained on a subsample of the rows."""
    facts = {name: value for name, value in params.plain().items() if name in ProjectParams.model_fields}
    settings = TrainParams.check(
        {**facts, "window": str(trained), "folds": 2, "model_args": {"max_iter": 40}}
    )
    sample = subsample(rows, _ROWS).reset_index(drop=True)
    schema = Schema.infer(
        sample,
        features=feature_columns(sample, params),
        target=params.target,
        task=params.task,
        weight=params.weight,
    )
    model = model_for(settings, settings.model_args, schema=schema)
    tested = out_of_time(model, sample, schema=schema, params=settings)
    split = Split(
        sample, rows, trained, Window(trained.end, max(trained.end + params.label_delay, params.window.start))
    )
    weights = importance(tested, params=settings, repeats=1)
    fitted = fit_model(model, sample, schema=schema)
    bundle = assemble(
        fitted,
        split,
        tested,
        schema=schema,
        params=settings,
        importance=dict(zip(weights.index, weights["mean"], strict=True)),
    )
    return pack(bundle), manifest(bundle, sample, params=settings, metrics=tested.intervals())
