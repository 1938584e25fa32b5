"""Perplexity equals what one forward call over the whole text gives, wherever that is possible."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from inf_llm.errors import TextError
from inf_llm.generation import measure_perplexity, perplexity, prefill

TOKENS = 700


@pytest.fixture(scope="module")
def ids() -> list[int]:
    return torch.randint(2, 250, (TOKENS,), generator=torch.Generator().manual_seed(0)).tolist()


def _at_once(model: Any, ids: list[int]) -> torch.Tensor:
    with torch.no_grad():
        logits = model(torch.tensor([ids[:-1]])).logits[0].double()
    return -logits.log_softmax(-1)[torch.arange(len(ids) - 1), torch.tensor(ids[1:])]


@pytest.mark.parametrize("chunk_size", [64, 160, 8192])
def test_equals_one_forward_call(model: Any, ids: list[int], chunk_size: int) -> None:
    found = measure_perplexity(model, ids, chunk_size)
    nll = _at_once(model, ids)  # nll[i] is of token i + 1
    spans = [(bucket.start, bucket.end) for bucket in found.buckets]
    assert spans == [(0, 256), (256, 512), (512, TOKENS)]
    for bucket in found.buckets:
        wanted = nll[max(bucket.start - 1, 0) : bucket.end - 1]
        assert bucket.tokens == len(wanted)
        assert bucket.nll == pytest.approx(float(wanted.mean()), abs=1e-4)
    assert found.whole.tokens == TOKENS - 1
    assert found.whole.nll == pytest.approx(float(nll.mean()), abs=1e-4)
    assert found.ratio == pytest.approx(found.buckets[-1].nll / found.buckets[-1].fresh)


def test_fresh_contexts_begin_anew_and_count_each_token_once(bare: Any, ids: list[int]) -> None:
    """Of every 512 tokens the latter 256 count, but for the first context, which counts whole."""
    wanted = torch.cat(
        [
            _at_once(bare, ids[:512]),
            _at_once(bare, ids[256:TOKENS])[255:],
        ]
    )
    found = measure_perplexity(bare, ids)
    for bucket in found.buckets:
        own = wanted[max(bucket.start - 1, 0) : bucket.end - 1]
        assert bucket.fresh == pytest.approx(float(own.mean()), abs=1e-4)


def test_a_text_within_the_fresh_context_has_ratio_one(bare: Any, ids: list[int]) -> None:
    assert measure_perplexity(bare, ids[:400]).ratio == pytest.approx(1.0, abs=1e-6)


def test_a_large_vocabulary_is_fed_in_smaller_pieces(
    memory_model: Any, ids: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = measure_perplexity(memory_model, ids)
    monkeypatch.setattr(prefill, "LOGITS_BYTES", 100 * 4 * 258)
    monkeypatch.setattr(perplexity, "_fresh_nats", lambda model, ids: torch.ones(len(ids) - 1))
    sizes: list[int] = []
    hook = memory_model.register_forward_hook(lambda *args: sizes.append(args[-1].logits.shape[1]))
    try:
        pieces = measure_perplexity(memory_model, ids)
    finally:
        hook.remove()
    assert max(sizes) == 96  # whole execution blocks of 32 below 100 rows
    assert pieces.whole.nll == pytest.approx(whole.whole.nll, abs=1e-5)


def test_progress(bare: Any, ids: list[int]) -> None:
    seen: list[tuple[int, int]] = []
    measure_perplexity(bare, ids, 256, lambda *at: seen.append(at))
    assert seen == [(257, TOKENS), (513, TOKENS), (TOKENS, TOKENS)]


@pytest.mark.parametrize("tokens", [[], [5]])
def test_too_short(bare: Any, tokens: list[int]) -> None:
    with pytest.raises(TextError, match="fewer than two tokens"):
        measure_perplexity(bare, tokens)


def test_bucket_edges() -> None:
    starts = [perplexity.bucket_start(index) for index in range(6)]
    assert starts == [0, 256, 512, 1024, 2048, 4096]
