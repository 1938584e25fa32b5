"""What texts take in a model that is loaded: as much as they then hold."""

from __future__ import annotations

from typing import Any

import pytest
from transformers import PretrainedConfig

import inf_llm
from inf_llm.config import ModelConfig, RunConfig
from inf_llm.generation import Session
from inf_llm.generation.footprint import footprint
from inf_llm.plan import held
from inf_llm.plan.budget import text_bytes
from inf_llm.plan.free import machine_bytes
from inf_llm.settings import make_settings
from tests.tiny import SETTINGS, tiny_model, tiny_tokenizer

TYPES: dict[str, dict[str, Any]] = {
    "inf-llm": SETTINGS,
    "infinite-lm": {"n_init": 16, "n_local": 64},
    "origin": {},
}


@pytest.mark.parametrize("kind", TYPES)
def test_what_a_text_takes_is_what_it_holds(kind: str) -> None:
    model = tiny_model()
    if kind != "origin":
        inf_llm.patch(model, type=kind, **TYPES[kind])
    config = RunConfig(ModelConfig("tiny"), make_settings(kind, **TYPES[kind]), chunk_size=64)
    needs = text_bytes(model, config)
    assert needs is not None
    session = Session(model, tiny_tokenizer(), 64)
    for tokens in (300, 1500, 6000):
        session.read([5 + n % 200 for n in range(tokens - len(session.ids))])
        both = footprint([session, session.fork()] if kind != "origin" else [session])
        assert both <= needs.of(tokens) <= 1.3 * both + 200_000


def test_the_longest_text() -> None:
    config = RunConfig(ModelConfig("tiny"), make_settings("origin"), chunk_size=64)
    needs = text_bytes(tiny_model(), config)
    assert needs is not None
    longest = needs.longest(1_000_000)
    assert needs.of(longest) <= 1_000_000 < needs.of(longest + 1)


def test_a_model_that_cannot_be_built_without_weights() -> None:
    model = tiny_model()
    model.config = PretrainedConfig()
    config = RunConfig(ModelConfig("tiny"), make_settings("origin"), chunk_size=64)
    assert text_bytes(model, config) is None


def test_the_machine_has_memory() -> None:
    found = machine_bytes()
    assert found is not None
    assert found > 1 << 28


def test_a_block_is_sealed_once_for_all_lengths(monkeypatch: pytest.MonkeyPatch) -> None:
    """A server asks for every prompt and every token of an answer."""
    made: list[int] = []

    class Counted(held.BlockMemory):
        def __init__(self, *args: Any, **more: Any) -> None:
            made.append(1)
            super().__init__(*args, **more)

    monkeypatch.setattr(held, "BlockMemory", Counted)
    held._one_block.cache_clear()
    settings = make_settings("inf-llm", **SETTINGS)
    needs = text_bytes(tiny_model(), RunConfig(ModelConfig("tiny"), settings, chunk_size=64))
    assert needs is not None
    assert len({needs.of(tokens) for tokens in range(1000, 3000, 20)}) > 50
    assert len(made) == 1
