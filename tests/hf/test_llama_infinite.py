"""The LlamaInfinite classes: loading, saving, the Auto classes, and what they compute."""

from __future__ import annotations

import dataclasses
import json
import logging
import subprocess
import sys
import time
import warnings
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import (
    AutoConfig,
    AutoModel,
    AutoModelForCausalLM,
    AutoModelForSequenceClassification,
    AutoTokenizer,
    LlamaConfig,
    LlamaForCausalLM,
    LlamaForSequenceClassification,
    LlamaModel,
)

import inf_llm
from benchmark import process_memory
from inf_llm import (
    LlamaInfiniteConfig,
    LlamaInfiniteForCausalLM,
    LlamaInfiniteForSequenceClassification,
    LlamaInfiniteModel,
)
from inf_llm.errors import SettingsError, UnsupportedModelError
from inf_llm.hf.load import load_model
from inf_llm.hf.patch import patched

SIZES: dict[str, Any] = {
    "vocab_size": 97,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 64,
    "eos_token_id": None,
}
WINDOW = {"n_init": 4, "n_local": 24}


def sharpened(model: Any) -> Any:
    """Random weights attend to everything alike; these do not, so that a wrong key is seen."""
    for name, weight in model.named_parameters():
        if "q_proj" in name or "k_proj" in name:
            weight.data *= 8
    return model.eval()


@pytest.fixture
def llama() -> LlamaForCausalLM:
    torch.manual_seed(0)
    return sharpened(LlamaForCausalLM(LlamaConfig(**SIZES)))


@pytest.fixture
def checkpoint(llama: LlamaForCausalLM, tmp_path: Path) -> Path:
    """A plain Llama on disk."""
    llama.save_pretrained(tmp_path / "llama")
    return tmp_path / "llama"


def tokens(count: int, rows: int = 1) -> torch.Tensor:
    torch.manual_seed(count)
    return torch.randint(3, SIZES["vocab_size"], (rows, count))


