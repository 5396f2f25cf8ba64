"""The compiled row path: the pipeline's answers to any row, or no path at all."""

from __future__ import annotations

import numpy as np
import pytest
import treelite
from sklearn.ensemble import HistGradientBoostingClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer
from test_models import table

from prodkit.data.schema import Schema
from prodkit.errors import ModelError
from prodkit.models.estimators import build_model, fit_model, predictions
from prodkit.scoring import compiled as scoring_compiled
from prodkit.scoring.bits import BitTrees
from prodkit.scoring.compiled import compiled
from prodkit.scoring.mutations import mutated
from prodkit.scoring.rows import Reader

FEATURES = ["amount", "city", "member", "when", "street"]
ENSEMBLE = "sklearn.ensemble."
TREES, LOGISTIC, RIDGE = "auto", "sklearn.linear_model.LogisticRegression", "sklearn.linear_model.Ridge"
FITTING = {LOGISTIC: {"max_iter": 2000}, TREES: {"max_iter": 25}}


def cells(frame):
    """The columns of a table."""
    return [frame[name].to_numpy() for name in frame]


def streets(rows=1200, seed=0):
    """The table of every kind of column, with a column of many levels."""
    frame, draw = table(rows, seed=seed), np.random.default_rng(seed)
    names = np.array([f"street {number}" for number in range(400)], dtype=object)
    return frame.assign(street=names[(draw.random(rows) ** 2 * 400).astype(int)])


def label(frame, task):
    """What is to be learned, from several columns."""
    lately = frame["when"].dt.month.eq(2).to_numpy() * 1.0
    drive = frame["amount"].fillna(0) + (frame["city"] == "Rome") + lately
    if task == "regression":
        return drive * 100
    return np.digitize(drive, [0.7] if task == "binary" else [0.0, 1.2])


def learned(path, task, frame):
    """A fitted model of the kit and its schema."""
    frame = frame.assign(label=label(frame, task))
    schema = Schema.infer(frame, features=FEATURES, target="label", task=task)
    model = build_model(
        path,
        schema=schema,
        arguments=FITTING.get(path, {"n_estimators": 9} if path.startswith(ENSEMBLE) else {}),
    )
    return fit_model(model, frame, schema=schema), schema


@pytest.mark.parametrize(
    ("path", "task"),
    [
        (TREES, "binary"),
        (TREES, "multiclass"),
        (TREES, "regression"),
        (LOGISTIC, "binary"),
        (LOGISTIC, "multiclass"),
        (RIDGE, "regression"),
        (f"{ENSEMBLE}RandomForestClassifier", "binary"),
        (f"{ENSEMBLE}ExtraTreesClassifier", "multiclass"),
        (f"{ENSEMBLE}RandomForestRegressor", "regression"),
        (f"{ENSEMBLE}GradientBoostingClassifier", "multiclass"),
        (f"{ENSEMBLE}GradientBoostingRegressor", "regression"),
    ],
)
def test_it_gives_the_answers_of_the_pipeline(path, task):
    """Rows that it has never seen, mutated in every way: the same numbers, singly, as rows and as a table."""
    frame, later = streets(), streets(200, seed=1)
    model, schema = learned(path, task, frame)
    quick = compiled(model, schema=schema, golden=frame.head(16))
    reader = Reader(schema)
    rows = [reader.read(row)[0] for row in mutated(later, schema=schema, rows=800, seed=7)]
    expected = predictions(model, reader.frame(rows), schema=schema)
    assert np.allclose(quick.predict(list(zip(*rows, strict=True))), expected, rtol=1e-9, atol=1e-12)
    assert np.allclose(quick.predict(cells(reader.frame(rows))), expected, rtol=1e-9, atol=1e-12)
    assert np.allclose([quick.predict_row(row) for row in rows], expected, rtol=1e-9, atol=1e-12)


