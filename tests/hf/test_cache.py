"""The cache of a patched model: what it counts, branches, takes back, and refuses to be."""

from __future__ import annotations

import copy
import gc
import io
import pickle
from collections.abc import Callable
from multiprocessing.reduction import ForkingPickler
from typing import Any

import pytest
import torch
from transformers import DynamicCache, QuantizedCache, StaticCache

import inf_llm
from inf_llm.errors import CropError, UnsupportedInputError
from inf_llm.hf.cache import MemoryCache
from tests.hf.families import exists
from tests.hf.tiny import LONG, feed, left_padded, read, tiny, tiny_patched, tokens
from tests.hf.zoo import WORKING


def test_stats_count_tokens_blocks_bytes_and_traffic() -> None:
    model = tiny_patched()
    cache = inf_llm.new_cache(model)
    assert cache.stats().total.tokens == 0
    layers = model.config.num_hidden_layers
    heads, width = model.config.num_key_value_heads, 16
    device = set()
    for turn in range(1, 9):
        read(model, 64, cache, seed=turn)
        stats = cache.stats()
        sealed = (64 * turn - LONG["n_local"] - LONG["n_init"]) // LONG["block_size"]
        assert len(stats.layers) == layers
        assert stats.total.tokens == 64 * turn
        assert [layer.blocks for layer in stats.layers] == [sealed] * layers
        assert stats.total.host_bytes == layers * sealed * 8 * heads * 2 * width * 4
        if turn > 2:
            device.add(stats.total.device_bytes)
    assert len(device) == 1, f"device bytes are not constant: {device}"
    total = cache.stats().total
    recalls = sum(min(3, blocks) for blocks in _blocks_at_each_feed(512)) * layers
    assert total.hits + total.misses == recalls
    assert total.loads == total.misses >= LONG["max_cached_block"]
    assert total.evictions == total.loads - LONG["max_cached_block"] * layers


def _blocks_at_each_feed(count: int) -> list[int]:
    kept = LONG["n_local"] + LONG["n_init"]
    return [
        max(0, seen - kept) // LONG["block_size"]
        for seen in range(0, count, LONG["exc_block_size"])
    ]


@pytest.mark.parametrize("kind", ["infinite-lm", "stream-lm"])
def test_a_window_does_not_grow(kind: str) -> None:
    model = tiny_patched(type=kind, n_local=32, n_init=4)
    cache = read(model, 256)
    before = cache.stats().total.device_bytes
    read(model, 512, cache)
    assert cache.stats().total.device_bytes == before
    assert cache.stats().total.tokens == 768


@pytest.mark.parametrize(
    "branch", [MemoryCache.fork, copy.deepcopy, copy.copy], ids=["fork", "deepcopy", "copy"]
)
@pytest.mark.parametrize("padded", [False, True])
def test_branches_go_on_by_themselves_and_share_their_blocks(
    branch: Callable[[MemoryCache], MemoryCache], padded: bool
) -> None:
    model = tiny_patched()
    ids, mask = left_padded(tokens(240), tokens(160 if padded else 240, seed=1))
    trunk, apart = inf_llm.new_cache(model), inf_llm.new_cache(model)
    for cache in (trunk, apart):
        feed(model, ids, cache, mask)
    store = trunk.memories[0].rows.members[0].memory.store
    held = store.used()
    twin = branch(trunk)
    assert store.used() == held, "sealed blocks were copied"
    ends = [tokens(64, rows=2, seed=seed) for seed in (5, 6)]
    longer = torch.cat((mask, torch.ones_like(ends[0])), 1)
    wanted = feed(model, ends[0], apart, longer)
    other = feed(model, ends[1], twin, longer)
    assert torch.allclose(feed(model, ends[0], trunk, longer), wanted, atol=1e-4)
    assert not torch.allclose(other, wanted, atol=1e-2)
    assert trunk.get_seq_length() == twin.get_seq_length() == 304
    after = store.used()
    del twin
    gc.collect()
    assert held < store.used() < after, "a branch's own blocks are freed with it"


WRITERS: dict[str, Callable[[Any], Any]] = {
    "pickle": pickle.dumps,
    "torch.save": lambda held: torch.save(held, io.BytesIO()),
    "multiprocessing": ForkingPickler.dumps,
}


@pytest.mark.parametrize("count", [8, 200], ids=["a window", "blocks"])
@pytest.mark.parametrize("writer", WRITERS)
@pytest.mark.parametrize("what", ["MemoryCache", "MemoryLayer"])
def test_a_memory_is_not_written_anywhere(what: str, writer: str, count: int) -> None:
    """It would be the model and all the room there is; and nothing could read it again."""
    cache = read(tiny_patched(), count)
    held = cache if what == "MemoryCache" else cache.layers[1]
    for given in (held, {"past_key_values": [held]}):
        with pytest.raises(UnsupportedInputError, match=f"a {what} cannot be pickled, saved"):
            WRITERS[writer](given)


@pytest.mark.parametrize("writer", WRITERS)
def test_nor_are_its_parts_that_hold_blocks(writer: str) -> None:
    rows = read(tiny_patched(), 200).memories[0].rows
    with pytest.raises(UnsupportedInputError, match="cannot be pickled, saved"):
        WRITERS[writer](rows)


