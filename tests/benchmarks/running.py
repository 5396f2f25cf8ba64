"""What it costs to run notebooks: prodkit beside bare papermill and bare nbval, on the same notebooks, in one run.

python tests/benchmarks/running.py [one] [backfill] [nbval] [quarter] [lifecycle]

Without words, all of them. ``lifecycle`` takes about seven minutes on two cores, the others one to three each.
"""

from __future__ import annotations

import json
import os
import re
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

import nbformat

PROJECT = Path(__file__).parents[2]
PRODKIT = [sys.executable, "-c", "from prodkit.cli import main; import sys; sys.argv[0] = 'prodkit'; main()"]
PAPERMILL = [sys.executable, "-m", "papermill", "--no-progress-bar"]
IMPORTS = "import pandas, sklearn.ensemble, sklearn.pipeline, matplotlib.pyplot as plt"


def seconds(call: Sequence[object], **environment: str) -> float:
    """Wall time of a process that must succeed."""
    began = time.perf_counter()
    done = subprocess.run(
        [str(word) for word in call],
        cwd=PROJECT,
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
    )
    if done.returncode:
        raise SystemExit(f"{call} ended with {done.returncode}\n{done.stdout[-2000:]}\n{done.stderr[-2000:]}")
    return time.perf_counter() - began


def in_cells(notebooks: Iterable[Path]) -> list[tuple[float, float]]:
    """Start and end of each cell that ran, in seconds."""
    found = []
    for path in notebooks:
        for cell in json.loads(path.read_text())["cells"]:
            about = cell["metadata"].get("papermill", {})
            if cell["cell_type"] == "code" and about.get("end_time"):
                moments = (about["start_time"], about["end_time"])
                found.append(tuple(datetime.fromisoformat(moment).timestamp() for moment in moments))
    return found


def covered(spans: Iterable[tuple[float, float]]) -> float:
    """Seconds in which at least one cell ran: where notebooks run side by side, no second counts twice."""
    total, reached = 0.0, float("-inf")
    for start, end in sorted(spans):
        total += max(0.0, end - max(start, reached))
        reached = max(reached, end)
    return total


def row(name: str, ours: float, theirs: float, *, target: float, unit: str = "s") -> None:
    """A line of the table."""
    print(
        f"{name:58} {ours:8.2f} {unit} {theirs:8.2f} {unit}   {ours / theirs:5.2f}x   target {target:.2f}x",
        flush=True,
    )


def paired(count: int, ours: Callable[[int], float], theirs: Callable[[int], float]) -> tuple[float, float]:
    """Medians of so many runs of each, in turn."""
    both = [(ours(number), theirs(number)) for number in range(count)]
    return tuple(statistics.median(each) for each in zip(*both, strict=True))  # type: ignore[return-value]


def imports_notebook(folder: Path) -> Path:
    """A notebook that imports what notebooks import, and does next to nothing."""
    cells = [nbformat.v4.new_code_cell(source) for source in ("a = 0", IMPORTS, "plt.plot([a, 1])")]
    cells[0].metadata["tags"] = ["parameters"]
    kernel = {"kernelspec": {"name": "python3", "display_name": "Python 3", "language": "python"}}
    path = folder / "imports.ipynb"
    nbformat.write(nbformat.v4.new_notebook(cells=cells, metadata=kernel), path)
    return path


def one(folder: Path) -> None:
    """One run of a notebook, as a command."""
    source, out = imports_notebook(folder), folder / "one"
    run = [*PRODKIT, "run", source, "--out", out, "-p", "a"]
    ours, theirs = paired(
        7,
        lambda number: seconds([*run, number]),
        lambda number: seconds([*PAPERMILL, source, folder / "executed.ipynb", "-p", "a", number]),
    )
    row("one run", ours, theirs, target=1.0)
    results = [json.loads(path.read_text()) for path in out.glob("runs/*/result.json")]
    cells = [covered(in_cells([out / "runs" / each["run_id"] / "notebook.ipynb"])) for each in results]
    over = statistics.median(each["seconds"] - spent for each, spent in zip(results, cells, strict=True))
    print(
        f"  kernel, strictness, record and report, beyond the time inside cells: {over:.2f} s a run (target 0.50)"
    )


def backfill(folder: Path) -> None:
    """Nine windows, by one job and by two."""
    words = ["backfill", "drift", "--windows", "2013-04-01/2014-01-01/MS", "-p", "store", "demo"]
    walls = {
        jobs: seconds(
            [*PRODKIT, *words, "--jobs", jobs, "--out", folder / f"jobs{jobs}"], OMP_NUM_THREADS="1"
        )
        for jobs in (1, 2)
    }
    print(
        f"{'nine windows of drift, one job and two':58} {walls[1]:8.2f} s {walls[2]:8.2f} s   "
        f"{walls[1] / walls[2]:5.2f}x faster   target 1.70x"
    )


