"""Redaction: no disguise of a secret stays, nothing else is touched, and what was JSON or a picture still is."""

from __future__ import annotations

import base64
import html
import json
import pprint
import re
import urllib.parse
from typing import Any

import nbformat
import pandas as pd
import pytest
from hypothesis import assume, example, given, settings
from hypothesis import strategies as st

from prodkit.decisions.result import escape
from prodkit.redaction import SHORTEST, Redaction, is_common, references

CANARY = "c4nary-\"q'/ü+b\\n&% é"
values = st.text(min_size=SHORTEST, max_size=30).filter(
    lambda text: len(text.replace("\\", "").strip()) >= SHORTEST
)


def coloured(text: str) -> str:
    """As IPython's tracebacks colour it: in the middle of everything."""
    return (
        "\x1b[0;31m" + "\x1b[0m\x1b[1;32m".join(text[n : n + 3] for n in range(0, len(text), 3)) + "\x1b[0m"
    )


DISGUISES: dict[str, Any] = {
    "plain": str,
    "json": json.dumps,
    "json with its characters": lambda text: json.dumps(text, ensure_ascii=False),
    "json in json": lambda text: json.dumps(json.dumps({"a": text})),
    "repr": repr,
    "ascii": ascii,
    "repr of a repr": lambda text: repr(repr([text])),
    "bytes": lambda text: repr(text.encode()),
    "pprint": lambda text: pprint.pformat({"a": [text]}, width=10_000),
    "quote": urllib.parse.quote,
    "quote, all of it": lambda text: urllib.parse.quote(text, safe=""),
    "quote_plus": urllib.parse.quote_plus,
    "quote in small letters": lambda text: re.sub(r"%..", lambda m: m[0].lower(), urllib.parse.quote(text)),
    "SQLAlchemy's URL": lambda text: re.sub(r"[:@/]", lambda m: f"%{ord(m[0]):X}", text),
    "html": html.escape,
    "html, quotes left": lambda text: html.escape(text, quote=False),
    "Markdown of a result": lambda text: escape(text) if text.split() == [text] else text,
    "colours": coloured,
    "colours in json": lambda text: json.dumps(coloured(text)),
    "capitals": str.upper,
    "small letters": str.lower,
    "quoted twice": lambda text: urllib.parse.quote(urllib.parse.quote(text, safe="")),
    "html in json": lambda text: json.dumps(html.escape(text)),
}


def found_in(text: str, secret: str) -> list[str]:
    """The disguises in which a secret stands in a text."""
    return [name for name, disguise in DISGUISES.items() if disguise(secret).strip("\"'b[]{}a: ") in text]


@pytest.mark.parametrize("name", DISGUISES)
@settings(deadline=None, max_examples=30)
@given(secret=values, before=st.text(max_size=10), after=st.text(max_size=10))
@example(secret=CANARY, before="", after="")
@example(secret='abcde"', before="x", after="y")
@example(secret="abc\\\\\\défg\\", before="\\", after="\\")
@example(secret="p%2Fss", before="%", after="%")
@example(secret="line one of it\nline two of it", before="", after="")
def test_no_disguise_stays(name, secret, before, after):
    """However a program writes the value down, its name stands there instead, and what is around it stays."""
    assume(secret not in before + after and not is_common(secret))
    disguised = DISGUISES[name](secret)
    shown = Redaction({"TOKEN": secret}).text(f"{before}<{disguised}>{after}")
    assert "${TOKEN}" in shown
    assert secret not in shown
    if len(disguised) >= SHORTEST and disguised.strip("\"'") == secret:
        assert shown == f"{before}<{disguised.replace(secret, '${TOKEN}')}>{after}"


@given(
    secret=st.text(st.characters(codec="ascii", categories=["L", "N"]), min_size=9, max_size=40),
    padding=st.binary(max_size=7),
)
def test_base64_base32_and_hexadecimal_digits_are_found_wherever_they_begin(secret, padding):
    """A header `Basic dXNlcjpwYXNz` holds the password as well as `user:pass` does."""
    hidden = padding + secret.encode() + padding
    redaction = Redaction({"TOKEN": secret})
    for encoded in (
        base64.b64encode(hidden),
        base64.urlsafe_b64encode(hidden),
        base64.encodebytes(hidden),
        hidden.hex().encode(),
        hidden.hex(" ").upper().encode(),
        hidden.hex(":", 2).encode(),
        base64.b32encode(hidden),
        base64.b32encode(hidden).lower(),
    ):
        shown = redaction.text(f"Authorization: {encoded.decode()} ends")
        assert "${TOKEN}" in shown
        assert shown.endswith(" ends")


