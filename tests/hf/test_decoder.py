"""The parts of a model that a patch works on: inside wrappers, and with weights elsewhere."""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from packaging.version import Version
from transformers import AutoModelForCausalLM

import inf_llm
from inf_llm.errors import UnsupportedInputError, UnsupportedModelError
from inf_llm.generation.session import Session
from inf_llm.hf.decoder import decoder_of, unwrap
from inf_llm.hf.patch import patched
from tests.hf.tiny import (
    LONG,
    character_tokenizer,
    generate,
    tiny,
    tiny_patched,
    tokens,
)

TEXT = tokens(120)


def test_arguments_may_be_given_by_place() -> None:
    model = tiny_patched()
    cache = inf_llm.new_cache(model)
    decoder = decoder_of(model)
    decoder(TEXT, None, None, cache)
    assert cache.get_seq_length() == 120


def test_what_is_no_model_is_refused_in_one_sentence() -> None:
    class Pipeline:
        model = tiny()

    things: dict[Any, str] = {
        "some/folder": "is a path",
        Path("x"): "is a path",
        None: "this is None",
        Pipeline(): "pass the one inside, its .model",
        torch.nn.DataParallel(tiny()): "pass the one inside, its .module",
        torch.nn.Linear(2, 2): "this is a Linear",
    }
    for thing, words in things.items():
        with pytest.raises(UnsupportedInputError, match=words):
            inf_llm.patch(thing, type="stream-lm")
        with pytest.raises(UnsupportedInputError, match=words):
            inf_llm.unpatch(thing)


def test_a_lora_model_is_patched_through_its_wrapper() -> None:
    peft = pytest.importorskip("peft")
    config = peft.LoraConfig(
        r=4, target_modules=["q_proj", "v_proj"], task_type="CAUSAL_LM", init_lora_weights=False
    )

    def lora(model: Any) -> Any:
        torch.manual_seed(3)
        return peft.get_peft_model(model, config).eval()

    inside, outside = lora(tiny_patched()), inf_llm.patch(lora(tiny()), type="inf-llm", **LONG)
    wanted = generate(inside, TEXT)
    assert torch.equal(generate(outside, TEXT), wanted)
    assert torch.equal(generate(outside, TEXT, prompt_lookup_num_tokens=3), wanted)
    assert patched(outside) is patched(unwrap(outside))
    merged = outside.merge_and_unload()
    with pytest.raises(UnsupportedModelError, match="patched already"):
        inf_llm.patch(merged, type="inf-llm", **LONG)
    generate(merged, TEXT)
    inf_llm.unpatch(merged)
    assert merged.config._attn_implementation == tiny().config._attn_implementation


ON_DISK = {f"model.layers.{layer}": "disk" if layer % 2 else "cpu" for layer in range(4)}

ON_DISK |= {"model.embed_tokens": "cpu", "model.norm": "cpu", "model.rotary_emb": "cpu"}

ON_DISK |= {"lm_head": "cpu"}


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
    if how.endswith("all") and Version(transformers.__version__) < Version("5.20"):
        pytest.skip("the model as one module is loaded for a call of it only, not of its decoder")
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