def nbval(folder: Path) -> None:
    """All notebooks, compared by nbval with forked and fresh kernels; plugins that it has no use for stay out."""
    timed = {}
    for name, plugins in (("forked", ["-p", "prodkit.runs.kernels"]), ("fresh", [])):
        unused = [f"-pno:{name}" for name in ("xdist", "schemathesis", "hypothesispytest", "anyio")]
        call = [sys.executable, "-m", "pytest", *plugins, *unused, "-o", "addopts=", "--nbval", "-q"]
        call += ["--durations", "0", "--durations-min", "0", "notebooks", "-W", "ignore"]
        began = time.perf_counter()
        done = subprocess.run(call, cwd=PROJECT, capture_output=True, text=True)
        wall = time.perf_counter() - began
        if done.returncode:
            raise SystemExit(done.stdout[-3000:])
        cells = sum(float(each) for each in re.findall(r"^([\d.]+)s call ", done.stdout, re.M))
        timed[name] = wall, cells
    (ours, inside), (theirs, plain_inside) = timed["forked"], timed["fresh"]
    print(
        f"  walls {ours:.2f} s and {theirs:.2f} s, of which inside cells {inside:.2f} s and {plain_inside:.2f} s"
    )
    row(
        "nbval of all notebooks, beyond the time inside cells",
        ours - inside,
        theirs - plain_inside,
        target=0.4,
    )


def quarter(folder: Path) -> None:
    """The same as lifecycle, with a loop over the first notebooks of the story alone."""
    lifecycle(folder, most=14)


def lifecycle(folder: Path, *, most: int | None = None) -> None:
    """The whole story, and a shell loop of papermill over the same notebooks and parameters."""
    out, bare = folder / "story", folder / "loop"
    ours = seconds([*PRODKIT, "lifecycle", "--out", out])
    results = [json.loads(path.read_text()) for path in out.glob("runs/*/result.json")]
    results.sort(key=lambda each: each["basis"]["began"])
    bare.mkdir()
    theirs, executed = 0.0, []
    for each in results[:most]:
        _force_release(each, bare)
        saved, given = bare / f"{each['run_id']}.ipynb", bare / "given.yaml"
        given.write_text(json.dumps(_injected(out / "runs" / each["run_id"] / "notebook.ipynb")))
        call = [*PAPERMILL, PROJECT / "notebooks" / f"{each['notebook']}.ipynb", saved, "-f", given]
        theirs += seconds(call, PRODKIT_OUT=str(bare), PRODKIT_RUN=each["run_id"])
        executed.append(saved)
    inside = covered(in_cells(out / "runs" / each["run_id"] / "notebook.ipynb" for each in results))
    plain_inside = covered(in_cells(executed))
    print(
        f"  {len(results)} notebooks in {ours:.1f} s, {len(executed)} in {theirs:.1f} s; "
        f"inside cells {inside:.1f} s and {plain_inside:.1f} s"
    )
    per_notebook = (ours - inside) / len(results), (theirs - plain_inside) / len(executed)
    row("story, a notebook, beyond the time inside cells", *per_notebook, target=0.2)


def _injected(path: Path) -> dict[str, Any]:
    return json.loads(path.read_text())["metadata"]["papermill"]["parameters"]


def _force_release(result: dict[str, Any], out: Path) -> None:
    """The drill of the bad release is the story's doing, not a notebook's: before its month, it goes live."""
    if result["notebook"] != "score" or not result["params"]["window"].startswith("2013-09-01"):
        return
    call = [*PRODKIT, "models", "list", "--json", "--out", out]
    known = json.loads(subprocess.run(call, cwd=PROJECT, capture_output=True, text=True, check=True).stdout)
    newest = max(version["version"] for version in known["versions"])
    seconds(
        [
            *PRODKIT,
            "models",
            "promote",
            newest,
            "--name",
            "drill",
            "--reason",
            "drill",
            "--force",
            "--out",
            out,
        ]
    )


if __name__ == "__main__":
    parts = {each.__name__: each for each in (one, backfill, nbval, quarter, lifecycle)}
    print(f"{'':58} {'prodkit':>10} {'bare':>10}")
    for word in sys.argv[1:] or parts:
        with tempfile.TemporaryDirectory() as scratch:
            parts[word](Path(scratch))
