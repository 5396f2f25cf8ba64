"""How fast models age: recipes fitted step by step, and what each loses on the steps that follow."""

from __future__ import annotations

import hashlib
import io
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from functools import cached_property
from math import log
from typing import Any

import joblib
import numpy as np
import pandas as pd

from prodkit.data.cells import texts
from prodkit.data.schema import Schema
from prodkit.data.windows import digest, labelled, read_window
from prodkit.decisions.economy import Economics
from prodkit.decisions.soundness import sound_rows
from prodkit.decisions.triangle import Triangle, parts_of, steps_until
from prodkit.errors import DataError, ModelError, ParameterError, WindowError
from prodkit.evidence import Window, iso, parse_duration, utc
from prodkit.models.bundle import Bundle
from prodkit.models.estimators import Fallback, MeanModel, predictions
from prodkit.models.metrics import Floats, row_losses
from prodkit.models.seen import Seen
from prodkit.models.training import fit_recipe, model_for, subsample
from prodkit.params import RECIPES, ProjectParams, RollbackParams, Task, TrainParams
from prodkit.store.registry import Store
from prodkit.store.workspace import first_rows

__all__ = ["Probe", "Probes", "first_triangle", "summed_loss"]

_MOST = 12  # steps back from now on which, and by whose probes, anything is computed
_MOST_ROWS = 25_000  # that a probe learns from, spread evenly: a fit takes seconds, however long the history
_DAY = timedelta(days=1)
_HALVED_DAYS = 14  # windows of fewer days are steps of their own
_SIMPLE, _VERSION = "simple rule", "version "  # beside the recipes, whose losses are on record


@dataclass(frozen=True)
class Probe:
    """Models that were fitted on what was labelled at a moment.

    Attributes:
        trained: what they have seen.
        schema: their columns.
        models: one, or, where the newest rows are fewer than all, that of all and that of the newest.
        simple: the simple rule of the same rows.
        seen: digests of these rows.
        rows: how many.
        basis: what they were fitted for, and how.
    """

    trained: Window
    schema: Schema
    models: tuple[Any, ...]
    simple: Fallback
    seen: Seen
    rows: int
    basis: str = ""

    def model(self, recipe: str) -> Any:
        """The model of a recipe."""
        if len(self.models) == 1:
            return self.models[0]
        return MeanModel(list(self.models)) if recipe == "mean" else self.models[recipe == "recent"]

    def bundle(self, champion: Bundle, recipe: str) -> Bundle:
        """The model of a recipe in the place of the champion's."""
        return replace(
            champion, model=self.model(recipe), schema=self.schema, trained=self.trained, seen=self.seen
        )

    def losses(self, rows: pd.DataFrame, *, simple: bool) -> dict[str, float]:
        """Summed loss of each recipe on labelled rows, and of the simple rule if it is asked for."""
        columns = self.schema.coerce(rows)
        answers = [predictions(model, columns, schema=self.schema, coerced=True) for model in self.models]
        said: dict[str, np.ndarray] = dict(
            zip(RECIPES, (answers[0], answers[-1], np.mean(answers, axis=0)), strict=True)
        )
        if simple:
            said[_SIMPLE] = self.simple.predict(rows, schema=self.schema)
        return {
            name: summed_loss(rows, each, schema=self.schema, learned=self.rows)
            for name, each in said.items()
        }


def summed_loss(rows: pd.DataFrame, predicted: np.ndarray, *, schema: Schema, learned: int) -> float:
    """Over labelled rows; a class that the model never saw costs as a probability of one in the rows it learned."""
    known = schema.knows(rows[schema.target])
    truth = schema.encode(rows[schema.target][known])
    losses = row_losses(truth, predicted[np.asarray(known)], task=schema.task)
    return float(losses.sum()) + int((~known).sum()) * log(max(learned, 2))


