"""What a conversation keeps in memory, and how much of a prompt was there already."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

from inf_llm.generation import Session
from inf_llm.generation.prefill import Progress
from inf_llm.generation.prefix_cache import PrefixCache
from inf_llm.memory.stats import MemoryStats
from inf_llm.truncation import common_length

How = Literal["fresh", "continued", "went back", "rebuilt"]


@dataclass(frozen=True)
class Reuse:
    """How much of a prompt was in memory already.

    Attributes:
        prompt: tokens of the prompt.
        reused: first tokens of it that were in memory.
        how: "fresh" where nothing was read before that could help; "continued" where the prompt
            goes on from the one before; "went back" where it changes earlier tokens, and an older
            state was kept; "rebuilt" where it does and none was.
        changed_at: the first token that differs from what was read and answered before; None
            where none does.
    """

    prompt: int
    reused: int
    how: How
    changed_at: int | None = None

    @property
    def fed(self) -> int:
        """Tokens that had to be read."""
        return self.prompt - self.reused

    def __str__(self) -> str:
        changed = f", differs from token {self.changed_at:,} on" if self.changed_at else ""
        return (
            f"{self.how}: {self.reused:,} of {self.prompt:,} tokens were in memory, "
            f"{self.fed:,} were fed{changed}"
        )


@dataclass(frozen=True)
class Reply:
    """What the model answered, and what it took.

    Attributes:
        text: the answer.
        reuse: how much of the prompt was in memory.
        new_tokens: tokens of the answer.
        reading: seconds until the first token.
        answering: seconds from then to the last.
        stopped: whether `should_stop` ended it.
    """

    text: str
    reuse: Reuse
    new_tokens: int
    reading: float
    answering: float
    stopped: bool


@dataclass(frozen=True)
class Held:
    """What a conversation keeps in memory.

    Attributes:
        tokens: of the conversation as it was read last, with the answer.
        stats: of the memory that read or answered last, in sum over its layers.
        points: tokens that each kept state has read.
        bytes: of all kept states, on host and device; what they share counts once.
    """

    tokens: int
    stats: MemoryStats
    points: tuple[int, ...]
    bytes: int


class ReadingMemory(PrefixCache):
    """Reads the prompts of one conversation; arguments as of `PrefixCache`.

    An answer's own tokens are read once more, together, with the next question, unless any place
    is as good as the end of an execution block.

    Attributes:
        last: tokens of what was read last, with the answer.
    """

    def __init__(self, model: Any, tokenizer: Any, chunk_size: int = 8192, points: int = 4) -> None:
        super().__init__(model, tokenizer, chunk_size, points=points)
        self.last: list[int] = []
        self._asked = 0  # tokens of `last` that were the prompt

    def follow(
        self, ids: Sequence[int], on_progress: Progress | None = None
    ) -> tuple[Session, Reuse]:
        """As `read`, which says what it took as well."""
        last, asked = self.last, self._asked
        self.last, self._asked = list(ids), len(ids)
        session, reused = self.read(ids, (), on_progress)
        common = common_length(last, ids)
        changed = common if common < min(len(last), len(ids)) else None
        goes_on = common >= min(asked, len(ids))
        how: How
        if not common or (goes_on and not reused):
            how = "fresh"
        elif goes_on:
            how = "continued"
        else:
            how = "went back" if reused else "rebuilt"
        return session, Reuse(len(ids), reused, how, changed)

    def answered(self, session: Session) -> None:
        """The session that `follow` gave has answered."""
        self.last = list(session.ids)
        self.keep(session)

    def clear(self) -> None:
        """Forget everything."""
        super().clear()
        self.last, self._asked = [], 0
