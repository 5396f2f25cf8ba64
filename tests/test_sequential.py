"""Has the loss risen? Known answers, few false alarms however often one looks, and never a pass from nothing."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from prodkit.decisions.paired import always_valid, running_mean
from prodkit.decisions.sequential import loss_rise, rise_path
from prodkit.errors import DataError
from prodkit.evidence import Estimate
from prodkit.models.metrics import autocorrelation

KNOWN = Estimate(0.6, 0.57, 0.63, n=45_000, blocks=45)


def days(losses, n=900):
    """Daily mean losses from May on."""
    index = pd.date_range("2013-05-01", periods=len(losses), name="day")
    return pd.DataFrame({"loss": losses, "n": n}, index=index, dtype=float)


def resembling(phi, count, random, *, spread=0.12):
    """Days that follow AR(1), whose spread is the same whatever phi is."""
    found = np.empty(count)
    found[0] = random.normal(0, spread)
    for day in range(1, count):
        found[day] = phi * found[day - 1] + random.normal(0, spread * np.sqrt(1 - phi**2))
    return found


def test_a_running_mean_is_the_sequence_of_the_loss_itself():
    """From sums of days it says what the paired sequence says of the rows against nothing."""
    random = np.random.default_rng(0)
    blocks = np.repeat(np.arange(30), random.integers(5, 50, 30))
    losses = random.gamma(2, 0.3, len(blocks))
    sums, rows = np.bincount(blocks, losses), np.bincount(blocks)
    rowwise = always_valid(losses, np.zeros(len(losses)), blocks=blocks, horizon=45)
    found = running_mean(sums, rows, confidence=0.975)  # a first look spends half of the error
    assert [found.value, found.low, found.high] == pytest.approx([rowwise.value, rowwise.low, rowwise.high])
    with pytest.raises(DataError, match="must be of the same blocks"):
        running_mean([1.0], [1, 2])


@pytest.mark.parametrize("phi", [0.0, 0.4, 0.75])
def test_dependence_is_found_within_its_error(phi):
    """Of a year of days it is told to a tenth or so, and a few days are taken for usual ones."""
    random = np.random.default_rng(1)
    found = [autocorrelation(resembling(phi, 365, random)) for _ in range(20)]
    assert np.mean(found) == pytest.approx(phi, abs=0.05)
    assert autocorrelation(np.array([0.5, 0.6])) == autocorrelation(np.array([])) == 0.7


def test_a_rise_is_found_and_its_absence_is_too():
    """A step of two spreads is found within its first month; the days before it speak for the model."""
    random = np.random.default_rng(2)
    losses = 0.6 + resembling(0.3, 60, random)
    assert loss_rise(days(losses), reference=KNOWN, margin=0.02).outcome == "pass"
    found = loss_rise(days(losses[:30] + 0.24), reference=KNOWN, margin=0.02)
    assert (found.outcome, found.rung, found.n) == ("fail", 3, 30)
    assert found.limit == pytest.approx(0.65)
    assert found.low > found.limit


def test_looking_every_day_for_a_quarter_raises_few_false_alarms():
    """Of 60 healthy lives whose days resemble each other by .4, at most one in twenty sees an alarm at any look."""
    random, alarms = np.random.default_rng(3), 0
    for _ in range(60):
        losses = 0.6 + resembling(0.4, 45 + 90, random)
        before = losses[:45]
        half = stats.t.ppf(0.975, 44) * before.std(ddof=1) / np.sqrt(45)
        limit = before.mean() + half
        alarms += bool((rise_path(days(losses[45:]))["low"] > limit).any())
    assert alarms <= 3


def test_the_path_is_what_was_seen_then():
    """Its last row is the evidence of now, and its first that of the seventh day."""
    table = days(0.6 + resembling(0.4, 40, np.random.default_rng(4)))
    path = rise_path(table)
    found = loss_rise(table, reference=KNOWN, margin=0.0)
    assert path.iloc[-1].tolist() == [found.value, found.low, found.high]
    assert path.index[0] == table.index[6]
    then = loss_rise(table.iloc[:20], reference=KNOWN, margin=0.0)
    assert path.loc[table.index[19], "low"] == then.low
    assert rise_path(table.iloc[:6]).empty


@given(
    losses=st.lists(st.floats(allow_nan=True, allow_infinity=True), max_size=20),
    n=st.sampled_from([0.0, -1.0, 1.0, 900.0, float("nan")]),
    high=st.sampled_from([0.63, float("nan"), float("inf")]),
)
def test_nothing_malformed_passes(losses, n, high):
    """Too few days, a loss, a size or a reference that is no number: `error` or `inconclusive`, never `pass`."""
    reference = Estimate(0.6, 0.57, high, n=1, blocks=1)
    found = loss_rise(days(losses, n=n), reference=reference, margin=0.0)
    sound = len(losses) >= 7 and np.isfinite(losses).all() and n > 0 and high == 0.63
    sound = sound and max(map(abs, losses)) < 1e100
    if not sound:
        assert found.outcome in ("error", "inconclusive")
