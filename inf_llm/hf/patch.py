"""Replace a model's attention at run time, and restore it."""

from __future__ import annotations

import dataclasses
import functools
from typing import Any

from torch import nn
from transformers import PreTrainedModel
from transformers.cache_utils import DynamicCache
from transformers.utils import is_flash_attn_2_available

from inf_llm.attention.window import ChunkedAttention, WindowAttention
from inf_llm.checks import LARGEST
from inf_llm.errors import SettingsError, UnsupportedInputError, UnsupportedModelError
from inf_llm.hf.cache import MemoryCache, adopt, check_layers
from inf_llm.hf.cache_layer import AttentionFactories, AttentionFactory
from inf_llm.hf.decoder import decoder_of, device_of, prefix_adapter, trained_length, unwrap
from inf_llm.hf.generate import unwrap_generate, wrap_generate
from inf_llm.hf.hooks import install_hooks, remove_hooks, set_implementation
from inf_llm.hf.patched import Patched, forget_state, keep_state, state_of
from inf_llm.hf.positions import forget_ropes, rescale_positions
from inf_llm.hf.probe import LayerFacts, probe
from inf_llm.hf.tensor_parallel import is_tensor_parallel, tensor_parallel_factory
from inf_llm.hf.verify import Expected, try_memory, verify
from inf_llm.hf.versions import setting
from inf_llm.hf.weights import restore_weights, round_weights
from inf_llm.memory.search import check_search
from inf_llm.memory.tiers import check_tier
from inf_llm.rope import Rope
from inf_llm.scaling import rescale
from inf_llm.settings import InfLLMSettings, OriginSettings, WindowSettings, make_settings
from inf_llm.variants import ATTENTION


def patched(model: Any) -> Patched | None:
    """Return the state that `patch` stored on the model, or None if it is not patched."""
    return state_of(decoder_of(unwrap(model)))


def patch(model: PreTrainedModel, config: Any = None, /, **settings: Any) -> PreTrainedModel:
    """Replace a model's attention; `unpatch` restores it.

    Args:
        model: any causal decoder of transformers with rotary positions, or the text part of an
            image-text model. It is changed in place. It may be inside a wrapper of PEFT.
        config: attention settings, or a configuration from `load_config`, whose `model.weights`
            applies too. Without it, pass `type="inf-llm"` and its settings as keywords.

    Returns:
        The same model.

    Raises:
        SettingsError: a setting is not allowed.
        UnsupportedInputError: `model` is no model, or `config` holds no settings.
        UnsupportedModelError: the model does something that cannot be reproduced. It is left as
            it was.
    """
    chosen = _chosen(config, settings)
    inner = unwrap(model)
    decoder = decoder_of(inner)
    if state_of(decoder) is not None:
        raise UnsupportedModelError(
            f"this {type(inner).__name__} is patched already: call inf_llm.unpatch(model) first"
        )
    try:
        _refuse_prefix(model, chosen)
        if isinstance(chosen, WindowSettings):
            _patch_memory(inner, decoder, chosen)
        else:
            _patch_origin(inner, decoder, chosen)
        _round(inner, getattr(config, "model", None))
    except UnsupportedModelError as error:
        what = f"this {type(inner).__name__} cannot be patched"
        raise UnsupportedModelError(f"{what}: {error} ({setting()})") from error
    return model


def _round(model: PreTrainedModel, model_config: Any) -> None:
    """Round the weights to int8 if the configuration sets `weights`."""
    if getattr(model_config, "weights", None) is None:
        return
    try:
        round_weights(model)
    except SettingsError:
        unpatch(model)
        raise


def _refuse_prefix(model: Any, settings: OriginSettings) -> None:
    """Refuse an adapter that puts keys before the text: a memory holds only keys of tokens."""
    adapter = prefix_adapter(model)
    if adapter is not None and (isinstance(settings, WindowSettings) or settings.moves_positions):
        raise UnsupportedModelError(
            f"its adapter ({adapter}) puts keys and values of its own before the text, and the "
            "patch keeps only those of tokens: an adapter that changes weights or adds tokens "
            "(LoRA, prompt tuning) works, and so does the model without this one"
        )


