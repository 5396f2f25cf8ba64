"""Summaries say what the rows say, drift is found where it is and seldom where it is not, broken input is named."""

from __future__ import annotations

import json
import math
import pickle
from collections.abc import Callable
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from benchmarks.drift_calibration import Draw, autocorrelated, levels, normal
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial.distance import jensenshannon
from scipy.stats import false_discovery_control

from prodkit import compare_tables, jensen_shannon, kolmogorov_smirnov, profile_table, psi, read_window
from prodkit.data.schema import Column, Schema
from prodkit.data.windows import blocks
from prodkit.drift.compare import adjusted, compare_columns, comparison, differences, wasserstein
from prodkit.drift.contract import Answered, breaks, label_breaks
from prodkit.drift.counts import Blocks, column_profile, profile
from prodkit.drift.profiles import ColumnProfile, Fingerprints, Profile
from prodkit.drift.shifts import combined, divergence, mean_shift_p, property_shift, shift
from prodkit.errors import DataError, ParameterError, SchemaError
from prodkit.evidence import Window
from prodkit.params import ProjectParams

# Profiles


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
    assert_same(second.merge(first), first.merge(second))
    other = summary(table(rows[::2]), like=REFERENCE)
    assert_same(first.merge(second).merge(other), first.merge(second.merge(other)))


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


def test_distinct_values_are_dropped_alike_in_parts_and_whole() -> None:
    """Of more than 256 distinct values fewer digits are kept, the same ones also when each part has fewer values."""
    values, blocks = np.arange(300.0), np.zeros(300)
    whole = column_profile(values, blocks=blocks)
    parts = [column_profile(part, blocks=blocks[:150], like=whole) for part in (values[:150], values[150:])]
    assert whole.exact is None
    assert parts[0].exact is not None
    assert parts[0].merge(parts[1]).sketch == whole.sketch


def test_a_reference_of_another_schema_is_refused() -> None:
    """A feature that the reference lacks, or has with another kind, has no bins to be counted in."""
    rows = table([])
    with pytest.raises(SchemaError, match="size must be a numeric column of the reference profile"):
        summary(rows, like=Profile(0, {}))
    text = column_profile(np.array(["a"], dtype=object), blocks=np.zeros(1), kind="categorical")
    with pytest.raises(SchemaError, match="found categorical"):
        summary(rows, like=Profile(0, {"size": text}))


@given(st.lists(st.integers(0, 3000), max_size=3000), st.lists(st.integers(0, 3000), max_size=3000))
@settings(max_examples=25, deadline=None)
def test_samples_merge_into_the_sample_of_all(first: list[int], second: list[int]) -> None:
    """Merged or taken at once, and after a trip through JSON, it is the same sample."""
    parts = [pd.DataFrame({"x": np.array(values, dtype=float)}) for values in (first, second)]
    merged = Fingerprints.of(parts[0]).merge(Fingerprints.of(parts[1]))
    whole = Fingerprints.from_dict(Fingerprints.of(pd.concat(parts)).to_dict())
    assert merged.rows == whole.rows
    assert merged.hashes.tolist() == whole.hashes.tolist()
    assert merged.counts.tolist() == whole.counts.tolist()


def saved(table: pa.Table | pd.DataFrame, path: Path, **options: Any) -> str:
    """The path of a Parquet file with these rows."""
    table = pa.Table.from_pandas(table, preserve_index=False) if isinstance(table, pd.DataFrame) else table
    pq.write_table(table, path, **options)
    return str(path)


def shop(n: int = 3000, *, seed: int = 0, shift: float = 0.0) -> pd.DataFrame:
    """Rows of thirty days in order, with columns of each kind."""
    rng = np.random.default_rng(seed)
    return pd.DataFrame(
        {
            "at": pd.Timestamp("2024-01-01") + pd.to_timedelta(np.sort(rng.uniform(0, 30, n)), unit="D"),
            "price": rng.normal(size=n) + shift,
            "pieces": rng.poisson(3, n),
            "city": rng.choice(["Bergen", "Lisbon", "Oslo"], n),
            "code": rng.integers(0, 400, n).astype(str),
            "express": rng.random(n) < 0.3,
            "tail": rng.standard_cauchy(n),
        }
    ).astype({"code": "str"})


def test_files_are_summarised_as_training_does(tmp_path: Path) -> None:
    """By days, a file gets the kinds, bins and counts of the same rows in memory, in any order, on new or old bins."""
    frame, later = shop(), shop(seed=1, shift=0.2)
    later.loc[::50, "price"] = np.nan
    later.loc[::70, "city"] = "Rome"
    later.loc[::90, "city"] = None
    schema = Schema.infer(
        frame.assign(y=np.arange(len(frame)) % 2),
        features=[name for name in frame if name != "at"],
        target="y",
    )
    trained = profile(frame, schema, blocks=blocks(frame["at"]))
    whole = replace(profile(later, schema, blocks=blocks(later["at"]), like=trained), fingerprints=None)
    for rows in (later, later.sample(frac=1, random_state=0)):
        path = saved(rows, tmp_path / "later.parquet", row_group_size=700)
        assert_same(profile_table(path, like=trained, time_column="at"), whole)
    read = profile_table(saved(frame, tmp_path / "a.parquet", row_group_size=999), time_column="at")
    assert {name: column.bins for name, column in read.columns.items()} == {
        name: column.bins for name, column in trained.columns.items()
    }
    assert_same(read, replace(trained, fingerprints=None))


# Distances, tests and their calibration


COUNTS = st.integers(1, 8).flatmap(
    lambda bins: st.tuples(
        *[st.lists(st.lists(st.integers(0, 30), min_size=bins, max_size=bins), max_size=20)] * 2,
        st.just(bins),
    )
)


@given(COUNTS)
def test_distances_are_those_that_were_published(
    counts: tuple[list[list[int]], list[list[int]], int],
) -> None:
    """PSI, Jensen-Shannon and Kolmogorov-Smirnov equal their definitions, whichever side comes first, or are NaN."""
    p, q = (np.array(side, dtype=float).reshape(len(side), counts[2]).sum(axis=0) for side in counts[:2])
    distances = [distance(p, q) for distance in (psi, jensen_shannon, kolmogorov_smirnov)]
    if not (p.sum() and q.sum()):
        assert all(math.isnan(each) for each in distances)
        return
    a, b = ((side + 0.5) / (side + 0.5).sum() for side in (p, q))
    gaps = np.cumsum(p / p.sum()) - np.cumsum(q / q.sum())
    expected = [sum((b - a) * np.log(b / a)), jensenshannon(p, q, base=2), np.abs(gaps).max()]
    np.testing.assert_allclose(distances, np.nan_to_num(expected), atol=1e-7)
    again = [distance(q, p) for distance in (psi, jensen_shannon, kolmogorov_smirnov)]
    np.testing.assert_allclose(again, distances, atol=1e-7)


