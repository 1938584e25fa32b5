"""Which tokens end an answer; stop texts are tried in test_session."""

from __future__ import annotations

from typing import Any

from inf_llm.generation.ends import answer_ends
from inf_llm.generation.layout import choose_layout
from tests.chat.conftest import chat_tokenizer


def test_tokens_that_end_an_answer(bare: Any) -> None:
    tokenizer = chat_tokenizer()
    layout = choose_layout(tokenizer)
    before = bare.generation_config.eos_token_id
    try:
        for own, wanted in ((None, [1]), (7, [7, 1]), ([1, 9], [1, 9])):
            bare.generation_config.eos_token_id = own
            assert answer_ends(bare, layout) == wanted
        bare.generation_config.eos_token_id = None
        assert answer_ends(bare, choose_layout(tokenizer, "plain")) is None
    finally:
        bare.generation_config.eos_token_id = before
