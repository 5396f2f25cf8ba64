"""A prediction that never crashes: who answers each row and why, the compiled path, and the breaker."""

from __future__ import annotations

import threading
import time
from collections import deque
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import treelite
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.ensemble import HistGradientBoostingClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer
from tables import FEATURES, orders, version_of
from test_models import table

from prodkit.data.schema import Schema
from prodkit.errors import ModelError
from prodkit.models.bundle import unpack
from prodkit.models.estimators import build_model, fit_model, predictions
from prodkit.scoring import compiled as scoring_compiled
from prodkit.scoring.bits import BitTrees
from prodkit.scoring.breaker import Breaker, Calls, LateError, Limits, ShedError
from prodkit.scoring.compiled import compiled
from prodkit.scoring.guard import Guard, LoadedModel, Route, guarded
from prodkit.scoring.mutations import mutated
from prodkit.scoring.rows import Reader

ROWS = orders(days=1, seed=9)


class Scripted:
    """A model that answers as it is told, whatever it is asked."""

    def __init__(self, answer):
        self.answer, self.classes_ = answer, np.array([0, 1])

    def predict_proba(self, columns):
        """The shares that it was told, or the error."""
        if isinstance(self.answer, Exception):
            raise self.answer
        return np.column_stack([1 - self.answer, self.answer])


@pytest.fixture(scope="module")
def bundle():
    """Version 2 of the orders."""
    return unpack(version_of(2)[0])


def simple(bundle, rows=ROWS):
    """What the simple rule says."""
    return bundle.fallback.predict(rows, schema=bundle.schema)


def test_a_sound_model_answers_every_row_itself(bundle):
    """Nothing is degraded, no reason is given, and the predictions are the model's."""
    answers = guarded(bundle, ROWS)
    assert np.array_equal(answers.predicted, bundle.predict(ROWS))
    assert not answers.degraded.any()
    assert set(answers.reason) == {""}


def test_a_distrusted_model_is_not_even_asked(bundle):
    """With a reason for distrust the simple rule answers all rows, and each says why."""
    refuse = replace(bundle, model=Scripted(AssertionError("it was asked")))
    answers = guarded(refuse, ROWS, distrust="price is empty")
    assert np.array_equal(answers.predicted, simple(bundle))
    assert answers.degraded.all()
    assert set(answers.reason) == {"price is empty"}


@pytest.mark.parametrize("error", [ValueError("no luck"), MemoryError("full"), KeyError("price")])
def test_whatever_a_model_raises_every_row_is_answered(bundle, error):
    """The simple rule answers, and the error is the reason."""
    answers = guarded(replace(bundle, model=Scripted(error)), ROWS)
    assert np.array_equal(answers.predicted, simple(bundle))
    assert answers.degraded.all()
    assert set(answers.reason) == {f"{type(error).__name__}: {error}"}


def test_an_interrupt_is_not_swallowed(bundle):
    """Whoever stops the process is obeyed."""

    class Stopped(Scripted):
        def predict_proba(self, columns):
            raise KeyboardInterrupt("stop")

    with pytest.raises(KeyboardInterrupt, match="stop"):
        guarded(replace(bundle, model=Stopped(None)), ROWS)


@settings(max_examples=40, deadline=None)
@given(st.lists(st.sampled_from([0.25, 0.75, 0.0, 1.0, np.nan, np.inf, 1.7, -0.5]), min_size=1, max_size=60))
def test_only_the_rows_without_a_usable_answer_are_degraded(bundle, values):
    """The model's probabilities stay; NaN, infinity and what is no probability are replaced, row by row."""
    values, rows = np.array(values), ROWS.head(len(values))
    sound = (values >= 0) & (values <= 1)
    answers = guarded(replace(bundle, model=Scripted(values)), rows)
    assert np.array_equal(answers.degraded, ~sound)
    assert np.array_equal(answers.predicted[sound], values[sound])
    assert np.array_equal(answers.predicted[~sound], simple(bundle, rows)[~sound])
    reasons = {
        1.7: "the model gave no probability that can be used: 1.7",
        0.25: "",
        0.75: "",
        0.0: "",
        1.0: "",
    }
    reasons[-0.5] = "the model gave no probability that can be used: -0.5"
    assert answers.reason.tolist() == [
        reasons.get(value, "the model gave no finite number") for value in values
    ]


