"""The tail of the F distribution is the one that scipy computes."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.special import fdtrc

from prodkit.drift.tails import f_tail

DF = st.floats(0.5, 2000)


@given(st.floats(1e-6, 1e6), DF, DF)
def test_the_tail_is_that_of_scipy(x: float, df1: float, df2: float) -> None:
    """For any degrees of freedom, fractions too, both agree to nine digits however small the tail is."""
    assert f_tail(x, df1, df2) == pytest.approx(fdtrc(df1, df2, x), rel=1e-9, abs=1e-280)


@pytest.mark.parametrize(("x", "tail"), [(0.0, 1.0), (-1.0, 1.0), (math.inf, 0.0)])
def test_the_ends_are_exact(x: float, tail: float) -> None:
    """Nothing is sure at zero and everything at infinity."""
    assert f_tail(x, 3.0, 10.0) == tail


@pytest.mark.parametrize(
    "given", [(math.nan, 1.0, 1.0), (1.0, 0.0, 1.0), (1.0, 1.0, 0.0), (1.0, math.nan, 1.0)]
)
def test_what_cannot_be_told_is_nan(given: tuple[float, float, float]) -> None:
    """Without degrees of freedom or a statistic there is no probability, and no error either."""
    assert math.isnan(f_tail(*given))
