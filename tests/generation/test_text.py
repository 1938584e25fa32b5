"""Tokens to text, piece by piece."""

from __future__ import annotations

import torch

from inf_llm.generation.text import AnswerText
from tests.tiny import tiny_tokenizer


def test_text_comes_in_whole_characters_and_stops_in_time() -> None:
    tokenizer, said = tiny_tokenizer(), []
    ids = tokenizer("schön \U0001f600 ende gut")["input_ids"]
    text = AnswerText(tokenizer, ("ende gut", "gut so"), said.append)
    for token in ids:
        text.put(torch.tensor([token]))
    text.end()
    assert text.text == "".join(said) == "schön \U0001f600 "
    assert text.stopped
    assert "\ufffd" not in "".join(said)
    text = AnswerText(tokenizer, ("gut so",), said.append)
    for token in ids:
        text.put(torch.tensor([token]))
    text.end()
    assert text.text == "schön \U0001f600 ende gut"
