"""What a checkpoint suggests changes no session."""

from __future__ import annotations

import json
import logging
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM, GenerationConfig

import inf_llm
from inf_llm.generation import Answer, Session
from inf_llm.generation.options import (
    FOR_SAMPLING,
    FROM_CHECKPOINT,
    OWN,
    answer_options,
    fields,
    own_options,
)
from tests.checkpoints import SETTINGS

TEXT = "The quick brown fox jumps over the lazy dog. " * 8
NEW = 8
KINDS = (None, "inf-llm")

SUGGESTED: dict[str, Any] = {
    "max_length": 30,
    "max_new_tokens": 3,
    "min_length": 900,
    "min_new_tokens": 700,
    "early_stopping": "never",
    "max_time": 1e-9,
    "stop_strings": ["e", "a", " "],
    "do_sample": True,
    "num_beams": 3,
    "cache_implementation": "static",
    "cache_config": {"backend": "quanto", "nbits": 4},
    "max_cache_len": 64,
    "temperature": 9.5,
    "top_k": 7,
    "top_p": 0.3,
    "min_p": 0.4,
    "top_h": 0.4,
    "typical_p": 0.3,
    "epsilon_cutoff": 0.3,
    "eta_cutoff": 0.3,
    "repetition_penalty": 9.0,
    "encoder_repetition_penalty": 0.05,
    "length_penalty": -3.0,
    "no_repeat_ngram_size": 1,
    "encoder_no_repeat_ngram_size": 1,
    "bad_words_ids": [[token] for token in range(2, 120)],
    "suppress_tokens": list(range(2, 120)),
    "begin_suppress_tokens": list(range(2, 120)),
    "sequence_bias": [[[65], 99.0]],
    "exponential_decay_length_penalty": [1, 9.0],
    "forced_bos_token_id": 66,
    "forced_eos_token_id": 67,
    "watermarking_config": {"bias": 99.0, "context_width": 1},
    "guidance_scale": 9.0,
    "pad_token_id": 99,
    "bos_token_id": 9,
    "decoder_start_token_id": 9,
    "num_assistant_tokens": 3,
    "num_assistant_tokens_schedule": "heuristic",
    "assistant_confidence_threshold": 0.99,
    "prompt_lookup_num_tokens": 4,
    "max_matching_ngram_size": 3,
    "assistant_early_exit": 1,
    "assistant_lookbehind": 3,
    "target_lookbehind": 3,
    "assistant_ensemble_weight": 0.5,
    "speculation_type": "dflash",
    "continuous_batching_config": None,  # refused by some releases when a file has it
    "compile_config": None,  # an object that no file can hold
    "penalty_alpha": 0.9,
    "dola_layers": "high",
    "diversity_penalty": 0.9,
    "num_beam_groups": 2,
    "constraints": [1],
    "force_words_ids": [[[65]]],
    "prefill_chunk_size": 7,
}
"""Values that are unusual; all other settings, of later releases too, are set to true."""

WITH = {"num_return_sequences": {"num_return_sequences": 2, "do_sample": True}}
"""Some files are refused by transformers without a second setting."""

BITING = {
    *("max_time", "stop_strings", "num_beams", "cache_implementation", "repetition_penalty"),
    *("no_repeat_ngram_size", "bad_words_ids", "suppress_tokens", "begin_suppress_tokens"),
    *("sequence_bias", "watermarking_config", "num_return_sequences"),
    *("return_dict_in_generate", "token_healing"),
}
"""Some that would be felt, if they were not overridden."""


