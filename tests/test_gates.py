"""Gates: known answers, four outcomes, and no way to pass on malformed losses."""

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from prodkit.decisions.gates import alternative, at_most, enough, improvement, slices

DAYS = np.repeat(np.arange(20), 50)


def losses(gain, noise=0.05, seed=0):
    """Losses of two models on 20 days of 50 rows: the second loses less by `gain`, more or less, each day."""
    draw = np.random.default_rng(seed)
    before = draw.gamma(2.0, 0.3, len(DAYS))
    return before, before - gain - draw.normal(0, noise, 20)[DAYS]


def improve(before, after, margin=0.0):
    """The gate with the usual settings."""
    return improvement(
        "gain", before, after, blocks=DAYS[: len(before)], margin=margin, confidence=0.95, seed=0
    )


def act(before, after, limit=0.01):
    """The question that is put every day."""
    return alternative(
        "x", before, after, blocks=DAYS[: len(before)], limit=limit, confidence=0.95, look=1, note=""
    )


def test_a_clear_gain_passes_a_clear_loss_fails_and_noise_is_inconclusive():
    """The whole interval must lie beyond the margin, on either side."""
    assert improve(*losses(0.2)).outcome == "pass"
    assert improve(*losses(-0.2)).outcome == "fail"
    assert improve(*losses(0.0)).outcome == "inconclusive"


def test_a_gain_below_the_margin_fails_though_it_is_sure():
    """Significance is not enough: the size must be there."""
    assert improve(*losses(0.1, noise=0.01), margin=0.3).outcome == "fail"


def test_a_negative_margin_allows_a_small_loss():
    """Non-inferiority: a little worse passes if the margin allows it."""
    assert improve(*losses(-0.02, noise=0.01), margin=-0.1).outcome == "pass"


def test_something_better_is_a_reason_to_act_and_something_worse_is_none():
    """For a champion, `fail` says that another one would have served better by more than the limit."""
    assert act(*losses(0.3)).outcome == "fail"
    assert act(*losses(-0.3)).outcome == "pass"
    assert act(*losses(0.0)).outcome == "inconclusive"
    assert act(*losses(0.1, noise=0.01), limit=0.5).outcome == "pass"


@pytest.mark.parametrize("gate", [improve, act])
@given(st.sampled_from([np.nan, np.inf, -np.inf]), st.integers(0, 99), st.booleans())
def test_a_loss_that_is_no_number_is_an_error(gate, value, place, second):
    """One NaN or infinity on either side, anywhere, and nothing is concluded."""
    pair = [np.zeros(100), np.ones(100)]
    pair[second][place] = value
    assert gate(*pair).outcome == "error"


@pytest.mark.parametrize("gate", [improve, act])
def test_no_losses_or_unequal_ones_are_an_error(gate):
    """An empty side, or two of different rows, cannot be compared."""
    assert gate(np.array([]), np.array([])).outcome == "error"
    assert gate(np.zeros(3), np.zeros(2)).outcome == "error"


@pytest.mark.parametrize("gate", [improve, act])
def test_one_day_is_never_enough(gate):
    """However large the gain, a single day leaves it open."""
    assert gate(np.full(50, 9.0), np.zeros(50)).outcome == "inconclusive"


@given(st.integers(0, 1000), st.integers(1, 40), st.integers(1, 1000), st.integers(2, 20))
def test_enough_counts_rows_and_days(rows, days, min_rows, min_blocks):
    """Both must be there; otherwise it is inconclusive, not a failure."""
    blocks = np.arange(rows) % days
    found = enough("labels", np.zeros(rows), blocks, min_rows=min_rows, min_blocks=min_blocks)
    there = rows >= min_rows and min(rows, days) >= min_blocks
    assert found.outcome == ("pass" if there else "inconclusive")


def test_a_slice_that_gets_worse_fails_and_names_itself():
    """A better mean does not hide a group that pays for it; small groups are not judged."""
    before, after = losses(0.3, noise=0.02)
    group = np.where(np.arange(len(DAYS)) % 2, "a", "b").astype(object)
    group[:5] = "tiny"
    after = np.where(group == "a", before + 0.2, after)
    found = slices(
        pd.DataFrame({"group": group}),
        before,
        after,
        columns=["group"],
        blocks=DAYS,
        min_rows=100,
        margin=0.05,
        confidence=0.95,
        seed=0,
    )
    assert [(item.name, item.outcome) for item in found] == [
        ("slice.group=a", "fail"),
        ("slice.group=b", "pass"),
    ]


@pytest.mark.parametrize(
    ("sure_rows", "noise", "outcome"),
    [(0, 2.0, "pass"), (100, 2.0, "inconclusive"), (100_000, 2.0, "pass"), (100, 0.02, "pass")],
)
def test_a_slice_that_could_not_be_told_says_so(sure_rows, noise, outcome):
    """It passes only if it is too small to matter, and its note differs from one that was shown to be no worse."""
    before, after = losses(0.0, noise=noise)
    frame = pd.DataFrame({"group": np.full(len(DAYS), "a", dtype=object)})
    (item,) = slices(
        frame,
        before,
        after,
        columns=["group"],
        blocks=DAYS,
        min_rows=100,
        margin=0.01,
        confidence=0.95,
        seed=0,
        sure_rows=sure_rows,
    )
    assert item.outcome == outcome
    assert ("it could not be told" in item.note) == (noise == 2.0)


@pytest.mark.parametrize(
    ("value", "outcome"),
    [(0.1, "pass"), (0.2, "pass"), (0.3, "fail"), (None, "inconclusive"), (np.nan, "error")],
)
def test_a_budget_is_kept_broken_unknown_or_unusable(value, outcome):
    """Up to the limit it passes; what was not measured is not passed."""
    assert at_most("size", value, limit=0.2).outcome == outcome