@torch.no_grad()
def test_a_llama_checkpoint_computes_what_a_patched_llama_does(
    llama: LlamaForCausalLM, checkpoint: Path
) -> None:
    ids = tokens(150)
    plain = llama(input_ids=ids).logits
    model = LlamaInfiniteForCausalLM.from_pretrained(checkpoint, **WINDOW)
    got = model(input_ids=ids).logits
    wanted = inf_llm.patch(llama, type="infinite-lm", **WINDOW)(input_ids=ids).logits
    torch.testing.assert_close(got, wanted, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(got[:, :24], plain[:, :24], atol=1e-4, rtol=1e-4)
    assert float((got - plain)[:, 60:].abs().max()) > 0.05, "the window changes nothing"


def test_the_window_is_the_trained_length_unless_said(checkpoint: Path) -> None:
    model = LlamaInfiniteForCausalLM.from_pretrained(checkpoint)
    state = patched(model)
    assert state is not None
    assert state.settings == inf_llm.LlamaInfiniteConfig(**SIZES).attention_settings()
    assert (state.settings.n_init, state.settings.n_local) == (128, 64)


@torch.no_grad()
def test_saving_and_loading_gives_the_same_model(checkpoint: Path, tmp_path: Path) -> None:
    model = LlamaInfiniteForCausalLM.from_pretrained(checkpoint, **WINDOW)
    model.save_pretrained(tmp_path / "saved")
    again = LlamaInfiniteForCausalLM.from_pretrained(tmp_path / "saved")
    assert again.config.model_type == "llama-infinite"
    assert (again.config.n_init, again.config.n_local) == (4, 24)
    ids = tokens(100)
    assert torch.equal(again(input_ids=ids).logits, model(input_ids=ids).logits)
    assert again.state_dict().keys() == model.state_dict().keys()


@torch.no_grad()
def test_the_auto_classes_know_it(checkpoint: Path, tmp_path: Path) -> None:
    model = LlamaInfiniteForCausalLM.from_pretrained(checkpoint, **WINDOW)
    model.save_pretrained(tmp_path / "saved")
    assert isinstance(AutoConfig.from_pretrained(tmp_path / "saved"), LlamaInfiniteConfig)
    causal = AutoModelForCausalLM.from_pretrained(tmp_path / "saved")
    bare = AutoModel.from_pretrained(tmp_path / "saved")
    classifier = AutoModelForSequenceClassification.from_pretrained(tmp_path / "saved")
    assert type(causal) is LlamaInfiniteForCausalLM
    assert type(bare) is LlamaInfiniteModel
    assert type(classifier) is LlamaInfiniteForSequenceClassification
    assert type(classifier.model) is LlamaModel
    ids = tokens(100)
    hidden = bare(input_ids=ids).last_hidden_state
    torch.testing.assert_close(causal.lm_head(hidden), model(input_ids=ids).logits)
    torch.testing.assert_close(classifier.model(input_ids=ids).last_hidden_state, hidden)


def test_plain_llama_classes_are_left_alone(checkpoint: Path) -> None:
    assert type(AutoModelForCausalLM.from_pretrained(checkpoint)) is LlamaForCausalLM


@torch.no_grad()
def test_the_weights_of_a_classifier_are_found(tmp_path: Path) -> None:
    torch.manual_seed(1)
    plain = LlamaForSequenceClassification(LlamaConfig(**SIZES, num_labels=3)).eval()
    plain.save_pretrained(tmp_path)
    model, report = LlamaInfiniteForSequenceClassification.from_pretrained(
        tmp_path, **WINDOW, output_loading_info=True
    )
    assert not report["missing_keys"]
    assert not report["unexpected_keys"]
    ids = tokens(20)
    torch.testing.assert_close(model(ids).logits, plain(ids).logits, atol=1e-5, rtol=1e-5)


@torch.no_grad()
def test_classifying_far_past_the_trained_length_is_finite_and_stable() -> None:
    torch.manual_seed(2)
    config = LlamaInfiniteConfig(**SIZES, **WINDOW, num_labels=3)
    model = sharpened(LlamaInfiniteForSequenceClassification(config))
    ids = tokens(64 * 100)
    whole = model(ids).logits
    assert whole.shape == (1, 3)
    assert whole.isfinite().all()
    # Two layers see no further back than two windows, so what was before changes nothing.
    early = ids.clone()
    early[:, 4:6000] = 5
    torch.testing.assert_close(model(early).logits, whole, atol=1e-5, rtol=1e-5)
    assert float((model(ids[:, :-1]).logits - whole).abs().max()) > 1e-3


@torch.no_grad()
def test_generate_goes_on_past_the_trained_length(checkpoint: Path) -> None:
    model = LlamaInfiniteForCausalLM.from_pretrained(checkpoint, **WINDOW)
    ids = tokens(200)
    out = model.generate(
        ids, attention_mask=torch.ones_like(ids), max_new_tokens=10, do_sample=False
    )
    step = ids
    for _ in range(10):
        step = torch.cat((step, model(step).logits[:, -1:].argmax(-1)), 1)
    assert out.tolist() == step.tolist()


@torch.no_grad()
def test_a_second_model_from_the_same_configuration() -> None:
    first = LlamaInfiniteForCausalLM(LlamaInfiniteConfig(**SIZES, **WINDOW)).eval()
    second = LlamaInfiniteForCausalLM(first.config).eval()
    second.load_state_dict(first.state_dict())
    ids = tokens(90)
    assert torch.equal(first(ids).logits, second(ids).logits)


def test_unpatching_leaves_a_llama(llama: LlamaForCausalLM, checkpoint: Path) -> None:
    model = LlamaInfiniteForCausalLM.from_pretrained(checkpoint, **WINDOW)
    with pytest.raises(UnsupportedModelError, match="patched already"):
        inf_llm.patch(model, type="inf-llm")
    inf_llm.unpatch(model)
    ids = tokens(90)
    with torch.no_grad():
        torch.testing.assert_close(model(ids).logits, llama(ids).logits)


@torch.no_grad()
def test_a_configuration_may_name_a_saved_one(checkpoint: Path, tmp_path: Path) -> None:
    demo = inf_llm.load_config("demo-inf-llm")
    LlamaInfiniteForCausalLM.from_pretrained(checkpoint, **WINDOW).save_pretrained(tmp_path / "own")
    model_config = dataclasses.replace(demo.model, path=str(tmp_path / "own"))
    model = load_model(dataclasses.replace(demo, model=model_config))
    assert type(model) is LlamaInfiniteForCausalLM
    assert patched(model) is None
    patched_again = patched(inf_llm.patch(model, demo))
    assert patched_again is not None
    assert patched_again.settings.type == "inf-llm"


def test_settings_are_checked_when_the_configuration_is_made() -> None:
    with pytest.raises(SettingsError, match="n_local = 0 is too small"):
        LlamaInfiniteConfig(**SIZES, n_local=0)
    with pytest.raises(SettingsError, match="n_init = 'a' is not a whole number"):
        LlamaInfiniteConfig(**SIZES, n_init="a")


def test_the_original_tokenizer_is_found(checkpoint: Path, tmp_path: Path) -> None:
    demo = Path(inf_llm.__file__).parent / "assets" / "demo"
    if not (demo / "tokenizer_config.json").exists():
        pytest.skip("no tokenizer comes with the package yet")
    tokenizer = AutoTokenizer.from_pretrained(demo)
    LlamaInfiniteForCausalLM.from_pretrained(checkpoint).save_pretrained(tmp_path / "saved")
    tokenizer.save_pretrained(tmp_path / "saved")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        again = AutoTokenizer.from_pretrained(tmp_path / "saved")
    text = "Once upon a time, 42 things."
    assert again(text).input_ids == tokenizer(text).input_ids
    assert again.decode(again(text).input_ids) == tokenizer.decode(tokenizer(text).input_ids)


def test_importing_the_package_stays_light() -> None:
    code = "import sys, inf_llm; assert not {'torch', 'transformers'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_loading_a_llama_says_nothing_alarming(
    checkpoint: Path, caplog: pytest.LogCaptureFixture
) -> None:
    logging.getLogger("transformers").propagate = True
    LlamaInfiniteForCausalLM.from_pretrained(checkpoint)
    assert "instantiate a model of type" not in caplog.text


