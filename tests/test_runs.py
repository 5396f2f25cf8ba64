"""Runs: work is recognised, and whatever happens a record is left."""

from __future__ import annotations

import json
import os
import shutil
import signal
import time
from datetime import timedelta
from pathlib import Path

import nbformat
import pytest
from tables import (
    FACTS,
    FEBRUARY,
    TRAINING,
    Command,
    facts_file,
    opened,
    orders,
    orders_file,
    own_notebook,
    places,
    prodkit,
    written,
)

from prodkit.decisions.answers import RESULT_MIME
from prodkit.errors import LockedError, ParameterError, RunError
from prodkit.evidence import Window
from prodkit.runs import clean, runner
from prodkit.runs.claims import at_work, claim
from prodkit.runs.engine import StoppedError
from prodkit.runs.runner import run_notebook
from prodkit.runs.stops import Limits, Stop
from prodkit.settings import using_outputs
from prodkit.store.registry import Store

__all__ = ["orders_file", "places", "prodkit"]  # fixtures

KEYS = {
    *("schema", "run_id", "notebook", "status", "outcome", "action", "approval", "target_version"),
    *(
        "generation",
        "clears_hold",
        "judged",
        "reasons",
        "evidence",
        "params",
        "inputs",
        "outputs",
        "environment",
        "started",
        "seconds",
    ),
    "parent",  # the run that asked for this one
    "basis",  # digests of what it stands on
}


@pytest.fixture(autouse=True)
def out(tmp_path, monkeypatch):
    """A folder for results, and the project's folder to start from."""
    monkeypatch.chdir(Path(__file__).parent.parent)
    with using_outputs(tmp_path / "out"):
        yield tmp_path / "out"


@pytest.fixture
def said(monkeypatch):
    """No kernel: what an executed notebook would show as its result is up to the test."""
    result = {"outcome": "pass"}

    def execute(source, values, order):
        notebook = nbformat.read(source, as_version=4)
        if "stop" in result:
            raise StoppedError(result["stop"], index=0, count=1, source="", trace=[])
        shown = nbformat.v4.new_output(
            "display_data", data={RESULT_MIME: dict(result), "text/plain": "recorded"}
        )
        notebook.cells.append(nbformat.v4.new_code_cell("", outputs=[shown]))
        order.path.write_text(json.dumps(notebook))

    monkeypatch.setattr("prodkit.runs.runner.execute", execute)
    return result


def strict(path: Path) -> dict:
    """A JSON file, without the NaN and Infinity that JSON does not know."""

    def refuse(name):
        raise AssertionError(f"{name} in {path}")

    return json.loads(path.read_text(), parse_constant=refuse)


# The same work


def test_the_same_work_is_recognised_and_force_adds_an_attempt(said, out, tmp_path):
    """Work that succeeded is not done again, unless it is forced, which overwrites nothing."""
    path = str(own_notebook(tmp_path, "a = 1"))
    first, again = run_notebook(path, {}), run_notebook(path, {})
    assert (first.repeated, again.repeated, again.document) == (False, True, first.document)
    before = (first.folder / "result.json").read_bytes()
    forced = run_notebook(path, {}, force=True)
    assert forced["run_id"] == f"{first['run_id']}-2"
    assert (first.folder / "result.json").read_bytes() == before
    assert sorted(folder.name for folder in (out / "runs").iterdir()) == [first["run_id"], forced["run_id"]]


def test_another_parameter_or_another_cell_is_other_work(said, tmp_path):
    """The id covers the parameters and the text of the notebook."""
    path = str(own_notebook(tmp_path, "a = 1"))
    ids = [run_notebook(path, {})["run_id"], run_notebook(path, {"a": 2})["run_id"]]
    own_notebook(tmp_path, "a = 1", "print(a)")
    ids.append(run_notebook(path, {})["run_id"])
    assert len(set(ids)) == 3


