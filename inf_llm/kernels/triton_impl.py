"""Attention on a GPU through Triton: bands, grouped heads, log-sum-exp, and pages read in place.

It is compared with the reference under Triton's interpreter, and on an H100 by
`scripts/gpu_check.sh`. Tile sizes depend only on the sizes of the inputs, so no tuning runs while a
text is read. No gradients are computed.
"""

from __future__ import annotations

import contextlib
import functools
import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from inf_llm.kernels.band import Band
from inf_llm.kernels.scoring import Scoring
from inf_llm.kernels.source import Source

try:
    import triton

    from inf_llm.kernels import triton_code as code
except ImportError:  # an optional dependency; `why_not` reports that it is missing
    triton = None

_NO_LIMIT = 1 << 30
_SPLIT_KEYS = 256  # smallest number of keys in a split, which has its own program
_WIDEST = {torch.float32: 128, torch.float16: 256, torch.bfloat16: 256}  # head sizes of a tile
_HOPPER = (132, 227 << 10)  # multiprocessors, and bytes of shared memory of each


def why_not(scoring: Scoring, q: Tensor, *others: Tensor) -> str | None:
    """Return why this kernel cannot compute the inputs, or None; any scoring is supported."""
    if triton is None:
        return "needs the triton package, which is not installed"
    if not interpreted():
        if q.device.type != "cuda" or torch.version.hip is not None:
            return f"does not run on {'ROCm' if q.is_cuda else q.device.type}"
        if torch.cuda.get_device_capability(q.device) < (8, 0):
            return "needs a GPU of compute capability 8.0 or more"
    if q.dtype not in _WIDEST:
        return f"does not compute in {str(q.dtype).removeprefix('torch.')}"
    if max(x.shape[-1] for x in (q, *others) if x.dim() == 4) > _WIDEST[q.dtype]:
        return f"takes heads of at most {_WIDEST[q.dtype]} dimensions in {q.dtype}"
    return None


def interpreted() -> bool:
    """Return whether Triton interprets programs on any device instead of compiling (for tests)."""
    return os.environ.get("TRITON_INTERPRET") == "1"


def attend(
    q: Tensor, k: Tensor, v: Tensor, scoring: Scoring, band: Band | None = None
) -> tuple[Tensor, Tensor]:
    """Compute softmax attention; see `inf_llm.kernels.attend`."""
    return _whole([_attend(q, _Keys.lying(k, v), scoring, band)], q.dtype)


def joins(source: Source, learned_sink: Tensor | None) -> bool:
    """Return whether `attend_jointly` can compute this: all inputs without learned sinks."""
    return learned_sink is None


def attend_jointly(
    sources: Iterable[Source], scoring: Scoring
) -> tuple[Tensor, list[Tensor | None]]:
    """Compute one softmax over all sources; see `inf_llm.kernels.attend_jointly`."""
    taken: list[tuple[Source, Tensor] | None] = []
    parts = []
    for source in sources:
        k, v = source.joined()
        if k.shape[2]:
            parts.append(_attend(source.q, _Keys.lying(k, v), scoring, source.band, whole=False))
        taken.append((source, k) if source.needs_mass else None)  # frees the keys of other sources
    o, lse = _whole(parts, source.q.dtype)
    return o, [pair and received(pair[0].q, pair[1], lse, scoring, pair[0].band) for pair in taken]


