"""Folders that are no whole model are refused before anything is loaded, with the cause."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from inf_llm.config import ModelConfig, RunConfig
from inf_llm.errors import ConfigError
from inf_llm.hf.files import model_problem, tokenizer_problem
from inf_llm.hf.load import load
from inf_llm.hf.source import find
from inf_llm.settings import OriginSettings
from tests.checkpoints import script

POINTER = "version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 15000000\n"
Break = Callable[[Path], None]


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("whole")
    script().main(folder)
    return folder


@pytest.fixture(scope="module")
def parts(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The weights in several files, with an index."""
    folder = tmp_path_factory.mktemp("parts")
    tokenizer = script().make_tokenizer()
    script().make_model(len(tokenizer)).save_pretrained(folder, max_shard_size="100KB")
    tokenizer.save_pretrained(folder)
    assert len(list(folder.glob("*.safetensors"))) == 5
    return folder


def cut(name: str, length: int) -> Break:
    """Leave the first bytes of a file; counted from the end where negative."""

    def write(folder: Path) -> None:
        file = _file(folder, name)
        file.write_bytes(file.read_bytes()[:length])

    return write


def put(name: str, text: str) -> Break:
    def write(folder: Path) -> None:
        _file(folder, name).write_text(text)

    return write


def drop(name: str) -> Break:
    return lambda folder: _file(folder, name).unlink()


def _file(folder: Path, name: str) -> Path:
    """A file by its name, or by a pattern that several have."""
    return max(folder.glob(name), default=folder / name)


def change(name: str, **values: Any) -> Break:
    def write(folder: Path) -> None:
        found = json.loads((folder / name).read_text()) | values
        kept = {key: value for key, value in found.items() if value is not None}
        (folder / name).write_text(json.dumps(kept))

    return write


def only(name: str, text: str) -> Break:
    """Nothing but one file."""

    def write(folder: Path) -> None:
        shutil.rmtree(folder)
        folder.mkdir()
        (folder / name).write_text(text)

    return write


def pickled(folder: Path) -> None:
    """Weights as torch saves them, half of them."""
    drop("model.safetensors")(folder)
    torch.save({"a": torch.zeros(9999)}, folder / "pytorch_model.bin")
    cut("pytorch_model.bin", -2000)(folder)


def sentencepiece(folder: Path) -> None:
    """A tokenizer of the older form, not fetched."""
    drop("tokenizer.json")(folder)
    put("tokenizer.model", POINTER)(folder)


