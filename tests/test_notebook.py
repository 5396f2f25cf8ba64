"""A notebook as a file: what it declares and what it is, without running it, however odd the file."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import nbformat
import pytest
from tables import own_notebook

from prodkit.errors import ParameterError
from prodkit.notebook import NO_DEFAULT, NOT_LITERAL, Parameter
from prodkit.settings import check, read_notebook


def changed(path: Path, tags: Any = "as before", **metadata: Any) -> str:
    """The notebook with other metadata, and other tags for each cell."""
    notebook = json.loads(path.read_text())
    notebook["metadata"] |= metadata
    for cell in notebook["cells"] if tags != "as before" else []:
        cell["metadata"]["tags"] = tags
    path.write_text(json.dumps(notebook))
    return str(path)


@pytest.fixture
def read(tmp_path):
    """Reads what a parameters cell declares."""

    def declared(cell: str) -> dict[str, Parameter]:
        return dict(read_notebook(str(own_notebook(tmp_path, cell))).parameters)

    return declared


# The parameters cell


def test_names_and_defaults_are_found_without_running_the_cell(read):
    """Literals are defaults; what only the notebook can compute is known by name."""
    cell = (
        "import os\nfrom datetime import date\na = -1\nb: float = 2.5\nc = ['x', None]\nd: int\n'''a text'''\n"
        "print('run')\ne = {'k': (True,)}\nf = dict(a=1)\ng = 'a' + 'b'\nh = f'{a}'\ni: date = date(2024, 1, 1)\n"
        "j = open('secret').read()\nos.environ['X'] = '1'\nurl = 'http://x/?a=1'\nday: Literal['a', 'b'] = 'a'"
    )
    defaults = {name: each.default for name, each in read(cell).items()}
    literal = {"a": -1, "b": 2.5, "c": ["x", None], "e": {"k": (True,)}, "url": "http://x/?a=1", "day": "a"}
    assert defaults == literal | {"d": NO_DEFAULT} | dict.fromkeys("fghij", NOT_LITERAL)
    assert read(cell)["f"].kind is Any


def test_several_names_in_one_assignment(read):
    """Chains and unpacking declare each name; the last assignment counts, and an annotation stays."""
    declared = read("a = b = 1\n(c, [d, e]), f = (2, ['x', None]), 0.5\na: int = 3\na = 4\ng = 1\ng += 1\n")
    assert {name: each.default for name, each in declared.items()} == {
        **{"a": 4, "b": 1, "c": 2, "d": "x", "e": None, "f": 0.5, "g": NOT_LITERAL}
    }
    assert (declared["a"].annotation, declared["b"].annotation) == ("int", "")


@pytest.mark.parametrize(
    "line", ["a, b = pair", "a, *b = 1, 2", "a, b = 1, 2, 3", "(a, c), b = (1,), 2", "a, b = *x, 1"]
)
def test_names_that_only_python_can_unpack_are_known_by_name(read, line):
    """What they are is computed when the notebook runs."""
    declared = read(f"x = 1\n{line}\n")
    assert {"a", "b"} <= declared.keys()
    assert declared["a"].default is NOT_LITERAL


def test_a_default_of_none_allows_none(read):
    """What the notebook itself sets may be given, whatever is annotated; otherwise the annotation is the law."""
    declared = read("a: list[str] = None\nb: None = None\nc: int = 1")
    assert declared["a"].kind == list[str] | None
    assert declared["c"].kind is int


def test_the_comment_says_what_a_parameter_means(read):
    """It stands behind the value, also behind one of several lines, and not in it, whatever ends a line elsewhere."""
    declared = read(
        'a = 1  # days, of a week\nb = [\n    "é#x",\n]  # names\nc = "# no"\n# of nothing\nd = 2\n'
    )
    assert [each.meaning for each in declared.values()] == ["days, of a week", "names", "", ""]
    declared = read('a = "x\u2028y"  # first\r\nb = """\x0c\n"""  # second\rc = 3  # third')
    assert [each.meaning for each in declared.values()] == ["first", "second", "third"]


@pytest.mark.parametrize(
    "cell",
    [
        "%matplotlib inline\na = 1  # days",
        "a = 1  # days\n!ls",
        "files = !ls\n%load_ext x\n\na = 1  # days\na?",
    ],
)
def test_magics_beside_the_parameters_declare_nothing(read, cell):
    """A parameters cell may hold magics and shell commands, as it may under papermill."""
    parameter = read(cell)["a"]
    assert (parameter.default, parameter.meaning) == (1, "days")


def test_a_notebook_without_a_parameters_cell_declares_nothing(tmp_path):
    """No tagged cell, several, prose, another language or a cell magic: it can be run, and nothing can be given."""
    prose = own_notebook(tmp_path, "a = 1", name="prose")
    prose.write_text(prose.read_text().replace('"code"', '"markdown"', 1))
    foreign = {
        "kernelspec": {"name": "ir", "display_name": "R", "language": "R"},
        "language_info": {"name": "R"},
    }
    for path in (
        changed(own_notebook(tmp_path, "a = 1", "b = 2", name="none"), []),
        changed(own_notebook(tmp_path, "a = 1", "b = 2", name="null"), None),
        changed(own_notebook(tmp_path, "a = 1", "b = 2", name="two"), ["parameters"]),
        changed(own_notebook(tmp_path, "a <- 1", name="foreign"), **foreign),
        str(own_notebook(tmp_path, "%%bash\na=1", name="magic")),
        str(prose),
    ):
        assert check(read_notebook(path), {}).values == {}
        with pytest.raises(ParameterError, match=r"a is not a parameter .*declares none: tag the code cell"):
            check(read_notebook(path), {"a": 1})


def test_a_kernelspec_that_is_null_is_none(tmp_path):
    """A notebook that names no kernel is Python's."""
    path = changed(own_notebook(tmp_path, "a = 1"), kernelspec=None, language_info=None)
    assert read_notebook(path).defaults == {"a": 1}


