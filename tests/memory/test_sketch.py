"""The sketch never loses a vector that is among the best, and its error bounds hold."""

from __future__ import annotations

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from inf_llm.memory import int8_index
from inf_llm.memory import sketch as sketch_module
from inf_llm.memory.index import TorchIndex
from inf_llm.memory.int8_index import Int8Index
from inf_llm.memory.sketch import FINE, GROUP, Sketch
from inf_llm.native import sketch as native

pytestmark = pytest.mark.skipif(
    not Sketch.available(torch.device("cpu")), reason="this torch has no integer product"
)


@pytest.fixture(params=["compiled", "torch"])
def either(request, monkeypatch):
    """With the C functions, where there is a compiler, and without."""
    if request.param == "torch":
        monkeypatch.setattr(native, "_functions", lambda: None)
    elif native._functions() is None:
        pytest.skip("there is no C compiler")


@given(
    seed=st.integers(0, 10**6),
    scale=st.floats(1e-4, 1e4),
    spread=st.floats(0.0, 3.0),
    heads=st.sampled_from([(1, 1), (1, 3), (2, 2), (2, 6)]),
    width=st.sampled_from([48, 100, 1100]),
    few=st.sampled_from([0, 1 << 15]),
)
@settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
def test_true_scores_are_within_the_bounds(either, seed, scale, spread, heads, width, few):
    """And the highest bounds are found, by groups or one by one."""
    generator = torch.Generator().manual_seed(seed)
    (V, X), count = heads, 395
    sizes = torch.exp(spread * torch.randn(V, count, 1, generator=generator))
    vectors = torch.randn(V, count, width, generator=generator) * sizes
    queries = torch.randn(3, X, width, generator=generator) * scale
    sketch = Sketch(V, width)
    for last in (100, 110, count):
        sketch.put(vectors[:, sketch.count : last], room=512)
    assert sketch.count == count // GROUP * GROUP

    own = vectors.double().repeat_interleave(X // V, 0)[:, : sketch.count]
    for query, bounds in zip(queries, sketch.ask(queries, count), strict=True):
        truth = torch.einsum("xnd,xd->xn", own, query.double())
        slack, step, common = bounds.facts.double()[:, :, None, None]
        scales = bounds.scales.double().repeat_interleave(X // V, 0)[..., None]
        products = bounds.products[0].double()
        if len(bounds.products) == 2:
            products = products * FINE + bounds.products[1]
        limits = ((products + slack) * scales * step + common).flatten(1)
        assert (truth <= limits).all()
        # The slack is what may be lost, not much more: scores are that close from below, too.
        assert (
            truth >= limits - 2.01 * (slack * scales * step).expand_as(products).flatten(1)
        ).all()
        for likely in (1, 7, 30, bounds.count):
            with pytest.MonkeyPatch.context() as patch:
                patch.setattr(sketch_module, "_FEW", few)
                blocks, lowest = bounds.highest(likely)
            assert all(len(row.unique()) == likely for row in blocks)
            near = 1e-5 * limits.abs().max()
            got, best = limits.gather(1, blocks), limits.topk(likely).values
            torch.testing.assert_close(got.sort(descending=True).values, best, atol=near, rtol=0)
            torch.testing.assert_close(lowest.double(), best[:, -1], atol=near, rtol=0)
            reaching = (limits >= best[:, -1:] - near).sum(1).max()
            assert likely <= bounds.reaching(lowest - near) <= reaching + likely


def candidates(vectors: torch.Tensor, query: torch.Tensor, topk: int) -> int:
    """How many blocks have bounds that reach the k-th best true score."""
    sketch = Sketch(len(vectors), vectors.shape[2])
    sketch.put(vectors, vectors.shape[1])
    (bounds,) = sketch.ask(query[None], vectors.shape[1])
    truth = torch.einsum("xnd,xd->xn", vectors, query)
    return bounds.reaching(truth.topk(topk).values[:, -1])


def test_bounds_are_tight_enough_to_be_of_use(either):
    generator = torch.Generator().manual_seed(0)
    vectors = torch.randn(1, 8192, 512, generator=generator)
    assert candidates(vectors, torch.randn(1, 512, generator=generator), 8) < 64


def test_what_vectors_have_in_common_does_not_matter(either):
    """Keys of a model with biases are mostly one constant."""
    generator = torch.Generator().manual_seed(0)
    vectors = torch.randn(1, 8192, 64, generator=generator) + 100
    assert candidates(vectors, torch.randn(1, 64, generator=generator), 8) < 64


def test_both_ways_of_asking_agree(monkeypatch):
    """Codes are rounded alike; facts may differ in the last digits."""
    generator = torch.Generator().manual_seed(3)
    for V, X, width in ((1, 1, 64), (1, 1, 2000), (2, 6, 100), (3, 3, 7)):
        vectors = torch.randn(V, 1000, width, generator=generator) + 1
        queries = torch.randn(4, X, width, generator=generator)
        queries[2] = 0
        sketch = Sketch(V, width)
        sketch.put(vectors, 1000)
        compiled = sketch.ask(queries, 700)
        monkeypatch.setattr(native, "_functions", lambda: None)
        plain = sketch.ask(queries, 700)
        monkeypatch.undo()
        for one, other in zip(compiled, plain, strict=True):
            assert one.count == other.count == 700 // GROUP * GROUP
            assert ((one.products - other.products).abs() <= 127).all()  # one code, one step
            torch.testing.assert_close(one.facts, other.facts, atol=1e-4, rtol=1e-4)


def test_vectors_that_are_no_numbers_do_no_harm(either, monkeypatch):
    """Nothing sensible can be found, but what is found exists."""
    monkeypatch.setattr(int8_index, "_SKETCH_FROM", 1)
    index = Int8Index()
    index.put(torch.arange(200), torch.full((1, 200, 16), torch.nan))
    numbers, _ = index.search(torch.full((1, 1, 16), torch.nan), 5, 200, None)
    assert len(numbers.unique()) == 5
    assert numbers.min() >= 0
    assert numbers.max() < 200


def _spoiled(value: float) -> torch.Tensor:
    vectors = torch.randn(1, 600, 64, generator=torch.Generator().manual_seed(4))
    vectors[0, 77, 3] = value
    return vectors


_RANDOM = torch.randn(1, 600, 64, generator=torch.Generator().manual_seed(5))
_SIGN = torch.where(torch.arange(64) % 2 == 0, 1.0, -1.0)
EXTREMES = {
    "inf": (_spoiled(torch.inf), _RANDOM[0, :1]),
    "-inf": (_spoiled(-torch.inf), _RANDOM[0, :1]),
    "tiny query": (_RANDOM, 1e-25 * _RANDOM[0, :1]),
    "tiny vectors": (1e-25 * _RANDOM, _RANDOM[0, :1]),
    "huge vectors": (1e36 * -_RANDOM.abs(), 1e-20 * _RANDOM[0, :1].abs()),
    "huge query": (_RANDOM, 1e33 * _RANDOM[0, :1]),
    "much in common": (_RANDOM + 1e4, _SIGN[None]),
    "first ones large": (
        _RANDOM * torch.where(torch.arange(600) < 64, 2.0**26, 1.0)[:, None],
        _SIGN[None],
    ),
    "wide apart": (
        torch.full((1, 600, 64), 1e30).index_fill(1, torch.tensor([100, 101, 102]), 0.0),
        torch.full((1, 64), -1e5),
    ),
    "all alike": (torch.ones(1, 600, 64), torch.ones(1, 64)),
}


@pytest.mark.parametrize(("vectors", "query"), EXTREMES.values(), ids=EXTREMES)
@pytest.mark.parametrize("several", [False, True], ids=["", "several"])
def test_extremes(either, vectors, query, several, monkeypatch):
    """What float32 cannot hold is not sketched; nothing is lost, and nothing found twice."""
    monkeypatch.setattr(int8_index, "_SKETCH_FROM", 16)
    index = Int8Index()
    index.put(torch.arange(64), vectors[:, :64])  # the centre is theirs
    index.search(_RANDOM[:, :1], 2, 64, None)
    index.put(torch.arange(64, 600), vectors[:, 64:])
    if several:
        _, (numbers, _) = index.search_several(torch.stack((_RANDOM[0, :1], query)), 8, 600)
    else:
        numbers, _ = index.search(query[None], 8, 600, None)
    assert len(numbers.unique()) == 8
    truth = (vectors[0].double() @ query[0].double()).nan_to_num(nan=-torch.inf)
    got, want = truth[numbers[0, 0]].sort().values, truth.topk(8).values.sort().values
    near = 1e-5 * float(
        (vectors[0].abs().double() @ query[0].abs().double()).nan_to_num(0, 0).max()
    )
    torch.testing.assert_close(got, want, atol=near, rtol=0, equal_nan=True)
    finite = vectors.clone()
    finite[0, 77] = _RANDOM[0, 77]
    index.put(torch.tensor([77]), finite[:, 77:78])
    truth = finite[0].double() @ query[0].double()
    numbers, _ = index.search(query[None], 8, 600, None)
    torch.testing.assert_close(
        truth[numbers[0, 0]].sort().values, truth.topk(8).values.sort().values, atol=near, rtol=0
    )


def test_search_through_the_sketch_is_exact(either, monkeypatch):
    """Also when it grows step by step, and when freed numbers are written again."""
    generator = torch.Generator().manual_seed(1)
    vectors = torch.randn(1, 400, 32, generator=generator)
    plain, sketched = TorchIndex(), Int8Index()
    for first, last in ((0, 100), (100, 130), (130, 400)):
        for each in (plain, sketched):
            each.put(torch.arange(first, last), vectors[:, first:last])
        query = torch.randn(1, 1, 32, generator=generator)
        wanted = plain.search(query, 8, last, None)
        monkeypatch.setattr(int8_index, "_SKETCH_FROM", 1)
        found = sketched.search(query, 8, last, None)
        monkeypatch.undo()
        assert torch.equal(found[0], wanted[0])
        torch.testing.assert_close(found[1], wanted[1])

    fresh = torch.randn(1, 50, 32, generator=generator)
    for each in (plain, sketched):
        each.put(torch.arange(300, 350), fresh)
    query = fresh[:, 20:21]
    monkeypatch.setattr(int8_index, "_SKETCH_FROM", 1)
    found = sketched.search(query, 4, 400, None)[0]
    monkeypatch.undo()
    assert 320 in found.flatten().tolist()
    assert torch.equal(found, plain.search(query, 4, 400, None)[0])


@pytest.mark.parametrize("at_once", [1, 3, 100])
def test_several_queries_find_what_each_finds_alone(either, at_once, monkeypatch):
    """Also when blocks were added, or set again, after an earlier search."""
    monkeypatch.setattr(int8_index, "_SKETCH_FROM", 100)
    monkeypatch.setattr(int8_index, "_SEVERAL_FROM", 100)
    monkeypatch.setattr(int8_index, "_PRODUCTS", at_once * 4 * 1000)
    generator = torch.Generator().manual_seed(2)
    vectors = torch.randn(2, 1270, 16, generator=generator)
    together, alone = Int8Index(), TorchIndex()
    for total in (1000, 1090, 1270):
        for each in (together, alone):
            each.put(torch.arange(total), vectors[:, :total])
        queries = torch.randn(8, 4, 16, generator=generator)
        found = together.search_several(queries, 9, total)
        assert together.gains_from_several
        for query, (numbers, scores) in zip(queries, found, strict=True):
            wanted = alone.search(query[None], 9, total, None)
            assert torch.equal(numbers, wanted[0])
            torch.testing.assert_close(scores, wanted[1])
        vectors = vectors.roll(1, 1)


def test_the_codes_are_read_once_for_several_queries(monkeypatch):
    monkeypatch.setattr(int8_index, "_SKETCH_FROM", 100)
    monkeypatch.setattr(int8_index, "_PRODUCTS", 8 * 512)
    index = Int8Index()
    index.put(torch.arange(512), torch.randn(1, 512, 16))
    asked, ask = [], Sketch.ask

    def counting(sketch, queries, count):
        asked.append(len(queries))
        return ask(sketch, queries, count)

    monkeypatch.setattr(Sketch, "ask", counting)
    index.search_several(torch.randn(10, 1, 16), 5, 512)
    assert asked == [8, 2]