@dataclass
class Probes:
    """The probes of a store, as they are asked at a moment: what is on record is not computed again.

    Attributes:
        store: that keeps models and losses.
        params: of the run.
        steps: up to now.
        since: first moment that anybody learns from.
        prepared: gives the schema and the unfitted model for labelled rows.
        basis: names target, columns and model: what was recorded for others is not used.
        task: of the models.
        most_recent: rows of the recipe ``recent``.
    """

    store: Store
    params: ProjectParams
    steps: list[Window]
    since: datetime
    prepared: Callable[[pd.DataFrame], tuple[Schema, Any]]
    basis: str
    task: Task
    most_recent: int = 0
    _probes: dict[int, Probe | None] = field(default_factory=dict)
    why: str = ""

    @classmethod
    def of_champion(
        cls, store: Store, params: RollbackParams, champion: Bundle, manifest: Mapping[str, Any]
    ) -> Probes:
        """Fitted as the champion was; where nobody knows how that was, its model is copied and fitted anew."""
        since = _first_moment(store, champion.trained.start)
        schema, names = champion.schema, champion.schema.names
        model: Any = ["copied", type(champion.model).__name__]
        as_trained: TrainParams | None = None
        try:
            as_trained = TrainParams.check(manifest["params"])
            model = [as_trained.model, as_trained.model_args, as_trained.seed]
            model += [params.drill] if params.drill else []
        except (KeyError, ParameterError):
            pass

        # the versions of a demonstration have learned from samples
        recent = first_rows(store) if params.store != "demo" else 0

        def prepared(rows: pd.DataFrame) -> tuple[Schema, Any]:
            if as_trained is None:
                return schema, getattr(champion.model, "models", [champion.model])[0]
            rows = rows[schema.knows(rows[schema.target])] if schema.task == "binary" else rows
            now = Schema.infer(
                rows, features=names, target=schema.target, task=schema.task, missing=schema.missing
            )
            return now, model_for(as_trained, as_trained.model_args, schema=now)

        steps = steps_until(
            params.window,
            utc(params.moment),
            share=params.challenger_share,
            since=since,
            timezone=params.timezone,
        )
        return cls(store, params, steps, since, prepared, _basis(schema, model), schema.task, recent)

    @cached_property
    def rows(self) -> pd.DataFrame:
        """All rows that judge: labelled by now, and not of windows whose input was broken."""
        span = Window(self.steps[0].start, self.steps[-1].end)
        rows = read_window(self.params, span, unique=False)
        return labelled(sound_rows(self.store, self.params, rows), self.params)

    def part(self, step: int) -> pd.DataFrame:
        """The rows of a step."""
        times = self.rows[self.params.time_column]
        first, last = times.searchsorted(pd.to_datetime([self.steps[step].start, self.steps[step].end]))
        return self.rows.iloc[first:last].reset_index(drop=True)

    def key(self, step: int) -> str:
        """What a column of the triangle rests on: the labels of its rows, and what they are judged for."""
        rows = self.part(step)
        cells = pd.DataFrame(
            {"time": rows[self.params.time_column], "label": texts(rows[self.params.target])}
        )
        return hashlib.sha256(f"{self.basis} {self.steps[step]} {digest(cells)}".encode()).hexdigest()

    def at(self, step: int) -> Probe:
        """The probe that was fitted when a step began; on record, or fitted now.

        Raises:
            DataError: nothing to learn from. ModelError: it cannot be fitted.
        """
        if self._probes.get(step) is None:
            self._probes[step] = self._recorded(step) or self._fitted(step)
        probe = self._probes[step]
        assert probe is not None
        return probe

    def _recorded(self, step: int) -> Probe | None:
        artifact = self.store.probe(iso(self.steps[step].start))
        if artifact is None:
            return None
        try:
            probe: Probe = joblib.load(io.BytesIO(artifact))
        except Exception:  # of other versions of its libraries: it can be fitted again
            return None
        return probe if probe.basis == self.basis else None

    def _fitted(self, step: int) -> Probe:
        """Learn from what was known when the step began."""
        moment = self.steps[step].start
        if moment - self.params.label_delay <= self.since:
            rule, value = "must have labelled rows before it to learn from", str(self.steps[step])
            raise WindowError("challenger", rule=rule, value=value)
        then = self.params.model_copy(update={"as_of": moment, "window": Window(self.since, moment)})
        rows = labelled(sound_rows(self.store, then, read_window(then, unique=False)), then)
        schema, model = self.prepared(rows)
        rows = rows[schema.knows(rows[schema.target])]
        sample = subsample(rows, _MOST_ROWS).reset_index(drop=True)
        recent, rows = round(self.most_recent * len(sample) / max(len(rows), 1)), sample
        fitted = fit_recipe("mean", model, rows, schema=schema, first_rows=recent)
        models = tuple(fitted.models) if isinstance(fitted, MeanModel) else (fitted,)
        trained = Window(self.since, utc(then.labels_until))
        simple, seen = Fallback.fit(rows, schema=schema), Seen.of(rows, schema)
        probe = Probe(trained, schema, models, simple, seen, len(rows), self.basis)
        buffer = io.BytesIO()
        joblib.dump(probe, buffer, compress=("zlib", 1))
        since = self.steps[max(0, len(self.steps) - _MOST)].start
        self.store.keep_probe(iso(moment), buffer.getvalue(), since=iso(since))
        return probe

    def triangle(self, versions: Mapping[int, tuple[Bundle, int]], *, champion: int) -> Triangle:
        """What is on record, and what can be computed now, which is put on record.

        Args:
            versions: bundles by number, and how many rows each learned from; asked about the steps after its training.
            champion: the one whose losses the triangle has.
        """
        record = _Losses(
            self.store.probe_losses(), {iso(each.start): place for place, each in enumerate(self.steps)}
        )
        now, newest = len(self.steps), max(0, len(self.steps) - _MOST)
        for step in range(now):
            if step >= newest or step in record.columns:
                self._column(record, step, newest, versions)
        self.store.record_probe_losses([iso(self.steps[step].start) for step in record.stale], record.fresh)
        return self._arrays(record, versions.get(champion), champion)

    def _column(
        self, record: _Losses, step: int, newest: int, versions: Mapping[int, tuple[Bundle, int]]
    ) -> None:
        """Make sure that a step is judged by its rows as they are now."""
        key, where = self.key(step), self.steps[step]
        if not record.holds(step, key):
            record.drop(step)
            if step < newest:
                return
        rows = self._judging(step) if step >= newest else self.part(step)
        about: dict[str, Any] = {"step_start": iso(where.start), "step_end": iso(where.end)}
        about |= {"digest": key, "rows": float(len(rows))}
        for fitted in range(max(1, newest), step + 1) if step >= newest and len(rows) else ():
            if not record.has("all", fitted, step) and (probe := self._probe(fitted)) is not None:
                for name, loss in probe.losses(rows, simple=fitted == step).items():
                    record.add(name, iso(self.steps[fitted].start), fitted, step, loss, about)
        for number, (bundle, learned) in versions.items() if len(rows) else ():
            name, since = f"{_VERSION}{number}", utc(bundle.trained.end)
            if not record.has(name, None, step) and step >= newest and since <= where.start:
                said = bundle.predict(rows)
                loss = summed_loss(rows, said, schema=bundle.schema, learned=learned)
                record.add(name, iso(since), None, step, loss, about)

    def _judging(self, step: int) -> pd.DataFrame:
        """The rows of a step, without copies of rows that the probe of its time has learned."""
        rows = self.part(step)
        probe = self._probe(step) if len(rows) else None
        if probe is None:
            return rows
        within = (
            rows[self.params.time_column].between(probe.trained.start, probe.trained.end, "left").to_numpy()
        )
        return rows[~probe.seen.learned(rows, probe.schema, within=within)].reset_index(drop=True)

    def _probe(self, fitted: int) -> Probe | None:
        """The probe of a step; None where there can be none."""
        if fitted in self._probes and self._probes[fitted] is None:
            return None
        try:
            return self.at(fitted)
        except (DataError, ModelError) as error:
            self._probes[fitted], self.why = None, str(error)
            return None

    def _arrays(self, record: _Losses, champion: tuple[Bundle, int] | None, number: int) -> Triangle:
        first, now = (
            max(0, min(record.columns, default=0) - 1),
            len(self.steps),
        )  # nobody is fitted at the first
        count, steps = now - first, tuple(self.steps[first:])
        losses: dict[str, Floats] = {name: np.full((count, count), np.nan) for name in RECIPES}
        rows, simple, versions = np.zeros(count), np.full(count, np.nan), {number: np.full(count, np.nan)}
        for (name, fitted, step), (loss, size) in record.known.items():
            at = step - first
            rows[at] = size
            if name in losses and fitted is not None and fitted >= first:
                losses[name][fitted - first, at] = loss
            elif name == _SIMPLE:
                simple[at] = loss
            elif name.startswith(_VERSION):
                versions.setdefault(int(name.removeprefix(_VERSION)), np.full(count, np.nan))[at] = loss
        trained_at = count if champion is None else self.position(champion[0]) - first
        look, days = self.look
        sampled = champion is not None and champion[1] > _MOST_ROWS
        return Triangle(
            *(steps, losses, rows, simple, versions[number], versions, trained_at, look, days),
            task=self.task,
            sampled=sampled,
        )

    @property
    def look(self) -> tuple[int, float]:
        """Steps of a window, and its days; the newest may not be over yet."""
        window = self.params.window
        days = max((window.end - window.start) / _DAY, 1.0)
        share = getattr(self.params, "challenger_share", 0.5)
        return len(list(parts_of(window, share))) if days > 1 else 1, days

    def position(self, bundle: Bundle) -> int:
        """The step at which a version was fitted, as a probe is: when the last label that it learned was known."""
        moment = utc(bundle.trained.end) + self.params.label_delay
        edges = [*(each.start for each in self.steps), self.steps[-1].end]
        if moment < edges[0]:
            return round((moment - edges[0]) / ((edges[-1] - edges[0]) / len(self.steps)))
        return min(range(len(edges)), key=lambda place: abs(moment - edges[place]))


