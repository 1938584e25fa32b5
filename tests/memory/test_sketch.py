"""The sketch never loses a vector that is among the best, and its error bounds hold."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from inf_llm.memory import index as index_module
from inf_llm.memory.index import TorchIndex
from inf_llm.memory.sketch import Sketch

pytestmark = pytest.mark.skipif(
    not Sketch.available(torch.device("cpu")), reason="this torch has no integer product"
)


@given(
    seed=st.integers(0, 10**6),
    scale=st.floats(1e-4, 1e4),
    spread=st.floats(0.0, 3.0),
    heads=st.sampled_from([(1, 1), (1, 3), (2, 2), (2, 6)]),
    width=st.sampled_from([48, 300]),
)
@settings(max_examples=40, deadline=None)
def test_true_scores_are_within_the_bounds(seed, scale, spread, heads, width):
    generator = torch.Generator().manual_seed(seed)
    V, X = heads
    sizes = torch.exp(spread * torch.randn(V, 300, 1, generator=generator))
    vectors = torch.randn(V, 300, width, generator=generator) * sizes
    query = torch.randn(X, width, generator=generator) * scale
    sketch = Sketch(V, width)
    sketch.put(0, vectors, room=512)

    scores, errors = sketch.bounds(query, 300)
    own = vectors.double().repeat_interleave(X // V, 0)
    truth = torch.einsum("xnd,xd->xn", own, query.double())
    common = truth - torch.einsum(
        "xnd,xd->xn", own - sketch._centre.repeat_interleave(X // V, 0), query.double()
    )

    assert ((truth - common - scores).abs() <= errors).all()
    for topk in (1, 7, 300):
        asks, blocks = sketch.candidates(query, 300, topk)
        likely = torch.zeros(X, 300, dtype=torch.bool)
        likely[asks, blocks] = True
        assert len(asks) == likely.sum()
        assert torch.equal(asks, asks.sort().values)
        assert likely.gather(1, truth.topk(topk).indices).all()


def test_bounds_are_tight_enough_to_be_of_use():
    generator = torch.Generator().manual_seed(0)
    vectors = torch.randn(1, 8192, 512, generator=generator)
    sketch = Sketch(1, 512)
    sketch.put(0, vectors, room=8192)
    asks, _ = sketch.candidates(torch.randn(1, 512, generator=generator), 8192, 8)
    assert len(asks) < 200


def test_what_vectors_have_in_common_does_not_matter():
    """Keys of a model with biases are mostly one constant."""
    generator = torch.Generator().manual_seed(0)
    vectors = torch.randn(1, 8192, 64, generator=generator) + 100
    sketch = Sketch(1, 64)
    sketch.put(0, vectors, room=8192)
    asks, _ = sketch.candidates(torch.randn(1, 64, generator=generator), 8192, 8)
    assert len(asks) < 200


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
