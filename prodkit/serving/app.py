"""The HTTP face: predictions from whoever is champion, and how the service is."""

from __future__ import annotations

import asyncio
import gc
import hmac
import json
import re
import socket
import sys
import time
import uuid
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pandas as pd
import uvicorn
from fastapi import FastAPI, Request, Response
from fastapi.responses import PlainTextResponse
from starlette.requests import ClientDisconnect
from starlette.types import Receive, Scope, Send

from prodkit.data.schema import Schema
from prodkit.errors import ParameterError, RequestError
from prodkit.scoring.breaker import Limits
from prodkit.scoring.guard import Answer, Answers, Guard, Route
from prodkit.serving.follower import Follower
from prodkit.serving.interface import ARROW, JSON, NOT_READY, PREDICT, UNAUTHORISED, described
from prodkit.serving.microbatches import Batches
from prodkit.serving.payloads import answer_bytes, answers_bytes, answers_stream, read_body
from prodkit.serving.protocol import Protocol
from prodkit.serving.requestlog import RequestLog
from prodkit.serving.service import ServeParams
from prodkit.serving.telemetry import Telemetry
from prodkit.settings import resolve
from prodkit.store.workspace import open_store

__all__ = ["Service", "application", "serve"]

_METRICS = "text/plain; version=0.0.4; charset=utf-8"
_STORE_SECONDS = 2.0  # to wait for somebody who writes; the model in memory answers meanwhile
_BODY_SECONDS = 30.0  # to send a body
_ROWS_AT_ONCE = 64  # noted before others get their turn
_GOOD_ID = re.compile(r"[\w.:-]{1,64}", re.ASCII)


