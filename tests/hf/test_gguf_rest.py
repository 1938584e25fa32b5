"""What transformers leaves in a GGUF file reaches the model and its tokenizer."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from transformers import LlamaConfig, LlamaForCausalLM

from inf_llm.hf import gguf_rest
from inf_llm.hf.load import load_model, load_tokenizer
from tests.gguf_files import named, same, write_gguf


def test_all_tokens_that_end_an_answer(model: Any, tmp_path: Path) -> None:
    ids = {"tokenizer__ggml__eos_token_id": 1, "tokenizer__ggml__eot_token_id": 259}
    loaded = load_model(named(write_gguf(tmp_path / "two.gguf", model, **ids)))
    assert loaded.generation_config.eos_token_id == [1, 259]
    none = {"tokenizer__ggml__eos_token_id": None, "tokenizer__ggml__bos_token_id": None}
    file = write_gguf(tmp_path / "none.gguf", model, **none)
    assert load_model(named(file)).generation_config.eos_token_id is None
    assert load_tokenizer(named(file)).bos_token is None


@pytest.mark.parametrize(("pre", "wanted"), [("llama-bpe", True), ("smollm", False)])
def test_what_a_text_begins_with(model: Any, tmp_path: Path, pre: str, wanted: bool) -> None:
    file = write_gguf(tmp_path / "model.gguf", model, tokenizer__ggml__pre=pre)
    tokenizer = load_tokenizer(named(file))
    first = tokenizer("Hello")["input_ids"][0]
    assert (first == tokenizer.bos_token_id) == wanted


def scaled(model: Any, **rope: Any) -> LlamaForCausalLM:
    """The same weights with other rotary frequencies."""
    config = copy.deepcopy(model.config)
    config.rope_parameters = {**config.rope_parameters, **rope}
    other = LlamaForCausalLM(LlamaConfig(**config.to_dict())).eval()
    other.load_state_dict(model.state_dict())
    return other


LLAMA_3 = {
    "rope_type": "llama3",
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 64,
}


def test_frequencies_that_are_scaled_pair_by_pair(model: Any, tmp_path: Path) -> None:
    """As in every Llama 3.1 and 3.2; transformers leaves the divisors in the file."""
    wanted = scaled(model, **LLAMA_3)
    plain, turned = (m.model.rotary_emb.inv_freq for m in (model, wanted))
    divisors = {"rope_freqs.weight": plain / turned}
    loaded = load_model(named(write_gguf(tmp_path / "llama3.gguf", model, divisors)))
    assert same(loaded, wanted) < 2e-3
    assert same(model, wanted) > 0.1


def test_frequencies_that_are_all_scaled_alike(model: Any, tmp_path: Path) -> None:
    scaling = {"llama__rope__scaling__type": "linear", "llama__rope__scaling__factor": 4.0}
    loaded = load_model(named(write_gguf(tmp_path / "linear.gguf", model, **scaling)))
    wanted = scaled(model, rope_type="linear", factor=4.0)
    assert same(loaded, wanted) < 2e-3
    assert same(model, wanted) > 0.1


def test_layers_with_a_window_keep_their_frequencies() -> None:
    names = ["model.rotary_emb.full_attention_inv_freq", "rotary_emb.original_inv_freq"]
    names += ["full_attention_original_inv_freq", "inv_freq"]
    assert all(gguf_rest._FULL.fullmatch(name) for name in names)
    assert not gguf_rest._FULL.fullmatch("model.rotary_emb.sliding_attention_inv_freq")


def test_a_tokenizer_that_lost_its_merges_is_refused(file: Path) -> None:
    """transformers 5.10 reads a vocabulary of sentencepiece so, and cuts every word apart."""
    tokenizer = load_tokenizer(named(file))
    state = json.loads(tokenizer.backend_tokenizer.to_str())
    state["model"]["merges"] = []
    tokenizer._tokenizer = type(tokenizer.backend_tokenizer).from_str(json.dumps(state))
    with pytest.raises(ValueError, match="finds 0 again: transformers misreads it"):
        gguf_rest.complete_tokenizer(tokenizer, file)


def test_an_already_scaled_model_is_left(model: Any, tmp_path: Path) -> None:
    """A release of transformers that reads the divisors itself must not be undone."""
    scaling = {"llama__rope__scaling__type": "linear", "llama__rope__scaling__factor": 4.0}
    file = write_gguf(tmp_path / "linear.gguf", model, **scaling)
    wanted = scaled(model, rope_type="linear", factor=4.0)
    before = wanted.model.rotary_emb.inv_freq.clone()
    gguf_rest.complete_model(wanted, file)
    assert torch.equal(wanted.model.rotary_emb.inv_freq, before)


def test_the_configuration_is_kept_as_plain_numbers(file: Path) -> None:
    assert named(file).to_dict()["model"]["path"] == str(file)
    assert not getattr(load_model(named(file)).config, "quantization_config", None)
    assert ("quantization_config" in gguf_rest.as_numbers()) == hasattr(transformers, "GgufConfig")
