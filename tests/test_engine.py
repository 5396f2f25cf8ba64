"""The engine: however a run ends, what it has saved is true, and nothing of it lives on."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import nbformat
import papermill
import pytest
from tables import PROJECT, own_notebook

from prodkit.runs.draft import notebook_text
from prodkit.runs.engine import Order, StoppedError, execute
from prodkit.runs.runner import run_notebook
from prodkit.runs.stops import Limits, Stop
from prodkit.settings import using_outputs

START = "a = 1"
SHORT = Limits(cell_seconds=60, grace_seconds=1)


@pytest.fixture
def out(tmp_path, monkeypatch):
    """A folder for results."""
    monkeypatch.chdir(PROJECT)
    with using_outputs(tmp_path / "out"):
        yield tmp_path / "out"


def strict(path: Path) -> dict:
    """A JSON file, without the NaN and Infinity that JSON does not know."""

    def refuse(name):
        raise AssertionError(f"{name} in {path}")

    return json.loads(path.read_text(), parse_constant=refuse)


def states(notebook) -> list[str]:
    """What each code cell is marked as; papermill's injected parameters are no cell of the user's."""
    cells = [cell for cell in notebook["cells"] if cell["cell_type"] == "code"]
    own = [cell for cell in cells if "injected-parameters" not in cell["metadata"].get("tags", [])]
    return [cell["metadata"]["papermill"]["status"] for cell in own]


def printed(notebook) -> str:
    """All that cells have written to stdout."""
    outputs = [output for cell in notebook["cells"] for output in cell.get("outputs", [])]
    return "".join("".join(output["text"]) for output in outputs if output.get("name") == "stdout")


def banner(notebook) -> str:
    """The first cell, which says what happened."""
    return "".join(notebook["cells"][0]["source"])


def run(tmp_path, *cells, limits=SHORT, **given):
    """Run these cells after the parameters; gives result.json and the saved notebook."""
    path = own_notebook(tmp_path, START, *cells)
    done = run_notebook(str(path), given, limits=limits)
    assert strict(done.folder / "result.json") == done.document
    saved = strict(done.folder / "notebook.ipynb")
    nbformat.validate(nbformat.from_dict(saved))
    return done.document, saved


def alive(pid: int) -> bool:
    """Whether a process is there and no zombie."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def gone(pid: int, *, seconds: float = 5.0) -> bool:
    """Whether a process ends in time."""
    until = time.monotonic() + seconds
    while alive(pid):
        if time.monotonic() > until:
            return False
        time.sleep(0.02)
    return True


def until(condition, *, seconds: float = 30.0):
    """Wait for something to become true, and give it."""
    end = time.monotonic() + seconds
    while not (found := condition()):
        assert time.monotonic() < end, "it took too long"
        time.sleep(0.05)
    return found


# What ends a run


def test_a_run_that_ends_well_is_marked_as_such(out, tmp_path):
    """Every cell is completed and timed, and there is no banner."""
    result, saved = run(tmp_path, "print(a)", "", a=2)
    assert (result["status"], printed(saved)) == ("succeeded", "2\n")
    assert states(saved) == ["completed"] * 3
    about = saved["metadata"]["papermill"]
    assert (about["status"], about["exception"], about["parameters"]) == ("succeeded", None, {"a": 2})
    assert saved["cells"][0]["source"] == [START]
    assert all(cell["metadata"]["papermill"]["duration"] >= 0 for cell in saved["cells"])


def test_an_error_marks_its_cell_and_what_never_ran(out, tmp_path):
    """The cell that failed is failed, those after it are pending; hostile text in the error stays text."""
    bad = "raise ValueError('<script>alert(1)</script>')"
    result, saved = run(tmp_path, "print('before')", bad, "print('after')")
    assert states(saved) == ["completed", "completed", "failed", "pending"]
    assert printed(saved) == "before\n"
    assert result["status"] == "failed"
    assert result["reasons"] == ["ValueError: <script>alert(1)</script>"]
    assert "This run failed after 2 of 4 code cells; 1 did not run." in banner(saved)
    assert "<script>" not in banner(saved)
    assert "&lt;script&gt;alert(1)&lt;/script&gt;" in banner(saved)
    assert saved["metadata"]["papermill"]["exception"] is True


