"""The notebooks as files: their form, their parameters, their outputs; and that nbval and papermill keep them."""

import ast
import copy
import re
import subprocess
import sys
from itertools import pairwise
from pathlib import Path

import golden
import nbformat
import pytest

from prodkit.params import NOTEBOOKS, ProjectParams
from prodkit.settings import read_notebook

FOLDER = Path(__file__).parent.parent / "notebooks"
NAMES = sorted(NOTEBOOKS)
each_notebook = pytest.mark.parametrize("name", NAMES)


def read(name):
    """The notebook of this name."""
    return nbformat.read(FOLDER / f"{name}.ipynb", as_version=4)


def code(name):
    """Its code cells but the one that is tagged `parameters`."""
    return [cell for cell in read(name).cells if cell.cell_type == "code" and "parameters" not in tags(cell)]


def tags(cell):
    """Tags of a cell."""
    return cell.metadata.get("tags", [])


def shown(cell):
    """All text that a cell has put out and that nbval compares."""
    texts = []
    for output in cell.outputs:
        data = output.get("data", {"text/plain": output.get("text", "")})
        texts += [text for kind, text in data.items() if kind.startswith("text/")]
    return "\n".join(texts)


def test_there_is_a_notebook_for_each_policy():
    """Every notebook has its parameters model, and the other way round."""
    assert sorted(path.stem for path in FOLDER.glob("*.ipynb")) == NAMES


@each_notebook
def test_it_has_the_agreed_form(name):
    """A title that is a question, 16 to 28 cells of few lines, prose before the code, and no definitions."""
    cells = read(name).cells
    assert re.match(r"# .+\?\n", cells[0].source)
    assert 16 <= len(cells) <= 28
    for cell in code(name):
        assert len(cell.source.splitlines()) <= 6, cell.source
        kinds = {type(node) for node in ast.walk(ast.parse(cell.source))}
        assert kinds.isdisjoint({ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef}), cell.source
        assert not cell.source.rstrip().endswith(";")
    introduced = [a.cell_type == "markdown" for a, b in pairwise(cells) if b.cell_type == "code"]
    assert sum(introduced) / len(introduced) >= 0.85


@each_notebook
def test_it_answers_before_it_explains(name):
    """The bottom line comes before the first figure, the limits before the record."""
    sources = [cell.source for cell in read(name).cells]
    bottom, limits, record = (
        next(place for place, text in enumerate(sources) if text.startswith(heading))
        for heading in ("## Bottom line", "## Limits", "## The record")
    )
    first_figure = next(place for place, text in enumerate(sources) if text.startswith("draw_"))
    assert bottom < first_figure < limits < record


@each_notebook
def test_its_parameters_are_those_of_its_model(name):
    """The parameters cell holds each declared name with the same default, all project facts among them."""
    given = read_notebook(str(FOLDER / f"{name}.ipynb")).defaults
    assert given == NOTEBOOKS[name].check({}).plain()
    assert set(ProjectParams.model_fields) <= set(given)


@each_notebook
def test_each_parameter_says_what_it_means(name):
    """Every line of the parameters cell ends with the meaning of its name."""
    cell = next(cell for cell in read(name).cells if "parameters" in tags(cell))
    lines = [line for line in cell.source.splitlines() if not line.startswith("#")]
    for line in lines:
        parameter = line.partition(" = ")[0]
        assert line.endswith(f"  # {NOTEBOOKS[name].model_fields[parameter].description}")


@each_notebook
def test_no_name_of_a_parameter_is_overwritten(name):
    """Neither an import nor an assignment takes the name of a parameter, which would replace the injected value."""
    parameters = set(NOTEBOOKS[name].model_fields)
    for cell in code(name):
        for node in ast.walk(ast.parse(cell.source)):
            if isinstance(node, ast.Import | ast.ImportFrom):
                bound = {(alias.asname or alias.name).split(".")[0] for alias in node.names}
                assert bound.isdisjoint(parameters)
            if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
                assert node.id not in parameters


@each_notebook
def test_its_outputs_are_committed_and_can_repeat(name):
    """Each cell has run without error, figures have a text, and what is compared holds no date, path or long number."""
    for cell in code(name):
        assert cell.execution_count
        assert not [output for output in cell.outputs if output.output_type == "error"]
        if "nbval-ignore-output" in tags(cell):
            continue
        for output in cell.outputs:
            data = output.get("data", {})
            assert "image/svg+xml" not in data
            if "image/png" in data:
                assert re.search(r"\d", data["text/plain"])
                assert output.metadata["image/png"]["alt"]
        text = re.sub(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d", "", shown(cell))  # the time of a row is data
        assert not re.search(r"0x[0-9a-f]{6,}|/home/|/tmp/|/root/|outputs/", text)
        assert not re.search(r"(?<![\d,.])0*\d?\.\d{5,}(?!\d)", re.sub(r"0\.0+", "0.", text)), text


@each_notebook
def test_it_decides_what_is_on_record_under_plain_papermill_from_anywhere(name, tmp_path):
    """`papermill notebooks/NAME.ipynb out.ipynb` in a folder without the project gives the known result."""
    decided = golden.of_notebook(name, tmp_path)
    if name in golden.NOTEBOOKS:  # of the other one the machine decides
        assert golden.differences(golden.on_record("notebooks")[name], decided) == []


def test_nbval_finds_a_number_that_has_changed(tmp_path):
    """One digit changed in a committed output makes nbval fail at that cell, and at no other."""
    notebook = copy.deepcopy(read("score"))
    for cell in notebook.cells:
        if cell.cell_type == "code" and "finding(" in cell.source and cell.outputs:
            data = cell.outputs[0]["data"]
            assert "28,330" in data["text/markdown"]
            data["text/markdown"] = data["text/markdown"].replace("28,330", "28,331")
    (tmp_path / "notebooks").mkdir()
    changed = tmp_path / "notebooks" / "score.ipynb"
    nbformat.write(notebook, changed)
    bare = ["-p", "no:xdist", "-p", "no:cacheprovider", "-c", "/dev/null"]
    command = [sys.executable, "-m", "pytest", "-q", "--nbval", str(changed), *bare]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=300)
    assert done.returncode == 1, done.stdout[-2000:]
    assert "28,331" in done.stdout
    assert re.search(r"\b1 failed", done.stdout)
