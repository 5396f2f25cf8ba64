"""Windows without drift do not alarm, however few their rows, however many their levels, however they depend."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from benchmarks.drift_calibration import Draw, levels, normal, remembering
from hypothesis import given, settings
from hypothesis import strategies as st

from prodkit.drift.compare import compare_columns, differences, jensen_shannon
from prodkit.drift.counts import Blocks, column_profile
from prodkit.drift.profiles import Profile
from prodkit.drift.shifts import combined, divergence, mean_shift_p, property_shift, shift

COUNTS = st.integers(1, 6).flatmap(
    lambda bins: st.tuples(
        *[st.lists(st.lists(st.integers(0, 30), min_size=bins, max_size=bins), max_size=20)] * 2,
        st.just(bins),
    )
)


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
        (remembering(0.8), 10_000),
        (remembering(0.95), 10_000),
        (weekly, 10_000),
    ],
    ids=["normal", "short", "2 levels", "50 levels", "1000 levels", "memory .8", "memory .95", "weekly"],
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


def test_levels_of_the_very_same_frequency_can_be_compared() -> None:
    """Where no level is rarer than another, nothing is said of rare ones; the test of all levels stays."""
    counts = np.full((20, 10), 5)
    assert shift(counts, counts, ordered=False).p_value >= 0.9
    moved = counts + 4 * (np.arange(10) == 0) - 4 * (np.arange(10) == 1)
    assert shift(counts, moved, ordered=False).p_value < 1e-6


def test_rows_scattered_over_all_levels_are_found() -> None:
    """A tenth of the rows takes any of 20 levels: seen in most windows of 1,000 rows, which chi-square does not."""
    shares = 1 / np.arange(1, 21)
    shares /= shares.sum()
    found = []
    for seed in range(100):
        rng = np.random.default_rng(seed)
        before, now = (
            rng.multinomial(80, shares, size=125),
            rng.multinomial(10, 0.9 * shares + 0.005, size=100),
        )
        found.append(shift(before, now, ordered=False).p_value)
    assert np.mean(np.array(found) < 0.05) > 0.65


def test_many_columns_do_not_add_up_to_alarms() -> None:
    """Of 6 windows of 100 columns without drift at most one has an alarm."""
    assert sum(alarms(compared(normal, seed, n=200, columns=100)) for seed in range(6)) <= 1


@pytest.mark.parametrize(("n", "shifted", "power"), [(200, 0.5, 0.9), (1000, 0.3, 0.9), (50, 1.0, 0.9)])
def test_drift_is_found(n: int, shifted: float, power: float) -> None:
    """A shift that a person would see is found in nine windows of ten."""
    found = [alarms(compared(normal, seed, n=n, shifted=shifted)) for seed in range(30)]
    assert np.mean(found) >= power


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


def test_sixty_days_that_remember_each_other_do_not_alarm() -> None:
    """Of 40 months beside two months of days that resemble each other by .8, at most 4 have any alarm."""
    found = []
    for seed in range(40):
        rng = np.random.default_rng(seed)
        moods = np.repeat(0.5 * remembering(0.8)(rng, 90), 50)
        values, days = rng.normal(size=4500) + moods, np.repeat(np.arange(90), 50)
        reference = column_profile(values[:3000], blocks=days[:3000])
        now = column_profile(values[3000:], blocks=days[3000:], like=reference)
        found.append(alarms(differences(Profile(3000, {"a": reference}), Profile(1500, {"a": now}))))
    assert sum(found) <= 4


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


def test_new_levels_are_expected_where_many_occur_once() -> None:
    """Where one row in twenty is of a level seen once, as many new ones are no drift, and three times as many are."""
    rng = np.random.default_rng(0)
    names = np.array([f"l{i}" for i in range(400)], dtype=object)

    def rows(n: int, share: float, prefix: str) -> np.ndarray:
        rare = np.array([f"{prefix}{i}" for i in range(n)], dtype=object)
        return np.where(rng.random(n) < share, rare, names[rng.integers(0, 40, n)]).astype(object)

    reference = column_profile(rows(5000, 0.05, "a"), blocks=stretches(5000), kind="categorical")
    assert reference.bins.novelty == pytest.approx(0.05, abs=0.01)
    for share, drifted in ((0.05, False), (0.2, True)):
        now = column_profile(rows(2000, share, "b"), blocks=stretches(2000), like=reference)
        row = differences(Profile(5000, {"a": reference}), Profile(2000, {"a": now}))[0]
        assert row["unseen_drifted"] == drifted


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


@pytest.mark.parametrize("memory", [0.0, 0.7])
def test_a_mean_is_tested_in_units_of_its_blocks(memory: float) -> None:
    """Where nothing has changed one p-value of twenty is below .05, also if days resemble the day before."""
    found = []
    for seed in range(200):
        means = remembering(memory)(np.random.default_rng(seed), 120)
        n, squares = np.full(120, 40), np.full(120, 10.0)
        found.append(mean_shift_p((n[:90], means[:90], squares[:90]), (n[90:], means[90:], squares[90:])))
    assert 0.005 <= np.mean(np.array(found) < 0.05) <= 0.11


def test_a_mean_far_outside_is_sure_and_one_of_few_blocks_is_not() -> None:
    """A mean ten deviations of a day away is found; four days, or no spread at all, say nothing."""
    means = np.random.default_rng(0).normal(size=60)
    days = np.full(60, 40), means, np.full(60, 10.0)
    later = np.full(5, 40), np.full(5, 10.0), np.full(5, 10.0)
    assert mean_shift_p(days, later) < 1e-4
    short = days[0][:4], days[1][:4], days[2][:4]
    still = days[0], np.zeros(60), np.zeros(60)
    assert math.isnan(mean_shift_p(short, later))
    assert math.isnan(mean_shift_p(still, later))


@given(st.floats(0, 0.005), st.lists(st.floats(0, 1), max_size=3))
def test_combined_p_values_lie_between_the_smallest_and_its_multiple(
    first: float, others: list[float]
) -> None:
    """Combining is never surer than the smallest p-value, nor much less sure than Bonferroni, whatever the others."""
    smallest = min(first, *others, 1.0)
    found = combined([first, *others])
    assert smallest * (1 - 1e-4) <= found <= 1.5 * (1 + len(others)) * smallest + 1e-12
