"""The versions of Python and of the libraries that shape a prediction."""

from __future__ import annotations

import platform
from importlib.metadata import version

__all__ = ["environment"]

_LIBRARIES = ("notebook-prodkit", "scikit-learn", "numpy", "scipy", "pandas", "joblib")


def environment() -> dict[str, str]:
    """Python's version and theirs, by name; none of them is imported."""
    return {"python": platform.python_version()} | {name: version(name) for name in _LIBRARIES}
