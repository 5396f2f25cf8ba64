"""Load and faults on a champion: what is timed, what passes, what fails, and that nothing unmeasured ever passes."""

from __future__ import annotations

import os
import signal
import socket
import struct
import subprocess
import sys
import threading
import time
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tables import contents, opened, orders, params_for, places, stocked

from prodkit.data.windows import read_window
from prodkit.errors import ParameterError, RunError, VersionError
from prodkit.evidence import overall
from prodkit.scoring.guard import LoadedModel
from prodkit.scoring.mutations import records
from prodkit.store.artifacts import Artifacts
from prodkit.store.database import Database
from prodkit.store.registry import Store
from prodkit.stress.faults import FaultyModel, guard_faults, tame_faults
from prodkit.stress.load import Step, Target, apply_load, arrivals, knee, quantile
from prodkit.stress.stage import Stage, peak_mb
from prodkit.stress.trial import (
    ServiceTrial,
    contenders,
    cost_curve,
    fault_table,
    foreseen,
    load_guards,
    load_table,
    mix_table,
    stress_evidence,
    stress_guard,
    stress_outputs,
    stress_service,
    volume_table,
)

__all__ = ["places"]  # a fixture

FEBRUARY = "2024-02-01/2024-02-29"
QUICK = {
    "rates": [50.0, 100.0],
    "promised_rate": 100.0,
    "step_seconds": 0.5,
    "volume_rows": 100,
    "multiples": [1, 3, 10],
    "mix_rows": 50,
    "slo": {"latency_p50_ms": 250.0, "error_share": 0.01, "degraded_share": 0.05},
}


@pytest.fixture
def params(orders_path, places):
    """Little load, on the orders."""
    return params_for("stress", orders_path, window=FEBRUARY, **places, **QUICK)


@pytest.fixture(scope="module")
def orders_path(tmp_path_factory):
    """The table."""
    path = tmp_path_factory.mktemp("orders") / "orders.parquet"
    orders().to_parquet(path)
    return str(path)


@pytest.fixture
def rows(params):
    """Those of the window."""
    return read_window(params)


def step_of(latencies_ms, *, rate=100.0, result="answered", late_seconds=0.0):
    """A step that is not measured but made."""
    due = np.arange(len(latencies_ms)) / rate
    sent = due + late_seconds * np.arange(len(due))
    return Step(rate, due, sent, due + np.asarray(latencies_ms) / 1000, np.full(len(due), result))


# Load


@given(st.floats(1, 500), st.floats(0.1, 5), st.sampled_from(["poisson", "even"]), st.integers(0, 2**31))
def test_a_schedule_rises_and_repeats(rate, seconds, kind, seed):
    """Requests are due in order, within the step, and at the same moments whenever the seed is the same."""
    due = arrivals(rate, seconds=seconds, kind=kind, seed=seed)
    assert (np.diff(due) >= 0).all()
    assert len(due) == 0 or (due[0] >= 0 and due[-1] < seconds)
    assert np.array_equal(due, arrivals(rate, seconds=seconds, kind=kind, seed=seed))


def test_poisson_arrivals_are_poisson():
    """Over many seeds the count has the mean and the variance of its rate."""
    counts = [len(arrivals(50, seconds=2, seed=seed)) for seed in range(2000)]
    assert np.mean(counts) == pytest.approx(100, abs=1)
    assert np.var(counts) == pytest.approx(100, rel=0.12)


@pytest.mark.parametrize(
    ("rate", "message"),
    [
        *((rate, "rate and seconds must be finite and above 0") for rate in (0, -1, np.nan, np.inf)),
        (20_000, "must come to at most 1,000,000 requests; found 2,000,000"),
    ],
)
def test_a_rate_that_is_none_or_without_bounds_is_refused(rate, message):
    """No load without a positive, finite rate; a mistyped one does not keep the machine busy for a day."""
    with pytest.raises(ParameterError, match=message):
        arrivals(rate, seconds=100)


def test_a_stall_is_felt_by_all_who_were_due_in_it():
    """One server stands still for .4 s: every request due meanwhile has waited until its end."""
    door, due = threading.Lock(), arrivals(100, seconds=1, kind="even")

    def ask(number):
        with door:
            if number == 30:
                time.sleep(0.4)
        return "answered"

    step = apply_load(ask, due, rate=100)
    within = (due >= 0.31) & (due <= 0.69)
    assert ((step.ended - step.due)[within] >= 0.7 - due[within] - 0.02).all()
    assert step.valid  # the requests went out in time all the same


