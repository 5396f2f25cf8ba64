"""The main job, as a newcomer runs it: a model lives through the real year, and two drills are found."""

import json
import re
import subprocess
import sys
from pathlib import Path

import golden
import pandas as pd
import pytest

PROJECT = Path(__file__).parent.parent
NATURAL = [f"2013-{month:02d}" for month in (4, 5, 6, 7, 8, 10, 12)]


def prodkit(*words, cwd=None):
    """The command, in a process of its own."""
    code = "from prodkit.cli import main; import sys; sys.argv[0] = 'prodkit'; main()"
    call = [sys.executable, "-c", code, *words]
    return subprocess.run(call, cwd=cwd, capture_output=True, text=True, timeout=1500)


@pytest.fixture(scope="module")
def told(tmp_path_factory):
    """`prodkit lifecycle` on the bundled flights."""
    folder = tmp_path_factory.mktemp("story")
    done = prodkit("lifecycle", "--out", str(folder / "out"), cwd=PROJECT)
    assert done.returncode == 0, done.stderr[-3000:]
    return folder / "out", done


@pytest.fixture(scope="module")
def months(told):
    """Rows of the closing table, by month."""
    again = prodkit("lifecycle", "--json", "--out", str(told[0]), cwd=PROJECT)
    return {row["window"]: row for row in json.loads(again.stdout)["periods"]}


@pytest.fixture(scope="module")
def results(told):
    """result.json of every run, in the order of their windows."""
    return [json.loads(path.read_text()) for path in sorted(told[0].glob("runs/*/result.json"))]


def test_it_lives_through_nine_months_and_says_where_to_look(told, months):
    """Nine rows, each with AUC and log-loss, the path of the page, and nothing but the table on stdout."""
    assert sorted(months) == [f"2013-{month:02d}" for month in range(4, 13)]
    assert all(0 < float(row["log_loss"]) < 1 for row in months.values())
    assert f"open {told[0] / 'index.html'}" in told[1].stdout
    assert told[1].stderr == ""


def test_the_year_is_the_one_on_record(told):
    """Every run of the year has the outcome, the action, the evidence and the figures that are on record."""
    expected, recorded = golden.on_record("year"), golden.year(told[0])
    assert sorted(recorded) == sorted(expected)
    assert {key: golden.differences(expected[key], recorded[key]) for key in expected} == {
        key: [] for key in expected
    }


def test_the_bad_release_of_september_is_found_and_reverted(months, results):
    """The version forced live loses its place to the one before, and is in quarantine."""
    row = months["2013-09"]
    assert row["decision"] == "rollback"
    assert row["champion after"] == months["2013-08"]["champion after"] != row["served by"]
    judged = next(r for r in results if r["notebook"] == "rollback" and r["action"] == "rollback")
    assert any(item["name"] == "drill" and "late: scrambled" in item["note"] for item in judged["evidence"])


def test_the_broken_feed_of_november_holds_and_december_lets_go(told, months, results):
    """Both faults are named, the champion answers without these columns, nobody is trained; the hold ends by itself."""
    assert months["2013-11"]["decision"] == "hold"
    held = next(r for r in results if r["action"] == "hold")
    said = " ".join(held["reasons"])
    assert "temp looks converted from Fahrenheit to Celsius" in said
    assert "pressure is empty" in said
    scored = next(r for r in results if r["notebook"] == "score" and r["params"]["drill"])
    assert scored["outputs"]["degraded_share"] == 0.0  # it still beats the simple rule
    kinds = [
        event["kind"]
        for event in json.loads(prodkit("models", "history", "--json", "--out", str(told[0])).stdout)
    ]
    assert kinds.count("hold") == kinds.count("release") == 1


def test_no_natural_month_holds_and_none_rolls_back_without_being_sure(months, results):
    """Seasons and weather are no broken feed; a champion goes back where the one before was better, at nine in ten."""
    sure = {
        run["params"]["window"][:7]: item["value"]
        for run in results
        for item in run["evidence"]
        if run["notebook"] == "rollback" and item["name"] == "economy.predecessor"
    }
    for month in NATURAL:
        decision = months[month]["decision"].split(",")[0]
        assert decision in ("keep", "watch", "retrain", "rollback"), months[month]
        assert decision != "rollback" or sure[month] > 0.9
        assert float(months[month]["roc_auc"]) > 0.6


def test_what_the_evidence_asks_for_is_done(months, results):
    """Each retraining is followed by a training on all that was known, and a validation that decides."""
    asked = [r["params"]["window"] for r in results if r["action"] == "retrain"]
    trained = {r["params"]["window"].split("/")[1] for r in results if r["notebook"] == "train"}
    assert {window.split("/")[1] for window in asked} <= trained
    validated = [r for r in results if r["notebook"] == "validate"]
    assert len(validated) == 1 + len(asked)
    assert {r["action"] for r in validated} <= {"promote", "reject", "keep"}


def test_every_flight_is_predicted_once(told, results):
    """Each row of each month has one prediction, by the version that was champion then."""
    for run in (r for r in results if r["notebook"] == "score"):
        folder = told[0] / Path(run["outputs"]["folder"]).relative_to("outputs")
        files = sorted(folder.glob("*.parquet"))
        table = pd.concat([pd.read_parquet(path) for path in files])
        assert len(table) == run["inputs"][0]["rows"]
        assert not table.duplicated(["time", "carrier", "flight", "origin"]).any()
        assert set(table["version"]) == {run["outputs"]["version"]}
        assert table["prediction"].between(0, 1).all()


def test_every_run_can_be_read_without_a_network(told, results):
    """Each run has its notebook, a report that asks nothing of any server, and figures with a text."""
    reports = [told[0] / "runs" / r["run_id"] / "report.html" for r in results]
    assert len(reports) > 30
    index, versions = told[0] / "index.html", sorted(told[0].glob("versions/*.html"))
    for page in [index, *versions, *reports]:
        html = page.read_text()
        assert not re.search(r"""(src|href)=["']?(https?:)?//""", html)
        assert html.count("<script") == (page == index)
        assert html.count("<h1>") == 1
        assert len(re.findall(r"<img ", html)) == len(re.findall(r'<img alt="[^"]{10,}', html))
        assert page.stat().st_size < 1_000_000
        links = re.findall(r'href="([^":#]+)"', html)
        assert all((page.parent / link).is_file() for link in links)
    linked = set(re.findall(r'href="([^":]+)"', index.read_text()))
    assert {f"runs/{r['run_id']}/report.html" for r in results} <= linked
    assert {f"versions/{page.name}" for page in versions} <= linked


def test_the_store_is_sound_at_the_end(told):
    """The chain of events, the pointer and every artifact agree."""
    done = prodkit("models", "check", "--out", str(told[0]))
    assert (done.returncode, done.stdout.split(", ")[1]) == (0, "0 problems\n")
