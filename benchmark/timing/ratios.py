"""Ratios of the measured figures, with the limits that they must meet."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from benchmark.timing.presets import K
from benchmark.timing.report import Ratio, Row
from inf_llm.units import short

_PREFILL, _TAIL, _DECODE = "prefill_tok_s", "prefill_tail_us_tok", "decode_ms"
_OWN, _FULL, _WINDOW, _PLAIN = "inf-llm", "origin", "stream-lm", "inf-llm:reference"


@dataclass(frozen=True)
class Wish:
    """A wanted ratio of one figure between two cells; a cell is (type, length)."""

    text: str
    figure: str
    above: tuple[str, int]
    below: tuple[str, int]
    limit: float
    at_least: bool = False


def ratios(rows: Sequence[Row], target: str) -> list[Ratio]:
    """Return the ratios that the rows allow, for a `target` machine: cpu, h200 or none."""
    if target == "none":
        return []
    measured = {(row["type"], row["length"]): row for row in rows}
    lengths = sorted({row["length"] for row in rows})
    wishes = [*(_CPU if target == "cpu" else _H200), *_against_window(lengths)]
    found = (_ratio(wish, measured) for wish in wishes)
    return [*(ratio for ratio in found if ratio is not None), *_flat_bytes(measured, lengths)]


def _ratio(wish: Wish, measured: dict[tuple[str, int], Row]) -> Ratio | None:
    """Return the ratio; None if one of its two figures was not measured."""
    above, below = measured.get(wish.above, {}), measured.get(wish.below, {})
    if above.get(wish.figure) is None or below.get(wish.figure) is None:
        return None
    best = f"{wish.figure}_{'max' if wish.figure == _PREFILL else 'min'}"
    return Ratio(
        wish.text,
        above[wish.figure] / below[wish.figure],
        above[best] / below[best],
        wish.limit,
        wish.at_least,
    )


_CPU = (
    Wish(
        "decode at 128k, time of origin over inf-llm",
        _DECODE,
        (_FULL, 128 * K),
        (_OWN, 128 * K),
        4,
        at_least=True,
    ),
    Wish(
        "decode of inf-llm, time at 512k over 32k", _DECODE, (_OWN, 512 * K), (_OWN, 32 * K), 1.25
    ),
    Wish(
        "prefill of 64k, speed of inf-llm over origin",
        _PREFILL,
        (_OWN, 64 * K),
        (_FULL, 64 * K),
        3,
        at_least=True,
    ),
    Wish(
        "prefill of inf-llm, time per token in the last tenth of 512k over that of 32k",
        _TAIL,
        (_OWN, 512 * K),
        (_OWN, 32 * K),
        1.25,
    ),
)

_H200 = (
    Wish(
        "decode, speed of inf-llm at 128k over origin at 4k",
        _DECODE,
        (_FULL, 4 * K),
        (_OWN, 128 * K),
        0.8,
        at_least=True,
    ),
    Wish("decode of inf-llm, time at 1M over 128k", _DECODE, (_OWN, K * K), (_OWN, 128 * K), 1.25),
    *(
        Wish(
            f"prefill of 128k, speed of inf-llm over {other}",
            _PREFILL,
            (_OWN, 128 * K),
            (other, 128 * K),
            2,
            at_least=True,
        )
        for other in (_FULL, _PLAIN)
    ),
    Wish(
        "decode at 128k, time of inf-llm:reference over inf-llm",
        _DECODE,
        (_PLAIN, 128 * K),
        (_OWN, 128 * K),
        4,
        at_least=True,
    ),
)


def _against_window(lengths: Sequence[int]) -> Iterator[Wish]:
    """Yield the wanted ratios to stream-lm with as many visible tokens, at each length."""
    for length in lengths:
        own, window, at = (_OWN, length), (_WINDOW, length), short(length)
        yield Wish(f"prefill of {at}, time of inf-llm over stream-lm", _PREFILL, window, own, 1.6)
        yield Wish(f"decode at {at}, time of inf-llm over stream-lm", _DECODE, own, window, 1.5)


def _flat_bytes(measured: dict[tuple[str, int], Row], lengths: Sequence[int]) -> Iterator[Ratio]:
    """Yield the ratio of the most to the least device bytes from 16k on, which must be 1."""
    long = [n for n in lengths if n >= 16 * K and (_OWN, n) in measured]
    if len(long) < 2:
        return
    counts = [measured[_OWN, n]["device_kv_bytes"] for n in long]
    text = f"device bytes of inf-llm, most over least from {short(long[0])} to {short(long[-1])}"
    ratio = max(counts) / min(counts)
    yield Ratio(text, ratio, ratio, 1, at_least=False)
