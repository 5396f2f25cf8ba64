"""One artifact a version: what goes in comes out, and what has changed since is refused."""

from __future__ import annotations

import io
import json
import sys
from dataclasses import replace

import joblib
import numpy as np
import pytest
from tables import WINDOWS, orders, params_for, version_of

from prodkit.errors import ModelError
from prodkit.evidence import Estimate, Window
from prodkit.models.bundle import _MOVED, environment, manifest, pack, unpack


@pytest.fixture
def bundle():
    """Version 2 of the orders."""
    return unpack(version_of(2)[0])


class Shifted:
    """A model whose answers are a little off."""

    def __init__(self, model, by):
        self.model, self.by, self.classes_ = model, by, model.classes_

    def predict_proba(self, columns):
        """Shares, moved towards the second class."""
        return self.model.predict_proba(columns) + np.array([-self.by, self.by])


class Forgetful(Shifted):
    """A model that no longer answers."""

    def predict_proba(self, columns):
        """Nothing."""
        raise FileNotFoundError("weights.bin")


def test_what_was_packed_is_unpacked(bundle):
    """Every part survives; predictions are the same to the last bit, and so are the bytes' golden rows."""
    again, rows = unpack(pack(bundle)), orders(days=5, seed=9)
    assert np.array_equal(again.predict(rows), bundle.predict(rows))
    assert np.array_equal(again.predict(again.golden), again.golden_predictions)
    unpack(pack(replace(bundle, model=Shifted(bundle.model, 1e-9))))  # another processor may round otherwise
    plain = ["schema", "trained", "holdout", "importance", "environment", "digest", "drill"]
    assert [getattr(again, name) for name in plain] == [getattr(bundle, name) for name in plain]
    for name in ("profile", "recent", "scores"):
        assert getattr(again, name).to_dict() == getattr(bundle, name).to_dict()
    assert again.golden.equals(bundle.golden)
    simple = bundle.fallback.predict(rows, schema=bundle.schema)
    assert np.array_equal(again.fallback.predict(rows, schema=again.schema), simple)


def test_golden_rows_are_spread_over_all_that_was_learned(bundle):
    """A handful of rows with every feature, and no two answers alike: enough to notice another model."""
    assert list(bundle.golden.columns) == bundle.schema.names
    assert len(bundle.golden) == len(bundle.golden_predictions) == 16
    assert len(np.unique(bundle.golden_predictions)) > 8


def test_a_bundle_says_what_its_model_has_seen(bundle):
    """The trained window ends a label delay before the holdout, which ends with the window."""
    assert str(bundle.trained) == "2024-01-01/2024-01-27"
    assert bundle.holdout == Window(bundle.holdout.start, Window.parse(WINDOWS[2]).end)
    assert (bundle.holdout.start - bundle.trained.end).days == 1
    assert bundle.profile.rows > bundle.recent.rows > 0
    assert bundle.profile.rows == 26 * 60


def test_an_artifact_that_names_classes_by_their_old_modules_is_read(bundle, monkeypatch):
    """Classes of modules that are gone are looked up where they are now, attributes have their new names."""
    buffer, modules = io.BytesIO(), set(sys.modules)
    joblib.dump(bundle, buffer)
    old = buffer.getvalue().replace(b"prodkit.models.bundle", b"prodkit.models.bumble")
    with pytest.raises(ModelError, match="could not be read back: ModuleNotFoundError"):
        unpack(old)
    monkeypatch.setitem(_MOVED, "prodkit.models.bumble", "prodkit.models.bundle")
    again = unpack(old)
    assert (again.schema, set(sys.modules)) == (bundle.schema, modules)
    state = {**vars(bundle), "memory": (0.5, 20)}
    del state["autocorrelation"]
    again.__setstate__(state)
    assert again.autocorrelation == (0.5, 20)


@pytest.mark.parametrize("by", [1e-3, -1e-3, np.nan])
def test_a_model_that_answers_otherwise_than_it_did_is_refused(bundle, by):
    """A thousandth more, less, or no number at all: the error gives the difference and what has changed."""
    with pytest.raises(
        ModelError, match=r"v7 must predict its golden rows as it did .*found a difference of"
    ):
        unpack(pack(replace(bundle, model=Shifted(bundle.model, by))), name="v7")


def test_a_difference_names_the_library_that_has_changed_since(bundle):
    """Whoever upgraded scikit-learn reads which versions made the artifact, and which read it."""
    old = replace(
        bundle, model=Shifted(bundle.model, 0.1), environment={**environment(), "scikit-learn": "0.1"}
    )
    with pytest.raises(ModelError, match=r"Changed since: \{'scikit-learn': '0\.1 -> [\d.]+'\}"):
        unpack(pack(old))


def test_a_model_that_cannot_answer_any_more_is_refused(bundle):
    """What it raises is kept, as the cause and in words."""
    with pytest.raises(ModelError, match=r"could not be read back: FileNotFoundError: weights.bin") as caught:
        unpack(pack(replace(bundle, model=Forgetful(bundle.model, 0.0))))
    assert isinstance(caught.value.__cause__, FileNotFoundError)


@pytest.mark.parametrize("damage", ["empty", "cut", "noise", "another object"])
def test_bytes_that_are_no_bundle_are_refused(bundle, damage):
    """An empty, a truncated or a foreign artifact: an error that says what to do, not a crash."""
    whole, other = pack(bundle), io.BytesIO()
    joblib.dump({"model": 1}, other)
    artifact = {
        "empty": b"",
        "cut": whole[: len(whole) // 2],
        "noise": b"\x00\xff" * 500,
        "another object": other.getvalue(),
    }[damage]
    with pytest.raises(ModelError, match=r"artifact could not be read back: .*Install the versions"):
        unpack(artifact)


def test_the_manifest_is_plain_json_and_says_where_a_version_comes_from():
    """Strict JSON with data, parameters, schema and environment; another table has another digest."""
    _, document = version_of(2)
    assert json.loads(json.dumps(document, allow_nan=False)) == json.loads(json.dumps(document))
    assert document["params"]["window"] == WINDOWS[2]
    assert document["trained"] == "2024-01-01/2024-01-27"
    assert document["rows"] > 1000
    assert document["schema"]["classes"] == (0, 1)
    assert document["environment"] == environment()
    assert document["data_digest"] != version_of(1)[1]["data_digest"]


def test_a_figure_that_could_not_be_had_is_none_in_the_manifest(bundle):
    """A fold of one class has no AUC and one day has no interval: JSON knows neither NaN nor infinity."""
    figures = {
        "roc_auc": Estimate(np.nan, np.nan, np.nan, 9, 1),
        "log_loss": Estimate(np.float64(0.5), -np.inf, np.inf, 9, 1),
    }
    params = params_for("train", "orders", window=WINDOWS[2])
    document = manifest(bundle, orders(days=2), params=params, metrics=figures)
    assert json.loads(json.dumps(document, allow_nan=False))["metrics"] == {
        "roc_auc": {"value": None, "low": None, "high": None},
        "log_loss": {"value": 0.5, "low": None, "high": None},
    }
