"""Give a model another attention at run time, and take it away again."""

from __future__ import annotations

import functools
from typing import Any

from torch import nn
from transformers import PreTrainedModel
from transformers.cache_utils import DynamicCache
from transformers.utils import is_flash_attn_2_available

from inf_llm.attention.window import ChunkedAttention, WindowAttention
from inf_llm.errors import UnsupportedInputError, UnsupportedModelError
from inf_llm.hf.cache import MakeAttention, MemoryCache, adopt, check_layers
from inf_llm.hf.hooks import Patched, install_hooks
from inf_llm.hf.positions import rescale_positions
from inf_llm.hf.probe import LayerFacts, probe
from inf_llm.hf.tensor_parallel import is_spread, spread_maker
from inf_llm.hf.verify import short_text_logits, verify
from inf_llm.memory.block_store import check_index
from inf_llm.rope import Rope
from inf_llm.scaling import rescale
from inf_llm.settings import InfLLMSettings, OriginSettings, WindowSettings, make_settings
from inf_llm.variants import ATTENTION

_STATE = "_inf_llm"


def patched(model: PreTrainedModel) -> Patched | None:
    """What `patch` left on the model, or None if it is not patched."""
    return model.__dict__.get(_STATE)


def patch(model: PreTrainedModel, config: Any = None, /, **settings: Any) -> PreTrainedModel:
    """Replace a model's attention; `unpatch` brings the old one back.

    Args:
        model: any causal decoder of transformers with rotary positions. It is changed in place.
        config: attention settings, or a configuration from `load_config`. Without it, pass
            `type="inf-llm"` and its settings as keywords.

    Returns:
        The same model.

    Raises:
        SettingsError: a setting is not allowed.
        UnsupportedModelError: the model does something that cannot be reproduced. It is left as
            it was.
    """
    if config is not None and settings:
        raise UnsupportedInputError(
            f"pass settings either as one object or as keywords, not both: {', '.join(settings)}"
        )
    chosen = getattr(config, "attention", config) or make_settings(**settings)
    if not isinstance(chosen, OriginSettings):
        raise UnsupportedInputError(
            f"patch takes settings, a configuration or keywords, not a {type(chosen).__name__}"
        )
    if patched(model) is not None:
        raise UnsupportedModelError(
            f"this {type(model).__name__} is patched already: call inf_llm.unpatch(model) first"
        )
    state = Patched(chosen)
    if isinstance(chosen, WindowSettings):
        _patch_memory(model, chosen, state)
    else:
        _patch_origin(model, state)
    model.__dict__[_STATE] = state
    return model


def unpatch(model: PreTrainedModel) -> PreTrainedModel:
    """Undo `patch`: the model computes what it computed before.

    Raises:
        UnsupportedModelError: the model is not patched.
    """
    state = patched(model)
    if state is None:
        raise UnsupportedModelError(f"this {type(model).__name__} is not patched")
    del model.__dict__[_STATE]
    _undo(state)
    return model


def new_cache(model: PreTrainedModel) -> MemoryCache:
    """An empty memory for a patched model, to pass as `past_key_values`."""
    state = patched(model)
    if state is None or not state.makers:
        raise UnsupportedModelError(
            f"this {type(model).__name__} has no memory: patch it with a type other than 'origin'"
        )
    return adopt(DynamicCache(config=model.config.get_text_config(decoder=True)), state.makers)


def _undo(state: Patched) -> None:
    for step in reversed(state.undo):
        step()


def _patch_origin(model: PreTrainedModel, state: Patched) -> None:
    """Full attention stays the model's own; only its positions or its kernel may change."""
    settings = state.settings
    if settings.moves_positions:
        rescale_positions(model, state)
    before = model.config._attn_implementation
    on_cuda = next(model.parameters()).device.type == "cuda"
    if settings.fattn and on_cuda and is_flash_attn_2_available():
        model.set_attn_implementation("flash_attention_2")
        state.undo.append(lambda: model.set_attn_implementation(before))


def _patch_memory(model: PreTrainedModel, settings: WindowSettings, state: Patched) -> None:
    if isinstance(settings, InfLLMSettings):
        check_index(settings)
    facts = probe(model)
    _refuse_if_nothing_changes(model, settings, facts)
    state.makers = _makers(model, facts, settings)
    reason = check_layers(
        DynamicCache(config=model.config.get_text_config(decoder=True)).layers, state.makers
    )
    if reason is not None:
        raise UnsupportedModelError(f"{type(model).__name__}: {reason}")
    wanted = short_text_logits(model)
    install_hooks(model, state)
    try:
        verify(model, _plain_makers(model, facts), wanted)
    except BaseException:
        _undo(state)
        raise


def _index(module: Any) -> int:
    return int(module.layer_idx)


def _refuse_if_nothing_changes(
    model: PreTrainedModel, settings: WindowSettings, facts: dict[nn.Module, LayerFacts]
) -> None:
    windows = [_native_window(model, module, fact) for module, fact in facts.items()]
    if settings.native_window == "keep" and all(windows):
        raise UnsupportedModelError(
            f"every layer of this {type(model).__name__} has a sliding window of its own "
            f"({windows[0]} tokens), so {settings.type!r} would change nothing: "
            "set native_window to 'override' to replace them"
        )


def _native_window(model: PreTrainedModel, module: nn.Module, fact: LayerFacts) -> int | None:
    """Length of the window or chunk that a layer was trained with, if it was."""
    return _native_chunk(model, module) or fact.window


def _native_chunk(model: PreTrainedModel, module: nn.Module) -> int | None:
    text = model.config.get_text_config(decoder=True)
    kinds = getattr(text, "layer_types", None) or []
    index = _index(module)
    chunked = index < len(kinds) and kinds[index] == "chunked_attention"
    return int(text.attention_chunk_size) if chunked else None


def _makers(
    model: PreTrainedModel, facts: dict[nn.Module, LayerFacts], settings: WindowSettings
) -> dict[int, MakeAttention]:
    """For every layer, what makes its attention: its own window if it keeps it, else the type's."""
    ropes = {  # layers that rotate alike share one object, and with it the tables of cosines
        fact.rope: rescale(fact.rope, settings) for fact in facts.values()
    }
    makers: dict[int, MakeAttention] = {}
    for module, fact in facts.items():
        rope, chunk = ropes[fact.rope], _native_chunk(model, module)
        keeps_own = settings.native_window == "keep"
        if keeps_own and chunk is not None:
            make: MakeAttention = functools.partial(ChunkedAttention, rope, chunk)
        elif keeps_own and fact.window is not None:
            make = functools.partial(WindowAttention, rope, int(fact.window))
        else:
            make = _make_type(model, rope, settings.for_layer(_index(module)))
        makers[_index(module)] = make
    return makers


def _make_type(model: PreTrainedModel, rope: Rope, settings: OriginSettings) -> MakeAttention:
    """What makes the attention object that the settings name."""
    if isinstance(settings, InfLLMSettings) and is_spread(model):
        return spread_maker(model, rope, settings)
    return functools.partial(ATTENTION.get(settings.type), rope, settings)


def _plain_makers(
    model: PreTrainedModel, facts: dict[nn.Module, LayerFacts]
) -> dict[int, MakeAttention]:
    """Full attention where the type would be, with the model's own positions, for the check."""
    plain = make_settings("stream-lm", n_init=0, n_local=64)
    assert isinstance(plain, WindowSettings)
    return _makers(model, facts, plain)
