"""Values that people write: text stays text, numbers are what they look like, and nothing is made to fit."""

from __future__ import annotations

import ast
import json
import math
from datetime import datetime, timedelta
from typing import Any, Literal

import pytest
import yaml
from hypothesis import example, given
from hypothesis import strategies as st

from prodkit.evidence import Window
from prodkit.values import annotated_kind, as_kind, checked, literal_kind, read_text, read_yaml, require_plain

json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(min_size=1), inner, max_size=3),
    max_leaves=8,
)


def kind_of(annotation: str) -> Any:
    """What an annotation stands for."""
    return annotated_kind(ast.parse(annotation, mode="eval").body)


def in_file(text: str, kind: Any) -> Any:
    """What stands for a name in a params file."""
    return as_kind(read_yaml(f"name: {text}\n")["name"], kind)


# Annotations


def is_float(value: object) -> bool:
    """A whole number is one, a truth is none."""
    if type(value) is int:
        return abs(value) < 2**1000 and int(float(value)) == value
    return type(value) is float and math.isfinite(value)


# For each annotation, in the spellings that mean the same, what says whether a value is of it.
KINDS: list[tuple[str, Any]] = [
    ("int; 'int'; Annotated[int, Field(gt=0)]; Final[int]", lambda v: type(v) is int),
    ("float", is_float),
    ("str", lambda v: type(v) is str),
    ("bool", lambda v: type(v) is bool),
    ("None", lambda v: v is None),
    (
        "int | None; Optional[int]; typing.Optional[int]; Union[int, None]",
        lambda v: v is None or type(v) is int,
    ),
    ("float | str", lambda v: is_float(v) or type(v) is str),
    ("Literal['a', 'b']; t.Literal['a', 'b']", lambda v: v in ("a", "b")),
    ("Literal[1, True, None]", lambda v: v is None or v is True or (type(v) is int and v == 1)),
    (
        "list[str]; List[str]; Sequence[str]; collections.abc.Sequence[str]; tuple[str, ...]",
        lambda v: type(v) is list and all(type(each) is str for each in v),
    ),
    ("list; list[MyClass]; tuple", lambda v: type(v) is list),
    ("tuple[int, str]", lambda v: type(v) is list and [type(each) for each in v] == [int, str]),
    ("dict[str, float]; Mapping[str, float]", lambda v: type(v) is dict and all(map(is_float, v.values()))),
    ("dict; dict[str, Any]", lambda v: type(v) is dict),
    ("Any; object; MyClass; my.Class[3]; open('x'); Literal[x]; 1 + 1; '('; Path", lambda _: True),
    ("set[int]; bytes; frozenset; set", lambda _: False),
]
SAMPLES: list[Any] = ["", "a", "1", 0, 1, -7, 2**70, 2**53 + 1, 10**400, True, False, None, 0.0, 1.0, 0.5]
SAMPLES += [[], ["a"], ["a", 1], [1, "a"], [[1]], {}, {"a": 1}]


@pytest.mark.parametrize(("spellings", "is_of_it"), KINDS, ids=[spellings for spellings, _ in KINDS])
@given(drawn=json_values)
def test_a_value_is_of_the_kind_or_refused(spellings, is_of_it, drawn):
    """What is accepted stays what it is, or becomes a float that is equal where one is declared; nothing else is."""
    for spelling in spellings.split("; "):
        for value in [drawn, *SAMPLES]:
            if not is_of_it(value):
                with pytest.raises(ValueError, match=r"found|can be written"):
                    checked(value, kind_of(spelling))
                continue
            result = checked(value, kind_of(spelling))
            assert result == value
            assert type(result) is type(value) or (type(result), type(value)) == (float, int)


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


@given(json_values)
def test_what_json_holds_is_plain(value):
    """Texts, finite numbers, truths, None, lists and mappings of these."""
    assert require_plain(value) is None


@pytest.mark.parametrize(
    "value", [(1,), {1}, b"x", {1: "a"}, 1j, object(), [{"a": {2}}], "\ud800", {"\udc80": 1}]
)
def test_what_json_does_not_hold_is_not_plain(value):
    """Anything else is refused, however deep it lies."""
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
@example("Optional[int, str]")
@example("Literal[[1]]")
def test_no_annotation_is_an_error(text):
    """Whatever Python takes for an expression is a kind: in the worst case, anything goes."""
    try:
        kind = annotated_kind(ast.parse(text.strip(), mode="eval").body)
    except SyntaxError:
        return
    for value in ("a", 1, [1]):
        try:
            assert checked(value, kind) == value
        except ValueError as error:
            assert "found" in str(error)  # noqa: PT017  # either is right


