"""A rival's server of the flights model: ``python rival.py NAME DATA PORT``, started by ``serving.py``.

It runs in the rival's own environment, so it imports nothing of prodkit, and trains the same trees on the same rows
there. NAME is ``fastapi`` (an endpoint that calls the pipeline, as many a tutorial shows), ``vetiver`` or ``mlflow``.
"""

from __future__ import annotations

import os
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from sklearn.compose import ColumnTransformer
from sklearn.ensemble import HistGradientBoostingClassifier
from sklearn.pipeline import Pipeline
from sklearn.preprocessing import OrdinalEncoder

CATEGORIES = ["origin", "carrier", "dest", "weekday"]
TREES = {"learning_rate": 0.05, "max_iter": 100, "min_samples_leaf": 200, "l2_regularization": 5.0}


def main(name: str, data: str, port: int) -> None:
    """Train, then serve until killed."""
    table = pd.read_parquet(data)
    label, rows = table.pop("late").astype(int), table.astype(dict.fromkeys(CATEGORIES, object))
    model = pipeline(list(rows.columns)).fit(rows, label)
    {"fastapi": fastapi, "vetiver": vetiver, "mlflow": mlflow}[name](model, rows, port)


def pipeline(columns: list[str]) -> Pipeline:
    """Ordinal codes and histogram trees."""
    codes = OrdinalEncoder(
        handle_unknown="use_encoded_value", unknown_value=np.nan, encoded_missing_value=np.nan
    )
    numbers = [name for name in columns if name not in CATEGORIES]
    encode = ColumnTransformer([("categorical", codes, CATEGORIES), ("numbers", "passthrough", numbers)])
    trees = HistGradientBoostingClassifier(**TREES, categorical_features=[0, 1, 2, 3], random_state=0)
    return Pipeline([("encode", encode), ("model", trees)])


def fastapi(model: Any, rows: pd.DataFrame, port: int) -> None:
    """A plain endpoint around the pipeline."""
    import uvicorn
    from fastapi import FastAPI

    app = FastAPI()

    @app.post("/predict")
    def predict(body: dict[str, list[dict[str, Any]]]) -> dict[str, list[float]]:
        frame = pd.DataFrame(body["records"], columns=list(rows.columns))
        return {"predictions": model.predict_proba(frame)[:, 1].tolist()}

    uvicorn.run(app, port=port, log_level="warning")


def vetiver(model: Any, rows: pd.DataFrame, port: int) -> None:
    """As its documentation shows."""
    from vetiver import VetiverAPI, VetiverModel

    api = VetiverAPI(
        VetiverModel(model, "flights", prototype_data=rows.dropna().head(1)), show_prototype=False
    )
    api.run(port=port, log_level="warning")


def mlflow(model: Any, rows: pd.DataFrame, port: int) -> None:
    """Its scoring server, in this environment."""
    import mlflow.sklearn

    folder = str(Path(tempfile.mkdtemp()) / "model")
    mlflow.sklearn.save_model(
        model, folder, pyfunc_predict_fn="predict_proba", serialization_format="cloudpickle"
    )
    command = [
        "mlflow",
        "models",
        "serve",
        "-m",
        folder,
        "--env-manager",
        "local",
        "-p",
        str(port),
        "-h",
        "127.0.0.1",
    ]
    os.environ["PATH"] = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    os.execvp("mlflow", command)


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], int(sys.argv[3]))
