"""Steps are as long as the time for them allows, in whole execution blocks."""

from __future__ import annotations

from inf_llm.serve.pace import SECONDS, Pace


def test_steps_take_the_time_they_shall() -> None:
    for speed in (3_000, 10_000, 40_000):
        pace = Pace(256, 100_000)
        for _ in range(20):
            pace.note(pace.tokens, pace.tokens / speed)
        assert pace.tokens % 256 == 0
        assert pace.tokens / speed <= SECONDS < (pace.tokens + 256) / speed


def test_a_slow_model_reads_a_block_and_a_fast_one_the_most() -> None:
    slow, fast = Pace(256, 2048), Pace(256, 2048)
    for pace, speed in ((slow, 100), (fast, 10**6)):
        pace.note(256, 256 / speed)
    assert (slow.tokens, fast.tokens) == (256, 2048)


def test_what_is_no_block_says_nothing_of_the_speed() -> None:
    pace = Pace(256, 2048)
    pace.note(256, 0.05)
    before = pace.tokens
    pace.note(0, 10.0)
    pace.note(3, 10.0)
    assert pace.tokens == before
