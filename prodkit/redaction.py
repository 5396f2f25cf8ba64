"""Secrets from the environment, taken out of whatever is written down, in the disguises that programs give them."""

from __future__ import annotations

import base64
import html
import json
import os
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import cache
from itertools import takewhile
from typing import Any
from urllib.parse import quote, quote_plus, unquote, urlsplit

from prodkit.params import NOTEBOOKS

__all__ = ["SHORTEST", "Redaction", "is_common", "references"]

SHORTEST = 6
"""Characters of the shortest value that is replaced: shorter ones are words and numbers, and occur by chance."""

_ALWAYS = ("PRODKIT_SIGNING_KEY",)  # read by the package itself
_REFERENCE = re.compile(r"\$\{(\w+)\}")
_BINARY = re.compile(r"(?:image|audio|video|font)/(?!svg)|application/(?:pdf|octet-stream|zip)")
_HEAD, _LONG = 8, 64  # of an encoded value: fewer characters occur in pictures by chance; so many are enough
_COLOUR = re.compile(r"(?:\x1b|\\(?:u001b|x1b|033))\[[0-9;]*m")  # tracebacks are coloured
_BETWEEN = r"(?:0x|\\+x|\\+n|[\s:,;-])*"  # hexadecimal digits

# How programs write a text into another: JSON, Python, HTML, URLs, SQLAlchemy's URLs, Markdown.
_WAYS: tuple[Callable[[str], str], ...] = (
    lambda text: json.dumps(text)[1:-1],
    lambda text: json.dumps(text, ensure_ascii=False)[1:-1],
    lambda text: repr('"' + text)[2:-1],
    lambda text: repr('"' + text)[2:-1].replace("\\'", "'"),
    lambda text: ascii('"' + text)[2:-1],
    lambda text: repr(b'"' + _octets(text))[3:-1],
    lambda text: repr(b'"' + _octets(text))[3:-1].replace("\\'", "'"),
    str.upper,
    str.lower,
    html.escape,
    lambda text: html.escape(text, quote=False),
    lambda text: quote(_octets(text)),
    lambda text: quote(_octets(text), safe=""),
    lambda text: quote_plus(_octets(text)),
    lambda text: re.sub("[:@/]", lambda sign: f"%{ord(sign[0]):X}", text),
    lambda text: re.sub(r"[&\\`*\[\]<>|$#~]", lambda sign: f"&#{ord(sign[0])};", text),
)

# What notebooks and records are made of: names and words that readers look for. To replace them would destroy both.
_FORMAT = """
    cells cell_type metadata nbformat nbformat_minor source outputs output_type execution_count attachments
    collapsed stream display_data execute_result traceback ename evalue stdout stderr markdown transient kernelspec
    display_name language language_info codemirror_mode file_extension mimetype pygments_lexer nbconvert_exporter
    version tags papermill parameters injected-parameters nbval-ignore-output nbval-skip environment_variables
    input_path output_path start_time end_time duration exception status pending running completed failed
    default_parameters text/plain text/html text/markdown text/latex image/png image/jpeg image/gif image/svg+xml
    application/json application/javascript application/vnd application/octet-stream schema run_id notebook outcome
    action approval target_version generation reasons evidence params inputs environment started seconds succeeded
    interrupted inconclusive rollback retrain promote reject proposed approved rejected binary multiclass regression
    automatic required threading flights weekday
    result.json notebook.ipynb report.html
"""


@cache
def _words() -> str:
    names = [name for model in NOTEBOOKS.values() for name in model.model_fields]
    return "\n".join([*_FORMAT.split(), *NOTEBOOKS, *names]).lower()


def is_common(value: str, words: Iterable[str] = ()) -> bool:
    """Whether a value, or the password in it, is part of a word that notebooks and records are made of.

    >>> is_common("metadata"), is_common("postgresql://me:outputs@db/x"), is_common("correct-horse")
    (True, True, False)
    """
    known = "\n".join([_words(), *words]).lower()
    return any(len(part) >= SHORTEST and part.lower() in known for part in _parts(value))


def references(values: Any) -> set[str]:
    """The names in all ``${NAME}`` of a text, or of all texts in a list or mapping.

    >>> sorted(references({"store": "postgresql://me:${DB_PASSWORD}@${DB_HOST}/db", "seed": 1}))
    ['DB_HOST', 'DB_PASSWORD']
    """
    if isinstance(values, str):
        return set(_REFERENCE.findall(values))
    if isinstance(values, Mapping):
        values = [*values.keys(), *values.values()]
    return set().union(*map(references, values)) if isinstance(values, list | tuple | set) else set()


