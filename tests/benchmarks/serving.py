"""How fast is the service, and how fast is a revert? ``python tests/benchmarks/serving.py [RIVALS] [SECONDS]``.

Each server is started alone on a port of this machine, warmed up, and asked for one row a request over 8 connections
for SECONDS (6), by ``wrk`` where it is installed, else by a client of our own in this process, which is slower. One
after another in one run, so that ratios can be trusted where times cannot. RIVALS is the Python of an environment
with vetiver and mlflow (they need pandas < 3); without it they are left out.
"""

from __future__ import annotations

import asyncio
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from served import flights_version, new_flights, stocked

from prodkit.data.windows import read_window
from prodkit.models.bundle import unpack
from prodkit.models.training import split_window
from prodkit.params import TrainParams
from prodkit.scoring.mutations import records
from prodkit.store.registry import Store

HERE, CONNECTIONS = Path(__file__).parent, 8
PRODKIT = [sys.executable, "-c", "from prodkit.cli import main; main()", "serve", "--port"]


def main() -> None:
    """Print a line a server, then what a revert takes."""
    rivals = sys.argv[1] if len(sys.argv) > 1 and not sys.argv[1].isdigit() else ""
    seconds = int(sys.argv[-1]) if sys.argv[-1].isdigit() else 6
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        versions = [flights_version(), flights_version(seed=1)]
        own = flights_version(model="served:with_own_transformer")
        data, row = str(folder / "train.parquet"), one_row(versions[0][0])
        split_window(read_window(TrainParams.check({})), TrainParams.check({})).rows[
            [*unpack(versions[0][0]).schema.names, "late"]
        ].dropna(subset="late").to_parquet(data)
        servers = {
            "FastAPI that calls the pipeline": (
                rival(sys.executable, "fastapi", data),
                "/predict",
                {"records": [row]},
            ),
            "prodkit serve, compiled path": (ours(folder / "one", *versions), "/predict", {"records": [row]}),
            "prodkit serve, own transformer": (ours(folder / "own", own), "/predict", {"records": [row]}),
        }
        if rivals:
            servers["vetiver"] = (rival(rivals, "vetiver", data), "/predict", [row])
            servers["MLflow scoring server"] = (
                rival(rivals, "mlflow", data),
                "/invocations",
                {"dataframe_records": [row]},
            )
        found = {}
        for name, (command, path, body) in servers.items():
            with running(command) as port:
                ready(port, path, body)
                load(port, path, body, 2)
                found[name] = load(port, path, body, seconds)
                rate, p50, p99 = found[name]
                line = f"{name:34} {rate:8.0f} requests/s  p50 {p50:7.2f} ms  p99 {p99:7.2f} ms"
                print(line, flush=True)
        print("\nratio of requests/s")
        for name in (name for name in found if "prodkit" in name):
            for other in (other for other in found if "prodkit" not in other):
                print(f"{name:32} to {other:32} {found[name][0] / found[other][0]:6.1f}")
        with running(servers["prodkit serve, compiled path"][0]) as port:
            ready(port, "/predict", {"records": [row]})
            print("\n" + asyncio.run(reverts(port, {"records": [row]}, folder / "one")))


def one_row(artifact: bytes) -> dict[str, Any]:
    """A flight without missing values, which some rivals refuse."""
    schema = unpack(artifact).schema
    frame = new_flights(200)[schema.names].dropna()
    return records(frame.head(1), schema=schema)[0]


def ours(folder: Path, *versions: Any) -> list[str]:
    """The command that serves these versions."""
    folder.mkdir()
    places = stocked(folder, *versions)
    given = [part for pair in places.items() for part in ("-p", *pair)]
    return [*PRODKIT, "{port}", "--out", str(folder / "out"), *given]


def rival(python: str, name: str, data: str) -> list[str]:
    """The command that serves the rival's."""
    return [python, str(HERE / "rival.py"), name, data, "{port}"]