@pytest.mark.parametrize(
    ("deed", "says"),
    [
        ("os.kill(os.getpid(), signal.SIGKILL)", "SIGKILL"),
        ("os._exit(0)", "status 0"),
        ("import ctypes; ctypes.string_at(0)", "SIGSEGV"),
    ],
)
def test_a_kernel_that_dies_is_seen_at_once(out, tmp_path, deed, says):
    """Its cell is failed, not completed; what it put out before stands; the sentence says how it died."""
    print_first = "import os, signal, time\nprint('before', flush=True)\ntime.sleep(.3)"
    began = time.monotonic()
    result, saved = run(tmp_path, f"{print_first}\n{deed}", "print('after')")
    assert time.monotonic() - began < 15
    assert states(saved) == ["completed", "failed", "pending"]
    assert printed(saved) == "before\n"
    assert result["status"] == "failed"
    assert "kernel" in result["reasons"][0]
    assert says in result["reasons"][0]
    assert says in banner(saved)


def test_out_of_memory_is_an_error_like_any_other(out, tmp_path):
    """A cell that asks for more than there may be fails by MemoryError, and says so."""
    limit = "import resource\nresource.setrlimit(resource.RLIMIT_AS, (4 * 2**30, 4 * 2**30))"
    result, saved = run(tmp_path, limit, "b = bytearray(2**40)")
    assert states(saved) == ["completed", "completed", "failed"]
    assert result["reasons"][0].startswith("MemoryError")


@pytest.mark.parametrize(
    ("limits", "state", "says"),
    [
        (Limits(cell_seconds=1, grace_seconds=1), "failed", "Code cell 2 ran longer than 1 s"),
        (Limits(notebook_seconds=2, grace_seconds=1), "interrupted", "The notebook ran longer than 2 s"),
    ],
)
@pytest.mark.parametrize("stubborn", [False, True])
def test_no_cell_runs_for_ever(out, tmp_path, limits, state, says, stubborn):
    """A limit interrupts the cell, ends a kernel that does not heed it, and keeps what was put out."""
    deaf = "import signal; signal.signal(signal.SIGINT, signal.SIG_IGN)" if stubborn else "import time"
    result, saved = run(
        tmp_path, f"{deaf}\nimport time\nprint('x', flush=True)\ntime.sleep(60)", limits=limits
    )
    assert states(saved) == ["completed", state]
    assert printed(saved) == "x\n"
    assert (result["status"], result["outcome"]) == ("failed", "error")
    assert says in result["reasons"][0]
    errors = [output for cell in saved["cells"] for output in cell.get("outputs", []) if "ename" in output]
    assert [each["ename"] for each in errors] == ([] if stubborn else ["KeyboardInterrupt"])


def test_a_cell_may_end_the_run_itself(out, tmp_path):
    """`sys.exit()` is no failure: the run has succeeded, and what did not run is marked so."""
    result, saved = run(tmp_path, "import sys; sys.exit()", "print('after')")
    assert states(saved) == ["completed", "completed", "pending"]
    assert (result["status"], result["outcome"]) == ("succeeded", "inconclusive")
    assert "ended itself" in banner(saved)


def test_an_exit_status_other_than_zero_is_a_failure(out, tmp_path):
    """`sys.exit(3)` fails the run."""
    result, saved = run(tmp_path, "import sys; sys.exit(3)")
    assert (result["status"], states(saved)) == ("failed", ["completed", "failed"])
    assert result["reasons"] == ["SystemExit: 3"]


