"""Which kept sessions a prompt begins with, and which one leaves."""

from __future__ import annotations

from array import array
from types import SimpleNamespace
from typing import Any

import pytest

from inf_llm.generation.kept import (
    Kept,
    KeptSessions,
    beginnings,
    least,
    marks,
    overlap,
    without,
)


def kept(tokens: str, used: int = 0) -> Kept:
    session: Any = None
    return Kept(array("q", map(int, tokens)), session, used)


def test_beginnings_leave_a_token_to_feed() -> None:
    some = [kept(""), kept("1"), kept("12"), kept("123"), kept("13"), kept("1234")]
    assert beginnings(some, array("q", [1, 2, 3])) == some[:3]


def test_who_was_used_least_recently_leaves_first() -> None:
    old, new = kept("123456", 1), kept("7", 2)
    assert least([new, old], [new, old]) is old


def test_of_one_text_what_is_read_again_most_quickly() -> None:
    root, branch, leaf = kept("12345"), kept("1234567"), kept("12345678")
    some = [root, branch, leaf]
    assert least(some, some) is leaf
    assert least([root, branch], some) is branch


def key(tokens: str) -> array[int]:
    return array("q", map(int, tokens))


@pytest.mark.parametrize(("points", "stays"), [(2, ["12", "3"]), (None, ["1", "12"])])
def test_of_too_many_the_newest_stays(points: int | None, stays: list[str]) -> None:
    """It is worth least here, for those before it were used after it was read."""
    session: Any = SimpleNamespace(can_cut=True)
    some = KeptSessions(session, points)
    for each in ("1", "12", "3"):
        some.keep(key(each), session)
    some.use(key("123"))
    some.evict_one()
    assert [each.key for each in some] == [key(each) for each in stays]


def test_a_text_is_found_wherever_it_stands_as_far_as_it_was_read() -> None:
    text = key("3456")
    assert [overlap(key(each), text) for each in ("123456", "1234567", "12345", "3456")] == [
        4,
        4,
        0,  # its first tokens are needed
        4,
    ]
    long = array("q", [*range(100)])
    assert overlap(long[:80], long) == 80
    assert overlap(array("q", [7]) + long, long) == 100
    assert overlap(long[:70] + array("q", [5]), long) == 0, "they part"
    assert overlap(key("1"), key("")) == 0


def test_what_has_a_text_goes_but_for_what_another_shares() -> None:
    some = [kept("12"), kept("1234"), kept("12345"), kept("9345"), kept("12347")]

    def left(*shared: str) -> list[Kept]:
        return without(some, key("34"), [key(each) for each in shared])

    assert left() == some[:1]
    assert left("1234") == [*some[:3], some[4]], "the same text: conversations about it stay too"
    assert left("12345") == some[:3]
    longer = without(some, key("345"), [key("1234")])
    assert longer == [some[0], some[1], some[4]], "a beginning is shared, and nothing more"


def test_forks_stand_in_whole_blocks_and_before_the_end_of_long_reads() -> None:
    assert marks([], range(64), 8, 8) == [32, 56]
    assert marks([], range(56), 8, 8) == []
    assert marks([13, 64, 3], range(8, 64), 8, 8) == []
    assert marks([21, 40, 70], range(8, 64), 8, 8) == [16, 40]
    assert marks([130], range(64, 256), 8, 16) == [128, 192, 240]
