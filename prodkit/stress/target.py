"""A service that is asked over HTTP, by as many threads as one likes, over connections that they share."""

from __future__ import annotations

import contextlib
import http.client
import ipaddress
import json
import socket
from collections import deque
from collections.abc import Mapping
from typing import Any
from urllib.parse import urlsplit

from prodkit.errors import ParameterError
from prodkit.stress.load import Said

__all__ = ["Target"]

JSON = "application/json"


class Target:
    """A service such as ``prodkit serve`` makes.

    Args:
        url: ``http://HOST:PORT`` or ``https://...``.
        token: bearer token; none if empty.
        remote: whether it may be on another machine.
        timeout_seconds: after which a request has failed.

    Raises:
        ParameterError: no such URL, or one of another machine without ``remote``.

    >>> Target("http://192.0.2.7:8000")
    Traceback (most recent call last):
    prodkit.errors.ParameterError: url must lead to this machine; found 192.0.2.7. Set `remote` if it may be loaded.
    """

    def __init__(
        self, url: str, *, token: str = "", remote: bool = False, timeout_seconds: float = 10.0
    ) -> None:
        try:
            parts = urlsplit(url)
            host, port = parts.hostname or "", parts.port
        except ValueError as error:
            raise ParameterError("url", rule=f"must be a URL: {error}", value=url) from error
        if parts.scheme not in ("http", "https") or not host or parts.username or parts.query:
            fix = "Write http://HOST:PORT; a token is a parameter of its own."
            raise ParameterError("url", rule="must name a service", value=f"{parts.scheme}://{host}", fix=fix)
        if not remote and not _is_loopback(host):
            fix = "Set `remote` if it may be loaded."
            raise ParameterError("url", rule="must lead to this machine", value=host, fix=fix)
        self.host, self.port = host, port or (443 if parts.scheme == "https" else 80)
        self._kind = http.client.HTTPSConnection if parts.scheme == "https" else http.client.HTTPConnection
        self._prefix, self._timeout = parts.path.rstrip("/"), timeout_seconds
        self._headers = {"content-type": JSON} | ({"authorization": f"Bearer {token}"} if token else {})
        self._idle: deque[http.client.HTTPConnection] = deque()  # the one used last is the next: few are open

    def post(self, body: bytes, *, path: str = "/predict") -> tuple[int, bytes]:
        """Status and body of the answer to one request.

        Raises:
            OSError: nobody answers, or not in time.
            http.client.HTTPException: what came is no answer.
        """
        return self._request("POST", path, body)

    def get(self, path: str) -> tuple[int, bytes]:
        """Status and body of a page; the same errors as :meth:`post`."""
        return self._request("GET", path, None)

    def _request(self, method: str, path: str, body: bytes | None) -> tuple[int, bytes]:
        kept = None
        with contextlib.suppress(IndexError):
            kept = self._idle.pop()
        connection = kept or self._kind(self.host, self.port, timeout=self._timeout)
        try:
            connection.request(method, self._prefix + path, body=body, headers=self._headers)
            answer = connection.getresponse()
            content = answer.read()
        except BaseException as error:
            connection.close()
            # An idle one may have been let go of, maybe at this very moment: once more, over another.
            if kept is not None and isinstance(error, ConnectionError):
                return self._request(method, path, body)
            raise
        self._idle.append(connection)
        return answer.status, content

    def close(self) -> None:
        """Let go of all connections."""
        while self._idle:
            self._idle.pop().close()

    def ask(self, body: bytes) -> Said:
        """What comes of a request for predictions: anything but whole answers with status 200 has failed."""
        status, content = self.post(body)
        answers = _answers(content) if status == 200 else []
        if not answers:
            return "failed"
        return "degraded" if any(answer["degraded"] for answer in answers) else "answered"

    def break_off(self, words: bytes) -> None:
        """Say so much and hang up, as clients do that are closed or lose their network."""
        with socket.create_connection((self.host, self.port), timeout=self._timeout) as client:
            client.sendall(words)


def _answers(content: bytes) -> list[Mapping[str, Any]]:
    """The answers in a body; none if it is no body of answers."""
    try:
        found = json.loads(content)["answers"]
        whole = all(answer["prediction"] is not None and "degraded" in answer for answer in found)
    except (ValueError, KeyError, TypeError):
        return []
    return found if whole else []


def _is_loopback(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
