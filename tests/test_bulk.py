"""Bulk scoring: each row of any number of files once, whatever interrupts it."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from tables import opened, orders, params_for, places, trained, version_of, written

from prodkit.errors import DataError, SchemaError
from prodkit.models.bundle import unpack
from prodkit.scoring.bulk import remember_bulk, score_files

__all__ = ["places"]  # fixture

ROWS = orders(days=20, seed=5)

# A process of its own that scores a file until somebody kills it.
SCORER = """
import json, sys
from pathlib import Path
from prodkit.scoring.bulk import remember_bulk, score_files
from prodkit.models.bundle import unpack
given = json.loads(sys.argv[1])
bundle = unpack(Path(given["model"]).read_bytes())
score_files([Path(given["source"])], Path(given["out"]), version=2, bundle=bundle, keys=["order"], jobs=2)
"""


@pytest.fixture(scope="module")
def bundle():
    """Version 2 of the orders."""
    return replace(unpack(version_of(2)[0]), digest="two")


def source(folder, frame=ROWS, *, name="rows", group=100):
    """A Parquet file with row groups of so many rows."""
    path = folder / f"{name}.parquet"
    pq.write_table(pa.Table.from_pandas(frame, preserve_index=False), path, row_group_size=group)
    return path


def result(done):
    """All that was written, in its order."""
    return pd.concat(
        [pd.read_parquet(path) for path in sorted(done.folder.glob("part-*.parquet"))], ignore_index=True
    )


def test_each_row_is_predicted_once_in_its_order(tmp_path, bundle):
    """Two files of many row groups: keys, predictions, version and latency of each row, as the model says."""
    paths = [source(tmp_path), source(tmp_path, orders(days=3, seed=6), name="more", group=70)]
    told = []
    done = score_files(
        *(paths, tmp_path / "out"),
        version=2,
        bundle=bundle,
        keys=["order", "ordered_at"],
        tell=lambda rows, of: told.append((rows, of)),
    )
    table, whole = result(done), pd.concat([ROWS, orders(days=3, seed=6)], ignore_index=True)
    assert table["order"].tolist() == whole["order"].tolist()
    assert table["ordered_at"].tolist() == whole["ordered_at"].tolist()
    assert np.allclose(table["prediction"], bundle.predict(whole), rtol=1e-12)
    assert set(table["version"]) == {2}
    assert set(table["source"]) == {"champion"}
    assert not table["degraded"].any()
    assert (table["latency_ms"] > 0).all()
    assert (done.rows, done.parts, done.degraded_rows, done.resumed_parts) == (1380, 15, 0, 0)
    assert len(told) == 15
    assert told[-1] == (1380, 1380)


def test_without_keys_a_row_is_named_by_its_file_and_position(tmp_path, bundle):
    """Positions count through the row groups of a file."""
    done = score_files([source(tmp_path)], tmp_path / "out", version=2, bundle=bundle)
    table = result(done)
    assert table["position"].tolist() == list(range(len(ROWS)))
    assert set(table["file"]) == {"rows.parquet"}


def test_scoring_again_changes_nothing(tmp_path, bundle):
    """What is there is kept."""
    path = source(tmp_path)
    first = score_files([path], tmp_path / "out", version=2, bundle=bundle, distrust="broken")
    files = {part.name: part.stat().st_mtime_ns for part in first.folder.iterdir()}
    again = score_files([path], tmp_path / "out", version=2, bundle=bundle, distrust="broken")
    assert again.resumed_parts == len(files) == 12
    assert {part.name: part.stat().st_mtime_ns for part in again.folder.iterdir()} == files
    assert (again.rows, again.degraded_rows) == (first.rows, first.degraded_rows) == (1200, 1200)


def test_other_work_lies_apart(tmp_path, bundle):
    """Other rows, another model, other keys or another trust never mix with what is there."""
    path, out = source(tmp_path), tmp_path / "out"
    settings = {"version": 2, "bundle": bundle, "keys": ["order"]}
    folders = [
        score_files([path], out, **settings).folder,
        score_files([path], out, **settings | {"keys": []}).folder,
        score_files([path], out, **settings | {"bundle": replace(bundle, digest="other")}).folder,
        score_files([path], out, **settings, distrust="broken").folder,
    ]
    source(tmp_path, ROWS.assign(price=ROWS["price"] + 1))
    folders.append(score_files([path], out, **settings).folder)
    assert len(set(folders)) == 5


def test_a_killed_process_loses_and_doubles_no_row(tmp_path, bundle):
    """SIGKILL in the midst, twice, then to the end: the same rows and predictions as undisturbed."""
    path = source(tmp_path, group=2)
    (tmp_path / "model").write_bytes(version_of(2)[0])
    given = {"source": str(path), "out": str(tmp_path / "out"), "model": str(tmp_path / "model")}
    done = 0
    for _ in range(2):
        scorer = subprocess.Popen(
            [sys.executable, "-c", SCORER, json.dumps(given)], env=os.environ | {"OMP_NUM_THREADS": "1"}
        )
        there = done
        while there < done + 10:
            assert scorer.poll() is None, "it came to its end before it was killed"
            time.sleep(0.002)
            there = len(list(tmp_path.glob("out/*/part-*.parquet")))
        scorer.send_signal(signal.SIGKILL)
        assert scorer.wait(10) == -signal.SIGKILL
        done = len(list(tmp_path.glob("out/*/part-*.parquet")))
        assert 10 <= done < 600
    same = unpack(version_of(2)[0])
    resumed = score_files([path], tmp_path / "out", version=2, bundle=same, keys=["order"])
    assert resumed.resumed_parts == done
    undisturbed = score_files([path], tmp_path / "other", version=2, bundle=same, keys=["order"])
    timeless = ["order", "prediction", "version", "degraded", "reason"]
    pd.testing.assert_frame_equal(result(resumed)[timeless], result(undisturbed)[timeless])
    assert result(resumed)["order"].tolist() == ROWS["order"].tolist()


def test_half_a_file_is_no_part(tmp_path, bundle):
    """What a killed process was writing does not count as written."""
    path = source(tmp_path)
    done = score_files([path], tmp_path / "out", version=2, bundle=bundle, keys=["order"])
    part = done.folder / "part-000003.parquet"
    part.with_suffix(".77.tmp").write_bytes(part.read_bytes()[:100])
    part.unlink()
    again = score_files([path], tmp_path / "out", version=2, bundle=bundle, keys=["order"])
    assert again.resumed_parts == 11
    assert result(again)["order"].tolist() == ROWS["order"].tolist()


def test_a_row_that_cannot_be_read_gets_an_answer_of_its_own(tmp_path, bundle):
    """Text among the numbers: that row falls back with the reason, and no other."""
    strange = ROWS.assign(price=ROWS["price"].astype(str))
    strange.loc[250, "price"] = "a lot"
    done = score_files([source(tmp_path, strange)], tmp_path / "out", version=2, bundle=bundle)
    table = result(done)
    assert np.flatnonzero(table["degraded"]).tolist() == [250]
    assert table["reason"][250] == "price must be numeric; found 'a lot'"
    assert table["prediction"][250] == bundle.fallback.predict(ROWS.iloc[[250]], schema=bundle.schema)[0]
    assert done.degraded_rows == 1


def test_a_table_without_a_column_of_the_model_is_scored_degraded(tmp_path, bundle):
    """Every row is answered by the rule, and says which column is missing."""
    done = score_files(
        [source(tmp_path, ROWS.drop(columns="weight"))], tmp_path / "out", version=2, bundle=bundle
    )
    table = result(done)
    assert table["degraded"].all()
    assert "weight must be a column of the table" in table["reason"][0]
    assert np.isfinite(table["prediction"]).all()


@pytest.mark.parametrize("task", ["multiclass", "regression"])
def test_other_tasks_are_scored_as_well(tmp_path, task):
    """Several classes have a column each, whose shares add up to one; a regression has one."""
    frame = orders(days=40, rows=30)
    frame["returned"] = (
        np.where(frame["price"] > 60, "late", frame["city"]) if task == "multiclass" else frame["price"] * 2
    )
    model = unpack(trained(params_for("train", written(frame, tmp_path), window="2024-01-01/2024-02-01"))[0])
    path = source(tmp_path, frame.assign(city=frame["city"].mask(frame.index == 3)))
    table = result(score_files([path], tmp_path / "out", version=1, bundle=model))
    if task == "multiclass":
        names = [f"prediction_{name}" for name in model.schema.classes]
        assert np.allclose(table[names].sum(axis=1), 1.0)
    else:
        assert np.corrcoef(table["prediction"], frame["returned"])[0, 1] > 0.95


def test_the_store_remembers_how_it_went(tmp_path, bundle, places):
    """Rows, shares and latency of the window, as a scoring run leaves them; without trust nothing is an error."""
    strange = ROWS.assign(price=ROWS["price"].astype(str).mask(ROWS.index < 12, "a lot"))
    params = params_for("score", "orders.parquet", window="2024-01-01/2024-01-21", **places)
    path = source(tmp_path, strange)
    with opened(places) as store:
        for distrust, shares in (("", (0.01, 0.01)), ("broken", (1.0, 0.0))):
            done = score_files([path], tmp_path / "out", version=2, bundle=bundle, distrust=distrust)
            remember_bulk(store, params, done, version=2)
            found = store.metrics(notebook="score").groupby("name")["value"].last()
            assert found["rows"] == 1200
            assert (found["degraded_share"], found["error_share"]) == pytest.approx(shares)
            assert 0 < found["latency_p50_ms"] <= found["latency_p99_ms"]


def test_a_table_without_rows_is_done(tmp_path, bundle, places):
    """Nothing to do is no error, and nothing to remember."""
    done = score_files([source(tmp_path, ROWS.head(0))], tmp_path / "out", version=2, bundle=bundle)
    assert done.rows == 0
    with opened(places) as store:
        remember_bulk(store, params_for("score", "orders.parquet"), done, version=2)
        assert store.metrics().empty


def test_wrong_sources_and_keys_are_named(tmp_path, bundle):
    """A file that is none, a key that is not there, a key in the way of a column of the result."""
    (tmp_path / "text.parquet").write_text("no Parquet")
    settings = {"version": 2, "bundle": bundle}
    for name in ("text", "nowhere"):
        with pytest.raises(DataError, match=rf"paths must be a readable Parquet file.*{name}.parquet"):
            score_files([tmp_path / f"{name}.parquet"], tmp_path / "out", **settings)
    with pytest.raises(SchemaError, match=r"ordr must be a column .* Did you mean order\?"):
        score_files([source(tmp_path)], tmp_path / "out", **settings, keys=["ordr"])
    taken = source(tmp_path, ROWS.assign(version=1), name="taken")
    with pytest.raises(SchemaError, match="version must not be named like a column of the result"):
        score_files([taken], tmp_path / "out", **settings, keys=["version"])
    assert not (tmp_path / "out").exists()
