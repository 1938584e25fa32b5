"""Forms of log-likelihoods: names, offsets and the likeliest tokens."""

from __future__ import annotations

import pytest

from inf_llm.generation.likelihood import Scored
from inf_llm.generation.spelling import Spelling
from inf_llm.serve.logprobs import Report, of_chat, of_text
from tests.tiny import tiny_tokenizer


def _id(letter: str) -> int:
    (token,) = tiny_tokenizer()(letter, add_special_tokens=False).input_ids
    return int(token)


A, B = _id("a"), _id("b")


def test_tokens_are_taken_once_and_kept_all() -> None:
    report = Report(Spelling(tiny_tokenizer()))
    report.add(Scored(A, -1.0))
    assert [each.name for each in report.take()] == ["a"]
    assert not report.waiting
    report.add(Scored(B, -2.0))
    assert report.waiting
    assert [each.name for each in report.take()] == ["b"]
    assert report.take() == ()
    assert [each.offset for each in report.tokens] == [0, 1]


def test_offsets_of_an_answer_begin_behind_the_prompt() -> None:
    """Special tokens have no characters; where the tokenizer gives places, these are taken."""
    end = tiny_tokenizer().convert_tokens_to_ids("</s>")
    report = Report(Spelling(tiny_tokenizer()))
    report.begin([Scored(end, None), Scored(A, -1.0)], None, 5)
    report.add(Scored(B, -1.0))
    assert [each.offset for each in report.tokens] == [0, 0, 5]
    report = Report(Spelling(tiny_tokenizer()))
    report.begin([Scored(A, None), Scored(A, -1.0)], [0, 3], 4)
    assert [each.offset for each in report.tokens] == [0, 3]


@pytest.mark.parametrize("prompt", range(20))
def test_a_character_of_several_tokens_is_one(prompt: int) -> None:
    """A prompt may end within one, too."""
    tokenizer, text = tiny_tokenizer(), "a\U0001f40b\u4e2db\U0001f600\U0001f600c"
    ids = tokenizer(text, add_special_tokens=False).input_ids
    assert len(ids) > len(text)
    before, after = (tokenizer.decode(part) for part in (ids[:prompt], ids[prompt:]))
    report = Report(Spelling(tokenizer))
    report.begin([Scored(token, -1.0) for token in ids[:prompt]], None, len(before))
    for token in ids[prompt:]:
        report.add(Scored(token, -1.0))
    offsets = [each.offset for each in report.tokens]
    assert offsets == sorted(offsets)
    for each in report.tokens:
        assert (before + after)[each.offset] == each.name or each.name.startswith("bytes:")


def test_the_token_itself_is_among_the_likeliest_of_a_completion() -> None:
    report = Report(Spelling(tiny_tokenizer()))
    report.add(Scored(A, -3.0, ((B, -0.5),)))
    report.add(Scored(B, -0.5, ((B, -0.5),)))
    assert of_text(report.tokens)["top_logprobs"] == [{"b": -0.5, "a": -3.0}, {"b": -0.5}]
    rows = of_chat(report.tokens)["content"]
    assert rows[0]["top_logprobs"] == [{"token": "b", "logprob": -0.5, "bytes": [98]}]
