"""What the service has answered, on the page of `monitor` and in `drift`: a real service, then real runs."""

from __future__ import annotations

import json

import numpy as np
import pandas as pd
import pytest
from tables import FEBRUARY, facts_file, opened, orders, orders_file, params_for, places, prodkit, version_of
from test_serve import start

from prodkit.data.windows import requests_digest
from prodkit.models.bundle import unpack
from prodkit.monitoring.findings import draw_answers, draw_quality, monitor_evidence
from prodkit.monitoring.health import health_metrics
from prodkit.monitoring.served import served_performance
from prodkit.scoring.guard import Answers
from prodkit.scoring.mutations import records
from prodkit.scoring.rows import Reader
from prodkit.serving.requestlog import Entry, RequestLog

__all__ = ["orders_file", "places", "prodkit", "start"]  # fixtures

DAYS = {"window": "2024-02-03/2024-02-05", "windows": 2}


@pytest.fixture
def champion():
    """Number and bundle of the champion."""
    return 2, unpack(version_of(2)[0])


@pytest.fixture
def february(champion):
    """Orders of two weeks as a client sends them, with their times and numbers."""
    rows = orders()
    rows = rows[(rows["ordered_at"] >= "2024-02-01") & (rows["ordered_at"] < "2024-02-15")]
    named = zip(rows["order"].astype(str), rows["ordered_at"].dt.strftime("%Y-%m-%dT%H:%M:%S"), strict=True)
    sent = records(rows, schema=champion[1].schema)
    return [row | {"order": order, "ordered_at": at} for row, (order, at) in zip(sent, named, strict=True)]


@pytest.fixture
def served(tmp_path, champion, february):
    """Write what a service would have of some rows of a request each; the folder."""
    schema = champion[1].schema
    reader = Reader(schema)

    def write(rows, *, latency_ms=2.0, source="champion", reason="", **changes):
        log = RequestLog(
            tmp_path / "requests", most_rows=9_999, seconds=60, time_column="ordered_at", id_column=["order"]
        )
        for number, row in enumerate(rows):
            degraded, cells = np.array([source != "champion"]), [reader.read(row | changes)[0]]
            answers = Answers(
                np.array([0.25]), degraded, np.array([reason]), np.array([2]), np.array([source]), cells
            )
            facts = (pd.Timestamp("2024-03-01"), f"r{number}", None, 2, latency_ms, 100)
            log.note(Entry(answers, [row], schema, *facts))
        log.flush()
        assert not log.problem
        return str(tmp_path / "requests")

    return write


def on_days(rows, *days):
    """The rows of these days of February."""
    return [row for row in rows if int(row["ordered_at"][8:10]) in days]


def seen(places, champion, folder, **given):
    """Parameters, signs and evidence of a look at the first four days of February."""
    params = params_for("monitor", "unused", **{**DAYS, **places, "requests": folder, **given})
    with opened(places) as store:
        health = health_metrics(store, params, champion=champion)
    return params, health, {item.name: item for item in monitor_evidence(params, health)}


def test_a_run_of_monitor_tells_what_a_service_has_answered(
    places, start, prodkit, orders_file, february, tmp_path
):
    """Latency, errors, fallbacks and input of a real service stand in the record and on the page of a real run."""
    service = start(places, log_seconds=0.1)
    for row in february[:300]:
        assert service.predict([row]).status_code == 200
    service.predict([row | {"price": "a lot"} for row in february[300:420]])
    service.predict([row | {"city": "Atlantis"} for row in february[420:]])
    service.stop()
    facts = facts_file(tmp_path, orders_file, **places)
    status, said, _ = prodkit(
        *("run", "monitor", "-f", facts, "-p", "window", FEBRUARY, "-p", "windows", 1, "--json"),
        *("-p", "requests", service.out / "requests", "--out", tmp_path / "out"),
    )
    assert status == 0, said[:3000]
    record = json.loads(said)
    found = {item["name"]: item for item in record["evidence"]}
    assert found["served.error_share"]["value"] == pytest.approx(120 / 840)
    assert found["served.degraded_share"]["outcome"] == "fail"
    assert (found["served.latency_p99_ms"]["n"], found["served.latency_p99_ms"]["outcome"]) == (840, "pass")
    assert any(name.startswith("served.contract.city") for name in found), list(found)
    assert "health.error_share" not in found  # nothing was scored: that is the service's to say
    assert (found["served.loss"]["outcome"], found["served.loss"]["n"]) == (
        "pass",
        found["served.score"]["n"],
    )
    page = (tmp_path / "out" / "runs" / record["run_id"] / "report.html").read_text()
    assert "share of rows that the service answered by a fallback" in page