def test_no_tensor_within_reach_is_part_of_much_more() -> None:
    """What saves a tensor writes all of its storage."""
    cache = read(tiny_patched(), 600)
    rows = cache.memories[0].rows
    recalled = rows.members[0].recalled
    tier = rows.members[0].memory.store.tier
    for tensor in (recalled.k, recalled.v, recalled.blocks, *tier.read(torch.arange(2))):
        assert tensor.untyped_storage().nbytes() <= 2 * max(64, tensor.nbytes)
    held = cache.stats().total
    room = sum(
        part.untyped_storage().nbytes()
        for layer in cache.memories
        for slab in layer.rows.members[0].memory.store.tier._slabs
        for part in slab
    )
    assert room <= max(2 * held.host_bytes, len(cache.memories) << 20)


@pytest.mark.parametrize("family", ["lfm2", "qwen3_5"])
def test_the_other_layers_of_a_hybrid_model_branch_too(family: str) -> None:
    if not exists(WORKING[family]):
        pytest.skip(f"this transformers cannot feed {family} in parts")
    model = tiny_patched(family)
    trunk, apart, other = (read(model, 96) for _ in range(3))
    twin = trunk.fork()
    for count in (20, 1):
        left, right = tokens(count, seed=8), tokens(count, seed=9)
        assert torch.equal(feed(model, left, twin), feed(model, left, other))
        assert torch.equal(feed(model, right, trunk), feed(model, right, apart))


@pytest.mark.parametrize("start", [40, 200])
@pytest.mark.parametrize("back", [1, 5, 9])
def test_what_was_cropped_was_never_there(start: int, back: int) -> None:
    model = tiny_patched()
    cache, other = read(model, start), read(model, start)
    cache.activate_past_recording()
    for token in tokens(9, seed=1).split(1, 1):
        feed(model, token, cache)
    cache.crop(-back)
    assert cache.get_seq_length() == start + 9 - back
    for token in tokens(9, seed=1).split(1, 1)[: 9 - back]:
        feed(model, token, other)
    more = tokens(20, seed=2)
    assert torch.equal(feed(model, more, cache), feed(model, more, other))


def test_crop_says_how_far_back_it_can_go() -> None:
    model = tiny_patched()
    cache = read(model, 100)
    with pytest.raises(CropError, match=r"cannot go back to 90 of 100 tokens.*none"):
        cache.crop(-10)
    with pytest.raises(CropError, match="cannot forget 101 tokens: only 100 were seen"):
        cache.crop(-101)
    cache.activate_past_recording()
    feed(model, tokens(4), cache)
    with pytest.raises(CropError, match=r"go back to 102 of 104.*go back to: 100"):
        cache.crop(-2)
    cache.memories[0].record_past = False
    with pytest.raises(CropError, match="none"):
        cache.crop(-4)


def test_reset_forgets_everything() -> None:
    model = tiny_patched()
    cache = read(model, 100)
    cache.reset()
    assert cache.get_seq_length() == 0
    ids = tokens(100, seed=3)
    wanted = feed(model, ids, inf_llm.new_cache(model))
    assert torch.equal(feed(model, ids, cache), wanted)


def _filled(model: Any) -> DynamicCache:
    other = tiny()
    return other(tokens(20), use_cache=True).past_key_values


def _offloaded() -> DynamicCache:
    try:
        return DynamicCache(offloading=True)
    except RuntimeError as error:  # a build of torch for CUDA, where there is no driver
        pytest.skip(f"transformers cannot make one here: {str(error).splitlines()[0]}")


FOREIGN: dict[str, tuple[Callable[[Any], Any], str]] = {
    "static": (lambda model: StaticCache(config=model.config, max_cache_len=64), "StaticCache"),
    "offloaded": (lambda model: _offloaded(), "DynamicCache with offloading"),
    "filled": (_filled, "already holds 20 tokens of another attention"),
}


@pytest.mark.parametrize("kind", FOREIGN)
def test_a_foreign_cache_is_refused_with_what_would_do(kind: str) -> None:
    make, message = FOREIGN[kind]
    model = tiny_patched()
    with pytest.raises(UnsupportedInputError, match=message) as refusal:
        model(tokens(20), past_key_values=make(model))
    assert "empty" in str(refusal.value)
    with pytest.raises(UnsupportedInputError, match=message):
        model.generate(tokens(30), max_new_tokens=2, past_key_values=make(model))


def test_a_quantized_cache_is_refused() -> None:
    cache = QuantizedCache.__new__(QuantizedCache)  # its back ends are not installed here
    cache.layers = []
    with pytest.raises(UnsupportedInputError, match="QuantizedCache cannot hold the memory"):
        tiny_patched()(tokens(20), past_key_values=cache)


@pytest.mark.parametrize("name", ["static", "offloaded"])
def test_asking_generate_for_another_cache_is_refused(name: str) -> None:
    if name == "offloaded":
        _offloaded()
    with pytest.raises(UnsupportedInputError, match="cannot hold the memory"):
        tiny_patched().generate(tokens(20), max_new_tokens=2, cache_implementation=name)


def test_an_empty_plain_cache_becomes_a_memory() -> None:
    model, cache = tiny_patched(), DynamicCache()
    model(tokens(20), past_key_values=cache)
    assert isinstance(cache, MemoryCache)
    assert cache.get_seq_length() == 20
