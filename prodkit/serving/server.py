"""uvicorn with bounds: the length and time of a head, the number of connections, and an end that loses no request."""

from __future__ import annotations

import asyncio
import os
import resource
import select
import signal
import socket
import time
from collections.abc import Callable
from http import HTTPStatus
from typing import Any

import uvicorn
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

__all__ = ["HEAD_BYTES", "Bounded", "Server", "most_connections"]

HEAD_BYTES = 65_536
_HEAD_SECONDS = 10.0  # from the first byte of a request, or from the connection, until its head is whole
_SPARE_FILES = 48  # descriptors that are not connections: the store, artifacts, the log, and room for health
_QUIET_SECONDS = 0.5  # without a new connection, after which nobody is on the way any more
_SILENT_SECONDS = 2.0  # of those who are connected, after which they send nothing more
_LAST_SECONDS = 0.1  # for connections that the machine has taken already


def most_connections(wanted: int) -> int:
    """As many connections as are wanted, or as the process may have open at most."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    limit = hard if hard != resource.RLIM_INFINITY else max(soft, wanted + _SPARE_FILES)
    if soft < min(limit, wanted + _SPARE_FILES):
        resource.setrlimit(resource.RLIMIT_NOFILE, (min(limit, wanted + _SPARE_FILES), hard))
        soft = min(limit, wanted + _SPARE_FILES)
    return max(8, min(wanted, soft - _SPARE_FILES))


class Bounded(HttpToolsProtocol):
    """One connection. Where there are too many, the one that has waited longest for a request makes room.

    ``most`` and ``newest`` are set by :class:`Server`.
    """

    most = 1000
    newest = 0.0  # when the last connection came

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Take it over, and give it a time limit for its first head."""
        super().connection_made(transport)
        Bounded.newest = self._since = time.monotonic()
        self._head = 0  # bytes of a head that is not whole yet; -1 after it
        self._read = 0  # bytes of its lines that are whole
        self._timer = self.loop.call_later(_HEAD_SECONDS, self._refuse, HTTPStatus.REQUEST_TIMEOUT)
        if len(self.connections) > self.most:
            waiting = [each for each in self.connections if isinstance(each, Bounded) and each.awaits_request]
            min(waiting or [self], key=lambda each: each._since).transport.close()

    def connection_lost(self, exc: Exception | None) -> None:
        """Forget the time limit."""
        self._timer.cancel()
        super().connection_lost(exc)

    @property
    def is_idle(self) -> bool:
        """Whether it has no whole head that is being answered."""
        return self.cycle is None or self.cycle.response_complete

    @property
    def awaits_request(self) -> bool:
        """Whether it has not sent a whole request that could be answered."""
        return self.is_idle or self.cycle.more_body

    def data_received(self, data: bytes) -> None:
        """Read on, as long as the head is within its limits."""
        if self._head < 0 and self.is_idle:  # the next request of the same connection
            self._head = self._read = 0
            self._since = time.monotonic()
            self._timer = self.loop.call_later(_HEAD_SECONDS, self._refuse, HTTPStatus.REQUEST_TIMEOUT)
        super().data_received(data)
        if self._head >= 0:
            self._head += len(data)
            if self._head > HEAD_BYTES:
                self._refuse(HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE)

    def on_header(self, name: bytes, value: bytes) -> None:
        """Add a line of the head; a head that came in one piece is counted here."""
        self._read += len(name) + len(value)
        if self._read > HEAD_BYTES:
            raise ValueError("the head is too large")  # the parser stops, and asks for send_400_response
        super().on_header(name, value)

    def on_headers_complete(self) -> None:
        """The head is whole."""
        self._head, self._read = -1, 0  # of several that came at once each is counted by itself
        self._timer.cancel()
        super().on_headers_complete()

    def send_400_response(self, msg: str) -> None:
        """Say what is wrong with a head that cannot be read."""
        if self._read > HEAD_BYTES:
            self._refuse(HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE)
        else:
            super().send_400_response(msg)

    def _refuse(self, status: HTTPStatus) -> None:
        if self.transport.is_closing():
            return
        if status != HTTPStatus.REQUEST_TIMEOUT or self._head > 0:  # to a silent connection nothing is said
            line = f"HTTP/1.1 {status.value} {status.phrase}\r\n"
            self.transport.write(f"{line}connection: close\r\ncontent-length: 0\r\n\r\n".encode())
        self.transport.close()


class Server(uvicorn.Server):
    """Ends in three steps: it says that it is not ready, closes each connection with an answer, then stops listening.

    Args:
        app: the application.
        connections: at most.
        drain_seconds: for connections to end.
        draining: called when the end begins.
    """

    def __init__(
        self, app: Any, *, connections: int, drain_seconds: float, draining: Callable[[], None]
    ) -> None:
        Bounded.most = most_connections(connections)
        super().__init__(
            uvicorn.Config(
                app,
                http=Bounded,
                ws="none",
                log_level="error",
                access_log=False,
                server_header=False,
                timeout_graceful_shutdown=max(1, round(drain_seconds)),
            )
        )
        self._drain_seconds, self._draining = drain_seconds, draining

    def run(self, sockets: list[socket.socket] | None = None) -> None:
        """Serve until SIGTERM, SIGINT or SIGHUP."""
        before = signal.signal(signal.SIGHUP, self.handle_exit)
        try:
            super().run(sockets)
        finally:
            signal.signal(signal.SIGHUP, before if before != self.handle_exit else signal.SIG_DFL)

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Answer whoever is connected, or comes meanwhile, with ``Connection: close``; then listen no more, and end.

        Half of the time belongs to those who still come: whoever distributes requests looks for readiness now and then.
        """
        self._draining()
        began = time.monotonic()
        await self._until(lambda: max(Bounded.newest, began), until=began + self._drain_seconds / 2)
        listeners = [listener for server in self.servers for listener in server.sockets]
        for listener in listeners:
            with socket.socket(fileno=os.dup(listener.fileno())) as same:
                same.listen(0)  # who comes now is not taken; who has come is, before the socket is closed
        await asyncio.sleep(_LAST_SECONDS)
        while select.select(listeners, [], [], 0)[0] and time.monotonic() < began + self._drain_seconds:
            await asyncio.sleep(0)
        for server in self.servers:
            server.close()
        await self._until(self._last_request, until=began + self._drain_seconds, quiet=_SILENT_SECONDS)
        await super().shutdown(sockets)

    def _last_request(self) -> float:
        """When a connection last came, or began a request."""
        own = [each for each in self.server_state.connections if isinstance(each, Bounded)]
        return max((each._since for each in own), default=0.0)

    async def _until(self, last: Callable[[], float], *, until: float, quiet: float = _QUIET_SECONDS) -> None:
        """Wait until nobody is being answered, and nobody has come for a while; at most until a moment."""
        while time.monotonic() < until and not self.force_exit:
            own = [each for each in self.server_state.connections if isinstance(each, Bounded)]
            if all(each.is_idle for each in own) and time.monotonic() - last() > quiet:
                return
            await asyncio.sleep(0.02)
