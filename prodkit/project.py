"""A project of one's own: made from a table, and brought to another version with its changes kept."""

from __future__ import annotations

import ast
import copy
import glob
import json
import re
import shutil
import tempfile
from collections.abc import Callable, Mapping
from contextlib import suppress
from importlib.metadata import version
from pathlib import Path
from string import Template
from typing import Any

import yaml
from joblib import Parallel, delayed

import prodkit
from prodkit.data.windows import read_window
from prodkit.errors import ParameterError, RunError
from prodkit.evidence import Window
from prodkit.facts import Proposal, proposal
from prodkit.files import write_text
from prodkit.notebook import parse_notebook
from prodkit.params import FLIGHTS, NOTEBOOKS, ProjectParams
from prodkit.runs.engine import Order, StoppedError, execute
from prodkit.runs.kernels import start_fork_server
from prodkit.runs.record import cells_digest
from prodkit.settings import REAL_STORE, project_folder

__all__ = ["make_project", "update_notebooks"]

_SAMPLE, _SAMPLE_ROWS = "tests/sample.parquet", 20_000
_BASE, _BEFORE = ".base", ".before"
_OF_A_RUN = ("window", "as_of", "reference", "drill")  # no facts of the project
_WIDGET = "application/vnd.jupyter.widget-view+json"


def _kit(name: str) -> dict[str, Any]:
    """A notebook of the installed kit: from the wheel, or from the checkout."""
    package = Path(prodkit.__file__).parent
    folder = package / "notebooks" if (package / "notebooks").is_dir() else package.parent / "notebooks"
    document: dict[str, Any] = json.loads((folder / f"{name}.ipynb").read_text(encoding="utf-8"))
    return document


def _written(document: Mapping[str, Any]) -> str:
    return json.dumps(document, indent=1, ensure_ascii=False) + "\n"


def _write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    write_text(path, text)


def _with_defaults(name: str, values: Mapping[str, Any]) -> dict[str, Any]:
    """A notebook of the kit with other defaults, without outputs, that says which version it is of."""
    document = copy.deepcopy(_kit(name))
    for cell in document["cells"]:
        if cell["cell_type"] == "code":
            cell |= {"outputs": [], "execution_count": None}
        if "parameters" in cell["metadata"].get("tags", []):
            lines = "".join(cell["source"]).split("\n")
            cell["source"] = "\n".join(_line(line, values) for line in lines).splitlines(keepends=True)
    document["metadata"]["prodkit"] = {"version": version("notebook-prodkit")}
    return document


def _line(line: str, values: Mapping[str, Any]) -> str:
    """A line of the parameters cell with another default, its comment kept."""
    match = re.match(r"(\w+) = .*?(  # .*)$", line)
    if match is None or match[1] not in values:
        return line
    text = json.dumps(values[match[1]], ensure_ascii=False)  # in double quotes, as the kit writes
    with suppress(ValueError):
        if ast.literal_eval(text) == values[match[1]]:
            return f"{match[1]} = {text}{match[2]}"
    return f"{match[1]} = {values[match[1]]!r}{match[2]}"


# Making one


def make_project(
    folder: Path,
    given: Mapping[str, Any],
    *,
    sample: bool = False,
    outputs: bool = False,
    tell: Callable[[str], None] = print,
) -> Proposal:
    """Write a project for a table, and run each of its notebooks once.

    Args:
        folder: new, or empty.
        given: facts of the table; ``data``, ``time_column`` and ``target`` among them.
        sample: write a sample of the rows, which the defaults of the notebooks name then.
        outputs: keep the outputs of the notebooks, which show data.
        tell: takes the name of each step.

    Raises:
        ParameterError: the folder is not empty, or a fact is wrong.
        DataError: the table cannot be read, or not be learned from.
        RunError: a notebook does not run on the table; the project is kept.
    """
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        fix = "Name a new folder, or empty this one."
        raise ParameterError("DIR", rule="must be new or empty", value=str(folder), fix=fix)
    tell("looking at the table")
    facts = proposal({**given, "data": _absolute(given["data"])})
    store = {"store": REAL_STORE, "artifacts": "outputs/artifacts"}
    facts.chosen = store | facts.chosen
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "tests").mkdir()
    shown = dict(facts.chosen) | {"store": "demo"}
    if sample:
        _write_sample(facts, folder / _SAMPLE)
        shown |= {"data": _SAMPLE, "csv": {}, "time_format": ""}
    for name in NOTEBOOKS:
        document = _written(_with_defaults(name, {**shown, **facts.defaults[name]}))
        _write(folder / "notebooks" / f"{name}.ipynb", document)
        _write(folder / "notebooks" / _BASE / f"{name}.ipynb", document)
    _write(folder / "params" / "project.yaml", _facts_file(facts))
    _write_rest(folder, facts, tested=shown["data"], outputs=outputs)
    _run_each(folder.resolve(), outputs=outputs, tell=tell)
    return facts


