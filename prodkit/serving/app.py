"""The HTTP face: predictions from whoever is champion, and how the service is."""

from __future__ import annotations

import asyncio
import hmac
import ipaddress
import json
import re
import socket
import sys
import time
import uuid
from collections.abc import AsyncIterator, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from fastapi import FastAPI, Request, Response
from fastapi.responses import JSONResponse, PlainTextResponse
from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from prodkit.data.schema import Schema
from prodkit.errors import ParameterError, RequestError
from prodkit.scoring.breaker import Limits
from prodkit.scoring.guard import Answer, Answers, Guard, Route
from prodkit.serving.bodies import ARROW, JSON, PREDICT, answer_body, describe, media_type, read_body
from prodkit.serving.counts import Counts
from prodkit.serving.follower import Follower
from prodkit.serving.requestlog import Entry, RequestLog
from prodkit.serving.server import Server
from prodkit.serving.service import ServeParams
from prodkit.settings import resolve
from prodkit.store.workspace import open_store

__all__ = ["Service", "application", "serve"]

_STORE_SECONDS = 2.0  # to wait for somebody who writes; the model in memory answers meanwhile
_BODY_SECONDS = 30.0  # to send a body
_SMALL = 16_384  # bytes of a body that is read without a thread
_MOST_HELD = 67_108_864  # bytes of bodies in memory at once
_WORKERS = (
    1  # thread that reads, answers and writes larger requests: two would take turns at each step of Python
)
_GOOD_ID = re.compile(r"[\w.:-]{1,64}", re.ASCII)


@dataclass(frozen=True)
class _Asked:
    """A request for predictions whose body is there."""

    body: bytes
    kind: str  # of its body
    wants: str  # of the answer's
    client: str | None  # how the client named it
    began: float
    route: Route


