"""A trial: the same rows for all, whatever classes each candidate has learned."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from tables import FEBRUARY, orders_file, params_for, version_of

from prodkit.data.windows import read_window
from prodkit.decisions.trial import run_trial
from prodkit.errors import LabelError
from prodkit.models.bundle import Bundle, unpack

__all__ = ["orders_file"]  # a fixture


class Always:
    """A model that gives every row the same shares of its classes."""

    def __init__(self, *shares: float) -> None:
        self.shares, self.classes_ = np.array(shares), np.arange(len(shares))

    def predict_proba(self, columns):
        """The same row (k,) for each of n."""
        return np.tile(self.shares, (len(columns), 1))


@pytest.fixture
def kinds(orders_file):
    """Parameters, and rows of three kinds in turn."""
    params = params_for("rollback", orders_file, window=FEBRUARY)
    rows = read_window(params).head(300)
    rows["returned"] = np.resize(["new", "old", "used"], len(rows))
    return params, rows


def knowing(classes: tuple[str, ...], *shares: float) -> Bundle:
    """A version that has learned these classes and gives them these shares."""
    bundle = unpack(version_of(1)[0])
    task = "binary" if len(classes) == 2 else "multiclass"
    schema = replace(bundle.schema, task=task, classes=classes)
    return replace(bundle, schema=schema, model=Always(*shares))


def test_versions_that_know_other_classes_are_held_against_the_same_labels(kinds):
    """An older version that knows two of three classes gives no chance to the third, and its own to the others."""
    params, rows = kinds
    older, newer = knowing(("old", "used"), 0.25, 0.75), knowing(("new", "old", "used"), 0.5, 0.25, 0.25)
    for schema in (older.schema, newer.schema):
        trial = run_trial({"older": older, "newer": newer}, rows, params, schema=schema)
        assert (trial.task, len(trial.rows), trial.unknown_rows) == ("multiclass", 300, 0)
        losses = np.exp(-trial.losses.groupby(trial.rows["returned"]).mean())
        assert losses["older"].round(2).to_dict() == {"new": 0.0, "old": 0.25, "used": 0.75}
        assert losses["newer"].round(2).to_dict() == {"new": 0.5, "old": 0.25, "used": 0.25}
        assert trial.errors == {"older": 0.0, "newer": 0.0}


def test_rows_of_a_class_that_nobody_knows_judge_nobody(kinds):
    """They are counted, and predictions that are there already lose the same rows."""
    params, rows = kinds
    bundle = knowing(("old", "used"), 0.25, 0.75)
    simple = np.where(rows["returned"] == "used", 0.9, 0.2)
    trial = run_trial({"champion": bundle, "baseline": simple}, rows, params, schema=bundle.schema)
    assert (trial.task, len(trial.rows), trial.unknown_rows) == ("binary", 200, 100)
    assert set(trial.rows["returned"]) == {"old", "used"}
    assert np.exp(-trial.losses["baseline"]).round(2).unique().tolist() == [0.8, 0.9]


def test_labels_that_nobody_knows_at_all_are_an_error(kinds):
    """A column of other labels cannot judge: the error says which would be known."""
    params, rows = kinds
    bundle = knowing(("yes", "no"), 0.5, 0.5)
    with pytest.raises(LabelError, match="returned must be one of yes, no"):
        run_trial({"champion": bundle}, rows, params, schema=bundle.schema)


def test_a_candidate_that_fails_is_evidence_and_no_crash(kinds):
    """Its answers are missing, in the shape that the others have."""
    params, rows = kinds
    good, bad = (knowing(("new", "old", "used"), 0.5, 0.25, 0.25) for _ in range(2))
    bad = replace(bad, model=object())
    trial = run_trial({"champion": good, "challenger": bad}, rows, params, schema=good.schema)
    assert trial.errors == {"champion": 0.0, "challenger": 1.0}
    assert trial.predicted["challenger"].shape == trial.predicted["champion"].shape == (300, 3)