@given(st.text(st.characters(exclude_characters="$c4nary"), max_size=200))
def test_other_text_stays_what_it_is(text):
    """What holds no secret is not touched, to the character."""
    redaction = Redaction({"TOKEN": CANARY})
    assert redaction.text(text) == text
    assert redaction.document({"a": [text, 1, None, True, 0.5]}) == {"a": [text, 1, None, True, 0.5]}


json_values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False)
    | st.text()
    | st.sampled_from([CANARY, f"x{CANARY}y"]),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(st.text(max_size=5) | st.just(CANARY), inner, max_size=4)
    ),
    max_leaves=20,
)


@settings(deadline=None, max_examples=50)
@given(json_values, st.sampled_from([None, 1, 2]), st.booleans(), values)
def test_json_stays_json(document, indent, ascii_only, other):
    """A saved notebook without its secrets can be opened, and says the same but for them."""
    text = json.dumps([document, CANARY, other], indent=indent, ensure_ascii=ascii_only) + "\n"
    redaction = Redaction({"TOKEN": CANARY, "OTHER": other})
    shown = redaction.text(text)
    assert json.loads(shown) == redaction.document([document, CANARY, other])
    assert CANARY not in str(json.loads(shown))
    assert shown.endswith("\n")


def test_a_quote_that_ends_a_secret_does_not_end_the_text():
    """A secret that reads like the end of a JSON text does not tear it apart."""
    assert json.loads(Redaction({"TOKEN": 'abcde"'}).text('{"a": "abcde", "b": "abcde\\"!"}')) == {
        "a": "abcde",
        "b": "${TOKEN}!",
    }


def test_a_notebook_stays_a_notebook():
    """Sources, streams, errors, tables, pictures, metadata: as the same kind of node, the original untouched."""
    picture = base64.b64encode(b"\x89PNG tEXt" + CANARY.encode() + b"IEND").decode()
    outputs = [
        nbformat.v4.new_output("stream", name="stderr", text=f"before\n{CANARY}\nafter\n"),
        nbformat.v4.new_output(
            "error",
            ename="ValueError",
            evalue=CANARY,
            traceback=[coloured(f"ValueError: {CANARY}"), repr(CANARY)],
        ),
        nbformat.v4.new_output(
            "display_data",
            {"text/html": html.escape(CANARY), "image/png": picture, "application/json": {CANARY: CANARY}},
        ),
    ]
    notebook = nbformat.v4.new_notebook(
        cells=[nbformat.v4.new_code_cell(f"x = {CANARY!r}", outputs=outputs)], metadata={"a": CANARY}
    )
    kept = json.dumps(notebook)
    redaction = Redaction({"TOKEN": CANARY})
    shown = redaction.document(notebook)
    assert (type(shown), json.dumps(notebook)) == (type(notebook), kept)
    nbformat.validate(shown)
    assert shown.cells[0].outputs[0].text == "before\n${TOKEN}\nafter\n"
    assert shown.cells[0].source == "x = '${TOKEN}'"
    assert shown.cells[0].outputs[2].data["application/json"] == {"${TOKEN}": "${TOKEN}"}
    saved = nbformat.v4.nbjson.writes(notebook)  # as it stands on disk: texts are lists of their lines
    for text in (json.dumps(shown), redaction.text(saved)):
        assert found_in(text, CANARY) == []
        nbformat.validate(nbformat.reads(text, as_version=4))
    assert re.fullmatch(r"iVBO.*\$\{TOKEN\}.{1,12}", shown.cells[0].outputs[2].data["image/png"])


def test_a_secret_that_streams_cut_in_two_is_found():
    """What a cell wrote in pieces to one stream is one output, as a reader sees it."""
    pieces = [("stdout", "it is sword"), ("stdout", "fish\n"), ("stderr", "sword"), ("stdout", "fish")]
    outputs = [nbformat.v4.new_output("stream", name=name, text=text) for name, text in pieces]
    outputs[1].text = ["fi", "sh\n"]  # as it stands on disk
    shown = Redaction({"TOKEN": "swordfish"}).document({"outputs": outputs})["outputs"]
    assert [each.text for each in shown] == ["it is ${TOKEN}\n", "sword", "fish"]


