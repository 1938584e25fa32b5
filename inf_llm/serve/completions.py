"""One request for answers: its job, the job's events, and the JSON formats of OpenAI's API."""

from __future__ import annotations

import asyncio
import secrets
import time
from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import suppress
from typing import Any, Protocol

from starlette.requests import Request

from inf_llm.generation.calls import Call
from inf_llm.serve.answers import Answered, Choice, Delta, Reading
from inf_llm.serve.errors import ApiError
from inf_llm.serve.logprobs import Token, of_chat, of_text
from inf_llm.serve.metrics import Metrics
from inf_llm.serve.params import Question
from inf_llm.serve.wire import DONE, comment, event
from inf_llm.serve.worker import Job, Worker

PULSE_SECONDS = 5.0
"""Seconds without an event after which a stream sends a comment."""


class Exchange:
    """A job of the worker, and the queue through which the event loop gets its events.

    The job is cancelled when the client disconnects, unless it runs in the background.

    Args:
        request: the client's HTTP request.
        client: name of the client in the worker's queue.
        worker: runs the job.
        metrics: counts the tokens and the durations.
        work: the steps of the job.
        background: whether the job continues after the client has disconnected.
        tokens: prompt tokens of the job.

    Raises:
        ApiError: the worker refuses the job.
    """

    def __init__(
        self,
        request: Request,
        client: str,
        worker: Worker,
        metrics: Metrics,
        work: Callable[[Job], Any],
        background: bool = False,
        tokens: int = 0,
    ) -> None:
        self._metrics = metrics
        self._started = time.perf_counter()
        self._events: asyncio.Queue[Any] = asyncio.Queue()
        loop = asyncio.get_running_loop()

        def emit(happened: Any) -> None:
            with suppress(RuntimeError):  # the event loop is closed, so the connection is too
                loop.call_soon_threadsafe(self._events.put_nowait, happened)

        job = Job(client, work, emit, tokens)
        worker.submit(job)
        self.cancel = job.cancel
        if not background:
            self._watch = asyncio.create_task(_cancel_at_end(request, job))

    async def next(self) -> Any:
        """Return the next event.

        Raises:
            ApiError: the job failed; if no response has begun, the error is the response.
        """
        update = await self._events.get()
        if isinstance(update, ApiError):
            raise update
        if isinstance(update, Answered):
            self._count(update)
        return update

    async def result(self) -> Any:
        """Return the final `Answered` event of the job."""
        while not isinstance(result := await self.next(), Answered):
            pass
        return result

    async def next_or_silence(self) -> Any:
        """Return the next event; None if none arrives within `PULSE_SECONDS`."""
        try:
            return await asyncio.wait_for(self.next(), PULSE_SECONDS)
        except asyncio.TimeoutError:
            return None

    def _count(self, answer: Answered) -> None:
        self._metrics.prompt_tokens.inc(answer.prompt_tokens)
        self._metrics.cached_tokens.inc(answer.cached_tokens)
        self._metrics.generated_tokens.inc(answer.new_tokens)
        self._metrics.first_token.observe(answer.first_token)
        self._metrics.request.observe(time.perf_counter() - self._started)


async def _cancel_at_end(request: Request, job: Job) -> None:
    """Cancel the job once the client disconnects or has its response; the body is read before."""
    while (await request.receive())["type"] != "http.disconnect":
        pass
    job.cancel()


class Reply(Protocol):
    """The response format of a route."""

    def whole(self, answered: Answered) -> dict[str, Any]:
        """Return the body of a response that is not streamed."""

    def stream(self, exchange: Exchange, question: Question) -> AsyncIterator[bytes]:
        """Return the server-sent events of a streamed response."""


class Form(ABC):
    """A `Reply` whose JSON lists the answers as choices."""

    prefix: str
    kind: str
    chunk_kind: str
    tokens_as: Callable[[Sequence[Token]], dict[str, Any]]
    """Formats the log-likelihoods of tokens; see `logprobs`."""

    def __init__(self, model: str) -> None:
        self._head = {
            "id": f"{self.prefix}-{secrets.token_hex(12)}",
            "created": int(time.time()),
            "model": model,
        }

    @abstractmethod
    def choice(self, choice: Choice) -> dict[str, Any]:
        """Return a complete answer as JSON."""

    @abstractmethod
    def opening(self, index: int) -> dict[str, Any]:
        """Return the first piece of a streamed answer, which has no text."""

    @abstractmethod
    def part(self, delta: Delta) -> dict[str, Any]:
        """Return one piece of a streamed answer."""

    def calls(self, choice: Choice) -> list[dict[str, Any]]:
        """Return the pieces of the function calls of a streamed answer."""
        return []

    @abstractmethod
    def ending(self, choice: Choice) -> dict[str, Any]:
        """Return the last piece of a streamed answer, which has no text."""

    def _reported(self, tokens: Sequence[Token] | None) -> dict[str, Any] | None:
        return None if tokens is None else type(self).tokens_as(tokens)

    def whole(self, answered: Answered) -> dict[str, Any]:
        """Return the body of a response that is not streamed."""
        choices = [self.choice(choice) for choice in answered.choices]
        body = {**self._head, "object": self.kind, "choices": choices, "usage": usage(answered)}
        return body | recalled(answered.choices[0])

    def stream(self, exchange: Exchange, question: Question) -> AsyncIterator[bytes]:
        """Return the server-sent events of a streamed response."""
        return stream_answers(exchange, self, question)

    def chunk(self, choices: list[dict[str, Any]], **more: Any) -> bytes:
        """Return one server-sent event of the stream."""
        return event({**self._head, "object": self.chunk_kind, "choices": choices, **more})


