"""The Triton kernel of `inf_llm.memory.load`."""
# mypy: disallow-untyped-defs=False

from __future__ import annotations

import triton
import triton.language as tl


@triton.jit
def load_kernel(
    slabs,  # (slabs,) int64 addresses
    target,  # (slots * together, width) contiguous
    units,  # (n,) int64
    slots,  # (n,) int64
    missing,  # (n,) int8
    per_slab,
    width,
    together,
    BLOCK: tl.constexpr,
):
    """Copy `BLOCK` elements of one page from its slab to its slot, if the unit is missing."""
    i = tl.program_id(0) // together
    within = tl.program_id(0) % together
    at = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    if tl.load(missing + i) != 0:
        page = tl.load(units + i) * together + within
        place = tl.load(slots + i) * together + within
        slab = tl.load(slabs + page // per_slab).to(tl.pointer_type(target.dtype.element_ty))
        x = tl.load(slab + (page % per_slab) * width + at, mask=at < width)
        tl.store(target + place * width + at, x, mask=at < width)
