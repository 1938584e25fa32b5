"""One process of `test_tensor_parallel`: greedy tokens of a patched model, printed by the first."""

from __future__ import annotations

import json
import os
import sys

import torch
from transformers import AutoModelForCausalLM

import inf_llm

WINDOW = {"n_init": 4, "n_local": 32}
MEMORY = {**WINDOW, "block_size": 8, "topk": 2, "repr_topk": 2, "max_cached_block": 4}
MEMORY["exc_block_size"] = 16
PAGES = {key: value for key, value in MEMORY.items() if key != "repr_topk"}
PAGES["summary"] = {"name": "pages", "page_size": 4}
KINDS = {
    "infinite-lm": {"type": "infinite-lm", **WINDOW},
    "inf-llm": {"type": "inf-llm", **MEMORY},
    "perhead": {"type": "inf-llm", **MEMORY, "perhead": True},
    "shares": {"type": "inf-llm", **PAGES, "selection": {"name": "layer", "scores": "softmax"}},
    "key-head": {
        "type": "inf-llm",
        **PAGES,
        "selection": {"name": "key-head", "scores": "softmax"},
    },
}


def greedy(path: str, kind: str, spread: bool) -> list[int]:
    """Twenty tokens after a random prompt that the window does not fit."""
    torch.set_num_threads(1)
    plan = {"tp_plan": "auto"} if spread else {}
    model = AutoModelForCausalLM.from_pretrained(path, dtype=torch.float32, **plan).eval()
    inf_llm.patch(model, **KINDS[kind])
    torch.manual_seed(0)
    ids = torch.randint(3, 90, (1, 200))
    mask = torch.ones_like(ids)
    out = model.generate(ids, attention_mask=mask, max_new_tokens=20, do_sample=False)
    return out[0, 200:].tolist()


if __name__ == "__main__":
    found = {kind: greedy(sys.argv[1], kind, "RANK" in os.environ) for kind in KINDS}
    if os.environ.get("RANK", "0") == "0":
        print(json.dumps(found))
