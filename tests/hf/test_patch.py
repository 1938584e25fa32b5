"""Patching and unpatching: what may be patched, what may be fed, and what stays as it was."""

from __future__ import annotations

import sys
import threading
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from transformers import AutoModelForCausalLM, LlamaConfig

import inf_llm
from inf_llm.config import SHIPPED_CONFIGS
from inf_llm.errors import (
    ConfigError,
    MissingExtraError,
    SettingsError,
    UnsupportedInputError,
    UnsupportedModelError,
)
from inf_llm.hf.patch import patched
from tests.hf.families import sharpen
from tests.hf.tiny import (
    LONG,
    SHORT,
    generate,
    greedy_by_hand,
    left_padded,
    tiny,
    tiny_patched,
    tokens,
)
from tests.hf.zoo import BASE

HEADS = [
    "LlamaModel",
    "LlamaForSequenceClassification",
    "LlamaForQuestionAnswering",
    "LlamaForTokenClassification",
]


@pytest.mark.parametrize("attention", ["eager", "sdpa"])
@pytest.mark.parametrize("kind", ["origin", "infinite-lm", "stream-lm", "inf-llm"])
def test_unpatching_leaves_no_trace(kind: str, attention: str) -> None:
    model = tiny()
    model.set_attn_implementation(attention)
    ids, attributes, weights = tokens(90), set(model.__dict__), list(model.state_dict())
    with torch.no_grad():
        before = model(ids).logits
    settings = {} if kind == "origin" else {"n_local": 32, "n_init": 4}
    settings |= LONG if kind == "inf-llm" else {}
    for _ in range(2):
        assert inf_llm.patch(model, type=kind, **settings) is model
        assert list(model.state_dict()) == weights
        generate(model, ids)
        assert inf_llm.unpatch(model) is model
    with torch.no_grad():
        assert torch.equal(model(ids).logits, before)
    assert set(model.__dict__) == attributes
    assert model.config._attn_implementation == attention
    hooks = [m for m in model.modules() if m._forward_hooks or m._forward_pre_hooks]
    assert not hooks


