"""Search through faiss: exact, and by an inverted file that may miss some."""

from __future__ import annotations

import sys

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from inf_llm.errors import MissingExtraError
from inf_llm.memory.faiss_index import FaissIndex, InvertedIndex
from inf_llm.memory.index import TorchIndex
from tests.attention.draws import examples
from tests.extras import with_faiss
from tests.memory.indexes import WIDTH


def clustered(count: int, width: int = 32) -> Tensor:
    """Vectors (1, count, width) in 50 groups, as keys of a text come."""
    centres = torch.randn(50, width)
    return (centres[torch.randint(50, (count,))] + 0.3 * torch.randn(count, width))[None]


@with_faiss
@examples(40)
@given(st.data())
def test_faiss_finds_the_same(data: st.DataObject) -> None:
    total, groups = data.draw(st.integers(1, 40)), data.draw(st.integers(1, 3))
    topk = data.draw(st.integers(1, total))
    torch.manual_seed(data.draw(st.integers(0, 99)))
    one, two = TorchIndex(data.draw(st.none() | st.integers(1, 9))), FaissIndex()
    vectors = torch.randn(groups, total, WIDTH)
    for index in (one, two):
        index.put(torch.arange(total), vectors)
    table = None
    if data.draw(st.booleans()):
        table = torch.stack([torch.randperm(total) for _ in range(2)])
    query = torch.randn(2, groups, WIDTH)
    mine, theirs = (index.search(query, topk, total, table) for index in (one, two))
    assert torch.equal(mine[0], theirs[0])
    torch.testing.assert_close(mine[1], theirs[1], atol=1e-5, rtol=1e-5)


def test_without_faiss(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "faiss", None)
    with pytest.raises(MissingExtraError, match=r"pip install 'inf-llm\[faiss\]'"):
        FaissIndex()


@with_faiss
@pytest.mark.parametrize("common", [0.0, 10.0], ids=["around zero", "with much in common"])
def test_inverted_file_finds_most(common: float) -> None:
    torch.manual_seed(0)
    vectors, index, exact = clustered(6000) + common, InvertedIndex(start=1000), TorchIndex()
    for first in range(0, 6000, 500):  # filed at 1,000 blocks, and anew at 4,000
        for each in (index, exact):
            each.put(torch.arange(first, first + 500), vectors[:, first : first + 500])
    assert index._indexes[0].ntotal == 6000
    assert index._indexes[0].nlist > 50
    query = torch.randn(20, 1, 32)
    mine, best = (each.search(query, 16, 6000, None)[0] for each in (index, exact))
    shared = sum(torch.isin(a, b).sum() for a, b in zip(mine, best, strict=True))
    assert shared / (20 * 16) > 0.9
    assert torch.equal(mine, mine.sort(-1).values)


@with_faiss
def test_inverted_file_gives_as_many_as_asked_for() -> None:
    """A row's few blocks may all be in lists that are not read."""
    vectors, index = clustered(2000), InvertedIndex(start=1000)
    index.put(torch.arange(2000), vectors)
    table = torch.tensor([[3, 500, 1700, 12]])
    query = torch.randn(1, 1, 32)
    numbers, scores = index.search(query, 4, 4, table)
    assert numbers.tolist() == [[[0, 1, 2, 3]]]
    torch.testing.assert_close(scores[0, 0], vectors[0, table[0]] @ query[0, 0])


@with_faiss
def test_inverted_file_forgets_what_is_written_anew() -> None:
    vectors, index = clustered(2000), InvertedIndex(start=1000)
    index.put(torch.arange(2000), vectors)
    fresh = 100 * torch.ones(1, 1, 32)
    index.put(torch.tensor([77]), fresh)
    numbers, _ = index.search(torch.ones(1, 1, 32), 1, 2000, None)
    assert numbers.tolist() == [[[77]]]
    assert index._indexes[0].ntotal == 2000
