"""The search in two stages against loops over rows, heads, queries and blocks."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from inf_llm.memory import two_stage
from inf_llm.memory.search import Query
from inf_llm.memory.two_stage import TwoStage
from inf_llm.variants import SELECTION

H, G, D = 6, 2, 8


@pytest.fixture(autouse=True)
def _two_stages(monkeypatch: pytest.MonkeyPatch) -> None:
    """Small as they are, blocks are not all scored by their pages."""
    monkeypatch.setattr(two_stage, "SCANNED", 0)


every_selection = pytest.mark.parametrize("selection", ["layer", "key-head", "query-head"])
both_scores = pytest.mark.parametrize("scores", ["sum", "softmax"])


def made(
    selection: str, scores: str, blocks: int, pages: int, heads: int = G, shortlist: int = 1000
) -> tuple[TwoStage, Tensor]:
    """A filled search, and its summaries (n, Y, P, D)."""
    chooser = SELECTION.get(selection)(H, G, heads, scores)
    summaries = torch.randint(-127, 128, (blocks, heads, pages, D)) / 60  # int8 holds them exactly
    summaries[..., 0] = 127 / 60
    search = TwoStage(chooser, shortlist)
    for some in torch.arange(blocks).split(7):
        search.put(some, summaries[some])
    return search, summaries


def one_by_one(search: TwoStage, summaries: Tensor, query: Query, blocks: list[int]) -> Tensor:
    """Scores (X, N) of one row's blocks, in float64."""
    per_head = torch.zeros(H, len(blocks), dtype=torch.float64)
    vectors = query.vectors[0].double() * query.scale
    for h in range(H):
        y = h // (H // summaries.shape[1])
        for q in vectors[h]:
            best = [max(float(q @ page.double()) for page in summaries[n, y]) for n in blocks]
            row = torch.tensor(best, dtype=torch.float64)
            per_head[h] += row.softmax(0) if search.selection.scores == "softmax" else row
    return search.selection.mass(per_head[None])[0]


@every_selection
@both_scores
@pytest.mark.parametrize("pages", [1, 4])
@pytest.mark.parametrize("heads", [G, H], ids=["shared", "apart"])
@pytest.mark.parametrize("queries", [1, 3])
def test_finds_the_best_by_pages(
    selection: str, scores: str, pages: int, heads: int, queries: int
) -> None:
    """With all blocks on the shortlist it is a full scan."""
    search, summaries = made(selection, scores, 30, pages, heads)
    query = Query(torch.randn(1, queries, H, D).transpose(1, 2), scale=0.7)  # as models have it
    for topk in (1, 5):
        numbers, values = search.search(query, topk, 30, None)
        want = one_by_one(search, summaries, query, list(range(30)))
        best = want.topk(topk).indices.sort().values
        assert torch.equal(numbers[0], best)
        torch.testing.assert_close(values[0].double(), want.gather(1, best), rtol=1e-4, atol=1e-5)


@every_selection
@both_scores
def test_every_row_has_blocks_of_its_own(selection: str, scores: str) -> None:
    search, summaries = made(selection, scores, 12, 2)
    table = torch.tensor([[5, 0, 11, 3, 7], [1, 2, 3, 4, 5], [5, 0, 11, 3, 8]])
    vectors = torch.randn(3, H, 1, D)
    numbers, values = search.search(Query(vectors), 2, 5, table)
    for row, blocks in enumerate(table.tolist()):
        want = one_by_one(search, summaries, Query(vectors[row : row + 1]), blocks)
        best = want.topk(2).indices.sort().values
        assert torch.equal(numbers[row], best)
        torch.testing.assert_close(values[row].double(), want.gather(1, best), rtol=1e-4, atol=1e-5)


def test_only_the_first_blocks() -> None:
    """Blocks past `total` belong to another holder."""
    search, summaries = made("layer", "softmax", 20, 2)
    query = Query(torch.randn(1, H, 1, D))
    want = one_by_one(search, summaries, query, list(range(8)))
    assert torch.equal(search.search(query, 3, 8, None)[0][0], want.topk(3).indices.sort().values)


def test_a_short_shortlist_holds_the_best_by_their_means() -> None:
    """A block whose pages cancel out is found by a full scan, and missed by a short list."""
    chooser = SELECTION.get("layer")(1, 1, 1, "softmax")
    summaries = 0.1 * torch.rand(40, 1, 2, D)
    summaries[17, 0, 0], summaries[17, 0, 1] = 5.0, -6.0
    query = Query(torch.ones(1, 1, 1, D))
    found = {}
    for shortlist in (2, 40):
        search = TwoStage(chooser, shortlist)
        search.put(torch.arange(40), summaries)
        found[shortlist] = search.search(query, 1, 40, None)[0].flatten().tolist()
    assert found[40] == [17]
    assert found[2] != [17]


def test_shares_are_of_all_blocks() -> None:
    """The scores of all blocks add up to one for every head, short list or not."""
    search, _ = made("query-head", "softmax", 40, 1)
    query = Query(torch.randn(1, H, 1, D))
    values = search.search(query, 40, 40, None)[1]
    torch.testing.assert_close(values.sum(-1), torch.ones(1, H))


