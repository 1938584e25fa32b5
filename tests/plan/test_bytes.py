"""Planned bytes beside those that were held after reading."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM

import inf_llm
from inf_llm.attention.inf_llm import InfLLMAttention
from inf_llm.generation.prefill import empty_cache, feed, held
from inf_llm.hf.outline import Outline
from inf_llm.hf.recording import token_ids
from inf_llm.plan.bytes import make_plan, planned_dtype
from inf_llm.variants import CODEC, SELECTION
from tests.live import LiveBytes
from tests.plan.conftest import FAMILIES, TYPES, config_of, family, outline_of, read, settings_of

TOKENS = 2000
WITHIN = 0.05


def _near(planned: Any) -> int:
    return planned.held.window + planned.held.recalled


@pytest.mark.parametrize("kind", TYPES)
@pytest.mark.parametrize("name", FAMILIES)
def test_bytes_of_every_type_and_family(name: str, kind: str) -> None:
    model, settings = family(name), settings_of(kind)
    planned = make_plan(outline_of(model), config_of(settings), TOKENS, apart=False)
    held = read(model, settings, TOKENS)
    assert _near(planned) == pytest.approx(held.device_bytes, rel=WITHIN)
    assert planned.held.blocks == pytest.approx(held.host_bytes, rel=WITHIN)
    assert planned.held.index == pytest.approx(held.index_bytes, rel=WITHIN)


@pytest.mark.parametrize(
    "more",
    [
        {"summary": "mean"},
        {"summary": {"name": "most-attended", "tokens": 2}, "selection": "query-head"},
        {"selection": "key-head"},
        {"faiss": True, "repr_topk": 2},
        *({"codec": name} for name in CODEC.own),
    ],
    ids=str,
)
def test_bytes_of_variants(more: dict[str, Any]) -> None:
    model, settings = family("llama"), settings_of("inf-llm", **more)
    planned = make_plan(outline_of(model), config_of(settings), TOKENS, apart=False).held
    held = read(model, settings, TOKENS)
    assert planned.window + planned.recalled == pytest.approx(held.device_bytes, rel=WITHIN)
    assert planned.blocks == pytest.approx(held.host_bytes, rel=WITHIN)
    assert planned.index + planned.host_index == pytest.approx(held.index_bytes, rel=WITHIN)


@pytest.mark.parametrize("tokens", [50, 120, 300])
@pytest.mark.parametrize("kind", TYPES)
def test_bytes_of_texts_that_hardly_fill_the_window(kind: str, tokens: int) -> None:
    model, settings = family("llama"), settings_of(kind)
    planned = make_plan(outline_of(model), config_of(settings), tokens, apart=False)
    held = read(model, settings, tokens)
    assert _near(planned) == pytest.approx(held.device_bytes, rel=WITHIN)


def test_a_plan_by_query_heads_would_be_seen() -> None:
    """The control: where key heads are shared, counting query heads is far off."""
    model, settings = family("llama"), settings_of("inf-llm")
    right = outline_of(model)
    wrong = dataclasses.replace(
        right, layers=tuple(dataclasses.replace(s, groups=s.heads) for s in right.layers)
    )
    held = read(model, settings, TOKENS)
    planned = make_plan(wrong, config_of(settings), TOKENS, apart=False)
    assert planned.held.blocks > 1.5 * held.host_bytes


def test_a_device_of_its_own_has_weights_window_and_slots() -> None:
    model, settings = outline_of(family("llama")), settings_of("inf-llm")
    apart = make_plan(model, config_of(settings), TOKENS, apart=True)
    shape = model.layers[0]
    slots = 4 * 16 * shape.numbers * 4 * len(model.layers)  # max_cached_block blocks of 16 tokens
    assert apart.held.recalled == slots
    held = apart.held
    near = held.window + held.recalled + held.index
    assert apart.device == apart.weights + near + apart.working
    assert apart.host == held.blocks + held.tables + apart.ids
    together = make_plan(model, config_of(settings), TOKENS, apart=False)
    assert together.device == 0
    assert together.host > apart.host + apart.weights + together.working > apart.host


@pytest.mark.parametrize("selection", SELECTION.own)
def test_bytes_where_recalled_blocks_have_slots(
    monkeypatch: pytest.MonkeyPatch, selection: str
) -> None:
    """As on a GPU: the same slots, on the CPU."""
    model, settings = family("llama"), settings_of("inf-llm", selection=selection)
    planned = make_plan(outline_of(model), config_of(settings), TOKENS, apart=True).held
    monkeypatch.setattr(InfLLMAttention.__init__, "__defaults__", (True,))
    held = read(model, settings, TOKENS)
    assert planned.window + planned.recalled == pytest.approx(held.device_bytes, rel=WITHIN)
    assert planned.blocks == pytest.approx(held.host_bytes, rel=WITHIN)


@torch.no_grad()
@pytest.mark.parametrize(("hidden", "inner"), [(256, 1024), (256, 512), (576, 1536)])
def test_what_a_feed_computes_with(hidden: int, inner: int) -> None:
    """Beside the most that lives while a patched model is fed, without what its memory gained."""
    sizes = {"hidden_size": hidden, "intermediate_size": inner, "num_hidden_layers": 2}
    heads = {"num_attention_heads": hidden // 64, "num_key_value_heads": hidden // 192}
    model: Any = LlamaForCausalLM(LlamaConfig(**sizes, **heads, vocab_size=100))
    planned = make_plan(outline_of(model), config_of(settings_of("inf-llm")), TOKENS, apart=False)
    inf_llm.patch(model, settings_of("inf-llm"))
    cache = empty_cache(model)
    feed(model, token_ids(model, TOKENS), cache)
    before = held(cache)
    with LiveBytes([*model.parameters(), *model.buffers()]) as live:
        feed(model, token_ids(model, TOKENS), cache)
    after = held(cache)
    gained = after.host_bytes + after.index_bytes - before.host_bytes - before.index_bytes
    assert planned.working == pytest.approx(live.most - gained, rel=0.15)


def test_auto_on_a_cpu_is_planned_as_the_widest_format_it_may_choose() -> None:
    half = Outline((), 1, torch.bfloat16)
    assert planned_dtype(half, "auto", apart=False) == torch.float32
    assert planned_dtype(half, "auto", apart=True) == torch.bfloat16
    assert planned_dtype(half, "float16", apart=False) == torch.float16


def test_a_disk_takes_what_the_host_may_not(tmp_path: Path) -> None:
    model = family("llama")
    tier = {"name": "disk", "path": str(tmp_path), "host_bytes": "20kB"}
    settings = settings_of("inf-llm", tier=tier)
    planned = make_plan(outline_of(model), config_of(settings), TOKENS, apart=False)
    held = read(model, settings, TOKENS)
    assert planned.disk > 20_000
    assert planned.held.blocks == pytest.approx(held.host_bytes + held.disk_bytes, rel=WITHIN)
    assert planned.held.blocks - planned.disk == 20_000
    assert held.host_bytes <= 20_000
