"""Log-likelihoods of tokens, in the forms that OpenAI gave them."""

from __future__ import annotations

import codecs
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from inf_llm.generation.likelihood import Scored
from inf_llm.generation.spelling import Spelling

MOST_TOP = 20
"""Likeliest tokens that may be listed at each place."""


@dataclass(frozen=True)
class Named:
    """A token that is reported.

    Attributes:
        name, bytes: how it is written; see `Spelling`.
        logprob: see `Scored`.
    """

    name: str
    bytes: bytes
    logprob: float | None


@dataclass(frozen=True)
class Token(Named):
    """A token of a prompt or an answer.

    Attributes:
        offset: characters of the text before it.
        top: the likeliest tokens in its place.
    """

    offset: int
    top: tuple[Named, ...]


class Report:
    """The tokens of one answer, as they come.

    Args:
        spelling: names them.

    Attributes:
        tokens: all of them.
    """

    def __init__(self, spelling: Spelling) -> None:
        self.tokens: list[Token] = []
        self._spelling = spelling
        self._offset = self._taken = 0
        self._decoder = _decoder()

    def begin(self, scored: Iterable[Scored], offsets: Sequence[int] | None, length: int) -> None:
        """The prompt, a text of so many characters, stands before the answer.

        Args:
            scored: its tokens.
            offsets: where each begins; None where the tokenizer does not know.
            length: of the text.
        """
        for index, each in enumerate(scored):
            self.add(each)
            if offsets is not None:
                self.tokens[-1] = _at(self.tokens[-1], offsets[index])
        self._offset, self._decoder = length, _decoder()

    def add(self, scored: Scored) -> None:
        """The next token."""
        spelling = self._spelling
        top = tuple(_named(spelling, *each) for each in scored.top)
        own = _named(spelling, scored.token, scored.logprob)
        self.tokens.append(Token(own.name, own.bytes, own.logprob, self._offset, top))
        if not spelling.is_special(scored.token):
            # a character that is in several tokens is one, behind the last of them
            self._offset += len(self._decoder.decode(own.bytes))

    @property
    def waiting(self) -> bool:
        """Whether some were not taken yet."""
        return self._taken < len(self.tokens)

    def take(self) -> tuple[Token, ...]:
        """Those that were not taken yet."""
        new = tuple(self.tokens[self._taken :])
        self._taken = len(self.tokens)
        return new


def _decoder() -> codecs.IncrementalDecoder:
    return codecs.getincrementaldecoder("utf-8")("replace")


def _named(spelling: Spelling, token: int, logprob: float | None) -> Named:
    return Named(spelling.name(token), spelling.bytes(token), logprob)


def _at(token: Token, offset: int) -> Token:
    return Token(token.name, token.bytes, token.logprob, offset, token.top)


def of_chat(tokens: Sequence[Token]) -> dict[str, Any]:
    """As /v1/chat/completions has them."""
    rows = [_row(each) | {"top_logprobs": [_row(top) for top in each.top]} for each in tokens]
    return {"content": rows, "refusal": None}


def _row(token: Named) -> dict[str, Any]:
    return {"token": token.name, "logprob": token.logprob, "bytes": list(token.bytes)}


def of_text(tokens: Sequence[Token]) -> dict[str, Any]:
    """As /v1/completions has them: the token itself is among the likeliest always."""
    return {
        "tokens": [each.name for each in tokens],
        "token_logprobs": [each.logprob for each in tokens],
        "top_logprobs": [_by_name(each) for each in tokens],
        "text_offset": [each.offset for each in tokens],
    }


def _by_name(token: Token) -> dict[str, float | None] | None:
    """By what they are called; of several tokens of one name the likeliest."""
    if token.logprob is None:
        return None
    found: dict[str, float | None] = {}
    for each in (*token.top, token):
        found.setdefault(each.name, each.logprob)
    return found
