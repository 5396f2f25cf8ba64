"""Reading what was written: declared text stays text, numbers are what they look like, traps are refused."""

from __future__ import annotations

import json
from datetime import datetime, timedelta
from typing import Any, Literal

import pytest
import yaml
from hypothesis import example, given
from hypothesis import strategies as st

from prodkit.evidence import Window
from prodkit.settings import checked, read_node, read_text, written_mapping

TRAPS = [
    *(
        "00123",
        "123e4567",
        "1e3",
        "1_000",
        "true",
        "no",
        "on",
        "y",
        "2024-02-01",
        "1:30",
        "0o17",
        "0x1F",
        "08",
    ),
    *(".nan", ".inf", "-.INF", "nan", "1.", "+1", "-0", "=", "1.50", "Null", "null", "~", "<<"),
]
words = st.from_regex(r"[A-Za-z0-9_.+~=<][A-Za-z0-9_.+=-]{0,8}", fullmatch=True) | st.sampled_from(TRAPS)


def in_file(text: str, kind: Any) -> Any:
    """What stands for a name in a params file."""
    return read_node(written_mapping(f"name: {text}\n")["name"], kind)


@given(words)
def test_a_word_arrives_as_it_was_written_where_text_is_declared(word):
    """No id becomes a number, no country False, no version another one: alone, in lists, in mappings, behind -p."""
    assert in_file(word, str) == read_text(word, str) == read_text(word, str | None) == word
    assert in_file(f"[{word}, 'x']", list[str]) == read_text(f"[{word}, 'x']", list[str]) == [word, "x"]
    assert in_file(f"{{k: {word}}}", dict[str, str]) == {"k": word}
    assert in_file(f"\n  - {word}", list[str]) == [word]
    assert in_file(word, Window) == in_file(word, datetime) == in_file(word, timedelta) == word


@given(st.text())
def test_any_text_survives_quoting(text):
    """Whatever a text holds, a file that quotes it gives it back."""
    node = written_mapping(yaml.safe_dump({"name": [text], text or "k": text}))
    assert read_node(node["name"], list[str]) == [text]
    assert read_node(node[text or "k"], str) == text
    assert read_node(node[text or "k"], str | None) == text


@given(st.text())
@example("!0")
def test_any_text_survives_the_command(text):
    """A text parameter takes what was typed, quotes, brackets and all; so does one that may be a number, too."""
    for kind in (str, str | None, Literal["a"], timedelta, datetime | None):
        assert read_text(text, kind) == text
    assert read_text(text, str | int) in (
        text,
        *([int(text)] if text.isascii() and text.lstrip("+-").isdigit() else []),
    )


@pytest.mark.parametrize("text", ["!0", "[!x 1]", "&a [*a]", "{a: 1, a: 2}", "[yes]", "[", "'x"])
def test_what_is_no_plain_yaml_is_text_where_text_is_declared_too(text):
    """Where a text or a list may be given, what cannot be read as a list is the text that was typed."""
    assert read_text(text, str | list[Any] | dict[str, Any]) == text


@pytest.mark.parametrize(
    ("text", "kind", "value"),
    [
        ("3", int, 3),
        ("-3", int, -3),
        ("1_000", int, 1000),
        ("0o17", int, 15),
        ("0x1F", int, 31),
        ("3", float, 3.0),
        ("1e3", float, 1000.0),
        (".5", float, 0.5),
        ("1_000.5", float, 1000.5),
        ("yes", bool, True),
        ("Off", bool, False),
        ("null", int | None, None),
        ("~", list[int] | None, None),
        ("[1, 2]", list[int], [1, 2]),
        ("[1, [2, x]]", tuple[int, tuple[int, str]], [1, [2, "x"]]),
        ("{a: 1, b: 1e-3}", dict[str, float], {"a": 1.0, "b": 0.001}),
        ("5", int | str, 5),
        ("00123", int | str, "00123"),
        ("1_000", int | str, "1_000"),
        ("123e4567", float | str, "123e4567"),
        ("0.10", float | str, 0.1),
        ("yes", bool | str, "yes"),
        ("true", bool | str, True),
        ("on", Literal["on", "off"], "on"),
        ("2", Literal[1, 2], 2),
        ("1", Literal["1", 1], "1"),
        ("{a: {b: 2}}", str | dict[str, dict[str, float]], {"a": {"b": 2.0}}),
        ("a", str | dict[str, float], "a"),
        ("2024", str | Any, "2024"),
        ("[2024]", str | Any, [2024]),
        ("!!str 5", list[str] | int, "5"),
    ],
)
def test_a_value_is_read_as_the_declared_kind(text, kind, value):
    """The same text is another value under another declaration, the same in a file and behind -p."""
    for found in (in_file(text, kind), read_text(text, kind)):
        assert (found, type(found)) == (value, type(value))


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        *(
            (text, int)
            for text in ("00123", "1:30", "1e3", "1.0", "yes", "'3'", "null", "0b2", "", "१", "1__0")
        ),
        *((text, float) for text in ("1:30.5", ".nan", ".inf", "1e999", "010", "'1.5'", "true", "1,5", "_1")),
        *((text, bool) for text in ("1", "y", "'true'", "tRUE")),
        *((text, int | None) for text in ("''", "none", "x")),
        *((text, list[int]) for text in ("1", "[a]", "[01]", "{a: 1}")),
        *((text, Literal[1, 2]) for text in ("01", "'1'", "true", "3")),
        *((text, dict[str, float]) for text in ("[1]", "{a: b}", "{a: .inf}")),
    ],
)
def test_what_does_not_fit_is_left_to_be_refused(text, kind):
    """Nothing is made to fit: what was written is found not to be of its kind."""
    for reader in (in_file, read_text):
        with pytest.raises(ValueError, match="found"):
            checked(reader(text, kind), kind)


