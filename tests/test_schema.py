"""What training saw is frozen, and nothing is guessed again."""

from __future__ import annotations

import json
from datetime import date, datetime
from decimal import Decimal

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.preprocessing import OneHotEncoder, OrdinalEncoder

from prodkit.data.cells import MISSING, is_missing
from prodkit.data.schema import MAX_LEVELS, Column, Schema
from prodkit.errors import LabelError, ParameterError, SchemaError
from prodkit.params import TrainParams


def objects(*cells: object) -> pd.Series:
    """A column of cells as they are."""
    return pd.Series(list(cells), dtype=object)


def kind_of(values: pd.Series) -> str:
    """The kind that training freezes for a column."""
    frame = pd.DataFrame({"x": values, "y": [index % 2 for index in range(len(values))]})
    return Schema.infer(frame, features=["x"], target="y").column("x").kind


def frozen(kind: str) -> Schema:
    """A schema of one column, x."""
    levels = ("a", "b") if kind == "categorical" else None
    return Schema((Column("x", kind, levels),), "y", "binary", (0, 1))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("values", "kind"),
    [
        (pd.Series([1, 2]), "numeric"),
        (pd.Series([1.5, None]), "numeric"),
        (pd.array([1, None], dtype="Int64"), "numeric"),
        (pd.to_timedelta([1, 2], unit="h"), "numeric"),
        (objects(Decimal("1.5"), None), "numeric"),
        (objects("1", " 2.5", "1e3", "", None), "numeric"),
        (objects(None, None), "numeric"),
        (pd.Series([True, False]), "boolean"),
        (pd.array([True, None], dtype="boolean"), "boolean"),
        (objects(True, None, False), "boolean"),
        (pd.date_range("2020", periods=2), "datetime"),
        (pd.date_range("2020", periods=2, tz="Europe/Paris"), "datetime"),
        (objects(date(2020, 1, 1), datetime(2020, 1, 2, 3)), "datetime"),
        (objects("2020-01-01", "2020-01-02 03:00", None), "datetime"),
        (objects("a", "1"), "categorical"),
        (objects(1, "a", b"c", Decimal(2)), "categorical"),
        (objects(True, "false", 1, 0.0), "boolean"),
        (objects("TRUE", "false", None), "boolean"),
        (objects("007", "12", None), "categorical"),
        (objects("01E3", "2E5"), "categorical"),
        (objects("9999-12-31", "2020-01-01", "NA"), "datetime"),
        (objects("2020-01-01", "soon"), "categorical"),
        (pd.Categorical([1, 2]), "categorical"),
        (pd.Categorical([True, False]), "categorical"),
    ],
)
def test_kind(values: object, kind: str) -> None:
    """A column's kind follows its dtype, and for text and objects what all of its cells can be read as."""
    assert kind_of(pd.Series(values)) == kind  # type: ignore[call-overload]


def test_levels_are_alike() -> None:
    """1, 1.0 and Decimal 1 are one level, True is another, bytes are text, and blanks are missing."""
    frame = pd.DataFrame({"x": objects(1, 1.0, Decimal("1.00"), True, b"a", "a", " ", None), "y": [0, 1] * 4})
    schema = Schema.infer(frame, features=["x"], target="y")
    assert schema.column("x").levels == ("1", "True", "a")
    assert schema.coerce(frame)["x"].fillna("?").tolist() == ["1", "1", "1", "True", "a", "a", "?", "?"]


def test_one_list_says_what_is_missing() -> None:
    """The list that a project has if it names none is the one that cells are read by."""
    assert frozenset(TrainParams().missing) == MISSING == frozenset(frozen("numeric").missing)


def test_levels_are_limited() -> None:
    """Of more than a thousand levels the most frequent are kept, and ties fall to the first names."""
    names = [f"n{number:04}" for number in range(MAX_LEVELS + 5)]
    frame = pd.DataFrame({"x": [*names, "n1004"], "y": [number % 2 for number in range(MAX_LEVELS + 6)]})
    levels = Schema.infer(frame, features=["x"], target="y").column("x").levels
    assert levels is not None
    assert levels == (*names[: MAX_LEVELS - 1], "n1004")


