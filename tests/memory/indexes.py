"""Every index, filled with vectors, and the search in plain loops."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from inf_llm.choice import Choice
from inf_llm.memory.index import Index
from inf_llm.variants import INDEX
from tests.extras import with_faiss

WIDTH = 12
every_index = pytest.mark.parametrize(
    "name",
    [
        pytest.param(n, marks=[with_faiss] * (n in ("faiss", "ivf")))
        for n in INDEX
        if issubclass(INDEX.get(n), Index)
    ],
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
    of_choosers = {
        block: each.repeat_interleave(query.shape[1] // len(each), 0)
        for block, each in vectors.items()
    }
    for b, row in enumerate(table):
        groups = []
        for x in range(query.shape[1]):
            scores = [float(query[b, x] @ of_choosers[block][x]) for block in row]
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
