"""Summaries say what the rows say, in any order and in any number of parts."""

from __future__ import annotations

import json
import math
import pickle
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from prodkit.data.schema import Column, Schema
from prodkit.drift.counts import column_profile, profile
from prodkit.drift.profiles import Profile
from prodkit.errors import DataError, SchemaError

SCHEMA = Schema(
    (
        Column("size", "numeric"),
        Column("city", "categorical", levels=("Oslo", "Rome")),
        Column("open", "boolean"),
        Column("since", "datetime"),
    ),
    "y",
    "binary",
    (0, 1),
)
ROWS = st.lists(
    st.tuples(
        st.one_of(st.none(), st.floats(-1e6, 1e6), st.sampled_from([0.0, 1.5])),
        st.sampled_from(["Oslo", "Rome", "Bonn", None]),
        st.sampled_from([True, False, None]),
        st.one_of(st.none(), st.datetimes(pd.Timestamp("1990-01-01"), pd.Timestamp("2030-01-01"))),
        st.integers(-3, 3),
    ),
    max_size=30,
)


def table(rows: list[tuple[Any, ...]]) -> pd.DataFrame:
    """Rows as they might be read, with the number of their day."""
    frame = pd.DataFrame(rows, columns=["size", "city", "open", "since", "day"], dtype=object)
    return frame.astype({"size": float, "since": "datetime64[us]", "day": "int64"})


def summary(frame: pd.DataFrame, *, like: Profile | None = None) -> Profile:
    """The profile of such rows."""
    return profile(frame, SCHEMA, blocks=frame["day"].to_numpy(), like=like)


REFERENCE = summary(
    table(
        [
            (float(i), "Oslo" if i % 3 else "Rome", bool(i % 2), pd.Timestamp(f"2020-01-{i % 28 + 1}"), 0)
            for i in range(60)
        ]
    )
)


def rounded(document: Any) -> Any:
    """The same with its floats cut to nine digits: adding up in another order differs in the last ones."""
    if isinstance(document, dict):
        return {key: rounded(value) for key, value in document.items()}
    if isinstance(document, list):
        return [rounded(value) for value in document]
    return float(f"{document:.9g}") if isinstance(document, float) else document


def assert_same(left: Profile, right: Profile) -> None:
    """Equal, but for the last digits of the moments."""
    a, b = left.to_dict(), right.to_dict()
    for name in a["columns"]:
        for moments in ("block_means", "block_m2s"):
            one, other = (side["columns"][name].pop(moments, []) for side in (a, b))
            size = max(1.0, *(abs(value) for value in one)) if one else 1.0
            np.testing.assert_allclose(one, other, rtol=1e-6, atol=1e-9 * size)
    assert rounded(a) == rounded(b)


@settings(max_examples=60, deadline=None)
@given(ROWS, st.data())
def test_parts_merge_to_the_whole(rows: list[tuple[Any, ...]], data: st.DataObject) -> None:
    """Wherever rows are cut, and even within a day, the merged profiles are the profile of all rows."""
    cut = data.draw(st.integers(0, len(rows)))
    first, second = (summary(table(part), like=REFERENCE) for part in (rows[:cut], rows[cut:]))
    assert_same(first.merge(second), summary(table(rows), like=REFERENCE))
    assert_same(first.merge(second), second.merge(first))


@settings(max_examples=30, deadline=None)
@given(ROWS, ROWS, ROWS)
def test_merging_is_associative(a: Any, b: Any, c: Any) -> None:
    """Three profiles may be merged in any grouping, so that parts can be shared out at will."""
    one, two, three = (summary(table(rows), like=REFERENCE) for rows in (a, b, c))
    assert_same(one.merge(two).merge(three), one.merge(two.merge(three)))


@settings(max_examples=40, deadline=None)
@given(ROWS)
def test_profiles_survive_strict_json_and_pickle(rows: list[tuple[Any, ...]]) -> None:
    """What is stored is read back the same, and holds no NaN or infinity, which are not JSON."""
    made = summary(table(rows))
    text = json.dumps(made.to_dict(), allow_nan=False)
    assert Profile.from_dict(json.loads(text)).to_dict() == made.to_dict()
    assert pickle.loads(pickle.dumps(made)).to_dict() == made.to_dict()


