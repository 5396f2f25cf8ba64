"""A model that was trained elsewhere, made a version by the rows that it was trained on; it is never fitted."""

from __future__ import annotations

import hashlib
import pickle
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import joblib
import numpy as np
import pandas as pd

from prodkit.data.schema import Schema
from prodkit.data.windows import blocks, feature_columns, labelled, read_window
from prodkit.errors import ModelError
from prodkit.evidence import Window
from prodkit.models.bundle import Bundle, assemble, manifest
from prodkit.models.estimators import Fallback, predictions, require_sound
from prodkit.models.training import OutOfTime, Split, importance
from prodkit.params import TrainParams
from prodkit.settings import project_on_path

__all__ = ["AddedModel", "added_version"]


class AddedModel:
    """A fitted estimator, asked with the columns of a schema; fitting it again gives it back as it is.

    Args:
        estimator: fitted elsewhere.
        names: of the columns that it takes, in its order; it takes an array where it knows no names.
        classes: the class number that each column of its probabilities is about; empty for regression.
    """

    def __init__(self, estimator: Any, names: Sequence[str], classes: Sequence[int]) -> None:
        self.estimator, self.names = estimator, list(names)
        self.classes_ = np.array(classes, dtype=int)

    def __sklearn_clone__(self) -> AddedModel:
        return self

    def get_params(self, deep: bool = True) -> dict[str, Any]:
        """None: nothing of it is set here."""
        return {}

    def fit(self, X: Any, y: Any, **_: Any) -> AddedModel:
        """Nothing: it is fitted."""
        return self

    def predict(self, X: pd.DataFrame) -> Any:
        """As the estimator."""
        return self.estimator.predict(self._taken(X))

    def predict_proba(self, X: pd.DataFrame) -> Any:
        """As the estimator."""
        return self.estimator.predict_proba(self._taken(X))

    def _taken(self, rows: pd.DataFrame) -> Any:
        rows = rows[self.names]
        return rows if hasattr(self.estimator, "feature_names_in_") else rows.to_numpy()


def added_version(source: str, trained: Window, params: TrainParams) -> tuple[Bundle, dict[str, Any]]:
    """The bundle and the manifest of a fitted estimator.

    What it is compared with later, the schema, the profile and the golden rows, comes from the rows it was trained on.
    It has no answers to rows that it had not learned, so its performance is not estimated while labels are missing.

    Args:
        source: file of joblib, pickle or skops; folder of an MLflow model, or ``mlflow:`` and its URI.
        trained: the rows that it has learned; they never judge it.
        params: facts of the table.

    Raises:
        ModelError: it cannot be read, or does not answer the rows of the table.
        WindowError: the table has no rows there.
    """
    project_on_path()
    estimator, digest = _loaded(source)
    names = [str(name) for name in getattr(estimator, "feature_names_in_", ())]
    told = params.model_copy(
        update={"window": trained, "as_of": trained.end + params.label_delay, "drill": {}}
    )
    told = told.model_copy(update={"features": names or told.features})
    feed = read_window(told, trained)
    rows = labelled(feed, told).reset_index(drop=True)
    names = names or feature_columns(feed, told)
    schema = Schema.infer(rows, features=names, target=told.target, task=told.task, missing=told.missing)
    expected = getattr(estimator, "n_features_in_", len(names))
    if expected != len(names):
        rule, value = f"must take the {len(names)} features", f"{expected} columns"
        fix = f"Name those that it was trained on, in its order: -p features '[...]'; now {', '.join(names)}."
        raise ModelError(source, rule=rule, value=value, fix=fix)
    model = AddedModel(estimator, names, _classes(estimator, schema, source))
    tested = _asked(model, rows, schema, told, source)
    split = Split(rows, feed, trained, Window(trained.end, trained.end + told.holdout))
    weights = importance(tested, params=told, repeats=1)["mean"].to_dict()
    bundle = assemble(model, split, tested, schema=schema, params=told, importance=weights)  # type: ignore[arg-type]
    bundle = replace(bundle, calibration=None, autocorrelation=None, masks=None)
    about = manifest(bundle, rows, params=told, metrics={})
    return bundle, about | {"added": {"source": source, "sha256": digest, "kind": type(estimator).__name__}}


