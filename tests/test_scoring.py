"""Scoring: one prediction a row, wherever the rows lie, whatever stops it, and whatever they look like."""

from __future__ import annotations

import os
import pty
import signal
import sqlite3
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tables import FEBRUARY, opened, orders, params_for, places, trained, version_of, written

from prodkit.data.windows import read_window
from prodkit.decisions.survey import inspect_window
from prodkit.errors import DataError, IdentityError
from prodkit.evidence import Evidence, Window
from prodkit.models.bundle import unpack
from prodkit.scoring.batch import open_window, remember_scoring, score_window, scoring_evidence
from prodkit.scoring.inspection import inspect_chunks
from prodkit.store.workspace import load_version

__all__ = ["places"]  # fixture

# A process of its own that scores a window until somebody kills it.
SCORER = """
import json, sys
from prodkit.params import ScoreParams
from prodkit.scoring.batch import open_window, score_window
from prodkit.scoring.inspection import inspect_chunks
from prodkit.store.registry import Store
from prodkit.store.workspace import load_version
params = ScoreParams.check(json.loads(sys.argv[1]))
with Store.open(params.store, params.artifacts) as store:
    bundle = load_version(store, 2)
    rows = open_window(params, bundle=bundle)
    score_window(params, rows, inspect_chunks(store, params, rows, version=2, bundle=bundle), version=2, bundle=bundle)
"""


@pytest.fixture
def bundle(places):
    """The champion."""
    with opened(places) as store:
        return load_version(store, 2)


@pytest.fixture
def data(tmp_path):
    """Orders of February in row groups of 60, in an order that is not that of time."""
    frame = orders()
    mine = frame[(frame["ordered_at"] >= "2024-01-31") & (frame["ordered_at"] < "2024-02-16")]
    return grouped(tmp_path / "orders.parquet", mine.sample(frac=1.0, random_state=1))


@pytest.fixture
def params(places, data, tmp_path):
    """Half of February, twelve rows a batch."""
    folder = str(tmp_path / "predictions")
    given = {"window": FEBRUARY, "batch_rows": 12, "predictions": folder, "backend": "threading"}
    return params_for("score", data, **given, **places)


def grouped(path, frame, *, rows=60):
    """The path of a Parquet file with row groups of so many rows."""
    pq.write_table(pa.Table.from_pandas(frame, preserve_index=False), path, row_group_size=rows)
    return str(path)


def looked(params, bundle, *, version=2):
    """The chunks of a window, and what their inspection says."""
    chunks = open_window(params, bundle=bundle)
    with opened({"store": params.store, "artifacts": params.artifacts}) as store:
        return chunks, inspect_chunks(store, params, chunks, version=version, bundle=bundle)


def scored(params, bundle, *, version=2, distrust=""):
    """A window, inspected and scored as the notebook does; with distrust, as if that had been found."""
    chunks, inspection = looked(params, bundle, version=version)
    if distrust:
        evidence = [Evidence("contract.rows.copied", "fail", rung=1, note=distrust)]
        inspection = replace(inspection, evidence=evidence)
    return score_window(params, chunks, inspection, version=version, bundle=bundle)


def expected(params):
    """The window's rows, by order."""
    return read_window(params).set_index("order").sort_index()


class Breaking:
    """A model that answers as another does, until it meets a certain price."""

    def __init__(self, model, price, answer=None):
        self.model, self.price, self.answer, self.classes_ = model, price, answer, model.classes_

    def predict_proba(self, columns):
        """Shares of the classes, NaN for the price; or an error, if no answer is given."""
        shares, wrong = self.model.predict_proba(columns), (columns["price"] == self.price).to_numpy()
        if wrong.any() and self.answer is None:
            raise ArithmeticError("a price that breaks the model")
        shares[wrong] = self.answer
        return shares


def test_every_row_is_predicted_once(params, bundle):
    """A window in parts has each row once, in the order of the table, with what names it, version and latency."""
    done = scored(params, bundle)
    table, rows = done.table(), expected(params)
    whole = pd.read_parquet(params.data)
    mine = whole[(whole["ordered_at"] >= "2024-02-01") & (whole["ordered_at"] < "2024-02-15")]
    assert table["order"].tolist() == mine["order"].tolist()
    assert table["ordered_at"].tolist() == mine["ordered_at"].tolist()
    assert np.allclose(table.set_index("order")["prediction"].sort_index(), bundle.predict(rows), rtol=1e-12)
    assert set(table["version"]) == {2}
    assert set(table["source"]) == {"champion"}
    assert (table["latency_ms"] > 0).all()
    assert (done.rows, done.degraded_share, done.error_share, done.resumed_parts) == (840, 0.0, 0.0, 0)
    assert 1 < len(done.parts) == len(list(done.folder.glob("part-*.parquet")))


