"""Does the load generator see a stall? ``python tests/benchmarks/load_generator.py [LOADTEST]``.

A server that answers in 3 ms stalls for 2 s in every 10, and is asked 50 times a second for 20 s, evenly: first by
:func:`prodkit.stress.load.apply_load`, then by npm's ``loadtest``, which keeps to a schedule as well. LOADTEST is the
path of its command; without it that line is left out. The truth is arithmetic: whoever is due in a stall waits for
its end. A client that asks the next question only after the last answer, over one connection, stands beside them: it
is what coordinated omission looks like.
"""

from __future__ import annotations

import asyncio
import re
import subprocess
import sys
import threading
import time

import numpy as np

from prodkit.stress.load import Target, apply_load, arrivals, quantile

RATE, SECONDS, STALL, EVERY, WORK = 50, 20.0, 2.0, 10.0, 0.003
ANSWER = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 53\r\n\r\n"
BODY = b'{"answers": [{"prediction": 0.5, "degraded": false}]}'


class Stalling:
    """A server of its own thread, whose clock starts with the first request of a run; it stalls in seconds 5 to 7."""

    def __init__(self) -> None:
        self.began: float | None = None
        self.port, self._ready = 0, threading.Event()
        threading.Thread(target=lambda: asyncio.run(self._serve()), daemon=True).start()
        self._ready.wait()

    async def _serve(self) -> None:
        server = await asyncio.start_server(self._client, "127.0.0.1", 0, backlog=2048)
        self.port = server.sockets[0].getsockname()[1]
        self._ready.set()
        await server.serve_forever()

    async def _client(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while head := await reader.readuntil(b"\r\n\r\n"):
                length = re.search(rb"content-length: (\d+)", head, re.I)
                await reader.readexactly(int(length[1]) if length else 0)
                self.began = self.began or time.monotonic()
                await asyncio.sleep(WORK + stalled(time.monotonic() - self.began))
                writer.write(ANSWER + BODY)
                await writer.drain()
        except (asyncio.IncompleteReadError, ConnectionError):
            writer.close()


def stalled(moment: float | np.ndarray) -> float | np.ndarray:
    """Seconds until the end of the stall that a moment lies in; 0 outside."""
    phase = moment % EVERY - EVERY / 2
    return np.where((phase >= 0) & (phase < STALL), STALL - phase, 0.0)


def line(name: str, p50: float, p90: float, p99: float, note: str = "") -> None:
    """One result."""
    print(f"{name:46} p50 {p50:7.0f}  p90 {p90:7.0f}  p99 {p99:7.0f} ms  {note}", flush=True)


def main() -> None:
    """Print a line for the truth and one for each client."""
    due = arrivals(RATE, seconds=SECONDS, kind="even")
    line("truth", *(1000 * np.percentile(WORK + stalled(due), [50, 90, 99])))
    server = Stalling()
    target = Target(f"http://127.0.0.1:{server.port}")
    step = apply_load(lambda _: target.ask(b"{}"), due, rate=RATE)
    target.close()
    found = [quantile(step.latency_ms, share) for share in (0.5, 0.9, 0.99)]
    lag = quantile(step.lag_ms, 0.99).value
    note = (
        f"p99 between {found[2].low:.0f} and {found[2].high:.0f}; lag p99 {lag:.1f} ms; valid: {step.valid}"
    )
    line("prodkit.stress.load", *(each.value for each in found), note)
    if len(sys.argv) > 1:
        server.began = None
        command = [sys.argv[1], "--rps", str(RATE), "-t", str(int(SECONDS)), "-k", "-m", "POST", "-T"]
        command += ["application/json", "--data", "{}", f"http://127.0.0.1:{server.port}/predict"]
        said = subprocess.run(command, capture_output=True, text=True).stdout
        p50, p90, p99 = (float(re.search(rf"{p}%\s+(\d+) ms", said)[1]) for p in (50, 90, 99))  # type: ignore[index]
        line("loadtest --rps", p50, p90, p99)
    server.began, took, until = None, [], time.monotonic() + SECONDS
    while (began := time.monotonic()) < until:
        target.ask(b"{}")
        took.append(time.monotonic() - began)
        time.sleep(max(0.0, 1 / RATE - took[-1]))
    target.close()
    line("one answer after another (closed loop)", *(1000 * np.percentile(took, [50, 90, 99])))


if __name__ == "__main__":
    main()
