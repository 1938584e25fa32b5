"""The training forward pass: that of a plain Llama, or one that imitates a block memory.

A block memory shows recalled tokens in no order, all at one distance, and only some of them. A
model that was never trained on this reads badly with a memory. So a share of the training steps
computes attention in that way: keys nearer than a window stand at their true distance; of the
farther keys, a random part stands at the distance of the window's edge; and the end of every row,
where the questions are, also sees the texts of some other rows. These texts are the "crowd": they
stand for the many blocks from which a long memory must choose. The weights stay those of an
ordinary Llama.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from transformers import LlamaForCausalLM

from demo_model.network import ROPE_BASE, frequencies
from demo_model.samples import OWN_FACT, PROSE, SHARED_FACT, TAIL


@dataclass(frozen=True)
class View:
    """The far keys that tokens see in one training step.

    Attributes:
        window: distance from which a key is far (a scalar tensor, so that it may vary).
        recalled: whether a far key is seen by tokens that are not in an answer (B, T).
        answering: whether a far key is seen by tokens that are in an answer (B, T).
        asks: whether the target of a token is in an answer (B, T).
        crowd: whether a key is shown to the ends of other rows (B, T), or None for no crowd.
        end: number of tokens at the end of a row that see the crowd.
        group: number of rows that are each other's crowd; it divides the number of rows.
    """

    window: Tensor
    recalled: Tensor
    answering: Tensor
    asks: Tensor
    crowd: Tensor | None
    end: int = 48
    group: int = 4


def draw_view(
    kind: Tensor, asks: Tensor, window: int, crowded: bool, generator: torch.Generator
) -> View:
    """Draw a random view for rows with these kinds of tokens (B, T).

    Prose is recalled in runs of eight tokens, a random share of them in each row. Tokens in an
    answer always see the facts; the other tokens see facts in half the rows only, because a
    question that is read in one pass recalls with an averaged query and often misses.
    """
    rows, length = kind.shape
    share = torch.rand(rows, 1, generator=generator)
    runs = torch.rand(rows, (length + 7) // 8, generator=generator) < share
    runs = runs.repeat_interleave(8, 1)[:, :length]
    is_fact = (kind == SHARED_FACT) | (kind == OWN_FACT)
    lucky = torch.rand(rows, 1, generator=generator) < 0.5
    crowd = ((kind == PROSE) | (kind == SHARED_FACT)) if crowded else None
    seen = torch.where(is_fact, lucky, runs | (kind == TAIL))
    return View(torch.tensor(window), seen, seen | is_fact, asks, crowd)


class Rotary:
    """Tables of cosine and sine (positions, head_dim / 2) for positions 0 to length - 1."""

    def __init__(self, head_dim: int, length: int, device: torch.device) -> None:
        angles = torch.arange(length).double()[:, None] * frequencies(head_dim, ROPE_BASE)
        self.cos = angles.cos().float().to(device)
        self.sin = angles.sin().float().to(device)

    def turn(self, x: Tensor, positions: Tensor) -> Tensor:
        """Rotate x (B, H, L, D) to `positions` (L,), or to one position for all (1,)."""
        cos, sin = self.cos[positions], self.sin[positions]
        a, b = x.float().chunk(2, -1)
        return torch.cat((a * cos - b * sin, b * cos + a * sin), -1).to(x.dtype)


def forward(model: LlamaForCausalLM, rotary: Rotary, ids: Tensor, view: View | None) -> Tensor:
    """Return logits (B, T, vocab) of ids (B, T); without a view, those of the model itself."""
    body = model.model
    hidden = body.embed_tokens(ids)
    for layer in body.layers:
        attention = layer.self_attn
        x = layer.input_layernorm(hidden)
        size = attention.head_dim
        q = attention.q_proj(x).unflatten(-1, (-1, size)).transpose(1, 2)  # (B, H, T, D)
        k = attention.k_proj(x).unflatten(-1, (-1, size)).transpose(1, 2)  # (B, G, T, D)
        v = attention.v_proj(x).unflatten(-1, (-1, size)).transpose(1, 2)
        group = q.shape[1] // k.shape[1]
        k, v = k.repeat_interleave(group, 1), v.repeat_interleave(group, 1)
        seen = plain(rotary, q, k, v) if view is None else through(view, rotary, q, k, v)
        hidden = hidden + attention.o_proj(seen.transpose(1, 2).flatten(2))
        hidden = hidden + layer.mlp(layer.post_attention_layernorm(hidden))
    logits: Tensor = model.lm_head(body.norm(hidden))
    return logits


def plain(rotary: Rotary, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """Compute causal attention at true distances; all tensors are (B, H, T, D)."""
    positions = torch.arange(q.shape[2], device=q.device)
    q, k = rotary.turn(q, positions), rotary.turn(k, positions)
    return torch.nn.functional.scaled_dot_product_attention(q, k, v, is_causal=True)


def through(view: View, rotary: Rotary, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """Compute attention as with a block memory; all tensors are (B, H, T, D)."""
    length = q.shape[2]
    positions = torch.arange(length, device=q.device)
    distance = positions[:, None] - positions
    scale = q.shape[-1] ** -0.5
    q = q * scale
    near = torch.matmul(rotary.turn(q, positions), rotary.turn(k, positions).transpose(2, 3))
    edge = rotary.turn(q, (view.window - 1).view(1))
    far = torch.matmul(edge, k.transpose(2, 3))
    recalled = torch.where(
        view.asks[:, None, :, None], view.answering[:, None, None], view.recalled[:, None, None]
    )
    is_near = distance < view.window
    scores = torch.where(is_near, near, far).float()
    scores = scores.masked_fill(~(is_near | recalled) | (distance < 0), -1e9)
    if view.crowd is None:
        return torch.matmul(scores.softmax(-1).to(v.dtype), v)
    cut = length - view.end
    early = torch.matmul(scores[:, :, :cut, :cut].softmax(-1).to(v.dtype), v[:, :, :cut])
    late = among_others(view, edge[:, :, cut:], scores[:, :, cut:], k, v)
    return torch.cat((early, late), 2)


def among_others(view: View, q: Tensor, scores: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """Attend with q (B, H, E, D) to its own row, which is scored already, and to its group's."""
    assert view.crowd is not None
    size, end, length = view.group, q.shape[2], k.shape[2]
    queries, keys, values = (  # (groups, H, size * E or size * T, D)
        x.unflatten(0, (-1, size)).transpose(1, 2).flatten(2, 3) for x in (q, k, v)
    )
    others = torch.matmul(queries, keys.transpose(2, 3)).float().unflatten(2, (size, end))
    diagonal = torch.eye(size, dtype=torch.bool, device=q.device)[None, :, :, None]
    hidden = diagonal | ~view.crowd.view(-1, 1, size, length)  # (groups, size, size, T)
    others = others.masked_fill(hidden.flatten(2)[:, None, :, None], -1e9)
    others = others.transpose(1, 2).flatten(0, 1)  # (B, H, E, size * T)
    shares = torch.cat((scores, others), -1).softmax(-1).to(v.dtype)
    own_share, other_share = shares.split((length, size * length), -1)
    other_share = other_share.unflatten(0, (-1, size)).transpose(1, 2).flatten(2, 3)
    crowd_output = torch.matmul(other_share, values).unflatten(2, (size, end))
    return torch.matmul(own_share, v) + crowd_output.transpose(1, 2).flatten(0, 1)
