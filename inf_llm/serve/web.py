"""The web server: where it listens, how many connections it takes, and how it ends.

On SIGTERM or Ctrl-C no new connection is taken; what runs may finish for a while, then it is
cancelled. A second Ctrl-C does not wait.
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
from inf_llm.serve.connection import MOST_REFUSED, Connection, WebConfig

BACKLOG = 64
"""Connections that wait to be taken, and that are taken at once."""
KEEP_ALIVE = 15
"""Seconds that a connection may be idle after an answer."""
OWN_FILES = 32
"""Files that the server may open for itself."""
LEAST_CONNECTIONS = 8
LAST_SECONDS = 2.0
"""In which cancelled requests are answered at the end."""


@dataclass(frozen=True)
class Listening:
    """A socket that listens, and the address that reaches it."""

    socket: socket.socket
    address: str


def listen(host: str, port: int) -> Listening:
    """Take a port; connections wait until a server takes them.

    Raises:
        ConfigError: it cannot be had.
    """
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
        family, address = found[0][0], found[0][4]
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
    """Whether only this computer reaches an address."""
    if host.lower() == "localhost":
        return True
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False


def trusted_proxies(option: str, text: str) -> list[str]:
    """Addresses and networks of proxies whose X-Forwarded-For is believed; "*" for any.

    Raises:
        ConfigError: one of them is none.
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
    """As many as are wanted, or for which files may be opened.

    Raises:
        ConfigError: these are too few to serve anyone.
    """
    try:
        import resource
    except ImportError:  # not on Windows, where sockets are no files
        return wanted
    files = Path("/proc/self/fd")
    used = len(list(files.iterdir())) if files.exists() else OWN_FILES
    spare = used + OWN_FILES + BACKLOG + MOST_REFUSED
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft == resource.RLIM_INFINITY:
        return wanted
    if soft < wanted + spare:
        soft = wanted + spare if hard == resource.RLIM_INFINITY else min(hard, wanted + spare)
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    if soft - spare < LEAST_CONNECTIONS:
        raise ConfigError(
            f"{soft} files may be open at once, and {spare} are kept for the server itself: allow "
            f"{spare + LEAST_CONNECTIONS} or more, as ulimit -n 1024 does"
        )
    return min(wanted, soft - spare)


class Answering(Protocol):
    """What a web server serves: an ASGI application that can be stopped."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """ASGI's entry."""

    def stop(self, seconds: float) -> bool:
        """Cancel all requests; whether they ended in so many seconds."""


class WebServer(uvicorn.Server):
    """Says when it can be reached, and ends without a word of its own.

    Args:
        application: answers; it is stopped where requests do not end in time.
        listening: where.
        on_ready: called with the address once it can be reached.
        grace: seconds that running requests have to finish at the end.
        connections: most at once.
        proxies: see `trusted_proxies`; None for none.
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
        """Serve until a signal comes."""
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
        """After the grace, or a second Ctrl-C, cancel what runs; then do not wait for it."""
        with contextlib.suppress(asyncio.TimeoutError):
            await asyncio.wait_for(self._hurry.wait(), self._grace)
        await asyncio.to_thread(self._application.stop, LAST_SECONDS)
        await asyncio.sleep(0.2)  # in which the answers are sent
        logging.getLogger("uvicorn.error").setLevel(logging.CRITICAL)  # of requests cut off
        self.force_exit = True

    def handle_exit(self, sig: int, frame: Any) -> None:
        """See `uvicorn.Server`."""
        if self.should_exit and sig == signal.SIGINT:
            asyncio.get_running_loop().call_soon_threadsafe(self._hurry.set)
        self.should_exit = True
