"""What people do with a Llama of transformers still works once it is patched."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import (
    AutoModelForCausalLM,
    AutoModelForQuestionAnswering,
    AutoModelForSequenceClassification,
    AutoTokenizer,
    LlamaConfig,
    LlamaForCausalLM,
    pipeline,
)

import inf_llm
from inf_llm.hf.load import DEMO

SIZES: dict[str, Any] = {
    "vocab_size": 96,
    "hidden_size": 64,
    "intermediate_size": 128,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "eos_token_id": None,
}
MEMORY: dict[str, Any] = {
    "type": "inf-llm",
    "n_init": 4,
    "n_local": 32,
    "block_size": 8,
    "topk": 2,
    "repr_topk": 2,
    "max_cached_block": 4,
    "exc_block_size": 16,
}
IDS = torch.randint(3, 96, (1, 200), generator=torch.Generator().manual_seed(0))


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.manual_seed(0)
    model = LlamaForCausalLM(LlamaConfig(**SIZES))
    for name, weight in model.named_parameters():
        if "q_proj" in name or "k_proj" in name:
            weight.data *= 8
    path = tmp_path_factory.mktemp("llama")
    model.save_pretrained(path)
    return path


def loaded(checkpoint: Path, **how: Any) -> Any:
    model = AutoModelForCausalLM.from_pretrained(checkpoint, **{"dtype": torch.float32, **how})
    return inf_llm.patch(model.eval(), **MEMORY)


def greedy(model: Any, count: int = 12) -> list[int]:
    mask = torch.ones_like(IDS)
    out = model.generate(IDS, attention_mask=mask, max_new_tokens=count, do_sample=False)
    return out[0, IDS.shape[1] :].tolist()


@torch.no_grad()
def relative_error(model: Any, wanted: torch.Tensor) -> float:
    """How far logits are, relative to their spread."""
    return float((model(IDS).logits.float() - wanted).std() / wanted.std())


@pytest.mark.parametrize(
    "place",
    [
        "auto",
        {"": "cpu"},
        {
            "model.embed_tokens": "cpu",
            "model.layers.0": "cpu",
            "model.layers.1": "disk",
            "model.norm": "cpu",
            "model.rotary_emb": "cpu",
            "lm_head": "cpu",
        },
    ],
    ids=["auto", "one device", "a layer on disk"],
)
def test_device_map(checkpoint: Path, tmp_path: Path, place: Any) -> None:
    model = loaded(checkpoint, device_map=place, offload_folder=str(tmp_path))
    assert greedy(model) == greedy(loaded(checkpoint))


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("seen", ["prefill", "decode"])
def test_torch_compile(checkpoint: Path, seen: str) -> None:
    """Attention is a graph break; all between is compiled."""
    model = loaded(checkpoint)
    compiled = torch.compile(model, backend="aot_eager")
    first = IDS if seen == "prefill" else IDS[:, :100]
    with torch.no_grad():
        wanted, got = inf_llm.new_cache(model), inf_llm.new_cache(model)
        for ids in (first, IDS[:, :1], IDS[:, 1:2]) if seen == "decode" else (first,):
            right = model(ids, past_key_values=wanted).logits
            torch.testing.assert_close(compiled(ids, past_key_values=got).logits, right)


def test_pipeline() -> None:
    if not (DEMO / "config.json").exists():
        pytest.skip("no model comes with the package yet")
    tokenizer = AutoTokenizer.from_pretrained(DEMO)
    model = AutoModelForCausalLM.from_pretrained(DEMO).eval()
    text = "the quick brown fox jumps over the lazy dog and then " * 20
    plain = pipeline("text-generation", model=model, tokenizer=tokenizer)
    how: dict[str, Any] = {"max_new_tokens": 8, "do_sample": False}
    before = plain(text, **how)[0]["generated_text"]
    fits = pipeline(
        "text-generation",
        model=inf_llm.patch(model, type="inf-llm", n_local=4096),
        tokenizer=tokenizer,
    )
    assert fits(text, **how)[0]["generated_text"] == before


@pytest.mark.parametrize("kind", [{**MEMORY}, {"type": "infinite-lm", "n_local": 32}], ids=str)
@pytest.mark.parametrize(
    ("factory", "shape"),
    [(AutoModelForSequenceClassification, (1, 3)), (AutoModelForQuestionAnswering, (1, 200))],
)
@torch.no_grad()
def test_other_heads(checkpoint: Path, factory: Any, shape: Any, kind: dict[str, Any]) -> None:
    """Equal to the model as it is while the window holds the text, finite and other past it."""
    torch.manual_seed(1)
    more = {"num_labels": 3} if factory is AutoModelForSequenceClassification else {}
    model = factory.from_pretrained(checkpoint, **more).eval()
    plain = model(IDS)[0]
    fits = inf_llm.patch(model, **{**kind, "n_local": 512})(IDS)[0]
    torch.testing.assert_close(fits, plain, atol=1e-5, rtol=1e-4)
    inf_llm.unpatch(model)
    far = inf_llm.patch(model, **kind)(IDS)[0]
    assert far.shape == shape
    assert far.isfinite().all()
    assert float((far - plain).abs().max()) > 1e-3


def test_int8_weights_through_torchao(checkpoint: Path) -> None:
    quantization = pytest.importorskip(
        "torchao.quantization", reason="torchao is absent: pip install 'inf-llm[quantized]'"
    )
    from transformers import TorchAoConfig

    config = TorchAoConfig(quantization.Int8WeightOnlyConfig())
    model = loaded(checkpoint, quantization_config=config)
    assert "Int8" in type(model.model.layers[0].mlp.up_proj.weight).__name__
    with torch.no_grad():
        wanted = loaded(checkpoint)(IDS).logits
    assert 0 < relative_error(model, wanted) < 0.25
    assert greedy(model) == greedy(model)


@pytest.mark.parametrize("bits", [8, 4])
def test_weights_through_bitsandbytes(checkpoint: Path, bits: int) -> None:
    pytest.importorskip(
        "bitsandbytes", reason="bitsandbytes is absent: pip install 'inf-llm[quantized]'"
    )
    from transformers import BitsAndBytesConfig

    config = BitsAndBytesConfig(load_in_8bit=bits == 8, load_in_4bit=bits == 4)
    model = loaded(checkpoint, device_map="cpu", quantization_config=config)
    assert "bitsandbytes" in type(model.model.layers[0].mlp.up_proj).__module__
    with torch.no_grad():
        wanted = loaded(checkpoint)(IDS).logits
    assert 0 < relative_error(model, wanted) < (0.25 if bits == 8 else 0.8)
    assert len(greedy(model)) == 12