class Redaction:
    """Writes ``${NAME}`` where the value of that variable stands.

    A value is found in upper and lower case, as JSON, Python, HTML or a URL would write it, escaped more than once,
    coloured within, or cut short by an ellipsis; also in base64, base32 and hexadecimal digits. Of a URL that holds a
    password the password is a secret by itself, and of a text of several lines each long line is. A value that is
    part of the format (:func:`is_common`) is left, as is one that is too short.

    Args:
        secrets: values by the names that are written instead.
    """

    def __init__(self, secrets: Mapping[str, str]) -> None:
        self.too_short = sorted(name for name, value in secrets.items() if 0 < len(value) < SHORTEST)
        parts = {part: name for name, value in secrets.items() for part in _parts(value)}
        # nobody encodes the lines of a key one by one
        lines = {line for value in secrets.values() for line in _long_lines(value)}
        self._secrets = [
            _Secret(parts[part], part, is_whole=part not in lines)
            for part in sorted(parts, key=lambda part: (-len(part), part))
            if len(part) >= SHORTEST and part.lower() not in _words()
        ]

    @classmethod
    def of(cls, names: Iterable[str], environment: Mapping[str, str] | None = None) -> Redaction:
        """Of the variables with these names that are set; ``environment`` is the process's if not given."""
        known = os.environ if environment is None else environment
        return cls({name: known[name] for name in sorted({*names, *_ALWAYS}) if known.get(name)})

    def __bool__(self) -> bool:
        return bool(self._secrets)

    def text(self, text: str) -> str:
        """The text without the secrets; what is JSON stays JSON."""
        suspects = self._suspects(text)
        if suspects and text.lstrip()[:1] in ("{", "["):
            try:
                document = json.loads(text)
            except (ValueError, RecursionError):
                return _without(suspects, text)
            indent = 1 if "\n" in text.strip() else None
            tail = text[len(text.rstrip()) :]
            return json.dumps(self.document(document), indent=indent, ensure_ascii=text.isascii()) + tail
        return _without(suspects, text)

    def document(self, value: Any) -> Any:
        """The same for all texts in a JSON document or a notebook, names as well as values; a new one.

        Streams of one cell are joined, since a value may be cut in two by them. Of pictures and other binary contents,
        which are base64, only what is hidden in them is taken out.
        """
        if isinstance(value, str):
            return self.text(value)
        if isinstance(value, list) and _is_lines(value):
            text = "".join(value)
            return list(value) if (shown := self.text(text)) == text else shown.splitlines(keepends=True)
        if isinstance(value, list | tuple):
            return [self.document(each) for each in _joined(value)]
        if isinstance(value, dict):
            return type(value)((self.document(key), self._member(key, each)) for key, each in value.items())
        if isinstance(value, int | float) and not isinstance(value, bool):
            return next((f"${{{each.name}}}" for each in self._secrets if each.value == str(value)), value)
        return value

    def _member(self, key: Any, value: Any) -> Any:
        lines = [value] if isinstance(value, str) else value
        is_binary = isinstance(key, str) and _BINARY.match(key) and isinstance(lines, list)
        if not is_binary or not all(isinstance(line, str) for line in lines):
            return self.document(value)
        text = "".join(lines)
        for secret in self._secrets:
            text = secret.decoded(text)
        return text if isinstance(value, str) else text.splitlines(keepends=True)

    def _suspects(self, text: str) -> list[_Secret]:
        flat = _flat(text) if self._secrets else ""
        return [each for each in self._secrets if each.may_be_in(flat)]


def _parts(value: str) -> Iterator[str]:
    """What of a value must not be seen: all of it, the password of a URL, each long line."""
    yield value
    if (stripped := value.strip()) != value:
        yield stripped  # programs cut the line end of a file off
    if "://" in value:
        try:
            password = urlsplit(value).password or ""
        except ValueError:
            password = ""
        yield from {password, unquote(password)}
    yield from _long_lines(value)


def _long_lines(value: str) -> list[str]:
    lines = value.strip().splitlines()
    long = [line for line in lines if len(line) >= 2 * _HEAD and not line.startswith("-----")]
    return long if len(lines) > 1 else []


def _is_lines(value: list[Any]) -> bool:
    """Is it one text, kept as its lines?"""
    texts = len(value) > 1 and all(isinstance(each, str) for each in value)
    return texts and all(each.endswith("\n") for each in value[:-1])


def _joined(values: Iterable[Any]) -> list[Any]:
    """A list in which what a cell wrote to one stream without a break is one output."""
    joined: list[Any] = []
    for each in values:
        before = joined[-1] if joined else None
        streams = [output for output in (before, each) if isinstance(output, dict) and "text" in output]
        same = [(output.get("output_type"), output.get("name")) for output in streams]
        if len(same) == 2 and same[0] == same[1] and same[0][0] == "stream":
            text = "".join("".join(output["text"]) for output in streams)
            joined[-1] = type(each)(before, text=text)
        else:
            joined.append(each)
    return joined


