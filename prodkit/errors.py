"""Every error that prodkit raises, and how one is worded.

    ProdkitError
    ├── ParameterError      a wrong parameter or call (exit status 2)
    ├── DataError           the table, or the window of it, cannot be used
    │   ├── SchemaError     a column is missing or of another type
    │   ├── WindowError     the window holds no usable rows
    │   ├── LabelError      no labels, one class only, labels of another task
    │   └── IdentityError   row ids repeat or are missing
    ├── ModelError          a model cannot be built, fitted or read back
    ├── StoreError          the store refuses
    │   ├── LockedError     somebody else writes for too long
    │   ├── VersionError    no such version, or one that may not be used so
    │   ├── ArtifactError   the bytes are not those that were registered
    │   └── ConflictError   the champion changed after it was judged
    ├── RequestError        a request to the service that cannot be answered; it carries the HTTP status
    └── RunError            a notebook failed, or was stopped
        └── KernelError     its kernel did not start (a RuntimeError, too, as jupyter_client would raise)

Each names the thing, the rule it breaks, the value, the place and the next step, so that nobody has to open the
source.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from typing import Self

__all__ = [
    "ArtifactError",
    "ConflictError",
    "DataError",
    "IdentityError",
    "KernelError",
    "LabelError",
    "LockedError",
    "ModelError",
    "ParameterError",
    "ProdkitError",
    "RequestError",
    "RunError",
    "SchemaError",
    "StoreError",
    "VersionError",
    "WindowError",
    "missing_column",
]


class ProdkitError(Exception):
    """Something that a user can correct; the message says how.

    Args:
        name: the parameter, column, version or file at fault.
        rule: what should hold, worded to follow the name ("must be ...").
        value: what was found instead.
        place: where it was found: a file, a window, a notebook.
        fix: what to do next.

    >>> print(ProdkitError("limit", rule="must be positive", value=-1, place="a.yaml", fix="Set it to 0.1."))
    limit must be positive; found -1 (in a.yaml). Set it to 0.1.
    """

    def __init__(self, name: str, *, rule: str, value: object = None, place: str = "", fix: str = "") -> None:
        self.name, self.rule, self.value, self.place, self.fix = name, rule, value, place, fix
        found = "" if value is None else f"; found {value}"
        where = f" (in {place})" if place else ""
        super().__init__(f"{name} {rule}{found}{where}." + (f" {fix}" if fix else ""))

    def __reduce__(self) -> tuple[object, ...]:
        """Keep every part when the error crosses a process boundary."""
        return _rebuild, (type(self), self.name, self.rule, self.value, self.place, self.fix)


def _rebuild(
    kind: type[ProdkitError], name: str, rule: str, value: object, place: str, fix: str
) -> ProdkitError:
    return kind(name, rule=rule, value=value, place=place, fix=fix)


class ParameterError(ProdkitError):
    """A wrong parameter or call."""


class DataError(ProdkitError):
    """The table, or the window of it, cannot be used."""


class SchemaError(DataError):
    """A column is missing or of another type."""


class WindowError(DataError):
    """The window holds no usable rows."""


class LabelError(DataError):
    """No labels, one class only, or labels of another task."""


class IdentityError(DataError):
    """Row ids repeat or are missing."""


class ModelError(ProdkitError):
    """A model cannot be built, fitted or read back."""


class StoreError(ProdkitError):
    """The store refuses."""


class LockedError(StoreError):
    """Somebody else has been writing for too long."""


class VersionError(StoreError):
    """No such version, or one that may not be used so."""


class ArtifactError(StoreError):
    """The bytes are not those that were registered."""


class ConflictError(StoreError):
    """The champion changed after it was judged."""


class RequestError(ProdkitError):
    """A request to the service that cannot be answered; ``status`` is the HTTP status that says so."""

    status = 400

    def __reduce__(self) -> tuple[object, ...]:
        return (*super().__reduce__(), {"status": self.status})

    @classmethod
    def of(cls, status: int, name: str, *, rule: str, value: object = None, fix: str = "") -> Self:
        """The error with this status."""
        error = cls(name, rule=rule, value=value, place="the request", fix=fix)
        error.status = status
        return error


class RunError(ProdkitError):
    """A notebook failed, or was stopped."""


class KernelError(RunError, RuntimeError):
    """A kernel did not start."""


def missing_column(name: str, known: Iterable[object], *, place: str = "", fix: str = "") -> SchemaError:
    """The error that a column is not there, naming the nearest one that is."""
    names = [str(column) for column in known]
    near = difflib.get_close_matches(name, names, n=1, cutoff=0.6)
    hint = f"Did you mean {near[0]}?" if near else f"There are: {', '.join(names[:30]) or 'no columns'}."
    return SchemaError(name, rule="must be a column of the table", place=place, fix=f"{hint} {fix}".strip())
