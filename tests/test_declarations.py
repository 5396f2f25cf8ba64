"""The parameters cell: every name is found with what it may be, and nothing is run."""

from __future__ import annotations

from typing import Any

import pytest

from prodkit.errors import ParameterError
from prodkit.settings import NO_DEFAULT, NOT_LITERAL, declarations


def read(source: str) -> dict[str, Any]:
    """The declarations of a cell."""
    return declarations(source, place="mine.ipynb")


def test_names_and_defaults_are_found_without_running_the_cell():
    """Literals are defaults; what only the notebook can compute is known by name."""
    cell = (
        "import os\nfrom datetime import date\na = -1\nb: float = 2.5\nc = ['x', None]\nd: int\n'''a text'''\n"
        "print('run')\ne = {'k': (True,)}\nf = dict(a=1)\ng = 'a' + 'b'\nh = f'{a}'\ni: date = date(2024, 1, 1)\n"
        "j = open('secret').read()\nos.environ['X'] = '1'\n"
    )
    found = {name: each.default for name, each in read(cell).items()}
    literal = {"a": -1, "b": 2.5, "c": ["x", None], "e": {"k": (True,)}}
    assert found == literal | {"d": NO_DEFAULT} | dict.fromkeys("fghij", NOT_LITERAL)
    assert read(cell)["f"].kind is Any


def test_several_names_in_one_assignment():
    """Chains and unpacking declare each name; the last assignment counts, and an annotation stays."""
    found = read("a = b = 1\n(c, [d, e]), f = (2, ['x', None]), 0.5\na: int = 3\na = 4\ng = 1\ng += 1\n")
    assert {name: each.default for name, each in found.items()} == {
        **{"a": 4, "b": 1, "c": 2, "d": "x", "e": None, "f": 0.5, "g": NOT_LITERAL}
    }
    assert (found["a"].annotation, found["b"].annotation) == ("int", "")


@pytest.mark.parametrize(
    "line", ["a, b = pair", "a, *b = 1, 2", "a, b = 1, 2, 3", "(a, b), c = (1,), 2", "a, b = *x, 1"]
)
def test_names_that_cannot_be_told_are_refused(line):
    """The error names the names, the notebook, the line, and what to write instead."""
    with pytest.raises(
        ParameterError,
        match=r"must be assigned one by one \(in mine\.ipynb, line 2\)\. Write one name a line",
    ):
        read(f"x = 1\n{line}\n")


def test_a_default_of_none_allows_none():
    """What the notebook itself sets may be given, whatever is annotated; otherwise the annotation is the law."""
    found = read("a: list[str] = None\nb: None = None\nc: int = 1")
    assert found["a"].kind == list[str] | None
    assert found["c"].kind is int


def test_the_comment_says_what_a_parameter_means():
    """It stands behind the value, also behind one of several lines, and not in it."""
    found = read('a = 1  # days, of a week\nb = [\n    "é#x",\n]  # names\nc = "# no"\n# of nothing\nd = 2\n')
    assert {name: each.meaning for name, each in found.items()} == {
        **{"a": "days, of a week", "b": "names", "c": "", "d": ""}
    }


def test_odd_line_ends_do_not_shift_the_comments():
    """Only what ends a line of Python does so here."""
    found = read('a = "x\u2028y"  # first\r\nb = """\x0c\n"""  # second\rc = 3  # third')
    assert [each.meaning for each in found.values()] == ["first", "second", "third"]
