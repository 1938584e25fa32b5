"""From messages and a document to token ids, and back from tokens to places in the document."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from inf_llm.conversation import BETWEEN
from inf_llm.errors import TextError
from inf_llm.generation import choose_layout, fit
from inf_llm.generation.control import control_tokens
from inf_llm.generation.tokens import encode_with_places, known_ids
from inf_llm.serve.documents import Document
from inf_llm.serve.errors import ApiError, bad_value
from inf_llm.serve.params import Message, Question

LONG_MESSAGE = 2000
"""Characters from which on a message is a place where other prompts may part from this one."""


@dataclass
class Prompt:
    """A prompt as the model gets it.

    Attributes:
        ids: its tokens.
        boundaries: lengths of its beginnings that other prompts may share.
        offsets: characters [start, end) of each token in `text`; None where the tokenizer gives
            none, or the prompt was cut.
        text: what was encoded.
        document: characters [start, end) of the document in `text`, or None.
    """

    ids: list[int]
    boundaries: list[int] = field(default_factory=list)
    offsets: list[tuple[int, int]] | None = None
    text: str = ""
    document: tuple[int, int] | None = None

    def place(self, start: int, end: int) -> tuple[int, int] | None:
        """Characters of `text` that tokens [start, end) are made of."""
        if self.offsets is None or not start < end <= len(self.offsets):
            return None
        return self.offsets[start][0], self.offsets[end - 1][1]

    def tokens_before(self, character: int) -> int:
        """How many tokens lie wholly before a character of `text`."""
        assert self.offsets is not None
        return bisect_right(self.offsets, character, key=lambda span: span[1])


class Prompts:
    """Lays out prompts for one model.

    Args:
        tokenizer: the model's.
        conv_type, control_tokens: as in the configuration.
        vocabulary: number of token ids that the model knows.

    Raises:
        SettingsError: see `choose_layout`.
    """

    def __init__(
        self,
        tokenizer: Any,
        conv_type: str | None,
        vocabulary: int,
        control_tokens: bool = False,
    ) -> None:
        self._tokenizer = tokenizer
        self.layout = choose_layout(tokenizer, conv_type, control_tokens)
        self._vocabulary = vocabulary

    def of_question(self, question: Question, document: Document | None) -> Prompt:
        """The prompt of a request.

        Raises:
            ApiError: the messages do not fit the model's template, or token ids its vocabulary.
        """
        if isinstance(question.prompt, tuple):
            try:
                return Prompt(known_ids(question.prompt, self._vocabulary))
            except TextError as error:
                raise bad_value("prompt", str(error)) from None
        if question.messages:
            return self.of_chat(question.messages, document)
        text = question.prompt if document is None else document.core + BETWEEN + question.prompt
        return self._encoded(self.layout.hide(text), True, document, [])

    def of_document(self, document: Document) -> Prompt:
        """What all prompts about a document begin with, up to its last whole token."""
        whole = self.of_chat(({"role": "user", "content": "?"},), document)
        if whole.offsets is None or whole.document is None:
            return whole
        kept = whole.tokens_before(whole.document[1])
        # one token more, for a memory keeps one less than it is given
        return Prompt(whole.ids[: kept + 1], [kept], whole.offsets, whole.text, whole.document)

    def of_chat(self, messages: Sequence[Message], document: Document | None) -> Prompt:
        """The prompt of a conversation, which ends where the answer begins."""
        messages = [dict(message) for message in messages]
        if document is not None:
            first = next((m for m in messages if m["role"] == "user"), None)
            if first is None:
                raise bad_value("messages", "a question about a document needs a user's message")
            first["content"] = document.core + BETWEEN + first["content"]
        long = [m["content"] for m in messages if len(m["content"]) >= LONG_MESSAGE]
        try:
            text = self.layout.prompt(messages)
        except TextError as error:
            raise bad_value("messages", str(error)) from None
        return self._encoded(text, self.layout.adds_special, document, long)

    def _encoded(
        self, text: str, special: bool, document: Document | None, long: list[str]
    ) -> Prompt:
        ids, places = encode_with_places(self._tokenizer, text, special)
        text = control_tokens(self._tokenizer).shown(text)
        prompt = Prompt(ids, [], places, text)
        if places is None:
            return prompt
        if document is not None and (start := text.find(document.core)) >= 0:
            prompt.document = start, start + len(document.core)
            prompt.boundaries.append(prompt.tokens_before(prompt.document[1]))
        at = 0
        for content in long:
            found = text.find(content.strip(), at)
            if found >= 0:
                at = found + len(content.strip())
                prompt.boundaries.append(prompt.tokens_before(at))
        return prompt


def cut(prompt: Prompt, room: int, truncation: str | None) -> Prompt:
    """The prompt, or where the configuration allows it one cut to `room` tokens.

    Raises:
        ApiError: it is empty.
        TextError: it is too long and may not be cut.
    """
    if not prompt.ids:
        raise ApiError(400, "the prompt is empty", "invalid_value")
    ids = fit(prompt.ids, room, truncation)
    return prompt if len(ids) == len(prompt.ids) else Prompt(ids)
