"""The ratios that the figures are to show, computed from the rows that are there."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

from benchmark.timing.presets import K
from benchmark.timing.report import Ratio, Row, short

Value = Callable[[str, int, str], float | None]
"""A figure by type, length and name; None where it was not measured."""


def ratios(rows: Sequence[Row], target: str) -> list[Ratio]:
    """What can be said from these rows, for the machine class `target` (cpu or h200)."""
    held = {(row["type"], row["length"]): row for row in rows}

    def value(kind: str, length: int, name: str) -> float | None:
        return held.get((kind, length), {}).get(name)

    lengths = sorted({row["length"] for row in rows})
    if target == "cpu":
        found = [*_cpu(value), *_against_window(value, lengths)]
    else:
        found = [*_h200(value), *_against_window(value, lengths)]
    found += _flat_bytes(value, lengths)
    return [ratio for ratio in found if ratio is not None]


def _ratio(
    text: str, above: float | None, below: float | None, limit: float, at_least: bool
) -> Ratio | None:
    if above is None or below is None:
        return None
    return Ratio(text, above / below, limit, at_least)


def _cpu(value: Value) -> Iterator[Ratio | None]:
    own, full = "inf-llm", "origin"
    yield _ratio(
        "decode at 128k, time of origin over inf-llm",
        value(full, 128 * K, "decode_ms"),
        value(own, 128 * K, "decode_ms"),
        4,
        True,
    )
    yield _ratio(
        "decode of inf-llm, time at 512k over 32k",
        value(own, 512 * K, "decode_ms"),
        value(own, 32 * K, "decode_ms"),
        1.25,
        False,
    )
    yield _ratio(
        "prefill of 64k, speed of inf-llm over origin",
        value(own, 64 * K, "prefill_tok_s"),
        value(full, 64 * K, "prefill_tok_s"),
        3,
        True,
    )
    yield _ratio(
        "prefill of inf-llm, time per token in the last tenth of 512k over that of 32k",
        value(own, 512 * K, "prefill_tail_us_tok"),
        value(own, 32 * K, "prefill_tail_us_tok"),
        1.25,
        False,
    )


def _against_window(value: Value, lengths: Sequence[int]) -> Iterator[Ratio | None]:
    for length in lengths:
        yield _ratio(
            f"prefill of {short(length)}, time of inf-llm over stream-lm with as many tokens",
            value("stream-lm", length, "prefill_tok_s"),
            value("inf-llm", length, "prefill_tok_s"),
            1.6,
            False,
        )
        yield _ratio(
            f"decode at {short(length)}, time of inf-llm over stream-lm with as many tokens",
            value("inf-llm", length, "decode_ms"),
            value("stream-lm", length, "decode_ms"),
            1.5,
            False,
        )


def _h200(value: Value) -> Iterator[Ratio | None]:
    own, full, plain = "inf-llm", "origin", "inf-llm:reference"
    yield _ratio(
        "decode, speed of inf-llm at 128k over origin at 4k",
        value(full, 4 * K, "decode_ms"),
        value(own, 128 * K, "decode_ms"),
        0.8,
        True,
    )
    yield _ratio(
        "decode of inf-llm, time at 1M over 128k",
        value(own, K * K, "decode_ms"),
        value(own, 128 * K, "decode_ms"),
        1.25,
        False,
    )
    for other, limit in ((full, 2), (plain, 2)):
        yield _ratio(
            f"prefill of 128k, speed of inf-llm over {other}",
            value(own, 128 * K, "prefill_tok_s"),
            value(other, 128 * K, "prefill_tok_s"),
            limit,
            True,
        )
    yield _ratio(
        "decode at 128k, time of inf-llm:reference over inf-llm",
        value(plain, 128 * K, "decode_ms"),
        value(own, 128 * K, "decode_ms"),
        4,
        True,
    )


def _flat_bytes(value: Value, lengths: Sequence[int]) -> Iterator[Ratio | None]:
    """Device bytes from 16k on: equal, so the ratio is 1 and no more."""
    long = [n for n in lengths if n >= 16 * K and value("inf-llm", n, "device_kv_bytes")]
    if len(long) < 2:
        return
    held = [value("inf-llm", n, "device_kv_bytes") or 0.0 for n in long]
    text = f"device bytes of inf-llm, most over least from {short(long[0])} to {short(long[-1])}"
    yield Ratio(text, max(held) / min(held), 1, False)
