"""Log-likelihoods of tokens, in the formats of OpenAI's API."""

from __future__ import annotations

import codecs
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from inf_llm.generation.likelihood import Scored
from inf_llm.generation.spelling import Spelling

MAX_TOP = 20
"""Most of the likeliest tokens that a request may list at each position."""


@dataclass(frozen=True)
class Named:
    """The name and the log-likelihood of a token.

    Attributes:
        name, bytes: text and bytes of the token; see `Spelling`.
        logprob: log-likelihood in nats; see `Scored`.
    """

    name: str
    bytes: bytes
    logprob: float | None


@dataclass(frozen=True)
class Token(Named):
    """A token of a prompt or an answer.

    Attributes:
        offset: number of characters of the text before the token.
        top: the likeliest tokens at this position.
    """

    offset: int
    top: tuple[Named, ...]


class Report:
    """The reported tokens of one answer in generation.

    Args:
        spelling: names and bytes of tokens.

    Attributes:
        tokens: all tokens so far.
    """

    def __init__(self, spelling: Spelling) -> None:
        self.tokens: list[Token] = []
        self._spelling = spelling
        self._offset = self._taken = 0
        self._decoder = _decoder()

    def begin(self, scored: Iterable[Scored], offsets: Sequence[int] | None, length: int) -> None:
        """Begin the report with a repeated prompt.

        Args:
            scored: the tokens of the prompt.
            offsets: start of each token in characters; None if the tokenizer gives no offsets.
            length: number of characters of the prompt.
        """
        for index, each in enumerate(scored):
            self.add(each)
            if offsets is not None:
                self.tokens[-1] = _at(self.tokens[-1], offsets[index])
        self._offset, self._decoder = length, _decoder()

    def add(self, scored: Scored) -> None:
        """Append the next token."""
        spelling = self._spelling
        top = tuple(_named(spelling, *each) for each in scored.top)
        token = _named(spelling, scored.token, scored.logprob)
        self.tokens.append(Token(token.name, token.bytes, token.logprob, self._offset, top))
        if not spelling.is_special(scored.token):
            # a character that spans several tokens counts once, after the last of them
            self._offset += len(self._decoder.decode(token.bytes))

    @property
    def waiting(self) -> bool:
        """Whether there are tokens that `take` has not returned yet."""
        return self._taken < len(self.tokens)

    def take(self) -> tuple[Token, ...]:
        """Return the tokens since the last call."""
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
    """Format tokens as /v1/chat/completions does."""
    rows = [_row(each) | {"top_logprobs": [_row(top) for top in each.top]} for each in tokens]
    return {"content": rows, "refusal": None}


def _row(token: Named) -> dict[str, Any]:
    return {"token": token.name, "logprob": token.logprob, "bytes": list(token.bytes)}


def of_text(tokens: Sequence[Token]) -> dict[str, Any]:
    """Format tokens as /v1/completions does, with each token among its own likeliest ones."""
    return {
        "tokens": [each.name for each in tokens],
        "token_logprobs": [each.logprob for each in tokens],
        "top_logprobs": [_by_name(each) for each in tokens],
        "text_offset": [each.offset for each in tokens],
    }


def _by_name(token: Token) -> dict[str, float | None] | None:
    """Return log-likelihoods by name; of several tokens with one name the likeliest counts."""
    if token.logprob is None:
        return None
    logprobs: dict[str, float | None] = {}
    for scored in (*token.top, token):
        logprobs.setdefault(scored.name, scored.logprob)
    return logprobs
