"""What the prediction of a row costs: its loss, and its value in the business."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from prodkit.errors import DataError, LabelError, ParameterError

if TYPE_CHECKING:
    from prodkit.params import Task

__all__ = ["Floats", "business_value", "checked", "losses", "row_losses", "row_values"]

Floats = NDArray[np.float64]

_FLOOR = 1e-6  # a certain and wrong prediction costs -log(1e-6) = 13.8, so one row cannot decide alone
_SUM_TOLERANCE = 1e-3  # float32 probabilities of many classes do not add up to one more exactly than this


def row_losses(y_true: ArrayLike, y_pred: ArrayLike, *, task: Task) -> Floats:
    """The (n,) loss of each row, whose mean is the primary loss: log loss (nats) or absolute error.

    Probabilities are clipped at 1e-6. What is no prediction costs NaN (not finite, outside 0..1, or a row
    that does not add up to one), and the caller decides what that means.

    Raises:
        DataError, LabelError: as :func:`checked`.
    """
    return losses(*checked(y_true, y_pred, task), task)


def business_value(
    y_true: ArrayLike, y_pred: ArrayLike, *, costs: Mapping[str, Mapping[str, float]], classes: Sequence[Any]
) -> float:
    """Mean value of a row, when each is given the decision of highest expected value: of :func:`row_values`.

    >>> costs = {"no": {"wait": 0, "call": -1}, "yes": {"wait": -10, "call": -1}}
    >>> business_value([0, 1], [0.05, 0.9], costs=costs, classes=["no", "yes"])
    -0.5
    """
    values = row_values(y_true, y_pred, costs=costs, classes=classes)
    return float(values.mean()) if len(values) else float("nan")


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
        if not decisions or set(costs.get(name, {})) != set(decisions):
            fix = f"Decisions: {', '.join(decisions)}." if decisions else "Write {actual: {decision: value}}."
            found = dict(costs.get(name, {}))
            raise ParameterError(
                f"value.{name}", rule="must give each decision a value", value=found, fix=fix
            )
    matrix = np.array([[costs[name][decision] for decision in decisions] for name in names], dtype=float)
    truth, guess = checked(y_true, y_pred, "binary" if np.ndim(y_pred) == 1 else "multiclass")
    chances = np.column_stack([1 - guess, guess]) if guess.ndim == 1 else guess
    known = np.isfinite(truth) & np.isfinite(chances).all(axis=1)
    values = np.full(len(truth), np.nan)
    values[known] = matrix[truth[known].astype(int), (chances[known] @ matrix).argmax(axis=1)]
    return values


def checked(y_true: ArrayLike, y_pred: ArrayLike, task: Task) -> tuple[Floats, Floats]:
    """Both as floats of the task's shape; a prediction that is none becomes NaN.

    Raises:
        DataError: the two are not of one length, or of another shape than the task's.
        LabelError: labels that are no class indices.
    """
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


def losses(truth: Floats, guess: Floats, task: Task) -> Floats:
    """The (n,) losses of what :func:`checked` has given."""
    if task == "regression":
        gap: Floats = np.abs(guess - truth)
        return np.where(np.isfinite(gap), gap, np.nan)
    if guess.ndim == 1:
        right = np.where(truth == 1, guess, 1 - guess)
    else:
        right = guess[np.arange(len(truth)), np.nan_to_num(truth).astype(int)]
    losses: Floats = np.where(np.isnan(truth), np.nan, -np.log(right.clip(_FLOOR, 1 - _FLOOR)))
    return losses