def _loaded(source: str) -> tuple[Any, str]:
    """The estimator, and the SHA-256 of its file; empty of one that is no file."""
    place = Path(source)
    try:
        if source.startswith("mlflow:") or (place / "MLmodel").is_file():
            from mlflow.sklearn import load_model  # an optional package

            estimator, digest = load_model(source.removeprefix("mlflow:")), ""
        else:
            digest = hashlib.sha256(place.read_bytes()).hexdigest()
            estimator = _unpickled(place)
    except ImportError as error:
        fix = (
            f"Install what it was made with: python -m pip install {(error.name or 'it').partition('.')[0]}."
        )
        raise ModelError(source, rule=f"needs a package to be read: {error}", fix=fix) from error
    except Exception as error:  # unpickling may raise anything
        fix = "Give a fitted estimator by joblib, pickle or skops, or an MLflow model of the sklearn flavour."
        rule = f"must be a model that can be read: {type(error).__name__}: {error}"
        raise ModelError(source, rule=rule, fix=fix) from error
    wanted = [name for name in ("predict",) if not hasattr(estimator, name)]
    if wanted or isinstance(estimator, type):
        fix = "Save the fitted estimator itself, such as joblib.dump(pipeline, 'model.joblib')."
        raise ModelError(source, rule="must be a fitted estimator", value=type(estimator).__name__, fix=fix)
    return estimator, digest


def _unpickled(place: Path) -> Any:
    if place.suffix == ".skops":
        from skops import io  # an optional package

        return io.load(place, trusted=io.get_untrusted_types(file=place))
    if place.suffix in (".pkl", ".pickle"):
        return pickle.loads(place.read_bytes())
    return joblib.load(place)


def _classes(estimator: Any, schema: Schema, source: str) -> list[int]:
    """The class numbers that its probabilities are about; they may be the labels, or numbers from 0 in their order."""
    if schema.task == "regression":
        return []
    fix = "Decisions rest on probabilities of the classes of the target: wrap it in CalibratedClassifierCV."
    if not hasattr(estimator, "predict_proba") or not hasattr(estimator, "classes_"):
        rule, value = "must have predict_proba and classes_", type(estimator).__name__
        raise ModelError(source, rule=rule, value=value, fix=fix)
    labels = pd.Series(list(estimator.classes_))
    if schema.knows(labels).all():
        return [int(code) for code in schema.encode(labels)]
    numbers = list(range(len(schema.classes)))
    if [str(label) for label in labels] == [str(number) for number in numbers]:
        return numbers
    rule = f"must know the classes of the target, {', '.join(map(str, schema.classes))}"
    raise ModelError(source, rule=rule, value=", ".join(map(str, labels)), fix=fix)


def _asked(
    model: AddedModel, rows: pd.DataFrame, schema: Schema, params: TrainParams, source: str
) -> OutOfTime:
    """Its answers to the rows that it was trained on; it must give sound ones."""
    columns, truth = schema.coerce(rows), schema.encode(rows[schema.target])
    try:
        answers = predictions(model, columns, schema=schema, coerced=True)
    except ModelError:
        raise
    except Exception as error:  # an estimator may raise anything
        rule = f"must answer the rows of the table: {type(error).__name__}: {error}"
        fix = "Save the whole pipeline, with its encoding; check `features`, and their types in the table."
        raise ModelError(source, rule=rule, value=f"columns {', '.join(schema.names)}", fix=fix) from error
    require_sound(answers, columns, truth=truth, model=model, schema=schema)
    return OutOfTime(
        schema=schema,
        frame=rows,
        truth=truth,
        predicted=answers,
        baseline=Fallback.fit(rows, schema=schema).predict(rows, schema=schema),
        days=blocks(rows[params.time_column]),
        folds=pd.DataFrame(),
        last=model,  # it answers as a pipeline does
        newest=np.ones(len(rows), dtype=bool),
    )