@pytest.mark.parametrize("how", ["exit()", "quit()", "quit", "exit(0)"])
def test_exit_and_quit_end_the_run_after_their_cell(out, tmp_path, how):
    """IPython's `exit` ends the run as `sys.exit` does, always, once its cell has come to its end."""
    result, saved = run(tmp_path, f"{how}\nprint('same cell')" if "(" in how else how, "print('after')")
    assert states(saved) == ["completed", "completed", "pending"]
    assert printed(saved) == ("same cell\n" if "(" in how else "")
    assert (result["status"], result["outcome"]) == ("succeeded", "inconclusive")
    assert "A cell ended the run by exit()." in banner(saved)
    assert "This run ended itself after 2 of 3 code cells; 1 did not run." in banner(saved)


def test_exit_with_a_status_fails_the_run(out, tmp_path):
    """`exit(3)` is a failure, as `sys.exit(3)` is."""
    result, saved = run(tmp_path, "exit(3)", "print('after')")
    assert (result["status"], states(saved)) == ("failed", ["completed", "failed", "pending"])
    assert result["reasons"] == ["SystemExit: 3"]


def test_a_cell_that_may_fail_does_not_end_the_run(out, tmp_path):
    """A cell tagged `raises-exception` is completed with its error shown."""
    path = own_notebook(tmp_path, START, "1 / 0", "print('after')")
    notebook = nbformat.read(path, as_version=4)
    notebook.cells[1].metadata["tags"] = ["raises-exception"]
    nbformat.write(notebook, path)
    done = run_notebook(str(path), {})
    saved = strict(done.folder / "notebook.ipynb")
    assert (done["status"], states(saved), printed(saved)) == ("succeeded", ["completed"] * 3, "after\n")


def test_a_kernel_that_cannot_start_is_a_failure_with_a_record(out, tmp_path):
    """A kernel that this machine does not have fails the run before its first cell."""
    path = own_notebook(tmp_path, START, "print(1)")
    notebook = nbformat.read(path, as_version=4)
    notebook.metadata["kernelspec"]["name"] = "no-such-kernel"
    nbformat.write(notebook, path)
    done = run_notebook(str(path), {})
    saved = strict(done.folder / "notebook.ipynb")
    assert (done["status"], states(saved)) == ("failed", ["pending", "pending"])
    assert "no-such-kernel" in done["reasons"][0]


# Signals to the runner

WAITS = "import os, time\nprint(os.getpid(), flush=True)\nfor _ in range(600): time.sleep(.1)"
# PyDLL holds the GIL
IN_C = "import ctypes, os, time\nprint(os.getpid(), flush=True)\ntime.sleep(.3)\nctypes.PyDLL(None).sleep(60)"
CHILD = "import subprocess\nchild = subprocess.Popen(['sleep', '300'])\nprint(child.pid, flush=True)"


def started(tmp_path, *cells):
    """`prodkit run` of these cells in a process of its own, once its last cell runs; process, folder, kernel's pid."""
    path = own_notebook(tmp_path, START, *cells)
    code = "from prodkit.cli import main; import sys; sys.argv[0] = 'prodkit'; main()"
    call = [sys.executable, "-c", code, "run", str(path), "--out", str(tmp_path / "out")]
    process = subprocess.Popen(call, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)

    def running():
        assert process.poll() is None, process.communicate()
        saved = [strict(each) for each in tmp_path.glob("out/runs/*/notebook.ipynb")]
        return [
            each
            for each in saved
            if states(each)[-1] == "running" and len(printed(each).split()) >= len(cells)
        ]

    saved = until(running)[0]
    return process, next(tmp_path.glob("out/runs/*")), [int(pid) for pid in printed(saved).split()]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
