"""Answers in pieces, as server-sent events: `data: {…}`, and `data: [DONE]` at the end."""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import AsyncIterator
from typing import Any

from gptjax.serving.errors import APIError, failed
from gptjax.serving.responses import Response

ALIVE = b": waiting\n\n"  # a comment, which clients skip and which shows that the server lives
ALIVE_SECONDS = 10.0
HEADERS = {"Cache-Control": "no-cache", "X-Accel-Buffering": "no"}  # the second: proxies pass pieces on at once
_log = logging.getLogger(__name__)


async def events(response: Response) -> AsyncIterator[bytes]:
    """The events of an answer. A mistake on the way becomes an event as well, since the status has been sent."""
    try:
        if response.chat:
            for choice in response.choices:
                yield event(response.chunk([choice.opening()]))
        async for part in response.answers.parts():
            piece = response.choices[part.choice].piece(part)
            if not (part.event.text or part.event.finish_reason or piece["logprobs"] or response.answers.asked.echo):
                continue  # a part of a character, or of what may become a stop string
            yield event(response.chunk([piece]))
        if response.answers.asked.include_usage:
            yield event(response.chunk([]))
    except APIError as error:
        yield event(error.body())
    except Exception:
        _log.exception("an answer failed on the way")
        yield event(failed().body())
    yield b"data: [DONE]\n\n"


def event(value: Any) -> bytes:
    return b"data: " + json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode() + b"\n\n"


async def kept_alive(pieces: AsyncIterator[bytes], seconds: float = ALIVE_SECONDS) -> AsyncIterator[bytes]:
    """The same, with a comment whenever nothing came for some seconds, for proxies that close idle connections."""
    upcoming: asyncio.Task | None = None
    try:
        while True:
            upcoming = upcoming or asyncio.ensure_future(anext(pieces))  # type: ignore[arg-type]
            done, _ = await asyncio.wait([upcoming], timeout=seconds)
            if not done:
                yield ALIVE
                continue
            finished, upcoming = upcoming, None
            try:
                yield finished.result()
            except StopAsyncIteration:
                return
    finally:
        if upcoming is not None:
            upcoming.cancel()
