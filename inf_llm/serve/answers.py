"""The answers of a request, and the events of their generation."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from inf_llm.generation.calls import Call
from inf_llm.serve.logprobs import Token


@dataclass(frozen=True)
class Reading:
    """An event: `done` of `total` tokens of a prompt are read."""

    done: int
    total: int


@dataclass(frozen=True)
class Delta:
    """An event: the next piece of an answer.

    Attributes:
        index: number of the answer within the request.
        text: the piece.
        tokens: tokens that are reported with the piece.
    """

    index: int
    text: str
    tokens: tuple[Token, ...] = ()


@dataclass(frozen=True)
class Choice:
    """An event: a complete answer.

    Attributes:
        index: number of the answer within the request.
        text: the whole text, without function calls.
        reason: "stop", or "length" for an answer that was cut.
        tokens: number of generated tokens.
        passages: recalled passages as JSON of the API; None if they are not requested.
        reported: the tokens of the answer, after those of a repeated prompt; None if they are not
            requested.
        calls: function calls.
    """

    index: int
    text: str
    reason: str
    tokens: int
    passages: list[dict[str, Any]] | None = None
    reported: tuple[Token, ...] | None = None
    calls: tuple[Call, ...] = ()


@dataclass(frozen=True)
class Answered:
    """An event: all answers of a request are complete.

    Attributes:
        choices: the answers, in the order of their index.
        prompt_tokens: tokens of all prompts.
        cached_tokens: prompt tokens that were in memory already.
        cut_tokens: prompt tokens that were left out; they are not in `prompt_tokens`.
        first_token: seconds from the start of the job to the first token.
    """

    choices: tuple[Choice, ...]
    prompt_tokens: int
    cached_tokens: int
    cut_tokens: int
    first_token: float

    @property
    def new_tokens(self) -> int:
        """Number of tokens of all answers."""
        return sum(choice.tokens for choice in self.choices)
