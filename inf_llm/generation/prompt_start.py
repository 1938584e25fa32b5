"""A prompt about a text, in two parts: what no question changes, and what follows it.

The first is read once; then any number of questions are asked, in this process or a later one. The
tokens are those of the whole prompt, encoded at once, with all common tokenizers.
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
_SHORT = 64  # characters at the end of a text that a question may encode otherwise
_CONTEXTS = 16, 17, 24, 64  # tokens before a text that it is encoded with


@dataclass(frozen=True)
class PromptStart:
    """The beginning of all prompts about a text.

    Attributes:
        ids: its tokens.
        rest: the end of the text that is not in them, for a question may change its tokens.
    """

    ids: list[int]
    rest: str


def start_prompt(
    tokenizer: Any, layout: Layout, text: str, before: PromptStart | None = None
) -> PromptStart:
    """The tokens of all prompts that ask about a text.

    Args:
        tokenizer: the model's.
        layout: of the prompts.
        text: the text.
        before: the beginning of prompts about another text, after which this one stands.

    Raises:
        TextError: it is no text, or the layout does not take it.
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
    """The tokens of a prompt that ends with the text: no question changes them.

    For tokenizers that merge across long stretches. Nothing is lost, but the tokens where the
    question begins may be others than those of the whole prompt.
    """
    if before is not None:
        return before.ids + _encode_after(tokenizer, before.ids, text)
    prompt = layout.prompt([{"role": USER, "content": text + _MARK}])
    return encode(tokenizer, prompt[: prompt.rindex(_MARK)], layout.adds_special)


def finish_prompt(tokenizer: Any, layout: Layout, start: PromptStart, question: str) -> list[int]:
    """The tokens of a question, and of what the layout writes around it, after those of a start."""
    said = _MARK + start.rest + _asked(question)
    prompt = layout.prompt([{"role": USER, "content": said}])
    return _encode_after(tokenizer, start.ids, prompt[prompt.index(_MARK) + len(_MARK) :])


def _asked(question: str) -> str:
    return BETWEEN + question if question else ""


def _prompt(
    tokenizer: Any, layout: Layout, text: str, question: str, before: PromptStart | None
) -> list[int]:
    """The tokens of a whole prompt."""
    if before is not None:
        return before.ids + finish_prompt(
            tokenizer, layout, PromptStart(before.ids, text), question
        )
    prompt = layout.prompt([{"role": USER, "content": text + _asked(question)}])
    return encode(tokenizer, prompt, layout.adds_special)


def _encode_after(tokenizer: Any, before: Sequence[int], text: str) -> list[int]:
    """Tokens of a text as it is encoded behind others, where the tokenizer allows to see it."""
    if not text:
        return []
    for count in _CONTEXTS:
        context = list(before[-count:])
        said = control_tokens(tokenizer).decoded(context)
        ids = encode(tokenizer, said + text, add_special_tokens=False)
        if ids[: len(context)] == context:
            return ids[len(context) :]
    return encode(tokenizer, text, add_special_tokens=False)
