"""Sessions that are fed in one pass: each is a row, with tokens of its own.

A row may be the chunk of a text, the end of a prompt, or the newest token of an answer. A pass is
one forward call where the memories of the sessions go together, else one for each.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack, nullcontext
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from inf_llm.generation.prefill import feed
from inf_llm.hf.composed import Part, compose, feed_together
from inf_llm.hf.generate import answering
from inf_llm.hf.trace import trace

if TYPE_CHECKING:
    from inf_llm.generation.session import Session


@dataclass(eq=False)
class Row:
    """Tokens that a session has and its memory has not.

    Attributes:
        session: whose they are.
        prompt: tokens of the prompt that is answered; None where that is not known.
        trace: notes what is recalled for them; None where it is not traced.
        most: so many of them are fed; None for all.
    """

    session: Session
    prompt: int | None = None
    trace: trace | None = None
    most: int | None = None

    @property
    def ids(self) -> list[int]:
        """The tokens that the next pass feeds."""
        fed = self.session.fed
        return self.session.ids[fed : None if self.most is None else fed + self.most]

    @property
    def waiting(self) -> int:
        """How many these are."""
        left = len(self.session.ids) - self.session.fed
        return left if self.most is None else min(left, self.most)

    @torch.no_grad()
    def feed(self, logits: int = 1) -> Tensor:
        """Feed them; logits (1, n, V) of what follows the last ones, or each where that is 0."""
        session = self.session
        where = nullcontext() if self.prompt is None else answering(self.prompt)
        with session.whole_or_nothing(), where:
            return feed(session.model, session.tensor(self.ids), session.cache, logits)


def together(rows: Sequence[Row]) -> bool:
    """Whether one forward pass feeds all rows."""
    single = all(row.waiting == 1 for row in rows)
    return len(rows) > 1 and compose([row.session.cache for row in rows], single)


@torch.no_grad()
def feed_all(rows: Sequence[Row]) -> list[Tensor]:
    """Feed all that waits in each row; the logits (1, V) of what follows in each."""
    with ExitStack() as all_of_them:
        for row in rows:
            all_of_them.enter_context(row.trace or nullcontext())
        if not together(rows):
            return [row.feed()[:, -1] for row in rows]
        for row in rows:
            all_of_them.enter_context(row.session.whole_or_nothing())
        parts = [Part(row.session.cache, row.ids, row.prompt) for row in rows]
        return list(feed_together(rows[0].session.model, parts).split(1))


@dataclass
class Company:
    """Rows that are fed with the next chunk of a text, where one forward pass feeds both.

    Attributes:
        rows: they wait for a token; a chunk takes them along once.
        logits: of what follows in each (1, V), after a pass that fed them.
        error: what a pass failed of: neither its chunk nor its rows are fed then.
    """

    rows: Sequence[Row] = ()
    logits: Sequence[Tensor] = ()
    error: Exception | None = None

    def feed(self, chunk: Row) -> None:
        """Feed a chunk, with the rows if they go together."""
        rows, self.rows = [chunk, *self.rows], ()
        if not together(rows):
            feed_all([chunk])
            return
        try:
            self.logits = feed_all(rows)[1:]
        except Exception as error:  # whichever row it came from, each can go on by itself
            self.error = error