def _flat(text: str) -> str:
    """The text in small letters, without colours and line ends, which may stand within a value."""
    if any(mark in text for mark in ("\x1b[", "1b[", "033[")):
        text = _COLOUR.sub("", text)
    return text.replace("\n", "").replace("\\n", "").lower()


def _octets(text: str) -> bytes:
    return text.encode("utf-8", "surrogatepass")


class _Secret:
    """One value, and the patterns of its disguises.

    To search for those takes long, so a text is first asked for what they have in common.
    """

    def __init__(self, name: str, value: str, *, is_whole: bool) -> None:
        self.name, self.value = name, value
        once = {value, *(way(value) for way in _WAYS)}
        twice = once | {way(form) for form in once for way in _WAYS}
        forms = {form.lower(): form for form in twice}.values()
        octets = _octets(value) if is_whole else b""
        of_6, of_5 = ([code for code in _encodings(octets, bits) if len(code) >= _HEAD] for bits in (6, 5))
        pairs = [f"{octet:02x}" for octet in octets if 2 * len(octets) >= _HEAD]
        self._anchor = max(re.findall(r"[a-z0-9_.-]+", value.lower()), key=len, default="")[:12]
        self._code_anchors = [code[:_HEAD].lower() for code in (*of_6, *of_5)]
        self._hex_anchor = re.compile(_BETWEEN.join(pairs[:4]) or "(?!)")
        self._plain = _any_of(map(re.escape, sorted(forms, key=len, reverse=True)))
        self._base64 = _any_of(map(_wrapped, of_6), flags=0)
        self._others = _any_of([*map(_wrapped, of_5), *([_BETWEEN.join(pairs)] if pairs else [])])

    def may_be_in(self, flat: str) -> bool:
        """Whether a flat text is worth a search."""
        return self._anchor in flat or self.value[:_HEAD].lower() in flat or self._may_be_coded_in(flat)

    def _may_be_coded_in(self, flat: str) -> bool:
        return any(each in flat for each in self._code_anchors) or self._hex_anchor.search(flat) is not None

    def hidden(self, text: str) -> str:
        """The text without the value in any disguise."""
        parts = [text] if "\n" in self.value else text.split("\n")
        parts = [self._hidden(part) if self._anchor in _flat(part) else part for part in parts]
        return self.decoded("\n".join(parts))

    def _hidden(self, text: str) -> str:
        """The same for a part of it: without its colours, if they stand within the value."""
        for shown in dict.fromkeys((text, _COLOUR.sub("", text))):
            hidden = self._unfinished(self._named(self._plain, shown))
            text = text if hidden == shown else hidden
        return text

    def decoded(self, text: str) -> str:
        """The text without the value in base64, base32 or hexadecimal digits."""
        is_worth_it = self._may_be_coded_in(_flat(text))
        return self._named(self._others, self._named(self._base64, text)) if is_worth_it else text

    def _named(self, pattern: re.Pattern[str], text: str) -> str:
        return pattern.sub(lambda match: match[0] if match[1] is None else f"${{{self.name}}}", text)

    def _unfinished(self, text: str) -> str:
        """Without what is left of a value that was cut, as tables cut long texts."""
        head, start = self.value[:_HEAD], 0
        while len(self.value) > _HEAD and (start := text.find(head, start)) >= 0:
            pairs = zip(self.value, text[start : start + len(self.value)], strict=False)
            end = start + sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], pairs))
            if text.startswith(("...", "…"), end):
                text = f"{text[:start]}${{{self.name}}}{text[end:]}"
            start += 1
        return text


def _any_of(alternatives: Iterable[str], *, flags: int = re.IGNORECASE) -> re.Pattern[str]:
    """A pattern whose first group is one of these; references to the environment are passed over."""
    return re.compile(rf"({'|'.join(alternatives) or '(?!)'})|{_REFERENCE.pattern}", flags)


def _without(secrets: list[_Secret], text: str) -> str:
    for secret in secrets:
        text = secret.hidden(text)
    return text


def _encodings(octets: bytes, bits: int) -> Iterator[str]:
    """A value in base64 (6 bits a character) or base32 (5), wherever in the encoded bytes it begins."""
    codes = (base64.b64encode, base64.urlsafe_b64encode) if bits == 6 else (base64.b32encode,)
    for before in range(3 if bits == 6 else 5):
        first, last = -(-8 * before // bits), 8 * (before + len(octets)) // bits
        for code in codes:
            yield code(b"\0" * before + octets).decode()[first:last]


def _wrapped(code: str) -> str:
    """A pattern for a code that may be broken into lines."""
    gap = r"(?:\s|\\+n)*"
    rest = f"(?:{gap}[A-Za-z0-9+/_-]){{0,{len(code) - _LONG}}}" if len(code) > _LONG else ""
    return gap.join(map(re.escape, code[:_LONG])) + rest
