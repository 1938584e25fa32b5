"""Llama models that read without end by themselves: LM-Infinite as classes of transformers.

    from inf_llm import LlamaInfiniteForCausalLM

    model = LlamaInfiniteForCausalLM.from_pretrained("meta-llama/Llama-2-7b-hf")

Any Llama checkpoint loads. The model is a Llama that patches itself to `infinite-lm` (Han et al.,
2023) as its configuration says; what is saved loads again with these classes. The `Auto` classes of
transformers know "llama-infinite" once this module is imported, which the first use of one of its
names from `inf_llm` does. `import inf_llm` alone does not: it would have to import transformers.
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
    """A Llama's configuration with the settings of its attention.

    Attributes:
        n_init: first tokens of a text that are never forgotten (sinks).
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
        """What is on disk; a Llama's configuration is as good as one of these."""
        found, rest = super().get_config_dict(*args, **kwargs)
        if found.get("model_type") == LlamaConfig.model_type:
            found["model_type"] = cls.model_type
        return found, rest

    def attention_settings(self) -> InfiniteLMSettings:
        """What the model patches itself with.

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
    """Makes a Llama class one that patches itself as soon as its weights are real."""

    config_class: Any = LlamaInfiniteConfig

    def __init__(self, config: LlamaInfiniteConfig) -> None:
        config = copy.deepcopy(config)
        if config._attn_implementation == NAME:  # the configuration of another patched model
            config._attn_implementation = None
        super().__init__(config)  # type: ignore[call-arg]
        _patch_if_real(self)

    @classmethod
    def from_pretrained(cls, *args: Any, **kwargs: Any) -> Any:
        """Like every model of transformers, from any Llama checkpoint."""
        loaded = super().from_pretrained(*args, **kwargs)  # type: ignore[misc]
        _patch_if_real(loaded[0] if isinstance(loaded, tuple) else loaded)
        return loaded


def _patch_if_real(model: Any) -> None:
    if patched(model) is None and not any(p.is_meta for p in model.parameters()):
        patch(model, model.config.attention_settings())


class LlamaInfiniteModel(_Infinite, LlamaModel):
    """Hidden states of a text of any length."""


class LlamaInfiniteForCausalLM(_Infinite, LlamaForCausalLM):
    """Next-token logits, and `generate`, for a text of any length."""


class _Classifier(LlamaForSequenceClassification):
    """The classification head on a plain Llama: the head's model patches itself, not this one."""

    def __init__(self, config: LlamaInfiniteConfig) -> None:
        LlamaPreTrainedModel.__init__(self, config)
        self.num_labels = config.num_labels
        self.model = LlamaModel(config)
        self.score = nn.Linear(config.hidden_size, self.num_labels, bias=False)
        self.post_init()


class LlamaInfiniteForSequenceClassification(_Infinite, _Classifier):
    """Class logits of a text of any length, read at its last token."""


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
