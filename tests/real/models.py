"""Where the real models are, what is known of them, and how they are loaded."""

from __future__ import annotations

import functools
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from inf_llm.demo.trial import haystack_text

ROOT = Path(__file__).resolve().parents[2]
FOLDER = Path(os.environ.get("INF_LLM_REAL_MODELS") or ROOT / ".models")


@dataclass(frozen=True)
class Real:
    """A model that scripts/real_models.sh fetches.

    Attributes:
        name: as the script calls it, and its folder.
        chats: whether it has a chat template.
        in_ci: whether it must be there where CI=true.
    """

    name: str
    chats: bool = True
    in_ci: bool = False

    @property
    def folder(self) -> Path:
        """Its folder; the test ends here if it is not there.

        Absent is a failure in CI, for a model that CI fetches, else a skip with its reason.
        """
        folder = FOLDER / self.name
        if not (folder / "config.json").exists():
            reason = f"no {folder}: bash scripts/real_models.sh {self.name} {folder}"
            if self.in_ci and os.environ.get("CI") == "true":
                pytest.fail(reason)
            pytest.skip(reason)
        return folder


MODELS = {
    real.name: real
    for real in (
        Real("smollm2", in_ci=True),
        Real("qwen"),
        Real("gemma3", chats=False),
        Real("qwen1.5b"),
    )
}
DTYPES = ("float32", "bfloat16", "float16")
WINDOW = {"n_init": 32, "n_local": 512}
MEMORY = WINDOW | {"block_size": 32, "topk": 8, "max_cached_block": 16, "exc_block_size": 128}
LONG: dict[str, dict[str, Any]] = {
    "origin": {},
    "infinite-lm": WINDOW,
    "stream-lm": WINDOW,
    "inf-llm": MEMORY,
}
"""Settings of every type that texts of some thousand tokens go far beyond."""
FITTING = {kind: {**given, "n_local": 4096} if given else {} for kind, given in LONG.items()}
"""The same with a window that holds the texts of these tests."""


@functools.lru_cache(maxsize=1)
def load(name: str, dtype: str) -> Any:
    """The model as it is, from the folder in bfloat16; the last one is kept."""
    folder = MODELS[name].folder
    return AutoModelForCausalLM.from_pretrained(folder, dtype=getattr(torch, dtype)).eval()


@functools.cache
def tokenizer(name: str) -> Any:
    """The model's."""
    return AutoTokenizer.from_pretrained(MODELS[name].folder)


def prose(name: str, count: int, start: int = 0) -> list[int]:
    """So many tokens of a book in English, from one of its characters on."""
    ids = tokenizer(name)(haystack_text()[start : start + 8 * count]).input_ids
    assert len(ids) >= count
    return list(ids[:count])
