"""The embedded model from end to end: every type, a pipeline, a batch, turns of a chat."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from transformers import pipeline

import inf_llm
from inf_llm.chat.session import ChatSession
from inf_llm.config import SHIPPED_CONFIGS
from inf_llm.demo import plan, run_trial
from inf_llm.demo.trial import haystack_text
from inf_llm.needles import build

CONFIGS = {
    "origin": "demo-origin",
    "infinite-lm": "demo-infinite-lm",
    "stream-lm": "demo-stream-llm",
    "inf-llm": "demo-inf-llm",
}


def load(type: str) -> tuple[Any, Any]:
    return inf_llm.load(SHIPPED_CONFIGS / f"{CONFIGS[type]}.yaml")


@pytest.fixture(scope="module")
def loaded() -> tuple[Any, Any]:
    return load("inf-llm")


def passkeys(tokenizer: Any, lengths: tuple[int, ...]) -> tuple[list[str], list[str]]:
    """Prompts of these lengths, and the answers."""
    samples = [
        build("passkey", tokenizer, haystack_text(), length, 0.3, seed)
        for seed, length in enumerate(lengths)
    ]
    return [sample.prompt for sample in samples], [sample.answers[0] for sample in samples]


@pytest.mark.parametrize("type", CONFIGS)
def test_every_type_finds_what_is_within_the_trained_length(type: str) -> None:
    model, tokenizer = load(type)
    trial = run_trial(model, tokenizer, type, plan(tokenizer, "passkey", 400, 4, 0), 400, 2048)
    assert trial.accuracy == 1


@pytest.mark.parametrize(
    ("type", "found"),
    [("origin", 0), ("infinite-lm", 0), ("stream-lm", 0), ("inf-llm", 2)],
)
def test_only_the_memory_finds_what_is_far_back(type: str, found: int) -> None:
    model, tokenizer = load(type)
    hay = [build("passkey", tokenizer, haystack_text(), 3000, 0.1 + 0.3 * i, i) for i in range(2)]
    trial = run_trial(model, tokenizer, type, hay, 3000, 2048)
    assert sum(trial.found) == found


def test_a_pipeline(loaded: tuple[Any, Any]) -> None:
    model, tokenizer = loaded
    prompts, answers = passkeys(tokenizer, (1500,))
    write = pipeline("text-generation", model=model, tokenizer=tokenizer)
    outputs = write(prompts[0], max_new_tokens=8, do_sample=False, return_full_text=False)
    assert answers[0] in outputs[0]["generated_text"]


def test_a_batch_of_different_lengths(loaded: tuple[Any, Any]) -> None:
    model, tokenizer = loaded
    prompts, answers = passkeys(tokenizer, (900, 1500, 1200))
    tokens = tokenizer(prompts, return_tensors="pt", padding=True)
    with torch.inference_mode():
        written = model.generate(**tokens, max_new_tokens=8, do_sample=False)
    texts = tokenizer.batch_decode(written[:, tokens.input_ids.shape[1] :])
    assert [answer in text for answer, text in zip(answers, texts, strict=True)] == [True] * 3


def test_turns_of_a_chat(loaded: tuple[Any, Any]) -> None:
    chat = ChatSession(*loaded)
    prose = haystack_text()
    chat.add_document(f"{prose[:3000]} The pass key is 48213. Remember it. {prose[3000:5000]}")
    assert "48213" in chat.ask("What is the pass key?", max_new_tokens=16).text
    assert "48213" in chat.ask("What is the pass key?", max_new_tokens=16).text
