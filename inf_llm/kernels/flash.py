"""FlashAttention: what all packages that bring it have in common.

Tested with a stand-in that does what the packages document. Computes no gradients.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from inf_llm.kernels import reference, swapped
from inf_llm.kernels.band import Band
from inf_llm.kernels.scoring import Scoring

_WIDEST = 256

Window = tuple[int, int]
"""Keys seen to the left and to the right of where a query stands; -1 is all of a side."""
Call = Callable[[Tensor, Tensor, Tensor, float, Window], tuple[Tensor, Tensor]]
"""q (B, Q, H, D), k and v (B, K, G, D), scale, window -> output (B, Q, H, D), lse (B, H, Q).

Query i stands at key ``i + K - Q``. What it says of a query that sees no key is not looked at.
"""


@dataclass(frozen=True)
class FlashKernel:
    """A kernel made of one package's call.

    Attributes:
        call: how the package is called.
        missing: why the package cannot be used here, or None.
    """

    call: Call
    missing: Callable[[torch.device], str | None]

    def why_not(self, scoring: Scoring, q: Tensor, *others: Tensor) -> str | None:
        """Why this cannot be computed here, or None if it can."""
        if not q.is_cuda:
            return f"does not run on {q.device.type}"
        if torch.cuda.get_device_capability(q.device) < (8, 0):
            return "needs a GPU of compute capability 8.0 or more"
        if q.dtype not in (torch.float16, torch.bfloat16):
            return f"computes in float16 and bfloat16, not in {str(q.dtype).removeprefix('torch.')}"
        if max(x.shape[-1] for x in (q, *others) if x.dim() == 4) > _WIDEST:
            return f"takes heads of at most {_WIDEST} dimensions"
        if scoring.softcap is not None:
            return "does not cap scores here"
        return self.missing(q.device)

    def attend(
        self, q: Tensor, k: Tensor, v: Tensor, scoring: Scoring, band: Band | None = None
    ) -> tuple[Tensor, Tensor]:
        """Softmax attention, see `inf_llm.kernels.attend`."""
        (B, H, Q, _), K, Dv = q.shape, k.shape[2], v.shape[-1]
        keys, window = _window(Q, K, band)
        if keys <= 0:
            return q.new_zeros(B, H, Q, Dv), q.new_full((B, H, Q), -math.inf, dtype=torch.float32)
        if window is None:
            return reference.attend(q, k, v, scoring, band)
        wide = -(-max(q.shape[-1], Dv) // 8) * 8
        q, k, v = (
            F.pad(x, (0, wide - x.shape[-1])).transpose(1, 2)
            for x in (q, k[:, :, :keys], v[:, :, :keys])
        )
        o, lse = self.call(q, k, v, scoring.scale, window)
        blind = None if band is None else band.sees_nothing(Q, K, lse.device)
        if blind is not None:
            lse = lse.masked_fill(blind, -math.inf)
        return o.transpose(1, 2)[..., :Dv], lse

    def received(
        self, q: Tensor, k: Tensor, lse: Tensor, scoring: Scoring, band: Band | None = None
    ) -> Tensor:
        """Mass each key receives, see `inf_llm.kernels.received`."""
        if swapped.padded(q.shape[-1]) > _WIDEST:
            return reference.received(q, k, lse, scoring, band)
        return swapped.received(self.attend, q, k, lse, scoring, band)


def _window(queries: int, keys: int, band: Band | None) -> tuple[int, Window | None]:
    """How many of the keys to show, and the window in which queries see them.

    No window says that the last queries have gone past all keys: then there is None.
    """
    if band is None:
        return keys, (-1, -1)
    keys = min(keys, queries + band.offset - band.near)  # none that even the last query cannot see
    ahead = band.offset - (keys - queries)  # of where a package thinks that the queries stand
    if band.far is None:
        return keys, (-1, ahead - band.near)
    left = band.far - 1 - ahead
    return keys, (left, ahead - band.near) if left >= 0 else None
