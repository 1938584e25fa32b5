"""Ends of an answer before its longest length: a token, a stop text, or the caller's `should_stop`.

Tokens are the model's end-of-sequence tokens and the token that the layout writes after an answer
(`answer_ends`); `generate` checks for them. Stop texts and `should_stop` are checked by a stopping
criterion (`Ended`). The module `text` removes the stop text and the characters after it.
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
    """Return the token ids that end an answer, of the model and of the layout; None if none."""
    eos = model.generation_config.eos_token_id
    eos = [] if eos is None else eos if isinstance(eos, list) else [eos]
    known = range(vocabulary(model))  # some checkpoints name tokens that their model lacks
    return [index for index in dict.fromkeys([*eos, *layout.ends]) if index in known] or None


def stop_texts(stop: Any) -> tuple[str, ...]:
    """Return the stop texts of an answer as a tuple, from one text, several, or None.

    Raises:
        SettingsError: a text is empty, or a value is not a text.
        TextError: a text cannot be encoded.
    """
    ordered = sorted(stop) if isinstance(stop, set | frozenset) else stop
    texts = tuple(listed(ordered))
    for text in texts:
        message = f"stop has {text!r:.60}: a text is accepted, or a list of texts, none empty"
        require(isinstance(text, str) and text != "", "stop", message)
        check_text("stop", text)
    return texts


class Ended:
    """A stopping criterion for `generate`: ends the answer of one row at a stop text or on request.

    The criterion of transformers searches prompt and answer together, so that a stop text may begin
    in the prompt. It also refuses texts that it cannot compose from tokens.

    Args:
        tokenizer: the tokenizer of the model.
        stops: the stop texts.
        should_stop: called after every token; True ends the answer.
        prompt: number of tokens before the answer.
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
        """Return whether each row (B,) of ids (B, L) has ended."""
        self._answer.put(ids[0, self._prompt + self._answer.tokens :])
        over = self._answer.stopped or (self._should_stop is not None and self._should_stop())
        return torch.full((ids.shape[0],), over, dtype=torch.bool, device=ids.device)
