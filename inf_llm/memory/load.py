"""Pages fetched by the device itself, without the host having to know which.

On CUDA the slabs are pinned host memory, which a program reads over the bus. No value comes back to
the host, so nothing waits for it. Run on an H100, and compared with copies made by the host, by
`scripts/gpu_check.sh`.
"""

from __future__ import annotations

import contextlib
import functools
import os

import torch
from torch import Tensor

_AT_ONCE = 1024  # numbers that one program copies


@functools.cache
def can_load(device: torch.device, pinned: bool) -> bool:
    """Whether slabs can be read from this device."""
    try:
        import triton  # noqa: F401
    except ImportError:
        return False
    if os.environ.get("TRITON_INTERPRET") == "1":  # for tests; programs then run anywhere
        return True
    return device.type == "cuda" and torch.version.hip is None and pinned


def load_pages(
    slabs: Tensor,
    per_slab: int,
    target: Tensor,
    units: Tensor,
    slots: Tensor,
    missing: Tensor,
    together: int = 1,
) -> None:
    """Copy the pages of those units that are missing. The caller keeps the slabs alive.

    Args:
        slabs: their addresses (`data_ptr`), int64, on the device of `target`.
        per_slab: rows of a slab.
        target: where pages go, (slots * together, width), contiguous, in the slabs' dtype.
        units: which pages, n times `together` of them, counted through all slabs: (n,) int64.
        slots: where they go, as many rows of `target` at once (n,) int64.
        missing: which to copy (n,) bool.
        together: pages of a unit.
    """
    from inf_llm.memory import load_code

    width = target.shape[1]
    device = torch.cuda.device(target.device) if target.is_cuda else contextlib.nullcontext()
    with device:
        load_code.load_kernel[(len(units) * together, -(-width // _AT_ONCE))](
            slabs,
            target,
            units,
            slots,
            missing.view(torch.int8),
            per_slab,
            width,
            together,
            BLOCK=_AT_ONCE,
        )
