"""InfLLM for everyone: a training-free long-context memory for any Hugging Face decoder.

    import inf_llm

    model, tokenizer = inf_llm.load("config/demo-inf-llm.yaml")     # or, for a loaded model:
    inf_llm.patch(model, type="inf-llm", n_local=4096, topk=64)

Each name is imported at its first use, so that `import inf_llm` itself is fast.
"""

from __future__ import annotations

import importlib
from typing import Any

__version__ = "0.1.0"

_HOMES = {
    "patch": "inf_llm.hf.patch",
    "unpatch": "inf_llm.hf.patch",
    "new_cache": "inf_llm.hf.patch",
    "save_memory": "inf_llm.hf.saving",
    "load_memory": "inf_llm.hf.saving",
    "load": "inf_llm.hf.load",
    "trace": "inf_llm.hf.trace",
    "ChatSession": "inf_llm.chat.session",
    "load_config": "inf_llm.config",
    "InfLLMError": "inf_llm.errors",
    "visualize": "inf_llm.picture",
    "LMInfinite": "inf_llm.attention.lm_infinite",
    "LlamaInfiniteConfig": "inf_llm.hf.llama_infinite",
    "LlamaInfiniteModel": "inf_llm.hf.llama_infinite",
    "LlamaInfiniteForCausalLM": "inf_llm.hf.llama_infinite",
    "LlamaInfiniteForSequenceClassification": "inf_llm.hf.llama_infinite",
}

__all__ = ["__version__", *_HOMES]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'inf_llm' has no attribute {name!r}")
    return getattr(importlib.import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return sorted(__all__)
