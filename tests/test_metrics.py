"""Scores against sklearn, and intervals against the coverage they promise."""

import time

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from sklearn import metrics as known

from prodkit.decisions.paired import always_valid, difference
from prodkit.errors import DataError, LabelError, ParameterError
from prodkit.models.metrics import calibration_curve, intervals, row_losses, row_values, scores
from prodkit.params import LEAD, PRIMARY


def binary(n, *, seed=0, ties=False):
    """Labels and the chances that they were drawn with."""
    rng = np.random.default_rng(seed)
    chance = rng.uniform(0.02, 0.9, n)
    labels = rng.random(n) < chance
    return labels.astype(int), chance.round(1) if ties else chance


def multiclass(n, *, seed=0):
    """Labels of three classes and the chances that they were drawn with."""
    rng = np.random.default_rng(seed)
    chances = rng.dirichlet([1.0, 2.0, 3.0], n)
    return (chances.cumsum(axis=1) < rng.random((n, 1))).sum(axis=1).clip(0, 2), chances


def calibration_error(y, p):
    """Mean gap between predicted and observed share over the bins of the curve."""
    curve = calibration_curve(y, p)
    return float(np.average((curve["predicted"] - curve["observed"]).abs(), weights=curve["n"]))


def clustered(lives, days, *, seed, effect=0.01, noise=0.1, rows=(20, 60)):
    """Daily differences with a day effect: (lives, days) means and numbers of rows."""
    rng = np.random.default_rng(seed)
    sizes = rng.integers(*rows, size=(lives, days))
    return effect * rng.normal(size=sizes.shape) + noise / np.sqrt(sizes) * rng.normal(
        size=sizes.shape
    ), sizes


def spread(means, sizes):
    """Rows with these block means and sizes: losses and blocks."""
    return np.repeat(means, sizes), np.repeat(np.arange(len(means)), sizes)


@pytest.mark.parametrize("ties", [False, True])
def test_binary_scores_are_those_of_sklearn(ties):
    """Each binary score equals sklearn's, with and without tied predictions."""
    y, p = binary(2000, ties=ties)
    found = scores(y, p, task="binary")
    assert found["roc_auc"] == pytest.approx(known.roc_auc_score(y, p))
    assert found["average_precision"] == pytest.approx(known.average_precision_score(y, p))
    assert found["brier"] == pytest.approx(known.brier_score_loss(y, p))
    assert found["log_loss"] == pytest.approx(known.log_loss(y, p.clip(1e-6, 1 - 1e-6)))
    assert found["calibration_error"] == pytest.approx(calibration_error(y, p))


def test_multiclass_scores_are_those_of_sklearn():
    """Each multiclass score equals sklearn's, the area being one-vs-rest weighted by prevalence."""
    y, p = multiclass(2000)
    found = scores(y, p, task="multiclass")
    assert found["roc_auc"] == pytest.approx(known.roc_auc_score(y, p, multi_class="ovr", average="weighted"))
    assert found["accuracy"] == pytest.approx(known.accuracy_score(y, p.argmax(axis=1)))
    assert found["log_loss"] == pytest.approx(known.log_loss(y, p), rel=1e-4)
    assert found["calibration_error"] == pytest.approx(calibration_error(y, p))


def test_regression_scores_are_those_of_sklearn():
    """Each regression score equals sklearn's, and bias is positive when predictions are too high."""
    rng = np.random.default_rng(0)
    y = 1e6 + rng.normal(size=500)
    p = y + rng.normal(size=500) + 0.5
    found = scores(y, p, task="regression")
    assert found["mae"] == pytest.approx(known.mean_absolute_error(y, p))
    assert found["rmse"] == pytest.approx(known.root_mean_squared_error(y, p))
    assert found["r2"] == pytest.approx(known.r2_score(y, p), rel=1e-6)
    assert found["bias"] == pytest.approx(np.mean(p - y))
    assert found["bias"] > 0


@pytest.mark.parametrize(
    ("y", "p", "task", "undefined"),
    [
        ([1, 1], [0.2, 0.9], "binary", {"roc_auc", "average_precision"}),
        ([0, 0], [0.2, 0.9], "binary", {"roc_auc", "average_precision"}),
        ([0, 1], [[0.6, 0.3, 0.1], [0.2, 0.7, 0.1]], "multiclass", {"roc_auc"}),
        ([3.0, 3.0], [1.0, 2.0], "regression", {"r2"}),
    ],
)
def test_what_is_not_defined_is_nan(y, p, task, undefined):
    """A score that one class or a constant target leaves undefined is NaN; the others have values."""
    assert {name for name, value in scores(y, p, task=task).items() if np.isnan(value)} == undefined


