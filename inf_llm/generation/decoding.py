"""Answers token by token, of one session or of several at once.

    rows = [Decoding(session, options) for session in sessions]
    while rows := [row for row in rows if not row.over]:
        step(rows)

Every row has its own rules: what `generate` of transformers makes of its options, and a generator
of random numbers, so that an answer does not depend on the others.
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
    """How tokens are chosen, and when it ends.

    Attributes:
        processors: change scores (1, V), given all tokens so far (1, n).
        criteria: say whether the answer is over (1,), given the same.
        samples: draw a token rather than take the likeliest.
    """

    processors: Callable[[Tensor, Tensor], Tensor]
    criteria: Callable[[Tensor, Tensor], Tensor]
    samples: bool

    @classmethod
    def of(cls, model: Any, ids: Tensor, cache: Any, options: dict[str, Any]) -> Rules:
        """As `generate` makes them for a prompt (1, n), from the keywords that it takes."""

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
    """A session that answers.

    Args:
        session: has read a prompt.
        options: keywords for `generate`, as `answer_options` gives them.
        streamer: gets every new token, as `generate` gives it, and no prompt.
        generator: of random numbers, for tokens that are drawn; None for torch's own.
        traced: note what is recalled for the answer.
        noted: called with the logits (1, V), before anything changes them, and the token taken.

    Attributes:
        over: whether it has ended.
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
        """Tokens of the answer so far; the session has them too, and has read all but the last."""
        return self.session.ids[self.prompt :]

    @property
    def answers(self) -> bool:
        """Whether all but its newest token is read; so it is not before its first token."""
        return self.waiting == 1 and len(self.session.ids) > self.prompt

    def catch_up(self) -> Iterator[int]:
        """Read what waits in whole execution blocks, as `Session.reading`.

        That is nothing, but after a feed that broke off.
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
        """Take the next token, of whose logits (1, V) nothing is changed."""
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
    """What waits of a prompt that has been read, before any answer to it has begun.

    Args:
        first: the first answer, which feeds it.

    Attributes:
        logits: of the first token of every answer (1, V), once it is fed.
    """

    answers = False

    def __init__(self, first: Decoding) -> None:
        super().__init__(first.session, first.prompt, first.trace)
        self.logits: Tensor | None = None

    def choose(self, logits: Tensor) -> None:
        """Keep the logits: the answers choose later, each from a memory of its own."""
        self.logits = logits


def step(rows: Sequence[Decoding]) -> None:
    """One token more of each row."""
    for row, logits in zip(rows, feed_all(rows), strict=True):
        row.choose(logits)
