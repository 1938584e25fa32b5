"""A memory that was filled is as large as one that was read into, and goes on from there."""

from __future__ import annotations

import time
from typing import Any

import pytest
import torch

import inf_llm
from inf_llm.config import load_config
from inf_llm.generation.prefill import empty_cache, feed_length, held, prefill
from inf_llm.hf.load import load
from inf_llm.plan.calibrate import calibrate, fill
from tests.plan.conftest import TYPES, family, settings_of

READ, MORE = 320, 640


@pytest.mark.parametrize("name", ["llama", "gemma3"])
@pytest.mark.parametrize("kind", TYPES)
@pytest.mark.parametrize("piece", [32, 320], ids=["short", "longer than a window"])
@torch.no_grad()
def test_filling_is_as_reading(name: str, kind: str, piece: int) -> None:
    model = inf_llm.patch(family(name), settings_of(kind))
    ids = torch.randint(3, 100, (1, READ + MORE + 32))
    filled, whole = empty_cache(model), empty_cache(model)
    _feed(model, ids[:, :READ], filled)
    fill(filled, MORE, piece)
    _feed(model, ids[:, : READ + MORE], whole)
    for cache in (filled, whole):
        _feed(model, ids[:, READ + MORE :], cache)
    found, wanted = held(filled), held(whole)
    assert (found.tokens, found.blocks) == (wanted.tokens, wanted.blocks)
    assert found.host_bytes == wanted.host_bytes
    assert found.index_bytes == wanted.index_bytes
    assert found.device_bytes == pytest.approx(wanted.device_bytes, rel=0.05)


@pytest.mark.parametrize("kind", ["origin", "stream-lm", "inf-llm"])
def test_a_pace_is_measured_near_and_far(kind: str) -> None:
    model = inf_llm.patch(family("llama"), settings_of(kind))
    pace = calibrate(model, 6000, 256)
    assert pace.dtype == "float32"
    assert pace.near.tokens < 6000 < pace.far.tokens
    assert pace.reading(6000) > pace.first_seconds > 0
    assert pace.answering(6000) > 0
    short = calibrate(model, 100, 256)
    assert short.far == short.near


def _feed(model: Any, ids: torch.Tensor, cache: Any) -> None:
    for _ in prefill(model, ids, cache, 64):
        pass


@pytest.mark.slow
@torch.no_grad()
def test_a_text_takes_the_time_that_was_predicted(monkeypatch: pytest.MonkeyPatch) -> None:
    """By the clock of the process, so that other programs on the machine change little."""
    monkeypatch.setattr(time, "perf_counter", time.process_time)
    config = load_config("demo-inf-llm", ["model.dtype=float32"])
    model, _ = load(config)
    tokens = 1 << 14
    predicted = calibrate(model, tokens, config.chunk_size).reading(tokens)
    ids = torch.randint(3, 1000, (1, tokens), generator=torch.Generator().manual_seed(0))
    started, cache = time.process_time(), empty_cache(model)
    for _ in prefill(model, ids, cache, feed_length(model, config.chunk_size)):
        pass
    assert predicted == pytest.approx(time.process_time() - started, rel=0.25)
