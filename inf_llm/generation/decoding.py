"""Decoding of answers token by token, for one session or several sessions in one batch.

    rows = [Decoding(session, options) for session in sessions]
    while rows := [row for row in rows if not row.over]:
        step(rows)

Every row has its own rules, made by `generate` of transformers from the options of the row, and its
own random generator. An answer therefore does not depend on the other rows.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from inf_llm.generation.rows import Row, feed_all
from inf_llm.hf.decoder import with_cache
from inf_llm.hf.generate import answering
from inf_llm.hf.trace import trace

if TYPE_CHECKING:
    from inf_llm.generation.session import Session


@dataclass(frozen=True)
class Rules:
    """Rules that choose the tokens of an answer and end it.

    Attributes:
        processors: function of all token ids so far (1, n) and scores (1, V) that returns changed
            scores.
        criteria: function of the same arguments that returns whether the answer is over (1,).
        samples: whether to sample a token; False takes the likeliest token.
    """

    processors: Callable[[Tensor, Tensor], Tensor]
    criteria: Callable[[Tensor, Tensor], Tensor]
    samples: bool

    @classmethod
    def of(cls, model: Any, ids: Tensor, cache: Any, options: dict[str, Any]) -> Rules:
        """Return the rules that `generate` makes from `options`, its keywords, for ids (1, n)."""

        def instead_of_decoding(
            model: Any,
            input_ids: Any,
            logits_processor: Any,
            stopping_criteria: Any,
            generation_config: Any,
            **more: Any,
        ) -> Rules:
            return cls(logits_processor, stopping_criteria, generation_config.do_sample)

        made: Rules = model.generate(
            input_ids=ids,
            attention_mask=torch.ones_like(ids),
            custom_generate=instead_of_decoding,
            **(options | with_cache(model, cache)),
        )
        return made


class Decoding(Row):
    """One answer that is being decoded from a session.

    Args:
        session: a session that has read a prompt.
        options: keywords for `generate`, as `answer_options` returns them.
        streamer: receives every generated token as from `generate`, but not the prompt.
        generator: random generator for sampled tokens; None for the default generator of torch.
        traced: whether to record the blocks that are recalled for the answer.
        noted: called with the unchanged logits (1, V) and the chosen token.

    Attributes:
        over: whether the answer has ended.
    """

    prompt: int

    def __init__(
        self,
        session: Session,
        options: dict[str, Any],
        streamer: Any = None,
        generator: torch.Generator | None = None,
        traced: bool = False,
        noted: Callable[[Tensor, int], None] | None = None,
    ) -> None:
        prompt = len(session.ids)
        watched = (session.cache, prompt) if traced else None
        seen = watched and trace(session.model, prompts=False, session=watched)
        super().__init__(session, prompt, seen)
        self.over = False
        self._ids = session.tensor(session.ids)
        self._rules = Rules.of(session.model, self._ids, session.cache, options)
        self._streamer, self._generator, self._noted = streamer, generator, noted

    @property
    def new(self) -> list[int]:
        """Tokens of the answer so far; all but the last one have been fed to the session."""
        return self.session.ids[self.prompt :]

    @property
    def answers(self) -> bool:
        """Whether only the newest token of the answer is unfed; False before the first token."""
        return self.waiting == 1 and len(self.session.ids) > self.prompt

    def catch_up(self) -> Iterator[int]:
        """Feed the waiting tokens in whole execution blocks, as `Session.reading` does.

        Whole blocks wait only after a failed feed has reset the memory.

        Yields:
            After each feed the number of tokens in the memory.
        """
        steps = self.session.reading()
        while self.waiting > 1:
            with answering(self.prompt):
                fed = next(steps, None)
            if fed is None:
                return
            yield fed

    @torch.no_grad()
    def choose(self, logits: Tensor) -> None:
        """Choose the next token from logits (1, V), which stay unchanged."""
        scores = logits.to(self._ids.device, torch.float32, copy=True)
        with answering(self.prompt):
            scores = self._rules.processors(self._ids, scores)
        token = self._draw(scores)
        self._ids = torch.cat((self._ids, token), 1)
        self.session.ids.append(int(token))
        if self._noted is not None:
            self._noted(logits, int(token))
        if self._streamer is not None:
            self._streamer.put(token[0].cpu())
        self.over = bool(self._rules.criteria(self._ids, scores).all())
        if self.over and self._streamer is not None:
            self._streamer.end()

    def _draw(self, scores: Tensor) -> Tensor:
        if not self._rules.samples:
            return scores.argmax(-1, keepdim=True)
        return torch.multinomial(scores.softmax(-1), 1, generator=self._generator)


class PromptEnd(Row):
    """The unfed end of a prompt that several answers share.

    Args:
        first: the first answer, whose session feeds the tokens.

    Attributes:
        logits: logits (1, V) of the first token of every answer; None until the tokens are fed.
    """

    answers = False

    def __init__(self, first: Decoding) -> None:
        super().__init__(first.session, first.prompt, first.trace)
        self.logits: Tensor | None = None

    def choose(self, logits: Tensor) -> None:
        """Store the logits; each answer chooses its own first token from them later."""
        self.logits = logits


def step(rows: Sequence[Decoding]) -> None:
    """Decode one token of each row."""
    for row, logits in zip(rows, feed_all(rows), strict=True):
        row.choose(logits)
