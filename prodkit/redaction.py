"""Secrets from the environment, taken out of whatever is written down, in the disguises that programs give them."""

from __future__ import annotations

import base64
import json
import os
import re
from collections.abc import Iterable, Iterator, Mapping
from itertools import takewhile
from typing import Any
from urllib.parse import unquote, urlsplit

__all__ = ["SHORTEST", "Redaction", "references"]

SHORTEST = 6
"""Characters of the shortest value that is replaced: shorter ones are words and numbers, and occur by chance."""

_ALWAYS = ("PRODKIT_SIGNING_KEY",)  # read by the package itself
_REFERENCE = re.compile(r"\$\{(\w+)\}")
_COLOUR = r"(?:\x1b|\\+(?:u001b|x1b|033))\[[0-9;]*m"  # tracebacks are coloured
_KEPT = r"\$\{\w+\}"  # what has been replaced, and references, stay
_ANCHOR, _LONG = 12, 64  # characters
_BYTES = 8  # of an encoded value: a shorter one would occur in pictures by chance
_BINARY = re.compile(r"(?:image|audio|video|font)/(?!svg)|application/(?:pdf|octet-stream|zip)")
_NAMED = {"&": "amp", "<": "lt", ">": "gt", '"': "quot", "'": "apos", "\xa0": "nbsp"}
_LETTERS = {"\n": "n", "\t": "t", "\r": "r", "\b": "b", "\f": "f", "\v": "v", "\a": "a"}


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

    A value is found as it is, and as JSON, Python, HTML or a URL would write it, escaped more than once, coloured
    within, or cut short by an ellipsis; also in base64 and in hexadecimal digits. Of a URL that holds a password the
    password is a secret by itself, and of a text of several lines each long line is.

    Args:
        secrets: values by the names that are written instead.
    """

    def __init__(self, secrets: Mapping[str, str]) -> None:
        self.too_short = sorted(name for name, value in secrets.items() if 0 < len(value) < SHORTEST)
        parts = {part: name for name, value in secrets.items() for part in _parts(value)}
        longest_first = sorted(parts, key=lambda part: (-len(part), part))
        # nobody encodes the lines of a key one by one
        lines = {line for value in secrets.values() for line in _long_lines(value)}
        self._secrets = [
            _Secret(parts[part], part, is_whole=part not in lines)
            for part in longest_first
            if len(part) >= SHORTEST
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
        if not suspects:
            return text
        if text.lstrip()[:1] in ("{", "["):
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

        Of pictures and other binary contents, which are base64, only what is hidden in them is taken out.
        """
        if isinstance(value, str):
            return self.text(value)
        if isinstance(value, list) and _is_lines(value):
            text = "".join(value)
            return list(value) if (shown := self.text(text)) == text else _lines(shown)
        if isinstance(value, list | tuple):
            return [self.document(each) for each in value]
        if isinstance(value, dict):
            return type(value)((self.document(key), self._member(key, each)) for key, each in value.items())
        if isinstance(value, int | float) and not isinstance(value, bool):
            names = [secret.name for secret in self._secrets if secret.value == str(value)]
            return f"${{{names[0]}}}" if names else value
        return value

    def _member(self, key: Any, value: Any) -> Any:
        if not (isinstance(key, str) and _BINARY.match(key)):
            return self.document(value)
        lines = [value] if isinstance(value, str) else value
        if not isinstance(lines, list) or not all(isinstance(line, str) for line in lines):
            return self.document(value)
        text = "".join(lines)
        flat = _flat(text)
        for secret in self._secrets:
            text = secret.decoded(text, flat)
        return text if isinstance(value, str) else _lines(text)

    def _suspects(self, text: str) -> list[_Secret]:
        flat = _flat(text) if self._secrets else ""
        return [secret for secret in self._secrets if secret.may_be_in(flat)]


