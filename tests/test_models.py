"""Models named by parameters: any estimator, any task, any column; and the baseline beside them."""

import pickle
from datetime import timedelta

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.base import clone
from sklearn.dummy import DummyClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import r2_score, roc_auc_score
from sklearn.pipeline import Pipeline
from sklearn.tree import DecisionTreeClassifier

from prodkit.data.schema import Column, Schema
from prodkit.errors import LabelError, ModelError, WindowError
from prodkit.models.estimators import Fallback, build_model, fit_model, predictions, require_sound
from prodkit.models.training import fit_recipe, folds
from prodkit.scoring.compiled import compiled

COLUMNS = ["amount", "city", "member", "when"]
SETTINGS = {
    "auto": {"max_iter": 30},
    "sklearn.linear_model.LogisticRegression": {},
    "sklearn.ensemble.RandomForestClassifier": {"n_estimators": 20, "min_samples_leaf": 5},
    "test_models:Stranger": {"depth": 4},
}
FOREST = "sklearn.ensemble.RandomForestClassifier"
each_model = pytest.mark.parametrize("path", SETTINGS)
# What makes a row positive, if one column alone is to tell it.
DRIVES = {
    "amount": lambda rows: rows["amount"].fillna(3.0) > 0.5,  # a missing amount is a positive
    "city": lambda rows: rows["city"].isin(["Oslo", "Rome"]),
    "member": lambda rows: rows["member"].eq(True).fillna(False),
    "when": lambda rows: rows["when"].dt.hour >= 12,
}


class Stranger:
    """An estimator that has the four methods, and knows nothing else of scikit-learn."""

    def __init__(self, depth=3, answer=None, classes=True):
        self.depth, self.answer, self.classes = depth, answer, classes

    def get_params(self, deep=True):
        """Its arguments."""
        return {"depth": self.depth, "answer": self.answer, "classes": self.classes}

    def set_params(self, **params):
        """Change them."""
        self.__dict__.update(params)

    def fit(self, X, y):
        """Learn, and return nothing."""
        self.tree = DecisionTreeClassifier(max_depth=self.depth, random_state=0).fit(X, y)
        if self.classes:
            self.classes_ = self.tree.classes_

    def predict(self, X):
        """The likeliest class."""
        return self.tree.predict(X)

    def predict_proba(self, X):
        """The shares of its tree, or what it was told to answer of them."""
        shares = self.tree.predict_proba(X)
        return shares if self.answer is None else SPOILT[self.answer](shares)


SPOILT = {
    "one number": lambda shares: shares[:, 1],
    "one row": lambda shares: shares[:1],
    "three columns": lambda shares: np.column_stack([shares, shares[:, 0]]),
    "above one": lambda shares: shares * [1.0, 1.5],
    "infinite": lambda shares: np.where(shares > 0.99, np.inf, shares),
}


def whole_pipeline():
    """A factory of a pipeline, which is used as it is."""
    return Pipeline([("only", DummyClassifier(strategy="prior"))])


def failing_factory():
    """A factory that fails."""
    raise KeyError("no such table")


def estimator_class():
    """A factory that gives a class where an estimator is wanted."""
    return LogisticRegression


def table(rows=1200, seed=0):
    """Columns of every kind, each with missing values."""
    draw = np.random.default_rng(seed)
    frame = pd.DataFrame(
        {
            "amount": draw.normal(size=rows),
            "city": draw.choice(["Bergen", "Lisbon", "Oslo", "Rome"], rows).astype(object),
            "member": pd.array(draw.random(rows) < 0.5, dtype="boolean"),
            "when": pd.Timestamp("2024-01-01") + pd.to_timedelta(draw.integers(0, 60 * 24 * 60, rows), "min"),
        }
    )
    for name in frame.columns:
        frame.loc[draw.random(rows) < 0.05, name] = None
    return frame


def learned(path, frame, *, features=None, task=None, arguments=None):
    """A fitted model and its schema."""
    schema = Schema.infer(frame, features=features or COLUMNS, target="label", task=task)
    given = SETTINGS.get(path, {}) if arguments is None else arguments
    return fit_model(build_model(path, schema=schema, arguments=given), frame, schema=schema), schema


