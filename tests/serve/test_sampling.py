"""How answers are made: seeds and ends."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch

from inf_llm.generation.decoding import Decoding
from inf_llm.serve.sampling import LONGEST_STOP, MAX_STOPS, sampling_of
from tests.serve.inprocess import Local, local
from tests.serve.questions import refused


def test_each_answer_has_the_next_seed() -> None:
    assert [sampling_of({"seed": 5}).seed_of(i) for i in range(3)] == [5, 6, 7]
    assert sampling_of({"seed": -1}).seed_of(1) == 0, "seeds go round"
    assert sampling_of({}).seed_of(1) is None


def test_stops_are_bounded_in_number_and_length() -> None:
    most = [str(number) for number in range(MAX_STOPS)]
    assert sampling_of({"stop": most}).stop == tuple(most)
    for stop in ([*most, "x"], "x" * (LONGEST_STOP + 1), [1], 5):
        error = refused({"stop": stop})
        assert error.param == "stop"
        assert str(MAX_STOPS) in error.message


PROMPT, LENGTH = list(b"It was the best of times"), 12


@pytest.fixture(scope="module")
def near() -> Iterator[Local]:
    with local(answer_tokens=LENGTH) as running:
        yield running


def _ids(near: Local, **more: Any) -> list[int]:
    """Tokens of an answer, which its text may not show: the tiny tokenizer's are bytes."""
    taken: list[int] = []
    choose = Decoding.choose

    def noted(row: Decoding, logits: Any) -> None:
        choose(row, logits)
        taken.append(row.new[-1])

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Decoding, "choose", noted)
        reply = near.post("/v1/completions", {"model": near.model, "prompt": PROMPT, **more})
    assert reply.status_code == 200, reply.text
    assert reply.json()["usage"]["completion_tokens"] == len(taken)
    return taken


def _greedy(near: Local, change: Callable[[torch.Tensor, list[int]], torch.Tensor]) -> list[int]:
    """An answer token by token, by the model's own logits and what is said of them."""
    answer: list[int] = []
    for _ in range(LENGTH):
        ids = torch.tensor([PROMPT + answer])
        with torch.no_grad():
            logits = near.app.engine.model(input_ids=ids).logits[0, -1].float()
        answer.append(int(change(logits.clone(), answer).argmax()))
    return answer


def _repetition(logits: torch.Tensor, answer: list[int]) -> torch.Tensor:
    for token in {*PROMPT, *answer}:
        logits[token] = logits[token] / 1.4 if logits[token] > 0 else logits[token] * 1.4
    return logits


def _counted(logits: torch.Tensor, answer: list[int]) -> torch.Tensor:
    for token in answer:
        logits[token] -= 1.5
    for token in {*answer}:
        logits[token] -= 0.5
    return logits


@pytest.mark.parametrize(
    ("options", "change"),
    [
        ({}, lambda logits, answer: logits),
        ({"repetition_penalty": 1.4}, _repetition),
        ({"frequency_penalty": 1.5, "presence_penalty": 0.5}, _counted),
        (
            {"logit_bias": {"65": 50, "66": -100}},
            lambda logits, answer: logits.index_add(
                0, torch.tensor([65, 66]), torch.tensor([50.0, -100.0])
            ),
        ),
    ],
    ids=["plain", "repetition", "counts", "bias"],
)
def test_a_greedy_answer_follows_what_is_said_of_its_logits(
    near: Local, options: dict[str, Any], change: Any
) -> None:
    wanted = _greedy(near, change)
    assert _ids(near, **options) == wanted
    assert not options or wanted != _greedy(near, lambda logits, answer: logits)


def test_min_p_draws_from_the_likely_ones_only(near: Local) -> None:
    """Every token that was drawn has its share of the likeliest one's probability, and some of
    those drawn without it have not."""
    options = {"temperature": 2.0, "seed": 1, "max_tokens": LENGTH}
    shares = {}
    for least in (0.0, 0.3):
        answer = _ids(near, **options, min_p=least)
        ids = torch.tensor([PROMPT + answer])
        with torch.no_grad():
            logits = near.app.engine.model(input_ids=ids).logits[0, len(PROMPT) - 1 : -1]
        drawn = (logits.float() / 2.0).softmax(-1)
        taken = drawn[range(LENGTH), answer] / drawn.max(-1).values
        shares[least] = float(taken.min())
    assert shares[0.3] >= 0.3 > shares[0.0]


def test_tokens_that_end_an_answer(near: Local, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = _ids(near)
    monkeypatch.setattr(near.app.engine._rows, "ends", [whole[2]])
    body = {"model": near.model, "prompt": PROMPT}
    ended = near.post("/v1/completions", body).json()
    assert ended["choices"][0]["finish_reason"] == "stop"
    assert _ids(near) == whole[: whole.index(whole[2]) + 1]
    assert _ids(near, ignore_eos=True) == whole
    later = _ids(near, min_tokens=6)
    assert len(later) >= 6
    assert whole[2] not in later[:6]
    ignored = near.post("/v1/completions", body | {"ignore_eos": True, "max_tokens": 3}).json()
    assert ignored["choices"][0]["finish_reason"] == "length"


def test_least_and_most_tokens_of_an_answer_that_has_little_room() -> None:
    with local(max_len=len(PROMPT) + 3) as tight:
        assert len(_ids(tight, min_tokens=50)) == 3
