"""A mask must fit the tokens, and positions be those that the memory gives by itself."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from inf_llm.errors import UnsupportedInputError


def check_mask(mask: Any, tokens: Any, seen: int) -> None:
    """See that a 2-D attention mask has a column for every token of every row.

    Args:
        mask: what was given as the attention mask.
        tokens: (B, L) or (B, L, width), the tokens fed or their embeddings; None is fine.
        seen: tokens fed before, padding included.

    Raises:
        UnsupportedInputError: it has fewer or more.
    """
    if not torch.is_tensor(mask) or mask.dim() != 2 or not torch.is_tensor(tokens):
        return
    rows, length = tokens.shape[:2]
    if mask.shape != (rows, seen + length):
        raise UnsupportedInputError(
            f"the attention mask covers {mask.shape[1]} tokens of {mask.shape[0]} rows, but {seen} "
            f"were seen before and {length} are new, in {rows} rows: it must be ({rows}, "
            f"{seen + length})"
        )


def check_positions(positions: Any, mask: Any, seen: int, expected: Tensor | None = None) -> None:
    """See that `position_ids` are those that the memory gives by itself.

    Args:
        positions: (B or 1, L), or (P, B or 1, L) where a model keeps several; None is fine. One
            token at a time is not checked on a GPU, which would have to wait for it.
        mask: (B, seen + L), 1 for tokens and 0 for padding, or None without padding. Padding may
            be counted or not; its own positions do not matter.
        seen: tokens fed before, padding included.
        expected: (B, L), where rows differ, or one holds the tokens of several memories.

    Raises:
        UnsupportedInputError: a row's tokens do not stand one after another.
    """
    if not torch.is_tensor(positions) or (positions.is_cuda and positions.shape[-1] == 1):
        return
    length = positions.shape[-1]
    columns = torch.arange(seen, seen + length, device=positions.device)[None]
    if expected is not None:
        columns = expected.to(positions.device)
    right = positions == columns
    if torch.is_tensor(mask) and mask.dim() == 2 and mask.shape[1] == seen + length:
        mask = mask.to(positions.device)
        own, padding = mask.long().cumsum(1)[:, seen:] - 1, mask[:, seen:] == 0
        right = (right | padding).all(-1) | ((positions == own) | padding).all(-1)
    if bool(right.all()):
        return
    if positions.dim() == 3:
        raise UnsupportedInputError(
            f"position_ids have {positions.shape[0]} axes that differ, as for the parts of an "
            "image, and a memory knows one position a token: feed text alone, or inf_llm.unpatch "
            "the model"
        )
    raise UnsupportedInputError(
        f"position_ids {_shown(positions)} are not supported: with {seen} tokens seen before, the "
        f"memory counts on from {seen} (a row's left padding left out or not). Leave position_ids "
        "out; if none were passed, pass the cache that holds what stands before these tokens"
    )


def _shown(positions: Tensor) -> str:
    row = positions.reshape(-1, positions.shape[-1])[-1].tolist()
    return f"[{', '.join(map(str, row[:8]))}{', ...' if len(row) > 8 else ''}]"