class Service:
    """All that stands behind the routes: guard, follower, log and counts.

    Args:
        params: of the service.
        details: whether anybody may read what exactly is wrong, paths and hosts included; else the token is needed.
    """

    def __init__(self, params: ServeParams, *, details: bool = True) -> None:
        self.params, self._secret = params, params.secret
        self._details = details and not self._secret
        self.guard = Guard(
            Route(None, problem="the store has no champion yet"),
            deadline_seconds=params.deadline_ms / 1000,
        )
        self.follower = Follower(
            lambda: open_store(params, create=False, timeout_seconds=_STORE_SECONDS),
            self._change,
            url="" if params.store == "demo" else resolve(params.store),
            poll_seconds=params.poll_seconds,
            limits=Limits(slow_seconds=params.slow_ms / 1000),
        )
        self.log = RequestLog(
            Path(resolve(params.requests or "outputs/requests")),
            most_rows=params.log_rows if params.requests else 0,
            seconds=params.log_seconds,
            time_column=params.time_column,
            id_column=params.id_column,
            time_format=params.time_format,
            timezone=params.timezone,
        )
        self.counts = Counts(self._gauges())
        self.draining = False
        self._workers = ThreadPoolExecutor(_WORKERS, thread_name_prefix="prodkit-answer")
        self._held = self._requests = 0  # bytes of bodies, and requests whose body is there

    def _change(self, route: Route) -> None:
        self.guard.route = route

    async def start(self) -> None:
        """Begin to follow and to log."""
        self.log.start()
        await asyncio.to_thread(self.follower.start)

    async def stop(self) -> None:
        """End, with the log written."""
        await asyncio.to_thread(self.follower.stop)
        self._workers.shutdown(wait=False)
        await asyncio.to_thread(self.log.close)

    # Predictions

    async def predict(self, request: Request) -> Response:
        """Answer each row by the champion, its predecessor or a simple rule, and say which."""
        began, body = time.perf_counter(), b""
        try:
            if not self.is_known(request):
                raise _unknown()
            kind = media_type(request.headers)
            body = await self._body(request)
            wants = ARROW if ARROW in request.headers.get("accept", "") else JSON
            client = request.headers.get("x-request-id", "")
            named = client if _GOOD_ID.fullmatch(client) else None
            response = await self._admitted(_Asked(body, kind, wants, named, began, self.guard.route))
        except RequestError as error:
            response = refusal(error)
        finally:
            self._held -= len(body)
        self.counts.requests.labels(str(response.status_code)).inc()
        return response

    async def _admitted(self, asked: _Asked) -> Response:
        if self._requests >= self.params.most_requests:
            rule = f"must not find {self.params.most_requests} requests on their way"
            raise RequestError.of(503, "service", rule=rule, fix="Try again in a second.")
        if not asked.route.rungs:
            rule, fix = "must have a version to ask", "See /health/ready."
            value = "a version that cannot be loaded" if self.follower.load_problem else asked.route.problem
            raise RequestError.of(503, "service", rule=rule, value=value, fix=fix)
        self._requests += 1
        try:
            rows = None
            if len(asked.body) <= _SMALL and asked.kind == JSON:
                rows = self._rows(asked)
                if isinstance(rows, list) and len(rows) == 1 and asked.route.quick:
                    return self._finished(
                        asked, rows, _one(self.guard.answer_row(rows[0], route=asked.route)), "compiled"
                    )
            loop = asyncio.get_running_loop()
            return await loop.run_in_executor(self._workers, self._answered, asked, rows)
        finally:
            self._requests -= 1

    def _rows(self, asked: _Asked) -> list[Any] | pd.DataFrame:
        known = {*asked.route.first.bundle.schema.names, *self.log.named}
        return read_body(asked.body, asked.kind, known=known, most_rows=self.params.request_rows)

    def _answered(self, asked: _Asked, rows: list[Any] | pd.DataFrame | None) -> Response:
        """Read, ask and write in a thread, so that the event loop goes on."""
        rows = self._rows(asked) if rows is None else rows
        left = asked.began + self.params.deadline_ms / 1000 - time.perf_counter()
        answers = self.guard.answer(rows, route=asked.route, seconds=left)
        if isinstance(rows, pd.DataFrame):
            cells, rows = _of_table(rows, asked.route.first.bundle.schema)
            answers.cells.extend(cells)
        return self._finished(asked, rows, answers, "batch")

    def _finished(self, asked: _Asked, rows: Sequence[Any], answers: Answers, path: str) -> Response:
        """Write the answer, and note it."""
        schema, generation = asked.route.first.bundle.schema, asked.route.generation
        content = answer_body(answers, schema, generation=generation, kind=asked.wants)
        took, name = time.perf_counter() - asked.began, uuid.uuid4().hex
        try:
            self.counts.answered(answers, schema, seconds=took, path=path)
            now = datetime.now(UTC).replace(tzinfo=None)
            facts = (now, name, asked.client, generation, took * 1000, len(asked.body))
            self.log.note(Entry(answers, rows, schema, *facts))
        except Exception as error:  # the answer is there; what is noted of it must not take it away
            self.log.lost += len(rows)
            self.log.problem = f"{type(error).__name__}: {error}"[:300]
        return Response(content, media_type=asked.wants, headers={"x-request-id": asked.client or name})

    async def _body(self, request: Request) -> bytes:
        """All of a body; of one that is too large, the rest is read and dropped, so that the refusal arrives."""
        most, length = self.params.body_bytes, request.headers.get("content-length", "")
        too_large = RequestError.of(
            413, "body", rule=f"must be at most {most} bytes", value=length or "more", fix="Send it in parts."
        )
        if length.isdigit() and int(length) > most and "expect" in request.headers:
            raise too_large
        parts, size = [], 0
        try:
            async with asyncio.timeout(_BODY_SECONDS):
                async for part in request.stream():
                    size += len(part)
                    if size <= most:
                        parts.append(part)
                        self._held += len(part)
                    if self._held > _MOST_HELD and size > _SMALL:
                        raise RequestError.of(
                            503, "service", rule="must have room for the body", fix="Try again in a second."
                        )
        except BaseException as error:
            self._held -= sum(map(len, parts))
            if isinstance(error, TimeoutError):
                rule = f"must be sent within {_BODY_SECONDS:g} seconds"
                raise RequestError.of(408, "body", rule=rule) from error
            if isinstance(error, ClientDisconnect):
                raise RequestError.of(400, "body", rule="must be sent whole") from error
            raise
        if size > most:
            self._held -= sum(map(len, parts))
            raise too_large
        return parts[0] if len(parts) == 1 else b"".join(parts)

    def is_known(self, request: Request) -> bool:
        """Whether the request carries the bearer token, compared in constant time as UTF-8; true where none is set."""
        given = request.headers.get("authorization", "").encode("latin-1", "replace")
        return not self._secret or hmac.compare_digest(given, b"Bearer " + self._secret)

    # How it is

    def readiness(self, request: Request) -> dict[str, Any]:
        """Whether it can answer, who does, and what is wrong; in detail only for those who may know."""
        route, follower = self.guard.route, self.follower
        champion, predecessor = route.champion, route.predecessor
        problems = {
            "the store": follower.store_problem,
            "the champion": follower.load_problem or ("" if champion else route.problem),
            "the breaker": champion.breaker.why if champion else "",
            "the request log": self.log.problem,
            "the service": "it is ending" if self.draining else "",
        }
        document: dict[str, Any] = {
            "ready": bool(route.rungs) and not self.draining,
            "model_version": route.first.version if route.rungs else None,
            "generation": route.generation,
            "problems": [name for name, text in problems.items() if text],
        }
        if self._details or (self._secret and self.is_known(request)):
            document |= {
                "predecessor": predecessor.version if predecessor else None,
                "hold": route.hold,
                "masked": list(route.masked),
                "compiled_path": bool(champion and champion.path),
                "compiled_path_refused": champion.refused if champion else "",
                "problems": [f"{name}: {text}" for name, text in problems.items() if text],
            }
        return document

    def _gauges(self) -> dict[str, Callable[[], float]]:
        """What is so now, for the metrics."""
        return {
            "ready": lambda: bool(self.guard.route.rungs) and not self.draining,
            "model_version": lambda: self.guard.route.first.version if self.guard.route.rungs else 0,
            "generation": lambda: self.guard.route.generation,
            "champion_loaded": lambda: self.guard.route.champion is not None,
            "compiled_path": lambda: bool((first := self.guard.route.champion) and first.path),
            "on_hold": lambda: bool(self.guard.route.hold),
            "breaker_open": lambda: bool(
                (first := self.guard.route.champion) and first.breaker.state != "closed"
            ),
            "store_reachable": lambda: not self.follower.store_problem,
            "load_failed": lambda: bool(self.follower.load_problem),
            "requests_in_progress": lambda: self._requests,
            "log_rows_written": lambda: self.log.written,
            "log_rows_lost": lambda: self.log.lost,
        }