def test_answers_are_judged_by_labels_of_a_table_of_their_own(places, champion, february, served, tmp_path):
    """Once its label is known an answer counts, with its last one and for the version that gave it."""
    labels = orders()[["order", "ordered_at", "returned"]].dropna()
    labels["known_at"] = labels["ordered_at"] + pd.Timedelta(days=3)
    labels.to_parquet(tmp_path / "labels.parquet")
    served(on_days(february, 3, 4))
    folder = served(on_days(february, 3)[:10])  # asked again
    given = {
        **places,
        "requests": folder,
        "labels": str(tmp_path / "labels.parquet"),
        "label_time": "known_at",
    }
    params = params_for("monitor", "unused", **{**DAYS, **given, "min_rows": 50})
    known = labels["ordered_at"].between("2024-02-03", "2024-02-05", "left")
    with opened(places) as store:
        assert served_performance(store, params)["labelled"].tolist() == [0]
        later = params.model_copy(update={"as_of": pd.Timestamp("2024-02-09").to_pydatetime()})
        (row,) = served_performance(store, later).to_dict("records")
        assert (row["rows"], row["labelled"]) == (120, known.sum())
        returned = labels["returned"][known]
        assert row["log_loss"] == pytest.approx(-np.log(np.where(returned == 1, 0.25, 0.75)).mean())
        assert row["log_loss_low"] < row["log_loss"] < row["log_loss_high"]
        health = health_metrics(store, later, champion=champion)
        unnamed = later.model_copy(update={"id_column": []})
        other = health_metrics(store, unnamed, champion=champion)
    found = {item.name: item for item in monitor_evidence(later, health)}
    assert (found["served.loss"].value, found["served.loss"].rung) == (row["log_loss"], 3)
    assert "served_log_loss" in draw_quality(later, health).digest
    found = {item.name: item for item in monitor_evidence(unnamed, other)}
    assert "id_column must name a row" in found["served.labels"].note


def test_drift_reads_the_log_as_its_table(places, start, prodkit, orders_file, february, tmp_path):
    """A run of drift on what was asked needs no labels there, and a row that was asked twice is two rows."""
    service = start(places, log_seconds=0.1)
    for _ in range(2):
        service.predict([row | {"price": 900.0} for row in february])
    service.stop()
    facts = facts_file(tmp_path, orders_file, **places)
    status, said, _ = prodkit(
        *("run", "drift", "-f", facts, "-p", "window", FEBRUARY, "--out", tmp_path / "out", "--json"),
        *("-p", "data", service.out / "requests", "-p", "id_column", '["request", "row"]'),
    )
    assert status == 0, said[:3000]
    record = json.loads(said)
    assert record["inputs"][0]["rows"] == 2 * len(february)
    assert "drift.price" in {item["name"] for item in record["evidence"] if item["outcome"] == "fail"}


def test_each_window_has_its_own_figures(places, champion, february, served):
    """Rows belong to the window of their own time; latency is that of requests, a hold is a fallback and no error."""
    served(on_days(february, 1, 2), latency_ms=4.0)
    served(on_days(february, 3), latency_ms=7.0, source="rule", reason="on hold: price is empty")
    folder = served(on_days(february, 4), latency_ms=9.0, price=900.0)
    params, health, found = seen(places, champion, folder)
    signs = health.signs
    assert signs["served_rows"].tolist() == [120, 120]
    assert signs["served_latency_p99_ms"].tolist() == [4.0, 9.0]
    assert signs["served_degraded_share"].tolist() == [0.0, 0.5]
    assert signs["served_error_share"].tolist() == [0.0, 0.0]
    assert found["served.degraded_share"].outcome == "fail"
    assert found["served.error_share"].outcome == "pass"
    assert "served_latency_p99_ms" in health.tables()
    assert "slowest request of a hundred, ms 4 to 9 in 2 of 2 windows" in draw_answers(params, health).digest


def test_where_the_service_has_written_nothing_the_page_says_so(places, champion, tmp_path):
    """Without a log there is no sign and no evidence of it, and its place in the figure is empty."""
    for given in ({}, {"requests": ""}):
        _, health, found = seen(places, champion, str(tmp_path / "nowhere"), **given)
        assert not [name for name in found if name.startswith("served.")]
        assert found["health.error_share"].outcome == "inconclusive"
        assert np.isnan(health.sign("served_requests")["value"]).all()


def test_a_service_that_has_fallen_silent_is_not_healthy(places, champion, february, served):
    """It answered the window before and nothing in the newest: nobody can say that all is well."""
    found = seen(places, champion, served(on_days(february, 1)))[2]
    assert found["served.requests"].outcome == "inconclusive"
    assert "nothing in the newest window" in found["served.requests"].note


def test_a_log_that_cannot_be_read_is_an_error_and_hides_nothing(places, champion, february, served):
    """The evidence names the file; the other signs stay."""
    folder = served(on_days(february, 3))
    with open(f"{folder}/requests-1-1-000001.parquet", "wb") as file:
        file.write(b"PAR1 and no more")
    found = seen(places, champion, folder)[2]
    assert found["served.log"].outcome == "error"
    assert "request log could not be read" in found["served.log"].note
    assert "contract.input" in found


def test_new_rows_of_a_window_are_new_work(places, february, served):
    """The digest of a run changes with what was asked in its windows, and not with what was asked later."""
    served(on_days(february, 3))
    params = params_for("monitor", "unused", **DAYS, **places, requests=served([]))
    before = requests_digest(params)
    assert before
    served(on_days(february, 9))
    assert requests_digest(params) == before
    served(on_days(february, 4))
    assert requests_digest(params) != before
    assert requests_digest(params.model_copy(update={"requests": ""})) == ""
