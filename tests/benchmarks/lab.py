"""How soon a moved control shows its new figure in JupyterLab: ``python tests/benchmarks/lab.py [PICTURES]``.

Each of the notebooks is opened in a real JupyterLab by a real Chromium, all its cells are run by the menu, and every
control of its explorer is moved by a key. Timed is what a user waits: from the key to the painted figure. With a folder
PICTURES, a picture of each notebook is left there.
"""

from __future__ import annotations

import statistics
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent))
from laboratory import chromium, errors, executed, jupyterlab, moved, run_all, sliders

MOVES = 9


def main(pictures: Path | None) -> int:
    """Print a line for each control; gives how many notebooks did not run."""
    broken = 0
    with tempfile.TemporaryDirectory() as scratch, jupyterlab(Path(scratch)) as address, chromium() as page:
        for path in sorted(Path(scratch, "notebooks").glob("*.ipynb")):
            began = time.monotonic()
            run_all(page, address, path.stem)
            found = errors(executed(Path(scratch), path.stem))
            broken += bool(found)
            print(f"{path.stem}: all cells in {time.monotonic() - began:.0f} s", *found, flush=True)
            for number, control in enumerate(sliders(page), start=1):
                took = []
                for move in range(MOVES):
                    key = "ArrowDown" if control.evaluate("it => it.tagName") == "SELECT" else "ArrowRight"
                    key = key if move % 2 == 0 else {"ArrowDown": "ArrowUp", "ArrowRight": "ArrowLeft"}[key]
                    took.append(moved(page, control, key=key)[0])
                first, rest = took[0], statistics.median(took[1:])
                print(
                    f"  control {number}: {rest:.0f} ms (median of {MOVES - 1}; first {first:.0f}, slowest {max(took):.0f})",
                    flush=True,
                )
            if pictures:
                page.screenshot(path=pictures / f"{path.stem}-explore.png")
    return broken


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]) if sys.argv[1:] else None) > 0)
