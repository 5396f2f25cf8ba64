"""Import the notebook libraries without the grammars that nobody here asks for."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager

__all__ = ["grammars_skipped"]

_GRAMMARS = "rfc3987_syntax"


@contextmanager
def grammars_skipped() -> Iterator[None]:
    """Within the block, ``import nbformat`` and all that builds on it take about a second less.

    jsonschema's format checker imports ``rfc3987_syntax`` if it can, and that builds 35 Lark grammars at import.
    What is given up, in this process and for good once jsonschema was imported here: the formats ``iri`` and
    ``iri-reference`` are not checked. No schema of a notebook or of a Jupyter event names them.

    >>> with grammars_skipped():
    ...     import nbformat
    """
    if _GRAMMARS in sys.modules:
        yield
        return
    sys.modules[_GRAMMARS] = None  # type: ignore[assignment]  # how Python spells "cannot be imported"
    try:
        yield
    finally:
        if sys.modules.get(_GRAMMARS, _GRAMMARS) is None:
            del sys.modules[_GRAMMARS]