def _absolute(data: str) -> str:
    """A table's location as it is from anywhere."""
    if data == FLIGHTS or "${" in data:
        return data
    prefix, path = ("sqlite:///", data[10:]) if data.startswith("sqlite:///") else ("", data)
    if "://" in data and not prefix:
        return data
    place = Path(path.rpartition("#")[0] if prefix else path).expanduser()
    rest = f"#{path.rpartition('#')[2]}" if prefix else ""
    if not prefix and not place.exists() and not glob.glob(str(place)):
        fix = "Give --data a file, folder or glob of Parquet or CSV, an fsspec URL, or a database URL with #table."
        raise ParameterError("--data", rule="must exist", value=data, fix=fix)
    return prefix + str(Path.cwd() / place) + rest


def _write_sample(facts: Proposal, path: Path) -> None:
    """The rows that the notebooks' defaults need, at most 20,000, evenly taken."""
    windows = [Window.parse(each["window"]) for each in facts.defaults.values()]
    whole = Window(min(each.start for each in windows), max(each.end for each in windows))
    far = {"window": str(whole), "label_delay": "0s", "as_of": "2262-01-01"}
    rows = read_window(ProjectParams.check({**facts.chosen, **far}), unique=False)
    rows = rows.drop(columns=[name for name in rows if name == "_row"])
    rows.iloc[:: -(-len(rows) // _SAMPLE_ROWS)].to_parquet(path, index=False)


def _facts_file(facts: Proposal) -> str:
    """``params/project.yaml``: every fact with what it means and why it is so."""
    lines = [
        "# What is known of the table; every notebook shares it. Proposed by `prodkit init`: correct what is wrong.",
        "# A file named after a notebook (params/train.yaml) holds that notebook's policy.",
    ]
    defaults = ProjectParams.check({"window": "1970-01-01/2100-01-01"}).plain()
    defaults |= {"features": [], "id_column": []}
    for name, about in ProjectParams.model_fields.items():
        if name in _OF_A_RUN:
            continue
        lines.append(f"\n# {about.description}")
        if name in facts.reasons:
            lines.append(f"# here: {facts.reasons[name]}")
        if name == "features" and facts.left_out:
            lines += ["# left out:", *(f"#   {column}: {why}" for column, why in facts.left_out.items())]
        value = facts.chosen.get(name, defaults[name])
        text = yaml.safe_dump(value, default_flow_style=True, allow_unicode=True, width=10_000)
        lines.append(f"{name}: {text.removesuffix('...' + chr(10)).strip()}")
    return "\n".join(lines) + "\n"


def _write_rest(folder: Path, facts: Proposal, *, tested: str, outputs: bool) -> None:
    """README, tests, workflow, requirements and what git passes over."""
    store, artifacts = facts.chosen["store"], facts.chosen["artifacts"]
    remote = not store.startswith("sqlite") and "://" in artifacts and not artifacts.startswith("file:")
    names = {
        "name": folder.resolve().name,
        "folder": str(folder.resolve()),
        "data": facts.chosen["data"],
        "target": facts.chosen["target"],
        "tested": tested,
        "nbval": "--nbval" if outputs else "--nbval-lax",
        "schedule": '\n  schedule: [{cron: "0 3 * * *"}]' if remote else "",
        "job": _template("job.yml") if remote else _template("nojob.yml"),
    }
    for name, place in (
        ("README.md", "README.md"),
        ("gitignore", ".gitignore"),
        ("pytest.ini", "pytest.ini"),
        ("test_project.txt", "tests/test_project.py"),
        ("workflow.yml", ".github/workflows/notebooks.yml"),
    ):
        _write(folder / place, Template(_template(name)).safe_substitute(names))
    extras = ",".join(
        extra for extra, sign in (("s3", "s3://"), ("postgres", "postgresql")) if sign in f"{facts.chosen}"
    )
    _write(
        folder / "requirements.txt",
        f"notebook-prodkit{f'[{extras}]' if extras else ''}=={version('notebook-prodkit')}\n",
    )


def _template(name: str) -> str:
    return (Path(__file__).parent / "templates" / "project" / name).read_text(encoding="utf-8")


def _run_each(folder: Path, *, outputs: bool, tell: Callable[[str], None]) -> None:
    """Run every notebook on its defaults, two at a time."""
    start_fork_server()
    with tempfile.TemporaryDirectory() as scratch:
        environment = {"PRODKIT_PROJECT": str(folder), "PRODKIT_OUT": str(Path(scratch) / "outputs")}

        def run(name: str) -> str:
            tell(f"running {name}")
            place = folder / "notebooks" / f"{name}.ipynb"
            order = Order(
                Path(scratch) / f"{name}.ipynb", folder=place.parent, environment=environment, forked=True
            )
            try:
                execute(place, {}, order)
            except StoppedError as error:
                return f"{name}: {error.stop.sentence}"
            if outputs:
                _write(
                    place, _written(_shown(json.loads(place.read_text()), json.loads(order.path.read_text())))
                )
            return ""

        failed = [
            each for each in Parallel(n_jobs=2, prefer="threads")(delayed(run)(n) for n in NOTEBOOKS) if each
        ]
    if failed:
        fix = f"Correct {folder}/params/project.yaml and the parameters cells, or remove the folder and call again."
        raise RunError("notebooks", rule="do not run on this table yet", value="; ".join(failed), fix=fix)


def _shown(document: dict[str, Any], executed: Mapping[str, Any]) -> dict[str, Any]:
    """A notebook with the outputs of its execution, which may have cells that were put in."""
    done = {cell.get("id"): cell for cell in executed["cells"]}
    for cell in document["cells"]:
        if cell["cell_type"] == "code" and cell["id"] in done:
            cell |= {name: done[cell["id"]][name] for name in ("outputs", "execution_count")}
            for output in cell["outputs"]:
                output.get("data", {}).pop(_WIDGET, None)
    return document


# Bringing one to the installed version


def update_notebooks(*, tell: Callable[[str], None] = print) -> int:
    """Bring the project's notebooks to the installed version; the number of conflicts that a person has to settle.

    A notebook that nobody changed is replaced. A changed one is merged with what is new since the original in
    ``notebooks/.base``, and as it was before it is kept in ``notebooks/.before``.

    Raises:
        ParameterError: the folder is no project that ``prodkit init`` made.
    """
    folder = project_folder() / "notebooks"
    if not (folder / _BASE).is_dir():
        fix = "Make a project with prodkit init, and copy your cells and params into it."
        rule = "must hold the originals of the notebooks, as prodkit init keeps them"
        raise ParameterError(f"{folder / _BASE}", rule=rule, value="no such folder", fix=fix)
    conflicts = 0
    for name in NOTEBOOKS:
        base, mine = folder / _BASE / f"{name}.ipynb", folder / f"{name}.ipynb"
        if not mine.exists() and base.exists():
            tell(f"{name}: you removed it; it stays so")
            continue
        conflicts += _update(name, base, mine, tell)
    return conflicts


def _update(name: str, base: Path, mine: Path, tell: Callable[[str], None]) -> int:
    original = json.loads((base if base.exists() else mine).read_text()) if mine.exists() else None
    values = {} if original is None else parse_notebook(_written(original), base).defaults
    new = _with_defaults(name, values)
    text = _written(new)
    if original is None:
        _write(mine, text)
    elif original["metadata"].get("prodkit") == new["metadata"]["prodkit"] and _same(original, new):
        tell(f"{name}: up to date")
        return 0
    elif _same(original, current := json.loads(mine.read_text())):
        _write(mine, text)
        tell(f"{name}: replaced; nobody had changed it")
    else:
        merged, conflicts = _merged(original, current, new)
        (mine.parent / _BEFORE).mkdir(exist_ok=True)
        shutil.copy2(mine, mine.parent / _BEFORE / mine.name)
        _write(mine, _written(merged))
        end = f"{conflicts} conflicts, marked in it" if conflicts else "no conflict"
        tell(f"{name}: merged with your changes, {end}; as it was: notebooks/{_BEFORE}/{mine.name}")
        _write(base, text)
        return conflicts
    _write(base, text)
    return 0


def _same(one: Mapping[str, Any], other: Mapping[str, Any]) -> bool:
    """Have two notebooks the same cells?"""
    return cells_digest(one["cells"]) == cells_digest(other["cells"])


def _merged(base: Any, mine: Any, new: Any) -> tuple[Any, int]:
    """A three-way merge by nbdime, and how many conflicts it left in it."""
    import nbformat  # heavy, and needed for a changed notebook alone
    from nbdime.merging.notebooks import merge_notebooks

    def sent(document: Any) -> Any:
        about = {**document["metadata"], "prodkit": new["metadata"]["prodkit"]}
        return nbformat.reads(json.dumps({**document, "metadata": about}), as_version=4)

    merged, decisions = merge_notebooks(sent(base), sent(mine), sent(new))
    merged = json.loads(nbformat.writes(merged))
    return merged, sum(bool(each.get("conflict")) for each in decisions)
