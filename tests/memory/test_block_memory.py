"""What is kept of a text: sinks first, then blocks, and the newest tokens apart."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from inf_llm.memory.block_memory import BlockMemory
from inf_llm.memory.search import Query
from inf_llm.settings import InfLLMSettings, make_settings

KEEP, SINKS, SIZE = 10, 3, 4


def make(**settings: Any) -> BlockMemory:
    values = {"n_init": SINKS, "n_local": KEEP, "block_size": SIZE, "exc_block_size": 8}
    rest = {"topk": 2, "max_cached_block": 3, "repr_topk": 1}
    chosen = make_settings(**(values | rest | settings))
    assert isinstance(chosen, InfLLMSettings)
    return BlockMemory(chosen, keep=KEEP, arriving=chosen.exc_block_size)


def text(count: int, rows: int = 1) -> tuple[Tensor, Tensor]:
    """Keys (B, 2, count, 6) and values (B, 2, count, 5)."""
    generator = torch.Generator().manual_seed(0)
    k = torch.randn(rows, 2, count, 6, generator=generator)
    return k, torch.randn(rows, 2, count, 5, generator=generator)


def fed(memory: BlockMemory, k: Tensor, v: Tensor, step: int = 8) -> None:
    for a, b in zip(k.split(step, 2), v.split(step, 2), strict=True):
        memory.append(a, b, heads=4)
        memory.settle()


@pytest.mark.parametrize("step", [1, 5, 8])
@pytest.mark.parametrize("count", [1, 9, 10, 11, 12, 13, 14, 16, 17, 18, 20, 21, 40])
def test_every_token_is_kept_once(count: int, step: int) -> None:
    k, v = text(count)
    memory = make(topk=50, max_cached_block=50)
    fed(memory, k, v, step)
    left = max(0, count - KEEP)
    sinks = min(SINKS, left)
    blocks = (left - sinks) // SIZE
    assert memory.seen == count
    assert memory.blocks == blocks
    assert memory.sinks is not None
    assert torch.equal(memory.sinks[0], k[:, :, :sinks])
    assert torch.equal(memory.sinks[1], v[:, :, :sinks])
    first = sinks + blocks * SIZE
    assert torch.equal(memory.recent["k"], k[:, :, first:])
    assert torch.equal(memory.recent["v"], v[:, :, first:])
    recalled = memory.recall(Query(torch.randn(1, 4, 1, 6)))
    if not blocks:
        assert recalled is None
        return
    assert recalled is not None
    assert recalled.scores is None, "every block was wanted: none had to be scored"
    assert torch.equal(recalled.k, k[:, :, sinks:first])
    assert torch.equal(recalled.v, v[:, :, sinks:first])


def test_without_sinks() -> None:
    k, v = text(30)
    memory = make(n_init=0)
    fed(memory, k, v)
    assert memory.sinks is not None
    assert memory.sinks[0].shape[2] == 0
    assert memory.blocks == 5
    assert torch.equal(memory.recent["k"], k[:, :, 20:])


def test_the_most_attended_token_stands_for_its_block() -> None:
    k, v = text(60)
    memory = make(topk=1)
    for a, b in zip(k.split(1, 2), v.split(1, 2), strict=True):
        memory.append(a, b, heads=4)
        mass = torch.zeros(1, 4, min(len(memory.recent), KEEP))
        if (memory.seen - 1 - SINKS) % SIZE == 2:
            mass[:, :, -1] = 1.0  # the third token of every block, as it comes
        memory.observe(mass)
        memory.settle()
    for block in (0, 4, 9):
        token = SINKS + SIZE * block + 2
        query = 100 * torch.nn.functional.normalize(k[:, :, token], dim=-1)
        others = k[0, :, SINKS + 2 :: SIZE][:, : memory.blocks]
        scores = torch.einsum("gd,gnd->n", query[0], others)
        recalled = memory.recall(Query(query.repeat_interleave(2, 1)[:, :, None]))
        assert recalled is not None
        assert recalled.scores is not None
        assert recalled.blocks.flatten().tolist() == [int(scores.argmax())]
        torch.testing.assert_close(recalled.scores.flatten(), 2 * scores.max().view(1))


def test_streams_travel_along() -> None:
    k, v = text(30)
    memory = make()
    ages = torch.arange(30.0).view(1, 1, 30, 1)
    for a, b, age in zip(k.split(8, 2), v.split(8, 2), ages.split(8, 2), strict=True):
        memory.append(a, b, 4, age=age)
        memory.settle()
    held = memory.recent["age"].flatten().tolist()
    assert held == [float(i) for i in range(30 - len(held), 30)]


def test_checkpoint_and_rollback() -> None:
    k, v = text(60, rows=2)
    memory, straight = make(), make()
    fed(memory, k[:, :, :24], v[:, :, :24])
    fed(straight, k[:, :, :24], v[:, :, :24])
    state = memory.checkpoint()
    fed(memory, -k[:, :, 24:50], v[:, :, 24:50])
    memory.rollback(state)
    assert (memory.seen, memory.blocks) == (straight.seen, straight.blocks)
    for one in (memory, straight):
        fed(one, k[:, :, 24:], v[:, :, 24:])
    query = Query(torch.randn(2, 4, 1, 6))
    got, want = memory.recall(query), straight.recall(query)
    assert got is not None
    assert want is not None
    assert torch.equal(got.blocks, want.blocks)
    assert torch.equal(got.k, want.k)
    assert memory.stats().host_bytes == straight.stats().host_bytes


def test_blocks_are_freed_with_their_memory() -> None:
    k, v = text(60)
    memory = make()
    fed(memory, k, v)
    store = memory.store
    assert store is not None
    twin = memory.fork()
    fed(twin, k, v)
    assert store.used() == 11 + 15
    del memory
    assert store.used() == 11 + 15
    del twin
    assert store.used() == 0


def test_a_checkpoint_holds_no_blocks() -> None:
    k, v = text(60)
    memory = make()
    fed(memory, k, v)
    store = memory.store
    assert store is not None
    state = memory.checkpoint()
    del memory
    assert store.used() == 0
    assert state.numbers["seen"] == 60


def test_stats_before_anything() -> None:
    stats = make().stats()
    assert (stats.tokens, stats.blocks, stats.device_bytes) == (0, 0, 0)
