"""A recorded run is believed if it holds together and comes out the same again; what was falsified is found."""

from __future__ import annotations

import base64
import hashlib
import io
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import nbformat
import pytest
import sqlalchemy as sa
from matplotlib.figure import Figure
from tables import (
    FACTS,
    FEBRUARY,
    PROJECT,
    TRAINING,
    Command,
    contents,
    opened,
    orders,
    own_notebook,
    params_for,
    prodkit,
    stocked,
    trained,
    written,
)

from prodkit.decisions.answers import RESULT_MIME
from prodkit.errors import ParameterError
from prodkit.runs import verify
from prodkit.runs.runner import run_notebook
from prodkit.runs.verify import Verdict, verify_run
from prodkit.settings import using_outputs

__all__ = ["prodkit"]  # a fixture

CANARY = "correct-horse-battery-staple"  # a secret
RESULT = {
    **{"outcome": "pass", "action": None, "evidence": [{"name": "gain", "value": 0.25, "outcome": "pass"}]},
    **{"reasons": ["gain: 0.25"], "outputs": {"rows": 2}},
}
CELLS = {
    "parameters": 'amount = 3\nlabel = "?"\ntoken = "${VERIFY_CANARY}"',
    "secret": "import os\nprint('with', os.environ['VERIFY_CANARY'])",
    "imports": "import random, sys, time\nfrom datetime import datetime\nimport pandas as pd\n"
    "from IPython.display import Markdown, clear_output, display\nimport matplotlib.pyplot as plt\n"
    "from ipywidgets import interact\nfrom tqdm import tqdm",
    "table": 'pd.DataFrame({"share": [0.123456, 2.5], "n": [3600, 17]}, index=["2013-04-01 10:00:00", "b"])',
    "stream": 'print("total", 1234 * amount)\nprint("0.5 s", file=sys.stderr)',
    "markdown": 'Markdown("**0.25** of the rows of `" + label + "`")',
    "figure": 'plt.figure(figsize=(2, 2)); plt.plot([1, 3, 2]); plt.title("one");',
    "other figure": 'plt.figure(figsize=(2, 2)); plt.plot([3, 1, 2])\nplt.title("two");',
    "third figure": "plt.figure(figsize=(2, 2)); plt.plot([2, 2])\nplt.show()",
    "varying": "print(object(), datetime.now(), time.time(), f'{datetime.now():%H:%M:%S}')\n"
    "print(0.123456789 + random.random() * 1e-9)\n"
    "for _ in tqdm(range(3), desc='step'): time.sleep(0.2 * random.random())",
    "rewritten": "print('gone')\nclear_output()\nshown = display(1, display_id=True)\nshown.update(2)",
    "widget": "interact(lambda x: print('inside', x), x=3);",
    "ignored": "random.random()",
    "fate": "from pathlib import Path\nexec(Path('fate.txt').read_text())",
    "result": f"display({{{RESULT_MIME!r}: {RESULT!r}, 'text/plain': 'recorded'}}, raw=True)",
}
NUMBERS = {name: number for number, name in enumerate(["parameters", "injected", *list(CELLS)[1:]], 1)}


@dataclass(frozen=True)
class Record:
    """A recorded run, and the table and store that it used."""

    out: Path
    run_id: str
    home: Path

    def verdict(self) -> Verdict:
        """Verify it."""
        with using_outputs(self.out):
            return verify_run(self.run_id)

    @property
    def folder(self) -> Path:
        """Where its record lies."""
        return self.out / "runs" / self.run_id

    def change(self, how: Callable[[Any], None], name: str = "notebook.ipynb") -> None:
        """Change a JSON file of the record in place."""
        path = self.folder / name
        if name.endswith(".ipynb"):
            notebook = nbformat.read(path, as_version=4)
            how(notebook)
            path.write_text(nbformat.writes(notebook))
        else:
            document = json.loads(path.read_text())
            how(document)
            path.write_text(json.dumps(document))

    def forge(self) -> None:
        """Make result.json and the store tell the notebook's story, as a thorough forger would."""
        seal = hashlib.sha256((self.folder / "notebook.ipynb").read_bytes()).hexdigest()
        self.change(lambda result: result["basis"].update(executed=seal), "result.json")
        document = json.loads((self.folder / "result.json").read_text())
        with opened(self.places) as store:
            store.record_run({"run_id": self.run_id, "document": document})

    @property
    def places(self) -> dict[str, str]:
        """Its store."""
        return {"store": f"sqlite:///{self.out}/store.db", "artifacts": str(self.out / "artifacts")}


