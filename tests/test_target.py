"""A service asked over HTTP: whom it may be, what counts as an answer, and connections that are let go of."""

import socket
import struct
import threading
from contextlib import contextmanager

import pytest

from prodkit.errors import ParameterError
from prodkit.stress.load import Target

GOOD = b'{"answers": [{"prediction": 0.5, "degraded": false}]}'


def asked(client):
    """Whether a whole request has come, whose body is `{}`."""
    words = b""
    while not words.endswith(b"\r\n\r\n{}"):
        part = client.recv(65536)
        if not part:
            return False
        words += part
    return True


@contextmanager
def answering(*answers, keep=True, reset=False):
    """A server that gives these answers in turn, each as (status, body), and counts its connections.

    It keeps a connection, lets go of it after each answer, or resets it.
    """
    left, seen = list(answers), []

    def serve():
        while left:
            try:
                client, _ = listener.accept()
            except OSError:
                return
            seen.append(client)
            if reset:
                client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            with client:
                while left and asked(client):
                    status, body = left.pop(0)
                    client.sendall(
                        f"HTTP/1.1 {status} x\r\ncontent-length: {len(body)}\r\n\r\n".encode() + body
                    )
                    if not keep:
                        break

    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        target = Target(f"http://127.0.0.1:{listener.getsockname()[1]}", timeout_seconds=5)
        yield target, seen
        target.close()
        listener.shutdown(socket.SHUT_RDWR)
    thread.join(5)


@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("http://192.0.2.7:8000", "url must lead to this machine; found 192.0.2.7"),
        ("http://example.com", "url must lead to this machine; found example.com"),
        ("http://127.0.0.1.example.com", "url must lead to this machine"),
        ("ftp://127.0.0.1", "url must name a service; found ftp://127.0.0.1"),
        ("http://me:secret@127.0.0.1", "url must name a service; found http://127.0.0.1"),
        ("127.0.0.1:8000", "url must"),
        ("http://127.0.0.1:port", "url must be a URL"),
    ],
)
def test_another_machine_is_not_loaded_unasked(url, message):
    """Only this machine is loaded unless `remote` says otherwise, and an address that is none is refused."""
    with pytest.raises(ParameterError, match=message):
        Target(url)


def test_another_machine_may_be_asked_for():
    """With `remote`, any host will do; nothing is sent before the first request."""
    assert Target("https://models.example.com", remote=True).port == 443
    assert Target("http://[::1]:9000").host == "::1"


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        ((200, GOOD), "answered"),
        ((200, GOOD.replace(b"false", b"true")), "degraded"),
        ((200, b'{"answers": []}'), "failed"),
        ((200, b'{"answers": [{"prediction": null, "degraded": false}]}'), "failed"),
        ((200, b"<html>"), "failed"),
        ((200, b"7"), "failed"),
        ((503, GOOD), "failed"),
    ],
)
def test_only_whole_answers_count(answer, said):
    """Whatever else a server says is a failure."""
    with answering(answer) as (target, _):
        assert target.ask(b"{}") == said


def test_connections_are_kept():
    """One request after another goes over the same connection."""
    with answering(*[(200, GOOD)] * 5) as (target, seen):
        assert [target.ask(b"{}") for _ in range(5)] == ["answered"] * 5
        assert len(seen) == 1


@pytest.mark.parametrize("reset", [False, True])
def test_a_connection_let_go_of_while_idle_is_no_failure(reset):
    """The server ends each connection after an answer, without saying so: the next request goes over a new one."""
    with answering(*[(200, GOOD)] * 3, keep=False, reset=reset) as (target, seen):
        assert [target.ask(b"{}") for _ in range(3)] == ["answered"] * 3
        assert len(seen) == 3


def test_a_new_connection_that_is_reset_is_a_failure():
    """Who never had an answer over a connection is not asked again over another."""
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def reset():
            client, _ = listener.accept()
            asked(client)
            client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            client.close()

        thread = threading.Thread(target=reset, daemon=True)
        thread.start()
        target = Target(f"http://127.0.0.1:{listener.getsockname()[1]}", timeout_seconds=5)
        with pytest.raises(ConnectionResetError, match="reset"):
            target.ask(b"{}")
        thread.join(5)
