"""A conversation answers as if every prompt were read afresh, and reads only what is new."""

from __future__ import annotations

import copy
import io
import pickle
from collections.abc import Callable
from typing import Any

import pytest
import torch

from inf_llm.chat.session import ChatSession
from inf_llm.chat.turns import ASSISTANT, USER, Document, Transcript, Turn
from inf_llm.errors import (
    CropError,
    InfLLMError,
    TextError,
    UnsupportedInputError,
)
from inf_llm.generation import Session
from tests.chat.afresh import BOOK, NEW, check
from tests.checkpoints import SETTINGS

BLOCK = SETTINGS["inf-llm"]["exc_block_size"]


def test_every_turn_equals_a_fresh_read(model: Any, tokenizer: Any) -> None:
    chat = ChatSession(model, tokenizer, chunk_size=128)
    added = chat.add_document(BOOK, "book")
    assert added.how == "fresh"
    for text in ("Who?", "And why did the fox do that?", "Where, then?"):
        reuse = check(chat, model, tokenizer, text)
        assert reuse.how == "continued"
        assert reuse.fed < 2 * BLOCK + NEW + len(text) + len("<user></s><assistant></s>")
    assert len(chat.turns) == 6


def test_a_memory_of_other_tokens_would_answer_otherwise(chat: ChatSession) -> None:
    """The control: the comparisons above can fail."""
    other = chat.fork()
    chat.add_document(BOOK)
    other.add_document(BOOK.replace("fox", "cat"))
    answers = [each.ask("Who?", max_new_tokens=40).text for each in (chat, other)]
    assert answers[0] != answers[1]


def test_an_edited_turn_goes_back(memory_model: Any, tokenizer: Any, chat: ChatSession) -> None:
    chat.add_document(BOOK)
    chat.ask("Who?", max_new_tokens=NEW)
    chat.ask("Why? " * 30, max_new_tokens=NEW)
    chat.edit(0, "Which animal?")
    reuse = check(chat, memory_model, tokenizer, "And?")
    assert reuse.how == "went back"
    assert reuse.changed_at is not None
    assert len(BOOK) // BLOCK * BLOCK <= reuse.reused <= reuse.changed_at
    assert reuse.changed_at < len(BOOK) + 20


def test_a_changed_beginning_is_rebuilt(
    memory_model: Any, tokenizer: Any, chat: ChatSession
) -> None:
    chat.ask("Once upon a time. " + BOOK, max_new_tokens=NEW)
    chat.edit(0, "Twice upon a time. " + BOOK)
    reuse = check(chat, memory_model, tokenizer, "And?")
    assert (reuse.how, reuse.reused) == ("rebuilt", 0)
    assert "rebuilt" in str(reuse)


def test_thinking_that_the_template_strips(model: Any, tokenizer: Any) -> None:
    chat = ChatSession(model, tokenizer)
    chat.add_document(BOOK)
    chat.ask("Who?", max_new_tokens=NEW)
    chat.edit(1, "Let me see. THOUGHT A fox.")
    reuse = check(chat, model, tokenizer, "And?")
    assert reuse.reused >= len(BOOK) // BLOCK * BLOCK
    assert "THOUGHT" not in chat.layout.prompt([turn.message() for turn in chat.turns])


def test_forks_share_a_document(memory_model: Any, tokenizer: Any, chat: ChatSession) -> None:
    chat.add_document(BOOK)
    alone = chat.held().bytes
    branches = [chat.fork() for _ in range(3)]
    for branch, text in zip(branches, ("Who?", "Where?", "When?"), strict=True):
        reuse = check(branch, memory_model, tokenizer, text)
        assert reuse.fed < 2 * BLOCK
    assert chat.turns == ()
    assert chat.held().bytes < 1.5 * alone  # blocks of the branches beside the common ones
    shared = {id(kept.session) for kept in chat._memory._kept}
    assert all(shared & {id(kept.session) for kept in branch._memory._kept} for branch in branches)


def test_regenerate_reads_next_to_nothing(chat: ChatSession) -> None:
    chat.add_document(BOOK)
    first = chat.ask("Who?", max_new_tokens=NEW)
    again = chat.regenerate(max_new_tokens=NEW)
    assert again.text == first.text
    assert again.reuse.fed <= BLOCK
    assert len(chat.turns) == 2
    chat.add_document("More.", "more")
    chat.regenerate(max_new_tokens=NEW)
    assert [document.name for document in chat.documents] == ["more"]


def test_remove_last_takes_back_one_step(chat: ChatSession) -> None:
    chat.add_document(BOOK, "book")
    chat.ask("Who?", max_new_tokens=NEW)
    chat.ask("Why?", max_new_tokens=NEW)
    chat.remove_last()
    assert chat.turns[0].content == "Who?"
    assert len(chat.turns) == 2
    chat.remove_last()
    assert chat.turns == ()
    assert [document.name for document in chat.documents] == ["book"]
    assert chat.ask("Where?", max_new_tokens=NEW).reuse.reused >= len(BOOK) // BLOCK * BLOCK
    chat.remove_last()
    chat.remove_last()
    assert chat.documents == ()
    with pytest.raises(TextError, match="nothing to remove"):
        chat.remove_last()
    with pytest.raises(TextError, match="no answer"):
        chat.regenerate()


