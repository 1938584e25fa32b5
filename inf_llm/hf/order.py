"""Checks that a mask fits the tokens, and that positions are those that the memory assigns."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from inf_llm.errors import UnsupportedInputError


def check_mask(mask: Any, tokens: Any, seen: int) -> None:
    """Check that a 2-D attention mask has a column for every token of every row.

    Args:
        mask: the attention mask as given; anything but a 2-D tensor is not checked.
        tokens: (B, L) or (B, L, width), the tokens fed or their embeddings; None skips the check.
        seen: tokens fed before, padding included.

    Raises:
        UnsupportedInputError: the mask has more or fewer columns or rows.
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
    """Check that `position_ids` are those that the memory assigns.

    Args:
        positions: (B or 1, L), or (P, B or 1, L) where a model has several per token; None skips
            the check. A single token is not checked on a GPU, because the host would have to wait
            for the device.
        mask: (B, seen + L), 1 for tokens and 0 for padding, or None without padding. Positions may
            count padding or not; the positions of padding are not checked.
        seen: tokens fed before, padding included.
        expected: (B, L), the positions where they differ between rows, or where one row holds the
            tokens of several memories.

    Raises:
        UnsupportedInputError: the tokens of a row have other positions.
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
        row_positions, padding = mask.long().cumsum(1)[:, seen:] - 1, mask[:, seen:] == 0
        right = (right | padding).all(-1) | ((positions == row_positions) | padding).all(-1)
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