@pytest.mark.parametrize("cell", [WAITS, IN_C], ids=["python", "C"])
def test_a_signal_interrupts_saves_and_ends_the_group(tmp_path, number, cell):
    """The exit status is 128 + its number, the record agrees, and neither kernel nor its children live on."""
    process, folder, pids = started(tmp_path, CHILD, cell)
    assert all(map(alive, pids))
    process.send_signal(number)
    _, said = process.communicate(timeout=30)
    assert process.returncode == 128 + number
    assert f"The runner received {signal.Signals(number).name}" in said
    assert all(map(gone, pids))
    result, saved = strict(folder / "result.json"), strict(folder / "notebook.ipynb")
    assert (result["status"], result["outcome"]) == ("interrupted", "error")
    assert states(saved) == ["completed", "completed", "interrupted"]
    assert "was interrupted" in banner(saved)
    assert [int(pid) for pid in printed(saved).split()] == pids
    page = (folder / "report.html").read_text()
    assert page.count("This run was interrupted after 2 of 3 code cells.") == 1
    assert "<summary>code: interrupted</summary>" in page
    assert sorted(each.name for each in folder.iterdir()) == ["notebook.ipynb", "report.html", "result.json"]


def test_a_runner_that_is_killed_is_marked_at_the_next_start(tmp_path, monkeypatch):
    """SIGKILL leaves a notebook that says `running`; its kernel ends; the next start marks what was left."""
    process, folder, pids = started(tmp_path, "print(1)", WAITS)
    process.kill()
    process.communicate()
    assert gone(pids[-1], seconds=10)
    assert strict(folder / "result.json")["status"] == "running"
    assert states(strict(folder / "notebook.ipynb"))[-1] == "running"
    monkeypatch.chdir(PROJECT)
    told = []
    with using_outputs(tmp_path / "out"):
        other = run_notebook(str(own_notebook(tmp_path, START, name="other")), {}, tell=told.append)
    assert told == [f"{folder.name} was interrupted: its runner was killed"]
    result, saved = strict(folder / "result.json"), strict(folder / "notebook.ipynb")
    assert (result["status"], other["status"]) == ("interrupted", "succeeded")
    assert states(saved) == ["completed", "completed", "interrupted"]
    assert "was interrupted" in banner(saved)
    assert printed(saved).split()[-1] == str(pids[-1])
    assert sorted(each.name for each in folder.iterdir()) == ["notebook.ipynb", "report.html", "result.json"]


def test_what_a_long_cell_says_is_saved_while_it_runs(tmp_path):
    """Two seconds after a line was printed it is in the file, which is whole whenever it is read."""
    process, folder, _ = started(tmp_path, WAITS.replace("time.sleep(.1)", "time.sleep(.1); print(_)"))
    try:
        before = printed(strict(folder / "notebook.ipynb"))
        end = time.monotonic() + 5
        while (now := printed(strict(folder / "notebook.ipynb"))) == before:
            assert time.monotonic() < end
            time.sleep(0.01)
        assert now.startswith(before)
    finally:
        process.terminate()
        process.communicate()


# Two runners


def test_two_runners_of_the_same_work_do_it_once(tmp_path):
    """The second waits, says for whom, and gives the result of the first."""
    path = own_notebook(
        tmp_path, START, f"open({str(tmp_path / 'done')!r}, 'a').write('x')\nimport time; time.sleep(3)"
    )
    code = "from prodkit.cli import main; import sys; sys.argv[0] = 'prodkit'; main()"
    call = [sys.executable, "-c", code, "run", str(path), "--out", str(tmp_path / "out")]
    both = [subprocess.Popen(call, stderr=subprocess.PIPE, text=True) for _ in range(2)]
    said = [process.communicate(timeout=60)[1] for process in both]
    assert [process.returncode for process in both] == [0, 0]
    assert (tmp_path / "done").read_text() == "x"
    waited = [text for text in said if "waiting for it" in text]
    assert len(waited) == 1
    assert f"process {both[1 - said.index(waited[0])].pid} on" in waited[0]
    assert "done before" in waited[0]


# A full disk


@pytest.fixture
def small_disk(tmp_path):
    """A file system of 6 MB."""
    place = tmp_path / "small"
    place.mkdir()
    if subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=6m", "tmpfs", place], capture_output=True
    ).returncode:
        pytest.skip("only root can mount a small file system")
    yield place
    subprocess.run(["umount", "-l", place], check=True)


