"""What may be asked: the JSON of a request as checked values.

A parameter is used, or ignored because it cannot change the answer, or refused; none is silently
left without its effect.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from inf_llm.serve.errors import ApiError, bad_value, unsupported

IGNORED = frozenset({"user", "store", "metadata", "service_tier", "safety_identifier"}) | {
    "prompt_cache_key",
    "prompt_cache_retention",
}
"""Accepted without effect: they say nothing about the answer."""

_NEUTRAL: dict[str, tuple[Any, ...]] = {
    "n": (1,),
    "best_of": (1,),
    "logprobs": (False,),
    "top_logprobs": (0,),
    "echo": (False,),
    "suffix": ("",),
    "logit_bias": ({},),
    "frequency_penalty": (0, 0.0),
    "presence_penalty": (0, 0.0),
    "tools": ([],),
    "tool_choice": ("none", "auto"),
    "parallel_tool_calls": (True, False),
    "functions": ([],),
    "function_call": ("none",),
    "response_format": ({"type": "text"},),
    "modalities": (["text"],),
    "reasoning_effort": (),
    "audio": (),
    "prediction": (),
    "verbosity": (),
    "web_search_options": (),
}
"""Refused, but for the values here, which ask for nothing."""

_SHARED = {
    *("model", "max_tokens", "temperature", "top_p", "top_k", "seed", "stop", "stream"),
    *("stream_options", "document", "recall"),
}
ROLES = ("system", "developer", "user", "assistant")
LONGEST_STOP, MOST_STOPS = 200, 4

Message = dict[str, str]


@dataclass(frozen=True)
class Sampling:
    """How an answer is made.

    Attributes:
        max_tokens: its length; None for the server's default.
        temperature: 0 takes the likeliest token each time.
        top_p: share of the likeliest tokens that are drawn from.
        top_k: number of them, or None.
        seed: of the draws.
        stop: texts that end it.
    """

    max_tokens: int | None = None
    temperature: float = 0.0
    top_p: float = 1.0
    top_k: int | None = None
    seed: int | None = None
    stop: tuple[str, ...] = ()


@dataclass(frozen=True)
class Question:
    """A request for an answer.

    Attributes:
        model: the name asked for.
        messages: of a chat; empty for a completion.
        prompt: text or token ids of a completion.
        sampling: how the answer is made.
        stream: piece by piece.
        include_usage: end a stream with the counts.
        document: id of an uploaded text to answer from.
        recall: tell which passages were recalled.
    """

    model: str
    messages: tuple[Message, ...]
    prompt: str | tuple[int, ...]
    sampling: Sampling
    stream: bool
    include_usage: bool
    document: str | None
    recall: bool


def chat_question(data: dict[str, Any]) -> Question:
    """The body of a request to /v1/chat/completions.

    Raises:
        ApiError: something in it is not accepted.
    """
    _check_names(data, _SHARED | {"messages", "max_completion_tokens"})
    given = data.get("messages")
    if not isinstance(given, list) or not given:
        raise bad_value("messages", "messages must be a list of at least one message")
    messages = tuple(_message(index, message) for index, message in enumerate(given))
    return _question(data, messages, "")


def completion_question(data: dict[str, Any]) -> Question:
    """The body of a request to /v1/completions."""
    _check_names(data, _SHARED | {"prompt"})
    prompt = data.get("prompt")
    if isinstance(prompt, list) and len(prompt) == 1 and isinstance(prompt[0], str):
        prompt = prompt[0]
    if isinstance(prompt, str):
        return _question(data, (), _text("prompt", prompt))
    if isinstance(prompt, list) and prompt and all(_is_int(token) for token in prompt):
        return _question(data, (), tuple(prompt))
    if isinstance(prompt, list):
        raise unsupported("prompt", "prompt must be one text or one list of token ids")
    raise bad_value("prompt", "prompt is missing: a text or a list of token ids is needed")


def _question(
    data: dict[str, Any], messages: tuple[Message, ...], prompt: str | tuple[int, ...]
) -> Question:
    model = data.get("model")
    if not isinstance(model, str) or not model:
        raise bad_value("model", "model is missing: the name of a model, as /v1/models lists it")
    options = data.get("stream_options") or {}
    if not isinstance(options, dict):
        raise bad_value("stream_options", "stream_options must be an object")
    document = data.get("document")
    if document is not None and not isinstance(document, str):
        raise bad_value("document", "document must be the id of an uploaded document")
    return Question(
        model,
        messages,
        prompt,
        _sampling(data),
        _flag(data, "stream"),
        _flag(options, "include_usage"),
        document,
        _flag(data, "recall"),
    )


def _check_names(data: dict[str, Any], known: set[str]) -> None:
    for name, value in data.items():
        if name in known or name in IGNORED or value is None:
            continue
        if name not in _NEUTRAL:
            raise ApiError(
                400, f"{name[:60]!r} is not a parameter of this request", "unknown_parameter", name
            )
        if not any(
            value == harmless and type(value) is type(harmless) for harmless in _NEUTRAL[name]
        ):
            raise unsupported(name, f"{name} is not supported by this server: leave it out")


def _message(index: int, message: Any) -> Message:
    where = f"messages[{index}]"
    if not isinstance(message, dict):
        raise bad_value(where, f"{where} must be an object with role and content")
    role = message.get("role")
    if role not in ROLES:
        raise bad_value(f"{where}.role", f"{where}.role must be one of {', '.join(ROLES)}")
    if message.get("tool_calls"):
        raise unsupported(f"{where}.tool_calls", "tool calls are not supported by this server")
    text = _content(f"{where}.content", message.get("content"))
    return {"role": "system" if role == "developer" else role, "content": text}


def _content(where: str, content: Any) -> str:
    if isinstance(content, str):
        return _text(where, content)
    if not isinstance(content, list) or not content:
        raise bad_value(where, f"{where} must be text, or a list of text parts")
    for part in content:
        if not isinstance(part, dict) or part.get("type") != "text":
            raise unsupported(where, f"{where}: only parts of type 'text' are supported")
    return "".join(_text(where, part.get("text")) for part in content)


def _text(where: str, value: Any) -> str:
    if not isinstance(value, str):
        raise bad_value(where, f"{where} must be text")
    try:
        value.encode("utf-8")
    except UnicodeEncodeError:
        raise bad_value(where, f"{where} has half of a surrogate pair: it is no text") from None
    return value


def _sampling(data: dict[str, Any]) -> Sampling:
    longest = [data.get(name) for name in ("max_tokens", "max_completion_tokens")]
    for name, value in zip(("max_tokens", "max_completion_tokens"), longest, strict=True):
        _whole(name, value, 1)
    seed = _whole("seed", data.get("seed"), -(2**63))
    return Sampling(
        next((value for value in longest if value is not None), None),
        _number(data, "temperature", 0.0, 0.0, 2.0),
        _number(data, "top_p", 1.0, 0.0, 1.0),
        _whole("top_k", data.get("top_k"), 1),
        None if seed is None else seed % 2**63,
        _stops(data.get("stop")),
    )


def _stops(stop: Any) -> tuple[str, ...]:
    texts = [stop] if isinstance(stop, str) else stop or []
    fits = isinstance(texts, list) and len(texts) <= MOST_STOPS
    if not fits or not all(isinstance(t, str) and 0 < len(t) <= LONGEST_STOP for t in texts):
        raise bad_value(
            "stop",
            f"stop must be a text, or a list of at most {MOST_STOPS}, "
            f"each of 1 to {LONGEST_STOP} characters",
        )
    return tuple(_text("stop", text) for text in texts)


def _is_int(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _whole(name: str, value: Any, least: int) -> int | None:
    if value is None:
        return None
    if not _is_int(value) or not least <= value < 2**63:
        raise bad_value(name, f"{name} must be a whole number of at least {least}")
    return int(value)


def _number(data: dict[str, Any], name: str, default: float, low: float, high: float) -> float:
    value = data.get(name)
    if value is None:
        return default
    fits = isinstance(value, float) or _is_int(value)
    if not fits or not math.isfinite(value) or not low <= value <= high:
        raise bad_value(name, f"{name} must be a number from {low:g} to {high:g}")
    return float(value)


def _flag(data: dict[str, Any], name: str) -> bool:
    value = data.get(name)
    if value is not None and not isinstance(value, bool):
        raise bad_value(name, f"{name} must be true or false")
    return bool(value)
