"""What may be asked: the JSON of a request as checked values.

A parameter is used, or ignored because it cannot change the answer, or refused; none is silently
left without its effect. What is ignored stands in `vendors`.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass
from typing import Any

from inf_llm.checks import LARGEST, LEAST_TEMPERATURE, check_question, check_text
from inf_llm.errors import TextError
from inf_llm.serve.errors import bad_value, unsupported
from inf_llm.serve.vendors import check_names

SHARED = {
    *("model", "max_tokens", "temperature", "top_p", "top_k", "seed", "stop", "stream"),
    *("stream_options", "document", "documents", "recall"),
}
_STREAM_OPTIONS = {"include_usage", "include_obfuscation"}
ROLES = ("system", "developer", "user", "assistant")
_OF_MESSAGES = {
    *("role", "content"),
    # accepted without effect, for a chat template takes a role and a content
    *("id", "name", "timestamp", "annotations", "cache_control", "reasoning", "reasoning_content"),
}
_OF_PARTS = {"type", "text", "annotations", "cache_control"}
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
        documents: ids of uploaded texts to answer from.
        recall: list the passages that were recalled.
    """

    model: str
    messages: tuple[Message, ...]
    prompt: str | tuple[int, ...]
    sampling: Sampling
    stream: bool
    include_usage: bool
    documents: tuple[str, ...]
    recall: bool


def chat_question(data: dict[str, Any], thinks: bool = False) -> Question:
    """The body of a request to /v1/chat/completions.

    Args:
        data: the body.
        thinks: whether the model's chat template has a switch for reasoning.

    Raises:
        ApiError: something in it is not accepted.
    """
    check_names(data, SHARED | {"messages", "max_completion_tokens"}, thinks)
    given = data.get("messages")
    if not isinstance(given, list) or not given:
        raise bad_value("messages", "messages must be a list of at least one message")
    messages = tuple(_message(index, message) for index, message in enumerate(given))
    return _question(data, messages, "")


def completion_question(data: dict[str, Any]) -> Question:
    """The body of a request to /v1/completions."""
    check_names(data, SHARED | {"prompt"})
    prompt = data.get("prompt")
    if isinstance(prompt, list) and len(prompt) == 1 and isinstance(prompt[0], str):
        prompt = prompt[0]
    if isinstance(prompt, str):
        return _question(
            data, (), checked_text("prompt", prompt, check_question if prompt else check_text)
        )
    if isinstance(prompt, list) and prompt and all(type(token) is int for token in prompt):
        question = _question(data, (), tuple(prompt))
        if question.documents:
            raise bad_value("prompt", "prompt must be a text where it is about a document")
        return question
    if isinstance(prompt, list):
        raise unsupported("prompt", "prompt must be one text or one list of token ids")
    raise bad_value("prompt", "prompt is missing: a text or a list of token ids is needed")


def _question(
    data: dict[str, Any], messages: tuple[Message, ...], prompt: str | tuple[int, ...]
) -> Question:
    model = data.get("model")
    if not isinstance(model, str) or not model:
        raise bad_value("model", "model is missing: the name of a model, as /v1/models lists it")
    return Question(
        model,
        messages,
        prompt,
        _sampling(data),
        flag(data, "stream"),
        _usage_wanted(data.get("stream_options")),
        _documents(data),
        flag(data, "recall"),
    )


def _documents(data: dict[str, Any]) -> tuple[str, ...]:
    one, several = data.get("document"), data.get("documents")
    if one is not None and not isinstance(one, str):
        raise bad_value("document", "document must be the id of an uploaded document")
    several = [] if several is None else several
    if not isinstance(several, list) or not all(isinstance(name, str) for name in several):
        raise bad_value("documents", "documents must be a list of ids of uploaded documents")
    names = [*([] if one is None else [one]), *several]
    if len(set(names)) < len(names):
        raise bad_value("documents", "documents must be different ones")
    return tuple(names)


def _usage_wanted(options: Any) -> bool:
    if options is None:
        return False
    if not isinstance(options, dict):
        raise bad_value("stream_options", "stream_options must be an object")
    _check_fields("stream_options", options, _STREAM_OPTIONS)
    return flag(options, "include_usage")


