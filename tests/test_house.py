"""The architecture: which module may import which, what is public, what the project says of itself."""

import ast
import importlib
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

import prodkit

ROOT = Path(__file__).parent.parent
PACKAGE = ROOT / "prodkit"

# A module imports only from rows above its own.
HOUSE = [
    [
        *("errors", "evidence", "bins", "cells", "spans", "files", "environment", "clocks", "grammars"),
        *("preloads", "offspring", "plots", "redaction", "messages", "pictures", "sandbox", "traces"),
        *("breaker", "calls", "forest", "tails", "tally"),
    ],
    [
        *("stops", "params", "places", "schema", "history", "columns", "drills", "flights", "sources"),
        *("artifacts", "likeness", "place", "zygote", "warm", "annotations", "reading", "arrays"),
        *("parts", "shifts", "load"),
    ],
    [
        *("draft", "dataset", "door", "profiles", "metrics", "models", "units", "decide", "database"),
        *("declarations", "verdict", "interface", "mutations", "rows", "telemetry", "counts", "target"),
    ],
    [
        *("notebook", "data", "leash", "drift", "contract", "paired", "records", "moves", "answers"),
        *("snapshot", "encoding", "requestlog"),
    ],
    [
        *("arguments", "training", "outline", "kernels", "gates", "store", "account", "result", "report"),
        *("compiled", "tables", "sequential"),
    ],
    ["rerun", "bundle", "client", "claims", "basis", "actions", "service", "alerts", "stage"],
    ["survey", "trial", "workspace", "engine", "dossier", "resident"],
    ["guard", "contest", "counterfactual", "explore", "papermill", "runs", "verification"],
    [
        *("scoring", "ladder", "journal", "backfill", "batches", "follower", "payloads", "outcomes"),
        *("faults", "volumes"),
    ],
    ["bulk", "lifecycle", "serve", "rehearsal", "vitals", "stress"],
    ["cli", "endurance"],
]
MODULES = [name for row in HOUSE for name in row]


def imports(name: str) -> set[str]:
    """The modules of the package that a module imports anywhere in its text."""
    found: set[str] = set()
    for node in ast.walk(ast.parse((PACKAGE / f"{name}.py").read_text())):
        if isinstance(node, ast.ImportFrom) and node.module == "prodkit":
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and (node.module or "").startswith("prodkit."):
            found.add(str(node.module).split(".")[1])
        elif isinstance(node, ast.Import):
            found |= {alias.name.split(".")[1] for alias in node.names if alias.name.startswith("prodkit.")}
    return found


def test_every_module_has_a_row():
    """The house lists each module of the package once, and no other."""
    there = {path.stem for path in PACKAGE.glob("*.py")} - {"__init__"}
    assert sorted(MODULES) == sorted(there)


@pytest.mark.parametrize("name", MODULES)
def test_a_module_imports_only_from_rows_above(name):
    """No module imports from its own row or from one below."""
    row = next(number for number, names in enumerate(HOUSE) if name in names)
    above = {module for names in HOUSE[:row] for module in names}
    assert imports(name) <= above, f"{name} must not import {sorted(imports(name) - above)}"


@pytest.mark.parametrize("name", MODULES)
def test_a_module_says_its_job_and_lists_what_is_public(name):
    """The first line of a module is a sentence, and `__all__` is sorted and true."""
    module = importlib.import_module(f"prodkit.{name}")
    assert (module.__doc__ or "").splitlines()[0].strip()
    shouting = sorted(n for n in module.__all__ if n.isupper())
    classes = sorted(n for n in module.__all__ if n[0].isupper() and not n.isupper())
    others = sorted(n for n in module.__all__ if n[0].islower())
    assert list(module.__all__) == [*shouting, *classes, *others]
    assert [n for n in module.__all__ if not hasattr(module, n)] == []


def test_the_public_names_are_sorted_and_there():
    """Every name of `prodkit.__all__` can be imported, and none hides behind a module of the same name."""
    assert prodkit.__all__ == sorted(prodkit.__all__)
    assert [name for name in prodkit.__all__ if not callable(getattr(prodkit, name))] == []
    assert set(prodkit.__all__).isdisjoint(MODULES)


ANALYSIS = ("pandas", "scipy", "sklearn", "matplotlib", "IPython", "ipywidgets")
RUNNERS = ("papermill", "nbclient", "nbformat", "nbconvert", "jinja2", "jsonschema", "joblib")
STORES = ("numpy", "pyarrow", "sqlalchemy", "fsspec", "pydantic", "yaml")


@pytest.mark.parametrize(
    ("modules", "absent"),
    [
        (["drift", "tables"], (*ANALYSIS, *RUNNERS, "sqlalchemy", "pydantic", "fsspec")),
        (["cli"], (*ANALYSIS, *RUNNERS, *STORES)),  # help, and a mistyped name
        # a notebook of one's own is run, without the engine that runs it
        (
            ["cli", "arguments", "dataset", "store", "report", "answers", "environment"],
            (*ANALYSIS, *RUNNERS, "pyarrow"),
        ),
        (["runs"], ANALYSIS),
        (["lifecycle"], ANALYSIS),  # by the processes, too, that it shares its notebooks out to
    ],
)
def test_a_process_imports_no_more_than_it_needs(modules, absent):
    """Nobody waits for libraries that their work does not use."""
    imported = ", ".join(f"prodkit.{name}" for name in modules)
    code = f"import sys, {imported}; print(sorted(set(sys.modules) & set({absent})))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_only_the_engine_imports_papermill():
    """Papermill is the business of the engine and of its client."""
    users = [
        name
        for name in MODULES
        if re.search(r"^\s*(import|from) papermill", (PACKAGE / f"{name}.py").read_text(), re.M)
    ]
    assert sorted(users) == ["client", "engine"]


def test_pins_cover_the_dependencies_and_name_no_host():
    """constraints.txt pins each direct dependency to one version, and says nothing of where it comes from."""
    lines = (ROOT / "constraints.txt").read_text().splitlines()
    assert all(re.fullmatch(r"[A-Za-z0-9._-]+==[A-Za-z0-9.!+_-]+", line) for line in lines)
    pinned = {re.sub(r"[-_.]+", "-", line.split("==")[0]).lower() for line in lines}
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    wanted = [
        *project["dependencies"],
        *project["optional-dependencies"]["demo"],
        *project["optional-dependencies"]["test"],
    ]
    names = {re.sub(r"[-_.]+", "-", re.match(r"[A-Za-z0-9._-]+", each)[0]).lower() for each in wanted}
    assert names <= pinned


def test_the_top_level_holds_what_was_agreed_and_no_more():
    """No file or folder stands at the top that the design does not name."""
    done = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True)
    if done.returncode:
        pytest.skip("not a git checkout")
    top = {line.split("/")[0] for line in done.stdout.splitlines()}
    assert {name for name in top if not name.startswith(".")} <= {
        *("pyproject.toml", "README.md", "LICENSE", "constraints.txt"),
        *("notebooks", "prodkit", "tests", "params", "outputs"),
    }


def test_the_readme_draws_the_house_as_it_stands():
    """The table of rows in the README is the one that this file holds."""
    rows = re.findall(r"^\| \d+ \| ((?:`\w+` ?)+)\|$", (ROOT / "README.md").read_text(), re.M)
    assert [re.findall(r"`(\w+)`", row) for row in rows] == HOUSE
