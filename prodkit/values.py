"""Values that people write, in YAML or behind ``-p``, read as the declared kind: text stays as it is written."""

from __future__ import annotations

import ast
import math
import re
import sys
from collections import abc
from collections.abc import Iterator
from datetime import date, datetime, timedelta
from functools import lru_cache, partial
from pathlib import PurePath
from types import GenericAlias, NoneType, UnionType
from typing import Annotated, Any, Final, Literal, Optional, Union, get_args, get_origin

import yaml
from pydantic import AfterValidator, BeforeValidator, ConfigDict, Field, TypeAdapter, ValidationError

from prodkit.evidence import Window, parse_duration

__all__ = ["annotated_kind", "as_kind", "checked", "literal_kind", "read_text", "read_yaml", "require_plain"]

# A kind is a Python annotation. Values are what can be written into a notebook: text, numbers, True and False, None,
# lists, and dicts with text keys. Moments, lengths of time and windows are ISO texts there.

_LISTS = (list, tuple, abc.Sequence, abc.Iterable, abc.Collection)
_DICTS = (dict, abc.Mapping, abc.MutableMapping)
_NO_JSON = (bytes, bytearray, set, frozenset, complex)
_NAMES: dict[str, Any] = {
    **{kind.__name__: kind for kind in (bool, int, float, str, *_LISTS, *_DICTS, *_NO_JSON)},
    **{"List": list, "Tuple": tuple, "Dict": dict, "Set": set, "FrozenSet": frozenset},
    **{"date": date, "datetime": datetime, "timedelta": timedelta, "Path": PurePath, "PurePath": PurePath},
    **{"Any": Any, "Annotated": Annotated, "Final": Final, "Literal": Literal},
    **{"Optional": Optional, "Union": Union},
}
_OPTIONS = (str, int, NoneType)
_MODULES = ("builtins", "collections.abc", "datetime", "dt", "pathlib", "t", "typing", "typing_extensions")


def annotated_kind(annotation: ast.expr) -> Any:
    """The kind that an annotation stands for; an unknown name, a class of one's own say, allows anything.

    >>> annotated_kind(ast.parse("list[str] | None", mode="eval").body)
    typing.Optional[list[str]]
    >>> annotated_kind(ast.parse("dict[str, MyClass]", mode="eval").body)
    dict[str, typing.Any]
    """
    try:
        return _annotated(annotation)
    except (TypeError, ValueError, SyntaxError, RecursionError):
        return Any


def _annotated(annotation: ast.expr) -> Any:
    match annotation:
        case ast.Constant(value=value) if value is None or value is ...:
            return value
        case ast.Constant(value=str(text)):
            return _annotated(ast.parse(text.strip(), mode="eval").body)
        case ast.BinOp(left=left, op=ast.BitOr(), right=right):
            return Union[_annotated(left), _annotated(right)]  # noqa: UP007  # None | None is no type
        case ast.Name(id=name):
            return _NAMES.get(name, Any)
        case ast.Attribute(value=module, attr=name) if ast.unparse(module) in _MODULES:
            return _NAMES.get(name, Any)
        case ast.Subscript(value=value, slice=index):
            generic, arguments = _annotated(value), index.elts if isinstance(index, ast.Tuple) else [index]
            if generic in (Annotated, Final):
                return _annotated(arguments[0])
            if generic is Literal:
                options = tuple(map(ast.literal_eval, arguments))
                return Literal[*options] if all(isinstance(each, _OPTIONS) for each in options) else Any
            kinds = tuple(map(_annotated, arguments))
            return Any if generic is Any else generic[kinds[0] if len(kinds) == 1 else kinds]
    return Any


def literal_kind(value: Any) -> Any:
    """The kind of a parameter that is not annotated, from its default; None allows anything.

    >>> literal_kind(1), literal_kind(None)
    (<class 'int'>, typing.Any)
    """
    return _NAMES.get(type(value).__name__, Any)


class _Word(str):
    """Text that stands in YAML without quotes: its kind says whether it is a number, a truth or itself."""


# YAML makes numbers, dates and truths of words that may be ids and names: 00123 is 83, NO is False, 1:30 is 90.
# Where text may stand as well, a word is a number or a truth only if it is written plainly.