def _one(answer: Answer) -> Answers:
    """The answers to a single row."""
    texts = np.array([[answer.reason], [answer.source]], dtype=object)
    one = (np.array([part]) for part in (answer.predicted, answer.degraded, answer.version))
    predicted, degraded, version = one
    return Answers(predicted, degraded, texts[0], version, texts[1], [answer.cells])


def _of_table(frame: pd.DataFrame, schema: Schema) -> tuple[list[list[Any]], list[Any]]:
    """The rows of a table as the schema reads them, empty if it cannot, and as they were sent."""
    if not frame.columns.is_unique:
        return [[None] * len(schema.names) for _ in range(len(frame))], [{}] * len(frame)
    plain = frame.astype(object)
    sent = plain.where(frame.notna(), None).to_dict("records")
    columns = schema.coerce(plain.reindex(columns=pd.Index(schema.names)))
    return columns.astype(object).where(columns.notna(), None).to_numpy().tolist(), sent


def _unknown() -> RequestError:
    return RequestError.of(401, "authorization", rule="must carry the bearer token")


def refusal(error: RequestError) -> Response:
    """The response that says what is wrong with a request."""
    headers = {503: {"retry-after": "1"}, 401: {"www-authenticate": "Bearer"}}.get(error.status, {})
    found = None if error.value is None else str(error.value)
    document = {"name": error.name, "rule": error.rule, "found": found, "fix": error.fix}
    return _json({"error": document | {"message": str(error)}}, error.status, headers)


def _json(document: object, status: int = 200, headers: dict[str, str] | None = None) -> Response:
    return Response(json.dumps(document), status, headers=headers, media_type=JSON)


