"""One line of proof, and what many come to."""

import json
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from prodkit.evidence import Evidence, Window, overall

OUTCOMES = ["pass", "fail", "inconclusive", "error"]
numbers = st.none() | st.floats(allow_nan=True, allow_infinity=True)
evidence = st.builds(
    Evidence,
    name=st.text(max_size=20),
    outcome=st.sampled_from(OUTCOMES),
    value=numbers,
    low=numbers,
    high=numbers,
    limit=numbers,
    n=st.integers(0, 10**9),
    rung=st.integers(0, 5),
    note=st.text(max_size=20),
)


@given(evidence)
def test_it_survives_strict_json(item):
    """Whatever numbers went in, it is written as strict JSON and read back as it was."""
    text = json.dumps(item.to_dict(), allow_nan=False)
    assert Evidence.from_dict(json.loads(text)) == item


@given(evidence, st.sampled_from([math.nan, math.inf, -math.inf]))
def test_a_value_that_is_no_number_never_passes(item, value):
    """NaN or infinity for a value is an error, whatever outcome was claimed."""
    assert Evidence(item.name, item.outcome, value=value).outcome == "error"


@pytest.mark.parametrize("end", ["low", "high", "limit"])
def test_nan_at_an_end_is_an_error(end):
    """An interval or a limit that is NaN cannot support anything."""
    assert Evidence("x", "pass", value=1.0, **{end: math.nan}).outcome == "error"


def test_an_open_interval_is_no_error():
    """Too few days to bound a gain leave its interval open: that is not broken, only unknown."""
    item = Evidence("x", "inconclusive", value=1.0, low=-math.inf, high=math.inf)
    assert (item.outcome, item.low, item.high) == ("inconclusive", None, None)


def test_an_outcome_that_nobody_knows_is_an_error():
    """A misspelt outcome does not slip through as something else."""
    assert Evidence("x", "passed").outcome == "error"  # type: ignore[arg-type]


@given(st.lists(evidence, max_size=6))
def test_the_worst_outcome_counts(items):
    """Only a set of passes passes; nothing at all is inconclusive."""
    found = overall(items)
    outcomes = {item.outcome for item in items}
    assert (found == "pass") == (outcomes == {"pass"})
    if "error" in outcomes:
        assert found == "error"
    elif "fail" in outcomes:
        assert found == "fail"
    elif "inconclusive" in outcomes or not items:
        assert found == "inconclusive"


@pytest.mark.parametrize("text", ["2013-04-01/2013-05-01T00:00+02:00", "2013-04-01T00:00Z/2013-05-01"])
def test_a_window_with_a_zone_at_one_end_is_refused(text):
    """Its ends could not be compared."""
    with pytest.raises(ValueError, match="a time zone at both ends or at none"):
        Window.parse(text)