def _spellings(**words: Any) -> dict[str, Any]:
    return {text: value for word, value in words.items() for text in (word, word.title(), word.upper())}


_TRUTHS = {True: _spellings(true=True, false=False)}
_TRUTHS[False] = _TRUTHS[True] | _spellings(yes=True, no=False, on=True, off=False)
_NUMBERS = {
    (int, True): re.compile(r"[-+]?(0|[1-9][0-9]*)"),
    (float, True): re.compile(r"[-+]?((0|[1-9][0-9]*)(\.[0-9]*)?|\.[0-9]+)([eE][-+]?[0-9]+)?"),
    (int, False): re.compile(r"[-+]?(0|[1-9](_?[0-9])*|0x[0-9a-fA-F]+|0o[0-7]+|0b[01]+)"),
    (float, False): re.compile(r"[-+]?((0|[1-9](_?[0-9])*)(\.[0-9]*)?|\.[0-9]+)([eE][-+]?[0-9]+)?"),
}
_AS_TEXT = re.compile(r"[-+]?0[0-9_]+|.*:.*")  # 00123, 1:30: a number in YAML 1.1, and never meant as one
_NULLS = ("", "~", "null", "Null", "NULL")
_SIMPLE = (NoneType, bool, int, float)


def _read_word(value: Any, kind: Any, *, plainly: bool) -> Any:
    """A word as None, a truth or a number, if it is written as one; anything else as it is."""
    if not isinstance(value, _Word):
        return value
    if kind is NoneType:
        return None if value in _NULLS else value
    if kind is bool:
        return _TRUTHS[plainly].get(value, value)
    if not _NUMBERS[kind, plainly].fullmatch(value):
        return value
    return int(value, 0) if kind is int else float(value)


def _as_text(value: Any) -> Any:
    return (str(value) if value else None) if isinstance(value, _Word) else value


def _untyped(value: Any) -> Any:
    """The value where nothing is declared: words as in YAML 1.2, except those that only YAML 1.1 converts."""
    if isinstance(value, list):
        return [_untyped(each) for each in value]
    if isinstance(value, dict):
        return {name: _untyped(each) for name, each in value.items()}
    if not isinstance(value, _Word):
        return value
    for kind in _SIMPLE:
        read = _read_word(value, kind, plainly=True)
        if read is not value and not (kind is float and math.isinf(read)):
            return read
    tag = _RESOLVER.resolve(yaml.ScalarNode, value, (True, False))
    if tag == _BOOL:
        raise ValueError(f"must be plain; found {value}: write true or false, or put it in quotes")
    if tag in (_INT, _FLOAT) and not _AS_TEXT.fullmatch(value):
        raise ValueError(f"must be plain; found {value}: write a finite decimal, or put it in quotes")
    return str(value)


# Kinds as pydantic checks them


def _iso(parse: Any, name: str) -> Any:
    def check(text: str) -> str:
        try:
            parse(text)
        except ValueError as error:
            raise ValueError(f"it must be {name}") from error
        return text

    return Annotated[str, BeforeValidator(_as_text), AfterValidator(check)]


_TEXTS = {
    str: Annotated[str, BeforeValidator(_as_text)],
    Window: Annotated[str, BeforeValidator(_as_text)],
    datetime: _iso(datetime.fromisoformat, "an ISO moment, such as 2024-02-01T10:00"),
    date: _iso(date.fromisoformat, "an ISO date, such as 2024-02-01"),
    timedelta: _iso(parse_duration, "a length of time, such as 14d, 36h or 90min"),
}


def _refuse(kind: type) -> Any:
    def refuse(_: Any) -> Any:
        raise ValueError(f"no {kind.__name__} can be written into a notebook: declare text or a list")

    return Annotated[Any, AfterValidator(refuse)]


def _exact(value: Any) -> Any:
    if type(value) is int and (abs(value) > sys.float_info.max or int(float(value)) != value):
        raise ValueError(
            "a float cannot hold this whole number: declare int, or write it with a decimal point"
        )
    return value