@settings(max_examples=150, deadline=None)
@given(COUNTS)
def test_any_counts_have_a_shift(counts: tuple[list[list[int]], list[list[int]], int]) -> None:
    """Whatever is counted: the effect lies between 0 and 1, the p-value too, or each is NaN."""
    before, now = (np.array(side, dtype=np.int64).reshape(len(side), counts[2]) for side in counts[:2])
    for found in (shift(before, now), shift(before, now, ordered=False)):
        assert math.isnan(found.effect) == (not (before.sum() and now.sum()))
        assert math.isnan(found.effect) or 0 <= found.effect <= 1
        assert math.isnan(found.p_value) or 0 <= found.p_value <= 1
        assert 0 <= found.floor <= 1
    if before.sum() and now.sum():
        p, q = (side.sum(axis=0) / side.sum() for side in (before, now))
        distance = jensen_shannon(before.sum(axis=0), now.sum(axis=0))
        assert math.sqrt(divergence(p, q)) == pytest.approx(distance, abs=1e-7)


@given(st.floats(0, 0.005), st.lists(st.floats(0, 1), max_size=3))
def test_combined_p_values_lie_between_the_smallest_and_its_multiple(
    first: float, others: list[float]
) -> None:
    """Combining is never surer than the smallest p-value, nor much less sure than Bonferroni, whatever the others."""
    smallest = min(first, *others, 1.0)
    found = combined([first, *others])
    assert smallest * (1 - 1e-4) <= found <= 1.5 * (1 + len(others)) * smallest + 1e-12


@given(st.lists(st.one_of(st.floats(0, 1), st.just(math.nan)), max_size=20))
def test_adjustment_controls_the_false_discovery_rate(given: list[float]) -> None:
    """P-values are adjusted as by Benjamini and Hochberg; one that is not known is no test."""
    p_values = np.array(given)
    known = ~np.isnan(p_values)
    expected = np.full(len(p_values), math.nan)
    if known.any():
        expected[known] = false_discovery_control(p_values[known])
    np.testing.assert_allclose(adjusted(p_values), expected)


def days(
    rng: np.random.Generator, *, n_days: int, rows: int, alike: float = 0.0, shift: float = 0.0
) -> tuple[np.ndarray, np.ndarray]:
    """Standard normal values and their days; ``alike`` is the share of variance that a day has in common."""
    block = np.repeat(np.arange(n_days), rows)
    common = rng.normal(size=n_days)[block]
    return math.sqrt(alike) * common + math.sqrt(1 - alike) * rng.normal(size=len(block)) + shift, block


def pair(
    seed: int, *, n_days: tuple[int, int] = (60, 30), rows: int = 50, alike: float = 0.0, shift: float = 0.0
) -> tuple[ColumnProfile, ColumnProfile]:
    """Profiles of a reference and of a window that is shifted by so many standard deviations."""
    rng = np.random.default_rng(seed)
    x, x_days = days(rng, n_days=n_days[0], rows=rows, alike=alike)
    y, y_days = days(rng, n_days=n_days[1], rows=rows, alike=alike, shift=shift)
    reference = column_profile(x, blocks=x_days)
    return reference, column_profile(y, blocks=y_days, like=reference)


def table_of(names: str, pairs: list[tuple[ColumnProfile, ColumnProfile]]) -> tuple[Profile, Profile]:
    """Profiles of tables with these columns."""
    columns = [dict(zip(names, side, strict=True)) for side in zip(*pairs, strict=True)]
    return Profile(columns[0][names[0]].rows, columns[0]), Profile(columns[1][names[0]].rows, columns[1])


def presence(n_days: int, share: float, *, like: ColumnProfile | None = None) -> ColumnProfile:
    """A column of 100 rows a day of which a share is missing, more on some days than on others."""
    rng = np.random.default_rng(0)
    x, block = days(rng, n_days=n_days, rows=100)
    x[rng.random(len(x)) < share * rng.uniform(0.8, 1.2, size=n_days)[block]] = np.nan
    return column_profile(x, blocks=block, like=like)


def test_wasserstein_is_the_shift_in_deviations() -> None:
    """A shift by some standard deviations is that distance, even far outside the bins; roughly, of many values."""
    rng = np.random.default_rng(0)
    many, block = rng.normal(10, 4, size=20_000), np.zeros(20_000)
    for values, tolerance in ((many.round(), 0.01), (many, 0.35)):
        reference = column_profile(values, blocks=block)
        for distance in (0.0, 6.0, 40.0):
            moved = column_profile(values + distance, blocks=block, like=reference)
            assert wasserstein(reference, moved) == pytest.approx(distance / 4, rel=tolerance, abs=0.01)


@pytest.mark.parametrize(
    ("n_days", "alike"), [((60, 30), 0.0), ((60, 30), 0.5), ((60, 7), 0.5), ((15, 15), 0.9), ((60, 14), 0.1)]
)
def test_without_drift_alarms_are_rare(n_days: tuple[int, int], alike: float) -> None:
    """Of 150 windows without drift at most one in ten has p < 0.05, however alike the rows of a day are."""
    found = [compare_columns(*pair(seed, n_days=n_days, alike=alike))["p_value"] for seed in range(150)]
    assert np.mean(np.array(found) < 0.05) <= 0.1


@pytest.mark.parametrize(("alike", "power"), [(0.0, 1.0), (0.1, 0.95), (0.5, 0.6)])
def test_a_shift_of_half_a_deviation_is_found(alike: float, power: float) -> None:
    """A month that moved by half a standard deviation is called drifted, the less surely the fewer days count."""
    found = [compare_columns(*pair(seed, alike=alike, shift=0.5)) for seed in range(60)]
    assert np.mean([row["p_value"] < 0.05 and row["effect"] >= 0.1 for row in found]) >= power


@pytest.mark.parametrize(("n_days", "rows"), [((60, 30), 50), ((60, 7), 50), ((10, 10), 10)])
def test_the_effect_does_not_grow_in_small_samples(n_days: tuple[int, int], rows: int) -> None:
    """Without drift the corrected effect stays near 0, where the raw distance grows as rows get fewer."""
    pairs = [pair(seed, n_days=n_days, rows=rows, alike=0.2) for seed in range(60)]
    raw = [jensen_shannon(reference.counts, current.counts) for reference, current in pairs]
    effects = [compare_columns(reference, current)["effect"] for reference, current in pairs]
    assert np.mean(np.square(effects)) < np.mean(np.square(raw)) / 4
    shifted = [
        compare_columns(*pair(seed, n_days=n_days, rows=rows, shift=1.0))["effect"] for seed in range(30)
    ]
    assert np.mean(shifted) == pytest.approx(0.4, abs=0.06)  # the distance of two normals one deviation apart


def test_a_reference_of_few_days_proves_nothing() -> None:
    """Four days do not tell how days differ: there is no p-value and no drift, and the table says why."""
    table = comparison(*table_of("a", [pair(0, n_days=(4, 30), shift=3)]))
    assert math.isnan(table.loc["a", "p_value"])
    assert not table.loc["a", "drifted"]
    assert table.loc["a", "note"] == "too few days in the reference"