class _Losses:
    """Losses by who was asked, the step at which that was fitted, and the step: on record, and to be put there."""

    def __init__(self, rows: Sequence[Mapping[str, Any]], places: Mapping[str, int]) -> None:
        self.known: dict[tuple[str, int | None, int], tuple[float, float]] = {}
        self.keys: dict[int, str] = {}
        self.fresh: list[dict[str, Any]] = []
        self.stale: list[int] = []
        for row in rows:
            step = places.get(row["step_start"])
            fitted = places.get(row["fitted_at"]) if not row["recipe"].startswith(_VERSION) else None
            if step is not None:
                self.keys[step] = row["digest"]
                loss = float("nan") if row["loss"] is None else row["loss"]
                self.known[row["recipe"], fitted, step] = loss, row["rows"]

    @property
    def columns(self) -> set[int]:
        return set(self.keys)

    def holds(self, step: int, key: str) -> bool:
        return self.keys.get(step) == key

    def has(self, name: str, fitted: int | None, step: int) -> bool:
        return (name, fitted, step) in self.known

    def drop(self, step: int) -> None:
        """Forget a column whose rows are not what they were."""
        if self.keys.pop(step, None) is not None:
            self.stale.append(step)
            self.known = {key: value for key, value in self.known.items() if key[2] != step}

    def add(
        self, name: str, fitted_at: str, fitted: int | None, step: int, loss: float, about: dict[str, Any]
    ) -> None:
        self.keys[step] = about["digest"]
        self.known[name, fitted, step] = loss, about["rows"]
        number = float(loss) if np.isfinite(loss) else None
        self.fresh.append({"recipe": name, "fitted_at": fitted_at, "loss": number, **about})