def _option(value: Any, options: tuple[Any, ...]) -> Any:
    for option in options:
        read = value if isinstance(option, str) else _read_word(value, type(option), plainly=False)
        if read == option and (isinstance(option, str) or type(read) is type(option)):
            return option  # pydantic takes True for 1
    raise ValueError("it is none of these")


def _members(kind: Any) -> Iterator[Any]:
    """The kinds that a union allows; of another kind, itself."""
    if get_origin(kind) in (Annotated, Final):
        yield from _members(get_args(kind)[0])
    elif get_origin(kind) in (Union, UnionType):
        for each in get_args(kind):
            yield from _members(each)
    else:
        yield from (str, Any) if kind is PurePath else (NoneType if kind is None else kind,)


def _is_text(kind: Any) -> bool:
    if get_origin(kind) is Literal:
        return all(isinstance(option, str) for option in get_args(kind))
    return kind in _TEXTS


def _rank(kind: Any) -> int:
    """The order in which the kinds of a union are tried: text takes what nothing more special does."""
    if get_origin(kind) is Literal:
        return 0
    if kind in _SIMPLE:
        return 1 + _SIMPLE.index(kind)
    return 6 if _is_text(kind) else 5 if (get_origin(kind) or kind) in (*_LISTS, *_DICTS) else 7


def _strict(kind: Any) -> Any:
    """The kind in pydantic's terms: nothing is made to fit, but words are read."""
    members = sorted(_members(kind), key=_rank)
    plainly = any(map(_is_text, members))
    strict = [_strict_member(member, plainly=plainly) for member in members]
    if len(strict) == 1:
        return strict[0]
    return Annotated[Union[tuple(strict)], Field(union_mode="left_to_right")]  # noqa: UP007  # a list of them


def _strict_member(kind: Any, *, plainly: bool) -> Any:
    base, arguments = get_origin(kind) or kind, get_args(kind)
    if base is Literal:
        return Annotated[Literal[*arguments], BeforeValidator(partial(_option, options=arguments))]
    if base in _SIMPLE:
        read = BeforeValidator(partial(_read_word, kind=base, plainly=plainly))
        return Annotated[base, BeforeValidator(_exact), read] if base is float else Annotated[base, read]
    if base in _TEXTS:
        return _TEXTS[base]
    if base in _NO_JSON:
        return _refuse(base)
    if base is tuple and arguments and arguments[-1] is not ...:
        items = GenericAlias(tuple, (*map(_strict, arguments),))
        as_tuple = BeforeValidator(lambda value: tuple(value) if isinstance(value, list) else value)
        return Annotated[items, as_tuple, AfterValidator(list)]
    if base in _LISTS:
        return GenericAlias(list, _strict(arguments[0]) if arguments else Any)
    if base in _DICTS:
        return GenericAlias(dict, (str, _strict(arguments[1]) if len(arguments) == 2 else Any))
    return Any


@lru_cache(maxsize=512)
def _adapter(kind: Any) -> TypeAdapter[Any]:
    return TypeAdapter(_strict(kind), config=ConfigDict(strict=True, allow_inf_nan=False))


def checked(value: Any, kind: Any) -> Any:
    """The value, if it is of that kind; only a whole number that a float holds becomes one, where declared.

    Raises:
        ValueError: it is not; the message says what is wrong with which part of it.
    """
    try:
        return _adapter(kind).validate_python(value)
    except ValidationError as error:
        deepest = max(reversed(error.errors(include_url=False)), key=lambda each: len(each["loc"]))
        reason = deepest["msg"].removeprefix("Value error, ")
        raise ValueError(f"{reason}; found {deepest['input']!r}") from error


def as_kind(value: Any, kind: Any) -> Any:
    """A value of a YAML document as the kind says; what does not fit stays text, for :func:`checked` to refuse.

    Raises:
        ValueError: it can be read in two ways, such as yes and 1_000 where nothing is declared.
    """
    try:
        return _untyped(_adapter(kind).validate_python(value))
    except ValidationError:
        return _as_text(value) if isinstance(value, str) else _untyped(value)


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
    may_be_text = any(map(_is_text, members))
    try:
        value = read_yaml(text)
        if not may_be_text:
            return as_kind(value, kind)
        if isinstance(value, str) and (value != text or value in _NULLS):
            return text
        return _untyped(_adapter(kind).validate_python(value))
    except ValueError:
        if may_be_text:
            return text
        raise


