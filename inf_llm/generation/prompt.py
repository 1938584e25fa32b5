"""From a prompt to token ids: encoding, cutting to length."""

from __future__ import annotations

from typing import Any

from inf_llm.checks import check_text, require
from inf_llm.config import TRUNCATIONS
from inf_llm.errors import TextError

KEPT_HEAD = 128
"""First tokens that truncation "suffix" keeps, as in the published evaluation."""


def encode(tokenizer: Any, text: str, add_special_tokens: bool = True) -> list[int]:
    """Token ids of a text of any length.

    Raises:
        TextError: it is no text; see `check_text`.
    """
    check_text("the text", text)
    encoded = tokenizer(
        text, add_special_tokens=add_special_tokens, truncation=False, verbose=False
    )
    return list(encoded["input_ids"])


def check_truncation(truncation: str | None) -> None:
    """Raise `SettingsError` unless there is such a way to cut a prompt."""
    message = f"truncation = {truncation!r} is not known; None, {' and '.join(TRUNCATIONS)} are"
    require(truncation is None or truncation in TRUNCATIONS, "truncation", message)


def fit(ids: list[int], limit: int, truncation: str | None) -> list[int]:
    """The prompt cut to at most `limit` tokens.

    Args:
        ids: the prompt.
        limit: tokens allowed, at least 1.
        truncation: None refuses a longer prompt; "suffix" keeps its first `KEPT_HEAD` tokens and
            its end; "middle" keeps its first and its last half.

    Raises:
        TextError: the prompt is longer and may not be cut, or there is no room for any.
        SettingsError: there is no such truncation.
    """
    check_truncation(truncation)
    if limit < 1:
        raise TextError(
            "max_len leaves no room for a prompt beside the answer: raise max_len, or ask for "
            "fewer new tokens"
        )
    if len(ids) <= limit:
        return ids
    if truncation is None:
        raise TextError(
            f"the prompt has {len(ids):,} tokens, but max_len leaves room for {limit:,}: raise "
            "max_len, or let it be cut with truncation=suffix or truncation=middle"
        )
    head = limit // 2 if truncation == "middle" else min(KEPT_HEAD, limit // 2)
    return ids[:head] + ids[len(ids) - (limit - head) :]
