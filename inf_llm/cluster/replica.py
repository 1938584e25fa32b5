"""One of several servers: a Ray Serve replica with a model and its memories."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator
from contextlib import aclosing
from dataclasses import replace
from typing import Any

from ray import serve
from starlette.types import Message, Scope

from inf_llm.cluster.asgi import messages
from inf_llm.cluster.export import Exported
from inf_llm.cluster.scaling import WAITING_TOKENS
from inf_llm.config import RunConfig
from inf_llm.errors import InfLLMError
from inf_llm.hf.load import load
from inf_llm.serve.heap import bound_heap
from inf_llm.serve.log_limit import limit_logs
from inf_llm.serve.start import JOIN_SECONDS, ServeOptions, build

HEADER = b"x-inf-llm-replica"
"""Response header with the name of the replica."""
_log = logging.getLogger("inf_llm.serve")


class Replica:
    """The server application of one replica; Ray Serve calls its methods.

    Args:
        config: the configuration of the run.
        options: the options of a single server; its host and port are not used.
        digest: digest of these settings and those of the cluster.

    Raises:
        InfLLMError: the model cannot be loaded, or cannot answer.
    """

    def __init__(self, config: RunConfig, options: ServeOptions, digest: str) -> None:
        self._digest = digest
        bound_heap()
        limit_logs()
        model, tokenizer = load(config)
        self._name = serve.get_replica_context().replica_id.unique_id
        self._app = build(model, tokenizer, config, replace(options, home=self._name))
        self._exported = Exported(self._app.metrics.registry)
        refused = self._app.engine.try_out()
        if refused is not None:
            _log.warning("chats will be refused: %s", refused)
        self._app.start()

    def digest(self) -> str:
        """Return the digest; a front starts no replicas if running ones have the same digest."""
        return self._digest

    async def answer(self, key: str, scope: Scope, body: bytes) -> AsyncIterator[Message]:
        """Yield the ASGI messages of the answer to a request; only the router uses `key`."""
        async with aclosing(messages(self._app, scope, body)) as sent:
            async for message in sent:
                if message["type"] == "http.response.start":
                    message["headers"] = [*message["headers"], (HEADER, self._name.encode())]
                yield message

    def check_health(self) -> None:
        """Raise an error if the model's thread has ended; Ray then starts another replica.

        Ray calls this method regularly, so it exports the metrics too.
        """
        self._exported.update()
        if not self._app.worker.alive:
            raise InfLLMError("the model's thread has ended")

    def record_autoscaling_stats(self) -> dict[str, float]:
        """Return the waiting tokens, which the number of replicas follows."""
        return {WAITING_TOKENS: float(self._app.worker.waiting_tokens)}

    def __del__(self) -> None:
        """Stop the application; Ray calls this when the replica ends, after its grace period."""
        app: Any = getattr(self, "_app", None)
        if app is not None:
            app.stop(JOIN_SECONDS)
            app.close()
