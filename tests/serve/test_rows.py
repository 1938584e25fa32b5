"""Answers with their tokens: what is reported is the model's own, whole and streamed."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import torch

from tests.serve.inprocess import CHAT, Local, local, streamed
from tests.serve.talk import STORY

TEXT = "/v1/completions"
PROMPT = STORY[:400]  # beyond the window


@pytest.fixture(scope="module")
def near() -> Iterator[Local]:
    with local(answer_tokens=6) as running:
        yield running


def _complete(near: Local, **more: Any) -> dict[str, Any]:
    reply = near.post(TEXT, {"model": near.model, "prompt": PROMPT, **more})
    assert reply.status_code == 200, reply.text
    return reply.json()


def _rows(near: Local, ids: list[int]) -> torch.Tensor:
    """Log-likelihoods of what follows each token, of the whole text at once."""
    with torch.no_grad():
        logits = near.app.engine.model(input_ids=torch.tensor([ids])).logits[0]
    return logits.float().log_softmax(-1)


def _ids(near: Local, text: str) -> list[int]:
    return list(near.app.engine.tokenizer(text, add_special_tokens=False).input_ids)


@pytest.mark.parametrize("cached", [False, True])
def test_a_prompt_is_repeated_with_the_likelihoods_of_its_tokens(near: Local, cached: bool) -> None:
    prompt = f"{cached} {PROMPT}"
    if cached:
        assert _complete(near, prompt=prompt)
    body = _complete(near, prompt=prompt, echo=True, logprobs=2, max_tokens=0)
    (choice,) = body["choices"]
    assert (choice["text"], choice["finish_reason"]) == (prompt, "length")
    assert body["usage"]["completion_tokens"] == 0
    assert body["usage"]["prompt_tokens_details"]["cached_tokens"] == 0
    found = choice["logprobs"]
    assert "".join(found["tokens"]) == prompt
    assert found["text_offset"] == list(range(len(prompt)))
    assert (found["token_logprobs"][0], found["top_logprobs"][0]) == (None, None)
    ids = _ids(near, prompt)
    rows = _rows(near, ids[:-1])
    wanted = [float(row[token]) for row, token in zip(rows, ids[1:], strict=True)]
    assert found["token_logprobs"][1:] == pytest.approx(wanted, abs=1e-4)
    for likeliest, row in zip(found["top_logprobs"][1:], rows, strict=True):
        assert max(likeliest.values()) == pytest.approx(float(row.max()), abs=1e-4)
        assert len(likeliest) in (2, 3), "two, and the token itself"


def test_an_answer_is_the_same_with_the_prompt_before_it(near: Local) -> None:
    plain = _complete(near, logprobs=1)
    after = _complete(near, logprobs=1, echo=True)
    found, whole = plain["choices"][0]["logprobs"], after["choices"][0]["logprobs"]
    assert after["choices"][0]["text"] == PROMPT + plain["choices"][0]["text"]
    for name in ("tokens", "token_logprobs", "top_logprobs"):
        assert whole[name][len(PROMPT) :] == found[name]
    assert whole["text_offset"][len(PROMPT)] == len(PROMPT) + found["text_offset"][0]
    assert after["usage"]["completion_tokens"] == len(found["tokens"]) == 6
    one = _complete(near, logprobs=1, echo=True, max_tokens=1)["choices"][0]["logprobs"]
    assert one == {name: values[: len(PROMPT) + 1] for name, values in whole.items()}


def test_what_is_reported_is_not_changed_by_the_sampling(near: Local) -> None:
    changed = {"temperature": 1.5, "seed": 2, "min_p": 0.05, "frequency_penalty": 2}
    text = PROMPT[:40]  # within the window, where all is read alike, at once or token by token
    found = near.ask(text, logprobs=True, top_logprobs=3, **changed).json()["choices"][0]
    rows = found["logprobs"]["content"]
    joined = bytes(byte for row in rows for byte in row["bytes"]).decode(errors="replace")
    assert joined.replace("\ufffd", "") == found["message"]["content"].replace("\ufffd", "")
    byte_of = {near.app.engine._rows._spelling.bytes(i): i for i in range(256)}
    prompt = _ids(near, text)
    taken = [byte_of[bytes(row["bytes"])] for row in rows]
    own = _rows(near, prompt + taken)[len(prompt) - 1 : -1]
    wanted = [float(row[token]) for row, token in zip(own, taken, strict=True)]
    assert [row["logprob"] for row in rows] == pytest.approx(wanted, abs=1e-4)
    for row, likely in zip(rows, own, strict=True):
        top = [each["logprob"] for each in row["top_logprobs"]]
        assert top == pytest.approx(likely.topk(3).values.tolist(), abs=1e-4)


@pytest.mark.parametrize("echo", [False, True])
def test_streams_report_the_same_tokens(near: Local, echo: bool) -> None:
    options = {"logprobs": 2, "n": 2, "temperature": 1.2, "seed": 4, "echo": echo, "stop": "e"}
    whole = _complete(near, **options)["choices"]
    body = {"model": near.model, "prompt": PROMPT, "stream": True, **options}
    found: dict[int, dict[str, list[Any]]] = {0: {}, 1: {}}
    for chunk in streamed(near.post(TEXT, body)):
        for choice in chunk["choices"]:
            own = found[choice["index"]]
            own.setdefault("text", []).append(choice["text"])
            for name, values in (choice["logprobs"] or {}).items():
                own.setdefault(name, []).extend(values)
    for index, own in found.items():
        assert "".join(own.pop("text")) == whole[index]["text"]
        assert own == whole[index]["logprobs"]


def test_a_streamed_chat_reports_the_same_tokens(near: Local) -> None:
    question = near.question(PROMPT, logprobs=True, top_logprobs=1)
    whole = near.post(CHAT, question).json()["choices"][0]["logprobs"]
    rows = [
        row
        for chunk in streamed(near.post(CHAT, question | {"stream": True}))
        for choice in chunk["choices"]
        for row in (choice["logprobs"] or {"content": []})["content"]
    ]
    assert rows == whole["content"]
    assert near.ask(PROMPT).json()["choices"][0]["logprobs"] is None


def test_several_prompts_of_tokens_are_repeated_as_text(near: Local) -> None:
    prompts = [_ids(near, "One day"), _ids(near, "x" * 100)]
    choices = _complete(near, prompt=prompts, echo=True, max_tokens=0)["choices"]
    assert [choice["text"] for choice in choices] == ["One day", "x" * 100]
    assert [choice["logprobs"] for choice in choices] == [None, None]


def test_no_tokens_are_asked_for_with_the_prompt_only(near: Local) -> None:
    reply = near.post(TEXT, {"model": near.model, "prompt": "x", "max_tokens": 0})
    assert reply.status_code == 400
    assert "from 1 to" in reply.json()["error"]["message"]
