"""Kernels that end with whoever asked for them."""

from __future__ import annotations

import os
import signal
import tempfile
from contextlib import suppress
from typing import Any

from jupyter_client.manager import AsyncKernelManager
from traitlets.config import Config

__all__ = ["Kernels"]


class Kernels(AsyncKernelManager):
    """A kernel that talks through a folder of its own: no ports to race for, and nobody else can listen in."""

    def __init__(self, *, kernel_name: str, warm: bool = True) -> None:
        self._folder = tempfile.TemporaryDirectory(prefix="prodkit-")
        ipc = {"transport": "ipc", "ip": f"{self._folder.name}/kernel"}
        super().__init__(kernel_name=kernel_name, config=Config({"ConnectionFileMixin": ipc}))

    async def start_kernel(self, **settings: Any) -> None:  # type: ignore[override]  # its parent's is not async
        """Start it; its process writes to stderr, since stdout is for the command's answer alone."""
        await super().start_kernel(**{"stdout": 2, **settings})

    def death(self) -> str:
        """How it ended."""
        process = getattr(self.provisioner, "process", None)
        return f"ended with status {process.poll() if process else 'unknown'}"

    async def end(self, *, grace_seconds: float = 1.0) -> None:
        """End it, and all processes that it has started."""
        group = getattr(self.provisioner, "pgid", None)
        if self.has_kernel:
            await self.shutdown_kernel(now=True)
        if group:
            with suppress(ProcessLookupError):
                os.killpg(group, signal.SIGKILL)
        self._folder.cleanup()