@settings(max_examples=40, deadline=None)
@given(ROWS)
def test_every_row_is_counted_once(rows: list[tuple[Any, ...]]) -> None:
    """Bins and missing values add up to the rows of each day, for any bins."""
    frame = table(rows)
    for column in (*summary(frame).columns.values(), *summary(frame, like=REFERENCE).columns.values()):
        per_day = frame["day"].value_counts().sort_index()
        assert column.block_counts.sum(axis=1).tolist() == per_day.tolist()
        assert column.n + column.missing == column.rows == len(rows)


def test_moments_and_extremes_are_those_of_the_values() -> None:
    """Mean, deviation, extremes and quantiles agree with numpy, far from zero, too."""
    values = 1e6 + np.random.default_rng(0).normal(size=5000)
    made = column_profile(values, blocks=np.arange(5000) % 7)
    assert made.mean == pytest.approx(values.mean(), rel=1e-12)
    assert made.sd == pytest.approx(values.std(), rel=1e-6)
    assert (made.min, made.max) == (values.min(), values.max())
    assert made.median == pytest.approx(np.median(values), abs=0.02)


def test_few_values_have_exact_quantiles() -> None:
    """As long as the distinct values are kept, quantiles are values that occurred."""
    made = column_profile(np.array([1.0, 1.0, 2.0, 10.0]), blocks=np.zeros(4))
    assert made.values == {1.0: 2, 2.0: 1, 10.0: 1}  # noqa: PD011
    assert made.quantile(np.array([0.0, 0.5, 0.75, 1.0])).tolist() == [1.0, 1.0, 2.0, 10.0]


def test_bins_are_frozen() -> None:
    """Values outside the reference fall into the end bins, new levels into the one for others."""
    numbers = column_profile(np.arange(10_000.0), blocks=np.zeros(10_000))
    assert numbers.bins.size == 32
    beyond = column_profile(np.array([-1e9, 1e9]), blocks=np.zeros(2), like=numbers)
    assert np.flatnonzero(beyond.counts).tolist() == [0, 31]
    levels = column_profile(np.array(["b", "a", "b"], dtype=object), blocks=np.zeros(3), kind="categorical")
    later = column_profile(np.array(["b", "new", np.nan], dtype=object), blocks=np.zeros(3), like=levels)
    assert later.block_counts.tolist() == [[1, 0, 1, 1]]
    assert later.bins.names == ["b", "a", "(other)"]


def test_bins_hold_equal_shares() -> None:
    """A skewed column is cut where its values are, and values that pile up share one bin."""
    skewed = np.exp(np.random.default_rng(0).normal(size=20_000))
    shares = column_profile(skewed, blocks=np.zeros(20_000)).counts / 20_000
    assert shares.max() < 0.04
    zeros = np.concatenate([np.zeros(9_000), np.linspace(1, 2, 1_000)])
    counts = column_profile(zeros, blocks=np.zeros(10_000)).counts
    assert counts[0] == 9_000


def test_only_100_levels_have_a_bin() -> None:
    """Rare levels share a bin, the same ones whatever the order of the rows."""
    names = np.array([f"l{i:03}" for i in range(150) for _ in range(12 if i < 100 else 11)], dtype=object)
    made = column_profile(names, blocks=np.zeros(len(names)), kind="categorical")
    again = column_profile(names[::-1], blocks=np.zeros(len(names)), kind="categorical")
    assert made.bins == again.bins
    assert made.counts[-1] == 550


def test_unseen_levels_and_malformed_values_are_counted() -> None:
    """A level that training did not know is unseen; text among numbers and infinities are malformed."""
    frame = pd.DataFrame(
        {
            "size": [1.0, "x", math.inf, None, 0.0],
            "city": ["Oslo", "Bonn", None, "Bonn", "Rome"],
            "open": [True, "maybe", None, False, True],
            "since": ["2020-01-01", "soon", None, "2020-01-02", "2020-01-03"],
        },
        dtype=object,
    )
    made = profile(frame, SCHEMA, blocks=np.zeros(5), like=REFERENCE)
    assert made.columns["city"].unseen == 2
    assert {name: column.malformed for name, column in made.columns.items()} == {
        "size": 2,
        "city": 0,
        "open": 1,
        "since": 1,
    }
    assert made.columns["size"].missing == 3
    assert made.columns["size"].zero == 1


