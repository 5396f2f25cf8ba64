"""A model's life on tables of one's own: any task, any format, stopped and told again, never done twice."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import nbformat
import numpy as np
import pandas as pd
import pytest
import yaml
from joblib import parallel_config
from tables import PROJECT, Command, orders, prodkit, run_cells, written

import prodkit as package
from prodkit.data.flights import FLIGHTS_DRILLS
from prodkit.decisions.answers import RESULT_MIME
from prodkit.errors import ParameterError
from prodkit.lifecycle import Lifecycle, lifecycle
from prodkit.params import NOTEBOOKS
from prodkit.planning import suited_to
from prodkit.runs.engine import Order
from prodkit.settings import environment_set, using_outputs

__all__ = ["prodkit"]  # a fixture

WEEKS = 21
FACTS = {"time_column": "ordered_at", "target": "returned", "label_delay": "6h", "every": "5d"}


def shop(*, seed: int = 0, rows: int = 120) -> pd.DataFrame:
    """Three weeks of orders: numbers, text, booleans, dates, missing values, mixed types, an empty column."""
    frame, random = orders(days=WEEKS, rows=rows, seed=seed), np.random.default_rng(seed)
    n = len(frame)
    frame["customer_since"] = pd.Timestamp("2019-01-01") + pd.to_timedelta(
        random.integers(0, 1500, n), unit="D"
    )
    frame["code"] = [str(number) if number % 3 else f"x{number}" for number in random.integers(0, 40, n)]
    frame["empty"] = np.nan
    drive = frame["price"] / 20 - 2.5 + (frame["city"] == "Rome") * 1.5
    frame["drive"] = drive * 1.5 + random.normal(size=n)
    return frame.drop(columns=["returned"])


def facts_beside(table: Path, **given: Any) -> Path:
    """A params file that names a table of its own folder."""
    path = table.parent / "my.yaml"
    path.write_text(yaml.safe_dump({**FACTS, "data": table.name, **given}))
    return path


@pytest.fixture
def here(monkeypatch):
    """Notebooks run in this process, without a kernel; all else is as it is."""
    shown: list[Any] = []

    def conclude(*given: Any, **named: Any) -> Any:
        shown.append(real(*given, **named))
        return shown[-1]

    def execute(source: Path, values: dict[str, Any], order: Order) -> None:
        with environment_set(**order.environment):
            run_cells(source.stem, values)
        notebook = nbformat.read(source, as_version=4)
        data = {RESULT_MIME: shown.pop().document, "text/plain": "recorded"}
        outputs = [nbformat.v4.new_output("display_data", data=data)]
        notebook.cells.append(nbformat.v4.new_code_cell("", outputs=outputs))
        nbformat.write(notebook, order.path)

    real = package.conclude
    monkeypatch.setattr(package, "conclude", conclude)
    monkeypatch.setattr("prodkit.runs.runner.execute", execute)
    with parallel_config(backend="sequential"):
        yield


def lived(folder: Path, file: Path, *pairs: tuple[str, str]) -> Lifecycle:
    """A call of the loop under this folder."""
    with using_outputs(folder):
        life = lifecycle([file], pairs)
        life.tell = lambda step: None
        life.live()
        life.rows = life.table()
    return life


def actions(life: Lifecycle) -> list[tuple[str, str | None]]:
    """What ran, and what it decided."""
    return [(run["notebook"], run["action"]) for run in life.runs]


def test_a_newcomers_table_through_the_real_command(prodkit: Command, tmp_path, monkeypatch):
    """Yes and no in a CSV, no id: a person approves the first champion, and the story goes on where it stopped."""
    frame = shop()
    frame["returned"] = np.where(frame.pop("drive") > 0, "yes", "no")
    table = tmp_path / "orders.csv"
    frame.to_csv(table, index=False)
    file, out = facts_beside(table), tmp_path / "out"
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    monkeypatch.setenv("PRODKIT_PROJECT", str(PROJECT))
    call = ("lifecycle", "-f", "../my.yaml", "-p", "approval", "required", "--out", out)

    status, said, _ = prodkit(*call)
    assert status == 0
    assert "waits for a person: version 2 is proposed as the first champion" in said
    approve = next(line.partition("; ")[2] for line in said.splitlines() if "prodkit models approve" in line)
    status, shown, _ = prodkit("status", "-f", "../my.yaml", "--out", out)
    assert (status, "No champion serves yet." in shown, f"  {approve}" in shown.splitlines()) == (
        0,
        True,
        True,
    )
    assert prodkit(*approve.split()[1:])[0] == 0

    status, table_shown, _ = prodkit(*call)
    assert status == 0
    runs = {path.parent.name for path in out.glob("runs/*/result.json")}
    assert sorted(name.split("-")[0] for name in runs) == sorted(
        ["train", "validate", *["score", "drift", "monitor", "rollback"] * 2]
    )
    page = (out / "index.html").read_text()
    assert f"open {out / 'index.html'}" in table_shown
    assert all(f"runs/{name}/report.html" in page for name in runs)
    assert "roc_auc" in page
    assert "drill" not in page
    scored = pd.concat(pd.read_parquet(path) for path in out.glob("predictions/*/*/*.parquet"))
    assert not scored["degraded"].any()
    assert scored["row_id"].is_unique
    assert len(scored) == (frame["ordered_at"] >= "2024-01-12").sum()

    status, again, _ = prodkit(*call)
    assert (status, again.split("feed is silent")[0]) == (0, table_shown.split("feed is silent")[0])
    assert "nothing is due" in again
    assert {path.parent.name for path in out.glob("runs/*/result.json")} == runs
    assert file.exists()


def test_a_quantity_is_lived_through(here, tmp_path):
    """Regression by Parquet, with an id: scored in its own unit, judged by intervals, nothing degraded."""
    frame = shop()
    frame["returned"] = 100 * frame.pop("drive")
    file = facts_beside(Path(written(frame, tmp_path)), id_column=["order"])
    life = lived(tmp_path / "out", file)
    assert [action for notebook, action in actions(life) if notebook == "validate"][-1] == "promote"
    lived_rows = [row for row in life.rows if row["served by"]]
    assert [row["champion after"] for row in lived_rows] == ["v2"] * len(lived_rows) != []
    for row in lived_rows:
        assert list(row) == ["window", "mae", "decision", "served by", "champion after"]
        assert 70 < float(row["mae"]) < 130  # the noise alone makes 80
    judged = next(run for run in life.runs if run["notebook"] == "rollback")
    named = {item["name"]: item for item in judged["evidence"]}
    assert named["performance.challenger"]["outcome"] in ("pass", "inconclusive")
    assert named["performance.challenger"]["limit"] == 0.02  # in skill, whatever the unit of the target


def test_classes_that_come_and_go_are_lived_through(here, tmp_path):
    """A class that is too rare for every fold, and one that only comes later, break nothing and are noticed."""
    frame = shop(rows=150)
    drive = frame.pop("drive")
    kind = pd.Series(np.select([drive < -1, drive < 1], ["low", "mid"], "high"))
    kind[40] = "once"
    late = (frame["ordered_at"] >= "2024-01-15") & (frame["order"] % 10 == 0)
    frame["returned"] = kind.where(~late, "brand new")
    life = lived(tmp_path / "out", facts_beside(Path(written(frame, tmp_path))), ("retrain_now", "true"))
    assert life.rows[0]["decision"].startswith("retrain, then ")
    rollbacks = [run for run in life.runs if run["notebook"] == "rollback"]
    unknown = [item for item in rollbacks[-1]["evidence"] if item["name"] == "performance.unknown_classes"]
    trained = [run for run in life.runs if run["notebook"] == "train"]
    with using_outputs(tmp_path / "out"), life.store() as store:
        classes = [version.manifest["schema"]["classes"] for version in store.versions()]
    assert len(trained) == 3
    assert classes[0] == ["high", "low", "mid", "once"]
    assert "brand new" in classes[-1]
    assert unknown
    assert (unknown[0]["outcome"], round(unknown[0]["value"], 1)) == ("fail", 0.1)


def test_too_little_evidence_waits_for_more_and_is_no_failure(here, tmp_path):
    """A model of pure noise is judged again on the rows of each period, and the next call goes on with that."""
    frame = shop(rows=30)
    frame["returned"] = np.random.default_rng(3).random(len(frame.drop(columns="drive"))) < 0.5
    file = facts_beside(Path(written(frame.drop(columns="drive"), tmp_path)))
    life = lived(tmp_path / "out", file, ("min_blocks", "40"))
    (waiting,) = [note for note in life.notes if note.startswith("no champion yet: too little evidence")]
    assert "on 16 days; needed are 115 rows and 40 days" in waiting
    assert waiting.endswith("it is judged again when the next period is over")
    page = (tmp_path / "out" / "index.html").read_text()
    assert "no champion yet: too little evidence" in page
    assert (
        len(set(re.findall(r"runs/[^/]+/report.html", page))) == 4
    )  # train, and validate on the labels of three periods


@pytest.mark.parametrize("missing", ["time_column", "target"])
def test_a_table_must_say_its_time_and_its_target(tmp_path, missing):
    """Those of the flights are not assumed of another table."""
    file = facts_beside(Path(written(orders(days=2), tmp_path)))
    facts = yaml.safe_load(file.read_text())
    del facts[missing]
    file.write_text(yaml.safe_dump(facts))
    with pytest.raises(ParameterError, match=f"{missing} must be given with `data`"):
        lifecycle([file], [])


def test_a_table_of_ones_own_has_no_facts_of_the_flights(tmp_path):
    """Neither their columns nor their ids nor their slices nor their drills are asked of it."""
    frame = orders(days=WEEKS)
    with using_outputs(tmp_path / "out"):
        life = lifecycle([facts_beside(Path(written(frame, tmp_path)))], [])
        assert life.drills == ()
        assert str(life.plan.first) == "2024-01-01/2024-01-12"
        due = [str(entry.window) for entry in life.agenda() if entry.state == "due"]
        assert due == ["2024-01-12/2024-01-17", "2024-01-17/2024-01-22"]
        assert life.parameters("train", window=life.plan.first)["window"] == str(life.plan.first)


def test_what_is_given_wins_over_what_suits_the_table(tmp_path):
    """`-p` over files over the outline, each for the notebooks that know the name."""
    file = facts_beside(Path(written(orders(days=WEEKS), tmp_path)), holdout="4d", min_rows=77)
    with using_outputs(tmp_path / "out"):
        life = lifecycle([file], [("min_rows", "88"), ("window", "2024-01-02/2024-01-20")])
        assert life.parameters("train")["holdout"] == "4d"
        assert {life.parameters(name)["min_rows"] for name in ("validate", "rollback")} == {88}
        assert "min_rows" not in life.parameters("score")
        assert str(life.plan.first) == "2024-01-02/2024-01-12"
        assert [entry.state for entry in life.agenda()] == ["due", "open"]


def test_a_run_by_hand_is_given_what_suits_its_window(tmp_path):
    """Holdout, folds and rows to judge by come from the same place as those of the loop; what is given wins."""
    data = written(orders(days=WEEKS, rows=30), tmp_path)
    given = {**FACTS, "data": data, "window": "2024-01-01/2024-01-15", "folds": 3}
    assert suited_to("train", given) == {"holdout": "174h"}
    assert suited_to("rollback", given)["min_rows"] == 282
    assert suited_to("score", given) == {}
    assert suited_to("train", {**given, "label_delay": "6d"}) == {}  # nothing does: training says why
    assert suited_to("train", {**given, "data": data + "x"}) == {}


def test_an_unknown_name_is_refused_with_the_nearest_known_one(tmp_path):
    """A typing error costs nothing but a sentence."""
    file = facts_beside(Path(written(orders(days=2), tmp_path)))
    with pytest.raises(ParameterError, match="Did you mean retrain_now"):
        lifecycle([file], [("retrain_know", "true")])


def test_the_flights_have_their_drills_in_periods_of_their_own(tmp_path):
    """January to March is learned from; each drill begins with one of the nine months that follow."""
    with using_outputs(tmp_path):
        life = lifecycle(flights_files(), [])
        months = {f"{entry.window.start:%Y-%m-%d}" for entry in life.agenda() if entry.state == "due"}
        assert str(life.plan.first) == "2013-01-01/2013-04-01"
    assert {drill.start for drill in FLIGHTS_DRILLS} <= months
    assert len(months) == 9
    assert all("drill" in kind.model_fields for kind in NOTEBOOKS.values())


def flights_files() -> list[Path]:
    """The params files of the bundled flights."""
    return sorted((PROJECT / "params").glob("*.yaml"))