class Service:
    """All that stands behind the routes: guard, follower, queue, log and counts."""

    def __init__(self, params: ServeParams) -> None:
        self.params, self._secret = params, params.secret
        deadline = params.deadline_ms / 1000
        self.guard = Guard(Route(None, problem="the store has no champion yet"), deadline_seconds=deadline)
        self.batches = Batches(
            self.guard,
            queue_rows=params.queue_rows,
            batch_rows=params.batch_rows,
            deadline_seconds=deadline,
        )
        self.follower = Follower(
            lambda: open_store(params, timeout_seconds=_STORE_SECONDS),
            self._change,
            url="" if params.store == "demo" else resolve(params.store),
            poll_seconds=params.poll_seconds,
            watch_seconds=params.watch_seconds,
            limits=Limits(slow_seconds=params.slow_ms / 1000),
        )
        self.log = RequestLog(
            Path(resolve(params.requests or "outputs/requests")),
            most_rows=params.log_rows if params.requests else 0,
            seconds=params.log_seconds,
            time_column=params.time_column,
            id_column=params.id_column,
        )
        self.telemetry = Telemetry(self.gauges)
        self.requests = 0  # on their way

    def _change(self, route: Route) -> None:
        self.guard.route = route

    async def predict(self, request: Request) -> Response:
        """Answer each row by the champion, its predecessor or a simple rule, and say which."""
        began, self.requests = time.perf_counter(), self.requests + 1
        try:
            response = await self._predicted(request, began)
        except RequestError as error:
            response = problem(error)
        finally:
            self.requests -= 1
        self.telemetry.requests[str(response.status_code)] += 1
        return response

    async def _predicted(self, request: Request, began: float) -> Response:
        self.authorise(request)
        if self.requests > self.params.most_requests:
            rule, fix = (
                f"must not find {self.params.most_requests} requests on their way",
                "Try again in a second.",
            )
            raise RequestError.of(503, "service", rule=rule, fix=fix)
        headers = request.headers
        body = await self._body(request)
        rows = read_body(body, headers.get("content-type", JSON), most_rows=self.params.request_rows)
        route = self.guard.route
        if not route.rungs:
            rule, fix = "must have a version to ask", "See /health/ready."
            raise RequestError.of(
                503, "service", rule=rule, value=self.follower.load_problem or route.problem, fix=fix
            )
        name = headers.get("x-request-id", "")
        name = name if _GOOD_ID.fullmatch(name) else uuid.uuid4().hex
        schema, generation = route.first.bundle.schema, route.generation
        media, single = JSON, len(rows) == 1 and isinstance(rows, list) and route.quick
        if single:
            answer = self.guard.answer_row(rows[0], route=route)
            content = answer_bytes(answer, schema, generation=generation)
            noted: Iterable[tuple[Answer, Any]] = [(answer, rows[0])]
        else:
            answers = await self.batches.answers(rows, route)
            write = answers_bytes
            if ARROW in headers.get("accept", ""):
                media, write = ARROW, answers_stream
            content = write(answers, schema, generation=generation)
            noted = _each(answers, rows, schema)
        took = time.perf_counter() - began
        self.telemetry.took(took, batched=not single)
        try:
            await self._note(noted, schema, generation, name, took)
        except Exception as error:  # the answer is there; what is noted of it must not take it away
            self.log.failed(error)
        return Response(content, media_type=media, headers={"x-request-id": name})

    async def _body(self, request: Request) -> bytes:
        most, length = self.params.body_bytes, request.headers.get("content-length", "")
        parts, size = [], 0
        try:
            async with asyncio.timeout(_BODY_SECONDS):
                if not (length.isdigit() and int(length) > most):
                    async for part in request.stream():
                        parts.append(part)
                        size += len(part)
                        if size > most:
                            break
                    else:
                        return parts[0] if len(parts) == 1 else b"".join(parts)
        except TimeoutError as error:
            raise RequestError.of(
                408, "body", rule=f"must be sent within {_BODY_SECONDS:g} seconds"
            ) from error
        except ClientDisconnect as error:
            raise RequestError.of(400, "body", rule="must be sent whole") from error
        found = f"{length} bytes" if length else "more"
        raise RequestError.of(
            413, "body", rule=f"must be at most {most} bytes", value=found, fix="Send it in parts."
        )

    def authorise(self, request: Request) -> None:
        """Compare the bearer token in constant time; RequestError 401 without the right one."""
        if not self._secret:
            return
        given = request.headers.get("authorization", "").encode("utf-8", "replace")
        if not hmac.compare_digest(given, b"Bearer " + self._secret):
            raise RequestError.of(401, "authorization", rule="must carry the bearer token")

    async def _note(
        self, noted: Iterable[tuple[Answer, Any]], schema: Schema, generation: int, name: str, took: float
    ) -> None:
        now = datetime.now(UTC).replace(tzinfo=None)
        for place, (answer, row) in enumerate(noted):
            self.telemetry.row(answer.version, answer.source, answer.predicted, schema, answer.cells)
            facts = (
                now,
                name,
                place,
                answer.version,
                generation,
                answer.source,
                answer.degraded,
                answer.reason,
            )
            self.log.note(schema, (*facts, took * 1000, answer.predicted), answer.cells, row)
            if place % _ROWS_AT_ONCE == _ROWS_AT_ONCE - 1:
                await asyncio.sleep(0)

    def gauges(self) -> dict[str, float]:
        """What is so now, for the metrics."""
        route, follower = self.guard.route, self.follower
        champion = route.champion
        return {
            "ready": bool(route.rungs),
            "model_version": route.first.version if route.rungs else 0,
            "generation": route.generation,
            "champion_loaded": champion is not None,
            "compiled_path": champion is not None and champion.path is not None,
            "on_hold": bool(route.distrust),
            "breaker_open": champion is not None and champion.breaker.state != "closed",
            "store_reachable": not follower.store_problem,
            "load_failed": bool(follower.load_problem),
            "requests_in_progress": self.requests,
            "queue_rows": self.batches.rows,
            "log_rows_written": self.log.written,
            "log_rows_lost": self.log.lost,
        }

    def described(self, app: FastAPI) -> dict[str, Any]:
        """The OpenAPI document, with the columns of whoever answers."""
        route = self.guard.route
        schema = route.first.bundle.schema if route.rungs else None
        return described(app, schema, generation=route.generation)

    def readiness(self) -> dict[str, Any]:
        """Whether it can answer, who does, and everything that is wrong."""
        route, follower = self.guard.route, self.follower
        champion, predecessor = route.champion, route.predecessor
        found = {
            "the store": follower.store_problem,
            "the champion": follower.load_problem or ("" if champion else route.problem),
            "the breaker": champion.breaker.why if champion else "",
            "the request log": self.log.problem,
        }
        return {
            "ready": bool(route.rungs),
            "model_version": route.first.version if route.rungs else None,
            "generation": route.generation,
            "predecessor": predecessor.version if predecessor else None,
            "hold": route.distrust,
            "compiled_path": bool(champion and champion.path),
            "compiled_path_refused": champion.refused if champion else "",
            "problems": [f"{name}: {text}" for name, text in found.items() if text],
        }


def _each(answers: Answers, rows: list[Any] | pd.DataFrame, schema: Schema) -> Iterable[tuple[Answer, Any]]:
    """Each answer with its row."""
    cells, sent = (answers.cells, rows) if isinstance(rows, list) else _of_table(rows, schema)
    for place, row in enumerate(sent):
        yield answers.row(place, cells[place]), row