def test_outputs_of_a_notebook_do_not_make_it_other_work(said, tmp_path):
    """A notebook that was opened, run and saved is still the same work."""
    path = own_notebook(tmp_path, "a = 1")
    first, notebook = run_notebook(str(path), {}), nbformat.read(path, as_version=4)
    notebook.cells[0].execution_count = 7
    notebook.cells[0].outputs = [nbformat.v4.new_output("stream", text="said")]
    nbformat.write(notebook, path)
    assert run_notebook(str(path), {}).repeated
    assert first["status"] == "succeeded"


def test_other_data_or_another_champion_is_other_work(said, places, tmp_path):
    """The id covers the bytes of the table, and the champion that is read."""
    frame = orders(days=50)
    values = {**FACTS, "data": written(frame, tmp_path), "window": FEBRUARY, **places}
    assert not run_notebook("score", values).repeated
    assert run_notebook("score", values).repeated
    written(frame.assign(price=frame["price"] + 1), tmp_path)
    assert not run_notebook("score", values).repeated
    with opened(places) as store:
        store.rollback(expected_generation=2, reason="test")
    assert not run_notebook("score", values).repeated
    assert run_notebook("score", values).repeated


def test_work_that_failed_is_done_again_beside_the_first(said, out, tmp_path):
    """A failed attempt is kept and does not count as done."""
    path = str(own_notebook(tmp_path, "a = 1"))
    said["stop"] = Stop("failed", "failed", "The kernel died.")
    failed = run_notebook(path, {})
    assert (failed["status"], failed["outcome"]) == ("failed", "error")
    assert failed["reasons"] == ["The kernel died."]
    del said["stop"]
    second = run_notebook(path, {})
    assert (second["run_id"], second["status"]) == (f"{failed['run_id']}-2", "succeeded")
    assert run_notebook(path, {})["run_id"] == second["run_id"]
    assert strict(failed.folder / "result.json")["status"] == "failed"


def test_a_run_that_was_killed_does_not_stand_in_the_way(said, tmp_path):
    """A folder without a result, left by a runner that was killed, is kept beside a new attempt."""
    path = str(own_notebook(tmp_path, "a = 1"))
    first = run_notebook(path, {})
    (first.folder / "result.json").unlink()
    second = run_notebook(path, {})
    assert (second.repeated, second["run_id"]) == (False, f"{first['run_id']}-2")
    assert (first.folder / "notebook.ipynb").exists()


def test_a_damaged_notebook_of_a_killed_run_stops_no_other(said, out, tmp_path):
    """What a runner that was killed has left is marked as far as it can be read, and the next run goes ahead."""
    first = run_notebook(str(own_notebook(tmp_path, "a = 1")), {})
    (first.folder / "result.json").write_text(json.dumps({**first.document, "status": "running"}))
    (first.folder / "notebook.ipynb").write_text("{half")
    (first.folder / ".running").write_text("process 1 on nowhere")
    other = run_notebook(str(own_notebook(tmp_path, "b = 1", name="other")), {})
    assert (other["status"], strict(first.folder / "result.json")["status"]) == ("succeeded", "interrupted")
    assert not (first.folder / ".running").exists()


def test_what_a_killed_runner_had_not_named_yet_is_removed(said, out, tmp_path):
    """A folder that was being made when its runner was killed goes with the next run; one that is alive stays."""
    runs = out / "runs"
    for name in (".mine-1.0123", ".mine-2.4567"):
        (runs / name).mkdir(parents=True)
    (runs / ".mine-2.4567" / ".running").write_text("process 1 on nowhere")
    done = run_notebook(str(own_notebook(tmp_path, "a = 1")), {})
    assert [folder.name for folder in runs.iterdir()] == [done["run_id"]]


def test_kernels_of_the_kit_may_be_forked_and_no_others(said, monkeypatch, tmp_path, orders_file):
    """What a notebook of one's own imports is not known, whatever its name."""
    asked, execute = [], runner.execute

    def note(source, values, order):
        asked.append(order.forked)
        execute(source, values, order)

    monkeypatch.setattr(runner, "execute", note)
    run_notebook("train", {**FACTS, "data": orders_file, "window": "2024-01-01/2024-02-10"})
    run_notebook(str(own_notebook(tmp_path, "n = 1", name="train")), {})
    assert asked == [True, False]


