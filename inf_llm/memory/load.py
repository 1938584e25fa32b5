"""Copies of pages by a kernel on the device, which reads the page numbers on the device.

On CUDA the slabs are page-locked host memory, which the kernel reads over the bus. No value is sent
back to the host, so the host never waits. `scripts/gpu_check.sh` compares the kernel with copies
made by the host; it has run on an H100.
"""

from __future__ import annotations

import contextlib
import functools
import os

import torch
from torch import Tensor

_AT_ONCE = 1024  # elements that one program of the kernel copies


@functools.cache
def can_load(device: torch.device, pinned: bool) -> bool:
    """Return whether a kernel on this device can read the slabs."""
    try:
        import triton  # noqa: F401
    except ImportError:
        return False
    if os.environ.get("TRITON_INTERPRET") == "1":  # for tests; kernels then run on any device
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
    """Copy the pages of the missing units to their slots. The caller keeps the slabs alive.

    Args:
        slabs: addresses of the slabs (`data_ptr`), int64, on the device of `target`.
        per_slab: pages (rows) of a slab.
        target: rows of the slots (slots * together, width), contiguous, in the slabs' dtype.
        units: unit numbers (n,) int64; unit u is the `together` pages from page u * together on,
            with pages numbered across all slabs.
        slots: slot of each unit (n,) int64; slot s is the rows of `target` from s * together on.
        missing: mask (n,) bool of the units to copy.
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
