"""Settings: where things lie, what a parameters cell declares, and the values it is given."""

from __future__ import annotations

import ast
import copy
import glob
import hashlib
import json
import math
import os
import re
import sys
from collections.abc import Container, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from functools import lru_cache
from pathlib import Path
from types import GenericAlias, NoneType, UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin

import yaml
from pydantic import AfterValidator, BeforeValidator, ConfigDict, TypeAdapter, ValidationError

from prodkit.errors import ParameterError
from prodkit.evidence import Window, parse_duration
from prodkit.params import FLIGHTS, NOTEBOOKS, ProjectParams, params_model, unknown_parameter

__all__ = [
    "NOT_LITERAL",
    "NO_DEFAULT",
    "REAL_STORE",
    "Arguments",
    "Notebook",
    "Parameter",
    "annotated_kind",
    "beside",
    "check",
    "checked",
    "declarations",
    "destination",
    "either",
    "environment_set",
    "expand",
    "literal_kind",
    "names_read",
    "neutral_facts",
    "notebook_path",
    "outputs_folder",
    "outputs_in",
    "project_folder",
    "read_files",
    "read_node",
    "read_notebook",
    "read_text",
    "require_plain",
    "resolve",
    "store_places",
    "typed_value",
    "using_outputs",
    "written",
    "written_mapping",
]


def project_folder(start: Path | None = None) -> Path:
    """The nearest folder upwards that holds ``notebooks/``, else the checkout that prodkit itself lies in.

    In an installation without notebooks it is the current folder.
    """
    here = (start or Path.cwd()).resolve()
    lived_in = Path(__file__).resolve().parents[1]
    folders = (here, *here.parents, lived_in)
    return next((folder for folder in folders if (folder / "notebooks").is_dir()), here)


_outputs: ContextVar[str] = ContextVar("outputs", default="")


def outputs_folder() -> Path:
    """Where results go: ``PRODKIT_OUT`` (set by ``--out``), else ``outputs/`` of the project."""
    named = _outputs.get() or os.environ.get("PRODKIT_OUT")
    return Path(named) if named else project_folder() / "outputs"


def using_outputs(folder: Path) -> AbstractContextManager[None]:
    """Let all that lies under ``outputs/`` lie in this folder, here and in kernels that are started meanwhile."""
    return environment_set(PRODKIT_OUT=str(folder.resolve()))


@contextmanager
def outputs_in(folder: Path) -> Iterator[None]:
    """The same for this thread alone; kernels have to be told."""
    before = _outputs.set(str(folder.resolve()))
    try:
        yield
    finally:
        _outputs.reset(before)


@contextmanager
def environment_set(**values: str) -> Iterator[None]:
    """Set environment variables for a while; kernels that are started meanwhile inherit them."""
    before = {name: os.environ.get(name) for name in values}
    os.environ.update(values)
    try:
        yield
    finally:
        os.environ.update({name: value for name, value in before.items() if value is not None})
        for name in [name for name, value in before.items() if value is None]:
            os.environ.pop(name, None)


_READ: set[str] = set()


def names_read() -> frozenset[str]:
    """The variables whose values :func:`expand` has put in since this process began: what must not be shown."""
    return frozenset(_READ)


def expand(text: str) -> str:
    """Replace each ``${NAME}`` by the environment's value, at the moment of use and never before.

    Raises:
        ParameterError: the variable is not set.
    """

    def look_up(match: re.Match[str]) -> str:
        if match[1] not in os.environ:
            raise ParameterError(
                match[0], rule="must be set in the environment", fix=f"export {match[1]}=..."
            )
        _READ.add(match[1])
        return os.environ[match[1]]

    return re.sub(r"\$\{(\w+)\}", look_up, text)


def resolve(location: str) -> str:
    """Make a location absolute: ``outputs/...`` lies in :func:`outputs_folder`, the rest in the project.

    URLs pass unchanged, but for the path of a SQLite one.
    """
    location = expand(location)
    prefix, path = ("", location)
    if location.startswith("sqlite:///"):
        prefix, path = "sqlite:///", location.removeprefix("sqlite:///")
        if path in ("", ":memory:"):
            return location
    elif "://" in location:
        return location
    folder = Path(path).expanduser()
    if folder.parts[:1] == ("outputs",):
        return prefix + str(outputs_folder().joinpath(*folder.parts[1:]))
    return prefix + str(project_folder() / folder)