# Words

TRAPS = "00123 123e4567 1e3 1_000 true no on y 2024-02-01 1:30 0o17 0x1F 08 .nan .inf -.INF nan"
TRAPS += " 1. +1 -0 = 1.50 Null null ~ <<"
words = st.from_regex(r"[A-Za-z0-9_.+~=<][A-Za-z0-9_.+=-]{0,8}", fullmatch=True) | st.sampled_from(
    TRAPS.split()
)


@given(words)
def test_a_word_arrives_as_it_was_written_where_text_is_declared(word):
    """No id becomes a number, no country False, no version another one: alone, in lists, in mappings, behind -p."""
    assert in_file(word, str) == read_text(word, str) == read_text(word, str | None) == word
    assert in_file(f"[{word}, 'x']", list[str]) == read_text(f"[{word}, 'x']", list[str]) == [word, "x"]
    assert in_file(f"{{k: {word}}}", dict[str, str]) == {"k": word}
    for kind in (Window, datetime, timedelta):
        assert in_file(word, kind) == word


@given(st.text())
@example("!0")
def test_any_text_survives_a_file_and_the_command(text):
    """A file that quotes a text gives it back; a text parameter takes what was typed, quotes, brackets and all."""
    document = read_yaml(yaml.safe_dump({"name": [text], text or "k": text}))
    assert as_kind(document["name"], list[str]) == [text]
    assert as_kind(document[text or "k"], str) == as_kind(document[text or "k"], str | None) == text
    for kind in (str, str | None, Literal["a"], timedelta, datetime | None):
        assert read_text(text, kind) == text
    number = text.isascii() and text.lstrip("+-").isdigit()
    assert read_text(text, str | int) in (text, *([int(text)] if number else []))


@pytest.mark.parametrize("text", ["!0", "[!x 1]", "&a [*a]", "{a: 1, a: 2}", "[yes]", "[", "'x"])
def test_what_is_no_plain_yaml_is_text_where_text_is_declared_too(text):
    """Where a text or a list may be given, what cannot be read as a list is the text that was typed."""
    assert read_text(text, str | list[Any] | dict[str, Any]) == text


@pytest.mark.parametrize(
    ("text", "kind", "value"),
    [
        *[("3", int, 3), ("-3", int, -3), ("1_000", int, 1000), ("0o17", int, 15), ("0x1F", int, 31)],
        *[("3", float, 3.0), ("1e3", float, 1000.0), (".5", float, 0.5), ("1_000.5", float, 1000.5)],
        *[
            ("yes", bool, True),
            ("Off", bool, False),
            ("null", int | None, None),
            ("~", list[int] | None, None),
        ],
        *[("[1, 2]", list[int], [1, 2]), ("[1, [2, x]]", tuple[int, tuple[int, str]], [1, [2, "x"]])],
        *[("{a: 1, b: 1e-3}", dict[str, float], {"a": 1.0, "b": 0.001}), ("1", Literal["1", 1], "1")],
        *[("5", int | str, 5), ("00123", int | str, "00123"), ("1_000", int | str, "1_000")],
        *[("123e4567", float | str, "123e4567"), ("0.10", float | str, 0.1), ("2", Literal[1, 2], 2)],
        *[("yes", bool | str, "yes"), ("true", bool | str, True), ("on", Literal["on", "off"], "on")],
        ("{a: {b: 2}}", str | dict[str, dict[str, float]], {"a": {"b": 2.0}}),
        *[("a", str | dict[str, float], "a"), ("2024", str | Any, "2024"), ("[2024]", str | Any, [2024])],
        ("!!str 5", list[str] | int, "5"),
    ],
)
def test_a_value_is_read_as_the_declared_kind(text, kind, value):
    """The same text is another value under another declaration, the same in a file and behind -p."""
    for result in (in_file(text, kind), read_text(text, kind)):
        assert (result, type(result)) == (value, type(value))


