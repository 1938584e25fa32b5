"""Sealed blocks of stores, to segments and back."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from inf_llm.errors import SavedMemoryError
from inf_llm.memory.block_files import StoreReader, StoreWriter
from inf_llm.memory.block_memory import BlockMemory
from inf_llm.memory.search import Query
from inf_llm.settings import InfLLMSettings
from tests.tiny import SETTINGS

HEADS, GROUPS, WIDTH = 4, 2, 8


def memory(slots: bool | None = None, **more: Any) -> BlockMemory:
    """A memory that has sealed some blocks."""
    settings = InfLLMSettings(**{k: v for k, v in SETTINGS.items() if k != "repr_topk"}, **more)
    made = BlockMemory(settings, settings.n_local, 32, slots)
    torch.manual_seed(0)
    for _ in range(12):
        k, v = torch.randn(2, 1, GROUPS, 32, WIDTH)
        made.append(k, v, HEADS)
        recall(made, torch.randn(1, HEADS, 1, WIDTH))
        made.settle()
    return made


def recall(of: BlockMemory, q: Tensor) -> Any:
    return of.recall(Query(q))


def written(of: BlockMemory) -> tuple[StoreWriter, Any, Any, Any]:
    writer = StoreWriter("m", ())
    state = of.dump(writer)
    slots = writer.slots()
    blocks, index = writer.segments()
    images = {name: torch.cat(list(rows.pieces())) for name, rows in blocks.items()}
    found = dict(index())
    return writer, state, slots, (images, found)


def opened(like: BlockMemory, slots_on: bool | None = None) -> BlockMemory:
    writer, state, slots, (images, found) = written(like)
    files = {Path("blocks"): images}
    reader = StoreReader("m", writer.facts(), files, [found], slots, torch.device("cpu"))
    made = BlockMemory(like.settings, like.keep, 32, slots_on)
    made.restore(state, reader)
    return made


@pytest.mark.parametrize("slots", [False, True])
@pytest.mark.parametrize("selection", ["layer", "key-head", "query-head"])
@pytest.mark.parametrize("summary", ["mean", {"name": "pages", "page_size": 4}])
def test_an_opened_memory_recalls_the_same(slots: bool, selection: str, summary: Any) -> None:
    before = memory(slots, selection=selection, summary=summary)
    after = opened(before, slots)
    for seed in range(4):
        torch.manual_seed(seed)
        q = torch.randn(1, HEADS, 3, WIDTH)
        one, other = recall(before, q), recall(after, q)
        assert torch.equal(one.blocks, other.blocks)
        assert torch.equal(one.scores, other.scores)
        assert torch.equal(one.k, other.k)
        assert torch.equal(one.v, other.v)
    held = after.stats()
    assert held.disk_bytes == before.stats().host_bytes
    assert replace(held, host_bytes=held.disk_bytes, disk_bytes=0) == before.stats()


def test_control_another_text_recalls_something_else() -> None:
    before = memory()
    q = torch.randn(1, HEADS, 3, WIDTH)
    found = recall(opened(before), q).k
    before.append(*torch.randn(2, 1, GROUPS, 32, WIDTH), HEADS)
    before.settle()
    assert not torch.equal(found, recall(before, -q).k)


def test_what_does_not_belong_together_is_refused() -> None:
    before = memory()
    writer, state, slots, (images, found) = written(before)
    short = {name: image[:-1] for name, image in images.items()}
    files = {Path("blocks"): short}
    reader = StoreReader("m", writer.facts(), files, [found], slots, torch.device("cpu"))
    with pytest.raises(SavedMemoryError, match="store 0 has 19 blocks in the manifest and"):
        BlockMemory(before.settings, before.keep, 32).restore(state, reader)


def test_blocks_of_another_size_are_refused() -> None:
    before = memory()
    writer, state, slots, (images, found) = written(before)
    facts = {"0": writer.facts()["0"] | {"block_bytes": 7}}
    reader = StoreReader("m", facts, {Path("b"): images}, [found], slots, torch.device("cpu"))
    with pytest.raises(SavedMemoryError, match="a block has 7 bytes"):
        BlockMemory(before.settings, before.keep, 32).restore(state, reader)


def test_a_store_keeps_its_name_and_writes_a_block_once() -> None:
    before = memory()
    writer, _, _, _ = written(before)
    writer.committed()
    again = StoreWriter("m", ["0"])
    before.dump(again)
    assert not again.has_new
    assert list(again.facts()) == ["0"]
    elsewhere = StoreWriter("other", [])
    before.dump(elsewhere)
    assert elsewhere.has_new


def test_what_was_not_committed_is_written_again() -> None:
    before = memory()
    written(before)
    again = StoreWriter("m", ())
    before.dump(again)
    assert again.has_new


def test_a_block_that_is_released_during_a_save_is_written_again() -> None:
    """Its number may be used again, by a block that is not in the files."""
    made = memory()
    twin = made.fork()
    assert made.store is not None
    with StoreWriter("m", ()) as writer:
        twin.dump(writer)
        made._table.cut(2)
        twin._table.cut(2)
        writer.committed()
    assert made.store.file_numbers["m"].of(torch.arange(4)).tolist() == [0, 1, -1, -1]
    assert [*made.store.file_numbers] == ["m"]


def test_file_numbers_of_a_save_that_failed_are_dropped() -> None:
    made = memory()
    assert made.store is not None

    def save() -> None:
        with StoreWriter("m", ()) as writer:
            made.dump(writer)
            raise OSError("full")

    with pytest.raises(OSError, match="full"):
        save()
    assert not made.store.file_numbers
