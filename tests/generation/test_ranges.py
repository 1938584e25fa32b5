"""What a caller asks for: checked before anything is read, and then done."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from transformers import GenerationConfig

import inf_llm
from inf_llm.errors import InfLLMError
from inf_llm.generation import Session
from inf_llm.generation.options import (
    answer_options,
)
from tests.checkpoints import SETTINGS, script
from tests.generation.test_options import NEW, TEXT, answer

REFUSED: dict[str, tuple[dict[str, Any], str]] = {
    "a misspelt name": ({"temprature": 0.5}, "temprature is not .*'temperature'"),
    "another's name": ({"max_tokens": 5}, "max_tokens is not .*'max_new_tokens'"),
    "no tokens": ({"max_new_tokens": 0}, "max_new_tokens = 0 is too small: at least 1"),
    "fewer": ({"max_new_tokens": -3}, "max_new_tokens = -3 is too small"),
    "half a token": ({"max_new_tokens": 2.5}, "max_new_tokens = 2.5 is not a whole number"),
    "tokens in words": ({"max_new_tokens": "9"}, "max_new_tokens = '9' is not a whole number"),
    "true tokens": ({"max_new_tokens": True}, "max_new_tokens = true is not a whole number"),
    "beams": ({"num_beams": 2}, "num_beams = 2 does not suit a session"),
    "answers": ({"num_return_sequences": 2}, "num_return_sequences = 2 does not suit"),
    "no cache": ({"use_cache": False}, "use_cache = False does not suit"),
    "another cache": ({"cache_implementation": "static"}, "cache_implementation = 'static' does"),
    "a dictionary": ({"return_dict_in_generate": True}, "return_dict_in_generate = True does not"),
    "a whole length": ({"max_length": 9}, "max_length = 9 does not suit.*max_new_tokens"),
    "stop strings": ({"stop_strings": ["x"]}, "stop_strings .* does not suit.*stop takes texts"),
    "chunks": ({"prefill_chunk_size": 8}, "prefill_chunk_size = 8 does not suit.*chunk_size"),
    "far from any": ({"xyzzy": 1}, "xyzzy is not an argument here; accepted are max_new_tokens"),
    "its own ids": ({"input_ids": torch.ones(1, 1)}, "input_ids = .* does not suit a session"),
    "its own cache": ({"past_key_values": "x"}, "past_key_values = 'x' does not suit a session"),
    "below zero": ({"temperature": -1}, "temperature = -1 is out of range: a number from 0 to"),
    "too warm": ({"temperature": 1e300}, r"temperature = 1e\+300 is out of range"),
    "no number": ({"temperature": float("nan")}, "temperature = nan is not a finite number"),
    "without end": ({"temperature": float("inf")}, "temperature = inf is not a finite number"),
    "in words": ({"temperature": "warm"}, "temperature = 'warm' is not a finite number"),
    "true": ({"temperature": True}, "temperature = true is not a finite number"),
    "both": ({"do_sample": True, "temperature": 0}, "do_sample = True and temperature = 0"),
    "sampled perhaps": ({"do_sample": "yes"}, "do_sample = 'yes' is not true or false"),
    "without effect": ({"top_p": 0.9}, "top_p = 0.9 acts on sampling only"),
    "more than all": ({"temperature": 1.0, "top_p": 1.5}, "top_p = 1.5 is out of range: a number"),
    "that too, with no effect": ({"temperature": 0, "top_p": 1.5}, "top_p = 1.5 is out of range"),
    "less than none": ({"temperature": 1.0, "top_k": -1}, "top_k = -1 is too small: at least 0"),
    "no penalty": ({"repetition_penalty": 0}, "generate refuses repetition_penalty = 0.0"),
    "a penalty below": ({"repetition_penalty": -1.0}, "repetition_penalty = -1.0 is out of range"),
    "no number at all": ({"repetition_penalty": float("nan")}, "repetition_penalty = nan is not"),
    "words out of reach": ({"bad_words_ids": [[5, 10**6]]}, "bad_words_ids has 1000000: token"),
    "an end in words": ({"eos_token_id": "</s>"}, "eos_token_id has '</s>': token ids from 0 to"),
    "no time": ({"max_time": "soon"}, "max_time = 'soon' is not a finite number"),
    "time gone by": ({"max_time": -1}, "max_time = -1 is out of range: a number from 0"),
    "an end below": ({"eos_token_id": [1, -1]}, "eos_token_id has -1: token ids from 0 to"),
    "an end that is none": ({"eos_token_id": True}, "eos_token_id has True: token ids from 0"),
    "an end at last": ({"forced_eos_token_id": 10**7}, "forced_eos_token_id has 10000000: token"),
    "none out of reach": ({"suppress_tokens": {10**6}}, "suppress_tokens has 1000000: token ids"),
    "nor at first": ({"begin_suppress_tokens": torch.tensor([-2])}, "begin_suppress_tokens has -2"),
    "a bias for none": ({"sequence_bias": {(5, 10**6): 1.0}}, "sequence_bias has 1000000: token"),
    "that as a list": ({"sequence_bias": [[[10**6], 1.0]]}, "sequence_bias has 1000000: token"),
    "all left out": ({"suppress_tokens": list(range(258))}, "it leaves no token to choose"),
    "words of no length": ({"no_repeat_ngram_size": -1}, "no_repeat_ngram_size = -1 is too small"),
    "half a word": ({"no_repeat_ngram_size": 1.5}, "no_repeat_ngram_size = 1.5 is not a whole"),
    "more than the most": (
        {"min_new_tokens": 9},
        "min_new_tokens = 9 is more than max_new_tokens = 4",
    ),
    "not guided": ({"negative_prompt_ids": torch.ones(1, 2)}, "negative_prompt_ids has 1.0"),
    "guided by none": (
        {"negative_prompt_ids": torch.ones(1, 2).long()},
        "negative_prompt_ids act beside a guidance_scale only",
    ),
    "guided by two": (
        {"negative_prompt_ids": torch.ones(2, 2).long(), "guidance_scale": 2},
        r"a tensor of shape \(1, n\)",
    ),
    "a mask of nothing": (
        {"negative_prompt_attention_mask": torch.ones(1, 2), "guidance_scale": 2},
        "must have the shape of negative_prompt_ids",
    ),
    "of beams": ({"length_penalty": 2.0}, "length_penalty = 2.0 does not suit a session"),
    "of guesses": ({"num_assistant_tokens": 3}, "num_assistant_tokens = 3 does not suit"),
    "perhaps": ({"renormalize_logits": "no"}, "renormalize_logits = 'no' is not true or false"),
    "guesses": ({"prompt_lookup_num_tokens": 3}, "prompt_lookup_num_tokens = 3 does not.*empty"),
    "guided in words": ({"guidance_scale": "strong"}, "guidance_scale = 'strong' is not a finite"),
    "not a config": ({"generation_config": {"top_k": 1}}, "generation_config is a dict"),
    "beams in a config": (
        {"generation_config": GenerationConfig(num_beams=2)},
        "num_beams = 2 does not suit",
    ),
    "no stop": ({"stop": ""}, "stop has ''"),
    "no stop among them": ({"stop": ["x", ""]}, "stop has ''"),
    "a number": ({"stop": [5]}, "stop has 5: a text is accepted"),
    "bytes": ({"stop": b"x"}, "stop has b'x'"),
    "half a character": ({"stop": ["\ud83d"]}, "stop is not text in UTF-8"),
    "not a streamer": ({"streamer": print}, "streamer = .* is not an object with put and end"),
    "no progress": ({"on_progress": 5}, "on_progress = 5 is not a function"),
    "no criterion": ({"stopping_criteria": "x"}, "stopping_criteria = 'x' is not a function"),
    "one that is none": ({"logits_processor": [print, 5]}, "logits_processor = 5 is not"),
    "not allowed": ({"prefix_allowed_tokens_fn": 5}, "prefix_allowed_tokens_fn = 5 is not"),
    "no assistant": (
        {"assistant_model": torch.nn.Linear(2, 2)},
        "assistant_model = Linear.* does not suit",
    ),
}


@pytest.fixture(scope="module", params=[True, False], ids=["inf-llm", "not patched"])
def asked_in_vain(request: pytest.FixtureRequest, tokenizer: Any) -> Session:
    """A session that has read a text, and stays as it is."""
    model = script().make_model(len(tokenizer))
    if request.param:
        inf_llm.patch(model, type="inf-llm", **SETTINGS["inf-llm"])
    session = Session(model, tokenizer)
    session.read(TEXT)
    return session


@pytest.mark.parametrize("what", REFUSED)
def test_what_is_refused_costs_nothing(asked_in_vain: Session, what: str) -> None:
    session, (options, message) = asked_in_vain, REFUSED[what]
    before, cache = (session.fed, list(session.ids), session.stats()), session.cache
    calls: list[int] = []
    hook = session.model.register_forward_pre_hook(lambda *_: calls.append(1))
    try:
        with pytest.raises(InfLLMError, match=message) as refusal:
            session.ask("What else?", **{"max_new_tokens": 4, **options})
    finally:
        hook.remove()
    assert "\n" not in str(refusal.value)
    assert not calls
    assert (session.fed, session.ids, session.stats()) == before
    assert session.cache is cache


ACCEPTED: dict[str, dict[str, Any]] = {
    "what it does anyway": {"num_beams": 1, "use_cache": True, "return_dict_in_generate": False},
    "nothing": {"temperature": None, "top_p": None, "stop": None, "streamer": None},
    "not sampled": {"do_sample": False, "temperature": 0.7},
    "one function": {"logits_processor": lambda ids, scores: scores},
    "functions": {"stopping_criteria": [lambda ids, scores: torch.zeros(1, dtype=torch.bool)]},
    "a config": {"generation_config": GenerationConfig(do_sample=False)},
    "a neutral penalty": {"repetition_penalty": 1.0},
    "neutral beams": {"length_penalty": 1.0, "early_stopping": False},
    "no repeats": {"no_repeat_ngram_size": 0, "min_new_tokens": NEW, "suppress_tokens": []},
}


def test_an_argument_goes_before_a_config(memory_model: Any, tokenizer: Any) -> None:
    session = Session(memory_model, tokenizer)
    session.read(TEXT)
    short = {"generation_config": GenerationConfig(max_new_tokens=2), "eos_token_id": None}
    assert len(session.fork().ask("Why?", **short).token_ids) == 2
    assert len(session.fork().ask("Why?", max_new_tokens=6, **short).token_ids) == 6
    chat = inf_llm.ChatSession(memory_model, tokenizer, "plain")
    assert chat.ask("Why?", generation_config=GenerationConfig(max_new_tokens=2)).new_tokens == 2
    options = answer_options(memory_model, tokenizer, None, {})
    assert options["max_new_tokens"] == 128


@pytest.mark.parametrize("what", ACCEPTED)
def test_what_changes_nothing_is_accepted(memory_model: Any, tokenizer: Any, what: str) -> None:
    wanted = answer(memory_model, tokenizer).token_ids
    assert answer(memory_model, tokenizer, **ACCEPTED[what]).token_ids == wanted


@pytest.mark.parametrize(
    "options",
    [
        {"repetition_penalty": 9.0},
        {"no_repeat_ngram_size": 1},
        {"bad_words_ids": [[token] for token in range(2, 120)]},
        {"generation_config": GenerationConfig(repetition_penalty=9.0)},
        {"logits_processor": lambda ids, scores: -scores},
        {"guidance_scale": 3.0},
        {"max_time": 1e-9},
    ],
    ids=lambda options: next(iter(options)),
)
def test_what_is_asked_for_is_done(
    memory_model: Any, tokenizer: Any, options: dict[str, Any]
) -> None:
    wanted = answer(memory_model, tokenizer).token_ids
    assert answer(memory_model, tokenizer, **options).token_ids != wanted
