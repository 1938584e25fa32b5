"""One layer of a cache: it branches, goes back, and takes other rows by itself."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch

import inf_llm
from tests.hf.tiny import feed, read, tiny_patched, tokens


@pytest.mark.parametrize("branch", [copy.deepcopy, copy.copy])
def test_a_layer_branches_by_itself(branch: Callable[[Any], Any]) -> None:
    model = tiny_patched()
    trunk, apart = read(model, 200), read(model, 200)
    twin = inf_llm.new_cache(model)
    twin.layers = [branch(layer) for layer in trunk.layers]
    more = tokens(40, seed=1)
    wanted = feed(model, more, apart)
    assert torch.equal(feed(model, more, twin), wanted)
    assert torch.equal(feed(model, more, trunk), wanted)


def test_a_positive_crop_is_the_length_to_keep() -> None:
    model = tiny_patched()
    cache = read(model, 48)
    cache.activate_past_recording()
    feed(model, tokens(1), cache)
    cache.memories[0].crop(48)
    assert cache.memories[0].get_seq_length() == 48
    cache.memories[1].crop(100)
    assert cache.memories[1].get_seq_length() == 49


def test_rows_can_be_chosen_and_repeated() -> None:
    model = tiny_patched()
    ids, end = tokens(200, rows=3), tokens(20, rows=3, seed=1)
    whole = inf_llm.new_cache(model)
    feed(model, ids, whole)
    chosen = whole.fork()
    wanted = feed(model, end, whole)
    chosen.batch_select_indices(torch.tensor([False, True, True]))
    chosen.batch_repeat_interleave(2)
    rows = torch.tensor([1, 1, 2, 2])
    assert torch.allclose(feed(model, end[rows], chosen), wanted[rows], atol=1e-4)
