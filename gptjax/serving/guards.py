"""What is checked before a request is read: its token, the host it names, where it comes from, the size of its body."""

from __future__ import annotations

import asyncio
import dataclasses
import hmac
import ipaddress
from collections.abc import Sequence
from urllib.parse import urlsplit

from starlette.requests import Request

from gptjax.serving.errors import APIError, invalid, too_large

OPEN = ("/", "/health")  # without a token: the page, which has no secrets, and whether the server lives
FORGOTTEN = 8  # times the limit of a body: how much of one that is too large is read at most


@dataclasses.dataclass(frozen=True)
class Limits:
    """What a client may ask for.

    Attributes:
      seconds: of a request, from its body to the end of its answer.
      body_bytes: of a request's body.
      choices: texts of one request, prompts times n.
      requests: at the same time; more are answered with 429.
      patience: seconds that a client may take to send a request's head, its body, or to read what was sent.
    """

    seconds: float = 600.0
    body_bytes: int = 4 << 20
    choices: int = 128
    requests: int = 512
    patience: float = 30.0


class Guard:
    """Decides which requests are let in.

    Args:
      token: what the Authorization header must have; None: nothing.
      loopback: whether the server only listens to this machine. The Host header must then be localhost or a loopback
        address, such as 127.0.0.1: a web page of an attacker can point a name of its own at 127.0.0.1 (DNS rebinding).
      origins: web pages of other hosts that may call the server ('*': all).
    """

    def __init__(self, token: str | None, loopback: bool, origins: Sequence[str] = ()):
        self._token = None if token is None else token.encode()
        self._loopback, self._origins = loopback, tuple(origins)

    def check(self, request: Request) -> None:
        """Raises APIError for a request that is not let in."""
        host = request.headers.get("host", "")
        if self._loopback and not is_loopback(_name(host)):
            raise APIError(
                403,
                f"The Host header {host[:80]!r} does not name this machine: the server is for local programs. Use "
                "http://localhost, or start it with --host and --token.",
                code="forbidden_host",
            )
        origin = request.headers.get("origin")
        if origin and not self._may_call(origin, host):
            raise APIError(
                403,
                f"Web pages of {origin[:80]!r} may not call this server (--cors_origin allows it).",
                code="forbidden_origin",
            )
        if self._token is not None and request.scope["path"] not in OPEN and request.method != "OPTIONS":
            self._check_token(request.headers.get("authorization"))

    def _may_call(self, origin: str, host: str) -> bool:
        if "*" in self._origins or origin in self._origins:
            return True
        try:
            return urlsplit(origin).netloc == host
        except ValueError:  # it is no URL, such as http://[x
            return False

    def _check_token(self, header: str | None) -> None:
        kind, _, given = (header or "").partition(" ")
        if kind.lower() != "bearer" or not given.strip():
            raise APIError(
                401,
                "You didn't provide an API key. You need to provide your API key in an Authorization header using "
                "Bearer auth (i.e. Authorization: Bearer YOUR_KEY).",
                headers={"WWW-Authenticate": "Bearer"},
            )
        assert self._token is not None
        if not hmac.compare_digest(given.strip().encode("utf-8", "surrogateescape"), self._token):
            raise APIError(
                401,
                "Incorrect API key provided. It must be the token that the server was started with.",
                code="invalid_api_key",
                headers={"WWW-Authenticate": "Bearer"},
            )


def is_loopback(host: str) -> bool:
    """Whether a server that binds this address only listens to its own machine."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False


async def read_body(request: Request, limits: Limits) -> bytes:
    """The body. Raises APIError if it is too large or comes too slowly.

    Of a body that is too large, some more is read and forgotten: a client that is still sending when its connection
    closes would not see the answer.
    """
    body, size = bytearray(), 0
    try:
        async with asyncio.timeout(limits.patience):
            async for chunk in request.stream():
                size += len(chunk)
                if size > FORGOTTEN * limits.body_bytes:
                    break
                if size <= limits.body_bytes:
                    body += chunk
    except TimeoutError:
        raise APIError(408, f"The request body did not arrive within {limits.patience:g} seconds.") from None
    if size > limits.body_bytes:
        raise too_large(limits.body_bytes)
    if not body:
        raise invalid("The request has no body: it must be a JSON object.")
    return bytes(body)


def _name(host: str) -> str:
    """'localhost:8000' → 'localhost'."""
    return host.lower() if host.endswith("]") else host.lower().rpartition(":")[0] or host.lower()
