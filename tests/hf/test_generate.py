"""Everything `generate` can do, patched: short texts as before, long ones as fed by hand."""

from __future__ import annotations

import functools
import threading
from typing import Any

import pytest
import torch
from transformers import DynamicCache, TextIteratorStreamer, TextStreamer, pipeline

import inf_llm
from inf_llm.hf.cache import MemoryCache
from tests.hf.tiny import (
    LONG,
    SHORT,
    character_tokenizer,
    feed,
    generate,
    greedy_by_hand,
    left_padded,
    tiny,
    tiny_patched,
    tokens,
)

NEVER = 10**6  # an end of text that does not come; some releases cannot look prompts up without

MODES: dict[str, dict[str, Any]] = {
    "greedy": {},
    "sampling": {"do_sample": True, "top_p": 0.9},
    "several-samples": {"do_sample": True, "num_return_sequences": 3},
    "beams": {"num_beams": 3},
    "several-beams": {"num_beams": 3, "num_return_sequences": 2},
    "beam-sampling": {"num_beams": 2, "do_sample": True},
    "repetition-penalty": {"repetition_penalty": 1.3},
    "no-repeated-bigram": {"no_repeat_ngram_size": 2},
    "no-cache": {"use_cache": False},
    "chunked": {"prefill_chunk_size": 32},
    "chunked-beams": {"prefill_chunk_size": 32, "num_beams": 2},
}


@pytest.mark.parametrize("mode", MODES)
def test_short_texts_continue_as_before_in_every_mode(mode: str) -> None:
    model = tiny()
    ids, mask = left_padded(tokens(100), tokens(60, seed=1))
    torch.manual_seed(0)
    wanted = generate(model, ids, mask, **MODES[mode])
    inf_llm.patch(model, type="inf-llm", **SHORT)
    torch.manual_seed(0)
    assert torch.equal(generate(model, ids, mask, **MODES[mode]), wanted)


@pytest.mark.parametrize("mode", MODES)
def test_long_texts_continue_in_every_mode(mode: str) -> None:
    ids, mask = left_padded(tokens(160), tokens(100, seed=1))
    result = generate(tiny_patched(), ids, mask, **MODES[mode])
    assert result.shape[1] == 172
    assert torch.equal(result[0, :160], ids[0])


@pytest.mark.parametrize("kind", ["infinite-lm", "stream-lm", "inf-llm"])
def test_a_long_text_continues_as_when_fed_by_hand(kind: str) -> None:
    settings = LONG if kind == "inf-llm" else {"n_local": 32, "n_init": 4}
    model = tiny_patched(type=kind, **settings)
    ids = tokens(300)
    assert torch.equal(generate(model, ids), greedy_by_hand(model, ids))


def test_the_last_prompt_token_retrieves_alone_only_where_it_is_asked_for() -> None:
    ids = tokens(300)
    options = {"max_new_tokens": 1, "output_logits": True, "return_dict_in_generate": True}
    model = tiny_patched(split_last=True)
    cache = inf_llm.new_cache(model)
    feed(model, ids[:, :-1], cache)
    alone = feed(model, ids[:, -1:], cache)[:, -1]
    together = feed(model, ids, inf_llm.new_cache(model))[:, -1]
    assert not torch.allclose(alone, together, atol=1e-2)
    assert torch.allclose(generate(model, ids, **options).logits[0], alone, atol=1e-4)
    model = tiny_patched(split_last=False)
    assert torch.allclose(generate(model, ids, **options).logits[0], together, atol=1e-4)


