"""Patching and unpatching: what may be patched, what may be fed, and what stays as it was."""

from __future__ import annotations

import importlib
import sys
import threading
from collections.abc import Callable
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
    UnsupportedInputError,
    UnsupportedModelError,
)
from inf_llm.generation.session import Session
from tests.hf.families import sharpen
from tests.hf.tiny import (
    LONG,
    SHORT,
    character_tokenizer,
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


def test_a_missing_faiss_is_told_before_anything_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "faiss", None)
    model = tiny("llama")
    with pytest.raises(MissingExtraError, match=r"pip install 'inf-llm\[faiss\]'"):
        inf_llm.patch(model, type="inf-llm", n_local=64, exc_block_size=32, faiss=True)
    inf_llm.patch(model, type="inf-llm", n_local=64, exc_block_size=32)  # it was left as it was


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device")
def test_loading_tells_what_cannot_be_had() -> None:
    demo = SHIPPED_CONFIGS / "demo-inf-llm.yaml"
    with pytest.raises(ConfigError, match="'demo': cannot place the model"):
        inf_llm.load(demo, ["model.device_map=cuda"])
    with pytest.raises(ConfigError, match=r"model.tokenizer_path = '/nope': there is no such"):
        inf_llm.load(demo, ["model.tokenizer_path=/nope"])


def test_patching_twice_and_unpatching_nothing_is_refused() -> None:
    model = tiny_patched()
    with pytest.raises(UnsupportedModelError, match="is patched already: call inf_llm"):
        inf_llm.patch(model, type="stream-lm")
    inf_llm.unpatch(model)
    with pytest.raises(UnsupportedModelError, match="this LlamaForCausalLM is not patched"):
        inf_llm.unpatch(model)
    with pytest.raises(UnsupportedModelError, match="has no memory"):
        inf_llm.new_cache(model)


BAD_MASKS = {
    "right-padding": (torch.tensor([[1] * 20, [1] * 15 + [0] * 5]), "pad on the left"),
    "too-long": (torch.tensor([[0] * 5 + [1] * 25, [1] * 30]), "covers 30 tokens.*20 are new"),
    "too-short": (torch.tensor([[0] * 5 + [1] * 10, [1] * 15]), "covers 15 tokens.*20 are new"),
    "too-long, all ones": (torch.ones(2, 30), r"covers 30 tokens.*must be \(2, 20\)"),
    "too-short, all ones": (torch.ones(2, 17), r"covers 17 tokens.*must be \(2, 20\)"),
    "one-row": (torch.tensor([[0] * 5 + [1] * 15]), "of 1 rows, .* in 2 rows"),
    "three-rows": (torch.tensor([[0] * 5 + [1] * 15] * 3), "of 3 rows, .* in 2 rows"),
    "three-rows, all ones": (torch.ones(3, 20), "of 3 rows, .* in 2 rows"),
}


@pytest.mark.parametrize("name", BAD_MASKS)
@pytest.mark.parametrize("use_cache", [True, False], ids=["cache", "no-cache"])
def test_a_mask_that_cannot_be_followed_is_refused(name: str, use_cache: bool) -> None:
    mask, message = BAD_MASKS[name]
    with pytest.raises(UnsupportedInputError, match=message):
        tiny_patched()(tokens(20, rows=2), attention_mask=mask, use_cache=use_cache)


@pytest.mark.parametrize("use_cache", [True, False], ids=["cache", "no-cache"])
def test_positions_other_than_the_memorys_own_are_refused(use_cache: bool) -> None:
    model, ids = tiny_patched(), tokens(10)
    packed = torch.tensor([[0, 1, 2, 3, 4, 0, 1, 2, 3, 4]])
    for wrong in (packed, torch.arange(10)[None] * 2, torch.arange(10)[None] + 3):
        with pytest.raises(UnsupportedInputError, match=r"position_ids \[.*counts on from 0"):
            model(ids, position_ids=wrong, use_cache=use_cache)
    model(ids, position_ids=torch.arange(10)[None], use_cache=use_cache)


def test_positions_go_on_where_the_cache_ends_and_may_count_padding_or_not() -> None:
    model = tiny_patched()
    ids, mask = left_padded(tokens(10), tokens(6, seed=1))
    counted = torch.arange(10).expand(2, 10)
    for first in (counted, (mask.cumsum(1) - 1).clamp(min=0), None):
        cache = inf_llm.new_cache(model)
        model(ids, attention_mask=mask, position_ids=first, past_key_values=cache)
        more = torch.cat((mask, mask.new_ones(2, 1)), 1)
        following = None if first is None else first[:, -1:] + 1
        step = {"attention_mask": more, "past_key_values": cache}
        with pytest.raises(UnsupportedInputError, match="with 10 tokens seen before"):
            model(ids[:, :1], position_ids=torch.zeros(2, 1, dtype=torch.long), **step)
        model(ids[:, :1], position_ids=following, **step)


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


