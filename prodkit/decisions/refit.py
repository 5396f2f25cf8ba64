"""What passed the gate, fitted again on all labelled rows: that is what is served."""

from __future__ import annotations

import time
import tracemalloc
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import Any

import pandas as pd

from prodkit.data.schema import Schema
from prodkit.data.windows import labelled, read_window
from prodkit.decisions.contest import Contest
from prodkit.decisions.gates import at_most
from prodkit.decisions.result import current_run
from prodkit.decisions.robustness import robustness_evidence
from prodkit.decisions.soundness import sound_rows
from prodkit.decisions.trial import aligned
from prodkit.errors import ProdkitError
from prodkit.evidence import Evidence, Window, overall, utc
from prodkit.models.bundle import Bundle, assemble, manifest, pack, unpack
from prodkit.models.training import Split, fit_recipe, model_for, out_of_time
from prodkit.params import TrainParams, ValidateParams
from prodkit.store.registry import Store
from prodkit.store.workspace import first_rows

__all__ = ["Successor", "refit", "register_successor", "successor_evidence"]

_CALLS = 15  # whose quickest counts


@dataclass(frozen=True)
class Successor:
    """What would be served if the challenger was promoted.

    Attributes:
        judged: version of the challenger.
        bundle: the recipe of the challenger, fitted again; the challenger itself, where it did not pass.
        artifact: its bytes.
        rows: (n, any) judged rows, as examples of what it is asked.
        manifest: for the store; None where nothing was fitted again.
        evidence: what became of it.
    """

    judged: int
    bundle: Bundle
    artifact: bytes
    rows: pd.DataFrame
    manifest: dict[str, Any] | None = None
    evidence: tuple[Evidence, ...] = ()


def refit(store: Store, params: ValidateParams, rivals: Contest, gates: Sequence[Evidence]) -> Successor:
    """Fit the recipe of a challenger that passed again, on all rows that are labelled when the run stands.

    The rows that judged it are the newest there are, and are learned, too. What a reference must be, answers to rows
    that were not learned, comes from the folds and, on all rows since its training, from the challenger.
    """
    number = rivals.number
    same = Successor(number, rivals.challenger, store.artifact(number), rivals.trial.rows)
    if overall(gates) != "pass":
        return same
    known = store.version(number).manifest
    if known.get("added"):
        note = f"version {number} was trained elsewhere, and is served as it was judged"
        return replace(same, evidence=(Evidence("refit", "pass", note=note),))
    try:
        split, recipe = _all_rows(store, params, rivals.challenger), TrainParams.check(known["params"])
        bundle, figures = _fitted(split, recipe, rivals.challenger, first=first_rows(store))
        artifact = pack(bundle)
    except ProdkitError as error:
        note = f"version {number} could not be fitted again on all labelled rows: {error}"
        return replace(same, evidence=(Evidence("refit", "error", note=note),))
    judged = {"judged": number, "judged_on": str(params.window)}
    count, end = len(split.rows), split.trained.end
    note = (
        f"labelled rows to {end:%Y-%m-%d} that version {number} is fitted again on, the judged ones too, to be "
        "served; its figures are those of rows that were not learned yet"
    )
    line = Evidence("refit", "pass", value=float(count), n=count, note=note)
    return replace(same, bundle=bundle, artifact=artifact, manifest=figures | judged, evidence=(line,))


def _all_rows(store: Store, params: ValidateParams, challenger: Bundle) -> Split:
    """All labelled rows from the first that the challenger learned, without those whose input was broken."""
    moment = utc(params.moment)
    facts = params.model_copy(update={"features": challenger.schema.names})
    span = Window(challenger.trained.start, moment)
    feed = sound_rows(store, facts, read_window(facts, span, unique=False))
    rows = labelled(feed, facts)
    if challenger.schema.task != "multiclass":
        rows = rows[challenger.schema.knows(rows[facts.target])]
    newest = rows[facts.time_column].max().to_pydatetime() + timedelta(microseconds=1)
    trained = Window(span.start, min(moment, max(newest, utc(params.labels_until))))
    return Split(rows.reset_index(drop=True), feed, trained, Window(params.window.start, params.window.end))


def _fitted(
    split: Split, recipe: TrainParams, challenger: Bundle, *, first: int
) -> tuple[Bundle, dict[str, Any]]:
    """The bundle of a recipe on all rows, and what the store keeps of it."""
    rows, schema = split.rows, _renewed(challenger.schema, split.rows)
    params = recipe.model_copy(
        update={"window": Window(split.trained.start, split.holdout.end), "as_of": None}
    )
    model = model_for(params, params.model_args, schema=schema)
    learned = (rows[params.time_column] < challenger.trained.end).to_numpy()
    tested = out_of_time(model, rows[learned], schema=schema, params=params, first_rows=first)
    if not learned.all():
        since = rows[~learned]
        answers, simple = (
            challenger.predict(since),
            challenger.fallback.predict(since, schema=challenger.schema),
        )
        predicted, baseline = (aligned(each, challenger.schema, schema) for each in (answers, simple))
        tested = tested.followed_by(since, predicted, baseline, model=challenger.model, params=params)
    fitted = fit_recipe(params.recipe, model, rows, schema=schema, first_rows=first)
    bundle = assemble(fitted, split, tested, schema=schema, params=params, importance=challenger.importance)
    figures = tested.intervals(seed=params.seed)
    return bundle, manifest(bundle, rows, params=params, metrics=figures)


def _renewed(schema: Schema, rows: pd.DataFrame) -> Schema:
    """The columns as they were judged, with the levels, and of several classes the classes, that the rows hold now."""
    now = Schema.infer(
        rows,
        features=schema.names,
        target=schema.target,
        task=schema.task,
        missing=schema.missing,
        weight=schema.weight,
    )
    pairs = zip(now.features, schema.features, strict=True)
    features = tuple(new if new.kind == old.kind else old for new, old in pairs)
    return replace(schema, features=features, classes=now.classes)


def successor_evidence(params: ValidateParams, successor: Successor) -> list[Evidence]:
    """Is what would be served robust, and within its budgets: megabytes on disk and in memory, milliseconds for a row?

    Milliseconds are of the processor, and the least of several calls, so that a busy machine vetoes nothing.
    """
    tracemalloc.start()
    try:
        bundle = unpack(successor.artifact, name=f"what would follow version {successor.judged}")
        memory_mb = tracemalloc.get_traced_memory()[1] / 1e6
    finally:
        tracemalloc.stop()
    row, took = successor.rows.head(1), []
    for _ in range(_CALLS):
        began = time.process_time()
        bundle.predict(row)
        took.append((time.process_time() - began) * 1000)
    size_mb, loading = len(successor.artifact) / 1e6, "megabytes at most while it is loaded"
    return [
        *successor.evidence,
        *robustness_evidence(bundle, successor.rows),
        at_most("budget.size", size_mb, limit=params.size_limit_mb, note="megabytes of artifact"),
        at_most("budget.memory", memory_mb, limit=params.memory_limit_mb, note=loading),
        at_most(
            "budget.latency",
            min(took),
            limit=params.latency_limit_ms,
            n=_CALLS,
            note="milliseconds of the processor for one row",
        ),
    ]


def register_successor(
    store: Store, params: ValidateParams, successor: Successor, evidence: Sequence[Evidence]
) -> int:
    """The number of the version to promote: a new one, if all evidence passes and the recipe was fitted again."""
    if successor.manifest is None or overall(evidence) != "pass":
        return successor.judged
    return store.register(successor.artifact, successor.manifest, run_id=current_run(params)).number
