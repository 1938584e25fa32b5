"""What may be asked, walked over the tables: nothing is refused that asks for nothing."""

from __future__ import annotations

from typing import Any

import pytest

from inf_llm.checks import MIN_TEMPERATURE
from inf_llm.serve.errors import ApiError
from inf_llm.serve.params import SHARED, chat_question, completion_question
from tests.serve.questions import CHAT, PLAIN, refused


@pytest.mark.parametrize(
    "name",
    [*sorted(SHARED - {"model"}), "max_completion_tokens", "anything_else"],
)
def test_null_asks_for_nothing_whatever_its_name(name: str) -> None:
    assert chat_question(CHAT | {name: None}) == PLAIN


@pytest.mark.parametrize(
    "body",
    [
        {"max_tokens": -1},
        {"max_completion_tokens": -1.0},
        {"top_k": 0},
        {"top_k": -1},
        {"top_p": 1},
        {"min_p": 0},
        {"repetition_penalty": 1.0},
        {"frequency_penalty": 0, "presence_penalty": -0.0},
        {"min_tokens": 0, "ignore_eos": False},
        {"n": 1.0},
        {"logit_bias": {}},
        {"stop": ""},
        {"stop": []},
        {"stop": [""]},
        {"stream": False},
        {"stream_options": {}},
        {"stream_options": {"include_usage": False, "include_obfuscation": False}},
        {"stream_options": {"continuous_usage_stats": False}},
        {"logit_bias": {"50256": 0, "11": 0.0}},
        {"options": {"num_ctx": 8192, "repeat_penalty": 1.0, "num_predict": -1}},
        {"document": None, "recall": False},
    ],
    ids=str,
)
def test_neutral_values_of_what_is_taken(body: dict[str, Any]) -> None:
    assert chat_question(CHAT | body) == PLAIN


@pytest.mark.parametrize(
    ("body", "param"),
    [
        ({"n": True}, "n"),
        ({"n": 17}, "n"),
        ({"logprobs": 1}, "logprobs"),
        ({"min_p": False}, "min_p"),
        ({"logit_bias": {"11": -101}}, "logit_bias.11"),
        ({"logit_bias": {"11": False}}, "logit_bias.11"),
        ({"logit_bias": {"-1": 1}}, "logit_bias"),
        ({"logit_bias": [[1, 1]]}, "logit_bias"),
        ({"min_tokens": 5, "max_tokens": 4}, "min_tokens"),
        ({"repetition_penalty": 0}, "repetition_penalty"),
        ({"frequency_penalty": -2.1}, "frequency_penalty"),
        ({"options": {"temperature": 0.7}}, "options.temperature"),
        ({"options": {"num_predict": 8}}, "options.num_predict"),
        ({"options": [1]}, "options"),
        (
            {"stream_options": {"continuous_usage_stats": True}},
            "stream_options.continuous_usage_stats",
        ),
        ({"stream_options": []}, "stream_options"),
        ({"max_tokens": -2}, "max_tokens"),
        ({"max_tokens": 1.5}, "max_tokens"),
        ({"max_tokens": 10**400}, "max_tokens"),
        ({"max_tokens": 2**31}, "max_tokens"),
        ({"max_completion_tokens": 10**12}, "max_completion_tokens"),
        ({"top_k": 2**31}, "top_k"),
        ({"seed": 2**63}, "seed"),
        ({"top_k": -2}, "top_k"),
        ({"top_k": True}, "top_k"),
        ({"temperature": 10**400}, "temperature"),
        ({"temperature": float("inf")}, "temperature"),
        ({"temperature": -1e-300}, "temperature"),
        ({"temperature": True}, "temperature"),
        ({"top_p": "1"}, "top_p"),
        ({"seed": 0.5}, "seed"),
        ({"seed": float("inf")}, "seed"),
    ],
    ids=str,
)
def test_other_values_are_refused(body: dict[str, Any], param: str) -> None:
    assert refused(body).param == param


def test_a_refusal_names_what_is_accepted() -> None:
    assert "give 1" in refused({"typical_p": 1.3}).message
    assert "1.3" in refused({"typical_p": 1.3}).message
    assert "give repetition_penalty" in refused({"repeat_penalty": 1.3}).message
    assert '["text"]' in refused({"modalities": ["audio"]}).message
    assert "from 1 to 2147483647" in refused({"max_tokens": 10**12}).message
    assert f"to {2**63 - 1}" in refused({"seed": 2**63}).message
    assert refused({"echo": True}).message.endswith("leave it out")
    assert "give max_tokens" in refused({"max_new_tokens": 9}).message
    assert "did you mean 'temperature'?" in refused({"temprature": 1}).message


@pytest.mark.parametrize("question", ["", "  ", "\n\t", "a\0b", "\ud800", None])
def test_a_question_is_a_text_with_words(question: Any) -> None:
    messages = [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": ""}]
    messages.append({"role": "user", "content": question})
    assert refused({"messages": messages}).param == "messages[2].content"
    if question:
        with pytest.raises(ApiError, match=r"prompt is (empty|not text)"):
            completion_question({"model": "m", "prompt": question})


@pytest.mark.parametrize("more", [{"document": "doc-1"}, {"documents": ["doc-1"]}])
def test_token_ids_are_not_about_a_document(more: dict[str, Any]) -> None:
    """The document would be left out in silence."""
    assert completion_question({"model": "m", "prompt": [5, 6]}).prompts == ((5, 6),)
    with pytest.raises(ApiError, match="prompt must be a text"):
        completion_question({"model": "m", "prompt": [5, 6], **more})


@pytest.mark.parametrize("value", [0, 0.0, -0.0, 5e-324, 1e-300, 1e-38, MIN_TEMPERATURE / 2])
def test_hardly_any_temperature_is_greedy(value: float) -> None:
    assert chat_question(CHAT | {"temperature": value}).sampling.temperature == 0


def test_whole_numbers_may_be_written_with_a_point() -> None:
    body = {"max_tokens": 7.0, "seed": 3.0, "top_k": 2.0, "n": 1.0}
    sampling = chat_question(CHAT | body).sampling
    assert (sampling.max_tokens, sampling.seed, sampling.top_k) == (7, 3, 2)
    assert all(type(value) is int for value in (sampling.max_tokens, sampling.seed, sampling.top_k))


def test_both_bounds_of_an_answer_hold() -> None:
    for one, other in ((5, 9), (9, 5)):
        body = {"max_tokens": one, "max_completion_tokens": other}
        assert chat_question(CHAT | body).sampling.max_tokens == 5


def test_fields_of_messages() -> None:
    """An answer given back as the official client dumps it passes; what has an effect does not."""
    turn = {"role": "assistant", "content": "hi", "refusal": None, "annotations": [], "audio": None}
    turn |= {"function_call": None, "tool_calls": [], "name": "a", "reasoning_content": "hm"}
    part = {"type": "text", "text": "hello", "cache_control": {"type": "ephemeral"}}
    messages = [{"role": "user", "content": [part]}, turn, {"role": "user", "content": "so?"}]
    asked = chat_question({"model": "m", "messages": messages}).messages
    assert [message["content"] for message in asked] == ["hello", "hi", "so?"]
    assert all(message.keys() == {"role", "content"} for message in asked)
    for more in (
        {"prefix": True},
        {"images": ["aGk="]},
        {"audio": {"id": "a"}},
    ):
        error = refused({"messages": [turn | more]})
        assert error.param == f"messages[0].{next(iter(more))}"
