"""The results that are on record: what the notebooks and the year of flights decided, and by which figures.

python tests/golden.py            record anew what the notebooks give with their defaults
python tests/golden.py OUTPUTS    record anew the year that `prodkit lifecycle` left in a folder
"""

from __future__ import annotations

import json
import math
import subprocess
import sys
import tempfile
from pathlib import Path

FOLDER = Path(__file__).parent / "golden"
NOTEBOOKS = ("drift", "monitor", "rollback", "score", "train", "validate")  # of `stress` the machine decides

_RESULT = "application/vnd.prodkit.result+json"
# Of these the machine decides, so only the name is on record.
_OF_THE_MACHINE = ("latency", "budget.", "load", "memory.service", "stress", "volume", "fault", "throughput")


def record(document: dict) -> dict:
    """What a result.json says that another run of the same work has to say too, figures to four digits."""
    about = {name: document[name] for name in ("status", "outcome", "action", "approval")}
    return about | {"evidence": [_line(item) for item in document["evidence"]]}


def _line(item: dict) -> list:
    if any(word in item["name"] for word in _OF_THE_MACHINE):
        return [item["name"]]
    figures = [item[name] for name in ("value", "low", "high", "limit")]
    return [item["name"], item["outcome"], *(None if x is None else float(f"{x:.4g}") for x in figures)]


def work(document: dict) -> str:
    """What a run was about: its notebook, its window, and what it rehearsed."""
    params = document["params"]
    return " ".join([document["notebook"], params["window"], *params.get("drill", {}).values()])


def differences(expected: dict, recorded: dict) -> list[str]:
    """Where two records disagree, a line each."""
    lines = [
        f"{name}: {recorded[name]}, on record {expected[name]}"
        for name in ("status", "outcome", "action", "approval")
        if recorded[name] != expected[name]
    ]
    mine, theirs = ({line[0]: line[1:] for line in each["evidence"]} for each in (recorded, expected))
    lines += [f"{name}: only {where}" for where, a, b in (("here", mine, theirs), ("on record", theirs, mine))
              for name in sorted(a.keys() - b.keys())]  # fmt: skip
    return lines + [
        f"{name}: {mine[name]}, on record {theirs[name]}"
        for name in sorted(mine.keys() & theirs.keys())
        if not all(map(_same, mine[name], theirs[name]))
    ]


def _same(one: object, other: object) -> bool:
    if isinstance(one, float) and isinstance(other, float):
        return math.isclose(one, other, rel_tol=2e-3, abs_tol=1e-4)
    return one == other


def year(outputs: Path) -> dict[str, dict]:
    """The record of each run below an outputs folder."""
    documents = [json.loads(path.read_text()) for path in sorted(outputs.glob("runs/*/result.json"))]
    return {work(document): record(document) for document in documents}


def of_notebook(name: str, folder: Path) -> dict:
    """The record of one of the kit's notebooks, run with its defaults by papermill in a folder without the project."""
    notebook = FOLDER.parent.parent / "notebooks" / f"{name}.ipynb"
    call = [sys.executable, "-m", "papermill", str(notebook), "out.ipynb", "--no-progress-bar"]
    done = subprocess.run(call, capture_output=True, text=True, timeout=600, cwd=folder)
    assert done.returncode == 0, done.stderr[-2000:]
    cells = json.loads((folder / "out.ipynb").read_text())["cells"]
    outputs = [output.get("data", {}) for cell in cells for output in cell.get("outputs", [])]
    result = [data[_RESULT] for data in outputs if _RESULT in data][-1]
    return record({**result, "status": "succeeded"})


def write(name: str, records: dict[str, dict]) -> None:
    """Put records on file, a line for each piece of evidence."""
    runs = []
    for key, entry in sorted(records.items()):
        lines = ",\n   ".join(json.dumps(line) for line in entry["evidence"])
        head = json.dumps({k: v for k, v in entry.items() if k != "evidence"})[:-1]
        runs.append(f'{json.dumps(key)}: {head}, "evidence": [\n   {lines}]}}')
    (FOLDER / f"{name}.json").write_text("{\n" + ",\n".join(runs) + "\n}\n")


def on_record(name: str) -> dict[str, dict]:
    """What was written."""
    return json.loads((FOLDER / f"{name}.json").read_text())


if __name__ == "__main__":
    if sys.argv[1:]:
        write("year", year(Path(sys.argv[1])))
    else:
        with tempfile.TemporaryDirectory() as outputs:
            write("notebooks", {name: of_notebook(name, Path(outputs)) for name in NOTEBOOKS})
