"""Decisions held against other limits: what would have been decided instead."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import ipywidgets

from prodkit.decisions.decide import Decision
from prodkit.decisions.ladder import gain_table
from prodkit.decisions.record import decision_record
from prodkit.decisions.whatif import what_if
from prodkit.explore.explorer import Explorer, View, as_table
from prodkit.figures.gains import draw_differences
from prodkit.params import RollbackParams

__all__ = ["explore_limits"]

_MOST = 24  # decisions that are told again, the newest; more would not be read, nor be quick


def explore_limits(
    params: RollbackParams, decision: Decision, *, past: Sequence[Mapping[str, Any]] = ()
) -> Explorer:
    """Move the limits of `rollback`; see what this decision and those before it would have come to.

    Args:
        params: of this run, where the sliders stand at first.
        decision: of this run.
        past: documents of earlier decisions, oldest first, as :func:`prodkit.decisions.record.past_decisions` has them.
    """
    documents = [*past[-_MOST:], decision_record(params, decision)]
    most_rows = max(10 * params.min_rows, 10_000)
    controls = {
        "retrain_cost": _slider(params.retrain_cost),
        "rollback_margin": _slider(params.rollback_margin),
        "ranking_margin": _slider(params.ranking_margin),
        "min_rows": ipywidgets.IntSlider(value=params.min_rows, min=1, max=most_rows, step=1),
    }
    return Explorer(controls, partial(_decided, documents, decision))


def _slider(value: float) -> Any:
    return ipywidgets.FloatSlider(
        value=value, min=0.0, max=max(0.05, 3 * value), step=0.0005, readout_format=".4f"
    )


def _decided(documents: Sequence[Mapping[str, Any]], decision: Decision, **limits: float) -> View:
    told = what_if(documents, limits)
    gains = gain_table(decision.evidence)
    moved = {"predecessor": limits["rollback_margin"], "challenger": limits["retrain_cost"]}
    gains["limit"] = [moved.get(str(name), limit) for name, limit in gains["limit"].items()]
    chart = draw_differences(gains, unit="gain in skill", title="Had another one served these rows")
    under = ", ".join(f"{name} {value:.4g}" for name, value in limits.items())
    counts = told["verdict"].value_counts()
    said = ", ".join(
        f"{counts[name]} {name}" for name in ("different", "same", "needs a new run") if name in counts
    )
    telling = told[told["verdict"] != "same"] if len(told) > 1 else told
    shown = telling if len(telling) else told.tail(1)
    return chart, as_table(shown.set_index("window")[["notebook", "then", "now", "verdict", "why"]],
                           caption=f"{len(told)} on record, with {under}: {said}")  # fmt: skip