@torch.no_grad()
def _encode(length: int) -> dict[str, float]:
    """Seconds and peak memory of one forward call over so many tokens, and of one decoded token."""
    config = LlamaInfiniteConfig(**{**SIZES, "hidden_size": 64}, n_init=16, n_local=512)
    model = LlamaInfiniteModel(config).eval()
    ids = tokens(length)
    model(ids[:, :1024])
    before = process_memory.peak()
    start = time.perf_counter()
    cache = model(ids).past_key_values
    seconds = time.perf_counter() - start
    grown = process_memory.peak() - before
    held = cache.stats().total.device_bytes
    steps = []
    for _ in range(64):
        start = time.perf_counter()
        model(ids[:, :1], past_key_values=cache)
        steps.append(time.perf_counter() - start)
    return {
        "tokens": length,
        "us_per_token": 1e6 * seconds / length,
        "peak_bytes_per_token": grown / length,
        "cache_bytes": held,
        "ms_per_decoded_token": 1e3 * min(steps),
    }


@pytest.mark.slow
def test_encoding_is_linear_and_decoding_constant() -> None:
    """Each length in a process of its own, whose peak memory is read at the end."""
    code = (
        "import json, torch; torch.set_num_threads(1); "
        "from tests.hf.test_llama_infinite import _encode; print(json.dumps(_encode({})))"
    )
    found = []
    for length in (8192, 16384, 32768, 65536):
        run = [sys.executable, "-c", code.format(length)]
        output = subprocess.run(run, check=True, capture_output=True, text=True).stdout
        found.append(json.loads(output.splitlines()[-1]))
        print(found[-1])
    first, last = found[0], found[-1]
    assert last["us_per_token"] < 1.6 * first["us_per_token"]
    assert last["peak_bytes_per_token"] < 1.3 * first["peak_bytes_per_token"] + 1024
    assert last["cache_bytes"] == first["cache_bytes"]
    assert last["ms_per_decoded_token"] < 1.6 * first["ms_per_decoded_token"]