def _check_fields(where: str, fields: dict[str, Any], known: Collection[str]) -> None:
    """Refuse fields inside a parameter that are not known, unless they are null, false or empty."""
    for name, value in fields.items():
        if value and name not in known:
            name = f"{where}.{name}"[:100]
            raise unsupported(name, f"{name} is not supported by this server: leave it out")


def _message(index: int, message: Any) -> Message:
    where = f"messages[{index}]"
    if not isinstance(message, dict):
        raise bad_value(where, f"{where} must be an object with role and content")
    role = message.get("role")
    if role not in ROLES:
        raise bad_value(f"{where}.role", f"{where}.role must be one of {', '.join(ROLES)}")
    _check_fields(where, message, _OF_MESSAGES)
    text = _content(f"{where}.content", message.get("content"))
    if role == "user":
        checked_text(f"{where}.content", text, check_question)
    return {"role": "system" if role == "developer" else role, "content": text}


def _content(where: str, content: Any) -> str:
    if isinstance(content, str):
        return checked_text(where, content)
    if not isinstance(content, list) or not content:
        raise bad_value(where, f"{where} must be text, or a list of text parts")
    for part in content:
        if not isinstance(part, dict) or part.get("type") != "text":
            raise unsupported(where, f"{where}: only parts of type 'text' are supported")
        _check_fields(where, part, _OF_PARTS)
    return "".join(checked_text(where, part.get("text")) for part in content)


def checked_text(where: str, value: Any, check: Callable[[str, Any], Any] = check_text) -> str:
    """A text that a rule of `checks` accepts.

    Raises:
        ApiError: it does not, with its words.
    """
    try:
        check(where, value)
    except TextError as error:
        raise bad_value(where, str(error)) from None
    return str(value)


def _sampling(data: dict[str, Any]) -> Sampling:
    longest = [
        _whole(name, data.get(name), 1, nothing=(-1,))
        for name in ("max_tokens", "max_completion_tokens")
    ]
    seed = _whole("seed", data.get("seed"), -(2**63), 2**63 - 1)
    temperature = _number(data, "temperature", 0.0, 0.0, 2.0)
    return Sampling(
        min((value for value in longest if value is not None), default=None),
        temperature if temperature >= LEAST_TEMPERATURE else 0.0,
        _number(data, "top_p", 1.0, 0.0, 1.0),
        _whole("top_k", data.get("top_k"), 1, nothing=(-1, 0)),
        None if seed is None else seed % 2**63,
        _stops(data.get("stop")),
    )


def _stops(stop: Any) -> tuple[str, ...]:
    texts = [] if stop is None else [stop] if isinstance(stop, str) else stop
    fits = isinstance(texts, list) and len(texts) <= MOST_STOPS
    if not fits or not all(isinstance(t, str) and len(t) <= LONGEST_STOP for t in texts):
        raise bad_value(
            "stop",
            f"stop must be a text, or a list of at most {MOST_STOPS}, "
            f"each of at most {LONGEST_STOP} characters",
        )
    return tuple(checked_text("stop", text) for text in texts if text)


def _whole(
    name: str, value: Any, least: int, most: int = LARGEST, nothing: tuple[int, ...] = ()
) -> int | None:
    """A whole number, written 4 or 4.0; None for null and for values that ask for nothing."""
    if value is None:
        return None
    fits = isinstance(value, int | float) and not isinstance(value, bool)
    if fits and value in nothing:
        return None
    if not fits or not least <= value <= most or value != int(value):
        raise bad_value(name, f"{name} must be a whole number from {least} to {most}")
    return int(value)


def _number(data: dict[str, Any], name: str, default: float, low: float, high: float) -> float:
    value = data.get(name)
    if value is None:
        return default
    fits = isinstance(value, int | float) and not isinstance(value, bool)
    if not fits or not low <= value <= high:
        raise bad_value(name, f"{name} must be a number from {low:g} to {high:g}")
    return float(value)


def flag(data: dict[str, Any], name: str) -> bool:
    """A parameter that is true, or false as it is where it was left out.

    Raises:
        ApiError: it is something else.
    """
    value = data.get(name)
    if value is not None and not isinstance(value, bool):
        raise bad_value(name, f"{name} must be true or false")
    return bool(value)
