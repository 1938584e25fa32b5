"""Where a token stands and what it may see, one class per attention type."""

from inf_llm.registry import Registry

ATTENTION_TYPES = Registry(
    "attention type",
    {
        "origin": "inf_llm.attention.origin:OriginAttention",
        "infinite-lm": "inf_llm.attention.middle:infinite_lm",
        "stream-lm": "inf_llm.attention.window:StreamLMAttention",
        "inf-llm": "inf_llm.attention.inf_llm:InfLLMAttention",
    },
)
