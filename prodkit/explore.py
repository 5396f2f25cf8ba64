"""Widgets: one call puts controls over a figure that follows them, or a still figure where no kernel runs."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from datetime import date, timedelta
from functools import lru_cache
from html import escape
from typing import Any

import ipywidgets
import numpy as np
import pandas as pd
from numpy.typing import ArrayLike

from prodkit.canvas import Chart
from prodkit.charts import (
    draw_differences,
    draw_distributions,
    draw_latency_tail,
    draw_panels,
    draw_threshold_costs,
)
from prodkit.decisions.decide import Decision, sentence
from prodkit.decisions.ladder import gain_table
from prodkit.decisions.record import decision_record
from prodkit.decisions.result import rounded
from prodkit.decisions.trial import Trial
from prodkit.decisions.whatif import what_if
from prodkit.drift.compare import compare_columns
from prodkit.drift.profiles import Profile
from prodkit.evidence import Evidence
from prodkit.models.training import OutOfTime, Withheld
from prodkit.monitoring.findings import sign_limits
from prodkit.monitoring.health import HealthMetrics
from prodkit.params import MonitorParams, RollbackParams, StressParams, Task, TrainParams
from prodkit.stress.load import Step, knee
from prodkit.stress.trial import knee_limits, load_table

__all__ = [
    "Explorer",
    "confusion",
    "explore_columns",
    "explore_limits",
    "explore_loads",
    "explore_signs",
    "explore_training",
    "explore_trial",
    "threshold_cost",
]

_View = tuple[Chart, str]  # a figure, and the HTML beneath it
_EVERYBODY = "all rows"
_MISS_COST = 4.0  # false alarms that a miss is worth, to begin with
_MOST_DECISIONS = 24  # the newest; more would neither be read nor be quick


class Explorer(ipywidgets.VBox):  # type: ignore[misc]  # ipywidgets has no types
    """Controls over one picture, with its numbers beneath it; both follow the controls.

    The picture is an ``HTML`` widget that holds an SVG, not the ``Output`` of ``ipywidgets.interactive_output``: an
    Output sends over the very channel that a headless client waits on, and can hang it. Where no kernel runs (a
    report, papermill, nbval) the figure of the first values stands there as a picture with its digest.

    Args:
        controls: by name of the argument of ``view`` that each sets.
        view: gives figure and HTML for the values of all controls.
    """

    def __init__(self, controls: Mapping[str, Any], view: Callable[..., _View]) -> None:
        self.controls, self._view = dict(controls), view
        self._still, facts = view(**{name: control.value for name, control in controls.items()})
        self._shown = ipywidgets.HTML(self._still.svg + facts, layout={"width": "100%"})
        for name, control in controls.items():
            control.description = control.description or name
            control.style.description_width = "110px"
            control.layout.width, control.layout.max_width = "520px", "100%"
            control.observe(self._redraw, names="value")
        super().__init__([*controls.values(), self._shown])
        self.add_class("prodkit-explorer")

    @property
    def html(self) -> str:
        """What is shown beneath the controls."""
        return str(self._shown.value)

    def _redraw(self, change: dict[str, Any]) -> None:
        try:
            chart, facts = self._view(**{name: control.value for name, control in self.controls.items()})
            self._shown.value = chart.svg + facts
        except Exception as error:  # nobody sees what an event raises, so it stands where the figure would
            self._shown.value = f"<p><b>{escape(type(error).__name__)}</b>: {escape(str(error))}</p>"

    def _repr_mimebundle_(self, **kwargs: Any) -> tuple[dict[str, Any], dict[str, Any]]:
        live = super()._repr_mimebundle_(**kwargs) or {}
        still, about = self._still._repr_mimebundle_()
        return {**live, **still}, about


def _as_html(table: pd.DataFrame, *, caption: str = "") -> str:
    """A table, its texts escaped; its look is written into it, as a widget has none for tables."""
    look = "border-collapse: collapse; line-height: 1.5; text-align: right; white-space: nowrap"
    side = "caption-side: top; text-align: left; white-space: nowrap; padding: 4px"
    titled = f"<caption style='{side}'>{escape(caption)}</caption>" if caption else ""
    html: str = table.to_html(border=0, escape=True, index_names=False)
    body = html[html.index(">") + 1 :]
    return f"<div style='overflow-x: auto'><table cellpadding='5' style='{look}'>{titled}{body}</div>"


def explore_columns(
    reference: Profile, current: Profile, *, min_effect: float = 0.1, first: str = ""
) -> Explorer:
    """Pick a column and some of the window's days; see them over the reference, and what the comparison finds.

    Args:
        reference: of the rows that the model learned from.
        current: of the window, by day.
        min_effect: Jensen-Shannon distance that counts as drift.
        first: the column that is drawn at once, and where nothing can be picked.
    """
    names = sorted(reference.columns, key=lambda name: name != first)  # the others stay in their order
    controls = {"column": ipywidgets.Dropdown(options=names)}
    days = {int(block): date(1970, 1, 1) + timedelta(days=int(block)) for block in current.blocks}
    if len(days) > 1:
        options = [(f"{day:%d %b}", block) for block, day in days.items()]
        ends = (options[0][1], options[-1][1])
        controls["days"] = ipywidgets.SelectionRangeSlider(options=options, value=ends)

    def view(column: str, days: tuple[int, int] | None = None) -> _View:
        then, now, span = reference.columns[column], current.columns[column], "the window"
        if days is not None:
            now = now.within((now.blocks >= days[0]) & (now.blocks <= days[1]))
            ends = [date(1970, 1, 1) + timedelta(days=day) for day in days]
            span = f"{ends[0]} to {ends[1]}"
        result = compare_columns(then, now)
        facts = (
            f"<b>{escape(column)}</b>, {span}, {now.rows:,} rows: "
            f"effect {result['effect']:.3g} (drift from {max(min_effect, result['floor']):.3g} on), "
            f"p {result['p_value']:.2g} of this column alone, PSI {result['psi']:.3g}; "
            f"missing {result['missing_current']:.2%}, in the reference {result['missing_reference']:.2%}"
        )
        return draw_distributions(then, now, name=column), f"<p>{facts}</p>"

    return Explorer(controls, view)


def explore_limits(
    params: RollbackParams, decision: Decision, *, past: Sequence[Mapping[str, Any]] = ()
) -> Explorer:
    """Move the limits of `rollback`; see what this decision and those before it would have been.

    Args:
        params: of this run, where the sliders stand at first.
        decision: of this run.
        past: records of earlier decisions, oldest first, as :func:`prodkit.decisions.record.past_decisions` has them.
    """
    records = [*past[-_MOST_DECISIONS:], decision_record(params, decision)]
    controls = {}
    for name in ("retrain_cost", "rollback_margin", "ranking_margin"):
        value = getattr(params, name)
        controls[name] = ipywidgets.FloatSlider(
            value=value, min=0.0, max=max(0.05, 3 * value), step=0.0005, readout_format=".4f"
        )
    most_rows = max(10 * params.min_rows, 10_000)
    controls["min_rows"] = ipywidgets.IntSlider(value=params.min_rows, min=1, max=most_rows, step=1)

    def view(**limits: float) -> _View:
        replayed = what_if(records, limits)
        gains = gain_table(decision.evidence)
        moved = {"predecessor": limits["rollback_margin"], "challenger": limits["retrain_cost"]}
        gains["limit"] = [moved.get(str(name), limit) for name, limit in gains["limit"].items()]
        chart = draw_differences(gains, unit="gain in skill", title="Had another one served these rows")
        under = ", ".join(f"{name} {value:.4g}" for name, value in limits.items())
        counts = replayed["verdict"].value_counts()
        verdicts = [name for name in ("different", "same", "needs a new run") if name in counts]
        caption = f"{len(replayed)} on record, with {under}: " + ", ".join(
            f"{counts[v]} {v}" for v in verdicts
        )
        changed = replayed[replayed["verdict"] != "same"]
        shown = (changed if len(changed) else replayed.tail(1)).set_index("window")
        return chart, _as_html(shown[["notebook", "then", "now", "verdict", "why"]], caption=caption)

    return Explorer(controls, view)


def explore_loads(params: StressParams, steps: Mapping[str, Sequence[Step]]) -> Explorer:
    """Pick a load that was tried, and a limit; see how long the slowest waited, and each one's knee under the limit.

    Args:
        params: whose limits are there at first.
        steps: by who was loaded, at rising rates.
    """
    rates = sorted({step.rate for each in steps.values() for step in each}) or [params.promised_rate]
    limits = knee_limits(params)
    start = min(max(limits["latency_ms"], 1.0), 10_000.0)
    controls = {
        "rate": ipywidgets.SelectionSlider(
            options=[(f"{rate:g}", rate) for rate in rates],
            value=params.promised_rate if params.promised_rate in rates else rates[0],
            description="requests/s",
        ),
        "limit": ipywidgets.FloatLogSlider(
            value=start, min=0, max=4, step=0.05, description="limit, ms", readout_format=".3g"
        ),
    }

    def view(rate: float, limit: float) -> _View:
        here = {who: [step for step in each if step.rate == rate] for who, each in steps.items()}
        latencies = {who: each[0].latency_ms for who, each in here.items() if each}
        columns = ["reached", "valid", "p50", "p90", "p99", "p99.9", "lag_p99", "failed", "degraded"]
        table = rounded(load_table(here)[columns])
        knees = {who: knee(each, **{**limits, "latency_ms": limit}) for who, each in steps.items()}
        table["knee"] = ["none" if (top := knees[who]) is None else f"{top:g}" for who in table.index]
        caption = f"milliseconds at {rate:g} requests a second; knee at {limit:.3g} ms"
        return draw_latency_tail(latencies, rate=rate, limit=limit), _as_html(table, caption=caption)

    return Explorer(controls, view)


def explore_signs(params: MonitorParams, signs: HealthMetrics) -> Explorer:
    """Pick a health metric and some of the windows; see it alone against its limit, the latency first."""
    tables, limits = signs.tables(), sign_limits(params, signs)
    controls = {"sign": ipywidgets.Dropdown(options=list(tables))}
    if len(signs.windows) > 1:
        places = [(name[-5:], place) for place, name in enumerate(signs.signs.index)]  # as wide as is shown
        ends = (0, len(places) - 1)
        controls["windows"] = ipywidgets.SelectionRangeSlider(options=places, value=ends)
    states = signs.signs[["version", "rows", "state"]]

    def view(sign: str, windows: tuple[int, int] = (0, 0)) -> _View:
        part = slice(windows[0], windows[1] + 1)
        table, limit = tables[sign].iloc[part], limits.get(sign)
        limited = {} if limit is None else {sign: limit}
        chart = draw_panels({sign: table}, title=f"{sign} in the last windows", limits=limited)
        facts = states.iloc[part].join(rounded(table[["value", "low", "high"]]))
        return chart, _as_html(facts, caption="" if limit is None else f"limit {limit:.4g}")

    return Explorer(controls, view)


def explore_trial(trial: Trial, evidence: Sequence[Evidence]) -> Explorer:
    """Pick a slice, a threshold and what a miss costs; see whom each candidate would call, and which is cheaper.

    Beneath it stands what the evidence says of the slice, as it was judged.
    """
    by_name = {item.name: item for item in evidence}
    slices = [name.removeprefix("slice.") for name in by_name if name.startswith("slice.")]
    controls = {"rows": ipywidgets.Dropdown(options=[_EVERYBODY, *slices])}
    controls |= _threshold_controls(trial.task, trial.truth, trial.predicted)

    def view(rows: str, **choice: Any) -> _View:
        mask = np.ones(len(trial.truth), dtype=bool)
        judged = [item for name, item in by_name.items() if name.startswith("gain.")]
        if rows != _EVERYBODY:
            column, _, level = rows.partition("=")
            mask = (trial.rows[column].astype(str) == level).to_numpy()
            judged = [by_name[f"slice.{rows}"]]
        predicted = {name: each[mask] for name, each in trial.predicted.items()}
        title = f"What it costs: {rows}"
        chart, facts = _threshold_view(trial.task, trial.truth[mask], predicted, title=title, **choice)
        return chart, facts + "".join(f"<p>As judged: {escape(sentence(item))}</p>" for item in judged)

    return Explorer(controls, view)


def explore_training(tested: OutOfTime, *, params: TrainParams) -> Explorer:
    """Take columns away and move the threshold; see whom model and simple rule would call on the newest fold.

    A column is taken away by shuffling it, as for its importance: the model is not fitted again, and one that was
    might find in other columns what it has lost.
    """
    withheld, task = Withheld.of(tested, params=params), tested.schema.task
    answers = lru_cache(maxsize=32)(withheld.predicted)  # the other sliders ask no model
    columns = ipywidgets.SelectMultiple(options=tested.schema.names, description="take away", rows=5)
    predicted = {"model": answers(()), "simple rule": withheld.baseline}
    controls = {"without": columns, **_threshold_controls(task, withheld.truth, predicted)}

    def view(without: tuple[str, ...], **choice: Any) -> _View:
        predicted = {"model": answers(without), "simple rule": withheld.baseline}
        title = "What it costs, on the newest fold"
        chart, facts = _threshold_view(task, withheld.truth, predicted, title=title, **choice)
        losses = {name: withheld.loss(each) for name, each in predicted.items()}
        rise = losses["model"] - withheld.loss(answers(()))
        taken = f" ({rise:+.3g} without {', '.join(without)})" if without else ""
        loss = f"{tested.loss}: model {losses['model']:.4g}{taken}, simple rule {losses['simple rule']:.4g}"
        return chart, f"{facts}<p>{escape(loss)}</p>"

    return Explorer(controls, view)


def _threshold_controls(task: Task, truth: np.ndarray, predicted: Mapping[str, np.ndarray]) -> dict[str, Any]:
    """Class (if there are several), threshold and the cost of a miss."""
    controls: dict[str, Any] = {}
    start = 1 / (1 + _MISS_COST) if task != "regression" else float(np.nanmedian(truth))
    low, high = _threshold_range(task, truth)
    if task == "multiclass":
        classes = next(iter(predicted.values())).shape[1]
        controls["positive"] = ipywidgets.Dropdown(options=range(classes), value=0, description="class")
    step = (high - low) / 100
    controls["threshold"] = ipywidgets.FloatSlider(
        value=start, min=low, max=high, step=step, readout_format=".3g"
    )
    controls["miss"] = ipywidgets.FloatLogSlider(
        value=_MISS_COST, min=-1, max=2, step=0.05, description="cost of a miss", readout_format=".2g"
    )
    return controls


def _threshold_range(task: Task, truth: np.ndarray) -> tuple[float, float]:
    if task != "regression":
        return 0.0, 1.0
    low, high = (float(end) for end in np.nanquantile(truth, [0.01, 0.99]))
    return low, high if high > low else low + 1.0


def _threshold_view(
    task: Task,
    truth: np.ndarray,
    predicted: Mapping[str, np.ndarray],
    *,
    title: str,
    threshold: float,
    miss: float,
    positive: int = 1,
) -> _View:
    """Cost against threshold for each candidate, and the confusion matrix of each at this one."""
    cuts = np.union1d(np.linspace(*_threshold_range(task, truth), 101), [threshold])
    costs, matrices = {}, ""
    for name, each in predicted.items():
        table = confusion(truth, each, thresholds=cuts, task=task, positive=positive)
        costs[name] = cost = threshold_cost(table, miss=miss)
        counts, known = table.loc[[threshold]].iloc[0], cost.dropna()
        least = f"; least {known.min():.3g} at {known.index[int(known.argmin())]:.3g}" if len(known) else ""
        cells = [[counts["hits"], counts["misses"]], [counts["false_alarms"], counts["rests"]]]
        matrix = pd.DataFrame(cells, index=["is so", "is not"], columns=["called", "not called"])
        caption = f"{name}: costs {cost[threshold]:.3g} a hundred rows{least}"
        matrices += _as_html(matrix.map("{:,}".format), caption=caption)
    chart = draw_threshold_costs(pd.DataFrame(costs), threshold=threshold, title=title)
    return chart, f'<div style="display: flex; flex-wrap: wrap; gap: 2em">{matrices}</div>'


def confusion(
    y_true: ArrayLike, y_pred: ArrayLike, *, thresholds: ArrayLike, task: Task, positive: int = 1
) -> pd.DataFrame:
    """How many rows are called at each threshold, and whether they should have been.

    A row is called if its prediction reaches the threshold, and should be if it is of the ``positive`` class; of a
    quantity, if the true value reaches the threshold. Rows without a prediction are left out.

    Args:
        y_true: (n,) class indices, or numbers.
        y_pred: (n,) probability of class 1, (n, k) probabilities, or (n,) numbers.
        thresholds: (t,).
        task: binary, multiclass or regression.
        positive: the class that is looked for.

    Returns:
        A row for each threshold: hits, false_alarms, misses, rests (rightly not called).

    >>> confusion([0, 0, 1, 1], [0.1, 0.6, 0.3, 0.8], thresholds=[0.2, 0.5], task="binary").loc[0.5].to_dict()
    {'hits': 1, 'false_alarms': 1, 'misses': 1, 'rests': 1}
    """
    actual, score = np.asarray(y_true, dtype=float), np.asarray(y_pred, dtype=float)
    if task != "regression":
        score = score[:, positive] if score.ndim == 2 else score
        actual = np.where(actual == positive, np.inf, -np.inf)
    known = ~np.isnan(score) & ~np.isnan(actual)
    actual, score, cuts = actual[known], score[known], np.asarray(thresholds, dtype=float)
    # Both reach a threshold if the smaller of them does.
    called, due, both = (
        len(some) - np.searchsorted(np.sort(some), cuts, side="left")
        for some in (score, actual, np.minimum(score, actual))
    )
    counts = {"hits": both, "false_alarms": called - both, "misses": due - both}
    table = pd.DataFrame(counts | {"rests": len(score) - called - due + both}, index=cuts)
    return table.rename_axis("threshold")


def threshold_cost(counts: pd.DataFrame, *, miss: float) -> pd.Series[float]:
    """Cost of a hundred rows at each threshold, in false alarms, where a miss costs as much as so many of them.

    With calibrated probabilities, 1 / (1 + miss) is the cheapest threshold (Elkan 2001, The foundations of
    cost-sensitive learning). NaN without rows.

    >>> counts = confusion([0, 0, 1, 1], [0.1, 0.6, 0.3, 0.8], thresholds=[0.2, 0.5], task="binary")
    >>> threshold_cost(counts, miss=4).tolist()
    [25.0, 125.0]
    """
    spent = counts["false_alarms"] + miss * counts["misses"]
    return (100 * spent / counts.sum(axis="columns").replace(0, np.nan)).astype(float)
