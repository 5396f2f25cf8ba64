"""When a training pays: the rule on tables with known answers, and on simulated lives with a known truth."""

import lives
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import prodkit
from prodkit.errors import DataError, ParameterError


def aged(steps, slope, *, base=0.5, rows=100.0):
    """The summed losses of a recipe whose models lose more with each step of their age."""
    age = np.arange(steps) - np.arange(steps)[:, None]
    return np.where(age >= 0, rows * (base + slope * age), np.nan)


def ask(table, *, trained_at=2, price=4.0, rows=None, served=None, **settings):
    """The rule on one table, for a champion of the same recipe."""
    steps = len(table)
    served = table[trained_at] if served is None else served
    rows = np.full(steps, 100.0) if rows is None else rows
    return prodkit.worth_retraining(
        {"all": table}, rows, trained_at=trained_at, served=served, look=2, price=price, **settings
    )


def test_a_known_slope_is_found_and_priced():
    """With 200 rows a window, a slope of .01 and an age of ten steps, 20 are lost; the threshold is the square root."""
    answer = ask(aged(12, 0.01))
    assert answer.retrain
    assert answer.expected == pytest.approx(200 * 0.01 * 10)
    assert answer.threshold == pytest.approx((2 * 4.0 * 200 * 0.01 * 2) ** 0.5)
    assert answer.slope == pytest.approx(0.01)


def test_models_that_do_not_age_are_never_retrained():
    """Without staleness nothing is expected to be lost, whatever the price."""
    for price in (0.0, 1.0, 100.0):
        answer = ask(aged(12, 0.0), price=price)
        assert not answer.retrain
        assert answer.expected == 0


@given(slope=st.floats(0, 0.1), price=st.floats(0, 100), factor=st.floats(0.01, 100), age=st.integers(1, 9))
def test_the_unit_of_the_loss_does_not_matter(slope, price, factor, age):
    """Losses and price in another unit lead to the same decision, with figures in that unit."""
    table, trained_at = aged(12, slope), 11 - age
    one = ask(table, trained_at=trained_at, price=price)
    other = ask(table * factor, trained_at=trained_at, price=price * factor)
    assert other.expected == pytest.approx(one.expected * factor, rel=1e-6, abs=1e-9)
    assert other.threshold == pytest.approx(one.threshold * factor, rel=1e-6, abs=1e-6)


@given(slope=st.floats(0, 0.1), low=st.floats(0, 100), more=st.floats(0, 100), seed=st.integers(0, 99))
def test_a_dearer_training_is_asked_for_no_sooner(slope, low, more, seed):
    """What does not pay at a price does not pay at a higher one."""
    table = aged(12, slope) + np.random.default_rng(seed).normal(0, 2, (12, 12))
    assert ask(table, price=low).retrain or not ask(table, price=low + more).retrain


def test_a_loss_of_the_champion_beyond_its_age_counts():
    """A champion that loses more of late than the slope says is replaced; one that loses less is kept."""
    table = aged(12, 0.01)
    assert ask(table, served=table[2] + 20.0).expected > ask(table).expected
    assert not ask(table, served=table[2] - 20.0).retrain


def test_steps_without_labels_or_on_hold_stay_out_of_every_sum():
    """Late labels and held rows, which count no rows, change neither the slope nor the recipe."""
    table, rows = aged(12, 0.01), np.full(12, 100.0)
    rows[[5, 10, 11]] = 0
    broken = table.copy()
    broken[:, [5, 10, 11]] = 1e9
    answer = ask(broken, rows=rows, served=np.where(rows > 0, table[2], np.nan))
    assert answer.slope == pytest.approx(0.01)
    assert answer.retrain


def test_the_recipe_that_loses_least_one_step_ahead_is_chosen():
    """Of several recipes the one whose fresh models lose least is named, and its slope is used."""
    answer = prodkit.worth_retraining(
        {"all": aged(12, 0.0, base=0.6), "recent": aged(12, 0.02)},
        [100] * 12, trained_at=2, served=aged(12, 0.02)[2], look=2, price=4.0,
    )  # fmt: skip
    assert (answer.recipe, round(answer.slope, 6)) == ("recent", 0.02)


@pytest.mark.parametrize("steps", [0, 1, 2])
def test_a_life_too_short_to_tell_asks_for_nothing(steps):
    """Without a pair of a fit and a later step the slope is unknown, and nothing is asked for."""
    answer = ask(aged(steps, 0.1), trained_at=0, served=np.full(steps, np.nan))
    assert not answer.retrain
    assert np.isnan(answer.slope)


def test_bad_input_is_refused_by_name():
    """Arrays of other steps, negative rows and a price that is no number are errors that name the argument."""
    table = aged(12, 0.01)
    with pytest.raises(DataError, match=r"served must have the shape \(12,\)"):
        ask(table, served=[1.0])
    with pytest.raises(DataError, match="rows must be finite and not negative"):
        ask(table, rows=np.full(12, -1.0))
    with pytest.raises(ParameterError, match="price must be 0 or more"):
        ask(table, price=float("nan"))
    with pytest.raises(ParameterError, match="look must be a whole number of steps"):
        prodkit.worth_retraining({}, [1.0], trained_at=0, served=[1.0], look=2.5, price=1.0)
    with pytest.raises(ParameterError, match="window_days must be a positive number"):
        ask(table, window_days=0)


@given(st.floats(-0.2, 0.2), st.floats(0.001, 0.2), st.floats(0, 0.2))
def test_the_chance_of_being_worse_falls_with_what_is_tolerated(mean, noise, tolerated):
    """It is a probability, and the more may be lost, the smaller it is."""
    gaps = mean + np.random.default_rng(0).normal(0, noise, 300)
    days = np.arange(300) // 20
    strict, lax = (prodkit.chance_worse(gaps, blocks=days, tolerated=x) for x in (0.0, tolerated))
    assert 0 <= lax <= strict <= 1


def test_a_plain_difference_is_seen_and_one_day_says_little():
    """A model that loses .1 of skill more on each of 30 days is surely worse; one day alone leaves the prior."""
    gaps = 0.1 + np.random.default_rng(0).normal(0, 0.05, 600)
    assert prodkit.chance_worse(gaps, blocks=np.arange(600) // 20) > 0.95
    assert prodkit.chance_worse(gaps[:20], blocks=np.zeros(20)) == pytest.approx(0.5)
    assert np.isnan(prodkit.chance_worse([np.nan, 0.1], blocks=[0, 1]))


@pytest.fixture(scope="module")
def outcomes():
    """Mean outcome of the rule and of never training, over ten lives of each kind."""
    return {kind: (lives.mean(kind, lives.economy, lives=10), lives.mean(kind, lives.never, lives=10))
            for kind in lives.KINDS}  # fmt: skip


def test_where_nothing_changes_nothing_is_done(outcomes):
    """Of ten windows without a change, less than one sees a training, and regret stays below .03 of a window."""
    rule, _ = outcomes["nothing"]
    assert rule.regret <= 0.03
    assert rule.trainings <= 1


@pytest.mark.parametrize("kind", ["abrupt", "gradual", "walk"])
def test_a_change_that_lasts_is_met_in_time(outcomes, kind):
    """Regret, trainings paid, is at most a quarter of what never training costs."""
    rule, never = outcomes[kind]
    assert rule.regret <= never.regret / 4


@pytest.mark.parametrize("kind", lives.KINDS)
def test_a_promotion_does_little_harm(outcomes, kind):
    """What a promotion loses against the predecessor stays below .07 of a window on average, in every kind of world."""
    assert outcomes[kind][0].harm <= 0.07
