"""The architecture: which module may import which, what is public, what the project says of itself."""

import ast
import graphlib
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

# The rows of the design. A module imports from its own room and from those before it, and nowhere in a circle.
ROWS = [
    "errors files evidence",
    "params redaction values notebook settings",
    "data",
    "drift",
    "models",
    "store",
    "decisions",
    "scoring serving",
    "canvas charts markup report pages",
    "runs monitoring stress explore",
    "schedule planning lifecycle status facts project",
    "console reference cli_store cli",
]
HOUSE = [room for row in ROWS for room in row.split()]

# Both only ever shrink; the design's goal is 17,000 lines in 85 modules.
MOST_LINES, MOST_MODULES = 35_070, 141

# Tests that import modules behind `prodkit.__all__`, `prodkit.errors` and the command. No file is added: whoever makes
# a test go through those takes its name off.
DEEP_TESTS = """
canary
led
story_picture
tables
test_alerts
test_approval
test_audit
test_backfill
test_bad_input
test_bundle
test_charts
test_claims
test_cli
test_comparison
test_concept
test_contest
test_counterfactual
test_data
test_decide
test_drift
test_engine
test_estimate
test_evidence
test_explore
test_files
test_follower
test_following
test_gates
test_guard
test_kernels
test_kills
test_ladder
test_lifecycle
test_masks
test_meaning
test_metrics
test_models
test_notebook
test_notebooks
test_own_tables
test_pages
test_payloads
test_readme
test_redaction
test_replay
test_requestlog
test_robustness
test_rows
test_runs
test_schedule
test_schema
test_scoring
test_secrets
test_sequential
test_serve
test_served
test_settings
test_snapshot
test_store
test_stress
test_survey
test_trial
test_upgrade
test_values
test_verification
test_health
test_whatif
test_wider
"""


def dotted(path: Path) -> str:
    """The name of a module within the package."""
    return ".".join(path.relative_to(PACKAGE).with_suffix("").parts)


MODULES = sorted(dotted(path) for path in PACKAGE.rglob("*.py") if path.name != "__init__.py")


def imports(name: str) -> set[str]:
    """The modules of the package that a module imports anywhere in its text."""
    asked: set[str] = set()
    for node in ast.walk(ast.parse((PACKAGE / f"{name.replace('.', '/')}.py").read_text())):
        if isinstance(node, ast.ImportFrom) and f"{node.module}.".startswith("prodkit."):
            asked |= {str(node.module), *(f"{node.module}.{alias.name}" for alias in node.names)}
        elif isinstance(node, ast.Import):
            asked |= {alias.name for alias in node.names}
    return {module.removeprefix("prodkit.") for module in asked} & set(MODULES)


def test_the_package_stays_within_its_budget():
    """Lines, docstrings included, and modules of the package only become fewer."""
    files = list(PACKAGE.rglob("*.py"))
    assert sum(len(path.read_text().splitlines()) for path in files) <= MOST_LINES
    assert len(files) <= MOST_MODULES


def test_tests_go_through_what_is_public():
    """No test imports a module from the inside of the package, except those that are listed."""
    inside = re.compile(r"^\s*(?:from|import) prodkit\.(?!errors\b|cli\b)", re.M)
    deep = {path.stem for path in (ROOT / "tests").glob("*.py") if inside.search(path.read_text())}
    assert deep <= set(DEEP_TESTS.split())


def test_every_room_is_in_the_house():
    """The house lists each room of the package once, and no other."""
    assert sorted(HOUSE) == sorted({name.split(".")[0] for name in MODULES})


@pytest.mark.parametrize("name", MODULES)
def test_a_module_imports_only_from_its_room_and_those_above(name):
    """No module imports from a room below its own."""
    allowed = set(HOUSE[: HOUSE.index(name.split(".")[0]) + 1])
    low = {module for module in imports(name) if module.split(".")[0] not in allowed}
    assert not low, f"{name} must not import {sorted(low)}"


def test_no_modules_import_one_another_in_a_circle():
    """There is an order in which the modules can be read, each after those that it uses."""
    order = graphlib.TopologicalSorter({name: imports(name) for name in MODULES}).static_order()
    assert sorted(order) == MODULES


def test_a_room_says_what_it_is_for_and_nothing_else():
    """A room is a sentence and its modules: its own file imports nothing."""
    for room in {name.split(".")[0] for name in MODULES if "." in name}:
        (sentence,) = ast.parse((PACKAGE / room / "__init__.py").read_text()).body
        assert isinstance(sentence, ast.Expr), room


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
    assert set(prodkit.__all__).isdisjoint({*HOUSE, *MODULES})


SLOW = (
    "pandas",
    "scipy",
    "sklearn",
    "matplotlib",
    "IPython",
    "ipywidgets",
    "numpy",
    "pyarrow",
    "sqlalchemy",
    "fsspec",
)
RUNNERS = ("papermill", "nbclient", "nbformat", "nbconvert", "jinja2", "jsonschema", "joblib")


def test_help_waits_for_no_library_that_it_does_not_use():
    """The command answers `--help` without importing what only its commands need."""
    code = f"import sys, prodkit.cli; print(sorted(set(sys.modules) & set({(*SLOW, *RUNNERS)})))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_only_the_engine_imports_papermill():
    """Papermill is the business of the engine and of its client."""
    users = [
        name
        for name in MODULES
        if re.search(
            r"^\s*(import|from) papermill", (PACKAGE / f"{name.replace('.', '/')}.py").read_text(), re.M
        )
    ]
    assert sorted(users) == ["runs.draft", "runs.engine"]


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
