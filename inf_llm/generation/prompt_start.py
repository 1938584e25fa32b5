"""A prompt about a text, split into a start that no question changes and a rest.

The start is read once. Then any number of questions can follow, in this process or a later one.
With all common tokenizers, the tokens of the two parts equal those of the whole prompt encoded at
once.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from inf_llm.conversation import BETWEEN, USER
from inf_llm.generation.control import control_tokens
from inf_llm.generation.layout import Layout
from inf_llm.generation.tokens import encode
from inf_llm.truncation import common_length

_MARK = "-the-text-"
_QUESTIONS = "What?", "1 2", ""
_SHORT = 64  # characters at the end of a text whose tokens may depend on the question
_CONTEXTS = 16, 17, 24, 64  # numbers of preceding tokens to encode a text with, tried in order


@dataclass(frozen=True)
class PromptStart:
    """The common beginning of all prompts about a text.

    Attributes:
        ids: token ids of the beginning.
        rest: end of the text that `ids` leaves out, because a question may change its tokens.
    """

    ids: list[int]
    rest: str


def start_prompt(
    tokenizer: Any, layout: Layout, text: str, before: PromptStart | None = None
) -> PromptStart:
    """Return the tokens that all prompts with questions about a text begin with.

    Args:
        tokenizer: the tokenizer of the model.
        layout: layout of the prompts.
        text: the text.
        before: beginning of prompts about another text, which precedes this text; None for no
            other text.

    Raises:
        TextError: the value is not a text, or the layout refuses it.
    """
    if before is not None:
        text = before.rest + BETWEEN + text
    first, *others = (_prompt(tokenizer, layout, text, each, before) for each in _QUESTIONS)
    ids = first[: min(common_length(first, other) for other in others)]
    for count in range(min(_SHORT, len(text)) + 1):
        start = PromptStart(ids, text[len(text) - count :])
        if finish_prompt(tokenizer, layout, start, _QUESTIONS[0]) == first[len(ids) :]:
            return start
    return PromptStart(_text_alone(tokenizer, layout, text, before), "")


def _text_alone(tokenizer: Any, layout: Layout, text: str, before: PromptStart | None) -> list[int]:
    """Return the tokens of a prompt that ends with the text, which no question changes.

    For tokenizers that merge characters over long distances. No text is lost, but the tokens where
    the question begins may differ from those of the whole prompt encoded at once.
    """
    if before is not None:
        return before.ids + _encode_after(tokenizer, before.ids, text)
    prompt = layout.prompt([{"role": USER, "content": text + _MARK}])
    return encode(tokenizer, prompt[: prompt.rindex(_MARK)], layout.adds_special)


def finish_prompt(tokenizer: Any, layout: Layout, start: PromptStart, question: str) -> list[int]:
    """Return the tokens after a start: the rest of the text, the question, and the layout's end."""
    content = _MARK + start.rest + _question_part(question)
    prompt = layout.prompt([{"role": USER, "content": content}])
    return _encode_after(tokenizer, start.ids, prompt[prompt.index(_MARK) + len(_MARK) :])


def _question_part(question: str) -> str:
    return BETWEEN + question if question else ""


def _prompt(
    tokenizer: Any, layout: Layout, text: str, question: str, before: PromptStart | None
) -> list[int]:
    """Return the tokens of a whole prompt."""
    if before is not None:
        return before.ids + finish_prompt(
            tokenizer, layout, PromptStart(before.ids, text), question
        )
    prompt = layout.prompt([{"role": USER, "content": text + _question_part(question)}])
    return encode(tokenizer, prompt, layout.adds_special)


def _encode_after(tokenizer: Any, before: Sequence[int], text: str) -> list[int]:
    """Return the tokens of a text encoded after other tokens.

    The text is encoded alone if no tried context keeps its tokens when it is encoded again.
    """
    if not text:
        return []
    for count in _CONTEXTS:
        context = list(before[-count:])
        decoded = control_tokens(tokenizer).decoded(context)
        ids = encode(tokenizer, decoded + text, add_special_tokens=False)
        if ids[: len(context)] == context:
            return ids[len(context) :]
    return encode(tokenizer, text, add_special_tokens=False)
