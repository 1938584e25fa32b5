"""Checkpoints that are whole, and still no model to read texts with, are refused by their cause."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import (
    BertConfig,
    BertForMaskedLM,
    BertModel,
    LlamaConfig,
    LlamaForCausalLM,
    LlamaForSequenceClassification,
    LlamaModel,
    T5Config,
    T5ForConditionalGeneration,
)

from inf_llm.config import ModelConfig, RunConfig
from inf_llm.errors import ConfigError
from inf_llm.hf.load import load, load_model
from inf_llm.settings import OriginSettings
from tests.checkpoints import named

SIZES: dict[str, Any] = {"hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2}
SIZES |= {"intermediate_size": 64, "vocab_size": 300}
LLAMA = LlamaConfig(**SIZES)


def t5() -> Any:
    return T5ForConditionalGeneration(
        T5Config(vocab_size=300, d_model=32, d_kv=16, d_ff=64, num_layers=1, num_heads=2)
    )


def damaged() -> Any:
    model = LlamaForCausalLM(LLAMA)
    torch.nn.init.constant_(model.model.norm.weight, float("nan"))
    return model


REFUSED: dict[str, tuple[Any, dict[str, Any], str]] = {
    "encoder": (lambda: BertForMaskedLM(BertConfig(**SIZES)), {}, "every token sees all others"),
    "encoder without a head": (
        lambda: BertModel(BertConfig(**SIZES)),
        {},
        "weights of BertLMHeadModel are missing: cls.predictions.bias and ",
    ),
    "encoder and decoder": (t5, {}, "no AutoModelForCausalLM of type 't5'"),
    "no head": (
        lambda: LlamaModel(LLAMA),
        {},
        "weights of LlamaForCausalLM are missing: lm_head.weight; download it again",
    ),
    "classifier": (lambda: LlamaForSequenceClassification(LLAMA), {}, "missing: lm_head.weight;"),
    "other shapes": (
        lambda: LlamaForCausalLM(LLAMA),
        {"intermediate_size": 128},
        "are of another shape: model.layers.0.mlp.down_proj.weight and 2 more",
    ),
    "more layers": (
        lambda: LlamaForCausalLM(LLAMA),
        {"num_hidden_layers": 2},
        "are missing: model.layers.1.input_layernorm.weight and 8 more",
    ),
    "no numbers": (damaged, {}, "gives no finite numbers in torch.float32"),
    "code of its own": (
        lambda: LlamaForCausalLM(LLAMA),
        {"model_type": "odd", "auto_map": {"AutoConfig": "a.B", "AutoModelForCausalLM": "a.C"}},
        "a model of type 'odd' brings Python code of its own, which is not run here",
    ),
    "unknown": (lambda: LlamaForCausalLM(LLAMA), {"model_type": "odd"}, "a newer one may know it"),
    "impossible": (lambda: LlamaForCausalLM(LLAMA), {"hidden_size": "many"}, "cannot load the"),
    "a scaling of no name": (
        lambda: LlamaForCausalLM(LLAMA),
        {"rope_parameters": {"rope_type": "nope", "rope_theta": 1e4}},
        "cannot load the model",
    ),
    "unequal heads": (
        lambda: LlamaForCausalLM(LLAMA),
        {"num_attention_heads": 3},
        "cannot load the model (Class validation error for validator 'validate_architecture': ",
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_refused_by_its_cause(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make, changes, says = REFUSED[name]
    make().save_pretrained(tmp_path)
    settings = tmp_path / "config.json"
    settings.write_text(json.dumps(json.loads(settings.read_text()) | changes))
    monkeypatch.setattr("builtins.input", _not_asked)
    with pytest.raises(ConfigError) as caught:
        load_model(named(tmp_path))
    assert str(caught.value).startswith(f"model.path = {str(tmp_path)!r}: ")
    assert says in str(caught.value)
    assert "\n" not in str(caught.value)
    assert "give a folder with config.json" not in str(caught.value), "it is one"


def _not_asked(*args: Any) -> str:
    raise AssertionError("a question at the terminal")


def test_code_of_a_known_model_is_left_unused(tmp_path: Path) -> None:
    """Many folders still have the code that a model had before transformers took it over."""
    LlamaForCausalLM(LLAMA).save_pretrained(tmp_path)
    settings = tmp_path / "config.json"
    own = {"auto_map": {"AutoModelForCausalLM": "a.C"}}
    settings.write_text(json.dumps(json.loads(settings.read_text()) | own))
    assert type(load_model(named(tmp_path))) is LlamaForCausalLM


def test_a_base_model_with_tied_embeddings_has_its_head(tmp_path: Path) -> None:
    LlamaModel(LlamaConfig(**SIZES, tie_word_embeddings=True)).save_pretrained(tmp_path)
    assert type(load_model(named(tmp_path))) is LlamaForCausalLM


def test_the_cause_stays_with_the_error(tmp_path: Path) -> None:
    """So that `--debug` shows where it comes from."""
    LlamaForCausalLM(LLAMA).save_pretrained(tmp_path)
    (tmp_path / "config.json").write_text('{"model_type": "llama", "hidden_size": "many"}')
    with pytest.raises(ConfigError) as caught:
        load_model(named(tmp_path))
    assert caught.value.__cause__ is not None


def test_a_device_that_is_none(tmp_path: Path) -> None:
    LlamaForCausalLM(LLAMA).save_pretrained(tmp_path)
    config = RunConfig(ModelConfig(str(tmp_path), device_map="xyz"), OriginSettings())
    with pytest.raises(ConfigError, match="xyz") as caught:
        load_model(config)
    assert "give a folder" not in str(caught.value)


def test_overrides_without_a_file_are_refused() -> None:
    with pytest.raises(ConfigError, match="overrides go on top of a file"):
        load(named("demo"), ["model.dtype=float32"])