@pytest.mark.parametrize(
    ("y", "p", "task"),
    [
        ([], [], "binary"),
        ([], np.empty((0, 3)), "multiclass"),
        ([], [], "regression"),
        ([0, 1, 1], [0.1, np.nan, 0.8], "binary"),
        ([0, 1, 1], [0.1, 1.5, 0.8], "binary"),
        ([0, 1, np.nan], [0.1, 0.5, 0.8], "binary"),
        ([0, 1], [[1.0, 1.0], [1.0, 1.0]], "multiclass"),
        ([0.0, 1.0], [np.inf, 1.0], "regression"),
    ],
)
def test_what_cannot_be_measured_is_nan(y, p, task):
    """No rows, or a prediction that is none, make every score and interval NaN without a warning."""
    assert np.isnan(list(scores(y, p, task=task).values())).all()
    for found in intervals(y, p, task=task, blocks=np.arange(len(y)), repeats=5).values():
        assert np.isnan([found.value, found.low, found.high]).all()


@pytest.mark.parametrize("task", ["binary", "multiclass", "regression"])
def test_row_losses_average_to_the_primary_loss(task):
    """The mean of the row losses is the score that PRIMARY names, and LEAD names a score too."""
    y, p = multiclass(300) if task == "multiclass" else binary(300)
    found = scores(y, p, task=task)
    assert row_losses(y, p, task=task).mean() == pytest.approx(found[PRIMARY[task]])
    assert LEAD[task] in found


def test_a_wrong_certainty_costs_a_finite_loss():
    """A certain and wrong prediction costs -log(1e-6), and one that is not finite costs NaN."""
    losses = row_losses([1, 1, 0], [0.0, np.nan, 0.0], task="binary")
    assert losses[0] == pytest.approx(-np.log(1e-6))
    assert np.isnan(losses[1])
    assert losses[2] == pytest.approx(0, abs=1e-5)


@pytest.mark.parametrize(
    ("y", "p", "task", "match"),
    [
        ([0, 1], [0.5], "binary", "shapes of a binary task"),
        ([0, 1], [0.5, 0.5], "multiclass", "shapes of a multiclass task"),
        ([0, 1], [[0.5, 0.5], [0.5, 0.5]], "binary", "shapes of a binary task"),
    ],
)
def test_shapes_that_do_not_fit_are_refused(y, p, task, match):
    """Predictions of another length or shape than the task's raise a DataError."""
    with pytest.raises(DataError, match=match):
        scores(y, p, task=task)


def test_labels_that_are_no_class_index_are_refused():
    """A label that is no index of a class raises a LabelError that shows it."""
    with pytest.raises(LabelError, match=r"class indices below 2; found 2\.0"):
        scores([0, 2], [0.5, 0.5], task="binary")


def test_calibration_curve_shows_bins_of_equal_mass():
    """Bins hold equally many rows, rise by prediction, and their intervals cover a perfect model's truth."""
    y, p = binary(20_000)
    curve = calibration_curve(y, p)
    assert list(curve["n"]) == [2000] * 10
    assert curve["predicted"].is_monotonic_increasing
    assert ((curve["low"] <= curve["predicted"]) & (curve["predicted"] <= curve["high"])).sum() >= 8
    assert ((curve["low"] <= curve["observed"]) & (curve["observed"] <= curve["high"])).all()


def test_calibration_intervals_are_wilsons():
    """The interval of each bin is scipy's Wilson interval of its observed share."""
    y, p = binary(300)
    for row in calibration_curve(y, p, bins=4).itertuples():
        hits = round(row.observed * row.n)
        wilson = stats.binomtest(hits, round(row.n)).proportion_ci(method="wilson")
        assert (row.low, row.high) == pytest.approx((wilson.low, wilson.high))


def test_equal_predictions_share_a_bin():
    """A constant prediction that is right on average has no calibration error, in any order of labels."""
    y = np.repeat([0, 1], [80, 20])
    assert calibration_error(y, np.full(100, 0.2)) == pytest.approx(0)
    assert len(calibration_curve(y, np.full(100, 0.2))) == 1


@pytest.mark.parametrize("worse", [0.05, 0.1, 0.2])
def test_calibration_error_is_the_shift_of_a_shifted_model(worse):
    """Predictions too high by a constant have that constant as their calibration error."""
    y, p = binary(50_000, seed=3)
    assert calibration_error(y, p * 0.8 + 0) > calibration_error(y, p)
    clipped = (p + worse).clip(0, 1)
    assert calibration_error(y, clipped) == pytest.approx((clipped - p).mean(), abs=0.01)