@pytest.mark.parametrize(
    ("kind", "seed"),
    [("inf-llm", 0), ("inf-llm-not-split", 0), ("stream-lm", 4)],
    ids=lambda value: str(value),
)
@pytest.mark.parametrize("assistant", ["prompt-lookup", "unpatched", "window", "memory"])
def test_guessed_tokens_change_nothing_in_a_long_text(kind: str, seed: int, assistant: str) -> None:
    """With three blocks of thirty recalled, so every guess must choose its blocks by itself."""
    if kind == "stream-lm":
        model = tiny_patched(type=kind, n_local=32, n_init=4, seed=seed)
    else:
        model = tiny_patched(seed=seed, split_last=kind == "inf-llm")
    ids = tokens(300, seed=seed)
    wanted = generate(model, ids, max_new_tokens=30)
    helpers = {
        "unpatched": lambda: tiny(seed=seed),
        "window": lambda: tiny_patched(type="stream-lm", n_local=48, n_init=4, seed=seed),
        "memory": lambda: tiny_patched(seed=seed, topk=1, split_last=False),
    }
    options: dict[str, Any] = {"prompt_lookup_num_tokens": 4, "eos_token_id": NEVER}
    if assistant in helpers:
        options = {"assistant_model": helpers[assistant]()}
    calls: list[int] = []
    model.register_forward_hook(lambda *_: calls.append(1))
    got = generate(model, ids, max_new_tokens=30, **options)
    assert torch.equal(got[:, : wanted.shape[1]], wanted)  # some releases add one token too many
    assert 6 < len(calls) < 30, "some guesses must be right and some wrong, or this tests nothing"


