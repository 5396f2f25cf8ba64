"""Annotations: which stand for what, and that a value is of its kind or refused, never made to fit."""

from __future__ import annotations

import ast
import math
from contextlib import suppress
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from prodkit.settings import annotated_kind, checked, literal_kind, require_plain


def kind_of(annotation: str) -> Any:
    """What an annotation stands for."""
    return annotated_kind(ast.parse(annotation, mode="eval").body)


def is_float(value: object) -> bool:
    """A whole number is one, a truth is none."""
    if type(value) is int:
        return abs(value) < 2**1000 and int(float(value)) == value
    return type(value) is float and math.isfinite(value)


# For each annotation, in the spellings that mean the same, what says whether a value is of it.
KINDS: list[tuple[list[str], Any]] = [
    (["int", "'int'", "Annotated[int, Field(gt=0)]", "Final[int]"], lambda v: type(v) is int),
    (["float"], is_float),
    (["str"], lambda v: type(v) is str),
    (["bool"], lambda v: type(v) is bool),
    (["None"], lambda v: v is None),
    (
        ["int | None", "Optional[int]", "typing.Optional[int]", "Union[int, None]"],
        lambda v: v is None or type(v) is int,
    ),
    (["float | str"], lambda v: is_float(v) or type(v) is str),
    (["Literal['a', 'b']", "t.Literal['a', 'b']"], lambda v: v in ("a", "b")),
    (["Literal[1, True, None]"], lambda v: v is None or v is True or (type(v) is int and v == 1)),
    (
        ["list[str]", "List[str]", "Sequence[str]", "collections.abc.Sequence[str]", "tuple[str, ...]"],
        lambda v: type(v) is list and all(type(each) is str for each in v),
    ),
    (["list", "list[MyClass]", "tuple"], lambda v: type(v) is list),
    (["tuple[int, str]"], lambda v: type(v) is list and [type(each) for each in v] == [int, str]),
    (
        ["dict[str, float]", "Mapping[str, float]"],
        lambda v: type(v) is dict and all(map(is_float, v.values())),
    ),
    (["dict", "dict[str, Any]"], lambda v: type(v) is dict),
    (
        ["Any", "object", "MyClass", "my.Class[3]", "open('x')", "Literal[x]", "1 + 1", "'('", "Path"],
        lambda _: True,
    ),
    (["set[int]", "bytes", "frozenset", "set"], lambda _: False),
]
SAMPLES = [
    "",
    "a",
    "1",
    0,
    1,
    -7,
    2**70,
    2**53 + 1,
    10**400,
    True,
    False,
    None,
    0.0,
    1.0,
    0.5,
    [],
    ["a"],
    ["a", 1],
    [1, "a"],
    [[1]],
    {},
    {"a": 1},
]
plain = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=6,
)


@pytest.mark.parametrize(
    ("spellings", "is_of_it"), KINDS, ids=lambda each: each[0] if isinstance(each, list) else ""
)
@given(drawn=plain)
def test_a_value_is_of_the_kind_or_refused(spellings, is_of_it, drawn):
    """What is accepted stays what it is, or becomes a float that is equal where one is declared; nothing else is."""
    for spelling in spellings:
        for value in [drawn, *SAMPLES]:
            if not is_of_it(value):
                with pytest.raises(ValueError, match=r"found|can be written"):
                    checked(value, kind_of(spelling))
                continue
            found = checked(value, kind_of(spelling))
            assert found == value
            assert type(found) is type(value) or (type(found), type(value)) == (float, int)


@pytest.mark.parametrize(
    ("annotation", "good", "bad"),
    [
        ("date", ["2024-02-01"], ["2024-02-30", "1.2.2024", "", "2024-02-01T10:00"]),
        ("datetime.date", ["2024-02-01"], ["soon"]),
        ("datetime", ["2024-02-01", "2024-02-01T10:00", "2024-02-01 10:00:00+01:00"], ["10:00", "tomorrow"]),
        ("dt.datetime | None", ["2024-02-01", None], ["never"]),
        ("timedelta", ["14d", "36h", "1.5d"], ["14", "P1D", "-1d"]),
    ],
)
def test_moments_stay_iso_text(annotation, good, bad):
    """A date, a moment or a length of time is passed as the text that it was given as, after it was read."""
    for text in good:
        assert checked(text, kind_of(annotation)) == text
    for text in [*bad, 20240201, 1.5]:
        with pytest.raises(ValueError, match="found"):
            checked(text, kind_of(annotation))


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("annotation", ["float", "float | None", "list[float]", "dict[str, float]"])
def test_nan_and_infinity_are_refused(annotation, value):
    """Strict JSON knows neither, wherever they stand."""
    where = {"list[float]": [1.0, value], "dict[str, float]": {"a": value}}.get(annotation, value)
    with pytest.raises(ValueError, match="finite"):
        checked(where, kind_of(annotation))
    with pytest.raises(ValueError, match="numbers must be finite; found"):
        require_plain([{"a": where}])


@given(plain)
def test_what_json_holds_is_plain(value):
    """Texts, finite numbers, truths, None, lists and mappings of these."""
    require_plain(value)


@pytest.mark.parametrize(
    "value", [(1,), {1}, b"x", {1: "a"}, 1j, object(), [{"a": {2}}], "\ud800", {"\udc80": 1}]
)
def test_what_json_does_not_hold_is_not_plain(value):
    """Anything else is refused by name, however deep it lies."""
    with pytest.raises(ValueError, match="found"):
        require_plain(value)


@pytest.mark.parametrize(
    ("default", "good", "bad"),
    [
        (1, [2], [2.5, True, "2", None]),
        (1.5, [2, 2.5], [True, "2"]),
        ("a", ["2"], [2, None]),
        (True, [False], [0, "false"]),
        ([1], [["a"], []], [(1,), "a"]),
        ({"a": 1}, [{}, {"b": [1]}], [[1]]),
        (None, [None, 1, "a", [1], {}], []),
        ((1, 2), [[1], []], ["ab"]),
        ({1}, [], [[1], {}, "a"]),
    ],
)
def test_without_annotation_the_default_says_the_kind(default, good, bad):
    """A number stands for numbers, and None for anything."""
    for value in good:
        assert checked(value, literal_kind(default)) == value
    for value in bad:
        with pytest.raises(ValueError, match=r"found|can be written"):
            checked(value, literal_kind(default))


@given(st.text(alphabet="abintsrLe[]|, '\"().0", max_size=20))
def test_no_annotation_is_an_error(text):
    """Whatever Python takes for an expression is a kind: in the worst case, anything goes."""
    try:
        expression = ast.parse(text.strip(), mode="eval").body
    except SyntaxError:
        return
    for value in SAMPLES:
        with suppress(ValueError):
            checked(value, kind_of(ast.unparse(expression)))
