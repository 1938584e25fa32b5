"""Likelihoods of tokens, beside the model's own logits of the whole text at once."""

from __future__ import annotations

from typing import Any

import pytest
import torch

import inf_llm
from inf_llm.generation import Session
from inf_llm.generation.likelihood import ROWS, PromptScores, scored
from tests.tiny import SETTINGS, tiny_model, tiny_tokenizer

IDS = [(7 * i * i + 3 * i) % 250 for i in range(300)]


@pytest.fixture(scope="module", params=["inf-llm", "bare"])
def model(request: pytest.FixtureRequest) -> Any:
    found = tiny_model()
    if request.param == "inf-llm":
        inf_llm.patch(found, type="inf-llm", **SETTINGS)
    return found


def test_tokens_and_the_likeliest_in_their_places() -> None:
    count = 2 * ROWS + 5
    logits = torch.randn(count, 40)
    tokens = [i % 40 for i in range(count)]
    found = list(scored(logits, tokens, 3))
    assert [each.token for each in found] == tokens
    for each, row in zip(found, logits.log_softmax(-1), strict=True):
        assert each.logprob == pytest.approx(float(row[each.token]), abs=1e-6)
        order = row.argsort(descending=True)[:3]
        assert [token for token, _ in each.top] == order.tolist()
        assert [logprob for _, logprob in each.top] == pytest.approx(row[order].tolist())
    assert [each.top for each in scored(logits, tokens, 0)] == [()] * count
    assert len(next(scored(logits, tokens, 100)).top) == 40


@pytest.mark.parametrize("length", [1, 2, 32, 33, 65, 300])
@pytest.mark.parametrize("chunk", [32, 4096])
def test_a_prompt_is_scored_as_the_whole_text_is(model: Any, length: int, chunk: int) -> None:
    session, ids = Session(model, tiny_tokenizer(), chunk), IDS[:length]
    scores = PromptScores(ids, 2)
    for _ in session.reading(ids, scores.on_logits):
        pass
    found = scores.finish(session.fork())
    assert [each.token for each in found] == ids
    assert found[0].logprob is None
    if length > 1:
        with torch.no_grad():
            whole = model(input_ids=torch.tensor([ids[:-1]])).logits[0].log_softmax(-1)
        wanted = [float(row[token]) for row, token in zip(whole, ids[1:], strict=True)]
        assert [each.logprob for each in found[1:]] == pytest.approx(wanted, abs=1e-4)
        assert [each.top[0][0] for each in found[1:]] == whole.argmax(-1).tolist()