def test_its_sums_are_those_of_its_rows(params, bundle):
    """Latency, means of days and the summary of predictions, taken from footers, are what the files say."""
    done = scored(params, bundle)
    table = done.table()
    means = table.groupby(table["ordered_at"].dt.floor("D"))["prediction"].mean()
    assert np.allclose(done.by_day()["prediction"], means)
    assert done.by_day().index.tolist() == means.index.tolist()
    quantiles = np.quantile(table["latency_ms"], [0.0, 0.5, 1.0], method="inverted_cdf")
    assert done.latency(0.0, 0.5, 1.0) == pytest.approx(quantiles)
    assert (done.scores.n, done.scores.mean) == (840, pytest.approx(table["prediction"].mean()))
    assert done.scores.bins == bundle.scores.bins
    pd.testing.assert_frame_equal(done.head(3), table.head(3))


def test_scoring_again_changes_nothing(params, bundle):
    """Whoever scores the same window again finds it done: the same files, the same sums."""
    first = scored(params, bundle)
    files = {path.name: path.stat().st_mtime_ns for path in first.folder.iterdir()}
    again = scored(params, bundle)
    assert again.resumed_parts == len(files)
    assert {path.name: path.stat().st_mtime_ns for path in again.folder.iterdir()} == files
    assert [part.to_json() for part in again.parts] == [part.to_json() for part in first.parts]


def test_other_rows_another_version_or_another_trust_lie_apart(params, bundle, tmp_path):
    """Predictions of other work never mix with those that are there."""
    frame = pd.read_parquet(params.data)
    dearer = grouped(tmp_path / "dearer.parquet", frame.assign(price=frame["price"] + 1))
    works = [
        scored(params, bundle),
        scored(params.model_copy(update={"data": dearer}), bundle),
        scored(params, bundle, version=1),
        scored(params, bundle, distrust="broken"),
        scored(params.model_copy(update={"batch_rows": 60}), bundle),
    ]
    assert len({done.folder for done in works}) == 5


def test_a_killed_process_loses_and_doubles_no_row(params, bundle, tmp_path):
    """SIGKILL in the midst of scoring, then again: each row once, with the prediction it would have had."""
    path = grouped(tmp_path / "fine.parquet", pd.read_parquet(params.data), rows=10)
    span = Window.parse("2024-02-01/2024-02-08")
    small = params.model_copy(update={"data": path, "window": span, "batch_rows": 1, "backend": "loky"})
    undisturbed = small.model_copy(
        update={"predictions": str(tmp_path / "undisturbed"), "backend": "threading"}
    )
    scorer = subprocess.Popen(
        [sys.executable, "-c", SCORER, small.model_dump_json()],
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        start_new_session=True,
    )
    while len(list(tmp_path.glob("predictions/**/part-*.parquet"))) < 4:
        assert scorer.poll() is None, "it came to its end before it was killed"
        time.sleep(0.002)
    os.killpg(scorer.pid, signal.SIGKILL)  # it, and the workers that it has started
    assert scorer.wait(10) == -signal.SIGKILL
    done = len(list(tmp_path.glob("predictions/**/part-*.parquet")))
    assert 4 <= done < 42
    resumed = scored(small.model_copy(update={"backend": "threading"}), bundle)
    assert resumed.resumed_parts == done
    whole, table = scored(undisturbed, bundle).table(), resumed.table()
    timeless = [name for name in whole.columns if name != "latency_ms"]
    pd.testing.assert_frame_equal(table[timeless], whole[timeless])
    assert sorted(table["order"]) == expected(small).index.tolist()


