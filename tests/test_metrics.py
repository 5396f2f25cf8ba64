"""Scores against sklearn, and intervals against the coverage they promise."""

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from sklearn import metrics as known

from prodkit.decisions.paired import always_valid, difference
from prodkit.errors import DataError, ModelError, ParameterError, ProdkitError, SchemaError
from prodkit.models.metrics import (
    autocorrelation,
    calibration_curve,
    daily_auc,
    intervals,
    mean_worth,
    row_losses,
    row_values,
    sample_weights,
    scores,
)
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


@pytest.mark.parametrize("task", ["binary", "ties", "multiclass", "regression"])
def test_scores_are_those_of_sklearn(task):
    """Each score equals sklearn's, with tied predictions too; bias is positive when predictions are too high."""
    y, p = multiclass(2000) if task == "multiclass" else binary(2000, ties=task == "ties")
    if task == "regression":
        y, p = 1e6 + p, 1e6 + p + np.random.default_rng(0).normal(0.5, size=2000)
        expected = {
            "mae": known.mean_absolute_error,
            "rmse": known.root_mean_squared_error,
            "r2": known.r2_score,
        }
        expected = {name: score(y, p) for name, score in expected.items()} | {"bias": np.mean(p - y)}
    elif task == "multiclass":
        area = known.roc_auc_score(y, p, multi_class="ovr", average="weighted")
        expected = {"roc_auc": area, "accuracy": known.accuracy_score(y, p.argmax(axis=1))}
        expected |= {"log_loss": known.log_loss(y, p), "calibration_error": calibration_error(y, p)}
    else:
        expected = {
            "roc_auc": known.roc_auc_score(y, p),
            "average_precision": known.average_precision_score(y, p),
        }
        expected |= {
            "brier": known.brier_score_loss(y, p),
            "log_loss": known.log_loss(y, p.clip(1e-6, 1 - 1e-6)),
        }
        expected |= {"calibration_error": calibration_error(y, p)}
    task = "binary" if task == "ties" else task
    assert scores(y, p, task=task) == pytest.approx(expected, rel=1e-4)
    assert row_losses(y, p, task=task).mean() == pytest.approx(expected[PRIMARY[task]], rel=1e-4)
    assert LEAD[task] in expected


@settings(max_examples=150, deadline=None)
@given(
    rows=st.sampled_from([0, 1, 2, 5, 31]),
    days=st.integers(1, 3),
    task=st.sampled_from(["binary", "multiclass", "regression"]),
    plain=st.sampled_from(["", "one class", "one value"]),
    wrong=st.sampled_from([None, np.nan, np.inf, 1.5]),
    seed=st.integers(0, 99),
)
def test_tables_as_small_or_broken_as_can_be_have_figures_or_none(rows, days, task, plain, wrong, seed):
    """No rows to a month of them, one class, one value, an answer that is none: figures or NaN, and no warning."""
    random, k = np.random.default_rng(seed), {"binary": 2, "multiclass": 3}.get(task, 0)
    truth = random.integers(0, k, rows) if k else random.normal(size=rows)
    truth = truth * 0 if plain == "one class" else truth
    said = random.dirichlet(np.ones(3), rows) if k == 3 else random.random(rows)
    said = np.full_like(said, 1 / 3) if plain == "one value" else said
    if wrong is not None and rows:
        said[0] = wrong
    day, spoilt = (
        random.integers(0, days, rows),
        rows == 0 or not np.isfinite(row_losses(truth, said, task=task)).all(),
    )
    for name, figure in intervals(truth, said, task=task, blocks=day, repeats=5).items():
        assert not spoilt or np.isnan([figure.value, figure.low, figure.high]).all()
        assert np.isnan(figure.value) or figure.low <= figure.value <= figure.high, name
    curve = calibration_curve(truth, said, task=task)
    assert curve.empty if spoilt else curve["n"].sum() == rows
    worth = mean_worth(row_losses(truth, said, task=task), blocks=day)
    assert worth.low <= worth.value <= worth.high or np.isnan(worth.value)
    assert 0 <= autocorrelation(truth) <= 0.9
    if task == "binary":
        assert daily_auc(truth, said, blocks=day).dropna().between(0, 1).all()
    for interval in (difference, always_valid):
        losses = row_losses(truth, said, task=task)
        found = interval(losses, losses + 0.1 * random.random(rows), blocks=day)
        assert found.low <= found.value <= found.high or np.isnan(found.value)
        assert np.isnan(found.value) == spoilt


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
        ([0, 2], [0.5, 0.5], "binary", r"class indices below 2; found 2\.0"),
    ],
)
def test_shapes_and_labels_that_do_not_fit_are_refused(y, p, task, match):
    """Predictions of another length or shape than the task's, and labels that are no class, raise an error."""
    with pytest.raises(ProdkitError, match=match):
        scores(y, p, task=task)


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


