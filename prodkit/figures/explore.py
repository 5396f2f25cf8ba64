"""One line that lets a reader look around: a picker beside a figure, a still figure where nothing can be picked."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import ipywidgets
import numpy as np
import pandas as pd

from prodkit.decisions.trial import Trial
from prodkit.drift.profiles import ColumnProfile, Profile
from prodkit.figures import plots
from prodkit.figures.plots import Chart
from prodkit.models.metrics import calibration_curve
from prodkit.settings.params import Task

__all__ = ["Picker", "draw_column", "draw_scores", "explore_calibration", "explore_columns", "explore_signs"]


class Picker(ipywidgets.VBox):  # type: ignore[misc]  # ipywidgets has no types
    """A drop-down list over a figure that is drawn anew for each choice.

    The figure is an ``Image`` widget and not an ``Output``: an Output sends over the very channel that a headless
    client waits on, and can hang it. A report, which runs no kernel, shows the first choice as a picture.

    Args:
        label: what is picked, for the reader.
        options: the choices; the first is drawn at once.
        draw: gives the figure of a choice.
    """

    def __init__(self, label: str, options: Sequence[str], draw: Callable[[str], Chart]) -> None:
        self._draw = draw
        self._still = draw(options[0])
        self._choice = ipywidgets.Dropdown(options=list(options), description=label)
        self._image = ipywidgets.Image(value=self._still.png, format="png", layout={"max_width": "100%"})
        self._choice.observe(self._redraw, names="value")
        super().__init__([self._choice, self._image])

    def _redraw(self, change: dict[str, Any]) -> None:
        self._image.value = self._draw(change["new"]).png

    def _repr_mimebundle_(self, **kwargs: Any) -> tuple[dict[str, Any], dict[str, Any]]:
        live = super()._repr_mimebundle_(**kwargs) or {}
        still, about = self._still._repr_mimebundle_()
        return {**live, **still}, about


def draw_column(reference: Profile, current: Profile, name: str) -> Chart:
    """One column in both summaries."""
    then, now = reference.columns[name], current.columns[name]
    shares = [profile.counts / max(profile.counts.sum(), 1) for profile in (then, now)]
    return plots.distributions(*shares, name=name, labels=_labels(then))


def draw_scores(reference: ColumnProfile, current: ColumnProfile, *, title: str) -> Chart:
    """What a model said of two sets of rows."""
    then, now = (profile.counts / max(profile.counts.sum(), 1) for profile in (reference, current))
    return plots.score_histogram(now, reference=then, edges=_labels(reference), title=title)


def _labels(column: ColumnProfile) -> Sequence[Any]:
    """Names of the bins, or their edges, the outer ones being what was seen at training."""
    if column.kind in ("categorical", "boolean"):
        return column.bins.names
    cuts = column.bins.cuts
    low, high = (end if end is not None else 0.0 for end in (column.min, column.max))
    return [min(low, *cuts, high), *cuts, max(high, *cuts, low)]


def explore_columns(reference: Profile, current: Profile, *, first: str = "") -> Picker:
    """Pick a column, see it in both summaries; ``first`` is the one that is drawn at once."""
    names = sorted(reference.columns, key=lambda name: name != first)  # the others stay in their order
    return Picker("column", names, partial(draw_column, reference, current))


def explore_signs(tables: Mapping[str, pd.DataFrame]) -> Picker:
    """Pick a sign of the last windows, see it alone; the first is drawn."""
    draw = partial(_draw_sign, tables)
    return Picker("sign", list(tables), draw)


def _draw_sign(tables: Mapping[str, pd.DataFrame], name: str) -> Chart:
    return plots.panels({name: tables[name]}, title=f"{name} in the last windows")


def explore_calibration(trial: Trial) -> Picker:
    """Pick a candidate, see whether its predictions mean what they say."""
    draw = partial(_draw_candidate, trial)
    return Picker("model", list(trial.predicted), draw)


def _draw_candidate(trial: Trial, name: str) -> Chart:
    title = f"{name}: predicted against observed"
    return draw_calibration(trial.truth, trial.predicted[name], task=trial.task, title=title)


def draw_calibration(y_true: np.ndarray, y_pred: np.ndarray, *, task: Task, title: str) -> Chart:
    """Predictions against what happened, in ten groups."""
    curve = calibration_curve(y_true, y_pred, task=task)
    return plots.calibration(curve, title=title, unit="mean" if task == "regression" else "share")
