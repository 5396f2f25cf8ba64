"""Whether notebooks with live widgets come to their end: ``python tests/benchmarks/widgets.py [RUNS]``, 200 by default.

Stock nbclient hangs in about one of twenty such runs, when an Output widget sends on the socket whose reply is being
waited for (nbclient issue 312, papermill issue 723).
"""

from __future__ import annotations

import sys
import tempfile
import time
from pathlib import Path

import nbformat

from prodkit.runs.client import Order, StoppedError
from prodkit.runs.engine import execute
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


def main(runs: int) -> int:
    """Run so many; gives how many did not end by themselves."""
    hung, began = 0, time.monotonic()
    with tempfile.TemporaryDirectory() as scratch:
        source = Path(scratch, "widgets.ipynb")
        cells = [nbformat.v4.new_code_cell("a = 0"), nbformat.v4.new_code_cell(CELL)]
        cells[0].metadata["tags"] = ["parameters"]
        kernel = {"kernelspec": {"name": "python3", "display_name": "Python 3", "language": "python"}}
        nbformat.write(nbformat.v4.new_notebook(cells=cells, metadata=kernel), source)
        for number in range(1, runs + 1):
            order = Order(Path(scratch, "executed.ipynb"), limits=Limits(cell_seconds=LIMIT_SECONDS))
            try:
                execute(source, {"a": number}, order)
            except StoppedError as error:
                hung += 1
                print(f"run {number}: {error.stop.sentence}", flush=True)
    print(f"{runs} runs, {hung} did not end by themselves, {(time.monotonic() - began) / runs:.2f} s a run")
    return hung


if __name__ == "__main__":
    sys.exit(main(int(sys.argv[1]) if sys.argv[1:] else 200) > 0)
