"""The base class of all attention types: an object that is fed tokens and returns their output.

An object belongs to one layer and to rows of equal length. The object holds all state that the next
feed needs. It supports forks, crops to an earlier length, and selection of rows.
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
"""Largest number of execution blocks that `crop` can undo; speculative decoding guesses far fewer
tokens at once."""

Part = tuple[Tensor, Tensor]
"""Attention to a part of the keys: output (B, H, Q, Dv) and log-sum-exp (B, H, Q)."""


@dataclass(frozen=True)
class Rule:
    """The scoring of the model, which its attention layer passes with every call.

    Attributes:
        scoring: scale, soft cap, kernel.
        learned_sink: a learned score per head (H,) that joins the softmax (gpt-oss), or None.
    """

    scoring: Scoring
    learned_sink: Tensor | None = None

    def finish(self, part: Part) -> Part:
        """Add the learned sink, if there is one, to the softmax of a part."""
        return part if self.learned_sink is None else with_learned_sink(*part, self.learned_sink)


class AttentionObserver(Protocol):
    """An observer of the layers during forward passes."""

    def on_layer(self, patch: object, layer: int, rows: Any, prompt_end: int | None) -> None:
        """Observe that a feed of the rows of a layer begins.

        `patch` is the state that `inf_llm.patch` stored on the model. `prompt_end` is the length of
        the prompt, padding included, or None if the caller does not give a length.
        """

    def on_block(self, attention: LayerAttention, first: int, last: int) -> None:
        """Observe that the execution block of tokens `first` to `last - 1` has been computed."""


@dataclass(frozen=True)
class Running:
    """The context of the computation in one thread.

    Attributes:
        observers: observers of all layers that are fed.
        prompt_end: length of the prompt of the running `generate` call; None outside `generate`.
        feed: the current forward call, as `inf_llm.hf` records it.
    """

    observers: tuple[AttentionObserver, ...] = ()
    prompt_end: int | None = None
    feed: Any = None


running: ContextVar[Running] = ContextVar("running", default=Running())  # noqa: B039 (frozen)
"""The context of the computation in the current thread."""


_L = TypeVar("_L", bound="LayerAttention")


class LayerAttention(Stateful, ABC):
    """The attention of one layer to all tokens that were fed.

    A subclass lists the names of its state, as described in `Stateful`.

    Args:
        rope: the rotation of the layer.
        block: number of tokens in an execution block: tokens that are computed at once and, in
            types that recall blocks, select blocks together.
    """

    numbers: ClassVar[tuple[str, ...]] = ("seen",)

    def __init__(self, rope: Rope, block: int) -> None:
        self.rope = rope
        self.block = block
        self.seen = 0
        self._decode_from: int | None = None
        self._checkpoints: list[State] | None = None

    def attend(self, q: Tensor, k: Tensor, v: Tensor, rule: Rule) -> Tensor:
        """Feed tokens and return their attention output.

        Args:
            q: queries (B, H, L, D), unrotated.
            k: keys (B, G, L, D), unrotated.
            v: values (B, G, L, Dv).
            rule: the scoring of the model.

        Returns:
            The output (B, H, L, Dv).
        """
        outputs = []
        for first, last in self._execution_blocks(q.shape[2]):
            self._note_state()
            part = slice(first, last)
            outputs.append(self._execute(q[:, :, part], k[:, :, part], v[:, :, part], rule))
            self._seen_more(last - first)
        return outputs[0] if len(outputs) == 1 else torch.cat(outputs, 2)

    def _seen_more(self, count: int) -> None:
        """Count the tokens of a computed execution block, and call the observers."""
        for observer in running.get().observers:
            observer.on_block(self, self.seen, self.seen + count)
        self.seen += count

    @classmethod
    def attend_each(
        cls, members: Sequence[LayerAttention], q: Tensor, k: Tensor, v: Tensor, rule: Rule
    ) -> Tensor:
        """Feed one token to each of n objects of this class, which have one row each.

        Args:
            members: objects of the same layer.
            q: queries (n, H, 1, D), one for each object, unrotated.
            k: keys (n, G, 1, D), unrotated.
            v: values (n, G, 1, Dv).
            rule: the scoring of the model.

        Returns:
            The output (n, H, 1, Dv).
        """
        rows = zip(members, q.split(1), k.split(1), v.split(1), strict=True)
        return torch.cat([member.attend(q, k, v, rule) for member, q, k, v in rows])

    def _execution_blocks(self, length: int) -> Iterator[tuple[int, int]]:
        """Cut a feed into execution blocks, which are single tokens from `decode_from` on."""
        alone = length
        if self._decode_from is not None:
            alone = min(length, max(0, self._decode_from - self.seen))
        for first in range(0, alone, self.block):
            yield first, min(first + self.block, alone)
        for first in range(alone, length):
            yield first, first + 1

    def decode_from(self, position: int | None) -> None:
        """Make every token from `position` on an execution block of its own; None for no token.

        Plain decoding feeds tokens in the same way. So the verification of several guessed tokens
        at once gives the same result as decoding the tokens one by one.
        """
        self._decode_from = position

    @abstractmethod
    def _execute(self, q: Tensor, k: Tensor, v: Tensor, rule: Rule) -> Tensor:
        """Compute an execution block; see `attend`. The first token is at position `self.seen`."""

    def record(self, wanted: bool = True) -> None:
        """Start or stop recording a checkpoint before every execution block, for `crop`."""
        self._checkpoints = [] if wanted else None

    def _note_state(self) -> None:
        """Add a checkpoint if they are recorded, and drop the oldest above the limit."""
        if self._checkpoints is not None:
            self._checkpoints.append(self.checkpoint())
            del self._checkpoints[:-CHECKPOINTS_KEPT]

    def crop(self, count: int) -> None:
        """Remove the newest `count` tokens; the first of them must begin an execution block.

        Raises:
            CropError: no checkpoint was recorded before that token.
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
        """See `Stateful.rollback`; the checkpoints are dropped, as later ones are not valid."""
        super().rollback(state)
        self._forget_checkpoints()

    def _forget_checkpoints(self) -> None:
        if self._checkpoints is not None:
            self._checkpoints = []

    def fork(self: _L) -> _L:
        """See `Stateful.fork`; sealed blocks are shared, and the checkpoints are not copied."""
        twin = super().fork()
        twin._forget_checkpoints()
        return twin

    def __deepcopy__(self: _L, memo: dict[int, Any]) -> _L:
        return self.fork()

    def select_rows(self, rows: Tensor) -> None:
        """See `Stateful.select_rows`; the checkpoints belong to other rows, so they are dropped."""
        super().select_rows(rows)
        self._forget_checkpoints()

    def stats(self) -> MemoryStats:
        """Counters of the tokens and bytes held, and of the work for recalled blocks."""
        return MemoryStats(self.seen, device_bytes=self.nbytes)