@pytest.mark.parametrize(
    ("kind", "texts"),
    [
        (int, "00123;1:30;1e3;1.0;yes;'3';null;0b2;;१;1__0"),
        (float, "1:30.5;.nan;.inf;1e999;010;'1.5';true;1,5;_1"),
        (bool, "1;y;'true';tRUE"),
        (int | None, "'';none;x"),
        (list[int], "1;[a];[01];{a: 1}"),
        (Literal[1, 2], "01;'1';true;3"),
        (dict[str, float], "[1];{a: b};{a: .inf}"),
    ],
)
def test_what_does_not_fit_is_left_to_be_refused(kind, texts):
    """Nothing is made to fit: what was written is not of its kind."""
    for text in texts.split(";"):
        for reader in (in_file, read_text):
            with pytest.raises(ValueError, match="found"):
                checked(reader(text, kind), kind)


@given(st.from_regex(r"[-+]?[0-9_oxb]{1,7}", fullmatch=True))
@example("010")
def test_a_whole_number_is_pythons_or_none(word):
    """An integer is what Python reads there, or the word is refused: never an octal in disguise."""
    for result in (in_file(word, int), read_text(word, int)):
        assert result == word or result == int(word, 0)
        assert (type(result) is int) == (result != word)


@given(json_values)
def test_json_is_read_as_json_where_nothing_is_declared(value):
    """Quoted texts, numbers in any notation, truths and nulls, nested, are what they are in JSON."""
    text = json.dumps(value)
    assert repr(in_file(text, Any)) == repr(read_text(text, Any)) == repr(value)


@pytest.mark.parametrize(
    ("word", "value"),
    [
        *[("1e3", 1000.0), ("1e-3", 0.001), ("12", 12), ("-0.5", -0.5)],
        *[("true", True), ("~", None), ("null", None)],
        *(
            (word, word)
            for word in ["00123", "1:30", "123e4567", "2024-02-01", "y", "nan", "1.2.3", "=", "08"]
        ),
    ],
)
def test_a_word_without_declaration_is_what_it_looks_like(word, value):
    """Numbers are numbers, and what only YAML 1.1 took for one is the text that people meant."""
    assert in_file(word, Any) == in_file(f"[{word}]", list[Any])[0] == value


@pytest.mark.parametrize(
    "word", ["yes", "No", "ON", "off", "1_000", "0x1F", "0b11", ".nan", "-.Inf", "1.0e+999"]
)
def test_a_word_that_can_be_read_in_two_ways_is_refused(word):
    """Where nothing says which is meant, the error says how to write it."""
    for text in (word, f"[{word}]", f"{{a: {word}}}"):
        with pytest.raises(ValueError, match=r"must be plain; found .*: write .*, or put it in quotes"):
            in_file(text, Any)
    assert in_file(f"'{word}'", Any) == word


# Documents


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a: 1\nb: 2\na: 3", "must give each name once; found a again in line 3"),
        ("a: 1\n? [x]\n: 2", "must have names that are text"),
        ("?\n: 2", "must have names that are text; found 'nothing'"),
        ("<<: 3", "must merge mappings only"),
        ("&x\na: 1\n<<: *x", "must not refer to itself"),
        ("&a [*a]", "must not refer to itself"),
        ("[" * 3000 + "]" * 3000, "nor be nested so deeply|must be YAML"),
        ("!!python/name:os.system ''", "must be plain; found the tag"),
        *[
            ("!!set {a}", "found the tag !!set"),
            ("!x 1", "found the tag !x"),
            ("!!int '3'", "found the tag !!int"),
        ],
        ("a: [1", "must be YAML: "),
    ],
)
def test_a_document_that_is_not_plain_is_refused(text, message):
    """Tags, circles, abysses, and names that are given twice, since one of the two values would be lost."""
    with pytest.raises(ValueError, match=message):
        read_yaml(text)


def test_merged_mappings_give_way_to_what_is_said():
    """``<<`` brings the names of others; own ones win, then the earlier."""
    text = "a: &a {x: 1, y: 1}\nb: &b {x: 2, z: 2}\nc: {y: 3, <<: [*a, *b]}\n"
    assert as_kind(read_yaml(text)["c"], dict[str, int]) == {"x": 1, "y": 3, "z": 2}


def test_an_empty_value_is_nothing():
    """A name with nothing behind it gives None, which is refused where text is declared; an empty text is quoted."""
    assert in_file("", str) is None
    assert in_file("", str | None) is None
    assert in_file("null", str | None) is None
    assert in_file("''", str | None) == ""
