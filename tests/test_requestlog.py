"""The request log: what the notebooks can read later, and never in anybody's way."""

from __future__ import annotations

import time
from datetime import datetime

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest
from tables import FACTS, params_for

from prodkit.data.schema import Column, Schema
from prodkit.data.windows import read_window
from prodkit.scoring.guard import Answers
from prodkit.scoring.rows import Reader
from prodkit.serving.requestlog import Entry, RequestLog

SCHEMA = Schema(
    features=(
        Column("city", "categorical", levels=("Oslo", "Rome")),
        Column("price", "numeric"),
        Column("weight", "numeric"),
        Column("express", "boolean"),
    ),
    target="returned",
    task="binary",
    classes=(0, 1),
)
NOON = datetime(2024, 2, 1, 12)


@pytest.fixture
def log(tmp_path):
    """A log that is written when the test says so."""
    return RequestLog(
        tmp_path / "requests",
        most_rows=5,
        seconds=60.0,
        time_column=FACTS["time_column"],
        id_column=FACTS["id_column"],
    )


def note(log, number=1, schema=SCHEMA, predicted=0.25, version=2, generation=7, **changes):
    """Keep a request of one row."""
    row = {"city": "Rome", "price": 9.5, "weight": None, "express": True, "order": number} | changes
    answers = Answers(
        np.array([predicted]), np.array([False]), np.array([""], dtype=object), np.array([version]),
        np.array(["champion"], dtype=object), [Reader(schema).read(row)[0]],
    )  # fmt: skip
    log.note(Entry(answers, [row], schema, NOON, f"request-{number}", "mine", generation, 1.5, 100))


def written(log):
    """All rows in the folder."""
    return pd.concat(
        [pd.read_parquet(path) for path in sorted(log._folder.glob("*.parquet"))], ignore_index=True
    )


def test_the_notebooks_read_it_like_any_other_table(log):
    """A window of requests has ids, times, features and predictions; without a time the moment of asking is taken."""
    note(log, 1, ordered_at="2024-02-03T10:00:00")
    note(log, 2)
    log.flush()
    params = params_for("drift", str(log._folder), window="2024-02-01/2024-02-10")
    rows = read_window(params, columns=["city", "price", "weight", "express", "prediction", "model_version"])
    assert rows["order"].astype(str).tolist() == ["2", "1"]
    assert rows["ordered_at"].tolist() == [pd.Timestamp(NOON), pd.Timestamp("2024-02-03 10:00")]
    assert rows["price"].tolist() == [9.5, 9.5]
    assert rows["weight"].isna().all()
    assert rows["express"].tolist() == [1.0, 1.0]
    assert rows["prediction"].tolist() == [0.25, 0.25]


def test_times_are_read_as_the_project_writes_them(tmp_path):
    """A day of a given format is that day; the moment of asking is taken only where none can be read."""
    named = {"time_column": "ordered_at", "id_column": ["order"], "time_format": "%d/%m/%Y"}
    log = RequestLog(tmp_path / "requests", most_rows=5, seconds=60.0, **named)
    note(log, 1, ordered_at="03/02/2024")
    note(log, 2, ordered_at="2024-02-03")
    log.flush()
    assert written(log)["ordered_at"].tolist() == [pd.Timestamp("2024-02-03"), pd.Timestamp(NOON)]


def test_it_keeps_who_answered_and_why(log):
    """Request, place, version, generation, source, degradation, reason and latency are columns."""
    note(log)
    log.flush()
    row = written(log).iloc[0]
    assert (row["request"], row["row"], row["model_version"], row["generation"]) == ("request-1", 0, 2, 7)
    assert row["client_request"] == "mine"
    assert (row["source"], row["degraded"], row["reason"], row["latency_ms"]) == ("champion", False, "", 1.5)


def test_more_than_may_wait_is_lost_and_counted(log):
    """The buffer is bounded; what was kept is written, what was not is known."""
    for number in range(8):
        note(log, number)
    log.flush()
    assert (log.written, log.lost) == (5, 3)
    assert len(written(log)) == 5


def test_a_folder_that_cannot_be_written_fails_nobody(tmp_path, log):
    """A full or missing disk costs the rows, and is told; the next file works again."""
    (tmp_path / "requests").write_text("in the way")
    note(log)
    log.flush()
    assert (log.written, log.lost) == (0, 1)
    assert "FileExistsError" in log.problem
    (tmp_path / "requests").unlink()
    note(log)
    log.flush()
    assert (log.written, log.problem) == (1, "")


@pytest.mark.parametrize(
    "changes",
    [
        {"city": "\ud800"},
        {"order": {"deep": ["er"]}},
        {"ordered_at": "never"},
        {"ordered_at": 7},
        {"city": "x" * 100_000, "order": "y" * 100_000},
    ],
)
def test_what_is_sent_cannot_spoil_a_file(log, changes):
    """Half characters, objects as ids, endless texts: the row is written, and whole."""
    note(log, **changes)
    note(log, 2)
    log.flush()
    assert log.problem == ""
    rows = written(log)
    assert len(rows) == 2
    if len(str(changes.get("city", ""))) > 1:
        assert rows["city"].str.len().max() == rows["order"].str.len().max() == 100_000


def test_rows_of_two_versions_lie_in_two_files(log):
    """Another version may have other features; each file has the columns of one."""
    other = Schema(SCHEMA.features[:2], "returned", "multiclass", ("a", "b"))
    note(log, 1)
    note(log, 2, schema=other, predicted=[0.1, 0.9], version=3, generation=8)
    log.flush()
    names = [pq.read_schema(path).names for path in sorted(log._folder.glob("*.parquet"))]
    assert "weight" in names[0]
    assert "weight" not in names[1]
    assert {"prediction_a", "prediction_b"} <= set(names[1])


def test_a_feature_named_like_a_column_of_the_log_keeps_its_name(tmp_path):
    """The log gives way, with an underscore."""
    log = RequestLog(tmp_path / "r", most_rows=5, seconds=60, time_column="time", id_column=[])
    schema = Schema((Column("source", "categorical", levels=("web",)),), "y", "binary", (0, 1))
    note(log, schema=schema, source="web")
    log.flush()
    rows = written(log)
    assert rows["source"].tolist() == ["web"]
    assert rows["source_"].tolist() == ["champion"]


def test_many_rows_are_one_file_and_half_of_what_may_wait_is_written_at_once(tmp_path):
    """Rows come in faster than the clock ticks: none is lost, and their order stays."""
    log = RequestLog(
        tmp_path / "requests", most_rows=2_000, seconds=600, time_column="t", id_column=["order"]
    )
    log.start()
    for number in range(1_000):
        note(log, number)
    deadline = time.monotonic() + 20
    while not log.written and time.monotonic() < deadline:
        time.sleep(0.01)
    assert (log.written, log.lost, len(list(log._folder.glob("*.parquet")))) == (1_000, 0, 1)
    note(log, 1_000)
    log.close()
    assert written(log)["order"].astype(int).tolist() == list(range(1_001))


def test_what_waits_is_written_when_it_ends(log):
    """A service that stops in order loses nothing."""
    log.start()
    note(log)
    log.close()
    assert log.written == 1
    assert not list(log._folder.glob(".*"))
