"""What every attention type has in common: it is fed tokens of some rows, and answers each feed.

An object here belongs to one layer and to rows of equal length. It holds all it needs to go on with
the next feed, and can be copied, cut back, or have its rows rearranged.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any, ClassVar, Protocol, TypeVar

import torch
from torch import Tensor

from inf_llm.errors import CropError
from inf_llm.kernels import Scoring, with_learned_sink
from inf_llm.memory.stats import MemoryStats
from inf_llm.rope import Rope
from inf_llm.state import State, Stateful

CHECKPOINTS_KEPT = 128
"""Execution blocks that `crop` can go back over; decoding guesses far fewer tokens at once."""

Part = tuple[Tensor, Tensor]
"""Attention over some keys: output (B, H, Q, Dv) and log-sum-exp (B, H, Q)."""


@dataclass(frozen=True)
class Rule:
    """How the model scores, as its attention layer says with every call.

    Attributes:
        scoring: scale, soft cap, kernel.
        learned_sink: a learned score per head (H,) that joins the softmax (gpt-oss), or None.
    """

    scoring: Scoring
    learned_sink: Tensor | None = None

    def finish(self, part: Part) -> Part:
        """Let the learned sink, if there is one, take its share of the softmax."""
        return part if self.learned_sink is None else with_learned_sink(*part, self.learned_sink)


class Watcher(Protocol):
    """An observer of layers while they are fed."""

    def enters(self, patch: object, layer: int, rows: Any, prompt_end: int | None) -> None:
        """The rows of a layer are about to be fed, under what `patch` left on a model.

        `prompt_end` is the length of the prompt, padding counted, where the caller knows it.
        """

    def saw(self, attention: LayerAttention, first: int, last: int) -> None:
        """The layer has just computed the execution block of tokens `first` to `last - 1`."""


@dataclass(frozen=True)
class Running:
    """What a thread computes for.

    Attributes:
        watchers: observers of all layers that are fed.
        prompt_end: length of the prompt that `generate` answers, where it is running.
        feed: the forward call that is under way, as the floor above notes it.
    """

    watchers: tuple[Watcher, ...] = ()
    prompt_end: int | None = None
    feed: Any = None


running: ContextVar[Running] = ContextVar("running", default=Running())  # noqa: B039 (frozen)
"""What this thread computes for."""


_L = TypeVar("_L", bound="LayerAttention")


class LayerAttention(Stateful, ABC):
    """One layer's attention over everything it was fed.

    A subclass names what it holds, as `Stateful` says.

    Args:
        rope: how the layer rotates.
        block: tokens computed at once, and that choose together where an attention type chooses.
    """

    numbers: ClassVar[tuple[str, ...]] = ("seen",)

    def __init__(self, rope: Rope, block: int) -> None:
        self.rope = rope
        self.block = block
        self.seen = 0
        self._alone_from: int | None = None
        self._checkpoints: list[State] | None = None

    def attend(self, q: Tensor, k: Tensor, v: Tensor, rule: Rule) -> Tensor:
        """Feed tokens and get their attention output.

        Args:
            q: queries (B, H, L, D), unrotated.
            k: keys (B, G, L, D), unrotated.
            v: values (B, G, L, Dv).
            rule: how the model scores.

        Returns:
            (B, H, L, Dv).
        """
        outputs = []
        for first, last in self._execution_blocks(q.shape[2]):
            self._note_state()
            part = slice(first, last)
            outputs.append(self._execute(q[:, :, part], k[:, :, part], v[:, :, part], rule))
            self._seen_more(last - first)
        return outputs[0] if len(outputs) == 1 else torch.cat(outputs, 2)

    def _seen_more(self, count: int) -> None:
        """An execution block is computed."""
        for watcher in running.get().watchers:
            watcher.saw(self, self.seen, self.seen + count)
        self.seen += count

    @classmethod
    def attend_each(
        cls, members: Sequence[LayerAttention], q: Tensor, k: Tensor, v: Tensor, rule: Rule
    ) -> Tensor:
        """Feed one token to each of n members of this class, which have one row each.

        Args:
            members: of one layer.
            q: queries (n, H, 1, D), one for each member, unrotated.
            k: keys (n, G, 1, D).
            v: values (n, G, 1, Dv).
            rule: how the model scores.

        Returns:
            (n, H, 1, Dv).
        """
        each = zip(members, q.split(1), k.split(1), v.split(1), strict=True)
        return torch.cat([member.attend(q, k, v, rule) for member, q, k, v in each])

    def _execution_blocks(self, length: int) -> Iterator[tuple[int, int]]:
        """Cut a feed: counted from its own start, and one by one from `alone_from` on."""
        alone = length
        if self._alone_from is not None:
            alone = min(length, max(0, self._alone_from - self.seen))
        for first in range(0, alone, self.block):
            yield first, min(first + self.block, alone)
        for first in range(alone, length):
            yield first, first + 1

    def alone_from(self, position: int | None) -> None:
        """From this token on, every token is an execution block of its own.

        It is how plain decoding feeds them, so verifying several guessed tokens at once gives what
        decoding them one by one would have given.
        """
        self._alone_from = position

    @abstractmethod
    def _execute(self, q: Tensor, k: Tensor, v: Tensor, rule: Rule) -> Tensor:
        """One execution block; see `attend`. `self.seen` is the position of its first token."""

    def record(self, wanted: bool = True) -> None:
        """Note the state before every execution block from now on, so that `crop` can work."""
        self._checkpoints = [] if wanted else None

    def _note_state(self) -> None:
        """Add a checkpoint, if they are kept; the oldest go, with what they hold."""
        if self._checkpoints is not None:
            self._checkpoints.append(self.checkpoint())
            del self._checkpoints[:-CHECKPOINTS_KEPT]

    def crop(self, count: int) -> None:
        """Forget the newest `count` tokens, which must end where an execution block began.

        Raises:
            CropError: nothing was recorded at that point.
        """
        states = self._checkpoints or []
        self._forget_checkpoints()
        if count == 0:
            return
        target = self.seen - count
        chosen = next((state for state in states if state.numbers["seen"] == target), None)
        if chosen is None:
            self._checkpoints = states
            can = ", ".join(str(state.numbers["seen"]) for state in states[-8:]) or "none"
            raise CropError(
                f"cannot go back to {target} of {self.seen} tokens: older tokens are already "
                f"merged into blocks; recorded points to go back to: {can}"
            )
        self.rollback(chosen)

    def rollback(self, state: State) -> None:
        """See `Stateful.rollback`; what `crop` could go back to may lie behind it."""
        super().rollback(state)
        self._forget_checkpoints()

    def _forget_checkpoints(self) -> None:
        if self._checkpoints is not None:
            self._checkpoints = []

    def fork(self: _L) -> _L:
        """See `Stateful.fork`; sealed blocks are shared, and what `crop` needs is not copied."""
        twin = super().fork()
        twin._forget_checkpoints()
        return twin

    def __deepcopy__(self: _L, memo: dict[int, Any]) -> _L:
        return self.fork()

    def select_rows(self, rows: Tensor) -> None:
        """See `Stateful.select_rows`; what `crop` needs is of other rows, so it is dropped."""
        super().select_rows(rows)
        self._forget_checkpoints()

    def stats(self) -> MemoryStats:
        """What is held, and what it cost."""
        return MemoryStats(self.seen, device_bytes=self.nbytes)