def test_a_single_day_can_be_judged() -> None:
    """How days differ is known from the reference, so that one day far off is drift, and the usual one is not."""
    shifted = [comparison(*table_of("a", [pair(seed, n_days=(60, 1), shift=1.5)])) for seed in range(20)]
    usual = [comparison(*table_of("a", [pair(seed, n_days=(60, 1), alike=0.3)])) for seed in range(60)]
    assert sum(table.loc["a", "drifted"] for table in shifted) == 20
    assert sum(table.loc["a", "drifted"] for table in usual) <= 3


def test_both_size_and_certainty_are_needed() -> None:
    """A tiny shift of very many rows is sure and small, and is no drift; nor is a large one that is not sure."""
    tiny = comparison(*table_of("a", [pair(0, rows=3000, shift=0.05)])).loc["a"]
    assert tiny["p_adjusted"] < 0.001
    assert not tiny["drifted"]
    unsure = comparison(*table_of("a", [pair(0, n_days=(6, 5), alike=0.9, shift=0.7)])).loc["a"]
    assert unsure["effect"] >= 0.1
    assert not unsure["drifted"]
    sure = comparison(*table_of("a", [pair(0, shift=0.5)])).loc["a"]
    assert sure["drifted"]


def test_columns_are_ranked_by_damage() -> None:
    """A small shift in a column that matters comes before a large one in a column that does not."""
    reference, current = table_of("abc", [pair(0, shift=1.5), pair(1, shift=0.5), pair(2)])
    assert comparison(reference, current).index.tolist()[:2] == ["a", "b"]
    table = comparison(reference, current, importance={"a": 0.01, "b": 0.5, "c": -0.2})
    assert table.index.name == "column"
    assert table.index.tolist()[0] == "b"
    assert table.loc["b", "damage"] == pytest.approx(0.5 * table.loc["b", "effect"])
    assert table.loc["c", "damage"] == 0


def test_missing_values_are_a_signal_of_their_own() -> None:
    """More missing values are reported as such, and do not pass for a shift of the values that are there."""
    reference = presence(40, 0.1)
    row = comparison(*table_of("a", [(reference, presence(30, 0.4, like=reference))])).loc["a"]
    assert row["missing_drifted"]
    assert not row["drifted"]
    assert row["missing_current"] == pytest.approx(0.4, abs=0.03)
    same = comparison(*table_of("a", [(reference, presence(30, 0.1, like=reference))])).loc["a"]
    assert not same["missing_drifted"]


