"""The answers of a request: what they take together, and what they leave."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from inf_llm.serve.answers import Answered, Choice
from tests.serve.inprocess import Local, local

BUDGET = 3_000_000
TEXT = "A story. " * 90


@pytest.fixture(scope="module")
def small() -> Iterator[Local]:
    with local(memory_budget=BUDGET, answer_tokens=4) as running:
        yield running


def test_the_tokens_of_all_answers_count() -> None:
    choices = (Choice(0, "a", "stop", 3), Choice(1, "b", "length", 4))
    assert Answered(choices, 1, 0, 0, 0.0).new_tokens == 7


def test_a_prompt_is_read_once_for_all_answers(
    small: Local, monkeypatch: pytest.MonkeyPatch
) -> None:
    fed = []
    model = small.app.engine.model
    forward = model.forward
    monkeypatch.setattr(
        model,
        "forward",
        lambda *args, **more: fed.append(more["input_ids"].numel()) or forward(*args, **more),
    )
    assert len(small.ask(TEXT, n=3).json()["choices"]) == 3
    assert sum(fed) == len(TEXT) + 3 * 3  # all but the last token of each answer is fed
    assert fed[-3:] == [3, 3, 3], "a pass feeds all answers"


def test_answers_leave_no_memory_in_use(small: Local) -> None:
    before = small.ask(TEXT).json()["choices"][0]["message"]
    held = small.app.engine.pool.bytes
    body = small.ask(TEXT, n=4).json()
    assert [choice["message"] for choice in body["choices"]] == [before] * 4
    assert small.app.engine.pool.bytes == held <= BUDGET


def test_several_answers_must_fit_the_budget_together(small: Local) -> None:
    most = small.app.intake._budget.tokens
    text = "x" * (most // 2)
    assert small.ask(text, max_tokens=1).status_code == 200
    reply = small.ask(text, n=8, max_tokens=1)
    assert reply.status_code == 413
    assert "for each of 8 such" in reply.json()["error"]["message"]
