"""Texts and bytes of single tokens."""

from __future__ import annotations

import re
from functools import lru_cache
from typing import Any

from transformers.convert_slow_tokenizer import bytes_to_unicode

_HALF = "\ufffd"  # decoded text of an incomplete character
_BYTE = {letter: byte for byte, letter in bytes_to_unicode().items()}


class Spelling:
    """Texts, bytes and names of the tokens of one tokenizer.

    Args:
        tokenizer: the tokenizer of the model.
    """

    def __init__(self, tokenizer: Any) -> None:
        self._tokenizer = tokenizer
        self._special = frozenset(tokenizer.all_special_ids)
        # decoded before a token, because some decoders drop the leading space of a text
        self._before = list(tokenizer("a", add_special_tokens=False)["input_ids"])
        self.text = lru_cache(1 << 16)(self._text)
        self.bytes = lru_cache(1 << 16)(self._bytes)

    def is_special(self, token: int) -> bool:
        """Return whether a token is a special token, which is not part of the text."""
        return token in self._special

    def name(self, token: int) -> str:
        """Return the text of a token, or its hexadecimal bytes if they are not whole characters."""
        text = self.text(token)
        if _HALF not in text:
            return str(text)
        return "bytes:" + "".join(f"\\x{byte:02x}" for byte in self.bytes(token))

    def _text(self, token: int) -> str:
        before, after = self._decoded(self._before), self._decoded([*self._before, token])
        if after.startswith(before):
            return after[len(before) :]
        return self._decoded([token])

    def _decoded(self, ids: list[int]) -> str:
        return str(self._tokenizer.decode(ids, clean_up_tokenization_spaces=False))

    def _bytes(self, token: int) -> bytes:
        text: str = self.text(token)
        if _HALF not in text:
            return text.encode()
        written = str(self._tokenizer.convert_ids_to_tokens(token))
        byte = re.fullmatch("<0x([0-9A-F]{2})>", written)
        if byte:
            return bytes([int(byte[1], 16)])
        if all(letter in _BYTE for letter in written):
            return bytes(_BYTE[letter] for letter in written)
        return text.encode()