def _of_table(frame: pd.DataFrame, schema: Schema) -> tuple[list[list[Any]], list[Any]]:
    """The rows of a table as the schema reads them, empty if it cannot, and as they were sent."""
    if not frame.columns.is_unique:
        return [[None] * len(schema.names)] * len(frame), [{}] * len(frame)
    plain = frame.astype(object)
    sent = plain.where(frame.notna(), None).to_dict("records")
    columns = schema.coerce(plain.reindex(columns=pd.Index(schema.names)))
    return columns.astype(object).where(columns.notna(), None).to_numpy().tolist(), sent


def problem(error: RequestError) -> Response:
    """The response that says what is wrong with a request."""
    headers = {503: {"retry-after": "1"}, 401: {"www-authenticate": "Bearer"}}.get(error.status, {})
    found = None if error.value is None else str(error.value)
    document = {
        "name": error.name,
        "rule": error.rule,
        "found": found,
        "fix": error.fix,
        "message": str(error),
    }
    return Response(json.dumps({"error": document}), error.status, headers=headers, media_type=JSON)


class _Face(FastAPI):
    """FastAPI, but for requests for predictions, which its middleware, routing and dependencies would hold up."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and scope["path"] == "/predict" and scope["method"] == "POST":
            response = await self.state.service.predict(Request(scope, receive))
            await response(scope, receive, send)
        else:
            await super().__call__(scope, receive, send)


def _json(document: object, status: int = 200) -> Response:
    return Response(json.dumps(document), status, media_type=JSON)


def application(params: ServeParams) -> FastAPI:
    """The service as an ASGI application; it begins to follow the champion when it is started."""
    service = Service(params)

    @asynccontextmanager
    async def life(_: FastAPI) -> AsyncIterator[None]:
        service.log.start()
        await asyncio.to_thread(service.follower.start)
        gc.collect()
        gc.freeze()  # what is there now stays; to look through it again and again would stall all requests
        yield
        gc.unfreeze()
        await asyncio.to_thread(service.follower.stop)
        service.batches.close()
        await asyncio.to_thread(service.log.close)

    async def live() -> Response:
        """Whether the process is alive."""
        return _json({"live": True})

    async def ready() -> Response:
        """Whether it can answer, who does, and what is wrong."""
        found = service.readiness()
        return _json(found, 200 if found["ready"] else 503)

    async def metrics(request: Request) -> Response:
        """Counts and times in the text format of Prometheus."""
        return _closed(
            service,
            request,
            lambda: Response(service.telemetry.page(), media_type="text/plain; version=0.0.4"),
        )

    async def openapi(request: Request) -> Response:
        """This description, with the champion's own columns."""
        return _closed(service, request, lambda: _json(service.described(app)))

    app = _Face(title="prodkit serve", lifespan=life, openapi_url=None, docs_url=None, redoc_url=None)
    app.state.service = service
    app.add_api_route(
        "/predict", service.predict, methods=["POST"], response_model=None, openapi_extra=PREDICT
    )
    app.add_api_route("/health/live", live, methods=["GET"], response_model=None)
    app.add_api_route("/health/ready", ready, methods=["GET"], response_model=None, responses=NOT_READY)
    app.add_api_route(
        "/metrics", metrics, methods=["GET"], response_class=PlainTextResponse, responses=UNAUTHORISED
    )
    app.add_api_route("/openapi.json", openapi, methods=["GET"], response_model=None, include_in_schema=False)
    return app


def _closed(service: Service, request: Request, answer: Callable[[], Response]) -> Response:
    try:
        service.authorise(request)
    except RequestError as error:
        return problem(error)
    return answer()


def serve(params: ServeParams, *, host: str, port: int, tell: Callable[[str], None]) -> None:
    """Serve until SIGTERM or SIGINT; requests that are on their way then are answered.

    Args:
        params: of the service.
        host: address to listen on.
        port: 0 for any that is free.
        tell: is told where it listens.

    Raises:
        ParameterError: the address cannot be listened on, or a secret is not set.
    """
    app = application(params)
    try:
        listener = socket.create_server((host, port), backlog=2048)
    except OSError as error:
        fix = "Choose another with --host and --port; 0 takes any that is free."
        raise ParameterError(
            "--port", rule=f"must be free: {error}", value=f"{host}:{port}", fix=fix
        ) from error
    sys.setswitchinterval(0.001)  # the event loop should not wait five milliseconds for a file to be written
    config = uvicorn.Config(
        app,
        http=Protocol,
        ws="none",
        log_level="warning",
        access_log=False,
        server_header=False,
        timeout_graceful_shutdown=params.drain_seconds,
    )
    with listener:
        tell(f"http://{host}:{listener.getsockname()[1]}")
        uvicorn.Server(config).run(sockets=[listener])
