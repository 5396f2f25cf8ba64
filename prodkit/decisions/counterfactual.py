"""What else could have served a window: each action tried on the champion's own rows before it is taken."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass

import numpy as np
import pandas as pd

from prodkit.data.schema import Schema
from prodkit.data.windows import read_window
from prodkit.decisions.economy import Economics
from prodkit.decisions.probes import Probes
from prodkit.decisions.soundness import sound_rows
from prodkit.decisions.trial import Trial, joined, run_trial, unseen_rows
from prodkit.decisions.triangle import Triangle, serving
from prodkit.errors import DataError, ModelError, ProdkitError, WindowError
from prodkit.evidence import Window
from prodkit.models.bundle import Bundle
from prodkit.models.metrics import scores
from prodkit.params import LEAD, PRIMARY, RollbackParams
from prodkit.store.registry import Store
from prodkit.store.workspace import load_version

__all__ = [
    "Counterfactuals",
    "counterfactuals",
    "labelled_window",
    "served_figures",
]


@dataclass(frozen=True)
class Counterfactuals:
    """What else could have served this window, and how well.

    Attributes:
        whole: champion, predecessor and the dumb baseline on all labelled, unseen rows; None if there are none.
        retrained: all of these and fresh challengers, each on the step of them that began when it was fitted; None
            if none could be tried.
        missing: for what could not be tried, why.
        triangle: what models of each age have lost so far; None if nobody learns now, or the policy does not ask.
        economics: whether a training pays, by these.
        predecessor: whom the champion has replaced; None if nobody.
    """

    whole: Trial | None
    retrained: Trial | None
    missing: dict[str, str]
    triangle: Triangle | None = None
    economics: Economics | None = None
    predecessor: Bundle | None = None

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
    """Headline score and loss of what was really served: the model that was tried, or the simple rule."""
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
    """Try predecessor, dumb baseline and fresh challengers on the rows that the champion served.

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
    retrained = triangle = None
    try:
        if not sound:
            raise WindowError(
                "challenger", rule="must not learn from a broken feed", value=str(params.window)
            )
        if params.policy == "schedule":
            raise WindowError("challenger", rule="is not fitted by a policy of schedule", value="schedule")
        number = pointer.version or 0
        probes = Probes.of_champion(store, params, champion, store.version(number).manifest)
        if params.policy == "economy":
            triangle = probes.triangle(_asked(store, probes, number, champion), champion=number)
        retrained = _retrained(params, others, usable, champion=champion, probes=probes)
    except (DataError, ModelError) as error:
        missing["challenger"] = str(error)
    economics = triangle.economics(params.retrain_cost, params.recipes) if triangle else None
    return Counterfactuals(whole, retrained, missing, triangle, economics, others.get("predecessor"))


def _asked(store: Store, probes: Probes, number: int, champion: Bundle) -> dict[int, tuple[Bundle, int]]:
    """The champion, and the version that served six windows ago, against which the trainings since are held."""
    asked = {number: champion}
    then = next(iter(serving(store, probes.params, probes.steps).values()), number)
    if then not in asked:
        with suppress(ProdkitError):  # it may be gone, or of other libraries
            asked[then] = load_version(store, then)
    return {each: (bundle, store.version(each).manifest.get("rows", 0)) for each, bundle in asked.items()}


def _retrained(
    params: RollbackParams, others: dict[str, Bundle], rows: pd.DataFrame, *, champion: Bundle, probes: Probes
) -> Trial:
    """Each step of the rows, put to a challenger that was fitted as it began, and to the others.

    A step that cannot be tried is left out.

    Raises:
        DataError, ModelError: none can be; why the newest cannot.
    """
    fresh, failed, times = [], None, rows[params.time_column]
    for place, step in enumerate(probes.steps):
        within = times.between(step.start, step.end, "left")
        if not within.any():
            continue
        try:
            made = probes.at(place).bundle(champion, params.recipes[0])
            fresh.append((made, unseen_rows(rows[within], params, champion, made)))
        except (DataError, ModelError) as error:
            failed = error
    if not fresh:
        raise failed or WindowError(
            "challenger", rule="must have rows that judge it", value=str(params.window)
        )
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
