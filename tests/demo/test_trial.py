"""A trial finds what plain generation finds, and files it correctly."""

from __future__ import annotations

from typing import Any

import pytest
import torch

import inf_llm
from inf_llm.config import SHIPPED_CONFIGS
from inf_llm.demo import Trial, haystack_text, plan, run_trial
from inf_llm.hf.load import load


@pytest.fixture(scope="module", params=["origin", "infinite-lm", "stream-llm", "inf-llm"])
def loaded(request: pytest.FixtureRequest) -> tuple[Any, Any]:
    return load(SHIPPED_CONFIGS / f"demo-{request.param}.yaml")


def test_the_same_seed_plans_the_same_haystacks(loaded: tuple[Any, Any]) -> None:
    _, tokenizer = loaded
    first, again = (plan(tokenizer, "passkey", 700, 3, seed=5) for _ in range(2))
    assert first == again
    assert first != plan(tokenizer, "passkey", 700, 3, seed=6)
    assert [sample.depth for sample in first] == pytest.approx([1 / 6, 1 / 2, 5 / 6])


def test_answers_are_those_of_generate(loaded: tuple[Any, Any]) -> None:
    """Reading in chunks and in a batch changes nothing; the count is of exact answers."""
    model, tokenizer = loaded
    samples = plan(tokenizer, "passkey", 400, 4, seed=1)
    trial = run_trial(model, tokenizer, "x", samples, 400, chunk_size=128)

    wanted = []
    for sample in samples:
        ids = tokenizer(sample.prompt, return_tensors="pt").input_ids
        out = model.generate(
            ids, attention_mask=torch.ones_like(ids), max_new_tokens=12, do_sample=False
        )
        text = tokenizer.decode(out[0, ids.shape[1] :], skip_special_tokens=True)
        wanted.append(sample.found(text))
    assert trial.found == tuple(wanted)
    assert (trial.n, trial.task, trial.length) == (4, "passkey", 400)


def test_the_model_reads_a_needle_within_its_trained_length(loaded: tuple[Any, Any]) -> None:
    """All types see all of a text that fits the window, and the model can answer from it."""
    model, tokenizer = loaded
    samples = plan(tokenizer, "passkey", 240, 12, seed=3)
    assert run_trial(model, tokenizer, "x", samples, 240, 512).accuracy >= 0.75


def test_tokens_are_reported_as_they_are_read(loaded: tuple[Any, Any]) -> None:
    model, tokenizer = loaded
    told: list[int] = []
    samples = plan(tokenizer, "passkey", 900, 2, seed=0)
    run_trial(model, tokenizer, "x", samples, 900, 128, told.append)
    assert len(told) > 2
    assert abs(sum(told) - 1800) < 20


def test_a_memory_of_the_demo_does_not_grow_on_the_device() -> None:
    model, tokenizer = load(SHIPPED_CONFIGS / "demo-inf-llm.yaml")
    sizes = []
    for length in (2048, 3072):
        samples = plan(tokenizer, "passkey", length, 1, seed=0)
        sizes.append(run_trial(model, tokenizer, "x", samples, length, 512).device_kv_bytes)
    assert sizes[0] == sizes[1] > 0


def test_the_record_is_plain_json() -> None:
    trial = Trial("inf-llm", 4096, "passkey", (0.25, 0.75), (True, False), 2.0, 1000)
    assert trial.record() == {
        "type": "inf-llm",
        "length": 4096,
        "task": "passkey",
        "accuracy": 0.5,
        "n": 2,
        "seconds": 2.0,
        "tokens_per_second": 4096.0,
        "device_kv_bytes": 1000,
        "depths": [0.25, 0.75],
        "found": [True, False],
    }


def test_the_haystack_is_prose_and_long() -> None:
    text = haystack_text()
    assert len(text) > 500_000
    assert text.count(". ") > 2000
    assert inf_llm.__version__
