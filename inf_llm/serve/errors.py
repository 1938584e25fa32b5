"""What a client did wrong, or the server cannot do, in the form that OpenAI clients understand."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

RETRY_SECONDS = {429: 5, 503: 10}
"""By status, when a client may try again; said in the header Retry-After."""


class ApiError(Exception):
    """An error for the client.

    Args:
        status: of the HTTP response.
        message: the value, the rule, and what is accepted.
        code: a word for programs.
        param: the parameter it is about.
        headers: of the HTTP response.
        about: figures for programs, beside the message.
    """

    def __init__(
        self,
        status: int,
        message: str,
        code: str | None = None,
        param: str | None = None,
        headers: Mapping[str, str] | None = None,
        about: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__(message)
        self.status = status
        self.message = message
        self.code = code
        self.param = param
        self.about = about or {}
        self.headers = dict(headers or {})
        if status in RETRY_SECONDS:
            self.headers["Retry-After"] = str(RETRY_SECONDS[status])

    def body(self) -> dict[str, Any]:
        """What is sent."""
        return {
            "error": {
                "message": self.message,
                "type": _TYPES.get(self.status, "invalid_request_error"),
                "param": self.param,
                "code": self.code,
                **self.about,
            }
        }


_TYPES = {
    401: "authentication_error",
    403: "permission_error",
    429: "rate_limit_error",
    500: "server_error",
    503: "server_error",
}


def busy(status: int, what: str) -> ApiError:
    """There is too much to do, for one client (429) or for all (503)."""
    return ApiError(status, f"{what}: try again in {RETRY_SECONDS[status]} s", "busy")


def bad_value(param: str, message: str) -> ApiError:
    """A parameter has a value that is not accepted."""
    return ApiError(400, message, "invalid_value", param)


def unsupported(param: str, message: str) -> ApiError:
    """A parameter asks for what this server does not do."""
    return ApiError(400, message, "unsupported_parameter", param)