def test_a_rate_that_was_not_reached_makes_a_step_invalid():
    """Requests that had to wait went out late: another rate was measured; what was never sent counts as failed."""
    busy = {"rate": 100, "most_waiting": 1}
    step = apply_load(lambda _: time.sleep(0.05) or "answered", np.arange(20) / 100, **busy)
    assert not step.valid
    assert step.reached_rate < 30
    assert np.percentile(step.lag_ms, 99) > 500
    step = apply_load(lambda _: time.sleep(0.2) or "answered", np.arange(10) / 100, drain_seconds=0.3, **busy)
    assert np.isnan(step.sent).sum() >= 6
    assert (step.reached_rate, step.valid) == (0, False)
    assert step.share("failed") >= 0.6


def test_what_raises_has_failed_and_stops_nothing():
    """A request that ends in an error is one result among the others."""

    def ask(number):
        if number % 2:
            raise OSError("gone")
        return "degraded" if number % 4 else "answered"

    step = apply_load(ask, np.arange(40) / 1000, rate=1000)
    assert [step.share(result) for result in ("failed", "degraded", "answered")] == [0.5, 0.25, 0.25]


@pytest.mark.parametrize(("share", "n"), [(0.5, 101), (0.9, 200), (0.99, 600)])
def test_the_interval_of_a_quantile_covers_it(share, n):
    """Of 2,000 samples of a skewed distribution, at least the promised share holds the true quantile."""
    draw, truth = np.random.default_rng(7), -np.log(1 - share)
    estimates = [quantile(draw.exponential(size=n), share) for _ in range(2000)]
    assert 0.94 <= np.mean([each.low <= truth <= each.high for each in estimates]) <= 0.99
    assert quantile(np.arange(100.0), 0.99).high == float("inf")
    assert np.isnan(quantile(np.array([]), 0.99).value)


def test_the_knee_is_before_the_first_step_that_breaks():
    """A step beyond the limit, with failures or not valid ends the search, whatever comes after it."""
    limits = {"latency_ms": 50.0, "error_share": 0.01}
    first, second, third = (step_of([5.0] * 200, rate=rate) for rate in (100.0, 200.0, 300.0))
    assert knee([first, second, third], **limits) == 300
    for broken in ({"result": "failed"}, {"late_seconds": 0.005}):
        assert knee([first, step_of([5.0] * 200, rate=200.0, **broken), third], **limits) == 100
    assert knee([first, step_of([90.0] * 200, rate=200.0), third], **limits) == 100
    assert knee([step_of([90.0] * 200), second], **limits) is None
    assert knee([], **limits) is None


# A service asked over HTTP

GOOD = b'{"answers": [{"prediction": 0.5, "degraded": false}]}'
LINGER = (socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))  # a close resets the connection


@contextmanager
def answering(*answers, keep=True, reset=False):
    """A server that gives these answers in turn, each as (status, body), and counts its connections.

    It keeps a connection, closes it after each answer, or resets it; None instead of an answer resets it unanswered.
    """
    left, seen = list(answers), []

    def serve():
        while left:
            client, _ = listener.accept()
            seen.append(client)
            if reset:
                client.setsockopt(*LINGER)
            with client:
                words = b""
                while left and (part := client.recv(65536)):
                    words += part
                    if not words.endswith(b"\r\n\r\n{}"):
                        continue
                    words, answer = b"", left.pop(0)
                    if answer is None:
                        client.setsockopt(*LINGER)
                        break
                    head = f"HTTP/1.1 {answer[0]} x\r\ncontent-length: {len(answer[1])}\r\n\r\n"
                    client.sendall(head.encode() + answer[1])
                    if not keep:
                        break

    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        target = Target(f"http://127.0.0.1:{listener.getsockname()[1]}", timeout_seconds=5)
        yield target, seen
        target.close()
        thread.join(5)


@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("http://192.0.2.7:8000", "url must lead to this machine; found 192.0.2.7"),
        ("http://127.0.0.1.example.com", "url must lead to this machine"),
        ("ftp://127.0.0.1", "url must name a service; found ftp://127.0.0.1"),
        ("http://me:secret@127.0.0.1", "url must name a service; found http://127.0.0.1"),
        ("127.0.0.1:8000", "url must"),
        ("http://127.0.0.1:port", "url must be a URL"),
    ],
)
def test_another_machine_is_not_loaded_unasked(url, message):
    """Only this machine is loaded unless `remote` is given, and an address that is none is refused."""
    with pytest.raises(ParameterError, match=message):
        Target(url)
    assert Target("https://models.example.com", remote=True).port == 443
    assert Target("http://[::1]:9000").host == "::1"


