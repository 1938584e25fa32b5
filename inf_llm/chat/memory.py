"""The memory of a conversation, and the part of each prompt that it holds already."""

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
    """The part of a prompt that was in memory already.

    Attributes:
        prompt: number of tokens of the prompt.
        reused: number of its first tokens that were in memory.
        how: "fresh" if nothing that was read before can be reused; "continued" if the prompt
            extends the previous prompt; "went back" if it changes earlier tokens and an older state
            was kept; "rebuilt" if it changes earlier tokens and no older state was kept.
        changed_at: index of the first token that differs from the previous prompt with its answer;
            None if no token differs.
    """

    prompt: int
    reused: int
    how: How
    changed_at: int | None = None

    @property
    def fed(self) -> int:
        """Number of tokens that had to be read."""
        return self.prompt - self.reused

    def __str__(self) -> str:
        changed = f", differs from token {self.changed_at:,} on" if self.changed_at else ""
        return (
            f"{self.how}: {self.reused:,} of {self.prompt:,} tokens were in memory, "
            f"{self.fed:,} were fed{changed}"
        )


@dataclass(frozen=True)
class Reply:
    """An answer of the model, with its counts and times.

    Attributes:
        text: the answer.
        reuse: the part of the prompt that was in memory.
        new_tokens: number of tokens of the answer.
        reading: seconds until the first token.
        answering: seconds from the first token to the last.
        stopped: whether `should_stop` ended the answer.
    """

    text: str
    reuse: Reuse
    new_tokens: int
    reading: float
    answering: float
    stopped: bool


@dataclass(frozen=True)
class Held:
    """The content and size of a conversation's memory.

    Attributes:
        tokens: number of tokens of the conversation at its last read, with the answer.
        stats: counts of the memory that read or answered last, summed over its layers.
        points: number of tokens that each kept state has read.
        bytes: bytes of all kept states, on host and device; shared parts count once.
    """

    tokens: int
    stats: MemoryStats
    points: tuple[int, ...]
    bytes: int


class ReadingMemory(PrefixCache):
    """The prefix cache of one conversation; for the arguments see `PrefixCache`.

    A kept state has to end where an execution block ends. The tokens of an answer are therefore
    read again, in whole blocks, with the next question. A model without retrieval or with full
    attention has no such blocks, and its state after the answer is kept.

    Attributes:
        last: the tokens that were read last, with the answer.
    """

    def __init__(self, model: Any, tokenizer: Any, chunk_size: int = 8192, points: int = 4) -> None:
        super().__init__(model, tokenizer, chunk_size, points=points)
        self.last: list[int] = []
        self._prompt_length = 0  # number of tokens of `last` that are the prompt

    def follow(
        self, ids: Sequence[int], on_progress: Progress | None = None
    ) -> tuple[Session, Reuse]:
        """Read a prompt as `read` does; return the session and the reuse."""
        last, prompt_length = self.last, self._prompt_length
        self.last, self._prompt_length = list(ids), len(ids)
        session, reused = self.read(ids, (), on_progress)
        common = common_length(last, ids)
        changed = common if common < min(len(last), len(ids)) else None
        goes_on = common >= min(prompt_length, len(ids))
        how: How
        if not common or (goes_on and not reused):
            how = "fresh"
        elif goes_on:
            how = "continued"
        else:
            how = "went back" if reused else "rebuilt"
        return session, Reuse(len(ids), reused, how, changed)

    def answered(self, session: Session) -> None:
        """Record the answer of the session that `follow` returned."""
        self.last = list(session.ids)
        self.keep(session)

    def clear(self) -> None:
        """Drop all kept states and tokens."""
        super().clear()
        self.last, self._prompt_length = [], 0
