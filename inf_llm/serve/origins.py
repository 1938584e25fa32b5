"""Web pages of other origins that may send requests (CORS), and accepted host names."""

from __future__ import annotations

import re
from collections.abc import Sequence

from starlette.datastructures import Headers
from starlette.middleware.cors import CORSMiddleware
from starlette.responses import Response
from starlette.types import ASGIApp

from inf_llm.errors import ConfigError
from inf_llm.serve.errors import ApiError
from inf_llm.serve.wire import refusal

CUT_HEADER = "x-inf-llm-cut-tokens"
"""Response header with the number of tokens that were cut from a prompt; scripts of allowed origins
may read it."""


class Origins(CORSMiddleware):
    """Starlette's CORS middleware, with an error that names the option to set.

    Args:
        app: the application.
        origins: origins whose pages may send requests; "*" for any, empty for none but the server.
    """

    def __init__(self, app: ASGIApp, origins: Sequence[str]) -> None:
        super().__init__(
            app,
            allow_origins=origins,
            allow_methods=["*"] if origins else (),
            allow_headers=["*"] if origins else (),
            expose_headers=[CUT_HEADER] if origins else (),
        )

    def preflight_response(self, request_headers: Headers) -> Response:
        """See `CORSMiddleware`."""
        origin = request_headers["origin"]
        if self.is_allowed_origin(origin=origin):
            return super().preflight_response(request_headers)
        return refusal(
            ApiError(
                403,
                f"the origin {origin[:80]!r} may not ask from a browser: start the server with "
                f"--cors-origin {origin[:80]}",
                "bad_origin",
            )
        )


def checked_origins(option: str, given: Sequence[str]) -> tuple[str, ...]:
    """Check origins, which have a scheme, a host and perhaps a port only, as browsers send them.

    Raises:
        ConfigError: one of them is not an origin.
    """
    for origin in given:
        if origin != "*" and not re.fullmatch(r"[a-z][a-z0-9+.-]*://[^/\s]+", origin):
            raise ConfigError(
                f"{option} {origin!r} is no origin: write http://localhost:3000, without a path or "
                "a slash at the end, or *"
            )
    return tuple(given)


def checked_hosts(option: str, given: Sequence[str]) -> tuple[str, ...]:
    """Check host names and return them in lower case.

    Raises:
        ConfigError: one of them is not a host name.
    """
    for host in given:
        if not re.fullmatch(r"[A-Za-z0-9._-]+|\[[0-9a-fA-F:.]+\]", host):
            raise ConfigError(
                f"{option} {host!r} is no host name: write host.docker.internal or [fd00::1], "
                "without http:// and without a port"
            )
    return tuple(host.lower() for host in given)
