"""inf_llm/native: a model computes the same with the loops in C and without them."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from inf_llm import native, new_cache
from inf_llm.config import SHIPPED_CONFIGS
from inf_llm.hf.load import load
from inf_llm.native import loops

DEMO = SHIPPED_CONFIGS / "demo-inf-llm.yaml"
READ, DECODED = 900, 6

pytestmark = pytest.mark.skipif(not loops.available(), reason="the loops in C are not built")


@torch.no_grad()
def decoded(*settings: str) -> Tensor:
    """Logits (DECODED, V) of tokens that are fed one by one after a text."""
    model, _ = load(DEMO, list(settings))
    ids = torch.randint(3, 900, (1, READ + DECODED), generator=torch.Generator().manual_seed(5))
    cache = new_cache(model)
    model(ids[:, :READ], past_key_values=cache)
    steps = [
        model(ids[:, at : at + 1], past_key_values=cache) for at in range(READ, READ + DECODED)
    ]
    return torch.cat([step.logits[0] for step in steps]).float()


@pytest.mark.parametrize(
    ("settings", "near"),
    [
        (("model.dtype=float32",), 1e-3),
        (("model.dtype=float32", "model.summary={name: pages, page_size: 1}"), 1e-3),
        (("model.dtype=float32", "model.type=stream-lm"), 1e-3),
        (("model.dtype=float32", "model.weights=int8"), 0.3),  # torch rounds the inputs
        (("model.dtype=bfloat16",), 0.6),
    ],
    ids=str,
)
def test_logits(settings: tuple[str, ...], near: float, monkeypatch: pytest.MonkeyPatch) -> None:
    with_loops = decoded(*settings)
    monkeypatch.setattr(loops, "functions", lambda: None)
    without = decoded(*settings)
    assert native.in_use() != "torch"
    assert not torch.equal(with_loops, without), "the loops were not used"
    apart = (with_loops - without).abs().max()
    assert apart < near