def _chosen(config: Any, settings: dict[str, Any]) -> OriginSettings:
    if config is not None and settings:
        raise UnsupportedInputError(
            f"pass settings either as one object or as keywords, not both: {', '.join(settings)}"
        )
    chosen = getattr(config, "attention", config) or make_settings(**settings)
    if not isinstance(chosen, OriginSettings):
        raise UnsupportedInputError(
            f"patch takes settings, a configuration or keywords, not a {type(chosen).__name__}"
        )
    return chosen


def unpatch(model: PreTrainedModel) -> PreTrainedModel:
    """Undo `patch`: the model computes what it computed before.

    Raises:
        UnsupportedModelError: the model is not patched.
    """
    inner = unwrap(model)
    decoder = decoder_of(inner)
    state = state_of(decoder)
    if state is None:
        raise UnsupportedModelError(f"this {type(inner).__name__} is not patched")
    _undo(inner, decoder, state)
    return model


def _undo(model: PreTrainedModel, decoder: nn.Module, state: Patched) -> None:
    restore_weights(model)
    unwrap_generate(model)
    remove_hooks(model, decoder, state)
    forget_ropes(decoder)
    forget_state(decoder)


def new_cache(model: PreTrainedModel) -> MemoryCache:
    """Return an empty memory for a patched model, to pass as its cache."""
    state = patched(model)
    if state is None or not state.factories:
        raise UnsupportedModelError(
            f"this {type(model).__name__} has no memory: patch it with a type other than 'origin'"
        )
    return adopt(DynamicCache(config=model.config.get_text_config(decoder=True)), state.factories)


def factories_for(model: PreTrainedModel, settings: WindowSettings) -> AttentionFactories:
    """Return the attention factory that `patch` would use for each layer of an unpatched model.

    Raises:
        UnsupportedModelError: the model's attention cannot be replaced.
    """
    settings = _settled(model, settings)
    inner = unwrap(model)
    return _makers(inner, probe(decoder_of(inner), settings.sees), settings)


def _settled(model: Any, settings: WindowSettings) -> WindowSettings:
    """Return the settings for this model, with `dense_up_to` filled in where prefill is "auto".

    Raises:
        SettingsError: the settings do not suit each other, or the model.
        MissingExtraError: a package for the search is not installed.
        SavedMemoryError: blocks cannot be kept in the folder that the settings name.
    """
    if not isinstance(settings, InfLLMSettings):
        return settings
    check_search(settings)
    check_tier(settings.tier)
    if settings.prefill != "auto":
        return settings
    trained, dense = trained_length(model) or LARGEST, settings.dense_up_to
    if dense is None:
        return dataclasses.replace(settings, dense_up_to=min(settings.dense_tokens, trained))
    if dense > trained:
        raise SettingsError(
            f"dense_up_to = {dense} is more than the {trained} tokens that the model was trained "
            f"with, and full attention fails behind them: lower it to {trained}",
            "dense_up_to",
        )
    return settings


def _patch_origin(model: PreTrainedModel, decoder: Any, settings: OriginSettings) -> None:
    """Keep the model's own full attention, and change only its positions or its kernel."""
    state = Patched(settings)
    if settings.moves_positions:
        rescale_positions(decoder, state)
    on_cuda = device_of(model).type == "cuda"
    if settings.fattn and on_cuda and is_flash_attn_2_available():
        state.before = decoder.config._attn_implementation
        set_implementation(model, decoder, "flash_attention_2")
    keep_state(state, decoder)


def _patch_memory(model: PreTrainedModel, decoder: Any, settings: WindowSettings) -> None:
    settings = _settled(model, settings)
    facts = probe(decoder, settings.sees)
    _refuse_if_nothing_changes(model, settings, facts)
    state = Patched(settings, _makers(model, facts, settings))
    reason = check_layers(
        DynamicCache(config=model.config.get_text_config(decoder=True)).layers, state.factories
    )
    if reason is not None:
        raise UnsupportedModelError(reason)
    expected = _expected(model, facts, settings)
    state.checked = verify(decoder, expected, settings.kernel_asked)
    keep_state(state, decoder, *facts)
    try:
        install_hooks(model, decoder, state)
        wrap_generate(model)
        _try_memory(decoder, state, _plain_makers(model, facts, settings))
    except BaseException:
        _undo(model, decoder, state)
        raise