def test_integer() -> None:
    """A column knows whether it held whole numbers only."""
    frame = pd.DataFrame({"a": [1.0, None, 3.0], "b": [1.5, 2, 3], "y": [0, 1, 1]})
    schema = Schema.infer(frame, features=["a", "b"], target="y")
    assert [column.integer for column in schema.features] == [True, False]


@pytest.mark.parametrize(
    ("kind", "cells", "expected", "lost"),
    [
        ("numeric", ["1", "x", None, True, float("inf"), "1_0"], [1, None, None, 1, None, None], 3),
        ("boolean", [True, "false", "TRUE", 0, "1", 2, "maybe"], [1, 0, 1, 0, 1, None, None], 2),
        ("categorical", ["a", "new", None, 2.0], ["a", "new", None, "2"], 0),
        ("datetime", ["2020-01-01", 7, "x", None], [pd.Timestamp("2020-01-01"), None, None, None], 2),
    ],
)
def test_coerce_and_malformed(kind: str, cells: list[object], expected: list[object], lost: int) -> None:
    """A cell that cannot be read as its frozen kind becomes missing and is counted; a null is not counted."""
    values = objects(*cells)
    schema, frame = frozen(kind), pd.DataFrame({"x": values})
    found = schema.coerce(frame)["x"]
    assert [None if pd.isna(cell) else cell for cell in found] == expected
    assert schema.malformed(frame) == {"x": lost}


@pytest.mark.parametrize(
    ("kind", "dtype"),
    [
        ("numeric", "float64"),
        ("boolean", "float64"),
        ("categorical", "object"),
        ("datetime", "datetime64[us]"),
    ],
)
@pytest.mark.parametrize(
    "values",
    [
        pd.Series([1, 0, 1]),
        pd.Series([True, False, True]),
        pd.Series(["1", None, "2020-01-01"]),
        pd.Series([None, None, None]),
        pd.Series([1.5, np.nan, np.inf]),
        pd.date_range("2020", periods=3, tz="UTC").to_series(index=range(3)),  # type: ignore[arg-type]
        pd.Series(pd.Categorical([1, 2, 1])),
        pd.Series([], dtype=object),
    ],
)
def test_coerced_dtypes(kind: str, dtype: str, values: pd.Series) -> None:
    """Whatever a window holds, its columns come out with the types frozen at training."""
    assert str(frozen(kind).coerce(pd.DataFrame({"x": values}))["x"].dtype) == dtype


def test_coerce_takes_the_features_in_order() -> None:
    """Other columns are dropped, the order is that of training, and the index is kept even if it repeats."""
    frame = pd.DataFrame({"b": ["u", "v"], "z": [0, 0], "a": [1, 2], "y": [0, 1]})
    schema = Schema.infer(frame, features=["a", "b"], target="y")
    frame.index = pd.Index([7, 7])
    coerced = schema.coerce(frame)
    assert coerced.columns.tolist() == schema.names == ["a", "b"]
    assert coerced.index.tolist() == [7, 7]


def test_zone_becomes_utc() -> None:
    """A time with a zone is converted to UTC, in a column of one zone and of many."""
    schema = frozen("datetime")
    zoned = pd.Series(pd.to_datetime(["2020-01-01 12:00"]).tz_localize("America/New_York"))
    texts = objects("2020-01-01T12:00:00-05:00", "2020-01-01T17:00Z")
    for values in (zoned, texts):
        found = schema.coerce(pd.DataFrame({"x": values}))["x"]
        assert (found == pd.Timestamp("2020-01-01 17:00")).all()


def test_encoders_take_it() -> None:
    """What coerce gives for a categorical goes through scikit-learn's encoders, unseen level included."""
    schema = frozen("categorical")
    train = schema.coerce(pd.DataFrame({"x": ["a", "b", None]}))
    new = schema.coerce(pd.DataFrame({"x": ["b", "zzz", None]}))
    ordinal = OrdinalEncoder(handle_unknown="use_encoded_value", unknown_value=-1).fit(train)
    assert ordinal.transform(new)[:2, 0].tolist() == [1, -1]
    assert OneHotEncoder(handle_unknown="ignore").fit(train).transform(new).toarray().sum() == 2


