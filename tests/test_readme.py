"""README and help against the project: set-up, files, examples, units; `test_cli.py` has their `prodkit` commands."""

import ast
import re
import shutil
import subprocess
from pathlib import Path

import pytest
import yaml

from prodkit.params import NOTEBOOKS

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text()
TEXT = "\n".join([README, *(path.read_text() for path in sorted((ROOT / "prodkit" / "help").glob("*.md")))])
BLOCKS = [re.sub("(?m)^    ", "", block) for block in re.findall(r"(?m)(?:^    .*\n(?:\n(?=    ))?)+", TEXT)]
LINES = [line for block in BLOCKS for line in block.splitlines()]


def test_the_tests_of_the_project_are_run_by_the_command_of_the_readme():
    """What `.ci/run` does on a clean machine is the second of the two commands."""
    install, run = re.search(
        r"(?m)^    (python -m pip install -e \"\.\[demo,test\]\".*) && (pytest)$", TEXT
    ).groups()
    lines = (ROOT / ".ci" / "run").read_text().replace(" --quiet", "").splitlines()
    assert install in lines
    assert run in lines


def test_the_readme_is_short_and_leads_to_every_topic():
    """It has less than 7.5 kB, and all topics that are files are a command away."""
    assert len(README.encode()) < 7_500
    topics = {path.stem for path in (ROOT / "prodkit" / "help").glob("*.md")}
    assert topics == set(re.findall(r"`prodkit help (\w+)`", README)) - set(NOTEBOOKS)


def test_files_that_are_named_are_there():
    """Benchmarks, scripts, parameter files and the picture exist; the picture is small."""
    named = set(re.findall(r"(?:tests|notebooks)/[\w/.-]+\.(?:py|ipynb|png)", TEXT))
    assert "notebooks/story.png" in named
    assert [name for name in sorted(named) if not (ROOT / name).is_file()] == []
    assert (ROOT / "notebooks/story.png").stat().st_size < 150_000
    scripts = set(re.findall(r"`(\w+\.py)[ `]", TEXT))
    assert [name for name in sorted(scripts) if not (ROOT / "tests/benchmarks" / name).is_file()] == []


def test_the_file_for_ones_own_table_is_accepted():
    """The example's names and values are taken by every notebook."""
    (example,) = (block for block in BLOCKS if block.startswith("# my.yaml"))
    facts = yaml.safe_load(example.split("\n\n")[0])
    for model in NOTEBOOKS.values():
        assert str(model.check({**facts, "features": []}).target) == facts["target"]


def test_python_in_the_readme_is_python():
    """Blocks that import something, among them the one for Airflow, can be compiled."""
    blocks = [block for block in BLOCKS if "import " in block]
    assert len(blocks) >= 2
    for block in blocks:
        ast.parse(block)


def test_the_line_for_cron_has_five_fields():
    """Five fields, and then a command."""
    (line,) = (line for line in LINES if line.startswith("0 6 * * *"))
    assert re.fullmatch(r"(?:[\d*/,-]+ ){5} *cd \S+ && \S+/prodkit .+", line)


@pytest.mark.skipif(not shutil.which("systemd-analyze"), reason="no systemd on this machine")
def test_the_unit_is_one_that_systemd_takes(tmp_path):
    """`systemd-analyze verify` has nothing against the service and its timer."""
    (unit,) = (block for block in BLOCKS if block.startswith("[Service]"))
    program = tmp_path / ".venv" / "bin" / "prodkit"
    program.parent.mkdir(parents=True)
    program.write_text("#!/bin/sh\n")
    program.chmod(0o755)
    (tmp_path / "model.service").write_text(
        "[Unit]\nDescription=a model\n\n" + unit.replace("/srv/model", str(tmp_path))
    )
    (tmp_path / "model.timer").write_text("[Timer]\nOnCalendar=06:00\nPersistent=true\n")
    done = subprocess.run(
        ["systemd-analyze", "verify", *map(str, tmp_path.glob("model.*"))], capture_output=True, text=True
    )
    assert (done.returncode, done.stderr) == (0, "")
