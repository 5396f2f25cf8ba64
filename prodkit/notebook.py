"""A notebook as a file: what its parameters cell declares, and the digest of its cells, without running it."""

from __future__ import annotations

import ast
import copy
import hashlib
import json
import re
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal, Union

from pydantic import BaseModel, ValidationError

from prodkit.errors import ParameterError
from prodkit.params import ProjectParams, params_model
from prodkit.values import annotated_kind, literal_kind

__all__ = ["NOT_LITERAL", "NO_DEFAULT", "Notebook", "Parameter", "parse_notebook"]

NO_DEFAULT = object()
"""Of a name that is annotated and not assigned: it has to be given."""

NOT_LITERAL = object()
"""Of a default that only the notebook itself can compute."""


@dataclass(frozen=True)
class Parameter:
    """One name of a parameters cell.

    Attributes:
        name: the variable.
        kind: what it may be, as an annotation of Python; ``Any`` if nothing is declared.
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

    @property
    def advice(self) -> str:
        """How to give another value, or to allow this one."""
        meaning = f"It means: {self.meaning}." if self.meaning else ""
        allow = (
            ""
            if self.annotation
            else f"To allow others, annotate it there, such as {self.name}: float | None."
        )
        return f"{meaning} {allow}".strip()


@dataclass(frozen=True)
class Notebook:
    """A notebook that can be run, read without running it.

    Attributes:
        path: the file.
        digest: SHA-256 (hex digits) of the kinds and sources of its cells; outputs do not count.
        parameters: what its parameters cell declares, by name; empty without such a cell.
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

    @property
    def is_of_the_kit(self) -> bool:
        """Whether it declares all project facts; to others the kit's own facts say nothing."""
        return self.parameters.keys() >= ProjectParams.model_fields.keys()

    @property
    def kinds(self) -> dict[str, Any]:
        """What each parameter may be: as its model says, or as the notebook declares it."""
        model = params_model(self.name, self.parameters)
        fields = model.model_fields if model else {}
        return {
            name: fields[name].annotation if name in fields else declared.kind
            for name, declared in self.parameters.items()
        }


class _Cell(BaseModel):
    cell_type: str
    source: str | list[str]
    metadata: dict[str, Any]


class _Document(BaseModel):
    """What is read of a file: to import nbformat takes longer than to run many a small notebook."""

    nbformat: Literal[4]
    cells: list[_Cell]
    metadata: dict[str, Any] = {}

    @property
    def language(self) -> str:
        about = [self.metadata.get(name) or {} for name in ("language_info", "kernelspec")]
        return str(about[0].get("name") or about[1].get("language") or "python").lower()


@lru_cache(maxsize=64)
def parse_notebook(text: str, path: Path) -> Notebook:
    """What the text of a notebook declares; one that was read before is not parsed again.

    Raises:
        ParameterError: it is no notebook, or its parameters cell no Python.
    """
    try:
        document = _Document.model_validate(json.loads(text))
    except (ValueError, RecursionError) as error:
        reason = str(error)
        if isinstance(error, ValidationError):
            first = error.errors(include_url=False)[0]
            reason = f"{'.'.join(map(str, first['loc'])) or 'it'}: {first['msg']}"
        rule, fix = f"must be a notebook of format 4: {reason}", "Open it in JupyterLab and save it."
        raise ParameterError("NOTEBOOK", rule=rule, place=path.name, fix=fix) from error
    sources = [(cell.cell_type, "".join(cell.source)) for cell in document.cells]
    tags = [cell.metadata.get("tags") or () for cell in document.cells]
    tagged = [cell for cell, of_it in zip(sources, tags, strict=True) if "parameters" in of_it]
    digest = hashlib.sha256(json.dumps(sources).encode()).hexdigest()
    is_read = [kind for kind, _ in tagged] == ["code"] and document.language in ("python", "ipython")
    return Notebook(path, digest, _declared(tagged[0][1], place=path.name) if is_read else {})


def _declared(source: str, *, place: str) -> dict[str, Parameter]:
    """The parameters of a cell, in order; of a name that is assigned again, the later default counts.

    Prose, imports and calls declare nothing.
    """
    source, statements = _statements(source, place=place)
    lines = re.split("\r\n|\r|\n", source)  # where Python ends a line, and nowhere else
    parameters: dict[str, Parameter] = {}
    for statement in statements:
        last = (
            lines[(statement.end_lineno or 1) - 1].encode()[statement.end_col_offset or 0 :].decode().strip()
        )
        comment = last.lstrip("#").strip() if last.startswith("#") else ""
        for name, annotation, value in _assigned(statement):
            default = _default(value)
            before = parameters.get(name)
            if annotation is not None:
                kind, written = annotated_kind(annotation), ast.unparse(annotation)
                if default is None:  # what the notebook sets itself may be given
                    kind = Union[kind, None]  # noqa: UP007  # None | None is no type
            elif before is not None and before.annotation:
                kind, written = before.kind, before.annotation
            else:
                kind, written = (Any if default is NOT_LITERAL else literal_kind(default)), ""
            parameters[name] = Parameter(name, kind, default, written, comment)
    return parameters


def _statements(source: str, *, place: str) -> tuple[str, list[ast.stmt]]:
    """What a cell says in plain Python, and its statements; magics are calls then."""
    try:
        with suppress(SyntaxError):
            return source, ast.parse(source).body
        if re.search(r"^\s*[%!?]|=\s*[%!]|\?\s*$", source, re.M):
            from IPython.core.inputtransformer2 import TransformerManager  # slow, and seldom needed

            source = TransformerManager().transform_cell(source)
        return source, ast.parse(source).body
    except SyntaxError as error:
        rule, line = (
            f"must be Python assignments: {error.msg}",
            f", line {error.lineno}" if error.lineno else "",
        )
        raise ParameterError("parameters", rule=rule, place=f"{place}{line}") from error
    except (ValueError, RecursionError, MemoryError) as error:  # half a character; brackets without end
        rule = f"must be Python assignments: {error}"
        raise ParameterError("parameters", rule=rule, place=place) from error


Assigned = tuple[str, ast.expr | None, ast.expr | None]


def _assigned(statement: ast.stmt) -> Iterator[Assigned]:
    """Each name that a statement assigns, with its annotation and its value."""
    match statement:
        case ast.AnnAssign(target=ast.Name(id=name), annotation=annotation, value=value):
            yield name, annotation, value
        case ast.AugAssign(target=ast.Name(id=name)):
            yield name, None, statement.target  # no literal: it takes computing
        case ast.Assign(targets=targets, value=value):
            for target in targets:
                yield from _unpacked(target, value)


def _unpacked(target: ast.expr, value: ast.expr) -> Iterator[Assigned]:
    if isinstance(target, ast.Name):
        yield target.id, None, value
    elif isinstance(target, ast.Tuple | ast.List):
        parts = value.elts if isinstance(value, ast.Tuple | ast.List) else []
        is_starred = any(isinstance(each, ast.Starred) for each in (*target.elts, *parts))
        one_each = len(parts) == len(target.elts) and not is_starred
        for each, part in zip(target.elts, parts if one_each else target.elts, strict=True):
            yield from _unpacked(each.value if isinstance(each, ast.Starred) else each, part)


def _default(value: ast.expr | None) -> Any:
    if value is None:
        return NO_DEFAULT
    try:
        return ast.literal_eval(value)
    except (ValueError, TypeError, SyntaxError, MemoryError, RecursionError):
        return NOT_LITERAL
