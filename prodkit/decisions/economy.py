"""Does a training pay? What keeping the champion is expected to cost in the next window, against a price."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import stats

from prodkit.errors import DataError, ParameterError
from prodkit.evidence import Evidence, Outcome
from prodkit.models.metrics import autocorrelation, block_codes

__all__ = ["Economics", "Retraining", "chance_worse", "posterior", "worth_retraining"]

Floats = NDArray[np.float64]

_OWN_WEIGHT = 0.7  # of what the champion itself has shown beyond the slope: part of it is chance
_RECENT_WINDOWS = 2  # of matured labels, over which that is measured
_MONTH_DAYS = 28  # whose rows a training is priced by
_YEAR_DAYS = 365  # a training has to pay within a year of windows


@dataclass(frozen=True)
class Retraining:
    """Whether a training pays, and by which figures.

    Attributes:
        retrain: the expected excess exceeds the threshold.
        expected: summed loss of the next window that a fresh model is expected to save.
        threshold: summed loss from which a training pays.
        slope: by how much a row's loss rises with each step of a model's age, 0 or more; NaN where it is not known.
        recipe: the one that has lost least so far, one step ahead; empty where none was measured.
        window_rows: labelled rows of a window, on average.
    """

    retrain: bool
    expected: float
    threshold: float
    slope: float
    recipe: str
    window_rows: float = 0.0


def worth_retraining(
    losses: Mapping[str, ArrayLike],
    rows: ArrayLike,
    *,
    trained_at: int,
    served: ArrayLike,
    look: int,
    price: float,
    window_days: float = 30,
) -> Retraining:
    """Compare the expected excess loss of the champion in the next window with the square-root price of a training.

    Models age: the loss of a row is taken to rise by a slope ``k`` with each step since the model was fitted: a line
    through the origin, by least squares over all pairs of a fit and a later step. With ``W`` labelled rows a window, a
    champion of age ``a`` steps is expected to lose ``W (k a + .7 (o - m))`` more than a fresh model: ``o`` is its own
    excess a row over its last two windows, ``m`` what the slope says of these. A cycle is cheapest where another window
    costs ``sqrt(2 C W k look)`` (the economic order quantity, Harris 1913; age replacement, Aven & Bergman 1986). Nor
    is a training asked for that would not pay within a year of windows. All arrays end now.

    Args:
        losses: for each recipe, (steps, steps): [j, i] is the summed loss on step i of the recipe fitted on what was
            labelled when step j began; NaN where i < j, or where it was not measured.
        rows: (steps,) labelled rows, or the sum of their weights; 0 where no label has matured.
        trained_at: the step at which the champion was fitted; negative if that was before the first step.
        served: (steps,) summed loss of the champion; NaN where it did not serve or no label has matured.
        look: steps in a window.
        price: of a training, in summed loss.
        window_days: days in a window.

    Raises:
        DataError: the arrays are not of the same steps.
        ParameterError: ``look`` or ``window_days`` is not positive, or ``price`` is negative or not finite.

    >>> age = np.arange(12) - np.arange(12)[:, None]
    >>> aged = np.where(age >= 0, 100 * (0.5 + 0.01 * age), np.nan)
    >>> result = worth_retraining({"all": aged}, [100] * 12, trained_at=2, served=aged[2], look=2, price=4.0)
    >>> result.retrain, round(result.expected, 2), round(result.threshold, 2), round(result.slope, 4)
    (True, 20.0, 5.66, 0.01)
    """
    sizes, own = np.asarray(rows, dtype=float), np.asarray(served, dtype=float)
    tables = {name: np.asarray(table, dtype=float) for name, table in losses.items()}
    _check(tables, sizes, own, look=look, price=price, window_days=window_days)
    matured = np.flatnonzero(sizes > 0)
    if not len(matured) or not tables:
        return Retraining(False, 0.0, price * window_days / _YEAR_DAYS, float("nan"), "")
    fresh = {name: np.where(sizes > 0, np.diagonal(table), np.nan) for name, table in tables.items()}
    recipe = _least(fresh, len(sizes))
    slope = _slope(tables[recipe], sizes) if recipe else float("nan")
    window_rows = look * float(sizes[matured[0] : matured[-1] + 1].mean())
    rise = 0.0 if np.isnan(slope) else slope
    excess = rise * (len(sizes) - trained_at) + _OWN_WEIGHT * _surprise(
        fresh, own, sizes, slope=rise, trained_at=trained_at, steps=_RECENT_WINDOWS * look
    )
    expected = float(window_rows * excess)
    threshold = _threshold(price, window_rows, rise, look=look, days=window_days)
    return Retraining(expected > threshold, expected, threshold, slope, recipe, window_rows)


def _number(value: float | None) -> float:
    return float("nan") if value is None else value


def _threshold(price: float, window_rows: float, slope: float, *, look: int, days: float) -> float:
    """The excess of a window from which a training of a price pays."""
    return max(math.sqrt(2 * price * window_rows * slope * look), price * days / _YEAR_DAYS)


@dataclass(frozen=True)
class Economics:
    """A :class:`Retraining` with all that holds it against another price.

    Attributes:
        result: at ``cost``.
        unit: what the simple rule loses a row.
        look: steps in a window.
        window_days: days in a window.
        loss: what is lost, in words.
        cost: of a training, in skill of 28 days of rows.
    """

    result: Retraining
    unit: float
    look: int
    window_days: float
    loss: str
    cost: float = 0.0

    @classmethod
    def from_dict(cls, document: Mapping[str, Any]) -> Economics:
        """Read what :meth:`to_dict` wrote."""
        flat = {**document, "unit": _number(document["unit"])}
        result = dict(flat.pop("result"))
        return cls(Retraining(**result | {"slope": _number(result["slope"])}), **flat)

    def to_dict(self) -> dict[str, Any]:
        """As plain JSON."""
        flat = asdict(self)
        flat["result"] |= {"slope": None if math.isnan(self.result.slope) else self.result.slope}
        return flat | {"unit": None if math.isnan(self.unit) else self.unit}

    @property
    def price(self) -> float:
        """Of a training, in summed loss."""
        rows = self.result.window_rows * _MONTH_DAYS / self.window_days
        return 0.0 if math.isnan(self.unit) else self.cost * self.unit * rows

    def at(self, cost: float) -> Economics:
        """The same at another price of a training."""
        other, result = replace(self, cost=cost), self.result
        slope = 0.0 if math.isnan(result.slope) else result.slope
        threshold = _threshold(other.price, result.window_rows, slope, look=self.look, days=self.window_days)
        return replace(
            other, result=replace(result, retrain=result.expected > threshold, threshold=threshold)
        )

    def evidence(self, version: int, *, rows: int) -> Evidence:
        """Does a training pay? In one sentence."""
        result, days, name = self.result, self.window_days, "economy.training"
        if not result.recipe:
            note = "no model could be fitted and judged that the champion could be compared with"
            return Evidence(name, "inconclusive", n=rows, rung=3, note=note)
        words = {7.0: "week", 1.0: "day"} | dict.fromkeys((28.0, 29.0, 30.0, 31.0), "month")
        note = (
            f"Keeping version {version} is expected to cost {result.expected:,.4g} (in units of {self.loss}) more than "
            f"a fresh model next {words.get(days, f'window of {days:g} days')}; the threshold is "
            f"{result.threshold:,.4g}: {'retrain' if result.retrain else 'keep'}."
        )
        outcome: Outcome = "fail" if result.retrain else "pass"
        figures = result.expected, None, None, result.threshold
        return Evidence(name, outcome, *figures, n=rows, rung=3, note=note, unit="loss")


def chance_worse(
    gaps: ArrayLike,
    *,
    blocks: ArrayLike,
    expected: float = 0.0,
    tolerated: float = 0.0,
    spread: float = 0.005,
) -> float:
    """The probability that one model loses more a row than another, by more than is tolerated.

    Args:
        gaps: (n,) loss of the one less that of the other on the same rows, in skill.
        blocks: (n,) day of each row.
        expected: mean of the prior: the slope of staleness times the difference of ages, negative for a fresher model.
        tolerated: difference in skill that may be.
        spread: standard deviation of the prior, at least.

    Returns:
        Between 0 and 1, by :func:`posterior`; NaN where a difference is not finite.

    Raises:
        DataError: a block is missing.
    """
    mean, deviation = posterior(gaps, blocks=blocks, expected=expected, spread=spread)
    return float(stats.norm.sf(tolerated, loc=mean, scale=deviation))


def posterior(
    gaps: ArrayLike, *, blocks: ArrayLike, expected: float = 0.0, spread: float = 0.005
) -> tuple[float, float]:
    """Mean and standard deviation of a difference between two models, given what was expected and what was measured.

    A normal prior, as far as the ages of the two models say, meets a normal likelihood: the mean difference, whose
    standard error counts days and their autocorrelation, not rows. Where the difference lies further from the prior's
    mean than its error explains, the prior is as wide as that (empirical Bayes, Morris 1983): a model that is plainly
    worse is not believed to be as good as its age promises.

    Args:
        gaps: (n,) differences of the same rows.
        blocks: (n,) day of each row.
        expected: mean of the prior.
        spread: standard deviation of the prior, at least.

    Returns:
        Both NaN where a difference is not finite; those of the prior where there is one day only.

    Raises:
        DataError: a block is missing.
    """
    values = np.asarray(gaps, dtype=float)
    codes, count = block_codes(blocks, len(values))
    if not np.isfinite(values).all():
        return float("nan"), float("nan")
    if count < 2:
        return expected, spread
    rows = np.bincount(codes, minlength=count).astype(float)
    days, mean = np.bincount(codes, values, count), float(values.mean())
    rest = days - mean * rows
    phi = autocorrelation(days / rows)
    variance = float(rest @ rest) / len(values) ** 2 * count / (count - 1) * (1 + phi) / (1 - phi)
    width, variance = max(spread**2, (mean - expected) ** 2 - variance), max(variance, 1e-18)
    precision = 1 / width + 1 / variance
    return (expected / width + mean / variance) / precision, precision**-0.5


def _least(fresh: Mapping[str, Floats], step: int) -> str:
    """The recipe with the least one-step-ahead loss on the steps before one, of those where all were measured."""
    measured = np.isfinite(np.array([losses[:step] for losses in fresh.values()])).all(axis=0)
    sums = {name: float(losses[:step][measured].sum()) for name, losses in fresh.items()}
    return min(sums, key=sums.__getitem__) if measured.any() else ""


def _slope(table: Floats, sizes: Floats) -> float:
    """How a row's loss rises with the age of the model that answers it, from step 1 on, when there was a past."""
    fitted, asked = np.triu_indices(len(sizes), k=1)
    fitted, asked = fitted[fitted > 0], asked[fitted > 0]
    rises = np.divide(
        table[fitted, asked] - table[asked, asked], sizes[asked], out=np.full(len(asked), np.nan),
        where=sizes[asked] > 0,
    )  # fmt: skip
    ages, known = asked - fitted, np.isfinite(rises)
    if not known.any():
        return float("nan")
    return max(float(ages[known] @ rises[known] / (ages[known] @ ages[known])), 0.0)