@pytest.fixture(scope="module")
def folder(bare: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint on disk."""
    folder = tmp_path_factory.mktemp("checkpoint")
    bare.save_pretrained(folder)
    return folder


Load = Callable[..., Any]


@pytest.fixture
def load(folder: Path, tmp_path: Path) -> Load:
    """Loads the checkpoint with other files: what a file has on top, or None for no file."""

    def load(kind: str | None = "inf-llm", **files: dict[str, Any] | None) -> Any:
        shutil.copytree(folder, tmp_path, dirs_exist_ok=True)
        for name, values in files.items():
            file = tmp_path / f"{name}.json"
            if values is None:
                file.unlink()
            else:
                file.write_text(json.dumps(json.loads(file.read_text()) | values))
        model = AutoModelForCausalLM.from_pretrained(tmp_path).eval()
        return inf_llm.patch(model, type=kind, **SETTINGS[kind]) if kind else model

    return load


def answer(model: Any, tokenizer: Any, **options: Any) -> Answer:
    session = Session(model, tokenizer)
    session.read(TEXT)
    return session.ask("And then?", max_new_tokens=NEW, **options)


@pytest.fixture(scope="module")
def plain(folder: Path, tokenizer: Any) -> dict[str | None, tuple[int, ...]]:
    """What the checkpoint says without suggestions, per type."""
    answers = {}
    for kind in KINDS:
        model = AutoModelForCausalLM.from_pretrained(folder).eval()
        if kind:
            inf_llm.patch(model, type=kind, **SETTINGS[kind])
        answers[kind] = answer(model, tokenizer).token_ids
    return answers


@pytest.fixture(scope="module")
def loaded(folder: Path) -> dict[str | None, Any]:
    """The checkpoint per type, for tests that change nothing but its suggestions."""
    models = {kind: AutoModelForCausalLM.from_pretrained(folder).eval() for kind in KINDS}
    inf_llm.patch(models["inf-llm"], type="inf-llm", **SETTINGS["inf-llm"])
    return models


@pytest.mark.parametrize("kind", KINDS, ids=["not patched", "inf-llm"])
@pytest.mark.parametrize("name", sorted(fields() - {"eos_token_id"}))
def test_no_suggestion_changes_an_answer(
    loaded: Any, tmp_path: Path, plain: Any, tokenizer: Any, kind: str | None, name: str
) -> None:
    value = False if name == "use_cache" else SUGGESTED.get(name, True)
    suggested = {name: value} | WITH.get(name, {})
    (tmp_path / "generation_config.json").write_text(json.dumps(suggested))
    loaded[kind].generation_config = GenerationConfig.from_pretrained(tmp_path)
    assert getattr(loaded[kind].generation_config, name) is not None or value is None
    assert answer(loaded[kind], tokenizer).token_ids == plain[kind]


@pytest.mark.parametrize("name", sorted(BITING & fields()))
def test_suggestions_do_change_what_generate_says(
    load: Load, plain: Any, tokenizer: Any, name: str
) -> None:
    """The control: with nothing overridden it is another answer, or none."""
    config = {name: SUGGESTED.get(name, True)} | WITH.get(name, {})
    model = load("inf-llm", generation_config=config)
    session = Session(model, tokenizer)
    session.read(TEXT + "And then?")
    assert _followed(model, session) != plain["inf-llm"]


def _followed(model: Any, session: Session) -> tuple[int, ...] | None:
    """What `generate` says by itself; None where it fails."""
    ids = torch.tensor([session.ids])
    options = {"attention_mask": torch.ones_like(ids), "past_key_values": session.cache}
    try:
        output = model.generate(ids, max_new_tokens=NEW, **options)
        return tuple(output[0, ids.shape[1] :].tolist())
    except Exception:
        return None


@pytest.mark.parametrize("kind", KINDS, ids=["not patched", "inf-llm"])
@pytest.mark.parametrize(
    "config",
    [{"use_cache": False}, {"num_beams": 2, "temperature": 0.3}, {"output_hidden_states": True}],
    ids=str,
)
def test_nor_does_the_older_form(
    load: Load, plain: Any, tokenizer: Any, kind: str | None, config: dict[str, Any]
) -> None:
    """In config.json, with no generation_config.json."""
    model = load(kind, config=config, generation_config=None)
    kept: list[Any] = []
    model.register_forward_hook(lambda module, given, out: kept.append(out.hidden_states))
    session = Session(model, tokenizer)
    session.read(TEXT)
    assert kept
    assert set(kept) == {None}, "a long text's hidden states are kept for nobody"
    assert session.ask("And then?", max_new_tokens=NEW).token_ids == plain[kind]
    assert session.fed == len(session.ids) - 1


def test_what_ends_an_answer_is_the_checkpoints(load: Load, plain: Any, tokenizer: Any) -> None:
    last = plain["inf-llm"][2]
    model = load("inf-llm", generation_config={"eos_token_id": [1, last]})
    ids = answer(model, tokenizer).token_ids
    assert ids == plain["inf-llm"][: plain["inf-llm"].index(last) + 1]


def test_every_setting_is_said_or_left_on_purpose(tokenizer: Any) -> None:
    assert fields() - own_options(tokenizer, 5).keys() == FROM_CHECKPOINT & fields()
    left = fields() - own_options(tokenizer, 5, samples=True).keys()
    assert left == (FROM_CHECKPOINT | FOR_SAMPLING) & fields()
    assert not OWN.keys() & (FROM_CHECKPOINT | FOR_SAMPLING)
    assert {"use_cache", "num_beams", "max_length", "temperature"} <= fields()


def test_nothing_is_said_about_what_is_overridden(
    load: Load, tokenizer: Any, caplog: pytest.LogCaptureFixture, recwarn: pytest.WarningsRecorder
) -> None:
    names = ("max_length", "temperature", "top_p", "top_k", "do_sample", "min_p")
    model = load(generation_config={name: SUGGESTED[name] for name in names})
    logging.getLogger("transformers").propagate = True
    recwarn.clear()
    answer(model, tokenizer)
    assert not [record.message for record in caplog.records]
    assert not [str(warning.message) for warning in recwarn]


def test_suggestions_for_sampling_hold_where_an_answer_is_sampled(
    load: Load, plain: Any, tokenizer: Any
) -> None:
    torch.manual_seed(0)
    model = load("inf-llm", generation_config={"top_k": 1})
    assert answer(model, tokenizer, temperature=9.0).token_ids == plain["inf-llm"]
    assert answer(model, tokenizer, temperature=9.0, top_k=0).token_ids != plain["inf-llm"]
    model = load("inf-llm", generation_config={"top_k": 0, "temperature": 1e-4})
    assert answer(model, tokenizer, do_sample=True).token_ids == plain["inf-llm"]


@pytest.mark.parametrize("temperature", [0, 0.0, 1e-300, 1e-40, 1e-38, 1e-6])
def test_a_temperature_of_nothing_is_greedy(
    memory_model: Any, tokenizer: Any, temperature: float
) -> None:
    wanted = answer(memory_model, tokenizer).token_ids
    greedy = answer(memory_model, tokenizer, temperature=temperature, top_p=0.5, top_k=3)
    assert greedy.token_ids == wanted


@pytest.mark.parametrize("temperature", [1e-5, 1, 2, 1e6])
def test_other_temperatures_sample(memory_model: Any, tokenizer: Any, temperature: float) -> None:
    options = answer_options(memory_model, tokenizer, 5, {"temperature": temperature})
    assert options["do_sample"] is True
    assert type(options["temperature"]) is float
    ends = {"eos_token_id": None}
    assert len(answer(memory_model, tokenizer, temperature=temperature, **ends).token_ids) == NEW
