"""Which template lays a conversation out, and what ends an answer."""

from __future__ import annotations

import sys
from typing import Any

import pytest

from inf_llm.conversation import TEMPLATES
from inf_llm.errors import SettingsError, TextError
from inf_llm.generation.layout import choose_layout
from tests.chat.conftest import chat_tokenizer
from tests.checkpoints import script

HELLO = [{"role": "user", "content": "Hello"}]
TALK = [*HELLO, {"role": "assistant", "content": "Hi."}, {"role": "user", "content": "Who?"}]


@pytest.fixture(scope="module")
def tokenizer() -> Any:
    """With a template of its own."""
    return chat_tokenizer()


@pytest.fixture
def plain_tokenizer() -> Any:
    """Without a template of its own."""
    return script().make_tokenizer()


def test_own_template_first(tokenizer: Any) -> None:
    layout = choose_layout(tokenizer)
    assert layout.prompt(TALK) == "<user>Hello</s><assistant>Hi.</s><user>Who?</s><assistant>"
    assert layout.ends == (tokenizer.eos_token_id,)


def test_plain_without_any(plain_tokenizer: Any, tokenizer: Any) -> None:
    assert choose_layout(plain_tokenizer).prompt(TALK) == "Hello\n\nHi.\n\nWho?"
    assert choose_layout(tokenizer, "plain").prompt(HELLO) == "Hello"


@pytest.mark.parametrize("name", TEMPLATES)
def test_published_names(plain_tokenizer: Any, name: str) -> None:
    prompt = choose_layout(plain_tokenizer, name).prompt(TALK)
    assert prompt.index("Hello") < prompt.index("Hi.") < prompt.index("Who?")


def test_the_token_after_an_answer_ends_it(plain_tokenizer: Any) -> None:
    plain_tokenizer.add_tokens(["<|im_end|>", "<|other|>"], special_tokens=True)
    ends = choose_layout(plain_tokenizer, "qwen").ends
    assert plain_tokenizer.convert_ids_to_tokens(list(ends)) == ["<|im_end|>"]


def test_fastchat_names(tokenizer: Any) -> None:
    pytest.importorskip("fastchat", reason="needs inf-llm[chat]")
    layout = choose_layout(tokenizer, "zero_shot")
    assert layout.roles == ("Human", "Assistant")
    assert layout.stops == ("###",)
    assert layout.prompt(TALK).endswith("Human: Who?\n### Assistant:")
    with pytest.raises(SettingsError, match="did you mean 'vicuna'"):
        choose_layout(tokenizer, "vicunna")


def test_unknown_name_without_fastchat(tokenizer: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "fastchat.conversation", None)
    with pytest.raises(SettingsError, match=r"zero_shot.*pip install 'inf-llm\[chat\]'"):
        choose_layout(tokenizer, "zero_shot")


def test_a_template_that_refuses(tokenizer: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    refusing = "{{ raise_exception('roles must alternate') }}"
    monkeypatch.setattr(tokenizer, "chat_template", refusing)
    layout = choose_layout(tokenizer)
    with pytest.raises(TextError, match="does not take this conversation: roles must alternate"):
        layout.prompt(HELLO)
