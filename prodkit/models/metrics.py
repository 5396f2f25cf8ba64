"""Losses, scores with their uncertainty, calibration and business value of predictions.

Rows of one day share their weather, so days (``blocks``), not rows, are drawn again: a cluster bootstrap.
With too few blocks to exclude anything, the ends are infinite; what could not be measured is NaN.
Neighbouring days are taken as independent: where they are not, give weeks as blocks.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray
from scipy import stats

from prodkit.data.cells import numbers
from prodkit.data.schema import Schema
from prodkit.errors import DataError, LabelError, ModelError, ParameterError, missing_column
from prodkit.evidence import Estimate
from prodkit.params import Task
from prodkit.settings import imported

__all__ = [
    "MOST",
    "PRIOR_BLOCKS",
    "USUAL",
    "Floats",
    "autocorrelation",
    "block_codes",
    "calibration_curve",
    "daily_auc",
    "intervals",
    "mean_worth",
    "own_scores",
    "row_losses",
    "row_values",
    "row_worth",
    "sample_weights",
    "scores",
]

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

MOST = 0.9  # autocorrelation beyond that leaves nothing to go by
# Autocorrelation of daily gains: on the flights it is .4, and others' days may resemble each other more.
USUAL = 0.7
PRIOR_BLOCKS = 20  # that this counts for

_FLOOR = 1e-6  # a certain and wrong prediction costs -log(1e-6) = 13.8, so one row cannot decide alone
_SUM_TOLERANCE = 1e-3  # float32 probabilities of many classes do not add up to one more exactly than this
_GROUPS = 20
_UNIT = ("roc_auc", "average_precision", "brier", "calibration_error", "accuracy")


def row_losses(y_true: ArrayLike, y_pred: ArrayLike, *, task: Task) -> Floats:
    """The (n,) loss of each row, whose mean is the primary loss: log loss (nats) or absolute error.

    Probabilities are clipped at 1e-6. What is no prediction costs NaN (not finite, outside 0..1, or a row
    that does not add up to one), and the caller decides what that means.

    Raises:
        DataError, LabelError: as :func:`scores`.
    """
    truth, guess = _checked(y_true, y_pred, task)
    if task == "regression":
        gap: Floats = np.abs(guess - truth)
        return np.where(np.isfinite(gap), gap, np.nan)
    if guess.ndim == 1:
        right = np.where(truth == 1, guess, 1 - guess)
    else:
        right = guess[np.arange(len(truth)), np.nan_to_num(truth).astype(int)]
    losses: Floats = np.where(np.isnan(truth), np.nan, -np.log(right.clip(_FLOOR, 1 - _FLOOR)))
    return losses


def _checked(y_true: ArrayLike, y_pred: ArrayLike, task: Task) -> tuple[Floats, Floats]:
    """Both as floats of the task's shape; a prediction that is none becomes NaN."""
    truth, guess = np.asarray(y_true, dtype=float), np.asarray(y_pred, dtype=float)
    shape = f"{truth.shape} and {guess.shape}"
    if truth.ndim != 1 or len(truth) != len(guess) or guess.ndim != (2 if task == "multiclass" else 1):
        raise DataError("y_true, y_pred", rule=f"must have the shapes of a {task} task", value=shape)
    if task == "regression":
        return truth, guess
    top = 2 if guess.ndim == 1 else guess.shape[1]
    wrong = truth[~(np.isin(truth, np.arange(top)) | np.isnan(truth))]
    if len(wrong):
        raise LabelError("y_true", rule=f"must hold class indices below {top}", value=wrong[0])
    inside = (guess >= -_FLOOR) & (guess <= 1 + _FLOOR)
    if guess.ndim == 2:
        whole = np.abs(guess.sum(axis=1) - 1) <= _SUM_TOLERANCE
        inside = (inside.all(axis=1) & whole)[:, None]
    return truth, np.where(inside, guess.clip(0, 1), np.nan)


