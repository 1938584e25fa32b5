"""Whatever JSON is sent, the reply is an answer or says in OpenAI's form what is wrong."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from inf_llm.serve.params import CHAT_ONLY, SHARED, TEXT_ONLY
from inf_llm.serve.vendors import HARMLESS, NEUTRAL, REASONING
from tests.serve.inprocess import CHAT, Local, local

TEXT, DOCUMENTS = "/v1/completions", "/v1/documents"
NAMES = sorted(
    {
        *SHARED,
        *CHAT_ONLY,
        *TEXT_ONLY,
        "tokens",
        "add_special_tokens",
        *HARMLESS,
        *NEUTRAL,
        *REASONING,
        "options",
        "messages",
        "prompt",
        "text",
        "name",
    }
)

numbers = st.one_of(
    st.integers(),
    st.integers(-3, 3),
    st.floats(allow_nan=False, allow_infinity=False),
    st.sampled_from([5e-324, 1e-300, 1e-38, 1e-6, -0.0, 1e308, 2**63, -(2**63), 10**400]),
)
texts = st.one_of(
    st.text(st.characters(), max_size=20),
    st.sampled_from(
        ["", " ", "\0", "\ud800", "\udfff\ud800", "\u2028\x85", "tiny-model", "user", "text"]
    ),
)
values = st.recursive(
    st.one_of(st.none(), st.booleans(), numbers, texts),
    lambda inner: st.one_of(
        st.lists(inner, max_size=3),
        st.dictionaries(st.one_of(texts, st.sampled_from(NAMES)), inner, max_size=3),
    ),
    max_leaves=8,
)
more = st.dictionaries(st.one_of(st.sampled_from(NAMES), texts), values, max_size=4)
parts = st.fixed_dictionaries({}, optional={"type": st.just("text"), "text": texts, "x": values})
messages = st.fixed_dictionaries(
    {
        "role": st.sampled_from(["system", "user", "assistant", "tool"]),
        "content": st.one_of(texts, st.lists(parts, max_size=2)),
    },
    optional={"name": values, "tool_calls": values},
)
sampling = st.fixed_dictionaries(
    {},
    optional={
        "temperature": st.one_of(st.floats(0, 2), numbers),
        "top_p": st.one_of(st.floats(0, 1), numbers),
        "top_k": numbers,
        "seed": numbers,
        "max_tokens": st.one_of(st.integers(1, 3), numbers),
        "stop": st.one_of(texts, st.lists(texts, max_size=5)),
        "n": st.one_of(st.integers(1, 3), numbers),
        "logit_bias": st.dictionaries(st.one_of(st.integers(-1, 300).map(str), texts), numbers),
        "logprobs": st.one_of(st.booleans(), st.integers(0, 3)),
        "stream": st.booleans(),
        "recall": st.booleans(),
    },
)
chats = st.fixed_dictionaries(
    {"model": st.just("tiny-model"), "messages": st.lists(messages, min_size=1, max_size=3)}
)
completions = st.fixed_dictionaries(
    {
        "model": st.just("tiny-model"),
        "prompt": st.one_of(texts, st.lists(st.integers(-1, 300), max_size=90)),
    }
)
uploads = st.fixed_dictionaries({"text": texts})


@pytest.fixture(scope="module")
def server() -> Iterator[Local]:
    with local(96, "suffix", answer_tokens=3) as running:
        yield running


def _merge(*given: dict[str, Any]) -> dict[str, Any]:
    return {name: value for one in given for name, value in one.items()}


def _answered(server: Local, path: str, body: Any) -> int:
    """Post a body; the status of the reply, whose form is checked."""
    reply = server.request(
        "POST", path, content=json.dumps(body), headers={"content-type": "application/json"}
    )
    assert reply.status_code in (200, 201) or 400 <= reply.status_code < 500, reply.text
    if reply.status_code >= 400:
        error = reply.json()["error"]
        assert error.keys() == {"message", "type", "param", "code"}
        assert error["type"] == "invalid_request_error"
        assert isinstance(error["message"], str)
        assert "Traceback" not in error["message"]
    elif "event-stream" in reply.headers["content-type"]:
        assert reply.text.endswith("data: [DONE]\n\n"), reply.text[-500:]
    else:
        json.loads(reply.content)
    reply.content.decode("utf-8")
    return reply.status_code


often = settings(
    max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)


@often
@given(
    path=st.sampled_from([CHAT, TEXT, "/v1/responses", DOCUMENTS, "/tokenize", "/detokenize"]),
    body=values,
)
def test_any_json(server: Local, path: str, body: Any) -> None:
    _answered(server, path, body)


@often
@given(body=st.builds(_merge, chats, sampling, more))
@example(body={"temperature": 10**400})
def test_chats(server: Local, body: dict[str, Any]) -> None:
    _answered(server, CHAT, body)


@often
@given(body=st.builds(_merge, completions, sampling, more))
def test_completions(server: Local, body: dict[str, Any]) -> None:
    _answered(server, TEXT, body)


@often
@given(body=st.builds(_merge, uploads, more))
def test_documents(server: Local, body: dict[str, Any]) -> None:
    _answered(server, DOCUMENTS, body)


# no halves of surrogate pairs, no zero bytes
words = st.text(min_size=1, max_size=20).filter(lambda text: text.strip() and "\0" not in text)
right_sampling = st.fixed_dictionaries(
    {
        "model": st.just("tiny-model"),
        "temperature": st.one_of(st.floats(0, 2), st.sampled_from([5e-324, 1e-300, 1e-38, 1e-6])),
    },
    optional={
        "top_p": st.floats(0, 1),
        "top_k": st.integers(-1, 2**31 - 1),
        "seed": st.integers(-(2**63), 2**63 - 1),
        "max_tokens": st.one_of(st.integers(1, 9), st.just(2**31 - 1)),
        "min_p": st.floats(0, 1),
        "repetition_penalty": st.floats(0.01, 10),
        "frequency_penalty": st.floats(-2, 2),
        "presence_penalty": st.floats(-2, 2),
        "logit_bias": st.dictionaries(st.integers(0, 257).map(str), st.floats(-100, 100)),
        "min_tokens": st.integers(0, 1),
        "ignore_eos": st.booleans(),
        "stop": st.lists(words, max_size=4),
        "stream": st.booleans(),
    },
)
turns = st.fixed_dictionaries({"role": st.sampled_from(["user", "assistant"]), "content": words})
right_chats = st.one_of(
    st.fixed_dictionaries(
        {"messages": st.lists(turns, min_size=1)},
        optional={"n": st.integers(1, 2), "logprobs": st.booleans()},
    ),
    st.fixed_dictionaries({"messages": st.lists(turns, min_size=1), "recall": st.booleans()}),
)
right_completions = st.fixed_dictionaries(
    {"prompt": st.one_of(words, st.lists(words, min_size=1, max_size=3))},
    optional={
        "n": st.integers(1, 2),
        "logprobs": st.integers(0, 20),
        "echo": st.booleans(),
    },
)


@settings(often, max_examples=50)
@given(body=st.builds(_merge, right_sampling, right_chats))
def test_whatever_is_right_is_answered(server: Local, body: dict[str, Any]) -> None:
    assert _answered(server, CHAT, body) == 200


@settings(often, max_examples=20)
@given(body=st.builds(_merge, right_sampling, right_completions))
def test_completions_that_are_right_are_answered(server: Local, body: dict[str, Any]) -> None:
    assert _answered(server, TEXT, body) == 200