@pytest.mark.parametrize("rows", [59, 61, 1])
def test_too_few_or_too_many_answers_are_none(bundle, rows):
    """A model that loses count is not trusted with any row."""
    answers = guarded(replace(bundle, model=Scripted(np.full(rows, 0.5))), ROWS)
    assert len(answers.predicted) == len(answers.degraded) == len(answers.reason) == len(ROWS)
    assert np.array_equal(answers.predicted, simple(bundle))


@pytest.mark.parametrize("answer", [np.nan, np.inf, -np.inf, 1e298])
def test_a_regression_without_a_usable_answer_gets_the_baseline(bundle, answer):
    """The row is degraded, and the model's own array, read-only even, is not written over."""
    values = np.full(len(ROWS), 7.0)
    values[3] = answer
    values.flags.writeable = False

    class Regression:
        def predict(self, columns):
            return values

    schema = replace(bundle.schema, task="regression", classes=())
    fallback = replace(bundle.fallback, overall=np.array([5.0]), by_level={})
    answers = guarded(replace(bundle, model=Regression(), schema=schema, fallback=fallback), ROWS)
    assert np.flatnonzero(answers.degraded).tolist() == [3]
    assert answers.predicted[3] == 5.0
    assert np.isnan(values[3]) or values[3] == answer


class Flat:
    """A model whose probabilities are one column."""

    classes_ = np.array([0, 1])

    def predict_proba(self, columns):
        """Shares (n,)."""
        return np.full(len(columns), 0.5)


class Nameless:
    """A model that does not say what its columns are about."""

    def predict_proba(self, columns):
        """Shares (n, 2)."""
        return np.full((len(columns), 2), 0.5)


@pytest.mark.parametrize(("model", "words"), [(Flat(), "shape"), (Nameless(), "classes_")])
def test_answers_of_another_shape_are_none(bundle, model, words):
    """Every row is answered by the baseline, and the reason says what the model must do."""
    answers = guarded(replace(bundle, model=model), ROWS)
    assert np.array_equal(answers.predicted, simple(bundle))
    (reason,) = set(answers.reason)
    assert words in reason


@pytest.mark.parametrize(
    "path", ["sklearn.linear_model.LinearRegression", "sklearn.ensemble.RandomForestRegressor"]
)
@pytest.mark.parametrize("quick", [True, False])
def test_a_cell_too_large_to_compute_with_degrades_its_row(bundle, path, quick):
    """1e300 as a table, as rows and alone: the same answer everywhere, and the neighbours keep theirs."""
    schema = replace(bundle.schema, target="price", task="regression", classes=())
    schema = replace(schema, features=tuple(each for each in schema.features if each.name != "price"))
    arguments = {"n_estimators": 5} if "Forest" in path else {}
    model = fit_model(build_model(path, schema=schema, arguments=arguments), ROWS, schema=schema)
    fallback = replace(bundle.fallback, overall=np.array([5.0]), by_level={})
    made = replace(bundle, model=model, schema=schema, fallback=fallback, golden=ROWS.head(8))
    loaded = LoadedModel(1, made, quick=quick)
    assert (loaded.path is not None) == quick
    frame = ROWS.assign(weight=ROWS["weight"].where(ROWS.index != ROWS.index[4], 1e300))
    guard = Guard(Route(loaded))
    table, rows = guard.answer(frame), guard.answer(records(frame))
    single = guard.answer_row(records(frame)[4])
    for answers in (table, rows):
        assert np.flatnonzero(answers.degraded).tolist() == [4]
        assert answers.predicted[4] == single.predicted == 5.0
        assert answers.reason[4] == single.reason
        assert answers.reason[4].endswith("; weight is 1e+300")