def test_a_failure_is_on_record_though_the_store_cannot_be_asked(said, monkeypatch, tmp_path, orders_file):
    """When a run of the kit fails and the store is locked by then, its record is closed all the same, and says so."""

    def refuse(_):
        raise LockedError("store", rule="must come free")

    monkeypatch.setattr("prodkit.store.registry.Store.history", refuse)
    said["stop"] = Stop("failed", "failed", "The kernel died.")
    run = run_notebook("train", {**FACTS, "data": orders_file, "window": "2024-01-01/2024-02-10"})
    assert strict(run.folder / "result.json")["status"] == "failed"
    assert run["reasons"][0] == "The kernel died."
    assert run["reasons"][1] == "what it did before that is not known: store must come free."


def test_a_notebook_that_records_nothing_is_inconclusive(said, tmp_path, monkeypatch):
    """Whoever says nothing at the end has not passed."""
    monkeypatch.setattr(
        "prodkit.runs.runner.execute", lambda source, values, order: shutil.copy(source, order.path)
    )
    run = run_notebook(str(own_notebook(tmp_path, "a = 1")), {})
    assert (run["status"], run["outcome"], run["action"]) == ("succeeded", "inconclusive", None)
    assert run["reasons"] == ["the notebook recorded no result"]


def test_a_result_that_is_not_strict_json_never_passes(said, tmp_path):
    """A notebook that records NaN leaves a strict record of outcome error, not a broken one."""
    said |= {"outputs": {"gain": float("nan")}}
    run = run_notebook(str(own_notebook(tmp_path, "a = 1")), {})
    assert strict(run.folder / "result.json")["outcome"] == "error"
    assert "JSON" in run["reasons"][0]


def test_too_many_attempts_come_to_an_end(said, out, tmp_path, monkeypatch):
    """Trying for ever ends in an error that names the work."""
    path = str(own_notebook(tmp_path, "a = 1"))
    monkeypatch.setattr("prodkit.runs.claims._ATTEMPTS", 2)
    run_notebook(path, {})
    run_notebook(path, {}, force=True)
    with pytest.raises(RunError, match=r"mine-[0-9a-f]{10} has been tried too often; found 2"):
        run_notebook(path, {}, force=True)


# Real kernels


def test_a_failing_notebook_leaves_all_that_is_known(prodkit: Command, out, tmp_path):
    """A failure ends with 1 and leaves the partial notebook, a strict result and a report that say why."""
    path = own_notebook(tmp_path, "amount = 3", "print('before')", "1 / (amount - 3)", "print('after')")
    status, printed, told = prodkit("run", path, "--out", out)
    assert (status, printed) == (1, "")
    assert "failed, error" in told
    assert "ZeroDivisionError: division by zero" in told
    (folder,) = (out / "runs").iterdir()
    result = strict(folder / "result.json")
    assert result.keys() == KEYS
    assert (result["status"], result["outcome"], result["action"]) == ("failed", "error", None)
    assert result["reasons"] == ["ZeroDivisionError: division by zero"]
    text = (folder / "notebook.ipynb").read_text()
    assert "before\\n" in text
    assert "after\\n" not in text
    assert "ZeroDivisionError" in (folder / "report.html").read_text()


