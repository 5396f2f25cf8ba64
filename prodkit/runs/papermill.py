"""What papermill finds under its entry point: the engine, loaded when it is asked for."""

from __future__ import annotations

from typing import Any

__all__ = ["Engine"]


class Engine:
    """Stands for :class:`prodkit.runs.engine.ProdkitEngine`.

    papermill loads its entry points while it is being imported itself, when the real engine cannot be yet; and
    who runs papermill without it should not wait for it.
    """

    @classmethod
    def execute_notebook(cls, *arguments: Any, **settings: Any) -> Any:
        """Run all cells."""
        return _engine().execute_notebook(*arguments, **settings)

    @classmethod
    def nb_kernel_name(cls, *arguments: Any, **settings: Any) -> Any:
        """The name of the kernelspec that a notebook asks for."""
        return _engine().nb_kernel_name(*arguments, **settings)

    @classmethod
    def nb_language(cls, *arguments: Any, **settings: Any) -> Any:
        """The language that a notebook is written in."""
        return _engine().nb_language(*arguments, **settings)


def _engine() -> Any:
    from prodkit.runs.engine import ProdkitEngine

    return ProdkitEngine