@each_model
@pytest.mark.parametrize("driver", DRIVES)
def test_every_model_learns_from_every_kind_of_column(path, driver):
    """A number, a category, a boolean or a moment: whichever holds the answer, new rows are told apart."""
    frame, later = table(), table(600, seed=1)
    model, schema = learned(path, frame.assign(label=DRIVES[driver](frame).astype(int)))
    truth = DRIVES[driver](later).astype(int)
    said = predictions(model, later, schema=schema)
    assert said.shape == (600,)
    assert ((said >= 0) & (said <= 1)).all()
    known = later[driver].notna().to_numpy() | (driver == "amount" and path in ("auto", FOREST))
    assert roc_auc_score(truth[known], said[known]) > 0.9


@each_model
def test_rows_as_strange_as_can_be_are_predicted(path):
    """Unseen levels, unreadable numbers, nothing at all: finite probabilities, the same whatever is unseen."""
    frame = table()
    model, schema = learned(path, frame.assign(label=DRIVES["city"](frame).astype(int)))
    strange = pd.DataFrame(
        {
            "amount": ["junk", None, float("inf"), b"\xff"],
            "city": ["Atlantis", "Thule", "Atlantis", 7],
            "member": ["maybe", None, 3, "x"],
            "when": ["never", None, 3, pd.NaT],
        },
        dtype=object,
    )
    said = predictions(model, strange, schema=schema)
    assert np.isfinite(said).all()
    assert np.allclose(said, said[0])


@pytest.mark.parametrize("path", ["auto", "sklearn.ensemble.RandomForestClassifier"])
def test_shares_of_several_classes_come_in_the_order_of_the_schema(path):
    """Each row's shares add up to one, and the column of the true class is the largest."""
    frame, later = table(), table(300, seed=1)
    model, schema = learned(path, frame.assign(label=frame["city"].fillna("none")))
    said, truth = predictions(model, later, schema=schema), later["city"].fillna("none")
    assert schema.classes == ("Bergen", "Lisbon", "Oslo", "Rome", "none")
    assert said.shape == (300, 5)
    assert np.allclose(said.sum(axis=1), 1)
    assert np.mean(np.array(schema.classes, dtype=object)[said.argmax(axis=1)] == truth) > 0.99


@pytest.mark.parametrize(
    ("path", "arguments"),
    [
        ("auto", {"max_iter": 80}),
        ("sklearn.linear_model.Ridge", {}),
        ("sklearn.ensemble.RandomForestRegressor", {"n_estimators": 20}),
    ],
)
def test_numbers_are_predicted_in_their_own_unit(path, arguments):
    """A regression gives values, not shares."""
    frame, later = table(), table(300, seed=1)

    def label(rows):
        return 1000 + 50 * rows["amount"].fillna(0.0) + 20 * (rows["city"] == "Rome")

    model, schema = learned(path, frame.assign(label=label(frame)), task="regression", arguments=arguments)
    assert r2_score(label(later), predictions(model, later, schema=schema)) > 0.9


@each_model
def test_a_category_of_a_thousand_levels_is_learned(path):
    """More levels than a histogram tree takes: the frequent ones still tell, the rare and unseen are answered."""
    draw = np.random.default_rng(0)
    code = np.where(draw.random(4000) < 0.6, draw.integers(0, 6, 4000), draw.integers(6, 900, 4000))
    frame = pd.DataFrame({"shop": np.char.add("s", code.astype(str)).astype(object)})
    frame["label"] = np.where(code < 3, 1, np.where(code < 6, 0, draw.integers(0, 2, 4000)))
    model, schema = learned(path, frame, features=["shop"])
    assert 250 < len(schema.features[0].levels) <= 1000
    shops = pd.DataFrame({"shop": ["s0", "s2", "s3", "s5", "s899", "s12345", None]})
    said = predictions(model, shops, schema=schema)
    assert said[:2].min() > 0.7
    assert said[2:4].max() < 0.3
    assert np.isfinite(said).all()


@each_model
def test_a_column_without_a_single_value_is_passed_over(path):
    """An all-missing feature neither fails the fit nor the prediction, and changes nothing when it fills."""
    frame = table().assign(blank=np.nan)
    frame["label"] = DRIVES["city"](frame).astype(int)
    model, schema = learned(path, frame, features=["city", "blank"])
    said = predictions(model, frame.head(50), schema=schema)
    assert np.array_equal(said, predictions(model, frame.head(50).assign(blank=1e6), schema=schema))


