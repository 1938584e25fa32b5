"""A model's own text layers under an attention function that looks on, and as they were after."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from inf_llm.errors import UnsupportedModelError
from inf_llm.hf.decoder import decoder_of
from inf_llm.hf.recording import recorded, token_ids
from tests.hf.tiny import tiny


class _Recorder:
    def __init__(self) -> None:
        self.layers: list[int] = []
        self.masks: list[Any] = []

    def __call__(
        self,
        module: nn.Module,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        attention_mask: Any = None,
        **kwargs: Any,
    ) -> tuple[Tensor, None]:
        assert not module.training
        assert not torch.is_autocast_enabled("cpu")
        self.layers.append(int(module.layer_idx))  # type: ignore[arg-type]
        self.masks.append(attention_mask)
        return torch.zeros_like(query).transpose(1, 2), None


@pytest.mark.parametrize("masks", [True, False])
def test_every_layer_is_seen_and_the_model_left_as_it_was(masks: bool) -> None:
    decoder: Any = decoder_of(tiny())
    decoder.train()
    before, recorder = decoder.config._attn_implementation, _Recorder()
    ids = token_ids(decoder, 5)
    with torch.autocast("cpu", dtype=torch.bfloat16), recorded(decoder, recorder, masks):
        decoder(input_ids=ids, use_cache=False)
    assert recorder.layers == list(range(decoder.config.num_hidden_layers))
    assert all((mask is not None) == masks for mask in recorder.masks)
    assert decoder.config._attn_implementation == before
    assert all(module.training for module in decoder.modules())
    assert not any("_inf_llm_recorder" in vars(module) for module in decoder.modules())


def test_a_failure_leaves_the_model_as_it_was() -> None:
    decoder: Any = decoder_of(tiny())
    before = decoder.config._attn_implementation
    with pytest.raises(ZeroDivisionError), recorded(decoder, _Recorder(), masks=False):
        _ = 1 / 0
    assert decoder.config._attn_implementation == before
    assert not any("_inf_llm_recorder" in vars(module) for module in decoder.modules())


def test_token_ids_are_words_of_the_vocabulary() -> None:
    decoder: Any = decoder_of(tiny())
    ids = token_ids(decoder, 40)
    assert ids.shape == (1, 40)
    assert 0 <= int(ids.min()) <= int(ids.max()) < decoder.config.vocab_size
    assert len(ids.unique()) > 20
    with pytest.raises(UnsupportedModelError, match="load them first"):
        token_ids(decoder.to("meta"), 1)
