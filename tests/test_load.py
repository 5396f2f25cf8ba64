"""The load generator: when requests go out, what is timed, and when a step says nothing."""

import threading
import time

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from prodkit.errors import ParameterError
from prodkit.stress.load import Step, apply_load, arrivals, knee, quantile


def made(latencies_ms, *, rate=100.0, said="answered", late_seconds=0.0):
    """A step whose requests took so long."""
    due = np.arange(len(latencies_ms)) / rate
    sent = due + late_seconds * np.arange(len(due))
    return Step(rate, due, sent, due + np.asarray(latencies_ms) / 1000, np.full(len(due), said))


# When they are due


@given(st.floats(1, 500), st.floats(0.1, 5), st.sampled_from(["poisson", "even"]), st.integers(0, 2**31))
def test_a_schedule_rises_and_repeats(rate, seconds, kind, seed):
    """Requests are due in order, within the step, and at the same moments whenever the seed is the same."""
    due = arrivals(rate, seconds=seconds, kind=kind, seed=seed)
    assert (np.diff(due) >= 0).all()
    assert len(due) == 0 or (due[0] >= 0 and due[-1] < seconds)
    assert np.array_equal(due, arrivals(rate, seconds=seconds, kind=kind, seed=seed))


def test_poisson_arrivals_are_poisson():
    """Over many seeds the count has the mean and the variance of its rate, and gaps vary as exponential ones do."""
    counts = [len(arrivals(50, seconds=2, seed=seed)) for seed in range(2000)]
    assert np.mean(counts) == pytest.approx(100, abs=1)
    assert np.var(counts) == pytest.approx(100, rel=0.12)
    gaps = np.diff(arrivals(1000, seconds=20))
    assert gaps.std() == pytest.approx(gaps.mean(), rel=0.05)


@pytest.mark.parametrize("rate", [0, -1, float("nan"), float("inf")])
def test_a_rate_that_is_none_is_refused(rate):
    """No load without a positive, finite rate."""
    with pytest.raises(ParameterError, match="rate and seconds must be finite and above 0"):
        arrivals(rate, seconds=1)


def test_a_load_without_bounds_is_refused():
    """A mistyped rate does not keep the machine busy for a day."""
    with pytest.raises(ParameterError, match="must come to at most 1,000,000 requests; found 2,000,000"):
        arrivals(20_000, seconds=100)


# What is timed


def test_a_stall_is_felt_by_all_who_were_due_in_it():
    """One server stands still for .4 s: every request due meanwhile has waited until its end."""
    door, due = threading.Lock(), arrivals(100, seconds=1, kind="even")

    def ask(number):
        with door:
            if number == 30:
                time.sleep(0.4)
        return "answered"

    step = apply_load(ask, due, rate=100)
    within = (due >= 0.31) & (due <= 0.69)
    waited = (0.3 + 0.4) - due[within]
    assert (step.ended - step.due)[within].min() >= 0
    assert ((step.ended - step.due)[within] >= waited - 0.02).all()
    assert step.valid  # the requests went out in time all the same


def test_a_rate_that_was_not_reached_makes_a_step_invalid():
    """Requests that had to wait for a place went out late: what was measured is another rate."""
    step = apply_load(lambda _: time.sleep(0.05) or "answered", np.arange(20) / 100, rate=100, most_waiting=1)
    assert not step.valid
    assert step.reached_rate < 30
    assert np.percentile(step.lag_ms, 99) > 500


def test_what_was_never_sent_is_invalid_and_counts_as_failed():
    """After the end of its time nothing goes out any more, and nobody takes that for success."""
    step = apply_load(
        lambda _: time.sleep(0.2) or "answered",
        np.arange(10) / 100,
        rate=100,
        most_waiting=1,
        drain_seconds=0.3,
    )
    assert np.isnan(step.sent).sum() >= 6
    assert step.reached_rate == 0
    assert not step.valid
    assert step.share("failed") >= 0.6


def test_what_raises_has_failed_and_stops_nothing():
    """A request that ends in an error is one result among the others."""

    def ask(number):
        if number % 2:
            raise OSError("gone")
        return "degraded" if number % 4 else "answered"

    step = apply_load(ask, np.arange(40) / 1000, rate=1000)
    assert step.share("failed") == 0.5
    assert step.share("degraded") == 0.25
    assert step.share("answered") == 0.25


# What is made of it


@pytest.mark.parametrize(("share", "n"), [(0.5, 101), (0.9, 200), (0.99, 600)])
def test_the_interval_of_a_quantile_covers_it(share, n):
    """Of 2,000 samples of a skewed distribution, at least the promised share holds the true quantile."""
    draw = np.random.default_rng(7)
    truth = -np.log(1 - share)
    found = [quantile(draw.exponential(size=n), share) for _ in range(2000)]
    covered = np.mean([each.low <= truth <= each.high for each in found])
    assert 0.94 <= covered <= 0.99


def test_too_few_values_leave_the_interval_open():
    """A hundred requests cannot bound their 99th percentile from above; none at all say nothing."""
    assert quantile(np.arange(100.0), 0.99).high == float("inf")
    assert np.isnan(quantile(np.array([]), 0.99).value)


def test_the_knee_is_before_the_first_step_that_breaks():
    """A step beyond the limit, with failures or not valid ends the search, whatever comes after it."""
    limits = {"latency_ms": 50.0, "error_share": 0.01}
    good = [made([5.0] * 200, rate=rate) for rate in (100.0, 200.0, 300.0)]
    assert knee(good, **limits) == 300
    assert knee([good[0], made([90.0] * 200, rate=200.0), good[2]], **limits) == 100
    assert knee([good[0], made([5.0] * 200, rate=200.0, said="failed")], **limits) == 100
    assert knee([good[0], made([5.0] * 200, rate=200.0, late_seconds=0.005)], **limits) == 100
    assert knee([made([90.0] * 200), good[1]], **limits) is None
    assert knee([], **limits) is None
