"""Secrets by reference, end to end: a notebook that shouts its secret leaves it nowhere."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from canary import CANARY, NAME, canary_notebook, places_with_the_canary
from tables import PROJECT

from prodkit.settings import resolve


def run(path: Path, out: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """`prodkit run` as a process of its own, with the secret in its environment."""
    command = [
        sys.executable,
        "-c",
        "from prodkit.cli import main; main()",
        "run",
        str(path),
        "--out",
        str(out),
        *arguments,
    ]
    environment = os.environ | {NAME: CANARY, "SHOP_PIN": "1234"}
    return subprocess.run(
        [*command, *arguments], capture_output=True, text=True, check=False, env=environment, cwd=PROJECT
    )


@pytest.mark.parametrize("fails", [False, True])
def test_the_secret_is_found_nowhere(tmp_path, fails):
    """Neither in a file under outputs/, in the store, nor on stdout or stderr; its name stands there instead."""
    out, path = tmp_path / "out", canary_notebook(tmp_path, fails=fails)
    done = run(path, out, "--json")
    assert done.returncode == (1 if fails else 0), done.stderr
    assert places_with_the_canary(out, done.stdout, done.stderr) == []
    result = json.loads(done.stdout)
    assert f"${{{NAME}}}" in result["reasons"][0]
    notebook = (out / "runs" / result["run_id"] / "notebook.ipynb").read_text()
    assert notebook.count(f"${{{NAME}}}") > 15
    assert f"process: ${{{NAME}}}" in done.stderr
    assert (out / "store.db").exists()
    assert "${" in (out / "runs" / result["run_id"] / "report.html").read_text()


def test_the_search_finds_what_is_there(tmp_path):
    """The canary is seen in a text, in a file, in a database, in an archive, in a name, and in what was printed."""
    import sqlite3
    import zipfile
    import zlib

    (tmp_path / "a.json").write_text(json.dumps([CANARY]))
    (tmp_path / "b.joblib").write_bytes(zlib.compress(CANARY.encode() * 9))
    with zipfile.ZipFile(tmp_path / "c.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("x", CANARY * 9)
    database = sqlite3.connect(tmp_path / "d.db")
    database.execute("CREATE TABLE t (a)")
    database.execute("INSERT INTO t VALUES (?)", ("x" * 4090 + CANARY + "x" * 5000,))
    database.commit()
    database.close()
    (tmp_path / "clean").write_text("nothing")
    assert places_with_the_canary(tmp_path, "nothing", f"<{CANARY}>") == [
        "text 1",
        "a.json",
        "b.joblib",
        "c.zip",
        "d.db",
    ]


def test_a_secret_that_is_too_short_is_said(tmp_path):
    """Four digits are no secret that could be hidden; the run says so and goes on."""
    path = canary_notebook(tmp_path)
    done = run(path, tmp_path / "out", "-p", "other", "['${SHOP_PIN}']")
    assert done.returncode == 0
    assert (
        "${SHOP_PIN} has fewer than 6 characters: too short to be kept out of what is written" in done.stderr
    )


def test_a_secret_that_is_not_set_is_an_error(tmp_path):
    """The reference is read at the moment of use; where nothing is set, the notebook fails with what to do."""
    path = canary_notebook(tmp_path)
    done = run(path, tmp_path / "out", "-p", "url", "${SHOP_NOT_SET}", "--json")
    assert done.returncode == 1
    assert "${SHOP_NOT_SET} must be set in the environment" in json.loads(done.stdout)["reasons"][0]
    assert resolve("x${HOME}") != "x${HOME}"
