"""How long from the decision to roll back to the first prediction by the predecessor? ``rollback_time.py [TIMES]``.

Running: a service over the flights model is asked all the time, one row a request; the clock starts before the
rollback is written and stops with the first answer of the predecessor. Cold: the clock starts before the rollback is
written and stops when a new process (Python, imports, store, digest, golden rows) has predicted its first row; beside
it, what the same process takes to import pandas and scikit-learn, which nobody can save it.
"""

from __future__ import annotations

import http.client
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
from served import flights_version, new_flights
from serving import one_row, ours, ready, running

from prodkit.store.registry import Store

COLD = """
import sys
from pathlib import Path
import pandas as pd
from prodkit.store.registry import Store
from prodkit.store.workspace import champion_of
with Store.open(sys.argv[1], sys.argv[2]) as store:
    number, bundle = champion_of(store)
print(number, bundle.predict(pd.read_pickle(sys.argv[3]))[0])
"""


def main() -> None:
    """Print a line for a running service, and one for a new process."""
    times = int(sys.argv[1]) if len(sys.argv) > 1 else 10
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        versions = [flights_version(), flights_version(seed=1)]
        command = ours(folder / "one", *versions)
        places = f"sqlite:///{folder}/one/store.db", str(folder / "one" / "artifacts")
        row = {"records": [one_row(versions[0][0])]}
        with running(command) as port, Store.open(*places) as store:
            ready(port, "/predict", row)
            time.sleep(2)  # until the predecessor is in memory
            service = [1000 * rolled_back(store, port, row) for _ in range(times)]
        new_flights(1).to_pickle(folder / "row.pkl")
        with Store.open(*places) as store:
            cold = [from_cold(store, places, folder / "row.pkl") for _ in range(times)]
        imports = [took([sys.executable, "-c", "import pandas, sklearn.ensemble"]) for _ in range(times)]
    print(f"running service: median {np.median(service):.0f} ms, longest {max(service):.0f} ms of {times}")
    print(f"new process: median {np.median(cold):.2f} s, longest {max(cold):.2f} s of {times}", end="; ")
    print(f"to import pandas and scikit-learn alone: {np.median(imports):.2f} s")


def rolled_back(store: Store, port: int, row: Any) -> float:
    """Roll back under requests, and promote again; seconds until the predecessor's first answer."""
    before = store.champion()
    connection, body = http.client.HTTPConnection("127.0.0.1", port), json.dumps(row)
    began = time.perf_counter()
    store.rollback(expected_generation=before.generation, reason="benchmark")
    while True:
        connection.request("POST", "/predict", body, {"content-type": "application/json"})
        answer = json.loads(connection.getresponse().read())["answers"][0]
        if answer["model_version"] == before.predecessor:
            seconds = time.perf_counter() - began
            break
    connection.close()
    again(store, before.version)
    time.sleep(1)
    return seconds


def from_cold(store: Store, places: tuple[str, str], row: Path) -> float:
    """Roll back, and ask the predecessor in a new process."""
    before = store.champion()
    began = time.perf_counter()
    store.rollback(expected_generation=before.generation, reason="benchmark")
    done = subprocess.run(
        [sys.executable, "-c", COLD, *places, str(row)], capture_output=True, text=True, check=True
    )
    seconds = time.perf_counter() - began
    assert done.stdout.split()[0] == str(before.predecessor), done.stdout
    again(store, before.version)
    return seconds


def again(store: Store, number: int | None) -> None:
    """Put back who was rolled back."""
    assert number is not None
    store.quarantine(number, lift=True, reason="benchmark")
    store.promote(number, expected_generation=store.champion().generation, reason="benchmark")


def took(command: list[str]) -> float:
    """Seconds that a command takes."""
    began = time.perf_counter()
    subprocess.run(command, check=True)
    return time.perf_counter() - began


if __name__ == "__main__":
    main()
