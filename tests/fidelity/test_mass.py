"""Mass under full attention, against a plain softmax, and what blocks get of it."""

from __future__ import annotations

import numpy as np
import torch

from inf_llm.attention.base import Rule
from inf_llm.fidelity.mass import block_mass, heaviest, true_mass
from inf_llm.kernels import Scoring
from tests.layers import random_qkv


def test_it_is_the_causal_softmax() -> None:
    q, k, _ = random_qkv(30, heads=(4, 2))
    rule = Rule(Scoring(0.3, softcap=5.0), learned_sink=torch.tensor([0.0, 1.0, -1.0, 2.0]))
    got = true_mass(q[:, :, 20:], k, 20, rule)
    for head in range(4):
        for row, position in enumerate(range(20, 30)):
            keys = k[0, head // 2, : position + 1].double().numpy()
            scores = 5 * np.tanh(keys @ q[0, head, position].double().numpy() * 0.3 / 5)
            sink = float(rule.learned_sink[head])  # type: ignore[index]
            wanted = np.exp(scores) / (np.exp(scores).sum() + np.exp(sink))
            np.testing.assert_allclose(got[0, head, row, : position + 1], wanted, rtol=1e-4)
            assert not got[0, head, row, position + 1 :].any()


def test_blocks_are_added_up_and_chosen_by_heads_together() -> None:
    mass = torch.zeros(1, 4, 2, 14)
    mass[0, 0, :, 2:4] = 1.0  # block 0: 4 for head 0
    mass[0, 1, 0, 8] = 5.0  # block 2: 5 for head 1
    mass[0, 3, 1, 11] = 1.0  # block 3, head 3
    found = block_mass(mass, 2, 3, 4)
    wanted = [[4, 0, 0, 0], [0, 0, 5, 0], [0, 0, 0, 0], [0, 0, 0, 1]]
    assert found[0].tolist() == wanted
    assert heaviest(found, 1, 2).tolist() == [[[0, 2]]]
    assert heaviest(found, 2, 1).tolist() == [[[2], [3]]]
    assert heaviest(found, 4, 1)[0, 0].tolist() == [0]
    assert heaviest(found, 1, 9).shape[2] == 4