def test_half_a_file_is_no_part(params, bundle):
    """What a killed process was writing does not count as written, and is swept away once it is old."""
    folder = scored(params, bundle).folder
    part = folder / "part-000003.parquet"
    old, young = (part.with_suffix(f".{name}.tmp") for name in ("old", "young"))
    for draft in (old, young):
        draft.write_bytes(part.read_bytes()[:100])
    os.utime(old, (0, 0))
    part.unlink()
    again = scored(params, bundle)
    assert again.resumed_parts == len(again.parts) - 1
    assert sorted(again.table()["order"]) == expected(params).index.tolist()
    assert (old.exists(), young.exists()) == (False, True)


# Where the rows lie


def in_csv(folder, frame):
    """Two CSV files; what is a whole number in one is none in the other."""
    home = folder / "csv"
    home.mkdir()
    first, second = frame.iloc[:1700], frame.iloc[1700:]
    first.assign(weight=first["weight"].round()).to_csv(home / "a.csv", index=False)
    second.to_csv(home / "b.csv.gz", index=False)
    return str(home), pd.concat([first.assign(weight=first["weight"].round()), second])


def partitioned(folder, frame):
    """A folder of Parquet files by city, which is in their path alone."""
    frame.to_parquet(folder / "cities", partition_cols=["city"], index=False)
    return str(folder / "cities"), frame


def in_database(folder, frame):
    """A table of SQLite."""
    with sqlite3.connect(folder / "orders.db") as database:
        frame.to_sql("orders", database, index=False)
    database.close()
    return f"sqlite:///{folder}/orders.db#orders", frame


@pytest.mark.parametrize("laid", [in_csv, partitioned, in_database])
def test_rows_are_scored_wherever_they_lie(params, bundle, tmp_path, laid):
    """CSV, a partitioned folder and a database: the same rows, inspected and predicted as when read whole."""
    place, frame = laid(tmp_path, orders())
    other = params.model_copy(update={"data": place, "batch_rows": 20})
    done, rows = scored(other, bundle), expected(other)
    table = done.table().set_index("order").sort_index()
    assert table.index.tolist() == rows.index.tolist()
    assert not table["degraded"].any()
    truth = frame[frame["order"].isin(rows.index)].set_index("order").sort_index()
    assert np.allclose(table["prediction"], bundle.predict(truth), rtol=1e-12)
    assert not list(Path(params.predictions).glob(".scratch/*"))


def test_without_ids_a_row_is_named_by_its_file_and_position(params, bundle, tmp_path):
    """Positions count through the row groups of a Parquet file and the batches of a CSV one."""
    frame = orders()
    (tmp_path / "csv").mkdir()
    frame.to_csv(tmp_path / "csv" / "a.csv", index=False)
    for place, name in (
        (grouped(tmp_path / "rows.parquet", frame), "rows.parquet"),
        (tmp_path / "csv", "a.csv"),
    ):
        named = params.model_copy(update={"data": str(place), "id_column": []})
        table = scored(named, bundle).table()
        assert table["row_id"].tolist() == [f"{name}#{row}" for row in range(31 * 60, 45 * 60)]
        assert table["row_id"].tolist() == read_window(named)["_row"].tolist()


def test_a_rehearsal_puts_its_fault_into_the_window_as_a_whole(params, bundle):
    """A constant is one for all parts, and the inspection sees the very rows that other notebooks read."""
    drill = params.model_copy(update={"drill": {"price": "constant", "weight": "empty"}})
    _, inspection = looked(drill, bundle)
    failed = {item.name for item in inspection.evidence if item.outcome == "fail"}
    assert failed == {"contract.price.constant", "contract.weight.missing"}
    with opened({"store": params.store, "artifacts": params.artifacts}) as store:
        whole = inspect_window(store, drill, read_window(drill), version=2, bundle=bundle)
    assert inspection.evidence == whole.evidence


