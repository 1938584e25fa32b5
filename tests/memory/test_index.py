"""Every index against scores computed one by one."""

from __future__ import annotations

import pytest
import torch

from inf_llm.errors import SettingsError
from inf_llm.variants import INDEX
from tests.memory.indexes import PUTS, WIDTH, every_index, filled, made, one_by_one


@every_index
@pytest.mark.parametrize("chunk", [None, 1, 4, 1000])
@pytest.mark.parametrize(("groups", "queries"), [(1, 1), (3, 3), (2, 6)])
@pytest.mark.parametrize("puts", PUTS.values(), ids=PUTS)
def test_search(
    name: str, puts: list[list[int]], groups: int, queries: int, chunk: int | None
) -> None:
    index = made(name, chunk)
    vectors = filled(index, puts, groups)
    total = len(vectors)
    query = torch.randn(2, queries, WIDTH)
    for topk in (1, 3, total):
        numbers, values = index.search(query, topk, total, None)
        want, scores = one_by_one(vectors, query, topk, [list(range(total))] * 2)
        assert numbers.tolist() == want
        torch.testing.assert_close(values, torch.tensor(scores), atol=1e-5, rtol=1e-5)
    assert index.nbytes == groups * total * WIDTH * 4


@every_index
@pytest.mark.parametrize("chunk", [None, 1, 3])
@pytest.mark.parametrize(("groups", "queries"), [(1, 1), (3, 3), (2, 6)])
def test_every_row_has_blocks_of_its_own(
    name: str, groups: int, queries: int, chunk: int | None
) -> None:
    """Numbers that come back count a row's own blocks, whatever their physical numbers."""
    index = made(name, chunk)
    vectors = filled(index, [list(range(12))], groups)
    table = [[5, 0, 11, 3, 7], [1, 2, 3, 4, 5], [5, 0, 11, 3, 8]]
    query = torch.randn(3, queries, WIDTH)
    for topk in (1, 3, 5):
        numbers, values = index.search(query, topk, 5, torch.tensor(table))
        want, scores = one_by_one(vectors, query, topk, table)
        assert numbers.tolist() == want
        torch.testing.assert_close(values, torch.tensor(scores), atol=1e-5, rtol=1e-5)


@every_index
def test_only_the_first_blocks(name: str) -> None:
    """Blocks past `total` belong to somebody else."""
    index = made(name)
    vectors = filled(index, [list(range(10))], 1)
    query = torch.randn(2, 1, WIDTH)
    want, _ = one_by_one(vectors, query, 2, [[0, 1, 2, 3]] * 2)
    assert index.search(query, 2, 4, None)[0].tolist() == want


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
@every_index
def test_half_precision(name: str, dtype: torch.dtype, device: torch.device) -> None:
    index = made(name)
    vectors = torch.randn(1, 50, WIDTH).to(device, dtype)
    index.put(torch.arange(50), vectors)
    query = torch.randn(2, 1, WIDTH).to(device, dtype)
    numbers, values = index.search(query, 5, 50, None)
    scores = (query.double() @ vectors.double().transpose(1, 2))[:, 0].cpu()
    assert values.dtype == torch.float32
    assert numbers.device.type == values.device.type == device.type
    for row, found in zip(scores, numbers[:, 0].cpu(), strict=True):
        left = torch.ones(50).bool().index_fill(0, found, False)
        assert row[found].min() >= row[left].max() - 0.1


def test_unknown_index() -> None:
    with pytest.raises(SettingsError, match="did you mean 'faiss'"):
        INDEX.get("fais")
