"""Where the files of a model are: folders, GGUF files, names on the hub, and what is none."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest

import inf_llm
from inf_llm.errors import ConfigError, MissingExtraError
from inf_llm.hf.load import DEMO, load, load_model, load_tokenizer
from tests.gguf_files import TEMPLATE, named, same, write_gguf

TEXT = "Hello there, it was the best of times."


def test_a_folder_with_one_file_is_that_file(file: Path) -> None:
    assert load_model(named(file.parent)).config.name_or_path == str(file)
    assert load_tokenizer(named(file.parent)).chat_template == TEMPLATE


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
    requests = []

    def fetched(repo: str, name: str) -> str:
        requests.append((repo, name))
        if "none" in name:
            raise OSError("owner/name does not appear to have a file named none.gguf.\nMore")
        return str(file)

    monkeypatch.setattr("transformers.utils.cached_file", fetched)
    assert same(load_model(named("owner/a-name.v2:sub/model.Q4_K_M.gguf")), model) < 1e-5
    assert requests == [("owner/a-name.v2", "sub/model.Q4_K_M.gguf")]
    with pytest.raises(
        ConfigError, match=r"cannot be fetched \(owner/name does not .* none.gguf.\)"
    ):
        load_model(named("owner/name:none.gguf"))


def test_a_tokenizer_of_its_own(file: Path) -> None:
    """`tokenizer_path` may name another place, which may be a GGUF file too."""
    config = named(DEMO, tokenizer_path=str(file))
    assert load_tokenizer(config).chat_template == TEMPLATE
    assert len(load_tokenizer(named(file, tokenizer_path="demo"))) == 1024
    with pytest.raises(ConfigError, match="tokenizer_path"):
        inf_llm.load(named(file, tokenizer_path="demo"))


@pytest.mark.parametrize("name", ["sha256-0123", "M.GGUF"])
def test_a_file_of_any_name(model: Any, file: Path, tmp_path: Path, name: str) -> None:
    """As in Ollama's store."""
    other = tmp_path / name
    other.write_bytes(file.read_bytes())
    patched, tokenizer = inf_llm.load(named(other))
    assert tokenizer.chat_template == TEMPLATE
    assert same(inf_llm.unpatch(patched), model) < 1e-5


def test_a_refused_hub_name_says_what_it_may_be(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(ConfigError, match=r"'nobody/nothing': .*owner/name:FILE.gguf"):
        load(named("nobody/nothing"))


@pytest.mark.parametrize(
    "path",
    ["demo/", " demo ", "demo\n", "de\0mo", "a b", "a/b/c", "../x", "owner/name@main", "a\\b", "~"],
)
def test_what_is_no_hub_name_is_not_asked_for_there(
    path: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", "/nowhere")
    with pytest.raises(ConfigError, match="there is no such folder or file") as caught:
        load(named(path))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("path", ["x" * 5000, "~nobody-of-this-name/x"])
def test_an_impossible_path_is_one_short_line(path: str) -> None:
    with pytest.raises(ConfigError, match="cannot be read") as caught:
        load(named(path))
    assert len(str(caught.value)) < 500
