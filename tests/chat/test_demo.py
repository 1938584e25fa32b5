"""The embedded model finds a pass key in a text, asked in a chat."""

from __future__ import annotations

from typing import Any

import pytest

import inf_llm
from inf_llm.chat.session import ChatSession
from inf_llm.config import SHIPPED_CONFIGS

KEY = "48213"


@pytest.fixture(scope="module")
def demo() -> Any:
    return inf_llm.load(SHIPPED_CONFIGS / "demo-inf-llm.yaml")


def test_short_text(demo: Any) -> None:
    chat = ChatSession(*demo)
    chat.add_document(f"The pass key is {KEY}.")
    assert KEY in chat.ask("What is the pass key?", max_new_tokens=16).text


def test_haystack(demo: Any) -> None:
    hay = "The grass is green. The sky is blue. The sun is yellow. Here we go. " * 60
    middle = hay.index(". ", len(hay) // 2) + 2
    chat = ChatSession(*demo)
    chat.add_document(f"{hay[:middle]}The pass key is {KEY}. Remember it. {hay[middle:]}")
    assert KEY in chat.ask("What is the pass key?", max_new_tokens=16).text