def _surprise(
    fresh: Mapping[str, Floats], own: Floats, sizes: Floats, *, slope: float, trained_at: int, steps: int
) -> float:
    """How much more a row the champion lost of late than the slope says; 0 where nothing of its own has matured."""
    served = np.flatnonzero(np.isfinite(own) & (sizes > 0))
    best = {int(i): _least(fresh, int(i)) or next(iter(fresh)) for i in served}
    usable = [i for i in best if np.isfinite(fresh[best[i]][i])][-steps:]
    if not usable:
        return 0.0
    weights = sizes[usable]
    gaps = own[usable] - np.array([fresh[best[i]][i] for i in usable])
    usual = slope * (np.array(usable) - trained_at)
    return float((gaps.sum() - usual @ weights) / weights.sum())


def _check(
    tables: Mapping[str, Floats], sizes: Floats, own: Floats, *, look: int, price: float, window_days: float
) -> None:
    steps = len(sizes) if sizes.ndim == 1 else -1
    shapes: dict[str, tuple[tuple[int, ...], tuple[int, ...]]] = {
        "rows": (sizes.shape, (steps,)),
        "served": (own.shape, (steps,)),
    }
    shapes |= {f"losses[{name!r}]": (table.shape, (steps, steps)) for name, table in tables.items()}
    for name, (shape, wanted) in shapes.items():
        if shape != wanted:
            raise DataError(
                name, rule=f"must have the shape {wanted}", value=shape, fix="Count steps up to now."
            )
    if not np.isfinite(sizes).all() or (sizes < 0).any():
        raise DataError("rows", rule="must be finite and not negative", value=sizes.tolist())
    for name, value, positive in (
        ("look", look, True),
        ("window_days", window_days, True),
        ("price", price, False),
    ):
        if not np.isfinite(value) or value < 0 or (positive and value == 0):
            rule = "must be a positive number" if positive else "must be 0 or more, and finite"
            raise ParameterError(name, rule=rule, value=value)
    if look != int(look):
        raise ParameterError("look", rule="must be a whole number of steps", value=look)