@contextmanager
def running(command: list[str]) -> Iterator[int]:
    """A server on a free port, ended by SIGTERM, with all that it started."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    # threads that wait for one another on a busy machine would make some rivals fifty times slower
    environment = os.environ | {"PYTHONPATH": str(HERE), "OMP_NUM_THREADS": "1"}
    words = [word.format(port=port) if word == "{port}" else word for word in command]
    process = subprocess.Popen(
        words, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True
    )
    try:
        yield port
    finally:
        os.killpg(process.pid, signal.SIGTERM)
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()


def ready(port: int, path: str, body: Any) -> None:
    """Wait until it answers."""
    request = urllib.request.Request(
        f"http://127.0.0.1:{port}{path}", json.dumps(body).encode(), {"content-type": "application/json"}
    )
    for _ in range(600):
        try:
            with urllib.request.urlopen(request, timeout=5) as answer:
                assert answer.status == 200
                return
        except OSError:
            time.sleep(0.2)
    raise SystemExit(f"no answer from {path}")


def load(port: int, path: str, body: Any, seconds: int) -> tuple[float, float, float]:
    """Requests a second, and the median and 99th percentile in milliseconds."""
    if shutil.which("wrk") is None:
        took, _ = asyncio.run(clients(port, path, body, seconds))
        return len(took) / seconds, *(1000 * np.percentile(took, [50, 99]))
    with tempfile.NamedTemporaryFile("w", suffix=".lua") as script:
        text = json.dumps(body).replace("\\", "\\\\").replace("'", "\\'")
        script.write(
            f"wrk.method='POST'\nwrk.body='{text}'\nwrk.headers['content-type']='application/json'\n"
        )
        script.flush()
        command = ["wrk", "-t1", f"-c{CONNECTIONS}", f"-d{seconds}s", "--latency", "-s", script.name]
        said = subprocess.run(
            [*command, f"http://127.0.0.1:{port}{path}"], capture_output=True, text=True
        ).stdout
    if "Non-2xx" in said:
        raise SystemExit(said)
    units = {"us": 0.001, "ms": 1.0, "s": 1000.0}
    p50, p99 = (
        float(number) * units[unit]
        for number, unit in (re.search(rf"{p}%\s+([\d.]+)(us|ms|s)", said).groups() for p in (50, 99))  # type: ignore[union-attr]
    )
    return float(re.search(r"Requests/sec:\s+([\d.]+)", said)[1]), p50, p99  # type: ignore[index]


async def clients(
    port: int, path: str, body: Any, seconds: float, seen: list[Any] | None = None
) -> tuple[list[float], int]:
    """Keep eight connections busy; how long each request took, and how many failed."""
    content = json.dumps(body).encode()
    kind = f"content-type: application/json\r\ncontent-length: {len(content)}"
    head = f"POST {path} HTTP/1.1\r\nhost: x\r\n{kind}\r\n\r\n"
    took: list[float] = []
    failed, until = 0, time.monotonic() + seconds

    async def client() -> None:
        nonlocal failed
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        while time.monotonic() < until:
            began = time.monotonic()
            writer.write(head.encode() + content)
            headers = await reader.readuntil(b"\r\n\r\n")
            length = int(re.search(rb"content-length: (\d+)", headers)[1])  # type: ignore[index]
            answer = await reader.readexactly(length)
            took.append(time.monotonic() - began)
            failed += not headers.startswith(b"HTTP/1.1 200")
            if seen is not None:
                seen.append((time.monotonic(), answer))
        writer.close()

    await asyncio.gather(*(client() for _ in range(CONNECTIONS)))
    return took, failed


async def reverts(port: int, body: Any, folder: Path) -> str:
    """Move the champion to and fro under load: how long until the first answer of the other version."""
    seen: list[tuple[float, bytes]] = []
    load = asyncio.create_task(clients(port, "/predict", body, 9.0, seen))
    delays = []
    with Store.open(f"sqlite:///{folder}/store.db", str(folder / "artifacts")) as store:
        for _ in range(8):
            await asyncio.sleep(0.9)
            now = store.champion()
            number = 1 if now.version == 2 else 2
            await asyncio.to_thread(
                store.promote, number, expected_generation=now.generation, reason="x", force=True
            )
            moved, mark = time.monotonic(), f'"generation": {now.generation + 1}'.encode()
            for _ in range(2000):
                first = next((moment for moment, answer in seen[-200:] if mark in answer), None)
                if first is not None:
                    break
                await asyncio.sleep(0.002)
            delays.append((first or float("inf")) - moved)
    took, failed = await load
    until = f"median {1000 * np.median(delays):.0f} ms, longest {1000 * max(delays):.0f} ms"
    failures = f"{failed} of {len(took)} requests failed"
    return f"{len(delays)} reverts under load, from commit to first answer: {until}; {failures}"


if __name__ == "__main__":
    main()
