"""What a long row will take on the host, against what it takes."""

from __future__ import annotations

import pytest
import torch

from benchmark.scale import measure
from benchmark.timing.presets import build_model, preset
from inf_llm import patch
from inf_llm.generation.footprint import predicted_host_bytes
from inf_llm.hf.patch import new_cache
from inf_llm.settings import InfLLMSettings, make_settings


@pytest.mark.parametrize("perhead", [False, True], ids=["together", "perhead"])
@pytest.mark.parametrize("repr_topk", [1, 4], ids=["some", "all"])
@torch.no_grad()
def test_blocks_and_index_are_as_predicted(perhead: bool, repr_topk: int) -> None:
    settings = make_settings(
        n_init=4,
        n_local=16,
        block_size=4,
        topk=2,
        repr_topk=repr_topk,
        exc_block_size=16,
        perhead=perhead,
    )
    assert isinstance(settings, InfLLMSettings)
    model = patch(build_model(preset("tiny"), 0), settings)
    cache = new_cache(model)
    for part in torch.randint(256, (1, 16_000)).split(2000, 1):
        model(input_ids=part, past_key_values=cache, use_cache=True, logits_to_keep=1)
    total = cache.stats().total
    held = total.host_bytes + total.index_bytes
    predicted = predicted_host_bytes(model.config, settings, 4, 16_000)
    entries = total.blocks * 20 * (2 if perhead else 1)  # foreseen, but not told by stats
    assert predicted == pytest.approx(held + entries, rel=0.01)


def test_nothing_is_predicted_for_what_fits_the_window() -> None:
    config = build_model(preset("tiny"), 0).config
    assert predicted_host_bytes(config, InfLLMSettings(), 4, 4000) == 0


def test_a_scale_run_reports_what_it_held() -> None:
    facts = measure(40_000, chunk=2000)
    assert facts["tokens"] == 40_000
    assert len(facts["parts"]) == 20
    assert len({part["device_kv_bytes"] for part in facts["parts"][2:]}) == 1
    assert facts["counted_host_bytes"] > 0.5 * facts["predicted_host_bytes"]
