"""LM-Infinite's optional attention to the middle of a text (Han et al., 2023, section 4).

Besides sinks and window, a query attends to the k tokens between them with the best scores. Every
query of every head selects its own tokens, and all of them are at the distance of half a window.
Unlike the rest of LM-Infinite, this keeps the keys and values of *all* tokens and scores all of
them: memory grows with the length of the text, and time with its square. It is meant for search in
texts that fit into memory.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from inf_llm.attention.base import LayerAttention, Part, Rule
from inf_llm.attention.window import InfiniteLMAttention
from inf_llm.checks import LARGEST
from inf_llm.kernels import Scoring, merge
from inf_llm.memory.recent import Recent
from inf_llm.rope import Rope
from inf_llm.settings import InfiniteLMSettings
from inf_llm.state import Stateful

_CHUNK = 4096  # keys scored at once, to limit the memory for scores


class Middle(Stateful):
    """The keys and values of all tokens after the sinks, which are or will be in the middle.

    Args:
        rope: the rotation of the layer.
        topk: number of tokens that each query of each head selects.
        n_init: number of first tokens of a text, which are sinks and never in the middle.
        n_local: length of the window; a token at this or a larger distance is outside the window.
    """

    parts = ("_kept",)

    def __init__(self, rope: Rope, topk: int, n_init: int, n_local: int) -> None:
        self._rope = rope
        self._topk = topk
        self._n_init = n_init
        self._n_local = n_local
        self._kept = Recent(LARGEST)

    def append(self, k: Tensor, v: Tensor, first: int) -> None:
        """Append tokens at positions from `first` on: keys (B, G, n, D), unrotated, and values."""
        skip = max(0, self._n_init - first)
        if skip < k.shape[2]:
            self._kept.append(k=k[:, :, skip:], v=v[:, :, skip:])

    def attend(self, q: Tensor, first: int, scoring: Scoring) -> Part | None:
        """Attend to the best tokens of the middle, with queries (B, H, Q, D), unrotated.

        The first query is at position `first`. The result is None while no query has a middle.
        """
        newest = first + q.shape[2] - 1 - self._n_local - self._n_init  # an index into kept keys
        if newest < 0:
            return None
        far_q = self._rope.rotate_far(q, self._n_local // 2)
        best, at = self._search(far_q, first, newest + 1, scoring)
        return self._mix(best, at)

    def _search(self, q: Tensor, first: int, count: int, scoring: Scoring) -> tuple[Tensor, Tensor]:
        """Return the best scores (B, H, Q, topk) among the oldest `count` keys, and their indexes.

        There are fewer than `topk` if there are fewer keys. The score of a key outside the middle
        of a query is -inf.
        """
        B, H, Q, D = q.shape
        best, at = q.new_empty(B, H, Q, 0, dtype=torch.float32), None
        last = torch.arange(first, first + Q, device=q.device) - self._n_local - self._n_init
        for begin in range(0, count, _CHUNK):
            k = self._kept["k"][:, :, begin : min(begin + _CHUNK, count)]
            grouped = q.reshape(B, k.shape[1], -1, D)  # queries of all heads that share a key head
            scores = (grouped @ k.transpose(-1, -2)).float() * scoring.scale
            if scoring.softcap is not None:
                scores = scoring.softcap * torch.tanh(scores / scoring.softcap)
            places = torch.arange(begin, begin + k.shape[2], device=q.device)
            scores = scores.view(B, H, Q, -1).masked_fill(places > last[:, None], -math.inf)
            top = scores.topk(min(self._topk, scores.shape[3]), dim=-1, sorted=False)
            best = torch.cat((best, top.values), -1)
            at = top.indices if at is None else torch.cat((at, top.indices + begin), -1)
            if best.shape[3] > self._topk:
                chosen = best.topk(self._topk, dim=-1, sorted=False)
                best, at = chosen.values, at.gather(-1, chosen.indices)
        assert at is not None
        return best, at

    def _mix(self, scores: Tensor, at: Tensor) -> Part:
        """Apply the softmax over the selected tokens (B, H, Q, k) to their values."""
        v = self._kept["v"]
        B, H, Q, chosen = at.shape
        lse = torch.logsumexp(scores, -1)
        weights = torch.exp(scores - lse.masked_fill(lse == -math.inf, 0.0)[..., None])
        places = at.reshape(B, v.shape[1], -1, 1).expand(-1, -1, -1, v.shape[3])
        values = v.gather(2, places).view(B, H, Q, chosen, -1)
        o = torch.einsum("bhqk,bhqkd->bhqd", weights, values.float())
        return o.to(v.dtype), lse


class MiddleAttention(InfiniteLMAttention):
    """LM-Infinite with attention to the middle."""

    parts = ("recent", "middle")

    def __init__(self, rope: Rope, settings: InfiniteLMSettings) -> None:
        super().__init__(rope, settings)
        self.middle = Middle(rope, settings.topk_middle, settings.n_init, settings.n_local)

    def _far(self, q: Tensor, k: Tensor, near_k: Tensor, v: Tensor, rule: Rule) -> Part | None:
        self.middle.append(k, v, self.seen)
        sinks = super()._far(q, k, near_k, v, rule)
        middle = self.middle.attend(q, self.seen, rule.scoring)
        parts = [part for part in (sinks, middle) if part is not None]
        return merge(parts) if parts else None


def infinite_lm(rope: Rope, settings: InfiniteLMSettings) -> LayerAttention:
    """Make LM-Infinite attention, with or without the middle, according to the settings."""
    made = MiddleAttention if settings.topk_middle else InfiniteLMAttention
    return made(rope, settings)
