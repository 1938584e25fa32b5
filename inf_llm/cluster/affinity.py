"""The key of a request's memory; requests with the same key prefer the same replica."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterator
from typing import Any

LONG = 2000
"""First characters of a text that its key depends on. A shorter text is quickly read again."""
_DOCUMENT = re.compile(r"/v1/documents/([^/]+)")


def memory_key(path: str, body: bytes) -> str:
    """Return the key of a request: its first document, or a digest of its conversation's start.

    Args:
        path: path of the request.
        body: body of the request, which need not be JSON.

    Returns:
        The key; empty if all replicas answer equally fast: the request names no document, has no
        long text, and is not a later turn of a conversation.
    """
    match = _DOCUMENT.match(path)
    if match:
        return match[1]
    try:
        value = json.loads(body) if body else None
    except (ValueError, RecursionError):
        return ""  # the replica reports the error
    if not isinstance(value, dict):
        return ""
    documents = value.get("documents")
    named = [value.get("document"), *(documents if isinstance(documents, list) else [])]
    first = next((name for name in named if isinstance(name, str) and name), None)
    return first or _conversation(value)


def is_fixed(path: str) -> bool:
    """Whether only the replica that reads a document can answer a request, however busy it is."""
    return _DOCUMENT.match(path) is not None


def _conversation(body: dict[str, Any]) -> str:
    """Return a digest that is equal for all turns of a conversation, or questions about one text.

    It covers the first `LONG` characters of each text before the first answer.
    """
    turns = next((body[key] for key in ("messages", "input", "prompt") if body.get(key)), "")
    begins = [*_texts(body.get("instructions")), *_before_the_first_answer(turns)]
    if not _answered(turns) and max(map(len, begins), default=0) < LONG:
        return ""
    digest = hashlib.sha256()
    for text in begins:
        digest.update(text[:LONG].encode("utf-8", "replace") + b"\0")
    return digest.hexdigest()


def _answered(turns: Any) -> bool:
    return isinstance(turns, list) and any(map(_is_answer, turns))


def _before_the_first_answer(turns: Any) -> Iterator[str]:
    if not isinstance(turns, list):
        yield from _texts(turns)
        return
    for turn in turns:
        if _is_answer(turn):
            return
        yield from _texts(turn.get("content") if isinstance(turn, dict) else turn)


def _is_answer(turn: Any) -> bool:
    return isinstance(turn, dict) and turn.get("role") == "assistant"


def _texts(content: Any) -> Iterator[str]:
    """Yield the texts of a message, whose content may be a list of parts."""
    if isinstance(content, str):
        yield content
    for part in content if isinstance(content, list) else ():
        if isinstance(part, dict) and isinstance(part.get("text"), str):
            yield part["text"]
