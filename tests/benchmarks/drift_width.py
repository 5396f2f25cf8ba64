"""How long wide tables take to compare, and how much memory they need, at their whole size.

``python tests/benchmarks/drift_width.py [FOLDER] [NAME ...]``: normal columns in Parquet files of 100,000 rows a group,
compared by two threads in a process of its own with a kept profile of the first file. Time is without imports, memory
the most that the process held. The second table is of 4-byte numbers and takes 12 GB of disk in FOLDER, which is
temporary if not given; files are removed at the end.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
import time
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

GROUP = 100_000


class Wide(NamedTuple):
    """A table: rows, columns, files, and what its numbers are."""

    rows: int
    columns: int
    files: int
    kind: str


WIDE = {"356k": Wide(356_000, 797, 2, "float64"), "3M": Wide(3_000_000, 1000, 10, "float32")}
OURS = """
import json, re, sys, time
from prodkit.drift.profiles import Profile
from prodkit.drift.tables import compare_tables
from prodkit.drift.tables import profile_table
if len(sys.argv) < 4:
    began = time.perf_counter()
    kept = profile_table(sys.argv[1], threads=2)
    open(sys.argv[2], "w").write(json.dumps(kept.to_dict()))
else:
    kept = Profile.from_dict(json.load(open(sys.argv[2])))
    began = time.perf_counter()
    found = compare_tables(kept, sys.argv[1], threads=2)
    assert found.current.rows == int(sys.argv[3]), found.current.rows
    assert found.drifted == [], found.drifted
seconds = time.perf_counter() - began
with open("/proc/self/status") as file:
    print(seconds, int(re.search(r"VmHWM:\\s+(\\d+)", file.read())[1]) / 1024)
"""


def written(path: Path, rows: int, columns: int, kind: str, seed: int) -> None:
    """Normal columns, of row groups that are not held together."""
    random = np.random.default_rng(seed)
    schema = pa.schema([(f"c{each}", pa.from_numpy_dtype(kind)) for each in range(columns)])
    with pq.ParquetWriter(path, schema, compression="none", use_dictionary=False) as file:
        for start in range(0, rows, GROUP):
            size = min(GROUP, rows - start)
            cells = [random.standard_normal(size, dtype=np.dtype(kind).type) for _ in range(columns)]
            file.write_table(pa.table(cells, schema=schema))


def run(table: str, profile: Path, *more: str) -> tuple[float, float]:
    """Seconds without imports, and megabytes at most."""
    command = [sys.executable, "-c", OURS, table, str(profile), *more]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(done.stderr[-2000:])
    seconds, megabytes = done.stdout.split()
    return float(seconds), float(megabytes)


def measured(folder: Path, name: str) -> None:
    """Write a table, compare it, and remove it."""
    rows, columns, files, kind = WIDE[name]
    began, paths = time.perf_counter(), [folder / f"{name}-{file:02d}.parquet" for file in range(files)]
    try:
        with ProcessPoolExecutor(2) as pool:
            size = rows // files
            list(pool.map(written, paths, [size] * files, [columns] * files, [kind] * files, range(files)))
        gigabytes = sum(path.stat().st_size for path in paths) / 1e9
        print(f"{name}: {gigabytes:.1f} GB written in {time.perf_counter() - began:.0f} s", flush=True)
        run(str(paths[0]), folder / "kept.json")
        seconds, megabytes = run(str(folder / f"{name}-*.parquet"), folder / "kept.json", str(rows))
        print(f"{rows:,} x {columns:,}: {seconds:.1f} s, {megabytes:.0f} MB at most", flush=True)
    finally:
        for path in [*paths, folder / "kept.json"]:
            path.unlink(missing_ok=True)


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as temporary:
        place = Path(sys.argv[1]) if len(sys.argv) > 1 else Path(temporary)
        for each in sys.argv[2:] or WIDE:
            measured(place, each)