def sample_weights(column: str, rows: pd.DataFrame) -> Floats | None:
    """The (n,) weight of each row; None if no column of weights is named.

    Raises:
        SchemaError: there is no such column.
        DataError: a weight is missing, no number or negative, or all are 0.

    >>> sample_weights("w", pd.DataFrame({"w": [1, 3]})).tolist()
    [1.0, 3.0]
    """
    if not column:
        return None
    if column not in rows.columns:
        raise missing_column(
            column, rows.columns, fix="Set `weight` to a column of the table, or to nothing."
        )
    values = numbers(rows[column]).to_numpy(dtype=float)
    wrong = ~(np.isfinite(values) & (values >= 0))
    if wrong.any() or (len(values) and not values.sum() > 0):
        place = int(np.flatnonzero(wrong)[0]) if wrong.any() else 0
        value = f"{rows[column].iloc[place]} in row {place} ({wrong.sum()} of {len(rows)} rows)"
        fix = "Repair these rows, or leave `weight` empty: then all rows count alike."
        rule = "must be numbers of 0 or more, not all of them 0"
        raise DataError(f"weight {column}", rule=rule, value=value, fix=fix)
    return values


def own_scores(
    paths: Sequence[str], y_true: ArrayLike, y_pred: ArrayLike, *, weights: ArrayLike | None = None
) -> dict[str, float]:
    """The scores of functions of one's own, by the functions' names.

    Args:
        paths: such as ``ourlib:cost``; each is called with truth, prediction and weight of the rows.
        y_true: (n,) class indices, or numbers.
        y_pred: (n,) or (n, k), as for :func:`scores`.
        weights: (n,); ones if not given.

    Raises:
        ModelError: one cannot be imported, raises, or returns no number.
    """
    result = {}
    truth, guess = np.asarray(y_true), np.asarray(y_pred, dtype=float)
    each = np.ones(len(truth)) if weights is None else np.asarray(weights, dtype=float)
    for path in paths:
        name = path.replace(":", ".").rpartition(".")[2]
        try:
            value = imported(path)(truth.copy(), guess.copy(), each.copy())
        except Exception as error:  # it may raise anything
            fix = "Write it as my_module:cost; it is called with truth, prediction and weight, an array of each."
            rule = f"must be a function that gives a number, but raised {type(error).__name__}: {error}"
            raise ModelError(f"metrics: {path}", rule=rule, value=f"{len(truth)} rows", fix=fix) from error
        if np.ndim(value) or isinstance(value, bool | str | None) or not np.isreal(value):
            fix = "Return the mean, not one number a row."
            raise ModelError(
                f"metrics: {path}", rule="must return one number", value=repr(value)[:80], fix=fix
            )
        result[name] = float(value)
    return result


def scores(
    y_true: ArrayLike,
    y_pred: ArrayLike,
    *,
    task: Task,
    weights: ArrayLike | None = None,
    own: Sequence[str] = (),
) -> dict[str, float]:
    """All scores of a task, by name; NaN where one is not defined (one class only, a prediction not finite).

    Args:
        y_true: (n,) class indices 0..k-1, or numbers.
        y_pred: (n,) probability of class 1; (n, k) probabilities; or (n,) numbers.
        task: binary, multiclass or regression.
        weights: (n,) of the rows; equal if not given.
        own: import paths of scores of one's own, see :func:`own_scores`.

    Raises:
        DataError: the two are not of one length, or of another shape than the task's.
        LabelError: labels that are no class indices.
        ModelError: a score of one's own gives none.

    >>> scores([0, 0, 1, 1], [0.1, 0.4, 0.35, 0.8], task="binary")["roc_auc"]
    0.75
    """
    truth, guess = _checked(y_true, y_pred, task)
    once = _resampled(truth, guess, np.zeros(len(truth), dtype=np.int64), np.ones((1, 1)), task, weights)
    mine = own_scores(own, y_true, y_pred, weights=weights)
    return {name: float(values[0]) for name, values in once.items()} | mine