# YAML documents

_NULL, _BOOL, _INT, _FLOAT, _STR, _SEQ, _MAP, _MERGE = (
    f"tag:yaml.org,2002:{name}" for name in ("null", "bool", "int", "float", "str", "seq", "map", "merge")
)
_RESOLVER: Any = yaml.resolver.Resolver()


class _Loader(yaml.SafeLoader):
    """Composes nodes whose texts are whole: JSON writes a character beyond the first 65,536 as two halves."""

    def compose_scalar_node(self, anchor: Any) -> yaml.ScalarNode:
        node: yaml.ScalarNode = super().compose_scalar_node(anchor)
        if not node.value.isascii():
            node.value = node.value.encode("utf-16", "surrogatepass").decode("utf-16", "surrogatepass")
        return node


def read_yaml(text: str) -> Any:
    """A YAML document with its words as they are written, for :func:`as_kind` to read.

    Raises:
        ValueError: it is no YAML, gives a name twice, refers to itself, or holds what is not plain.
    """
    try:
        node = yaml.compose(text, Loader=_Loader)
        return _Word() if node is None else _value(node)
    except RecursionError as error:
        raise ValueError("must not refer to itself, nor be nested so deeply") from error
    except yaml.YAMLError as error:
        raise ValueError(f"must be YAML: {error}") from error


def _value(node: yaml.Node) -> Any:
    is_word = (
        isinstance(node, yaml.ScalarNode)
        and node.style is None
        and node.tag == _RESOLVER.resolve(yaml.ScalarNode, node.value, (True, False))
    )
    known = {"SequenceNode": _SEQ, "MappingNode": _MAP}.get(type(node).__name__, _STR)
    if not is_word and node.tag != known:  # !!str makes text of a word; other tags make what is not plain
        raise ValueError(f"must be plain; found the tag {node.tag.replace('tag:yaml.org,2002:', '!!')}")
    if isinstance(node, yaml.SequenceNode):
        return [_value(each) for each in node.value]
    if isinstance(node, yaml.MappingNode):
        return _mapping(node)
    return _Word(node.value) if is_word else node.value


def _mapping(node: yaml.MappingNode) -> dict[str, Any]:
    """The names of a mapping, with those that it merges by ``<<``."""
    own: dict[str, Any] = {}
    merged: dict[str, Any] = {}
    for key, value in node.value:
        if key.tag == _MERGE:
            for each in value.value if isinstance(value, yaml.SequenceNode) else [value]:
                if not isinstance(each, yaml.MappingNode):
                    raise ValueError("must merge mappings only by <<")
                merged = {**_mapping(each), **merged}
        elif not isinstance(key, yaml.ScalarNode) or not key.value:
            raise ValueError(f"must have names that are text; found {key.value or 'nothing'!r}")
        elif key.value in own:
            line = key.start_mark.line + 1
            raise ValueError(f"must give each name once; found {key.value} again in line {line}")
        else:
            own[key.value] = _value(value)
    return {**merged, **own}


def require_plain(value: Any) -> None:
    """Raise ValueError for what a notebook and strict JSON cannot both hold.

    >>> require_plain({"limits": [0.5, float("nan")]})
    Traceback (most recent call last):
    ...
    ValueError: numbers must be finite; found nan
    """
    if type(value) is float and not math.isfinite(value):
        raise ValueError(f"numbers must be finite; found {value}")
    if type(value) is str and re.search("[\ud800-\udfff]", value):
        raise ValueError(
            f"texts must be Unicode; found {value!r}"
        )  # half a character, or a byte that is no UTF-8
    if type(value) is list:
        for each in value:
            require_plain(each)
    elif type(value) is dict:
        for name, each in value.items():
            if type(name) is not str:
                raise ValueError(f"keys must be text; found {name!r}")
            require_plain(name)
            require_plain(each)
    elif value is not None and type(value) not in (str, bool, int, float):
        raise ValueError(f"it must be text, a number, a list or a mapping of these; found {value!r}")
