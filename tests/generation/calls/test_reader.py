"""Calls in answers, of every family: what is one, and that everything else stays words."""

from __future__ import annotations

import json

import pytest

from inf_llm.generation.calls import CallReader, form_of
from inf_llm.generation.calls.base import Call

NAMES = ("add", "get-weather")
ADD = '{"name": "add", "arguments": {"a": 1, "b": [2, {"c": "}"}]}}'
CALL = Call("add", '{"a": 1, "b": [2, {"c": "}"}]}')
RAIN = Call("get-weather", '{"city": "Zürich"}')
WEATHER = '{"name": "get-weather", "arguments": {"city": "Zürich"}}'
LLAMA = '{"name": "get-weather", "parameters": {"city": "Zürich"}}'

ONE, TWO = (Call("add", f'{{"a": {number}}}') for number in (1, 2))
TAGGED = f"<tool_call>{ADD}</tool_call>\n<tool_call>\n{WEATHER}\n</tool_call>\n"
TEXT = '<tool_call>{"name": "add", "arguments": "{\\"a\\": 1}"}</tool_call>'

CALLS = [
    ("hermes", f"<tool_call>\n{ADD}\n</tool_call>", "", [CALL]),
    (
        "hermes",
        f"<tool_call>{ADD}</tool_call>\n<tool_call>\n{WEATHER}\n</tool_call>\n",
        "",
        [CALL, RAIN],
    ),
    ("hermes", f"I will look. \n<tool_call>\n{WEATHER}", "I will look.", [RAIN]),
    (
        "hermes",
        '<tool_call>{"name": "add", "arguments": "{\\"a\\": 1}"}</tool_call>',
        "",
        [Call("add", '{"a": 1}')],
    ),
    ("mistral", f"[TOOL_CALLS][{ADD}, {WEATHER}]", "", [CALL, RAIN]),
    ("mistral", f"[TOOL_CALLS] {ADD}", "", [CALL]),
    ("mistral", 'Yes.[TOOL_CALLS]get-weather[ARGS]{"city": "Zürich"}', "Yes.", [RAIN]),
    (
        "mistral",
        '[TOOL_CALLS]add{"a": 1}[TOOL_CALLS]add{"a": 2}',
        "",
        [ONE, TWO],
    ),
    ("llama", f"<|python_tag|>{LLAMA}", "", [RAIN]),
    ("llama", LLAMA, "", [RAIN]),
    ("llama", f"{LLAMA}; {LLAMA}", "", [RAIN, RAIN]),
    ("bare", f"{ADD}\n{WEATHER}", "", [CALL, RAIN]),
]
BARE = [
    ADD,
    f"  {ADD}\n",
    f"```json\n{ADD}\n```",
    f"```json\n{ADD}\n```\n",
    f"```\n{ADD}\n```",
    f"```json\n{ADD}",
    f"[{ADD}]",
    json.dumps(json.loads(ADD), indent=2),
]
WORDS = [
    "Hello there.",
    "  Two\n\nparagraphs. ",
    "",
    "{",
    "{}",
    "null",
    "[1, 2]",
    '{"name": "other", "arguments": {}}',
    '{"name": "add"}',
    '{"name": "add", "arguments": [1]}',
    '{"name": ["add"], "arguments": {}}',
    f"{ADD} is what I would call.",
    f"Look: {ADD}",
    f"```python\n{ADD}\n```",
    f"```json\n{ADD}\n``` is how.",
    '```json\n{"a": 1}\n```',
    f'[{ADD}, {{"a": 1}}]',
    "[" * 5000,
    "```",
    "``",
]
MARKED = [
    "<tool_call>",
    "<tool_call>{</tool_call>",
    '<tool_call>{"name": "other", "arguments": {}}</tool_call>',
    f"Use <tool_call>{ADD} and more words",
    "a <tool_cal",
]


def heard(form: str, text: str, size: int) -> tuple[str, str, list[Call]]:
    """What is said at once, all that is said, and what is called, of a text in pieces."""
    reader = CallReader(form_of(None, form), NAMES)
    pieces = [text[at : at + size] for at in range(0, len(text), size)]
    begun = "".join(reader.put(piece) for piece in pieces)
    rest, calls = reader.end()
    assert reader.words == begun + rest
    return begun, begun + rest, calls


@pytest.mark.parametrize("size", [1, 7, 10_000])
@pytest.mark.parametrize(("form", "text", "words", "calls"), CALLS)
def test_calls(form: str, text: str, words: str, calls: list[Call], size: int) -> None:
    assert heard(form, text, size)[1:] == (words, calls)


@pytest.mark.parametrize("form", ["hermes", "llama", "mistral", "bare"])
@pytest.mark.parametrize("text", BARE)
def test_an_answer_that_is_nothing_but_a_call(text: str, form: str) -> None:
    for size in (1, 10_000):
        assert heard(form, text, size)[1:] == ("", [CALL])


@pytest.mark.parametrize("form", ["hermes", "llama", "mistral", "bare"])
@pytest.mark.parametrize("text", WORDS)
def test_words_stay_as_they_are(text: str, form: str) -> None:
    for size in (1, 3, 10_000):
        assert heard(form, text, size)[1:] == (text, [])


@pytest.mark.parametrize("text", MARKED)
def test_marks_without_a_call_are_words(text: str) -> None:
    for size in (1, 10_000):
        assert heard("hermes", text, size)[1:] == (text, [])


def test_words_are_said_as_they_come() -> None:
    reader = CallReader(form_of(None, "hermes"), NAMES)
    assert reader.put("I will ") == "I will"
    assert reader.put("look <tool") == " look"
    assert reader.put("box> up") == " <toolbox> up"
    assert reader.put(" <tool_call>") == ""


def test_code_blocks_that_are_no_json_are_said_as_they_come() -> None:
    reader = CallReader(form_of(None, "hermes"), NAMES)
    assert reader.put("```") == ""
    assert reader.put("python\nprint(1)") == "```python\nprint(1)"