def intervals(
    y_true: ArrayLike,
    y_pred: ArrayLike,
    *,
    task: Task,
    blocks: ArrayLike,
    confidence: float = 0.95,
    repeats: int = 200,
    seed: int = 0,
    weights: ArrayLike | None = None,
    own: Sequence[str] = (),
) -> dict[str, Estimate]:
    """All scores, each with an interval: value -+ Student's t times the standard error of a block bootstrap.

    Whole blocks are resampled (Davison & Hinkley 1997, section 3.8; Cameron, Gelbach & Miller 2008); t has
    blocks - 1 degrees of freedom. Bins of the calibration error stay those of the sample. ``blocks`` is (n,):
    the day of each row. The error of a score of one's own is that of a jackknife over at most twenty groups of blocks.

    Raises:
        DataError, LabelError: as :func:`scores`; or a block is missing.
    """
    truth, guess = _checked(y_true, y_pred, task)
    codes, count = block_codes(blocks, len(truth))
    values = scores(y_true, y_pred, task=task, weights=weights, own=own)
    spread = dict.fromkeys(values, np.inf)
    if count > 1:
        draws = np.random.default_rng(seed).multinomial(count, np.full(count, 1 / count), size=repeats)
        again = _resampled(truth, guess, codes, draws.astype(float), task, weights)
        widen = stats.t.ppf((1 + confidence) / 2, count - 1) * np.sqrt(count / (count - 1))
        spread = {name: widen * _deviation(each) for name, each in again.items()}
        groups = codes * min(count, _GROUPS) // count
        t = stats.t.ppf((1 + confidence) / 2, min(count, _GROUPS) - 1)
        spread |= {
            name: t * error for name, error in _jackknife(own, truth, guess, groups, weights=weights).items()
        }
    return {name: _around(name, value, spread[name], len(truth), count) for name, value in values.items()}


def _jackknife(
    own: Sequence[str], truth: Floats, guess: Floats, groups: Ints, *, weights: ArrayLike | None
) -> dict[str, float]:
    """Standard error of each score of one's own, from leaving each group of rows (n,) out (Shao & Tu 1995)."""
    each = np.ones(len(truth)) if weights is None else np.asarray(weights, dtype=float)
    parts = [groups != group for group in np.unique(groups) if own]
    tables = [own_scores(own, truth[part], guess[part], weights=each[part]) for part in parts]
    table = pd.DataFrame(tables, dtype=float)
    return {str(name): float(np.sqrt(len(parts) - 1) * table[name].std(ddof=0)) for name in table}


def _deviation(values: Floats) -> float:
    """Standard deviation of the draws that have a value; infinite when most have none."""
    known = values[np.isfinite(values)]
    return float(known.std()) if 2 * len(known) > len(values) else np.inf


def _around(name: str, value: float, half: float, n: int, blocks: int) -> Estimate:
    """The interval value -+ half, within what the score can be."""
    floor = 0.0 if name in (*_UNIT, "log_loss", "mae", "rmse") else -np.inf
    ceiling = 1.0 if name in (*_UNIT, "r2") else np.inf
    if not np.isfinite(value):
        return Estimate(value, value, value, n, blocks)
    return Estimate(value, float(max(value - half, floor)), float(min(value + half, ceiling)), n, blocks)


class _Draws:
    """Scores of rows under every draw at once: ``counts`` is (draws, blocks), how often a block was drawn."""

    def __init__(self, codes: Ints, counts: Floats, weights: Floats) -> None:
        self.codes, self.counts, self.weights = codes, counts, weights
        self.size = self.total(np.ones(len(codes)))

    def total(self, rows: Floats) -> Floats:
        """The (draws,) weighted sums of a (n,) column."""
        sums: Floats = self.counts @ np.bincount(
            self.codes, rows * self.weights, minlength=self.counts.shape[1]
        )
        return sums

    def mean(self, rows: Floats) -> Floats:
        """The (draws,) means of a (n,) column."""
        return self.total(rows) / self.size

    def calibration(self, hit: Floats, sure: Floats, bins: int = 10) -> Floats:
        """Expected calibration error over the bins of the sample (Naeini, Cooper & Hauskrecht 2015).

        Perfect calibration still scores about sqrt(bins / n) / 3, so compare rather than test.
        """
        where, shape = _mass_bins(sure, bins), (bins, self.counts.shape[1])
        cells = np.bincount(
            where * shape[1] + self.codes, (sure - hit) * self.weights, minlength=shape[0] * shape[1]
        )
        gaps: Floats = np.abs(self.counts @ cells.reshape(shape).T).sum(axis=1)
        return gaps / self.size

    def ranking(self, truth: Floats, score: Floats) -> tuple[Floats, Floats, Floats]:
        """Area under the ROC curve, average precision and share of positives, from one sort; ties count half."""
        order = np.argsort(-score, kind="stable")
        ends = np.append(np.flatnonzero(np.diff(score[order])), len(order) - 1)
        positive, codes, own = truth[order] == 1, self.codes[order], self.weights[order]
        # Sums and not @ below: for vectors of this size, starting threads costs more than they do.
        area, precision, share = (np.empty(len(self.counts)) for _ in range(3))
        for draw, counts in enumerate(self.counts):
            weight = counts[codes] * own
            hits, every = np.cumsum(weight * positive)[ends], np.cumsum(weight)[ends]
            misses = every - hits
            gained, missed = np.diff(hits, prepend=0.0), np.diff(misses, prepend=0.0)
            pairs = (gained * (misses[-1] - misses + missed / 2)).sum()
            area[draw] = pairs / (hits[-1] * misses[-1])
            precise = (gained * hits / np.where(every > 0, every, 1)).sum()
            precision[draw] = precise / hits[-1] if misses[-1] else np.nan
            share[draw] = hits[-1] / every[-1]
        return area, precision, share


