"""The functions of ``sketch.c`` with tensors; None where there is no library, or not for these."""

from __future__ import annotations

import ctypes
import functools
from typing import Any

import torch
from torch import Tensor

from inf_llm.native.library import library

_P, _L, _F, _I = ctypes.c_void_p, ctypes.c_long, ctypes.c_float, ctypes.c_int
_DTYPES = (torch.float32, torch.bfloat16)  # of vectors


@functools.cache
def _functions() -> tuple[Any, Any, Any] | None:
    found = library()
    if found is None:
        return None
    ask, best = found.ask_sketch, found.best_blocks
    ask.argtypes = [_P, _P, *[_L] * 5, _F, _F, _F, _P, _L, _P, _P]
    best.argtypes = [_P, _P, _L, _F, _P, _L, _L, _P, _L, _P, _I, _L, _L, _P, *[_L] * 4, _P, _P]
    find = found.find_blocks
    find.argtypes = [_P, _P, *[_L] * 4, _F, _F, _F, _P, _L, _P, _L, _P, _I, _L, _L, _L, _P, _P]
    return ask, best, find


def asked(
    queries: Tensor,
    centre: Tensor,
    codes: Tensor,
    parts: int,
    fine: float,
    lost: float,
    kept: float,
) -> tuple[Tensor, Tensor] | None:
    """Products and facts for `inf_llm.memory.sketch.Bounds`.

    Args:
        queries: (n, X, W).
        centre: (V, 1, W).
        codes: of the blocks asked about (count, V * W).
        parts: how many codes a query gets, P, the second `fine` times finer.
        fine: see there.
        lost: length of what rounding took off the longest block.
        kept: length of the longest block.

    Returns:
        Products (P, n, X, count) and facts (3, n, X).
    """
    functions = _functions()
    if functions is None:
        return None
    n, X, W = queries.shape
    products = torch.empty(parts, n, X, len(codes), dtype=torch.int32)
    facts = torch.empty(3, n, X)
    failed = functions[0](
        queries.data_ptr(),
        centre.data_ptr(),
        n,
        X,
        len(centre),
        W,
        parts,
        fine,
        lost,
        kept,
        codes.data_ptr(),
        len(codes),
        products.data_ptr(),
        facts.data_ptr(),
    )
    return None if failed else (products, facts)


def _filled(
    function: Any, arguments: tuple[Any, ...], queries: int, topk: int, total: int
) -> tuple[Tensor, Tensor] | None:
    """What a function finds: blocks and scores (queries, topk); None where it could not."""
    blocks = torch.empty(queries, topk, dtype=torch.int64)
    scores = torch.empty(queries, topk)
    failed = function(*arguments, total, topk, blocks.data_ptr(), scores.data_ptr())
    return None if failed else (blocks, scores)


def best(
    products: Tensor,
    scales: Tensor,
    facts: Tensor,
    fine: float,
    vectors: Tensor,
    query: Tensor,
    topk: int,
    total: int,
) -> tuple[Tensor, Tensor] | None:
    """The best blocks by true scores.

    Args:
        products: as `asked` gives them, of one question, in groups (P, X, groups, GROUP).
        scales: of groups (V, groups).
        facts: as `asked` gives them, of one question (3, X).
        fine: how much finer the second part is.
        vectors: of blocks (V, room, W), in float32 or bfloat16.
        query: (X, W).
        topk: how many.
        total: blocks that there are, of which those behind the groups are candidates too.

    Returns:
        Blocks (X, topk), ascending, and their scores.
    """
    functions = _functions()
    if functions is None or vectors.dtype not in _DTYPES:
        return None
    X, W = query.shape
    arguments = (
        products.data_ptr(),
        products[1].data_ptr() if len(products) == 2 else None,
        products.stride(1),
        fine,
        scales.data_ptr(),
        scales.stride(0),
        products.shape[2] * products.shape[3],
        facts.data_ptr(),
        facts.stride(0),
        vectors.data_ptr(),
        vectors.dtype == torch.bfloat16,
        *vectors.shape[:2],
        query.data_ptr(),
        X,
        W,
    )
    return _filled(functions[1], arguments, X, topk, total)


def find(
    query: Tensor,
    centre: Tensor,
    codes: Tensor,
    scales: Tensor,
    known: int,
    parts: int,
    fine: float,
    lost: float,
    kept: float,
    vectors: Tensor,
    topk: int,
    total: int,
) -> tuple[Tensor, Tensor] | None:
    """`asked` and `best` in one, for a query (X, W).

    `codes` (room, V * W) and `scales` (V, groups) may be longer than the `known` blocks.
    """
    functions = _functions()
    if functions is None or vectors.dtype not in _DTYPES:
        return None
    X, W = query.shape
    arguments = (
        query.data_ptr(),
        centre.data_ptr(),
        X,
        len(centre),
        W,
        parts,
        fine,
        lost,
        kept,
        codes.data_ptr(),
        known,
        scales.data_ptr(),
        scales.stride(0),
        vectors.data_ptr(),
        vectors.dtype == torch.bfloat16,
        vectors.shape[1],
    )
    return _filled(functions[2], arguments, X, topk, total)
