"""One forward pass for several memories: each is a row, with one new token.

A composed cache is a view. Its layers feed the attention objects of the memories themselves, so no
window and no sealed block is copied, and after the pass each memory has seen one token more. Only
the state of other recurrent layers (linear attention, convolution), which has a fixed size, is
stacked before the pass and written back after it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from transformers.cache_utils import LinearAttentionLayer

from inf_llm.attention.base import LayerAttention, Rule
from inf_llm.hf.cache import MemoryCache
from inf_llm.hf.cache_layer import MemoryLayer, PassingLayer, plainly
from inf_llm.hf.decoder import device_of, with_cache
from inf_llm.hf.rows import RowGroup


class RowsTogether:
    """One layer's attention for rows of several memories.

    Args:
        groups: of each memory, which has one row and has been fed.
    """

    def __init__(self, groups: Sequence[RowGroup]) -> None:
        self._groups = groups
        self.members: tuple[LayerAttention, ...] = tuple(group.members[0] for group in groups)

    @property
    def seen(self) -> int:
        """Tokens of the longest row."""
        return max(group.seen for group in self._groups)

    def row_of(self, member: LayerAttention) -> int:
        """The row that an attention object is for."""
        return next(row for row, other in enumerate(self.members) if other is member)

    def padding_of(self, row: int) -> int:
        """There is none."""
        return 0

    def attend(self, q: Tensor, k: Tensor, v: Tensor, rule: Rule) -> Tensor:
        """Feed one token to every row; shapes as for `RowGroup.attend`, with L = 1."""
        for group in self._groups:
            group.seen += 1
        return type(self.members[0]).attend_each(self.members, q, k, v, rule)


class ComposedLayer(PassingLayer):
    """One layer of several memories; see `MemoryLayer`."""

    def __init__(self, layers: Sequence[MemoryLayer]) -> None:
        super().__init__()
        self.rows = RowsTogether([layer.rows for layer in layers])

    @plainly
    def attend(self, q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None, rule: Rule) -> Tensor:
        """See `MemoryLayer.attend`."""
        return self.rows.attend(q, k, v, rule)

    def get_seq_length(self, *args: Any) -> int:
        """Tokens of the longest row."""
        return self.rows.seen


class ComposedCache(MemoryCache):
    """The cache of one forward pass.

    Args:
        caches: one or more that `compose` together.
    """

    def __init__(self, caches: Sequence[MemoryCache]) -> None:
        super().__init__()
        self.makers = caches[0].makers
        self._parts = [cache.layers for cache in caches]
        self.layers = [_joined(layers) for layers in zip(*self._parts, strict=True)]
        self.row_lengths = tuple(int(cache.get_seq_length()) for cache in caches)

    def alone_from(self, position: int | None) -> None:
        """One token is an execution block of its own."""

    def part(self) -> None:
        """After the pass: give each memory its row of what was stacked."""
        for layer, rows in zip(self.layers, zip(*self._parts, strict=True), strict=True):
            if isinstance(layer, LinearAttentionLayer):
                for row, own in enumerate(rows):
                    _write_back(layer, own, row)


def compose(caches: Sequence[Any]) -> bool:
    """Whether caches go through one forward pass: memories of one row each, of one patch."""
    first = caches[0]
    return all(
        type(cache) is MemoryCache
        and cache.makers is first.makers
        and all(map(_fit, first.layers, cache.layers))
        for cache in caches
    )


def feed_together(model: Any, caches: Sequence[MemoryCache], tokens: Sequence[int]) -> Tensor:
    """Feed one token to each of several memories that `compose`.

    Returns:
        Logits (n, V) of what follows.
    """
    cache, device = ComposedCache(caches), device_of(model)
    output = model(
        input_ids=torch.tensor(tokens, device=device)[:, None],
        position_ids=torch.tensor(cache.row_lengths, device=device)[:, None],
        output_hidden_states=False,
        output_attentions=False,
        logits_to_keep=1,
        **with_cache(model, cache),
    )
    cache.part()
    logits: Tensor = output.logits[:, -1]
    return logits


def _fit(first: Any, other: Any) -> bool:
    """Whether two layers can be rows of one."""
    if type(first) is MemoryLayer:
        return type(other) is MemoryLayer and first.held_dtype == other.held_dtype and _one(other)
    plain = type(first) is type(other) is LinearAttentionLayer
    by_number = plain and isinstance(first.conv_states, dict)  # not so in transformers 5.10
    return by_number and all(
        [_shape(tensor) for tensor in getattr(first, name).values()]
        == [_shape(tensor) for tensor in getattr(other, name).values()]
        for name in _STATES
    )


_STATES = "conv_states", "recurrent_states"  # of a layer with linear attention or a convolution


def _one(layer: MemoryLayer) -> bool:
    """Whether a memory has one row, and has been fed."""
    return layer.rows.count == 1 and not layer.rows.recording


def _shape(tensor: Tensor | None) -> Any:
    return None if tensor is None else tensor.shape


def _joined(layers: Sequence[Any]) -> Any:
    if isinstance(layers[0], MemoryLayer):
        return ComposedLayer(layers)
    joined = LinearAttentionLayer(layers[0].number_of_states)
    joined.__dict__.update(layers[0].__dict__)
    for name in _STATES:
        states = [getattr(layer, name) for layer in layers]
        setattr(joined, name, {at: _stacked([s[at] for s in states]) for at in states[0]})
    return joined


def _stacked(rows: list[Tensor | None]) -> Tensor | None:
    return None if rows[0] is None else torch.cat([row for row in rows if row is not None])


def _write_back(joined: LinearAttentionLayer, own: Any, row: int) -> None:
    for name in _STATES:
        for at, state in getattr(joined, name).items():
            if state is not None:
                getattr(own, name)[at].copy_(state[row : row + 1])