DEEP = "\1\1\1\0\0\0\0\0" + "[" * 0x010101  # a header of that length
W, T, C = "model.safetensors", "tokenizer.json", "config.json"
ADAPTER = json.dumps({"peft_type": "LORA", "base_model_name_or_path": "some/base"})
BROKEN: dict[str, tuple[Break, str]] = {
    "no weights": (drop(W), "has no weights (model.safetensors or pytorch_model.bin"),
    "weights, pointer": (put(W, POINTER), "model.safetensors is a Git LFS pointer"),
    "weights, empty": (put(W, ""), "model.safetensors is empty: download it again"),
    "weights, half": (cut(W, -9), "so it was not downloaded whole"),
    "weights, head only": (cut(W, 400), "damaged, or was not downloaded whole"),
    "weights, few bytes": (cut(W, 5), "damaged, or was not downloaded whole"),
    "weights, a page": (put(W, "<!doctype html><p>401"), "damaged, or was not downloaded whole"),
    "weights, deep": (put(W, DEEP), "damaged, or was not downloaded whole"),
    "pickled, half": (pickled, "pytorch_model.bin ends too early"),
    "no config": (drop(C), "has no config.json: give a folder with one"),
    "config, pointer": (put(C, POINTER), "config.json is a Git LFS pointer"),
    "config, half": (cut(C, 50), "config.json is not JSON"),
    "config, list": (put(C, "[1]"), "config.json must be a JSON object"),
    "config, a list as type": (change(C, model_type=["llama"]), "config.json has no model_type"),
    "config, weights of no name": (change(C, transformers_weights=3), "= 3, which names no file"),
    "config, no type": (change(C, model_type=None), "config.json has no model_type"),
    "settings, half": (cut("generation_config.json", 9), "generation_config.json is not JSON"),
    "adapter": (only("adapter_config.json", ADAPTER), "merge it into its base 'some/base'"),
    "adapter, half": (only("adapter_config.json", "{"), "merge it into its base model"),
    "pipeline": (only("model_index.json", "{}"), "a diffusers pipeline, not a language model"),
    "vectors": (put("modules.json", "[]"), "gives vectors and not text"),
    "nothing": (only("notes.md", ""), "has no config.json"),
}
BROKEN_PARTS: dict[str, tuple[Break, str]] = {
    "one missing": (drop("model-*.safetensors"), "1 of 5 files are missing"),
    "one pointer": (put("model-*.safetensors", POINTER), "git lfs pull"),
    "one half": (cut("model-*.safetensors", -1), "not downloaded whole"),
    "index, half": (cut("model.safetensors.index.json", 30), "index.json is not JSON"),
    "index, a list": (put("model.safetensors.index.json", '{"weight_map": [1]}'), "0 of 0 files"),
    "index, empty": (put("model.safetensors.index.json", "{}"), "0 of 0 files are missing"),
}
BROKEN_TOKENIZERS: dict[str, tuple[Break, str]] = {
    "none": (drop(T), "has no tokenizer (tokenizer.json or tokenizer.model)"),
    "half": (cut(T, 100), "tokenizer.json is not JSON"),
    "pointer": (put(T, POINTER), "tokenizer.json is a Git LFS pointer"),
    "settings": (put("tokenizer_config.json", "{"), "tokenizer_config.json is not JSON"),
    "sentencepiece, pointer": (sentencepiece, "tokenizer.model is a Git LFS pointer"),
}


@pytest.mark.parametrize("name", BROKEN)
def test_a_broken_model(whole: Path, tmp_path: Path, name: str) -> None:
    _refused(whole, tmp_path / "model", *BROKEN[name])


@pytest.mark.parametrize("name", BROKEN_PARTS)
def test_a_broken_model_in_parts(parts: Path, tmp_path: Path, name: str) -> None:
    _refused(parts, tmp_path / "model", *BROKEN_PARTS[name])


@pytest.mark.parametrize("name", BROKEN_TOKENIZERS)
def test_a_broken_tokenizer(whole: Path, tmp_path: Path, name: str) -> None:
    _refused(whole, tmp_path / "model", *BROKEN_TOKENIZERS[name])


def _refused(good: Path, folder: Path, broken: Break, says: str) -> None:
    shutil.copytree(good, folder)
    broken(folder)
    with pytest.raises(ConfigError) as caught:
        load(RunConfig(ModelConfig(str(folder)), OriginSettings()))
    assert str(caught.value).startswith(f"model.path = {str(folder)!r}: ")
    assert says in str(caught.value)
    assert "\n" not in str(caught.value)


def test_whole_folders_have_no_problem(whole: Path, parts: Path) -> None:
    for folder in (whole, parts):
        assert model_problem(folder) is None
        assert tokenizer_problem(folder) is None


def test_an_unused_file_may_be_a_pointer(whole: Path, tmp_path: Path) -> None:
    """A clone that fetched one form of the weights, and of the tokenizer, is whole."""
    folder = Path(shutil.copytree(whole, tmp_path / "model"))
    for name in ("pytorch_model.bin", "tokenizer.model", "model.onnx", "adapter_config.json"):
        (folder / name).write_text(POINTER)
    assert model_problem(folder) is None
    assert tokenizer_problem(folder) is None


@pytest.mark.parametrize("inner", ["Llama", "snapshots/0123abcd"])
def test_the_folder_above_names_where_the_model_is(whole: Path, tmp_path: Path, inner: str) -> None:
    shutil.copytree(whole, tmp_path / inner)
    problem = model_problem(tmp_path)
    assert problem == f"has no config.json: give {str(tmp_path / inner)!r}"


def test_a_folder_that_cannot_be_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def denied(folder: Path) -> Any:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "iterdir", denied)
    with pytest.raises(ConfigError, match="cannot be read: Permission denied"):
        find("path", str(tmp_path), "model")