@pytest.mark.parametrize("cell", ["a = ", "a = \0", "a = '\ud800'", "(" * 5000, "%x\na = ", "a = = !"])
def test_a_parameters_cell_that_is_no_python_is_refused(tmp_path, cell):
    """A cell that cannot be parsed is an error that names the notebook, not a crash."""
    path = own_notebook(tmp_path, "a = 1")
    path.write_text(path.read_text().replace('"a = 1"', json.dumps(cell)))
    with pytest.raises(ParameterError, match=r"(?s)parameters must be Python assignments: .*mine\.ipynb"):
        read_notebook(str(path))


# The file


def test_a_notebook_that_is_not_there_names_those_that_are():
    """A wrong name is answered with the notebooks of the project."""
    with pytest.raises(
        ParameterError, match=r"found trian\. There are: drift, monitor, rollback, score, stress, train"
    ):
        read_notebook("trian")


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "Expecting value"),
        ("[]", "it: Input should be a valid dictionary"),
        ('{"nbformat": 3, "worksheets": []}', "nbformat: Input should be 4"),
        ('{"nbformat": 4}', "cells: Field required"),
        ('{"nbformat": 4, "cells": [1]}', r"cells\.0: "),
        (
            '{"nbformat": 4, "cells": [{"cell_type": "code", "source": ""}]}',
            r"cells\.0\.metadata: Field required",
        ),
        (
            '{"nbformat": 4, "cells": [{"cell_type": "code", "metadata": {}, "source": ["a", 1]}]}',
            r"cells\.0\.source.*valid string",
        ),
    ],
)
def test_a_file_that_is_no_notebook_is_refused(tmp_path, text, reason):
    """Whatever is wrong with the file, the error names it, what is wrong, and how to mend it."""
    path = tmp_path / "mine.ipynb"
    path.write_text(text)
    with pytest.raises(
        ParameterError, match=rf"must be a notebook of format 4: {reason}.*\(in mine\.ipynb\)\. Open it in"
    ):
        read_notebook(str(path))


def test_a_file_that_is_not_text_is_refused(tmp_path):
    """Bytes that are no UTF-8 are an error that names the file."""
    path = tmp_path / "mine.ipynb"
    path.write_bytes(b"\xff\xfe")
    with pytest.raises(ParameterError, match=r"NOTEBOOK must be readable: .*utf-8.*\(in mine\.ipynb\)"):
        read_notebook(str(path))


def test_the_digest_covers_the_cells_and_not_their_outputs(tmp_path):
    """What is run makes the digest; a notebook that was opened, run and saved keeps it."""
    path = own_notebook(tmp_path, "a = 1", "print(a)")
    digest = read_notebook(str(path)).digest
    notebook = nbformat.read(path, as_version=4)
    notebook.cells[1].outputs = [nbformat.v4.new_output("stream", text="1")]
    nbformat.write(notebook, path)
    assert read_notebook(str(path)).digest == digest
    notebook.cells[1].cell_type = "raw"
    path.write_text(nbformat.writes(notebook).replace('"execution_count": null,', ""))
    assert read_notebook(str(path)).digest != digest


def test_defaults_that_somebody_changes_stay_what_they_are(tmp_path):
    """Each asker gets lists and mappings of its own."""
    path = str(own_notebook(tmp_path, "a = [1]"))
    read_notebook(path).defaults["a"].append(2)
    assert read_notebook(path).defaults == {"a": [1]}
