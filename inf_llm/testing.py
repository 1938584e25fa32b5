"""Run one attention layer on given queries, keys and values, without a model.

This is for tests and for comparisons with other implementations. `replay` feeds tensors as a model
does and returns the outputs and, for inf-llm, the recalled blocks.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from inf_llm.attention.base import LayerAttention, Rule
from inf_llm.attention.inf_llm import InfLLMAttention
from inf_llm.errors import SettingsError
from inf_llm.kernels import Scoring
from inf_llm.rope import Rope
from inf_llm.settings import make_settings
from inf_llm.variants import ATTENTION


@dataclass
class Replay:
    """The result of `replay`.

    Attributes:
        o: outputs (B, H, N, Dv).
        topk: for inf-llm, per execution block, one ascending list of block numbers for each group
            of heads that selects together in each row (row by row, group by group within a row);
            None for other types.
        layer: the attention object after the last token.
    """

    o: Tensor
    topk: list[list[list[int]]] | None
    layer: LayerAttention = field(repr=False)


@torch.no_grad()
def replay(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    *,
    feeds: Sequence[int],
    kind: str,
    base: float = 10000.0,
    distance_scale: float = 1.0,
    **settings: Any,
) -> Replay:
    """Feed `feeds[0]`, `feeds[1]`, ... tokens to one layer, one call after another.

    Args:
        q: queries (B, H, N, D), unrotated.
        k: keys (B, G, N, D), unrotated.
        v: values (B, G, N, Dv).
        feeds: numbers of tokens of successive forward calls; their sum is N.
        kind: attention type.
        base: RoPE base.
        distance_scale: factor on positions.
        **settings: settings of the attention type.

    Raises:
        SettingsError: a setting is not valid, or the sum of the feeds is not N.
    """
    length = q.shape[2]
    if sum(feeds) != length or min(feeds, default=1) < 1:
        raise SettingsError(
            f"feeds = {list(feeds)} must be positive and add up to the {length} tokens given",
            "feeds",
        )
    chosen = make_settings(kind, **settings)
    rope = Rope.from_base(q.shape[-1], base, distance_scale)
    layer: LayerAttention = ATTENTION.get(chosen.type)(rope, chosen)
    rule = Rule(Scoring(q.shape[-1] ** -0.5, kernel=chosen.kernel_asked))
    recalls = _record_recalls(layer) if isinstance(layer, InfLLMAttention) else None
    outputs = [
        layer.attend(q_part, k_part, v_part, rule)
        for q_part, k_part, v_part in zip(
            *(x.split(list(feeds), 2) for x in (q, k, v)), strict=True
        )
    ]
    return Replay(torch.cat(outputs, 2), recalls, layer)


def _record_recalls(layer: InfLLMAttention) -> list[list[list[int]]]:
    """Return a list that gets one entry of `Replay.topk` with every execution block of `layer`."""
    recalls: list[list[list[int]]] = []
    execute = layer._execute

    def recording(q: Tensor, k: Tensor, v: Tensor, rule: Rule) -> Tensor:
        o = execute(q, k, v, rule)
        if layer.recalled is None:
            choosers = layer.memory.selection(q.shape[1], k.shape[1]).choosers
            recalls.append([[] for _ in range(q.shape[0] * choosers)])
        else:
            recalls.append(layer.recalled.blocks.flatten(0, 1).tolist())
        return o

    layer._execute = recording  # type: ignore[method-assign]
    return recalls
