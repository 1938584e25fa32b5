"""A client that sends requests to a server and times the replies."""

from __future__ import annotations

import json
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Any

import httpx

from benchmark.load.server import Server
from inf_llm.errors import InfLLMError


@dataclass
class Answer:
    """An answer and its times, in seconds since the request.

    Attributes:
        kind: kind of the client.
        sent: time of the request, by `time.perf_counter`.
        first: time to the first piece of text; None before that.
        last: time to the last piece of text.
        tokens: number of tokens of the answer.
        prompt: number of tokens of the prompt.
        cached: number of prompt tokens that were in memory.
        text: the whole text of the answer.
    """

    kind: str
    sent: float = field(default_factory=time.perf_counter)
    first: float | None = None
    last: float = 0.0
    tokens: int = 0
    prompt: int = 0
    cached: int = 0
    text: str = ""

    @property
    def per_token(self) -> float | None:
        """Seconds per token after the first; None for fewer than two tokens."""
        if self.first is None or self.tokens < 2:
            return None
        return (self.last - self.first) / (self.tokens - 1)

    def take(self, event: dict[str, Any]) -> None:
        """Add an event of the answer's stream.

        Raises:
            InfLLMError: the event is an error.
        """
        now = time.perf_counter() - self.sent
        if "error" in event:
            raise InfLLMError(f"a request failed: {event['error']['message']}")
        for choice in event["choices"]:
            piece = choice["delta"].get("content")
            if piece:
                self.first = now if self.first is None else self.first
                self.last = now
                self.text += piece
        if usage := event.get("usage"):
            self.tokens, self.prompt = usage["completion_tokens"], usage["prompt_tokens"]
            self.cached = usage["prompt_tokens_details"]["cached_tokens"]


class Client:
    """A client of a server.

    Args:
        server: the server.
        http: connections to the server.
        kind: kind of the client, for the table.
    """

    def __init__(self, server: Server, http: httpx.AsyncClient, kind: str) -> None:
        self.server, self.http, self.kind = server, http, kind

    async def ask(
        self, messages: str | list[dict[str, str]], tokens: int, document: str | None = None
    ) -> Answer:
        """Send a question and return its streamed answer.

        Raises:
            InfLLMError: the server refused the request, or the stream has an error.
        """
        if isinstance(messages, str):
            messages = [{"role": "user", "content": messages}]
        body = {"model": self.server.model, "messages": messages, "max_tokens": tokens}
        body |= {"stream": True, "stream_options": {"include_usage": True}, "document": document}
        answer = Answer(self.kind)
        async for event in self._events("/v1/chat/completions", body):
            answer.take(event)
        return answer

    async def upload(self, text: str) -> tuple[str, int, float]:
        """Upload a text; return the document's id, its number of tokens, and the seconds taken."""
        started = time.perf_counter()
        body = {"text": text, "stream": True}
        last: dict[str, Any] = {}
        async for event in self._events("/v1/documents", body):
            last = event
        if "error" in last:
            raise InfLLMError(f"an upload failed: {last['error']['message']}")
        return last["id"], last["tokens"], time.perf_counter() - started

    async def _events(self, path: str, body: dict[str, Any]) -> AsyncIterator[dict[str, Any]]:
        url = f"{self.server.address}{path}"
        async with self.http.stream("POST", url, json=body, timeout=None) as reply:
            if reply.status_code != 200:
                text = (await reply.aread()).decode(errors="replace")
                raise InfLLMError(f"{path} was answered with {reply.status_code}: {text[:300]}")
            async for line in reply.aiter_lines():
                if line.startswith("data: ") and line != "data: [DONE]":
                    yield json.loads(line[6:])