def test_a_run_of_the_kit_leaves_notebook_report_and_record(prodkit: Command, out, tmp_path, orders_file):
    """`prodkit run train` leaves the folder that was promised, and its record in folder and store are one."""
    shared = facts_file(tmp_path, orders_file, **TRAINING)
    status, printed, _ = prodkit(
        *("run", "train", "-f", shared, "-p", "window", "2024-01-01/2024-02-10", "--out", out, "--json")
    )
    assert status == 0
    (folder,) = (out / "runs").iterdir()
    result = strict(folder / "result.json")
    assert json.loads(printed) == result
    assert result.keys() == KEYS
    assert (result["notebook"], result["status"], result["outcome"]) == ("train", "succeeded", "pass")
    assert (result["run_id"], result["parent"], result["schema"]) == (folder.name, "", 1)
    assert folder.name.startswith("train-20240101-")
    assert result["params"]["folds"] == 2
    assert result["inputs"][0]["rows"] > 2000
    assert all(item["outcome"] == "pass" for item in result["evidence"])
    assert sorted(path.name for path in folder.iterdir()) == ["notebook.ipynb", "report.html", "result.json"]
    assert "<h1>Can we build a challenger worth judging?</h1>" in (folder / "report.html").read_text()
    real = {"store": f"sqlite:///{out}/store.db", "artifacts": str(out / "artifacts")}
    with opened(real) as store:
        assert store.run(folder.name)["document"] == result
        assert [version.number for version in store.versions()] == [result["outputs"]["version"]]
        assert store.history()[0].run_id == folder.name


def test_the_parameters_of_an_own_notebook_reach_it(prodkit: Command, out, tmp_path):
    """Any notebook with a parameters cell runs; what it shows as its result becomes the record."""
    path = own_notebook(
        tmp_path,
        'label = "?"\namounts = [1]',
        f"result = {{'outcome': 'pass', 'outputs': {{'said': f'{{label}} {{sum(amounts)}}'}}}}\n"
        f"get_ipython().display_pub.publish({{{RESULT_MIME!r}: result, 'text/plain': 'recorded'}})",
    )
    status, printed, told = prodkit(
        *("run", path, "-p", "label", "00123", "-p", "amounts", "[1, 2]", "--out", out, "--json")
    )
    assert (status, told) == (0, "")
    result = json.loads(printed)
    assert result.keys() == KEYS
    assert result["outputs"] == {"said": "00123 3"}
    assert result["params"] == {"label": "00123", "amounts": [1, 2]}


def test_a_notebook_without_a_parameters_cell_runs(prodkit: Command, out, tmp_path):
    """A notebook that declares no parameters is run as it is; giving it one is the error, and says what to do."""
    path = own_notebook(tmp_path, "print(1)")
    notebook = nbformat.read(path, as_version=4)
    notebook.cells[0].metadata = {}
    nbformat.write(notebook, path)
    status, printed, told = prodkit("run", path, "--out", out, "--json")
    assert (status, json.loads(printed)["params"], told) == (0, {}, "")
    status, _, told = prodkit("run", path, "-p", "a", "1", "--out", out)
    assert status == 2
    assert "a is not a parameter" in told
    assert "tag the code cell that declares them `parameters`" in told


# What the identity of a notebook of one's own covers


def test_what_parameters_name_and_modules_beside_the_notebook_are_part_of_the_work(
    said, tmp_path, monkeypatch
):
    """A changed file, folder, pattern or module is other work; named by a default or by a value, it counts alike."""
    (tmp_path / "day").mkdir()
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    for folder in ("home", "kit/deep"):
        (tmp_path / folder).mkdir(parents=True)
    cell = """table = "a.csv"
folder = "day"
files = "day/*.txt"
many = ["b.csv", {"c": ("c.csv",)}]
by_name = {"d.csv": 1}
at_home = "~/e.csv"
"""
    path = str(own_notebook(tmp_path, cell))
    seen = [run_notebook(path, {})["run_id"]]
    for change, text in (
        ("a.csv", "1"),
        ("a.csv", "2"),
        ("day/x.txt", "1"),
        ("day/y.bin", "1"),
        ("own.py", "a"),
        *(
            (name, "1")
            for name in ("b.csv", "c.csv", "d.csv", "home/e.csv", "kit/__init__.py", "kit/deep/a.py")
        ),
    ):
        (tmp_path / change).write_text(text)
        run = run_notebook(path, {})
        assert not run.repeated, change
        assert run_notebook(path, {}).repeated
        seen.append(run["run_id"])
    assert len(set(seen)) == len(seen)
    (tmp_path / "other.csv").write_text("1")
    assert run_notebook(path, {}).repeated
    assert not run_notebook(path, {"table": "other.csv"}).repeated


