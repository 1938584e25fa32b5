"""A cache in a folder: it goes on as if nothing had happened, for the model that it belongs to."""

from __future__ import annotations

import copy
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import DynamicCache

import inf_llm
from inf_llm.errors import SavedMemoryError, UnsupportedInputError
from inf_llm.generation import Session
from inf_llm.hf.saving import load_memory, save_memory
from inf_llm.memory.stats import MemoryStats
from tests.hf.tiny import LONG, character_tokenizer, feed, left_padded, tiny, tiny_patched, tokens

PAGES = {key: value for key, value in LONG.items() if key != "repr_topk"}
PAGES |= {"summary": {"name": "pages", "page_size": 4}}
TYPES: dict[str, dict[str, Any]] = {
    "pages": {"type": "inf-llm", **PAGES},
    "published": {"type": "inf-llm", **LONG},
    "perhead": {"type": "inf-llm", **LONG, "perhead": True},
    "shared-choice": {"type": "inf-llm", **LONG, "eviction": "lru-s", "reselect_every": 3},
    "contiguous": {"type": "inf-llm", **LONG, "far_positions": "contiguous"},
    "stream-lm": {"type": "stream-lm", "n_init": 4, "n_local": 32},
    "infinite-lm": {"type": "infinite-lm", "n_init": 4, "n_local": 32},
    "middle": {"type": "infinite-lm", "n_init": 4, "n_local": 32, "topk_middle": 3},
}


def goes_on(model: Any, cache: Any, other: Any, rows: int = 1, padded: int = 0) -> bool:
    """Whether two caches give the same bits from here, in steps of one token and of several."""
    same = True
    for step, count in enumerate((1, 1, 20, 1, 1, 1, 50, 1)):
        ids = tokens(count, rows, seed=step)
        mask = None
        if padded:
            mask = torch.ones(rows, cache.get_seq_length() + count, dtype=torch.int64)
            mask[0, :padded] = 0
        both = [feed(model, ids, each, mask) for each in (cache, other)]
        same = same and torch.equal(*both)
    return same


@pytest.fixture
def read() -> tuple[Any, Any]:
    """A patched model and the cache that has read 150 tokens."""
    model = tiny_patched()
    cache = inf_llm.new_cache(model)
    feed(model, tokens(150), cache)
    return model, cache


@pytest.mark.parametrize("kind", TYPES)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_loaded_cache_goes_on_bit_by_bit(kind: str, dtype: torch.dtype, tmp_path: Path) -> None:
    model = inf_llm.patch(tiny().to(dtype), **TYPES[kind])
    cache = inf_llm.new_cache(model)
    for seed in range(3):
        feed(model, tokens(50, seed=seed), cache)
    feed(model, tokens(1), cache)
    save_memory(cache, model, tmp_path / "m")
    loaded: Any = load_memory(tmp_path / "m", model)
    assert goes_on(model, cache, loaded)
    assert _counts(loaded) == _counts(cache)


def _counts(cache: Any) -> MemoryStats:
    """What a cache holds; blocks in files and those in memory together."""
    held = cache.stats().total
    return replace(held, host_bytes=held.host_bytes + held.disk_bytes, disk_bytes=0)


def test_blocks_on_a_disk(tmp_path: Path) -> None:
    tier = {"name": "disk", "path": str(tmp_path / "tier"), "host_bytes": "4kB"}
    model = tiny_patched(tier=tier)
    far = inf_llm.new_cache(model)
    feed(model, tokens(150), far)
    assert far.stats().total.disk_bytes > 2 * far.stats().total.host_bytes
    save_memory(far, model, tmp_path / "m")
    loaded = load_memory(tmp_path / "m", model)
    assert goes_on(model, far, loaded)
    inf_llm.patch(inf_llm.unpatch(model), type="inf-llm", **LONG)
    in_memory = load_memory(tmp_path / "m", model)
    fresh = inf_llm.new_cache(model)
    feed(model, tokens(150), fresh)
    assert goes_on(model, fresh, in_memory)


