"""Messages and documents to token ids, and token ranges back to characters of the documents."""

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
"""Characters from which the end of a message counts as a boundary: other prompts may share the
prompt up to there."""

_OUTERMOST = 2


class Places(Sequence[tuple[int, int]]):
    """Characters [start, end) of each token, in 8 bytes, as many prompts may wait in the queue."""

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
    """A tokenized prompt.

    Attributes:
        ids: the token ids.
        boundaries: lengths, in tokens, of beginnings that other prompts may share.
        offsets: characters [start, end) of each token in `text`; None if the tokenizer gives no
            offsets, or the prompt was given as token ids or was cut.
        text: the encoded text; empty for a prompt that was given as token ids or was cut.
        document: characters [start, end) of the documents in `text`; None if not known.
    """

    ids: array[int]
    boundaries: list[int] = field(default_factory=list)
    offsets: Places | None = None
    text: str = ""
    document: tuple[int, int] | None = None

    @property
    def document_ids(self) -> array[int]:
        """Tokens of the documents, or all tokens of the prompt if their position is not known.

        The two outermost tokens on each side are left out, as the neighbouring text may change
        them.
        """
        if self.document is None or self.offsets is None:
            return self.ids
        first, last = (self.tokens_before(character) for character in self.document)
        return self.ids[first + _OUTERMOST : last - _OUTERMOST]

    def place(self, start: int, end: int) -> tuple[int, int] | None:
        """Return the character range in `text` of tokens [start, end); None if not known."""
        if self.offsets is None or not start < end <= len(self.offsets):
            return None
        return self.offsets[start][0], self.offsets[end - 1][1]

    def tokens_before(self, character: int) -> int:
        """Return the number of tokens that lie wholly before a character of `text`."""
        assert self.offsets is not None
        return bisect_right(self.offsets, character, key=lambda span: span[1])


class Prompts:
    """Makes prompts for one model.

    Args:
        tokenizer: the model's tokenizer.
        conv_type, control_tokens: see `RunConfig`.
        vocabulary: number of token ids in the model's vocabulary.

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
        """Make the prompts of a request.

        Raises:
            ApiError: the chat template refuses the messages, or a token id is not in the
                vocabulary.
        """
        self._check_ids("logit_bias", list(question.sampling.logit_bias))
        if question.messages:
            request = question.messages, sources, question.continues, question.functions
            return [self.of_chat(*request)]
        return [self.of_text(prompt, sources) for prompt in question.prompts]

    def of_text(self, prompt: PromptText, sources: Sources, special: bool = True) -> Prompt:
        """Make a prompt without chat messages.

        Args:
            prompt: a text or token ids.
            sources: documents to put before a text.
            special: let the tokenizer add its special tokens to a text.

        Raises:
            ApiError: a token id is not in the vocabulary.
        """
        if isinstance(prompt, str):
            text = _with_sources(sources, prompt)
            return self._encoded(self.layout.hide(text), special, sources, [])
        return Prompt(array("i", self._check_ids("prompt", prompt)))

    def text_of(self, ids: Sequence[int]) -> str:
        """Decode token ids to text, with special tokens.

        Raises:
            ApiError: a token id is not in the vocabulary.
        """
        return str(self._tokenizer.decode(self._check_ids("tokens", ids)))

    def names_of(self, ids: Sequence[int]) -> list[str]:
        """Return the tokenizer's string of each token id."""
        return list(self._tokenizer.convert_ids_to_tokens(list(ids)))

    def _check_ids(self, name: str, ids: Iterable[int]) -> list[int]:
        try:
            return known_ids(ids, self._vocabulary)
        except TextError as error:
            raise bad_value(name, str(error)) from None

    def of_sources(self, sources: Sources) -> Prompt:
        """Make the common beginning of all prompts about documents, up to their last whole token.

        All of a sample prompt if the position of the documents is not known.
        """
        whole = self.of_chat(({"role": "user", "content": "?"},), sources)
        if whole.offsets is None or whole.document is None:
            return whole
        end = whole.tokens_before(whole.document[1])
        # one token more, as a memory keeps one token less than its prompt has
        return Prompt(whole.ids[: end + 1], [end], whole.offsets, whole.text, whole.document)

    def of_chat(
        self,
        messages: Sequence[Message],
        sources: Sources,
        continued: bool = False,
        functions: Calling = NO_FUNCTIONS,
    ) -> Prompt:
        """Make the prompt of a conversation, which ends where the answer begins or continues."""
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
        """Apply the chat template to a conversation.

        Calls and their results are written as plain text if the template refuses them.
        """
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
    """Return the prompt, cut to `room` tokens if it is longer and `truncation` allows a cut.

    Raises:
        ApiError: the prompt is empty.
        TextError: the prompt is too long and may not be cut.
    """
    if not prompt.ids:
        raise ApiError(400, "the prompt is empty", "invalid_value")
    ids = prompt.ids
    head, tail = kept(len(ids), room, truncation)
    return prompt if head == len(ids) else Prompt(ids[:head] + ids[len(ids) - tail :])
