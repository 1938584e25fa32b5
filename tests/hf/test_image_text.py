"""Image-text models: the text part is patched, images work as they did or are refused."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
import transformers
from torch import Tensor

import inf_llm
from inf_llm.errors import UnsupportedInputError
from tests.hf.tiny import LONG, SHORT, generate, tokens

IMAGE = 100
VOCABULARY: dict[str, Any] = {
    "vocab_size": 128,
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 4096,
    "initializer_range": 0.3,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": None,
}
SEES: dict[str, Any] = {
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "image_size": 16,
    "patch_size": 8,
}
AXES = {"rope_type": "default", "rope_theta": 10000.0, "mrope_section": [2, 3, 3]}
PIXELS = torch.randn(1, 3, 16, 16, generator=torch.Generator().manual_seed(0))


def _built(name: str, config: Any) -> Any:
    torch.manual_seed(0)
    return getattr(transformers, f"{name}ForConditionalGeneration")(config).eval()


def _prompt(before: int = 10) -> Tensor:
    return torch.cat((tokens(before), torch.full((1, 4), IMAGE), tokens(12, seed=1)), 1)


def _llava() -> tuple[Any, dict[str, Any]]:
    config = transformers.LlavaConfig(
        text_config=transformers.LlamaConfig(**VOCABULARY),
        vision_config=transformers.CLIPVisionConfig(**SEES),
        image_token_index=IMAGE,
        image_token_id=IMAGE,
        image_seq_length=4,
    )
    return _built("Llava", config), {"pixel_values": PIXELS}


def _gemma3() -> tuple[Any, dict[str, Any]]:
    kinds = ["sliding_attention", "full_attention", "full_attention"]
    own = {"head_dim": 16, "sliding_window": 64, "query_pre_attn_scalar": 16, "layer_types": kinds}
    config = transformers.Gemma3Config(
        text_config=VOCABULARY | own,
        vision_config=SEES | {"patch_size": 4},
        mm_tokens_per_image=4,
        image_token_index=IMAGE,
        image_token_id=IMAGE,
        boi_token_index=101,
        eoi_token_index=102,
        eos_token_id=None,
        pad_token_id=0,
    )
    more = {"pixel_values": PIXELS, "token_type_ids": (_prompt() == IMAGE).long()}
    return _built("Gemma3", config), more


def _qwen2_vl() -> tuple[Any, dict[str, Any]]:
    vision = {"depth": 2, "embed_dim": 32, "hidden_size": 64, "num_heads": 2, "patch_size": 4}
    config = transformers.Qwen2VLConfig(
        text_config={**VOCABULARY, "rope_parameters": AXES},
        vision_config=vision | {"spatial_merge_size": 2, "temporal_patch_size": 1},
        image_token_id=IMAGE,
        video_token_id=101,
        vision_start_token_id=102,
        vision_end_token_id=103,
    )
    more = {
        "pixel_values": torch.randn(16, 48, generator=torch.Generator().manual_seed(0)),
        "image_grid_thw": torch.tensor([[1, 4, 4]]),
        "mm_token_type_ids": (_prompt() == IMAGE).long(),
    }
    return _built("Qwen2VL", config), more


MODELS: dict[str, Callable[[], tuple[Any, dict[str, Any]]]] = {
    "llava": _llava,
    "gemma3": _gemma3,
    "qwen2-vl": _qwen2_vl,
}
REFUSED = {"gemma3": "see later ones", "qwen2-vl": "3|4 axes that differ"}
"""Models whose image tokens look both ways or have positions of their own, and the reason."""


@pytest.mark.parametrize("name", MODELS)
def test_text_is_read_as_before_and_the_images_towers_keep_their_attention(name: str) -> None:
    model, more = MODELS[name]()
    towers = [m for m in model.modules() if "vision" in type(m).__name__.lower()]
    own = [getattr(tower, "config", model.config)._attn_implementation for tower in towers]
    image, text = _prompt(), tokens(60)
    wanted, wanted_text = generate(model, image, **more), generate(model, text)
    for _ in range(2):  # what a model keeps of its last image does not disturb the next patch
        inf_llm.patch(model, type="inf-llm", **SHORT)
        assert torch.equal(generate(model, text), wanted_text)
        assert own == [getattr(t, "config", model.config)._attn_implementation for t in towers]
        if name in REFUSED:
            with pytest.raises(UnsupportedInputError, match=REFUSED[name]):
                generate(model, image, **more)
        else:
            assert torch.equal(generate(model, image, **more), wanted)
        inf_llm.unpatch(model)
        assert torch.equal(generate(model, image, **more), wanted)


def test_a_small_window_changes_what_an_image_model_says() -> None:
    """The control: the text part really is patched."""
    model, more = _llava()
    wanted = generate(model, _prompt(before=80), **more)
    inf_llm.patch(model, type="inf-llm", **LONG)
    assert not torch.equal(generate(model, _prompt(before=80), **more), wanted)


def test_a_prefix_that_sees_itself_is_refused() -> None:
    config = transformers.PaliGemmaConfig(
        text_config={**VOCABULARY, "head_dim": 16, "model_type": "gemma"},
        vision_config={
            **SEES,
            "model_type": "siglip_vision_model",
            "projection_dim": 64,
            "vision_use_head": False,
        },
        image_token_index=IMAGE,
        image_token_id=IMAGE,
        projection_dim=64,
        hidden_size=64,
    )
    model = inf_llm.patch(_built("PaliGemma", config), type="inf-llm", **SHORT)
    ids = _prompt(before=1)
    with pytest.raises(UnsupportedInputError, match="see later ones"):
        generate(model, ids, pixel_values=PIXELS, token_type_ids=torch.zeros_like(ids))