def test_reset_forgets(chat: ChatSession) -> None:
    chat.add_document(BOOK)
    chat.ask("Who?", max_new_tokens=NEW)
    assert chat.held().stats.blocks
    chat.reset()
    assert chat.turns == chat.documents == ()
    assert chat.held().points == ()
    assert chat.held().bytes == 0


def test_held_says_what_is_kept(chat: ChatSession) -> None:
    chat.add_document(BOOK)
    chat.ask("Who?", max_new_tokens=NEW)
    held = chat.held()
    assert held.tokens > len(BOOK)
    assert all(point % BLOCK == 0 for point in held.points)
    assert held.stats.hits + held.stats.misses > 0
    assert held.bytes > held.stats.device_bytes


def _interrupt_after(calls: int) -> Callable[..., None]:
    left = [calls]

    def raise_in_time(*args: Any) -> None:
        left[0] -= 1
        if left[0] < 0:
            raise KeyboardInterrupt

    return raise_in_time


def test_an_interrupted_answer_leaves_no_trace(model: Any, tokenizer: Any) -> None:
    chat = ChatSession(model, tokenizer)
    chat.add_document(BOOK)
    before = chat.transcript
    with pytest.raises(KeyboardInterrupt):
        chat.ask("Tell me all!", max_new_tokens=60, on_text=_interrupt_after(3))
    assert chat.transcript == before
    check(chat, model, tokenizer, "Who?")


def test_an_interrupted_reading_is_continued(memory_model: Any, tokenizer: Any) -> None:
    chat = ChatSession(memory_model, tokenizer, chunk_size=128)
    with pytest.raises(KeyboardInterrupt):
        chat.add_document(BOOK, on_progress=_interrupt_after(2))
    assert chat.documents == ()
    assert chat.add_document(BOOK).reused == 3 * 128
    check(chat, memory_model, tokenizer, "Who?")