@pytest.mark.parametrize("interval", [difference, always_valid])
def test_what_cannot_be_compared_is_refused_or_excludes_nothing(interval):
    """Losses of other rows and rows without a day raise an error; one or two days have infinite ends."""
    with pytest.raises(DataError, match="same rows"):
        interval([1.0, 2.0], [1.0], blocks=[0, 1])
    with pytest.raises(DataError, match="a block for each of 2 rows; found 1"):
        interval([1.0, 2.0], [1.0, 2.0], blocks=pd.to_datetime(["2013-01-01", None]))
    losses = np.repeat([0.1, 0.3], 50)
    for days in (np.zeros(100), np.repeat([0, 1], 50)):
        found = interval(losses, losses * 0, blocks=days)
        assert (found.low, found.high) == (-np.inf, np.inf)
        assert found.value == pytest.approx(0.2)
    with pytest.raises(ParameterError, match="look must be 1 or more; found 0"):
        always_valid([1.0], [1.0], blocks=[0], look=0)


@settings(max_examples=25, deadline=None)
@given(st.sampled_from(["binary", "multiclass", "regression"]), st.integers(0, 99))
def test_a_weight_of_two_is_a_row_twice(task, seed):
    """Each score, with whole weights, is that of the rows repeated so often; a row of weight 0 is not there."""
    random, n = np.random.default_rng(seed), 60
    weights, blocks = random.integers(0, 4, n), np.arange(n) // 6
    truth = (
        random.normal(size=n) if task == "regression" else random.integers(0, 2 + (task == "multiclass"), n)
    )
    guess = random.dirichlet(np.ones(3), n) if task == "multiclass" else random.random(n)
    often = np.repeat(np.arange(n), weights)
    weighted = scores(truth, guess, task=task, weights=weights)
    repeated = scores(truth[often], guess[often], task=task)
    binned = {"calibration_error"}  # its groups are of equal numbers of rows
    assert all(weighted[name] == pytest.approx(repeated[name]) for name in repeated.keys() - binned)
    table = intervals(truth, guess, task=task, blocks=blocks, weights=weights)
    assert {name: each.value for name, each in table.items()} == pytest.approx(weighted)
    worth = mean_worth(truth.astype(float), blocks=blocks, weights=weights.astype(float))
    again = mean_worth(truth[often].astype(float), blocks=blocks[often])
    assert (worth.value, worth.low) == pytest.approx((again.value, again.low), rel=0.02)


@pytest.mark.parametrize(
    ("cells", "words"),
    [
        ([1.0, -2.0], r"weight w must be numbers of 0 or more.*found -2\.0 in row 1 \(1 of 2 rows\)"),
        ([1.0, None], "weight w must be numbers of 0 or more.*found nan in row 1"),
        (
            ["1", "heavy"],
            "weight w must be numbers of 0 or more.*found heavy in row 1.*leave `weight` empty",
        ),
        ([0.0, 0.0], "not all of them 0"),
    ],
)
def test_weights_that_are_none_are_refused(cells, words):
    """Negative, missing, not numeric, all zero: the error shows the cell and says what to do."""
    with pytest.raises(DataError, match=words):
        sample_weights("w", pd.DataFrame({"w": cells}))


def test_a_column_of_weights_that_is_not_there_is_named():
    """The nearest column is proposed."""
    with pytest.raises(SchemaError, match=r"wieght must be a column of the table.*Did you mean weight"):
        sample_weights("wieght", pd.DataFrame({"weight": [1.0]}))
    assert sample_weights("", pd.DataFrame()) is None


def cost(truth, prediction, weight):
    """A score of one's own: an error below counts three times."""
    return np.average(np.where(prediction < truth, 3.0, 1.0) * np.abs(prediction - truth), weights=weight)


def one_number_a_row(truth, prediction, weight):
    """No score."""
    return truth * weight


def failing(truth, prediction, weight):
    """It raises."""
    raise ZeroDivisionError("no rows above")


def test_a_score_of_ones_own_stands_beside_the_others():
    """It gets truth, prediction and weight, is named by its function, and has an interval over days."""
    random, n = np.random.default_rng(0), 400
    truth, weights = random.normal(size=n), random.random(n)
    guess = truth + random.normal(size=n)
    settings_of = {"task": "regression", "blocks": np.arange(n) // 20, "weights": weights}
    table = intervals(truth, guess, own=["test_metrics:cost"], **settings_of)
    assert list(table) == ["mae", "rmse", "r2", "bias", "cost"]
    assert table["cost"].value == pytest.approx(cost(truth, guess, weights))
    assert table["cost"].low < table["cost"].value < table["cost"].high
    same = intervals(truth, guess, own=["test_metrics.mean_error"], **settings_of)
    widths = [same[name].high - same[name].low for name in ("mae", "mean_error")]
    assert widths[0] == pytest.approx(widths[1], rel=0.35)  # jackknife and bootstrap agree


def mean_error(truth, prediction, weight):
    """What is there already, as one's own."""
    return np.average(np.abs(prediction - truth), weights=weight)


@pytest.mark.parametrize(
    ("path", "words"),
    [
        ("test_metrics:failing", "raised ZeroDivisionError: no rows above.*truth, prediction and weight"),
        (
            "test_metrics:one_number_a_row",
            "metrics: test_metrics:one_number_a_row must return one number.*the mean",
        ),
        ("test_metrics:nothing_such", "AttributeError.*Write it as my_module:cost"),
        ("no_such_module:cost", "ModuleNotFoundError"),
    ],
)
def test_a_score_of_ones_own_that_gives_none_says_so(path, words):
    """The error names the function, what happened, and what it has to do."""
    with pytest.raises(ModelError, match=words):
        scores([0, 1], [0.2, 0.7], task="binary", own=[path])