@pytest.fixture(scope="module")
def mine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Record]:
    """A run of a notebook that shows one of everything, a secret among it."""
    home = tmp_path_factory.mktemp("mine")
    path = own_notebook(home, *CELLS.values())
    notebook = nbformat.read(path, as_version=4)
    notebook.cells[list(CELLS).index("ignored")].metadata["tags"] = ["nbval-ignore-output"]
    nbformat.write(notebook, path)
    (home / "fate.txt").write_text("print('all is well')")
    with pytest.MonkeyPatch.context() as patch, using_outputs(home / "out"):
        patch.setenv("VERIFY_CANARY", CANARY)
        run = run_notebook(str(path), {"amount": 2, "label": "x"})
        assert run["status"] == "succeeded", run["reasons"]
        yield Record(home / "out", run["run_id"], home)


@pytest.fixture
def copy(mine: Record, tmp_path: Path) -> Record:
    """A copy of that record, to be falsified."""
    shutil.copytree(mine.out, tmp_path / "out")
    return Record(tmp_path / "out", mine.run_id, mine.home)


@pytest.fixture
def fate(mine: Record) -> Iterator[Path]:
    """A script that the notebook runs, and that may be another one the second time."""
    path = mine.home / "fate.txt"
    before = path.read_text()
    yield path
    path.write_text(before)


def cell_of(notebook: Any, name: str) -> Any:
    """A code cell by its name in CELLS."""
    return notebook.cells[NUMBERS[name] - 1]


def picture_of(values: list[int]) -> str:
    """Another figure."""
    figure, buffer = Figure(figsize=(2, 2)), io.BytesIO()
    figure.subplots().plot(values)
    figure.savefig(buffer, format="png")
    return base64.b64encode(buffer.getvalue()).decode()


def found_in(verdict: Verdict) -> dict[str, str]:
    """All differences, by what differs."""
    return {each.what: f"{each.recorded} / {each.found}" for each in verdict.differences}


# Own notebooks


def test_an_honest_record_matches_although_its_clock_and_addresses_differ(mine: Record) -> None:
    """Moments of the run, addresses, progress bars, widgets and the ninth digit do not count as differences."""
    verdict = mine.verdict()
    assert verdict.lines()[0] == f"{mine.run_id}: matches", "\n".join(verdict.lines())
    assert verdict.compared["cells"] == len(NUMBERS)
    assert (verdict.compared["ignored"], verdict.compared["figures"]) == (1, 3)
    assert len(verdict.notes) == 1
    assert "is not known, and may have changed since" in verdict.notes[0]