@each_model
def test_a_model_that_saw_one_class_only_knows_no_other_or_says_why_not(path):
    """A quiet past without a positive: shares of all classes come out, or an error in the estimator's words."""
    frame = table(200)
    frame["label"] = DRIVES["city"](frame).astype(int)
    schema = Schema.infer(frame, features=COLUMNS, target="label")
    model = build_model(path, schema=schema, arguments=SETTINGS[path])
    if "Logistic" in path:
        with pytest.raises(ModelError, match=r"could not be fitted: ValueError.*at least 2 classes.*found"):
            fit_model(model, frame[frame["label"] == 0], schema=schema)
    else:
        fitted = fit_model(model, frame[frame["label"] == 0], schema=schema)
        assert np.array_equal(predictions(fitted, frame, schema=schema), np.zeros(200))


def test_the_seed_makes_a_model_and_one_in_the_arguments_wins():
    """One seed gives the same predictions each time, another one others."""
    frame = table()
    frame["label"] = (frame["amount"].fillna(0.0) + np.random.default_rng(2).normal(size=1200) > 0).astype(
        int
    )
    schema = Schema.infer(frame, features=COLUMNS, target="label")
    said = {}
    for name, seed, arguments in (("a", 1, {}), ("b", 1, {}), ("c", 2, {}), ("d", 2, {"random_state": 1})):
        given = {"n_estimators": 5, **arguments}
        model = build_model(
            "sklearn.ensemble.RandomForestClassifier", schema=schema, arguments=given, seed=seed
        )
        said[name] = predictions(fit_model(model, frame, schema=schema), frame, schema=schema)
    assert np.array_equal(said["a"], said["b"])
    assert np.array_equal(said["a"], said["d"])
    assert not np.array_equal(said["a"], said["c"])


def test_a_pipeline_of_ones_own_is_used_as_it_is():
    """A factory that returns a whole pipeline gets no encoding around it."""
    frame = table()
    frame["label"] = DRIVES["city"](frame).astype(int)
    model, schema = learned("test_models:whole_pipeline", frame, arguments={})
    assert list(model.named_steps) == ["only"]
    assert np.allclose(predictions(model, frame, schema=schema), frame["label"].mean())


@pytest.mark.parametrize(
    ("path", "arguments", "message"),
    [
        ("RandomForestClassifier", {}, r"must name something that can be imported .*Write it as sklearn"),
        ("sklearn.ensembel.RandomForestClassifier", {}, r"imported \(ModuleNotFoundError: .*ensembel"),
        ("sklearn.ensemble.RandomForrest", {}, r"imported \(AttributeError: .*has no attribute"),
        ("", {}, "must name something that can be imported"),
        ("test_models:", {}, "must name something that can be imported"),
        ("test_models:failing_factory", {}, r"must suit test_models:failing_factory: KeyError"),
        (
            "test_models:estimator_class",
            {},
            "must be, or make, an estimator; found the class LogisticRegression",
        ),
        ("collections.Counter", {}, "must be, or make, an estimator; found Counter without fit, predict"),
        ("sklearn.preprocessing.StandardScaler", {}, "found StandardScaler without predict"),
        ("sklearn.linear_model.Ridge", {}, r"must suit the task binary; found sklearn.linear_model.Ridge"),
        ("sklearn.cluster.KMeans", {}, "must suit the task binary"),
        ("sklearn.svm.LinearSVC", {}, r"must give probabilities \(predict_proba\).*CalibratedClassifierCV"),
        ("auto", {"max_itr": 3}, r"model_args must suit sklearn.ensemble.Hist.*unexpected keyword.*max_itr"),
    ],
)
def test_a_model_that_cannot_be_built_is_refused(path, arguments, message):
    """The error names the parameter, what it must be, what was found, and what to write instead."""
    frame = table(100).assign(label=np.arange(100) % 2)
    schema = Schema.infer(frame, features=COLUMNS, target="label")
    with pytest.raises(ModelError, match=message):
        build_model(path, schema=schema, arguments=arguments)