@pytest.mark.parametrize(("rows", "note"), [(100, "all missing in the window"), (0, "no rows in the window")])
def test_nothing_to_compare_is_said(rows: int, note: str) -> None:
    """A column without values is a row with a note, not an error, and an emptied one still ranks as harmful."""
    reference, current = pair(0)
    block = np.repeat(np.arange(10), rows // 10)
    empty = column_profile(np.full(rows, np.nan), blocks=block, like=reference)
    table = comparison(*table_of("ab", [(reference, empty), (reference, current)]))
    assert table.loc["a", "note"] == note
    assert math.isnan(table.loc["a", "effect"])
    assert not table.loc["a", "drifted"]
    assert table.loc["a", "missing_drifted"] == (rows > 0)
    assert table.loc["a", "damage"] > 0.9 if rows else table.loc["a", "damage"] == 0


def test_other_bins_or_columns_are_refused() -> None:
    """Counts against different bins, or of different columns, are not compared."""
    reference, current = pair(0)
    other = column_profile(np.arange(50.0), blocks=np.zeros(50))
    with pytest.raises(DataError, match="bins must be the same"):
        compare_columns(reference, other)
    with pytest.raises(DataError, match="columns must be the same in both profiles; found a, b"):
        comparison(Profile(1, {"a": reference}), Profile(1, {"b": current}))


def weekly(rng: np.random.Generator, n: int) -> np.ndarray:
    """A week of 350 rows has a season in it."""
    return np.asarray(rng.normal(size=n) + np.sin(2 * np.pi * np.arange(n) / 350))


def stretches(n: int) -> Blocks:
    """128 stretches of consecutive rows, as where a table has no time."""
    return Blocks.stretches(0, n, length=-(-n // 128))


def compared(
    draw: Draw, seed: int, *, n: int, reference: int = 10_000, columns: int = 1, shifted: float = 0.0
) -> list[dict[str, Any]]:
    """Columns of so many rows that follow upon so many of the reference, as the table of differences."""
    sides: tuple[dict[str, Any], dict[str, Any]] = ({}, {})
    rng = np.random.default_rng(seed)
    for name in map(str, range(columns)):
        values = draw(rng, reference + n)
        kind = "categorical" if values.dtype == object else "numeric"
        sides[0][name] = column_profile(values[:reference], blocks=stretches(reference), kind=kind)
        now = values[reference:] + shifted if shifted else values[reference:]
        sides[1][name] = column_profile(now, blocks=stretches(n), like=sides[0][name])
    return differences(Profile(reference, sides[0]), Profile(n, sides[1]))


def alarms(found: list[dict[str, Any]]) -> bool:
    """Is there any?"""
    return any(row[signal] for row in found for signal in ("drifted", "missing_drifted", "unseen_drifted"))


@pytest.mark.parametrize("n", [50, 1000])
@pytest.mark.parametrize(
    ("draw", "reference"),
    [
        (normal, 10_000),
        (normal, 500),
        (levels(2), 10_000),
        (levels(50), 10_000),
        (levels(1000), 10_000),
        (autocorrelated(0.8), 10_000),
        (autocorrelated(0.95), 10_000),
        (weekly, 10_000),
    ],
    ids=["normal", "short", "2 levels", "50 levels", "1000 levels", "AR(1) .8", "AR(1) .95", "weekly"],
)
def test_without_drift_windows_rarely_alarm(draw: Draw, reference: int, n: int) -> None:
    """Of 40 windows of five columns at most 4 have any alarm, where 2 are allowed in the mean."""
    found = [alarms(compared(draw, seed, n=n, reference=reference, columns=5)) for seed in range(40)]
    assert sum(found) <= 4


@pytest.mark.parametrize("sizes", [(2000, 200), (2000, 2000)])
@pytest.mark.parametrize("count", [5, 50])
def test_levels_that_are_equally_frequent_have_no_order_to_lose(sizes: tuple[int, int], count: int) -> None:
    """What chance made frequent in the reference is not so in a window: p-values are no smaller for that."""
    found = []
    for seed in range(150):
        rng = np.random.default_rng([seed, count, *sizes])
        counts = [rng.multinomial(n // 100, np.full(count, 1 / count), size=100) for n in sizes]
        order = np.argsort(-counts[0].sum(axis=0), kind="stable")  # as bins are: by falling frequency
        found.append(shift(*(each[:, order] for each in counts), ordered=False).p_value)
    assert np.mean(np.array(found) < 0.05) <= 0.09


def test_many_columns_do_not_add_up_to_alarms() -> None:
    """Of 6 windows of 100 columns without drift at most one has an alarm."""
    assert sum(alarms(compared(normal, seed, n=200, columns=100)) for seed in range(6)) <= 1


def flattened(rng: np.random.Generator, values: np.ndarray) -> np.ndarray:
    """A tenth of the rows take any level."""
    other = np.array([f"l{i}" for i in range(20)], dtype=object)[rng.integers(20, size=len(values))]
    return np.asarray(np.where(rng.random(len(values)) < 0.1, other, values))


@pytest.mark.parametrize(
    ("draw", "change", "n", "power"),
    [
        (normal, lambda rng, values: values + 0.1, 1000, 0.6),
        (normal, lambda rng, values: values * 1.2, 200, 0.6),
        (levels(20), flattened, 1000, 0.5),
    ],
    ids=["moved", "wider", "flatter"],
)
def test_where_rows_are_independent_no_power_is_lost_on_how_they_might_depend(
    draw: Draw, change: Callable[[np.random.Generator, np.ndarray], np.ndarray], n: int, power: float
) -> None:
    """As many windows are significant as the best test of independent rows would find, to within a few."""
    found = []
    for seed in range(60):
        rng = np.random.default_rng(seed)
        values = draw(rng, 10_000 + n)
        kind = "categorical" if values.dtype == object else "numeric"
        reference = column_profile(values[:10_000], blocks=stretches(10_000), kind=kind)
        now = column_profile(change(rng, values[10_000:]), blocks=stretches(n), like=reference)
        found.append(compare_columns(reference, now)["p_value"] < 0.05)
    assert np.mean(found) >= power


def test_a_weekend_is_no_drift_where_the_reference_has_weekends() -> None:
    """A day far off is drift only if such days are new."""
    rng = np.random.default_rng(0)
    week = np.array([*[[250, 250, 250, 250]] * 5, *[[100, 200, 300, 400]] * 2])
    days = rng.multinomial(1000, np.tile(week, (10, 1)) / 1000)
    weekend = rng.multinomial(1000, week[6:] / 1000)
    usual, new = shift(days, weekend), shift(days[np.arange(70) % 7 < 5], weekend)
    assert jensen_shannon(days.sum(axis=0), weekend[0]) > 0.1
    assert usual.floor > usual.effect
    assert new.p_value < 1e-6
    assert new.effect > max(0.1, new.floor)


def test_missing_values_that_were_never_there_need_no_long_window() -> None:
    """Ten missing values among 100 are found where the reference has none, two are not."""
    reference = column_profile(np.random.default_rng(0).normal(size=10_000), blocks=stretches(10_000))
    for missing, drifted in ((10, True), (2, False)):
        values = np.random.default_rng(1).normal(size=100)
        values[:: 100 // missing] = np.nan
        now = column_profile(values, blocks=stretches(100), like=reference)
        row = differences(Profile(10_000, {"a": reference}), Profile(100, {"a": now}))[0]
        assert row["missing_drifted"] == drifted


def test_values_missing_in_one_stretch_are_one_event() -> None:
    """An hour's outage is not taken for so many independent rows, for there was none before to learn from."""
    reference = np.tile([100, 0], (60, 1))
    spread, burst = np.tile([95, 5], (30, 1)), np.tile([100, 0], (30, 1))
    burst[7] = [0, 100]
    assert property_shift(reference, spread).p_value < 1e-6
    assert property_shift(reference, burst).p_value > 0.05


@pytest.mark.parametrize("correlation", [0.0, 0.7])
def test_a_mean_is_tested_in_units_of_its_blocks(correlation: float) -> None:
    """Where nothing has changed one p-value of twenty is below .05, also if days resemble the day before."""
    found = []
    for seed in range(200):
        means = autocorrelated(correlation)(np.random.default_rng(seed), 120)
        n, squares = np.full(120, 40), np.full(120, 10.0)
        found.append(mean_shift_p((n[:90], means[:90], squares[:90]), (n[90:], means[90:], squares[90:])))
    assert 0.005 <= np.mean(np.array(found) < 0.05) <= 0.11


def serial(rng: np.random.Generator, n: int) -> np.ndarray:
    """Each row has a level of its own."""
    return np.arange(n)


def bursting(rng: np.random.Generator, n: int) -> np.ndarray:
    """A level occurs in four rows that follow each other, and never again."""
    return np.arange(n) // 4


@pytest.mark.parametrize(
    "draw",
    [
        lambda rng, n: rng.integers(0, 100_000, n),
        lambda rng, n: rng.integers(0, 5_000, n),
        lambda rng, n: rng.zipf(1.5, n),
        serial,
        bursting,
    ],
    ids=["100,000 levels", "5,000 levels", "few frequent ones", "serial", "bursting"],
)
@pytest.mark.parametrize(("n", "later", "of_days"), [(5000, 1000, 60), (1000, 300, 100), (20_000, 5000, 60)])
def test_levels_like_ids_are_no_drift(draw: Draw, n: int, later: int, of_days: int) -> None:
    """New levels are expected as often as parts of the reference had them which were held back: no alarm, no break."""
    for seed in range(4):
        names = draw(np.random.default_rng(seed), n + later).astype(str).astype(object)
        day = np.arange(n + later) * of_days // n
        reference = column_profile(names[:n], blocks=day[:n], kind="categorical")
        current = column_profile(names[n:], blocks=day[n:], like=reference)
        before, now = table_of("a", [(reference, current)])
        assert not alarms(differences(before, now))
        assert [item.outcome for item in breaks(before, now)] == ["pass"]


def test_new_levels_are_expected_where_many_occur_once() -> None:
    """Where one row in twenty is of a level seen once, as many new ones are no drift, four times as many are."""
    rng = np.random.default_rng(0)

    def rows(n: int, share: float, prefix: str) -> np.ndarray:
        rare, usual = (np.array([f"{kind}{i}" for i in range(n)], dtype=object) for kind in (prefix, "l"))
        return np.where(rng.random(n) < share, rare, usual[rng.integers(0, 40, n)]).astype(object)

    reference = column_profile(rows(5000, 0.05, "a"), blocks=stretches(5000), kind="categorical")
    assert reference.unseen_share == pytest.approx(0.05, abs=0.01)
    for share, drifted in ((0.0, False), (0.05, False), (0.2, True)):
        now = column_profile(rows(2000, share, "b"), blocks=stretches(2000), like=reference)
        assert differences(*table_of("a", [(reference, now)]))[0]["unseen_drifted"] == drifted


EXTREMES: dict[str, list[Callable[[np.random.Generator, int], np.ndarray]]] = {
    "numeric": [
        lambda rng, n: rng.normal(size=n),
        lambda rng, n: np.full(n, 3.0),
        lambda rng, n: np.full(n, math.nan),
        lambda rng, n: rng.choice([1e300, -1e300, 5e-324, math.inf], n),
    ],
    "boolean": [lambda rng, n: (rng.random(n) < 0.5) * 1.0, lambda rng, n: np.ones(n)],
    "datetime": [
        lambda rng, n: 1.6e9 + rng.integers(0, 99, n) * 86_400.0,
        lambda rng, n: np.full(n, 253_402_214_400.0),
    ],
    "categorical": [
        lambda rng, n: rng.choice(np.array(["a", "b", None], dtype=object), n),
        lambda rng, n: np.full(n, "a", dtype=object),
        lambda rng, n: np.full(n, None, dtype=object),
        lambda rng, n: serial(rng, n).astype(str).astype(object),
    ],
}


@settings(max_examples=300, deadline=None)
@given(st.data())
def test_tables_of_any_size_can_be_compared(data: st.DataObject) -> None:
    """Of 0 to 365 rows, of one day to one a row, of one value, many or none: a result, or a note that says why not."""
    kind = data.draw(st.sampled_from(list(EXTREMES)))
    sides = []
    for first in (0, 400):
        rows, of_days = (
            data.draw(st.sampled_from([0, 1, 2, 5, 31, 365])),
            data.draw(st.sampled_from([1, 2, 3, 365])),
        )
        values = data.draw(st.sampled_from(EXTREMES[kind]))(np.random.default_rng(0), rows)
        day = first + np.arange(rows) * min(of_days, rows) // max(1, rows)
        sides.append(column_profile(values, blocks=day, kind=kind, like=sides[0] if sides else None))
    before, now = table_of("a", [(sides[0], sides[1])])
    row = comparison(before, now).loc["a"]
    assert math.isnan(row["p_value"]) <= bool(row["note"])
    assert not (row["drifted"] and math.isnan(row["p_adjusted"]))
    for references in ((before, None), (before, before)):
        lines = breaks(references[0], now, training=references[1])
        json.dumps([item.to_dict() for item in lines], allow_nan=False)
        if not now.rows:
            assert [item.outcome for item in lines] == ["error"]
        elif not before.rows:
            assert [(item.outcome, bool(item.note)) for item in lines] == [("inconclusive", True)]


def test_a_month_of_a_row_a_day_beside_a_year_of_them_is_compared() -> None:
    """One row a day is enough to see that a column is not what it was, and to leave a constant one alone."""
    rng = np.random.default_rng(0)
    year, month = np.arange(365), np.arange(365, 396)
    pairs = []
    for old, new in ((rng.normal(size=365), rng.normal(3, 1, size=31)), (np.ones(365), np.ones(31))):
        reference = column_profile(old, blocks=year)
        pairs.append((reference, column_profile(new, blocks=month, like=reference)))
    assert comparison(*table_of("ab", pairs))["drifted"].to_dict() == {"a": True, "b": False}


# The contract


A_DAY = 80


FEATURES = ["temp", "dew", "humid", "count", "city", "depot"]


def feed(*, first: int, days: int, seed: int, warmer: float = 0.0) -> pd.DataFrame:
    """Rows of some days, whose weather differs from day to day."""
    random, n = np.random.default_rng(seed), days * A_DAY
    day = np.repeat(np.arange(days), A_DAY)
    temp = 60 + warmer + random.normal(0, 6, days)[day] + random.normal(0, 5, n)
    return pd.DataFrame(
        {
            "day": first + day,
            "temp": temp,
            "dew": temp - 15 + random.normal(0, 3, n),
            "humid": 60 + random.normal(0, 8, days)[day] + random.normal(0, 10, n),
            "count": random.poisson(40, n).astype(float),
            "city": random.choice(["Bergen", "Lisbon", "Oslo", "Rome"], n, p=[0.4, 0.3, 0.2, 0.1]),
            "depot": random.choice(["Bergen", "Lisbon", "Oslo", "Rome"], n, p=[0.1, 0.2, 0.3, 0.4]),
            "sold": random.random(n) < 0.5,
        }
    )


BEFORE = feed(first=0, days=60, seed=0)


FEED = Schema.infer(BEFORE, features=FEATURES, target="sold")


TRAINING = profile(BEFORE, FEED, blocks=BEFORE["day"].to_numpy())


WINDOW = feed(first=60, days=14, seed=1)


def fed(rows: pd.DataFrame) -> Profile:
    """The profile of a window on the bins of training."""
    return profile(rows, FEED, blocks=rows["day"].to_numpy(), like=TRAINING)


def broken(rows: pd.DataFrame) -> set[str]:
    """What is broken in a window."""
    recent = fed(BEFORE[BEFORE["day"] >= 46])
    return {item.name.removeprefix("contract.") for item in breaks(recent, fed(rows), training=TRAINING)}


def exchanged(first: str, second: str) -> Callable[[pd.DataFrame], pd.DataFrame]:
    """Two columns in each other's place."""
    return lambda rows: rows.assign(**{first: rows[second], second: rows[first]})


FEED_FAULTS: dict[str, tuple[Callable[[pd.DataFrame], pd.DataFrame], set[str]]] = {
    "half missing": (
        lambda rows: rows.assign(temp=rows["temp"].where(rows.index % 2 == 0)),
        {"temp.missing"},
    ),
    "a level missing": (
        lambda rows: rows.assign(city=rows["city"].where(rows["city"] != "Lisbon")),
        {"city.missing"},
    ),
    "a column gone": (lambda rows: rows.drop(columns="city"), {"city.missing"}),
    "Celsius": (lambda rows: rows.assign(temp=(rows["temp"] - 32) / 1.8), {"temp.unit"}),
    "a factor of 1.6": (lambda rows: rows.assign(humid=rows["humid"] * 1.609344), {"humid.unit"}),
    "no whole numbers": (lambda rows: rows.assign(count=rows["count"] * 1.15), {"count.unit"}),
    "constant": (lambda rows: rows.assign(temp=50.0), {"temp.constant"}),
    "a rare level renamed": (
        lambda rows: rows.assign(city=rows["city"].replace("Rome", "Roma")),
        {"city.unseen"},
    ),
    "close columns exchanged": (exchanged("temp", "dew"), {"temp.swapped", "dew.swapped"}),
    "levels exchanged": (exchanged("city", "depot"), {"city.swapped", "depot.swapped"}),
    "an old batch": (
        lambda rows: BEFORE[BEFORE["day"].between(20, 33)].assign(day=lambda old: old["day"] + 40),
        {"rows.copied"},
    ),
    "half an old batch": (
        lambda rows: pd.concat(
            [
                rows[rows["day"] < 67],
                BEFORE[BEFORE["day"].between(30, 36)].assign(day=lambda old: old["day"] + 37),
            ]
        ),
        {"rows.copied"},
    ),
    "each row twice": (
        lambda rows: pd.concat([rows, rows]).sort_values("day", kind="stable"),
        {"rows.repeated"},
    ),
}


@pytest.mark.parametrize("fault", FEED_FAULTS)
def test_each_fault_is_named_with_its_column(fault: str) -> None:
    """One fault, one finding: the column that has it, and the kind."""
    spoil, named = FEED_FAULTS[fault]
    assert broken(spoil(WINDOW)) == named


@settings(max_examples=25, deadline=None)
@given(st.integers(2, 10_000), st.floats(-12, 12), st.integers(7, 28))
def test_a_natural_shift_is_no_break(seed: int, warmer: float, days: int) -> None:
    """Days that are warmer or colder than any season of training so far, and other chance, break nothing."""
    assert broken(feed(first=60, days=days, seed=seed, warmer=warmer)) == {"columns"}


def test_rows_that_come_again_by_nature_are_no_copies() -> None:
    """A table of few levels repeats itself, in training and ever after."""
    names = ["city", "depot"]
    schema = Schema.infer(BEFORE, features=names, target="sold")
    training = profile(BEFORE, schema, blocks=BEFORE["day"].to_numpy())
    now = profile(WINDOW, schema, blocks=WINDOW["day"].to_numpy(), like=training)
    assert [item.outcome for item in breaks(training, now)] == ["pass"]


def test_a_window_that_training_has_seen_is_no_copy() -> None:
    """The same days are the same rows, and not an old batch under a new date."""
    assert broken(BEFORE[BEFORE["day"] >= 46]) == {"columns"}


def test_a_profile_without_a_sample_of_its_rows_still_says_the_rest() -> None:
    """Such as one that was kept by an earlier release."""
    document = TRAINING.to_dict()
    del document["fingerprints"]
    old = Profile.from_dict(document)
    twice = pd.concat([WINDOW, WINDOW]).sort_values("day", kind="stable")
    assert [item.outcome for item in breaks(old, fed(twice))] == ["pass"]
    spoilt = breaks(old, fed(WINDOW.assign(temp=50.0)))
    assert [item.name for item in spoilt] == ["contract.temp.constant"]


MONTHS = (4, 8, 11)


FAULTS = {
    "temp.unit": lambda rows: rows.assign(temp=(rows["temp"] - 32) / 1.8),
    "wind_speed.unit": lambda rows: rows.assign(wind_speed=(rows["wind_speed"] * 1.609344).round(1)),
    "pressure.missing": lambda rows: rows.assign(pressure=math.nan),
    "visib.missing": lambda rows: rows.drop(columns="visib"),
    "distance.unit": lambda rows: rows.assign(distance=(rows["distance"] * 1.609344).round()),
    "humid.unit": lambda rows: rows.assign(humid=rows["humid"] * 1000),
    "carrier.unseen": lambda rows: rows.assign(carrier="X" + rows["carrier"].astype(object)),
    "dewp.malformed": lambda rows: rows.assign(dewp="n/a?"),
    "temp.constant": lambda rows: rows.assign(temp=50.0),
    "pressure.range": lambda rows: rows.assign(pressure=-9999.0 + rows["pressure"] % 7),
}


class Year:
    """Profiles of a year of flights on the bins of its first weeks, and the rows of each month."""

    def __init__(self) -> None:
        facts = ProjectParams(window=Window.parse("2013-01-01/2014-01-01"))
        self.rows = read_window(facts)
        self.day = blocks(self.rows["time"])
        labelled = self.rows[(self.rows["time"] < "2013-03-18") & self.rows["late"].notna()]
        self.schema = Schema.infer(labelled, features=facts.features, target="late", task="binary")
        first = self.rows["time"] < "2013-03-18"
        self.training = profile(self.rows[first], self.schema, blocks=self.day[first])
        self.months = {month: self.rows["time"].dt.month == month for month in range(3, 13)}
        self.profiles = {month: self.of(self.rows[chosen]) for month, chosen in self.months.items()}

    def of(self, rows: pd.DataFrame) -> Profile:
        """The profile of some of the rows."""
        return profile(rows, self.schema, blocks=blocks(rows["time"]), like=self.training)

    def before(self, month: int) -> Profile:
        """What was last known to be in order when this month began."""
        return self.training if month == 4 else self.profiles[month - 1]


@pytest.fixture(scope="module")
def year(tmp_path_factory: pytest.TempPathFactory) -> Year:
    """The year, read once."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PRODKIT_OUT", str(tmp_path_factory.mktemp("out")))
        return Year()


def names(reference: Profile, current: Profile, **others: Profile) -> set[str]:
    """What is broken."""
    return {item.name.removeprefix("contract.") for item in breaks(reference, current, **others)}


def test_no_natural_month_is_broken(year: Year) -> None:
    """From April to December the weather and the timetable change, and no month is called broken."""
    for month in MONTHS:
        found = breaks(year.before(month), year.profiles[month], training=year.training)
        assert [(item.name, item.outcome) for item in found] == [("contract.columns", "pass")], month
        assert found[0].n == 16


def test_no_natural_week_is_broken(year: Year) -> None:
    """Nor is any week beside the one before; only the last day of the year truly lacks its weather."""
    week = (year.day - year.day[0]) // 7
    weeks = [year.of(year.rows[week == number]) for number in range(53)]
    found = [names(a, b, training=year.training) for a, b in pairwise(weeks)]
    assert [number for number, broken in enumerate(found, start=1) if broken != {"columns"}] == [52]
    assert {name.split(".")[1] for name in found[-1]} == {"missing"}


@pytest.mark.parametrize("fault", FAULTS)
def test_each_fault_is_found_in_every_month(year: Year, fault: str) -> None:
    """A converted, emptied, garbled, stuck or recoded column is named, in each month, and no other is."""
    for month in MONTHS:
        rows = FAULTS[fault](year.rows[year.months[month]])
        assert names(year.before(month), year.of(rows), training=year.training) == {fault}, month


def test_a_single_day_is_enough_for_an_empty_column(year: Year) -> None:
    """One day of a column that was never empty for a day is a break; a column that is often empty has to wait."""
    day = year.rows[year.rows["time"].dt.normalize() == pd.Timestamp("2013-10-09")]
    recent = year.profiles[9]
    assert names(recent, year.of(day), training=year.training) == {"columns"}
    assert names(recent, year.of(day.assign(temp=math.nan)), training=year.training) == {"temp.missing"}
    assert names(recent, year.of(day.assign(wind_gust=math.nan)), training=year.training) == {"columns"}


def test_the_note_names_column_kind_and_numbers(year: Year) -> None:
    """A reader is told what happened without looking at the data."""
    rows = year.rows[year.months[11]]
    (found,) = breaks(year.profiles[10], year.of(FAULTS["temp.unit"](rows)), training=year.training)
    assert found.note == "temp looks converted from Fahrenheit to Celsius: median 7.8, before 62.06"
    assert (found.outcome, found.rung, found.n) == ("fail", 1, len(rows))
    assert found.value == pytest.approx(7.8)
    json.dumps(found.to_dict(), allow_nan=False)


def small(values: object, *, kind: str = "numeric", days: int = 10, like: Profile | None = None) -> Profile:
    """A table of one column x, its rows spread evenly over days."""
    levels = ("a", "b") if kind == "categorical" else None
    schema = Schema((Column("x", kind, levels),), "y", "binary", (0, 1))  # type: ignore[arg-type]
    frame = pd.DataFrame({"x": values})
    return profile(frame, schema, blocks=np.arange(len(frame)) * days // max(len(frame), 1), like=like)


def noise(rows: int, *, seed: int = 0, mean: float = 50.0) -> np.ndarray:
    """Numbers that all differ."""
    return np.random.default_rng(seed).normal(mean, 5, size=rows)


@pytest.mark.parametrize(("rows", "broken"), [(30, True), (300, False), (4000, False), (6000, True)])
def test_row_counts_far_from_the_usual_are_broken(rows: int, broken: bool) -> None:
    """Less than a fifth or more than five times the usual rows a day is a break."""
    assert names(small(noise(1000)), small(noise(rows, seed=1))) == ({"rows"} if broken else {"columns"})


def test_a_quiet_day_like_an_earlier_one_is_no_break() -> None:
    """Sundays may have a tenth of the usual rows if some recent day had as few."""
    schema = Schema((Column("x", "numeric"),), "y", "binary", (0, 1))
    rows, days = noise(1010), np.append(np.arange(1000) // 100, np.full(10, 10))
    week = profile(pd.DataFrame({"x": rows}), schema, blocks=days)
    sunday = profile(pd.DataFrame({"x": noise(12, seed=1)}), schema, blocks=np.full(12, 11), like=week)
    assert names(week, sunday) == {"columns"}


def test_a_column_of_many_values_is_judged_by_its_days() -> None:
    """Where all numbers differ, a change of scale is found by level and spread, and a mere shift is not one."""
    before = small(noise(2000))
    assert names(before, small(noise(2000, seed=1) / 100)) == {"x.unit"}
    assert names(before, small(noise(2000, seed=1) * 1.609344)) == {"x.unit"}
    assert names(before, small(noise(2000, seed=1, mean=60))) == {"columns"}


def test_a_counter_may_grow() -> None:
    """Numbers that grow from window to window leave the range of training without being broken."""
    training = small(np.arange(1000.0))
    recent, now = (small(np.arange(start, start + 1000.0), like=training) for start in (1500, 2500))
    assert now.columns["x"].beyond == 1000
    assert names(recent, now, training=training) == {"columns"}
    assert names(recent, small(np.arange(70_000.0, 71_000.0), like=training), training=training) == {
        "x.range"
    }


def test_a_handful_of_rows_a_day_is_not_a_change_of_unit() -> None:
    """The spread of two rows is small whatever the unit is: thirty rows of a column around nought convert nothing."""
    draw = np.random.default_rng(0)
    for _ in range(40):
        before = small(draw.lognormal(2.5, 1.3, 4200) - 15, days=28)
        few = draw.lognormal(2.5, 1.3, 30) - 15
        assert "x.unit" not in names(before, small(few, days=18, like=before))


def test_a_column_that_was_often_constant_may_stay_so() -> None:
    """A column with one value for days on end is stuck only after twice the longest such time."""
    rows = np.where(np.arange(1000) // 100 < 5, 0.0, noise(1000))
    assert names(small(rows), small(np.zeros(1000), days=10)) == {"columns"}
    assert names(small(rows), small(np.zeros(1100), days=11)) == {"x.constant"}
    levels = np.random.default_rng(0).choice(["a", "b"], size=1000)
    assert names(small(levels, kind="categorical"), small(["a"] * 1000, kind="categorical")) == {"x.constant"}


def test_a_few_missing_values_of_few_rows_are_no_break() -> None:
    """Seven of thirty, where one in ten is usual, are what chance makes of thirty rows; not of three thousand."""
    usual = np.where(np.arange(3000) % 10 == 0, np.nan, noise(3000))
    before = small(usual, days=40)
    few, many = (np.where(np.arange(n) % 30 < 7, np.nan, noise(n, seed=1)) for n in (30, 3000))
    assert "x.missing" not in names(before, small(few, days=18, like=before))
    assert "x.missing" in names(before, small(many, days=18, like=before))


def test_limits_can_be_set() -> None:
    """Whoever expects more malformed values says so."""
    mixed = noise(1000).astype(object)
    mixed[::10] = "broken"
    before, now = small(noise(1000, seed=1)), small(mixed)
    assert names(before, now) == {"x.malformed"}
    (found,) = breaks(before, now, contract={"x": {"malformed": 0.2}})
    assert found.outcome == "pass"


def test_what_was_always_so_is_no_break() -> None:
    """Missing, malformed and unseen values are held against the references, not against perfection."""
    dirty = noise(1000).astype(object)
    dirty[::2], dirty[1::4] = None, "broken"
    assert names(small(dirty), small(dirty)) == {"columns"}
    others = np.random.default_rng(0).choice(["a", "b", "z"], size=1000)
    assert names(small(others, kind="categorical"), small(others, kind="categorical")) == {"columns"}


def test_names_that_hold_other_names_are_not_mixed_up() -> None:
    """Where `price.eur` and `price.usd` have changed places, a fault of `price` beside them is still named."""
    rng, day = np.random.default_rng(0), np.arange(2000) // 100
    columns = ["price", "price.eur", "price.usd"]
    schema = Schema(tuple(Column(name, "numeric") for name in columns), "y", "binary", (0, 1))
    rows = pd.DataFrame(rng.normal([50.0, 20.0, 30.0], 2.0, (2000, 3)), columns=columns)
    reference = profile(rows, schema, blocks=day)
    now = rows.assign(**{"price": math.nan, "price.eur": rows["price.usd"], "price.usd": rows["price.eur"]})
    broken = names(reference, profile(now, schema, blocks=day + 20, like=reference))
    assert broken == {"price.missing", "price.eur.swapped", "price.usd.swapped"}


def test_of_a_wide_table_only_likely_pairs_are_compared() -> None:
    """In 1,200 columns two that have changed places are found, in a second or two."""
    rng, day = np.random.default_rng(0), np.arange(600) // 20
    base = column_profile(rng.normal(size=600), blocks=day)
    low, high = (column_profile(rng.normal(mean, 1.0, 600), blocks=day) for mean in (0.0, 5.0))
    others = {f"x{i}": base for i in range(1200)}
    before, now = (Profile(600, {**others, "a": a, "b": b}) for a, b in ((low, high), (high, low)))
    assert {name for name in names(before, now) if name.endswith("swapped")} == {"a.swapped", "b.swapped"}


def test_rows_without_a_time_are_counted() -> None:
    """They are in no window, and a line that passes says how many they are."""
    before, now = small(noise(1000)), small(noise(900, seed=1))
    lines = breaks(before, Profile(now.rows, now.columns, timeless=100))
    assert [(item.name, item.outcome) for item in lines] == [
        ("contract.rows.timeless", "pass"),
        ("contract.columns", "pass"),
    ]
    assert lines[0].value == 0.1
    assert "100 of 1000 rows have no time" in lines[0].note


class Stream:
    """A frame that has the Arrow PyCapsule interface and nothing else, as those of other libraries."""

    def __init__(self, table):
        self._table = table

    def __arrow_c_stream__(self, requested_schema=None):
        return self._table.__arrow_c_stream__(requested_schema)


def test_frames_in_memory_are_tables_like_any_other(tmp_path):
    """A pandas frame, a pyarrow table and a stream of Arrow have the profile of the file; other things are refused."""
    frame = pd.DataFrame(
        {"x": np.random.default_rng(0).normal(size=3000), "city": ["Oslo", "Rome", "Bern"] * 1000}
    )
    frame.to_parquet(tmp_path / "x.parquet", index=False)
    expected = profile_table(str(tmp_path / "x.parquet")).to_dict()
    table = pa.Table.from_pandas(frame, preserve_index=False)
    for each in (frame, table, Stream(table)):
        assert profile_table(each).to_dict() == expected
    assert compare_tables(frame, frame.assign(x=frame["x"] + 5)).drifted == ["x"]
    with pytest.raises(ParameterError, match=r"table must be a path or a frame .*found list"):
        profile_table([1, 2])


def weights(rows: int, seed: int) -> np.ndarray:
    """A positive column with a heavy tail."""
    return np.round(np.exp(np.random.default_rng(seed).normal(5, 1.3, rows)), 2)


@pytest.mark.parametrize(
    ("spoil", "named"),
    [
        (lambda x: np.where(np.arange(len(x)) % 3 == 0, -999.0, x), "x.range"),
        (lambda x: np.where(np.arange(len(x)) % 9 == 0, -1.0, x), "x.range"),
        (lambda x: np.where(np.arange(len(x)) % 3 == 0, 9999.0, x), "x.range"),
        (lambda x: 1.8 * x + 32, "x.unit"),
        (lambda x: 2 * x, "columns"),
    ],
)
def test_a_column_with_a_heavy_tail_is_checked_too(
    spoil: Callable[[np.ndarray], np.ndarray], named: str
) -> None:
    """A value that stands for none and a conversion show whatever the spread; twice as much is nature's."""
    before = small(weights(3000, 0), days=90)
    assert names(before, small(spoil(weights(1000, 1)), days=30, like=before)) == {named}


def test_a_season_is_no_unit() -> None:
    """Lead times that are seven times as long in summer were not converted from km/h to m/s."""
    before = small(weights(3000, 0), days=90)
    assert names(before, small(weights(1000, 1) / 7, days=30, like=before)) == {"columns"}


def test_staff_may_change_and_a_level_may_not_be_renamed() -> None:
    """One agent of twenty leaves and another comes: no break; a frequent level under a new name is one."""
    draw = np.random.default_rng(0)
    agents = np.array([f"agent {i}" for i in range(22)], dtype=object)
    day, later = np.arange(4000) // 50, 80 + np.arange(1500) // 50
    before = column_profile(agents[draw.integers(0, 20, 4000)], blocks=day, kind="categorical")
    for share in (0.03, 0.05):
        now = agents[np.where(draw.random(1500) < share, 21, draw.integers(1, 20, 1500))]
        assert names(*table_of("a", [(before, column_profile(now, blocks=later, like=before))])) == {
            "columns"
        }
    now = agents[draw.integers(0, 20, 1500)]
    now = np.where(now == "agent 3", "Agent-3", now).astype(object)
    assert names(*table_of("a", [(before, column_profile(now, blocks=later, like=before))])) == {"a.unseen"}


def test_a_column_that_runs_with_time_may_go_on() -> None:
    """A year that follows is in range, and a code for a missing one is not; numbers that differ are shown so."""
    year = small(np.repeat([2015.0, 2016.0], 500), days=20)
    assert names(year, small(np.full(300, 2017.0), days=4, like=year)) == {"columns"}
    assert names(year, small(np.where(np.arange(300) % 3, 2017.0, -1.0), days=4, like=year)) == {"x.range"}


def test_limits_of_unknown_columns_are_refused() -> None:
    """A misspelt column or limit is an error that names the nearest; an ignored column breaks nothing."""
    before = small(noise(1000))
    now = small(1000 * noise(1000, seed=1), like=before)
    with pytest.raises(ParameterError, match="Did you mean x"):
        breaks(before, now, contract={"xx": "ignore"})
    with pytest.raises(ParameterError, match="Did you mean missing"):
        breaks(before, now, contract={"x": {"mising": 0.1}})
    assert [item.outcome for item in breaks(before, now, contract={"x": "ignore"})] == ["pass"]


def answered(task: str, seed: int, *, rows: int = 1500, sign: float = 1.0) -> Answered:
    """Labels of a month and what a model said of them."""
    draw, days = np.random.default_rng(seed), np.arange(rows) // 50
    drive = draw.normal(size=rows)
    if task == "regression":
        return Answered(np.exp(3 + sign * drive + draw.normal(size=rows)), {"champion": drive}, days)
    if task == "binary":
        truth = (draw.random(rows) < 1 / (1 + np.exp(2 - sign * drive))).astype(int)
        return Answered(truth, {"champion": 1 / (1 + np.exp(2 - drive))}, days)
    logits = np.column_stack([drive, -drive, draw.normal(size=rows)])
    shares = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    turned = np.exp(sign * logits) / np.exp(sign * logits).sum(axis=1, keepdims=True)
    truth = (draw.random(rows)[:, None] > np.cumsum(turned, axis=1)).sum(axis=1)
    return Answered(np.minimum(truth, 2), {"champion": shares}, days)


def label_kinds(task: str, now: Answered, **others: Any) -> list[str]:
    """What is broken in labels."""
    classes = {"binary": 2, "multiclass": 3, "regression": 0}[task]
    found = label_breaks(answered(task, 0, rows=4000), now, classes=classes, **others)
    return [item.name.removeprefix("contract.labels.") for item in found]


@pytest.mark.parametrize("task", ["binary", "multiclass", "regression"])
def test_labels_that_broke_are_told_from_a_changed_world(task: str) -> None:
    """One value, unknown classes, and labels of other rows are breaks; what always was and a new concept are none."""
    for seed in range(1, 21):
        now = answered(task, seed)
        assert label_kinds(task, now) == []
        mixed = replace(now, truth=np.random.default_rng(seed).permutation(now.truth))
        assert label_kinds(task, mixed) == ["joined"]
        assert label_kinds(task, mixed, fresh=answered(task, seed + 50)) == []
    assert label_kinds(task, answered(task, 1, sign=-1.0)) == []
    assert label_kinds(task, replace(now, truth=np.full_like(now.truth, now.truth[0]))) == ["constant"]
    assert label_kinds(task, replace(now, unknown_rows=1500)) == ["unseen"]