class _Secret:
    """One value, and the patterns of its disguises.

    To search for those takes long, so a text is first asked for what they all have in common.
    """

    def __init__(self, name: str, value: str, *, is_whole: bool = True) -> None:
        self.name, self.value = name, value
        codes = list(_encodings(value)) if is_whole else []
        self._anchor = max(re.findall(r"[A-Za-z0-9_.-]+", value), key=len, default="")[:_ANCHOR]
        self._code_anchors = [code[:_BYTES] for code in codes]
        self._plain = re.compile(rf"({_disguised(value)})|{_KEPT}", re.DOTALL)
        self._coded = re.compile(rf"({'|'.join(map(_wrapped, codes)) or '(?!)'})|{_KEPT}")

    def may_be_in(self, flat: str) -> bool:
        """Whether a text, flattened, is worth a search."""
        anchors = (
            self._anchor,
            self.value[:_BYTES],
            *self._code_anchors,
        )  # the second of a value that was cut
        return any(anchor in flat for anchor in anchors)

    def hidden(self, text: str) -> str:
        """The text without the value in any disguise."""
        if "\n" in self.value:
            text = self._named(self._plain, text)
        else:
            lines = text.split("\n")
            text = "\n".join(
                self._named(self._plain, line) if self._anchor in _flat(line) else line for line in lines
            )
        return self._unfinished(self.decoded(text, _flat(text)))

    def decoded(self, text: str, flat: str) -> str:
        """The text without the value in base64 or hexadecimal digits."""
        found = any(anchor in flat for anchor in self._code_anchors)
        return self._named(self._coded, text) if found else text

    def _named(self, pattern: re.Pattern[str], text: str) -> str:
        return pattern.sub(lambda match: f"${{{self.name}}}" if match[1] is not None else match[0], text)

    def _unfinished(self, text: str) -> str:
        """Without what is left of a value that was cut, as tables cut long texts."""
        head, start = self.value[:_BYTES], 0
        while len(self.value) > _BYTES and (start := text.find(head, start)) >= 0:
            pairs = zip(self.value, text[start : start + len(self.value)], strict=False)
            end = start + sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], pairs))
            if text.startswith(("...", "…"), end):
                text = f"{text[:start]}${{{self.name}}}{text[end:]}"
            start += 1
        return text


def _without(secrets: list[_Secret], text: str) -> str:
    for secret in secrets:
        text = secret.hidden(text)
    return text


def _flat(text: str) -> str:
    """The text without colours and line ends, which may stand within a value."""
    if any(mark in text for mark in ("\x1b[", "1b[", "033[")):
        text = re.sub(_COLOUR, "", text)
    return text.replace("\n", "").replace("\\n", "")


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
    long = [line for line in lines if len(line) >= 2 * _BYTES and not line.startswith("-----")]
    return long if len(lines) > 1 else []


def _disguised(value: str) -> str:
    """A pattern for a value whose characters may each be escaped, however often."""
    units = re.findall(r"\\+|[^\\]", value)
    gap = f"(?:{_COLOUR})*" if len(value) <= _LONG else ""
    return gap.join(map(_escaped, units))


def _escaped(unit: str) -> str:
    if unit[0] == "\\":
        ways = [rf"(?:\\(?:{_COLOUR})*){{{len(unit)},}}"]
        ways += [f"(?i:{each}){{{len(unit)}}}" for each in ("%5c", "&#0*92;", "&#x0*5c;")]
        return f"(?:{'|'.join(ways)})"
    if unit.isascii() and (unit.isalnum() or unit in "_-."):
        return re.escape(unit)  # nobody escapes these
    code = ord(unit)
    octets = unit.encode("utf-8", "surrogatepass")
    halves = unit.encode("utf-16-be", "surrogatepass")
    pairs = [halves[n : n + 2].hex() for n in range(0, len(halves), 2)]
    ways = [
        "".join(f"(?i:%{octet:02x})" for octet in octets),
        f"&#0*{code};",
        f"(?i:&#x0*{code:x};)",
        "".join(rf"\\+(?i:u{pair})" for pair in pairs),
        "".join(rf"\\+(?i:x{octet:02x})" for octet in octets),
        rf"\\+(?i:U{code:08x})",
        *([rf"\\+(?i:x{code:02x})"] if code < 256 else []),
        *([f"&{_NAMED[unit]};"] if unit in _NAMED else []),
        *([rf"\\+{_LETTERS[unit]}"] if unit in _LETTERS else []),
        *([r"\+"] if unit == " " else []),
        rf"\\*{re.escape(unit)}",
    ]
    return f"(?:{'|'.join(ways)})"


def _encodings(value: str) -> Iterator[str]:
    """A value in base64, wherever in the encoded bytes it begins, and in hexadecimal digits."""
    octets = value.encode("utf-8", "surrogatepass")
    found = {octets.hex(), octets.hex().upper()}
    for before in range(3):
        first, last = -(-8 * before // 6), 8 * (before + len(octets)) // 6
        for code in (base64.b64encode, base64.urlsafe_b64encode):
            found.add(code(b"\0" * before + octets).decode()[first:last])
    yield from sorted(code for code in found if len(code) >= _BYTES)


def _wrapped(code: str) -> str:
    """A pattern for digits that may be broken into lines."""
    gap = r"(?:\n|\\n)?"
    rest = f"(?:{gap}[A-Za-z0-9+/_-]){{0,{len(code) - _LONG}}}" if len(code) > _LONG else ""
    return gap.join(map(re.escape, code[:_LONG])) + rest


def _is_lines(value: list[Any]) -> bool:
    """Is it one text, kept as its lines?"""
    texts = len(value) > 1 and all(isinstance(each, str) for each in value)
    return texts and all(each.endswith("\n") for each in value[:-1])


def _lines(text: str) -> list[str]:
    return re.findall(r"[^\n]*\n|[^\n]+", text)