def test_a_fit_that_fails_says_why():
    """The estimator's own words, a column that holds what cannot be computed with, or a label that nobody knows."""
    frame = table(100).assign(label=np.arange(100) % 2)
    with pytest.raises(ModelError, match=r"learning_rate.*must be a float.*found 100 rows"):
        learned("auto", frame, arguments={"learning_rate": -1.0})
    with pytest.raises(
        ModelError, match=r"could not be fitted.*Column amount holds 1e\+300: correct it, or leave it"
    ):
        learned("sklearn.linear_model.LogisticRegression", frame.assign(amount=1e300 * (np.arange(100) == 7)))
    model, schema = learned("auto", frame)
    with pytest.raises(LabelError, match=r"label must be one of 0, 1; found"):
        fit_model(model, frame.assign(label=np.arange(100) % 3), schema=schema)


def asked(model, frame, schema, truth):
    """Ask for predictions, and refuse those that are none."""
    columns = schema.coerce(frame)
    said = predictions(model, columns, schema=schema, coerced=True)
    require_sound(said, columns, truth=np.asarray(truth), model=model, schema=schema)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            {"answer": "one number"},
            r"must answer 100 rows with an array of shape \(100, 2\); found shape \(100,\)",
        ),
        ({"answer": "one row"}, r"must answer 100 rows .* found shape \(1, 2\)\. It must have a column"),
        ({"answer": "three columns"}, r"must answer 100 rows .* found shape \(100, 3\)"),
        (
            {"answer": "above one"},
            r"must answer with probabilities, from 0 to 1 and one in all; found [\d.]+ for row",
        ),
        (
            {"answer": "infinite"},
            r"must answer with probabilities.*found inf for row .* of 100 such rows\)\. Choose",
        ),
        ({"classes": False}, r".* as classes_; found no classes_\. Set them in fit: self\.classes_ ="),
    ],
)
def test_an_answer_that_is_none_names_the_model_and_what_it_gave(arguments, message):
    """A shape, a probability or a number that cannot be is no crash later on, but an error with the next step."""
    frame = table(100).assign(label=np.arange(100) % 2)
    model, schema = learned("test_models:Stranger", frame, arguments={"depth": 20, **arguments})
    with pytest.raises(ModelError, match=f"model Stranger {message}"):
        asked(model, frame, schema, frame["label"])


def test_numbers_too_large_to_compute_with_are_no_answer():
    """One value of 1e300 in a later row makes a linear model answer as much: the error names model and column."""
    frame, later = table().assign(label=np.arange(1200.0)), table(50).assign(amount=1e300)
    model, schema = learned("sklearn.linear_model.Ridge", frame, task="regression")
    with pytest.raises(
        ModelError, match=r"model Ridge must answer with finite numbers.*Column amount holds 1e\+300"
    ):
        asked(model, later, schema, np.zeros(50))


@pytest.mark.parametrize("path", ["auto", "sklearn.linear_model.SGDClassifier"])
def test_a_class_too_rare_for_early_stopping_is_learned_without(path):
    """Four positives among many rows, or one in a fold's past, are no reason to fail; many rows stop early as ever."""
    rows = 12_000
    frame = pd.DataFrame({"amount": np.random.default_rng(0).normal(size=rows)})
    arguments = {"max_iter": 5} if path == "auto" else {"loss": "log_loss", "early_stopping": True}
    for positives, stops in ((1, False), (4, False), (2000, arguments.get("early_stopping", "auto"))):
        some = frame.assign(label=(np.arange(rows) < positives).astype(int))
        model, schema = learned(path, some, features=["amount"], arguments=arguments)
        assert model[-1].early_stopping == stops
        assert np.isfinite(predictions(model, some, schema=schema)).all()


@pytest.mark.parametrize("path", ["auto", "sklearn.linear_model.LogisticRegression"])
def test_class_weights_are_given_by_the_names_of_the_classes(path):
    """A weight raises the share of its class, whether the table calls it `yes` or 1; other names are refused."""
    frame = table()
    yes = DRIVES["city"](frame) & (np.random.default_rng(0).random(1200) < 0.5)
    means = []
    for weight in (None, "balanced", {"yes": 9, "no": 1}):
        arguments = {**SETTINGS[path], "class_weight": weight}
        model, schema = learned(path, frame.assign(label=np.where(yes, "yes", "no")), arguments=arguments)
        means.append(predictions(model, frame, schema=schema).mean())
    assert means[0] == pytest.approx(yes.mean(), abs=0.05)
    assert means[0] < means[1] < means[2]
    with pytest.raises(
        ModelError, match=r"class_weight must name classes of the target; found maybe\. There are: no, "
    ):
        learned(
            path, frame.assign(label=np.where(yes, "yes", "no")), arguments={"class_weight": {"maybe": 2}}
        )