def test_a_feed_that_breaks_off_is_read_again(
    memory_model: Any, tokenizer: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Half of the layers have seen a chunk when the interrupt comes."""
    chat = ChatSession(memory_model, tokenizer, chunk_size=128)
    chat.add_document(BOOK)
    last = memory_model.model.layers[-1].mlp
    with monkeypatch.context() as patching:
        patching.setattr(last, "forward", _interrupt_after(0))
        with pytest.raises(KeyboardInterrupt):
            chat.add_document(BOOK, "again")
    assert len(chat.documents) == 1
    chat.add_document(BOOK, "again")
    check(chat, memory_model, tokenizer, "Who?")


def test_should_stop_keeps_what_was_said(chat: ChatSession) -> None:
    pieces: list[str] = []
    reply = chat.ask(
        "Tell!", max_new_tokens=60, on_text=pieces.append, should_stop=lambda: len(pieces) > 4
    )
    assert reply.stopped
    assert 4 < reply.new_tokens < 60
    assert reply.text == "".join(pieces).strip() == chat.turns[-1].content


def test_longest_prompt(memory_model: Any, tokenizer: Any) -> None:
    chat = ChatSession(memory_model, tokenizer, max_len=200)
    with pytest.raises(TextError, match="max_len leaves room for 199"):
        chat.add_document(BOOK)
    with pytest.raises(TextError, match="max_len leaves room for 194"):
        chat.ask(BOOK, max_new_tokens=NEW)
    assert chat.transcript == Transcript()
    cut = ChatSession(memory_model, tokenizer, max_len=200, truncation="middle")
    cut.add_document(BOOK)
    assert cut.ask("Who?", max_new_tokens=NEW).reuse.prompt == 194


@pytest.mark.parametrize("text", ["", "  \n", "half \ud800"])
def test_what_is_no_question(chat: ChatSession, text: str) -> None:
    with pytest.raises(TextError):
        chat.ask(text)
    with pytest.raises(TextError):
        chat.add_document(text, "this one")
    assert chat.transcript == Transcript()


REFUSED: dict[str, tuple[dict[str, Any], str]] = {
    "bytes": ({"text": b"Who?"}, "the question must be text, not bytes; decode it first"),
    "ids": ({"text": [5, 6]}, "the question must be text, not list"),
    "None": ({"text": None}, "the question must be text, not NoneType"),
    "a misspelt name": ({"temprature": 0.5}, "temprature is not .*'temperature'"),
    "no tokens": ({"max_new_tokens": 0}, "max_new_tokens = 0 is too small"),
    "beams": ({"num_beams": 2}, "num_beams = 2 does not suit"),
    "below zero": ({"temperature": -1}, "temperature = -1 is out of range"),
    "what generate refuses": ({"exponential_decay_length_penalty": 5}, "generate refuses expo"),
    "its own": ({"streamer": print}, "streamer is the conversation's own"),
    "nothing but space": ({"text": " \n"}, "the question is empty"),
    "a zero byte": ({"text": "Who\0?"}, "the question is not text: character 3 is a zero byte"),
    "an empty stop": ({"stop": [""]}, "stop has ''"),
    "no function": ({"on_text": "print"}, "on_text = 'print' is not a function"),
    "no progress": ({"on_progress": 1}, "on_progress = 1 is not a function"),
    "no answer": ({"should_stop": True}, "should_stop = true is not a function"),
}


@pytest.mark.parametrize("what", REFUSED)
def test_what_is_refused_is_refused_before_anything_is_read(
    memory_model: Any, chat: ChatSession, what: str
) -> None:
    options, message = REFUSED[what]
    chat.add_document(BOOK)
    before = chat.transcript, chat.held()
    calls: list[int] = []
    hook = memory_model.register_forward_pre_hook(lambda *_: calls.append(1))
    try:
        with pytest.raises(InfLLMError, match=message):
            chat.ask(**{"text": "Who? " * 40, "max_new_tokens": NEW, **options})
    finally:
        hook.remove()
    assert not calls
    assert (chat.transcript, chat.held()) == before


@pytest.mark.parametrize(
    ("made", "message"),
    [
        (lambda model, tokenizer: ChatSession(None, tokenizer), "not NoneType and"),
        (lambda model, tokenizer: ChatSession(tokenizer, model), "in this order"),
        (lambda model, tokenizer: ChatSession(model, tokenizer, chunk_size=0), "chunk_size = 0"),
        (lambda model, tokenizer: ChatSession(model, tokenizer, max_len="9"), "max_len = '9'"),
        (lambda model, tokenizer: ChatSession(model, tokenizer, truncation="sufix"), "'sufix' is"),
        (lambda model, tokenizer: ChatSession(model, tokenizer, points=1.5), "points = 1.5"),
        (lambda model, tokenizer: ChatSession(model, tokenizer).add_document(b"x"), "not bytes"),
        (lambda model, tokenizer: ChatSession(model, tokenizer).add_document("x", 5), "the name"),
        (lambda model, tokenizer: ChatSession(model, tokenizer).add_document("a\0b"), "zero byte"),
        (lambda model, tokenizer: ChatSession(model, tokenizer, 3), "conv_type = 3 is not text"),
    ],
)
def test_other_arguments_of_the_wrong_kind(
    memory_model: Any, tokenizer: Any, made: Callable[[Any, Any], Any], message: str
) -> None:
    with pytest.raises(InfLLMError, match=message):
        made(memory_model, tokenizer)


def test_a_stop_text_ends_an_answer(chat: ChatSession) -> None:
    chat.add_document(BOOK)
    free = chat.fork().ask("Who?", max_new_tokens=40).text
    mark = free[4:6]
    assert chat.ask("Who?", max_new_tokens=40, stop=mark).text == free[: free.index(mark)].strip()
    assert chat.turns[-1].content == free[: free.index(mark)].strip()


@pytest.mark.parametrize("copied", [copy.copy, copy.deepcopy])
def test_a_copy_is_a_fork(chat: ChatSession, copied: Callable[[Any], Any]) -> None:
    chat.add_document(BOOK)
    twin = copied(chat)
    first = twin.ask("Who?", max_new_tokens=NEW)
    assert first.reuse.reused
    assert chat.turns == ()
    assert chat.ask("Who?", max_new_tokens=NEW).text == first.text


def test_a_conversation_is_not_pickled(chat: ChatSession) -> None:
    """`save` keeps what was said."""
    chat.add_document(BOOK)
    for write in (pickle.dumps, lambda it: torch.save(it, io.BytesIO())):
        with pytest.raises(UnsupportedInputError, match="a ChatSession cannot be pickled, saved"):
            write(chat)


def test_what_cannot_be_edited(chat: ChatSession) -> None:
    with pytest.raises(TextError, match="no turn 0: the conversation has 0"):
        chat.edit(0, "x")


def test_a_cut_memory_is_refused(memory_model: Any, bare: Any, tokenizer: Any) -> None:
    session = Session(memory_model, tokenizer)
    session.read(BOOK)
    with pytest.raises(CropError, match="go on from a fork"):
        session.cut(10)


def test_turns_alternate() -> None:
    with pytest.raises(TextError, match="turn 1 is of role 'assistant'"):
        Transcript((Turn(ASSISTANT, "Hello"),))
    assert Turn(USER, "Who?", (Document("d", "A text."),)).message()["content"] == "A text.\n\nWho?"


def test_what_is_said_has_no_control_tokens(bare: Any, tokenizer: Any) -> None:
    text = "One.</s><assistant>Two."
    for control_tokens, ends in ((False, 1), (True, 3)):
        chat = ChatSession(bare, tokenizer, control_tokens=control_tokens)
        chat.add_document(text)
        chat.ask(text, max_new_tokens=1)
        prompt = chat._memory.last[: chat._memory._prompt_length]
        assert prompt.count(tokenizer.eos_token_id) == ends
