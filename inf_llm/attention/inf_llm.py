"""InfLLM (Xiao et al., 2024): a local window, and a few recalled blocks of all earlier tokens.

Each execution block takes these steps: append its tokens; search for blocks; attend to the window
at true distances and to far tokens at the positions that `far_positions` gives; merge both into one
softmax; add up the attention mass of the keys in the window; seal tokens that left the window.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import cast

import torch
from torch import Tensor

from inf_llm.attention.base import LayerAttention, Rule
from inf_llm.attention.positions import Far, FarPositions, Native
from inf_llm.kernels import Band, Source, attend_jointly, attend_rows
from inf_llm.memory.block_memory import BlockMemory, Recalled
from inf_llm.memory.search import Query
from inf_llm.memory.stats import MemoryStats
from inf_llm.rope import Rope
from inf_llm.settings import InfLLMSettings
from inf_llm.state import BlockReader, BlockWriter, State
from inf_llm.variants import FAR_POSITIONS

_TILE = 4096  # sealed tokens that are on the device at once during dense reading


class InfLLMAttention(LayerAttention):
    """The window and the memory of one layer.

    An execution block has three meanings: the tokens computed at once (`block`), the tokens that
    select blocks together (one call of `_recall`), and the tokens between two calls that seal
    blocks (`memory.settle`). Only the constructor uses one setting for all three sizes.

    Args:
        rope: the rotation of the layer.
        settings: sizes and policies.
        slots: True or False to keep, or not to keep, copies of recalled blocks on the device; None
            for the default of the device. See `BlockStore`.
    """

    numbers = ("seen", "recalled", "_steps")
    parts = ("memory",)

    def __init__(self, rope: Rope, settings: InfLLMSettings, slots: bool | None = None) -> None:
        super().__init__(rope, settings.exc_block_size)
        self.settings = settings
        self._native = Native(rope, settings.n_local)
        self.far_positions: FarPositions = settings.far_positions.build(
            FAR_POSITIONS, rope, settings.n_local
        )
        self.memory = BlockMemory(settings, settings.n_local, self.block, slots)
        self.recalled: Recalled | None = None
        self._steps = -1  # decode steps since the last prompt token, for `reselect_every`

    def _execute(self, q: Tensor, k: Tensor, v: Tensor, rule: Rule) -> Tensor:
        near_q, near_k = self.rope.rotate_both(q, k, self.seen)
        self.memory.append(k, v, q.shape[1], near_k=near_k)
        if self._is_dense(q.shape[2]):
            self.recalled, self._steps = None, -1
            far = self._all(q, near_q)
        else:
            far_q = self.far_positions.search_query(q)
            self.recalled = self._recall(Query(far_q, rule.scoring.scale))
            far = self.far_positions.sources(q, far_q, self._far(self.seen + q.shape[2] - 1))
        sources = itertools.chain((self._window(near_q),), far)
        o, masses = attend_jointly(sources, rule.scoring, rule.learned_sink)
        self._observe(masses)
        self.memory.settle()
        return o

    @classmethod
    def attend_each(
        cls, members: Sequence[LayerAttention], q: Tensor, k: Tensor, v: Tensor, rule: Rule
    ) -> Tensor:
        """See `LayerAttention.attend_each`; the steps of `_execute`, batched where possible."""
        layers = cast(Sequence[InfLLMAttention], members)
        first, heads = layers[0], q.shape[1]
        positions = tuple(member.seen for member in layers)
        near = first.rope.rotate_rows(torch.cat((q, k), 1), positions)
        far_q = first.far_positions.search_query(q)
        near_q, near_k = near[:, :heads].split(1), near[:, heads:].split(1)
        for member, *new in zip(layers, k.split(1), v.split(1), near_k, strict=True):
            member.memory.append(new[0], new[1], heads, near_k=new[2])
        cls._recall_each(layers, Query(far_q, rule.scoring.scale))
        rows = zip(layers, q.split(1), near_q, far_q.split(1), strict=True)
        sources = [member._single(*queries) for member, *queries in rows]
        o, masses = attend_rows(sources, rule.scoring, rule.learned_sink)
        for member, own_masses in zip(layers, masses, strict=True):
            member._observe(own_masses)
            member.memory.settle()
            member._seen_more(1)
        return o

    @classmethod
    def _recall_each(cls, members: Sequence[InfLLMAttention], query: Query) -> None:
        """Recall blocks for one token of every row, unless the step shares an earlier selection."""
        asking = [at for at, member in enumerate(members) if not member._shares_choice()]
        if asking:
            rows = Query(query.vectors[asking], query.scale)
            results = BlockMemory.recall_each([members[at].memory for at in asking], rows)
            for at, recalled in zip(asking, results, strict=True):
                members[at].recalled = recalled

    def _single(self, q: Tensor, near_q: Tensor, far_q: Tensor) -> list[Source]:
        """The key sources of one decoding query."""
        far = self.far_positions.sources(q, far_q, self._far(self.seen))
        return [self._window(near_q), *far]

    def _is_dense(self, queries: int) -> bool:
        """Whether the next execution block, with that number of queries, has full attention."""
        return 1 < queries <= self.settings.dense_tokens - self.seen

    def _all(self, q: Tensor, near_q: Tensor) -> Iterator[Source]:
        """All tokens outside the window, at their positions in the text; no block is recalled."""
        far = self._far(self.seen + q.shape[2] - 1)
        yield from self._native.sources(q, near_q, far)
        for first, k, v in self.memory.tiles(_TILE):
            at = far.sinks + first * self.settings.block_size
            yield Source(near_q, [(self.rope.rotate(k, at), v)])

    def _recall(self, query: Query) -> Recalled | None:
        """Return the blocks for this execution block, or in decoding those of an earlier step."""
        if query.vectors.shape[2] > 1:
            self._steps = -1
        elif self._shares_choice():
            return self.recalled
        return self.memory.recall(query)

    def _shares_choice(self) -> bool:
        """Count a decoding step, and return whether it shares the blocks of an earlier step."""
        self._steps += 1
        return self.recalled is not None and self._steps % self.settings.reselect_every > 0

    def _in_window(self, queries: int) -> tuple[int, Band | None]:
        """The number of newest tokens that are in the window of any query, and their band."""
        keys = min(len(self.memory.recent), self.settings.n_local + queries - 1)
        if queries == 1:
            return keys, None
        return keys, Band(keys - queries, 0, self.settings.n_local)

    def _window(self, q: Tensor) -> Source:
        recent = self.memory.recent
        keys, band = self._in_window(q.shape[2])
        first = len(recent) - keys
        pieces = [(recent["near_k"][:, :, first:], recent["v"][:, :, first:])]
        return Source(q, pieces, band, needs_mass=self.memory.summary.needs_mass)

    def _far(self, last: int) -> Far:
        """The tokens outside the window of the query at position `last`, the newest query."""
        recent, sinks = self.memory.recent, self.memory.sinks
        assert sinks is not None
        rest = max(0, len(recent) - self.settings.n_local)
        unsealed = recent["k"][:, :, :rest], recent["v"][:, :, :rest]
        return Far(last, (sinks, unsealed), self.recalled, self.memory.needs_recalled_mass)

    def _observe(self, masses: list[Tensor | None]) -> None:
        """Pass the attention mass of the keys, in the window and far from it, to the memory."""
        window, far = masses[0], masses[1] if len(masses) > 1 else None
        if window is not None:
            self.memory.observe(window)
        if far is not None:
            assert self.recalled is not None
            self.memory.observe_recalled(self.recalled, far[:, :, : self.recalled.k.shape[2]])

    def fork(self) -> InfLLMAttention:
        """See `Stateful.fork`; recalled blocks are dropped if no later step shares them."""
        twin = super().fork()
        if twin._steps < 0 or self.settings.reselect_every == 1:
            twin.recalled = None
        return twin

    def dump(self, blocks: BlockWriter) -> State:
        """See `Stateful.dump`; of recalled blocks, the numbers of those that later steps share."""
        state = super().dump(blocks)
        shared = self.recalled if self.settings.reselect_every > 1 else None
        where = None if shared is None else (shared.blocks, shared.places)
        return replace(state, numbers={**state.numbers, "recalled": where})

    def restore(self, state: State, blocks: BlockReader) -> None:
        """See `Stateful.restore`."""
        super().restore(state, blocks)
        where = state.numbers["recalled"]
        self.recalled = None if where is None else self.memory.again(*where)

    def select_rows(self, rows: Tensor) -> None:
        """See `Stateful.select_rows`; steps that share a selection of blocks continue to do so."""
        super().select_rows(rows)
        shared = self.recalled if self.settings.reselect_every > 1 else None
        self.recalled = None if shared is None else shared.of_rows(rows)

    def stats(self) -> MemoryStats:
        """See `LayerAttention.stats`."""
        return self.memory.stats()