def test_each_falsified_output_is_found(copy: Record) -> None:
    """A digit in a table, in text, in Markdown; a figure replaced, spoilt, removed: each is named by its cell."""

    def falsify(notebook: Any) -> None:
        table = cell_of(notebook, "table").outputs[0].data
        table["text/html"] = table["text/html"].replace("3600", "3601")
        table["text/plain"] = (
            table["text/plain"].replace("0.123456", "0.123466").replace("10:00:00", "11:00:00")
        )
        for output in cell_of(notebook, "stream").outputs:
            output.text = output.text.replace("2468", "2469").replace("0.5 s", "0.6 s")
        cell_of(notebook, "markdown").outputs[0].data["text/markdown"] = "**0.26** of the rows of `x`"
        cell_of(notebook, "figure").outputs[0].data["image/png"] = picture_of([1, 2, 3])
        cell_of(notebook, "other figure").outputs[0].data["image/png"] = "bm90IGEgcGljdHVyZQ=="
        cell_of(notebook, "third figure").outputs.clear()
        varying = cell_of(notebook, "varying").outputs
        next(o for o in varying if o.name == "stdout").text += "one line more\n"
        cell_of(notebook, "fate").outputs.clear()
        cell_of(notebook, "result").outputs[0].data[RESULT_MIME]["evidence"][0]["value"] = 0.35

    copy.change(falsify)
    copy.change(lambda result: result["evidence"][0].update(value=0.35), "result.json")
    copy.forge()
    verdict = copy.verdict()
    found = found_in(verdict)
    at = {name: f"cell {number}" for name, number in NUMBERS.items()}
    (html,) = (what for what in found if what.startswith(f"{at['table']}, text/html line "))
    assert found[html] == "<td>3601</td> / <td>3600</td>"
    assert f"{at['table']}, text/plain line 2" in found
    assert found[f"{at['stream']}, stdout line 1"] == "total 2469 / total 2468"
    assert found[f"{at['stream']}, stderr line 1"] == "0.6 s / 0.5 s"
    assert f"{at['markdown']}, text/markdown" in found
    assert found[f"{at['figure']}, image/png"].count("drawn ") == 2
    assert found[f"{at['other figure']}, image/png"].startswith("no picture: ")
    assert found[f"{at['third figure']}, image/png"].startswith("none / 1: ")
    assert f"{at['varying']}, stdout line 3" in found
    assert found[f"{at['fate']}, stdout"] == "none / 1: all is well"
    assert found[f"{at['result']}, result.evidence[gain].value"] == "0.35 / 0.25"
    cells = {what.split(",")[0] for what in found}
    changed = [
        *(
            "table",
            "stream",
            "markdown",
            "figure",
            "other figure",
            "third figure",
            "varying",
            "fate",
            "result",
        )
    ]
    assert cells == {at[name] for name in changed}
    assert not verdict.matches


Change = tuple[Callable[[Any], Any], str]
CHANGED_CELLS = "cells were changed, added or removed"
NEVER_RAN = f"cell {NUMBERS['table']}"
NOTE, RESULTS = "papermill's note says otherwise", "the notebook shows another"
FALSIFIED_NOTEBOOK: dict[str, Change] = {
    "a cell removed": (lambda n: n.cells.pop(4), CHANGED_CELLS),
    "a cell added": (lambda n: n.cells.insert(4, nbformat.v4.new_code_cell("1")), CHANGED_CELLS),
    "a cell edited": (lambda n: cell_of(n, "stream").update(source="print(5)"), CHANGED_CELLS),
    "a cell tagged as not to be compared": (
        lambda n: cell_of(n, "table").metadata.update(tags=["nbval-ignore-output"]),
        "other cells are tagged",
    ),
    "a cell that never ran": (
        lambda n: cell_of(n, "table").metadata["papermill"].update(status="pending"),
        NEVER_RAN,
    ),
    "a cell that failed": (
        lambda n: cell_of(n, "table").metadata["papermill"].update(exception=True),
        NEVER_RAN,
    ),
    "a cell without a number": (lambda n: cell_of(n, "table").update(execution_count=None), NEVER_RAN),
    "cells in another order": (lambda n: cell_of(n, "table").update(execution_count=9), NEVER_RAN),
    "the injected cell": (
        lambda n: cell_of(n, "injected").update(source='# Parameters\namount = 5\nlabel = "x"\n'),
        f"parameter amount, {NOTE}",
    ),
    "the injected cell removed": (lambda n: n.cells.pop(1), f"parameter amount, {NOTE}"),
    "papermill's note": (
        lambda n: n.metadata.papermill.parameters.update(label="y"),
        f"parameter label, {NOTE}",
    ),
    "the result that the notebook shows": (
        lambda n: cell_of(n, "result").outputs.clear(),
        f"result.json.outcome, {RESULTS}",
    ),
}
FALSIFIED_RESULT: dict[str, Change] = {
    "a parameter in the result": (lambda r: r["params"].update(amount=True), "parameter amount, result.json"),
    "a parameter less in the result": (lambda r: r["params"].pop("amount"), "parameter amount, result.json"),
    "evidence in the result": (
        lambda r: r["evidence"][0].update(value=0.2500000001),
        f"result.json.evidence[gain].value, {RESULTS}",
    ),
    "the outcome": (lambda r: r.update(outcome="fail"), f"result.json.outcome, {RESULTS}"),
    "another run's id": (lambda r: r.update(run_id="mine-0123456789"), "run_id"),
}


def falsify(copy: Record, what: str) -> str:
    """Change the record in this way, and give what must be found."""
    notebook = what in FALSIFIED_NOTEBOOK
    how, finding = (FALSIFIED_NOTEBOOK if notebook else FALSIFIED_RESULT)[what]
    copy.change(how, "notebook.ipynb" if notebook else "result.json")
    return finding


