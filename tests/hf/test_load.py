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

import inf_llm
from inf_llm.config import ModelConfig, RunConfig
from inf_llm.errors import ConfigError
from inf_llm.hf.load import load, load_model
from inf_llm.hf.trial import check_vocabulary
from inf_llm.settings import OriginSettings
from tests.checkpoints import script

SIZES: dict[str, Any] = {"hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2}
SIZES |= {"intermediate_size": 64, "vocab_size": 300}
LLAMA = LlamaConfig(**SIZES)


def named(path: str | Path, **more: Any) -> RunConfig:
    own = {key: more.pop(key) for key in list(more) if key == "conv_type"}
    return RunConfig(ModelConfig(str(path), **more), OriginSettings(), **own)


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


def test_a_hub_name_is_told_what_it_may_be(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(ConfigError, match=r"'nobody/nothing': .*owner/name:FILE.gguf"):
        load(named("nobody/nothing"))


@pytest.mark.parametrize(
    "path",
    ["demo/", " demo ", "demo\n", "de\0mo", "a b", "a/b/c", "../x", "owner/name@main", "a\\b", "~"],
)
def test_what_is_no_hub_name_is_not_asked_for_there(
    path: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", "/nowhere")
    with pytest.raises(ConfigError, match="there is no such folder or file") as caught:
        load(named(path))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("path", ["x" * 5000, "~nobody-of-this-name/x"])
def test_an_impossible_path_is_one_short_line(path: str) -> None:
    with pytest.raises(ConfigError, match="cannot be read") as caught:
        load(named(path))
    assert len(str(caught.value)) < 500


def test_a_device_that_is_none(tmp_path: Path) -> None:
    LlamaForCausalLM(LLAMA).save_pretrained(tmp_path)
    config = RunConfig(ModelConfig(str(tmp_path), device_map="xyz"), OriginSettings())
    with pytest.raises(ConfigError, match="xyz") as caught:
        load_model(config)
    assert "give a folder" not in str(caught.value)


def test_overrides_without_a_file_are_refused() -> None:
    with pytest.raises(ConfigError, match="overrides go on top of a file"):
        load(named("demo"), ["model.dtype=float32"])


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    script().main(tmp_path / "model")
    return tmp_path / "model"


def grown(checkpoint: Path, *tokens: str, **special: Any) -> Path:
    """A folder with the tokenizer and more tokens, which the model has no embeddings for."""
    tokenizer = script().make_tokenizer()
    tokenizer.add_tokens(list(tokens), **special)
    folder = checkpoint.parent / "more"
    tokenizer.save_pretrained(folder)
    return folder


def test_a_tokenizer_with_more_tokens_than_the_model(checkpoint: Path) -> None:
    config = named(checkpoint, tokenizer_path=str(grown(checkpoint, "mat", "cat")))
    with pytest.raises(ConfigError) as caught:
        load(config)
    for part in ("260 tokens", "'mat', number 258", "embeddings for 258", "tokenizer_path"):
        assert part in str(caught.value)


def test_padding_and_unused_special_tokens_do_no_harm(checkpoint: Path) -> None:
    """Gemma 3's tokenizer has one token more than its text models; many have one for padding."""
    folder = grown(checkpoint, "<image>", "<pad>", special_tokens=True)
    settings = folder / "tokenizer_config.json"
    settings.write_text(json.dumps(json.loads(settings.read_text()) | {"pad_token": "<pad>"}))
    model, tokenizer = load(named(checkpoint, tokenizer_path=str(folder)))
    assert len(tokenizer) > model.config.vocab_size


def test_special_tokens_that_the_layout_writes_are_needed(checkpoint: Path) -> None:
    folder = grown(checkpoint, "<|im_start|>", special_tokens=True)
    config = named(checkpoint, tokenizer_path=str(folder), conv_type="qwen")
    with pytest.raises(ConfigError, match=r"'<\|im_start\|>', number 258"):
        load(config)
    (folder / "chat_template.jinja").write_text("<|im_start|>{{ messages[0].content }}")
    with pytest.raises(ConfigError, match=r"'<\|im_start\|>', number 258"):
        load(named(checkpoint, tokenizer_path=str(folder)))


def test_embeddings_that_are_more_are_fine(checkpoint: Path) -> None:
    """Most models have a few more rows, for the sake of round numbers."""
    model = script().make_model(320)
    check_vocabulary(model, script().make_tokenizer(), named("x"))


def test_a_model_that_cannot_run_is_said_when_it_is_loaded(
    checkpoint: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*args: Any, **how: Any) -> Any:
        raise RuntimeError("no kernel\nfor this")

    monkeypatch.setattr(LlamaForCausalLM, "forward", broken)
    with pytest.raises(ConfigError, match=r"the model cannot run \(RuntimeError: no kernel\)$"):
        inf_llm.load(named(checkpoint))