def test_a_linked_notebook_works_where_its_link_lies(said, tmp_path):
    """As Kubernetes mounts a ConfigMap: another content is other work, the same content under a new link is not."""
    for name in ("one", "two"):
        (tmp_path / f"..{name}").mkdir()
        own_notebook(tmp_path / f"..{name}", 'table = "a.csv"')
        (tmp_path / f"..{name}" / "a.csv").write_text("1")
    data = tmp_path / "..data"
    data.symlink_to("..one")
    for name in ("mine.ipynb", "a.csv"):
        (tmp_path / name).symlink_to(f"..data/{name}")
    first = run_notebook(str(tmp_path / "mine.ipynb"), {})
    assert (tmp_path / first["basis"]["folder"]).resolve() == tmp_path
    data.unlink()
    data.symlink_to("..two")
    assert run_notebook(str(tmp_path / "mine.ipynb"), {}).repeated
    (tmp_path / "..two" / "a.csv").write_text("2")
    assert not run_notebook(str(tmp_path / "mine.ipynb"), {}).repeated


def test_a_notebook_of_ones_own_may_be_called_train(said, tmp_path):
    """A name makes no notebook one of the kit: its own parameters hold, and no other."""
    run = run_notebook(str(own_notebook(tmp_path, "n = 1", name="train")), {"n": 2})
    assert (run["notebook"], run["params"]) == ("train", {"n": 2})
    with pytest.raises(ParameterError, match="folds is not a parameter"):
        run_notebook(str(own_notebook(tmp_path, "n = 1", name="train")), {"folds": 3})


@pytest.mark.parametrize("limit", [0.0, -1.0, float("nan"), float("inf")])
def test_every_limit_is_finite(limit):
    """No run may last for ever, by any spelling of it."""
    with pytest.raises(ParameterError, match="cell_seconds must be a positive number of seconds"):
        Limits(cell_seconds=limit)


# What is old


def lived(out: Path) -> Store:
    """A store with five versions, the fourth champion, and a folder for each run that it has on record."""
    store = Store.open(f"sqlite:///{out}/store.db", f"{out}/artifacts")
    for number in (1, 2, 3, 4, 5):
        store.register(f"model {number}".encode(), {"trained": ""}, run_id=f"train-{number}")
    for number in (1, 2, 3, 4):
        store.promote(number, expected_generation=number - 1, run_id=f"validate-{number}")
    store.propose("rollback-9", action="retrain", version=None, generation=4, reason="it pays")
    store.record_plan({"number": 1}, reason="the first call")
    for month in range(1, 9):
        window = Window.parse(f"2025-{month:02}-01/2025-{month + 1:02}-01")
        store.record_step(1, "score", window, run_id=f"score-{month}", document={})
    names = [f"train-{n}" for n in (1, 2, 3, 4, 5)] + [f"validate-{n}" for n in (1, 2, 3, 4)]
    for name in [
        *names,
        "rollback-9",
        "asked-for-it",
        *(f"score-{n}" for n in range(1, 9)),
        "drift-1",
        "new",
    ]:
        document = {
            "run_id": name,
            "notebook": name.partition("-")[0],
            "status": "succeeded",
            "outcome": "pass",
        }
        document["started"] = "2026-06-01T00:00:00+00:00" if name == "new" else "2026-01-01T00:00:00+00:00"
        document |= {"parent": "asked-for-it" if name == "train-3" else "", "params": {}, "outputs": {}}
        document |= {"reasons": [], "evidence": [], "inputs": [], "action": None, "approval": None}
        folder = out / "runs" / name
        folder.mkdir(parents=True)
        (folder / "result.json").write_text(json.dumps(document))
        store.record_run(document | {"document": document})
    (out / "requests").mkdir()
    for name, age in (("old", 800 * 86_400), ("young", 0)):
        (out / "requests" / f"{name}.parquet").write_bytes(b"PAR1")
        os.utime(out / "requests" / f"{name}.parquet", (time.time() - age,) * 2)
    return store