def test_rows_of_several_classes_are_replaced_whole(bundle):
    """One share that is no number spoils its row, not its neighbours."""

    class Classes:
        classes_ = np.arange(3)

        def predict_proba(self, columns):
            said = np.full((len(columns), 3), [0.2, 0.3, 0.5])
            said[7, 1] = np.nan
            return said

    schema = replace(bundle.schema, task="multiclass", classes=("a", "b", "c"))
    fallback = replace(bundle.fallback, overall=np.array([0.6, 0.3, 0.1]), by_level={})
    answers = guarded(replace(bundle, model=Classes(), schema=schema, fallback=fallback), ROWS)
    assert np.flatnonzero(answers.degraded).tolist() == [7]
    assert answers.predicted[7].tolist() == [0.6, 0.3, 0.1]
    assert answers.predicted[6].tolist() == [0.2, 0.3, 0.5]


cells = st.none() | st.text(max_size=3) | st.floats() | st.integers() | st.booleans() | st.binary(max_size=2)


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_no_table_whatsoever_is_a_crash(bundle, data):
    """Any value in any column, columns missing or doubled, no rows: one finite probability a row."""
    n = data.draw(st.integers(0, 4))
    names = data.draw(st.lists(st.sampled_from([*FEATURES, "other"]), max_size=6))
    columns = [
        pd.Series(data.draw(st.lists(cells, min_size=n, max_size=n)), dtype=object, name=x) for x in names
    ]
    frame = pd.concat(columns, axis=1) if columns else pd.DataFrame(index=range(n))
    answers = guarded(bundle, frame)
    assert len(answers.predicted) == len(answers.degraded) == len(answers.reason) == n
    assert ((answers.predicted >= 0) & (answers.predicted <= 1)).all()
    whole = all(names.count(name) == 1 for name in FEATURES)  # what else is there does not matter
    assert whole or answers.degraded.all()


# The ladder of a service: champion, predecessor, simple rule.


class Moody:
    """A model that answers as another does, unless it is told to do something else first."""

    def __init__(self, model):
        self.model, self.classes_, self.asked, self.mood = model, np.array([0, 1]), 0, None

    def predict_proba(self, columns):
        """The other's shares, after the mood."""
        self.asked += 1
        if self.mood is not None:
            self.mood(columns)
        return self.model.predict_proba(columns)


def raising(columns):
    """A mood that fails."""
    raise ArithmeticError("the model is down")


def records(frame):
    """The rows of a table as JSON would have them."""
    return [
        {name: None if pd.isna(cell) else cell for name, cell in row.items()}
        for row in frame.to_dict("records")
    ]


@pytest.fixture(scope="module")
def older():
    """Version 1 of the orders."""
    return unpack(version_of(1)[0])


@pytest.fixture
def moody(bundle):
    """A champion whose model can be spoiled, with no compiled path around it."""
    limits = Limits(least_calls=4, open_seconds=60.0, slow_seconds=0.2)
    return LoadedModel(2, replace(bundle, model=Moody(bundle.model)), limits=limits)


@pytest.fixture
def predecessor(older):
    """Version 1, sound."""
    return LoadedModel(1, older)


def test_one_row_is_answered_through_the_compiled_path(bundle):
    """The number of the pipeline, with version and source, and nothing degraded."""
    guard = Guard(Route(LoadedModel(2, bundle)))
    expected = bundle.predict(ROWS)
    for row, number in zip(records(ROWS), expected, strict=True):
        answer = guard.answer_row(row)
        assert answer.predicted == pytest.approx(number, abs=1e-12)
        assert (answer.version, answer.source, answer.degraded, answer.reason) == (2, "champion", False, "")


def test_many_rows_are_answered_as_one_table_or_singly(moody, bundle):
    """Rows, a table of them, and each row alone get the same answers."""
    guard = Guard(Route(moody))
    rows = records(ROWS)
    together, table = guard.answer(rows), guard.answer(ROWS)
    assert np.allclose(together.predicted, bundle.predict(ROWS), rtol=1e-12)
    assert np.allclose(table.predicted, together.predicted, rtol=1e-12)
    assert [guard.answer_row(row).predicted for row in rows[:5]] == pytest.approx(together.predicted[:5])


