"""InfLLM (Xiao et al., 2024): a local window, and a few recalled blocks of all that came before.

Per execution block: append, look up, attend to the window at true distances and to everything far
at one distance, merge into one softmax, note what mass each key in the window received, and let the
memory seal what has left the window.
"""

from __future__ import annotations

import torch
from torch import Tensor

from inf_llm.attention.base import LayerAttention, Part, Rule
from inf_llm.kernels import Band, Scoring, attend, merge, received
from inf_llm.memory.block_memory import BlockMemory, Recalled
from inf_llm.memory.stats import MemoryStats
from inf_llm.rope import Rope
from inf_llm.settings import InfLLMSettings


class InfLLMAttention(LayerAttention):
    """One layer's window and memory.

    Args:
        rope: how the layer rotates.
        settings: sizes and policies.
        slots: force copies of recalled blocks on the device, or none; see `Archive`.
    """

    def __init__(self, rope: Rope, settings: InfLLMSettings, slots: bool | None = None) -> None:
        super().__init__(rope, settings.exc_block_size)
        self.settings = settings
        self.memory = BlockMemory(settings, keep=settings.n_local, slots=slots)
        self.recalled: Recalled | None = None
        self._steps = -1  # decode steps since the last prompt token, for `reselect_every`

    def attend(self, q: Tensor, k: Tensor, v: Tensor, rule: Rule) -> Tensor:
        """See `LayerAttention.attend`; the memory hears beforehand what it will be asked."""
        blocks = list(self._execution_blocks(q.shape[2]))
        if len(blocks) > 1 and self.memory.foresees():
            far_q = self.rope.rotate_far(q, self.settings.n_local - 1)
            queries = [_common(far_q[:, :, first:last]) for first, last in blocks]
            self.memory.foresee(torch.stack(queries))
        return super().attend(q, k, v, rule)

    def _execute(self, q: Tensor, k: Tensor, v: Tensor, rule: Rule) -> Tensor:
        n_local = self.settings.n_local
        self.memory.append(k, v, q.shape[1], near_k=self.rope.rotate(k, self.seen))
        near_q = self.rope.rotate(q, self.seen)
        far_q = self.rope.rotate_far(q, n_local - 1)
        self.recalled = self._recall(far_q)
        parts = [self._window(near_q, rule.scoring), *self._far(far_q, rule.scoring)]
        o, lse = rule.finish(merge(parts))
        self._observe(near_q, far_q, lse, rule.scoring)
        self.memory.settle()
        return o

    def _recall(self, far_q: Tensor) -> Recalled | None:
        """The blocks for this execution block; in decoding, maybe those of an earlier step."""
        decoding = far_q.shape[2] == 1
        self._steps = self._steps + 1 if decoding else -1
        if decoding and self.recalled is not None and self._steps % self.settings.reselect_every:
            return self.recalled
        return self.memory.recall(_common(far_q))

    def _in_window(self, queries: int) -> tuple[int, Band | None]:
        """How many of the newest tokens some query has in its window, and the rule among them."""
        keys = min(len(self.memory.recent), self.settings.n_local + queries - 1)
        if queries == 1:
            return keys, None
        return keys, Band(keys - queries, 0, self.settings.n_local)

    def _window(self, q: Tensor, scoring: Scoring) -> Part:
        recent = self.memory.recent
        keys, band = self._in_window(q.shape[2])
        first = len(recent) - keys
        return attend(q, recent["near_k"][:, :, first:], recent["v"][:, :, first:], scoring, band)

    def _far(self, q: Tensor, scoring: Scoring) -> list[Part]:
        """Sinks, recalled blocks, and the remainder, every key at distance n_local - 1.

        All queries of the block see all of it: the published code does not hide from a query the
        few tokens that only the block's *last* query has lost from its window.
        """
        k, v = self._kept_apart()
        parts = []
        recalled = self.recalled
        if recalled is not None and recalled.k.shape[1] == k.shape[1]:
            k, v = torch.cat((recalled.k, k), 2), torch.cat((recalled.v, v), 2)
        elif recalled is not None:  # every query head has blocks of its own
            parts.append(attend(q, recalled.k, recalled.v, scoring))
        if k.shape[2]:
            parts.append(attend(q, k, v, scoring))
        return parts

    def _kept_apart(self) -> tuple[Tensor, Tensor]:
        """Sinks, then the tokens out of the last query's window that are in no block yet."""
        recent, sinks = self.memory.recent, self.memory.sinks
        assert sinks is not None
        rest = max(0, len(recent) - self.settings.n_local)
        if not rest:
            return sinks
        k = torch.cat((sinks[0], recent["k"][:, :, :rest]), 2)
        return k, torch.cat((sinks[1], recent["v"][:, :, :rest]), 2)

    def _observe(self, near_q: Tensor, far_q: Tensor, lse: Tensor, scoring: Scoring) -> None:
        """Tell the memory what attention each key received."""
        recent, recalled = self.memory.recent, self.recalled
        if self.settings.repr_topk < self.settings.block_size:
            keys, band = self._in_window(near_q.shape[2])
            window = recent["near_k"][:, :, len(recent) - keys :]
            self.memory.observe(received(near_q, window, lse, scoring, band))
        if recalled is not None and self.memory.watches_recalled:
            mass = received(far_q, recalled.k, lse, scoring)
            self.memory.observe_recalled(recalled, mass)

    def _mark(self) -> InfLLMAttention:
        twin = self._bare_copy()
        assert isinstance(twin, InfLLMAttention)
        twin.memory = self.memory.mark()
        return twin

    def _restore(self, mark: LayerAttention) -> None:
        assert isinstance(mark, InfLLMAttention)
        memory = self.memory
        memory.restore(mark.memory)
        self.__dict__.update(mark.__dict__)
        self.memory = memory

    def fork(self) -> InfLLMAttention:
        """See `LayerAttention.fork`; sealed blocks are shared."""
        twin = self._bare_copy()
        assert isinstance(twin, InfLLMAttention)
        twin.memory = self.memory.fork()
        return twin

    def _select_rows(self, rows: Tensor) -> None:
        self.memory.select_rows(rows)
        shared = self.recalled if self.settings.reselect_every > 1 else None
        self.recalled = None if shared is None else shared.of_rows(rows)

    def stats(self) -> MemoryStats:
        """See `LayerAttention.stats`."""
        return self.memory.stats()


def _common(queries: Tensor) -> Tensor:
    """What an execution block (B, H, Q, D) asks for as a whole (B, H, D)."""
    # float32 means: the average of many queries is small next to each of them
    return queries.float().mean(2).to(queries.dtype)
