"""What is counted is what there is: a budget is only worth as much."""

from __future__ import annotations

import gc
import weakref
from functools import cache
from typing import Any

import pytest
import torch

import inf_llm
from inf_llm.config import load_config
from inf_llm.demo.trial import haystack_text
from inf_llm.generation import Session
from inf_llm.generation import footprint as of_footprints
from inf_llm.generation.footprint import Footprints, footprint
from inf_llm.generation.prefix_cache import PrefixCache
from inf_llm.generation.tokens import encode

TEXTS = 6
BESIDE = 300_000
"""Bytes of a text that are no keys and values: noted pages, tables, room for the next block."""


@cache
def _loaded() -> tuple[Any, Any]:
    return inf_llm.load(load_config("demo-inf-llm", ["model.dtype=float32"]))


def _held_by_tensors() -> int:
    """Bytes of all tensors of this process, whatever holds them."""
    gc.collect()
    tensors = (each for each in gc.get_objects() if type(each) is torch.Tensor)
    storages = (tensor.untyped_storage() for tensor in tensors)
    return sum({storage.data_ptr(): storage.nbytes() for storage in storages}.values())


def _read(pool: PrefixCache, length: int) -> tuple[int, int]:
    """Bytes that some texts of a length take, and those that are counted."""
    _, tokenizer = _loaded()
    ids = encode(tokenizer, haystack_text()[: 8 * TEXTS * length])
    before, counted = _held_by_tensors(), pool.bytes
    for first in range(0, TEXTS * length, length):
        pool.read(ids[first : first + length], [length - 9])
    pool.trim()
    return _held_by_tensors() - before, pool.bytes - counted


@pytest.mark.parametrize("length", [300, 700, 2500])
def test_nothing_of_a_kept_text_is_left_out(length: int) -> None:
    """Of one that fills no window, of one that has just some blocks, and of a longer one."""
    pool = PrefixCache(*_loaded())
    taken, counted = _read(pool, length)
    assert counted > 3_000_000
    assert counted * 0.9 < taken < counted * 1.1 + TEXTS * BESIDE


def test_a_session_is_looked_at_again_only_when_it_was_fed(monkeypatch: pytest.MonkeyPatch) -> None:
    looked: list[Session] = []
    look = of_footprints._look
    monkeypatch.setattr(of_footprints, "_look", lambda each: looked.append(each) or look(each))
    model, tokenizer = _loaded()
    sessions = [Session(model, tokenizer, 64) for _ in range(3)]
    counted = Footprints()
    for turn in range(4):
        for session in sessions[turn:]:
            session.read("It was the best of times, it was the worst of times. " * 20)
        looked.clear()
        assert counted.of(sessions) == footprint(sessions)
        assert len(looked) == len(sessions[turn:]) + len(sessions)  # and each by `footprint`
    gone = weakref.ref(sessions.pop())
    looked.clear()
    session = None
    gc.collect()
    assert gone() is None, "what was counted is not kept alive"


def test_control_a_view_that_holds_more_than_it_shows_is_found() -> None:
    pool = PrefixCache(*_loaded())
    taken, counted = _read(pool, 300)
    for kept in pool._kept:
        for layer in kept.session.cache.memories:
            for member in layer.rows.members:
                member.memory.sinks = tuple(torch.zeros(1, 2, 512, 64)[:, :, :0] for _ in range(2))
    more = _held_by_tensors()
    assert pool.bytes == counted
    pool.clear()
    assert more - _held_by_tensors() > counted * 1.1 + TEXTS * BESIDE
    assert taken < counted * 1.1 + TEXTS * BESIDE
