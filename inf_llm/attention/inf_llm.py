"""InfLLM (Xiao et al., 2024): a local window, and a few recalled blocks of all that came before.

Per execution block: append, look up, attend to the window at true distances and to everything far
at one distance, merge into one softmax, note what mass each key in the window received, and let the
memory seal what has left the window.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator

import torch
from torch import Tensor

from inf_llm.attention.base import LayerAttention, Rule
from inf_llm.kernels import Band, Pieces, Source, attend_jointly
from inf_llm.memory.block_memory import BlockMemory, Recalled
from inf_llm.memory.index import EarlyFound
from inf_llm.memory.search import Query
from inf_llm.memory.stats import MemoryStats
from inf_llm.rope import Rope
from inf_llm.settings import InfLLMSettings

_TOGETHER = 8  # execution blocks that search at once, where several are faster


class InfLLMAttention(LayerAttention):
    """One layer's window and memory.

    Args:
        rope: how the layer rotates.
        settings: sizes and policies.
        slots: force copies of recalled blocks on the device, or none; see `BlockStore`.
    """

    numbers = ("seen", "recalled", "_steps")
    parts = ("memory",)

    def __init__(self, rope: Rope, settings: InfLLMSettings, slots: bool | None = None) -> None:
        super().__init__(rope, settings.exc_block_size)
        self.settings = settings
        self.memory = BlockMemory(settings, keep=settings.n_local, slots=slots)
        self.recalled: Recalled | None = None
        self._early: dict[int, EarlyFound] = {}  # by the position of the block that searched
        self._steps = -1  # decode steps since the last prompt token, for `reselect_every`

    def attend(self, q: Tensor, k: Tensor, v: Tensor, rule: Rule) -> Tensor:
        """See `LayerAttention.attend`; several blocks search at once where that is faster."""
        blocks = list(self._execution_blocks(q.shape[2]))
        self._early = {}
        if len(blocks) == 1 or not self.memory.gains_from_several:
            return super().attend(q, k, v, rule)
        outputs = []
        for some in (blocks[at : at + _TOGETHER] for at in range(0, len(blocks), _TOGETHER)):
            part = slice(some[0][0], some[-1][1])
            self._search_early(q, some, rule)
            outputs.append(super().attend(q[:, :, part], k[:, :, part], v[:, :, part], rule))
        return torch.cat(outputs, 2)

    def _search_early(self, q: Tensor, blocks: list[tuple[int, int]], rule: Rule) -> None:
        """Search for the next execution blocks of a feed, of which `q` are the queries."""
        far_q = [self._far_query(q[:, :, first:last]) for first, last in blocks]
        found = self.memory.search_several([Query(each, rule.scoring.scale) for each in far_q])
        starts = [self.seen + first - blocks[0][0] for first, _ in blocks]
        self._early = dict(zip(starts, found, strict=True))

    def _far_query(self, q: Tensor) -> Tensor:
        """Queries as they meet all that is far, at distance n_local - 1."""
        return self.rope.rotate_far(q, self.settings.n_local - 1)

    def _execute(self, q: Tensor, k: Tensor, v: Tensor, rule: Rule) -> Tensor:
        near_q, near_k = self.rope.rotate_both(q, k, self.seen)
        self.memory.append(k, v, q.shape[1], near_k=near_k)
        far_q = self._far_query(q)
        self.recalled = self._recall(Query(far_q, rule.scoring.scale))
        sources = itertools.chain((self._window(near_q),), self._far(far_q))
        o, masses = attend_jointly(sources, rule.scoring, rule.learned_sink)
        self._observe(masses)
        self.memory.settle()
        return o

    def _recall(self, query: Query) -> Recalled | None:
        """The blocks for this execution block; in decoding, maybe those of an earlier step."""
        decoding = query.vectors.shape[2] == 1
        self._steps = self._steps + 1 if decoding else -1
        if decoding and self.recalled is not None and self._steps % self.settings.reselect_every:
            return self.recalled
        return self.memory.recall(query, self._early.get(self.seen))

    def _in_window(self, queries: int) -> tuple[int, Band | None]:
        """How many of the newest tokens some query has in its window, and the rule among them."""
        keys = min(len(self.memory.recent), self.settings.n_local + queries - 1)
        if queries == 1:
            return keys, None
        return keys, Band(keys - queries, 0, self.settings.n_local)

    def _window(self, q: Tensor) -> Source:
        recent = self.memory.recent
        keys, band = self._in_window(q.shape[2])
        first = len(recent) - keys
        pieces = [(recent["near_k"][:, :, first:], recent["v"][:, :, first:])]
        return Source(q, pieces, band, watched=self.memory.summary.needs_mass)

    def _far(self, q: Tensor) -> Iterator[Source]:
        """Recalled blocks, sinks, and the remainder, every key at distance n_local - 1.

        All queries of the block see all of it: the published code does not hide from a query the
        few tokens that only the block's *last* query has lost from its window.
        """
        apart, recalled = self._kept_apart(), self.recalled
        if recalled is not None:
            pieces: Pieces = [recalled.pages]
            if recalled.k.shape[1] == apart[0][0].shape[1]:
                pieces, apart = [recalled.pages, *apart], []
            # else every query head has blocks of its own
            yield Source(q, pieces, watched=self.memory.watches_recalled)
        if sum(k.shape[2] for k, _ in apart):
            yield Source(q, apart)

    def _kept_apart(self) -> Pieces:
        """Sinks, then the tokens out of the last query's window that are in no block yet."""
        recent, sinks = self.memory.recent, self.memory.sinks
        assert sinks is not None
        rest = max(0, len(recent) - self.settings.n_local)
        if not rest:
            return [sinks]
        k = torch.cat((sinks[0], recent["k"][:, :, :rest]), 2)
        return [(k, torch.cat((sinks[1], recent["v"][:, :, :rest]), 2))]

    def _observe(self, masses: list[Tensor | None]) -> None:
        """Tell the memory what attention each key received, in the window and far from it."""
        window, far = masses[0], masses[1] if len(masses) > 1 else None
        if window is not None:
            self.memory.observe(window)
        if far is not None:
            assert self.recalled is not None
            self.memory.observe_recalled(self.recalled, far[:, :, : self.recalled.k.shape[2]])

    def select_rows(self, rows: Tensor) -> None:
        """See `Stateful.select_rows`; decode steps that share a choice go on sharing it."""
        super().select_rows(rows)
        shared = self.recalled if self.settings.reselect_every > 1 else None
        self.recalled = None if shared is None else shared.of_rows(rows)

    def stats(self) -> MemoryStats:
        """See `LayerAttention.stats`."""
        return self.memory.stats()
