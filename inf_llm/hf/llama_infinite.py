"""Llama models that read texts of any length: LM-Infinite as classes of transformers.

    from inf_llm import LlamaInfiniteForCausalLM

    model = LlamaInfiniteForCausalLM.from_pretrained("meta-llama/Llama-2-7b-hf")

Any Llama checkpoint loads. The model is a Llama that patches itself with type `infinite-lm` (Han et
al., 2023) and the settings in its configuration. A saved model loads again with these classes. The
`Auto` classes of transformers find "llama-infinite" after this module is imported, which happens at
the first use of one of its names from `inf_llm`. `import inf_llm` alone does not import the module,
because that would import transformers.
"""

from __future__ import annotations

import copy
from typing import Any

from torch import nn
from transformers import (
    AutoConfig,
    AutoModel,
    AutoModelForCausalLM,
    AutoModelForSequenceClassification,
    LlamaConfig,
    LlamaForCausalLM,
    LlamaForSequenceClassification,
    LlamaModel,
    LlamaPreTrainedModel,
    PreTrainedModel,
)

from inf_llm.hf.hooks import NAME
from inf_llm.hf.patch import patch, patched
from inf_llm.settings import InfiniteLMSettings, WindowSettings


class LlamaInfiniteConfig(LlamaConfig):
    """The configuration of a Llama, with the settings of its attention.

    Attributes:
        n_init: first tokens of a text that are always kept (sinks).
        n_local: tokens of the local window; None for `max_position_embeddings`, the length that
            the model was trained on.
        topk_middle: tokens in between that a query may choose; see `InfiniteLMSettings`.
        middle_from_layer: first layer that chooses such tokens.
    """

    model_type = "llama-infinite"

    n_init: int = WindowSettings.n_init
    n_local: int | None = None
    topk_middle: int = 0
    middle_from_layer: int = 0

    def __post_init__(self, **kwargs: Any) -> None:
        super().__post_init__(**kwargs)
        self.attention_settings()

    @classmethod
    def get_config_dict(cls, *args: Any, **kwargs: Any) -> tuple[dict[str, Any], dict[str, Any]]:
        """Return the configuration on disk; a plain Llama's is read as one of this type."""
        data, rest = super().get_config_dict(*args, **kwargs)
        if data.get("model_type") == LlamaConfig.model_type:
            data["model_type"] = cls.model_type
        return data, rest

    def attention_settings(self) -> InfiniteLMSettings:
        """Return the settings that the model patches itself with.

        Raises:
            SettingsError: a setting is out of range.
        """
        n_local = self.max_position_embeddings if self.n_local is None else self.n_local
        return InfiniteLMSettings(
            n_init=self.n_init,
            n_local=n_local,
            topk_middle=self.topk_middle,
            middle_from_layer=self.middle_from_layer,
        )


class _Infinite:
    """A mixin that makes a Llama class patch itself as soon as its weights have data."""

    config_class: Any = LlamaInfiniteConfig

    def __init__(self, config: LlamaInfiniteConfig) -> None:
        config = copy.deepcopy(config)
        if config._attn_implementation == NAME:  # copied from a patched model
            config._attn_implementation = None
        super().__init__(config)  # type: ignore[call-arg]
        _patch_if_real(self)

    @classmethod
    def from_pretrained(cls, *args: Any, **kwargs: Any) -> Any:
        """Load the model from any Llama checkpoint, with the arguments of transformers."""
        loaded = super().from_pretrained(*args, **kwargs)  # type: ignore[misc]
        _patch_if_real(loaded[0] if isinstance(loaded, tuple) else loaded)
        return loaded


def _patch_if_real(model: Any) -> None:
    if patched(model) is None and not any(p.is_meta for p in model.parameters()):
        patch(model, model.config.attention_settings())


class LlamaInfiniteModel(_Infinite, LlamaModel):
    """A Llama that returns hidden states of a text of any length."""


class LlamaInfiniteForCausalLM(_Infinite, LlamaForCausalLM):
    """A Llama with next-token logits, and `generate`, for a text of any length."""


class _Classifier(LlamaForSequenceClassification):
    """A classification head on a plain `LlamaModel`.

    A subclass patches itself, so the Llama inside must not be of a class that does.
    """

    def __init__(self, config: LlamaInfiniteConfig) -> None:
        LlamaPreTrainedModel.__init__(self, config)
        self.num_labels = config.num_labels
        self.model = LlamaModel(config)
        self.score = nn.Linear(config.hidden_size, self.num_labels, bias=False)
        self.post_init()


class LlamaInfiniteForSequenceClassification(_Infinite, _Classifier):
    """A Llama with class logits of a text of any length, computed at its last token."""


def register() -> None:
    """Register "llama-infinite" with the `Auto` classes of transformers."""
    AutoConfig.register(LlamaInfiniteConfig.model_type, LlamaInfiniteConfig, exist_ok=True)
    classes: tuple[tuple[Any, type[PreTrainedModel]], ...] = (
        (AutoModel, LlamaInfiniteModel),
        (AutoModelForCausalLM, LlamaInfiniteForCausalLM),
        (AutoModelForSequenceClassification, LlamaInfiniteForSequenceClassification),
    )
    for auto, model in classes:
        auto.register(LlamaInfiniteConfig, model, exist_ok=True)


register()
