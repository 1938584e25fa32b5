"""The share of full attention's far mass that a memory recalled, and that an oracle could recall.

A token is far from a query if it is neither a sink nor in the query's window. The memory holds the
tokens of the recalled blocks, and the few far tokens that are in no block yet and always seen.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from inf_llm.attention.base import LayerAttention
from inf_llm.fidelity.mass import block_mass, heaviest
from inf_llm.fidelity.oracle import sealed_blocks
from inf_llm.settings import InfLLMSettings

FIELDS = ("far", "held", "best", "needle", "needle_held", "needle_best")
"""Sums of mass: of all far tokens and of the needle's far tokens; of each, the part that the memory
held, and the most that the same number of blocks could hold."""


@dataclass
class Choices:
    """A observer of one layer that records the recalled blocks of every execution block.

    Attributes:
        made: for each execution block, its first token, the token after its last, and the chosen
            blocks (B, X, k), or None if nothing was recalled.
    """

    made: list[tuple[int, int, Tensor | None]] = field(default_factory=list)

    def on_layer(self, patch: object, layer: int, rows: Any, prompt_end: int | None) -> None:
        """See `AttentionObserver.enters`."""

    def on_block(self, attention: LayerAttention, first: int, last: int) -> None:
        """See `AttentionObserver.saw`."""
        recalled = getattr(attention, "recalled", None)
        self.made.append((first, last, None if recalled is None else recalled.blocks))


def held_mass(
    settings: InfLLMSettings,
    choices: Choices,
    mass: Tensor,
    first: int,
    needle: Sequence[int] | None,
) -> Tensor:
    """Return the sums of mass (6,) over heads and queries, in the order of `FIELDS`.

    Args:
        settings: settings of the memory that chose the blocks.
        choices: the blocks that the memory recalled.
        mass: (1, H, L, N) from `true_mass`, for the newest L queries.
        first: position of the first of these queries; execution blocks that begin earlier are
            left out.
        needle: positions of the needle's first token and of the token after its last, or None.
    """
    sums = torch.zeros(len(FIELDS), dtype=torch.float64)
    for start, end, blocks in choices.made:
        if start >= first:
            part = mass[:, :, start - first : end - first]
            sums += _of_block(settings, blocks, part, start, needle)
    return sums


def _of_block(
    s: InfLLMSettings, blocks: Tensor | None, mass: Tensor, start: int, needle: Sequence[int] | None
) -> Tensor:
    """Return the sums of one execution block, whose queries have the mass (1, H, Q, N)."""
    far = mass * _far(s, start, mass.shape[2], mass.shape[3], mass.device)
    sealed = sealed_blocks(s, start)
    sets = [torch.ones_like(far[0, :, 0], dtype=torch.bool)]  # (H, N) masks: all, held, best
    if blocks is None:
        best = blocks = mass.new_zeros(1, 1, 0, dtype=torch.long)
    else:
        best = heaviest(
            block_mass(mass, s.n_init, s.block_size, sealed), blocks.shape[1], blocks.shape[2]
        )
    sets += [_tokens(s, chosen[0], sealed, far) for chosen in (blocks, best)]
    of_token = far[0].sum(1)  # (H, N)
    everywhere = [(of_token * held).sum() for held in sets]
    span = slice(0, 0) if needle is None else slice(*needle)
    in_needle = [(of_token * held)[:, span].sum() for held in sets]
    return torch.stack(everywhere + in_needle).double().cpu()


def _far(s: InfLLMSettings, start: int, queries: int, keys: int, device: torch.device) -> Tensor:
    """Return a mask (Q, N) of the keys that are far from each query."""
    key = torch.arange(keys, device=device)
    query = torch.arange(start, start + queries, device=device)[:, None]
    return (key >= s.n_init) & (query - key >= s.n_local)


def _tokens(s: InfLLMSettings, blocks: Tensor, sealed: int, far: Tensor) -> Tensor:
    """Return a mask (H, N) of tokens in the blocks (X, k) of a head's chooser, or in no block."""
    H, N = far.shape[1], far.shape[3]
    block = (torch.arange(N, device=far.device) - s.n_init).div(s.block_size, rounding_mode="floor")
    chosen = torch.zeros(blocks.shape[0], sealed + 1, dtype=torch.bool, device=far.device)
    chosen.scatter_(1, blocks.to(far.device), True)
    chosen[:, sealed] = True  # the tokens after the last sealed block
    return chosen[:, block.clamp(0, sealed)].repeat_interleave(H // blocks.shape[0], 0)
