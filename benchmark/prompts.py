"""From a task's prompt to token ids: chat template, truncation, and where the document ends.

The ids are those of the whole prompt, as a harness without a memory would tokenise it; only then
are they cut into document and question. The place of the cut depends on the sample alone, so a
sample is fed the same way whichever process gets it.
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
    """How prompts are made; every run's record holds them.

    Attributes:
        chat_template: "auto" as each benchmark does it, "always" or "never".
        conv_type: the configuration's name of a layout; None is the tokenizer's own template.
        truncation: "suffix" keeps the first 128 tokens and the end, "middle" the first and the
            last half, "none" lets a sample fail that does not fit.
        max_len: tokens of prompt and answer together.
    """

    chat_template: str
    conv_type: str | None
    truncation: str
    max_len: int

    def wraps(self, task_wants_chat: bool) -> bool:
        """Whether a task's prompts go through a chat template."""
        if self.conv_type == PLAIN or self.chat_template == "never":
            return False
        return self.chat_template == "always" or task_wants_chat


@dataclass(frozen=True)
class PromptTokens:
    """A prompt as it is fed: `document` is read, `question` is asked behind it.

    `truncated_from` is the number of tokens before a cut, None where nothing was cut.
    """

    document: tuple[int, ...]
    question: tuple[int, ...]
    truncated_from: int | None = None

    def __len__(self) -> int:
        return len(self.document) + len(self.question)


def lay_out(prompt: Prompt, tokenizer: Any, conv_type: str | None) -> Prompt:
    """The prompt inside the conversation's template (see `has_template`), still in two parts."""
    text, special = user_message(tokenizer, prompt.text, conv_type)
    # Templates trim a message, so its document is looked for without the space around it.
    document = prompt.document.lstrip() if prompt.question else prompt.document.strip()
    start = text.find(document)
    if not document or start < 0:
        return Prompt("", text, special)
    end = start + len(document)
    return Prompt(text[:end], text[end:], special)


def has_template(tokenizer: Any, conv_type: str | None) -> bool:
    """Whether there is any template to lay a prompt out with."""
    return conv_type in TEMPLATES or bool(getattr(tokenizer, "chat_template", None))


def tokenize(prompt: Prompt, tokenizer: Any, budget: int, truncation: str) -> PromptTokens:
    """The ids of a laid-out prompt, cut to `budget` tokens.

    Raises:
        TextError: it is longer and truncation is "none".
    """
    special = prompt.special_tokens
    ids = _encode(prompt.text, tokenizer, special)
    document = _encode(prompt.document, tokenizer, special) if prompt.document else []
    # The last token belongs to the question: an answer needs something to start from.
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
    """Ids, without the end token that some tokenizers close a text with: it is to go on."""
    encoded = tokenizer(text, add_special_tokens=special, truncation=False, verbose=False)
    ids = list(encoded["input_ids"])
    end = getattr(tokenizer, "eos_token_id", None)
    if special and len(ids) > 1 and ids[-1] == end and end != getattr(tokenizer, "bos_token_id", 0):
        ids = ids[:-1]
    return ids
