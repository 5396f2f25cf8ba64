"""What papermill finds under its entry point: a name that hands on what it is asked for to the engine.

papermill loads its entry points while it is being imported itself, when the engine cannot be yet; and who runs
papermill without the engine should not wait for it.
"""

from __future__ import annotations

from typing import Any

__all__ = ["Engine"]


class _Later(type):
    def __getattr__(cls, name: str) -> Any:
        from prodkit.runs.engine import ProdkitEngine

        return getattr(ProdkitEngine, name)


class Engine(metaclass=_Later):
    """Stands for :class:`prodkit.runs.engine.ProdkitEngine`."""
