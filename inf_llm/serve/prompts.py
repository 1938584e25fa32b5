"""From messages and a document to token ids, and back from tokens to places in the document."""

from __future__ import annotations

from array import array
from bisect import bisect_right
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

from inf_llm.conversation import BETWEEN
from inf_llm.errors import TextError
from inf_llm.generation import choose_layout
from inf_llm.generation.calls import in_words, with_tools
from inf_llm.generation.control import control_tokens
from inf_llm.generation.layout import Message
from inf_llm.generation.tokens import encode_with_places, known_ids
from inf_llm.serve.documents import Sources
from inf_llm.serve.errors import ApiError, bad_value
from inf_llm.serve.params import PromptText, Question
from inf_llm.serve.tools import NO_FUNCTIONS, Calling
from inf_llm.truncation import kept

LONG_MESSAGE = 2000
"""Characters from which on a message is a place where other prompts may part from this one."""

_OUTERMOST = 2


class Places(Sequence[tuple[int, int]]):
    """Characters [start, end) of each token, in 8 bytes: prompts wait in a queue."""

    def __init__(self, spans: Iterable[tuple[int, int]]) -> None:
        self._ends = array("i", (end for span in spans for end in span))

    def __len__(self) -> int:
        return len(self._ends) // 2

    def __getitem__(self, token: Any) -> Any:
        if not 0 <= token < len(self):
            raise IndexError(token)
        return self._ends[2 * token], self._ends[2 * token + 1]


@dataclass
class Prompt:
    """A prompt as the model gets it.

    Attributes:
        ids: its tokens.
        boundaries: lengths of its beginnings that other prompts may share.
        offsets: characters [start, end) of each token in `text`; None where the tokenizer gives
            none, or the prompt was cut.
        text: what was encoded.
        document: characters [start, end) of the documents in `text`, or None.
    """

    ids: array[int]
    boundaries: list[int] = field(default_factory=list)
    offsets: Places | None = None
    text: str = ""
    document: tuple[int, int] | None = None

    @property
    def document_ids(self) -> array[int]:
        """Tokens of the documents but for the outermost, which other words beside them may change;
        all of the prompt where it is not known which they are."""
        if self.document is None or self.offsets is None:
            return self.ids
        first, last = (self.tokens_before(character) for character in self.document)
        return self.ids[first + _OUTERMOST : last - _OUTERMOST]

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

    def of_question(self, question: Question, sources: Sources) -> list[Prompt]:
        """The prompts of a request.

        Raises:
            ApiError: the messages do not fit the model's template, or token ids its vocabulary.
        """
        self._check_ids("logit_bias", list(question.sampling.logit_bias))
        if question.messages:
            asked = question.messages, sources, question.continues, question.functions
            return [self.of_chat(*asked)]
        return [self.of_text(prompt, sources) for prompt in question.prompts]

    def of_text(self, prompt: PromptText, sources: Sources, special: bool = True) -> Prompt:
        """A prompt without turns; `special` tokens stand around a text as the tokenizer has it.

        Raises:
            ApiError: the model does not know a token id.
        """
        if isinstance(prompt, str):
            text = _with_sources(sources, prompt)
            return self._encoded(self.layout.hide(text), special, sources, [])
        return Prompt(array("i", self._check_ids("prompt", prompt)))

    def text_of(self, ids: Sequence[int]) -> str:
        """What token ids stand for, special tokens too.

        Raises:
            ApiError: the model does not know one of them.
        """
        return str(self._tokenizer.decode(self._check_ids("tokens", ids)))

    def names_of(self, ids: Sequence[int]) -> list[str]:
        """What the tokenizer calls tokens."""
        return list(self._tokenizer.convert_ids_to_tokens(list(ids)))

    def _check_ids(self, name: str, ids: Iterable[int]) -> list[int]:
        try:
            return known_ids(ids, self._vocabulary)
        except TextError as error:
            raise bad_value(name, str(error)) from None

    def of_sources(self, sources: Sources) -> Prompt:
        """What all prompts about documents begin with, up to their last whole token."""
        whole = self.of_chat(({"role": "user", "content": "?"},), sources)
        if whole.offsets is None or whole.document is None:
            return whole
        end = whole.tokens_before(whole.document[1])
        # one token more, for a memory keeps one less than it is given
        return Prompt(whole.ids[: end + 1], [end], whole.offsets, whole.text, whole.document)

    def of_chat(
        self,
        messages: Sequence[Message],
        sources: Sources,
        continued: bool = False,
        functions: Calling = NO_FUNCTIONS,
    ) -> Prompt:
        """The prompt of a conversation, which ends where the answer begins, or goes on."""
        messages = [dict(message) for message in messages]
        if functions.forced and not self.layout.takes_tools:
            messages = with_tools(messages, functions.tools)
        if sources.documents:
            first = next((m for m in messages if m["role"] == "user"), None)
            if first is None:
                raise bad_value("messages", "a question about a document needs a user's message")
            first["content"] = _with_sources(sources, first["content"])
        long = [m["content"] for m in messages if len(m["content"]) >= LONG_MESSAGE]
        try:
            text = self._laid_out(messages, continued, functions)
        except TextError as error:
            raise bad_value("messages", str(error)) from None
        return self._encoded(text, self.layout.adds_special, sources, long)

    def _laid_out(self, messages: list[Message], continued: bool, functions: Calling) -> str:
        """The text of a conversation; calls and their results in words where a template refuses
        them."""
        tools = [tool.described for tool in functions.tools] if self.layout.takes_tools else []
        called = any("tool_calls" in m or m["role"] == "tool" for m in messages)
        if called and not self.layout.takes_tools:
            return self.layout.prompt(in_words(messages), continued)
        try:
            return self.layout.prompt(messages, continued, tools)
        except TextError:
            if not called:
                raise
        return self.layout.prompt(in_words(messages), continued, tools)

    def _encoded(self, text: str, special: bool, sources: Sources, long: list[str]) -> Prompt:
        ids, places = encode_with_places(self._tokenizer, text, special)
        text = control_tokens(self._tokenizer).shown(text)
        prompt = Prompt(array("i", ids), text=text)
        if places is None:
            return prompt
        prompt.offsets = Places(places)
        if sources.documents and (start := text.find(sources.core)) >= 0:
            prompt.document = start, start + len(sources.core)
            prompt.boundaries += [prompt.tokens_before(start + end) for end in sources.ends]
        at = 0
        for content in long:
            found = text.find(content.strip(), at)
            if found >= 0:
                at = found + len(content.strip())
                prompt.boundaries.append(prompt.tokens_before(at))
        return prompt


def _with_sources(sources: Sources, text: str) -> str:
    return sources.core + BETWEEN + text if sources.documents else text


def cut(prompt: Prompt, room: int, truncation: str | None) -> Prompt:
    """The prompt, or where the configuration allows it one cut to `room` tokens.

    Raises:
        ApiError: it is empty.
        TextError: it is too long and may not be cut.
    """
    if not prompt.ids:
        raise ApiError(400, "the prompt is empty", "invalid_value")
    ids = prompt.ids
    head, tail = kept(len(ids), room, truncation)
    return prompt if head == len(ids) else Prompt(ids[:head] + ids[len(ids) - tail :])