@pytest.mark.parametrize(
    ("answer", "result"),
    [
        ((200, GOOD), "answered"),
        ((200, GOOD.replace(b"false", b"true")), "degraded"),
        ((200, b'{"answers": []}'), "failed"),
        ((200, b'{"answers": [{"prediction": null, "degraded": false}]}'), "failed"),
        ((200, b"<html>"), "failed"),
        ((200, b"7"), "failed"),
        ((503, GOOD), "failed"),
    ],
)
def test_only_whole_answers_count(answer, result):
    """Whatever else a server answers is a failure."""
    with answering(answer) as (target, _):
        assert target.ask(b"{}") == result


@pytest.mark.parametrize(
    ("server", "connections"), [({}, 1), ({"keep": False}, 3), ({"keep": False, "reset": True}, 3)]
)
def test_connections_are_reused_and_replaced(server, connections):
    """Requests share a connection; where the server ended it meanwhile, the next goes over a new one."""
    with answering(*[(200, GOOD)] * 3, **server) as (target, seen):
        assert [target.ask(b"{}") for _ in range(3)] == ["answered"] * 3
        assert len(seen) == connections


def test_a_new_connection_that_is_reset_is_a_failure():
    """A request that never had an answer over a connection is not repeated over another."""
    with answering(None) as (target, _), pytest.raises(ConnectionResetError, match="reset"):
        target.ask(b"{}")


# The verdict


def judged(params, step, *, service=None):
    """The outcomes by name, of a champion whose one step was this."""
    mixes = pd.DataFrame({"rows": [10], "answered": [10], "by_champion": [10]}, index=["usual"])
    volumes = pd.DataFrame({"seconds": [0.1], "peak_mb": [100.0], "answered": [10]}, index=[10])
    steps = [step] if step else []
    trial = service or ServiceTrial(steps=steps, peak_mb=100.0)
    found = stress_evidence(params, {"champion": steps}, trial, faults=[], mixes=mixes, volumes=volumes)
    return {each.name: each.outcome for each in found}


@pytest.mark.parametrize(
    ("step", "name", "outcome"),
    [
        (step_of([400.0] * 500), "load.champion.latency_p50_ms", "fail"),
        (step_of([5.0] * 2 + [400.0] * 2), "load.champion.latency_p50_ms", "inconclusive"),
        (step_of([5.0] * 500, result="failed"), "load.champion.error_share", "fail"),
        (step_of([5.0] * 500, result="degraded"), "load.champion.degraded_share", "fail"),
        (step_of([5.0] * 500, late_seconds=0.005), "load.champion.latency_p50_ms", "inconclusive"),
        (step_of([5.0] * 500, late_seconds=0.005), "load.champion.error_share", "inconclusive"),
        (step_of([400.0] * 500, late_seconds=0.005), "load.champion.latency_p50_ms", "fail"),
        (step_of([5.0] * 500, rate=50.0), "load.champion.latency_p50_ms", "inconclusive"),
        (None, "load.champion.degraded_share", "inconclusive"),
    ],
)
def test_what_breaks_a_limit_fails_and_what_was_not_measured_never_passes(params, step, name, outcome):
    """Too slow, not answered, degraded: fail. Too few, not at the rate, not at all: inconclusive."""
    assert judged(params, step)[name] == outcome
    assert set(judged(params, step_of([5.0] * 500)).values()) == {"pass"}


def test_a_service_that_could_not_be_tried_passes_nothing(params):
    """Whatever the guard shows, the whole is no pass."""
    good = step_of([5.0] * 500)
    found = judged(params, good, service=ServiceTrial(problem="it did not start"))
    assert found["service"] == "error"
    assert "load.service.error_share" not in found
    unknown = judged(params, good, service=ServiceTrial(steps=[good], peak_mb=None))
    assert unknown["memory.service"] == "inconclusive"
    strange = params.model_copy(update={"slo": {"latncy_p99_ms": 5.0}})
    assert judged(strange, good)["load.champion.latncy_p99_ms"] == "inconclusive"


# The guard


