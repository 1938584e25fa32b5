"""A session answers as `generate` on the whole prompt does, however the text was read."""

from __future__ import annotations

import copy
import io
import pickle
from multiprocessing.reduction import ForkingPickler
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import TextStreamer

import inf_llm
from inf_llm.errors import SavedMemoryError, TextError, UnsupportedInputError
from inf_llm.generation import Session, encode
from tests.checkpoints import SETTINGS
from tests.hf.tiny import character_tokenizer

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


class BreakError(Exception):
    pass


def _breaks(*args: Any, **kwargs: Any) -> None:
    raise BreakError


def _answer(session: Session) -> tuple[int, ...]:
    return session.ask("And then?", max_new_tokens=NEW).token_ids


@pytest.mark.parametrize("before", ["generate", "the layers"])
def test_what_fails_before_a_layer_is_fed_costs_nothing(
    model: Any, tokenizer: Any, before: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    wanted = _answer(_read(Session(model, tokenizer, 64)))
    session = _read(Session(model, tokenizer, 64))
    cache, state = session.cache, (session.fed, list(session.ids), session.stats())
    with monkeypatch.context() as patching:
        if before == "generate":
            patching.setattr(model, "generate", _breaks)
        else:
            patching.setattr(model.get_input_embeddings(), "forward", _breaks)
        with pytest.raises(BreakError):
            session.ask(max_new_tokens=NEW)
    assert session.cache is cache
    assert (session.fed, session.ids, session.stats()) == state
    assert _answer(session) == wanted


@pytest.mark.parametrize("where", ["in the first layer", "in the last layer", "between tokens"])
def test_what_breaks_a_feed_off_is_read_again(
    model: Any, tokenizer: Any, where: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    wanted = _answer(_read(Session(model, tokenizer, 64)))
    session = _read(Session(model, tokenizer, 64))
    ids = list(session.ids)
    with monkeypatch.context() as patching:
        if where == "between tokens":
            patching.setattr(model.lm_head, "forward", _breaks)
        else:
            layer = model.model.layers[0 if where == "in the first layer" else -1]
            patching.setattr(layer.self_attn.o_proj, "forward", _breaks)
        with pytest.raises(BreakError):
            _answer(session)
    assert session.fed == 0
    assert session.ids == ids, "a question that failed was not asked"
    assert _answer(session) == wanted


def test_what_breaks_off_within_a_layer_is_read_again(
    memory_model: Any, tokenizer: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its own counts do not tell yet that it has changed."""
    wanted = _answer(_read(Session(memory_model, tokenizer)))
    session = _read(Session(memory_model, tokenizer))
    with monkeypatch.context() as patching:
        patching.setattr("inf_llm.memory.block_memory.BlockMemory.settle", _breaks)
        with pytest.raises(BreakError):
            _answer(session)
    assert session.fed == 0
    assert _answer(session) == wanted


def _read(session: Session) -> Session:
    session.read(TEXT)
    return session


@pytest.mark.parametrize("copied", [copy.copy, copy.deepcopy])
def test_a_copy_is_a_fork(memory_model: Any, tokenizer: Any, copied: Any) -> None:
    session = _read(Session(memory_model, tokenizer))
    twin = copied(session)
    assert twin.model is session.model
    assert twin.cache is not session.cache
    first = _answer(twin)
    assert _answer(session) == first
    assert copied({"one": [session]})


@pytest.mark.parametrize("patched", [True, False], ids=["inf-llm", "not patched"])
def test_a_session_is_not_written_anywhere(
    memory_model: Any, tokenizer: Any, patched: bool
) -> None:
    if not patched:
        inf_llm.unpatch(memory_model)
    session = _read(Session(memory_model, tokenizer))
    try:
        for write in (pickle.dumps, lambda it: torch.save(it, io.BytesIO()), ForkingPickler.dumps):
            with pytest.raises(UnsupportedInputError, match="a Session cannot be pickled, saved"):
                write({"what has": [session]})
    finally:
        if not patched:
            inf_llm.patch(memory_model, type="inf-llm", **SETTINGS["inf-llm"])


@pytest.mark.parametrize("stop", ["no such", None, (), [], {"no such"}], ids=repr)
def test_stops_that_do_not_come(memory_model: Any, tokenizer: Any, stop: Any) -> None:
    free = Session(memory_model, tokenizer).ask(TEXT, max_new_tokens=NEW)
    answer = Session(memory_model, tokenizer).ask(TEXT, max_new_tokens=NEW, stop=stop)
    assert answer.token_ids == free.token_ids


def test_one_stop_text_is_one_text(memory_model: Any, tokenizer: Any) -> None:
    free = Session(memory_model, tokenizer).ask(TEXT, max_new_tokens=40)
    mark = free.text[4:8]
    assert len(mark) == 4
    answer = Session(memory_model, tokenizer).ask(TEXT, max_new_tokens=40, stop=mark)
    assert answer.text == free.text[: free.text.index(mark)]


def test_a_stop_text_is_looked_for_in_the_answer_alone(memory_model: Any, tokenizer: Any) -> None:
    """Half of it at the end of the prompt does not count."""
    free = Session(memory_model, tokenizer).ask(TEXT, max_new_tokens=NEW)
    half = TEXT[-2:] + tokenizer.decode(free.token_ids[:1])
    answer = Session(memory_model, tokenizer).ask(TEXT, max_new_tokens=NEW, stop=half)
    assert answer.token_ids == free.token_ids


def test_a_stop_text_that_no_token_is_part_of(bare: Any) -> None:
    tokenizer = character_tokenizer()
    free = Session(bare, tokenizer).ask("The fox", max_new_tokens=NEW)
    answer = Session(bare, tokenizer).ask("The fox", max_new_tokens=NEW, stop="☃")
    assert answer.token_ids == free.token_ids


def test_a_special_token_is_a_stop_text_too(memory_model: Any, tokenizer: Any) -> None:
    """As people give the mark that ends a turn."""
    special = tokenizer.eos_token
    free = Session(memory_model, tokenizer).ask(TEXT, max_new_tokens=NEW)
    forced = lambda ids, scores: _only(tokenizer.eos_token_id, scores)  # noqa: E731
    answer = Session(memory_model, tokenizer).ask(
        TEXT, max_new_tokens=NEW, stop=special, logits_processor=forced, eos_token_id=None
    )
    assert answer.token_ids == (tokenizer.eos_token_id,)
    assert answer.text == ""
    assert len(free.token_ids) > 1


def _only(token: int, scores: torch.Tensor) -> torch.Tensor:
    wanted = torch.full_like(scores, -100.0)
    wanted[:, token] = 0
    return wanted


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


def test_a_saved_session_goes_on(model: Any, tokenizer: Any, tmp_path: Path) -> None:
    session = Session(model, tokenizer)
    session.read(TEXT)
    session.save(tmp_path)
    loaded = Session.load(tmp_path, model, tokenizer)
    assert loaded.ids == session.ids
    answers = [each.ask("And then?", max_new_tokens=NEW).token_ids for each in (session, loaded)]
    assert answers[0] == answers[1]


def test_another_tokenizer_is_refused(model: Any, tokenizer: Any, tmp_path: Path) -> None:
    Session(model, tokenizer).save(tmp_path)
    with pytest.raises(SavedMemoryError, match="tokenizer is "):
        Session.load(tmp_path, model, character_tokenizer())


def test_a_cache_alone_is_no_session(model: Any, tokenizer: Any, tmp_path: Path) -> None:
    inf_llm.save_memory(Session(model, tokenizer).cache, model, tmp_path)
    with pytest.raises(SavedMemoryError, match="without its token ids"):
        Session.load(tmp_path, model, tokenizer)