def beside(location: str, folder: Path) -> str:
    """A path that leads nowhere in the project but somewhere from this folder, made absolute; others unchanged."""
    if "://" in location or "${" in location:
        return location
    near = (folder.resolve() / Path(location).expanduser()).resolve()
    return location if glob.glob(resolve(location)) or not glob.glob(str(near)) else str(near)


def destination(location: str) -> Path:
    """The folder that results are written to: as :func:`resolve` says, but never outside a sandbox.

    While a recorded run is verified, ``PRODKIT_SANDBOX`` names a folder that stands in for everything the run may
    write to, so that what it did is not done again. A folder outside of the outputs is found there under
    ``elsewhere/``.
    """
    place, sandbox = Path(resolve(location)), os.environ.get("PRODKIT_SANDBOX")
    if not sandbox or place.is_relative_to(sandbox):
        return place
    return Path(sandbox, "elsewhere", *place.parts[1:])


def store_places(url: str, artifacts: str) -> tuple[str, str]:
    """Where a store is opened: in ``PRODKIT_SANDBOX`` while a run is verified, unless it lies in memory."""
    sandbox = os.environ.get("PRODKIT_SANDBOX")
    if not sandbox or url in ("sqlite://", "sqlite:///:memory:"):
        return url, artifacts
    return f"sqlite:///{sandbox}/store.db", f"{sandbox}/artifacts"


# A kind is what pydantic checks a plain value with: text, numbers, True and False, None, lists, and dicts with
# texts as keys, which is all that can be written into a notebook. Moments are ISO texts there.


def _text_of(parse: Any, name: str) -> AfterValidator:
    def check(text: str) -> str:
        try:
            parse(text)
        except ValueError as error:
            raise ValueError(f"it must be {name}") from error
        return text

    return AfterValidator(check)


def _refused(name: str) -> Any:
    def refuse(_: Any) -> Any:
        raise ValueError(f"no {name} can be written into a notebook: declare text or a list")

    return Annotated[Any, AfterValidator(refuse)]


def _exact(value: Any) -> Any:
    if type(value) is int and (abs(value) > sys.float_info.max or int(float(value)) != value):
        raise ValueError(
            "a float cannot hold this whole number: declare int, or write it with a decimal point"
        )
    return value


_EXACT_FLOAT = Annotated[float, BeforeValidator(_exact)]
_DATE = Annotated[str, _text_of(date.fromisoformat, "an ISO date, such as 2024-02-01")]
_MOMENT = Annotated[str, _text_of(datetime.fromisoformat, "an ISO moment, such as 2024-02-01T10:00")]
_LENGTH = Annotated[str, _text_of(parse_duration, "a length of time, such as 14d, 36h or 90min")]

_LISTS = ("list", "List", "tuple", "Tuple", "Sequence", "Iterable", "Collection")
_DICTS = ("dict", "Dict", "Mapping", "MutableMapping")
_REFUSED = ("bytes", "bytearray", "set", "Set", "frozenset", "FrozenSet", "complex")
_NAMES: dict[str, Any] = {
    **{kind.__name__: kind for kind in (bool, int, str)},
    "float": _EXACT_FLOAT,
    **dict.fromkeys(_LISTS, list[Any]),
    **dict.fromkeys(_DICTS, dict[str, Any]),
    **{name: _refused(name) for name in _REFUSED},
    **{"None": None, "date": _DATE, "datetime": _MOMENT, "timedelta": _LENGTH},
    **{"Path": str | Any, "PurePath": str | Any},  # written as text, and made of anything
}
_MODULES = ("builtins", "collections.abc", "datetime", "dt", "pathlib", "t", "typing", "typing_extensions")


