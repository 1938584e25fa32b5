"""Published keys mean the published rule."""

from __future__ import annotations

from typing import Any

import pytest

from inf_llm.config import load_config, shipped
from inf_llm.settings import InfLLMSettings, make_settings, to_plain

MOST_ATTENDED, LAYER = "most-attended", {"name": "layer", "scores": "sum"}


@pytest.mark.parametrize(
    ("given", "summary", "selection"),
    [
        ({"repr_topk": 4}, {"name": MOST_ATTENDED, "tokens": 4}, LAYER),
        ({"faiss": True}, MOST_ATTENDED, LAYER),
        ({"chunk_topk_calc": 64}, MOST_ATTENDED, LAYER),
        ({"perhead": True}, MOST_ATTENDED, {"name": "query-head", "scores": "sum"}),
        ({"repr_topk": 4, "selection": "layer"}, {"name": MOST_ATTENDED, "tokens": 4}, "layer"),
        ({"summary": "mean", "perhead": True}, "mean", {"name": "query-head", "scores": "sum"}),
        ({"faiss": False, "perhead": False, "repr_topk": None}, "pages", "layer"),
        ({"cache_strategy": "lru-s", "score_decay": 0.1}, "pages", "layer"),
        ({}, "pages", "layer"),
    ],
    ids=str,
)
def test_one_key_means_all_of_the_rule(given: dict[str, Any], summary: Any, selection: Any) -> None:
    made = to_plain(make_settings("inf-llm", **given))
    assert (made["summary"], made["selection"]) == (summary, selection)


@pytest.mark.parametrize("name", ["mistral-inf-llm", "llama-3-inf-llm", "vicuna-inf-llm"])
def test_published_files(name: str) -> None:
    """They reproduce the paper; an override of the summary leaves its rule."""
    settings = load_config(shipped()[name]).attention
    assert isinstance(settings, InfLLMSettings)
    assert (settings.summary.name, settings.selection.plain()) == (MOST_ATTENDED, LAYER)
    other = load_config(shipped()[name], ["model.summary=mean"]).attention
    assert isinstance(other, InfLLMSettings)
    assert (other.summary.name, other.selection.plain()) == ("mean", "layer")