@pytest.mark.parametrize(
    ("labels", "task", "classes"),
    [
        ([True, False, None], "binary", (False, True)),
        ([1.0, 0.0, None], "binary", (0, 1)),
        (["yes", "no"], "binary", ("no", "yes")),
        ([2.5, 1.5], "binary", (1.5, 2.5)),
        ([3, 1, 2], "multiclass", (1, 2, 3)),
        (["b", "a", "c"], "multiclass", ("a", "b", "c")),
        (["b", 1, 2.0], "multiclass", ("1", "2", "b")),
        (["1", False, 0], "binary", (False, True)),
        (["true", False, None], "binary", (False, True)),
        (["1", 0, 2.0], "multiclass", (0, 1, 2)),
        (["10", "9", "8"], "multiclass", ("10", "8", "9")),
        ([0.5, 1.0, 2.0], "regression", ()),
        (list(range(21)), "regression", ()),
        ([str(number) for number in range(21)], "regression", ()),
        ([Decimal("1.5"), Decimal(2), Decimal(3)], "regression", ()),
    ],
)
def test_task_is_inferred(labels: list[object], task: str, classes: tuple[object, ...]) -> None:
    """Two values are binary; text and few whole numbers are classes; other numbers are a quantity."""
    frame = pd.DataFrame({"x": range(len(labels)), "y": objects(*labels)})
    schema = Schema.infer(frame, features=["x"], target="y")
    assert (schema.task, schema.classes) == (task, classes)
    assert [type(label) for label in schema.classes] == [type(label) for label in classes]


@pytest.mark.parametrize(
    ("labels", "task", "message"),
    [
        ([1, 1, None], None, "late must hold at least two classes; found 1"),
        ([None, None], None, "late must hold at least two classes; found no label at all"),
        ([1, 2, 3], "binary", "late must hold exactly two classes for the task binary; found 3 distinct"),
        (["a", "b"], "regression", "late must hold finite numbers for the task regression"),
        ([True, False], "regression", "late must hold finite numbers for the task regression"),
        ([0.5, 1.5, 2.5], "multiclass", "late must hold no fractions for the task multiclass"),
        ([f"name {n}" for n in range(MAX_LEVELS + 1)], None, "late must hold at most 1000 classes"),
    ],
)
def test_labels_contradict_the_task(labels: list[object], task: str | None, message: str) -> None:
    """Labels that do not suit the task, or are all of one class, are refused by name."""
    frame = pd.DataFrame({"x": range(len(labels)), "late": objects(*labels)})
    with pytest.raises(LabelError, match=message):
        Schema.infer(frame, features=["x"], target="late", task=task)  # type: ignore[arg-type]


def test_task_given() -> None:
    """A task that is given and fits is taken: two classes may be multiclass, few numbers a regression."""
    frame = pd.DataFrame({"x": range(4), "y": [0, 1, 0, 1]})
    given = [
        Schema.infer(frame, features=["x"], target="y", task=task) for task in ("multiclass", "regression")
    ]
    assert [schema.classes for schema in given] == [(0, 1), ()]


def test_encode() -> None:
    """Labels become class numbers in sorted order, however the same label is written."""
    frame = pd.DataFrame({"x": range(2), "y": [True, False]})
    schema = Schema.infer(frame, features=["x"], target="y")
    codes = schema.encode(objects(True, 1, 1.0, np.True_, "True", "TRUE", "1", False, 0, "false", "0"))
    assert codes.tolist() == [1] * 7 + [0] * 4
    assert codes.dtype == "int64"
    number = Schema(schema.features, "y", "regression")
    assert number.encode(pd.array([1, 2], dtype="Int64")).tolist() == [1.0, 2.0]
    assert number.encode(["1.5", 2]).dtype == "float64"


