"""The turns of a conversation, and the file that keeps them."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from inf_llm.atomic import write_atomically
from inf_llm.checks import check_text
from inf_llm.conversation import ASSISTANT, BETWEEN, USER
from inf_llm.errors import TextError, reason

_FORM = "inf-llm chat"


@dataclass(frozen=True)
class Document:
    """A text that was added to the conversation."""

    name: str
    text: str


@dataclass(frozen=True)
class Turn:
    """A question of the user or an answer of the model.

    Attributes:
        role: "user" or "assistant".
        content: text of the question or the answer.
        documents: texts that the prompt has before the content.
    """

    role: str
    content: str
    documents: tuple[Document, ...] = ()

    def message(self) -> dict[str, str]:
        """Return the turn as a message of a chat template."""
        parts = [*(document.text for document in self.documents), self.content]
        return {"role": self.role, "content": BETWEEN.join(parts)}


@dataclass(frozen=True)
class Transcript:
    """A conversation, in which turns of the user and answers alternate.

    Attributes:
        turns: questions and answers; the first turn is the user's.
        documents: texts that wait for the next question.
    """

    turns: tuple[Turn, ...] = ()
    documents: tuple[Document, ...] = ()

    def __post_init__(self) -> None:
        for index, turn in enumerate(self.turns):
            wanted = ASSISTANT if index % 2 else USER
            if turn.role != wanted:
                raise TextError(
                    f"turn {index + 1} is of role {turn.role!r}, but user and assistant take "
                    f"turns: {wanted!r} is needed"
                )


def save(path: str | Path, transcript: Transcript) -> None:
    """Write a conversation as JSON; an existing file is replaced after all data is written.

    Raises:
        TextError: the file cannot be written.
    """
    path = Path(path).expanduser()
    data = {"form": _FORM, **asdict(transcript)}
    try:
        content = json.dumps(data, ensure_ascii=False, indent=1).encode() + b"\n"
        write_atomically(path, content, private=True)
    except (OSError, ValueError) as error:
        why = getattr(error, "strerror", None) or error
        raise TextError(f"{path}: cannot be written: {why}") from None


def load(path: str | Path) -> Transcript:
    """Read a conversation that `save` or FastChat's `!!save` wrote.

    Raises:
        TextError: the file cannot be read, or is not a conversation.
    """
    path = Path(path).expanduser()
    try:
        data = json.loads(path.read_text(encoding="utf-8-sig"))
    except OSError as error:
        raise TextError(f"{path}: cannot be read: {error.strerror or error}") from None
    except (ValueError, RecursionError) as error:
        why = f"not JSON ({reason(error)})"
        raise TextError(f"{path}: is not a saved conversation: {why}") from None
    try:
        return _from_fastchat(data) if _is_fastchat(data) else _transcript(data)
    except TextError as error:
        raise TextError(f"{path}: is not a saved conversation: {error}") from None


def _transcript(data: Any) -> Transcript:
    if not isinstance(data, dict) or data.get("form") != _FORM:
        raise TextError(f"it needs to be an object with form = {_FORM!r}")
    turns = []
    for index, turn in enumerate(_items(data, "turns")):
        where = f"turns[{index}]"
        documents = _documents(turn, f"{where}.")
        turns.append(Turn(_text(turn, "role", where), _text(turn, "content", where), documents))
    if len(turns) % 2:
        raise TextError("the last turn has no answer")
    return Transcript(tuple(turns), _documents(data, ""))


def _documents(data: Any, where: str) -> tuple[Document, ...]:
    documents = []
    for index, item in enumerate(_items(data, "documents", where)):
        place = f"{where}documents[{index}]"
        documents.append(Document(_text(item, "name", place), _text(item, "text", place)))
    return tuple(documents)


def _items(data: Any, key: str, where: str = "") -> Sequence[Any]:
    items = data.get(key, []) if isinstance(data, dict) else None
    if not isinstance(items, list):
        raise TextError(f"{where}{key} must be a list")
    return items


def _text(data: Any, key: str, where: str) -> str:
    value = data.get(key) if isinstance(data, dict) else None
    if not isinstance(value, str):
        raise TextError(f"{where}.{key} must be a text")
    check_text(f"{where}.{key}", value)
    return value


def _is_fastchat(data: Any) -> bool:
    return isinstance(data, dict) and {"template_name", "roles", "messages"} <= data.keys()


def _from_fastchat(data: dict[str, Any]) -> Transcript:
    """Convert FastChat's pairs of a role's name and a text; skip `offset` examples at the start."""
    start = data.get("offset", 0)
    if not isinstance(data["messages"], list) or not isinstance(start, int):
        raise TextError("messages must be a list, and offset a number")
    turns = []
    for index, pair in enumerate(data["messages"][start:]):
        if not (isinstance(pair, list) and len(pair) == 2 and isinstance(pair[1], str)):
            raise TextError(f"messages[{start + index}] must be a role and a text")
        check_text(f"messages[{start + index}]", pair[1])
        turns.append(Turn(ASSISTANT if index % 2 else USER, pair[1]))
    if len(turns) % 2:
        raise TextError("the last message has no answer")
    return Transcript(tuple(turns))
