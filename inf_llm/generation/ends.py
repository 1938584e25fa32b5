"""What ends an answer before it has its most tokens: a token, a text, or a caller that says so.

Tokens are the model's own end-of-sequence tokens and the one that its layout writes after an answer
(`answer_ends`); `generate` looks for them. Texts, and the caller, are a stopping criterion
(`Ended`), and `text` keeps what follows them out of what is said.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from inf_llm.checks import check_text, require
from inf_llm.generation.layout import Layout
from inf_llm.generation.options import listed
from inf_llm.generation.text import AnswerText
from inf_llm.generation.tokens import vocabulary


def answer_ends(model: Any, layout: Layout) -> list[int] | None:
    """Tokens that end an answer: the model's own, and those of the layout; None for none."""
    own = model.generation_config.eos_token_id
    own = [] if own is None else own if isinstance(own, list) else [own]
    known = range(vocabulary(model))  # some checkpoints name tokens that their model lacks
    return [index for index in dict.fromkeys([*own, *layout.ends]) if index in known] or None


def stop_texts(stop: Any) -> tuple[str, ...]:
    """Texts that end an answer: one text, several, or None.

    Raises:
        SettingsError: one is empty, or there is something else among them.
        TextError: one cannot be encoded.
    """
    ordered = sorted(stop) if isinstance(stop, set | frozenset) else stop
    texts = tuple(listed(ordered))
    for text in texts:
        message = f"stop has {text!r:.60}: a text is accepted, or a list of texts, none empty"
        require(isinstance(text, str) and text != "", "stop", message)
        check_text("stop", text)
    return texts


class Ended:
    """A stopping criterion for `generate`: ends an answer of one row at some texts, or when asked.

    transformers' own looks at prompt and answer together, so that half of a stop text in the
    prompt counts, and refuses texts that it cannot put together from tokens.

    Args:
        tokenizer: the model's.
        stops: the texts.
        should_stop: asked after every token; true ends the answer there.
        prompt: tokens before the answer.
    """

    def __init__(
        self,
        tokenizer: Any,
        stops: tuple[str, ...],
        should_stop: Callable[[], bool] | None,
        prompt: int,
    ) -> None:
        self._should_stop = should_stop
        self._answer = AnswerText(tokenizer, stops, lambda piece: None, special=True)
        self._prompt = prompt

    def __call__(self, ids: Tensor, scores: Any, **more: Any) -> Tensor:
        """Whether each row (B,) of ids (B, tokens) has ended."""
        self._answer.put(ids[0, self._prompt + self._answer.tokens :])
        over = self._answer.stopped or (self._should_stop is not None and self._should_stop())
        return torch.full((ids.shape[0],), over, dtype=torch.bool, device=ids.device)
