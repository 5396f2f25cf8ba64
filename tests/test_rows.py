"""One row read cell by cell: the same as the whole table would be, and whatever is sent."""

from __future__ import annotations

import math
from datetime import UTC, datetime

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from prodkit.data.schema import Column, Schema
from prodkit.scoring.rows import Reader

SCHEMA = Schema(
    features=(
        Column("amount", "numeric"),
        Column("member", "boolean"),
        Column("city", "categorical", levels=("Oslo", "Rome")),
        Column("when", "datetime"),
    ),
    target="label",
    task="binary",
    classes=(0, 1),
)
NAMES = SCHEMA.names
READER = Reader(SCHEMA)
whole = {"amount": 1.5, "member": True, "city": "Rome", "when": "2024-05-01T12:30:00"}

moment_texts = st.datetimes(datetime(1900, 1, 1), datetime(2200, 1, 1)).map(
    datetime.isoformat
) | st.sampled_from(
    [
        "2024-05-01",
        "2024-05-01T12:30Z",
        "2024-05-01 12:30:00.123+05:30",
        "2024-13-01",
        "20240501",
        "2024-W05-1",
        "12:30",
    ]
)
plain_cells = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(max_size=5)
    | st.sampled_from(
        ["1e3", " 7 ", "nan", "NaN", "", "  ", "1_0", "inf", "TRUE", "false", "0", 2**53 + 1, 10**400]
    )
    | moment_texts
)


def same(one, other):
    """Whether two cells are the same, missing ones among them."""
    if pd.isna(one) or pd.isna(other):
        return bool(pd.isna(one) and pd.isna(other))
    return one == other


@settings(max_examples=300, deadline=None)
@given(st.fixed_dictionaries(dict.fromkeys(NAMES, plain_cells)))
def test_a_row_is_read_as_the_table_would_be(row):
    """Whatever plain cells it holds, each value is the one that the schema reads from a column with that cell."""
    frame = pd.DataFrame({name: pd.Series([cell], dtype=object) for name, cell in row.items()})
    expected, malformed = SCHEMA.coerce(frame).iloc[0], SCHEMA.malformed(frame)
    values, fault = READER.read(row)
    assert all(same(value, expected[name]) for name, value in zip(NAMES, values, strict=True)), (
        values,
        expected,
    )
    wrong = [name for name in NAMES if malformed[name]]
    assert fault.startswith(wrong[0]) if wrong else fault == ""


json = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from([*NAMES, "x"]), inner, max_size=4)
    ),
    max_leaves=12,
)


@settings(max_examples=200, deadline=None)
@given(json)
def test_anything_at_all_is_read(row):
    """Of any JSON value come as many values as there are features, of their types, and a fault if it is no row."""
    values, fault = READER.read(row)
    assert [type(value) for value in values[:2]] == [float, float]
    assert not any(math.isinf(value) for value in values[:2])
    assert values[2] is None or isinstance(values[2], str)
    assert values[3] is None or isinstance(values[3], datetime)
    assert fault or all(name in row for name in NAMES)


@pytest.mark.parametrize(
    ("changed", "fault"),
    [
        ({"amount": "a lot"}, "amount must be a finite number; found 'a lot'"),
        ({"amount": float("inf")}, "amount must be a finite number; found inf"),
        ({"amount": [1]}, "amount must be a finite number; found [1]"),
        ({"member": 2}, "member must be true or false; found 2"),
        ({"city": {"name": "Rome"}}, "city must be text or a number; found {'name': 'Rome'}"),
        ({"when": "yesterday"}, "when must be an ISO date or time; found 'yesterday'"),
        ({"when": 20240501}, "when must be an ISO date or time; found 20240501"),
        ({"amount": "x" * 500}, f"amount must be a finite number; found '{'x' * 59}..."),
    ],
)
def test_the_first_wrong_cell_is_named(changed, fault):
    """The fault gives the column, the rule and what was found, cut where it is long; the cell is missing."""
    values, found = READER.read(whole | changed)
    assert found == fault
    assert pd.isna(values[NAMES.index(next(iter(changed)))])


@pytest.mark.parametrize("name", NAMES)
def test_a_feature_that_is_not_sent_is_a_fault(name):
    """Null says that there is no value; silence says that the sender knows no such column."""
    row = {key: cell for key, cell in whole.items() if key != name}
    assert READER.read(row)[1] == f"{name} is not in the row"
    assert READER.read(row | {name: None})[1] == ""


@pytest.mark.parametrize("name", ["amount", "city", "when"])
@pytest.mark.parametrize("blank", [None, "", "  ", "nan", " nan ", float("nan")])
def test_what_stands_for_nothing_is_missing_and_no_fault(name, blank):
    """Null, blank text and the text nan are missing values in columns of any kind."""
    values, fault = READER.read(whole | {name: blank})
    assert pd.isna(values[NAMES.index(name)])
    assert fault == ""


@pytest.mark.parametrize("row", [None, [], "row", 3, [["amount", 1]]])
def test_what_is_no_row_is_a_fault(row):
    """A row is a mapping; anything else has no values."""
    values, fault = READER.read(row)
    assert all(pd.isna(value) for value in values)
    assert fault.startswith("the row must be an object; found ")


def test_columns_that_the_schema_does_not_know_are_passed_over():
    """An id, or a column for later, changes nothing."""
    assert READER.read(whole | {"id": 7, "x": {}}) == READER.read(whole)


def test_moments_are_naive_utc():
    """A moment with a zone is converted, whether it comes as text or as an object."""
    expected = datetime(2024, 5, 1, 10, 30)
    for cell in (
        "2024-05-01T12:30:00+02:00",
        datetime(2024, 5, 1, 10, 30, tzinfo=UTC),
        pd.Timestamp(expected),
    ):
        assert READER.read(whole | {"when": cell})[0][3] == expected


def test_the_table_of_rows_is_what_the_schema_makes_of_them():
    """Rows put together have the types that a model takes, also where they are none."""
    rows = [whole, dict.fromkeys(NAMES), whole | {"city": "Oslo", "amount": 7}]
    table = READER.frame([READER.read(row)[0] for row in rows])
    expected = SCHEMA.coerce(pd.DataFrame(rows, dtype=object))
    pd.testing.assert_frame_equal(table, expected)
    assert READER.frame([]).shape == (0, 4)
    assert np.isnan(table["city"][1])