def _try_memory(decoder: Any, state: Patched, plain: AttentionFactories) -> None:
    """Run the decoder through its hooks, once, with full attention in place of the type's."""
    factories, state.factories = state.factories, plain
    try:
        try_memory(decoder, plain)
    finally:
        state.factories = factories


_NEVER_FULL = 1 << 30
"""A window that is longer than every text of the checks."""


def _index(module: Any) -> int:
    return int(module.layer_idx)


def _refuse_if_nothing_changes(
    model: PreTrainedModel, settings: WindowSettings, facts: dict[nn.Module, LayerFacts]
) -> None:
    windows = [_native_window(model, module, fact) for module, fact in facts.items()]
    if settings.native_window == "keep" and all(windows):
        raise UnsupportedModelError(
            f"every layer has a sliding window of its own ({windows[0]} tokens), so "
            f"{settings.type!r} would change nothing: set native_window to 'override' to replace "
            "them"
        )


def _native_window(model: PreTrainedModel, module: nn.Module, fact: LayerFacts) -> int | None:
    """Return the length of the window or chunk that a layer was trained with, or None."""
    return native_chunk(model, module) or fact.window


def native_chunk(model: PreTrainedModel, module: nn.Module) -> int | None:
    """Return the length of the chunks that a layer was trained with (Llama 4), or None."""
    text = model.config.get_text_config(decoder=True)
    kinds = getattr(text, "layer_types", None) or []
    index = _index(module)
    chunked = index < len(kinds) and kinds[index] == "chunked_attention"
    return int(text.attention_chunk_size) if chunked else None


def _makers(
    model: PreTrainedModel, facts: dict[nn.Module, LayerFacts], settings: WindowSettings
) -> AttentionFactories:
    """Return each layer's attention factory: for its own window if kept, else for the type."""
    ropes = {  # layers with one rotation share one object, and its tables of cosines
        fact.rope: rescale(fact.rope, settings) for fact in facts.values()
    }
    factories: AttentionFactories = {}
    for module, fact in facts.items():
        rope, chunk = ropes[fact.rope], native_chunk(model, module)
        window_maker = maker_of_window(rope, settings, fact.window, chunk)
        type_settings = settings.for_layer(_index(module))
        factories[_index(module)] = window_maker or _make_type(model, rope, type_settings)
    return factories


def maker_of_window(
    rope: Rope, settings: WindowSettings, window: int | None, chunk: int | None
) -> AttentionFactory | None:
    """Return the attention factory of a layer that keeps its trained window or chunk, or None."""
    if settings.native_window != "keep":
        return None
    if chunk is not None:
        return functools.partial(ChunkedAttention, rope, chunk)
    return None if window is None else functools.partial(WindowAttention, rope, int(window))


def _make_type(model: PreTrainedModel, rope: Rope, settings: OriginSettings) -> AttentionFactory:
    """Return the factory of the attention object that the settings name."""
    if isinstance(settings, InfLLMSettings) and is_tensor_parallel(model):
        return tensor_parallel_factory(model, rope, settings)
    return functools.partial(ATTENTION.get(settings.type), rope, settings)


def _plain_makers(
    model: PreTrainedModel, facts: dict[nn.Module, LayerFacts], settings: WindowSettings
) -> AttentionFactories:
    """Return factories for the checks, with full attention in place of the type's."""
    plain = make_settings(
        "stream-lm", n_init=0, n_local=_NEVER_FULL, native_window=settings.native_window
    )
    assert isinstance(plain, WindowSettings)
    return _makers(model, facts, plain)


def _expected(
    model: PreTrainedModel, facts: dict[nn.Module, LayerFacts], settings: WindowSettings
) -> dict[nn.Module, Expected]:
    """Return every layer's replacement for `verify`, without rotation: its keys arrive rotated."""
    still = {module: dataclasses.replace(fact, rope=Rope.none()) for module, fact in facts.items()}
    plain = dataclasses.replace(settings, native_window="keep")
    factories = _plain_makers(model, still, plain)
    return {
        module: Expected(factories[_index(module)], fact.window, native_chunk(model, module))
        for module, fact in facts.items()
    }