def annotated_kind(annotation: ast.expr) -> Any:
    """The kind that an annotation stands for; what is not on the list, a class of one's own say, allows anything.

    >>> annotated_kind(ast.parse("list[str] | None", mode="eval").body) == list[str] | None
    True
    >>> annotated_kind(ast.parse("dict[str, MyClass]", mode="eval").body)
    dict[str, typing.Any]
    """
    match annotation:
        case ast.Constant(value=None):
            return None
        case ast.Constant(value=str(text)):
            try:
                return annotated_kind(ast.parse(text.strip(), mode="eval").body)
            except (SyntaxError, ValueError):
                return Any
        case ast.BinOp(left=left, op=ast.BitOr(), right=right):
            return either(annotated_kind(left), annotated_kind(right))
        case ast.Subscript(value=value, slice=ast.Tuple(elts=arguments)):
            return _subscripted(_name(value), arguments)
        case ast.Subscript(value=value, slice=argument):
            return _subscripted(_name(value), [argument])
    return _NAMES.get(_name(annotation), Any)


def _name(expression: ast.expr) -> str:
    """``Literal`` of Literal and of typing.Literal; empty for what cannot be one of the list."""
    if isinstance(expression, ast.Attribute) and ast.unparse(expression.value) in _MODULES:
        return expression.attr
    return expression.id if isinstance(expression, ast.Name) else ""


def _subscripted(name: str, arguments: list[ast.expr]) -> Any:
    if not arguments:
        return _NAMES.get(name, Any)
    if name == "Literal":
        return _literal(arguments)
    if name in ("Annotated", "Final"):
        return annotated_kind(arguments[0])
    is_variadic = isinstance(arguments[-1], ast.Constant) and arguments[-1].value is ...
    kinds = [annotated_kind(each) for each in arguments[: -1 if is_variadic else None]]
    if name in ("Optional", "Union"):
        return either(*kinds, *([None] if name == "Optional" else []))
    if name in ("tuple", "Tuple") and not is_variadic:
        return Annotated[GenericAlias(tuple, (*kinds,)), BeforeValidator(_as_tuple), AfterValidator(list)]
    if name in _LISTS and len(kinds) == 1:
        return GenericAlias(list, (*kinds,))
    if name in _DICTS and len(kinds) == 2:
        return GenericAlias(dict, (*kinds,))
    return _NAMES.get(name, Any)


