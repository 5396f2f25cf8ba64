"""What else could have served a window: each action tried on the champion's own rows before it is taken."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from itertools import pairwise
from math import ceil

import numpy as np
import pandas as pd

from prodkit.data.schema import Schema
from prodkit.data.windows import labelled, read_window
from prodkit.decisions.soundness import sound_rows
from prodkit.decisions.trial import Trial, joined, run_trial, unseen_rows
from prodkit.errors import DataError, ModelError, WindowError
from prodkit.evidence import Window
from prodkit.models.bundle import Bundle
from prodkit.models.estimators import build_model, fit_model
from prodkit.models.metrics import scores
from prodkit.models.seen import Seen
from prodkit.params import LEAD, PRIMARY, RollbackParams, TrainParams
from prodkit.store.registry import Store
from prodkit.store.workspace import load_version

__all__ = [
    "Counterfactuals",
    "counterfactuals",
    "fresh_challenger",
    "labelled_window",
    "served_figures",
    "stretches",
]


def fresh_challenger(
    store: Store, params: RollbackParams, judged: Window, *, champion: Bundle, as_trained: TrainParams
) -> Bundle:
    """Train today's challenger as the champion was trained, on what was labelled before ``judged`` began.

    It learns from the champion's first day on, but not from windows whose input was broken, and stops
    ``label_delay`` before the rows that judge it.

    Raises:
        DataError: nothing to learn from.
        ModelError: it cannot be fitted.
    """
    span = Window(min(champion.trained.start, params.window.start), judged.start)
    known_then = params.model_copy(update={"as_of": judged.start})
    rows = labelled(sound_rows(store, known_then, read_window(known_then, span, unique=False)), known_then)
    schema = _retold(champion.schema, rows)
    model = build_model(as_trained.model, schema=schema, arguments=as_trained.model_args, seed=params.seed)
    rows = rows[schema.knows(rows[params.target])]
    fitted, seen = fit_model(model, rows, schema=schema), Seen.of(rows, schema)
    trained = Window(span.start, known_then.labels_until)
    return replace(champion, model=fitted, schema=schema, trained=trained, seen=seen)


def _retold(schema: Schema, rows: pd.DataFrame) -> Schema:
    """The champion's columns, with the classes of these rows: training today would know the new ones."""
    if schema.task != "multiclass":
        return schema
    now = Schema.infer(rows, features=schema.names[:1], target=schema.target, task="multiclass")
    return replace(schema, classes=now.classes)


@dataclass(frozen=True)
class Counterfactuals:
    """What else could have served this window, and how well.

    Attributes:
        whole: champion, predecessor and the dumb baseline on all labelled, unseen rows; None if there are none.
        retrained: all of these and fresh challengers, each on the stretch of them that began when it was trained; None
            if none could be tried.
        missing: for what could not be tried, why.
    """

    whole: Trial | None
    retrained: Trial | None
    missing: dict[str, str]

    def scores(self) -> pd.DataFrame:
        """Every candidate's scores, on all rows and on those that fresh challengers were put to."""
        parts = {"all": self.whole, "of challengers": self.retrained}
        tables = {name: trial.scores() for name, trial in parts.items() if trial is not None}
        return pd.concat(tables, names=["rows"]) if tables else pd.DataFrame()

    def daily_loss(self) -> pd.DataFrame:
        """Mean loss of champion and simple rule on each day."""
        if self.whole is None:
            return pd.DataFrame({"champion": []}, index=pd.DatetimeIndex([]))
        losses = self.whole.losses[["champion", "baseline"]].rename(columns={"baseline": "simple rule"})
        return losses.groupby(self.whole.dates).mean()


def served_figures(trials: Counterfactuals, *, sound: bool) -> dict[str, float]:
    """Headline score and loss of what was really served: the model, or the simple rule while it was distrusted."""
    if trials.whole is None:
        return {}
    trial, name = trials.whole, "champion" if sound else "baseline"
    figures = scores(trial.truth, trial.predicted[name], task=trial.task, weights=trial.weights)
    wanted = dict.fromkeys(
        (LEAD[trial.task], PRIMARY[trial.task])
    )  # one name, not two, where they are the same
    return {metric: figures[metric] for metric in wanted if np.isfinite(figures[metric])}


