"""What the annotation of a parameter allows: evaluated over a whitelist of names, and never by running it."""

from __future__ import annotations

import ast
import math
import sys
from datetime import date, datetime
from functools import lru_cache
from types import GenericAlias
from typing import Annotated, Any, Literal, Union

from pydantic import AfterValidator, BeforeValidator, ConfigDict, TypeAdapter, ValidationError

from prodkit.spans import parse_duration

__all__ = ["annotated_kind", "checked", "either", "literal_kind", "require_plain"]

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


_FLOAT = Annotated[float, BeforeValidator(_exact)]
_DATE = Annotated[str, _text_of(date.fromisoformat, "an ISO date, such as 2024-02-01")]
_MOMENT = Annotated[str, _text_of(datetime.fromisoformat, "an ISO moment, such as 2024-02-01T10:00")]
_LENGTH = Annotated[str, _text_of(parse_duration, "a length of time, such as 14d, 36h or 90min")]

_LISTS = ("list", "List", "tuple", "Tuple", "Sequence", "Iterable", "Collection")
_DICTS = ("dict", "Dict", "Mapping", "MutableMapping")
_REFUSED = ("bytes", "bytearray", "set", "Set", "frozenset", "FrozenSet", "complex")
_NAMES: dict[str, Any] = {
    **{kind.__name__: kind for kind in (bool, int, str)},
    "float": _FLOAT,
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
