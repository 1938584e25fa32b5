"""The answers of a request, and the events while they are given."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from inf_llm.generation.calls import Call
from inf_llm.serve.logprobs import Token


@dataclass(frozen=True)
class Reading:
    """So many tokens of a prompt are read."""

    done: int
    total: int


@dataclass(frozen=True)
class Delta:
    """More of an answer.

    Attributes:
        index: of the answer, among those of the request.
        text: what is new.
        tokens: those that are reported with it.
    """

    index: int
    text: str
    tokens: tuple[Token, ...] = ()


@dataclass(frozen=True)
class Choice:
    """An answer is complete.

    Attributes:
        index: of the answer, among those of the request.
        text: all of it, but for calls.
        reason: "stop", or "length" where it was cut.
        tokens: how many were generated.
        passages: what was recalled, in the form of the API; None where it was not asked for.
        reported: its tokens, and those of the prompt where that is repeated; None where they were
            not asked for.
        calls: of functions.
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
    """All answers of a request are complete.

    Attributes:
        choices: the answers, by their index.
        prompt_tokens, cached_tokens: of all prompts; cached ones were in memory already.
        cut_tokens: tokens of prompts that were left out; they are not in `prompt_tokens`.
        first_token: seconds from the start of the job to the first token.
    """

    choices: tuple[Choice, ...]
    prompt_tokens: int
    cached_tokens: int
    cut_tokens: int
    first_token: float

    @property
    def new_tokens(self) -> int:
        """Tokens of all answers."""
        return sum(choice.tokens for choice in self.choices)
