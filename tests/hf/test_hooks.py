"""The patch lives on the module that runs: copies, files, wrappers, other dtypes, other outputs."""

from __future__ import annotations

import copy
import inspect
import io
import pickle
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

import inf_llm
from inf_llm.errors import UnsupportedInputError
from inf_llm.hf.decoder import cache_argument
from inf_llm.hf.hooks import NAME
from tests.hf.tiny import LONG, SHORT, feed, generate, tiny, tiny_patched, tokens

KINDS: dict[str, dict[str, Any]] = {
    "origin": {"type": "origin", "distance_scale": 0.5},
    "infinite-lm": {"type": "infinite-lm", "n_init": 4, "n_local": 32},
    "stream-lm": {"type": "stream-lm", "n_init": 4, "n_local": 32},
    "inf-llm": {"type": "inf-llm", **LONG},
}
TEXT = tokens(120)


def _negated(model: Any) -> Any:
    """The same model with another head, so that it says something else."""
    with torch.no_grad():
        model.lm_head.weight.neg_()
    return model


def _pickled(model: Any) -> Any:
    return pickle.loads(pickle.dumps(model))


def _saved(model: Any) -> Any:
    file = io.BytesIO()
    torch.save(model, file)
    file.seek(0)
    return torch.load(file, weights_only=False)


@pytest.mark.parametrize("duplicate", [copy.deepcopy, _pickled, _saved])
@pytest.mark.parametrize("kind", KINDS)
def test_a_copy_is_patched_by_itself(kind: str, duplicate: Any) -> None:
    model = tiny_patched(**KINDS[kind])
    own = generate(model, TEXT)
    twin = duplicate(model)
    assert torch.equal(generate(twin, TEXT), own)
    wanted = generate(tiny_patched_negated(kind), TEXT)
    assert not torch.equal(wanted, own), "the control says the same"
    assert torch.equal(generate(_negated(twin), TEXT), wanted)
    inf_llm.unpatch(twin)
    assert torch.equal(generate(twin, TEXT), generate(_negated(tiny()), TEXT))
    assert torch.equal(generate(model, TEXT), own)
    inf_llm.unpatch(model)
    assert torch.equal(generate(model, TEXT), generate(tiny(), TEXT))


def tiny_patched_negated(kind: str) -> Any:
    return inf_llm.patch(_negated(tiny()), **KINDS[kind])


def test_a_saved_model_goes_on_in_another_process(tmp_path: Path) -> None:
    model = tiny_patched()
    torch.save(model, tmp_path / "model.pt")
    code = (
        "import sys, torch\n"
        "model = torch.load(sys.argv[1], weights_only=False)\n"
        "ids = torch.load(sys.argv[2])\n"
        "out = model.generate(ids, attention_mask=torch.ones_like(ids), max_new_tokens=12,"
        " do_sample=False)\n"
        "print(out[0].tolist())"
    )
    torch.save(TEXT, tmp_path / "ids.pt")
    command = [sys.executable, "-c", code, str(tmp_path / "model.pt"), str(tmp_path / "ids.pt")]
    told = subprocess.run(command, capture_output=True, text=True, check=True)
    assert told.stdout.strip() == str(generate(model, TEXT)[0].tolist())


def test_generate_keeps_its_signature() -> None:
    patched_one, plain = tiny_patched(), tiny()
    assert inspect.signature(patched_one.generate) == inspect.signature(plain.generate)


def test_copies_of_a_model_and_its_memory_belong_together() -> None:
    model = tiny_patched()
    cache = inf_llm.new_cache(model)
    feed(model, TEXT, cache)
    twin, twins = copy.deepcopy((model, cache))
    more = tokens(20, seed=3)
    assert torch.equal(feed(twin, more, twins), feed(model, more, cache))


@pytest.mark.parametrize("of", ["another-model", "other-settings", "a-copy"])
def test_a_memory_of_another_patch_is_refused(of: str) -> None:
    model = tiny_patched()
    cache = inf_llm.new_cache(model)
    feed(model, TEXT, cache)
    if of == "other-settings":
        inf_llm.patch(inf_llm.unpatch(model), type="stream-lm", n_init=4, n_local=32)
    other = {"another-model": tiny_patched, "a-copy": lambda: copy.deepcopy(model)}
    fed = other.get(of, lambda: model)()
    with pytest.raises(UnsupportedInputError, match="made under another patch"):
        feed(fed, tokens(4), cache)
    with pytest.raises(UnsupportedInputError, match="made under another patch"):
        generate(fed, tokens(124), **{cache_argument(fed): cache})
    assert cache.get_seq_length() == 120


@pytest.mark.parametrize("name", ["eager", "sdpa"])
def test_another_attention_set_after_patching_is_refused(name: str) -> None:
    model = tiny_patched()
    model.set_attn_implementation(name)
    for call in (lambda: model(TEXT), lambda: generate(model, TEXT)):
        with pytest.raises(UnsupportedInputError, match=f"set to '{name}' after inf_llm.patch"):
            call()
    model.set_attn_implementation(NAME)
    generate(model, TEXT)
    inf_llm.unpatch(model)
    assert torch.equal(generate(model, TEXT), generate(tiny(), TEXT))


def test_a_layer_called_outside_its_decoder_is_refused() -> None:
    model = tiny_patched()
    layer = model.model.layers[0]
    hidden = torch.randn(1, 4, model.config.hidden_size)
    table = model.model.rotary_emb(hidden, torch.arange(4)[None])
    with pytest.raises(UnsupportedInputError, match="outside its decoder"):
        layer(hidden, position_embeddings=table)


def test_a_refused_call_leaves_the_next_one_alone() -> None:
    model = tiny_patched()
    with pytest.raises(UnsupportedInputError):
        model(TEXT, position_ids=torch.arange(120)[None] + 5)
    assert torch.equal(generate(model, TEXT), generate(tiny_patched(), TEXT))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
@pytest.mark.parametrize("kind", ["infinite-lm", "stream-lm", "inf-llm"])
def test_autocast_computes_as_without_the_patch(kind: str, dtype: torch.dtype) -> None:
    settings = SHORT if kind == "inf-llm" else {"n_init": 4, "n_local": 256}
    model = tiny()
    with torch.no_grad(), torch.autocast("cpu", dtype=dtype):
        wanted = model(TEXT).logits
        inf_llm.patch(model, type=kind, **settings)
        got = model(TEXT).logits
        generate(model, TEXT)
    assert got.dtype == wanted.dtype
    limit = {torch.bfloat16: 0.1, torch.float16: 0.02}[dtype]
    assert float((got - wanted).abs().max()) < limit * float(wanted.abs().max())


def test_a_memory_filled_in_two_dtypes_is_refused() -> None:
    model = tiny_patched()
    cache = inf_llm.new_cache(model)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        feed(model, tokens(20), cache)
    with pytest.raises(UnsupportedInputError, match=r"in torch.bfloat16, and torch.float32 ones"):
        feed(model, tokens(4), cache)


def test_attention_matrices_are_refused_and_other_outputs_given() -> None:
    model = tiny_patched()
    with pytest.raises(UnsupportedInputError, match="output_attentions"):
        model(TEXT, output_attentions=True)
    with pytest.raises(UnsupportedInputError, match="output_attentions"):
        generate(model, TEXT, output_attentions=True, return_dict_in_generate=True)
    out = model(TEXT, output_hidden_states=True)
    assert len(out.hidden_states) == model.config.num_hidden_layers + 1
    assert torch.equal(model(TEXT, return_dict=False)[0], out.logits)