def test_a_full_disk_loses_nothing_that_was_saved(small_disk, tmp_path, monkeypatch):
    """The run stops and says why; its notebook is valid, marked, and holds what was put out up to then."""
    monkeypatch.chdir(PROJECT)
    path = own_notebook(
        tmp_path,
        START,
        "print('before')",
        f"import time\nfile = open({str(small_disk / 'other')!r}, 'wb')\n"
        "for n in range(600):\n"
        "    print(n, flush=True); time.sleep(.05)\n"
        "    try: file.write(b'x' * 2**16); file.flush()\n"
        "    except OSError: pass",
        "print('after')",
    )
    with using_outputs(small_disk / "out"):
        done = run_notebook(str(path), {}, limits=SHORT)
    result, saved = strict(done.folder / "result.json"), strict(done.folder / "notebook.ipynb")
    assert (result["status"], result["outcome"]) == ("failed", "error")
    assert "No space is left" in result["reasons"][0]
    assert states(saved) == ["completed", "completed", "interrupted", "pending"]
    lines = printed(saved).split()
    assert lines[0] == "before"
    assert lines[1:] == [str(n) for n in range(len(lines) - 1)]
    assert len(lines) > 20
    assert "No space is left" in banner(saved)


# What is saved


def test_numbers_that_json_does_not_know_become_text(out, tmp_path):
    """NaN and Infinity in an output or a parameter leave a file that strict readers can read."""
    shows = (
        "from IPython.display import display\ndisplay({'application/json': {'a': float('nan')}}, raw=True)"
    )
    _, saved = run(tmp_path, shows)
    data = [
        output["data"] for cell in saved["cells"] for output in cell.get("outputs", []) if "data" in output
    ]
    assert [str(each["application/json"]["a"]).lower() for each in data] == ["nan"]


def test_half_a_character_does_not_lose_the_notebook():
    """A lone surrogate, which UTF-8 cannot hold, is replaced."""
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_markdown_cell("a\ud800b")])
    assert json.loads(notebook_text(notebook))["cells"][0]["source"] == ["a?b"]


def test_output_widgets_do_not_hang_it(out, tmp_path):
    """Interactive cells whose widgets send on the socket that is polled come to their end."""
    cell = "from ipywidgets import interact\nfor n in range(4): interact(lambda x: print(x), x=(0, 9))"
    result, _ = run(tmp_path, cell, cell, limits=Limits(cell_seconds=20))
    assert result["status"] == "succeeded"


# Secrets

LEAKS = """
import os, sys, logging, json
from IPython.display import HTML, Markdown, display
from prodkit.settings import expand
secret = expand(token)
print(secret); print(repr(secret), file=sys.stderr)
for n in range(len(secret)): print(secret[n], end="", flush=True)
display(HTML(f"<b title='{secret}'>x</b>"), Markdown(secret), {"application/json": {secret: [secret]}}, raw=False)
os.write(1, secret.encode() + b"\\n"); os.write(2, secret.encode() + b"\\n")
os.system(f"echo {secret}; echo {secret} >&2")
logging.getLogger().warning(secret)
get_ipython().display_pub.publish({
    "application/vnd.prodkit.result+json": {"outcome": "pass", "outputs": {"said": secret}}, "text/plain": "x"})
"""


@pytest.mark.parametrize("end", ["", "raise ValueError(secret)", "sys.exit(secret)", "{}[secret]"])
def test_a_secret_is_written_nowhere(tmp_path, end):
    """Whatever a notebook does with it, no file under the outputs, nothing that is printed and no row holds it."""
    canary = "hunter2-Canary/secret"
    path = own_notebook(tmp_path, 'token = "${PRODKIT_CANARY}"', LEAKS + end)
    code = "from prodkit.cli import main; import sys; sys.argv[0] = 'prodkit'; main()"
    call = [sys.executable, "-c", code, "run", str(path), "--out", str(tmp_path / "out"), "--json"]
    environment = {**os.environ, "PRODKIT_CANARY": canary}
    done = subprocess.run(call, env=environment, capture_output=True, text=True, timeout=120)
    assert done.returncode == (1 if end else 0), done.stderr
    (result,) = [strict(each) for each in tmp_path.glob("out/runs/*/result.json")]
    assert json.loads(done.stdout) == result
    assert (result["outputs"] == {"said": "${PRODKIT_CANARY}"}) == (not end)
    assert "${PRODKIT_CANARY}" in done.stderr  # what its process wrote came through, without the secret
    written = {each: each.read_bytes() for each in (tmp_path / "out").rglob("*") if each.is_file()}
    assert {"notebook.ipynb", "report.html", "result.json", "store.db"} <= {each.name for each in written}
    for part in (canary, canary.replace("/", "%2F"), canary.replace("/", "\\/")):
        assert part not in done.stdout + done.stderr
        assert [each for each, text in written.items() if part.encode() in text] == []


