"""Claims: a run's folder has one runner, dead or alive."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from prodkit.runs.claims import Claim, abandoned, claim

# claims the next attempt at some work, says which, and finishes it unless it is told to die
RUNNER = """
import json, os, sys
from pathlib import Path
from prodkit.runs.claims import Claim, claim
print("ready", flush=True)
sys.stdin.readline()
taken = None
while taken is None:
    taken = claim("work", Path(sys.argv[1]), waits=lambda sentence: None)
if isinstance(taken, Claim):
    if sys.argv[2] == "die":
        os.kill(os.getpid(), 9)
    (taken.folder / "result.json").write_text(json.dumps({"status": sys.argv[2]}))
    taken.release()
    print("did", taken.folder.name)
else:
    print("found", taken.name)
"""


def race(runs: Path, *fates: str) -> list[str]:
    """What each of so many processes has said that claim at the same moment."""
    call = [sys.executable, "-c", RUNNER, str(runs)]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    processes = [subprocess.Popen([*call, fate], **pipes) for fate in fates]
    for process in processes:
        process.stdout.readline()
    for process in processes:
        process.stdin.write("go\n")
        process.stdin.flush()
    return [process.communicate(timeout=60)[0].strip() for process in processes]


def finished(taken: Claim, status: str = "succeeded") -> None:
    """Leave a result and let go."""
    (taken.folder / "result.json").write_text(json.dumps({"status": status}))
    taken.release()


def test_of_many_runners_one_does_the_work(tmp_path):
    """Eight processes that start at once: one does it, the others wait and find its folder."""
    said = race(tmp_path / "runs", *["succeeded"] * 8)
    assert sorted(said) == ["did work"] + ["found work"] * 7
    assert [entry.name for entry in os.scandir(tmp_path / "runs")] == ["work"]


def test_work_that_fails_is_tried_by_each_that_wants_it(tmp_path):
    """Each waits for the one before it, and has an attempt of its own; no two share a folder."""
    said = race(tmp_path / "runs", *["failed"] * 4)
    assert sorted(said) == ["did work", "did work-2", "did work-3", "did work-4"]


def test_a_runner_that_dies_lets_the_next_one_in(tmp_path):
    """Its folder stays beside the next attempt, and can be told to be abandoned."""
    assert race(tmp_path, "die") == [""]
    assert race(tmp_path, "succeeded") == ["did work-2"]
    left = list(abandoned(tmp_path.glob("*")))
    assert [each.folder.name for each in left] == ["work"]
    left[0].release()
    assert list(abandoned(tmp_path.glob("*"))) == []


def test_whoever_is_alive_is_not_taken_for_dead(tmp_path):
    """A claim that is held is not abandoned, not even for another thread of the same process."""
    taken = claim("work", tmp_path)
    assert isinstance(taken, Claim)
    assert list(abandoned(tmp_path.glob("*"))) == []
    finished(taken)


def test_whoever_waits_is_told_for_whom_and_finds_the_result(tmp_path):
    """The sentence names process and machine; the wait ends with the work."""
    taken, told = claim("work", tmp_path), []
    timer = threading.Timer(0.5, finished, [taken])
    timer.start()
    assert claim("work", tmp_path, waits=told.append) == tmp_path / "work"
    timer.join()
    assert len(told) == 1
    assert f"work is being run by process {os.getpid()} on " in told[0]


def test_whoever_has_waited_for_a_failure_looks_anew(tmp_path):
    """What the other has changed before it failed is not known: the work may be another one now."""
    taken = claim("work", tmp_path)
    timer = threading.Timer(0.5, finished, [taken, "failed"])
    timer.start()
    assert claim("work", tmp_path, waits=lambda sentence: None) is None
    timer.join()
    again = claim("work", tmp_path)
    assert isinstance(again, Claim)
    assert again.folder.name == "work-2"
    again.release()


@pytest.mark.parametrize("text", ["", "{", "[]", "null"])
def test_a_result_that_cannot_be_read_is_none(tmp_path, text):
    """A folder whose result is damaged does not count as done."""
    taken = claim("work", tmp_path)
    (taken.folder / "result.json").write_text(text)
    taken.release()
    again = claim("work", tmp_path)
    assert isinstance(again, Claim)
    assert again.folder.name == "work-2"
    again.release()
