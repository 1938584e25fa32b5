"""Figures for the model card: prose loss by position, baselines, and needles found in context."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F
from transformers import LlamaForCausalLM

from inf_llm.needles import build, even_depths
from inf_llm.needles import family as family_of

EDGES = (0, 16, 32, 64, 128, 256, 512)


@dataclass(frozen=True)
class PositionLoss:
    """Mean loss (nats per token) of the tokens at positions `first` to `last` of a row."""

    first: int
    last: int
    loss: float


def rows_of(ids: np.ndarray, length: int, limit: int) -> Tensor:
    """Return up to `limit` rows of `length` + 1 tokens, evenly spread over `ids`."""
    count = min(limit, len(ids) // (length + 1))
    starts = np.linspace(0, len(ids) - length - 1, count).astype(np.int64)
    return torch.from_numpy(np.stack([ids[s : s + length + 1] for s in starts]).astype(np.int64))


@torch.inference_mode()
def loss_by_position(
    model: LlamaForCausalLM, ids: np.ndarray, rows: int = 1024, batch: int = 16
) -> list[PositionLoss]:
    """Return held-out loss in buckets of positions; each ends twice as far away as the last."""
    length = model.config.max_position_embeddings
    total = torch.zeros(length, dtype=torch.float64)
    all_rows = rows_of(ids, length, rows).to(model.device)
    for part in all_rows.split(batch):
        logits = model(part[:, :-1]).logits.float()
        losses = F.cross_entropy(logits.flatten(0, 1), part[:, 1:].flatten(), reduction="none")
        total += losses.view(len(part), length).double().sum(0).cpu()
    mean = total / len(all_rows)
    edges = [edge for edge in EDGES if edge < length] + [length]
    return [
        PositionLoss(low, high - 1, round(float(mean[low:high].mean()), 4))
        for low, high in pairwise(edges)
    ]


def baselines(train: np.ndarray, held_out: np.ndarray, vocab: int) -> dict[str, float]:
    """Return the held-out loss of a unigram and of a bigram model, counted on the training text.

    Both are smoothed so that no probability is zero: the unigram adds one to every count, the
    bigram adds 100 times the unigram's probability.
    """
    single = np.bincount(train, minlength=vocab).astype(np.float64) + 1
    single /= single.sum()
    codes = train[:-1].astype(np.int64) * vocab + train[1:]
    pairs = np.bincount(codes, minlength=vocab * vocab).reshape(vocab, vocab).astype(np.float64)
    pairs += 100 * single
    pairs /= pairs.sum(1, keepdims=True)
    before, after = held_out[:-1].astype(np.int64), held_out[1:].astype(np.int64)
    return {
        "unigram": round(float(-np.log(single[after]).mean()), 4),
        "bigram": round(float(-np.log(pairs[before, after]).mean()), 4),
    }


@torch.inference_mode()
def answer(model: Any, tokenizer: Any, ids: Tensor, tokens: int) -> str:
    """Return the text that the model generates greedily after ids (1, L), with full attention."""
    out = model.generate(ids.to(model.device), max_new_tokens=tokens, do_sample=False)
    text: str = tokenizer.decode(out[0, ids.shape[1] :], skip_special_tokens=True)
    return text


def retrieval(
    model: LlamaForCausalLM,
    tokenizer: Any,
    haystack: str,
    families: Iterable[str] = ("passkey", "number", "kv", "lines", "niah_single_2"),
    count: int = 200,
    seed: int = 0,
) -> dict[str, float]:
    """Return the share of `count` needles per family that are found within the trained context."""
    shares = {}
    room = model.config.max_position_embeddings - 1  # one for <s>
    for family in families:
        length = room - family_of(family).max_new_tokens
        right = 0
        for index, depth in enumerate(even_depths(count)):
            sample = build(family, tokenizer, haystack, length, depth, seed + index)
            ids = tokenizer(sample.prompt, return_tensors="pt").input_ids
            right += sample.found(answer(model, tokenizer, ids, sample.max_new_tokens))
        shares[family] = round(right / count, 4)
    return shares


def chat_passkey(
    model: LlamaForCausalLM, tokenizer: Any, haystack: str, count: int = 200, seed: int = 0
) -> float:
    """Return the share of pass keys found in a chat, with text and question in one turn."""
    right = 0
    for index, depth in enumerate(even_depths(count)):
        sample = build("passkey", tokenizer, haystack, 450, depth, seed + index)
        turn = {"role": "user", "content": f"{sample.context}\n\nWhat is the pass key?"}
        prompt = tokenizer.apply_chat_template([turn], tokenize=False, add_generation_prompt=True)
        ids = tokenizer(prompt, add_special_tokens=False, return_tensors="pt").input_ids
        right += sample.found(answer(model, tokenizer, ids, 24))
    return round(right / count, 4)
