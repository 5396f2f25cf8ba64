"""A prediction that never crashes: who answers each row, and why."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tables import FEATURES, orders, version_of

from prodkit.bundle import unpack
from prodkit.guard import guarded

ROWS = orders(days=1, seed=9)


class Scripted:
    """A model that answers as it is told, whatever it is asked."""

    def __init__(self, answer):
        self.answer, self.classes_ = answer, np.array([0, 1])

    def predict_proba(self, columns):
        """The shares that it was told, or the error."""
        if isinstance(self.answer, Exception):
            raise self.answer
        return np.column_stack([1 - self.answer, self.answer])


@pytest.fixture(scope="module")
def bundle():
    """Version 2 of the orders."""
    return unpack(version_of(2)[0])


def simple(bundle, rows=ROWS):
    """What the simple rule says."""
    return bundle.fallback.predict(rows, schema=bundle.schema)


def test_a_sound_model_answers_every_row_itself(bundle):
    """Nothing is degraded, no reason is given, and the predictions are the model's."""
    answers = guarded(bundle, ROWS)
    assert np.array_equal(answers.predicted, bundle.predict(ROWS))
    assert not answers.degraded.any()
    assert set(answers.reason) == {""}


def test_a_distrusted_model_is_not_even_asked(bundle):
    """With a reason for distrust the simple rule answers all rows, and each says why."""
    refuse = replace(bundle, model=Scripted(AssertionError("it was asked")))
    answers = guarded(refuse, ROWS, distrust="price is empty")
    assert np.array_equal(answers.predicted, simple(bundle))
    assert answers.degraded.all()
    assert set(answers.reason) == {"price is empty"}


@pytest.mark.parametrize("error", [ValueError("no luck"), MemoryError("full"), KeyError("price")])
def test_whatever_a_model_raises_every_row_is_answered(bundle, error):
    """The simple rule answers, and the error is the reason."""
    answers = guarded(replace(bundle, model=Scripted(error)), ROWS)
    assert np.array_equal(answers.predicted, simple(bundle))
    assert answers.degraded.all()
    assert set(answers.reason) == {f"{type(error).__name__}: {error}"}


def test_an_interrupt_is_not_swallowed(bundle):
    """Whoever stops the process is obeyed."""

    class Stopped(Scripted):
        def predict_proba(self, columns):
            raise KeyboardInterrupt("stop")

    with pytest.raises(KeyboardInterrupt, match="stop"):
        guarded(replace(bundle, model=Stopped(None)), ROWS)


@settings(max_examples=40, deadline=None)
@given(st.lists(st.sampled_from([0.25, 0.75, np.nan, np.inf, -np.inf]), min_size=1, max_size=60))
def test_only_the_rows_without_a_finite_answer_are_degraded(bundle, said):
    """The model's numbers stay; NaN and infinity are replaced, row by row."""
    said, rows = np.array(said), ROWS.head(len(said))
    finite = np.isfinite(said)
    answers = guarded(replace(bundle, model=Scripted(said)), rows)
    assert np.array_equal(answers.degraded, ~finite)
    assert np.array_equal(answers.predicted[finite], said[finite])
    assert np.array_equal(answers.predicted[~finite], simple(bundle, rows)[~finite])
    assert (answers.reason == np.where(finite, "", "the model gave no finite number")).all()


@pytest.mark.parametrize("rows", [59, 61, 1])
def test_too_few_or_too_many_answers_are_none(bundle, rows):
    """A model that loses count is not trusted with any row."""
    answers = guarded(replace(bundle, model=Scripted(np.full(rows, 0.5))), ROWS)
    assert len(answers.predicted) == len(answers.degraded) == len(answers.reason) == len(ROWS)
    assert np.array_equal(answers.predicted, simple(bundle))


def test_the_models_own_numbers_are_not_written_over(bundle):
    """A regression that returns an array of its own, read-only even, gets a copy repaired."""
    said = np.full(len(ROWS), 7.0)
    said[3] = np.nan
    said.flags.writeable = False

    class Regression:
        def predict(self, columns):
            return said

    schema = replace(bundle.schema, task="regression", classes=())
    fallback = replace(bundle.fallback, overall=np.array([5.0]), by_level={})
    answers = guarded(replace(bundle, model=Regression(), schema=schema, fallback=fallback), ROWS)
    assert answers.predicted[3] == 5.0
    assert np.isnan(said[3])


def test_rows_of_several_classes_are_replaced_whole(bundle):
    """One share that is no number spoils its row, not its neighbours."""

    class Classes:
        classes_ = np.arange(3)

        def predict_proba(self, columns):
            said = np.full((len(columns), 3), [0.2, 0.3, 0.5])
            said[7, 1] = np.nan
            return said

    schema = replace(bundle.schema, task="multiclass", classes=("a", "b", "c"))
    fallback = replace(bundle.fallback, overall=np.array([0.6, 0.3, 0.1]), by_level={})
    answers = guarded(replace(bundle, model=Classes(), schema=schema, fallback=fallback), ROWS)
    assert np.flatnonzero(answers.degraded).tolist() == [7]
    assert answers.predicted[7].tolist() == [0.6, 0.3, 0.1]
    assert answers.predicted[6].tolist() == [0.2, 0.3, 0.5]


cells = st.none() | st.text(max_size=3) | st.floats() | st.integers() | st.booleans() | st.binary(max_size=2)


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_no_table_whatsoever_is_a_crash(bundle, data):
    """Any value in any column, columns missing or doubled, no rows: one finite probability a row."""
    n = data.draw(st.integers(0, 4))
    names = data.draw(st.lists(st.sampled_from([*FEATURES, "other"]), max_size=6))
    columns = [
        pd.Series(data.draw(st.lists(cells, min_size=n, max_size=n)), dtype=object, name=x) for x in names
    ]
    frame = pd.concat(columns, axis=1) if columns else pd.DataFrame(index=range(n))
    answers = guarded(bundle, frame)
    assert len(answers.predicted) == len(answers.degraded) == len(answers.reason) == n
    assert ((answers.predicted >= 0) & (answers.predicted <= 1)).all()
    whole = all(names.count(name) == 1 for name in FEATURES)  # what else is there does not matter
    assert whole or answers.degraded.all()
