"""Drift is found where it is, and seldom where it is not."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import chi2_contingency

from prodkit.drift.compare import (
    adjusted,
    compare_columns,
    comparison,
    jensen_shannon,
    kolmogorov_smirnov,
    psi,
    wasserstein,
)
from prodkit.drift.counts import column_profile
from prodkit.drift.profiles import ColumnProfile, Profile
from prodkit.errors import DataError

COUNTS = st.integers(2, 8).flatmap(
    lambda k: st.tuples(*[st.lists(st.integers(0, 50), min_size=k, max_size=k).filter(any)] * 2)
)


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


@given(COUNTS)
def test_distances_are_symmetric_and_bounded(counts: tuple[list[int], list[int]]) -> None:
    """The Jensen-Shannon distance and the KS distance lie between 0 and 1, whichever side comes first."""
    p, q = (np.array(side) for side in counts)
    for distance in (jensen_shannon, kolmogorov_smirnov):
        assert 0 <= distance(p, q) <= 1 + 1e-12
        assert distance(p, q) == pytest.approx(distance(q, p), abs=1e-7)
        assert distance(p, 7 * p) == pytest.approx(0, abs=1e-7)
    assert psi(p, q) == pytest.approx(psi(q, p)) and psi(p, q) >= -1e-12  # noqa: PT018


def test_distances_without_rows_are_nan() -> None:
    """Nothing can be said of a histogram without rows."""
    some, none = np.array([1, 2]), np.array([0, 0])
    for distance in (jensen_shannon, kolmogorov_smirnov, psi):
        assert math.isnan(distance(some, none))
        assert math.isnan(distance(none, some))


def test_wasserstein_is_the_shift_in_deviations() -> None:
    """A shift by some standard deviations is that distance, even far outside the bins; roughly, of many values."""
    rng = np.random.default_rng(0)
    many, block = rng.normal(10, 4, size=20_000), np.zeros(20_000)
    for values, tolerance in ((many.round(), 0.01), (many, 0.35)):
        reference = column_profile(values, blocks=block)
        for shift in (0.0, 6.0, 40.0):
            moved = column_profile(values + shift, blocks=block, like=reference)
            assert wasserstein(reference, moved) == pytest.approx(shift / 4, rel=tolerance, abs=0.01)


def test_adjustment_controls_the_false_discovery_rate() -> None:
    """Benjamini-Hochberg by hand: p n / rank, never smaller than that of a smaller p."""
    given = np.array([0.005, np.nan, 0.04, 0.03, 0.5])
    np.testing.assert_allclose(adjusted(given), [0.02, np.nan, 0.16 / 3, 0.16 / 3, 0.5])
    assert adjusted(np.array([])).tolist() == []


@pytest.mark.parametrize(
    ("n_days", "alike"), [((60, 30), 0.0), ((60, 30), 0.5), ((60, 7), 0.5), ((15, 15), 0.9), ((60, 14), 0.1)]
)
def test_without_drift_alarms_are_rare(n_days: tuple[int, int], alike: float) -> None:
    """Of 150 windows without drift at most one in ten has p < 0.05, however alike the rows of a day are."""
    found = [compare_columns(*pair(seed, n_days=n_days, alike=alike))["p_value"] for seed in range(150)]
    assert np.mean(np.array(found) < 0.05) <= 0.1


def test_a_naive_test_would_always_alarm() -> None:
    """Rows of a day are alike: a plain chi-square test calls nearly every window drifted, ours hardly any."""
    naive, ours = [], []
    for seed in range(60):
        reference, current = pair(seed, rows=200, alike=0.6)
        naive.append(chi2_contingency([reference.counts, current.counts]).pvalue < 0.05)
        ours.append(compare_columns(reference, current)["p_value"] < 0.05)
    assert np.mean(naive) > 0.95
    assert np.mean(ours) <= 0.1


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


def test_the_design_effect_is_that_of_the_days() -> None:
    """Independent rows count nearly fully; if a day's rows are all equal, each day counts as at most one row."""
    apart = compare_columns(*pair(0))["design_effect"]
    equal = [np.repeat(np.random.default_rng(k).normal(size=40), 50) for k in (0, 1)]
    reference = column_profile(equal[0], blocks=np.repeat(np.arange(40), 50))
    current = column_profile(equal[1], blocks=np.repeat(np.arange(40), 50), like=reference)
    assert apart == pytest.approx(1.1, abs=0.15)
    assert 45 <= compare_columns(reference, current)["design_effect"] <= 75


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


def test_unseen_levels_are_a_signal_of_their_own() -> None:
    """Levels that the model does not know are reported with their share."""
    rng = np.random.default_rng(0)
    block = np.repeat(np.arange(30), 100)
    old = rng.choice(["a", "b"], size=3000).astype(object)
    new = np.where(rng.random(3000) < 0.2, "z", old).astype(object)
    reference = column_profile(old, blocks=block, kind="categorical", levels=["a", "b"])
    current = column_profile(new, blocks=block, like=reference, levels=["a", "b"])
    row = comparison(*table_of("a", [(reference, current)])).loc["a"]
    assert row["unseen"] == pytest.approx(0.2, abs=0.03)
    assert row["unseen_drifted"]
    assert math.isnan(row["ks"])
    again = comparison(*table_of("a", [(reference, reference)])).loc["a"]
    assert not again["unseen_drifted"]
    assert not again["drifted"]


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


def test_predictions_are_compared_alike() -> None:
    """Scores are summarised and compared as a column is."""
    rng = np.random.default_rng(0)
    block = np.repeat(np.arange(20), 100)
    reference = column_profile(rng.beta(2, 5, size=2000), blocks=block)
    moved = compare_columns(
        reference, column_profile(rng.beta(3, 5, size=2000), blocks=block, like=reference)
    )
    same = compare_columns(reference, column_profile(rng.beta(2, 5, size=2000), blocks=block, like=reference))
    assert moved["p_value"] < 0.001
    assert moved["effect"] > 0.1 > same["effect"]


def test_other_bins_or_columns_are_refused() -> None:
    """Counts against different bins, or of different columns, are not compared."""
    reference, current = pair(0)
    other = column_profile(np.arange(50.0), blocks=np.zeros(50))
    with pytest.raises(DataError, match="bins must be the same"):
        compare_columns(reference, other)
    with pytest.raises(DataError, match="columns must be the same in both profiles; found a, b"):
        comparison(Profile(1, {"a": reference}), Profile(1, {"b": current}))
