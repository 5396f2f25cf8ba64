"""A manager of kernels for callers that wait, such as nbval: it loses no time at their start and end."""

from __future__ import annotations

from typing import Any

from jupyter_client.manager import KernelManager
from traitlets import DottedObjectName, Type
from traitlets.config import Config

from prodkit.kernels.clients import BlockingClient

__all__ = ["PromptKernel"]


class PromptKernel(KernelManager):
    """jupyter_client's, which looks ten times as often whether its kernel has ended, with a client that is as quick.

    The kernel that finds no zygote starts one for those that follow, and is itself started plainly meanwhile.
    """

    client_class = DottedObjectName("prodkit.kernels.clients.BlockingClient", config=True)
    client_factory = Type(klass=BlockingClient, config=True)

    def __init__(self, **settings: Any) -> None:
        super().__init__(config=Config(WarmProvisioner={"waits": False}), **settings)

    async def _async_wait(self, pollinterval: float = 0.01) -> None:
        await super()._async_wait(pollinterval)