def test_infinite_scores_are_malformed() -> None:
    """A model may say infinity, which is counted and kept out of the mean."""
    made = column_profile(np.array([1.0, np.inf, -np.inf, np.nan]), blocks=np.zeros(4))
    assert (made.n, made.missing, made.malformed, made.mean) == (1, 3, 2, 1.0)


@pytest.mark.parametrize("column", ["size", "city", "open", "since"])
@pytest.mark.parametrize("content", ["absent", "null", "infinite", "garbage"])
def test_one_bad_column_is_counted_not_raised(column: str, content: str) -> None:
    """A column that is absent, empty or garbage leaves a profile, and the others as they were."""
    frame = table([(1.0, "Oslo", True, pd.Timestamp("2020-01-01"), 0)] * 3).astype(object)
    cells = {"null": None, "infinite": math.inf, "garbage": [1, {"a": 2}]}
    if content == "absent":
        frame = frame.drop(columns=column)
    else:
        frame[column] = pd.Series([cells[content]] * 3, dtype=object)
    blocks = np.zeros(3)
    made = profile(frame, SCHEMA, blocks=blocks, like=REFERENCE)
    assert made.columns[column].rows == 3
    assert made.columns[column].n in ({3} if column == "city" and content == "infinite" else {0})
    assert all(made.columns[other].n == 3 for other in SCHEMA.names if other != column)
    json.dumps(profile(frame, SCHEMA, blocks=blocks).to_dict(), allow_nan=False)


def test_no_rows_make_a_profile_of_nothing() -> None:
    """An empty window has a profile that merges with others and has no mean."""
    empty = summary(table([]), like=REFERENCE)
    assert empty.rows == 0
    assert math.isnan(empty.columns["size"].mean)
    assert math.isnan(empty.columns["size"].median)
    assert_same(empty.merge(REFERENCE), REFERENCE)
    assert summary(table([])).columns["size"].bins.size == 1


def test_huge_values_do_not_overflow() -> None:
    """The widest range that a float allows is summarised without a warning."""
    made = column_profile(np.array([-1.7e308, 1.7e308, 5e-324, 0.0]), blocks=np.arange(4))
    assert made.n == 4
    json.dumps(made.to_dict(), allow_nan=False)


def test_distinct_values_are_dropped_alike_in_parts_and_whole() -> None:
    """More than 256 distinct values are forgotten, also when each part has fewer."""
    values, blocks = np.arange(300.0), np.zeros(300)
    whole = column_profile(values, blocks=blocks)
    parts = [column_profile(part, blocks=blocks[:150], like=whole) for part in (values[:150], values[150:])]
    assert whole.values is None  # noqa: PD011
    assert parts[0].values is not None  # noqa: PD011
    assert parts[0].merge(parts[1]).values is None  # noqa: PD011


def test_profiles_on_other_bins_do_not_merge() -> None:
    """Counts against other bins mean something else, and adding them is refused."""
    other = column_profile(np.array([5.0, 6.0]), blocks=np.zeros(2))
    with pytest.raises(DataError, match="bins must be the same in both profiles"):
        REFERENCE.columns["size"].merge(other)
    with pytest.raises(DataError, match="columns must be the same in both profiles; found city, open, since"):
        REFERENCE.merge(Profile(60, {"size": REFERENCE.columns["size"]}))


def test_a_reference_of_another_schema_is_refused() -> None:
    """A feature that the reference lacks, or has with another kind, has no bins to be counted in."""
    rows = table([])
    with pytest.raises(SchemaError, match="size must be a numeric column of the reference profile"):
        summary(rows, like=Profile(0, {}))
    text = column_profile(np.array(["a"], dtype=object), blocks=np.zeros(1), kind="categorical")
    with pytest.raises(SchemaError, match="found categorical"):
        summary(rows, like=Profile(0, {"size": text}))


def test_a_level_with_a_bin_may_be_unseen_by_the_schema() -> None:
    """Such a level is counted in its bin, and as unseen as well."""
    names, days = np.array(["a", "b", "b"], dtype=object), np.zeros(3)
    reference = column_profile(names, blocks=days, kind="categorical")
    made = column_profile(names, blocks=days, like=reference, levels=["b"])
    assert made.counts.tolist() == [2, 1, 0]
    assert made.unseen == 1
    assert column_profile(np.array(["c"], dtype=object), blocks=days[:1], like=reference).unseen == 1
