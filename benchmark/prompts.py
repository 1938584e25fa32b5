"""Turn a task's prompt into token ids: chat template, truncation, and the end of the document.

The whole prompt is tokenised at once, as a harness without a memory does. Then the ids are split
into document and question. The split depends only on the sample, so each process feeds a sample in
the same way.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from benchmark.engine import user_message
from benchmark.tasks.base import Prompt
from inf_llm.conversation import PLAIN, TEMPLATES
from inf_llm.truncation import TRUNCATIONS, common_length, kept

CHAT_RULES = ("auto", "always", "never")
TRUNCATION_RULES = (*TRUNCATIONS, "none")


@dataclass(frozen=True)
class PromptRules:
    """Rules for building prompts, which are part of the record of a run.

    Attributes:
        chat_template: "auto" follows each benchmark; or "always" or "never".
        conv_type: the configuration's name of a layout; None for the tokenizer's own template.
        truncation: "suffix" keeps the first 128 tokens and the end; "middle" keeps the first and
            the last half; with "none", a sample that is too long fails.
        max_len: maximum number of tokens of prompt and answer together.
    """

    chat_template: str
    conv_type: str | None
    truncation: str
    max_len: int

    def wraps(self, task_wants_chat: bool) -> bool:
        """Return whether a task's prompts get a chat template."""
        if self.conv_type == PLAIN or self.chat_template == "never":
            return False
        return self.chat_template == "always" or task_wants_chat


@dataclass(frozen=True)
class PromptTokens:
    """The token ids of a prompt: `document` is read first, then `question`.

    `truncated_from` is the number of tokens before truncation; None if the prompt was not cut.
    """

    document: tuple[int, ...]
    question: tuple[int, ...]
    truncated_from: int | None = None

    def __len__(self) -> int:
        return len(self.document) + len(self.question)


def lay_out(prompt: Prompt, tokenizer: Any, conv_type: str | None) -> Prompt:
    """Return the prompt in its chat template (see `has_template`), still in two parts."""
    text, special = user_message(tokenizer, prompt.text, conv_type)
    # Templates strip a message, so the search is for the document without outer white space.
    document = prompt.document.lstrip() if prompt.question else prompt.document.strip()
    start = text.find(document)
    if not document or start < 0:
        return Prompt("", text, special)
    end = start + len(document)
    return Prompt(text[:end], text[end:], special)


def has_template(tokenizer: Any, conv_type: str | None) -> bool:
    """Return whether a chat template exists: a named layout or the tokenizer's template."""
    return conv_type in TEMPLATES or bool(getattr(tokenizer, "chat_template", None))


def tokenize(prompt: Prompt, tokenizer: Any, budget: int, truncation: str) -> PromptTokens:
    """Return the ids of a prompt, truncated to `budget` tokens.

    Raises:
        TextError: the prompt is longer and truncation is "none", or `budget` is below 1.
    """
    special = prompt.special_tokens
    ids = _encode(prompt.text, tokenizer, special)
    document = _encode(prompt.document, tokenizer, special) if prompt.document else []
    # The last token always belongs to the question: decoding starts from its logits.
    seam = min(common_length(ids, document), len(ids) - 1)
    if len(ids) <= budget:
        return PromptTokens(tuple(ids[:seam]), tuple(ids[seam:]))
    head, tail = kept(len(ids), budget, None if truncation == "none" else truncation)
    front = ids[:head]
    back = ids[len(ids) - tail :]
    from_document = min(head, seam) + max(0, seam - (len(ids) - tail))
    left = tuple(front + back)
    return PromptTokens(left[:from_document], left[from_document:], len(ids))


def _encode(text: str, tokenizer: Any, special: bool) -> list[int]:
    """Return token ids without the end token that some tokenizers append to a text."""
    encoded = tokenizer(text, add_special_tokens=special, truncation=False, verbose=False)
    ids = list(encoded["input_ids"])
    end = getattr(tokenizer, "eos_token_id", None)
    if special and len(ids) > 1 and ids[-1] == end and end != getattr(tokenizer, "bos_token_id", 0):
        ids = ids[:-1]
    return ids
