"""The sketch never loses a vector that is among the best, and its error bounds hold."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from inf_llm.memory import index as index_module
from inf_llm.memory import sketch as sketch_module
from inf_llm.memory.index import TorchIndex
from inf_llm.memory.sketch import GROUP, Sketch

pytestmark = pytest.mark.skipif(
    not Sketch.available(torch.device("cpu")), reason="this torch has no integer product"
)


@given(
    seed=st.integers(0, 10**6),
    scale=st.floats(1e-4, 1e4),
    spread=st.floats(0.0, 3.0),
    heads=st.sampled_from([(1, 1), (1, 3), (2, 2), (2, 6)]),
    width=st.sampled_from([48, 300]),
    few=st.sampled_from([0, 1 << 15]),
)
@settings(max_examples=60, deadline=None)
def test_true_scores_are_within_the_bounds(seed, scale, spread, heads, width, few):
    """And no block that can be among the best is left out, by groups or one by one."""
    generator = torch.Generator().manual_seed(seed)
    (V, X), count = heads, 400
    sizes = torch.exp(spread * torch.randn(V, count, 1, generator=generator))
    vectors = torch.randn(V, count, width, generator=generator) * sizes
    queries = torch.randn(3, X, width, generator=generator) * scale
    sketch = Sketch(V, width)
    sketch.put(vectors, room=512)
    whole = sketch.count
    assert whole == count // GROUP * GROUP

    own = vectors.double().repeat_interleave(X // V, 0)
    around = own - sketch._centre.repeat_interleave(X // V, 0)
    for query, asked in zip(queries, sketch.ask(queries, count), strict=True):
        truth, seen = (torch.einsum("xnd,xd->nx", x, query.double()) for x in (own, around))
        scores = asked.products * asked.scales[:, None]
        off = (seen[:whole].view_as(scores) - scores).abs()
        assert (off <= asked.errors[:, None]).all()
        assert torch.equal(asked.best, asked.products.amax(1).float())
        for topk in (1, 3, 7, count - 1, count):
            with pytest.MonkeyPatch.context() as patch:
                patch.setattr(sketch_module, "_FEW", few)
                asks, blocks = sketch.candidates(asked, count, topk)
            likely = torch.zeros(X, count, dtype=torch.bool)
            likely[asks, blocks] = True
            assert len(asks) == likely.sum()
            assert torch.equal(asks, asks.sort().values)
            assert likely.gather(1, truth.t().topk(topk).indices).all()


def listed(vectors: torch.Tensor, query: torch.Tensor, topk: int) -> int:
    """How many candidates a sketch of the vectors names."""
    sketch = Sketch(len(vectors), vectors.shape[2])
    sketch.put(vectors, vectors.shape[1])
    (asked,) = sketch.ask(query[None], vectors.shape[1])
    return len(sketch.candidates(asked, vectors.shape[1], topk)[0])


@pytest.mark.parametrize("few", [0, 1 << 15], ids=["by groups", "one by one"])
def test_bounds_are_tight_enough_to_be_of_use(few, monkeypatch):
    monkeypatch.setattr(sketch_module, "_FEW", few)
    generator = torch.Generator().manual_seed(0)
    vectors = torch.randn(1, 8192, 512, generator=generator)
    assert listed(vectors, torch.randn(1, 512, generator=generator), 8) < 200


def test_what_vectors_have_in_common_does_not_matter():
    """Keys of a model with biases are mostly one constant."""
    generator = torch.Generator().manual_seed(0)
    vectors = torch.randn(1, 8192, 64, generator=generator) + 100
    assert listed(vectors, torch.randn(1, 64, generator=generator), 8) < 200


def test_search_through_the_sketch_is_exact(monkeypatch):
    """Also when it grows step by step, and when freed numbers are written again."""
    generator = torch.Generator().manual_seed(1)
    vectors = torch.randn(1, 400, 32, generator=generator)
    plain, sketched = TorchIndex(), TorchIndex()
    for first, last in ((0, 100), (100, 130), (130, 400)):
        for each in (plain, sketched):
            each.put(torch.arange(first, last), vectors[:, first:last])
        query = torch.randn(1, 1, 32, generator=generator)
        wanted = plain.search(query, 8, last, None)
        monkeypatch.setattr(index_module, "_SKETCH_FROM", 1)
        found = sketched.search(query, 8, last, None)
        monkeypatch.undo()
        assert torch.equal(found[0], wanted[0])
        torch.testing.assert_close(found[1], wanted[1])

    fresh = torch.randn(1, 50, 32, generator=generator)
    for each in (plain, sketched):
        each.put(torch.arange(300, 350), fresh)
    query = fresh[:, 20:21]
    monkeypatch.setattr(index_module, "_SKETCH_FROM", 1)
    found = sketched.search(query, 4, 400, None)[0]
    monkeypatch.undo()
    assert 320 in found.flatten().tolist()
    assert torch.equal(found, plain.search(query, 4, 400, None)[0])


def test_what_is_foreseen_is_found_as_if_it_was_asked_alone(monkeypatch):
    """While blocks are added and set again, and when other questions come in between."""
    monkeypatch.setattr(index_module, "_SKETCH_FROM", 100)
    monkeypatch.setattr(index_module, "_FORESEE_FROM", 100)
    monkeypatch.setattr(index_module, "_PRODUCTS", 3 * 4 * 1000)  # three questions at a time
    generator = torch.Generator().manual_seed(2)
    vectors = torch.randn(2, 2000, 16, generator=generator)
    told, alone = TorchIndex(), TorchIndex()
    for each in (told, alone):
        each.put(torch.arange(1000), vectors[:, :1000])
        each.search(vectors[:, :2].reshape(1, 4, 16), 5, 1000, None)
    assert told.foresees()
    queries = torch.randn(8, 4, 16, generator=generator)
    told.foresee(queries)
    total = 1000
    for n, query in enumerate(queries[[0, 1, 5, 2, 3, 3, 4, 5, 6, 7]]):
        found, wanted = (each.search(query[None], 9, total, None) for each in (told, alone))
        assert torch.equal(found[0], wanted[0])
        assert torch.equal(found[1], wanted[1])
        for each in (told, alone):
            each.put(torch.arange(total, total + 90), vectors[:, total : total + 90])
            if n == 6:
                each.put(torch.arange(70), query[:2, None].expand(-1, 70, -1))
        total += 90


def test_what_was_foreseen_for_more_blocks_is_not_used_for_fewer(monkeypatch):
    monkeypatch.setattr(index_module, "_SKETCH_FROM", 64)
    index, vectors = TorchIndex(), torch.randn(1, 512, 16)
    index.put(torch.arange(512), vectors)
    queries = vectors[0, 500:502, None]  # the best blocks are among the last
    index.foresee(queries)
    assert 500 in index.search(queries[:1], 5, 512, None)[0]
    assert index.search(queries[1:], 5, 128, None)[0].max() < 128


def test_several_questions_are_asked_at_once(monkeypatch):
    monkeypatch.setattr(index_module, "_SKETCH_FROM", 100)
    index = TorchIndex()
    index.put(torch.arange(512), torch.randn(1, 512, 16))
    index.search(torch.randn(1, 1, 16), 5, 512, None)
    asked, ask = [], Sketch.ask

    def counting(sketch, queries, count):
        asked.append(len(queries))
        return ask(sketch, queries, count)

    monkeypatch.setattr(Sketch, "ask", counting)
    queries = torch.randn(10, 1, 16)
    index.foresee(queries)
    for query in queries:
        index.search(query[None], 5, 512, None)
    assert asked == [8, 2]
