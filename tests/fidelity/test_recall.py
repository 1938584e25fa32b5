"""Held mass, against a statement with sets of tokens."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from inf_llm.fidelity.recall import Choices, held_mass
from inf_llm.settings import InfLLMSettings, make_settings

SIZES: dict[str, Any] = {"n_init": 3, "n_local": 10, "block_size": 4, "topk": 2, "repr_topk": 2}
SIZES |= {"max_cached_block": 4, "exc_block_size": 5}
FIRST, QUERIES = 40, 5
SEALED = (40 - 10 - 3) // 4


def _settings() -> InfLLMSettings:
    made = make_settings("inf-llm", **SIZES)
    assert isinstance(made, InfLLMSettings)
    return made


@pytest.mark.parametrize("choosers", [1, 2, 4])
def test_held_mass(choosers: int) -> None:
    draw = torch.Generator().manual_seed(0)
    mass = torch.rand(1, 4, QUERIES, FIRST + QUERIES, generator=draw)
    blocks = torch.stack([torch.tensor([x % SEALED, (x + 3) % SEALED]) for x in range(choosers)])
    choices = Choices([(FIRST - 5, FIRST, None), (FIRST, FIRST + QUERIES, blocks[None])])
    needle = (14, 20)
    got = held_mass(_settings(), choices, mass, FIRST, needle)

    behind = set(range(3 + 4 * SEALED, FIRST + QUERIES))
    wanted = [0.0] * 6
    for head in range(4):
        chosen = blocks[head * choosers // 4].tolist()
        held = behind | {3 + 4 * block + i for block in chosen for i in range(4)}
        for query in range(QUERIES):
            for token in range(3, FIRST + query - 10 + 1):
                value = float(mass[0, head, query, token])
                inside = needle[0] <= token < needle[1]
                wanted[0] += value
                wanted[1] += value * (token in held)
                wanted[3] += value * inside
                wanted[4] += value * (inside and token in held)
    sums = [got[i].item() for i in (0, 1, 3, 4)]
    assert sums == pytest.approx([wanted[i] for i in (0, 1, 3, 4)], rel=1e-5)
    assert got[1] <= got[2] <= got[0]


def test_earlier_execution_blocks_and_missing_needles_do_not_count() -> None:
    mass = torch.rand(1, 4, QUERIES, FIRST + QUERIES)
    early = Choices([(FIRST - 1, FIRST + QUERIES, torch.zeros(1, 1, 1, dtype=torch.long))])
    assert not held_mass(_settings(), early, mass, FIRST, (5, 9)).any()
    now = Choices([(FIRST, FIRST + QUERIES, torch.zeros(1, 1, 1, dtype=torch.long))])
    assert held_mass(_settings(), now, mass, FIRST, None)[3:].tolist() == [0, 0, 0]
