"""A server of the tiny model, whose answers are chosen by the test."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

from inf_llm.generation.decoding import Decoding
from tests.serve import inprocess
from tests.serve.inprocess import Local, local
from tests.tiny import tiny_tokenizer

_choose = Decoding.choose

WITH_TOOLS = (
    "{% if tools %}<tools>{% for t in tools %}{{ t | tojson }}{% endfor %}"
    "e.g. <tool_call>{}</tool_call>{% endif %}"
    "{% for m in messages %}<{{ m.role }}>{{ m.content }}"
    "{% for c in m.tool_calls or [] %}<tool_call>{{ c.function | tojson }}</tool_call>{% endfor %}"
    "{% if m.role == 'assistant' %}</s>{% endif %}{% endfor %}<assistant>"
)
"""A chat template of the Hermes family."""
WITHOUT_TOOLS = (
    "{% for m in messages %}<{{ m.role }}>{{ m.content }}"
    "{% if m.role == 'assistant' %}</s>{% endif %}{% endfor %}<assistant>"
)


@contextmanager
def scripted(
    text: str, monkeypatch: Any, template: str | None = WITH_TOOLS, **options: Any
) -> Iterator[Local]:
    """The model wants to say a text, byte by byte, and then to end; what a grammar lets through of
    it is up to the grammar."""

    def tokenizer() -> Any:
        made = tiny_tokenizer()
        made.chat_template = template
        return made

    monkeypatch.setattr(inprocess, "tiny_tokenizer", tokenizer)

    def instead(self: Decoding, logits: Tensor) -> None:
        wanted = torch.zeros_like(logits)
        ids = [*self.session.tokenizer.encode(text), self.session.tokenizer.eos_token_id]
        wanted[0, ids[min(len(self.new), len(ids) - 1)]] = 9
        _choose(self, wanted)

    monkeypatch.setattr(Decoding, "choose", instead)
    with local(answer_tokens=400, **options) as running:
        yield running
