"""What the measuring commands read from their command lines in the same way."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from inf_llm.errors import InfLLMError


def parse_lengths(text: str, option: str = "--lengths") -> tuple[int, ...]:
    """`32k,1M` as ascending numbers of tokens.

    Raises:
        InfLLMError: an entry is no positive number.
    """
    lengths = set()
    for entry in text.split(","):
        digits = entry.strip().lower()
        factor = {"k": 1 << 10, "m": 1 << 20}.get(digits[-1:], 1)
        digits = digits if factor == 1 else digits[:-1]
        if not digits.isdecimal() or int(digits) < 1:
            raise InfLLMError(
                f"{option}: {entry.strip()!r} is not a number of tokens: write 4096, 32k or 1M"
            )
        lengths.add(int(digits) * factor)
    return tuple(sorted(lengths))


def parse_length(text: str, option: str) -> int:
    """One number of tokens, as in `parse_lengths`."""
    lengths = parse_lengths(text, option)
    if len(lengths) > 1:
        raise InfLLMError(f"{option}: {text!r} is more than one number of tokens")
    return lengths[0]


def check_folder(path: Path | str | None) -> None:
    """See that a file can be written here later, before the work begins.

    Raises:
        InfLLMError: its folder does not exist.
    """
    if path is not None and not Path(path).resolve().parent.is_dir():
        raise InfLLMError(f"{path} cannot be written: its folder does not exist")


def write_json(path: Path | str | None, facts: Any) -> None:
    """Write figures, where a file was named.

    Raises:
        InfLLMError: it cannot be written.
    """
    if path is None:
        return
    try:
        Path(path).write_text(json.dumps(facts, indent=2) + "\n", encoding="utf-8")
    except OSError as error:
        raise InfLLMError(f"--json {path} cannot be written: {error}") from error