def test_plain_papermill_hides_secrets_too(tmp_path):
    """The engine reads the references from the parameters, injected or not; papermill's log is covered."""
    path = own_notebook(tmp_path, 'token = ""', LEAKS + "{}[secret]")
    call = [sys.executable, "-m", "papermill", "--engine", "prodkit", "--log-output", str(path)]
    call += [str(tmp_path / "executed.ipynb"), "-p", "token", "${PRODKIT_CANARY}"]
    environment = {**os.environ, "PRODKIT_CANARY": "hunter2-Canary"}
    done = subprocess.run(call, env=environment, capture_output=True, text=True, timeout=120)
    assert done.returncode == 1
    assert "${PRODKIT_CANARY}" in done.stderr
    assert "hunter2-Canary" not in done.stdout + done.stderr + (tmp_path / "executed.ipynb").read_text()


# Plain papermill


def papermill_command(tmp_path, *cells, limit="60", cwd=None):
    """`papermill --engine prodkit` of these cells."""
    path = own_notebook(tmp_path, START, *cells)
    call = [sys.executable, "-m", "papermill", "--engine", "prodkit", "--no-progress-bar"]
    call += ["--execution-timeout", limit, str(path), str(tmp_path / "executed.ipynb"), "-p", "a", "2"]
    return subprocess.run(call, cwd=cwd, capture_output=True, text=True, timeout=120)


def test_plain_papermill_can_use_the_engine(tmp_path):
    """It is found by its name, injects parameters, and leaves the same notebook."""
    done = papermill_command(tmp_path, "print(a)")
    assert done.returncode == 0, done.stderr
    saved = strict(tmp_path / "executed.ipynb")
    assert (printed(saved), states(saved)) == ("2\n", ["completed", "completed"])


def executed(tmp_path, target, *cells, **settings):
    """Papermill's own function, with the engine; the cells follow the parameters."""
    path = own_notebook(tmp_path, START, *cells)
    return papermill.execute_notebook(path, target, engine_name="prodkit", progress_bar=False, **settings)


def test_an_output_that_is_no_file_is_written_through(tmp_path):
    """A pipe, as a device, receives the notebook and stays what it is; a symbolic link leads to the file."""
    pipe, real, link = tmp_path / "pipe.ipynb", tmp_path / "real" / "mine.ipynb", tmp_path / "link.ipynb"
    os.mkfifo(pipe)
    real.parent.mkdir()
    link.symlink_to(real)
    with subprocess.Popen(["cat", str(pipe)], stdout=subprocess.PIPE, text=True) as reader:
        executed(tmp_path, pipe, "print(7)")
        assert printed(json.loads(reader.communicate(timeout=30)[0])) == "7\n"
    assert pipe.is_fifo()
    with subprocess.Popen(["cat", str(pipe)], stdout=subprocess.PIPE, text=True) as reader:
        with pytest.raises(StoppedError, match="division"):
            executed(tmp_path, pipe, "1 / 0")
        assert states(json.loads(reader.communicate(timeout=30)[0])) == ["completed", "failed"]
    executed(tmp_path, link, "print(8)")
    assert link.is_symlink()
    assert printed(strict(real)) == "8\n"


