"""The service as a process: what it answers, what it refuses, and what it survives."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, suppress
from pathlib import Path

import httpx
import pandas as pd
import pyarrow as pa
import pytest
from led import led_version
from tables import FACTS, FEATURES, locked, opened, orders, params_for, places, prodkit, stocked, version_of

from prodkit.data.windows import read_window
from prodkit.errors import ParameterError
from prodkit.models.bundle import unpack
from prodkit.scoring.mutations import records
from prodkit.serving.bodies import ARROW
from prodkit.serving.service import ServeParams

__all__ = ["places", "prodkit"]  # fixtures

HERE = Path(__file__).parent
ROWS = orders(days=1, seed=9)
COMMAND = [sys.executable, "-c", "from prodkit.cli import main; main()", "serve", "--port", "0"]


class Running:
    """A ``prodkit serve`` on a port of its own."""

    def __init__(self, places, out, pairs, environment, command=COMMAND):
        # the facts come from a file named like nobody's policy
        facts = out / "orders.yaml"
        facts.write_text(
            json.dumps({**FACTS, "data": "orders.parquet", **places, "requests": str(out / "requests")})
        )
        given = [part for name, value in pairs.items() for part in ("-p", name, str(value))]
        self.process = subprocess.Popen(
            [*command, "-f", str(facts), "--out", str(out), *given],
            stderr=subprocess.PIPE,
            text=True,
            env=os.environ | {"PYTHONPATH": str(HERE), "OMP_NUM_THREADS": "1"} | environment,
        )
        self.out = out
        said = self.process.stderr.readline()
        found = re.search(r"http://[\d.]+:(\d+)", said)
        assert found, said + self.process.stderr.read()
        self.port = int(found[1])
        self.client = httpx.Client(base_url=found[0], timeout=30)
        self.said = []
        self.listener = threading.Thread(target=lambda: self.said.extend(self.process.stderr), daemon=True)
        self.listener.start()
        self.client.get("/health/live")

    def predict(self, rows, **options):
        """Ask for records."""
        return self.client.post("/predict", json={"records": rows}, **options)

    def ready(self):
        """What /health/ready says."""
        return self.client.get("/health/ready").json()

    def until(self, condition):
        """Wait for what /health/ready says."""
        deadline = time.monotonic() + 20
        while not condition(found := self.ready()):
            assert time.monotonic() < deadline, found
            time.sleep(0.02)
        return found

    def stop(self, number=signal.SIGTERM):
        """Stop it, and give its exit status."""
        if self.process.poll() is None:
            self.process.send_signal(number)
        try:
            return self.process.wait(20)
        finally:
            self.process.kill()
            self.listener.join(5)
            self.process.stderr.close()
            self.client.close()


@pytest.fixture
def start(tmp_path):
    """Start a service over a store; it is stopped with the test, and must not have printed an error."""
    running = []

    def begin(places, environment=None, command=COMMAND, **pairs):
        out = tmp_path / f"out{len(running)}"
        out.mkdir()
        running.append(Running(places, out, pairs, environment or {}, command))
        return running[-1]

    yield begin
    for each in running:
        each.stop()
        assert not [line for line in each.said if "Traceback" in line], each.said


@pytest.fixture(scope="module")
def service(tmp_path_factory):
    """One service for the tests that leave it as it is."""
    folder = tmp_path_factory.mktemp("serve")
    running = Running(stocked(folder), folder, {"body_bytes": 100_000, "request_rows": 200}, {})
    yield running
    running.stop()
    assert not [line for line in running.said if "Traceback" in line], running.said


@pytest.fixture(scope="module")
def bundle():
    """Version 2, which it serves."""
    return unpack(version_of(2)[0])


@pytest.fixture
def rows(bundle):
    """Orders as JSON has them."""
    return records(ROWS, schema=bundle.schema)


# What it answers


def test_records_columns_and_arrow_get_the_models_answers(service, bundle, rows):
    """Three ways to ask, one row or many, and Arrow as an answer: the same numbers, each with its origin."""
    expected = bundle.predict(ROWS)
    columns = {name: [row[name] for row in rows] for name in FEATURES}
    sink = pa.BufferOutputStream()
    table = pa.Table.from_pandas(ROWS, preserve_index=False)
    with pa.ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table)
    stream = {"content": sink.getvalue().to_pybytes(), "headers": {"content-type": ARROW}}
    said = [
        service.predict(rows).json()["answers"],
        [service.predict([row]).json()["answers"][0] for row in rows],
        service.client.post("/predict", json={"columns": columns}).json()["answers"],
        service.client.post("/predict", **stream).json()["answers"],
    ]
    stream["headers"] |= {"accept": ARROW}
    answer = service.client.post("/predict", **stream)
    assert answer.headers["content-type"] == ARROW
    said.append(pa.ipc.open_stream(answer.content).read_all().to_pylist())
    for answers in said:
        assert [each["prediction"] for each in answers] == pytest.approx(expected, abs=1e-12)
        assert {(each["model_version"], each["source"], each["degraded"]) for each in answers} == {
            (2, "champion", False)
        }


def test_one_bad_record_gets_an_answer_of_its_own(service, bundle, rows):
    """Its neighbours are answered by the model; it is answered by the rule, and told why."""
    wrong = [*rows[:3], rows[3] | {"price": "a lot"}, "no row", {"price": 3}, *rows[4:]]
    answer = service.predict(wrong)
    assert answer.status_code == 200
    answers = answer.json()["answers"]
    assert [place for place, each in enumerate(answers) if each["degraded"]] == [3, 4, 5]
    assert answers[3]["reason"] == "price must be a finite number; found 'a lot'"
    assert answers[3]["prediction"] == bundle.fallback.predict(ROWS.iloc[[3]], schema=bundle.schema)[0]
    assert service.predict([wrong[3]]).json()["answers"][0] == answers[3]


@pytest.mark.parametrize(
    ("request_", "status", "rule"),
    [
        ({"content": b"{"}, 400, "must be JSON"),
        ({"json": {"rows": []}}, 422, "must be an object with one of"),
        ({"json": {"columns": {"price": [1], "city": []}}}, 422, "must be lists of one length"),
        ({"content": b"a,b", "headers": {"content-type": "text/csv"}}, 415, "must be application/json"),
        ({"content": b"\0" * 9, "headers": {"content-type": ARROW}}, 400, "must be an Arrow stream"),
        ({"json": {"records": [{}] * 201}}, 413, "must hold at most 200 rows"),
        ({"content": b" " * 100_001}, 413, "must be at most 100000 bytes"),
        ({"content": iter([b" " * 60_000] * 2)}, 413, "must be at most 100000 bytes"),
    ],
)
def test_wrong_requests_are_refused_with_the_rule(service, request_, status, rule):
    """Each wrong body has its status, and an error that names rule and value."""
    answer = service.client.post("/predict", **request_)
    assert answer.status_code == status
    assert rule in answer.json()["error"]["message"]


def test_clients_that_hang_up_disturb_nobody(service, rows):
    """Half a body, no body, a connection that says nothing: the next request is answered."""
    for words in (
        b"POST /predict HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\ncontent-length: 900\r\n\r\n{",
        b"POST /predict HTTP/1.1\r\n",
        b"\x16\x03\x01\x02\x00",
        b"",
    ):
        with socket.create_connection(("127.0.0.1", service.port)) as client:
            client.sendall(words)
    assert service.predict(rows[:1]).status_code == 200
    assert service.client.get("/health/live").json() == {"live": True}


def test_it_says_how_it_is(service, rows):
    """Readiness names version and predecessor; the metrics count requests, rows, latency and what drift is made of."""
    before = service.client.get("/metrics").text
    service.predict([rows[0] | {"price": None}, rows[1] | {"city": "Atlantis"}, *rows[2:5]])
    found = service.ready()
    assert (found["ready"], found["model_version"], found["predecessor"]) == (True, 2, 1)
    assert (found["compiled_path"], found["problems"]) == (True, [])
    after = service.client.get("/metrics").text

    def rise(line):
        values = [re.search(rf"^{re.escape(line)} (\S+)$", page, re.M) for page in (before, after)]
        return float(values[1][1]) - (float(values[0][1]) if values[0] else 0.0)

    assert rise('prodkit_requests_total{status="200"}') == 1
    assert rise('prodkit_rows_total{model_version="2",source="champion"}') == 5
    assert rise('prodkit_missing_total{feature="price"}') == 1
    assert rise('prodkit_unseen_total{feature="city"}') == 1
    assert rise("prodkit_prediction_count") == 5
    assert "prodkit_model_version 2.0" in after
    assert "prodkit_store_reachable 1.0" in after


def test_its_description_has_the_columns_of_the_model(service):
    """The OpenAPI document names every feature with its type, and the answers' parts."""
    document = service.client.get("/openapi.json").json()
    row = document["components"]["schemas"]["Row"]
    assert row["required"] == FEATURES
    assert row["properties"]["price"]["type"] == ["number", "null"]
    assert row["properties"]["city"]["examples"] == ["Bergen", "Lisbon", "Oslo", "Rome"]
    assert set(document["paths"]) == {"/predict", "/health/live", "/health/ready", "/metrics"}


