"""How single tokens are written, with tokenizers of bytes and of pieces of words."""

from __future__ import annotations

from typing import Any

import pytest
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from inf_llm.generation.spelling import Spelling
from tests.tiny import tiny_tokenizer

SAID = "Hi  there, 你好 é 😀\n"


def _pieces() -> Any:
    """As SentencePiece writes tokens: a mark before words, and bytes of what it does not know."""
    words = ["<unk>", "<s>", "\u2581Hi", "\u2581", "\u2581there", "\u2581a", "a"]
    vocabulary = {word: i for i, word in enumerate(words)}
    vocabulary |= {f"<0x{byte:02X}>": len(words) + byte for byte in range(256)}
    inner = Tokenizer(models.BPE(vocabulary, [], byte_fallback=True, unk_token="<unk>"))
    inner.pre_tokenizer = pre_tokenizers.Metaspace()
    inner.decoder = decoders.Sequence(
        [
            decoders.Replace("\u2581", " "),
            decoders.ByteFallback(),
            decoders.Fuse(),
            decoders.Strip(" ", 1, 0),
        ]
    )
    return PreTrainedTokenizerFast(tokenizer_object=inner, unk_token="<unk>", bos_token="<s>")


def test_bytes_of_tokens_are_those_of_the_text() -> None:
    tokenizer = tiny_tokenizer()
    spelling = Spelling(tokenizer)
    ids = tokenizer(SAID, add_special_tokens=False).input_ids
    assert b"".join(map(spelling.bytes, ids)) == SAID.encode()
    known = _bytes_in_text(tokenizer)
    assert len(known) > 240  # some bytes are in no text
    assert {token: spelling.bytes(token) for token in known} == known


def _bytes_in_text(tokenizer: Any) -> dict[int, bytes]:
    """Of tokens of one byte each, by encoding characters that have every byte that UTF-8 has."""
    starts = (*range(0x800), *range(0x800, 0xD800, 0x40), *range(0xE000, 0x110000, 0x40))
    letters = list(map(chr, starts))
    found: dict[int, bytes] = {}
    for letter, ids in zip(
        letters, tokenizer(letters, add_special_tokens=False).input_ids, strict=True
    ):
        data = letter.encode()
        found |= {token: data[at : at + 1] for at, token in enumerate(ids)}
    return found


def test_a_token_that_is_no_whole_character_is_called_by_its_bytes() -> None:
    tokenizer = tiny_tokenizer()
    first, second = tokenizer("é", add_special_tokens=False).input_ids
    spelling = Spelling(tokenizer)
    assert (spelling.name(first), spelling.name(second)) == ("bytes:\\xc3", "bytes:\\xa9")
    names = {spelling.name(token) for token in range(len(tokenizer))}
    assert len(names) == len(tokenizer), "no two tokens share a name"


def test_a_space_before_a_word_is_part_of_its_token() -> None:
    spelling = Spelling(_pieces())
    assert [spelling.text(token) for token in (2, 3, 4, 6)] == [" Hi", " ", " there", "a"]
    assert spelling.name(7 + 0xC3) == "bytes:\\xc3"
    assert spelling.bytes(7 + 0xC3) == b"\xc3"
    assert spelling.bytes(7 + ord("x")) == b"x"


@pytest.mark.parametrize("token", ["<s>", "</s>"])
def test_special_tokens_have_names_and_are_no_text(token: str) -> None:
    tokenizer = tiny_tokenizer()
    spelling, index = Spelling(tokenizer), tokenizer.convert_tokens_to_ids(token)
    assert spelling.name(index) == token
    assert spelling.is_special(index)