def _basis(schema: Schema, model: Any) -> str:
    return json.dumps([schema.target, schema.task, schema.names, model], sort_keys=True, default=str)


def _first_moment(store: Store, start: datetime) -> datetime:
    """The first moment that any version has learned from."""
    starts = [
        Window.parse(each.manifest["trained"]).start
        for each in store.versions()
        if "trained" in each.manifest
    ]
    return min(map(utc, (start, *starts)))


def first_triangle(
    store: Store, params: TrainParams, arguments: Mapping[str, Any], *, schema: Schema
) -> tuple[Triangle, Economics] | tuple[None, None]:
    """How fast a model would age, told by the rows it can learn from, before anybody serves; None where they do not.

    Args:
        store: where probes are kept, and taken from.
        params: of the training.
        arguments: of the model.
        schema: of its columns.
    """
    period = _last_period(params)
    days = (period.end - period.start) / _DAY
    share = 0.5 if days - params.label_delay / _DAY >= _HALVED_DAYS else 1.0
    look = RollbackParams.check(
        {name: value for name, value in params.plain().items() if name in ProjectParams.model_fields}
        | {"window": str(period), "challenger_share": share, "as_of": params.moment.isoformat()}
    )
    since = _first_moment(store, utc(params.window.start))

    def prepared(rows: pd.DataFrame) -> tuple[Schema, Any]:
        now = Schema.infer(
            rows, features=schema.names, target=schema.target, task=schema.task, missing=schema.missing
        )
        return now, model_for(params, dict(arguments), schema=now)

    basis = _basis(schema, [params.model, params.model_args, params.seed])
    steps = steps_until(period, utc(look.moment), share=share, since=since, timezone=params.timezone)
    try:
        triangle = Probes(
            store, look, steps, since, prepared, basis, schema.task, first_rows(store)
        ).triangle({}, champion=0)
    except (DataError, ModelError):
        return None, None
    return triangle, triangle.economics(params.retrain_cost)


def _last_period(params: TrainParams) -> Window:
    """The period of life that ends with the window of a training."""
    end, days = params.window.end, {"week": 7, "day": 1}.get(params.every)
    if params.every == "month":
        first = end.replace(day=1)
        return Window((first - _DAY).replace(day=1) if end == first else end - timedelta(days=30), end)
    return Window(end - (timedelta(days=days) if days else parse_duration(params.every)), end)
