"""GGUF files load as the models they were made of, or are refused with the cause."""

from __future__ import annotations

import copy
import json
import struct
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from transformers import LlamaConfig, LlamaForCausalLM

import inf_llm
from inf_llm.config import ModelConfig, RunConfig
from inf_llm.errors import ConfigError, MissingExtraError
from inf_llm.hf import gguf, gguf_rest
from inf_llm.hf.load import DEMO, load_model, load_tokenizer
from inf_llm.settings import make_settings
from tests.gguf_files import TEMPLATE, chat_model, write_gguf
from tests.tiny import SETTINGS

TEXT = "Hello there, it was the best of times."


def named(path: str | Path, **more: Any) -> RunConfig:
    settings = make_settings("inf-llm", **SETTINGS)
    return RunConfig(ModelConfig(str(path), **more), settings)


@pytest.fixture(scope="module")
def model() -> Any:
    return chat_model()


@pytest.fixture(scope="module")
def file(model: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_gguf(tmp_path_factory.mktemp("gguf") / "model.gguf", model)


@torch.no_grad()
def same(found: Any, wanted: Any, length: int = 600) -> float:
    """The largest difference between the logits of two models."""
    ids = torch.randint(2, 256, (1, length), generator=torch.Generator().manual_seed(0))
    return float((found(ids).logits - wanted(ids).logits).abs().max())


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


def test_a_folder_with_one_file_is_that_file(file: Path) -> None:
    assert load_model(named(file.parent)).config.name_or_path == str(file)
    assert load_tokenizer(named(file.parent)).chat_template == TEMPLATE


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_dtype(file: Path, dtype: str, tmp_path: Path) -> None:
    loaded = load_model(named(file, dtype=dtype))
    assert {str(weight.dtype) for weight in loaded.parameters()} == {f"torch.{dtype}"}
    loaded.save_pretrained(tmp_path)  # it is a model like others, not one in blocks
    assert loaded.float().dtype == torch.float32


def test_what_lies_beside_a_file_is_not_mixed_with_it(model: Any, tmp_path: Path) -> None:
    """Repositories of GGUF files often have a config.json, a tokenizer.json and a template."""
    for other in DEMO.glob("*.json*"):
        (tmp_path / other.name).write_bytes(other.read_bytes())
    (tmp_path / "chat_template.jinja").write_text("other")
    file = write_gguf(tmp_path / "model.gguf", model)
    tokenizer = load_tokenizer(named(file))
    assert tokenizer.chat_template == TEMPLATE
    ids = tokenizer(TEXT)["input_ids"]
    assert max(ids) < model.config.vocab_size
    assert tokenizer.decode(ids) == TEXT
    assert same(load_model(named(tmp_path)), model) < 1e-5


def test_all_tokens_that_end_an_answer(model: Any, tmp_path: Path) -> None:
    ids = {"tokenizer__ggml__eos_token_id": 1, "tokenizer__ggml__eot_token_id": 259}
    loaded = load_model(named(write_gguf(tmp_path / "two.gguf", model, **ids)))
    assert loaded.generation_config.eos_token_id == [1, 259]
    none = {"tokenizer__ggml__eos_token_id": None, "tokenizer__ggml__bos_token_id": None}
    file = write_gguf(tmp_path / "none.gguf", model, **none)
    assert load_model(named(file)).generation_config.eos_token_id is None
    assert load_tokenizer(named(file)).bos_token is None


@pytest.mark.parametrize(("pre", "wanted"), [("llama-bpe", True), ("smollm", False)])
def test_what_a_text_begins_with(model: Any, tmp_path: Path, pre: str, wanted: bool) -> None:
    file = write_gguf(tmp_path / "model.gguf", model, tokenizer__ggml__pre=pre)
    tokenizer = load_tokenizer(named(file))
    first = tokenizer("Hello")["input_ids"][0]
    assert (first == tokenizer.bos_token_id) == wanted


def scaled(model: Any, **rope: Any) -> LlamaForCausalLM:
    """The same weights with other rotary frequencies."""
    config = copy.deepcopy(model.config)
    config.rope_parameters = {**config.rope_parameters, **rope}
    other = LlamaForCausalLM(LlamaConfig(**config.to_dict())).eval()
    other.load_state_dict(model.state_dict())
    return other


LLAMA_3 = {
    "rope_type": "llama3",
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 64,
}


def test_frequencies_that_are_scaled_pair_by_pair(model: Any, tmp_path: Path) -> None:
    """As in every Llama 3.1 and 3.2; transformers leaves the divisors in the file."""
    wanted = scaled(model, **LLAMA_3)
    plain, turned = (m.model.rotary_emb.inv_freq for m in (model, wanted))
    divisors = {"rope_freqs.weight": plain / turned}
    loaded = load_model(named(write_gguf(tmp_path / "llama3.gguf", model, divisors)))
    assert same(loaded, wanted) < 2e-3
    assert same(model, wanted) > 0.1


def test_frequencies_that_are_all_scaled_alike(model: Any, tmp_path: Path) -> None:
    scaling = {"llama__rope__scaling__type": "linear", "llama__rope__scaling__factor": 4.0}
    loaded = load_model(named(write_gguf(tmp_path / "linear.gguf", model, **scaling)))
    wanted = scaled(model, rope_type="linear", factor=4.0)
    assert same(loaded, wanted) < 2e-3
    assert same(model, wanted) > 0.1


def test_layers_with_a_window_keep_their_frequencies() -> None:
    names = ["model.rotary_emb.full_attention_inv_freq", "rotary_emb.original_inv_freq"]
    names += ["full_attention_original_inv_freq", "inv_freq"]
    assert all(gguf_rest._FULL.fullmatch(name) for name in names)
    assert not gguf_rest._FULL.fullmatch("model.rotary_emb.sliding_attention_inv_freq")


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


def test_which_of_several_is_asked(file: Path, tmp_path: Path) -> None:
    for name in ("a.gguf", "b.GGUF"):
        (tmp_path / name).write_bytes(b"GGUF")
    with pytest.raises(ConfigError, match=r"several GGUF files \(a.gguf, b.GGUF\): name one"):
        load_model(named(tmp_path))


@pytest.mark.parametrize(
    ("name", "content", "says"),
    [
        ("model.gguf", b"version https://git-lfs.github.com/spec/v1\n", "is a Git LFS pointer"),
        ("model.gguf", b"", "is empty"),
        ("model.gguf", b"<!doctype html>", "is a file, but no GGUF file"),
        ("model.safetensors", b"12345678{}", "give the folder with config.json"),
        ("config.json", b"{}", "give the folder with config.json"),
    ],
)
def test_a_file_that_is_no_model(tmp_path: Path, name: str, content: bytes, says: str) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(ConfigError, match=says):
        load_model(named(tmp_path / name))


def test_no_such_file() -> None:
    with pytest.raises(ConfigError, match="there is no such folder or file"):
        load_model(named("models/nothing.gguf"))


def test_the_missing_package_is_named(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "gguf", None)
    with pytest.raises(MissingExtraError, match=r"pip install 'inf-llm\[gguf\]'"):
        inf_llm.load(named(file))


def test_a_file_on_the_hub(model: Any, file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []

    def fetched(repo: str, name: str) -> str:
        asked.append((repo, name))
        if "none" in name:
            raise OSError("owner/name does not appear to have a file named none.gguf.\nMore")
        return str(file)

    monkeypatch.setattr("transformers.utils.cached_file", fetched)
    assert same(load_model(named("owner/a-name.v2:sub/model.Q4_K_M.gguf")), model) < 1e-5
    assert asked == [("owner/a-name.v2", "sub/model.Q4_K_M.gguf")]
    with pytest.raises(
        ConfigError, match=r"cannot be fetched \(owner/name does not .* none.gguf.\)"
    ):
        load_model(named("owner/name:none.gguf"))


def test_a_tokenizer_that_lost_its_merges_is_refused(file: Path) -> None:
    """transformers 5.10 reads a vocabulary of sentencepiece so, and cuts every word apart."""
    tokenizer = load_tokenizer(named(file))
    state = json.loads(tokenizer.backend_tokenizer.to_str())
    state["model"]["merges"] = []
    tokenizer._tokenizer = type(tokenizer.backend_tokenizer).from_str(json.dumps(state))
    with pytest.raises(ValueError, match="finds 0 again: transformers misreads it"):
        gguf_rest.complete_tokenizer(tokenizer, file)


def test_a_tokenizer_of_its_own(file: Path) -> None:
    """`tokenizer_path` may name another place, which may be a GGUF file too."""
    config = named(DEMO, tokenizer_path=str(file))
    assert load_tokenizer(config).chat_template == TEMPLATE
    assert len(load_tokenizer(named(file, tokenizer_path="demo"))) == 1024
    with pytest.raises(ConfigError, match="tokenizer_path"):
        inf_llm.load(named(file, tokenizer_path="demo"))


def test_an_already_scaled_model_is_left(model: Any, tmp_path: Path) -> None:
    """A release of transformers that reads the divisors itself must not be undone."""
    scaling = {"llama__rope__scaling__type": "linear", "llama__rope__scaling__factor": 4.0}
    file = write_gguf(tmp_path / "linear.gguf", model, **scaling)
    wanted = scaled(model, rope_type="linear", factor=4.0)
    before = wanted.model.rotary_emb.inv_freq.clone()
    gguf_rest.complete_model(wanted, file)
    assert torch.equal(wanted.model.rotary_emb.inv_freq, before)


def test_the_configuration_is_kept_as_plain_numbers(file: Path) -> None:
    assert named(file).to_dict()["model"]["path"] == str(file)
    assert not getattr(load_model(named(file)).config, "quantization_config", None)
    assert ("quantization_config" in gguf_rest.as_numbers()) == hasattr(transformers, "GgufConfig")


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


@pytest.mark.parametrize("name", ["sha256-0123", "M.GGUF"])
def test_a_file_of_any_name(model: Any, file: Path, tmp_path: Path, name: str) -> None:
    """As in Ollama's store."""
    other = tmp_path / name
    other.write_bytes(file.read_bytes())
    patched, tokenizer = inf_llm.load(named(other))
    assert tokenizer.chat_template == TEMPLATE
    assert same(inf_llm.unpatch(patched), model) < 1e-5


@pytest.mark.parametrize("part", ["model", "tokens"])
def test_a_file_without_a_tokenizer(model: Any, file: Path, tmp_path: Path, part: str) -> None:
    lacks = {f"tokenizer__ggml__{part}": None}
    bare = write_gguf(tmp_path / "bare.gguf", model, **lacks)
    with pytest.raises(ConfigError, match=r"has no tokenizer in it: .* model\.tokenizer_path"):
        inf_llm.load(named(bare))
    assert load_tokenizer(named(bare, tokenizer_path=str(file))).chat_template == TEMPLATE
