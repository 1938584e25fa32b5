"""Segments of what finds blocks, one by one and merged."""

from __future__ import annotations

import math

import torch
from hypothesis import given
from hypothesis import strategies as st

from inf_llm.memory.index_files import absorbed, lengths, merged, of_store
from inf_llm.saved.segment import Rows

HEADS = 2
AFTER_BLOCKS = {"means": (3,), "codes": (4, 3), "steps": ()}


def segment(stores: str, blocks: int) -> dict[str, torch.Tensor]:
    """Tensors (V, n, ...) and checksums (n,) for each store."""
    found = {f"{store}.crc32": torch.randn(blocks) for store in stores}
    for what, rest in AFTER_BLOCKS.items():
        found |= {f"{store}.{what}": torch.randn(HEADS, blocks, *rest) for store in stores}
    return found


def written(rows: Rows) -> torch.Tensor:
    flat = torch.cat([piece.reshape(-1) for piece in rows.pieces()])
    return flat.view(rows.shape)


def test_merged_segments_say_the_same() -> None:
    """A store that is in some of them only too."""
    parts = [segment("0", 3), segment("01", 5), segment("1", 2)]
    one = {name: written(rows) for name, rows in merged(parts).items()}
    for store, blocks in (("0", 8), ("1", 7)):
        checks, found = of_store(parts, store)
        checks_once, found_once = of_store([one], store)
        assert torch.equal(checks, checks_once)
        assert len(checks) == blocks
        assert lengths(found) == lengths(found_once) == {blocks}
        for what, tensors in found.items():
            assert torch.equal(torch.cat(tensors, 1), found_once[what][0])


def test_lengths_that_differ_are_seen() -> None:
    parts = segment("0", 3) | {"0.steps": torch.randn(2, 4)}
    assert lengths(of_store([parts], "0")[1]) == {3, 4}


@given(st.lists(st.integers(1, 9), min_size=1, max_size=200))
def test_there_are_few_segments_however_often_a_text_is_saved(news: list[int]) -> None:
    """And nothing is written more than about log2 times."""
    held: list[int] = []  # blocks of each segment
    written = 0
    for new in news:
        before = [{"0.steps": torch.empty(1, blocks)} for blocks in held]
        count = len(held) - absorbed(before, {"0.steps": torch.empty(1, new)})
        held = [*held[:count], sum(held[count:]) + new]
        written += held[-1]
    most = math.log2(sum(news)) + 1
    assert len(held) <= most
    assert written <= most * sum(news) + sum(news)
    assert sum(held) == sum(news)