@settings(max_examples=40, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 1), st.sampled_from([0.0, 0.2, 0.2, 0.5, 0.9, 1.0])), max_size=40))
def test_calibration_survives_any_table(rows):
    """Whatever the ties and however few the rows, bins partition them and the error lies within 0..1."""
    y, p = [row[0] for row in rows], [row[1] for row in rows]
    assert calibration_curve(y, p)["n"].sum() == len(rows)
    assert not rows or scores(y, p, task="binary")["calibration_error"] == pytest.approx(
        calibration_error(y, p)
    )


def test_intervals_hold_their_value_and_the_range_of_the_score():
    """Every interval contains its value, stays within what the score can be, and repeats with the seed."""
    y, p = binary(400)
    found = intervals(y, p, task="binary", blocks=np.arange(400) % 5, repeats=50)
    for name, estimate in found.items():
        assert 0 <= estimate.low <= estimate.value <= estimate.high
        assert estimate.high <= 1 or name == "log_loss"
        assert (estimate.n, estimate.blocks) == (400, 5)
    assert found == intervals(y, p, task="binary", blocks=np.arange(400) % 5, repeats=50)


def test_a_resampled_score_is_the_score_of_the_repeated_rows():
    """The standard error is that of sklearn's score over rows repeated block by block."""
    y, p = binary(300, ties=True)
    days = np.arange(300) // 30
    found = intervals(y, p, task="binary", blocks=days, repeats=100, seed=4)["roc_auc"]
    draws = np.random.default_rng(4).multinomial(10, np.full(10, 0.1), size=100)
    again = [known.roc_auc_score(y, p, sample_weight=draw[days]) for draw in draws]
    assert found.high - found.value == pytest.approx(2.262157 * np.std(again) * np.sqrt(10 / 9), rel=1e-5)


def test_intervals_of_clustered_days_cover():
    """With 14 days that each have an effect, the 95% interval covers in 92% of cases or more."""
    rng = np.random.default_rng(2)
    days, covered = np.repeat(np.arange(14), 100), []
    for _ in range(300):
        chance = np.full(1400, 0.3)
        truth = rng.random(1400) < (0.3 + 0.08 * rng.normal(size=14))[days].clip(0.01, 0.99)
        found = intervals(truth, chance, task="binary", blocks=days, repeats=100)["brier"]
        covered.append(found.low <= 0.3 * 0.7**2 + 0.7 * 0.3**2 <= found.high)
    assert np.mean(covered) >= 0.92


def test_intervals_of_thirty_thousand_rows_take_less_than_a_second():
    """All binary scores of 30,000 rows are resampled 200 times within a second of one core."""
    y, p = binary(30_000)
    before = time.thread_time()
    intervals(y, p, task="binary", blocks=np.arange(30_000) % 30)
    assert time.thread_time() - before < 1


def test_one_block_excludes_nothing():
    """With a single block the ends are as wide as the score allows, and never NaN."""
    y, p = binary(50)
    found = intervals(y, p, task="binary", blocks=np.zeros(50))
    assert (found["roc_auc"].low, found["roc_auc"].high) == (0, 1)
    for interval in (difference, always_valid):
        pair = interval(p, p * 0, blocks=np.zeros(50))
        assert (pair.low, pair.high) == (-np.inf, np.inf)


def test_an_imbalanced_resample_without_a_class_is_left_out():
    """A score that most resamples leave undefined has the widest interval, without a warning."""
    found = intervals([1, 0, 0, 0, 0, 0], [0.9, 0.1, 0.2, 0.3, 0.1, 0.2], task="binary", blocks=range(6))
    assert found["roc_auc"].value == 1
    assert found["roc_auc"].low <= 1
    two = intervals([1, 0], [0.9, 0.1], task="binary", blocks=[0, 1], repeats=100)["roc_auc"]
    assert (two.low, two.high) == (0, 1)


@pytest.mark.parametrize("skewed", [False, True])
def test_difference_covers_with_fourteen_days(skewed):
    """The 95% interval covers a true difference in 92% of cases or more, with 14 days of unequal size."""
    means, sizes = clustered(600, 14, seed=1)
    if skewed:
        means = 0.01 * (np.random.default_rng(1).exponential(size=means.shape) - 1) + (means * 0.3)
    covered = []
    for day, rows in zip(means + 0.02, sizes, strict=True):
        losses, blocks = spread(day, rows)
        found = difference(losses, np.zeros_like(losses), blocks=blocks, repeats=500)
        covered.append(found.low <= 0.02 <= found.high)
    assert np.mean(covered) >= 0.92


