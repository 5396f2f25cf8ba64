"""Clients that know at once that their kernel is ready, or will never be."""

from __future__ import annotations

import time
from contextlib import suppress
from queue import Empty
from typing import Any

import zmq
import zmq.asyncio
from jupyter_client.asynchronous.client import AsyncKernelClient
from jupyter_client.blocking.client import BlockingKernelClient
from jupyter_client.manager import KernelManager
from jupyter_core.utils import run_sync

from prodkit.errors import KernelError

__all__ = ["START_SECONDS", "BlockingClient", "KernelClient"]

START_SECONDS = 60.0


class _Ready:
    """What both clients do: jupyter_client's own waits for a silence of .2 s, and asks again after .1."""

    async def _ready(self: Any, timeout: float | None = None) -> None:
        """Wait until the kernel answers and its output is heard: until it says that it has done what it was asked."""
        deadline = time.monotonic() + (START_SECONDS if timeout is None else timeout)
        asked: set[str] = set()
        answered: set[str] = set()
        while True:
            asked.add(self.kernel_info())
            again = time.monotonic() + 1.0
            while time.monotonic() < again:
                answered |= await self._answers(asked)
                if asked == answered and await self._idle(asked):
                    return
                if answered:
                    again = min(again, time.monotonic() + 0.05)  # it was too early for its output to be heard
                await self._check(deadline)

    async def _answers(self: Any, asked: set[str]) -> set[str]:
        try:
            reply = await self._async_get_shell_msg(timeout=0.02)
        except Empty:
            return set()
        if reply["msg_type"] == "kernel_info_reply":
            self._handle_kernel_info_reply(reply)
        return {reply["parent_header"].get("msg_id", "")} & asked

    async def _idle(self: Any, asked: set[str]) -> bool:
        """Whether the kernel says on the output channel that it is done with any of these."""
        with suppress(Empty):
            while True:
                heard = await self._async_get_iopub_msg(timeout=0.05)
                done = heard["msg_type"] == "status" and heard["content"]["execution_state"] == "idle"
                if done and heard["parent_header"].get("msg_id") in asked:
                    return True
        return False

    async def _check(self: Any, deadline: float) -> None:
        kernel = self.parent
        if isinstance(kernel, KernelManager) and not await kernel._async_is_alive():
            raise KernelError(
                "the kernel", rule=getattr(kernel, "death", lambda: "")() or "died", place="its start"
            )
        if time.monotonic() > deadline:
            raise KernelError("the kernel", rule="did not answer in time", place="its start")


def _attentive(context: zmq.Context) -> zmq.Context:  # type: ignore[type-arg]
    context.setsockopt(zmq.RECONNECT_IVL, 5)  # ms; by default a kernel is asked again after 100
    # A kernel throws output away when 1,000 messages wait for a reader; here all are taken in, and wait for us.
    context.setsockopt(zmq.RCVHWM, 0)
    return context


class KernelClient(_Ready, AsyncKernelClient):
    """The client of our own runs."""

    def _context_default(self) -> zmq.asyncio.Context:
        self._created_context = True
        context = zmq.asyncio.Context()
        _attentive(context)
        return context

    async def wait_for_ready(self, timeout: float | None = None) -> None:
        """Wait until it answers and is heard.

        Args:
            timeout: in seconds; `START_SECONDS` if not given.

        Raises:
            KernelError: it died, or did not answer in time.
        """
        await self._ready(timeout)


class BlockingClient(_Ready, BlockingKernelClient):
    """The same for callers that wait, such as nbval."""

    def _context_default(self) -> zmq.Context:  # type: ignore[type-arg]
        self._created_context = True
        return _attentive(zmq.Context())

    def wait_for_ready(self, timeout: float | None = None) -> None:
        """As that of `KernelClient`."""
        run_sync(self._ready)(timeout)
