"""FlashAttention from its own packages: version 3 on Hopper GPUs if installed, otherwise 2.

See `flash` for the common code.

NOT YET RUN ON A GPU.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from inf_llm.kernels.flash import FlashKernel, Window
from inf_llm.untried import untried


def _function(device: torch.device) -> Callable[..., Any] | None:
    """Return the function of the best package installed for a device, or None."""
    hopper = device.type == "cuda" and torch.cuda.get_device_capability(device)[0] == 9
    for package in ("flash_attn_interface", "flash_attn") if hopper else ("flash_attn",):
        try:
            found: Callable[..., Any] = importlib.import_module(package).flash_attn_func
        except (ImportError, AttributeError):
            continue
        return found
    return None


def _call(q: Tensor, k: Tensor, v: Tensor, scale: float, window: Window) -> tuple[Tensor, Tensor]:
    untried("the kernel 'flash-attn'")
    function = _function(q.device)
    assert function is not None, "asked for although `why_not` has a reason"
    # With `return_attn_probs`, both versions return the lse second; version 2 returns more.
    o, lse = function(q, k, v, softmax_scale=scale, window_size=window, return_attn_probs=True)[:2]
    return o, lse


def _missing(device: torch.device) -> str | None:
    if _function(device) is None:
        return "needs the flash-attn package, which is not installed"
    return None


_KERNEL = FlashKernel(_call, _missing)
attend, received, why_not = _KERNEL.attend, _KERNEL.received, _KERNEL.why_not
