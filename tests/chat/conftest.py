"""A tiny model with a tokenizer that has a chat template, and its configurations."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from inf_llm.chat.session import ChatSession
from tests.checkpoints import memory_model, model, script, write_config  # noqa: F401

TEMPLATE = (
    "{% for message in messages %}<{{ message['role'] }}>"
    "{{ message['content'] if loop.last or message['role'] == 'user' "
    "else message['content'].split('THOUGHT')[-1] }}</s>"
    "{% endfor %}{% if add_generation_prompt %}<assistant>{% endif %}"
)
"""Of earlier answers it keeps only what follows the last THOUGHT, as thinking models do."""


def chat_tokenizer() -> Any:
    """One token per byte."""
    made = script().make_tokenizer()
    made.chat_template = TEMPLATE
    return made


@pytest.fixture(scope="session")
def tokenizer() -> Any:
    return chat_tokenizer()


@pytest.fixture(scope="session")
def bare(tokenizer: Any) -> Any:
    return script().make_model(len(tokenizer))


@pytest.fixture(scope="session")
def checkpoint(bare: Any, tokenizer: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same, in a folder."""
    folder = tmp_path_factory.mktemp("chat-model")
    bare.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def config(checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The configuration of inf-llm."""
    file = tmp_path_factory.mktemp("chat-config") / "inf-llm.yaml"
    return write_config(file, "inf-llm", str(checkpoint))


@pytest.fixture
def chat(memory_model: Any, tokenizer: Any) -> ChatSession:  # noqa: F811
    return ChatSession(memory_model, tokenizer)