def attend_pages(
    q: Tensor, k: Tensor, v: Tensor, table: Tensor, tokens: int, scoring: Scoring
) -> tuple[Tensor, Tensor]:
    """Compute attention to all keys of some pages, which are read in place.

    Args:
        q: queries (B, H, Q, D).
        k: keys of all pages (pages, tokens * D), contiguous.
        v: values of all pages (pages, tokens * Dv), contiguous.
        table: rows of `k` and `v` that each (row, key head) recalled, (B, G, choices) int64; a
            negative number stands for no page.
        tokens: number of keys in a page.
        scoring: scale and soft cap.

    Returns:
        Output (B, H, Q, Dv) and log-sum-exp (B, H, Q), as from `attend`.
    """
    _, G, choices = table.shape
    k, v = k.view(-1, k.shape[1] // tokens), v.view(-1, v.shape[1] // tokens)
    keys = _Keys(k, v, G, choices * tokens, (0,) * 6, table.contiguous(), tokens)
    return _whole([_attend(q, keys, scoring, None)], q.dtype)


@dataclass(frozen=True)
class _Keys:
    """Keys and values of every row and key head: strided tensors, or pages with a page table."""

    k: Tensor
    v: Tensor
    groups: int
    count: int
    strides: tuple[int, ...]
    table: Tensor | None = None
    tokens: int = 1

    @classmethod
    def lying(cls, k: Tensor, v: Tensor) -> _Keys:
        """Wrap strided keys (B, G, K, D) and values (B, G, K, Dv)."""
        k, v = _dense(k), _dense(v)
        return cls(k, v, k.shape[1], k.shape[2], (*k.stride()[:3], *v.stride()[:3]))


def _attend(
    q: Tensor, keys: _Keys, scoring: Scoring, band: Band | None, whole: bool = True
) -> tuple[Tensor, Tensor]:
    """Return parts of a softmax (splits, B, H, Q, Dv) and their log-sum-exp (splits, B, H, Q).

    The parts are in float32. If `whole` and there is only one split, the part is in q's dtype.
    """
    q = _dense(q)
    B, H, Q, D = q.shape
    Dv, shared = keys.v.shape[-1], H // keys.groups
    processors, room = _resources(q.device)
    tiles = _tiles(shared * Q, max(D, Dv), q.dtype, room)
    programs = triton.cdiv(shared * Q, tiles["BLOCK_M"]) * B * keys.groups
    splits, per_split = _splits(programs, keys.count, tiles["BLOCK_N"], processors)
    o = q.new_empty(
        (splits, B, H, Q, Dv), dtype=q.dtype if whole and splits == 1 else torch.float32
    )
    lse = q.new_empty((splits, B, H, Q), dtype=torch.float32)
    table = keys.table
    with _on(q):
        code.attend_kernel[(programs // (B * keys.groups), B * keys.groups, splits)](
            q,
            keys.k,
            keys.v,
            q if table is None else table,
            o,
            lse,
            *q.stride()[:3],
            *keys.strides,
            B,
            keys.groups,
            Q,
            keys.count,
            *_limits(band),
            per_split,
            scoring.scale,
            scoring.softcap or 0.0,
            1 if table is None else table.shape[2],
            keys.tokens,
            SHARED=shared,
            D=D,
            DV=Dv,
            BLOCK_D=_padded(D),
            BLOCK_V=_padded(Dv),
            PAGED=table is not None,
            **_options(q, scoring, band),
            **tiles,
        )
    return o, lse


def _whole(parts: Sequence[tuple[Tensor, Tensor]], dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """Merge all parts, in the form of `_attend`, into one softmax (B, H, Q, Dv)."""
    if len(parts) > 2:  # the program takes two at a time
        o, lse = _whole(parts[:-1], torch.float32)
        return _whole([(o[None], lse[None]), parts[-1]], dtype)
    (o, lse), (more, more_lse) = parts[0], parts[-1]
    if len(parts) == len(o) == 1:
        return o[0].to(dtype), lse[0]
    whole, whole_lse = o.new_empty(o.shape[1:], dtype=dtype), lse.new_empty(lse.shape[1:])
    with _on(o):
        code.combine_kernel[(whole_lse.numel(),)](
            o,
            lse,
            len(o),
            more,
            more_lse,
            len(more) if len(parts) == 2 else 0,
            whole,
            whole_lse,
            whole_lse.numel(),
            DV=o.shape[-1],
            BLOCK_V=_padded(o.shape[-1]),
            num_warps=1,
        )
    return whole, whole_lse


def received(
    q: Tensor, k: Tensor, lse: Tensor, scoring: Scoring, band: Band | None = None
) -> Tensor:
    """Return the mass that each key receives; see `inf_llm.kernels.received`."""
    q, k, lse = _dense(q), _dense(k), lse.float().contiguous()
    B, H, Q, D = q.shape
    G, K = k.shape[1], k.shape[2]
    mass = q.new_empty((B, H, K), dtype=torch.float32)
    small = q.dtype != torch.float32 and D <= 128
    block_n = 128 if small else 64
    width = {"SHARED": H // G, "D": D, "BLOCK_D": _padded(D), "BLOCK_N": block_n}
    rule = (*_limits(band), scoring.scale, scoring.softcap or 0.0)
    options = _options(q, scoring, band)
    tiles = triton.cdiv(K, block_n)
    with _on(q):
        if Q == 1:
            code.received_one_kernel[(tiles, B * G)](
                *(q, k, lse, mass, q.stride(0), q.stride(1), *k.stride()[:3], G, K, *rule),
                BLOCK_M=max(16, triton.next_power_of_2(H // G)),
                **width,
                **options,
            )
        else:
            code.received_kernel[(tiles, B * H)](
                *(q, k, lse, mass, *q.stride()[:3], *k.stride()[:3], G, Q, K, *rule),
                BLOCK_M=64 if Q > 32 and q.dtype != torch.float32 else 32,
                num_stages=3 if small else 2,
                **width,
                **options,
            )
    return mass


def _limits(band: Band | None) -> tuple[int, int, int]:
    """Return offset, near and far of a band as numbers, also for no band."""
    if band is None:
        return 0, 0, _NO_LIMIT
    return band.offset, band.near, _NO_LIMIT if band.far is None else band.far


def _options(q: Tensor, scoring: Scoring, band: Band | None) -> dict[str, Any]:
    return {
        "BANDED": band is not None,
        "CAPPED": scoring.softcap is not None,
        "PRECISION": "tf32x3" if q.dtype == torch.float32 else "tf32",  # unused in half precision
    }


def _tiles(rows: int, width: int, dtype: torch.dtype, room: int) -> dict[str, int]:
    """Return tile sizes for `rows` rows of queries, within `room` bytes of shared memory.

    The queries stay in shared memory; keys and values pass through it in `num_stages` tiles each.
    With heads of 128 dimensions in half precision, this takes 32 KiB and 3 x 32 KiB. Wider tiles
    would spill registers.
    """
    block_m, block_n, stages = min(128, max(16, triton.next_power_of_2(rows))), 64, 3
    warps = 8 if block_m == 128 else 4
    if dtype == torch.float32:
        block_m, block_n, stages, warps = min(block_m, 64), 32, 2, 4
    elif width > 128:
        block_m, stages, warps = min(block_m, 64), 2, 8
    if block_m <= 32 and width <= 128:  # few queries are limited by memory: prefetch more
        stages += 1
    wide, size = _padded(width), dtype.itemsize * (2 if dtype == torch.float32 else 1)
    while (block_m + 2 * stages * block_n) * wide * size > room:
        if stages > 1:
            stages -= 1
        elif block_n > 16:
            block_n //= 2
        elif block_m > 16:
            block_m //= 2
        else:
            break
    return {"BLOCK_M": block_m, "BLOCK_N": block_n, "num_warps": warps, "num_stages": stages}


@functools.lru_cache(maxsize=16)
def _resources(device: torch.device) -> tuple[int, int]:
    """Return the multiprocessors of a device and the bytes of shared memory for one program."""
    if device.type != "cuda":
        return _HOPPER
    index = torch.cuda.current_device() if device.index is None else device.index
    facts = triton.runtime.driver.active.utils.get_device_properties(index)
    return facts["multiprocessor_count"], facts["max_shared_mem"]


def _splits(programs: int, keys: int, block_n: int, processors: int) -> tuple[int, int]:
    """Return the number of splits of the keys, enough to keep a device busy, and keys per split."""
    splits = 1
    if 2 * programs <= processors:
        splits = max(1, min(2 * processors // programs, keys // _SPLIT_KEYS))
    per_split = max(1, triton.cdiv(triton.cdiv(keys, splits), block_n)) * block_n
    return max(1, triton.cdiv(keys, per_split)), per_split


def _padded(width: int) -> int:
    return max(16, triton.next_power_of_2(width))


def _dense(x: Tensor) -> Tensor:
    """Return `x` with a stride of 1 in the last dimension, as the programs require."""
    return x if x.stride(-1) == 1 else x.contiguous()


def _on(x: Tensor) -> contextlib.AbstractContextManager[object]:
    """Make the device of `x` current, because programs start on the current device."""
    return torch.cuda.device(x.device) if x.is_cuda else contextlib.nullcontext()
