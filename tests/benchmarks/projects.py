"""Make a project of each of four tables, live it and test it: python tests/benchmarks/projects.py [NAME ...]."""

import subprocess
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent))
from projects import TABLES

if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as scratch:
        for name in sys.argv[1:] or TABLES:
            folder = Path(scratch, name)
            calls = (
                ["prodkit", "init", str(folder), *TABLES[name](Path(scratch))],
                ["prodkit", "lifecycle"],
                [sys.executable, "-m", "pytest", "-q"],
            )
            for call in calls:
                began = time.perf_counter()
                status = subprocess.run(call, cwd=folder if folder.exists() else scratch).returncode
                print(f"{name}: {call[:3]}: {status}, {time.perf_counter() - began:.0f} s", flush=True)
