"""A session answers as `generate` on the whole prompt does, however the text was read."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from transformers import TextStreamer

from inf_llm.errors import TextError
from inf_llm.generation import Session, encode

TEXT = "The quick brown fox jumps over the lazy dog. " * 12  # 540 bytes, 540 tokens
NEW = 8


def _generated(model: Any, ids: list[int], new: int = NEW) -> tuple[int, ...]:
    """What the model says to a prompt given at once."""
    prompt = torch.tensor([ids])
    out = model.generate(
        prompt, max_new_tokens=new, do_sample=False, attention_mask=torch.ones_like(prompt)
    )
    return tuple(out[0, len(ids) :].tolist())


@pytest.mark.parametrize("chunk_size", [32, 100, 4096])
def test_equals_generate_at_once(model: Any, tokenizer: Any, chunk_size: int) -> None:
    session = Session(model, tokenizer, chunk_size)
    session.read(TEXT)
    answer = session.ask("And then?", max_new_tokens=NEW)
    ids = encode(tokenizer, TEXT) + encode(tokenizer, "And then?", add_special_tokens=False)
    assert answer.prompt_tokens == len(ids)
    assert answer.token_ids == _generated(model, ids)
    assert answer.text == tokenizer.decode(answer.token_ids, skip_special_tokens=True)


def test_reading_in_pieces_changes_nothing(model: Any, tokenizer: Any) -> None:
    ids = encode(tokenizer, TEXT)
    whole, pieces = Session(model, tokenizer), Session(model, tokenizer)
    whole.read(ids)
    for start in range(0, len(ids), 77):
        pieces.read(ids[start : start + 77])
    assert pieces.ask(max_new_tokens=NEW).token_ids == whole.ask(max_new_tokens=NEW).token_ids


def test_fork_leaves_the_session_as_it_was(model: Any, tokenizer: Any) -> None:
    session = Session(model, tokenizer, 64)
    session.read(TEXT)
    fed = session.fed
    first = session.fork().ask("Who?", max_new_tokens=NEW)
    session.fork().ask("Something else entirely, and longer?", max_new_tokens=NEW)
    assert session.fed == fed
    assert session.fork().ask("Who?", max_new_tokens=NEW).token_ids == first.token_ids


def test_session_goes_on_after_an_answer(model: Any, tokenizer: Any) -> None:
    session = Session(model, tokenizer)
    answer = session.ask(TEXT, max_new_tokens=NEW)
    assert session.ids[-NEW:] == list(answer.token_ids)
    again = session.ask(" Why?", max_new_tokens=NEW)
    assert again.prompt_tokens == answer.prompt_tokens + NEW + len(" Why?")
    assert len(again.token_ids) == NEW


def test_short_text_equals_the_model_as_it_is(bare: Any, tokenizer: Any) -> None:
    """Not patched at all, a session is the model's own generation."""
    ids = encode(tokenizer, TEXT[:50])
    assert Session(bare, tokenizer).ask(ids, max_new_tokens=NEW).token_ids == _generated(bare, ids)


def test_progress_counts_up_to_all(memory_model: Any, tokenizer: Any) -> None:
    seen: list[tuple[int, int]] = []
    Session(memory_model, tokenizer, 128).read(TEXT, lambda *at: seen.append(at))
    total = len(TEXT)
    assert [done for done, _ in seen] == [128, 256, 384, 512, total]
    assert {in_all for _, in_all in seen} == {total}


def test_memory_on_the_device_does_not_grow(memory_model: Any, tokenizer: Any) -> None:
    session = Session(memory_model, tokenizer, 128)
    session.read(TEXT)
    before = session.stats()
    session.read(TEXT * 3)
    after = session.stats()
    assert after.tokens > 3 * before.tokens
    assert after.blocks > 3 * before.blocks
    assert after.device_bytes == before.device_bytes


def test_stats_of_a_model_as_it_is(bare: Any, tokenizer: Any) -> None:
    session = Session(bare, tokenizer)
    session.read(TEXT)
    numbers = 2 * 2 * 2 * 16 * session.fed  # layers, key and value, heads, head size
    assert session.stats().device_bytes == 4 * numbers


def test_stop_text(memory_model: Any, tokenizer: Any) -> None:
    free = Session(memory_model, tokenizer).ask(TEXT, max_new_tokens=40)
    mark = next(letter for letter in free.text[5:] if letter.isascii())
    answer = Session(memory_model, tokenizer).ask(TEXT, max_new_tokens=40, stop=["no such", mark])
    assert answer.text == free.text[: free.text.index(mark)]
    assert len(answer.token_ids) < 40


def test_streamer_gets_only_the_answer(
    memory_model: Any, tokenizer: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    streamer = TextStreamer(tokenizer)
    answer = Session(memory_model, tokenizer).ask(TEXT, max_new_tokens=NEW, streamer=streamer)
    assert capsys.readouterr().out.strip() == tokenizer.decode(answer.token_ids).strip()


def test_sampling_is_passed_on(memory_model: Any, tokenizer: Any) -> None:
    def sampled(seed: int) -> tuple[int, ...]:
        torch.manual_seed(seed)
        session = Session(memory_model, tokenizer)
        return session.ask(TEXT, max_new_tokens=16, temperature=5.0).token_ids

    assert sampled(1) == sampled(1)
    assert sampled(1) != sampled(2)


def test_nothing_to_answer(memory_model: Any, tokenizer: Any) -> None:
    with pytest.raises(TextError, match="prompt is empty"):
        Session(memory_model, tokenizer).ask("")
