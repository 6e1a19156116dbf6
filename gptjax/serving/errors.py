"""Mistakes of clients, answered as OpenAI's API answers them: {"error": {"message", "type", "param", "code"}}."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from starlette.responses import JSONResponse

from gptjax.config import ConfigError

INVALID, SERVER = "invalid_request_error", "server_error"


class APIError(Exception):
    """What a client is answered.

    Attributes:
      status: of HTTP.
      message: a sentence for people.
      param, code: the field of the body, and the name of the mistake, if there is one.
      kind: OpenAI's `type`.
      headers: of the answer.
    """

    def __init__(
        self,
        status: int,
        message: str,
        *,
        param: str | None = None,
        code: str | None = None,
        kind: str = INVALID,
        headers: Mapping[str, str] | None = None,
    ):
        super().__init__(message)
        self.status, self.message, self.param, self.code, self.kind = status, message, param, code, kind
        self.headers = dict(headers or {})

    def body(self) -> dict[str, Any]:
        return {"error": {"message": self.message, "type": self.kind, "param": self.param, "code": self.code}}

    def response(self) -> JSONResponse:
        return JSONResponse(self.body(), self.status, self.headers)


def invalid(message: str, param: str | None = None, code: str | None = None) -> APIError:
    return APIError(400, message, param=param, code=code)


def wrong_setting(error: ConfigError) -> APIError:
    """For an error whose message begins with the name of a field, as in 'min_tokens = 9: …'."""
    field = str(error).split(" ")[0]
    return invalid(f"Invalid '{field}': {error}.", field)


def no_such_model(name: str) -> APIError:
    return APIError(
        404,
        f"The model `{name}` does not exist or you do not have access to it.",
        param="model",
        code="model_not_found",
    )


def no_such_address(method: str, path: str) -> APIError:
    return APIError(404, f"Invalid URL ({method} {path})", code="unknown_url")


def wrong_method(method: str, path: str, allowed: str) -> APIError:
    message = f"Not allowed to {method} on {path}. (HINT: Perhaps you meant to use a different HTTP method?)"
    return APIError(405, message, code="method_not_supported", headers={"Allow": allowed})


def too_large(limit: int) -> APIError:
    message = f"The request body is too large: at most {limit:,} bytes are read."
    return APIError(413, message, code="request_too_large")


def queue_full(waiting: int) -> APIError:
    message = f"The server is busy: {waiting:,} requests wait already. Please try again later."
    return APIError(429, message, code="rate_limit_exceeded", kind="requests", headers={"Retry-After": "1"})


def shutting_down() -> APIError:
    message = "The server is shutting down and takes no further requests."
    return APIError(503, message, code="server_shutting_down", kind=SERVER, headers={"Retry-After": "5"})


def took_too_long(seconds: float) -> APIError:
    message = f"The request took longer than {seconds:g} seconds, the limit of this server, and was ended."
    return APIError(503, message, code="timeout", kind=SERVER)


def failed(message: str = "") -> APIError:
    what = message or "The server had an error while processing your request. Its log says what happened."
    return APIError(500, what, code="internal_error", kind=SERVER)
