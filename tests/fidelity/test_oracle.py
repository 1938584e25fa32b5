"""The oracle keeps the rule's blocks and places, and chooses by mass alone."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from inf_llm.attention.base import Rule
from inf_llm.attention.inf_llm import InfLLMAttention
from inf_llm.fidelity.mass import block_mass, true_mass
from inf_llm.fidelity.oracle import OracleAttention, sealed_blocks
from inf_llm.kernels import Scoring
from inf_llm.rope import Rope
from inf_llm.settings import InfLLMSettings, make_settings
from tests.layers import MEMORY, random_qkv

RULE = Rule(Scoring(0.25))
ROPE = Rope.from_base(16, 10000.0)


def _settings(**changes: object) -> InfLLMSettings:
    made = make_settings("inf-llm", **{**MEMORY, **changes})
    assert isinstance(made, InfLLMSettings)
    return made


def _fed(layer: OracleAttention | InfLLMAttention, feeds: tuple[int, ...]) -> Tensor:
    parts = (x.split(list(feeds), 2) for x in random_qkv(sum(feeds), heads=(4, 2)))
    return torch.cat([layer.attend(*part, RULE) for part in zip(*parts, strict=True)], 2)


@pytest.mark.parametrize("perhead", [False, True])
def test_with_every_block_it_is_the_rule_itself(perhead: bool) -> None:
    every = _settings(topk=99, max_cached_block=99, perhead=perhead)
    feeds = (100, 1, 1, 37)
    outputs = [_fed(kind(ROPE, every), feeds) for kind in (OracleAttention, InfLLMAttention)]
    torch.testing.assert_close(*outputs, rtol=0, atol=1e-5)
    fewer = _fed(OracleAttention(ROPE, _settings(topk=1, perhead=perhead)), feeds)
    assert (fewer - outputs[0]).abs().max() > 1e-2


def test_it_takes_the_block_of_most_mass() -> None:
    """With one block, the output is what the rule gives with that block, and with no other."""
    settings, feeds = _settings(topk=1), (120, 1)
    q, k, _ = random_qkv(121, heads=(4, 2))
    mass = true_mass(ROPE.rotate(q[:, :, 120:], 120), ROPE.rotate(k, 0), 120, RULE)
    blocks = sealed_blocks(settings, 120)
    assert blocks == (120 - 24 - 4) // 6
    best = int(block_mass(mass, 4, 6, blocks)[0].sum(0).argmax())
    layer = OracleAttention(ROPE, settings)
    chosen = []
    attend_at = layer._attend_at
    layer._attend_at = lambda q, at, rule: (chosen.append(at), attend_at(q, at, rule))[1]  # type: ignore[method-assign]
    _fed(layer, feeds)
    assert chosen[-1].tolist() == [list(range(4 + 6 * best, 4 + 6 * best + 6))]


def test_a_fork_goes_on_by_itself() -> None:
    layer = OracleAttention(ROPE, _settings())
    _fed(layer, (60,))
    twin = layer.fork()
    q, k, v = random_qkv(9, heads=(4, 2))
    first = layer.attend(q, k, v, RULE)
    assert twin.seen == 60
    assert torch.equal(twin.attend(q, k, v, RULE), first)
