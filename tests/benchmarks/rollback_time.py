"""How long from the decision to roll back to the first prediction by the predecessor? ``rollback_time.py [TIMES]``.

Running: a service over the flights model is asked all the time, one row a request; the clock starts before the
rollback is written and stops with the first answer of the predecessor. Loaded: a process that has its imports, but
none of the models. Cold: the clock stops when a new process (Python, imports, store, digest, golden rows) has
predicted its first row; beside it, what a process takes to import pandas and scikit-learn and no more. A busy machine
makes these longer, so the processor time stands beside them.
"""

from __future__ import annotations

import http.client
import json
import resource
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
from prodkit.store.workspace import champion_of

COLD = """
import sys
from pathlib import Path
import pandas as pd
from prodkit.store.registry import Store
from prodkit.store.workspace import champion_of
with Store.open(sys.argv[1], sys.argv[2]) as store:
    number, bundle = champion_of(store)
assert number == int(sys.argv[4])
bundle.predict(pd.read_pickle(sys.argv[3]))
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
            loaded = [1000 * from_store(store) for _ in range(times)]
        imports = [took([sys.executable, "-c", "import pandas, sklearn.ensemble"]) for _ in range(times)]
    print(f"running service: median {np.median(service):.0f} ms, longest {max(service):.0f} ms of {times}")
    print(f"process with its imports: median {np.median(loaded):.0f} ms, longest {max(loaded):.0f} ms")
    for name, pairs in (("new process", cold), ("to import pandas and scikit-learn alone", imports)):
        seconds, processor = np.median(pairs, axis=0)
        print(f"{name}: median {seconds:.2f} s, of which {processor:.2f} s on the processor")


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


def from_cold(store: Store, places: tuple[str, str], row: Path) -> tuple[float, float]:
    """Roll back, and ask the predecessor in a new process; seconds, and seconds of its processor time."""
    before = store.champion()
    began = time.perf_counter()
    store.rollback(expected_generation=before.generation, reason="benchmark")
    written = time.perf_counter() - began
    seconds, processor = took([sys.executable, "-c", COLD, *places, str(row), str(before.predecessor)])
    again(store, before.version)
    return written + seconds, processor


def from_store(store: Store) -> float:
    """Roll back, load the predecessor and ask it, here."""
    before = store.champion()
    began = time.perf_counter()
    store.rollback(expected_generation=before.generation, reason="benchmark")
    number, bundle = champion_of(store)
    bundle.predict(bundle.golden.head(1))
    seconds = time.perf_counter() - began
    assert number == before.predecessor
    again(store, before.version)
    return seconds


def again(store: Store, number: int | None) -> None:
    """Put back who was rolled back."""
    assert number is not None
    store.quarantine(number, lift=True, reason="benchmark")
    store.promote(number, expected_generation=store.champion().generation, reason="benchmark")


def took(command: list[str]) -> tuple[float, float]:
    """Seconds that a command takes, and seconds of its processor time."""
    began, before = time.perf_counter(), resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run(command, check=True)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return time.perf_counter() - began, (after.ru_utime + after.ru_stime) - (
        before.ru_utime + before.ru_stime
    )


if __name__ == "__main__":
    main()