@given(st.from_regex(r"[-+]?[0-9_oxb]{1,7}", fullmatch=True))
@example("010")
def test_a_whole_number_is_pythons_or_none(word):
    """An integer is what Python reads there, or the word is refused: never an octal in disguise."""
    for found in (in_file(word, int), read_text(word, int)):
        assert found == word or found == int(word, 0)
        assert (type(found) is int) == (found != word)


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(min_size=1), inner),
    max_leaves=10,
)


@given(json_values)
def test_json_is_read_as_json_where_nothing_is_declared(value):
    """Quoted texts, numbers in any notation, truths and nulls, nested, are what they are in JSON."""
    text = json.dumps(value)
    assert repr(in_file(text, Any)) == repr(value)
    assert repr(read_text(text, Any)) == repr(value)


@pytest.mark.parametrize(
    ("word", "value"),
    [
        *[
            ("1e3", 1000.0),
            ("1e-3", 0.001),
            ("12", 12),
            ("-0.5", -0.5),
            ("true", True),
            ("~", None),
            ("null", None),
        ],
        *(
            (word, word)
            for word in ("00123", "1:30", "123e4567", "2024-02-01", "y", "nan", "1.2.3", "=", "08")
        ),
    ],
)
def test_a_word_without_declaration_is_what_it_looks_like(word, value):
    """Numbers are numbers, and what only YAML 1.1 took for one is the text that people meant."""
    assert in_file(word, Any) == in_file(f"[{word}]", list[Any])[0] == value


@pytest.mark.parametrize(
    "word", ["yes", "No", "ON", "off", "1_000", "0x1F", "0b11", ".nan", ".inf", "-.Inf", "1.0e+999"]
)
def test_a_word_that_can_be_read_in_two_ways_is_refused(word):
    """Where nothing says which is meant, the error says how to write it."""
    for written in (word, f"[{word}]", f"{{a: {word}}}"):
        with pytest.raises(ValueError, match=r"must be plain; found .*: write .*, or put it in quotes"):
            in_file(written, Any)
    assert in_file(f"'{word}'", Any) == word


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("- a", "must be a mapping of names to values; found a list"),
        ("a", "must be a mapping of names to values; found 'a'"),
        ("a: 1\nb: 2\na: 3", "must give each name once; found a again in line 3"),
        ("a: 1\n? [x]\n: 2", "must have names that are text"),
        ("?\n: 2", "must have names that are text; found 'nothing'"),
        ("<<: 3", "must merge mappings only"),
        ("&x\na: 1\n<<: *x", "must not refer to itself"),
    ],
)
def test_a_mapping_that_is_none_is_refused(text, message):
    """A name that is given twice is no trifle: one of the two values would be lost."""
    with pytest.raises(ValueError, match=message):
        written_mapping(text)


@pytest.mark.parametrize(
    "text",
    ["&a [*a]", "[" * 3000 + "]" * 3000, "!!python/name:os.system ''", "!!set {a}", "!x 1", "!!int '3'"],
)
@pytest.mark.parametrize("kind", [Any, int, list[Any]])
def test_what_is_not_plain_is_refused(text, kind):
    """Tags, circles and abysses are errors that say so."""
    with pytest.raises(
        ValueError, match=r"must not refer to itself|must be plain; found the tag|must be YAML"
    ):
        read_text(text, kind)


def test_merged_mappings_give_way_to_what_is_said():
    """``<<`` brings the names of others; own ones win, then the earlier."""
    text = "a: &a {x: 1, y: 1}\nb: &b {x: 2, z: 2}\nc: {y: 3, <<: [*a, *b]}\n"
    assert read_node(written_mapping(text)["c"], dict[str, int]) == {"x": 1, "y": 3, "z": 2}


def test_an_empty_value_is_nothing():
    """A name with nothing behind it gives None, which is refused where text is declared; an empty text is quoted."""
    assert in_file("", str) is None
    assert in_file("", str | None) is None
    assert in_file("null", str | None) is None
    assert in_file("''", str | None) == ""
