"""One forward pass for several memories, each with its own new tokens.

A composed cache is a view. Its layers feed the attention objects of the memories directly, so no
window and no sealed block is copied, and after the pass each memory has seen its tokens. If each
memory has one token, the memories are rows of a batch. Otherwise their tokens are concatenated in
one row, because only attention relates tokens to each other. Only the state of
other recurrent layers (linear attention, convolution), which has a fixed size, is stacked before
the pass and written back after it; so these models take one token per memory.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from transformers.cache_utils import LinearAttentionLayer

from inf_llm.attention.base import LayerAttention, Rule
from inf_llm.hf.cache import MemoryCache
from inf_llm.hf.cache_layer import MemoryLayer, PassingLayer, without_inference_mode
from inf_llm.hf.decoder import device_of, with_cache
from inf_llm.hf.rows import RowGroup


@dataclass(frozen=True)
class Part:
    """The input of one memory in a pass.

    Attributes:
        cache: the memory, of one row.
        tokens: at least one token id.
        prompt_end: length of the prompt that is answered; None while a text is read.
    """

    cache: MemoryCache
    tokens: Sequence[int]
    prompt_end: int | None = None

    @property
    def positions(self) -> range:
        """Positions of its tokens."""
        seen = int(self.cache.get_seq_length())
        return range(seen, seen + len(self.tokens))


class RowsTogether:
    """The rows of several memories in one layer, for a observer.

    Args:
        groups: the rows of each memory.
    """

    def __init__(self, groups: Sequence[RowGroup]) -> None:
        self._groups = groups

    @property
    def members(self) -> list[LayerAttention]:
        """Attention objects of all memories that have been fed."""
        return [member for group in self._groups for member in group.members]

    def row_of(self, member: LayerAttention) -> int:
        """Return the row that an attention object computes."""
        return next(row for row, group in enumerate(self._groups) if member in group.members)

    def padding_of(self, row: int) -> int:
        """Return 0: there is no padding."""
        return 0


class ComposedLayer(PassingLayer):
    """One layer of several memories; see `MemoryLayer`.

    Args:
        layers: the layer of each memory.
        lengths: the number of tokens of each memory.
    """

    def __init__(self, layers: Sequence[MemoryLayer], lengths: Sequence[int]) -> None:
        super().__init__()
        self._layers, self._lengths = layers, list(lengths)
        self._singles = [
            at for at, length in enumerate(lengths) if length == 1 and layers[at].rows.members
        ]
        self.rows = RowsTogether([layer.rows for layer in layers])

    @without_inference_mode
    def attend(self, q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None, rule: Rule) -> Tensor:
        """Feed the tokens of every memory; see `MemoryLayer.attend`.

        Shapes are (n, H, 1, D), or (1, H, L, D) with the L tokens of all memories in one row.
        """
        if q.shape[0] == len(self._layers) > 1:
            return self._attend_singles(q, k, v, rule)
        qs, ks, vs = (part.split(self._lengths, 2) for part in (q, k, v))
        out = {
            at: layer.attend(qs[at], ks[at], vs[at], None, rule)
            for at, layer in enumerate(self._layers)
            if at not in self._singles
        }
        if self._singles:
            single_q, single_k, single_v = (
                torch.cat([part[at] for at in self._singles]) for part in (qs, ks, vs)
            )
            rows = self._attend_singles(single_q, single_k, single_v, rule)
            out |= zip(self._singles, rows.split(1), strict=True)
        return torch.cat([out[at] for at in range(len(qs))], 2)

    def _attend_singles(self, q: Tensor, k: Tensor, v: Tensor, rule: Rule) -> Tensor:
        """Feed one token each to the memories of `_singles`."""
        groups = [self._layers[at].rows for at in self._singles]
        for group in groups:
            group.seen += 1
        members = [group.members[0] for group in groups]
        return type(members[0]).attend_each(members, q, k, v, rule)

    def get_seq_length(self, *args: Any) -> int:
        """Return the length of the longest row."""
        return max(layer.rows.seen for layer in self._layers)


class ComposedCache(MemoryCache):
    """The cache of one forward pass for several memories.

    Args:
        parts: one or more parts whose caches `compose` accepts.
        device: the device of the model.
    """

    def __init__(self, parts: Sequence[Part], device: torch.device) -> None:
        super().__init__()
        self._parts = parts
        self.factories = parts[0].cache.factories
        lengths = [len(part.tokens) for part in parts]
        layers = zip(*(part.cache.layers for part in parts), strict=True)
        self.layers = [_joined(each, lengths) for each in layers]
        shape = (len(parts), 1) if set(lengths) == {1} else (1, sum(lengths))
        positions = torch.tensor([at for part in parts for at in part.positions], device=device)
        self.positions: Tensor = positions.view(shape)

    def ends(self, prompt_end: int | None) -> Iterator[tuple[MemoryCache, int | None]]:
        """See `MemoryCache.ends`."""
        return ((part.cache, part.prompt_end) for part in self._parts)

    def part(self) -> None:
        """After the pass: write each memory's row of the stacked states back."""
        per_layer = zip(*(part.cache.layers for part in self._parts), strict=True)
        for layer, rows in zip(self.layers, per_layer, strict=True):
            if isinstance(layer, LinearAttentionLayer):
                for row, member in enumerate(rows):
                    _write_back(layer, member, row)