def test_no_request_that_the_description_allows_or_forbids_is_a_500(service, tmp_path):
    """Schemathesis makes requests of all kinds: no crash, and only answers that are described."""
    checks = "not_a_server_error,status_code_conformance,content_type_conformance,response_schema_conformance"
    done = subprocess.run(
        [
            *(
                str(Path(sys.executable).parent / "schemathesis"),
                "run",
                f"{service.client.base_url}/openapi.json",
            ),
            *("--checks", checks, "--max-examples", "10", "--seed", "1", "--no-color"),
        ],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stdout[-3000:]
    assert 'status="5' not in service.client.get("/metrics").text


# What it survives


def test_every_answer_is_of_a_version_that_was_champion_then(tmp_path, start, rows):
    """The champion moves to and fro under load: no request fails, and none is answered by yesterday's version."""
    places = stocked(tmp_path, promoted=[1])
    service = start(places)
    answers, stop = [], threading.Event()

    def ask(row):
        with httpx.Client(base_url=service.client.base_url, timeout=30) as client:
            while not stop.is_set():
                began = time.monotonic()
                answer = client.post("/predict", json={"records": [row]})
                answers.append((began, time.monotonic(), answer.status_code, answer.json()))

    moves = [(0.0, 1)]
    with ThreadPoolExecutor(4) as clients, opened(places) as store:
        for row in rows[:4]:
            clients.submit(ask, row)
        time.sleep(0.5)
        for number in (2, 1, 2, 1):
            generation = store.champion().generation
            store.promote(number, expected_generation=generation, reason="test", force=True)
            moves.append((time.monotonic(), number))
            deadline = time.monotonic() + 20
            while answers[-1][3]["generation"] <= generation and time.monotonic() < deadline:
                time.sleep(0.01)
            time.sleep(0.3)
        stop.set()
    assert {status for _, _, status, _ in answers} == {200}
    assert len(answers) > 50
    ends = [moment for moment, _ in moves[1:]] + [float("inf")]
    for began, ended, _, body in answers:
        (answer,) = body["answers"]
        assert not answer["degraded"]
        lag = (
            5.0 if answer["model_version"] == 1 and body["generation"] == 1 else 1.0
        )  # version 2 is loaded once
        champions = {
            number
            for (since, number), until in zip(moves, ends, strict=True)
            if since <= ended and began <= until + lag
        }
        assert answer["model_version"] in champions


def test_a_corrupt_artifact_leaves_the_old_version_answering(tmp_path, start, rows):
    """The new champion cannot be read: the old one answers, degraded, and readiness and metrics say so."""
    places = stocked(tmp_path, promoted=[1])
    service = start(places)
    with opened(places) as store:
        Path(places["artifacts"], store.version(2).location).write_bytes(b"garbage")
        store.promote(2, expected_generation=1, reason="test")
    found = service.until(lambda found: found["problems"])
    assert found["ready"]
    assert "version 2 could not be loaded" in found["problems"][0]
    (answer,) = service.predict(rows[:1]).json()["answers"]
    assert (answer["model_version"], answer["source"], answer["degraded"]) == (1, "predecessor", True)
    assert "version 2 must have the SHA-256" in answer["reason"]
    assert "prodkit_load_failed 1.0" in service.client.get("/metrics").text


def test_a_locked_store_stops_no_answer(places, start, rows):
    """While somebody holds the database the model in memory answers, and readiness says what is wrong."""
    service = start(places, poll_seconds=0.1)
    with locked(places, reads_too=True):
        assert service.predict(rows[:1]).status_code == 200
        found = service.until(lambda found: found["problems"])
        assert "the store: store must come free" in found["problems"][0]
        assert service.predict(rows[:1]).json()["answers"][0]["degraded"] is False
    service.until(lambda found: not found["problems"])


def test_a_hold_is_answered_by_the_rule(places, start, rows):
    """A champion on hold is not asked, and each answer says why."""
    service = start(places)
    with opened(places) as store:
        store.hold(expected_generation=2, reason="price is empty")
    service.until(lambda found: found["hold"])
    (answer,) = service.predict(rows[:1]).json()["answers"]
    assert (answer["source"], answer["degraded"], answer["reason"]) == (
        "rule",
        True,
        "on hold: price is empty",
    )


def test_without_a_champion_it_is_alive_and_not_ready(tmp_path, start, rows):
    """It refuses with 503 until the first promotion, and then answers."""
    places = stocked(tmp_path, promoted=[])
    service = start(places)
    assert service.client.get("/health/live").status_code == 200
    assert service.client.get("/health/ready").status_code == 503
    refused = service.predict(rows[:1])
    assert (refused.status_code, refused.headers["retry-after"]) == (503, "1")
    assert service.client.get("/openapi.json").status_code == 200
    with opened(places) as store:
        store.promote(1, expected_generation=0, reason="test")
    service.until(lambda found: found["ready"])
    assert service.predict(rows[:1]).json()["answers"][0]["model_version"] == 1


@pytest.fixture
def led(tmp_path):
    """A store whose champion, version 3, is led by the file beside it."""
    places, mood = stocked(tmp_path, promoted=[1]), tmp_path / "mood"
    with opened(places) as store:
        store.register(*led_version(mood), run_id="led")
        store.promote(3, expected_generation=1, reason="test")
    return places, mood


def test_requests_on_their_way_are_answered_after_sigterm(led, start, rows):
    """Told to stop amid requests, it answers them all, writes its log, and ends by the signal."""
    places, mood = led
    service = start(places, deadline_ms=20_000)
    mood.write_text("sleep 1")
    with ThreadPoolExecutor(4) as clients:
        asked = [clients.submit(service.predict, [row]) for row in rows[:4]]
        time.sleep(0.5)
        service.process.send_signal(signal.SIGTERM)
        answers = [each.result() for each in asked]
    assert [answer.status_code for answer in answers] == [200] * 4
    assert {answer.json()["answers"][0]["source"] for answer in answers} == {"champion"}
    assert service.process.wait(20) in (0, -signal.SIGTERM)
    assert sum(len(pd.read_parquet(path)) for path in (service.out / "requests").glob("*.parquet")) == 4


def test_too_much_at_once_is_refused_with_retry_after(led, start, rows):
    """More requests than may wait are told to come again; what waits is answered."""
    places, mood = led
    service = start(places, deadline_ms=20_000, most_requests=2)
    mood.write_text("sleep 0.3")
    with ThreadPoolExecutor(10) as clients:
        answers = list(clients.map(lambda row: service.predict([row]), rows[:10]))
    refused = [answer for answer in answers if answer.status_code == 503]
    assert refused
    assert {answer.headers["retry-after"] for answer in refused} == {"1"}
    assert {answer.status_code for answer in answers} == {200, 503}


def test_a_model_that_hangs_fails_or_raves_is_stood_in_for(led, start, rows):
    """Whatever the champion does, its predecessor answers about at the deadline, and the answer says why."""
    places, mood = led
    service = start(places, deadline_ms=300)
    assert service.predict(rows[:1]).json()["answers"][0]["source"] == "champion"
    assert service.ready()["compiled_path"] is False
    for words, reason in (
        ("raise", "ArithmeticError: the mood is bad"),
        ("nan", "the model gave no finite number"),
        ("sleep 3600", "model did not answer within 0.3 seconds."),
    ):
        mood.write_text(words)
        (answer,) = service.predict(rows[:1]).json()["answers"]
        assert (answer["source"], answer["degraded"], answer["model_version"]) == ("predecessor", True, 1)
        assert answer["reason"].startswith(reason)


def test_only_the_right_token_is_let_in(places, start, rows):
    """Without it predictions, metrics and description are refused; the health of the process is open to all."""
    service = start(places, environment={"PRODKIT_TOKEN": "secret word"}, token="${PRODKIT_TOKEN}")
    for headers in ({}, {"authorization": "Bearer wrong"}, {"authorization": "Basic secret word"}):
        refused = service.predict(rows[:1], headers=headers)
        assert (refused.status_code, refused.headers["www-authenticate"]) == (401, "Bearer")
        assert service.client.get("/metrics", headers=headers).status_code == 401
        assert service.client.get("/openapi.json", headers=headers).status_code == 401
    assert service.ready()["ready"]
    right = {"authorization": "Bearer secret word"}
    assert service.predict(rows[:1], headers=right).status_code == 200
    assert "secret word" not in service.client.get("/metrics", headers=right).text


def test_the_request_log_is_read_as_a_window(places, start, rows, tmp_path):
    """What was asked and answered can be read by any notebook, with the ids that labels will be joined by."""
    service = start(places, log_seconds=0.1)
    sent = [row | {"order": number, "ordered_at": "2024-03-05T08:00:00"} for number, row in enumerate(rows)]
    answer = service.predict(sent, headers={"x-request-id": "mine"})
    assert answer.headers["x-request-id"] == "mine"
    service.predict([rows[0] | {"order": "bad", "ordered_at": "2024-03-06", "price": "a lot"}])
    service.stop()
    params = params_for("drift", str(service.out / "requests"), window="2024-03-01/2024-04-01")
    window = read_window(params, columns=[*FEATURES, "prediction", "degraded", "reason", "client_request"])
    assert len(window) == len(rows) + 1
    asked = window[window["client_request"] == "mine"].set_index("order")
    expected = {str(number): each["prediction"] for number, each in enumerate(answer.json()["answers"])}
    assert asked["prediction"].to_dict() == expected
    assert asked["price"].sum() == pytest.approx(sum(row["price"] for row in rows))
    assert window["degraded"].sum() == 1


# What it bounds


def spoken(service, sent, *, wait=5.0):
    """What a connection of its own gets for these bytes."""
    with socket.create_connection(("127.0.0.1", service.port), timeout=wait) as plain:
        with suppress(OSError):  # it may be closed before all is sent
            plain.sendall(sent)
        parts = []
        with suppress(OSError):
            while part := plain.recv(65536):
                parts.append(part)
    return b"".join(parts)


@pytest.mark.parametrize("rest", [b"", b"\r\n\r\n"])
@pytest.mark.parametrize("lines", [1, 2_000])
def test_a_head_beyond_64_kb_is_refused(service, lines, rest):
    """In one line or in many, in one piece or without an end: 431, and the connection is closed."""
    head = b"".join(b"x-%d: %s\r\n" % (number, b"a" * (100_000 // lines)) for number in range(lines))
    assert spoken(service, b"GET /health/live HTTP/1.1\r\nhost: x\r\n" + head + rest).startswith(
        b"HTTP/1.1 431"
    )
    assert service.client.get("/health/live").status_code == 200


def test_heads_that_come_at_once_are_counted_one_by_one(service):
    """Several requests in one piece are each within the limit, whatever they are together."""
    head = b"GET /health/live HTTP/1.1\r\nhost: x\r\nx-long: " + b"a" * 40_000 + b"\r\n"
    answers = spoken(service, (head + b"\r\n") * 2 + head + b"connection: close\r\n\r\n")
    assert answers.count(b"HTTP/1.1 200") == 3


def test_half_requests_leave_room_for_others(places, start, rows):
    """With more half requests and silent connections than it takes, others are answered all the same."""
    service = start(places, most_connections=20)
    half = b"POST /predict HTTP/1.1\r\nhost: x\r\ncontent-length: 100\r\n\r\n{"
    with ExitStack() as stack:
        for number in range(100):
            plain = stack.enter_context(socket.create_connection(("127.0.0.1", service.port), timeout=5))
            with suppress(OSError):
                plain.sendall((half, half[:20], b"")[number % 3])
            if number % 10 == 0:
                with httpx.Client(base_url=f"http://127.0.0.1:{service.port}") as client:
                    assert client.get("/health/live").status_code == 200
                    assert client.post("/predict", json={"records": rows[:1]}).status_code == 200


def test_silent_connections_never_use_up_its_files(places, start, tmp_path):
    """Where a process may open few files, connections are fewer, and health is still answered."""
    limited = [sys.executable, "-c", "import resource; resource.setrlimit(resource.RLIMIT_NOFILE, (96, 96));"
               "from prodkit.cli import main; main()", "serve", "--port", "0"]  # fmt: skip
    service = start(places, command=limited)
    with ExitStack() as stack:
        for _ in range(150):
            stack.enter_context(socket.create_connection(("127.0.0.1", service.port), timeout=5))
        assert httpx.get(f"http://127.0.0.1:{service.port}/health/live").status_code == 200


def test_a_body_that_is_too_large_gets_its_answer(service):
    """A client that sends on and on is told 413 and is not cut off, whether or not it says the length before."""
    large = b'{"records": [' + b" " * 3_000_000 + b"]}"
    assert service.client.post("/predict", content=large).status_code == 413
    assert service.client.post("/predict", content=iter([large])).status_code == 413


def test_too_many_rows_are_refused_before_rows_are_made(service):
    """A body of many columns and rows is refused by its number of rows."""
    columns = {f"c{number}": [1] * 300 for number in range(100)}
    answer = service.client.post("/predict", json={"columns": columns})
    assert (answer.status_code, answer.json()["error"]["rule"]) == (413, "must hold at most 200 rows")


def test_health_can_be_asked_by_head(service):
    """As balancers do."""
    for path in ("/health/live", "/health/ready", "/metrics"):
        answer = service.client.head(path)
        assert (answer.status_code, answer.content) == (200, b"")


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_no_request_of_an_open_connection_is_lost_at_the_end(places, start, rows, number):
    """Told to end under load, it says it is not ready, answers each connection with close, and loses none."""
    service = start(places)
    ended, lost = threading.Event(), []

    def ask(_):
        with httpx.Client(base_url=f"http://127.0.0.1:{service.port}", timeout=10) as client:
            while True:
                try:
                    answer = client.post("/predict", json={"records": rows[:1]})
                except httpx.ConnectError:
                    return
                except httpx.HTTPError as error:
                    lost.append(repr(error))
                    return
                if answer.status_code != 200:
                    lost.append(answer.text)
                if answer.headers.get("connection") == "close" and ended.is_set():
                    return

    with ThreadPoolExecutor(4) as clients:
        asking = [clients.submit(ask, each) for each in range(4)]
        time.sleep(0.5)
        ended.set()
        service.process.send_signal(number)
        for each in asking:
            each.result()
    assert lost == []
    assert service.process.wait(20) in (0, -number)


def test_what_is_wrong_is_told_in_detail_only_with_the_token(tmp_path, start):
    """Without it no path and no host is shown, with it all is."""
    places = stocked(tmp_path, promoted=[1])
    service = start(places, environment={"PRODKIT_TOKEN": "geheim-é"}, token="${PRODKIT_TOKEN}")
    Path(places["store"].removeprefix("sqlite:///")).unlink()
    plain = service.until(lambda ready: ready["problems"])
    assert plain["problems"] == ["the store"]
    assert "compiled_path_refused" not in plain
    right = {"authorization": b"Bearer " + "geheim-é".encode()}
    full = service.client.get("/health/ready", headers=right).json()
    assert "its file is gone" in full["problems"][0]


# The command


def test_other_machines_need_a_token_or_a_word(prodkit, tmp_path):
    """Listening on all addresses without a token ends the command, unless --no-token says it is meant."""
    status, _, text = prodkit("serve", "--host", "0.0.0.0", "--port", 0, "--out", tmp_path)
    assert status == 2
    assert "--host must come with a token" in " ".join(text.split())


def test_it_serves_the_real_store_unless_told_otherwise(tmp_path):
    """Without `store` it is the project's own, never a demonstration; files of notebooks say nothing to it."""
    shared, policy, own = (tmp_path / f"{name}.yaml" for name in ("mine", "train", "serve"))
    shared.write_text("time_column: ordered_at\nretrain_cost: 0.1\nmargin: 1.0\n")
    policy.write_text("model: nothing.of.ours\n")
    own.write_text("deadline_ms: 77\nrequest_rows: 5\n")
    params = ServeParams.read([shared, policy, own], [("request_rows", "6"), ("token", "${SOME}")])
    assert (params.store, params.time_column) == ("sqlite:///outputs/store.db", "ordered_at")
    assert (params.deadline_ms, params.request_rows, params.token) == (77, 6, "${SOME}")
    own.write_text("margin: 1.0\n")
    with pytest.raises(ParameterError, match="margin is not a parameter"):
        ServeParams.read([own], [])


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (
            ["-p", "deadline", "5"],
            "deadline is not a parameter (in -p, for serve). Did you mean deadline_ms?",
        ),
        (["-p", "request_rows", "0"], "request_rows is wrong: Input should be greater than or equal to 1"),
        (["-p", "token", "abc"], "a secret is written as ${NAME} and read from the environment"),
        (["-p", "token", "${NOT_SET_ANYWHERE}"], "${NOT_SET_ANYWHERE} must be set in the environment"),
    ],
)
def test_a_wrong_parameter_ends_the_command(arguments, told, prodkit, tmp_path):
    """Status 2 and one sentence, before anything is listened on."""
    status, _, said = prodkit("serve", "--port", 0, "--out", tmp_path, *arguments)
    assert status == 2
    assert told in " ".join(said.split())


def test_a_port_that_is_taken_ends_the_command(service, prodkit, tmp_path):
    """The error names the address and the way out."""
    status, _, said = prodkit(
        "serve", "--port", service.port, "--out", tmp_path, "-p", "store", f"sqlite:///{tmp_path}/s.db"
    )
    assert status == 2
    assert "--port must be free: [Errno 98] Address already in use" in " ".join(said.split())
    assert f"found 127.0.0.1:{service.port}" in " ".join(said.split())
