"""A version made of rows as the notebook `train` makes one, without a notebook."""

from __future__ import annotations

from typing import Any

import pandas as pd

from prodkit.data.schema import Schema
from prodkit.data.windows import feature_columns
from prodkit.models.bundle import assemble, manifest, pack
from prodkit.models.estimators import fit_model
from prodkit.models.training import model_for, out_of_time, split_window
from prodkit.params import TrainParams

__all__ = ["trained"]


def trained(params: TrainParams, rows: pd.DataFrame) -> tuple[bytes, dict[str, Any]]:
    """Its artifact and its manifest."""
    split = split_window(rows, params)
    schema = Schema.infer(
        split.rows, features=feature_columns(rows, params), target=params.target, task=params.task
    )
    model = model_for(params, params.model_args, schema=schema)
    tested = out_of_time(model, split.rows, schema=schema, params=params)
    fitted = fit_model(model, split.rows, schema=schema)
    bundle = assemble(fitted, split, tested, schema=schema, params=params, importance={})
    return pack(bundle), manifest(bundle, split.rows, params=params, metrics=tested.intervals())
