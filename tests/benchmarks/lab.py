"""How soon a moved control shows its new figure: ``python tests/benchmarks/lab.py [PICTURES [NOTEBOOK ...]]``.

Each of the notebooks is opened in a real JupyterLab by a real Chromium, all its cells are run by the menu, and every
control of its explorer is moved. Timed is what a user waits: from the move to the painted figure. With a folder
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
            if sys.argv[2:] and path.stem not in sys.argv[2:]:
                continue
            began = time.monotonic()
            run_all(page, address, path.stem)
            found = errors(executed(Path(scratch), path.stem))
            broken += bool(found)
            print(f"{path.stem}: all cells in {time.monotonic() - began:.0f} s", *found, flush=True)
            for number, control in enumerate(sliders(page), start=1):
                took = []
                for move in range(MOVES):
                    took.append(moved(page, control, forth=move % 2 == 0)[0])
                usual, most = statistics.median(took), max(took)
                print(
                    f"  control {number}: {usual:.0f} ms (median of {MOVES}), at most {most:.0f}", flush=True
                )
            if pictures:
                page.screenshot(path=pictures / f"{path.stem}-explore.png")
    return broken


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]) if sys.argv[1:] else None) > 0)