def test_the_predecessor_answers_where_the_champion_does_not(moody, predecessor, older):
    """A champion that is down is stood in for by the version before it, and each row says so."""
    moody.bundle.model.mood = raising
    answers = Guard(Route(moody, predecessor)).answer(records(ROWS))
    assert np.allclose(answers.predicted, older.predict(ROWS), rtol=1e-12)
    assert set(answers.version) == {1}
    assert set(answers.source) == {"predecessor"}
    assert answers.degraded.all()
    assert set(answers.reason) == {"ArithmeticError: the model is down"}


def test_the_simple_rule_answers_where_nobody_else_does(moody, older):
    """With both models down the rule of the champion answers, with the reasons of both."""
    down = LoadedModel(1, replace(older, model=Moody(older.model)))
    moody.bundle.model.mood = down.bundle.model.mood = raising
    answers = Guard(Route(moody, down)).answer(records(ROWS))
    assert np.array_equal(answers.predicted, simple(moody.bundle))
    assert set(answers.version) == {2}
    assert set(answers.source) == {"rule"}
    assert set(answers.reason) == {
        "ArithmeticError: the model is down; version 1: ArithmeticError: the model is down"
    }


def test_one_bad_row_never_fails_its_batch(moody, predecessor, older, bundle):
    """The rows that break the model are found among the others; they alone fall back."""
    prices = set(ROWS["price"].iloc[[3, 30, 31]])

    def breaks(columns):
        if columns["price"].isin(prices).any():
            raise ArithmeticError("a price that breaks the model")

    moody.bundle.model.mood = breaks
    answers = Guard(Route(moody, predecessor)).answer(records(ROWS))
    hit = ROWS["price"].isin(prices).to_numpy()
    assert np.array_equal(answers.source == "predecessor", hit)
    assert np.allclose(answers.predicted[~hit], bundle.predict(ROWS)[~hit])
    assert np.allclose(answers.predicted[hit], older.predict(ROWS)[hit])
    assert (answers.reason == np.where(hit, "ArithmeticError: a price that breaks the model", "")).all()
    assert moody.bundle.model.asked < len(ROWS)


def test_a_row_that_nobody_can_read_is_not_put_to_any_model(moody, predecessor):
    """It gets the answer of the rule for its segment, and the reason names column, rule and value."""
    rows = records(ROWS)
    rows[3] |= {"price": "a lot"}
    del rows[4]["weight"]
    rows[5] = "no row"
    answers = Guard(Route(moody, predecessor)).answer(rows)
    assert np.flatnonzero(answers.degraded).tolist() == [3, 4, 5]
    assert set(answers.source[3:6]) == {"rule"}
    assert answers.reason[3:6].tolist() == [
        "price must be a finite number; found 'a lot'",
        "weight is not in the row",
        "the row must be an object; found 'no row'",
    ]
    assert answers.predicted[3] == simple(moody.bundle)[3]


def test_a_hold_keeps_every_model_from_being_asked(moody, predecessor):
    """With distrust the rule answers all rows, and says why."""
    answers = Guard(Route(moody, predecessor, distrust="on hold: price is empty")).answer(records(ROWS))
    assert moody.bundle.model.asked == 0
    assert set(answers.reason) == {"on hold: price is empty"}
    assert np.array_equal(answers.predicted, simple(moody.bundle))


def test_a_champion_that_could_not_be_loaded_is_stood_in_for(predecessor, older):
    """The predecessor answers all rows, degraded, and says what became of the champion."""
    guard = Guard(Route(None, predecessor, problem="version 2 could not be loaded"))
    answers = guard.answer(records(ROWS))
    assert np.allclose(answers.predicted, older.predict(ROWS))
    assert set(answers.reason) == {"version 2 could not be loaded"}
    assert answers.degraded.all()
    assert guard.answer_row(records(ROWS)[0]).source == "predecessor"


