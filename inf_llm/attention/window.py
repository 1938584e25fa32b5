"""Sinks and a local window: LM-Infinite, StreamingLLM, and the sliding-window layers of models.

The state is `n_init + n_local` tokens for a text of any length.
"""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor

from inf_llm.attention.base import LayerAttention, Part, Rule
from inf_llm.kernels import Band, attend, merge
from inf_llm.memory.recent import Recent
from inf_llm.rope import Rope
from inf_llm.settings import WindowSettings

_BLOCK = 512  # tokens computed at once; affects only the speed


class WindowAttention(LayerAttention):
    """A local window at true distances, without sinks.

    Args:
        rope: the rotation of the layer.
        n_local: length of the window; None for no limit.
    """

    parts: ClassVar[tuple[str, ...]] = ("recent",)

    def __init__(self, rope: Rope, n_local: int | None) -> None:
        super().__init__(rope, _BLOCK if n_local is None else min(_BLOCK, max(64, n_local)))
        self.n_local = n_local
        held = None if n_local is None else n_local + self.block
        self.recent = Recent(None if held is None else held + held // 4)

    def _execute(self, q: Tensor, k: Tensor, v: Tensor, rule: Rule) -> Tensor:
        near_q, near_k = self.rope.rotate_both(q, k, self.seen)
        self.recent.append(k=near_k, v=v)
        parts = [self._window(near_q, rule)]
        far = self._far(q, k, near_k, v, rule)
        if far is not None:
            parts.append(far)
        if self.n_local is not None and len(self.recent) >= self.n_local:
            self.recent.drop(len(self.recent) - self.n_local + 1)  # outside all later windows
        return rule.finish(merge(parts))[0]

    def _window(self, q: Tensor, rule: Rule) -> Part:
        queries, keys = q.shape[2], len(self.recent)
        band = None if queries == 1 else Band(keys - queries, 0, self.n_local)
        return attend(q, self.recent["k"], self.recent["v"], rule.scoring, band)

    def _far(self, q: Tensor, k: Tensor, near_k: Tensor, v: Tensor, rule: Rule) -> Part | None:
        """Attend to tokens outside the window; None here, as this class keeps no such tokens."""
        return None


class ChunkedAttention(WindowAttention):
    """A window that restarts every `chunk` tokens (Llama 4): no token sees an earlier chunk."""

    def __init__(self, rope: Rope, chunk: int) -> None:
        super().__init__(rope, chunk)
        self._chunk = chunk

    def _execution_blocks(self, length: int):  # type: ignore[no-untyped-def]
        for first, last in super()._execution_blocks(length):
            while first < last:
                end = min(last, first + self._chunk - (self.seen % self._chunk))
                yield first, end
                first = end

    def _execute(self, q: Tensor, k: Tensor, v: Tensor, rule: Rule) -> Tensor:
        if self.seen % self._chunk == 0:
            self.recent.drop(len(self.recent))
        return super()._execute(q, k, v, rule)


class SinkAttention(WindowAttention):
    """A window plus sinks: the first `n_init` tokens stay visible after they leave the window."""

    fixed = ("_held",)

    def __init__(self, rope: Rope, settings: WindowSettings) -> None:
        super().__init__(rope, settings.n_local)
        self.n_init = settings.n_init
        self._held: tuple[Tensor, Tensor] | None = None  # (B, G, n, D), (B, G, n, Dv)

    def _far(self, q: Tensor, k: Tensor, near_k: Tensor, v: Tensor, rule: Rule) -> Part | None:
        self._keep_first(self._sink_keys(k, near_k), v)
        last = self.seen + q.shape[2] - 1
        assert self.n_local is not None
        if not self.n_init or last < self.n_local:
            return None
        assert self._held is not None
        sink_k, sink_v = self._held
        hidden = self.seen - self.n_local < sink_k.shape[2] - 1  # a sink is still in some window
        band = Band(self.seen, near=self.n_local) if hidden else None
        return attend(self._sink_query(q), sink_k, sink_v, rule.scoring, band)

    def _keep_first(self, k: Tensor, v: Tensor) -> None:
        if self.seen >= self.n_init:
            return
        k, v = (x[:, :, : self.n_init - self.seen].clone() for x in (k, v))
        if self._held is not None:
            k, v = torch.cat((self._held[0], k), 2), torch.cat((self._held[1], v), 2)
        self._held = k, v

    def _sink_keys(self, k: Tensor, near_k: Tensor) -> Tensor:
        """The keys that are kept for sinks: unrotated, unless a subclass overrides this."""
        return k

    def _sink_query(self, q: Tensor) -> Tensor:
        raise NotImplementedError


class InfiniteLMAttention(SinkAttention):
    """LM-Infinite (Han et al., 2023): all sinks are at distance n_local - 1."""

    def _sink_query(self, q: Tensor) -> Tensor:
        assert self.n_local is not None
        return self.rope.rotate_far(q, self.n_local - 1)


class StreamLMAttention(SinkAttention):
    """StreamingLLM (Xiao et al., 2023): sinks keep their order, directly before the window."""

    def _sink_keys(self, k: Tensor, near_k: Tensor) -> Tensor:
        return near_k  # sink j is at position j, as in the text

    def _sink_query(self, q: Tensor) -> Tensor:
        assert self.n_local is not None
        return self.rope.rotate_to(q, self.n_local + self.n_init - 1)
