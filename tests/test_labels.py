"""Labels of a table of their own are joined by id, as they were known at a moment, and new ones make a new run."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import sqlalchemy as sa
from hypothesis import given, settings
from hypothesis import strategies as st
from tables import FACTS, orders

from prodkit import TrainParams, label_coverage, read_window, split_window
from prodkit.errors import LabelError, ParameterError, SchemaError

WEEK = "2024-01-01/2024-01-08"
START = pd.Timestamp("2024-01-01")


def facts(folder: Path, **given: Any) -> TrainParams:
    """Facts of orders without a label, whose labels lie beside them."""
    here = {"data": str(folder / "rows.parquet"), "labels": str(folder / "labels.parquet")}
    return TrainParams.check({**FACTS, **here, "window": WEEK, **given})


def split(folder: Path, **changes: Any) -> tuple[pd.DataFrame, pd.DataFrame]:
    """A week of orders, and their labels, each known two days after; both written."""
    table = orders(days=7, rows=10).assign(**changes)
    rows = table.drop(columns="returned")
    known = table["ordered_at"] + pd.Timedelta(days=2)
    labels = table[["order", "returned"]].assign(known_at=known).sample(frac=1, random_state=0)
    rows.to_parquet(folder / "rows.parquet")
    labels.to_parquet(folder / "labels.parquet")
    return table, labels


def test_labels_of_their_own_are_those_that_one_table_would_hold(tmp_path: Path) -> None:
    """The same rows with the same labels, whether these came in one table or in two."""
    table, _ = split(tmp_path)
    table.to_parquet(tmp_path / "whole.parquet")
    joined = read_window(facts(tmp_path))
    whole = read_window(facts(tmp_path, data=str(tmp_path / "whole.parquet"), labels=""))
    pd.testing.assert_frame_equal(joined, whole)
    assert 0 < joined["returned"].isna().mean() < 0.3  # those of the last day are too young


@settings(max_examples=40, deadline=None)
@given(
    events=st.lists(
        st.tuples(st.integers(0, 6), st.integers(0, 100), st.sampled_from([0.0, 1.0, None])), max_size=25
    ),
    moment=st.integers(1, 100),
    zone=st.sampled_from([None, "UTC", "Asia/Tokyo"]),
)
def test_no_label_is_seen_before_its_time(
    tmp_path_factory: pytest.TempPathFactory, events: list[Any], moment: int, zone: str | None
) -> None:
    """Of each id the newest label that was known before the moment is seen, in whatever zone its time is written."""
    folder = tmp_path_factory.mktemp("labels")
    rows = pd.DataFrame({"order": range(7), "ordered_at": START, "price": 1.0})
    rows.to_parquet(folder / "rows.parquet")
    labels = pd.DataFrame(events, columns=["order", "hours", "returned"])
    known = START + pd.to_timedelta(labels["hours"].astype("int64"), unit="h")
    labels = labels.assign(known_at=known.dt.tz_localize("UTC").dt.tz_convert(zone) if zone else known)
    labels.astype({"order": "int64", "returned": "float64"}).to_parquet(folder / "labels.parquet")
    as_of = (START + pd.Timedelta(hours=moment)).isoformat()
    given = {"label_time": "known_at", "as_of": as_of, "features": ["price"]}
    found = read_window(facts(folder, **given)).set_index("order")["returned"]
    for order in range(7):
        seen = [(hours, label) for each, hours, label in events if each == order and hours < moment]
        last = max((hours for hours, _ in seen), default=0)
        newest = {label for hours, label in seen if hours == last}
        wanted = newest.pop() if len(newest) == 1 else None
        assert pd.isna(found[order]) if wanted is None else found[order] == wanted


def test_labels_are_joined_whatever_types_the_ids_have(tmp_path: Path) -> None:
    """An id that is a number in one table and a text in the other is one id; 007 is not 7."""
    _, labels = split(tmp_path)
    whole = read_window(facts(tmp_path))
    labels.astype({"order": str}).to_csv(tmp_path / "labels.csv", index=False)
    pd.testing.assert_frame_equal(read_window(facts(tmp_path, labels=str(tmp_path / "labels.csv"))), whole)
    with sa.create_engine(f"sqlite:///{tmp_path}/labels.db").begin() as connection:
        labels.assign(order=labels["order"].astype(float)).to_sql("known", connection, index=False)
    found = read_window(facts(tmp_path, labels=f"sqlite:///{tmp_path}/labels.db#known"))
    pd.testing.assert_frame_equal(found, whole)
    labels.assign(order=["00" + str(each) for each in labels["order"]]).to_csv(tmp_path / "odd.csv")
    assert read_window(facts(tmp_path, labels=str(tmp_path / "odd.csv")))["returned"].isna().all()


def test_what_has_no_partner_is_counted(tmp_path: Path) -> None:
    """Rows without a label and labels without a row are counted; two labels that contradict each other are none."""
    _, labels = split(tmp_path)
    strangers = labels.head(5).assign(order=range(900, 905))
    twice = labels[labels["order"] == 3].assign(returned=lambda each: 1 - each["returned"])
    kept = labels[~labels["order"].isin([1, 2])]
    pd.concat([kept, strangers, twice]).to_parquet(tmp_path / "labels.parquet")
    given = facts(tmp_path, as_of="2024-02-01")
    rows = read_window(given)
    coverage = label_coverage(rows, given)
    lost = labels["returned"].isna() & ~labels["order"].isin([1, 2, 3])
    assert (coverage.rows, coverage.orphaned, coverage.never) == (70, 5, 3 + lost.sum())
    assert rows.set_index("order")["returned"][[1, 2, 3]].isna().all()


def test_a_table_that_says_itself_when_a_label_was_known_is_believed(tmp_path: Path) -> None:
    """``label_time`` may be a column of the rows; it hides later labels, and no model learns from it."""
    table, _ = split(tmp_path)
    table.assign(known_at=table["ordered_at"] + pd.Timedelta(days=2)).to_parquet(tmp_path / "rows.parquet")
    rows = read_window(facts(tmp_path, labels="", label_time="known_at", features=[]))
    assert "known_at" not in rows
    hidden = rows["ordered_at"] + pd.Timedelta(days=2) >= START + pd.Timedelta(days=7)
    assert rows.loc[hidden, "returned"].isna().all()
    assert rows.loc[~hidden, "returned"].notna().mean() > 0.9


def test_labels_that_cannot_be_joined_are_refused_in_words(tmp_path: Path) -> None:
    """Without ids, without a column, and without a label, the error says what to set."""
    _, labels = split(tmp_path)
    with pytest.raises(ParameterError, match=r"id_column must name a row.*Set `id_column`"):
        read_window(facts(tmp_path, id_column=[]))
    with pytest.raises(SchemaError, match=r"knwon_at.*known_at.*label_time"):
        read_window(facts(tmp_path, label_time="knwon_at"))
    labels.assign(order=labels["order"] + 1000).to_parquet(tmp_path / "labels.parquet")
    given = facts(tmp_path, holdout="1d")
    rows = read_window(given)
    with pytest.raises(LabelError, match=r"Do the ids of .*labels.parquet name rows"):
        split_window(rows, given)