@pytest.mark.parametrize("family", ["qwen3_next", "lfm2", "gemma3", "gpt_oss"])
def test_other_layers_are_saved_too(family: str, tmp_path: Path) -> None:
    model = tiny_patched(family)
    cache = inf_llm.new_cache(model)
    feed(model, tokens(150), cache)
    save_memory(cache, model, tmp_path)
    assert goes_on(model, cache, load_memory(tmp_path, model))


def test_a_padded_batch(tmp_path: Path) -> None:
    model = tiny_patched()
    cache = inf_llm.new_cache(model)
    ids, mask = left_padded(tokens(120), tokens(150, seed=1))
    feed(model, ids, cache, mask)
    save_memory(cache, model, tmp_path)
    loaded = load_memory(tmp_path, model)
    assert goes_on(model, cache, loaded, rows=2, padded=30)


def test_rows_that_share_their_blocks(tmp_path: Path) -> None:
    model = tiny_patched()
    cache = inf_llm.new_cache(model)
    feed(model, tokens(150), cache)
    for layer in cache.memories:
        layer.batch_repeat_interleave(3)
    manifest = save_memory(cache, model, tmp_path)
    assert manifest.rows == 3
    assert manifest.blocks == sum(each.rows.members[0].memory.blocks for each in cache.memories)
    assert goes_on(model, cache, load_memory(tmp_path, model), rows=3)


def test_a_plain_cache(tmp_path: Path) -> None:
    model = tiny()
    cache = DynamicCache(config=model.config)
    feed(model, tokens(60), cache)
    save_memory(cache, model, tmp_path)
    assert goes_on(model, cache, load_memory(tmp_path, model))


def test_control_a_lost_window_is_seen(read: tuple[Any, Any], tmp_path: Path) -> None:
    model, cache = read
    save_memory(cache, model, tmp_path)
    loaded: Any = load_memory(tmp_path, model)
    loaded.memories[1].rows.members[0].memory.recent["v"][:, :, -1] = 0
    assert not goes_on(model, cache, loaded)


def test_saving_again_writes_only_what_is_new(read: tuple[Any, Any], tmp_path: Path) -> None:
    model, cache = read
    first = save_memory(cache, model, tmp_path)
    feed(model, tokens(64), cache)
    second = save_memory(cache, model, tmp_path)
    assert (second.id, second.generation) == (first.id, 2)
    added = [each for each in second.of_kind("blocks") if each not in first.segments]
    store = cache.memories[0].rows.members[0].memory.store
    new = second.blocks - first.blocks
    assert len(added) == 1
    assert added[0].bytes == pytest.approx(new * store.codec.block_bytes, abs=500)
    assert len(second.of_kind("state")) == 1
    assert goes_on(model, cache, load_memory(tmp_path, model))


def test_a_loaded_cache_adds_to_its_folder(read: tuple[Any, Any], tmp_path: Path) -> None:
    model, cache = read
    first = save_memory(cache, model, tmp_path)
    loaded = load_memory(tmp_path, model)
    for each in (cache, loaded):
        feed(model, tokens(64), each)
    second = save_memory(loaded, model, tmp_path)
    assert set(first.of_kind("blocks")) < set(second.of_kind("blocks"))
    assert goes_on(model, cache, load_memory(tmp_path, model))


def test_a_cache_saved_often_has_few_files_of_the_index(
    read: tuple[Any, Any], tmp_path: Path
) -> None:
    """By the process that read it, and by those that load it and read on."""
    model, cache = read
    for each in range(12):
        manifest = save_memory(cache, model, tmp_path)
        assert len(manifest.of_kind("index")) <= 4
        loaded = load_memory(tmp_path, model)
        for one in (cache, loaded):
            feed(model, tokens(40, seed=each), one)
        if each % 2:
            cache = loaded
    assert len(manifest.of_kind("blocks")) == 12
    assert {file.name for file in tmp_path.glob("index*")} == {
        each.file for each in manifest.of_kind("index")
    }


