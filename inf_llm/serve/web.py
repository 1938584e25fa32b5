"""The web server: its socket, its limit on connections, and its shutdown.

After SIGTERM or Ctrl-C the server accepts no further connection. Running requests have a grace
period to finish, and are then cancelled. A second Ctrl-C cancels them at once.
"""

from __future__ import annotations

import asyncio
import contextlib
import ipaddress
import logging
import signal
import socket
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import uvicorn
from starlette.types import Receive, Scope, Send

from inf_llm.errors import ConfigError
from inf_llm.serve.connection import MAX_REFUSED, Connection, WebConfig

BACKLOG = 64
"""Most connections that wait to be accepted, and that asyncio accepts in one go."""
KEEP_ALIVE = 15
"""Seconds that a connection may be idle after a response."""
OWN_FILES = 32
"""Files reserved for the server itself."""
MIN_CONNECTIONS = 8
LAST_SECONDS = 2.0
"""Seconds for jobs to end after their cancellation at shutdown."""


@dataclass(frozen=True)
class Listening:
    """A listening socket and its URL."""

    socket: socket.socket
    address: str


def listen(host: str, port: int) -> Listening:
    """Open a listening socket; connections wait in its backlog until a server accepts them.

    Raises:
        ConfigError: the address or port cannot be used.
    """
    try:
        addresses = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
        family, address = addresses[0][0], addresses[0][4]
        listening = socket.create_server(address[:2], family=family, backlog=BACKLOG)
    except OSError as error:
        raise ConfigError(
            f"cannot listen on {host}, port {port}: {error.strerror or error}; choose others with "
            "--host and --port"
        ) from None
    name, number = listening.getsockname()[:2]
    return Listening(
        listening, f"http://[{name}]:{number}" if ":" in name else f"http://{name}:{number}"
    )


def is_local(host: str) -> bool:
    """Return whether an address can be reached from this computer only."""
    if host.lower() == "localhost":
        return True
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False


def trusted_proxies(option: str, text: str) -> list[str]:
    """Parse addresses and networks of proxies whose X-Forwarded-For is trusted; "*" for any.

    Raises:
        ConfigError: one of them is neither an address nor a network.
    """
    given = [part.strip() for part in text.split(",")]
    for part in given:
        try:
            if part != "*":
                ipaddress.ip_network(part)
        except ValueError:
            raise ConfigError(
                f"{option} {part!r} is no address: write 127.0.0.1, 10.0.0.0/8 or *, with commas "
                "between several"
            ) from None
    return given


def most_connections(wanted: int) -> int:
    """Return the wanted number of connections, or fewer if fewer files may be open at once.

    Raises:
        ConfigError: fewer than `MIN_CONNECTIONS` are possible.
    """
    try:
        import resource
    except ImportError:  # Windows lacks this module, and counts no sockets as files
        return wanted
    files = Path("/proc/self/fd")
    used = len(list(files.iterdir())) if files.exists() else OWN_FILES
    spare = used + OWN_FILES + BACKLOG + MAX_REFUSED
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft == resource.RLIM_INFINITY:
        return wanted
    if soft < wanted + spare:
        soft = wanted + spare if hard == resource.RLIM_INFINITY else min(hard, wanted + spare)
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    if soft - spare < MIN_CONNECTIONS:
        raise ConfigError(
            f"{soft} files may be open at once, and {spare} are kept for the server itself: allow "
            f"{spare + MIN_CONNECTIONS} or more, as ulimit -n 1024 does"
        )
    return min(wanted, soft - spare)


class Answering(Protocol):
    """An ASGI application that can be stopped."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one ASGI connection."""

    def stop(self, seconds: float) -> bool:
        """Cancel all requests; return whether they ended within `seconds`."""


class WebServer(uvicorn.Server):
    """A uvicorn server that reports when it is ready and ends on a signal without a traceback.

    Args:
        application: the ASGI application; it is stopped if requests do not end in time.
        listening: the socket to serve.
        on_ready: called with the server's URL once clients can reach it.
        grace: seconds that running requests have to finish at shutdown.
        connections: most connections at once.
        proxies: see `trusted_proxies`; None for no proxies.
    """

    def __init__(
        self,
        application: Answering,
        listening: Listening,
        on_ready: Callable[[str], None],
        grace: float = 30.0,
        connections: int = 512,
        proxies: list[str] | None = None,
    ) -> None:
        config = WebConfig(
            application,
            http=Connection,
            lifespan="off",
            ws="none",
            log_level="warning",
            access_log=False,
            server_header=False,
            proxy_headers=proxies is not None,
            forwarded_allow_ips=proxies,
            backlog=BACKLOG,
            timeout_keep_alive=KEEP_ALIVE,
        )
        config.most_connections = connections
        super().__init__(config)
        self.listening, self._on_ready = listening, on_ready
        self._application, self._grace = application, grace
        self._hurry = asyncio.Event()

    def run(self, sockets: Any = None) -> None:
        """Serve until a signal arrives."""
        super().run([self.listening.socket])

    async def startup(self, sockets: Any = None) -> None:
        """See `uvicorn.Server`."""
        await super().startup(sockets)
        if self.started:
            self._on_ready(self.listening.address)

    async def shutdown(self, sockets: Any = None) -> None:
        """See `uvicorn.Server`."""
        cancelling = asyncio.create_task(self._cancel_late())
        await super().shutdown(sockets)
        cancelling.cancel()

    async def _cancel_late(self) -> None:
        """Cancel running requests after the grace period or a second Ctrl-C, then force exit."""
        with contextlib.suppress(asyncio.TimeoutError):
            await asyncio.wait_for(self._hurry.wait(), self._grace)
        await asyncio.to_thread(self._application.stop, LAST_SECONDS)
        await asyncio.sleep(0.2)  # time to send the error responses
        logging.getLogger("uvicorn.error").setLevel(logging.CRITICAL)  # no logs of cut-off requests
        self.force_exit = True

    def handle_exit(self, sig: int, frame: Any) -> None:
        """See `uvicorn.Server`."""
        if self.should_exit and sig == signal.SIGINT:
            asyncio.get_running_loop().call_soon_threadsafe(self._hurry.set)
        self.should_exit = True