def test_a_wide_table_gets_fewer_bins():
    """The automatic model of 300 columns is a third of the work; an argument of one's own wins."""
    schema = Schema(tuple(Column(f"x{i}", "numeric") for i in range(300)), "y", "binary", (0, 1))
    assert build_model("auto", schema=schema)[-1].max_bins == 63
    assert build_model("auto", schema=schema, arguments={"max_bins": 200})[-1].max_bins == 200


def baseline_of(frame, **given):
    """The baseline, and the schema it was learned with."""
    schema = Schema.infer(frame, features=["city", "colour"], target="label", **given)
    return Fallback.fit(frame, schema=schema), schema


def coloured():
    """Two categories: the city tells the label, the colour does not."""
    draw = np.random.default_rng(0)
    city = np.repeat(["Bergen", "Oslo", "Rome"], [500, 500, 20])
    frame = pd.DataFrame({"city": city, "colour": draw.choice(["red", "blue"], 1020)})
    return frame.assign(label=(draw.random(1020) < np.where(city == "Oslo", 0.8, 0.0)).astype(int))


def test_the_baseline_is_the_usual_outcome_of_the_segment_that_tells_most():
    """It answers by the level of that column, by all rows where a level is rare, unseen or missing, and never by 0."""
    frame = coloured()
    baseline, schema = baseline_of(frame)
    asked = pd.DataFrame({"city": ["Oslo", "Bergen", "Rome", "Atlantis", None]})
    oslo, bergen, *others = baseline.predict(asked, schema=schema)
    assert baseline.column == "city"
    assert oslo == pytest.approx(frame.groupby("city")["label"].mean()["Oslo"], abs=0.01)
    assert 0 < bergen < 0.01
    whole = pytest.approx(frame["label"].mean(), abs=0.01)
    assert others == [whole] * 3
    for without in (frame[["colour"]], frame[["city", "city"]]):
        assert baseline.predict(without, schema=schema).tolist() == [whole] * 1020


def test_the_baseline_answers_in_the_shape_of_the_task():
    """Shares of every class, or the median; and without a category one answer for all."""
    frame = coloured()
    several, schema = baseline_of(frame.assign(label=frame["city"]))
    said = several.predict(frame, schema=schema)
    assert said.shape == (1020, 3)
    assert np.allclose(said.sum(axis=1), 1)
    assert (said > 0).all()
    numbers = frame.assign(label=np.where(frame["city"] == "Oslo", 7.5, 1.25))
    middle, schema = baseline_of(numbers, task="regression")
    assert middle.predict(frame.head(501), schema=schema)[[0, 500]].tolist() == [1.25, 7.5]
    plain = frame.assign(city=np.arange(1020.0), colour=1.0)
    single, schema = baseline_of(plain)
    assert single.column == ""
    assert np.allclose(single.predict(plain, schema=schema), frame["label"].mean(), atol=0.01)


cells = st.none() | st.text(max_size=3) | st.floats() | st.booleans() | st.binary(max_size=2) | st.dates()


@settings(max_examples=60, deadline=None)
@given(st.lists(cells, min_size=1, max_size=6), st.booleans())
def test_the_baseline_never_fails_on_a_value(values, there):
    """Whatever stands in its column, or if the column is gone, each row gets a probability."""
    baseline, schema = baseline_of(coloured())
    frame = pd.DataFrame({"city" if there else "town": pd.Series(values, dtype=object)})
    said = baseline.predict(frame, schema=schema)
    assert said.shape == (len(values),)
    assert ((said > 0) & (said < 1)).all()


days_of_rows = st.lists(st.integers(0, 60), min_size=1, max_size=120)