def test_without_any_version_there_is_an_error_that_says_why():
    """Nobody to ask is the one thing that a guard cannot help."""
    with pytest.raises(ModelError, match=r"champion must be loaded .* found the store is empty"):
        Guard(Route(None, problem="the store is empty")).answer_row({})


def test_a_predecessor_of_other_classes_is_not_asked(moody, predecessor):
    """Its shares would mean something else."""
    schema = replace(predecessor.bundle.schema, classes=("kept", "returned"))
    other = LoadedModel(1, replace(predecessor.bundle, schema=schema), quick=False)
    moody.bundle.model.mood = raising
    assert set(Guard(Route(moody, other)).answer(records(ROWS)).source) == {"rule"}


def test_a_model_that_hangs_is_not_waited_for(moody, predecessor, older):
    """At the deadline the next rung answers; hung calls use up their places, and then nothing more is started."""
    hang = threading.Event()
    moody.bundle.model.mood = lambda columns: hang.wait()
    guard = Guard(Route(moody, predecessor), deadline_seconds=0.15, most_calls=2)
    try:
        late = guard.answer(records(ROWS))
        again = guard.answer(records(ROWS))
        shed = guard.answer(records(ROWS))
        assert "model did not answer within 0.15 seconds." in late.reason[0]
        assert set(late.source) | set(again.source) <= {"predecessor", "rule"}
        assert "model was not asked: too many calls have not come back yet." in shed.reason[0]
        assert moody.bundle.model.asked == 2
    finally:
        hang.set()


@pytest.mark.parametrize("mood", ["down", "slow"])
def test_a_model_that_fails_or_dawdles_is_left_in_peace(moody, predecessor, mood):
    """After a few bad calls the breaker keeps further ones away, and the reason says so."""
    moody.bundle.model.mood = raising if mood == "down" else lambda columns: time.sleep(0.21)
    guard = Guard(Route(moody, predecessor))
    for row in records(ROWS)[:4]:
        guard.answer_row(row)
    asked = moody.bundle.model.asked
    answer = guard.answer_row(records(ROWS)[5])
    assert moody.bundle.model.asked == asked
    assert answer.source == "predecessor"
    told = "4 of the last 4 calls " + ("failed" if mood == "down" else "took more than 0.2 seconds")
    assert answer.reason == f"version 2 rests: {told}"


def test_a_bad_row_among_good_ones_does_not_open_the_breaker(moody):
    """A call that answered some of its rows is no failure of the model."""

    def breaks(columns):
        if (columns["price"] == ROWS["price"].iloc[0]).any():
            raise ArithmeticError("that price")

    moody.bundle.model.mood = breaks
    guard = Guard(Route(moody))
    for _ in range(6):
        guard.answer(records(ROWS.head(8)))
    assert moody.breaker.state == "closed"


def test_a_change_of_standing_is_never_seen_half(moody, predecessor, older, bundle):
    """While champion and predecessor are swapped to and fro, each answer is wholly of one of them."""
    one, other = Route(moody, predecessor), Route(predecessor, moody)
    guard, row = Guard(one), records(ROWS)[0]
    numbers = {2: bundle.predict(ROWS.head(1))[0], 1: older.predict(ROWS.head(1))[0]}
    stop = threading.Event()

    def swap():
        while not stop.is_set():
            guard.route = other if guard.route is one else one

    swapper = threading.Thread(target=swap)
    swapper.start()
    try:
        for _ in range(100):
            answer = guard.answer_row(row)
            assert answer.predicted == pytest.approx(numbers[answer.version])
            assert answer.source == "champion"
    finally:
        stop.set()
        swapper.join()


@pytest.fixture(scope="module")
def both(bundle, older):
    """Guards without and with compiled paths."""
    return [
        Guard(Route(*(LoadedModel(*each, quick=quick) for each in ((2, bundle), (1, older)))))
        for quick in (0, 1)
    ]


json = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=4),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from([*FEATURES, "x"]), inner),
    max_leaves=10,
)


