"""FlashAttention: the common code for all packages that provide it.

The tests use a stand-in that follows the documentation of the packages. No gradients are computed.
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
"""Numbers of keys seen to the left and to the right of a query's position; -1 for no limit."""
Call = Callable[[Tensor, Tensor, Tensor, float, Window], tuple[Tensor, Tensor]]
"""q (B, Q, H, D), k and v (B, K, G, D), scale, window -> output (B, Q, H, D), lse (B, H, Q).

Query i is at key index ``i + K - Q``. The result for a query that sees no key is ignored.
"""


@dataclass(frozen=True)
class FlashKernel:
    """A kernel that calls one package.

    Attributes:
        call: function that calls the package.
        missing: function that returns why the package cannot be used on a device, or None.
    """

    call: Call
    missing: Callable[[torch.device], str | None]

    def why_not(self, scoring: Scoring, q: Tensor, *others: Tensor) -> str | None:
        """Return why this kernel cannot compute the inputs, or None if it can."""
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
        """Compute softmax attention; see `inf_llm.kernels.attend`."""
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
        """Return the mass that each key receives; see `inf_llm.kernels.received`."""
        if swapped.padded(q.shape[-1]) > _WIDEST:
            return reference.received(q, k, lse, scoring, band)
        return swapped.received(self.attend, q, k, lse, scoring, band)


def _window(queries: int, keys: int, band: Band | None) -> tuple[int, Window | None]:
    """Return the number of keys to pass, and the window for the package.

    The window is None if no window of the package fits, because the last queries are beyond the
    reach of all keys.
    """
    if band is None:
        return keys, (-1, -1)
    keys = min(keys, queries + band.offset - band.near)  # without keys that no query sees
    ahead = band.offset - (keys - queries)  # from the package's query positions to the real ones
    if band.far is None:
        return keys, (-1, ahead - band.near)
    left = band.far - 1 - ahead
    return keys, (left, ahead - band.near) if left >= 0 else None
