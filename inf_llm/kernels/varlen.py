"""FlashAttention of torch from 2.12 on, `torch.nn.attention.varlen`; see `flash`.

NOT YET RUN ON A GPU.
"""

from __future__ import annotations

import inspect

import torch
from torch import Tensor

from inf_llm.kernels.flash import FlashKernel, Window
from inf_llm.untried import untried


def _call(q: Tensor, k: Tensor, v: Tensor, scale: float, window: Window) -> tuple[Tensor, Tensor]:
    from torch.nn.attention.varlen import AuxRequest, varlen_attn

    untried("the kernel 'varlen'")
    (B, Q, H, _), (K, G) = q.shape, k.shape[1:3]
    o, lse = varlen_attn(
        q.flatten(0, 1),
        k.flatten(0, 1),
        v.flatten(0, 1),
        torch.arange(0, B * Q + 1, Q, dtype=torch.int32, device=q.device),
        torch.arange(0, B * K + 1, K, dtype=torch.int32, device=q.device),
        Q,
        K,
        return_aux=AuxRequest(lse=True),
        scale=scale,
        window_size=window,
        enable_gqa=H != G,
    )
    # The lse is declared as (heads, tokens), but documented as (tokens, heads).
    lse = lse if lse.shape == (H, B * Q) else lse.t()
    return o.unflatten(0, (B, Q)), lse.unflatten(1, (B, Q)).transpose(0, 1)


def _missing(device: torch.device) -> str | None:
    try:
        from torch.nn.attention.varlen import varlen_attn
    except ImportError:
        return "needs torch 2.12 or later"
    known = {"window_size", "enable_gqa"} <= set(inspect.signature(varlen_attn).parameters)
    return None if known else "needs torch 2.12 or later"


_KERNEL = FlashKernel(_call, _missing)
attend, received, why_not = _KERNEL.attend, _KERNEL.received, _KERNEL.why_not
