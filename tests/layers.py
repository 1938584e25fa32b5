"""Small tensors and layers that several tests start from."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from inf_llm.attention.base import LayerAttention, Rule
from inf_llm.attention.inf_llm import InfLLMAttention
from inf_llm.kernels import Scoring
from inf_llm.memory.search import Query
from inf_llm.rope import Rope
from inf_llm.settings import InfLLMSettings, make_settings
from inf_llm.variants import ATTENTION

WINDOW: dict[str, Any] = {"n_init": 4, "n_local": 24}
MEMORY: dict[str, Any] = {
    **WINDOW,
    "block_size": 6,
    "topk": 3,
    "repr_topk": 2,
    "max_cached_block": 5,
    "exc_block_size": 8,
}
EVERY_TYPE: dict[str, dict[str, Any]] = {
    "origin": {},
    "infinite-lm": WINDOW,
    "stream-lm": WINDOW,
    "inf-llm": MEMORY,
}

Qkv = tuple[Tensor, Tensor, Tensor]


def random_qkv(
    tokens: int,
    heads: tuple[int, int] = (4, 2),
    width: int = 16,
    value_width: int | None = None,
    rows: int = 1,
    seed: int = 0,
    dtype: torch.dtype = torch.float32,
    device: torch.device | str = "cpu",
) -> Qkv:
    """q (B, H, N, D), k (B, G, N, D), v (B, G, N, Dv); sharp enough that a wrong key is seen."""
    generator = torch.Generator().manual_seed(seed)
    shapes = ((heads[0], width), (heads[1], width), (heads[1], value_width or width))
    q, k, v = (torch.randn(rows, h, tokens, d, generator=generator) for h, d in shapes)
    return (2 * q).to(device, dtype), k.to(device, dtype), v.to(device, dtype)


def rule(width: int = 16, **scoring: Any) -> Rule:
    """How a plain model with heads of this width scores."""
    return Rule(Scoring(width**-0.5, **scoring))


def make_layer(kind: str = "inf-llm", width: int = 16, **settings: Any) -> LayerAttention:
    """A fresh layer with the small settings above, changed where asked."""
    chosen = make_settings(kind, **(EVERY_TYPE[kind] | settings))
    layer = ATTENTION.get(kind)(Rope.from_base(width, 10000.0), chosen)
    assert isinstance(layer, LayerAttention)
    return layer


def make_memory_layer(
    width: int = 16, slots: bool | None = None, **settings: Any
) -> InfLLMAttention:
    """The same for inf-llm, with or without device slots."""
    chosen = make_settings("inf-llm", **(MEMORY | settings))
    assert isinstance(chosen, InfLLMSettings)
    return InfLLMAttention(Rope.from_base(width, 10000.0), chosen, slots)


@torch.no_grad()
def feed(
    layer: LayerAttention, qkv: Qkv, feeds: Sequence[int] | None = None, how: Rule | None = None
) -> Tensor:
    """Outputs of all tokens, fed in pieces of the given lengths."""
    q, k, v = qkv
    pieces = [q.shape[2]] if feeds is None else list(feeds)
    assert sum(pieces) == q.shape[2]
    parts = zip(*(x.split(pieces, 2) for x in (q, k, v)), strict=True)
    how = how or rule(q.shape[3])
    return torch.cat([layer.attend(a, b, c, how) for a, b, c in parts], 2)


def tokens_of(qkv: Qkv, first: int, last: int | None = None) -> Qkv:
    """Some of the tokens."""
    q, k, v = (x[:, :, first:last] for x in qkv)
    return q, k, v


def rows_of(qkv: Qkv, rows: Sequence[int]) -> Qkv:
    """Some of the batch rows."""
    q, k, v = (x[list(rows)] for x in qkv)
    return q, k, v


def joined(*parts: Qkv) -> Qkv:
    """Tokens one after another."""
    q, k, v = (torch.cat(columns, 2) for columns in zip(*parts, strict=True))
    return q, k, v


def read_representatives(layer: InfLLMAttention, heads: int, width: int) -> Tensor:
    """(1, H, blocks, D) of a layer with one row, read by asking with every unit vector in turn."""
    store, blocks = layer.memory.store, layer.memory.blocks
    assert store is not None
    columns = []
    for axis in torch.eye(heads * width).view(-1, 1, heads, width):
        found, scores = store.search(Query(axis[:, :, None]), blocks, blocks, None)
        assert (found == torch.arange(blocks)).all()
        columns.append(scores[0].sum(0))
    return torch.stack(columns).view(1, heads, width, blocks).transpose(2, 3)