def _resampled(
    truth: Floats, guess: Floats, codes: Ints, counts: Floats, task: Task, weights: ArrayLike | None
) -> dict[str, Floats]:
    """Every score under every draw."""
    each = np.ones(len(truth)) if weights is None else np.asarray(weights, dtype=float)
    broken = len(truth) == 0 or not (np.isfinite(truth).all() and np.isfinite(guess).all())
    if broken:  # one score for all reasons: nothing was measured
        truth, guess = np.full(1, np.nan), np.full((1, 2) if guess.ndim == 2 else 1, np.nan)
        codes, each = np.zeros(1, dtype=np.int64), np.ones(1)
    with np.errstate(invalid="ignore", divide="ignore"):
        values = _SCORES[task](truth, guess, _Draws(codes, counts, each))
    return {name: np.full(len(counts), np.nan) if broken else each for name, each in values.items()}


def _binary(truth: Floats, guess: Floats, draws: _Draws) -> dict[str, Floats]:
    area, precision, _ = draws.ranking(truth, guess)
    return {
        "log_loss": draws.mean(row_losses(truth, guess, task="binary")),
        "roc_auc": area,
        "average_precision": precision,
        "brier": draws.mean((guess - truth) ** 2),
        "calibration_error": draws.calibration(truth, guess),
    }


def _multiclass(truth: Floats, guess: Floats, draws: _Draws) -> dict[str, Floats]:
    hit, sure = _claims(truth, guess, "multiclass")
    ranked = [draws.ranking(truth == level, guess[:, level]) for level in range(guess.shape[1])]
    return {
        "log_loss": draws.mean(row_losses(truth, guess, task="multiclass")),
        "roc_auc": np.sum([area * share for area, _, share in ranked], axis=0),
        "accuracy": draws.mean(hit),
        "calibration_error": draws.calibration(hit, sure),
    }


def _regression(truth: Floats, guess: Floats, draws: _Draws) -> dict[str, Floats]:
    error, centred = guess - truth, truth - np.average(truth, weights=draws.weights)
    square = draws.mean(error**2)
    variance = draws.mean(centred**2) - draws.mean(centred) ** 2
    return {
        "mae": draws.mean(np.abs(error)),
        "rmse": np.sqrt(square),
        "r2": 1 - square / np.where(variance > 0, variance, np.nan),
        "bias": draws.mean(error),
    }


_SCORES: dict[Task, Callable[[Floats, Floats, _Draws], dict[str, Floats]]] = {
    "binary": _binary,
    "multiclass": _multiclass,
    "regression": _regression,
}


