"""Feeds of several sessions at once: each session is a row with its own tokens.

The tokens of a row are a chunk of a text, the end of a prompt, or the newest token of an answer.
One forward pass feeds all rows if their memories can be composed; otherwise each row has its own
forward pass.
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
    """The tokens of a session that are not in its memory yet.

    Attributes:
        session: the session.
        prompt: length of the prompt that is answered, in tokens; None if unknown.
        trace: records the blocks that are recalled for the tokens; None for no trace.
        most: most tokens that are fed; None for no limit.
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
        """Number of tokens that the next pass feeds."""
        left = len(self.session.ids) - self.session.fed
        return left if self.most is None else min(left, self.most)

    @torch.no_grad()
    def feed(self, logits: int = 1) -> Tensor:
        """Feed the tokens; return logits (1, n, V) of the last `logits` of them, or all for 0."""
        session = self.session
        where = nullcontext() if self.prompt is None else answering(self.prompt)
        with session.whole_or_nothing(), where:
            return feed(session.model, session.tensor(self.ids), session.cache, logits)


def together(rows: Sequence[Row]) -> bool:
    """Return whether one forward pass can feed all of several rows."""
    single = all(row.waiting == 1 for row in rows)
    return len(rows) > 1 and compose([row.session.cache for row in rows], single)


@torch.no_grad()
def feed_all(rows: Sequence[Row]) -> list[Tensor]:
    """Feed the waiting tokens of each row; return the logits (1, V) after the last of each row."""
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
class Piggyback:
    """Rows that the next chunk of a text takes along, if one forward pass can feed both.

    Attributes:
        rows: rows with waiting tokens; one chunk takes them along, then the field is empty.
        logits: logits (1, V) after the last token of each row; empty until a pass has fed the rows.
        error: exception of a failed pass, which fed neither the chunk nor the rows.
    """

    rows: Sequence[Row] = ()
    logits: Sequence[Tensor] = ()
    error: Exception | None = None

    def feed(self, chunk: Row) -> None:
        """Feed a chunk, together with the rows if one forward pass can feed both."""
        rows, self.rows = [chunk, *self.rows], ()
        if not together(rows):
            feed_all([chunk])
            return
        try:
            self.logits = feed_all(rows)[1:]
        except Exception as error:  # any row may be the cause; the caller feeds each row alone
            self.error = error