@settings(max_examples=80, deadline=None)
@given(st.lists(json | st.fixed_dictionaries(dict.fromkeys(FEATURES, json)), max_size=4), st.booleans())
def test_any_rows_of_any_json_are_answered(both, rows, quick):
    """Whatever is sent: as many finite answers as rows, each with version and source, and a reason if degraded."""
    guard = both[quick]
    answers = guard.answer(rows)
    assert len(answers.predicted) == len(answers.reason) == len(rows)
    assert ((answers.predicted >= 0) & (answers.predicted <= 1)).all()
    assert [bool(reason) for reason in answers.reason] == answers.degraded.tolist()
    assert set(answers.version) <= {1, 2}
    for row, expected in zip(rows, answers.predicted, strict=True):
        assert guard.answer_row(row).predicted == pytest.approx(expected, rel=1e-9)


# The compiled path.

COLUMNS = ["amount", "city", "member", "when", "street"]
ENSEMBLE = "sklearn.ensemble."
TREES, LOGISTIC, RIDGE = "auto", "sklearn.linear_model.LogisticRegression", "sklearn.linear_model.Ridge"
FITTING = {LOGISTIC: {"max_iter": 2000}, TREES: {"max_iter": 25}}


def columns_of(frame):
    """The columns of a table."""
    return [frame[name].to_numpy() for name in frame]


def streets(rows=1200, seed=0):
    """The table of every kind of column, with a column of many levels."""
    frame, draw = table(rows, seed=seed), np.random.default_rng(seed)
    names = np.array([f"street {number}" for number in range(400)], dtype=object)
    return frame.assign(street=names[(draw.random(rows) ** 2 * 400).astype(int)])


def drawn_label(frame, task):
    """What is to be learned, from several columns."""
    lately = frame["when"].dt.month.eq(2).to_numpy() * 1.0
    drive = frame["amount"].fillna(0) + (frame["city"] == "Rome") + lately
    if task == "regression":
        return drive * 100
    return np.digitize(drive, [0.7] if task == "binary" else [0.0, 1.2])


def learned(path, task, frame):
    """A fitted model of the kit and its schema."""
    frame = frame.assign(label=drawn_label(frame, task))
    schema = Schema.infer(frame, features=COLUMNS, target="label", task=task)
    few = {"n_estimators": 9} if ENSEMBLE in path else {}
    model = build_model(path, schema=schema, arguments=FITTING.get(path, few))
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
    assert np.allclose(quick.predict(columns_of(reader.frame(rows))), expected, rtol=1e-9, atol=1e-12)
    assert np.allclose([quick.predict_row(row) for row in rows], expected, rtol=1e-9, atol=1e-12)


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
    frame = streets(600).assign(label=lambda f: drawn_label(f, "binary"))
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
    frame = streets().assign(label=lambda rows: drawn_label(rows, "binary"))
    schema = Schema.infer(frame, features=COLUMNS, target="label")
    model = build_model(TREES, schema=schema, arguments={"max_iter": 40, "min_samples_leaf": 3})
    fit_model(model, frame[frame["city"] != "Lisbon"], schema=schema)
    columns = schema.coerce(frame)
    path = compiled(model, schema=schema, golden=frame[frame["city"] == "Rome"].head(3))
    assert np.allclose(path.predict(columns_of(columns)), predictions(model, frame, schema=schema), rtol=1e-9)


def test_whatever_is_strange_inside_a_library_refuses_the_path(monkeypatch):
    """A release that treelite cannot read means no path, and no crash."""
    frame = streets(600)
    model, schema = learned(TREES, "binary", frame)
    monkeypatch.setattr(treelite.sklearn, "import_model", lambda _: 1 / 0)
    with pytest.raises(ModelError, match="has no compiled row path: ZeroDivisionError"):
        compiled(model, schema=schema, golden=frame.head())


# The breaker, and calls with a deadline.

FEW = Limits(least_calls=4, window_calls=10, window_seconds=30.0, open_seconds=5.0, slow_seconds=0.5)


class Clock:
    """A clock that is moved by hand."""

    def __init__(self):
        self.now = 100.0

    def __call__(self):
        """The hand's position."""
        return self.now


@pytest.fixture
def clock():
    """At rest."""
    return Clock()


