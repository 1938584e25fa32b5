"""What a conversation answers, beside the same said to a model that has never seen it."""

from __future__ import annotations

from typing import Any

from inf_llm.chat.session import ChatSession
from inf_llm.chat.turns import USER, Transcript, Turn
from inf_llm.generation import Session, encode

BOOK = "The quick brown fox jumps over the lazy dog, again and again. " * 10
NEW = 6


def _afresh(
    chat: ChatSession, model: Any, tokenizer: Any, transcript: Transcript, text: str
) -> str:
    """What the model answers to a whole conversation that it has never seen."""
    turns = (*transcript.turns, Turn(USER, text, transcript.documents))
    prompt = chat.layout.prompt([turn.message() for turn in turns])
    ids = encode(tokenizer, prompt, chat.layout.adds_special)
    return Session(model, tokenizer).ask(ids, max_new_tokens=NEW).text.strip()


def check(chat: ChatSession, model: Any, tokenizer: Any, text: str) -> Any:
    expected = _afresh(chat, model, tokenizer, chat.transcript, text)
    reply = chat.ask(text, max_new_tokens=NEW)
    assert reply.text == expected
    return reply.reuse
