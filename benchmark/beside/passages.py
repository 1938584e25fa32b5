"""Passages of a document, ranked by BM25 for a question."""

from __future__ import annotations

import re
from typing import Any

from inf_llm.generation import encode
from inf_llm.optional import need

LONGEST = 128
"""Maximum tokens of a passage. It ends at the end of a sentence or line if it contains one."""


class Passages:
    """A document split into passages, with a BM25 index.

    Args:
        tokenizer: the model's tokenizer.
        ids: token ids of the document.

    Raises:
        MissingExtraError: the package bm25s is not installed.
    """

    def __init__(self, tokenizer: Any, ids: list[int]) -> None:
        self._bm25 = need("bm25s", "retrieval by BM25", "peers")
        self._tokenizer = tokenizer
        self._passages = _packed(tokenizer, tokenizer.decode(ids, skip_special_tokens=True))
        self._index = self._bm25.BM25()
        texts = [tokenizer.decode(passage) for passage in self._passages]
        self._index.index(self._words(texts), show_progress=False)

    def _words(self, texts: list[str]) -> Any:
        return self._bm25.tokenize(texts, stopwords="en", show_progress=False)

    def found(self, question: list[int], room: int) -> list[int]:
        """Return the tokens of the best passages that fit into `room`, in document order."""
        query = self._words([self._tokenizer.decode(question, skip_special_tokens=True)])
        count = min(len(self._passages), room)
        order, _ = self._index.retrieve(query, k=count, show_progress=False)
        chosen: list[int] = []
        for number in map(int, order[0]):
            if len(self._passages[number]) <= room:
                chosen.append(number)
                room -= len(self._passages[number])
        return [token for number in sorted(chosen) for token in self._passages[number]]


def _packed(tokenizer: Any, text: str) -> list[list[int]]:
    """Return passages of whole sentences and lines, as many per passage as fit."""
    passages: list[list[int]] = [[]]
    for sentence in re.findall(r".+?(?:[.!?](?=\s)\s*|\n+|$)", text, re.DOTALL):
        ids = encode(tokenizer, sentence, add_special_tokens=False)
        for first in range(0, len(ids), LONGEST):
            part = ids[first : first + LONGEST]
            if len(passages[-1]) + len(part) > LONGEST:
                passages.append([])
            passages[-1] += part
    return [passage for passage in passages if passage]