def compose(caches: Sequence[Any], single: bool = True) -> bool:
    """Return whether one forward pass can feed the caches: memories of one row, of one patch.

    Args:
        caches: one or more.
        single: whether each is fed one token.
    """
    first = caches[0]
    return all(
        type(cache) is MemoryCache
        and cache.factories is first.factories
        and all(map(_fit if single else _fit_in_a_row, first.layers, cache.layers))
        for cache in caches
    )


def feed_together(model: Any, parts: Sequence[Part]) -> Tensor:
    """Feed several memories that `compose` accepts, each with its own tokens.

    Returns:
        Logits (n, V) of the next token of each memory.
    """
    device = device_of(model)
    cache = ComposedCache(parts, device)
    tokens = torch.tensor([token for part in parts for token in part.tokens], device=device)
    lasts = torch.tensor([len(part.tokens) for part in parts], device=device).cumsum(0) - 1
    in_a_row = cache.positions.shape[0] == 1
    output = model(
        input_ids=tokens.view(cache.positions.shape),
        position_ids=cache.positions,
        output_hidden_states=False,
        output_attentions=False,
        logits_to_keep=lasts if in_a_row else 1,
        **with_cache(model, cache),
    )
    cache.part()
    logits: Tensor = output.logits
    return logits[0] if in_a_row else logits[:, -1]


def _fit(first: Any, other: Any) -> bool:
    """Return whether two layers, fed one token each, can be rows of one layer."""
    if type(first) is MemoryLayer:
        return _fit_in_a_row(first, other) and other.rows.count == 1
    plain = type(first) is type(other) is LinearAttentionLayer
    by_number = plain and isinstance(first.conv_states, dict)  # not a dict in transformers 5.10
    return by_number and all(
        [_shape(tensor) for tensor in getattr(first, name).values()]
        == [_shape(tensor) for tensor in getattr(other, name).values()]
        for name in _STATES
    )


def _fit_in_a_row(first: Any, other: Any) -> bool:
    """Return whether the tokens of two layers can be concatenated in one row."""
    if not (type(first) is type(other) is MemoryLayer):
        return False
    dtypes = {layer.held_dtype for layer in (first, other) if layer.rows.count}
    return len(dtypes) < 2 and other.rows.count <= 1 and not other.rows.recording


_STATES = "conv_states", "recurrent_states"  # of a layer with linear attention or a convolution


def _shape(tensor: Tensor | None) -> Any:
    return None if tensor is None else tensor.shape


def _joined(layers: Sequence[Any], lengths: Sequence[int]) -> Any:
    if isinstance(layers[0], MemoryLayer):
        return ComposedLayer(layers, lengths)
    joined = LinearAttentionLayer(layers[0].number_of_states)
    joined.__dict__.update(layers[0].__dict__)
    for name in _STATES:
        states = [getattr(layer, name) for layer in layers]
        setattr(joined, name, {at: _stacked([s[at] for s in states]) for at in states[0]})
    return joined


def _stacked(rows: list[Tensor | None]) -> Tensor | None:
    return None if rows[0] is None else torch.cat([row for row in rows if row is not None])


def _write_back(joined: LinearAttentionLayer, member: Any, row: int) -> None:
    for name in _STATES:
        for at, state in getattr(joined, name).items():
            if state is not None:
                getattr(member, name)[at].copy_(state[row : row + 1])