def test_difference_is_never_narrower_than_students_t():
    """With days of one size the interval contains the t interval of the daily means, on both sides."""
    for seed in range(20):
        means = np.random.default_rng(seed).normal(size=12)
        losses, blocks = spread(means, np.full(12, 5))
        found = difference(losses, losses * 0, blocks=blocks, repeats=200)
        low, high = stats.t.interval(0.95, 11, loc=means.mean(), scale=stats.sem(means))
        assert found.low <= low + 1e-9
        assert found.high >= high - 1e-9


def test_two_days_exclude_nothing():
    """Two days that differ say nothing about a third: the ends are infinite, and the value is kept."""
    losses, days = np.repeat([0.1, 0.3], 50), np.repeat([0, 1], 50)
    for found in (difference(losses, losses * 0, blocks=days), always_valid(losses, losses * 0, blocks=days)):
        assert (found.low, found.high) == (-np.inf, np.inf)
        assert found.value == pytest.approx(0.2)


def test_rows_alone_would_be_too_sure():
    """Days with an effect of their own widen the interval well beyond that of rows taken as independent."""
    losses, blocks = spread(*(table[0] for table in clustered(1, 14, seed=2, noise=0)))
    by_day = difference(losses, losses * 0, blocks=blocks)
    by_row = difference(losses, losses * 0, blocks=np.arange(len(losses)))
    assert by_day.high - by_day.low > 3 * (by_row.high - by_row.low)


@pytest.mark.parametrize("interval", [difference, always_valid])
def test_swapping_the_models_mirrors_the_interval(interval):
    """The difference of b and a is that of a and b with its sign turned; positive: b is better."""
    rng = np.random.default_rng(0)
    worse, better, days = rng.random(900) + 1, rng.random(900), np.arange(900) % 20
    ahead, behind = interval(worse, better, blocks=days), interval(better, worse, blocks=days)
    assert ahead.low > 0
    assert ahead.value == pytest.approx(-behind.value)
    # Resampling is random, so its two tails need not mirror to the last digit.
    assert (ahead.low, ahead.high) == pytest.approx((-behind.high, -behind.low), abs=0.01)


@pytest.mark.parametrize("interval", [difference, always_valid])
def test_equal_models_differ_by_exactly_nothing(interval):
    """Two models with the same losses have the interval 0 to 0, so no rounding can favour one."""
    losses = np.random.default_rng(0).random(400)
    found = interval(losses, losses.copy(), blocks=np.arange(400) % 20)
    assert (found.value, found.low, found.high) == (0, 0, 0)
    constant = interval(losses + 0.1, losses, blocks=np.arange(400) % 20)
    assert constant.low == pytest.approx(0.1)


@pytest.mark.parametrize("interval", [difference, always_valid])
@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_a_loss_that_is_none_makes_the_difference_nan(interval, bad):
    """One loss that is not finite makes value and ends NaN, so that no comparison can pass."""
    losses = np.ones(40)
    losses[7] = bad
    found = interval(losses, losses, blocks=np.arange(40) % 10)
    assert np.isnan([found.value, found.low, found.high]).all()


@pytest.mark.parametrize("interval", [difference, always_valid])
def test_no_rows_have_no_difference(interval):
    """Without rows the difference is NaN, of 0 rows and 0 blocks."""
    found = interval([], [], blocks=[])
    assert np.isnan(found.value)
    assert (found.n, found.blocks) == (0, 0)


@pytest.mark.parametrize("interval", [difference, always_valid])
def test_blocks_and_losses_must_be_of_the_same_rows(interval):
    """Losses of other rows, and rows without a block, raise a DataError."""
    with pytest.raises(DataError, match="same rows"):
        interval([1.0, 2.0], [1.0], blocks=[0, 1])
    with pytest.raises(DataError, match="a block for each of 2 rows; found 1"):
        interval([1.0, 2.0], [1.0, 2.0], blocks=pd.to_datetime(["2013-01-01", None]))


def test_always_valid_survives_a_year_of_daily_looks():
    """Looked at on each day of twelve windows, a healthy pair is accused in at most 5% of lives."""
    means, sizes = clustered(60, 360, seed=5, rows=(1, 4))
    accused = 0
    for days, rows in zip(means, sizes, strict=True):
        accused += any(
            always_valid(losses, losses * 0, blocks=blocks, look=window + 1).low > 0
            for window in range(12)
            for until in range(1, 31)
            for losses, blocks in [
                spread(*(part[30 * window : 30 * window + until] for part in (days, rows)))
            ]
        )
    assert accused / 60 <= 0.05


