"""Import the notebook libraries without what they import for occasions that do not arise here."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib.machinery import ModuleSpec, PathFinder
from importlib.util import LazyLoader
from threading import get_ident
from types import ModuleType

__all__ = ["lean_imports"]

# Of jsonschema, which checks formats with what it finds: 35 Lark grammars, a calendar, expressions of hundreds of
# lines. Of papermill: pyarrow, with numpy, to read from HDFS.
_NEEDLESS = {"isoduration", "pyarrow", "pyarrow.fs", "rfc3986_validator", "rfc3987_syntax", "webcolors"}
_LATER = {"requests"}  # with which papermill reads from the web


@contextmanager
def lean_imports() -> Iterator[None]:
    """Within the block, ``import papermill`` and ``import nbformat`` take about a second less; for this thread only.

    What is given up, in this process and for good once they were imported here: jsonschema checks no addresses,
    durations and colours, which no schema of a notebook names, and papermill reads nothing from HDFS.

    >>> with lean_imports():
    ...     import nbformat
    """
    finder = _Lean()
    sys.meta_path = [finder, *sys.meta_path]  # a new list: other threads may be going through the old one
    try:
        yield
    finally:
        sys.meta_path = [each for each in sys.meta_path if each is not finder]


class _Lean:
    """Finds no needless module for the thread that made it, and those that may be needed when they are used."""

    def __init__(self) -> None:
        self._thread = get_ident()

    def find_spec(
        self, name: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if get_ident() != self._thread:
            return None
        if name in _NEEDLESS:
            raise ModuleNotFoundError(f"{name} is not imported here", name=name)
        spec = PathFinder.find_spec(name, path, target) if name in _LATER else None
        if spec and spec.loader:
            spec.loader = LazyLoader(spec.loader)
        return spec