def test_a_damaged_index_is_not_taken_in(read: tuple[Any, Any], tmp_path: Path) -> None:
    """Its damage would have the checksum of the whole."""
    model, cache = read
    manifest = save_memory(cache, model, tmp_path)
    path = tmp_path / manifest.of_kind("index")[0].file
    good = path.read_bytes()
    path.write_bytes(good[:-5] + bytes([good[-5] ^ 4]) + good[-4:])
    feed(model, tokens(400), cache)
    with pytest.raises(SavedMemoryError, match=r"index-000001.safetensors is damaged"):
        save_memory(cache, model, tmp_path)
    path.write_bytes(good)
    save_memory(cache, model, tmp_path)
    assert goes_on(model, cache, load_memory(tmp_path, model))


def test_forks_of_a_loaded_cache_share_its_blocks(read: tuple[Any, Any], tmp_path: Path) -> None:
    model, cache = read
    save_memory(cache, model, tmp_path)
    loaded = load_memory(tmp_path, model)
    twin: Any = copy.deepcopy(loaded)
    stores = [each.memories[0].rows.members[0].memory.store for each in (loaded, twin)]
    assert stores[0] is stores[1]
    feed(model, tokens(40, seed=9), twin)
    assert goes_on(model, cache, loaded)


def test_of_two_that_go_on_apart_the_first_to_save_wins(
    read: tuple[Any, Any], tmp_path: Path
) -> None:
    model, cache = read
    save_memory(cache, model, tmp_path)
    other = copy.deepcopy(cache)
    feed(model, tokens(40, seed=1), cache)
    feed(model, tokens(40, seed=2), other)
    save_memory(cache, model, tmp_path)
    with pytest.raises(SavedMemoryError, match="generation 2 of this memory"):
        save_memory(other, model, tmp_path)
    save_memory(other, model, tmp_path, overwrite=True)
    assert goes_on(model, other, load_memory(tmp_path, model))


def test_blocks_that_a_crop_gave_back_are_written_anew(tmp_path: Path) -> None:
    """Their numbers are used again for other blocks, which are not in the files."""
    model = tiny_patched()
    cache = inf_llm.new_cache(model)
    feed(model, tokens(96), cache)
    cache.activate_past_recording()
    feed(model, tokens(64, seed=1), cache)
    save_memory(cache, model, tmp_path)
    cache.crop(-64)
    feed(model, tokens(64, seed=2), cache)
    save_memory(cache, model, tmp_path)
    assert goes_on(model, cache, load_memory(tmp_path, model))


def test_stores_after_a_reset_have_names_of_their_own(
    read: tuple[Any, Any], tmp_path: Path
) -> None:
    """Files of the old ones are still in the folder."""
    model, cache = read
    save_memory(cache, model, tmp_path)
    cache.reset()
    for count in (8, 90):  # at first there are no blocks
        feed(model, tokens(count, seed=count), cache)
        save_memory(cache, model, tmp_path)
    assert goes_on(model, cache, load_memory(tmp_path, model))


@pytest.mark.parametrize("count", [0, 1, 40])
def test_a_session_before_its_first_block(tmp_path: Path, count: int) -> None:
    model, tokenizer = tiny_patched(), character_tokenizer()
    session = Session(model, tokenizer)
    if count:
        session.read(tokens(count)[0].tolist())
    session.save(tmp_path)
    loaded = Session.load(tmp_path, model, tokenizer)
    for each in (session, loaded):
        each.read(tokens(70, seed=4)[0].tolist())
    assert loaded.ids == session.ids
    assert goes_on(model, session.cache, loaded.cache)


def test_a_cache_without_its_text_is_no_session(read: tuple[Any, Any], tmp_path: Path) -> None:
    model, cache = read
    save_memory(cache, model, tmp_path)
    with pytest.raises(SavedMemoryError, match="a cache without its token ids"):
        Session.load(tmp_path, model, character_tokenizer())


def test_a_note_that_cannot_be_kept_is_refused(tmp_path: Path) -> None:
    session = Session(tiny_patched(), character_tokenizer())
    with pytest.raises(UnsupportedInputError, match="note cannot be saved"):
        session.save(tmp_path / "m", note={"when": object()})
    assert not (tmp_path / "m").exists()


