"""A model is outlined without its weights, whatever its architecture."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from packaging.version import Version

from inf_llm.config import ModelConfig, RunConfig
from inf_llm.errors import UnsupportedModelError
from inf_llm.hf.decoder import decoder_of
from inf_llm.hf.outline import layer_shapes, outline
from inf_llm.hf.probe import probe
from inf_llm.settings import OriginSettings
from tests.hf.families import build, exists
from tests.hf.tiny import character_tokenizer, tiny
from tests.hf.zoo import BASE, WORKING

UNKNOWN = ("llama-dynamic", "jetmoe")
"""They look into their tensors on the way, which the meta device does not have."""
OLDER = ("gemma3n", "phi3-longrope", "nemotron", "granitemoe", "granitemoeshared")
"""They did so too in the first releases of transformers that are supported."""


def on_meta(name: str) -> Any:
    config, model = (getattr(transformers, each) for each in WORKING[name].class_names)
    with torch.device("meta"):
        return model(config(**{**BASE, **WORKING[name].config}))


def config_for(path: Path | str, dtype: str = "auto") -> RunConfig:
    return RunConfig(ModelConfig(str(path), dtype=dtype), OriginSettings())


@pytest.mark.parametrize("name", [name for name in WORKING if name not in UNKNOWN])
def test_every_family_is_outlined(name: str) -> None:
    if not exists(WORKING[name]):
        pytest.skip("this transformers does not have it")
    if name in OLDER and Version(transformers.__version__) < Version("5.20"):
        pytest.skip("it looks into its tensors in this transformers")
    shapes = layer_shapes(on_meta(name))
    assert shapes
    assert all(shape.heads % shape.groups == 0 for shape in shapes)


@pytest.mark.parametrize("name", ["llama", "gemma3", "llama4", "deepseek_v2", "lfm2"])
def test_shapes_are_those_of_the_model_with_its_weights(name: str) -> None:
    model = build(WORKING[name])
    shapes = layer_shapes(on_meta(name))
    assert shapes == layer_shapes(model)
    facts = probe(decoder_of(model), None)
    assert [shape.index for shape in shapes] == [module.layer_idx for module in facts]
    assert [shape.window for shape in shapes] == [fact.window for fact in facts.values()]


def test_parameters_and_format_are_those_of_the_files(tmp_path: Path) -> None:
    model = tiny().to(torch.bfloat16)
    model.save_pretrained(tmp_path)
    found = outline(config_for(tmp_path))
    assert found.parameters == sum(weight.numel() for weight in model.parameters())
    assert found.dtype == torch.bfloat16
    assert found.weights(torch.float32) == 4 * found.parameters
    assert found.file_bytes == (tmp_path / "model.safetensors").stat().st_size


def test_a_configuration_without_a_format_has_that_of_the_weights(tmp_path: Path) -> None:
    tiny().to(torch.float16).save_pretrained(tmp_path)
    file = tmp_path / "config.json"
    file.write_text(file.read_text().replace('"dtype": "float16"', '"dtype": null'))
    assert outline(config_for(tmp_path)).dtype == torch.float16


def test_packed_weights_stay_as_they_are() -> None:
    found = dataclasses.replace(outline(config_for("demo")), packed=17)
    assert found.weights(torch.float32) == 17


def test_a_gguf_file_is_outlined(file: Path, model: Any) -> None:
    found = outline(config_for(file))
    assert found.dtype == torch.float32
    assert found.packed is None
    assert found.parameters == sum(weight.numel() for weight in model.parameters())


def test_what_looks_into_its_tensors_is_refused(tmp_path: Path) -> None:
    build(WORKING["llama-dynamic"]).save_pretrained(tmp_path)
    character_tokenizer().save_pretrained(tmp_path)
    with pytest.raises(UnsupportedModelError, match="outlined without its weights"):
        outline(config_for(tmp_path))


def test_no_weight_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*args: Any, **kwargs: Any) -> Any:
        raise AssertionError("weights are read")

    monkeypatch.setattr("safetensors.safe_open", refuse)
    monkeypatch.setattr("transformers.modeling_utils.safe_open", refuse)
    assert len(outline(config_for("demo")).layers) == 5
    with pytest.raises(AssertionError, match="weights are read"):  # the control: loading does
        transformers.AutoModelForCausalLM.from_pretrained("inf_llm/assets/demo")