STAY = {
    *(f"train-{number}" for number in (2, 3, 4, 5)),
    *(f"validate-{number}" for number in (2, 3, 4)),
    *("rollback-9", "asked-for-it"),
    *(f"score-{number}" for number in range(3, 9)),
}


def test_what_nothing_refers_to_is_removed_and_what_is_needed_stays(prodkit: Command, out):
    """Runs of champion, predecessors, proposal and last periods stay; the page says what went, without links."""
    with lived(out) as store:
        status, printed, _ = prodkit("clean", "--older", "0d", "--dry-run", "--out", out)
        assert (status, len(list((out / "runs").iterdir()))) == (0, 21)
        assert "v1" in printed
        assert prodkit("clean", "--older", "0d", "--out", out)[0] == 0
        assert {path.name for path in (out / "runs").iterdir()} == STAY
        assert [version.number for version in store.versions()] == [2, 3, 4, 5]
        assert [path.name for path in (out / "requests").iterdir()] == ["young.parquet"]
        assert [event.kind for event in store.history()][-2:] == ["clean", "delete"]
        assert store.run("drift-1")["document"]["run_id"] == "drift-1"
        assert store.check() == []
    assert prodkit("report", "--out", out)[0] == 0
    page = (out / "index.html").read_text()
    assert "6 runs and 1 files of the request log were removed" in page
    assert 'href="runs/train-1/' not in page
    assert prodkit("models", "promote", 1, "--name", "A", "--reason", "B", "--out", out)[2].count(
        "was removed"
    )


@pytest.mark.parametrize("moment", ["before", "while"])
def test_a_clean_that_is_killed_is_finished_by_the_next(out, moment):
    """No folder of a run is ever half there, and what was named in the history goes in the end."""
    with lived(out) as store:
        work = clean.old_work(store, older=timedelta(0))
    if (child := os.fork()) == 0:

        def die(path, **_):
            os.unlink(path) if moment == "while" else None
            os.kill(os.getpid(), signal.SIGKILL)

        Path.unlink = die
        with Store.open(f"sqlite:///{out}/store.db", f"{out}/artifacts") as store:
            clean.clean(store, work)
    assert os.waitpid(child, 0)[1] == signal.SIGKILL
    assert all((folder / "result.json").exists() for folder in (out / "runs").glob("[!.]*"))
    with Store.open(f"sqlite:///{out}/store.db", f"{out}/artifacts") as store:
        clean.clean(store, clean.old_work(store, older=timedelta(days=100)))
        assert {path.name for path in (out / "runs").iterdir()} == STAY
        assert store.check() == []


def test_nothing_is_removed_that_somebody_works_with(out):
    """A run's folder that is in use, the request log while a notebook runs, and a version promoted meanwhile stay."""
    with lived(out) as store:
        work = clean.old_work(store, older=timedelta(0))
        used = claim("busy", out / "runs")
        store.record_run({"run_id": "busy", "status": "succeeded", "started": "2026-01-01T00:00:00+00:00"})
        store.promote(1, expected_generation=4)
        with at_work(out):
            notes = clean.clean(store, clean.OldWork(work.before, [*work.runs, "busy"], [1], work.requests))
        assert used.folder.is_dir()
        assert (out / "requests" / "old.parquet").exists()
        assert store.artifact(1) == b"model 1"
        assert [note.partition(" ")[0] for note in notes] == ["version", "the"]
        used.release()


def test_work_whose_folder_was_removed_gets_another_name(said, out, tmp_path):
    """A run id stands for one run for ever: its record in the store is not overwritten."""
    path = str(own_notebook(tmp_path, "a = 1"))
    first = run_notebook(path, {})
    with Store.open(f"sqlite:///{out}/store.db", f"{out}/artifacts") as store:
        clean.clean(store, clean.old_work(store, older=timedelta(days=-1)))
    assert not first.folder.exists()
    assert run_notebook(path, {})["run_id"] == f"{first['run_id']}-2"
    assert run_notebook(path, {}).repeated
