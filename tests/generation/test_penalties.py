"""Penalties, beside a statement of them token by token."""

from __future__ import annotations

import pytest
import torch

from inf_llm.generation.penalties import AnswerPenalties

PROMPT, ANSWER = [3, 3, 5], [1, 2, 1, 5, 1]


@pytest.mark.parametrize(("frequency", "presence"), [(0.5, 0), (0, 1.5), (-2, 2), (0.25, -0.5)])
def test_tokens_of_the_answer_lose_what_is_said(frequency: float, presence: float) -> None:
    scores = torch.linspace(-2, 3, 8)[None]
    wanted = [
        score - (frequency * ANSWER.count(token) + presence if token in ANSWER else 0)
        for token, score in enumerate(scores[0].tolist())
    ]
    found = AnswerPenalties(len(PROMPT), frequency, presence)(
        torch.tensor([PROMPT + ANSWER]), scores
    )
    torch.testing.assert_close(found, torch.tensor([wanted]))
    unchanged = AnswerPenalties(3, frequency, presence)(torch.tensor([PROMPT]), scores)
    assert torch.equal(unchanged, scores)
