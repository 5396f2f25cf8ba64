"""Which break is it: each kind of broken feed is named with its column, and nature's changes are not."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from prodkit.data.schema import Schema
from prodkit.drift.contract import breaks
from prodkit.drift.counts import profile
from prodkit.drift.profiles import Fingerprints, Profile

FEATURES = ["temp", "dew", "humid", "count", "city", "depot"]
ROWS = 80  # a day


def feed(*, first: int, days: int, seed: int, warmer: float = 0.0) -> pd.DataFrame:
    """Rows of some days, whose weather differs from day to day."""
    random, n = np.random.default_rng(seed), days * ROWS
    day = np.repeat(np.arange(days), ROWS)
    temp = 60 + warmer + random.normal(0, 6, days)[day] + random.normal(0, 5, n)
    return pd.DataFrame(
        {
            "day": first + day,
            "temp": temp,
            "dew": temp - 15 + random.normal(0, 3, n),
            "humid": 60 + random.normal(0, 8, days)[day] + random.normal(0, 10, n),
            "count": random.poisson(40, n).astype(float),
            "city": random.choice(["Bergen", "Lisbon", "Oslo", "Rome"], n, p=[0.4, 0.3, 0.2, 0.1]),
            "depot": random.choice(["Bergen", "Lisbon", "Oslo", "Rome"], n, p=[0.1, 0.2, 0.3, 0.4]),
            "sold": random.random(n) < 0.5,
        }
    )


BEFORE = feed(first=0, days=60, seed=0)
SCHEMA = Schema.infer(BEFORE, features=FEATURES, target="sold")
TRAINING = profile(BEFORE, SCHEMA, blocks=BEFORE["day"].to_numpy())
WINDOW = feed(first=60, days=14, seed=1)


def summary(rows: pd.DataFrame) -> Profile:
    """The profile of a window on the bins of training."""
    return profile(rows, SCHEMA, blocks=rows["day"].to_numpy(), like=TRAINING)


def found(rows: pd.DataFrame) -> set[str]:
    """What is broken in a window."""
    recent = summary(BEFORE[BEFORE["day"] >= 46])
    return {item.name.removeprefix("contract.") for item in breaks(recent, summary(rows), training=TRAINING)}


def exchanged(first: str, second: str) -> Callable[[pd.DataFrame], pd.DataFrame]:
    """Two columns in each other's place."""
    return lambda rows: rows.assign(**{first: rows[second], second: rows[first]})


FAULTS: dict[str, tuple[Callable[[pd.DataFrame], pd.DataFrame], set[str]]] = {
    "half missing": (
        lambda rows: rows.assign(temp=rows["temp"].where(rows.index % 2 == 0)),
        {"temp.missing"},
    ),
    "a level missing": (
        lambda rows: rows.assign(city=rows["city"].where(rows["city"] != "Lisbon")),
        {"city.missing"},
    ),
    "a column gone": (lambda rows: rows.drop(columns="city"), {"city.missing"}),
    "Celsius": (lambda rows: rows.assign(temp=(rows["temp"] - 32) / 1.8), {"temp.unit"}),
    "a factor of 1.6": (lambda rows: rows.assign(humid=rows["humid"] * 1.609344), {"humid.unit"}),
    "no whole numbers": (lambda rows: rows.assign(count=rows["count"] * 1.15), {"count.unit"}),
    "constant": (lambda rows: rows.assign(temp=50.0), {"temp.constant"}),
    "a rare level renamed": (
        lambda rows: rows.assign(city=rows["city"].replace("Rome", "Roma")),
        {"city.unseen"},
    ),
    "close columns exchanged": (exchanged("temp", "dew"), {"temp.swapped", "dew.swapped"}),
    "levels exchanged": (exchanged("city", "depot"), {"city.swapped", "depot.swapped"}),
    "an old batch": (
        lambda rows: BEFORE[BEFORE["day"].between(20, 33)].assign(day=lambda old: old["day"] + 40),
        {"rows.copied"},
    ),
    "half an old batch": (
        lambda rows: pd.concat(
            [
                rows[rows["day"] < 67],
                BEFORE[BEFORE["day"].between(30, 36)].assign(day=lambda old: old["day"] + 37),
            ]
        ),
        {"rows.copied"},
    ),
    "each row twice": (
        lambda rows: pd.concat([rows, rows]).sort_values("day", kind="stable"),
        {"rows.repeated"},
    ),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_each_fault_is_named_with_its_column(fault: str) -> None:
    """One fault, one finding: the column that has it, and the kind."""
    spoil, named = FAULTS[fault]
    assert found(spoil(WINDOW)) == named


@settings(max_examples=25, deadline=None)
@given(st.integers(2, 10_000), st.floats(-12, 12), st.integers(7, 28))
def test_a_natural_shift_is_no_break(seed: int, warmer: float, days: int) -> None:
    """Days that are warmer or colder than any season of training so far, and other chance, break nothing."""
    assert found(feed(first=60, days=days, seed=seed, warmer=warmer)) == {"columns"}


def test_rows_that_come_again_by_nature_are_no_copies() -> None:
    """A table of few levels repeats itself, in training and ever after."""
    names = ["city", "depot"]
    schema = Schema.infer(BEFORE, features=names, target="sold")
    training = profile(BEFORE, schema, blocks=BEFORE["day"].to_numpy())
    now = profile(WINDOW, schema, blocks=WINDOW["day"].to_numpy(), like=training)
    assert [item.outcome for item in breaks(training, now)] == ["pass"]


def test_a_window_that_training_has_seen_is_no_copy() -> None:
    """The same days are the same rows, and not an old batch under a new date."""
    assert found(BEFORE[BEFORE["day"] >= 46]) == {"columns"}


def test_a_profile_without_a_sample_of_its_rows_still_says_the_rest() -> None:
    """Such as one that was kept by an earlier release."""
    document = TRAINING.to_dict()
    del document["fingerprints"]
    old = Profile.from_dict(document)
    twice = pd.concat([WINDOW, WINDOW]).sort_values("day", kind="stable")
    assert [item.outcome for item in breaks(old, summary(twice))] == ["pass"]
    spoilt = breaks(old, summary(WINDOW.assign(temp=50.0)))
    assert [item.name for item in spoilt] == ["contract.temp.constant"]


@given(st.lists(st.integers(0, 3000), max_size=3000), st.lists(st.integers(0, 3000), max_size=3000))
@settings(max_examples=25, deadline=None)
def test_samples_merge_into_the_sample_of_all(first: list[int], second: list[int]) -> None:
    """Merged or taken at once, and after a trip through JSON, it is the same sample."""
    parts = [pd.DataFrame({"x": np.array(values, dtype=float)}) for values in (first, second)]
    merged = Fingerprints.of(parts[0]).merge(Fingerprints.of(parts[1]))
    whole = Fingerprints.from_dict(Fingerprints.of(pd.concat(parts)).to_dict())
    assert merged.rows == whole.rows
    assert merged.hashes.tolist() == whole.hashes.tolist()
    assert merged.counts.tolist() == whole.counts.tolist()
