"""Which kept sessions a prompt begins with, and which one leaves."""

from __future__ import annotations

from array import array
from typing import Any

from inf_llm.generation.kept import Kept, beginnings, least


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
