"""A tiny model, a tokenizer of characters, and decoding by hand, which the tests compare with."""

from __future__ import annotations

from typing import Any

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from torch import Tensor
from transformers import PreTrainedTokenizerFast

import inf_llm
from inf_llm.hf.cache import MemoryCache
from tests.hf.families import build
from tests.hf.zoo import WORKING

SHORT = {"n_local": 256, "n_init": 8, "exc_block_size": 32, "block_size": 16, "topk": 3}
SHORT |= {"repr_topk": 2, "max_cached_block": 4}
LONG = {"n_local": 32, "n_init": 4, "exc_block_size": 16, "block_size": 8, "topk": 3}
LONG |= {"repr_topk": 2, "max_cached_block": 6}


def tiny(family: str = "llama", seed: int = 0) -> Any:
    """A sharp random model."""
    return build(WORKING[family], seed)


def tiny_patched(family: str = "llama", seed: int = 0, **settings: Any) -> Any:
    """The same, patched; with a window of 32 tokens and a memory unless told otherwise."""
    if "type" not in settings:
        settings = {"type": "inf-llm", **LONG, **settings}
    return inf_llm.patch(tiny(family, seed), **settings)


def tokens(count: int, rows: int = 1, seed: int = 0) -> Tensor:
    """Token numbers (rows, count)."""
    return torch.randint(3, 98, (rows, count), generator=torch.Generator().manual_seed(seed))


def left_padded(*texts: Tensor) -> tuple[Tensor, Tensor]:
    """Texts (1, n) as one batch, and its attention mask."""
    longest = max(text.shape[1] for text in texts)
    pads = [longest - text.shape[1] for text in texts]
    ids = [torch.nn.functional.pad(text, (pad, 0)) for text, pad in zip(texts, pads, strict=True)]
    mask = [torch.arange(longest)[None] >= pad for pad in pads]
    return torch.cat(ids), torch.cat(mask).long()


def generate(model: Any, ids: Tensor, mask: Tensor | None = None, **options: Any) -> Any:
    """`model.generate`, twelve tokens and greedy unless told otherwise."""
    mask = torch.ones_like(ids) if mask is None else mask
    settings = {"max_new_tokens": 12, "do_sample": False, **options}
    return model.generate(ids, attention_mask=mask, **settings)


@torch.no_grad()
def feed(model: Any, ids: Tensor, cache: MemoryCache, mask: Tensor | None = None) -> Tensor:
    """Logits of tokens fed in one call."""
    return model(ids, attention_mask=mask, past_key_values=cache).logits


def read(model: Any, count: int, cache: MemoryCache | None = None, seed: int = 0) -> MemoryCache:
    """A cache that has seen random tokens, an execution block in a call."""
    cache = inf_llm.new_cache(model) if cache is None else cache
    for part in tokens(count, seed=seed).split(LONG["exc_block_size"], 1):
        feed(model, part, cache)
    return cache


def greedy_by_hand(
    model: Any, ids: Tensor, count: int = 12, cache: MemoryCache | None = None
) -> Tensor:
    """What `generate` must give: the text but its last token, that token, then one by one."""
    cache = inf_llm.new_cache(model) if cache is None else cache
    seen = cache.get_seq_length()
    if ids.shape[1] - seen > 1:
        feed(model, ids[:, seen:-1], cache)
    for _ in range(count):
        newest = feed(model, ids[:, -1:], cache)[:, -1:].argmax(-1)
        ids = torch.cat((ids, newest), 1)
    return ids


def character_tokenizer() -> PreTrainedTokenizerFast:
    """One token per printable ASCII character; pads on the left."""
    words = {"<pad>": 0, "<s>": 1, "<unk>": 2} | {chr(32 + i): i + 3 for i in range(95)}
    inner = Tokenizer(models.WordLevel(words, unk_token="<unk>"))
    inner.pre_tokenizer = pre_tokenizers.Split("", "isolated")
    inner.decoder = decoders.Fuse()
    return PreTrainedTokenizerFast(
        tokenizer_object=inner,
        pad_token="<pad>",
        bos_token="<s>",
        unk_token="<unk>",
        padding_side="left",
    )
