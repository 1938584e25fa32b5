"""What is seen of a loaded model before a text is read: it runs, and knows every token."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from transformers import (
    LlamaForCausalLM,
)

import inf_llm
from inf_llm.errors import ConfigError
from inf_llm.hf.load import load
from inf_llm.hf.trial import check_vocabulary
from tests.checkpoints import named, script


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    script().main(tmp_path / "model")
    return tmp_path / "model"


def grown(checkpoint: Path, *tokens: str, **special: Any) -> Path:
    """A folder with the tokenizer and more tokens, which the model has no embeddings for."""
    tokenizer = script().make_tokenizer()
    tokenizer.add_tokens(list(tokens), **special)
    folder = checkpoint.parent / "more"
    tokenizer.save_pretrained(folder)
    return folder


def test_a_tokenizer_with_more_tokens_than_the_model(checkpoint: Path) -> None:
    config = named(checkpoint, tokenizer_path=str(grown(checkpoint, "mat", "cat")))
    with pytest.raises(ConfigError) as caught:
        load(config)
    for part in ("260 tokens", "'mat', number 258", "embeddings for 258", "tokenizer_path"):
        assert part in str(caught.value)


def test_padding_and_unused_special_tokens_do_no_harm(checkpoint: Path) -> None:
    """Gemma 3's tokenizer has one token more than its text models; many have one for padding."""
    folder = grown(checkpoint, "<image>", "<pad>", special_tokens=True)
    settings = folder / "tokenizer_config.json"
    settings.write_text(json.dumps(json.loads(settings.read_text()) | {"pad_token": "<pad>"}))
    model, tokenizer = load(named(checkpoint, tokenizer_path=str(folder)))
    assert len(tokenizer) > model.config.vocab_size


def test_special_tokens_that_the_layout_writes_are_needed(checkpoint: Path) -> None:
    folder = grown(checkpoint, "<|im_start|>", special_tokens=True)
    config = named(checkpoint, tokenizer_path=str(folder), conv_type="qwen")
    with pytest.raises(ConfigError, match=r"'<\|im_start\|>', number 258"):
        load(config)
    (folder / "chat_template.jinja").write_text("<|im_start|>{{ messages[0].content }}")
    with pytest.raises(ConfigError, match=r"'<\|im_start\|>', number 258"):
        load(named(checkpoint, tokenizer_path=str(folder)))


def test_embeddings_that_are_more_are_fine(checkpoint: Path) -> None:
    """Most models have a few more rows, for the sake of round numbers."""
    model = script().make_model(320)
    check_vocabulary(model, script().make_tokenizer(), named("x"))


def test_a_model_that_cannot_run_is_said_when_it_is_loaded(
    checkpoint: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*args: Any, **how: Any) -> Any:
        raise RuntimeError("no kernel\nfor this")

    monkeypatch.setattr(LlamaForCausalLM, "forward", broken)
    with pytest.raises(ConfigError, match=r"the model cannot run \(RuntimeError: no kernel\)$"):
        inf_llm.load(named(checkpoint))