def test_the_guard_bears_load_volume_mixes_and_faults(params, places, rows):
    """Champion and predecessor side by side; every volume and mix is answered; each fault ends as it should."""
    with opened(places) as store:
        models = contenders(store, params)
    assert list(models) == ["champion", "predecessor"]
    guards = load_guards(params, models, rows)
    assert [[step.rate for step in steps] for steps in guards.values()] == [[50.0, 100.0]] * 2
    assert {step.share("answered") for steps in guards.values() for step in steps} == {1.0}
    volumes, mixes = volume_table(params, models["champion"], rows), mix_table(params, models, rows)
    assert list(volumes.index) == list(volumes["answered"]) == [100, 300, 1000]
    assert (mixes["answered"] == 50).all()
    assert len(mixes) == 4
    faults = stress_guard(params, models, rows)
    assert {each.name: each.outcome for each in faults} == dict.fromkeys(
        [
            "guard.stall",
            "guard.raise",
            "guard.nan",
            "guard.alone",
            "guard.missing_columns",
            "guard.garbage_rows",
        ],
        "pass",
    )
    outputs = stress_outputs(params, guards, ServiceTrial(), volumes)
    assert set(outputs["knee"]) == {"champion", "predecessor", "service"}
    assert outputs["knee"]["service"] is None
    assert len(load_table(guards)) == 4


def test_a_newer_version_is_loaded_as_challenger(params, tmp_path):
    """A version that is newer than the champion, or that is named, stands beside it; an unknown one is refused."""
    folder = tmp_path / "judged"
    folder.mkdir()
    with opened(stocked(folder, promoted=[1])) as store:
        assert list(contenders(store, params)) == ["champion", "challenger"]
        with pytest.raises(VersionError, match="version 9"):
            contenders(store, params.model_copy(update={"challenger": 9}))


def test_a_champion_that_cannot_answer_fails_where_it_should(params, places, rows):
    """A champion that is broken itself is not taken for one that survives."""
    with opened(places) as store:
        models = contenders(store, params)
    sick = models["champion"]
    model = FaultyModel(sick.bundle.model, "nan")
    sick = LoadedModel(sick.version, replace(sick.bundle, model=model), quick=False)
    asked = records(rows.head(20), schema=sick.bundle.schema)
    found = fault_table(guard_faults(sick, models["predecessor"], asked, deadline_seconds=0.1))
    assert found.loc["guard.missing_columns", "outcome"] == "fail"
    assert "by the predecessor" in found.loc["guard.missing_columns", "happened"]
    loaded = load_guards(params.model_copy(update={"rates": [100.0]}), {"champion": sick}, rows)["champion"]
    assert loaded[0].share("degraded") == 1
    mixes = mix_table(params, {"champion": sick}, rows)
    assert (mixes["by_champion"] == 0).all()


def test_the_cost_curve_finds_a_known_cost():
    """Ten milliseconds a call and two for a thousand rows are found again, through noise."""
    n = np.array([1e3, 3e3, 1e4, 3e4, 1e5, 1e6])
    noise = np.random.default_rng(0).normal(1, 0.02, size=len(n))
    found = cost_curve(pd.DataFrame({"seconds": (0.01 + 2e-6 * n) * noise}, index=n))
    assert found["fixed_ms"] == pytest.approx(10, rel=0.1)
    assert found["ms_per_thousand_rows"] == pytest.approx(2, rel=0.05)
    assert np.isnan(cost_curve(pd.DataFrame({"seconds": [0.1]}, index=[10]))["exponent"])
    n, seconds = np.array([100, 1000, 10_000, 100_000]), 0.004 + 2e-6 * np.array([100, 1000, 10_000, 200_000])
    predicted = foreseen(pd.DataFrame({"seconds": seconds}, index=n))
    assert predicted.to_numpy() == pytest.approx(
        [*seconds[:3], 0.204]
    )  # the largest cost twice as much a row


# The service


def test_a_service_of_its_own_is_loaded_broken_and_gone(params, places, rows):
    """Locked, killed, damaged: as expected each time; and the real store is as it was."""
    before = contents(places)
    with opened(places) as store:
        trial = stress_service(store, params, contenders(store, params)["champion"], rows)
    assert trial.problem == ""
    assert [step.share("answered") for step in trial.steps] == [1.0, 1.0]
    assert {each.name: each.outcome for each in trial.faults} == dict.fromkeys(
        [
            "service.garbage",
            "service.hang_ups",
            "service.locked_store",
            "service.killed",
            "service.corrupt_artifact",
        ],
        "pass",
    ), fault_table(trial.faults).to_dict()
    assert 50 < trial.peak_mb < 900
    assert contents(places) == before


