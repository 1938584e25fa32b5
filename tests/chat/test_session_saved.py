"""A conversation in a file, with its memory in a folder beside it."""

from __future__ import annotations

from typing import Any

from inf_llm.chat.session import ChatSession
from inf_llm.saved.manifest import read_manifest
from tests.chat.afresh import BOOK, NEW, check


def test_save_and_load(chat: ChatSession, memory_model: Any, tokenizer: Any, tmp_path: Any) -> None:
    chat.add_document(BOOK, "book")
    chat.ask("Who? \N{SNOWMAN}", max_new_tokens=NEW)
    chat.add_document("More.", "more")
    chat.save(tmp_path / "c.json")
    assert sorted(file.name for file in tmp_path.iterdir()) == ["c.json", "c.memory"]
    other = ChatSession(memory_model, tokenizer)
    assert other.load(tmp_path / "c.json") is None
    assert other.transcript == chat.transcript
    reuse = check(other, memory_model, tokenizer, "And?")
    assert reuse.reused > reuse.prompt // 2
    chat.load(tmp_path / "c.json")
    assert check(chat, memory_model, tokenizer, "And?").how == "continued"


def test_a_memory_that_cannot_be_used_is_read_again(
    chat: ChatSession, memory_model: Any, tokenizer: Any, tmp_path: Any
) -> None:
    chat.add_document(BOOK, "book")
    chat.save(tmp_path / "c.json")
    (state,) = (tmp_path / "c.memory").glob("state-*")
    state.write_bytes(state.read_bytes()[:-1])
    other = ChatSession(memory_model, tokenizer)
    assert "state-000001.safetensors" in str(other.load(tmp_path / "c.json"))
    assert other.transcript == chat.transcript
    assert check(other, memory_model, tokenizer, "Who?").how == "fresh"


def test_saving_again_adds_to_the_memory(chat: ChatSession, tmp_path: Any) -> None:
    chat.add_document(BOOK, "book")
    chat.save(tmp_path / "c.json")
    chat.ask("Who?", max_new_tokens=NEW)
    chat.add_document(BOOK, "again")
    chat.save(tmp_path / "c.json")
    assert read_manifest(tmp_path / "c.memory").generation == 2


def test_a_conversation_without_memory_leaves_none_of_the_one_it_replaces(
    chat: ChatSession, tmp_path: Any
) -> None:
    chat.add_document("The sky is blue. " * 60, "sky")
    chat.save(tmp_path / "c.json")
    assert (tmp_path / "c.memory").exists()
    chat.reset()
    chat.save(tmp_path / "c.json")
    assert not (tmp_path / "c.memory").exists()
