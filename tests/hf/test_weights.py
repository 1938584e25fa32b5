"""inf_llm/hf/weights.py: tokens that are fed alone read weights in int8."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import inf_llm
from inf_llm.config import SHIPPED_CONFIGS, load_config
from inf_llm.errors import SettingsError
from inf_llm.hf.load import load, load_bare
from inf_llm.hf.weights import MAX_ROWS, restore_weights, round_weights, rounded_bytes

DEMO = SHIPPED_CONFIGS / "demo-inf-llm.yaml"


@pytest.fixture
def layer() -> nn.Linear:
    return nn.Linear(192, 130)


def rounded(layer: nn.Linear) -> nn.Linear:
    round_weights(nn.Sequential(layer))
    return layer


def most_apart(layer: nn.Linear, x: Tensor) -> Tensor:
    """By how much half a step of int8 a weight, and bfloat16, may change products."""
    weight = layer.weight.double()
    step = weight.abs().amax(1) / 127
    by_weights = x.abs().double().sum(-1, keepdim=True) * step / 2
    by_format = 3 * 2.0**-8 * (x.abs().double() @ weight.abs().T)
    return by_weights + by_format + 2.0**-7


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("rows", [1, 2, MAX_ROWS])
@torch.no_grad()
def test_single_tokens_are_as_near_as_int8_allows(
    layer: nn.Linear, rows: int, dtype: torch.dtype
) -> None:
    layer = layer.to(dtype)
    x = torch.randn(rows, 1, 192, dtype=dtype)
    want = x.double() @ layer.weight.double().T + layer.bias.double()
    got = rounded(layer)(x)
    assert got.dtype == dtype
    assert not torch.equal(got, nn.Linear.forward(layer, x))
    apart = (got.double() - want).abs()
    assert (apart <= most_apart(layer, x)).all()
    assert (apart > most_apart(layer, x) / 1000).any(), "the bound says nothing"


@torch.no_grad()
def test_a_token_is_what_it_is_beside_no_others(layer: nn.Linear) -> None:
    x, layer = torch.randn(MAX_ROWS, 1, 192), rounded(layer)
    assert torch.equal(layer(x), torch.cat([layer(row[None]) for row in x]))


@pytest.mark.parametrize("shape", [(1, 2), (3, 5), (MAX_ROWS + 1, 1)])
@torch.no_grad()
def test_texts_and_many_rows_are_not_rounded(layer: nn.Linear, shape: tuple[int, int]) -> None:
    x = torch.randn(*shape, 192)
    want = layer(x)
    assert torch.equal(rounded(layer)(x), want)


def test_gradients_are_of_the_weights(layer: nn.Linear) -> None:
    x = torch.randn(1, 192)
    rounded(layer)(x).sum().backward()
    assert torch.equal(layer.weight.grad, x.expand(130, -1))


@torch.no_grad()
def test_weights_that_have_changed_count(layer: nn.Linear) -> None:
    x, layer = torch.randn(1, 192), rounded(layer)
    before = layer(x) - layer.bias
    layer.weight.mul_(2)
    assert torch.allclose(layer(x) - layer.bias, 2 * before, atol=1e-6)
    layer.weight = nn.Parameter(torch.zeros_like(layer.weight))
    assert torch.equal(layer(x), layer.bias[None])


@torch.no_grad()
def test_a_copy_goes_on_by_itself(layer: nn.Linear) -> None:
    x = torch.randn(1, 192)
    twin = copy.deepcopy(rounded(layer))
    assert torch.equal(twin(x), layer(x))
    layer.weight.zero_()
    assert twin(x).abs().sum() > 10 * layer(x).abs().sum()


@torch.no_grad()
def test_an_output_without_weights_is_its_bias() -> None:
    layer = nn.Linear(192, 130)
    layer.weight[3] = 0
    assert rounded(layer)(torch.randn(1, 192))[0, 3] == layer.bias[3]


def test_names_and_tensors_stay(layer: nn.Linear) -> None:
    before = {name: value.clone() for name, value in layer.state_dict().items()}
    after = rounded(layer).state_dict()
    assert after.keys() == before.keys()
    assert all(torch.equal(after[name], value) for name, value in before.items())


def test_what_cannot_be_rounded_is_refused() -> None:
    with pytest.raises(SettingsError, match="this Sequential has none"):
        round_weights(nn.Sequential(nn.LayerNorm(8), nn.Linear(2, 2)))


def test_a_forward_of_another_library_stays(layer: nn.Linear) -> None:
    model = nn.Sequential(layer, nn.Linear(192, 130))
    layer.forward = other = lambda x: x  # type: ignore[method-assign,assignment]
    round_weights(model)
    restore_weights(model)
    assert layer.forward is other


def logits(model: Any, tokens: int) -> Tensor:
    with torch.no_grad():
        ids = torch.arange(3, 3 + tokens)[None]
        found: Tensor = model(input_ids=ids).logits
        return found


def test_a_configuration_rounds_and_unpatch_restores() -> None:
    plain, _ = load(DEMO, ["model.dtype=float32"])
    model, _ = load(DEMO, ["model.dtype=float32", "model.weights=int8"])
    layers = [m for m in model.modules() if isinstance(m, nn.Linear)]
    assert rounded_bytes(model) == sum(m.weight.numel() + 4 * len(m.weight) for m in layers)
    assert torch.equal(logits(model, 40), logits(plain, 40))
    assert not torch.equal(logits(model, 1), logits(plain, 1))
    assert torch.allclose(logits(model, 1), logits(plain, 1), atol=0.5)
    bare = inf_llm.unpatch(model)
    assert torch.equal(logits(bare, 1), logits(inf_llm.unpatch(plain), 1))


def test_a_model_that_cannot_be_rounded_is_left_unpatched(monkeypatch: pytest.MonkeyPatch) -> None:
    config = load_config(DEMO, ["model.weights=int8"])
    model, _ = load_bare(config)
    monkeypatch.setattr("inf_llm.hf.weights._MIN_WEIGHTS", 1 << 40)
    with pytest.raises(SettingsError, match="leave it out"):
        inf_llm.patch(model, config)
    inf_llm.patch(model, config.attention)
