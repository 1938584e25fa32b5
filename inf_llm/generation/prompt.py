"""From a book and a question to token ids: reading, laying out, encoding, cutting to length."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

from inf_llm.checks import check_text, require
from inf_llm.config import TRUNCATIONS
from inf_llm.conversation import PLAIN, TEMPLATES
from inf_llm.errors import TextError

KEPT_HEAD = 128
"""First tokens that truncation "suffix" keeps, as in the published evaluation."""


def read_text(path: str | Path | None) -> str:
    """The text of a file, or of standard input where the path is None or "-".

    Raises:
        TextError: there is no such file, it is not UTF-8 text, or it is empty.
    """
    if path is None or str(path) == "-":
        name, data = "standard input", sys.stdin.buffer.read()
    else:
        name = str(path)
        try:
            data = Path(path).read_bytes()
        except (OSError, ValueError) as error:
            reason = getattr(error, "strerror", None) or error
            raise TextError(f"{name}: cannot be read: {reason}") from None
    text = _decoded(name, data)
    if not text.strip():
        raise TextError(f"{name}: is empty, there is nothing to read")
    return text


def _decoded(name: str, data: bytes) -> str:
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise TextError(
            f"{name}: is not text in UTF-8 (byte {error.start:,}): convert it to UTF-8 first"
        ) from None
    if "\0" in text:
        raise TextError(f"{name}: is not text: it has a zero byte, as binary files do")
    return text


def user_message(tokenizer: Any, text: str, conv_type: str | None) -> tuple[str, bool]:
    """Lay out what a user says, as the model was trained to be spoken to.

    Args:
        tokenizer: its own chat template is used where `conv_type` is None.
        text: the message.
        conv_type: a name of `CONV_TYPES`, or None.

    Returns:
        The prompt, and whether special tokens are to be added when it is encoded.
    """
    template = TEMPLATES.get(conv_type or "", getattr(tokenizer, "chat_template", None))
    if conv_type == PLAIN or template is None:
        return text, True
    prompt = tokenizer.apply_chat_template(
        [{"role": "user", "content": text}],
        chat_template=template,
        tokenize=False,
        add_generation_prompt=True,
    )
    return str(prompt), False


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