def _other_weights(model: Any) -> None:
    with torch.no_grad():
        next(iter(model.parameters())).view(-1)[0].add_(1e-3)


def _other_rope(model: Any) -> None:
    model.config.rope_parameters["rope_theta"] = 5000.0


@pytest.mark.parametrize(
    ("change", "field"),
    [
        (_other_weights, "weights is "),
        (_other_rope, "config.rope_parameters.rope_theta is "),
        (lambda model: model.to(torch.bfloat16), "dtype is 'float32' there, and 'bfloat16' here"),
    ],
)
def test_another_model_is_refused_by_the_field_that_differs(
    read: tuple[Any, Any], tmp_path: Path, change: Any, field: str
) -> None:
    model, cache = read
    save_memory(cache, model, tmp_path)
    change(model)
    with pytest.raises(SavedMemoryError, match=field):
        load_memory(tmp_path, model)


def test_other_settings_are_refused_with_both_values(read: tuple[Any, Any], tmp_path: Path) -> None:
    model, cache = read
    save_memory(cache, model, tmp_path)
    inf_llm.patch(inf_llm.unpatch(model), type="inf-llm", **{**LONG, "topk": 2})
    with pytest.raises(SavedMemoryError, match=r"attention.topk is 3 there, and 2 here"):
        load_memory(tmp_path, model)


def test_an_unpatched_model_is_refused(read: tuple[Any, Any], tmp_path: Path) -> None:
    model, cache = read
    save_memory(cache, model, tmp_path)
    with pytest.raises(SavedMemoryError, match=r"attention is \{.*None here"):
        load_memory(tmp_path, inf_llm.unpatch(model))


def test_a_damaged_block_is_refused_when_it_is_read(read: tuple[Any, Any], tmp_path: Path) -> None:
    model, cache = read
    manifest = save_memory(cache, model, tmp_path)
    path = tmp_path / manifest.of_kind("blocks")[0].file
    content = bytearray(path.read_bytes())
    for at in range(1000, len(content), 700):  # all blocks, whichever are recalled
        content[at] ^= 1
    path.write_bytes(content)
    loaded: Any = load_memory(tmp_path, model)
    with pytest.raises(SavedMemoryError, match=r"blocks-000001.*block \d+ is damaged"):
        feed(model, tokens(20), loaded)


@pytest.mark.parametrize("kind", ["index", "state"])
def test_a_damaged_small_segment_is_refused_at_once(
    read: tuple[Any, Any], tmp_path: Path, kind: str
) -> None:
    model, cache = read
    manifest = save_memory(cache, model, tmp_path)
    path = tmp_path / manifest.of_kind(kind)[0].file
    content = bytearray(path.read_bytes())
    content[-5] ^= 4
    path.write_bytes(content)
    with pytest.raises(SavedMemoryError, match=f"{kind}-000001.safetensors is damaged"):
        load_memory(tmp_path, model)


def test_a_cache_that_cannot_be_saved_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UnsupportedInputError, match="a list cannot be saved"):
        save_memory([], tiny(), tmp_path)  # type: ignore[arg-type]


def test_files_are_for_their_owner_only(read: tuple[Any, Any], tmp_path: Path) -> None:
    model, cache = read
    save_memory(cache, model, tmp_path / "m")
    modes = {file.name: file.stat().st_mode & 0o777 for file in (tmp_path / "m").iterdir()}
    assert set(modes.values()) == {0o600}, modes
    assert (tmp_path / "m").stat().st_mode & 0o777 == 0o700


def test_the_manifest_says_its_format_and_the_settings(
    read: tuple[Any, Any], tmp_path: Path
) -> None:
    model, cache = read
    save_memory(cache, model, tmp_path)
    data = json.loads((tmp_path / "manifest.json").read_text())
    assert data["format"] == 1
    assert data["identity"]["attention"]["type"] == "inf-llm"
