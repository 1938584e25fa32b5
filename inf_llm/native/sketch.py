"""The functions of ``sketch.c`` with tensors; None where they are not built, or not for these.

They are an optional extension module that is built with the package. A decode step on a CPU is a
few large products and very many small operations, and each of these costs microseconds of
interpreter and dispatch before it does anything. In C they are one call.
"""

from __future__ import annotations

import functools
import logging
import os
from types import ModuleType
from typing import Any

import torch  # before the extension, which then shares torch's OpenMP
from torch import Tensor

logger = logging.getLogger(__name__)

_DTYPES = (torch.float32, torch.bfloat16)  # of vectors


@functools.cache
def _functions() -> ModuleType | None:
    """The fastest that this processor can run; None if not built, or not wanted."""
    if os.environ.get("INF_LLM_NATIVE", "1") == "0":
        return None
    try:
        from inf_llm.native import _sketch
    except ImportError as error:
        logger.debug("torch searches blocks: %s", error)
        return None
    return next(iter(_sketch.variants.values()))


def in_use() -> str:
    """What searches blocks on a CPU: "torch", or "C" and the processors that it is built for."""
    functions = _functions()
    return "torch" if functions is None else f"C ({functions.__name__})"


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
    done = functions.ask(
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
        torch.get_num_threads(),
        products.data_ptr(),
        facts.data_ptr(),
    )
    return (products, facts) if done else None


def _filled(
    function: Any, arguments: tuple[Any, ...], queries: int, topk: int, total: int
) -> tuple[Tensor, Tensor] | None:
    """What a function finds: blocks and scores (queries, topk); None where it could not."""
    blocks = torch.empty(queries, topk, dtype=torch.int64)
    scores = torch.empty(queries, topk)
    done = function(*arguments, total, topk, blocks.data_ptr(), scores.data_ptr())
    return (blocks, scores) if done else None


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
        products[1].data_ptr() if len(products) == 2 else 0,
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
    return _filled(functions.best, arguments, X, topk, total)


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
        torch.get_num_threads(),
        scales.data_ptr(),
        scales.stride(0),
        vectors.data_ptr(),
        vectors.dtype == torch.bfloat16,
        vectors.shape[1],
    )
    return _filled(functions.find, arguments, X, topk, total)