class ChatForm(Form):
    """The response format of /v1/chat/completions."""

    prefix, kind, chunk_kind = "chatcmpl", "chat.completion", "chat.completion.chunk"
    tokens_as = staticmethod(of_chat)

    def choice(self, choice: Choice) -> dict[str, Any]:
        """See `Form`."""
        message: dict[str, Any] = {
            "role": "assistant",
            "content": choice.text,
            "refusal": None,
        }
        if choice.calls:
            calls = [{"id": new_id(), **_call(call)} for call in choice.calls]
            message |= {"content": choice.text or None, "tool_calls": calls}
        return _choice(
            choice.index, _reason(choice), self._reported(choice.reported), message=message
        )

    def opening(self, index: int) -> dict[str, Any]:
        """See `Form`."""
        return _choice(index, None, delta={"role": "assistant", "content": ""})

    def part(self, delta: Delta) -> dict[str, Any]:
        """See `Form`."""
        reported = self._reported(delta.tokens or None)
        return _choice(delta.index, None, reported, delta={"content": delta.text})

    def calls(self, choice: Choice) -> list[dict[str, Any]]:
        """See `Form`; each call is one piece with its name, then one with its arguments."""
        pieces: list[dict[str, Any]] = []
        for number, call in enumerate(choice.calls):
            opening = {"id": new_id(), **_call(Call(call.name, ""))}
            pieces += [opening | {"index": number}]
            pieces += [{"index": number, "function": {"arguments": call.arguments}}]
        return [_choice(choice.index, None, delta={"tool_calls": [piece]}) for piece in pieces]

    def ending(self, choice: Choice) -> dict[str, Any]:
        """See `Form`."""
        return _choice(choice.index, _reason(choice), delta={})


class TextForm(Form):
    """The response format of /v1/completions."""

    prefix, kind, chunk_kind = "cmpl", "text_completion", "text_completion"
    tokens_as = staticmethod(of_text)

    def choice(self, choice: Choice) -> dict[str, Any]:
        """See `Form`."""
        return _choice(
            choice.index, choice.reason, self._reported(choice.reported), text=choice.text
        )

    def opening(self, index: int) -> dict[str, Any]:
        """See `Form`."""
        return _choice(index, None, text="")

    def part(self, delta: Delta) -> dict[str, Any]:
        """See `Form`."""
        return _choice(delta.index, None, self._reported(delta.tokens or None), text=delta.text)

    def ending(self, choice: Choice) -> dict[str, Any]:
        """See `Form`."""
        return _choice(choice.index, choice.reason, text="")


def new_id() -> str:
    """Make an id of a call: 9 letters and digits, the form that some chat templates require."""
    return secrets.token_hex(5)[:9]


def _call(call: Call) -> dict[str, Any]:
    return {"type": "function", "function": {"name": call.name, "arguments": call.arguments}}


def _reason(choice: Choice) -> str:
    return "tool_calls" if choice.calls else choice.reason


def _choice(index: int, reason: str | None, logprobs: Any = None, **fields: Any) -> dict[str, Any]:
    return {"index": index, **fields, "logprobs": logprobs, "finish_reason": reason}


def recalled(choice: Choice) -> dict[str, Any]:
    """Return the field with the recalled passages of an answer; no field without passages."""
    return {} if choice.passages is None else {"recalled": choice.passages}


def usage(answered: Answered) -> dict[str, Any]:
    """Return the token counts of a response."""
    return {
        "prompt_tokens": answered.prompt_tokens,
        "completion_tokens": answered.new_tokens,
        "total_tokens": answered.prompt_tokens + answered.new_tokens,
        "prompt_tokens_details": {
            "cached_tokens": answered.cached_tokens,
            "cut_tokens": answered.cut_tokens,
        },
    }


async def stream_answers(
    exchange: Exchange, form: Form, question: Question
) -> AsyncIterator[bytes]:
    """Yield the events of streamed answers; reading progress is sent as comments."""
    empty = {"usage": None} if question.include_usage else {}
    yield comment("accepted")
    for index in range(question.answers):
        yield form.chunk([form.opening(index)], **empty)
    try:
        while not isinstance(update := await exchange.next_or_silence(), Answered):
            if isinstance(update, Delta):
                yield form.chunk([form.part(update)], **empty)
            elif isinstance(update, Choice):
                for piece in form.calls(update):
                    yield form.chunk([piece], **empty)
                yield form.chunk([form.ending(update)], **recalled(update), **empty)
            elif isinstance(update, Reading):
                yield comment(f"reading {update.done} {update.total}")
            else:
                yield comment("waiting")
    except ApiError as error:
        yield event(error.body())
        return
    if question.include_usage:
        yield form.chunk([], usage=usage(update))
    yield DONE