def test_a_service_that_is_named_is_only_asked(params, places, rows):
    """Of a service in use, neither process nor store is touched; one that is on hold is seen to be degraded."""
    with opened(places) as store, Stage(store) as stage:
        target = stage.start()
        loaded = contenders(store, params)["champion"]
        given = params.model_copy(update={"url": f"http://127.0.0.1:{target.port}"})
        trial = stress_service(store, given, loaded, rows)
        assert [each.name for each in trial.faults] == ["service.garbage", "service.hang_ups"]
        assert {each.outcome for each in trial.faults} == {"pass"}
        with stage.store() as copy:
            copy.hold(expected_generation=2, reason="test")
        deadline = time.monotonic() + 10
        body = b'{"records": [{}]}'
        while target.ask(body) != "degraded" and time.monotonic() < deadline:
            time.sleep(0.05)
        time.sleep(0.2)
        assert {each.outcome for each in tame_faults(target, [body])} == {"fail"}
        stage.kill()
        assert "Connection" in stress_service(store, given, loaded, rows).problem
        target.close()


def test_another_machine_is_refused_before_anything_is_sent(params, places, rows):
    """A `url` elsewhere needs `remote`."""
    given = params.model_copy(update={"url": "http://192.0.2.1:1"})
    with opened(places) as store, pytest.raises(ParameterError, match="url must lead to this machine"):
        stress_service(store, given, contenders(store, params)["champion"], rows)


def test_a_missing_package_is_inconclusive(params, places, rows, monkeypatch):
    """Without the extra [serve] a service stays inconclusive, with the reason."""
    monkeypatch.setattr(Stage, "missing", staticmethod(lambda: "uvicorn"))
    with opened(places) as store:
        trial = stress_service(store, params, contenders(store, params)["champion"], rows)
    found = judged(params, step_of([5.0] * 500), service=trial)
    assert (found["service"], trial.steps) == ("inconclusive", [])
    assert "needs the extra [serve] (uvicorn)" in trial.problem
    mixes = pd.DataFrame(columns=["rows", "answered", "by_champion"])
    volumes = pd.DataFrame({"seconds": [0.1], "peak_mb": [1.0], "answered": [10]}, index=[10])
    assert (
        overall(stress_evidence(params, {}, trial, faults=[], mixes=mixes, volumes=volumes)) == "inconclusive"
    )


def test_a_service_that_does_not_start_says_why(places):
    """A wrong parameter ends the attempt with the service's last line."""
    with opened(places) as store, Stage(store) as stage:
        folder = stage.folder
        with pytest.raises(RunError, match=r"prodkit serve must start; found .*queue_rows"):
            stage.start(queue_rows=0)
    assert not folder.exists()


def test_a_stage_needs_a_champion(tmp_path):
    """Without one there is nothing to try."""
    wrong = pytest.raises(VersionError, match="champion must exist before it can be tried")
    with Store.open(f"sqlite:///{tmp_path}/empty.db", str(tmp_path / "a")) as store, wrong:
        Stage(store)


def test_a_stage_keeps_to_itself_while_a_run_is_verified(places, tmp_path, monkeypatch):
    """The folder that stands in for everything real is not written to: the copy lies where the stage says."""
    monkeypatch.setenv("PRODKIT_SANDBOX", str(tmp_path / "sandbox"))
    (tmp_path / "sandbox").mkdir()
    with (
        Store(Database(places["store"], timeout_seconds=10.0), Artifacts(places["artifacts"])) as store,
        Stage(store) as stage,
    ):
        stage.promote_garbage()
        with stage.store() as copy:
            assert len(copy.versions()) == 3
    assert not list((tmp_path / "sandbox").iterdir())


@pytest.mark.skipif(sys.platform != "linux", reason="the machine ends children of the dead on Linux only")
def test_a_service_ends_with_whoever_started_it(places, tmp_path):
    """The kernel that stresses is killed: its service does not live on."""
    code = (
        "import sys, time; from prodkit.store.registry import Store; from prodkit.stress.stage import Stage\n"
        "stage = Stage(Store.open(*sys.argv[1:])); stage.start(); print(stage.pid, flush=True); time.sleep(60)"
    )
    parent = subprocess.Popen(
        [sys.executable, "-c", code, places["store"], places["artifacts"]],
        stdout=subprocess.PIPE,
        env=os.environ | {"TMPDIR": str(tmp_path)},
    )
    pid = int(parent.stdout.readline())
    assert peak_mb(pid) > 50
    parent.send_signal(signal.SIGKILL)
    parent.wait()
    parent.stdout.close()
    deadline = time.monotonic() + 10
    while Path(f"/proc/{pid}/status").exists() and time.monotonic() < deadline:
        time.sleep(0.05)
    assert peak_mb(pid) is None
