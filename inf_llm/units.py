"""Lengths, sizes and speeds: how each is written on a command line, and how each is shown."""

from __future__ import annotations

import re

from inf_llm.errors import SettingsError

_LENGTHS = {"m": 1 << 20, "k": 1 << 10, "": 1}
_BYTES = {
    **{unit + "i": 1 << 10 * power for power, unit in enumerate("kmgt", 1)},
    **{unit: 1000**power for power, unit in enumerate(("", *"kmgt"))},
}
MOST_TOKENS = 1 << 30
LEAST_SECONDS, LEAST_TOKENS = 0.5, 16
"""Below these a speed says more about the clock than about the model."""


def parse_length(option: str, text: str) -> int:
    """A number of tokens: 512, 32k, 1M.

    Raises:
        SettingsError: it is none, or more than `MOST_TOKENS`.
    """
    found = re.fullmatch(r"\s*([0-9]+)([km]?)\s*", text.lower())
    length = int(found[1]) * _LENGTHS[found[2]] if found else 0
    if not 0 < length <= MOST_TOKENS:
        raise SettingsError(
            f"{option} {text.strip()!r} is not a number of tokens: write 512, 32k or 1M, at most "
            f"{short(MOST_TOKENS)}"
        )
    return length


def parse_lengths(option: str, text: str) -> tuple[int, ...]:
    """Several numbers of tokens, ascending: 4k,32k."""
    return tuple(sorted({parse_length(option, part) for part in text.split(",")}))


def short(length: int) -> str:
    """131072 as 128k, 1536 as 1.5k."""
    unit = next((u for u, n in _LENGTHS.items() if length >= n and length % -(-n // 4) == 0), "")
    return f"{length / _LENGTHS[unit]:.15g}{unit.replace('m', 'M')}"


def parse_bytes(option: str, text: str) -> int:
    """A number of bytes: 8GiB, 500MB, 1000000.

    Raises:
        SettingsError: it is none.
    """
    found = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([kmgt]i?)?b?\s*", text.lower())
    count = int(float(found[1]) * _BYTES[found[2] or ""]) if found else 0
    if count < 1:
        raise SettingsError(f"{option} = {text!r} is not a size: write 8GiB, 500MB or 1000000")
    return count


def size(count: int) -> str:
    """Bytes as 18.0 MB."""
    power = next((power for power in range(4) if count < 1000 ** (power + 1)), 4)
    return f"{count / 1000**power:.{min(power, 1)}f} {('B', 'KB', 'MB', 'GB', 'TB')[power]}"


def pace(tokens: int, seconds: float) -> str:
    """A time, and the speed in it where it was long enough to tell one."""
    if tokens < LEAST_TOKENS or seconds < LEAST_SECONDS:
        return f"{seconds:.1f} s"
    return f"{seconds:.1f} s ({tokens / seconds:,.{1 if tokens < 100 * seconds else 0}f} tokens/s)"
