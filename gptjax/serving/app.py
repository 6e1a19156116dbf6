"""The application: the routes, and what happens around each request."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware.cors import CORSMiddleware
from starlette.requests import ClientDisconnect, Request
from starlette.responses import HTMLResponse, JSONResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp, Receive, Scope, Send

from gptjax.serving import errors, page, requests, stream, tokenizing
from gptjax.serving import responses as bodies
from gptjax.serving.answers import Answers
from gptjax.serving.counting import CONTENT_TYPE, Counts
from gptjax.serving.errors import APIError
from gptjax.serving.guards import Guard, Limits, read_body
from gptjax.serving.models import Served

CLIENT_GONE = 499  # in logs and metrics, as nginx counts it: nobody was there to be answered
_log = logging.getLogger(__name__)
Note = dict[str, Any]


class ClientGone(Exception):
    """The client closed its connection before it had its answer."""


class Server:
    """The routes of a server, as methods.

    Args:
      report: is called once for each request, with what happened.
    """

    def __init__(self, served: Served, limits: Limits, guard: Guard, report: Callable[[Note], None]):
        self.served, self.limits, self.guard, self.report = served, limits, guard, report
        self.counts = Counts(served)
        self.draining = False  # whether the process is about to end
        self.running: set[Answers] = set()
        self._page, self._policy = page.page_and_policy()

    def application(self, cors_origins: Sequence[str] = ()) -> ASGIApp:
        routes = [
            Route("/", self.page),
            Route("/health", self.health),
            Route("/metrics", self.metrics),
            Route("/v1/models", self.models),
            Route("/v1/models/{name:path}", self.model),
            Route("/v1/completions", self.completions, methods=["POST"]),
            Route("/v1/chat/completions", self.chat, methods=["POST"]),
            Route("/tokenize", self.tokenize, methods=["POST"]),
            Route("/detokenize", self.detokenize, methods=["POST"]),
            Route("/tokenizer_info", self.tokenizer_info),
        ]
        handlers: Any = {
            HTTPException: _by_starlette,
            APIError: lambda request, error: error.response(),
            Exception: _failed,
        }
        app: ASGIApp = Starlette(routes=routes, exception_handlers=handlers)
        app = Door(app, self, [route.path for route in routes])
        if cors_origins:
            headers = ["Authorization", "Content-Type"]
            app = CORSMiddleware(app, cors_origins, allow_methods=["GET", "POST"], allow_headers=headers)
        return app

    # --- What a person or a monitor asks

    async def page(self, request: Request) -> Response:
        return HTMLResponse(self._page, headers={"Content-Security-Policy": self._policy, **page.HEADERS})

    async def health(self, request: Request) -> Response:
        up = self.served.engine.metrics.is_up and not self.draining
        return JSONResponse({"status": "ok" if up else "shutting down"}, 200 if up else 503)

    async def metrics(self, request: Request) -> Response:
        return Response(self.counts.page(), media_type=CONTENT_TYPE)

    # --- OpenAI's API

    async def models(self, request: Request) -> Response:
        return JSONResponse({"object": "list", "data": self.served.listed()})

    async def model(self, request: Request) -> Response:
        name = request.path_params["name"]
        for model in self.served.listed():
            if model["id"] == name:
                return JSONResponse(model)
        raise errors.no_such_model(name[:100])

    async def completions(self, request: Request) -> Response:
        return await self._answer(request, requests.completion)

    async def chat(self, request: Request) -> Response:
        return await self._answer(request, requests.chat)

    async def _answer(self, request: Request, read: Callable[[dict, int], requests.Asked]) -> Response:
        body = requests.parsed_body(await read_body(request, self.limits))
        asked = read(body, self.limits.choices)
        if self.draining:
            raise errors.shutting_down()
        answers = Answers(self.served, asked, self.limits.seconds)
        self.running.add(answers)
        _note(request).update(answers=answers, model=asked.model)
        response = bodies.Response(answers)
        if asked.stream:
            return EventStream(response, self._ended)
        try:
            return JSONResponse(await unless_gone(request.receive, response.whole()))
        finally:
            self._ended(answers)

    def _ended(self, answers: Answers) -> None:
        """Frees what an answer still holds; a request that has all its texts is not changed."""
        answers.cancel()
        self.running.discard(answers)

    # --- vLLM's routes of the tokenizer, which lm_eval uses

    async def tokenize(self, request: Request) -> Response:
        fields = requests.Fields(requests.parsed_body(await read_body(request, self.limits)))
        return JSONResponse(tokenizing.tokens_of(self.served, fields))

    async def detokenize(self, request: Request) -> Response:
        fields = requests.Fields(requests.parsed_body(await read_body(request, self.limits)))
        return JSONResponse(tokenizing.text_of(self.served, fields))

    async def tokenizer_info(self, request: Request) -> Response:
        return JSONResponse(tokenizing.tokenizer_info(self.served))


class Door:
    """What every request passes: it is checked, counted and reported, and its mistakes are answered.

    paths: those of the routes. Requests for others are counted together, since anybody can make them up.
    """

    def __init__(self, app: ASGIApp, server: Server, paths: Sequence[str]):
        self._app, self._server, self._paths, self._open = app, server, frozenset(paths), 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        request = Request(scope)
        note: Note = {"method": request.method, "path": scope["path"], "status": None, "began": time.monotonic()}
        scope["gptjax.note"] = note

        async def noted(message: Any) -> None:
            if message["type"] == "http.response.start":
                note["status"] = message["status"]
            await send(message)

        self._open += 1
        self._server.counts.open.inc()
        try:
            self._server.guard.check(request)
            if self._open > self._server.limits.requests and request.method == "POST":
                raise errors.queue_full(self._server.limits.requests)
            await self._app(scope, receive, noted)
        except APIError as error:
            await error.response()(scope, receive, noted)
        except (ClientGone, ClientDisconnect, asyncio.CancelledError):
            note["status"] = CLIENT_GONE
        except Exception:
            _log.exception("%s %s", request.method, scope["path"])
            if note["status"] is None:
                await errors.failed().response()(scope, receive, noted)
        finally:
            self._open -= 1
            self._server.counts.open.dec()
            self._count(note)

    def _count(self, note: Note) -> None:
        note["seconds"] = time.monotonic() - note["began"]
        path = note["path"] if note["path"] in self._paths else "other"
        if note["path"].startswith("/v1/models/"):
            path = "/v1/models/{name}"
        self._server.counts.answered.labels(path, str(note["status"])).inc()
        self._server.counts.seconds.labels(path).observe(note["seconds"])
        self._server.report(note)


class EventStream(Response):
    """Sends an answer in pieces, until it is complete or the client has gone."""

    def __init__(self, response: bodies.Response, ended: Callable[[Answers], None]):
        self.status_code, self.background = 200, None
        self._response, self._ended = response, ended
        self.init_headers({"Content-Type": "text/event-stream; charset=utf-8", **stream.HEADERS})

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await unless_gone(receive, self._send(send))
        finally:
            self._ended(self._response.answers)

    async def _send(self, send: Send) -> None:
        await send({"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers})
        async for piece in stream.kept_alive(stream.events(self._response)):
            await send({"type": "http.response.body", "body": piece, "more_body": True})
        await send({"type": "http.response.body", "body": b"", "more_body": False})


async def unless_gone(receive: Receive, work: Awaitable[Any]) -> Any:
    """The result of `work`, which is cancelled when the client closes its connection. Raises ClientGone then."""
    working, leaving = asyncio.ensure_future(work), asyncio.ensure_future(_gone(receive))
    try:
        await asyncio.wait([working, leaving], return_when=asyncio.FIRST_COMPLETED)
        if working.done():
            return working.result()
        raise ClientGone
    finally:
        for task in (working, leaving):
            task.cancel()
        await asyncio.gather(working, leaving, return_exceptions=True)


async def _gone(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


def _note(request: Request) -> Note:
    return request.scope["gptjax.note"]


async def _failed(request: Request, error: Exception) -> Response:
    """The answer to an error of the server itself, which Starlette then raises again, for the door to log."""
    return errors.failed().response()


def _by_starlette(request: Request, error: Exception) -> Response:
    """Starlette's own errors: no such address, or another method."""
    assert isinstance(error, HTTPException)
    method, path = request.method, request.scope["path"]
    if error.status_code == 405:
        allowed = (error.headers or {}).get("Allow", "")
        return errors.wrong_method(method, path, allowed).response()
    if error.status_code == 404:
        return errors.no_such_address(method, path).response()
    return APIError(error.status_code, error.detail).response()
