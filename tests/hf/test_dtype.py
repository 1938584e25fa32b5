"""`dtype: auto` on a CPU: the faster format is taken, and no weight is rounded for it."""

from __future__ import annotations

import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM

import inf_llm
from inf_llm.hf import dtype as module
from inf_llm.hf.dtype import dtype_choice, settle_dtype
from tests.hf.families import exists
from tests.hf.tiny import character_tokenizer, tiny
from tests.hf.zoo import WORKING

F32, BF16, F16 = torch.float32, torch.bfloat16, torch.float16


@pytest.fixture(autouse=True)
def _nothing_known(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_known", {})


@pytest.fixture
def pretend(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Let a layer take so many seconds in each format; counts how often it is asked."""
    timings = []

    def set_times(**seconds: float) -> list[Any]:
        def timed(model: Any, formats: Any) -> dict[torch.dtype, float]:
            timings.append(formats)
            return {each: seconds[module.dtype_name(each)] for each in formats}

        monkeypatch.setattr(module, "time_formats", timed)
        return timings

    return set_times


def checkpoint(folder: Path, dtype: torch.dtype) -> Path:
    """A configuration of a tiny model saved in a format."""
    tiny().to(dtype).save_pretrained(folder / "model")
    character_tokenizer().save_pretrained(folder / "model")
    file = folder / "run.yaml"
    file.write_text(f"model:\n  type: stream-lm\n  path: {folder / 'model'}\n")
    return file


# format of the checkpoint: seconds in each, and what is to be used
FASTEST = {
    "bf16, float32 wins": (BF16, {"float32": 1.0, "bfloat16": 5.0}, F32),
    "bf16, bfloat16 wins": (BF16, {"float32": 5.0, "bfloat16": 1.0}, BF16),
    "bf16, nearly equal": (BF16, {"float32": 1.0, "bfloat16": 1.1}, BF16),
    "f16, float32 wins": (F16, {"float32": 1.0, "float16": 9.0}, F32),
    "f16, float16 wins": (F16, {"float32": 9.0, "float16": 1.0}, F16),
}


@pytest.mark.parametrize("name", FASTEST)
def test_the_faster_format_is_taken(name: str, tmp_path: Path, pretend: Any) -> None:
    saved, seconds, wanted = FASTEST[name]
    pretend(**seconds)
    model, _ = inf_llm.load(checkpoint(tmp_path, saved))
    choice = dtype_choice(model)
    assert choice is not None
    assert choice.dtype == model.dtype == model.config.dtype == wanted
    told = str(choice)
    assert told.startswith(module.dtype_name(wanted))
    assert all(other in told for other in seconds)
    plain = AutoModelForCausalLM.from_pretrained(tmp_path / "model", dtype="auto")
    for (key, got), (_, kept) in zip(
        model.named_parameters(), plain.named_parameters(), strict=True
    ):
        assert got.dtype == wanted, key
        assert torch.equal(got.float(), kept.float()), key


def test_a_wide_checkpoint_is_never_rounded(tmp_path: Path, pretend: Any) -> None:
    timings = pretend(float32=9.0, bfloat16=1.0)
    model, _ = inf_llm.load(checkpoint(tmp_path, F32))
    assert model.dtype == F32
    assert dtype_choice(model) is None
    assert not timings


@pytest.mark.parametrize("named", ["float32", "bfloat16", "float16"])
def test_a_format_that_is_named_is_left(named: str, tmp_path: Path, pretend: Any) -> None:
    timings = pretend(float32=1.0, bfloat16=5.0)
    model, _ = inf_llm.load(checkpoint(tmp_path, BF16), [f"model.dtype={named}"])
    assert module.dtype_name(model.dtype) == named
    assert dtype_choice(model) is None
    assert not timings


def test_models_side_by_side_are_in_one_format(tmp_path: Path, pretend: Any) -> None:
    """A second measurement might fall out otherwise, and the comparison would be of formats."""
    file = checkpoint(tmp_path, BF16)
    timings = pretend(float32=1.0, bfloat16=5.0)
    inf_llm.load(file)
    pretend(float32=5.0, bfloat16=1.0)
    model, _ = inf_llm.load(file, ["model.type=infinite-lm"])
    assert model.dtype == F32
    assert len(timings) == 1


def test_no_wider_format_than_there_is_memory_for(
    monkeypatch: pytest.MonkeyPatch, pretend: Any
) -> None:
    timings = pretend(float32=1.0, bfloat16=5.0)
    model = tiny().to(BF16)
    need = 2 * sum(weight.numel() for weight in model.parameters())
    monkeypatch.setattr("psutil.virtual_memory", lambda: SimpleNamespace(available=need))
    assert settle_dtype(model).dtype == BF16
    assert not timings
    monkeypatch.setattr("psutil.virtual_memory", lambda: SimpleNamespace(available=2 * need))
    assert settle_dtype(model).dtype == F32


def test_weights_of_a_gguf_file_may_be_rounded_and_positions_are_not(pretend: Any) -> None:
    model = tiny()
    frequencies = model.model.rotary_emb.inv_freq.clone()
    model.config.quantization_config = SimpleNamespace(quant_method="gguf")
    pretend(float32=5.0, bfloat16=1.0)
    assert settle_dtype(model).dtype == BF16
    assert torch.equal(model.model.rotary_emb.inv_freq, frequencies)


def test_other_quantised_weights_and_those_elsewhere_are_left(pretend: Any) -> None:
    timings = pretend(float32=1.0, bfloat16=5.0)
    packed = tiny().to(BF16)
    packed.config.quantization_config = SimpleNamespace(quant_method="bitsandbytes")
    on_disk = tiny().to(BF16)
    on_disk.lm_head.to("meta")
    for model in (packed, on_disk):
        assert settle_dtype(model).dtype == BF16
        assert dtype_choice(model) is None
    assert not timings


@pytest.mark.parametrize("family", WORKING)
def test_a_layer_of_every_family_is_timed(family: str, monkeypatch: pytest.MonkeyPatch) -> None:
    if not exists(WORKING[family]):
        pytest.skip(f"this transformers has no {family}")
    monkeypatch.setattr(module, "_SECONDS", 0)
    model, threads = tiny(family).to(BF16), torch.get_num_threads()
    choice = dtype_choice(settle_dtype(model))
    assert torch.get_num_threads() == threads
    assert not any(part._forward_pre_hooks for part in model.modules())
    assert choice is not None
    assert choice.seconds.keys() == {BF16, F32}
    assert all(0 < seconds < 1 for seconds in choice.seconds.values())


def test_it_takes_well_under_a_second() -> None:
    started = time.perf_counter()
    settle_dtype(tiny().to(BF16))
    assert time.perf_counter() - started < 1
