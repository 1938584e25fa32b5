"""Stretched positions against models of transformers that are built with the same rule."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor
from transformers import (
    GlmConfig,
    GlmForCausalLM,
    LlamaConfig,
    LlamaForCausalLM,
    MistralConfig,
    MistralForCausalLM,
)

import inf_llm
from inf_llm.config import load_config
from inf_llm.errors import SettingsError
from inf_llm.rope import Rope
from inf_llm.scaling import rescale
from inf_llm.settings import make_settings

SIZES: dict[str, Any] = {
    "vocab_size": 97,
    "hidden_size": 64,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "num_key_value_heads": 2,
    "max_position_embeddings": 64,
    "eos_token_id": None,
}
IDS = torch.arange(200)[None] * 7 % 97
CLASSES = {
    "llama": (LlamaConfig, LlamaForCausalLM),
    "mistral": (MistralConfig, MistralForCausalLM),
    "glm": (GlmConfig, GlmForCausalLM),  # half of each head, in neighbouring pairs
}


def build(family: str = "llama", **rope: Any) -> Any:
    """A tiny model with sharp attention; the same weights whatever the positions."""
    config_class, model_class = CLASSES[family]
    more: dict[str, Any] = {"sliding_window": None} if family == "mistral" else {}
    if family == "glm":
        more = {"head_dim": 32, "pad_token_id": 0}
        rope.setdefault("partial_rotary_factor", 0.5)
    parameters = {"rope_type": "default", "rope_theta": 10000.0, **rope}
    torch.manual_seed(0)
    model = model_class(config_class(**{**SIZES, **more}, rope_parameters=parameters)).eval()
    for name, weight in model.named_parameters():
        if "q_proj" in name or "k_proj" in name:
            weight.data *= 12
    return model


@torch.no_grad()
def logits(model: Any) -> Tensor:
    return model(IDS).logits


YARN = {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 64}
RULES: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "base": ({"base": 500.0}, {"rope_theta": 500.0}),
    "distance_scale": ({"distance_scale": 0.25}, {"rope_type": "linear", "factor": 4.0}),
    "linear": (
        {"scaling": "linear", "scaling_factor": 4.0},
        {"rope_type": "linear", "factor": 4.0},
    ),
    "yarn": ({"scaling": "yarn", "scaling_factor": 4.0, "trained_len": 64}, YARN),
    "yarn, other sizes": (
        {"scaling": "yarn", "scaling_factor": 2.5, "trained_len": 4000, "base": 1e6},
        YARN | {"factor": 2.5, "original_max_position_embeddings": 4000, "rope_theta": 1e6},
    ),
}


@pytest.mark.parametrize("family", CLASSES)
@pytest.mark.parametrize(("settings", "rope"), RULES.values(), ids=RULES)
def test_origin_is_the_model_built_with_that_rule(
    family: str, settings: dict[str, Any], rope: dict[str, Any]
) -> None:
    wanted, model = logits(build(family, **rope)), build(family)
    plain = logits(model)
    got = logits(inf_llm.patch(model, type="origin", **settings))
    torch.testing.assert_close(got, wanted, atol=2e-4, rtol=2e-4)
    assert float((got - plain).abs().max()) > 0.02, "the rule changes nothing"
    assert torch.equal(logits(inf_llm.unpatch(model)), plain)


def test_ntk_is_the_base_that_dynamic_scaling_reaches_at_that_length() -> None:
    """transformers has no static NTK; its dynamic one with factor 1 is it at the full length."""
    longest = SIZES["max_position_embeddings"] * 4
    dynamic = build(rope_type="dynamic", factor=1.0)
    ids = torch.arange(longest)[None] % 97
    model = inf_llm.patch(build(), type="origin", scaling="ntk", scaling_factor=4.0)
    with torch.no_grad():
        got, wanted = model(ids).logits, dynamic(ids).logits
    torch.testing.assert_close(got, wanted, atol=2e-4, rtol=2e-4)


@pytest.mark.parametrize("kind", ["infinite-lm", "stream-lm", "inf-llm"])
@pytest.mark.parametrize("rule", ["linear", "ntk", "yarn"])
def test_windows_rotate_by_the_same_rule(kind: str, rule: str) -> None:
    settings: dict[str, Any] = {"scaling": rule, "scaling_factor": 4.0}
    settings |= {"trained_len": 64} if rule == "yarn" else {}
    small = {"exc_block_size": 64, "block_size": 16} if kind == "inf-llm" else {}
    wanted = logits(inf_llm.patch(build(), type="origin", **settings))
    got = logits(inf_llm.patch(build(), type=kind, n_local=256, **small, **settings))
    torch.testing.assert_close(got, wanted, atol=2e-4, rtol=2e-4)


PUBLISHED = {
    "mistral-ntk": {"rope_theta": 1e7},
    "mistral-pi": {"rope_theta": 1e6, "rope_type": "linear", "factor": 4.0},
}


@pytest.mark.parametrize("name", PUBLISHED)
def test_published_configurations_stretch_as_they_say(name: str) -> None:
    config = load_config(name)
    assert config.attention.type == "origin"
    wanted = logits(build("mistral", **PUBLISHED[name]))
    model = build("mistral", rope_theta=1e6)  # as the published model is
    got = logits(inf_llm.patch(model, config))
    torch.testing.assert_close(got, wanted, atol=2e-4, rtol=2e-4)


def test_yarn_refuses_what_is_scaled_already_unless_given_the_base() -> None:
    model = build(rope_type="linear", factor=2.0)
    yarn: dict[str, Any] = {"scaling": "yarn", "scaling_factor": 4.0, "trained_len": 64}
    before = logits(model)
    with pytest.raises(SettingsError, match="scaled already: set base too"):
        inf_llm.patch(model, type="origin", **yarn)
    assert torch.equal(logits(model), before)
    got = logits(inf_llm.patch(model, type="origin", base=10000.0, **yarn))
    torch.testing.assert_close(got, logits(build(**YARN)), atol=2e-4, rtol=2e-4)


def test_a_layer_without_positions_stays_so() -> None:
    assert (
        rescale(Rope.none(), make_settings("origin", scaling="ntk", scaling_factor=2.0)).pairs == 0
    )


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"scaling": "yran"}, "did you mean 'yarn'"),
        ({"scaling": "ntk"}, "scaling = 'ntk' needs factor"),
        ({"scaling_factor": 4.0}, "scaling_factor = 4.0 has no effect with scaling = 'none'"),
        ({"scaling": "yarn", "scaling_factor": 4.0}, "'yarn' needs trained_len"),
        (
            {"scaling": "ntk", "scaling_factor": 4.0, "trained_len": 5},
            "trained_len = 5 has no effect with scaling = 'ntk'",
        ),
        (
            {"scaling": "linear", "scaling_factor": 4.0, "distance_scale": 0.5},
            "distance_scale = 0.5 says the same as scaling = 'linear'",
        ),
    ],
)
def test_scaling_that_makes_no_sense_is_refused(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(SettingsError, match=message):
        make_settings("origin", **settings)
