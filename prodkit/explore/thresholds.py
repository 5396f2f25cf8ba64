"""Whom a threshold calls, rightly and wrongly, and what that costs."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache, partial
from html import escape
from typing import Any

import ipywidgets
import numpy as np
import pandas as pd

from prodkit.decisions.decide import sentence
from prodkit.decisions.trial import Trial
from prodkit.evidence import Evidence
from prodkit.explore.explorer import Explorer, View, as_table
from prodkit.figures.models import draw_threshold_costs
from prodkit.models.confusion import confusion, threshold_cost
from prodkit.models.diagnostics import Withheld
from prodkit.models.training import OutOfTime
from prodkit.params import Task, TrainParams

__all__ = ["explore_training", "explore_trial"]

_EVERYBODY = "all rows"
_MISS_COST = 4.0  # false alarms that a miss is worth, to begin with
_STEPS = 100


def explore_trial(trial: Trial, evidence: Sequence[Evidence]) -> Explorer:
    """Pick a slice, a threshold and what a miss costs; see whom each candidate would call, and which is cheaper.

    Beneath it stands what the evidence says of the slice, as it was judged.
    """
    slices = [item.name.removeprefix("slice.") for item in evidence if item.name.startswith("slice.")]
    controls = {"rows": ipywidgets.Dropdown(options=[_EVERYBODY, *slices])}
    controls |= _controls(trial.task, trial.truth, trial.predicted)
    return Explorer(controls, partial(_of_trial, trial, {item.name: item for item in evidence}))


def _of_trial(trial: Trial, evidence: Mapping[str, Evidence], rows: str, **choice: Any) -> View:
    kept = np.ones(len(trial.truth), dtype=bool)
    said = [item for name, item in evidence.items() if name.startswith("gain.")]
    if rows != _EVERYBODY:
        column, _, level = rows.partition("=")
        kept = (trial.rows[column].astype(str) == level).to_numpy()
        said = [evidence[f"slice.{rows}"]]
    predicted = {name: each[kept] for name, each in trial.predicted.items()}
    judged = "".join(f"<p>As judged: {escape(sentence(item))}</p>" for item in said)
    chart, facts = _called(trial.task, trial.truth[kept], predicted, title=f"What it costs: {rows}", **choice)
    return chart, facts + judged


def explore_training(tested: OutOfTime, *, params: TrainParams) -> Explorer:
    """Take columns away and move the threshold; see whom model and simple rule would call on the newest fold.

    A column is taken away by shuffling it, as for its importance: the model is not fitted again, and one that was
    might find in other columns what it has lost.
    """
    withheld = Withheld.of(tested, params=params)
    columns = ipywidgets.SelectMultiple(options=tested.schema.names, description="take away", rows=5)
    predicted = {"model": withheld.predicted(), "simple rule": withheld.simple}
    controls = {"without": columns, **_controls(tested.schema.task, withheld.truth, predicted)}
    said = lru_cache(maxsize=32)(withheld.predicted)  # the other sliders ask no model
    return Explorer(controls, partial(_of_training, withheld, said))


def _of_training(
    withheld: Withheld, said: Callable[..., np.ndarray], without: tuple[str, ...], **choice: Any
) -> View:
    predicted, tested = {"model": said(without), "simple rule": withheld.simple}, withheld.tested
    title = "What it costs, on the newest fold"
    chart, facts = _called(tested.schema.task, withheld.truth, predicted, title=title, **choice)
    losses = {name: withheld.loss(each) for name, each in predicted.items()}
    lost = losses["model"] - withheld.loss(said(()))
    taken = f" ({lost:+.3g} without {', '.join(without)})" if without else ""
    told = f"{tested.loss}: model {losses['model']:.4g}{taken}, simple rule {losses['simple rule']:.4g}"
    return chart, f"{facts}<p>{escape(told)}</p>"


def _controls(task: Task, truth: np.ndarray, predicted: Mapping[str, np.ndarray]) -> dict[str, Any]:
    """Class (if there are several), threshold and the cost of a miss."""
    controls: dict[str, Any] = {}
    low, high, start = 0.0, 1.0, 1 / (1 + _MISS_COST)
    if task == "multiclass":
        classes = next(iter(predicted.values())).shape[1]
        controls["positive"] = ipywidgets.Dropdown(options=range(classes), value=0, description="class")
    if task == "regression":
        low, start, high = (float(end) for end in np.nanquantile(truth, [0.01, 0.5, 0.99]))
        high = high if high > low else low + 1.0
    step = (high - low) / _STEPS
    controls["threshold"] = ipywidgets.FloatSlider(
        value=start, min=low, max=high, step=step, readout_format=".3g"
    )
    controls["miss"] = ipywidgets.FloatLogSlider(
        value=_MISS_COST, min=-1, max=2, step=0.05, description="cost of a miss", readout_format=".2g"
    )
    return controls


def _called(
    task: Task,
    truth: np.ndarray,
    predicted: Mapping[str, np.ndarray],
    *,
    title: str,
    threshold: float,
    miss: float,
    positive: int = 1,
) -> View:
    """Cost against threshold for each candidate, and the confusion matrix of each at this one."""
    cuts = _grid(task, truth, threshold)
    counts = {
        name: confusion(truth, said, thresholds=cuts, task=task, positive=positive)
        for name, said in predicted.items()
    }
    costs = pd.DataFrame({name: threshold_cost(each, miss=miss) for name, each in counts.items()})
    chart = draw_threshold_costs(costs, threshold=threshold, title=title)
    matrices = "".join(_matrix(name, each, costs[name], threshold=threshold) for name, each in counts.items())
    return chart, f'<div style="display: flex; flex-wrap: wrap; gap: 2em">{matrices}</div>'


def _grid(task: Task, truth: np.ndarray, threshold: float) -> np.ndarray:
    low, high = (0.0, 1.0) if task != "regression" else np.nanquantile(truth, [0.01, 0.99])
    return np.union1d(np.linspace(low, high, _STEPS + 1), [threshold])


def _matrix(name: str, table: pd.DataFrame, costs: pd.Series[float], *, threshold: float) -> str:
    """One confusion matrix, and the cheapest threshold beside the one that was picked."""
    counts, known = table.loc[[threshold]].iloc[0], costs.dropna()
    cells = [[counts["hits"], counts["misses"]], [counts["false_alarms"], counts["rests"]]]
    shown = pd.DataFrame(cells, index=["is so", "is not"], columns=["called", "not called"])
    least = f"; least {known.min():.3g} at {known.index[int(known.argmin())]:.3g}" if len(known) else ""
    caption = f"{name}: costs {costs[threshold]:.3g} a hundred rows{least}"
    return as_table(shown.map("{:,}".format), caption=caption)