def counterfactuals(
    store: Store, params: RollbackParams, rows: pd.DataFrame, *, champion: Bundle, sound: bool = True
) -> Counterfactuals:
    """Try predecessor, dumb baseline and a fresh challenger on the rows that the champion served.

    A window without labels yet, without unseen rows, or without a predecessor leaves a reason, not a crash.
    Nothing is trained when the input is not ``sound``.
    """
    pointer = store.champion()
    missing: dict[str, str] = {}
    others: dict[str, Bundle] = {"champion": champion}
    if pointer.predecessor is None:
        missing["predecessor"] = "there is no predecessor"
    else:
        others["predecessor"] = load_version(store, pointer.predecessor)
    try:
        usable = _judging_rows(store, params, rows, *others.values())
        whole = _tried(others, usable, params, champion=champion)
    except DataError as error:
        return Counterfactuals(None, None, {**missing, "labels": str(error), "challenger": str(error)})
    retrained = None
    try:
        if not sound:
            raise WindowError(
                "challenger", rule="must not learn from a broken feed", value=str(params.window)
            )
        as_trained = TrainParams.check(store.version(pointer.version or 0).manifest["params"])
        retrained = _retrained(store, params, others, usable, champion=champion, as_trained=as_trained)
    except (DataError, ModelError) as error:
        missing["challenger"] = str(error)
    return Counterfactuals(whole, retrained, missing)


def _retrained(
    store: Store,
    params: RollbackParams,
    others: dict[str, Bundle],
    rows: pd.DataFrame,
    *,
    champion: Bundle,
    as_trained: TrainParams,
) -> Trial:
    """Each stretch of the rows, put to a challenger that was trained just before it, and to the others.

    A stretch that cannot be tried is left out.

    Raises:
        DataError, ModelError: none can be; why the newest cannot.
    """
    fresh, failed = [], None
    for stretch in stretches(params):
        try:
            made = fresh_challenger(store, params, stretch, champion=champion, as_trained=as_trained)
            within = rows[params.time_column].between(stretch.start, stretch.end, "left")
            fresh.append((made, unseen_rows(rows[within], params, champion, made)))
        except (DataError, ModelError) as error:
            failed = error
    if not fresh:
        assert failed is not None
        raise failed
    schemas = [made.schema for made, _ in fresh]
    parts = [
        _tried({**others, "challenger": made}, part, params, champion=champion, schemas=schemas)
        for made, part in fresh
    ]
    return joined(parts)


def _tried(
    candidates: dict[str, Bundle],
    rows: pd.DataFrame,
    params: RollbackParams,
    *,
    champion: Bundle,
    schemas: Sequence[Schema] = (),
) -> Trial:
    """Candidates and the simple rule on these rows."""
    simple = champion.fallback.predict(rows, schema=champion.schema)
    return run_trial({**candidates, "baseline": simple}, rows, params, schema=champion.schema, others=schemas)


def labelled_window(params: RollbackParams) -> Window:
    """The rows whose labels judge: the window's, or, where labels take half of it or longer, those just before.

    The earlier window is as long, and ends where labels end.
    """
    length = params.window.end - params.window.start
    if 2 * params.label_delay < length:
        return params.window
    return Window(params.labels_until - length, params.labels_until)


def _judging_rows(store: Store, params: RollbackParams, rows: pd.DataFrame, *bundles: Bundle) -> pd.DataFrame:
    """The labelled rows that none of the models has seen; raises DataError when there are none.

    Where these are of an earlier window, those that came broken judge nobody.
    """
    earlier = labelled_window(params)
    if earlier != params.window:
        with suppress(DataError):  # then the window's own rows say what is missing
            return unseen_rows(
                sound_rows(store, params, read_window(params, earlier, unique=False)), params, *bundles
            )
    return unseen_rows(rows, params, *bundles)


def stretches(params: RollbackParams) -> list[Window]:
    """The rows whose labels judge, cut at midnights into stretches of ``challenger_share``, the newest a full one.

    A fresh challenger is judged by the stretch that follows its training; then a fresher one takes its place.
    """
    served = labelled_window(params)
    end = min(served.end, params.moment)
    length, whole = (end - served.start) * params.challenger_share, end - served.start
    cuts = [
        pd.Timestamp(end - part * length).floor("D").to_pydatetime()
        for part in range(1, ceil(whole / length))
    ]
    marks = sorted({served.start, end, *(cut for cut in cuts if served.start < cut < end)})
    return [Window(first, last) for first, last in pairwise(marks)]