@settings(max_examples=15, deadline=None)
@given(rows=st.integers(1, 400), group=st.integers(1, 60), batch=st.integers(1, 50), seed=st.integers(0, 99))
def test_an_inspection_in_chunks_is_that_of_the_whole(rows, group, batch, seed, tmp_path_factory):
    """However a window is cut, its summary is that of the frame: strange values, new levels, gaps and all."""
    folder = tmp_path_factory.mktemp("cut")
    random = np.random.default_rng(seed)
    frame = orders(days=45).sample(rows, random_state=seed)
    frame["price"] = frame["price"].astype(str).mask(random.random(rows) < 0.1, "a lot")
    frame["city"] = frame["city"].mask(random.random(rows) < 0.1).mask(random.random(rows) < 0.1, "Atlantis")
    frame["weight"] = frame["weight"].mask(random.random(rows) < 0.1, np.inf)
    model = unpack(version_of(2)[0])
    params = params_for(
        *("score", grouped(folder / "a.parquet", frame, rows=group)),
        **{"window": "2024-01-01/2024-02-15", "batch_rows": batch, "predictions": str(folder / "p")},
        **{"backend": "threading", "store": f"sqlite:///{folder}/s.db", "artifacts": str(folder / "a")},
    )
    _, inspection = looked(params, model)
    with opened({"store": params.store, "artifacts": params.artifacts}) as store:
        whole = inspect_window(store, params, read_window(params), version=2, bundle=model)
    assert inspection.read.rows == inspection.current.rows == rows
    for name, column in inspection.current.columns.items():
        other = whole.current.columns[name]
        for field in ("block_counts", "block_unseen", "blocks"):
            assert np.array_equal(getattr(column, field), getattr(other, field)), (name, field)
        for field in ("malformed", "beyond", "zero", "min", "max", "fractional"):
            assert getattr(column, field) == getattr(other, field), (name, field)
        assert np.allclose(column.block_means, other.block_means)
        assert np.allclose(column.block_m2s, other.block_m2s)


# What names a row


def test_ids_that_repeat_are_found_across_chunks(params, bundle, tmp_path):
    """Two rows of one name, far apart in the table: how many, an example, and nothing is scored."""
    frame = orders()
    doubled = grouped(tmp_path / "doubled.parquet", pd.concat([frame, frame[frame["order"] == 2000]]))
    other = params.model_copy(update={"data": doubled})
    with pytest.raises(
        IdentityError, match=r"order must name one row each; found 1 rows such as 2000 \(in .*d"
    ):
        scored(other, bundle)
    assert not list(tmp_path.glob("predictions/**/*.parquet"))


def test_an_id_that_is_missing_is_refused(params, bundle, tmp_path):
    """A row that nothing names cannot be scored exactly once."""
    frame = orders().astype({"order": "float64"})
    frame.loc[frame["order"] == 2000, "order"] = np.nan
    path = grouped(tmp_path / "nameless.parquet", frame)
    with pytest.raises(IdentityError, match="order must not be missing; found 1 rows such as nan"):
        scored(params.model_copy(update={"data": path}), bundle)


NAMES = [
    "prediction",
    "row_id",
    "version",
    "source",
    "degraded",
    "reason",
    "latency_ms",
    "key_version",
    "index",
]
NAMES += ["row", "self", "schema", "rows", "encoder", "key_prediction", "price.eur"]


@settings(max_examples=12, deadline=None)
@given(names=st.permutations(NAMES), ids=st.integers(0, 2))
def test_no_column_of_the_table_is_overwritten(names, ids, tmp_path_factory):
    """Time, ids and features may be named like columns of the result: each stands there with its own values."""
    folder = tmp_path_factory.mktemp("names")
    time, *keys = names[: 1 + ids]
    features = names[1 + ids : 5 + ids]
    frame = orders(days=8, rows=25).assign(second=lambda rows: rows["order"] * 2)
    renamed = {"ordered_at": time, **dict(zip(["order", "second"], keys, strict=False))}
    renamed |= dict(zip(["price", "weight", "city", "express"], features, strict=True))
    frame = frame.rename(columns=renamed)
    data = grouped(folder / "a.parquet", frame, rows=60)
    facts = {"time_column": time, "id_column": keys, "features": features}
    training = {**facts, "window": "2024-01-01/2024-01-07", "holdout": "1d"}
    model = unpack(trained(params_for("train", data, **training))[0])
    params = params_for(
        *("score", data),
        **{**facts, "window": "2024-01-07/2024-01-09", "predictions": str(folder / "p"), "batch_rows": 12},
        **{"store": f"sqlite:///{folder}/s.db", "artifacts": str(folder / "a"), "backend": "threading"},
    )
    table, mine = scored(params, model).table(), frame[frame[time] >= "2024-01-07"]
    assert np.allclose(table["prediction"], model.predict(mine), rtol=1e-9)
    assert (table["version"] == 2).all()
    for key in (time, *keys):
        assert any(table[name].tolist() == mine[key].tolist() for name in table if name.endswith(key)), key
    assert len(set(table.columns)) == len(table.columns) == 7 + max(1, ids)