def calibration_curve(
    y_true: ArrayLike, y_pred: ArrayLike, *, bins: int = 10, task: Task | None = None
) -> pd.DataFrame:
    """Predicted and observed share (``regression``: mean) of each bin of equal mass, with its 95% interval.

    Of several classes, the most likely one counts. Equal predictions share a bin.

    Returns:
        Columns predicted, observed, low, high, n; one row a bin, by rising prediction. Empty when a
        prediction is not finite or no probability. The interval (Wilson's, or the normal one of a mean) takes
        rows as independent.
    """
    task = task or ("multiclass" if np.ndim(y_pred) == 2 else "binary")
    hit, sure = _claims(*_checked(y_true, y_pred, task), task)
    columns = ["predicted", "observed", "low", "high", "n"]
    if len(sure) == 0 or not np.isfinite(sure).all():
        return pd.DataFrame({name: [] for name in columns}, dtype=float)
    rows = pd.DataFrame({"bin": _mass_bins(sure, bins), "predicted": sure, "observed": hit})
    curve = rows.groupby("bin").agg(
        predicted=("predicted", "mean"), observed=("observed", "mean"), n=("observed", "size")
    )
    if task == "regression":
        half = 1.96 * rows.groupby("bin")["observed"].sem().fillna(0.0)
        curve = curve.assign(low=curve["observed"] - half, high=curve["observed"] + half)
        return curve.reset_index(drop=True)[columns]
    z, share, n = stats.norm.ppf(0.975), curve["observed"].to_numpy(), curve["n"].to_numpy()
    centre = (share + z**2 / (2 * n)) / (1 + z**2 / n)
    half = z * np.sqrt(share * (1 - share) / n + z**2 / (4 * n**2)) / (1 + z**2 / n)
    ends = {"low": np.maximum(centre - half, 0.0), "high": np.minimum(centre + half, 1.0)}
    return curve.assign(**ends).reset_index(drop=True)[columns]


def _claims(truth: Floats, guess: Floats, task: Task) -> tuple[Floats, Floats]:
    """What calibration is about: did it happen (0/1), and with what probability was it announced."""
    if task == "multiclass":
        return (guess.argmax(axis=1) == truth).astype(float), guess.max(axis=1)
    return truth, guess


