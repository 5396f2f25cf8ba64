"""Batch scoring from Parquet to Parquet: ``python tests/benchmarks/bulk.py [MILLIONS]`` (10 by default).

The flights, repeated to so many rows, in row groups of 250,000. Ours does what the score notebook does, in a process of
its own whose peak memory is told: it inspects the window, reads it again, predicts, and writes Parquet. Beside it in
the same run, the bare pipeline's ``predict_proba`` with both threads over a frame that is in memory already, neither
read nor written: 1M rows, before, amid and after ours. Wall time is what counts, but threads that wait for one another
on a busy machine cost the pipeline much of it: so seconds of the processor are told as well.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from prodkit.models.bundle import unpack
from prodkit.params import ScoreParams
from prodkit.scoring.batch import open_window, score_window
from prodkit.scoring.inspection import inspect_chunks
from prodkit.store.registry import Store
from prodkit.stress.stage import peak_mb

WINDOW = "2013-01-01/2014-01-01"
ROWS, GROUP = 1_000_000, 250_000


def main() -> None:
    """Print rows a second and processor time of both, ratios, and peak memory at 1M and at all rows."""
    from served import flights_version  # and all that trains, which the process that scores does without

    millions = int(sys.argv[1]) if len(sys.argv) > 1 else 10
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        artifact, _ = flights_version()
        (folder / "model").write_bytes(artifact)
        for count in (ROWS, millions * ROWS):
            write(folder / f"{count}.parquet", count)
        bare = [bare_rate(folder)]
        small = ours(folder, ROWS)
        bare.append(bare_rate(folder))
        large = ours(folder, millions * ROWS)
        bare.append(bare_rate(folder))
    wall, cpu = (np.median([each[place] for each in bare]) for place in (0, 1))
    told = " ".join(f"{rate:,.0f}" for rate, _ in bare)
    print(f"bare predict_proba in memory, 2 threads: {told} rows/s, {cpu:.2f} us of processor a row")
    for count, (rate, used, memory) in {1: small, millions: large}.items():
        print(
            f"prodkit, Parquet to Parquet, {count}M rows: {rate:,.0f} rows/s, {used:.2f} us of processor a row"
        )
        ratios = f"rows/s {rate / wall:.2f} of the bare pipeline's, processor {used / cpu:.2f}"
        print(f"    {memory:.0f} MB at most; {ratios}")


def write(path: Path, rows: int) -> None:
    """So many flights, a row group at a time."""
    from served import new_flights

    frame = new_flights(GROUP)
    table = pa.Table.from_pandas(frame, preserve_index=False)
    with pq.ParquetWriter(path, table.schema, compression="zstd") as writer:
        for begin in range(0, rows, GROUP):
            writer.write_table(table.slice(0, min(GROUP, rows - begin)))


def bare_rate(folder: Path) -> tuple[float, float]:
    """Rows a second, and microseconds of processor a row, of the pipeline over 1M rows in memory."""
    code = (
        "import sys, time, pandas as pd; from prodkit.models.bundle import unpack; from pathlib import Path\n"
        "folder = Path(sys.argv[1]); bundle = unpack((folder / 'model').read_bytes())\n"
        "frame = bundle.schema.coerce(pd.read_parquet(folder / '1000000.parquet'))\n"
        "bundle.model.predict_proba(frame.head(1000)); began, used = time.perf_counter(), time.process_time()\n"
        "bundle.model.predict_proba(frame); used = time.process_time() - used\n"
        "print(len(frame) / (time.perf_counter() - began), used * 1e6 / len(frame))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(folder)], capture_output=True, text=True, check=True
    )
    rate, used = map(float, done.stdout.split())
    return rate, used


def ours(folder: Path, rows: int) -> tuple[float, float, float]:
    """Rows a second of the whole way, microseconds of processor a row, and peak memory in MB."""
    command = [sys.executable, __file__, "score", str(folder), str(rows)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    rate, used, memory = map(float, done.stdout.split())
    return rate, used, memory


def score(folder: Path, count: int) -> None:
    """The part that runs in a process of its own: the window inspected, then scored, as the notebook does."""
    bundle = unpack((folder / "model").read_bytes())
    given = {
        "data": str(folder / f"{count}.parquet"),
        "window": WINDOW,
        "predictions": str(folder / "out"),
    }
    # the flights are the same ones over and over, so no column names a row: file and position do
    params = ScoreParams.check({**given, "id_column": [], "backend": "threading", "batch_rows": 16_384})
    began, used = time.perf_counter(), time.process_time()
    with Store.open("sqlite://", str(folder / "artifacts")) as store:
        rows = open_window(params, bundle=bundle)
        inspection = inspect_chunks(store, params, rows, version=1, bundle=bundle)
        done = score_window(params, rows, inspection, version=1, bundle=bundle)
    seconds, used = time.perf_counter() - began, time.process_time() - used
    assert done.rows == count
    # not the peak that `resource` tells: that counts who started this process, too
    print(done.rows / seconds, used * 1e6 / done.rows, peak_mb())


if __name__ == "__main__":
    if sys.argv[1:2] == ["score"]:
        score(Path(sys.argv[2]), int(sys.argv[3]))
    else:
        main()
