"""A notebook over many windows: which windows, one run each, and what happens when one is bad."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from datetime import datetime, timedelta
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tables import PROJECT, Command, own_notebook, prodkit

from prodkit.errors import ParameterError
from prodkit.runs.backfill import backfilled, windows_between
from prodkit.settings import outputs_folder, outputs_in, using_outputs

__all__ = ["prodkit"]  # a fixture

SPAN = "2024-01-01/2024-01-06/D"
DAYS = [f"2024-01-0{day}/2024-01-0{day + 1}" for day in range(1, 6)]


@pytest.fixture(autouse=True)
def out(tmp_path, monkeypatch):
    """A folder for results."""
    monkeypatch.chdir(PROJECT)
    with using_outputs(tmp_path / "out"):
        yield tmp_path / "out"


def notebook(folder, *cells):
    """A notebook that takes a window."""
    return str(own_notebook(folder, 'window = "2024-01-01/2024-01-02"', *cells))


def fill(path, windows=SPAN, **settings):
    """What came of each window, by window."""
    found = backfilled(path, {}, windows_between(windows), **settings)
    return dict(sorted((each.window, each) for each in found))


# Windows


@given(
    st.datetimes(datetime(2000, 1, 1), datetime(2030, 1, 1)).map(lambda at: at.replace(microsecond=0)),
    st.integers(1, 40),
    st.sampled_from([("D", timedelta(days=1)), ("7D", timedelta(days=7)), ("6h", timedelta(hours=6))]),
)
def test_windows_tile_the_span(start, count, unit):
    """They begin at START, end at END, and leave neither gap nor overlap."""
    name, length = unit
    windows = windows_between(f"{start.isoformat()}/{(start + count * length).isoformat()}/{name}")
    assert len(windows) == count
    assert (windows[0].start, windows[-1].end) == (start, start + count * length)
    assert all(before.end == after.start for before, after in pairwise(windows))


def test_months_are_whole_months():
    """MS cuts at the first of each month, whatever its length."""
    windows = windows_between("2013-04-01/2014-01-01/MS")
    assert [window.start.month for window in windows] == list(range(4, 13))
    assert all(window.end.day == 1 for window in windows)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("2024-01-01/2024-02-01", "must be START/END/FREQ"),
        ("2024-01-01//MS", "must be START/END/FREQ"),
        ("soon/2024-02-01/MS", "must have ISO dates"),
        ("2024-01-01T00:00+01:00/2024-02-01/MS", "must have ISO dates without a time zone"),
        ("2024-02-01/2024-01-01/MS", "must have START before END"),
        ("2024-01-01/2024-02-01/fortnight", r"must end in a length.*Use a pandas offset"),
        ("2024-01-15/2024-03-01/MS", r"must have START where a window of MS begins.*One is 2024-02-01"),
        ("2024-01-01/2024-03-15/MS", r"must have END where a window of MS begins.*One is 2024-03-01"),
        ("2000-01-01/2024-01-01/min", "must hold 1 to 10,000 windows"),
    ],
)
def test_windows_of_another_form_are_refused(text, message):
    """A part of a month is not quietly taken for a month; each error says what would do."""
    with pytest.raises(ParameterError, match=f"(?s)--windows {message}"):
        windows_between(text)


# Runs


def test_each_window_has_a_run_and_a_bad_one_stops_no_other(tmp_path):
    """Four days succeed, one fails with its reason; told again, only that one is tried again."""
    bad = f"if '{DAYS[2]}' == window: raise ValueError('a bad day')"
    path = notebook(tmp_path, f"{bad}\nopen({str(tmp_path / 'done')!r}, 'a').write(window + '\\n')")
    found = fill(path, jobs=2)
    assert list(found) == DAYS
    assert [each.status for each in found.values()] == ["succeeded"] * 2 + ["failed"] + ["succeeded"] * 2
    assert found[DAYS[2]].reason == "ValueError: a bad day"
    assert len({each.run_id for each in found.values()}) == 5
    again = fill(path)
    assert [each.repeated for each in again.values()] == [True, True, False, True, True]
    assert again[DAYS[2]].run_id == f"{found[DAYS[2]].run_id}-2"
    assert sorted((tmp_path / "done").read_text().split()) == [day for day in DAYS if day != DAYS[2]]


def test_a_kernel_that_dies_costs_one_window(tmp_path):
    """Its window has failed; the others are done."""
    path = notebook(tmp_path, f"import os\nif window == '{DAYS[0]}': os._exit(3)")
    found = fill(path, "2024-01-01/2024-01-04/D", jobs=2)
    assert [each.sound for each in found.values()] == [False, True, True]
    assert "status 3" in found[DAYS[0]].reason


def test_the_command_lists_what_failed_and_ends_with_1(prodkit: Command, out, tmp_path):
    """The table has a row a window; failures are named on stderr with the reason; then all is done, it ends with 0."""
    switch = tmp_path / "bad"
    switch.touch()
    test = (
        f"import os\nif window == '{DAYS[1]}' and os.path.exists({str(switch)!r}): raise OSError('no feed')"
    )
    call = ("backfill", notebook(tmp_path, test), "--windows", "2024-01-01/2024-01-04/D", "--out", out)
    status, printed, told = prodkit(*call)
    assert status == 1
    assert f"{DAYS[1]}: failed: OSError: no feed" in told
    assert "1 of 3 windows failed; the same command tries them again." in told
    assert [printed.count(day) for day in DAYS[:3]] == [1, 1, 1]
    switch.unlink()
    assert prodkit(*call)[0] == 0


def test_what_moves_the_champion_is_not_done_side_by_side(prodkit: Command, out):
    """Windows of rollback have an order; several at a time are refused before anything runs."""
    call = ("backfill", "rollback", "--windows", "2013-04-01/2013-06-01/MS", "--out", out)
    for option in (("--jobs", 2), ("--dask", "tcp://127.0.0.1:1")):
        status, _, told = prodkit(*call, *option)
        assert status == 2
        assert "rollback moves the champion" in told


def test_why_a_window_failed_is_told_without_secrets(prodkit: Command, out, monkeypatch):
    """The name of the variable stands where its value was, also in the list of what failed."""
    monkeypatch.setenv("SHOP_PASSWORD", "swordfish-99")
    (out.parent / "swordfish-99").mkdir()
    (out.parent / "swordfish-99" / "store.db").write_text(
        "no database at all, but long enough to look like one"
    )
    status, _, told = prodkit(
        *("backfill", "drift", "--windows", "2013-04-01/2013-05-01/MS", "--out", out),
        *("-p", "store", f"sqlite:///{out.parent}/${{SHOP_PASSWORD}}/store.db"),
    )
    assert status == 1
    assert "${SHOP_PASSWORD}" in told
    assert "swordfish" not in told


def test_a_notebook_without_a_window_is_refused(tmp_path):
    """Only what takes a window can be run over windows."""
    with pytest.raises(ParameterError, match="must have a parameter `window`"):
        backfilled(str(own_notebook(tmp_path, "a = 1")), {}, windows_between(SPAN))


def test_a_signal_ends_it_and_the_same_command_goes_on(out, tmp_path):
    """SIGTERM: windows under way are recorded as interrupted, the rest is not begun, the exit status is 143."""
    slow = f"import os, time\nwhile not os.path.exists({str(tmp_path / 'go')!r}): time.sleep(.05)"
    path = notebook(tmp_path, slow)
    code = "from prodkit.cli import main; import sys; sys.argv[0] = 'prodkit'; main()"
    words = ["backfill", path, "--windows", SPAN, "--jobs", "2", "--out", str(out)]
    process = subprocess.Popen([sys.executable, "-c", code, *words], stderr=subprocess.PIPE, text=True)
    end = time.monotonic() + 30
    while len(list(out.glob("runs/mine-*/notebook.ipynb"))) < 2:
        assert time.monotonic() < end
        time.sleep(0.05)
    time.sleep(1)
    os.kill(process.pid, signal.SIGTERM)
    _, told = process.communicate(timeout=30)
    assert process.returncode == 128 + signal.SIGTERM, told
    assert told.count("not run") >= 3
    assert len(list(out.glob("runs/*/result.json"))) == 2
    (tmp_path / "go").touch()
    assert all(each.sound for each in fill(path, jobs=2).values())


# A cluster


def test_a_dask_cluster_of_separate_processes_does_the_same(out, tmp_path):
    """Each run is made by a worker, leaves its folder where all are, and a bad window stops no other."""
    distributed = pytest.importorskip("distributed", reason="needs the extra [dask]")
    bad = f"if '{DAYS[2]}' == window: raise ValueError('a bad day')"
    path = notebook(tmp_path, bad)
    settings = {"processes": True, "threads_per_worker": 1, "dashboard_address": None}
    with distributed.LocalCluster(n_workers=2, **settings) as cluster:
        pids = {worker.pid for worker in cluster.workers.values()}
        found = fill(path, dask=cluster.scheduler_address)
    assert os.getpid() not in pids
    assert [each.sound for each in found.values()] == [True, True, False, True, True]
    assert found[DAYS[2]].reason == "ValueError: a bad day"
    assert sorted(folder.name for folder in (out / "runs").iterdir()) == sorted(
        e.run_id for e in found.values()
    )


def test_a_cluster_that_does_not_answer_is_a_wrong_call(tmp_path, monkeypatch):
    """An address at which nobody listens is refused with what to do."""
    pytest.importorskip("distributed", reason="needs the extra [dask]")
    monkeypatch.setattr("prodkit.runs.backfill._ANSWER_SECONDS", 0.5)
    with pytest.raises(ParameterError, match=r"(?s)--dask must be a scheduler that answers.*Start one"):
        fill(notebook(tmp_path), dask="tcp://127.0.0.1:9")


def test_threads_that_work_elsewhere_do_not_move_one_another(tmp_path):
    """Where a worker's thread puts its results is its own affair; the others, and the process, keep theirs."""
    inside, go_on = threading.Event(), threading.Event()
    found = {}

    def other():
        with outputs_in(tmp_path / "other"):
            inside.set()
            go_on.wait(10)
            found["other"] = outputs_folder()

    thread = threading.Thread(target=other)
    before = outputs_folder()
    thread.start()
    inside.wait(10)
    with outputs_in(tmp_path / "mine"):
        assert outputs_folder() == tmp_path / "mine"
    assert outputs_folder() == before
    go_on.set()
    thread.join()
    assert found["other"] == tmp_path / "other"