@settings(max_examples=150, deadline=None)
@given(days_of_rows, st.integers(2, 6), st.integers(0, 5 * 24), st.randoms(use_true_random=False))
def test_folds_learn_from_the_past_and_are_tested_on_the_future(days, n, gap, chance):
    """Whatever days hold rows, in any order: labels were known in time, whole days, each day tested once."""
    delay = timedelta(hours=gap)
    hours = [24 * day + chance.randrange(24) for day in days]
    times = pd.Series(pd.Timestamp("2024-01-01") + pd.to_timedelta(hours, unit="h"))
    try:
        found = list(folds(times, n=n, gap=delay))
    except WindowError:
        assert len(set(days)) < n + np.ceil(delay / timedelta(days=1)) + 1
        return
    assert len(found) == n
    tested = [set(times.iloc[test].dt.date) for _, test in found]
    for (train, test), dates in zip(found, tested, strict=True):
        assert len(train)
        assert len(test)
        assert times.iloc[train].max() + delay < times.iloc[test].min()
        assert len(test) == times.dt.date.isin(dates).sum()
    assert sum(map(len, tested)) == len(set().union(*tested))
    assert [max(dates) for dates in tested] == sorted(max(dates) for dates in tested)
    assert max(tested[-1]) == times.max().date()


def test_an_open_end_in_the_far_future_is_answered_like_any_other_date():
    """A due date of 9999-12-31 neither stops a model nor changes the answers to the rows beside it."""
    due = pd.Series(pd.date_range("2024-01-01", periods=200).as_unit("us"))
    rows = pd.DataFrame({"due": due, "y": np.arange(200) % 2})
    schema = Schema.infer(rows, features=["due"], target="y", task=None)
    model = fit_model(
        build_model("sklearn.linear_model.LogisticRegression", schema=schema), rows, schema=schema
    )
    before = predictions(model, rows, schema=schema)
    rows.loc[7, "due"] = pd.Timestamp(9999, 12, 31).as_unit("us")
    after = predictions(model, rows, schema=schema)
    assert np.isfinite(after).all()
    assert np.array_equal(np.delete(before, 7), np.delete(after, 7))


@pytest.mark.parametrize("task", ["binary", "multiclass", "regression"])
def test_recipes_learn_from_all_rows_the_recent_ones_or_average_both(task):
    """`mean` answers the mean of both, as one model that pickles, compiles and learns anew; early on all are one."""
    frame = table(600)
    labels = {
        "binary": frame["amount"].gt(0).astype(int),
        "multiclass": frame["city"].fillna("none"),
        "regression": frame["amount"].fillna(0.0) * 2.5,
    }
    frame = frame.assign(label=labels[task])
    if task == "multiclass":  # the recent rows have no Oslo: no chance of it is given to what was not seen
        frame = frame[(frame["label"] != "Oslo") | (frame.index < 300)]
    schema = Schema.infer(frame, features=COLUMNS, target="label", task=task)
    model = build_model("auto", schema=schema, arguments={"max_iter": 10})
    every = {"schema": schema, "first_rows": 200}
    by_all, recent, mean = (fit_recipe(name, model, frame, **every) for name in ("all", "recent", "mean"))
    said = [predictions(each, frame, schema=schema) for each in (by_all, recent, mean)]
    assert not np.allclose(said[0], said[1])
    assert np.allclose(said[2], (said[0] + said[1]) / 2)
    again = pickle.loads(pickle.dumps(mean))
    assert np.array_equal(predictions(again, frame, schema=schema), said[2])
    compiled(mean, schema=schema, golden=frame[schema.names].head(16))
    anew = fit_model(clone(mean), frame, schema=schema)
    assert np.allclose(predictions(anew, frame, schema=schema), said[0])
    for first_rows in (0, len(frame)):
        early = fit_recipe("recent", model, frame, schema=schema, first_rows=first_rows)
        assert np.array_equal(predictions(early, frame, schema=schema), said[0])


def test_a_model_that_cannot_be_copied_says_so():
    """A recipe needs a fresh copy; the error names the model and what copies it."""
    frame = table(50).assign(label=np.arange(50) % 7.0)
    schema = Schema.infer(frame, features=COLUMNS, target="label", task="regression")
    with pytest.raises(ModelError, match=r"cannot be fitted again: TypeError.*sklearn\.base\.clone"):
        fit_recipe("all", object(), frame, schema=schema)