def _as_tuple(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value


def _literal(arguments: list[ast.expr]) -> Any:
    try:
        options = tuple(ast.literal_eval(each) for each in arguments)
    except ValueError:
        return Any
    if not all(isinstance(option, str | int | None) for option in options):
        return Any

    def same(value: Any) -> Any:
        if not any(type(value) is type(option) and value == option for option in options):
            raise ValueError("it is none of these")  # pydantic takes True for 1
        return value

    return Annotated[Literal[*options], BeforeValidator(same)]


def either(*kinds: Any) -> Any:
    """The union of kinds; without any, anything."""
    return Union[kinds] if kinds else Any  # noqa: UP007  # None | None is no type


def literal_kind(value: Any) -> Any:
    """The kind of a parameter that is not annotated, from its default; None allows anything.

    >>> literal_kind(1), literal_kind([1])
    (<class 'int'>, list[typing.Any])
    """
    return Any if value is None else _NAMES.get(type(value).__name__, Any)


@lru_cache(maxsize=256)
def _adapter(kind: Any) -> TypeAdapter[Any]:
    return TypeAdapter(kind, config=ConfigDict(strict=True, allow_inf_nan=False))


def checked(value: Any, kind: Any) -> Any:
    """The value, if it is of that kind; only a whole number that a float holds becomes one, where declared.

    Raises:
        ValueError: it is not; the message says what is wrong with which part of it.
    """
    try:
        return _adapter(kind).validate_python(value)
    except ValidationError as error:
        deepest = max(error.errors(include_url=False), key=lambda each: len(each["loc"]))
        reason = deepest["msg"].removeprefix("Value error, ")
        raise ValueError(f"{reason}; found {deepest['input']!r}") from error


def _is_whole(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:  # half a character, or a byte of the command line that is no UTF-8
        return False
    return True


def require_plain(value: Any) -> None:
    """Raise ValueError for what a notebook and strict JSON cannot both hold.

    >>> require_plain({"limits": [0.5, float("nan")]})
    Traceback (most recent call last):
    ...
    ValueError: numbers must be finite; found nan
    """
    if type(value) is float and not math.isfinite(value):
        raise ValueError(f"numbers must be finite; found {value}")
    if type(value) is str and not _is_whole(value):
        raise ValueError(f"texts must be Unicode; found {value!r}")
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


NO_DEFAULT = object()
"""Of a name that is annotated and not assigned: it has to be given."""

NOT_LITERAL = object()
"""Of a default that only the notebook itself can compute."""


@dataclass(frozen=True)
class Parameter:
    """One name of a parameters cell.

    Attributes:
        name: the variable.
        kind: what it may be, as :mod:`prodkit.settings` reads it; ``Any`` if nothing is declared.
        default: a plain value, ``NOT_LITERAL`` or ``NO_DEFAULT``.
        annotation: as it is written; empty without one.
        meaning: the comment behind it.
    """

    name: str
    kind: Any
    default: Any
    annotation: str = ""
    meaning: str = ""

    @property
    def is_literal(self) -> bool:
        """Whether the default is a plain value that can be read without running the cell."""
        return self.default is not NO_DEFAULT and self.default is not NOT_LITERAL

    @property
    def rule(self) -> str:
        """What a value must be, worded to follow the name."""
        if self.annotation:
            return f"must be {self.annotation}"
        is_typed = self.kind is not Any
        return f"must be {type(self.default).__name__}, as its default is" if is_typed else "must be plain"


def declarations(source: str, *, place: str) -> dict[str, Parameter]:
    """The parameters of a cell, in order; of a name that is assigned again, the later default counts.

    Prose, imports and calls declare nothing.

    Raises:
        ParameterError: the cell is no Python, or an assignment whose names cannot be told.
    """
    lines = re.split("\r\n|\r|\n", source)  # where Python ends a line, and nowhere else
    found: dict[str, Parameter] = {}
    for statement in _statements(source, place=place):
        comment = _comment(statement, lines)
        for name, annotation, value in _assigned(statement, place=place):
            default = _default(value)
            before = found.get(name)
            if annotation is not None:
                kind, written = annotated_kind(annotation), ast.unparse(annotation)
                kind = either(kind, None) if default is None else kind  # what it sets itself may be given
            elif before is not None and before.annotation:
                kind, written = before.kind, before.annotation
            else:
                kind, written = (Any if default is NOT_LITERAL else literal_kind(default)), ""
            found[name] = Parameter(name, kind, default, written, comment)
    return found


def _statements(source: str, *, place: str) -> list[ast.stmt]:
    try:
        return ast.parse(source).body
    except SyntaxError as error:
        where = f"{place}, line {error.lineno}" if error.lineno else place
        raise ParameterError(
            "parameters", rule=f"must be Python assignments: {error.msg}", place=where
        ) from error
    except (ValueError, RecursionError) as error:  # half a character; brackets without end
        raise ParameterError(
            "parameters", rule=f"must be Python assignments: {error}", place=place
        ) from error


Assigned = tuple[str, ast.expr | None, ast.expr | None]


def _assigned(statement: ast.stmt, *, place: str) -> Iterator[Assigned]:
    """Each name that a statement assigns, with its annotation and its value."""
    match statement:
        case ast.AnnAssign(target=ast.Name(id=name), annotation=annotation, value=value):
            yield name, annotation, value
        case ast.AugAssign(target=ast.Name(id=name)):
            yield name, None, statement.target  # no literal: it takes computing
        case ast.Assign(targets=targets, value=value):
            for target in targets:
                yield from _unpacked(target, value, place=f"{place}, line {statement.lineno}")


def _unpacked(target: ast.expr, value: ast.expr, *, place: str) -> Iterator[Assigned]:
    if isinstance(target, ast.Name):
        yield target.id, None, value
    elif isinstance(target, ast.Tuple | ast.List):
        parts = value.elts if isinstance(value, ast.Tuple | ast.List) else []
        starred = any(isinstance(each, ast.Starred) for each in (*target.elts, *parts))
        if starred or len(parts) != len(target.elts):
            fix = "Write one name a line."
            raise ParameterError(
                ast.unparse(target), rule="must be assigned one by one", place=place, fix=fix
            )
        for each, part in zip(target.elts, parts, strict=True):
            yield from _unpacked(each, part, place=place)


def _default(value: ast.expr | None) -> Any:
    if value is None:
        return NO_DEFAULT
    try:
        return ast.literal_eval(value)
    except (ValueError, TypeError, SyntaxError, MemoryError, RecursionError):
        return NOT_LITERAL


def _comment(statement: ast.stmt, lines: list[str]) -> str:
    """What stands behind the statement on its last line."""
    last = lines[(statement.end_lineno or 1) - 1].encode()[statement.end_col_offset or 0 :].decode()
    return last.strip().lstrip("#").strip() if last.strip().startswith("#") else ""


@dataclass(frozen=True)
class Notebook:
    """A notebook that can be run, read without running it.

    Attributes:
        path: the file.
        digest: SHA-256 (hex digits) of the kinds and sources of its cells; outputs do not count.
        parameters: what its parameters cell declares, by name.
    """

    path: Path
    digest: str
    parameters: Mapping[str, Parameter]

    @property
    def name(self) -> str:
        """What it is called: the file's name without its ending."""
        return self.path.stem

    @property
    def defaults(self) -> dict[str, Any]:
        """The parameters whose defaults are literals, in order."""
        known = {name: each.default for name, each in self.parameters.items() if each.is_literal}
        return copy.deepcopy(known)


def notebook_path(notebook: str) -> Path:
    """The file of a notebook given by name or path; raises ParameterError when there is none."""
    path = (
        Path(notebook)
        if notebook.endswith(".ipynb")
        else project_folder() / "notebooks" / f"{notebook}.ipynb"
    )
    if not path.is_file():
        known = sorted(p.stem for p in (project_folder() / "notebooks").glob("*.ipynb"))
        fix = f"There are: {', '.join(known)}." if known else "Start in a folder that holds notebooks/."
        raise ParameterError("NOTEBOOK", rule="must be a notebook", value=notebook, fix=fix)
    return path


def read_notebook(notebook: str) -> Notebook:
    """Read a notebook given by name or path; a text that was read before is not parsed again.

    Raises:
        ParameterError: no such notebook, or its parameters cell cannot be read.
    """
    path = notebook_path(notebook)
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ParameterError("NOTEBOOK", rule=f"must be readable: {error}", place=path.name) from error
    return _parsed(text, path)


@lru_cache(maxsize=64)
def _parsed(text: str, path: Path) -> Notebook:
    try:
        cells = _cells(text)
    except (ValueError, RecursionError) as error:
        rule, fix = f"must be a notebook of format 4: {error}", "Open it in JupyterLab and save it."
        raise ParameterError("NOTEBOOK", rule=rule, place=path.name, fix=fix) from error
    sources = [(kind, source) for kind, source, _ in cells]
    digest = hashlib.sha256(json.dumps(sources).encode()).hexdigest()
    tagged = [(kind, source) for kind, source, tags in cells if "parameters" in tags]
    if [kind for kind, _ in tagged] not in ([], ["code"]):
        rule, fix = "must be one tagged code cell, or none", "Tag one cell `parameters`."
        raise ParameterError("parameters", rule=rule, value=f"{len(tagged)}", place=path.name, fix=fix)
    return Notebook(path, digest, declarations(tagged[0][1], place=path.name) if tagged else {})


def _cells(text: str) -> list[tuple[str, str, list[str]]]:
    """Kind, source and tags of each cell.

    Read as the JSON that it is: to import nbformat takes longer than to run many a small notebook, and it
    repairs only what is not read here.
    """
    document = json.loads(text)
    if not isinstance(document, dict) or document.get("nbformat") != 4:
        raise ValueError("it is none")
    found = []
    for number, cell in enumerate(_typed(document.get("cells"), list, "cells"), start=1):
        place = f"cell {number}"
        cell = _typed(cell, dict, place)
        source = cell.get("source")
        lines = source if isinstance(source, list) else [source]
        tags = _typed(
            _typed(cell.get("metadata"), dict, f"metadata of {place}").get("tags", []), list, "tags"
        )
        kind = _typed(cell.get("cell_type"), str, f"type of {place}")
        found.append((kind, "".join(_typed(line, str, f"source of {place}") for line in lines), tags))
    return found


def _typed(value: Any, kind: type, name: str) -> Any:
    if not isinstance(value, kind):
        raise ValueError(f"{name} must be of type {kind.__name__}")
    return value


REAL_STORE = "sqlite:///outputs/store.db"
_ADDRESSES = ("store", "artifacts", "data", "predictions", "notify")
_PASSWORD = re.compile(r"^[\w+.-]+://[^/?#\s@:]*:(?P<password>[^/?#\s@]+)@")


@dataclass(frozen=True)
class Arguments:
    """What a notebook is given, and found to be what it declares.

    Attributes:
        values: those that differ from its defaults, plain, as they are injected.
        params: all of them, of a notebook of the kit; None for a notebook of one's own.
    """

    values: dict[str, Any]
    params: ProjectParams | None


def read_files(notebook: str, files: Sequence[Path | str]) -> dict[str, Any]:
    """The parameters for one notebook from params files, later ones winning.

    A file named after a notebook is that notebook's policy, and says nothing to the others. Any other file
    is shared: what it says to another notebook is passed over. A table that does not lie in the project is
    looked for beside the file that names it.

    Raises:
        ParameterError: a file that cannot be read, or a name that no notebook knows.
    """
    given: dict[str, Any] = {}
    kinds = _kinds(read_notebook(notebook))
    everybody = {name for kind in NOTEBOOKS.values() for name in kind.model_fields}
    for path in map(Path, files):
        shared = path.stem not in NOTEBOOKS
        if not shared and path.stem != Path(notebook).stem:
            continue
        for name, node in written(path).items():
            if name in kinds:
                value = _read_value(read_node, node, kinds[name], name=name, place=path.name)
                given[name] = _located(name, value, path.parent)
            elif not (shared and name in everybody):
                raise unknown_parameter(name, known=kinds, place=path.name)
    return given


def written(path: Path) -> dict[str, yaml.Node]:
    """The names of one params file, each with what is written for it; ParameterError when it cannot be read."""
    try:
        return written_mapping(path.read_text(encoding="utf-8"))
    except OSError as error:
        known = sorted(str(p.name) for p in path.parent.glob("*.yaml"))
        fix = f"There are: {', '.join(known)}." if known else ""
        raise ParameterError("-f", rule="must name a file that can be read", value=path, fix=fix) from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ParameterError("-f", rule=f"must be YAML: {error}", place=path.name) from error
    except ValueError as error:
        raise ParameterError("-f", rule=str(error), place=path.name) from error


def _kinds(notebook: Notebook) -> dict[str, Any]:
    """What each parameter may be: as its model says, or as the notebook declares it."""
    kind = params_model(notebook.name, notebook.parameters)
    fields = kind.model_fields if kind else {}
    return {
        name: fields[name].annotation if name in fields else declared.kind
        for name, declared in notebook.parameters.items()
    }


def _read_value(reader: Any, written: Any, kind: Any, *, name: str, place: str) -> Any:
    try:
        value = reader(written, kind)
    except ValueError as error:
        raise ParameterError(name, rule=str(error), place=place) from error
    _require_no_password(name, value)
    return value


def _located(name: str, value: Any, folder: Path) -> Any:
    """Lead to the table from wherever its name was given; another value stays what it is."""
    return beside(value, folder) if name == "data" and isinstance(value, str) and value != FLIGHTS else value


def typed_value(notebook: str, name: str, text: str) -> Any:
    """Read the VALUE of ``-p NAME VALUE``: text stays text where text is declared, the rest is YAML.

    Raises:
        ParameterError: the notebook does not know the name, or the value can be read in two ways.
    """
    kinds = _kinds(read_notebook(notebook))
    if name not in kinds:
        raise unknown_parameter(name, known=kinds, place=f"-p, for {notebook}")
    return _located(name, _read_value(read_text, text, kinds[name], name=name, place="-p"), Path.cwd())


def check(notebook: Notebook, given: Mapping[str, Any]) -> Arguments:
    """What a notebook is given, with what suits the table, if each value is what its parameter may be.

    Of a notebook of the kit its model is asked, of any other what its parameters cell declares.

    Raises:
        ParameterError: a name that is not declared, one that has to be given, or a value of another kind.
    """
    defaults = notebook.defaults
    values = dict(given)
    for name, value in values.items():
        _require_no_password(name, value)  # before any error can repeat it
    if defaults.get("data") == FLIGHTS:
        values = {**neutral_facts(given, known=notebook.parameters), **values}
    if defaults.get("store") == "demo":
        values.setdefault("store", REAL_STORE)
    place = f"the parameters of {notebook.path.name}"
    for name, value in values.items():
        if name not in notebook.parameters:
            raise unknown_parameter(name, known=notebook.parameters, place=notebook.path.name)
        try:
            require_plain(value)
        except ValueError as error:
            raise ParameterError(name, rule=f"must be plain: {error}", place=place) from error
    if kind := params_model(notebook.name, notebook.parameters):
        _require_literals(notebook)
        return Arguments(values, kind.check({**defaults, **values}))
    return Arguments(_checked(notebook, values, place=place), None)


def _require_no_password(name: str, value: Any) -> None:
    """Refuse an address with a password in it: parameters stand in the notebook, in records and in reports."""
    addresses = value if isinstance(value, list) else [value]
    for address in addresses if name in _ADDRESSES else []:
        match = _PASSWORD.search(address) if isinstance(address, str) else None
        if match and not re.fullmatch(r"(\$\{\w+\})+|\**", match["password"]):
            variable = f"{name.upper()}_PASSWORD"
            start, end = match.span("password")
            fix = f"export {variable}=..., and write {address[:start]}${{{variable}}}{address[end:]}."
            found = f"{address[:start]}***{address[end:]}"
            raise ParameterError(
                name, rule="must not hold a password, since it is recorded", value=found, fix=fix
            )


def _require_literals(notebook: Notebook) -> None:
    """The notebooks of the kit are checked whole, so that all of their defaults must be known."""
    for name, declared in notebook.parameters.items():
        if not declared.is_literal:
            raise ParameterError(name, rule="must be a literal", place=notebook.path.name)


def _checked(notebook: Notebook, values: Mapping[str, Any], *, place: str) -> dict[str, Any]:
    found = {}
    for name, declared in notebook.parameters.items():
        if name in values:
            try:
                found[name] = checked(values[name], declared.kind)
            except ValueError as error:
                rule = f"{declared.rule}: {error}"
                raise ParameterError(name, rule=rule, place=place, fix=_advice(declared)) from error
        elif declared.default is NO_DEFAULT:
            fix = f"Set it in a params file, or with -p {name} VALUE. {_advice(declared)}".strip()
            raise ParameterError(name, rule="must be given: it has no default", place=place, fix=fix)
    return found


def _advice(declared: Parameter) -> str:
    """How to give another value, or to allow this one."""
    meaning = f"It means: {declared.meaning}. " if declared.meaning else ""
    if declared.annotation:
        return meaning.strip()
    return f"{meaning}To allow others, annotate it there, such as {declared.name}: float | None."


def neutral_facts(given: Mapping[str, Any], *, known: Container[str]) -> dict[str, Any]:
    """What stands in for the facts of the bundled flights where another table is named and nothing is said.

    Raises:
        ParameterError: the table's time column or target is not named.
    """
    if given.get("data", FLIGHTS) == FLIGHTS:
        return {}
    for name in ("time_column", "target"):
        if name in known and name not in given:
            fix = f"Set it in a params file, or with -p {name} NAME."
            raise ParameterError(name, rule="must be given with `data`", place=str(given["data"]), fix=fix)
    neutral: dict[str, Any] = {"features": [], "id_column": [], "slices": []}
    return {name: value for name, value in neutral.items() if name in known and name not in given}
