"""What a parameters cell declares: names, kinds, defaults and meanings, read from its text without running it."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from prodkit.errors import ParameterError
from prodkit.settings.annotations import annotated_kind, either, literal_kind

__all__ = ["NOT_LITERAL", "NO_DEFAULT", "Parameter", "declarations"]

NO_DEFAULT = object()
"""Of a name that is annotated and not assigned: it has to be given."""

NOT_LITERAL = object()
"""Of a default that only the notebook itself can compute."""


@dataclass(frozen=True)
class Parameter:
    """One name of a parameters cell.

    Attributes:
        name: the variable.
        kind: what it may be, as :mod:`prodkit.settings.annotations` reads it; ``Any`` if nothing is declared.
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