@pytest.mark.parametrize("task", ["binary", "regression"])
@pytest.mark.parametrize("wrong", ["maybe", None, float("inf")])
def test_encode_refuses(task: str, wrong: object) -> None:
    """A label that is missing, unseen or not finite is an error that shows it and counts such values."""
    schema = Schema((), "late", task, (0, 1) if task == "binary" else ())  # type: ignore[arg-type]
    with pytest.raises(LabelError, match=rf"late must be .*found {wrong!r} \(2 such values\)"):
        schema.encode(objects(0, wrong, 1, wrong))


def test_missing_columns_name_the_nearest() -> None:
    """A missing feature or target is an error that names the nearest column."""
    frame = pd.DataFrame({"temp": [1, 2], "late": [0, 1]})
    schema = Schema.infer(frame, features=["temp"], target="late")
    with pytest.raises(SchemaError, match=r"temp must be a column of the table\. Did you mean tempe"):
        schema.coerce(frame.rename(columns={"temp": "tempe"}))
    with pytest.raises(SchemaError, match=r"lat must be a column.*Did you mean late"):
        Schema.infer(frame, features=["temp"], target="lat")
    with pytest.raises(SchemaError, match=r"dewp must be a column.*There are: temp"):
        schema.column("dewp")


def test_unusable_features() -> None:
    """No features, a target among them, or a column that occurs twice are refused."""
    frame = pd.DataFrame({"x": [1, 2], "y": [0, 1]})
    with pytest.raises(ParameterError, match="features must name at least one column"):
        Schema.infer(frame, features=[], target="y")
    with pytest.raises(SchemaError, match="y must not be both target and feature"):
        Schema.infer(frame, features=["x", "y"], target="y")
    with pytest.raises(SchemaError, match="x must occur once; found 2 columns"):
        Schema.infer(pd.concat([frame, frame[["x"]]], axis=1), features=["x"], target="y")


def test_a_cell_of_several_values_is_no_feature() -> None:
    """A list in a cell is an error that names the column, and says what to do."""
    frame = pd.DataFrame({"tags": objects(["a"], {"b": 1}), "y": [0, 1]})
    with pytest.raises(
        SchemaError, match=r"tags must hold one value in each cell; .* Leave it out of `features`"
    ):
        Schema.infer(frame, features=["tags"], target="y")


cells = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.floats(),
    st.text(max_size=5),
    st.binary(max_size=3),
    st.decimals().filter(lambda number: not number.is_snan()),  # pandas itself stumbles over those
    st.dates(),
    st.datetimes(),
)


@settings(max_examples=100, deadline=None)
@given(st.lists(st.tuples(cells, cells), min_size=2, max_size=12))
def test_round_trip_and_no_crash(rows: list[tuple[object, object]]) -> None:
    """Any mix of cells is frozen, coerced without a warning, and survives the trip through JSON."""
    frame = pd.DataFrame({"x": objects(*(row[0] for row in rows)), "z": objects(*(row[1] for row in rows))})
    frame["y"] = [index % 2 for index in range(len(rows))]
    schema = Schema.infer(frame, features=["x", "z"], target="y")
    assert Schema.from_dict(json.loads(json.dumps(schema.to_dict()))) == schema
    coerced, lost = schema.coerce(frame), schema.malformed(frame)
    for column in schema.features:
        if column.kind == "categorical":
            assert set(coerced[column.name].dropna()) <= set(column.levels or ())
        elif frame[column.name].map(lambda cell: not isinstance(cell, float) or np.isfinite(cell)).all():
            assert lost[column.name] == 0, "what decided the kind can be read as it"


@settings(max_examples=60, deadline=None)
@given(st.lists(st.one_of(st.booleans(), st.integers(), st.text(max_size=3), st.floats()), min_size=3))
def test_encode_inverts_classes(given_labels: list[object]) -> None:
    """Whenever a schema is made, it encodes the very labels that it was made from."""
    frame = pd.DataFrame({"x": range(len(given_labels)), "y": objects(*given_labels)})
    try:
        schema = Schema.infer(frame, features=["x"], target="y")
    except LabelError:
        return
    known = frame["y"][~frame["y"].map(is_missing)]
    codes = schema.encode(known)
    if schema.task != "regression":
        assert set(codes) == set(range(len(schema.classes)))