def _offloaded(how: str, folder: Path) -> Any:
    accelerate: Any = importlib.import_module("accelerate")

    if how.startswith("device_map"):
        tiny().save_pretrained(folder / "model")
        everything = {"": "disk"}
        embeddings = {**ON_DISK, "model.embed_tokens": "disk", "lm_head": "disk"}
        return AutoModelForCausalLM.from_pretrained(
            folder / "model",
            device_map=everything if how.endswith("all") else embeddings,
            offload_folder=folder / "offload",
        )
    if how == "disk":
        return accelerate.disk_offload(tiny(), folder)
    return accelerate.cpu_offload(tiny())


@pytest.mark.parametrize("how", ["disk", "cpu", "device_map, embeddings", "device_map, all"])
def test_a_model_whose_first_weights_are_offloaded(how: str, tmp_path: Path) -> None:
    model, wanted, text = _offloaded(how, tmp_path), tiny_patched(), "a text of some words. " * 6
    assert next(model.parameters()).device.type == "meta"
    inf_llm.patch(model, type="inf-llm", **LONG)
    assert torch.equal(generate(model, tokens(120)), generate(wanted, tokens(120)))
    answers = []
    for each in (model, wanted):
        session = Session(each, character_tokenizer())
        session.read(text)
        answers.append(session.ask("b", max_new_tokens=4).token_ids)
    assert answers[0] == answers[1]


def _without_weights(model: Any) -> None:
    model.to("meta")


def _with_a_layer_without_weights(model: Any) -> None:
    model.model.layers[1].to("meta")


def _in_two_dtypes(model: Any) -> None:
    model.model.layers[1].to(torch.bfloat16)


def _damaged(model: Any) -> None:
    model.model.layers[1].self_attn.q_proj.weight.data[0, 0] = float("nan")


def _damaged_before_a_layer(model: Any) -> None:
    model.model.layers[0].mlp.down_proj.weight.data[0, 0] = float("inf")


BROKEN: dict[Callable[[Any], None], str] = {
    _without_weights: "weights are on the meta device",
    _with_a_layer_without_weights: "does not run unpatched either",
    _in_two_dtypes: "does not run unpatched either.*dtype",
    _damaged: "layer 1 .* not finite",
    _damaged_before_a_layer: "layer 1 .* not finite",
}


@pytest.mark.parametrize("spoil", BROKEN)
def test_a_refusal_names_its_own_cause(spoil: Callable[[Any], None]) -> None:
    model = tiny()
    spoil(model)
    with pytest.raises(UnsupportedModelError, match=BROKEN[spoil]):
        inf_llm.patch(model, type="inf-llm", **SHORT)


def test_a_model_that_shares_the_configuration_of_a_patched_one_says_so() -> None:
    model = tiny()
    other = type(model)(model.config).eval()
    inf_llm.patch(model, type="inf-llm", **SHORT)
    with pytest.raises(UnsupportedInputError, match="shares the configuration "):
        other(tokens(8))
    inf_llm.unpatch(model)
    other(tokens(8))


@pytest.mark.parametrize("method", ["PrefixTuning", "PromptTuning"])
@pytest.mark.parametrize("settings", [{"n_local": 64}, {"distance_scale": 0.5}, {}], ids=str)
def test_an_adapter_that_fills_the_cache_is_refused_at_once(
    method: str, settings: dict[str, Any]
) -> None:
    peft = pytest.importorskip("peft")
    config = getattr(peft, f"{method}Config")(task_type="CAUSAL_LM", num_virtual_tokens=5)
    model = peft.get_peft_model(tiny(), config).eval()
    settings = {"type": "stream-lm" if "n_local" in settings else "origin", **settings}
    if method == "PrefixTuning" and len(settings) > 1:
        with pytest.raises(UnsupportedModelError, match=r"adapter \(PREFIX_TUNING\) puts keys"):
            inf_llm.patch(model, **settings)
        inf_llm.patch(model.get_base_model(), **settings)  # without its adapter it works
        return
    inf_llm.patch(model, **settings)
    generate(model, tokens(20))
