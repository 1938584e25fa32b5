"""Requests that go on from the same memory have the same key, and others have none or another."""

from __future__ import annotations

import json
from typing import Any

import pytest

from inf_llm.cluster.affinity import LONG, is_fixed, memory_key

CHAT = "/v1/chat/completions"
BOOK = "It was a dark night. " * 200


def key(body: Any, path: str = CHAT) -> str:
    return memory_key(path, json.dumps(body).encode())


def chat_body(*turns: tuple[str, Any]) -> dict[str, Any]:
    return {"messages": [{"role": role, "content": content} for role, content in turns]}


@pytest.mark.parametrize(
    ("path", "body"),
    [
        (CHAT, chat_body(("user", "Who?")) | {"document": "doc-1"}),
        (CHAT, chat_body(("user", BOOK)) | {"documents": ["doc-1", "doc-2"]}),
        ("/v1/responses", {"input": "Who?", "document": "doc-1"}),
        ("/v1/documents/doc-1", {"text": "more"}),
        ("/v1/documents/doc-1/events", None),
    ],
)
def test_a_document_is_the_key(path: str, body: Any) -> None:
    assert key(body, path) == "doc-1"


@pytest.mark.parametrize(
    "same",
    [
        [{"prompt": BOOK + "Who?"}, {"prompt": BOOK + "Where?"}],
        [chat_body(("user", BOOK + "Who?")), chat_body(("user", BOOK + "Where?"))],
        [
            chat_body(("user", BOOK)),
            chat_body(("user", BOOK), ("assistant", "Yes."), ("user", "Who?")),
            chat_body(("user", [{"type": "text", "text": BOOK}])),
        ],
        [
            {"input": BOOK, "instructions": "Be short."},
            {"input": BOOK, "instructions": "Be short."},
        ],
        [
            chat_body(("user", "Hi"), ("assistant", "Hi."), ("user", "Who?")),
            chat_body(("user", "Hi"), ("assistant", "Hi."), ("user", "Who?"), ("assistant", "I.")),
        ],
    ],
)
def test_questions_about_one_text_meet(same: list[Any]) -> None:
    keys = {key(body) for body in same}
    assert len(keys) == 1
    assert keys != {""}


def test_control_other_texts_have_other_keys() -> None:
    texts = [BOOK, BOOK.upper(), "system " + BOOK]
    assert len({key(chat_body(("user", text))) for text in texts}) == 3
    system = (
        chat_body(("system", BOOK), ("user", "Who?")),
        chat_body(("system", BOOK), ("user", "Where?")),
    )
    assert key(system[0]) != key(system[1]), "one prompt of all clients does not bring all together"


@pytest.mark.parametrize(
    "body",
    [
        chat_body(("user", "Hello")),
        {"prompt": "x" * (LONG - 1)},
        {"prompt": [1, 2, 3]},
        {"messages": [1, None, {"role": 3, "content": {"text": BOOK}}]},
        {"messages": BOOK[:5], "document": 7, "documents": "doc-1"},
        [],
        "text",
        None,
    ],
)
def test_what_any_replica_answers_as_quickly_has_none(body: Any) -> None:
    assert key(body) == ""


@pytest.mark.parametrize("body", [b"", b"{", b"\xff\xfe", b"[" * 100_000])
def test_what_is_no_json_has_none(body: bytes) -> None:
    assert memory_key(CHAT, body) == ""


def test_text_that_is_no_unicode_has_a_key() -> None:
    assert memory_key(CHAT, b'{"prompt": "' + b"\\ud800" * LONG + b'"}')


def test_what_only_the_reader_of_a_document_knows_is_fixed() -> None:
    assert is_fixed("/v1/documents/doc-1")
    assert is_fixed("/v1/documents/doc-1/events")
    assert not is_fixed("/v1/documents")
    assert not is_fixed(CHAT)
