"""What a challenger says to rows that it should not have been asked."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from tables import orders, version_of

from prodkit.decisions.robustness import robustness_evidence
from prodkit.models.bundle import Bundle, unpack


class Answering:
    """A model that answers by a function of its coded columns."""

    def __init__(self, answer: Any) -> None:
        self.classes_, self.predict_proba = np.array([0, 1]), lambda rows: answer(rows)


def challenger(answer: Any = None) -> Bundle:
    """A version of the orders, whose model may be another one."""
    bundle = unpack(version_of(1)[0])
    return bundle if answer is None else replace(bundle, model=Answering(answer))


def shares(price: np.ndarray) -> np.ndarray:
    """Both classes' shares."""
    return np.column_stack([1 - price, price])


def test_trees_withstand_missing_new_and_extreme_values() -> None:
    """The kit's own model answers all of them."""
    found = robustness_evidence(challenger(), orders(days=5))
    assert [(item.name, item.outcome, item.value) for item in found] == [
        ("robust.missing", "pass", 0.0),
        ("robust.unseen", "pass", 0.0),
        ("robust.extreme", "pass", 0.0),
    ]


@pytest.mark.parametrize(
    ("answer", "failed"),
    [
        (lambda rows: shares(np.where(rows["price"].isna(), np.nan, 0.2)), "robust.missing"),
        (
            lambda rows: shares(np.where(rows["city"].str.contains("nobody", na=False), np.nan, 0.2)),
            "robust.unseen",
        ),
        (lambda rows: shares(np.where(rows["price"] > 150, 9.0, 0.2)), "robust.extreme"),
    ],
)
def test_a_column_that_silences_a_model_fails_it(answer: Any, failed: str) -> None:
    """Whichever kind of value it is that leaves rows without an answer, or with an absurd one."""
    found = {item.name: item for item in robustness_evidence(challenger(answer), orders(days=5))}
    assert found[failed].outcome == "fail"
    assert found[failed].value is not None
    assert 0 < found[failed].value <= 1
    assert all(item.outcome == "pass" for name, item in found.items() if name != failed)


def test_a_model_that_raises_has_answered_nothing() -> None:
    """It fails, and the gate does not."""

    def answer(rows: Any) -> Any:
        raise ValueError("no")

    assert {item.outcome for item in robustness_evidence(challenger(answer), orders(days=5))} == {"fail"}