def test_a_table_that_changes_meanwhile_is_refused(params, bundle, tmp_path):
    """What is scored are the rows that were inspected, or nothing is said of them."""
    chunks, inspection = looked(params, bundle)
    frame = pd.read_parquet(params.data)
    frame.loc[frame["order"] == 2000, "ordered_at"] = pd.Timestamp("2020-01-01")
    grouped(tmp_path / "orders.parquet", frame)
    with pytest.raises(DataError, match="data must not change while it is scored"):
        score_window(params, chunks, inspection, version=2, bundle=bundle)


# Who does the work


def test_a_dask_cluster_gives_what_threads_give(params, bundle, tmp_path):
    """The backend of joblib is a parameter: the same rows, the same predictions, the same summaries."""
    from distributed import Client, LocalCluster

    first, inspection = scored(params, bundle), looked(params, bundle)[1]
    other = params.model_copy(update={"backend": "dask", "predictions": str(tmp_path / "dask")})
    settings = {"n_workers": 2, "threads_per_worker": 1, "dashboard_address": None, "processes": True}
    with LocalCluster(**settings) as cluster, Client(cluster):
        chunks, elsewhere = looked(other, bundle)
        done = score_window(other, chunks, elsewhere, version=2, bundle=bundle)
    timeless = [name for name in done.table().columns if name != "latency_ms"]
    pd.testing.assert_frame_equal(done.table()[timeless], first.table()[timeless])
    assert elsewhere.current.to_dict() == inspection.current.to_dict()
    assert elsewhere.read == inspection.read


BAR = """
import time
from prodkit.scoring.parallel import shared_out
from prodkit.evidence import Window
for _ in shared_out(time.sleep, [0.2, 0.2], backend="threading", label="score", sizes=[300, 500]):
    pass
"""


def test_progress_shows_on_a_terminal_and_nowhere_else():
    """Rows done and rows in all on stderr, if somebody watches; not a byte if not, and never on stdout."""
    ours, theirs = pty.openpty()
    done = subprocess.run([sys.executable, "-c", BAR], stderr=theirs, stdout=subprocess.PIPE, check=True)
    os.close(theirs)
    shown = os.read(ours, 65_536).decode()
    os.close(ours)
    assert "score" in shown
    assert "800/800" in shown
    assert done.stdout == b""
    quiet = subprocess.run([sys.executable, "-c", BAR], capture_output=True, check=True)
    assert (quiet.stdout, quiet.stderr) == (b"", b"")


# What the rows look like


def test_columns_without_which_the_model_beats_no_rule_leave_it_to_the_rule_with_the_reason(
    params, bundle, places
):
    """A window that breaks the data contract is scored degraded: the fallback answers, and each row says why."""
    bundle = replace(bundle, masks=replace(bundle.masks, usual=bundle.masks.rule))
    broken = params.model_copy(update={"drill": {"price": "empty", "weight": "scaled"}})
    rows = expected(broken)
    with opened(places) as store:
        chunks = open_window(broken, bundle=bundle)
        inspection = inspect_chunks(store, broken, chunks, version=2, bundle=bundle)
        done = score_window(broken, chunks, inspection, version=2, bundle=bundle)
        remember_scoring(store, broken, done, inspection, version=2)
        metrics = store.metrics(notebook="score").set_index("name")["value"]
        assert store.latest_profile(broken.window.end) is None  # nothing to compare a later window with
        assert store.latest_profile(broken.window.end, clean=False) is not None
    table = done.table().set_index("order").sort_index()
    assert not inspection.sound
    assert "price is empty" in inspection.broken.distrust
    assert "weight" in inspection.broken.distrust
    assert table["degraded"].all()
    assert (table["reason"] == inspection.broken.distrust).all()
    assert np.allclose(table["prediction"], bundle.fallback.predict(rows, schema=bundle.schema))
    assert (metrics["degraded_share"], metrics["error_share"], metrics["rows"]) == (1.0, 0.0, 840)
    assert 0 < metrics["latency_p50_ms"] <= metrics["latency_p99_ms"]
    outcomes = {item.name: item.outcome for item in scoring_evidence(broken, done)}
    assert outcomes == {"health.error_share": "pass", "health.degraded_share": "fail"}