@pytest.mark.parametrize("what", [*FALSIFIED_NOTEBOOK, *FALSIFIED_RESULT])
def test_a_record_that_contradicts_itself_is_found_before_anything_is_executed(
    copy: Record, what: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Cells, their state, parameters and result are held against each other, without a kernel."""
    monkeypatch.setattr(verify, "_compare", lambda *_: pytest.fail("it was executed"))
    finding = falsify(copy, what)
    verdict = copy.verdict()
    assert not verdict.matches
    assert any(each.what.startswith(finding) for each in verdict.differences), verdict.lines()
    assert verdict.lines()[-2] == "  The record contradicts itself, so it was not executed again."


def test_all_contradictions_are_reported_together(copy: Record) -> None:
    """One look shows everything that is wrong with a record."""
    for what in ("a cell edited", "a cell that never ran", "papermill's note", "evidence in the result"):
        falsify(copy, what)
    said = [each.what for each in copy.verdict().differences]
    assert [what.split(",")[0] for what in said] == [
        *("cells were changed", f"cell {NUMBERS['table']}", "parameter label"),
        *("result.json.evidence[gain].value", "notebook.ipynb is not as it was saved"),
        "result.json.evidence[gain].value",
    ]
    assert said[-1].endswith(", the store has another")


def test_a_run_that_the_store_does_not_know_is_found(copy: Record) -> None:
    """A folder that was made up has no record in the store."""
    engine = sa.create_engine(copy.places["store"], poolclass=sa.NullPool)
    with engine.begin() as rows:
        rows.execute(sa.text("DELETE FROM runs"))
    assert found_in(copy.verdict()) == {"the store": "a record of this run / none"}


def test_a_kernel_that_dies_is_noticed_at_once(mine: Record, fate: Path) -> None:
    """The verdict names the cell in which the kernel died, without waiting for its time to run out."""
    fate.write_text("import os, signal; os.kill(os.getpid(), signal.SIGKILL)")
    began = time.monotonic()
    verdict = mine.verdict()
    assert time.monotonic() - began < 60
    assert found_in(verdict).keys() == {f"cell {NUMBERS['fate']}"}
    assert "killed by signal 9 (SIGKILL)" in verdict.differences[0].found


def test_a_cell_that_fails_the_second_time_is_found(mine: Record, fate: Path) -> None:
    """The error of the second execution is reported with its cell, without what is secret."""
    fate.write_text("raise OSError(f'no {os.environ[\"VERIFY_CANARY\"]}')")
    assert found_in(mine.verdict()) == {f"cell {NUMBERS['fate']}": "completed / OSError: no ${VERIFY_CANARY}"}


@pytest.mark.skipif(not Path("/proc/self/cmdline").exists(), reason="looks at processes in /proc")
def test_the_kernel_is_a_cold_one_in_the_folder_of_the_run(mine: Record, fate: Path) -> None:
    """No fork of a prepared process executes the notebook again, but a fresh start, as the recorded run."""
    fate.write_text(
        "import os\ncommand = open(f'/proc/{os.getpid()}/cmdline').read()\n"
        "print('forkserver' not in command, os.getcwd(), os.environ['PRODKIT_RUN'])"
    )
    assert list(found_in(mine.verdict()).values()) == [
        f"all is well / True {mine.home.resolve()} {mine.run_id}"
    ]


def test_a_cell_that_does_not_end_is_stopped(
    mine: Record, fate: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A cell may take ten times as long as the longest one took when it was recorded, and no longer."""
    monkeypatch.setattr(verify, "_LEAST_SECONDS", 15.0)
    monkeypatch.setattr(verify, "_PATIENCE", 0.0)
    fate.write_text("import time; time.sleep(600)")
    began = time.monotonic()
    found = found_in(mine.verdict())
    assert time.monotonic() - began < 60
    assert list(found) == [f"cell {NUMBERS['fate']}"]


def is_running(pid: int) -> bool:
    """Whether there is such a process that is not a zombie."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def wait_for(condition: Callable[[], Any], *, seconds: float = 60.0) -> None:
    """Until it holds."""
    due = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < due, "it did not happen"
        time.sleep(0.1)


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="looks at processes in /proc")
@pytest.mark.parametrize("signum", [signal.SIGTERM, signal.SIGKILL])
def test_a_verification_that_is_killed_leaves_no_kernel_behind(
    mine: Record, fate: Path, tmp_path: Path, signum: signal.Signals
) -> None:
    """A signal ends the kernel, its children and the sandbox; after SIGKILL the next call removes the sandbox."""
    told = tmp_path / "pids"
    fate.write_text(
        "import os, subprocess, time\nchild = subprocess.Popen(['sleep', '600'])\n"
        f"open({str(told)!r}, 'w').write(f'{{os.getpid()}} {{child.pid}}\\n'); time.sleep(600)"
    )
    code = "import sys; sys.argv[0] = 'prodkit'; from prodkit.cli import main; main()"
    command = [sys.executable, "-c", code, "verify", mine.run_id, "--out", str(mine.out)]
    scratch = tmp_path / ("scratch" * 12)  # longer than the name of a socket may be
    scratch.mkdir()
    environment = os.environ | {"TMPDIR": str(scratch)}
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, env=environment)
    try:
        wait_for(lambda: told.exists() and told.read_text().endswith("\n"))
    finally:
        process.send_signal(signum)
        process.wait()
    kernel, child = map(int, told.read_text().split())
    wait_for(lambda: not is_running(kernel), seconds=20)
    if signum == signal.SIGKILL:  # the next one removes the sandbox that is nobody's
        if is_running(child):
            os.kill(child, signal.SIGKILL)
        fate.write_text("print('all is well')")
        assert (
            subprocess.run(command, stdout=subprocess.DEVNULL, env=environment, check=False).returncode == 0
        )
    wait_for(lambda: not [*scratch.iterdir()], seconds=20)


def test_long_temporary_folders_and_hasty_cells_make_no_difference(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A run is verified where the path is too long for a socket, and where output comes faster than it is read."""
    monkeypatch.chdir(PROJECT)
    with using_outputs(tmp_path / "out"):
        lines = "for number in range(3000): print(number, flush=True)"
        run = run_notebook(str(own_notebook(tmp_path, "a = 1", lines)), {})
        scratch = tmp_path / ("long" * 20)
        scratch.mkdir()
        monkeypatch.setattr("tempfile.tempdir", str(scratch))
        verdict = verify_run(run["run_id"])
    assert (verdict.refused, verdict.differences) == ("", [])
    assert not list(scratch.iterdir())


def test_a_kernel_that_cannot_be_started_is_said(copy: Record) -> None:
    """Where nothing was executed nothing is said about outputs."""
    copy.change(lambda n: n.metadata.kernelspec.update(name="no-such-kernel"))
    copy.forge()
    verdict = copy.verdict()
    assert "no-such-kernel" in verdict.refused
    assert not verdict.matches


def test_a_folder_that_is_gone_is_said(copy: Record) -> None:
    """A run is not executed in another folder than its own."""
    copy.change(lambda r: r["basis"].update(folder="/no/such/folder"), "result.json")
    copy.forge()
    assert "folder must still be there, as the run worked in it; found /no/such" in copy.verdict().refused


def test_a_run_finds_the_outputs_that_it_could_have_found(tmp_path: Path) -> None:
    """What lay in the outputs when it began is shown to it, what came later or belongs to the store is not."""
    out, box = tmp_path / "out", tmp_path / "box"
    there = ["data/flights.parquet", "predictions/w/v1/part-0.parquet", "mine.db"]
    for name in [*there, "store.db", "artifacts/versions/a", "runs/r/result.json", "predictions/w/v2/part-0"]:
        (out / name).parent.mkdir(parents=True, exist_ok=True)
        (out / name).write_text(name)
        os.utime(out / name, (1000.0, 1000.0))
    os.utime(out / "predictions/w/v2/part-0", (3000.0, 3000.0))
    box.mkdir()
    verify._lend_outputs(out, box, before=2000.0)
    assert sorted(str(path.relative_to(box)) for path in box.rglob("*") if path.is_file()) == sorted(there)
    (box / "mine.db").write_text("changed in place")
    assert (out / "mine.db").read_text() == "mine.db"


@pytest.mark.parametrize(
    ("name", "text", "said"),
    [
        ("notebook.ipynb", '{"cells": [', "must have a record that can be read"),
        ("notebook.ipynb", "{}", "must have a record that can be read"),
        ("result.json", "[", "must have a record that can be read"),
        ("result.json", None, "must have a record that can be read"),
        ("result.json", '{"status": "failed"}', "must have succeeded to be verified; found failed"),
        ("result.json", '{"status": "running"}', "must have succeeded to be verified; found running"),
        ("result.json", '{"status": "succeeded"}', "must say its basis"),
        ("result.json", {"params": None}, "must say its params; found None"),
        ("result.json", {"evidence": {}}, "must say its evidence; found {}"),
        ("result.json", {"started": 1}, "must say its started; found 1"),
    ],
)
def test_what_cannot_be_executed_again_is_refused_in_words(
    copy: Record, prodkit: Command, name: str, text: str | dict[str, Any] | None, said: str
) -> None:
    """A damaged record, and a run that did not succeed, end with 1 and one sentence."""
    path = copy.folder / name
    if isinstance(text, dict):
        text = json.dumps(json.loads(path.read_text()) | text)
    path.unlink() if text is None else path.write_text(text)
    status, printed, _ = prodkit("verify", copy.run_id, "--out", copy.out)
    assert status == 1
    assert f"{copy.run_id}: cannot be checked" in printed
    assert said in printed


@pytest.mark.parametrize("run", ["mine-0123456789", "../runs", "..", ".", "/tmp", ""])
def test_a_run_that_is_not_there_is_a_wrong_call(copy: Record, prodkit: Command, run: str) -> None:
    """A name that is no run of this folder ends with 2, and with those that there are."""
    status, printed, told = prodkit("verify", run, "--out", copy.out)
    assert (status, printed) == (2, "")
    assert "RUN must be a recorded run" in told
    assert f"There are: {copy.run_id}" in told


def test_the_command_says_what_differs_in_json_and_in_words(
    copy: Record, prodkit: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`--json` prints the verdict and nothing else; a path of the folder names the run as well as its id."""
    copy.change(lambda result: result.update(outcome="fail"), "result.json")
    status, printed, told = prodkit("verify", copy.folder, "--out", copy.out, "--json")
    assert (status, told) == (1, "")
    verdict = json.loads(printed)
    assert (verdict["run_id"], verdict["matches"], verdict["refused"]) == (copy.run_id, False, "")
    difference, also = verdict["differences"]
    assert also["what"] == "result.json.outcome, the store has another"
    assert (difference["recorded"], difference["found"]) == ("pass", "fail")
    status, printed, _ = prodkit("verify", copy.run_id, "--out", copy.out)
    assert status == 1
    assert "    found:    fail" in printed.splitlines()


# Notebooks of the kit


@pytest.fixture(scope="module")
def kit(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Any]]:
    """A store whose champion, version 3, is a bad release; runs of the kit that have worked with it."""
    home = tmp_path_factory.mktemp("kit")
    data = written(orders(), home)
    places = stocked(home)
    bad = trained(params_for("train", data, window="2024-01-01/2024-02-01", drill={"returned": "scrambled"}))
    with opened(places) as store:
        store.register(*bad, run_id="train-3")
        store.promote(3, expected_generation=2, reason="test")
    shared = {**FACTS, "data": data, **places, "window": FEBRUARY}
    asked = {
        "score": {"predictions": str(home / "predictions")},
        "rollback": {"min_rows": 100, "ranking_margin": 0.0},
        "train": {**TRAINING, "window": "2024-01-01/2024-02-01"},
    }
    with pytest.MonkeyPatch.context() as patch, using_outputs(home / "out"):
        patch.chdir(PROJECT)
        runs = {name: run_notebook(name, {**shared, **given}) for name, given in asked.items()}
        with opened(places) as store:  # what comes later must not be seen
            store.promote(1, expected_generation=store.champion().generation, reason="later")
            store.hold(expected_generation=store.champion().generation, reason="later")
        yield {"home": home, "data": data, "places": places, "runs": runs}


def record_of(kit: dict[str, Any], notebook: str) -> Record:
    """One of its runs."""
    return Record(kit["home"] / "out", kit["runs"][notebook]["run_id"], kit["home"])


def files_of(folder: Path) -> dict[str, tuple[bytes, int]]:
    """Contents and times of all files below a folder."""
    return {
        str(path): (path.read_bytes(), path.stat().st_mtime_ns)
        for path in folder.rglob("*")
        if path.is_file()
    }


@pytest.mark.parametrize("notebook", ["rollback", "score", "train"])
def test_a_run_that_acted_is_verified_without_acting_again(kit: dict[str, Any], notebook: str) -> None:
    """A rollback, a registration and predictions are repeated in a sandbox: store and folders stay untouched."""
    if notebook == "rollback":
        assert kit["runs"]["rollback"]["action"] == "rollback", kit["runs"]["rollback"]["reasons"]
    before, files = (
        contents(kit["places"]),
        files_of(kit["home"] / "out") | files_of(kit["home"] / "predictions"),
    )
    verdict = record_of(kit, notebook).verdict()
    assert verdict.lines()[0] == f"{kit['runs'][notebook]['run_id']}: matches", "\n".join(verdict.lines())
    assert verdict.notes == []
    assert contents(kit["places"]) == before
    assert files_of(kit["home"] / "out") | files_of(kit["home"] / "predictions") == files


def test_a_result_that_the_store_has_otherwise_is_found(kit: dict[str, Any], tmp_path: Path) -> None:
    """Whoever falsifies notebook and result.json alike is found by the record in the store."""
    shutil.copytree(kit["home"] / "out", tmp_path / "out")
    copy = Record(tmp_path / "out", kit["runs"]["train"]["run_id"], kit["home"])
    copy.change(lambda n: shown_in(n)["evidence"][0].update(value=0.9))
    copy.change(lambda r: r["evidence"][0].update(value=0.9), "result.json")
    found = found_in(copy.verdict())
    assert list(found) == [
        "notebook.ipynb is not as it was saved",
        "result.json.evidence[gain.baseline].value, the store has another",
    ]


def shown_in(notebook: Any) -> Any:
    """The result document in a notebook."""
    for cell in reversed(notebook.cells):
        for output in cell.get("outputs", []):
            if RESULT_MIME in output.get("data", {}):
                return output.data[RESULT_MIME]
    raise AssertionError("no result")


def test_other_data_is_refused(kit: dict[str, Any]) -> None:
    """A run is not held against a table that has changed since."""
    path = Path(kit["data"])
    before = path.read_bytes()
    try:
        frame = orders()
        frame.loc[5, "price"] += 1
        written(frame, path.parent)
        verdict = record_of(kit, "score").verdict()
    finally:
        path.write_bytes(before)
    assert "data must have the digest" in verdict.refused
    assert "The data changed since" in verdict.refused
    assert verdict.compared == {}


def test_a_store_that_is_gone_is_refused_and_not_made_anew(kit: dict[str, Any]) -> None:
    """Without the store that it worked with, a run cannot be executed again."""
    path = kit["home"] / "store.db"
    aside = path.rename(path.with_name("aside.db"))
    try:
        assert "store must be there to be read" in record_of(kit, "score").verdict().refused
        assert not path.exists()
    finally:
        aside.rename(path)


def test_a_run_on_a_demonstration_store_is_verified(kit: dict[str, Any]) -> None:
    """A store that was made for one execution is made again; there is nothing to copy."""
    with using_outputs(kit["home"] / "out"):
        given = {**FACTS, "data": kit["data"], "window": "2024-02-20/2024-03-01", "store": "demo"}
        run = run_notebook("drift", given)
    verdict = Record(kit["home"] / "out", run["run_id"], kit["home"]).verdict()
    assert verdict.matches, "\n".join(verdict.lines())
    assert verdict.compared["figures"] == 2


def test_what_was_deleted_since_is_said(kit: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    """A run whose champion is gone cannot be repeated, and code that has changed is mentioned."""
    with (
        pytest.raises(ParameterError, match="RUN must be a recorded run"),
        using_outputs(kit["home"] / "out"),
    ):
        verify_run("score")
    monkeypatch.setattr(verify, "code_digest", lambda: "another")
    monkeypatch.setattr(verify, "_compare", lambda *_: None)
    assert record_of(kit, "score").verdict().notes == [
        "prodkit's own code has changed since the run was recorded"
    ]