def test_an_interval_for_one_look_would_not_survive_them():
    """The same healthy pairs are accused far more often when each look uses the interval for one look."""
    means, sizes = clustered(40, 90, seed=5, rows=(1, 4))
    accused = 0
    for days, rows in zip(means, sizes, strict=True):
        looks = [spread(days[:until], rows[:until]) for until in range(6, 91, 4)]
        accused += any(
            difference(losses, losses * 0, blocks=blocks, repeats=200).low > 0 for losses, blocks in looks
        )
    assert accused / 40 > 0.08


@pytest.mark.parametrize(("look", "power"), [(1, 0.9), (6, 0.5)])
def test_always_valid_finds_a_loss_of_one_day_effect(look, power):
    """A difference as large as the spread of independent days is found within one window of 30, most of the time."""
    means, sizes = clustered(100, 30, seed=6, noise=0)
    found = [
        always_valid(losses, losses * 0, blocks=blocks, look=look, memory=0.0).low > 0
        for losses, blocks in (spread(day + 0.01, rows) for day, rows in zip(means, sizes, strict=True))
    ]
    assert np.mean(found) >= power


def test_always_valid_is_wider_and_widens_with_the_looks():
    """It contains the interval for one look, widens with each window, and narrows with days."""
    losses, blocks = spread(*(table[0] for table in clustered(1, 30, seed=7)))
    once = difference(losses, losses * 0, blocks=blocks)
    widths = [
        always_valid(losses, losses * 0, blocks=blocks, look=look).high
        - always_valid(losses, losses * 0, blocks=blocks, look=look).low
        for look in (1, 2, 12, 100)
    ]
    assert once.high - once.low < widths[0]
    assert widths == sorted(widths)
    half = blocks < 15
    few = always_valid(losses[half], losses[half] * 0, blocks=blocks[half])
    assert few.high - few.low > widths[0]


def test_always_valid_is_the_t_mixture_of_its_source():
    """The low end is where the e-value of Wang and Ramdas reaches 1 / alpha, whatever the block sizes."""
    losses, blocks = spread(*(table[0] for table in clustered(1, 20, seed=8)))
    found = always_valid(losses, losses * 0, blocks=blocks, confidence=0.9, look=2, horizon=20, memory=0.0)
    sums, rows = np.bincount(blocks, losses)[1:], np.bincount(blocks)[1:]  # each after the one before it
    alpha = 0.1 / 6
    prior = 20 / (1 - 2 * np.log(alpha) + np.log(-2 * np.log(alpha)))
    for end in (found.low, found.high):
        x = sums - end * rows
        mass = (19 + prior) * (x @ x)
        e_value = np.sqrt(prior / (19 + prior)) * (mass / (mass - x.sum() ** 2)) ** 9.5
        assert e_value == pytest.approx(1 / alpha)


def test_windows_are_counted_from_one():
    """Window 0 would spend an infinite share of the error: a ParameterError says so."""
    with pytest.raises(ParameterError, match="look must be 1 or more; found 0"):
        always_valid([1.0], [1.0], blocks=[0], look=0)


def test_a_row_gets_the_value_of_the_best_decision():
    """Each row gets the decision of highest expected value, and what then happened counts."""
    costs = {"no": {"wait": 0.0, "call": -1.0}, "yes": {"wait": -10.0, "call": -1.0}}
    y, p = np.array([0, 1, 1, 1]), np.array([0.05, 0.2, 0.05, np.nan])
    for guess in (p, np.column_stack([1 - p, p])):
        values = row_values(y, guess, costs=costs, classes=["no", "yes"])
        assert values.tolist()[:3] == [0, -1, -10]
        assert np.isnan(values[3])


@pytest.mark.parametrize(
    ("costs", "match"),
    [
        ({"no": {"wait": 0, "call": 1}}, "value.yes must give each decision a value"),
        ({"no": {"wait": 0}, "yes": {"call": 1}}, "Decisions: wait"),
        ({}, "value.no must give each decision a value"),
    ],
)
def test_an_incomplete_cost_matrix_is_refused(costs, match):
    """A class without values, or with other decisions than the rest, raises a ParameterError."""
    with pytest.raises(ParameterError, match=match):
        row_values([0, 1], [0.1, 0.9], costs=costs, classes=["no", "yes"])