def test_a_missing_faiss_is_refused_before_reading(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(sys.modules, "faiss", None)
    model = tiny("llama")
    with pytest.raises(MissingExtraError, match=r"pip install 'inf-llm\[faiss\]'"):
        inf_llm.patch(model, type="inf-llm", n_local=64, exc_block_size=32, faiss=True)
    inf_llm.patch(model, type="inf-llm", n_local=64, exc_block_size=32)  # it was left as it was


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device")
def test_loading_refuses_what_cannot_be_had() -> None:
    demo = SHIPPED_CONFIGS / "demo-inf-llm.yaml"
    with pytest.raises(ConfigError, match="'demo': cannot place the model"):
        inf_llm.load(demo, ["model.device_map=cuda"])
    with pytest.raises(ConfigError, match=r"model.tokenizer_path = '/nope': there is no such"):
        inf_llm.load(demo, ["model.tokenizer_path=/nope"])


def test_what_is_read_densely_is_within_the_trained_length() -> None:
    model = tiny("llama")
    trained = model.config.max_position_embeddings
    sizes = {"n_local": 64, "exc_block_size": 32, "prefill": "auto"}
    with pytest.raises(SettingsError, match=rf"lower it to {trained}") as caught:
        inf_llm.patch(model, type="inf-llm", **sizes, dense_up_to=trained + 1)
    assert caught.value.key == "dense_up_to"
    inf_llm.patch(model, type="inf-llm", **sizes, dense_up_to=trained)


def test_how_much_is_read_densely_by_default() -> None:
    """Four times what a query sees, within the trained length."""
    trained = tiny("llama").config.max_position_embeddings
    for topk, wanted in ((2, 4 * (4 + 16 + 2 * 4)), (trained // 16, trained)):
        model = tiny("llama")
        sizes = {"n_init": 4, "n_local": 16, "exc_block_size": 16, "block_size": 4, "topk": topk}
        inf_llm.patch(model, type="inf-llm", **sizes, max_cached_block=topk, prefill="auto")
        settings = patched(model).settings
        assert settings.dense_up_to == settings.dense_tokens == wanted


def test_patching_twice_and_unpatching_nothing_is_refused() -> None:
    model = tiny_patched()
    with pytest.raises(UnsupportedModelError, match="is patched already: call inf_llm"):
        inf_llm.patch(model, type="stream-lm")
    inf_llm.unpatch(model)
    with pytest.raises(UnsupportedModelError, match="this LlamaForCausalLM is not patched"):
        inf_llm.unpatch(model)
    with pytest.raises(UnsupportedModelError, match="has no memory"):
        inf_llm.new_cache(model)


def test_gradients_are_refused_when_asked_for_and_not_before() -> None:
    model = tiny_patched()
    logits = model(tokens(50)).logits
    assert logits.requires_grad
    with pytest.raises(UnsupportedInputError, match=r"unpatch.* before training"):
        logits.sum().backward()


def test_threads_do_not_mix() -> None:
    model = tiny_patched()
    texts = [tokens(200, seed=seed) for seed in range(4)]
    wanted = [generate(model, text) for text in texts]
    got: list[Any] = [None] * 4

    def work(number: int) -> None:
        got[number] = generate(model, texts[number])

    threads = [threading.Thread(target=work, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert all(torch.equal(a, b) for a, b in zip(got, wanted, strict=True))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float64], ids=str)
def test_other_number_formats(dtype: torch.dtype) -> None:
    model = tiny().to(dtype)
    with torch.no_grad():
        wanted = model(tokens(100)).logits
        inf_llm.patch(model, type="inf-llm", **SHORT)
        got = model(tokens(100)).logits
    assert got.dtype == dtype
    limit = {torch.bfloat16: 0.1, torch.float16: 0.02, torch.float64: 1e-5}[dtype]
    assert float((got - wanted).abs().max()) < limit * float(wanted.abs().max())
    inf_llm.unpatch(model)
    inf_llm.patch(model, type="inf-llm", **LONG)
    text = tokens(200)
    assert torch.equal(generate(model, text), greedy_by_hand(model, text))


ON_DISK = {f"model.layers.{layer}": "disk" if layer % 2 else "cpu" for layer in range(4)}
ON_DISK |= {"model.embed_tokens": "cpu", "model.norm": "cpu", "model.rotary_emb": "cpu"}
ON_DISK |= {"lm_head": "cpu"}


@pytest.mark.parametrize("device_map", ["auto", ON_DISK], ids=["auto", "some-layers-on-disk"])
def test_a_model_placed_by_accelerate(tmp_path: Path, device_map: Any) -> None:
    model, ids = tiny(), tokens(120)
    model.save_pretrained(tmp_path / "model")
    placed = AutoModelForCausalLM.from_pretrained(
        tmp_path / "model", device_map=device_map, offload_folder=tmp_path / "offload"
    )
    assert device_map == "auto" or placed.hf_device_map == device_map
    for each in (model, placed):
        inf_llm.patch(each, type="inf-llm", **LONG)
    assert torch.equal(generate(placed, ids), generate(model, ids))
    assert "_inf_llm" not in str(placed.state_dict().keys())


@pytest.mark.parametrize("head", HEADS)
def test_models_with_another_head_or_none(head: str) -> None:
    torch.manual_seed(0)
    model = getattr(transformers, head)(LlamaConfig(**BASE)).eval()
    sharpen(model)
    ids, mask = left_padded(tokens(100), tokens(70, seed=1))
    short = {"input_ids": ids, "attention_mask": mask}
    with torch.no_grad():
        wanted = model(**short)[0]
        inf_llm.patch(model, type="inf-llm", **SHORT)
        got = model(**short)[0]
        inf_llm.unpatch(model)
        inf_llm.patch(model, type="inf-llm", **LONG)
        changed = model(**short)[0]
    size = float(wanted.abs().max())
    seen = mask.bool() if wanted.shape[:2] == mask.shape else slice(None)
    assert float((got - wanted)[seen].abs().max()) < 1e-5 * size
    assert float((changed - wanted)[seen].abs().max()) > 1e-2 * size


def test_a_model_that_shares_the_configuration_of_a_patched_one_says_so() -> None:
    model = tiny()
    other = type(model)(model.config).eval()
    inf_llm.patch(model, type="inf-llm", **SHORT)
    with pytest.raises(UnsupportedInputError, match="shares the configuration "):
        other(tokens(8))
    inf_llm.unpatch(model)
    other(tokens(8))
