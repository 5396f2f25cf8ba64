"""How long wide tables take to compare, and how much memory: measured at a part of their size, and extrapolated.

``python tests/benchmarks/drift_width.py``: tables of normal columns in Parquet files of 100,000 rows a group, each
compared in a process of its own with a profile of the same bins that was kept. Two sizes of each show whether time
grows as the number of cells; the time of the whole is that of the larger times the ratio of cells. That is an
extrapolation: the whole was not run.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

GROUP = 100_000
WIDE = {"356,000 x 797": (356_000, 797, [40, 80]), "3,000,000 x 1,000": (3_000_000, 1000, [8, 16])}
OURS = """
import json, resource, sys, time
from prodkit.drift.profiles import Profile
from prodkit.drift.tables import compare_tables, profile_table
began = time.perf_counter()
if len(sys.argv) < 4:
    kept = profile_table(sys.argv[1], threads=2)
    open(sys.argv[2], "w").write(json.dumps(kept.to_dict()))
else:
    kept = Profile.from_dict(json.load(open(sys.argv[2])))
    began = time.perf_counter()
    compare_tables(kept, sys.argv[1], threads=2)
print(time.perf_counter() - began, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024)
"""


def written(path: Path, rows: int, columns: int, seed: int) -> None:
    """Normal columns, of row groups that are not held together."""
    random, schema = (
        np.random.default_rng(seed),
        pa.schema([(f"c{each}", pa.float64()) for each in range(columns)]),
    )
    with pq.ParquetWriter(path, schema, compression="snappy", use_dictionary=False) as file:
        for start in range(0, rows, GROUP):
            size = min(GROUP, rows - start)
            file.write_table(pa.table([random.normal(size=size) for _ in range(columns)], schema=schema))


def run(path: Path, profile: Path, *more: str) -> tuple[float, float]:
    """Seconds without imports, and megabytes at most."""
    command = [sys.executable, "-c", OURS, str(path), str(profile), *more]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    seconds, megabytes = done.stdout.split()
    return float(seconds), float(megabytes)


if __name__ == "__main__":
    for name, (rows, columns, parts) in WIDE.items():
        found = []
        for part in parts:
            with tempfile.TemporaryDirectory() as folder:
                table, kept = Path(folder) / "table.parquet", Path(folder) / "kept.json"
                written(table, rows, part, part)
                run(table, kept)
                seconds, megabytes = run(table, kept, "compare")
            found.append(seconds)
            print(f"{rows:,} x {part}: {seconds:.1f} s, {megabytes:.0f} MB at most", flush=True)
        whole = found[-1] * columns / parts[-1]
        growth = found[1] / found[0]
        print(
            f"{name}: {whole / 60:.1f} minutes, extrapolated (twice the columns took {growth:.2f} times as long)",
            flush=True,
        )