@pytest.mark.parametrize(
    "word", ["outputs", "metadata", "completed", "Metadata", "cell_type", "features", "put_typ"]
)
def test_a_value_that_is_a_word_of_the_format_destroys_no_record(word):
    """Keys and enumerations are never touched; whoever is given such a value can tell, and refuses it."""
    cell = nbformat.v4.new_code_cell("x", outputs=[nbformat.v4.new_output("stream", text="completed")])
    notebook = nbformat.v4.new_notebook(cells=[cell], metadata={"papermill": {"status": "completed"}})
    record = {"params": {"features": []}, "status": "succeeded"}
    redaction = Redaction({"WORD": word, "TOKEN": "swordfish"})
    assert (redaction.document(notebook), redaction.document(record)) == (notebook, record)
    assert is_common(word)
    assert not is_common("swordfish")


def test_pictures_are_not_harmed_by_short_secrets():
    """Six letters that occur in the digits of a picture by chance are left there."""
    digits = "iVBORw0KGgoAAAAabcdefANSUhEUg=="
    assert Redaction({"PIN": "abcdef"}).document({"image/png": digits, "text/plain": digits}) == {
        **{"image/png": digits, "text/plain": digits.replace("abcdef", "${PIN}")}
    }


def test_the_longest_secret_comes_first_and_names_are_left_alone():
    """A secret within another, or within the name of one, does not tear it apart."""
    redaction = Redaction({"A_TOKEN": "swordfish", "B": "swordfish-and-more", "C": "A_TOKEN", "D": "TOKEN}"})
    assert redaction.text("swordfish-and-more, swordfish") == "${B}, ${A_TOKEN}"
    assert redaction.text("${A_TOKEN} of A_TOKEN") == "${A_TOKEN} of ${C}"


def test_what_a_table_cuts_short_is_found():
    """Tables show the beginning of a long text and dots: that is too much."""
    secret = "correct-horse-battery-staple-" * 4
    shown = Redaction({"TOKEN": secret}).text(str(pd.DataFrame({"url": [secret, "other"]})))
    assert "correct" not in shown
    assert "${TOKEN}..." in shown
    assert Redaction({"TOKEN": secret}).text("correct-horse, they say") == "correct-horse, they say"


def test_the_password_of_a_url_is_a_secret_by_itself():
    """Whoever takes the address apart shows the password alone, quoted or not."""
    redaction = Redaction({"DB": "postgresql://me:pa%2Fss-w0rd@db.example/x"})
    assert redaction.text("me, pa/ss-w0rd, pa%2Fss-w0rd at db.example") == "me, ${DB}, ${DB} at db.example"


def test_the_lines_of_a_key_are_secrets_too():
    """A key of several lines is found line by line, and without the line end that its file had."""
    key = "-----BEGIN KEY-----\nMIIEvQIBADANBgkqhkiG\n9w0BAQEFAASCBKcwggSj\n-----END KEY-----\n"
    redaction = Redaction({"KEY": key})
    assert redaction.text(key.strip()) == redaction.text(json.dumps(key.strip()))[1:-1] == "${KEY}"
    assert redaction.text("> 9w0BAQEFAASCBKcwggSj <") == "> ${KEY} <"


def test_a_number_that_is_a_secret_is_replaced():
    """A pin that a notebook reads as a number does not come back as one; other numbers stay."""
    assert Redaction({"PIN": "271828"}).document({"a": 271828, "b": [271829, True, 2.5]}) == {
        "a": "${PIN}",
        "b": [271829, True, 2.5],
    }


def test_what_is_too_short_is_said_and_left():
    """A value of a few characters occurs everywhere; the caller can say that it is not hidden."""
    redaction = Redaction({"PIN": "root", "EMPTY": "", "TOKEN": "swordfish"})
    assert redaction.too_short == ["PIN"]
    assert redaction.text("root swordfish") == "root ${TOKEN}"


def test_secrets_come_from_the_environment_by_name(monkeypatch):
    """Variables that are not set say nothing, and the key that signs artifacts is always among them."""
    monkeypatch.setenv("SHOP_TOKEN", "swordfish")
    monkeypatch.setenv("PRODKIT_SIGNING_KEY", "halibut-halibut")
    shown = Redaction.of(["SHOP_TOKEN", "NOT_SET"]).text("swordfish halibut-halibut")
    assert shown == "${SHOP_TOKEN} ${PRODKIT_SIGNING_KEY}"
    assert not Redaction.of([], {})


def test_references_are_found_however_deep():
    """Every name in a parameter, once."""
    given = {"a": ["${X}/${Y}", {"${Z}": 1}], "b": ("$W", "${X}"), "c": 3, "d": None}
    assert references(given) == {"X", "Y", "Z"}
