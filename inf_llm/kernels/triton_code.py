"""The Triton programs of `inf_llm.kernels.triton_impl`, which run on the device.

Query heads that share a key head are side by side in one tile: row m of a tile is query
``m // SHARED`` of head ``m % SHARED``. So every key is read once for all of these heads, and one
decoded token gives a tile several rows. The softmax is computed in base 2; written log-sum-exps are
natural logarithms.
"""
# mypy: disallow-untyped-defs=False

from __future__ import annotations

import triton
import triton.language as tl

_LOG2E = tl.constexpr(1.4426950408889634)
_VARYING = ["queries", "keys", "offset", "near", "far", "per_split"]  # no recompilation for these


@triton.jit
def _logits(x, y, scale, softcap, CAPPED: tl.constexpr, PRECISION: tl.constexpr):
    """Return the scores of x (M, D) against y (D, N), scaled for exp2."""
    s = tl.dot(x, y, input_precision=PRECISION) * scale
    if CAPPED:
        s = softcap * (2.0 * tl.sigmoid(2.0 * s / softcap) - 1.0)
    return s * _LOG2E


@triton.jit(do_not_specialize=_VARYING)
def attend_kernel(
    q,
    k,
    v,
    table,  # (B, G, choices) int64 rows of pages, if PAGED
    o,  # (splits, B, H, queries, DV) contiguous
    lse,  # (splits, B, H, queries) contiguous, float32
    q_row,
    q_head,
    q_token,
    k_row,
    k_head,
    k_token,
    v_row,
    v_head,
    v_token,
    rows,
    groups,
    queries,
    keys,
    offset,
    near,
    far,
    per_split,  # keys of one split, a multiple of BLOCK_N
    scale,
    softcap,
    choices,
    page_tokens,
    SHARED: tl.constexpr,
    D: tl.constexpr,
    DV: tl.constexpr,
    BLOCK_D: tl.constexpr,
    BLOCK_V: tl.constexpr,
    BLOCK_M: tl.constexpr,
    BLOCK_N: tl.constexpr,
    BANDED: tl.constexpr,
    CAPPED: tl.constexpr,
    PAGED: tl.constexpr,
    PRECISION: tl.constexpr,
):
    """Compute attention of one tile of queries of one key head to one split of the keys."""
    tile = tl.program_id(0)
    row = (tl.program_id(1) // groups).to(tl.int64)
    group = tl.program_id(1) % groups
    split = tl.program_id(2)
    m = tile * BLOCK_M + tl.arange(0, BLOCK_M)
    t = m // SHARED
    head = group * SHARED + m % SHARED
    live = t < queries
    d = tl.arange(0, BLOCK_D)
    e = tl.arange(0, BLOCK_V)
    query_at = q + row * q_row + head[:, None] * q_head + t[:, None] * q_token + d[None, :]
    x = tl.load(query_at, mask=live[:, None] & (d < D)[None, :], other=0.0)
    top = tl.full([BLOCK_M], float("-inf"), tl.float32)
    total = tl.zeros([BLOCK_M], tl.float32)
    acc = tl.zeros([BLOCK_M, BLOCK_V], tl.float32)
    first = split * per_split
    last = tl.minimum(first + per_split, keys)
    if BANDED:  # skip keys that no query of the tile sees
        newest = tl.minimum((tile * BLOCK_M + BLOCK_M - 1) // SHARED, queries - 1)
        last = tl.minimum(last, newest + offset - near + 1)
        first = tl.maximum(first, (tile * BLOCK_M) // SHARED + offset - far + 1)
        first = first // BLOCK_N * BLOCK_N
    for start in range(first, last, BLOCK_N):
        n = start + tl.arange(0, BLOCK_N)
        inside = n < keys
        if PAGED:
            at = (row * groups + group) * choices + n // page_tokens
            page = tl.load(table + at, mask=inside, other=-1)
            inside = inside & (page >= 0)
            token = tl.where(inside, page * page_tokens + n % page_tokens, 0)
            key_at = k + token * D
            value_at = v + token * DV
        else:
            key_at = k + row * k_row + group * k_head + n * k_token
            value_at = v + row * v_row + group * v_head + n * v_token
        key = tl.load(
            key_at[None, :] + d[:, None], mask=inside[None, :] & (d < D)[:, None], other=0.0
        )
        s = _logits(x, key, scale, softcap, CAPPED, PRECISION)
        seen = live[:, None] & inside[None, :]
        if BANDED:
            distance = t[:, None] + offset - n[None, :]
            seen = seen & (distance >= near) & (distance < far)
        s = tl.where(seen, s, float("-inf"))
        high = tl.maximum(top, tl.max(s, 1))
        base = tl.where(high == float("-inf"), 0.0, high)
        p = tl.exp2(s - base[:, None])
        fade = tl.exp2(top - base)
        total = total * fade + tl.sum(p, 1)
        value = tl.load(
            value_at[:, None] + e[None, :], mask=inside[:, None] & (e < DV)[None, :], other=0.0
        )
        acc = tl.dot(p.to(value.dtype), value, acc * fade[:, None], input_precision=PRECISION)
        top = high
    some = total > 0.0
    acc = acc / tl.where(some, total, 1.0)[:, None]
    log_sum = tl.where(some, (top + tl.log2(tl.where(some, total, 1.0))) / _LOG2E, float("-inf"))
    out = ((split * rows + row) * (groups * SHARED) + head) * queries + t
    tl.store(o + out[:, None] * DV + e[None, :], acc, mask=live[:, None] & (e < DV)[None, :])
    tl.store(lse + out, log_sum, mask=live)


@triton.jit
def _with_parts(
    top, total, acc, parts, part_lse, splits, count, row, DV: tl.constexpr, BLOCK_V: tl.constexpr
):
    """Add parts (splits, count, DV) of one query of one head to a running softmax."""
    e = tl.arange(0, BLOCK_V)
    for split in range(splits):
        at = split * count + row
        part = tl.load(part_lse + at)
        high = tl.maximum(top, part)
        base = tl.where(high == float("-inf"), 0.0, high)
        fade = tl.exp(top - base)
        weight = tl.exp(part - base)
        acc = acc * fade + weight * tl.load(parts + at * DV + e, mask=e < DV, other=0.0)
        total = total * fade + weight
        top = high
    return top, total, acc


@triton.jit(do_not_specialize=["splits", "more_splits"])
def combine_kernel(
    parts,  # (splits, count, DV) contiguous, float32
    part_lse,  # (splits, count) contiguous, float32
    splits,
    more,  # further parts, with the same layout as `parts`
    more_lse,
    more_splits,
    o,
    lse,
    count,
    DV: tl.constexpr,
    BLOCK_V: tl.constexpr,
):
    """Merge all parts of one query of one head into one softmax."""
    row = tl.program_id(0).to(tl.int64)
    e = tl.arange(0, BLOCK_V)
    top = tl.full([1], float("-inf"), tl.float32)
    total = tl.zeros([1], tl.float32)
    acc = tl.zeros([BLOCK_V], tl.float32)
    top, total, acc = _with_parts(top, total, acc, parts, part_lse, splits, count, row, DV, BLOCK_V)
    top, total, acc = _with_parts(
        top, total, acc, more, more_lse, more_splits, count, row, DV, BLOCK_V
    )
    some = total > 0.0
    safe = tl.where(some, total, 1.0)
    tl.store(o + row * DV + e, acc / safe, mask=e < DV)
    log_sum = tl.where(some, top + tl.log(safe), float("-inf"))
    tl.store(lse + row + tl.arange(0, 1), log_sum)


@triton.jit(do_not_specialize=_VARYING)
def received_kernel(
    q,
    k,
    lse,  # (B, H, queries) contiguous
    mass,  # (B, H, keys) contiguous, float32
    q_row,
    q_head,
    q_token,
    k_row,
    k_head,
    k_token,
    groups,
    queries,
    keys,
    offset,
    near,
    far,
    scale,
    softcap,
    SHARED: tl.constexpr,
    D: tl.constexpr,
    BLOCK_D: tl.constexpr,
    BLOCK_M: tl.constexpr,
    BLOCK_N: tl.constexpr,
    BANDED: tl.constexpr,
    CAPPED: tl.constexpr,
    PRECISION: tl.constexpr,
):
    """Compute the mass that one tile of keys receives from all queries of one head."""
    heads = groups * SHARED
    tile = tl.program_id(0)
    row = (tl.program_id(1) // heads).to(tl.int64)
    head = tl.program_id(1) % heads
    n = tile * BLOCK_N + tl.arange(0, BLOCK_N)
    d = tl.arange(0, BLOCK_D)
    key_at = k + row * k_row + (head // SHARED) * k_head + n * k_token
    key = tl.load(
        key_at[None, :] + d[:, None], mask=(n < keys)[None, :] & (d < D)[:, None], other=0.0
    )
    gathered = tl.zeros([BLOCK_N], tl.float32)
    first = 0
    last = queries
    if BANDED:  # skip queries that see no key of the tile
        first = tl.maximum(first, tile * BLOCK_N + near - offset) // BLOCK_M * BLOCK_M
        last = tl.minimum(last, tile * BLOCK_N + BLOCK_N - 1 + far - offset)
    for start in range(first, last, BLOCK_M):
        t = start + tl.arange(0, BLOCK_M)
        live = t < queries
        query_at = q + row * q_row + head * q_head + t[:, None] * q_token + d[None, :]
        x = tl.load(query_at, mask=live[:, None] & (d < D)[None, :], other=0.0)
        whole = tl.load(lse + (row * heads + head) * queries + t, mask=live, other=float("-inf"))
        seen = (whole > float("-inf"))[:, None] & (n < keys)[None, :]
        if BANDED:
            distance = t[:, None] + offset - n[None, :]
            seen = seen & (distance >= near) & (distance < far)
        s = _logits(x, key, scale, softcap, CAPPED, PRECISION)
        base = tl.where(whole > float("-inf"), whole, 0.0) * _LOG2E
        gathered += tl.sum(tl.where(seen, tl.exp2(s - base[:, None]), 0.0), 0)
    tl.store(mass + (row * heads + head) * keys + n, gathered, mask=n < keys)


@triton.jit(do_not_specialize=_VARYING)
def received_one_kernel(
    q,
    k,
    lse,  # (B, H) contiguous
    mass,  # (B, H, keys) contiguous, float32
    q_row,
    q_head,
    k_row,
    k_head,
    k_token,
    groups,
    keys,
    offset,
    near,
    far,
    scale,
    softcap,
    SHARED: tl.constexpr,
    D: tl.constexpr,
    BLOCK_D: tl.constexpr,
    BLOCK_M: tl.constexpr,
    BLOCK_N: tl.constexpr,
    BANDED: tl.constexpr,
    CAPPED: tl.constexpr,
    PRECISION: tl.constexpr,
):
    """Compute the mass of one tile of keys, for a single query of each head of the key head."""
    tile = tl.program_id(0)
    row = (tl.program_id(1) // groups).to(tl.int64)
    group = tl.program_id(1) % groups
    n = tile * BLOCK_N + tl.arange(0, BLOCK_N)
    m = tl.arange(0, BLOCK_M)
    d = tl.arange(0, BLOCK_D)
    head = group * SHARED + m
    live = m < SHARED
    query_at = q + row * q_row + head[:, None] * q_head + d[None, :]
    x = tl.load(query_at, mask=live[:, None] & (d < D)[None, :], other=0.0)
    key_at = k + row * k_row + group * k_head + n * k_token
    key = tl.load(
        key_at[None, :] + d[:, None], mask=(n < keys)[None, :] & (d < D)[:, None], other=0.0
    )
    unit = row * (groups * SHARED) + head
    whole = tl.load(lse + unit, mask=live, other=float("-inf"))
    seen = (whole > float("-inf"))[:, None] & (n < keys)[None, :]
    if BANDED:
        distance = offset - n[None, :]
        seen = seen & (distance >= near) & (distance < far)
    s = _logits(x, key, scale, softcap, CAPPED, PRECISION)
    base = tl.where(whole > float("-inf"), whole, 0.0) * _LOG2E
    p = tl.where(seen, tl.exp2(s - base[:, None]), 0.0)
    tl.store(mass + unit[:, None] * keys + n[None, :], p, mask=live[:, None] & (n < keys)[None, :])