@every_selection
def test_what_is_not_listed_counts_by_its_mean(selection: str) -> None:
    """Shares are of shortlisted blocks by their pages and of all others by their means."""
    topk, shortlist, count = 3, 2, 40
    search, summaries = made(selection, "softmax", count, 4, shortlist=shortlist)
    query = Query(torch.randn(1, H, 1, D), scale=0.7)
    numbers, values = search.search(query, topk, count, None)
    vectors = query.vectors[0, :, 0].double() * query.scale
    pages = summaries.double().repeat_interleave(H // G, 1)  # (n, H, P, D)
    products = torch.einsum("hd,nhpd->hnp", vectors, pages)
    means, best = products.mean(-1), products.amax(-1)
    mean_scores = search.selection.mass(means.softmax(-1)[None])[0]
    for chooser, shortlisted in enumerate(mean_scores.topk(shortlist * topk).indices):
        mixed = means.clone()
        mixed[:, shortlisted] = best[:, shortlisted]
        wanted = search.selection.mass(mixed.softmax(-1)[None])[0, chooser]
        order = wanted.topk(topk).indices.sort().values
        assert torch.equal(numbers[0, chooser], order)
        torch.testing.assert_close(values[0, chooser].double(), wanted[order], rtol=1e-4, atol=1e-6)


def test_a_loud_head_does_not_choose_for_the_others() -> None:
    """Of two heads, one scores a hundred times as loud; with shares each has its block."""
    summaries = torch.zeros(9, 2, 1, 2)
    summaries[3, 0, 0] = torch.tensor([8.0, 0.0])  # what head 0 attends to
    summaries[4:8, 1, 0] = torch.tensor([0.0, 0.9])  # head 1: four alike, and one a little better
    summaries[8, 1, 0] = torch.tensor([0.0, 1.0])
    vectors = torch.tensor([[[[1.0, 0.0]], [[0.0, 100.0]]]])
    found = {}
    for scores in ("sum", "softmax"):
        search = TwoStage(SELECTION.get("layer")(2, 2, 2, scores), 9)
        search.put(torch.arange(9), summaries)
        found[scores] = search.search(Query(vectors), 2, 9, None)[0].flatten().tolist()
    assert found["softmax"] == [3, 8]
    assert 3 not in found["sum"]


def test_pages_are_kept_in_int8() -> None:
    """Scores are off by what rounding can take, and by something."""
    search = TwoStage(SELECTION.get("query-head")(H, G, G, "sum"), 100)
    summaries = torch.randn(30, G, 4, D)
    search.put(torch.arange(30), summaries)
    query = Query(torch.randn(1, H, 1, D))
    got = search.search(query, 30, 30, None)[1]
    want = one_by_one(search, summaries, query, list(range(30)))[None].float()
    step = summaries.flatten(2).abs().amax(-1).max() / 127
    most = step / 2 * query.vectors.abs().sum(-1).max()
    assert 0 < (got - want).abs().max() <= most


def test_bytes() -> None:
    assert made("layer", "softmax", 21, 4)[0].nbytes == 21 * G * (D * 4 + 4 * D + 4)
    assert made("layer", "softmax", 21, 1)[0].nbytes == 21 * G * D * 4


@every_selection
@both_scores
@pytest.mark.parametrize("pages", [1, 4])
def test_rows_of_several_searches_at_once(selection: str, scores: str, pages: int) -> None:
    """Each finds what it finds alone; one has fewer blocks than are listed, two have tables."""
    counts, topk = [30, 9, 50, 30, 41], 4
    every = [made(selection, scores, count, pages, shortlist=3)[0] for count in counts]
    tables: list[Tensor | None] = [None] * len(counts)
    tables[2], tables[3] = torch.randperm(50)[None, :45], torch.randperm(30)[None]
    totals = [count if t is None else t.shape[1] for count, t in zip(counts, tables, strict=True)]
    query = Query(3 * torch.randn(len(counts), H, 1, D), scale=0.7)
    together = TwoStage.search_each(every, query, topk, totals, tables)
    for row, (search, found) in enumerate(zip(every, together, strict=True)):
        alone = Query(query.vectors[row : row + 1], query.scale)
        numbers, values = search.search(alone, topk, totals[row], tables[row])
        assert torch.equal(found[0], numbers)
        torch.testing.assert_close(found[1], values)


@both_scores
def test_few_pages_are_all_scored(monkeypatch: pytest.MonkeyPatch, scores: str) -> None:
    """It is a full scan then, in company and alone, of rows with other numbers of blocks."""
    counts = [40, 30, 40]
    every = [made("layer", scores, count, 4, shortlist=1) for count in counts]
    query = Query(torch.randn(3, H, 1, D))
    monkeypatch.setattr(two_stage, "SCANNED", 40 * G * 4 * D)
    searches = [search for search, _ in every]
    together = TwoStage.search_each(searches, query, 2, counts, [None] * 3)
    for row, (search, summaries) in enumerate(every):
        alone = Query(query.vectors[row : row + 1])
        want = one_by_one(search, summaries, alone, list(range(counts[row])))
        best = want.topk(2).indices.sort().values
        assert torch.equal(search.search(alone, 2, counts[row], None)[0][0], best)
        assert torch.equal(together[row][0][0], best)


def test_what_a_row_does_not_have_is_not_found() -> None:
    """Where all shares of attention but one underflow, zeros do not count as blocks either."""
    search, summaries = made("layer", "softmax", 12, 4, shortlist=2)
    longer, _ = made("layer", "softmax", 60, 4, shortlist=2)
    loud = summaries[3].mean(1).repeat_interleave(H // G, 0)[None, :, None] * 1e4
    query = Query(torch.cat((loud, torch.randn(1, H, 1, D))))
    found = TwoStage.search_each([search, longer], query, 5, [12, 60], [None, None])
    assert int(found[0][0].max()) < 12