@pytest.mark.parametrize("gone", [False, True])
def test_a_broken_column_is_masked_where_the_model_still_beats_the_rule(params, bundle, tmp_path, gone):
    """Of other types, or gone: the champion answers without the column, not degraded, with a note."""
    frame = orders().assign(weight="heavy") if not gone else orders().drop(columns="weight")
    data = grouped(tmp_path / "light.parquet", frame)
    other = params.model_copy(update={"data": data, "features": []})
    chunks, inspection = looked(other, bundle)
    table = score_window(other, chunks, inspection, version=2, bundle=bundle).table()
    assert set(table["reason"]) == {"masked: weight"}
    assert set(table["source"]) == {"champion"}
    assert not table["degraded"].any()
    rows = expected(params).assign(weight=None)
    assert np.allclose(table.set_index("order")["prediction"].sort_index(), bundle.predict(rows))
    price = next(item for item in inspection.evidence if item.name == "hold.expected_loss")
    assert (price.outcome, price.value < price.limit) == ("pass", True)
    old, _ = looked(other, replace(bundle, masks=None))
    inspection = replace(inspection, bundle=replace(bundle, masks=None))
    table = score_window(other, old, inspection, version=2, bundle=bundle).table()
    assert table["degraded"].all()


def test_a_file_of_texts_has_one_bad_row(params, bundle, tmp_path):
    """Numbers that came as text are read as numbers; the one that is none falls back, and no other."""
    frame = orders()
    strange = frame.assign(price=frame["price"].astype(str).mask(frame["order"] == 2000, "a lot"))
    done = scored(params.model_copy(update={"data": grouped(tmp_path / "s.parquet", strange)}), bundle)
    table = done.table().set_index("order").sort_index()
    assert table.index[table["degraded"]].tolist() == [2000]
    assert table.loc[2000, "reason"] == "price must be numeric; found 'a lot'"
    assert done.error_share == done.degraded_share == 1 / 840
    fine = table.index != 2000
    assert np.allclose(table["prediction"][fine], bundle.predict(expected(params))[fine], rtol=1e-12)


def test_a_model_that_raises_still_leaves_an_answer_for_every_row(params, bundle):
    """A model that crashes on a row degrades that row, with the error as the reason, and no other."""
    rows = expected(params)
    poor = replace(bundle, model=Breaking(bundle.model, rows["price"].iloc[207]))
    done = scored(params, poor)
    table = done.table().set_index("order").sort_index()
    assert np.isfinite(table["prediction"]).all()
    crashed = (rows["price"] == rows["price"].iloc[207]).to_numpy()
    assert np.array_equal(table["degraded"], crashed)
    assert set(table["reason"][crashed]) == {"ArithmeticError: a price that breaks the model"}
    assert np.allclose(table["prediction"][~crashed], bundle.predict(rows)[~crashed])
    assert done.error_share == done.degraded_share > 0


@pytest.mark.parametrize("task", ["multiclass", "regression"])
def test_other_tasks_are_scored_as_well(tmp_path, places, task):
    """Several classes have a column each, whose shares add up to one; a regression has one column."""
    frame = orders(days=40, rows=30)
    frame["returned"] = (
        np.where(frame["price"] > 60, "late", frame["city"]) if task == "multiclass" else frame["price"] * 2
    )
    data = written(frame, tmp_path)
    bundle = unpack(trained(params_for("train", data, window="2024-01-01/2024-02-01"))[0])
    assert bundle.schema.task == task
    span = {"window": "2024-02-01/2024-02-05", "batch_rows": 50, "predictions": str(tmp_path / "p")}
    params = params_for("score", data, **span, **places)
    done = scored(params, bundle, version=1)
    table = done.table()
    names = [name for name in table.columns if name.startswith("prediction")]
    assert len(table) == len(read_window(params))
    if task == "multiclass":
        assert names == [f"prediction_{city}" for city in bundle.schema.classes]
        assert np.allclose(table[names].sum(axis=1), 1.0)
        assert done.scores.mean == pytest.approx(table[names].max(axis=1).mean())
    else:
        assert names == ["prediction"]
    broken = scored(params, bundle, version=1, distrust="broken").table()
    assert np.isfinite(broken[names].to_numpy()).all()
