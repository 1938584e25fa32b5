"""The server process: build the application, run it, and shut it down."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path, PurePath
from typing import Any

from inf_llm.config import RunConfig
from inf_llm.generation import answer_ends
from inf_llm.generation.prefix_cache import PrefixCache
from inf_llm.plan.budget import text_bytes
from inf_llm.serve.app import Application, Limits
from inf_llm.serve.heap import return_memory
from inf_llm.serve.intake import Budget, Intake
from inf_llm.serve.jobs import Engine
from inf_llm.serve.library import Library
from inf_llm.serve.log_limit import limit_logs
from inf_llm.serve.prompts import Prompts
from inf_llm.serve.shapes import Shapes
from inf_llm.serve.web import Listening, WebServer, is_local, listen, most_connections
from inf_llm.serve.worker import Worker

JOIN_SECONDS = 10.0
"""Seconds within which cancelled jobs must end."""
MIN_GRAINS = 4
"""Least size of the memory budget, in units of `PrefixCache.grain` tokens."""


@dataclass(frozen=True)
class ServeOptions:
    """Options of the server.

    Attributes:
        host, port: address to listen on; port 0 takes a free port.
        memory_budget: most bytes of all memories, kept between requests or in use.
        api_key: key that clients must send; None for no key.
        request_bytes: most bytes of a request body.
        model_name: the model's name for clients; None for the last part of the model's path.
        answer_tokens: longest answer if a request gives no limit.
        queue: most requests that may wait.
        at_once: most requests that take turns; others wait.
        reading_share: share of the time for reading prompts while answers are generated too.
        grace: seconds that running requests have to finish at shutdown.
        memory_dir: folder of documents and memories that outlive the server; None for no folder.
        disk_quota: most bytes of memories in this folder; None for no limit.
        client_queue: most requests of one client that wait or are being answered; None for half of
            `queue`.
        connections: most connections at once.
        proxies: addresses of proxies whose X-Forwarded-For names the client.
        cors_origins: origins of web pages that may send requests; "*" for any origin.
        allowed_hosts: host names that a server on a local address accepts beside the local ones.
        calls: form of the model's function calls; None for the form of its chat template.
        home: name of the server among several that share `memory_dir`; empty for a single server.
    """

    host: str = "127.0.0.1"
    port: int = 8000
    memory_budget: int = 8 << 30
    api_key: str | None = None
    request_bytes: int = 16 << 20
    model_name: str | None = None
    answer_tokens: int = 512
    queue: int = 256
    at_once: int = 64
    reading_share: float = 0.5
    grace: float = 30.0
    memory_dir: Path | None = None
    disk_quota: int | None = None
    client_queue: int | None = None
    connections: int = 512
    proxies: list[str] | None = None
    cors_origins: tuple[str, ...] = ()
    allowed_hosts: tuple[str, ...] = ()
    calls: str | None = None
    home: str = ""


def build(model: Any, tokenizer: Any, config: RunConfig, options: ServeOptions) -> Application:
    """Build the application; its worker is not started.

    Raises:
        ConfigError: the memory budget is too small for a text.
        SettingsError: there is no such form of function calls.
        SavedMemoryError: the folder `memory_dir` cannot be used.
    """
    library = None
    if options.memory_dir is not None:
        library = Library(
            options.memory_dir, model, tokenizer, options.disk_quota, bool(options.home)
        )
    needs = text_bytes(model, config)
    pool = PrefixCache(
        model,
        tokenizer,
        config.chunk_size,
        budget=options.memory_budget,
        needs=None if needs is None else needs.of,
        disk_cache=None if library is None else library.disk_cache,
    )
    budget = Budget.of(options.memory_budget, needs, MIN_GRAINS * pool.grain)
    vocabulary = model.get_input_embeddings().weight.shape[0]
    prompts = Prompts(tokenizer, config.conv_type, vocabulary, config.control_tokens)
    engine = Engine(model, tokenizer, config, pool, prompts, library)

    def on_failure(error: BaseException) -> None:
        if isinstance(error, MemoryError) or "out of memory" in str(error).lower():
            pool.clear()

    limits = Limits(
        served_name(config, options),
        options.api_key,
        options.request_bytes,
        is_local(options.host),
        4 * options.request_bytes,
        options.client_queue or max(1, options.queue // 2),
        config.conv_type is None and _thinks(tokenizer),
        options.allowed_hosts,
        options.cors_origins,
        options.home,
    )
    ends = answer_ends(model, prompts.layout)
    shapes = Shapes(tokenizer, prompts.layout, vocabulary, ends, options.calls)
    intake = Intake(prompts, config, budget, options.answer_tokens, shapes)
    worker = Worker(
        options.queue, on_failure, options.at_once, options.reading_share, return_memory
    )
    return Application(engine, intake, worker, limits)


def served_name(config: RunConfig, options: ServeOptions) -> str:
    """Return the model's name for clients."""
    return options.model_name or PurePath(config.model.path).name or config.model.path


def serve(
    application: Application,
    options: ServeOptions,
    on_ready: Callable[[str], None],
    listening: Listening | None = None,
) -> bool:
    """Serve until a signal arrives.

    Args:
        application: from `build`.
        options: options of the server.
        on_ready: called with the server's address once clients can reach it.
        listening: a socket that listens already; None to open one.

    Returns:
        Whether the server had started and all jobs ended in time.

    Raises:
        ConfigError: the address cannot be used, or too few files may be open at once.
    """
    limit_logs()
    server = WebServer(
        application,
        listening or listen(options.host, options.port),
        on_ready,
        options.grace,
        most_connections(options.connections),
        options.proxies,
    )
    application.start()
    server.run()
    ended = application.stop(JOIN_SECONDS)
    application.close()
    return ended and server.started


def _thinks(tokenizer: Any) -> bool:
    """Return whether the chat template has a switch for reasoning."""
    template = str(getattr(tokenizer, "chat_template", None))
    return "thinking" in template or "reasoning_effort" in template
