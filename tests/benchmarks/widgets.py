"""Whether notebooks with live widgets come to their end: ``python tests/benchmarks/widgets.py [RUNS]``, 200 by default.

Each run is made twice, by turns: by prodkit, and by stock papermill. That hangs now and then, when an Output widget
sends on the socket whose reply is being waited for (nbclient issue 312, papermill issue 723).
"""

from __future__ import annotations

import sys
import tempfile
import time
from pathlib import Path

import nbformat
from nbclient.exceptions import CellTimeoutError
from papermill import execute_notebook

from prodkit.runs.engine import Order, StoppedError, execute
from prodkit.runs.stops import Limits

CELL = """
from ipywidgets import Output, interact
@interact(x=(0, 9))
def show(x=3):
    print(x)
out = Output()
with out:
    print("inside")
for n in range(5):
    interact(lambda x: print(x), x=(0, n + 1))
out
"""
LIMIT_SECONDS = 20.0


def ours(source: Path, target: Path, number: int) -> bool:
    """Whether a run by prodkit came to its end."""
    try:
        execute(source, {"a": number}, Order(target, limits=Limits(cell_seconds=LIMIT_SECONDS)))
    except StoppedError as error:
        print(f"run {number}: {error.stop.sentence}", flush=True)
        return False
    return True


def stock(source: Path, target: Path, number: int) -> bool:
    """The same by papermill as it comes, with the same limit of time for a cell."""
    settings = {"progress_bar": False, "execution_timeout": int(LIMIT_SECONDS)}
    try:
        execute_notebook(source, target, parameters={"a": number}, **settings)
    except CellTimeoutError:
        return False
    return True


def main(runs: int) -> int:
    """Run so many by each; gives how many of prodkit's did not end by themselves."""
    hung, seconds = {ours: 0, stock: 0}, {ours: 0.0, stock: 0.0}
    with tempfile.TemporaryDirectory() as scratch:
        source = Path(scratch, "widgets.ipynb")
        cells = [nbformat.v4.new_code_cell("a = 0"), nbformat.v4.new_code_cell(CELL)]
        cells[0].metadata["tags"] = ["parameters"]
        kernel = {"kernelspec": {"name": "python3", "display_name": "Python 3", "language": "python"}}
        nbformat.write(nbformat.v4.new_notebook(cells=cells, metadata=kernel), source)
        for number in range(1, runs + 1):
            for run in (ours, stock):
                began = time.monotonic()
                hung[run] += not run(source, Path(scratch, "executed.ipynb"), number)
                seconds[run] += time.monotonic() - began
    for run, name in ((ours, "prodkit"), (stock, "papermill")):
        print(
            f"{name}: {runs} runs, {hung[run]} did not end by themselves, {seconds[run] / runs:.2f} s a run"
        )
    return hung[ours]


if __name__ == "__main__":
    sys.exit(main(int(sys.argv[1]) if sys.argv[1:] else 200) > 0)
