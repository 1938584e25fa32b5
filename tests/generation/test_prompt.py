"""Texts are read, laid out and cut as asked, or refused with the reason."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from inf_llm.conversation import CONV_TYPES
from inf_llm.errors import TextError
from inf_llm.generation import encode, fit, read_text, user_message

LAID_OUT = {
    None: "Hi",
    "plain": "Hi",
    "mistral-inst": "<s>[INST] Hi [/INST]",
    "llama-3-inst": "<s><|start_header_id|>user<|end_header_id|>\n\nHi<|eot_id|>"
    "<|start_header_id|>assistant<|end_header_id|>\n\n",
    "qwen": "<|im_start|>system\nYou are a helpful assistant<|im_end|>\n"
    "<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n",
    "vicuna": "<s>A chat between a curious user and an artificial intelligence assistant. The "
    "assistant gives helpful, detailed, and polite answers to the user's questions. "
    "USER: Hi ASSISTANT:",
    "minicpm": "<s><用户>Hi<AI>",
}


@pytest.mark.parametrize("conv_type", [None, *CONV_TYPES])
def test_user_message(tokenizer: Any, conv_type: str | None) -> None:
    prompt, add_special = user_message(tokenizer, "Hi", conv_type)
    assert prompt == LAID_OUT[conv_type]
    assert add_special == (conv_type in (None, "plain"))


def test_own_template_of_a_tokenizer_is_used_unless_another_is_named(tokenizer: Any) -> None:
    tokenizer.chat_template = "{% for m in messages %}<<{{ m['content'] }}>>{% endfor %}"
    try:
        assert user_message(tokenizer, "Hi", None) == ("<<Hi>>", False)
        assert user_message(tokenizer, "Hi", "plain") == ("Hi", True)
        assert user_message(tokenizer, "Hi", "minicpm")[0] == "<s><用户>Hi<AI>"
    finally:
        tokenizer.chat_template = None


def test_encode_does_not_mind_length(tokenizer: Any, caplog: pytest.LogCaptureFixture) -> None:
    tokenizer.model_max_length = 10
    assert len(encode(tokenizer, "abc" * 100)) == 300
    assert not caplog.records


@pytest.mark.parametrize(
    ("truncation", "limit", "kept"),
    [
        ("middle", 10, [*range(5), *range(995, 1000)]),
        ("middle", 11, [*range(5), *range(994, 1000)]),
        ("suffix", 300, [*range(128), *range(828, 1000)]),
        ("suffix", 10, [*range(5), *range(995, 1000)]),
        ("suffix", 1000, list(range(1000))),
        (None, 1000, list(range(1000))),
    ],
)
def test_fit(truncation: str | None, limit: int, kept: list[int]) -> None:
    assert fit(list(range(1000)), limit, truncation) == kept


@given(st.integers(0, 500), st.integers(1, 500), st.sampled_from(["suffix", "middle"]))
def test_fit_is_as_long_as_it_may_be(tokens: int, limit: int, truncation: str) -> None:
    kept = fit(list(range(tokens)), limit, truncation)
    assert len(kept) == min(tokens, limit)
    assert kept == sorted(set(kept))
    assert not tokens or kept[-1] == tokens - 1


def test_fit_refuses() -> None:
    with pytest.raises(TextError, match=r"1,000 tokens.*room for 999.*truncation=suffix"):
        fit(list(range(1000)), 999, None)
    with pytest.raises(TextError, match="no room"):
        fit([1], 0, "suffix")


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"", "is empty"),
        (b" \n\t\n", "is empty"),
        (b"\xef\xbb\xbf", "is empty"),
        (b"text then \xff\xfe\x00", "not text in UTF-8 (byte 10)"),
        (b"\x7fELF\x02\x00\x00", "zero byte"),
    ],
)
def test_read_text_refuses(tmp_path: Path, content: bytes, says: str) -> None:
    file = tmp_path / "book.txt"
    file.write_bytes(content)
    with pytest.raises(TextError) as caught:
        read_text(file)
    assert str(file) in str(caught.value)
    assert says in str(caught.value)


@pytest.mark.parametrize("path", ["no/such/file", "/", "bad\0name"])
def test_read_text_of_no_file(path: str) -> None:
    with pytest.raises(TextError, match="cannot be read"):
        read_text(path)


def test_read_text_drops_the_byte_order_mark(tmp_path: Path) -> None:
    file = tmp_path / "book.txt"
    file.write_bytes("\ufeffWell, Prince".encode())
    assert read_text(file) == "Well, Prince"


@pytest.mark.parametrize("path", [None, "-"])
def test_read_text_from_standard_input(path: str | None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO("für".encode())))
    assert read_text(path) == "für"
