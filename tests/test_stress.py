"""Load and faults on a champion: what passes, what fails, and that nothing unmeasured ever passes."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
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
from prodkit.stress.load import Step
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


def step_of(latencies_ms, *, rate=100.0, said="answered", late_seconds=0.0):
    """A step that is not measured but made."""
    due = np.arange(len(latencies_ms)) / rate
    sent = due + late_seconds * np.arange(len(due))
    return Step(rate, due, sent, due + np.asarray(latencies_ms) / 1000, np.full(len(due), said))


def judged(params, step, *, service=None):
    """The outcomes by name, of a champion whose one step was this."""
    mixes = pd.DataFrame({"rows": [10], "answered": [10], "by_champion": [10]}, index=["usual"])
    volumes = pd.DataFrame({"seconds": [0.1], "peak_mb": [100.0], "answered": [10]}, index=[10])
    steps = [step] if step else []
    trial = service or ServiceTrial(steps=steps, peak_mb=100.0)
    found = stress_evidence(params, {"champion": steps}, trial, faults=[], mixes=mixes, volumes=volumes)
    return {each.name: each.outcome for each in found}


# The verdict


def test_a_step_within_the_limits_passes(params):
    """Quick, answered, by the model asked, and at the promised rate."""
    assert set(judged(params, step_of([5.0] * 500)).values()) == {"pass"}


@pytest.mark.parametrize(
    ("step", "name", "outcome"),
    [
        (step_of([400.0] * 500), "load.champion.latency_p50_ms", "fail"),
        (step_of([5.0] * 2 + [400.0] * 2), "load.champion.latency_p50_ms", "inconclusive"),
        (step_of([5.0] * 500, said="failed"), "load.champion.error_share", "fail"),
        (step_of([5.0] * 500, said="degraded"), "load.champion.degraded_share", "fail"),
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


def test_the_smaller_volumes_foresee_the_largest():
    """A thousand times the rows at the same cost a row are as foreseen; at twice the cost they stand out."""
    n = np.array([100, 1000, 10_000, 100_000])
    seconds = 0.004 + 2e-6 * n
    told = foreseen(pd.DataFrame({"seconds": seconds}, index=n))
    assert told.to_numpy() == pytest.approx(seconds)
    seconds[-1] *= 2
    assert foreseen(pd.DataFrame({"seconds": seconds}, index=n)).iloc[-1] == pytest.approx(seconds[-1] / 2)
    assert np.isnan(foreseen(pd.DataFrame({"seconds": seconds[:2]}, index=n[:2]))).all()


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
    """Without the extra [serve] nothing can be said of a service, and that is said."""
    monkeypatch.setattr(Stage, "missing", staticmethod(lambda: "uvicorn"))
    with opened(places) as store:
        trial = stress_service(store, params, contenders(store, params)["champion"], rows)
    found = judged(params, step_of([5.0] * 500), service=trial)
    assert (found["service"], trial.steps) == ("inconclusive", [])
    assert "needs the extra [serve] (uvicorn)" in trial.problem
    assert (
        overall(
            stress_evidence(
                params,
                {},
                trial,
                faults=[],
                mixes=pd.DataFrame(columns=["rows", "answered", "by_champion"]),
                volumes=pd.DataFrame({"seconds": [0.1], "peak_mb": [1.0], "answered": [10]}, index=[10]),
            )
        )
        == "inconclusive"
    )


def test_a_service_that_does_not_start_says_why(places):
    """A wrong parameter ends the attempt with what the service said."""
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