def test_one_process_may_execute_many_notebooks(tmp_path):
    """A second execution reads what the first has written, and none leaves anything in papermill, failed or not."""
    first, second = tmp_path / "first.ipynb", tmp_path / "first.ipynb.second.ipynb"
    before = [papermill.iorw.papermill_io.get_handler(str(each)) for each in (first, second)]
    executed(tmp_path, first, "print(a)")
    papermill.execute_notebook(first, second, parameters={"a": 5}, engine_name="prodkit", progress_bar=False)
    assert (printed(strict(first)), printed(strict(second))) == ("1\n", "5\n")
    with pytest.raises(StoppedError, match="division"):
        executed(tmp_path, first, "1 / 0")
    assert before == [papermill.iorw.papermill_io.get_handler(str(each)) for each in (first, second)]


def test_the_output_lies_where_papermill_puts_it(tmp_path, monkeypatch):
    """A relative output is relative to where papermill was called, whatever working folder the notebook is given."""
    (tmp_path / "there").mkdir()
    monkeypatch.chdir(tmp_path)
    for engine in (None, "prodkit"):
        settings = {"engine_name": engine, "cwd": "there", "progress_bar": False}
        source = own_notebook(tmp_path, START, "import os; print(os.getcwd())")
        papermill.execute_notebook(source, f"{engine}.ipynb", **settings)
        assert printed(strict(tmp_path / f"{engine}.ipynb")) == f"{tmp_path / 'there'}\n"
    assert list((tmp_path / "there").iterdir()) == []


def test_plain_papermill_tells_the_truth_about_a_dead_kernel(tmp_path):
    """Where papermill's own engine marks every cell completed, this one does not; the exit status is not 0."""
    done = papermill_command(tmp_path, "import os, time; time.sleep(.3); os._exit(0)", "print('after')")
    assert done.returncode != 0
    saved = strict(tmp_path / "executed.ipynb")
    assert states(saved) == ["completed", "failed", "pending"]
    assert "kernel" in banner(saved)


def test_a_notebook_that_was_marked_can_be_run_again(out, tmp_path):
    """The banner of a failed run is gone when its notebook is run once more."""
    order = Order(tmp_path / "first.ipynb")
    path = own_notebook(tmp_path, START, "1 / (a - 1)")
    with pytest.raises(StoppedError, match="ZeroDivisionError") as stopped:
        execute(path, {"a": 1}, order)
    assert stopped.value.stop == Stop("failed", "failed", "ZeroDivisionError: division by zero")
    assert "This run failed" in banner(strict(order.path))
    execute(order.path, {"a": 2}, Order(tmp_path / "second.ipynb"))
    saved = strict(tmp_path / "second.ipynb")
    assert states(saved) == ["completed", "completed"]
    assert "This run failed" not in json.dumps(saved)


def test_a_notebook_that_names_no_kernel_runs_in_python(out, tmp_path):
    """A notebook that no Jupyter has saved yet has no kernelspec; it is taken for Python, as Jupyter would."""
    path = own_notebook(tmp_path, START, "print(a)")
    bare = json.loads(path.read_text()) | {"metadata": {}}
    path.write_text(json.dumps(bare))
    done = run_notebook(str(path), {"a": 2})
    assert (done["status"], printed(strict(done.folder / "notebook.ipynb"))) == ("succeeded", "2\n")


def test_braces_in_a_path_are_braces(out, tmp_path):
    """A folder named like a placeholder is found."""
    folder = tmp_path / "{a}"
    folder.mkdir()
    done = run_notebook(str(own_notebook(folder, START, "print(a)")), {"a": 5})
    assert printed(strict(done.folder / "notebook.ipynb")) == "5\n"


def test_the_kernel_works_in_the_folder_of_its_notebook(out, tmp_path):
    """So that a path that works in JupyterLab works in a run; the runner's own folder is not changed."""
    here = os.getcwd()
    _, saved = run(tmp_path, "import os; print(os.getcwd())")
    assert printed(saved).strip() == str(tmp_path)
    assert os.getcwd() == here
