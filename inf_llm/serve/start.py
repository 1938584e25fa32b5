"""The process: load, listen, and end well.

On SIGTERM or Ctrl-C no new connection is taken; what runs may finish for a while, then it is
cancelled. A second Ctrl-C does not wait.
"""

from __future__ import annotations

import ipaddress
import logging
import signal
import socket
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import PurePath
from typing import Any

import uvicorn

from inf_llm.config import RunConfig
from inf_llm.errors import ConfigError
from inf_llm.generation.prefix_cache import PrefixCache
from inf_llm.serve.app import Application, Limits
from inf_llm.serve.jobs import Engine
from inf_llm.serve.prompts import Prompts
from inf_llm.serve.worker import Worker

FEED = 2048
"""Most tokens fed at a time, so that progress is seen and a cancelled reading ends soon."""
JOIN_SECONDS = 10.0
"""A cancelled job must have ended by then."""


@dataclass(frozen=True)
class ServeOptions:
    """How to serve.

    Attributes:
        host, port: where to listen; port 0 takes a free one.
        memory_budget: bytes of memories kept between requests.
        api_key: what clients must show, or None.
        request_bytes: largest body of a request.
        model_name: the name clients ask for; None for the end of the model's path.
        answer_tokens: longest answer where a request does not say.
        queue: most requests that may wait.
        grace: seconds that running requests have to finish at the end.
    """

    host: str = "127.0.0.1"
    port: int = 8000
    memory_budget: int = 8 << 30
    api_key: str | None = None
    request_bytes: int = 16 << 20
    model_name: str | None = None
    answer_tokens: int = 512
    queue: int = 256
    grace: float = 30.0


def build(model: Any, tokenizer: Any, config: RunConfig, options: ServeOptions) -> Application:
    """The application, with its worker not started yet."""
    chunk = min(config.chunk_size, FEED)
    pool = PrefixCache(model, tokenizer, chunk, budget=options.memory_budget)
    vocabulary = model.get_input_embeddings().weight.shape[0]
    prompts = Prompts(tokenizer, config.conv_type, vocabulary, config.control_tokens)
    engine = Engine(model, tokenizer, config, pool, prompts, options.answer_tokens)

    def on_failure(error: BaseException) -> None:
        if isinstance(error, MemoryError) or "out of memory" in str(error).lower():
            pool.clear()

    limits = Limits(
        options.model_name or PurePath(config.model.path).name or config.model.path,
        options.api_key,
        options.request_bytes,
        _is_local(options.host),
        4 * options.request_bytes,
        config.conv_type is None and _thinks(tokenizer),
    )
    return Application(engine, Worker(options.queue, on_failure), limits)


def serve(application: Application, options: ServeOptions, on_ready: Callable[[str], None]) -> bool:
    """Serve until a signal comes.

    Args:
        application: from `build`.
        options: how to serve.
        on_ready: called with the address once it can be reached.

    Returns:
        Whether all ended in time.
    """
    logging.getLogger("inf_llm.serve").setLevel(logging.WARNING)
    server = WebServer(application, options, on_ready)
    for number in (signal.SIGTERM, signal.SIGINT):  # uvicorn raises them again when it is done
        signal.signal(number, lambda *_: None)
    application.worker.start()
    server.run([server.listening])
    return application.worker.stop(JOIN_SECONDS) and server.started


class WebServer(uvicorn.Server):
    """Listens from the beginning, and says when it can be reached. Arguments as of `serve`."""

    def __init__(
        self, application: Application, options: ServeOptions, on_ready: Callable[[str], None]
    ) -> None:
        super().__init__(
            uvicorn.Config(
                application,
                lifespan="off",
                ws="none",
                log_level="warning",
                access_log=False,
                server_header=False,
                proxy_headers=False,
                timeout_graceful_shutdown=max(1, round(options.grace)),
            )
        )
        self.listening, self._address = _listening(options)
        self._on_ready = on_ready

    async def startup(self, sockets: Any = None) -> None:
        """See `uvicorn.Server`."""
        await super().startup(sockets)
        if self.started:
            self._on_ready(self._address)


def _listening(options: ServeOptions) -> tuple[socket.socket, str]:
    """A socket, and the address that reaches it."""
    try:
        found = socket.getaddrinfo(options.host, options.port, type=socket.SOCK_STREAM)
        family, address = found[0][0], found[0][4]
        listening = socket.create_server(address[:2], family=family, backlog=512)
    except OSError as error:
        raise ConfigError(
            f"cannot listen on {options.host}, port {options.port}: {error.strerror or error}; "
            "choose others with --host and --port"
        ) from None
    host, port = listening.getsockname()[:2]
    return listening, f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


def _thinks(tokenizer: Any) -> bool:
    """Whether the chat template has a switch for reasoning."""
    template = str(getattr(tokenizer, "chat_template", None))
    return "thinking" in template or "reasoning_effort" in template


def _is_local(host: str) -> bool:
    if host.lower() == "localhost":
        return True
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False