def _mass_bins(values: Floats, bins: int) -> Ints:
    """The bin of each value: bins of equal mass, equal values together, none empty."""
    ordered = np.sort(values)
    inner = np.unique(ordered[np.arange(1, bins) * len(values) // bins])
    return np.unique(np.searchsorted(inner, values, side="right"), return_inverse=True)[1].astype(np.int64)


def row_values(
    y_true: ArrayLike, y_pred: ArrayLike, *, costs: Mapping[str, Mapping[str, float]], classes: Sequence[Any]
) -> Floats:
    """The (n,) value of each row, when given the decision of highest expected value; NaN without a prediction.

    Args:
        y_true: (n,) class indices.
        y_pred: (n,) probability of class 1, or (n, k) probabilities.
        costs: ``{actual class: {decision: value}}``; what costs money is negative.
        classes: the class of each index.

    Raises:
        ParameterError: a class has no row, or the rows name different decisions.

    >>> costs = {"no": {"wait": 0, "call": -1}, "yes": {"wait": -10, "call": -1}}
    >>> row_values([0, 1], [0.05, 0.9], costs=costs, classes=["no", "yes"]).tolist()
    [0.0, -1.0]
    """
    names = [str(name) for name in classes]
    decisions = list(costs.get(names[0], {}))
    for name in names:
        given = dict(costs.get(name, {}))
        if not decisions or set(given) != set(decisions):
            fix = f"Decisions: {', '.join(decisions)}." if decisions else "Write {actual: {decision: value}}."
            rule = "must give each decision a value"
            raise ParameterError(f"value.{name}", rule=rule, value=given, fix=fix)
    matrix = np.array([[costs[name][decision] for decision in decisions] for name in names], dtype=float)
    truth, guess = _checked(y_true, y_pred, "binary" if np.ndim(y_pred) == 1 else "multiclass")
    chances = np.column_stack([1 - guess, guess]) if guess.ndim == 1 else guess
    known = np.isfinite(truth) & np.isfinite(chances).all(axis=1)
    values = np.full(len(truth), np.nan)
    values[known] = matrix[truth[known].astype(int), (chances[known] @ matrix).argmax(axis=1)]
    return values


def row_worth(
    value: str | Mapping[str, Mapping[str, float]],
    rows: pd.DataFrame,
    *,
    truth: np.ndarray,
    predicted: np.ndarray,
    schema: Schema,
) -> np.ndarray | None:
    """The (n,) business value of each row, NaN where it is not known; None if ``value`` names none.

    Args:
        value: costs as for :func:`row_values`, or a column, whose value does not depend on the prediction.
        rows: (n, any) rows, with that column.
        truth: (n,) encoded labels.
        predicted: (n,) or (n, k) predictions.
        schema: whose classes are meant.

    Raises:
        ParameterError: a cost matrix without classes, or one that does not fit them.
    """
    if not value:
        return None
    if isinstance(value, str):
        return numbers(rows[value]).to_numpy(dtype=float)
    if schema.task == "regression":
        rule, fix = "must be a column where a number is predicted", "A cost matrix needs classes."
        raise ParameterError("value", rule=rule, value="a cost matrix", fix=fix)
    return row_values(truth, predicted, costs=value, classes=schema.classes)


def mean_worth(
    worth: np.ndarray, *, blocks: np.ndarray, confidence: float = 0.95, weights: Floats | None = None
) -> Estimate:
    """Weighted mean of the known values (n,) with an interval: Student's t over whole blocks, a ratio of sums.

    >>> mean_worth(np.array([1.0, 2.0, np.nan, 3.0]), blocks=np.array([1, 1, 2, 2])).value
    2.0
    """
    known = np.isfinite(worth)
    codes, count = block_codes(blocks[known], int(known.sum()))
    each = (np.ones(len(worth)) if weights is None else weights)[known]
    n, total = int(known.sum()), each.sum()
    mean = float(worth[known] @ each / total) if total > 0 else float("nan")
    if count < 2 or not total > 0:
        return Estimate(mean, -np.inf, np.inf, n, count)
    sums, sizes = np.bincount(codes, worth[known] * each, count), np.bincount(codes, each, count)
    rest = sums - mean * sizes
    error = np.sqrt(count / (count - 1) * (rest @ rest)) / total
    half = float(stats.t.ppf((1 + confidence) / 2, count - 1) * error)
    return Estimate(mean, mean - half, mean + half, n, count)


def block_codes(blocks: ArrayLike, n: int) -> tuple[Ints, int]:
    """Blocks as 0..k-1 in their own order, and k.

    Raises:
        DataError: there are not n of them, or one is missing.
    """
    codes, levels = pd.factorize(np.asarray(blocks), sort=True)
    if len(codes) != n or (codes < 0).any():
        rule = f"must name a block for each of {n} rows"
        raise DataError("blocks", rule=rule, value=f"{(codes >= 0).sum()}")
    return codes.astype(np.int64), len(levels)


def daily_auc(y_true: ArrayLike, y_pred: ArrayLike, *, blocks: ArrayLike) -> pd.Series[float]:
    """ROC AUC within each block (day), by block; rows without a prediction and blocks of one class are left out.

    >>> daily_auc([0, 1, 1, 1], [0.2, 0.7, 0.1, 0.9], blocks=[1, 1, 2, 2]).to_dict()
    {1: 1.0}
    """
    table = pd.DataFrame({"truth": np.asarray(y_true), "guess": np.asarray(y_pred, float), "block": blocks})
    table = table.dropna()
    table["rank"] = table.groupby("block")["guess"].rank().where(table["truth"] == 1, 0.0)
    sums = table.groupby("block").agg(rows=("truth", "size"), hits=("truth", "sum"), rank=("rank", "sum"))
    both = sums[(sums["hits"] > 0) & (sums["hits"] < sums["rows"])]
    # Mann-Whitney: U is the rank sum of the positives less the least that it can be
    least, pairs = both["hits"] * (both["hits"] + 1) / 2, both["hits"] * (both["rows"] - both["hits"])
    return ((both["rank"] - least) / pairs).astype(float)


def autocorrelation(figures: ArrayLike, *, usual: float = USUAL, weight: int = PRIOR_BLOCKS) -> float:
    """How much a block's figure resembles that of the block before: the lag-one autocorrelation, 0 to .9.

    Its bias, (1 + 3 phi) / n (Marriott & Pope 1954; Kendall 1954), is taken out, and a usual value is mixed in, since a
    few blocks say little of it. A step in the mean raises it: that delays an alarm and causes none.

    Args:
        figures: (blocks,) one of each, in order.
        usual: what is expected before any is seen.
        weight: the number of blocks that this counts for.

    >>> autocorrelation(np.tile([1.0, -1.0], 500))
    0.0
    """
    values = np.asarray(figures, dtype=float)
    if len(values) < 3 or not np.isfinite(values).all():
        return usual
    rest = values - values.mean()
    spread = float(rest @ rest)
    seen = float(rest[1:] @ rest[:-1]) / spread if spread > 0 else 0.0
    unbiased = seen + (1 + 3 * max(seen, 0.0)) / len(values)
    mixed = (len(values) * unbiased + weight * usual) / (len(values) + weight)
    return float(np.clip(mixed, 0.0, MOST))
