"""What people write, in YAML or behind ``-p``, as the values that are declared: text stays the text that it is."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from datetime import date, timedelta
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin

import yaml

from prodkit.spans import Window

__all__ = ["read_node", "read_text", "written_mapping"]

# YAML makes numbers, dates and booleans of words that may be ids and names: 00123 is 83, NO is False, 1:30 is 90.
# So words are kept as they are written, and the declared kind says what they are. What fits no declared kind
# stays text; it is refused where kinds are checked, and never made to fit.

_TEXTS = (str, date, timedelta, Window)  # moments and lengths of time are ISO texts in a notebook
_SIMPLE = (NoneType, bool, int, float)
_BOOLEANS = {"true": True, "false": False}
_BOOLEANS_DECLARED = {**_BOOLEANS, "yes": True, "no": False, "on": True, "off": False}
_NUMBERS = {
    int: re.compile(r"[-+]?(0|[1-9][0-9]*)"),
    float: re.compile(r"[-+]?((0|[1-9][0-9]*)(\.[0-9]*)?|\.[0-9]+)([eE][-+]?[0-9]+)?"),
}
_NUMBERS_DECLARED = {
    int: re.compile(r"[-+]?(0|[1-9](_?[0-9])*|0x[0-9a-fA-F]+|0o[0-7]+|0b[01]+)"),
    float: re.compile(r"[-+]?((0|[1-9](_?[0-9])*)(\.[0-9]*)?|\.[0-9]+)([eE][-+]?[0-9]+)?"),
}
_AS_TEXT = re.compile(r"[-+]?0[0-9_]+|.*:.*")  # 00123, 1:30: a number in YAML 1.1, and never meant as one
_NULL, _BOOL, _INT, _FLOAT, _STR, _SEQ, _MAP, _MERGE = (
    f"tag:yaml.org,2002:{name}" for name in ("null", "bool", "int", "float", "str", "seq", "map", "merge")
)
_RESOLVER: Any = yaml.resolver.Resolver()
_ENDLESS = "must not refer to itself, nor be nested so deeply"


class _Loader(yaml.SafeLoader):
    """Composes nodes whose texts are whole: JSON writes a character beyond the first 65,536 as two halves."""

    def compose_scalar_node(self, anchor: Any) -> yaml.ScalarNode:
        node: yaml.ScalarNode = super().compose_scalar_node(anchor)
        if not node.value.isascii():
            node.value = node.value.encode("utf-16", "surrogatepass").decode("utf-16", "surrogatepass")
        return node


class _UnfitError(Exception):
    """The node is no such value."""


def written_mapping(text: str) -> dict[str, yaml.Node]:
    """The names of a YAML mapping, each with what is written for it.

    Raises:
        YAMLError: it is no YAML.
        ValueError: it is no mapping, or it gives a name twice.
    """
    try:
        node = yaml.compose(text, Loader=_Loader)
        if node is not None and not isinstance(node, yaml.MappingNode):
            found = "a list" if isinstance(node, yaml.SequenceNode) else repr(node.value)
            raise ValueError(f"must be a mapping of names to values; found {found}")
        return {} if node is None else _items(node)
    except RecursionError as error:
        raise ValueError(_ENDLESS) from error


def read_text(text: str, kind: Any) -> Any:
    """The value that a text stands for: itself where only text is declared, otherwise what it says in YAML.

    >>> read_text("00123", str | None), read_text("1e3", float), read_text("[00123]", list[str])
    ('00123', 1000.0, ['00123'])

    Raises:
        ValueError: it can be read in two ways, or in none.
    """
    members = list(_members(kind))
    if all(_is_text(member) or member is NoneType for member in members):
        return text
    try:
        node = yaml.compose(text, Loader=_Loader)
        return text if node is None else _guarded(node, kind, raw=text)
    except (yaml.YAMLError, RecursionError, ValueError) as error:
        if any(map(_is_text, members)):
            return text
        raise error if isinstance(error, ValueError) else ValueError(f"must be YAML: {error}") from error


def read_node(node: yaml.Node, kind: Any) -> Any:
    """The value that a YAML node stands for where a kind is declared.

    Words of kind ``Any`` are read as YAML 1.2 has them, so that 1e3 is a number and 00123 is text; what was a
    number or a boolean in YAML 1.1 only, such as 1_000 and yes, is refused.

    Raises:
        ValueError: it can be read in two ways, or in none.
    """
    return _guarded(node, kind)


def _guarded(node: yaml.Node, kind: Any, *, raw: str | None = None) -> Any:
    try:
        return _read(node, kind, raw=raw)
    except RecursionError as error:
        raise ValueError(_ENDLESS) from error


def _members(kind: Any) -> Iterator[Any]:
    """The kinds that a union allows; of another kind, itself."""
    if get_origin(kind) is Annotated:
        yield from _members(get_args(kind)[0])
    elif get_origin(kind) in (Union, UnionType):
        for each in get_args(kind):
            yield from _members(each)
    else:
        yield NoneType if kind is None else kind


def _is_text(kind: Any) -> bool:
    if get_origin(kind) is Literal:
        return all(isinstance(option, str) for option in get_args(kind))
    return isinstance(kind, type) and issubclass(kind, _TEXTS)


def _rank(kind: Any) -> int:
    """The order in which the kinds of a union are tried: text takes what nothing more special does."""
    if get_origin(kind) is Literal:
        return 0
    if kind in _SIMPLE:
        return 1 + _SIMPLE.index(kind)
    return 11 if _is_text(kind) else 10 if (get_origin(kind) or kind) in (list, tuple, dict) else 12


def _read(node: yaml.Node, kind: Any, *, raw: str | None = None) -> Any:
    """A node as the first kind that it fits; ``raw`` is what it was composed from, quotes and comments with it."""
    _require_no_tag(node)
    members = sorted(_members(kind), key=_rank)
    beside_text = any(map(_is_text, members))
    if raw is not None and beside_text:
        members = [member for member in members if member is not NoneType]
        if isinstance(node, yaml.ScalarNode) and node.value != raw:
            return raw
    for member in members:
        try:
            return _as(node, member, declared=not beside_text)
        except _UnfitError:
            continue
    if raw is not None and beside_text:
        return raw
    is_nothing = node.tag == _NULL and raw is None
    return (None if is_nothing else node.value) if isinstance(node, yaml.ScalarNode) else _untyped(node)


def _as(node: yaml.Node, kind: Any, *, declared: bool) -> Any:
    base, arguments = get_origin(kind) or kind, get_args(kind)
    if base is Literal:
        return _option(node, arguments)
    if base in _SIMPLE:
        return _simple(node, base, declared=declared)
    if base in (list, tuple, dict):
        return _collection(node, base, arguments)
    if not _is_text(kind):
        return _untyped(node)
    if not isinstance(node, yaml.ScalarNode) or (_is_word(node) and node.value == ""):
        raise _UnfitError  # nothing is written there
    return node.value


def _option(node: yaml.Node, options: tuple[Any, ...]) -> Any:
    for option in options:
        if isinstance(option, str):
            if isinstance(node, yaml.ScalarNode) and node.value == option:
                return option
            continue
        try:
            if _simple(node, type(option), declared=True) == option:
                return option
        except _UnfitError:
            continue
    raise _UnfitError


def _simple(node: yaml.Node, kind: Any, *, declared: bool) -> Any:
    """A word as None, a boolean or a number; if that is not declared alone, only if it is written plainly."""
    if not _is_word(node):
        raise _UnfitError
    word = str(node.value)
    if kind is NoneType and node.tag == _NULL:
        return None
    booleans = _BOOLEANS_DECLARED if declared else _BOOLEANS
    if kind is bool and node.tag == _BOOL and word.lower() in booleans:
        return booleans[word.lower()]
    pattern = (_NUMBERS_DECLARED if declared else _NUMBERS).get(kind)
    if pattern is None or not pattern.fullmatch(word):
        raise _UnfitError
    try:
        number = int(word, 0) if kind is int else float(word)
    except ValueError as error:  # more digits than Python reads
        raise _UnfitError from error
    if not math.isfinite(number):
        raise _UnfitError
    return number


def _collection(node: yaml.Node, base: Any, arguments: tuple[Any, ...]) -> Any:
    if base is dict and isinstance(node, yaml.MappingNode):
        of_value = arguments[1] if arguments else Any
        return {name: _read(value, of_value) for name, value in _items(node).items()}
    if base is dict or not isinstance(node, yaml.SequenceNode):
        raise _UnfitError
    if base is tuple and len(arguments) == len(node.value):
        return [_read(each, kind) for each, kind in zip(node.value, arguments, strict=True)]
    of_item = arguments[0] if base is list and arguments else Any
    return [_read(each, of_item) for each in node.value]


def _untyped(node: yaml.Node) -> Any:
    if not isinstance(node, yaml.ScalarNode):
        return _collection(node, dict if isinstance(node, yaml.MappingNode) else list, ())
    if not _is_word(node):
        return node.value
    for kind in _SIMPLE:
        try:
            return _simple(node, kind, declared=False)
        except _UnfitError:
            continue
    if node.tag == _BOOL:
        raise ValueError(f"must be plain; found {node.value}: write true or false, or put it in quotes")
    if node.tag in (_INT, _FLOAT) and not _AS_TEXT.fullmatch(node.value):
        raise ValueError(f"must be plain; found {node.value}: write a finite decimal, or put it in quotes")
    return node.value


def _items(node: yaml.MappingNode) -> dict[str, yaml.Node]:
    """The names of a mapping, with what it merges by ``<<``."""
    own: dict[str, yaml.Node] = {}
    merged: dict[str, yaml.Node] = {}
    for key, value in node.value:
        if key.tag == _MERGE:
            for each in value.value if isinstance(value, yaml.SequenceNode) else [value]:
                if not isinstance(each, yaml.MappingNode):
                    raise ValueError("must merge mappings only by <<")
                merged = {**_items(each), **merged}
        elif not isinstance(key, yaml.ScalarNode) or not key.value:
            raise ValueError(f"must have names that are text; found {key.value or 'nothing'!r}")
        elif key.value in own:
            raise ValueError(
                f"must give each name once; found {key.value} again in line {key.start_mark.line + 1}"
            )
        else:
            own[key.value] = value
    return {**merged, **own}


def _is_word(node: yaml.Node) -> bool:
    """Is it a scalar without quotes and without a tag?"""
    if not isinstance(node, yaml.ScalarNode) or node.style is not None:
        return False
    return bool(node.tag == _RESOLVER.resolve(yaml.ScalarNode, node.value, (True, False)))


def _require_no_tag(node: yaml.Node) -> None:
    """``!!str`` only makes text of a word; other tags would make things that are not plain."""
    known = {"SequenceNode": _SEQ, "MappingNode": _MAP}.get(type(node).__name__, _STR)
    if node.tag != known and not _is_word(node):
        raise ValueError(f"must be plain; found the tag {node.tag.replace('tag:yaml.org,2002:', '!!')}")
