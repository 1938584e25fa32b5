"""GGUF files load as the models they were made of, or are refused with the cause."""

from __future__ import annotations

import struct
from pathlib import Path
from typing import Any

import pytest
import torch

import inf_llm
from inf_llm.errors import ConfigError
from inf_llm.hf import gguf
from inf_llm.hf.load import load_model, load_tokenizer
from tests.gguf_files import TEMPLATE, named, same, write_gguf

TEXT = "Hello there, it was the best of times."


def test_the_model_of_a_file(model: Any, file: Path) -> None:
    patched, tokenizer = inf_llm.load(named(file))
    assert tokenizer.chat_template == TEMPLATE
    ids = tokenizer(f"<|im_start|>{TEXT}")["input_ids"]
    assert tokenizer.convert_ids_to_tokens(ids)[0] == "<|im_start|>"
    assert tokenizer.decode(ids) == f"<|im_start|>{TEXT}"
    assert (tokenizer.bos_token, tokenizer.eos_token) == ("<s>", "<|im_end|>")
    assert (tokenizer.pad_token, tokenizer.unk_token) == ("</s>", None)
    ends = patched.generation_config.eos_token_id
    assert tokenizer.convert_ids_to_tokens(ends) == ["<|im_end|>"]
    assert same(inf_llm.unpatch(patched), model) < 1e-5


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_dtype(file: Path, dtype: str, tmp_path: Path) -> None:
    loaded = load_model(named(file, dtype=dtype))
    assert {str(weight.dtype) for weight in loaded.parameters()} == {f"torch.{dtype}"}
    loaded.save_pretrained(tmp_path)  # it is a model like others, not one in blocks
    assert loaded.float().dtype == torch.float32


REFUSED: dict[str, tuple[dict[str, Any], str]] = {
    "part": ({"split__count": 3}, "is one of 3 parts of a model"),
    "yarn": ({"llama__rope__scaling__type": "yarn"}, "scales its rotary frequencies (yarn)"),
    "architecture": ({"general__architecture": "mystery"}, "architecture mystery"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_refused(model: Any, tmp_path: Path, name: str) -> None:
    values, says = REFUSED[name]
    file = write_gguf(tmp_path / "model.gguf", model, **values)
    with pytest.raises(ConfigError) as caught:
        inf_llm.load(named(file))
    assert str(caught.value).startswith(f"model.path = {str(file)!r}: ")
    assert says in str(caught.value)
    assert "\n" not in str(caught.value)


def test_longrope_is_refused(model: Any, tmp_path: Path) -> None:
    factors = {"rope_factors_long.weight": torch.ones(8)}
    file = write_gguf(tmp_path / "model.gguf", model, factors)
    with pytest.raises(ConfigError, match="scales its rotary frequencies \\(longrope\\)"):
        load_model(named(file))


@pytest.mark.parametrize("kept", [0, 3, 4, 23, 24, 100, 4000, 9000, -1])
def test_half_a_file_is_refused(file: Path, tmp_path: Path, kept: int) -> None:
    half = tmp_path / "half.gguf"
    half.write_bytes(file.read_bytes()[:kept])
    with pytest.raises(ConfigError) as caught:
        inf_llm.load(named(half))
    assert "\n" not in str(caught.value)
    assert ("not downloaded whole" if kept == -1 else "half.gguf") in str(caught.value)


def test_noise_is_refused_soon(file: Path, tmp_path: Path) -> None:
    """A damaged head says that it holds more than there is memory for."""
    data = bytearray(file.read_bytes())
    broken = tmp_path / "broken.gguf"
    for at in (8, 16, 24, 40):
        broken.write_bytes(data[:at] + b"\xff" * 8 + data[at + 8 :])
        with pytest.raises(ValueError, match="damaged"):
            gguf.read_head(broken)
    broken.write_bytes(data[:4] + b"\x01\0\0\0" + data[8:])
    assert gguf.problem(broken) == "is GGUF of version 1: 2 and 3 are known: download it again"
    broken.write_bytes(b"GGUF\x03\0\0\0" + bytes(64))
    assert gguf.problem(broken) == "has no model in it: download it again"


def _head(*entries: tuple[str, int, bytes], tensors: bytes = b"") -> bytes:
    """A head of metadata (key, kind, value), and the places of one tensor."""
    rows = (
        struct.pack("<Q", len(k)) + k.encode() + struct.pack("<I", t) + v for k, t, v in entries
    )
    start = struct.pack("<4sIQQ", b"GGUF", 3, bool(tensors), len(entries))
    return start + b"".join(rows) + tensors + bytes(64)


_X = struct.pack("<Q", 1) + b"x"
BROKEN = {
    "dimensions": _head(tensors=_X + b"\xff" * 4),
    "no alignment": _head(("general.alignment", 4, bytes(4))),
    "alignment as text": _head(("general.alignment", 8, _X)),
    "lists in lists": _head(("a", 9, struct.pack("<IQ", 9, 1) * 5000)),
    "parts as text": _head(("split.count", 8, _X)),
    "an end as text": _head(("tokenizer.ggml.eos_token_id", 8, _X)),
    "a template as number": _head(("tokenizer.chat_template", 4, bytes(4))),
    "a factor as text": _head(("llama.rope.scaling.factor", 8, _X)),
}


@pytest.mark.parametrize("what", BROKEN)
def test_a_head_of_nonsense_is_damaged(tmp_path: Path, what: str) -> None:
    broken = tmp_path / "broken.gguf"
    broken.write_bytes(BROKEN[what])
    for problem in (gguf.problem, gguf.tokenizer_problem):
        assert problem(broken) == "its head is damaged or not whole: download it again"


@pytest.mark.parametrize("part", ["model", "tokens"])
def test_a_file_without_a_tokenizer(model: Any, file: Path, tmp_path: Path, part: str) -> None:
    lacks = {f"tokenizer__ggml__{part}": None}
    bare = write_gguf(tmp_path / "bare.gguf", model, **lacks)
    with pytest.raises(ConfigError, match=r"has no tokenizer in it: .* model\.tokenizer_path"):
        inf_llm.load(named(bare))
    assert load_tokenizer(named(bare, tokenizer_path=str(file))).chat_template == TEMPLATE
