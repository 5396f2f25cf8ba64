"""A notebook as a file: what it declares and what it is, without running it, however odd the file."""

from __future__ import annotations

import json

import nbformat
import pytest
from tables import own_notebook

from prodkit.errors import ParameterError
from prodkit.settings import read_notebook


def test_the_parameters_cell_is_read_without_being_run(tmp_path):
    """Literals of any kind are found; nothing in the cell is executed."""
    cell = 'a = -1\nb: float = 2.5\nc = ["x", None]\nd: int\n"""a text"""\nprint("run")\ne = {"k": (True,)}'
    found = read_notebook(str(own_notebook(tmp_path, cell))).defaults
    assert found == {"a": -1, "b": 2.5, "c": ["x", None], "e": {"k": (True,)}}


def test_a_notebook_with_two_parameters_cells_is_refused(tmp_path):
    """At most one cell holds the parameters."""
    path = own_notebook(tmp_path, "a = 1", "b = 2")
    notebook = nbformat.read(path, as_version=4)
    for cell in notebook.cells:
        cell.metadata["tags"] = ["parameters"]
    nbformat.write(notebook, path)
    with pytest.raises(ParameterError, match=r"one tagged code cell, or none; found 2 .*Tag one cell"):
        read_notebook(str(path))


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
        ("[]", "it is none"),
        ('{"nbformat": 3, "worksheets": []}', "it is none"),
        ('{"nbformat": 4}', "cells must be of type list"),
        ('{"nbformat": 4, "cells": [1]}', "cell 1 must be of type dict"),
        ('{"nbformat": 4, "cells": [{"cell_type": "code"}]}', "metadata of cell 1 must be of type dict"),
        (
            '{"nbformat": 4, "cells": [{"cell_type": "code", "metadata": {}, "source": ["a", 1]}]}',
            "source of cell 1 must be of type str",
        ),
        (
            '{"nbformat": 4, "cells": [{"metadata": {"tags": null}, "source": ""}]}',
            "tags must be of type list",
        ),
        ('{"nbformat": 4, "cells": [{"metadata": {}, "source": ""}]}', "type of cell 1 must be of type str"),
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


@pytest.mark.parametrize("cell", ["a = ", "a = \0", "a = '\ud800'", "%matplotlib inline\na = 1", "(" * 5000])
def test_a_parameters_cell_that_is_no_python_is_refused(tmp_path, cell):
    """A cell that cannot be parsed is an error that names the notebook, not a crash."""
    path = own_notebook(tmp_path, "a = 1")
    path.write_text(path.read_text().replace('"a = 1"', json.dumps(cell)))
    with pytest.raises(ParameterError, match=r"(?s)parameters must be Python assignments: .*mine\.ipynb"):
        read_notebook(str(path))


def test_the_parameters_must_be_code(tmp_path):
    """Prose that is tagged `parameters` declares nothing: values would be injected after it."""
    path = own_notebook(tmp_path, "a = 1", "b = 2")
    notebook = nbformat.read(path, as_version=4)
    notebook.cells[0] = nbformat.v4.new_markdown_cell("a = 1", metadata={"tags": ["parameters"]})
    nbformat.write(notebook, path)
    with pytest.raises(ParameterError, match="one tagged code cell"):
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