@pytest.mark.parametrize("kind", ["infinite-lm", "stream-lm", "inf-llm"])
@pytest.mark.parametrize("padding", [0, 70])
def test_beams_score_their_sequences_as_when_each_is_fed_alone(kind: str, padding: int) -> None:
    settings = LONG if kind == "inf-llm" else {"n_local": 32, "n_init": 4}
    model = tiny_patched(type=kind, **settings)
    texts = tokens(250), tokens(250 - padding, seed=1)
    ids, mask = left_padded(*texts)
    found = generate(
        model,
        ids,
        mask,
        num_beams=4,
        num_return_sequences=4,
        length_penalty=0.0,
        output_scores=True,
        return_dict_in_generate=True,
    )
    caches = [inf_llm.new_cache(model) for _ in texts]
    for text, cache in zip(texts, caches, strict=True):
        feed(model, text[:, :-1], cache)
    for row, (sequence, score) in enumerate(
        zip(found.sequences, found.sequences_scores, strict=True)
    ):
        text, answer = texts[row // 4], sequence[None, ids.shape[1] :]
        cache = caches[row // 4].fork()
        whole = torch.cat((text[:, -1:], answer), 1)
        steps = [feed(model, whole[:, i : i + 1], cache) for i in range(answer.shape[1])]
        chosen = torch.cat(steps, 1).log_softmax(-1).gather(2, answer[:, :, None])
        assert float(chosen.sum()) == pytest.approx(float(score), abs=1e-3)


def test_beams_do_change_rows() -> None:
    """So that the test above tests something."""
    model, moved = tiny_patched(), []
    reorder = MemoryCache.reorder_cache

    def watch(self: MemoryCache, rows: Any) -> None:
        moved.append(rows.tolist() != list(range(len(rows))))
        reorder(self, rows)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(MemoryCache, "reorder_cache", watch)
        generate(model, tokens(250), num_beams=4)
    assert any(moved)


@pytest.mark.parametrize("lengths", [(260, 260, 260), (300, 220, 160), (300, 20, 1)])
@pytest.mark.parametrize("options", [{}, {"prefill_chunk_size": 64}], ids=["whole", "chunked"])
def test_rows_of_a_batch_do_not_see_each_other(
    lengths: tuple[int, ...], options: dict[str, Any]
) -> None:
    model = tiny_patched()
    texts = [tokens(length, seed=seed) for seed, length in enumerate(lengths)]
    if options:  # execution blocks start anew with every chunk, here after the same tokens
        texts = [text[:, -(text.shape[1] // 16 * 16 or 1) :] for text in texts]
        longest = max(text.shape[1] for text in texts)
        options = {"prefill_chunk_size": 64 if longest % 64 == 0 else 16}
    ids, mask = left_padded(*texts)
    together = generate(model, ids, mask, **options)
    for row, text in zip(together, texts, strict=True):
        assert torch.equal(row[ids.shape[1] :], generate(model, text)[0, text.shape[1] :])


@functools.cache
def _chunks_count_on() -> bool:
    """Whether transformers feeds chunks from where they stand: 5.23 does, 5.20 does not."""
    model, ids, cache = tiny(), tokens(60), DynamicCache()
    model(ids[:, :40], past_key_values=cache)
    starts: list[int] = []
    hook = model.model.register_forward_pre_hook(
        lambda module, args, kwargs: starts.append(int(kwargs["position_ids"][0, 0])),
        with_kwargs=True,
    )
    generate(model, ids, past_key_values=cache, prefill_chunk_size=16)
    hook.remove()
    return starts[0] == 40


@pytest.mark.parametrize("chunk", [None, 16, 32, 48])
@pytest.mark.parametrize("padding", [0, 32])
def test_chunks_and_turns_give_what_one_row_fed_by_hand_gives(
    chunk: int | None, padding: int
) -> None:
    if chunk is not None and not _chunks_count_on():
        pytest.skip("this transformers feeds a text in chunks from its start, whatever was read")
    model = tiny_patched()
    texts = [tokens(160), tokens(160 - padding, seed=1)]
    ids, mask = left_padded(*texts)
    options = {} if chunk is None else {"prefill_chunk_size": chunk}
    first = generate(model, ids, mask, return_dict_in_generate=True, **options)
    new = tokens(64, rows=2, seed=2)
    longer = torch.cat((first.sequences, new), 1)
    longer_mask = torch.cat((mask, mask.new_ones(2, longer.shape[1] - mask.shape[1])), 1)
    second = generate(model, longer, longer_mask, past_key_values=first.past_key_values, **options)
    for row, text in enumerate(texts):
        cache = inf_llm.new_cache(model)
        one = greedy_by_hand(model, text, cache=cache)
        two = greedy_by_hand(model, torch.cat((one, new[row : row + 1]), 1), cache=cache)
        assert torch.equal(second[row, ids.shape[1] - text.shape[1] :], two[0])


def test_a_cache_is_returned_and_goes_on() -> None:
    model, ids = tiny_patched(), tokens(200)
    result = generate(model, ids, return_dict_in_generate=True, output_scores=True)
    assert isinstance(result.past_key_values, MemoryCache)
    assert result.past_key_values.get_seq_length() == 200 + 12 - 1
    assert len(result.scores) == 12
    cache = inf_llm.new_cache(model)
    assert torch.equal(generate(model, ids, past_key_values=cache), result.sequences)
    assert cache.get_seq_length() == 200 + 12 - 1


def test_samples_of_one_prompt_share_its_blocks_when_its_memory_is_repeated() -> None:
    model, ids = tiny_patched(), tokens(200)
    cache = inf_llm.new_cache(model)
    feed(model, ids[:, :-1], cache)
    before = cache.stats().total.host_bytes
    cache.batch_repeat_interleave(3)
    assert cache.stats().total.host_bytes == before
    result = generate(model, ids.repeat(3, 1), past_key_values=cache)
    assert torch.equal(result, greedy_by_hand(model, ids).repeat(3, 1))
    assert cache.stats().total.host_bytes < 2 * before


def test_streamers_see_every_token(capsys: pytest.CaptureFixture[str]) -> None:
    model, tokenizer, ids = tiny_patched(), character_tokenizer(), tokens(200)
    wanted = tokenizer.decode(generate(model, ids)[0, 200:])
    generate(model, ids, streamer=TextStreamer(tokenizer, skip_prompt=True))
    assert capsys.readouterr().out.rstrip("\n") == wanted
    streamer = TextIteratorStreamer(tokenizer, skip_prompt=True)
    worker = threading.Thread(target=generate, args=(model, ids), kwargs={"streamer": streamer})
    worker.start()
    assert "".join(streamer) == wanted
    worker.join()


@pytest.mark.parametrize("batch", [1, 3])
def test_a_pipeline_answers_as_before_and_batches_like_single_texts(batch: int) -> None:
    model, tokenizer = tiny(), character_tokenizer()
    texts = ["The quick brown fox " * 3, "jumps over " * 2, "a lazy dog. "]
    options = {"max_new_tokens": 12, "do_sample": False, "return_full_text": False}

    def ask(texts: list[str], batch: int) -> list[str]:
        pipe = pipeline("text-generation", model=model, tokenizer=tokenizer)
        answers = pipe(texts, batch_size=batch, **options)
        return [answer[0]["generated_text"] for answer in answers]

    wanted = ask(texts, batch)
    inf_llm.patch(model, type="inf-llm", **SHORT)
    assert ask(texts, batch) == wanted
    inf_llm.unpatch(model)
    inf_llm.patch(model, type="inf-llm", **LONG)
    long = [text * 5 for text in texts]
    assert ask(long, batch) == ask(long, 1)
