"""The circuit breaker: when it opens, whom it lets through, and that nobody waits for it."""

from __future__ import annotations

import threading
import time
from collections import deque

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from prodkit.scoring.breaker import Breaker, Calls, LateError, Limits, ShedError

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


@pytest.mark.parametrize("outcome", ["x", "s"])
def test_a_bad_probe_opens_it_for_as_long_again(breaker, clock, outcome):
    """One failure, or one slow answer, and the rest begins anew."""
    calls(breaker, "x", "x", "x", "x")
    clock.now += 5.1
    calls(breaker, outcome)
    assert breaker.state == "open"
    clock.now += 4
    assert breaker.permit() is None
    clock.now += 1.1
    assert breaker.permit() is not None


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
