"""Every index against scores computed one by one."""

from __future__ import annotations

import sys

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from inf_llm.choice import Choice
from inf_llm.errors import MissingExtraError, SettingsError
from inf_llm.memory.faiss_index import FaissIndex, InvertedIndex
from inf_llm.memory.index import Index, TorchIndex
from inf_llm.memory.int8_index import Int8Index
from inf_llm.memory.sketch import GROUP
from inf_llm.variants import INDEX
from tests.attention.draws import examples
from tests.extras import with_faiss

WIDTH = 12
every_index = pytest.mark.parametrize(
    "name", [pytest.param(n, marks=[with_faiss] * (n in ("faiss", "ivf"))) for n in INDEX]
)


def made(name: str, chunk: int | None = None) -> Index:
    """An index; one that takes no chunk goes without."""
    options = {} if chunk is None or name in ("faiss", "ivf") else {"chunk": chunk}
    index: Index = Choice(name, options).build(INDEX)
    return index


def one_by_one(
    vectors: dict[int, Tensor], query: Tensor, topk: int, table: list[list[int]]
) -> tuple[list[list[list[int]]], list[list[list[float]]]]:
    """Numbers and scores (B, X, topk), for vectors (V, W) of every physical block."""
    numbers, values = [], []
    own = {
        block: each.repeat_interleave(query.shape[1] // len(each), 0)
        for block, each in vectors.items()
    }
    for b, row in enumerate(table):
        groups = []
        for x in range(query.shape[1]):
            scores = [float(query[b, x] @ own[block][x]) for block in row]
            best = sorted(sorted(range(len(row)), key=lambda i: -scores[i])[:topk])
            groups.append((best, [scores[i] for i in best]))
        numbers.append([best for best, _ in groups])
        values.append([value for _, value in groups])
    return numbers, values


def filled(index: Index, puts: list[list[int]], groups: int) -> dict[int, Tensor]:
    vectors = {}
    for blocks in puts:
        new = torch.randn(groups, len(blocks), WIDTH)
        index.put(torch.tensor(blocks), new)
        vectors.update({block: new[:, i] for i, block in enumerate(blocks)})
    return vectors


PUTS = {
    "one after another": [[0], [1, 2], [3], [4, 5, 6, 7], [8], [9]],
    "all at once": [list(range(10))],
    "rows in turn": [[0, 1, 2, 3], [4, 5], [6, 7, 8, 9]],
    "some written anew": [[0, 1, 2, 3, 4, 5, 6], [2, 5], [3, 7, 8, 9]],
    "past the first room": [list(range(60)), list(range(60, 150)), [150]],
}


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


@examples(40)
@given(data=st.data())
def test_a_sketch_changes_nothing(data: st.DataObject) -> None:
    """Many blocks of one row are sketched first; here it starts with the first block."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("inf_llm.memory.int8_index._SKETCH_FROM", 1)
        patch.setattr("inf_llm.memory.sketch._FEW", data.draw(st.sampled_from([0, 1 << 15])))
        patch.setattr("inf_llm.memory.int8_index._LIKELY", data.draw(st.sampled_from([0, 56])))
        if data.draw(st.booleans()):
            patch.setattr("inf_llm.native.sketch._functions", lambda: None)
        torch.manual_seed(data.draw(st.integers(0, 99)))
        size = data.draw(st.sampled_from([1e-6, 1.0, 1e4]))
        V, X = data.draw(st.sampled_from([(1, 1), (2, 2), (2, 4)]))
        dtype = data.draw(st.sampled_from([torch.float32, torch.bfloat16]))
        index, vectors = Int8Index(), torch.empty(V, 0, WIDTH, dtype=dtype)
        for _ in range(data.draw(st.integers(1, 6))):
            first = data.draw(st.integers(0, vectors.shape[1]))
            new = (size * torch.randn(V, data.draw(st.integers(1, 90)), WIDTH)).to(dtype)
            index.put(torch.arange(first, first + new.shape[1]), new)
            rest = vectors[:, first + new.shape[1] :]
            vectors = torch.cat((vectors[:, :first], new, rest), 1)
            total = data.draw(st.integers(1, vectors.shape[1]))
            topk = data.draw(st.integers(1, total))
            query = (torch.randn(1, X, WIDTH) * torch.logspace(0, 4, WIDTH)).to(dtype)
            if total < GROUP and dtype != torch.float32:
                continue  # too few to be sketched: scored in that dtype
            own = vectors[:, :total].double().repeat_interleave(X // V, 0)
            scores = torch.einsum("xnd,xd->xn", own, query[0].double())
            numbers, values = index.search(query, topk, total, None)
            assert torch.equal(numbers[0], scores.topk(topk).indices.sort().values)
            want = scores.gather(1, numbers[0]).float()
            near = float(want.abs().max()) * 1e-5
            torch.testing.assert_close(values[0], want, atol=near, rtol=1e-5)


@every_index
def test_only_the_first_blocks(name: str) -> None:
    """Blocks past `total` belong to somebody else."""
    index = made(name)
    vectors = filled(index, [list(range(10))], 1)
    query = torch.randn(2, 1, WIDTH)
    want, _ = one_by_one(vectors, query, 2, [[0, 1, 2, 3]] * 2)
    assert index.search(query, 2, 4, None)[0].tolist() == want


@every_index
def test_several_queries_and_later_blocks(name: str) -> None:
    """Several queries find what each does alone; and so do searches that go on from there."""
    index = made(name)
    vectors = filled(index, [list(range(20))], 2)
    queries = torch.randn(5, 4, WIDTH)
    found = {topk: index.search_several(queries, topk, 20) for topk in (3, 20)}
    vectors |= filled(index, [list(range(20, 29))], 2)
    for n, query in enumerate(queries):
        for topk, wanted in ((3, 3), (20, 20), (20, 25)):
            early = found[topk][n]
            want, scores = one_by_one(vectors, query[None], topk, [list(range(20))])
            assert early[0].tolist() == want
            torch.testing.assert_close(early[1], torch.tensor(scores), atol=1e-5, rtol=1e-5)
            numbers, values = index.search_further(query[None], wanted, early, 20, 29)
            want, scores = one_by_one(vectors, query[None], wanted, [list(range(29))])
            assert numbers.tolist() == want
            torch.testing.assert_close(values, torch.tensor(scores), atol=1e-5, rtol=1e-5)


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


def test_without_faiss(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "faiss", None)
    with pytest.raises(MissingExtraError, match=r"pip install 'inf-llm\[faiss\]'"):
        FaissIndex()


def test_unknown_index() -> None:
    with pytest.raises(SettingsError, match="did you mean 'faiss'"):
        INDEX.get("fais")


def clustered(count: int, width: int = 32) -> Tensor:
    """Vectors (1, count, width) in 50 groups, as keys of a text come."""
    centres = torch.randn(50, width)
    return (centres[torch.randint(50, (count,))] + 0.3 * torch.randn(count, width))[None]


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
