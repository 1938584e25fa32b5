"""The functions of `loops.c` with tensors on a CPU; to be called only if they are `available`.

Sums are in float32, on one thread; other Python threads can run meanwhile.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from inf_llm.native import functions

Piece = tuple[Tensor, Tensor, Tensor]
"""Queries (B, H, 1, D), and keys (B, G, K, D) and values (B, G, K, Dv); G and K may differ between
pieces."""


def available() -> bool:
    """Return whether the functions of this module can be called."""
    return functions() is not None


def takes(x: Tensor) -> bool:
    """Return whether the functions of float32 numbers can be called for x."""
    return x.dtype == torch.float32 and x.device.type == "cpu" and available()


MAX_WIDTH = 1024
"""Largest width of heads; as in `loops.c`, which refuses wider ones."""
_BYTES = {torch.float32: 4, torch.bfloat16: 2}


def attends(q: Tensor, k: Tensor, v: Tensor) -> bool:
    """Return whether `attend` supports these queries, keys and values."""
    known = available() and k.dtype in _BYTES and k.dtype == v.dtype == q.dtype
    return known and k.device.type == "cpu" and max(k.shape[3], v.shape[3]) <= MAX_WIDTH


def attend(pieces: Sequence[Piece], scale: float) -> tuple[Tensor, Tensor]:
    """Compute one softmax over all pieces, for one query of each head.

    Args:
        pieces: queries, keys and values, in float32 or bfloat16; pieces have disjoint keys.
        scale: factor on the products of queries and keys.

    Returns:
        Output (B, H, 1, Dv), and the weights of all keys (B, H, keys of all pieces), in float32.
    """
    pieces = [(q.float().contiguous(), _of_heads(k), _of_heads(v)) for q, k, v in pieces]
    q, _, v = pieces[0]
    (B, H, _, D), Dv = q.shape, v.shape[3]
    count = sum(k.shape[2] for _, k, _ in pieces)
    weights, out = q.new_empty(B, H, count), q.new_empty(B, H, 1, Dv)
    native: Any = functions()
    for row in range(B):
        numbers = tuple(number for piece in pieces for number in _numbers(piece, row))
        addresses = weights.data_ptr() + row * H * count * 4, out.data_ptr() + row * H * Dv * 4
        native.attend(numbers, H, D, Dv, count, scale, *addresses)
    return out, weights


def _of_heads(x: Tensor) -> Tensor:
    """Return x with contiguous head vectors."""
    assert x.dtype in _BYTES, f"{x.dtype} where float32 or bfloat16 is needed"
    return x if x.stride(3) == 1 else x.contiguous()


def _numbers(piece: Piece, row: int) -> tuple[int, ...]:
    """Return the fields of a `struct piece` for one row."""
    _, k, v = piece
    assert k.dtype == v.dtype, f"keys in {k.dtype}, values in {v.dtype}"
    at = (x.data_ptr() + row * x.stride(0) * _BYTES[x.dtype] for x in piece)
    half = k.dtype == torch.bfloat16
    return *at, half, *k.shape[1:3], k.stride(1), k.stride(2), v.stride(1), v.stride(2)


def int8_product(x: Tensor, weight: Tensor, scales: Tensor) -> Tensor:
    """Multiply vectors (..., m) with int8 weights (n, m), with a scale for each output (n,).

    Args:
        x: vectors in float32.
        weight: int8 weights, contiguous.
        scales: scales in float32.

    Returns:
        Products (..., n) in float32.
    """
    assert x.dtype == scales.dtype == torch.float32, f"{x.dtype} where float32 is needed"
    n, m = weight.shape
    x, out = x.contiguous(), torch.empty(*x.shape[:-1], n)
    addresses = weight.data_ptr(), scales.data_ptr()
    native: Any = functions()
    native.int8_product(x.data_ptr(), x.numel() // m, *addresses, n, m, out.data_ptr())
    return out


def page_scores(q: Tensor, codes: Tensor, steps: Tensor) -> Tensor:
    """Return the largest products of queries with the pages of each block.

    Args:
        q: queries (B, H, Q, D) in float32.
        codes: int8 pages (B, U, S * P, D); U divides H.
        steps: size of one code step in each block (B, U, S), in float32.

    Returns:
        Scores (B, H, Q, S).
    """
    assert q.dtype == steps.dtype == torch.float32, f"{q.dtype} where float32 is needed"
    (B, H, Q, D), (U, S) = q.shape, steps.shape[1:]
    q, out = q.contiguous(), q.new_empty(B, H, Q, S)
    codes = codes if codes.stride()[2:] == (D, 1) else codes.contiguous()
    steps = steps if steps.stride(2) == 1 else steps.contiguous()
    sizes = U, H // U * Q, S, codes.shape[2] // S, D, codes.stride(1), steps.stride(1)
    native: Any = functions()
    for row in range(B):
        native.page_scores(
            q.data_ptr() + row * H * Q * D * 4,
            codes.data_ptr() + row * codes.stride(0),
            steps.data_ptr() + row * steps.stride(0) * 4,
            out.data_ptr() + row * H * Q * S * 4,
            *sizes,
        )
    return out


def rotate(x: Tensor, cosines: Tensor, sines: Tensor, start: int) -> Tensor:
    """Rotate vectors; a pair is two halves of the 2R rotated dimensions.

    Args:
        x: vectors (B, H, L, D) in float32.
        cosines: cosines (..., 2R) in float32; they broadcast to (B, H, L, 2R).
        sines: signed sines with the same shape and strides.
        start: first rotated dimension.

    Returns:
        The vectors (B, H, L, D), contiguous; dimensions that are not rotated are unchanged.
    """
    assert x.dtype == cosines.dtype == sines.dtype == torch.float32, "float32 is needed"
    assert sines.stride() == cosines.stride(), "the tables differ in their strides"
    x, out = _of_heads(x), torch.empty(x.shape)
    tables = cosines.expand(*x.shape[:-1], -1).stride()[:-1]
    addresses = (each.data_ptr() for each in (x, cosines, sines, out))
    native: Any = functions()
    native.rotate(*addresses, *x.shape, start, cosines.shape[-1] // 2, *x.stride()[:-1], *tables)
    return out


def gather(x: Tensor, rows: Tensor) -> Tensor:
    """Return copies of rows (n,), int64, of a contiguous x (N, W) of any dtype: (n, W).

    torch copies many numbers with all its threads, whose start takes longer than a few pages do.

    Raises:
        IndexError: x has no such row.
    """
    assert rows.dtype == torch.int64, f"{rows.dtype} where int64 is needed"
    assert x.is_contiguous(), "rows that are not contiguous"
    rows, out = rows.contiguous(), x.new_empty(rows.shape[0], x.shape[1])
    sizes = x.shape[0], x.shape[1] * x.element_size()
    native: Any = functions()
    native.gather(x.data_ptr(), *sizes, rows.data_ptr(), rows.shape[0], out.data_ptr())
    return out


def softmax(x: Tensor) -> Tensor:
    """Return the softmax over the last dimension of x (..., n) in float32.

    For few numbers torch starts all its threads, which takes longer than the sums.
    """
    assert x.dtype == torch.float32, f"{x.dtype} where float32 is needed"
    out = x.clone(memory_format=torch.contiguous_format)
    native: Any = functions()
    native.softmax(out.data_ptr(), x[..., 0].numel(), x.shape[-1])
    return out