@pytest.fixture
def breaker(clock):
    """Closed, with limits that few calls reach."""
    return Breaker(FEW, clock=clock)


def calls(breaker, *outcomes):
    """Make calls that fail (x), are slow (s), or are fine (.)."""
    for outcome in outcomes:
        breaker.record(breaker.permit(), failed=outcome == "x", seconds=0.6 if outcome == "s" else 0.01)


def test_one_call_alone_is_tried_after_the_rest(breaker, clock):
    """While it is open nobody is let through; after that one call, and nobody else until it is back."""
    calls(breaker, "x", "x", "x", "x")
    assert breaker.permit() is None
    clock.now += 5.1
    probe = breaker.permit()
    assert probe is not None
    assert breaker.state == "probing"
    assert [breaker.permit() for _ in range(3)] == [None] * 3
    breaker.record(probe, failed=False, seconds=0.01)
    assert breaker.state == "closed"
    calls(breaker, "x", "x", "x")
    assert breaker.state == "closed", "it begins to count anew"


def test_a_call_from_before_does_not_decide_for_the_probe(breaker, clock):
    """Who began before the breaker opened and ends after counts for nothing."""
    early = [breaker.permit() for _ in range(3)]
    calls(breaker, "x", "x", "x", "x")
    breaker.record(early[0], failed=False, seconds=0.01)
    assert breaker.state == "open"
    clock.now += 5.1
    probe = breaker.permit()
    breaker.record(early[1], failed=True, seconds=0.01)
    assert breaker.state == "probing"
    breaker.record(probe, failed=False, seconds=0.01)
    breaker.record(early[2], failed=True, seconds=0.01)
    assert breaker.state == "closed"


@settings(max_examples=150, deadline=None)
@given(st.lists(st.tuples(st.floats(0, 12), st.booleans(), st.booleans()), max_size=60))
def test_it_is_open_exactly_when_the_window_says_so(events):
    """Against a slow model of it: the shares of the last calls, and a rest with one probe."""
    clock = Clock()
    breaker, window, opened = Breaker(FEW, clock=clock), deque(), None
    for wait, failed, slow in events:
        clock.now += wait
        permit = breaker.permit()
        assert (permit is not None) == (opened is None or clock.now - opened >= FEW.open_seconds)
        if permit is None:
            continue
        breaker.record(permit, failed=failed, seconds=0.6 if slow else 0.1)
        if opened is not None:
            opened = clock.now if failed or slow else None
            continue
        window.append((clock.now, failed, slow))
        kept = [event for event in window if event[0] >= clock.now - FEW.window_seconds][-FEW.window_calls :]
        window = deque(kept)
        bad = max(sum(event[1] for event in kept), sum(event[2] for event in kept))
        if len(kept) >= FEW.least_calls and bad >= 0.5 * len(kept):
            opened = clock.now
            window.clear()


def test_a_call_in_time_gives_its_result_or_its_error():
    """What the function returns is returned, what it raises is raised, an interrupt too."""
    calls = Calls(2)
    assert calls.within(5.0, lambda: 7) == 7
    with pytest.raises(ZeroDivisionError, match="division by zero"):
        calls.within(5.0, lambda: 1 / 0)

    def stop():
        raise KeyboardInterrupt("stop")

    with pytest.raises(KeyboardInterrupt, match="stop"):
        calls.within(5.0, stop)


def test_a_hung_call_is_left_behind_and_keeps_its_place_until_it_ends():
    """Who waits goes on at the deadline; with all places taken the next is refused; a call that ends gives its back."""
    calls, hang = Calls(1), threading.Event()
    with pytest.raises(LateError):
        calls.within(0.01, hang.wait)
    with pytest.raises(ShedError):
        calls.within(1.0, lambda: 7)
    with pytest.raises(LateError):
        calls.within(0.0, lambda: 7)
    hang.set()
    for _ in range(200):
        try:
            assert calls.within(1.0, lambda: 7) == 7
            break
        except ShedError:
            time.sleep(0.01)
    else:
        pytest.fail("the place was never given back")
