"""The flights model that the benchmarks of prediction and serving ask: trained as the notebook does, in 3 seconds."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import yaml
from sklearn.compose import make_column_selector, make_column_transformer
from sklearn.ensemble import HistGradientBoostingClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer, OrdinalEncoder

from prodkit.data.schema import Schema
from prodkit.data.windows import read_window
from prodkit.models.bundle import assemble, manifest, pack
from prodkit.models.estimators import fit_model
from prodkit.models.training import model_for, out_of_time, split_window
from prodkit.params import ScoreParams, TrainParams
from prodkit.store.registry import Store

PROJECT = Path(__file__).parent.parent.parent


def flights_version(**changes: Any) -> tuple[bytes, dict[str, Any]]:
    """Artifact and manifest of the model that ``params/train.yaml`` describes, with these changes."""
    policy = yaml.safe_load((PROJECT / "params" / "train.yaml").read_text())
    params = TrainParams.check({**policy, "folds": 2, **changes})
    split = split_window(read_window(params), params)
    schema = Schema.infer(split.rows, features=params.features, target=params.target, task=params.task)
    model = model_for(params, params.model_args, schema=schema)
    tested = out_of_time(model, split.rows, schema=schema, params=params)
    fitted = fit_model(model, split.rows, schema=schema)
    bundle = assemble(fitted, split, tested, schema=schema, params=params, importance={})
    return pack(bundle), manifest(bundle, split.rows, params=params, metrics={})


def new_flights(rows: int, *, seed: int = 0) -> pd.DataFrame:
    """Flights of April, in the order of a draw."""
    return read_window(ScoreParams.check({})).sample(rows, random_state=seed, replace=True, ignore_index=True)


def stocked(folder: Path, *versions: tuple[bytes, dict[str, Any]]) -> dict[str, str]:
    """A store with these versions, each promoted in turn; its places, as parameters."""
    places = {"store": f"sqlite:///{folder}/store.db", "artifacts": str(folder / "artifacts")}
    with Store.open(places["store"], places["artifacts"]) as store:
        for generation, version in enumerate(versions):
            number = store.register(*version, run_id=f"benchmark-{generation}").number
            store.promote(number, expected_generation=generation, reason="benchmark")
    return places


def with_own_transformer(**arguments: Any) -> Any:
    """The same trees behind a transformer that the kit knows nothing of, so that no compiled path covers them."""
    codes = OrdinalEncoder(
        handle_unknown="use_encoded_value", unknown_value=np.nan, encoded_missing_value=np.nan
    )
    encode = make_column_transformer(
        (codes, make_column_selector(dtype_include=object)), remainder="passthrough"
    )
    trees = HistGradientBoostingClassifier(**arguments, categorical_features=[0, 1, 2, 3])
    return make_pipeline(FunctionTransformer(with_ratio), encode, trees)


def with_ratio(frame: pd.DataFrame) -> pd.DataFrame:
    """One column more: dew point against temperature."""
    return frame.assign(ratio=frame["dewp"] / frame["temp"].abs().clip(lower=1.0))
