"""A mask must fit the tokens, and positions be those that the memory gives by itself."""

from __future__ import annotations

import pytest
import torch

import inf_llm
from inf_llm.errors import (
    UnsupportedInputError,
)
from tests.hf.tiny import (
    left_padded,
    tiny_patched,
    tokens,
)

BAD_MASKS = {
    "right-padding": (torch.tensor([[1] * 20, [1] * 15 + [0] * 5]), "pad on the left"),
    "too-long": (torch.tensor([[0] * 5 + [1] * 25, [1] * 30]), "covers 30 tokens.*20 are new"),
    "too-short": (torch.tensor([[0] * 5 + [1] * 10, [1] * 15]), "covers 15 tokens.*20 are new"),
    "too-long, all ones": (torch.ones(2, 30), r"covers 30 tokens.*must be \(2, 20\)"),
    "too-short, all ones": (torch.ones(2, 17), r"covers 17 tokens.*must be \(2, 20\)"),
    "one-row": (torch.tensor([[0] * 5 + [1] * 15]), "of 1 rows, .* in 2 rows"),
    "three-rows": (torch.tensor([[0] * 5 + [1] * 15] * 3), "of 3 rows, .* in 2 rows"),
    "three-rows, all ones": (torch.ones(3, 20), "of 3 rows, .* in 2 rows"),
}


@pytest.mark.parametrize("name", BAD_MASKS)
@pytest.mark.parametrize("use_cache", [True, False], ids=["cache", "no-cache"])
def test_a_mask_that_cannot_be_followed_is_refused(name: str, use_cache: bool) -> None:
    mask, message = BAD_MASKS[name]
    with pytest.raises(UnsupportedInputError, match=message):
        tiny_patched()(tokens(20, rows=2), attention_mask=mask, use_cache=use_cache)


@pytest.mark.parametrize("use_cache", [True, False], ids=["cache", "no-cache"])
def test_positions_other_than_the_memorys_own_are_refused(use_cache: bool) -> None:
    model, ids = tiny_patched(), tokens(10)
    packed = torch.tensor([[0, 1, 2, 3, 4, 0, 1, 2, 3, 4]])
    for wrong in (packed, torch.arange(10)[None] * 2, torch.arange(10)[None] + 3):
        with pytest.raises(UnsupportedInputError, match=r"position_ids \[.*counts on from 0"):
            model(ids, position_ids=wrong, use_cache=use_cache)
    model(ids, position_ids=torch.arange(10)[None], use_cache=use_cache)


def test_positions_go_on_where_the_cache_ends_and_may_count_padding_or_not() -> None:
    model = tiny_patched()
    ids, mask = left_padded(tokens(10), tokens(6, seed=1))
    counted = torch.arange(10).expand(2, 10)
    for first in (counted, (mask.cumsum(1) - 1).clamp(min=0), None):
        cache = inf_llm.new_cache(model)
        model(ids, attention_mask=mask, position_ids=first, past_key_values=cache)
        more = torch.cat((mask, mask.new_ones(2, 1)), 1)
        following = None if first is None else first[:, -1:] + 1
        step = {"attention_mask": more, "past_key_values": cache}
        with pytest.raises(UnsupportedInputError, match="with 10 tokens seen before"):
            model(ids[:, :1], position_ids=torch.zeros(2, 1, dtype=torch.long), **step)
        model(ids[:, :1], position_ids=following, **step)