def test_a_model_that_saw_only_some_of_the_classes_gives_the_others_nothing():
    """Shares stand in the order of the schema, with zero for a class that was not in the rows learned from."""
    frame = streets().assign(label=lambda f: f["city"].fillna("none"))
    schema = Schema.infer(frame, features=["amount", "street", "city"], target="label", task="multiclass")
    seen = frame[frame["label"] != "Lisbon"]
    model = build_model("auto", schema=schema, arguments=FITTING[TREES])
    fit_model(model, seen, schema=schema)
    row = Reader(schema).read(mutated(frame, schema=schema, rows=1, seed=0)[0])[0]
    said = compiled(model, schema=schema, golden=frame.head()).predict_row(row)
    assert said.shape == (5,)
    assert said[1] == 0
    assert said.sum() == pytest.approx(1)


@pytest.mark.parametrize(
    ("path", "task", "why"),
    [
        ("sklearn.naive_bayes.GaussianNB", "binary", "GaussianNB is neither linear nor trees"),
        ("sklearn.linear_model.PoissonRegressor", "regression", "answers differ from the pipeline's"),
    ],
)
def test_other_models_are_refused_with_the_reason(path, task, why):
    """A model that is made otherwise, or answers otherwise, has no path; the error says why."""
    frame = streets(600)
    frame = frame.assign(amount=frame["amount"].abs())
    model, schema = learned(path, task, frame)
    with pytest.raises(ModelError, match=f"has no compiled row path: .*{why}"):
        compiled(model, schema=schema, golden=frame.head(16))


def test_a_pipeline_of_somebody_elses_making_is_refused():
    """A transformer of one's own may do anything, so nothing is guessed about it."""
    frame = streets(600).assign(label=lambda f: label(f, "binary"))
    schema = Schema.infer(frame, features=["amount"], target="label")
    model = make_pipeline(FunctionTransformer(), HistGradientBoostingClassifier(max_iter=3))
    fit_model(model, frame, schema=schema)
    with pytest.raises(ModelError, match="it is not a pipeline of the kit's making"):
        compiled(model, schema=schema, golden=frame.head())


@pytest.mark.parametrize("faulty", ["leaf", "threshold", "row", "level"])
def test_a_path_that_answers_otherwise_is_refused(faulty, monkeypatch):
    """One wrong leaf, threshold or level is enough, for many rows or for one: the comparison refuses the path."""
    frame = streets()
    model, schema = learned(TREES, "binary", frame)
    made, asked, imported = BitTrees.of, scoring_compiled._ask_encoder, treelite.sklearn.import_model

    def spoiled(trees):
        bits = made(trees)
        if faulty == "leaf":
            bits._leaves[1:60] += 1e-6
        else:
            bits._cuts = {column: cuts + 0.5 for column, cuts in bits._cuts.items()}
        return bits

    if faulty == "level":
        monkeypatch.setattr(
            scoring_compiled, "_ask_encoder", lambda *args, **given: asked(*args, **given) * 0
        )
    elif faulty == "row":
        monkeypatch.setattr(
            treelite.sklearn,
            "import_model",
            lambda _: imported(learned(TREES, "binary", frame.head(900))[0][1]),
        )
    else:
        monkeypatch.setattr(BitTrees, "of", spoiled)
    with pytest.raises(ModelError, match="answers differ from the pipeline's"):
        compiled(model, schema=schema, golden=frame.head(16))


def test_a_level_that_only_the_schema_knows_is_answered_as_by_the_pipeline():
    """A level that no row had when the model was fitted is missing to it, and so it is to the path."""
    frame = streets().assign(label=lambda rows: label(rows, "binary"))
    schema = Schema.infer(frame, features=FEATURES, target="label")
    model = build_model(TREES, schema=schema, arguments={"max_iter": 40, "min_samples_leaf": 3})
    fit_model(model, frame[frame["city"] != "Lisbon"], schema=schema)
    columns = schema.coerce(frame)
    path = compiled(model, schema=schema, golden=frame[frame["city"] == "Rome"].head(3))
    assert np.allclose(path.predict(cells(columns)), predictions(model, frame, schema=schema), rtol=1e-9)


def test_whatever_is_strange_inside_a_library_refuses_the_path(monkeypatch):
    """A release that treelite cannot read means no path, and no crash."""
    frame = streets(600)
    model, schema = learned(TREES, "binary", frame)
    monkeypatch.setattr(treelite.sklearn, "import_model", lambda _: 1 / 0)
    with pytest.raises(ModelError, match="has no compiled row path: ZeroDivisionError"):
        compiled(model, schema=schema, golden=frame.head())
