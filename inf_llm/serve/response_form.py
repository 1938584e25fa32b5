"""A response of /v1/responses as JSON, and as a stream of events."""

from __future__ import annotations

import secrets
import time
from collections.abc import AsyncIterator
from typing import Any

from inf_llm.generation.calls import Call
from inf_llm.serve.answers import Answered, Choice, Delta, Reading
from inf_llm.serve.completions import Exchange, new_id, recalled
from inf_llm.serve.errors import ApiError
from inf_llm.serve.params import Question
from inf_llm.serve.wire import comment, named_event

_REPEATED: dict[str, Any] = {
    "instructions": None,
    "max_output_tokens": None,
    "metadata": {},
    "parallel_tool_calls": True,
    "temperature": 0.0,
    "text": {"format": {"type": "text"}},
    "tool_choice": "auto",
    "tools": [],
    "top_p": 1.0,
    "user": None,
}
"""Parameters that a response repeats, with the values for a request without them."""
_NEVER = {
    "background": False,
    "error": None,
    "previous_response_id": None,
    "reasoning": {"effort": None, "summary": None},
    "store": False,
    "truncation": "disabled",
}


class ResponseForm:
    """The response format of /v1/responses.

    Args:
        model: name of the model.
        body: the body of the request.
    """

    def __init__(self, model: str, body: dict[str, Any]) -> None:
        repeated = {
            name: default if body.get(name) is None else body[name]
            for name, default in _REPEATED.items()
        }
        self._head = {
            "id": f"resp_{secrets.token_hex(24)}",
            "object": "response",
            "created_at": int(time.time()),
            "model": model,
            **repeated,
            **_NEVER,
        }
        self.message_id = f"msg_{secrets.token_hex(24)}"

    def whole(self, answered: Answered) -> dict[str, Any]:
        """Return the body of a response that is not streamed."""
        choice = answered.choices[0]
        words = [self.message(choice.text, _status(choice))]
        output = ([] if choice.calls and not choice.text else words) + [
            call_item(call) for call in choice.calls
        ]
        return self.ended(answered, output)

    def begun(self) -> dict[str, Any]:
        """Return the response at its beginning, without output."""
        return self._body("in_progress", None, [], None)

    def ended(self, answered: Answered, output: list[dict[str, Any]]) -> dict[str, Any]:
        """Return the complete response with these output items."""
        choice = answered.choices[0]
        cut = _status(choice) == "incomplete"
        details = {"reason": "max_output_tokens"} if cut else None
        body = self._body(_status(choice), details, output, _usage(answered))
        return body | recalled(choice)

    def failed(self, error: ApiError) -> dict[str, Any]:
        """Return the response of a failed request."""
        about = {"code": error.code or "server_error", "message": error.message}
        return self._body("failed", None, [], None) | {"error": about}

    def message(self, text: str, status: str) -> dict[str, Any]:
        """Return the output item of the answer's text."""
        return {
            "type": "message",
            "id": self.message_id,
            "status": status,
            "role": "assistant",
            "content": [text_part(text)],
        }

    def stream(self, exchange: Exchange, question: Question) -> AsyncIterator[bytes]:
        """Return the server-sent events of a streamed response."""
        return stream_response(exchange, self)

    def _body(self, status: str, details: Any, output: Any, usage: Any) -> dict[str, Any]:
        completed = int(time.time()) if status in ("completed", "incomplete") else None
        return {
            **self._head,
            "status": status,
            "completed_at": completed,
            "incomplete_details": details,
            "output": output,
            "usage": usage,
        }


def text_part(text: str) -> dict[str, Any]:
    """Return the content part of a message."""
    return {"type": "output_text", "text": text, "annotations": [], "logprobs": []}


def call_item(call: Call) -> dict[str, Any]:
    """Return the output item of a function call."""
    return {
        "type": "function_call",
        "id": f"fc_{secrets.token_hex(24)}",
        "call_id": new_id(),
        "name": call.name,
        "arguments": call.arguments,
        "status": "completed",
    }


def _status(choice: Choice) -> str:
    return "incomplete" if choice.reason == "length" and not choice.calls else "completed"


def _usage(answered: Answered) -> dict[str, Any]:
    return {
        "input_tokens": answered.prompt_tokens,
        "input_tokens_details": {"cached_tokens": answered.cached_tokens, "cache_write_tokens": 0},
        "output_tokens": answered.new_tokens,
        "output_tokens_details": {"reasoning_tokens": 0},
        "total_tokens": answered.prompt_tokens + answered.new_tokens,
    }


class Events:
    """Encodes the events of a stream and numbers them."""

    def __init__(self) -> None:
        self._number = 0

    def __call__(self, kind: str, **fields: Any) -> bytes:
        """Return the next event, of type `kind`."""
        number, self._number = self._number, self._number + 1
        name = f"response.{kind}"
        return named_event(name, {"type": name, "sequence_number": number, **fields})


async def stream_response(exchange: Exchange, form: ResponseForm) -> AsyncIterator[bytes]:
    """Yield the events of a streamed response; reading progress is sent as comments."""
    event, words = Events(), list[str]()
    yield event("created", response=form.begun())
    yield event("in_progress", response=form.begun())
    try:
        while not isinstance(update := await exchange.next_or_silence(), Answered):
            if isinstance(update, Delta):
                for data in _opening(event, form) if not words else ():
                    yield data
                words.append(update.text)
                yield event("output_text.delta", **_place(form), delta=update.text, logprobs=[])
            elif isinstance(update, Reading):
                yield comment(f"reading {update.done} {update.total}")
            elif update is None:
                yield comment("waiting")
    except ApiError as error:
        yield event("failed", response=form.failed(error))
        return
    for data in _ending(event, form, update, bool(words)):
        yield data


def _place(form: ResponseForm) -> dict[str, Any]:
    return {"item_id": form.message_id, "output_index": 0, "content_index": 0}


def _opening(event: Events, form: ResponseForm) -> list[bytes]:
    """Return the events that begin the message and its text."""
    item = form.message("", "in_progress") | {"content": []}
    return [
        event("output_item.added", output_index=0, item=item),
        event("content_part.added", **_place(form), part=text_part("")),
    ]


def _ending(event: Events, form: ResponseForm, answered: Answered, spoke: bool) -> list[bytes]:
    """Return the events that end the message, those of the calls, and the last event."""
    choice, output, events = answered.choices[0], list[dict[str, Any]](), list[bytes]()
    if spoke or not choice.calls:
        events += [] if spoke else _opening(event, form)
        part, item = text_part(choice.text), form.message(choice.text, _status(choice))
        events += [
            event("output_text.done", **_place(form), text=choice.text, logprobs=[]),
            event("content_part.done", **_place(form), part=part),
            event("output_item.done", output_index=0, item=item),
        ]
        output.append(item)
    for call in choice.calls:
        item = call_item(call)
        events += _call_events(event, item, len(output))
        output.append(item)
    kind = "completed" if _status(choice) == "completed" else "incomplete"
    return [*events, event(kind, response=form.ended(answered, output))]


def _call_events(event: Events, item: dict[str, Any], index: int) -> list[bytes]:
    where = {"item_id": item["id"], "output_index": index}
    begun = item | {"arguments": "", "status": "in_progress"}
    given = item["arguments"]
    return [
        event("output_item.added", output_index=index, item=begun),
        event("function_call_arguments.delta", **where, delta=given),
        event("function_call_arguments.done", **where, arguments=given, name=item["name"]),
        event("output_item.done", output_index=index, item=item),
    ]
