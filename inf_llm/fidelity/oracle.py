"""InfLLM with a perfect selection: the blocks to which full attention gives most of its mass.

The settings define the blocks, their number and the heads that select together; only the search is
replaced. Far keys always stand at one distance, the last one in the window, whatever
`far_positions` is. The oracle shows how much of an error is due to the selection. All keys are kept
and scored, so time grows with the square of the length.
"""

from __future__ import annotations

import torch
from torch import Tensor

from inf_llm.attention.base import LayerAttention, Part, Rule
from inf_llm.fidelity.mass import block_mass, heaviest, true_mass
from inf_llm.kernels import Band, attend, merge
from inf_llm.memory.recent import Recent
from inf_llm.rope import Rope
from inf_llm.settings import InfLLMSettings
from inf_llm.variants import SELECTION

_QUERIES = 64
"""Number of queries whose mass is computed at once, to limit memory."""


class OracleAttention(LayerAttention):
    """Oracle of one layer, with the arguments of `InfLLMAttention`.

    Neighbouring query heads of one chooser select blocks together, by the sum of their mass.
    """

    parts = ("_kept",)

    def __init__(self, rope: Rope, settings: InfLLMSettings) -> None:
        super().__init__(rope, settings.exc_block_size)
        self.settings = settings
        self._kept = Recent(None)

    def keep(self, k: Tensor, v: Tensor) -> None:
        """Append keys (B, G, L, D) and values (B, G, L, Dv) without computing an output."""
        self._kept.append(k=k, near_k=self.rope.rotate(k, self.seen), v=v)
        self.seen += k.shape[2]

    def _execute(self, q: Tensor, k: Tensor, v: Tensor, rule: Rule) -> Tensor:
        near_q, near_k = self.rope.rotate_both(q, k, self.seen)
        self._kept.append(k=k, near_k=near_k, v=v)
        far_q = self.rope.rotate_far(q, self.settings.n_local - 1)
        parts = [self._window(near_q, rule), *self._far(near_q, far_q, rule)]
        return rule.finish(merge(parts))[0]

    def _window(self, q: Tensor, rule: Rule) -> Part:
        queries = q.shape[2]
        keys = min(len(self._kept), self.settings.n_local + queries - 1)
        near = slice(len(self._kept) - keys, None)
        band = Band(keys - queries, 0, self.settings.n_local)
        k, v = self._kept["near_k"][:, :, near], self._kept["v"][:, :, near]
        return attend(q, k, v, rule.scoring, band)

    def _far(self, near_q: Tensor, far_q: Tensor, rule: Rule) -> list[Part]:
        """Attend to the chosen blocks, and to sinks and unsealed tokens outside the window.

        The window is that of the last query.
        """
        sealed = sealed_blocks(self.settings, self.seen)
        places = [self._apart(sealed)[None]]
        if sealed:
            places.append(self._chosen(near_q, sealed, rule))
        return [self._attend_at(far_q, at, rule) for at in places if at.numel()]

    def _apart(self, sealed: int) -> Tensor:
        """Return positions (n,) outside the window of sinks and of tokens after the last block."""
        s, left = self.settings, max(0, len(self._kept) - self.settings.n_local)
        at = torch.arange(left, device=self._kept["k"].device)
        return at[(at < s.n_init) | (at >= s.n_init + sealed * s.block_size)]

    def _chosen(self, near_q: Tensor, sealed: int, rule: Rule) -> Tensor:
        """Return positions (X, k * block_size) of the tokens in the chosen blocks, for one row."""
        s, heads = self.settings, near_q.shape[1]
        total = torch.zeros(1, heads, sealed, device=near_q.device)
        for start in range(0, near_q.shape[2], _QUERIES):
            part = near_q[:, :, start : start + _QUERIES]
            mass = true_mass(part, self._kept["near_k"], self.seen + start, rule)
            total += block_mass(mass, s.n_init, s.block_size, sealed)
        groups = self._kept["k"].shape[1]
        selection = s.selection.build(SELECTION, heads, groups, groups)
        blocks = heaviest(total, selection.choosers, s.topk)[0]
        within = torch.arange(s.block_size, device=blocks.device)
        return (s.n_init + blocks[..., None] * s.block_size + within).flatten(1)

    def _attend_at(self, q: Tensor, at: Tensor, rule: Rule) -> Part:
        """Attend to tokens at positions (X, n): one set for all heads, or one for each chooser."""
        k, v = self._kept["k"], self._kept["v"]
        if at.shape[0] == 1:
            return attend(q, k[:, :, at[0]], v[:, :, at[0]], rule.scoring)
        head = torch.arange(at.shape[0], device=at.device) * k.shape[1] // at.shape[0]
        return attend(q, k[:, head[:, None], at], v[:, head[:, None], at], rule.scoring)


def sealed_blocks(settings: InfLLMSettings, seen: int) -> int:
    """Return the number of sealed blocks after `seen` tokens, at the end of an execution block.

    A block is sealed when all its tokens have left the local window.
    """
    return max(0, seen - settings.n_local - settings.n_init) // settings.block_size
