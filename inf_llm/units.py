"""Parsing and display of lengths, sizes and speeds."""

from __future__ import annotations

import re

from inf_llm.errors import SettingsError

_LENGTHS = {"m": 1 << 20, "k": 1 << 10, "": 1}
_BYTES = {
    **{unit + "i": 1 << 10 * power for power, unit in enumerate("kmgt", 1)},
    **{unit: 1000**power for power, unit in enumerate(("", *"kmgt"))},
}
MAX_TOKENS = 1 << 30
MIN_SECONDS, MIN_TOKENS = 0.5, 16
"""Minimum time and tokens of a speed; below them, the clock is too coarse to give one."""


def parse_length(option: str, text: str) -> int:
    """Parse a number of tokens: 512, 32k, 1M.

    Raises:
        SettingsError: the text is not a number of tokens, or is more than `MAX_TOKENS`.
    """
    match = re.fullmatch(r"\s*([0-9]+)([km]?)\s*", text.lower())
    length = int(match[1]) * _LENGTHS[match[2]] if match else 0
    if not 0 < length <= MAX_TOKENS:
        raise SettingsError(
            f"{option} {text.strip()!r} is not a number of tokens: write 512, 32k or 1M, at most "
            f"{short(MAX_TOKENS)}"
        )
    return length


def parse_lengths(option: str, text: str) -> tuple[int, ...]:
    """Parse several numbers of tokens, such as 4k,32k, and return them in ascending order."""
    return tuple(sorted({parse_length(option, part) for part in text.split(",")}))


def short(length: int) -> str:
    """Format a number of tokens: 131072 as 128k, 1536 as 1.5k."""
    unit = next((u for u, n in _LENGTHS.items() if length >= n and length % -(-n // 4) == 0), "")
    return f"{length / _LENGTHS[unit]:.15g}{unit.replace('m', 'M')}"


def parse_bytes(option: str, text: str) -> int:
    """Parse a number of bytes: 8GiB, 500MB, 1000000.

    Raises:
        SettingsError: the text is not a size.
    """
    match = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([kmgt]i?)?b?\s*", text.lower())
    count = int(float(match[1]) * _BYTES[match[2] or ""]) if match else 0
    if count < 1:
        raise SettingsError(f"{option} = {text!r} is not a size: write 8GiB, 500MB or 1000000")
    return count


def size(count: int) -> str:
    """Format a number of bytes, for example as 18.0 MB."""
    power = next((power for power in range(4) if count < 1000 ** (power + 1)), 4)
    return f"{count / 1000**power:.{min(power, 1)}f} {('B', 'KB', 'MB', 'GB', 'TB')[power]}"


def pace(tokens: int, seconds: float) -> str:
    """Format a time, followed by the speed if time and tokens are enough to measure one."""
    if tokens < MIN_TOKENS or seconds < MIN_SECONDS:
        return f"{seconds:.1f} s"
    return f"{seconds:.1f} s ({tokens / seconds:,.{1 if tokens < 100 * seconds else 0}f} tokens/s)"
