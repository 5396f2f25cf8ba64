"""A plugin of pytest: nbval's kernels start warm. ``pytest -p prodkit.kernels.warm --nbval notebooks``."""

from __future__ import annotations

import os
from importlib import import_module
from typing import Any

from prodkit.kernels.imports import lean_imports

__all__ = ["pytest_addoption", "pytest_configure"]


def pytest_addoption(parser: Any) -> None:
    """Called as soon as the plugin is there, which with ``-p`` is before nbval is: what nbval imports is quick, too."""
    os.environ.setdefault("JUPYTER_DEFAULT_PROVISIONER_NAME", "prodkit-warm")
    with lean_imports():
        import_module("nbformat")


def pytest_configure(config: Any) -> None:
    """Give nbval a manager of kernels that does not dawdle; it takes no other from anywhere."""
    if getattr(config.option, "nbval", False) or getattr(config.option, "nbval_lax", False):
        nbval: Any = import_module("nbval.kernel")
        nbval.KernelManager = import_module("prodkit.kernels.prompt").PromptKernel
