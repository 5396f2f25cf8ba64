"""Does a restart of the service lose a request? ``python tests/benchmarks/restarts.py [RESTARTS]``.

Clients ask one question after another over connections that stay open. Meanwhile the service is ended by SIGTERM, after
a random time, and started again on the same port. A request is lost when it was sent and no answer came. A connection
that is refused while no service runs is counted, and tried again: no request was sent on it. Ends with 1 if one is.
"""

from __future__ import annotations

import http.client
import json
import random
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from pathlib import Path

CLIENTS = 8
BEGIN = "from prodkit.cli import main; import sys; sys.argv[0] = 'prodkit'; main()"
QUESTION = json.dumps({"records": [{"city": "Rome", "price": 40.0, "weight": 5.0, "express": True}]}).encode()


def main() -> int:
    """Print how many requests were answered, refused and lost in so many restarts."""
    sys.path.append(str(Path(__file__).parent.parent))
    from tables import stocked

    restarts = int(sys.argv[1]) if len(sys.argv) > 1 else 100
    counts, ended = Counter[str](), threading.Event()
    with tempfile.TemporaryDirectory() as folder, socket.socket() as held:
        held.bind(("127.0.0.1", 0))
        port = held.getsockname()[1]
        held.close()
        places = stocked(Path(folder))
        service = begun(places, port)
        clients = [threading.Thread(target=ask, args=(port, counts, ended)) for _ in range(CLIENTS)]
        for client in clients:
            client.start()
        chance, waits = random.Random(0), []
        for _ in range(restarts):
            time.sleep(chance.uniform(0.1, 1.0))
            asked = time.monotonic()
            service.send_signal(signal.SIGTERM)
            status = service.wait(60)
            waits.append(time.monotonic() - asked)
            counts[f"exit status {status}"] += 1
            service = begun(places, port)
        time.sleep(0.5)
        ended.set()
        for client in clients:
            client.join()
        service.send_signal(signal.SIGTERM)
        service.wait(60)
    print(f"{restarts} restarts, {max(waits):.1f} s at most to end: {dict(sorted(counts.items()))}")
    return 1 if counts["lost"] or counts["wrong"] else 0


def begun(places: dict[str, str], port: int) -> subprocess.Popen[bytes]:
    """A service on this port that is ready."""
    given = ["-p", "store", places["store"], "-p", "artifacts", places["artifacts"], "-p", "requests", ""]
    given += ["-p", "drain_seconds", "4"]
    command = [sys.executable, "-c", BEGIN, "serve", "--port", str(port), *given]
    service = subprocess.Popen(command, stderr=subprocess.DEVNULL)
    while True:
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
        try:
            connection.request("GET", "/health/ready")
            if connection.getresponse().status == 200:
                return service
        except OSError:
            pass
        finally:
            connection.close()
        if service.poll() is not None:
            raise RuntimeError(f"the service ended with {service.returncode}")
        time.sleep(0.05)


def ask(port: int, counts: Counter[str], ended: threading.Event) -> None:
    """One question after another until the end; a connection stays open until the service closes it."""
    connection: http.client.HTTPConnection | None = None
    while not ended.is_set():
        if connection is None:
            connection = http.client.HTTPConnection("127.0.0.1", port, timeout=20)
            try:
                connection.connect()
            except OSError:
                counts["refused"] += 1
                connection = None
                time.sleep(0.05)
                continue
        try:
            connection.request("POST", "/predict", QUESTION, {"content-type": "application/json"})
            answer = connection.getresponse()
            answer.read()
            counts["answered" if answer.status == 200 else "wrong"] += 1
            if answer.getheader("connection", "").lower() == "close":
                connection.close()
                connection = None
        except (OSError, http.client.HTTPException) as error:
            counts["lost"] += 1
            counts[f"lost by {type(error).__name__}"] += 1
            connection.close()
            connection = None


if __name__ == "__main__":
    sys.exit(main())
