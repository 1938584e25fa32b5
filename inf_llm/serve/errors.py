"""Errors for clients, in the format of OpenAI's API."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

RETRY_SECONDS = {429: 5, 503: 10}
"""Seconds, by status, after which a client may retry; sent in the header Retry-After."""


class ApiError(Exception):
    """An error that is sent to the client.

    Args:
        status: status of the HTTP response.
        message: a text with the value sent, the rule, and the accepted values.
        code: a short identifier for programs.
        param: the request parameter at fault.
        headers: headers of the HTTP response.
        about: further fields of the error object, for programs.
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
        """The JSON body of the response."""
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
    """Make the error for too many requests or bytes at once, with status 429 or 503."""
    return ApiError(status, f"{what}: try again in {RETRY_SECONDS[status]} s", "busy")


def bad_value(param: str, message: str) -> ApiError:
    """Make the error for a parameter with a value that is not accepted."""
    return ApiError(400, message, "invalid_value", param)


def unsupported(param: str, message: str) -> ApiError:
    """Make the error for a parameter that this server does not support."""
    return ApiError(400, message, "unsupported_parameter", param)
