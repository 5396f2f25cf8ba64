"""What volume costs: ``python tests/benchmarks/volume.py [MOST]`` (1000 by default).

The flights of a month, once, three, ten, thirty, a hundred and a thousand times over, from Parquet to Parquet as the
score notebook does it, each in a process of its own: seconds, seconds of the processor, and peak memory. The curve that
``stress`` fits is fitted to all but the last volume, and says beforehand what that one takes; once to the seconds, and
once to those of the processor, which others on the machine change less.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

import pandas as pd
from bulk import ours, write
from served import flights_version

from prodkit.stress.trial import cost_curve, foreseen

MONTH = 28_330  # flights of April


def main() -> None:
    """Print a line a volume, the curve, and what it foresaw."""
    most = int(sys.argv[1]) if len(sys.argv) > 1 else 1000
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "model").write_bytes(flights_version()[0])
        found = {}
        for multiple in [times for times in (1, 3, 10, 30, 100) if times < most] + [most]:
            rows = multiple * MONTH
            write(folder / f"{rows}.parquet", rows)
            rate, used, memory = ours(folder, rows)
            (folder / f"{rows}.parquet").unlink()
            found[rows] = (rows / rate, used * rows / 1e6)
            told = f"{rows / rate:8.2f} s {rate:>10,.0f} rows/s {found[rows][1]:8.2f} s of processor {memory:5.0f} MB"
            print(f"x{multiple:<5} {rows:>11,} rows {told}", flush=True)
    for place, name in enumerate(("seconds", "seconds of the processor")):
        table = pd.DataFrame({"seconds": {rows: each[place] for rows, each in found.items()}})
        curve, told, took = cost_curve(table.iloc[:-1]), foreseen(table).iloc[-1], table["seconds"].iloc[-1]
        print(
            f"{name}, fitted to all but the last: {curve['fixed_ms']:.0f} ms and "
            f"{curve['ms_per_thousand_rows']:.2f} ms a thousand rows, exponent {curve['exponent']:.2f}; "
            f"foreseen {told:.1f} s, measured {took:.1f} s ({took / told:.2f})"
        )


if __name__ == "__main__":
    main()