class _Closing:
    """Ends each connection with its answer once the service is ending."""

    def __init__(self, app: ASGIApp, service: Service) -> None:
        self._app, self._service = app, service

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def closing(message: Message) -> None:
            if message["type"] == "http.response.start" and self._service.draining:
                message["headers"] = [*message["headers"], (b"connection", b"close")]
            await send(message)

        await self._app(scope, receive, closing if scope["type"] == "http" else send)


def application(params: ServeParams, *, details: bool = True) -> FastAPI:
    """The service as an ASGI application; it begins to follow the champion when it is started.

    Args:
        params: of the service.
        details: whether anybody may read what exactly is wrong.
    """
    service = Service(params, details=details)

    @asynccontextmanager
    async def life(_: FastAPI) -> AsyncIterator[None]:
        await service.start()
        yield
        await service.stop()

    async def live() -> Response:
        """Whether the process is alive."""
        return _json({"live": True})

    async def ready(request: Request) -> Response:
        """Whether it can answer, who does, and what is wrong."""
        document = service.readiness(request)
        return _json(document, 200 if document["ready"] else 503)

    async def metrics(request: Request) -> Response:
        """Counts and times in the text format of Prometheus."""
        if not service.is_known(request):
            return refusal(_unknown())
        return Response(service.counts.page(), media_type="text/plain; version=0.0.4")

    async def openapi(request: Request) -> Response:
        """This description, with the champion's own columns."""
        if not service.is_known(request):
            return refusal(_unknown())
        route = service.guard.route
        schema = route.first.bundle.schema if route.rungs else None
        return _json(describe(app, schema, generation=route.generation))

    app = FastAPI(title="prodkit serve", lifespan=life, openapi_url=None, docs_url=None, redoc_url=None)
    app.state.service = service
    app.add_middleware(_Closing, service=service)
    plain: dict[str, Any] = {"response_model": None}
    refused: dict[int | str, dict[str, Any]] = {401: PREDICT["responses"]["401"]}
    not_ready: dict[int | str, dict[str, Any]] = {503: {"description": "Nothing can be answered."}}
    app.add_api_route("/predict", service.predict, methods=["POST"], openapi_extra=PREDICT, **plain)
    for path, answer, answers in (
        ("/health/live", live, None),
        ("/health/ready", ready, not_ready),
        ("/metrics", metrics, refused),
    ):
        kind = PlainTextResponse if answer is metrics else JSONResponse
        app.add_api_route(path, answer, methods=["GET"], responses=answers, response_class=kind, **plain)
        app.add_api_route(path, answer, methods=["HEAD"], include_in_schema=False, **plain)
    app.add_api_route("/openapi.json", openapi, methods=["GET"], include_in_schema=False, **plain)
    return app


def serve(
    params: ServeParams, *, host: str, port: int, tell: Callable[[str], None], no_token: bool = False
) -> None:
    """Serve until SIGTERM, SIGINT or SIGHUP; requests that are on their way then are answered.

    Args:
        params: of the service.
        host: address to listen on.
        port: 0 for any that is free.
        tell: takes the address that it listens on.
        no_token: whether other machines may ask without a token.

    Raises:
        ParameterError: there is no store, the address cannot be listened on or is open to other machines without a
            token, or a secret is not set.
    """
    if not _is_loopback(host) and not params.token and not no_token:
        rule, fix = (
            "must come with a token, since other machines can reach it",
            "Set `token`, or add --no-token.",
        )
        raise ParameterError("--host", rule=rule, value=host, fix=fix)
    app = application(params, details=_is_loopback(host))
    try:
        listener = socket.create_server((host, port), backlog=2048)
    except OSError as error:
        fix = "Choose another with --host and --port; 0 takes any that is free."
        raise ParameterError(
            "--port", rule=f"must be free: {error}", value=f"{host}:{port}", fix=fix
        ) from error
    sys.setswitchinterval(0.001)  # the event loop should not wait five milliseconds for another thread

    def drain() -> None:
        app.state.service.draining = True

    server = Server(
        app, connections=params.most_connections, drain_seconds=params.drain_seconds, draining=drain
    )
    with listener:
        if params.store != "demo":
            open_store(params, create=False).close()
        tell(f"http://{host}:{listener.getsockname()[1]}")
        server.run(sockets=[listener])


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
