"""Tokens to text, piece by piece."""

from __future__ import annotations

import torch

from inf_llm.generation.text import AnswerText
from tests.tiny import tiny_tokenizer


def test_text_comes_in_whole_characters_and_stops_in_time() -> None:
    tokenizer, pieces = tiny_tokenizer(), []
    ids = tokenizer("schön \U0001f600 ende gut")["input_ids"]
    text = AnswerText(tokenizer, ("ende gut", "gut so"), pieces.append)
    for token in ids:
        text.put(torch.tensor([token]))
    text.end()
    assert text.text == "".join(pieces) == "schön \U0001f600 "
    assert text.stopped
    assert "\ufffd" not in "".join(pieces)
    text = AnswerText(tokenizer, ("gut so",), pieces.append)
    for token in ids:
        text.put(torch.tensor([token]))
    text.end()
    assert text.text == "schön \U0001f600 ende gut"
